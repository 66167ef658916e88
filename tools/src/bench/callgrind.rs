//! Counts of instructions: the program runs itself under callgrind, which counts inside one function only.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::rows::{Row, What};
use super::world::{Load, Order};

/// Where callgrind starts and stops.
const COUNTED: &str = "--toggle-collect=*measured_turn*";

/// True when valgrind can be run.
pub(super) fn is_there() -> bool {
    let asked = Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// Instructions that a row costs for each thing that it does.
///
/// # Errors
/// When there is no valgrind, or the run under it fails.
pub(super) fn instructions(row: &Row) -> anyhow::Result<f64> {
    if row.what == What::Retransmission {
        bail!("a retransmission's count is the difference of two runs");
    }
    let program = std::env::current_exe().context("this program's own file")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", COUNTED])
        .arg(program)
        .args(["bench", "engine", "--one", &serde_json::to_string(row)?])
        .stdin(Stdio::null())
        .output()
        .context("cannot run valgrind: is it installed?")?;
    let report = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("the run under callgrind failed:\n{report}");
    }
    let collected = report.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse::<f64>().ok());
    let done = String::from_utf8_lossy(&output.stdout).trim().parse::<f64>();
    match (collected, done) {
        (Some(collected), Ok(done)) if collected > 0.0 && done > 0.0 => Ok(collected / done),
        _ => bail!("callgrind counted nothing:\n{report}"),
    }
}

/// True for rows whose count says something that another row's does not: it hardly depends on how many conversions there
/// are.
pub(super) fn is_counted(row: &Row) -> bool {
    let few = matches!(row.shape.conversions, 1 | 1_000) || matches!(row.what, What::Opening | What::Closing);
    few && row.what != What::Retransmission && !matches!(row.load, Load { order: Order::Lossy, .. })
}
