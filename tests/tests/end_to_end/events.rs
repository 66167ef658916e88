//! What `mimbox events` tells while a kernel's client works.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mimbox_converter::events::EventRow;
use mimbox_tools::lab::transfer::Direction;
use mimbox_tools::lab::{Family, Lab, Mode, Path, Plan, Transfer};

use crate::bench::{Bench, MIB, eventually, whole};

const LIMIT: Duration = Duration::from_secs(30);

/// The events that were printed so far.
fn printed(lab: &Lab) -> Result<Vec<EventRow>> {
    let text = std::fs::read_to_string(lab.file("events.json"))?;
    let lines = text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned()));
    lines.collect()
}

/// Waits for an event of that name that has happened `count` times.
fn wait_for(lab: &Lab, name: &str, count: usize) -> Result<Vec<EventRow>> {
    eventually(LIMIT, || {
        let rows = printed(lab)?;
        let seen: Vec<EventRow> = rows.iter().filter(|row| row.event == name).cloned().collect();
        ensure!(seen.len() >= count, "{} times {name} in {rows:?}", seen.len());
        Ok(seen)
    })
}

#[test]
fn a_follower_hears_of_connections_subflows_addresses_and_ports() -> Result<()> {
    let Some(mut bench) = Bench::new(Mode::Transparent)? else { return Ok(()) };
    let mut follower = bench.middle.follow(&bench.lab.file("events.json"))?;
    let listening = wait_for(&bench.lab, "listening", 1)?;
    ensure!(listening[0].unread == Some(0), "{listening:?}");
    let mut running =
        Transfer { stall: 60, ..Transfer::new(Direction::Download, 96 * MIB) }.start(&bench.lab, &bench.server)?;
    let opened = wait_for(&bench.lab, "connection_opened", 1)?;
    ensure!(opened[0].protocol.as_deref() == Some("mptcp") && opened[0].mode.as_deref() == Some("transparent"));
    let joined = wait_for(&bench.lab, "subflow_joined", 1)?;
    ensure!(joined[0].connection == opened[0].connection && joined[0].port.as_deref() == Some("wan1"), "{joined:?}");
    let second = Plan::client(Path::Second, Family::V4);
    bench.lab.client().ip(&format!("mptcp endpoint change {second} backup\n"))?;
    wait_for(&bench.lab, "priority_changed", 1)?;
    bench.lab.set_port(Path::Second, false)?;
    ensure!(wait_for(&bench.lab, "port_down", 1)?[0].port.as_deref() == Some("wan1"));
    let withdrawn = wait_for(&bench.lab, "address_withdrawn", 1)?;
    ensure!(withdrawn[0].by.as_deref() == Some("box"), "{withdrawn:?}");
    wait_for(&bench.lab, "subflow_closed", 1)?;
    bench.lab.set_port(Path::Second, true)?;
    wait_for(&bench.lab, "port_up", 1)?;
    wait_for(&bench.lab, "address_announced", 2)?;
    ensure!(!running.is_over()?, "the transfer was over too soon to show anything");
    whole(&running.finish(&bench.lab, &mut bench.server)?)?;
    let closed = wait_for(&bench.lab, "connection_closed", 1)?;
    ensure!(closed[0].reason.as_deref() == Some("finished"), "{closed:?}");
    // A box that stops ends the stream.
    bench.settled()?;
    let Bench { middle, .. } = bench;
    middle.stop()?;
    let status = follower.wait(Duration::from_secs(5))?;
    ensure!(status.success(), "`mimbox events` ended with {status}");
    Ok(())
}

#[test]
fn whoever_follows_late_hears_what_nobody_read() -> Result<()> {
    let Some(mut bench) = Bench::new(Mode::Explicit)? else { return Ok(()) };
    bench.transfer(&Transfer::new(Direction::Download, MIB))?;
    bench.settled()?;
    let _follower = bench.middle.follow(&bench.lab.file("events.json"))?;
    wait_for(&bench.lab, "connection_closed", 1)?;
    let names: Vec<String> = printed(&bench.lab)?.into_iter().map(|row| row.event).collect();
    ensure!(names.first().map(String::as_str) == Some("listening") && names[1] == "connection_opened", "{names:?}");
    Ok(())
}
