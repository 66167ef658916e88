//! Paths that go away and come back while data flows.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mimbox_tools::lab::transfer::Direction;
use mimbox_tools::lab::{Lab, Mode, Path, Transfer};

use crate::bench::{Bench, MIB, whole};

/// Bytes that have left the link namespace in the data's direction, by a path's own device.
fn carried(lab: &Lab, path: Path, direction: Direction) -> Result<u64> {
    let device = if direction == Direction::Upload { path.link_towards_box() } else { path.link_towards_client() };
    let interfaces = lab.link().interfaces()?;
    Ok(interfaces.get(device).with_context(|| format!("no device {device}"))?.tx_bytes)
}

/// Cuts `path` in the middle of a transfer, mends it, and expects all bytes and that the path is used again.
fn cut_and_mend(mode: Mode, direction: Direction, path: Path) -> Result<()> {
    let Some(mut bench) = Bench::new(mode)? else { return Ok(()) };
    let limit = Duration::from_secs(60);
    let mut running = Transfer { stall: 60, ..Transfer::new(direction, 640 * MIB) }.start(&bench.lab, &bench.server)?;
    running.wait_for_bytes(&bench.lab, 32 * MIB, limit)?;
    bench.lab.set_path(path, false)?;
    let cut = running.path_bytes(&bench.lab)?;
    running.wait_for_bytes(&bench.lab, cut.iter().sum::<u64>() + 32 * MIB, limit)?;
    let before = carried(&bench.lab, path, direction)?;
    bench.lab.set_path(path, true)?;
    let report = running.finish(&bench.lab, &mut bench.server)?;
    whole(&report)?;
    let again = carried(&bench.lab, path, direction)?.saturating_sub(before);
    ensure!(again > 16 * MIB, "the mended path carried only {again} bytes");
    bench.settled()?;
    bench.no_sockets_left()
}

#[test]
fn an_upload_survives_the_cut_of_its_first_path_and_uses_it_again() -> Result<()> {
    cut_and_mend(Mode::Explicit, Direction::Upload, Path::First)
}

#[test]
fn an_upload_survives_the_cut_of_its_second_path_and_uses_it_again() -> Result<()> {
    cut_and_mend(Mode::Explicit, Direction::Upload, Path::Second)
}

#[test]
fn a_download_survives_the_cut_of_its_first_path_and_uses_it_again() -> Result<()> {
    cut_and_mend(Mode::Explicit, Direction::Download, Path::First)
}

#[test]
fn a_download_survives_the_cut_of_its_first_path_and_uses_it_again_in_transparent_mode() -> Result<()> {
    cut_and_mend(Mode::Transparent, Direction::Download, Path::First)
}

#[test]
fn a_download_survives_the_cut_of_its_second_path_and_uses_it_again() -> Result<()> {
    cut_and_mend(Mode::Explicit, Direction::Download, Path::Second)
}

#[test]
fn an_upload_survives_the_cut_of_its_first_path_and_uses_it_again_in_transparent_mode() -> Result<()> {
    cut_and_mend(Mode::Transparent, Direction::Upload, Path::First)
}

#[test]
fn an_upload_survives_the_cut_of_its_second_path_and_uses_it_again_in_transparent_mode() -> Result<()> {
    cut_and_mend(Mode::Transparent, Direction::Upload, Path::Second)
}

#[test]
fn a_download_survives_the_cut_of_its_second_path_and_uses_it_again_in_transparent_mode() -> Result<()> {
    cut_and_mend(Mode::Transparent, Direction::Download, Path::Second)
}

/// A path that does not come back: the rest goes by the other one, and what was on it is cleaned up in a minute.
fn lose(mode: Mode, direction: Direction, path: Path) -> Result<()> {
    let Some(mut bench) = Bench::new(mode)? else { return Ok(()) };
    let limit = Duration::from_secs(60);
    let mut running = Transfer { stall: 60, ..Transfer::new(direction, 160 * MIB) }.start(&bench.lab, &bench.server)?;
    running.wait_for_bytes(&bench.lab, 32 * MIB, limit)?;
    bench.lab.set_path(path, false)?;
    let report = running.finish(&bench.lab, &mut bench.server)?;
    whole(&report)?;
    ensure!(report.shares()[1 - path.index()] > 0.5, "the other path carried {:?}", report.shares());
    bench.settled().map(drop)
}

#[test]
fn an_upload_survives_the_loss_of_its_first_path() -> Result<()> {
    lose(Mode::Explicit, Direction::Upload, Path::First)
}

#[test]
fn an_upload_survives_the_loss_of_its_first_path_in_transparent_mode() -> Result<()> {
    lose(Mode::Transparent, Direction::Upload, Path::First)
}

#[test]
fn an_upload_survives_the_loss_of_its_second_path() -> Result<()> {
    lose(Mode::Explicit, Direction::Upload, Path::Second)
}

#[test]
fn a_download_survives_the_loss_of_its_first_path() -> Result<()> {
    lose(Mode::Explicit, Direction::Download, Path::First)
}

#[test]
fn a_download_survives_the_loss_of_its_first_path_in_transparent_mode() -> Result<()> {
    lose(Mode::Transparent, Direction::Download, Path::First)
}

#[test]
fn a_download_survives_the_loss_of_its_second_path() -> Result<()> {
    lose(Mode::Explicit, Direction::Download, Path::Second)
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
