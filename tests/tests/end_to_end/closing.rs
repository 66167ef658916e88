//! How connections end: half-close both ways, resets both ways, and nothing left in any kernel.

use anyhow::{Context as _, Result, ensure};
use mimbox_stack::Counter;
use mimbox_tools::lab::transfer::{Direction, Ending, Outcome};
use mimbox_tools::lab::{Mode, Transfer};

use crate::bench::{Bench, MIB};

fn half_close(mode: Mode, direction: Direction, ending: Ending) -> Result<()> {
    for mptcp in [true, false] {
        let Some(mut bench) = Bench::new(mode)? else { return Ok(()) };
        bench.transfer(&Transfer { ending, mptcp, ..Transfer::new(direction, 100 * MIB) })?;
        let stats = bench.settled()?;
        ensure!(stats.counters.get(Counter::ConversionsReset) == 0, "a connection was reset");
        bench.no_sockets_left()?;
    }
    Ok(())
}

#[test]
fn a_client_that_has_closed_still_receives_100_mib() -> Result<()> {
    half_close(Mode::Explicit, Direction::Download, Ending::ClientFirst)
}

#[test]
fn a_server_that_has_closed_still_receives_100_mib() -> Result<()> {
    half_close(Mode::Explicit, Direction::Upload, Ending::ServerFirst)
}

#[test]
fn a_client_that_has_closed_still_receives_100_mib_in_transparent_mode() -> Result<()> {
    half_close(Mode::Transparent, Direction::Download, Ending::ClientFirst)
}

#[test]
fn a_server_that_has_closed_still_receives_100_mib_in_transparent_mode() -> Result<()> {
    half_close(Mode::Transparent, Direction::Upload, Ending::ServerFirst)
}

/// A reset by one end reaches the other.
fn reset(mode: Mode, ending: Ending) -> Result<()> {
    for mptcp in [true, false] {
        for direction in [Direction::Upload, Direction::Download] {
            let Some(mut bench) = Bench::new(mode)? else { return Ok(()) };
            let transfer = Transfer { ending, mptcp, ..Transfer::new(direction, 16 * MIB) };
            let report = transfer.run(&bench.lab, &mut bench.server)?;
            let client = report.client.first().context("the client reported nothing")?;
            let server = report.server.first().context("the server reported nothing")?;
            let (own, other) = if ending == Ending::ClientReset { (client, server) } else { (server, client) };
            ensure!(own.outcome == Outcome::ResetByUs, "the end that resets: {own:?}");
            ensure!(other.outcome == Outcome::Reset, "the other end: {other:?}");
            bench.settled()?;
            bench.no_sockets_left()?;
        }
    }
    Ok(())
}

#[test]
fn a_clients_reset_reaches_the_server() -> Result<()> {
    reset(Mode::Explicit, Ending::ClientReset)
}

#[test]
fn a_servers_reset_reaches_the_client() -> Result<()> {
    reset(Mode::Explicit, Ending::ServerReset)
}

#[test]
fn a_clients_reset_reaches_the_server_in_transparent_mode() -> Result<()> {
    reset(Mode::Transparent, Ending::ClientReset)
}

#[test]
fn a_servers_reset_reaches_the_client_in_transparent_mode() -> Result<()> {
    reset(Mode::Transparent, Ending::ServerReset)
}
