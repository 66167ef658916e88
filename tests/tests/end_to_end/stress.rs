//! Kernel clients whose endpoints, priorities, limits and links change at random while data flows both ways: the short form
//! of `mimbox-lab eval stress`.

use anyhow::{Result, ensure};
use mimbox_tools::eval::{StressArgs, Stressed, stress};
use mimbox_tools::lab::Mode;

use crate::bench::turn;

/// No byte differs, no connection falls back or is reset, and the client's kernel counts nothing that was wrong. So many
/// connections join at once that the queues overflow: where their joins did not hold, no link could be cut.
fn stand(mode: Mode, seed: u64) -> Result<Option<Stressed>> {
    let Some(_turn) = turn()? else { return Ok(None) };
    let args = StressArgs {
        mode,
        kernels: false,
        connections: 25,
        seconds: 12,
        seed,
        mbit: 20,
        queue_ms: 40,
        verbose: false,
        json: None,
    };
    let stressed = stress(&args)?;
    ensure!(stressed.faults().is_empty(), "{stressed}");
    ensure!(stressed.links_cut() > 0, "no link was cut: {stressed}");
    Ok(Some(stressed))
}

#[test]
fn clients_by_explicit_mode_stand_all_that_changes_while_data_flows() -> Result<()> {
    let Some(stressed) = stand(Mode::Explicit, 1)? else { return Ok(()) };
    // Nor does one stand still for more than 5 s.
    ensure!(stressed.paused_downloads().is_empty() && stressed.paused_uploads().is_empty(), "{stressed}");
    Ok(())
}

#[test]
fn clients_by_transparent_mode_stand_all_that_changes_while_data_flows() -> Result<()> {
    let Some(stressed) = stand(Mode::Transparent, 1)? else { return Ok(()) };
    // When an upload goes on that has the first path only is the kernel's affair: docs/not-done.md.
    ensure!(stressed.paused_downloads().is_empty(), "{stressed}");
    Ok(())
}
