//! Ports of the box itself that lose their link and get it back (RFC 8684 §3.4.1, §3.4.2), with the kernel's client.

use std::time::Duration;

use anyhow::{Result, ensure};
use mimbox_dataplane::record::{Cause, Recording};
use mimbox_stack::Counter;
use mimbox_tools::lab::transfer::Direction;
use mimbox_tools::lab::{Configuration, Lab, LabOptions, Mode, Path, Transfer};
use mimbox_tools::replay::{ReplayArgs, replay_file};

use crate::bench::{Bench, MIB, eventually, whole};

const LIMIT: Duration = Duration::from_secs(60);

/// One of the client kernel's own counters.
fn kernel(lab: &Lab, name: &str) -> Result<u64> {
    Ok(lab.client().protocol_counters()?.get(name).copied().unwrap_or(0))
}

/// What the box counted under a name.
fn counted(bench: &Bench, counter: Counter) -> Result<u64> {
    Ok(bench.middle.stats()?.counters.get(counter))
}

/// Takes a port's link away in the middle of a transfer and gives it back, and expects all bytes, and that the path is
/// used again.
fn lose_and_find(
    bench: &mut Bench,
    direction: Direction,
    path: Path,
    meanwhile: impl Fn(&Bench) -> Result<()>,
) -> Result<()> {
    let mut running = Transfer { stall: 60, ..Transfer::new(direction, 640 * MIB) }.start(&bench.lab, &bench.server)?;
    running.wait_for_bytes(&bench.lab, 32 * MIB, LIMIT)?;
    bench.lab.set_port(path, false)?;
    eventually(LIMIT, || {
        ensure!(counted(bench, Counter::LinksLost)? == 1, "the box has not seen the link go");
        meanwhile(bench)
    })?;
    let cut = running.path_bytes(&bench.lab)?;
    running.wait_for_bytes(&bench.lab, cut.iter().sum::<u64>() + 32 * MIB, LIMIT)?;
    bench.lab.set_port(path, true)?;
    let before = running.path_bytes(&bench.lab)?[path.index()];
    let report = running.finish(&bench.lab, &mut bench.server)?;
    whole(&report)?;
    let again = report.path_bytes[path.index()].saturating_sub(before);
    ensure!(again > 16 * MIB, "the path whose link is back carried only {again} bytes");
    ensure!(counted(bench, Counter::LinksBack)? == 1, "the box has not seen the link come back");
    bench.settled()?;
    bench.no_sockets_left()
}

/// The transparent box announces the address of its second port: that is withdrawn with the link and announced again.
fn announced_address(direction: Direction) -> Result<()> {
    let Some(mut bench) = Bench::new(Mode::Transparent)? else { return Ok(()) };
    lose_and_find(&mut bench, direction, Path::Second, |bench| {
        ensure!(counted(bench, Counter::MptcpRemoveAddrOut)? == 1, "nothing was withdrawn");
        ensure!(kernel(&bench.lab, "MPTcpExtRmAddr")? == 1, "the client heard of no withdrawal");
        Ok(())
    })?;
    let (announced, joins) = (kernel(&bench.lab, "MPTcpExtAddAddr")?, counted(&bench, Counter::MptcpJoinAccepted)?);
    ensure!(announced == 2, "the client heard {announced} announcements");
    ensure!(joins == 2, "{joins} subflows were joined");
    Ok(())
}

#[test]
fn an_announced_address_is_withdrawn_with_its_link_in_a_download_and_joined_again() -> Result<()> {
    announced_address(Direction::Download)
}

#[test]
fn an_announced_address_is_withdrawn_with_its_link_in_an_upload_and_joined_again() -> Result<()> {
    announced_address(Direction::Upload)
}

#[test]
fn a_download_survives_the_link_of_the_port_with_its_first_address() -> Result<()> {
    let Some(mut bench) = Bench::new(Mode::Explicit)? else { return Ok(()) };
    lose_and_find(&mut bench, Direction::Download, Path::First, |_| Ok(()))?;
    let withdrawn = counted(&bench, Counter::MptcpRemoveAddrOut)?;
    ensure!(withdrawn == 0, "the second path reaches that address too, and it was withdrawn");
    Ok(())
}

#[test]
fn a_recording_has_the_links_and_replays() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("links.pcapng");
    let arguments = vec!["--record".to_owned(), file.display().to_string()];
    let configuration = Configuration { arguments, ..Configuration::new(Mode::Transparent) };
    let options = LabOptions { mode: Mode::Transparent, ..LabOptions::default() };
    let Some(mut bench) = Bench::with(options, &configuration)? else { return Ok(()) };
    let mut running =
        Transfer { stall: 60, ..Transfer::new(Direction::Download, 48 * MIB) }.start(&bench.lab, &bench.server)?;
    running.wait_for_bytes(&bench.lab, 16 * MIB, LIMIT)?;
    bench.lab.set_port(Path::Second, false)?;
    let cut = running.path_bytes(&bench.lab)?;
    running.wait_for_bytes(&bench.lab, cut.iter().sum::<u64>() + 8 * MIB, LIMIT)?;
    bench.lab.set_port(Path::Second, true)?;
    whole(&running.finish(&bench.lab, &mut bench.server)?)?;
    bench.settled()?;
    let Bench { middle, .. } = bench;
    middle.stop()?;
    let mut recording = Recording::open(&file)?;
    let mut orders = 0;
    while let Some(event) = recording.next_event()? {
        orders += u32::from(matches!(event.cause, Cause::Order(mimbox_dataplane::Order::Link { .. })));
    }
    ensure!(orders == 2, "{orders} changes of a link are in the recording");
    let replayed = replay_file(&ReplayArgs { file, ..ReplayArgs::default() })?;
    ensure!(replayed.difference.is_none(), "{replayed}: {:?}", replayed.difference);
    Ok(())
}
