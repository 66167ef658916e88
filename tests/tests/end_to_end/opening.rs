//! Servers that refuse or are not there, and clients that vanish.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mimbox_stack::Counter;
use mimbox_tools::lab::transfer::{Direction, Outcome};
use mimbox_tools::lab::{Configuration, Family, LabOptions, Mode, Plan, Transfer};

use crate::bench::{Bench, PORT};

/// How a connection attempt to `to` came out, and after how long.
fn attempt(bench: &mut Bench, transfer: &Transfer) -> Result<(Outcome, Duration)> {
    let began = Instant::now();
    let report = transfer.run(&bench.lab, &mut bench.server)?;
    let outcome = report.client.first().context("no report")?.outcome;
    Ok((outcome, began.elapsed()))
}

#[test]
fn a_server_that_refuses_is_a_connection_refused_at_once() -> Result<()> {
    for mode in [Mode::Explicit, Mode::Transparent] {
        let Some(mut bench) = Bench::new(mode)? else { return Ok(()) };
        for mptcp in [true, false] {
            let to = Some((Plan::server(Family::V4), PORT + 99).into());
            let transfer = Transfer { to, mptcp, ..Transfer::new(Direction::Upload, 1) };
            let (outcome, took) = attempt(&mut bench, &transfer)?;
            ensure!(outcome == Outcome::Refused, "{mode}: {outcome:?}");
            ensure!(took < Duration::from_secs(2), "{mode}: it took {took:?}");
        }
        let stats = bench.settled()?;
        ensure!(mode == Mode::Transparent || stats.counters.get(Counter::OpeningsRefused) == 2, "{:?}", stats.counters);
    }
    Ok(())
}

#[test]
fn a_destination_that_policy_forbids_is_refused() -> Result<()> {
    let mode = Mode::Explicit;
    let extra = format!("[policy]\ndeny = [\"{}/32\"]\n", Plan::server(Family::V4));
    let configuration = Configuration { extra, ..Configuration::new(mode) };
    let Some(mut bench) = Bench::with(LabOptions { mode, ..LabOptions::default() }, &configuration)? else {
        return Ok(());
    };
    let (outcome, _) = attempt(&mut bench, &Transfer::new(Direction::Upload, 1))?;
    ensure!(outcome == Outcome::Refused, "{outcome:?}");
    // An idle box publishes its counters a few times a second.
    crate::bench::eventually(Duration::from_secs(5), || {
        ensure!(bench.settled()?.counters.get(Counter::DstOptForbidden) >= 1, "no counter says so");
        Ok(())
    })
}
