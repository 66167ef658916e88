//! Servers that refuse or are not there, and clients that vanish.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mimbox_stack::Counter;
use mimbox_tools::lab::transfer::{Direction, Outcome};
use mimbox_tools::lab::{BoxRole, Configuration, Family, Lab, LabOptions, Mode, Path, Plan, Transfer, TransferServer};

use crate::bench::{Bench, MIB, PORT, turn};

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

/// The outcome and time of connecting to an address where nobody is, with a kernel as the router.
fn without_the_box() -> Result<(Outcome, Duration)> {
    let mode = Mode::Transparent;
    let lab = Lab::build(LabOptions { mode, box_role: BoxRole::KernelRouter, ..LabOptions::default() })?;
    let mut server = TransferServer::start(&lab, PORT)?;
    let transfer = Transfer {
        to: Some((Plan::nobody(Family::V4), PORT).into()),
        stall: 120,
        ..Transfer::new(Direction::Upload, 1)
    };
    let began = Instant::now();
    let report = transfer.run(&lab, &mut server)?;
    Ok((report.client.first().context("no report")?.outcome, began.elapsed()))
}

#[test]
fn a_server_that_is_not_there_is_the_same_error_as_without_the_box() -> Result<()> {
    let Some(turn) = turn()? else { return Ok(()) };
    let (expected, usual) = without_the_box()?;
    drop(turn);
    for mode in [Mode::Explicit, Mode::Transparent] {
        let Some(mut bench) = Bench::new(mode)? else { return Ok(()) };
        let transfer = Transfer {
            to: Some((Plan::nobody(Family::V4), PORT).into()),
            stall: 120,
            ..Transfer::new(Direction::Upload, 1)
        };
        let (outcome, took) = attempt(&mut bench, &transfer)?;
        ensure!(outcome == expected, "{mode}: {outcome:?} instead of {expected:?}");
        let difference = took.abs_diff(usual);
        ensure!(difference < Duration::from_secs(4), "{mode}: it took {took:?} instead of {usual:?}");
        bench.settled()?;
    }
    Ok(())
}

#[test]
fn a_client_that_vanishes_leaves_nothing_behind() -> Result<()> {
    let timeouts = "[tcp]\nuser_timeout = \"5s\"\nkeepalive = \"2s\"\n[mptcp]\nno_subflow_timeout = \"5s\"\n";
    for direction in [Direction::Upload, Direction::Download] {
        let Some(bench) = Bench::configured(Mode::Explicit, timeouts)? else { return Ok(()) };
        let mut running = Transfer::new(direction, 1 << 30).start(&bench.lab, &bench.server)?;
        running.wait_for_bytes(&bench.lab, 8 * MIB, Duration::from_secs(30))?;
        for path in Path::BOTH {
            bench.lab.set_carrier(path, false)?;
        }
        running.process().kill()?;
        let stats = bench.middle.wait_until_idle(Duration::from_secs(120))?;
        ensure!(stats.pool.in_use == 0, "{direction:?}: {} frames are still in use", stats.pool.in_use);
        crate::bench::eventually(Duration::from_secs(10), || {
            let left = bench.lab.server().tcp_sockets()?;
            ensure!(left.is_empty(), "{direction:?}: the server still has {left:?}");
            Ok(())
        })?;
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
    // What the client has been told has been counted: a box that is asked tells the present.
    ensure!(bench.settled()?.counters.get(Counter::DstOptForbidden) >= 1, "no counter says so");
    Ok(())
}
