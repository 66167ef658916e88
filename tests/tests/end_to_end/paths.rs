//! Paths that go away and come back while data flows.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use mimbox_tools::lab::transfer::Direction;
use mimbox_tools::lab::{Mode, Path, Transfer};

use crate::bench::{Bench, MIB, whole};

/// Cuts `path` in the middle of a transfer, mends it, and expects all bytes and that the path is used again.
fn cut_and_mend(mode: Mode, direction: Direction, path: Path) -> Result<()> {
    let Some(mut bench) = Bench::new(mode)? else { return Ok(()) };
    let limit = Duration::from_secs(60);
    let mut running = Transfer { stall: 60, ..Transfer::new(direction, 320 * MIB) }.start(&bench.lab, &bench.server)?;
    running.wait_for_bytes(&bench.lab, 32 * MIB, limit)?;
    bench.lab.set_path(path, false)?;
    let cut = running.path_bytes(&bench.lab)?;
    running.wait_for_bytes(&bench.lab, cut.iter().sum::<u64>() + 32 * MIB, limit)?;
    bench.lab.set_path(path, true)?;
    let mended = running.path_bytes(&bench.lab)?[path.index()];
    running.wait_for_bytes(&bench.lab, 220 * MIB, limit)?;
    let report = running.finish(&bench.lab, &mut bench.server)?;
    whole(&report)?;
    let again = report.path_bytes[path.index()].saturating_sub(mended);
    ensure!(again > 8 * MIB, "the mended path carried only {again} bytes");
    bench.settled()?;
    bench.no_sockets_left()
}

#[test]
fn an_upload_survives_the_loss_of_its_second_path() -> Result<()> {
    cut_and_mend(Mode::Explicit, Direction::Upload, Path::Second)
}

#[test]
fn a_download_survives_the_loss_of_its_second_path() -> Result<()> {
    cut_and_mend(Mode::Explicit, Direction::Download, Path::Second)
}

#[test]
fn a_download_survives_the_loss_of_its_second_path_in_transparent_mode() -> Result<()> {
    cut_and_mend(Mode::Transparent, Direction::Download, Path::Second)
}

/// The first path carries the first subflow, which ends with it; the rest goes by the other path.
fn lose_the_first(mode: Mode, direction: Direction) -> Result<()> {
    let Some(mut bench) = Bench::new(mode)? else { return Ok(()) };
    let limit = Duration::from_secs(60);
    let mut running = Transfer { stall: 60, ..Transfer::new(direction, 160 * MIB) }.start(&bench.lab, &bench.server)?;
    running.wait_for_bytes(&bench.lab, 32 * MIB, limit)?;
    bench.lab.set_path(Path::First, false)?;
    let report = running.finish(&bench.lab, &mut bench.server)?;
    whole(&report)?;
    ensure!(report.shares()[1] > 0.5, "the second path carried {:?}", report.shares());
    bench.settled().map(drop)
}

#[test]
fn a_download_survives_the_loss_of_its_first_path() -> Result<()> {
    lose_the_first(Mode::Explicit, Direction::Download)
}

#[test]
fn a_path_that_silently_stops_carrying_packets_is_survived() -> Result<()> {
    let Some(mut bench) = Bench::new(Mode::Explicit)? else { return Ok(()) };
    let mut running =
        Transfer { stall: 60, ..Transfer::new(Direction::Download, 160 * MIB) }.start(&bench.lab, &bench.server)?;
    running.wait_for_bytes(&bench.lab, 32 * MIB, Duration::from_secs(60))?;
    bench.lab.set_carrier(Path::Second, false)?;
    sleep(Duration::from_secs(3));
    bench.lab.set_carrier(Path::Second, true)?;
    let report = running.finish(&bench.lab, &mut bench.server)?;
    whole(&report)?;
    bench.settled().map(drop)
}
