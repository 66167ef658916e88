//! Data goes through the box, by both paths, and the server sees plain TCP.

use anyhow::{Result, ensure};
use mimbox_stack::Counter;
use mimbox_tools::lab::transfer::{Direction, Sizes};
use mimbox_tools::lab::{
    Configuration, Family, LabOptions, Mode, Rate, ServerMptcp, ServerWatch, Transfer, TransferServer,
};

use crate::bench::{Bench, MIB, PORT};

/// A transfer in a mode and direction: whole, by both paths, without a trace of MPTCP at the server.
fn both_paths(mode: Mode, direction: Direction) -> Result<()> {
    // So slow that the paths are the bottleneck, on a busy machine too: else the one with the lower RTT takes most of it.
    let options = LabOptions { mode, rates: [Rate::mbit(100); 2], ..LabOptions::default() };
    let Some(mut bench) = Bench::with(options, &Configuration::new(mode))? else { return Ok(()) };
    let before = bench.middle.stats()?.pool.in_use;
    let namespace = bench.lab.server().name().to_owned();
    let namespace = mimbox_tools::lab::Namespace::existing(namespace);
    let watch = ServerWatch::begin(&namespace)?;
    let report = bench.transfer(&Transfer::new(direction, 96 * MIB))?;
    let shares = report.shares();
    ensure!(shares.iter().all(|&share| share > 0.2), "the paths carried {shares:?}");
    let seen = watch.counts()?;
    ensure!(seen.tcp > 0, "the server saw no TCP at all");
    // In transparent mode the SYN is the client's own and goes on with its options: the server may take them.
    let allowed = if mode == Mode::Transparent { 3 } else { 0 };
    ensure!(seen.mptcp <= allowed, "the server saw {} segments with MPTCP options", seen.mptcp);
    ensure!(seen.experimental == 0, "the server saw the destination option");
    let after = bench.settled()?;
    ensure!(after.pool.in_use == before, "{before} frames were in use before, {} after", after.pool.in_use);
    bench.no_sockets_left()
}

#[test]
fn an_upload_by_explicit_mode_uses_both_paths() -> Result<()> {
    both_paths(Mode::Explicit, Direction::Upload)
}

#[test]
fn a_download_by_explicit_mode_uses_both_paths() -> Result<()> {
    both_paths(Mode::Explicit, Direction::Download)
}

#[test]
fn an_upload_by_transparent_mode_uses_both_paths() -> Result<()> {
    both_paths(Mode::Transparent, Direction::Upload)
}

#[test]
fn a_download_by_transparent_mode_uses_both_paths() -> Result<()> {
    both_paths(Mode::Transparent, Direction::Download)
}

#[test]
fn data_goes_both_ways_at_once() -> Result<()> {
    let Some(mut bench) = Bench::new(Mode::Explicit)? else { return Ok(()) };
    bench.transfer(&Transfer::new(Direction::Both, 48 * MIB))?;
    bench.settled().map(drop)
}

#[test]
fn ipv6_goes_through_in_transparent_mode() -> Result<()> {
    let Some(mut bench) = Bench::new(Mode::Transparent)? else { return Ok(()) };
    for direction in [Direction::Upload, Direction::Download] {
        bench.transfer(&Transfer { family: Family::V6, ..Transfer::new(direction, 32 * MIB) })?;
    }
    bench.settled().map(drop)
}

#[test]
fn a_client_without_mptcp_works_in_both_modes() -> Result<()> {
    for mode in [Mode::Explicit, Mode::Transparent] {
        let Some(mut bench) = Bench::new(mode)? else { return Ok(()) };
        for direction in [Direction::Upload, Direction::Download] {
            let report = bench.transfer(&Transfer { mptcp: false, ..Transfer::new(direction, 32 * MIB) })?;
            ensure!(report.shares()[1] < 0.05, "plain TCP has one path: {:?}", report.shares());
        }
        bench.settled()?;
        bench.no_sockets_left()?;
    }
    Ok(())
}

#[test]
fn many_connections_at_once_come_out_whole() -> Result<()> {
    let Some(mut bench) = Bench::new(Mode::Explicit)? else { return Ok(()) };
    bench.transfer(&Transfer {
        connections: 500,
        parallel: 100,
        sizes: Sizes::LogUniform,
        ..Transfer::new(Direction::Both, 256 << 10)
    })?;
    bench.settled()?;
    bench.no_sockets_left()
}

#[test]
fn data_comes_out_whole_over_lossy_paths() -> Result<()> {
    for mode in [Mode::Explicit, Mode::Transparent] {
        let Some(mut bench) = Bench::new(mode)? else { return Ok(()) };
        bench.lab.set_loss(10)?;
        for direction in [Direction::Upload, Direction::Download] {
            bench.transfer(&Transfer { stall: 60, ..Transfer::new(direction, 16 * MIB) })?;
        }
        bench.lab.set_loss(0)?;
        bench.settled()?;
    }
    Ok(())
}

#[test]
fn an_mptcp_server_is_left_alone_in_transparent_mode() -> Result<()> {
    let mode = Mode::Transparent;
    let options = LabOptions { mode, server_mptcp: ServerMptcp::On, ..LabOptions::default() };
    let Some(mut bench) = Bench::with(options, &Configuration::new(mode))? else { return Ok(()) };
    let mut server = TransferServer::start_mptcp(&bench.lab, PORT + 1)?;
    let report = Transfer::new(Direction::Download, 32 * MIB).run(&bench.lab, &mut server)?;
    crate::bench::whole(&report)?;
    let stats = bench.middle.stats()?;
    ensure!(stats.counters.get(Counter::ForwardedFlows) >= 1, "no connection was left alone");
    ensure!(
        stats.counters.get(Counter::ConversionsOpened) == 0,
        "the box converted a connection that needs no converter"
    );
    let counters = bench.lab.server().protocol_counters()?;
    let accepted = counters.get("MPTcpExtMPCapableACKRX").copied().unwrap_or(0);
    ensure!(accepted >= 1, "the server's kernel saw no MPTCP connection");
    // The plain server beside it is still converted for.
    bench.transfer(&Transfer::new(Direction::Download, MIB))?;
    bench.settled().map(drop)
}
