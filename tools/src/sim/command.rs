//! `mimbox-lab sim`: many seeds, each on one thread, as many threads as there are cores.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::profile::{PROFILES, Profile};
use super::run::{Failure, Totals, run_captured};

/// Failing seeds after which a search stops: more of the same says nothing new.
const ENOUGH_FAILURES: usize = 10;

/// Which networks to simulate.
#[derive(Args, Clone, Debug)]
pub struct SimArgs {
    /// How many seeds to run.
    #[arg(long, default_value_t = 50)]
    pub seeds: u64,
    /// The first seed; the others follow it.
    #[arg(long, default_value_t = 1)]
    pub first_seed: u64,
    /// What the links and hosts may be like; `--profile list` names them all.
    #[arg(long, default_value = "issue-a")]
    pub profile: String,
    /// Connections of each run.
    #[arg(long, default_value_t = 500)]
    pub connections: usize,
    /// Threads; zero is one a core.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Write every packet of the run to this file (pcapng); takes a single seed.
    #[arg(long, value_name = "FILE")]
    pub capture: Option<PathBuf>,
    /// Print the totals and failures as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What many runs came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Runs that held, together.
    pub totals: Totals,
    /// Runs that did not.
    pub failures: Vec<Failure>,
}

/// Runs `seeds` seeds from `first_seed` on `threads` threads and tells `progress` of each.
pub fn run_many(
    profile: &'static Profile,
    first_seed: u64,
    seeds: u64,
    connections: usize,
    threads: usize,
    progress: impl Fn(&Result<Totals, Failure>),
) -> Report {
    let next = AtomicU64::new(0);
    let failed = Mutex::new(0usize);
    let (tell, results) = mpsc::channel();
    let mut report = Report::default();
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (tell, next, failed) = (tell.clone(), &next, &failed);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let enough = *failed.lock().unwrap_or_else(PoisonError::into_inner) >= ENOUGH_FAILURES;
                    if index >= seeds || enough {
                        break;
                    }
                    let result = guarded(profile, first_seed.wrapping_add(index), connections, None);
                    if result.is_err() {
                        *failed.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                    }
                    if tell.send(result).is_err() {
                        break;
                    }
                }
            });
        }
        drop(tell);
        for result in results {
            progress(&result);
            match result {
                Ok(totals) => report.totals.add(&totals),
                Err(failure) => report.failures.push(failure),
            }
        }
    });
    report.failures.sort_by_key(|failure| failure.seed);
    report
}

/// A run whose panic is a failure like any other, with its seed.
fn guarded(
    profile: &'static Profile,
    seed: u64,
    connections: usize,
    capture: Option<&Path>,
) -> Result<Totals, Failure> {
    std::panic::catch_unwind(|| run_captured(profile, seed, connections, capture)).unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Failure { seed, profile: profile.name, connections, complaints: vec![format!("panic: {what}")] })
    })
}

/// Runs the command.
///
/// # Errors
/// When the profile is not one of those that there are.
pub fn command(args: &SimArgs) -> anyhow::Result<ExitCode> {
    if args.profile == "list" {
        for profile in PROFILES {
            println!("{:16} {}", profile.name, profile.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Some(profile) = Profile::named(&args.profile) else {
        let names: Vec<&str> = PROFILES.iter().map(|profile| profile.name).collect();
        bail!("there is no profile {:?}; take one of {}", args.profile, names.join(", "));
    };
    if args.connections == 0 || args.connections > 4_000 {
        bail!("--connections {} is out of range: take 1 to 4000", args.connections);
    }
    if args.capture.is_some() && args.seeds != 1 {
        bail!("--capture takes a single run: add --seeds 1");
    }
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if args.threads == 0 { cores } else { args.threads };
    let bar = ProgressBar::new(args.seeds);
    bar.set_style(
        ProgressStyle::with_template("{elapsed_precise} [{bar:40}] {pos}/{len} seeds, {eta} left {msg}")
            .context("the progress bar's template")?
            .progress_chars("=> "),
    );
    let progress = |result: &Result<Totals, Failure>| {
        if let Err(failure) = result {
            bar.suspend(|| eprintln!("{failure}"));
        }
        bar.inc(1);
    };
    let report = match &args.capture {
        None => run_many(profile, args.first_seed, args.seeds, args.connections, threads, progress),
        Some(path) => {
            let result = guarded(profile, args.first_seed, args.connections, Some(path));
            progress(&result);
            match result {
                Ok(totals) => Report { totals, failures: Vec::new() },
                Err(failure) => Report { totals: Totals::default(), failures: vec![failure] },
            }
        }
    };
    bar.finish_and_clear();
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{}: {}, {} failed", profile.name, report.totals, report.failures.len());
        for failure in &report.failures {
            println!("failed, run it again: {}", failure.command());
        }
    }
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
