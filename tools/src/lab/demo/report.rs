//! What the demo found, for people and for scripts.

use anyhow::Result;
use serde::Serialize;

use super::gbit_per_s;
use crate::lab::runner::TransferReport;
use crate::lab::topology::Mode;
use crate::lab::transfer::Direction;

/// Things that must hold, and whether they did.
#[derive(Debug, Default)]
pub(super) struct Checks {
    done: Vec<(String, Option<String>)>,
}

impl Checks {
    pub(super) fn note(&mut self, what: &str, result: Result<()>) {
        self.done.push((what.to_owned(), result.err().map(|error| format!("{error:#}"))));
    }

    pub(super) fn all_hold(&self) -> bool {
        self.done.iter().all(|(_, fault)| fault.is_none())
    }
}

/// Segments sent again, by who sent them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retransmissions {
    pub(super) client: u64,
    pub(super) the_box: u64,
    pub(super) server: u64,
}

impl Retransmissions {
    fn total(self) -> u64 {
        self.client + self.the_box + self.server
    }
}

/// One transfer.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) direction: Direction,
    pub(super) bytes: u64,
    pub(super) report: TransferReport,
    pub(super) retransmissions: Retransmissions,
}

/// One mode.
#[derive(Debug)]
pub(super) struct ModeResult {
    pub(super) mode: Mode,
    pub(super) runs: Vec<Run>,
    pub(super) frames_before: u32,
    pub(super) frames_after: u32,
    pub(super) cpu_share: f64,
    pub(super) checks: Checks,
}

/// `summary.json`.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    runs: Vec<RunSummary>,
    frames_in_use_before: u64,
    frames_in_use_after: u64,
    checks: Vec<CheckSummary>,
}

#[derive(Debug, Serialize)]
struct CheckSummary {
    mode: String,
    check: String,
    holds: bool,
    /// Why it does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

#[derive(Debug, Serialize)]
struct RunSummary {
    mode: String,
    direction: Direction,
    bytes: u64,
    gbit_per_s: f64,
    sha256_equal: bool,
    subflow_share: [f64; 2],
    retransmissions: u64,
}

impl Summary {
    /// The frames are those of all modes together.
    pub(super) fn of(results: &[ModeResult]) -> Self {
        let runs = results.iter().flat_map(|result| result.runs.iter().map(|run| (result.mode, run)));
        let checks = results.iter().flat_map(|result| result.checks.done.iter().map(|check| (result.mode, check)));
        Self {
            runs: runs
                .map(|(mode, run)| RunSummary {
                    mode: mode.to_string(),
                    direction: run.direction,
                    bytes: run.bytes,
                    gbit_per_s: round(gbit_per_s(&run.report), 4),
                    sha256_equal: run.report.intact(),
                    subflow_share: run.report.shares().map(|share| round(share, 4)),
                    retransmissions: run.retransmissions.total(),
                })
                .collect(),
            frames_in_use_before: results.iter().map(|result| u64::from(result.frames_before)).sum(),
            frames_in_use_after: results.iter().map(|result| u64::from(result.frames_after)).sum(),
            checks: checks
                .map(|(mode, (check, fault))| CheckSummary {
                    mode: mode.to_string(),
                    check: check.clone(),
                    holds: fault.is_none(),
                    fault: fault.clone(),
                })
                .collect(),
        }
    }
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// Prints tables that fit a terminal of 100 columns.
pub(super) fn print(results: &[ModeResult]) {
    println!();
    println!(
        "{:<12} {:<9} {:>10} {:>14} {:>7} {:>7}  {:<8} retransmissions",
        "mode", "direction", "MiB", "goodput", "path 1", "path 2", "SHA-256"
    );
    for result in results {
        for run in &result.runs {
            let shares = run.report.shares().map(|share| format!("{:.1}%", share * 100.0));
            let direction = format!("{:?}", run.direction).to_lowercase();
            let digests = if run.report.intact() { "equal" } else { "DIFFER" };
            let again = run.retransmissions;
            println!(
                "{:<12} {direction:<9} {:>10.1} {:>7.3} Gbit/s {:>7} {:>7}  {digests:<8} {} (client {}, box {}, server {})",
                result.mode.to_string(),
                run.bytes as f64 / f64::from(1 << 20),
                gbit_per_s(&run.report),
                shares[0],
                shares[1],
                again.total(),
                again.client,
                again.the_box,
                again.server,
            );
        }
    }
    for result in results {
        println!();
        println!(
            "{} mode: frames in use {} before, {} after; the box used {:.0}% of a core",
            result.mode,
            result.frames_before,
            result.frames_after,
            result.cpu_share * 100.0
        );
        for (what, fault) in &result.checks.done {
            match fault {
                None => println!("  ok      {what}"),
                Some(fault) => println!("  FAILED  {what}: {fault}"),
            }
        }
    }
    println!();
}
