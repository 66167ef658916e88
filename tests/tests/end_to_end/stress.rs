//! Kernel clients whose endpoints, priorities, limits and links change at random while data flows both ways: the short form
//! of `mimbox-lab eval stress`.

use anyhow::{Result, ensure};
use mimbox_tools::eval::{StressArgs, stress};
use mimbox_tools::lab::Mode;

use crate::bench::turn;

/// No byte differs, no connection stands still for more than 5 s, falls back or is reset, and the client's kernel counts
/// nothing that was wrong. So many connections join at once that the queues overflow: where their joins did not hold, no link
/// could be cut.
fn holds(mode: Mode, seed: u64) -> Result<()> {
    let Some(_turn) = turn()? else { return Ok(()) };
    let args = StressArgs { mode, connections: 25, seconds: 12, seed, mbit: 20, verbose: false, json: None };
    let stressed = stress(&args)?;
    ensure!(stressed.faults().is_empty(), "{stressed}");
    ensure!(stressed.links_cut() > 0, "no link was cut: {stressed}");
    Ok(())
}

#[test]
fn clients_by_explicit_mode_stand_all_that_changes_while_data_flows() -> Result<()> {
    holds(Mode::Explicit, 1)
}

#[test]
fn clients_by_transparent_mode_stand_all_that_changes_while_data_flows() -> Result<()> {
    holds(Mode::Transparent, 1)
}
