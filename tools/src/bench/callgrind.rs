//! Counts of instructions and of cache lines: the program runs itself under callgrind, which counts inside one function only.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::rows::{Row, What};
use super::world::{Load, Order};

/// Where callgrind starts and stops.
const COUNTED: &str = "--toggle-collect=*measured_turn*";

/// The cache in which lines are counted. What a batch touches twice stays in it; what a thousand conversions have does not, so
/// that each visit misses every line of its conversation once, wherever its fields have been moved to.
const CACHE: [&str; 3] = ["--cache-sim=yes", "--D1=1048576,16,64", "--LL=8388608,16,64"];

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
    let (report, done) = run(row, &[])?;
    let collected = report.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse::<f64>().ok());
    each(collected, done, &report)
}

/// Distinct cache lines that a row reads or writes for each thing that it does, those left out that everything shares. It needs
/// so many conversions that what they have does not fit in [`CACHE`].
///
/// # Errors
/// When there is no valgrind, or the run under it fails.
pub(super) fn lines(row: &Row) -> anyhow::Result<f64> {
    let (report, done) = run(row, &CACHE)?;
    let missed = report.lines().find_map(|line| {
        let figure = line.split_once("D1  misses:")?.1.trim_start().split(' ').next()?;
        figure.replace(',', "").parse::<f64>().ok()
    });
    each(missed, done, &report)
}

fn each(counted: Option<f64>, done: f64, report: &str) -> anyhow::Result<f64> {
    match counted {
        Some(counted) if counted > 0.0 && done > 0.0 => Ok(counted / done),
        _ => bail!("callgrind counted nothing:\n{report}"),
    }
}

/// What callgrind says of a row, and how much was done.
fn run(row: &Row, options: &[&str]) -> anyhow::Result<(String, f64)> {
    let program = std::env::current_exe().context("this program's own file")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", COUNTED])
        .args(options)
        .arg(program)
        .args(["bench", "engine", "--one", &serde_json::to_string(row)?])
        .stdin(Stdio::null())
        .output()
        .context("cannot run valgrind: is it installed?")?;
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        bail!("the run under callgrind failed:\n{report}");
    }
    let done = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or_default();
    Ok((report, done))
}

/// True for rows whose count says something that another row's does not: it hardly depends on how many conversions there
/// are.
pub(super) fn is_counted(row: &Row) -> bool {
    let few = matches!(row.shape.conversions, 1 | 1_000) || matches!(row.what, What::Opening | What::Closing);
    few && row.what != What::Retransmission && !matches!(row.load, Load { order: Order::Lossy, .. })
}
