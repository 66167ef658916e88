//! Transfers between kernels and the box over links on which everything goes wrong, drawn from a seed.

use std::fmt;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use clap::Args;
use mimbox_stack::Rng;

use super::bench::{Bench, Event, LinkPlan, Middle};
use crate::lab::transfer::{Direction, Sizes};
use crate::lab::{Mode, Path, ServerMptcp, Transfer, TransferServer, catch_interrupts, interrupted};
use crate::sim::draw::{between, chance, log_between, pick, stream};

/// The server's port.
const PORT: u16 = 5001;
/// Connections of one run.
const CONNECTIONS: u64 = 4;

/// `mimbox-lab eval faults`.
#[derive(Clone, Debug, Args)]
pub struct FaultsArgs {
    /// How many runs, each with a seed of its own.
    #[arg(long, default_value_t = 100)]
    pub runs: u64,
    /// Seed of the first run.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Runs at the same time, in labs of their own.
    #[arg(long, default_value_t = 2)]
    pub jobs: u64,
    /// Seconds after which a run must have ended.
    #[arg(long, default_value_t = 180)]
    pub limit: u64,
}

/// One run, as its seed has it.
#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    mode: Mode,
    mptcp: bool,
    direction: Direction,
    largest: u64,
    links: Vec<LinkPlan>,
    /// When which path is cut, and for how long.
    cut: Option<(Path, Duration, Duration)>,
}

impl Case {
    fn draw(seed: u64) -> Self {
        let mut rng = stream(seed, 0x0fa1);
        let mptcp = chance(&mut rng, 500_000);
        // In transparent mode only MPTCP is converted.
        let mode = if mptcp { pick(&mut rng, &[Mode::Explicit, Mode::Transparent]) } else { Mode::Explicit };
        let paths = if mptcp { between(&mut rng, 1, 2) } else { 1 };
        let links: Vec<LinkPlan> = (0..paths).map(|path| draw_link(&mut rng, seed.wrapping_mul(2) + path)).collect();
        let slowest = links.iter().map(|link| link.mbit).min().unwrap_or(1);
        let milliseconds = |rng: &mut Rng, low, high| Duration::from_millis(between(rng, low, high));
        let cut = chance(&mut rng, 400_000).then(|| {
            let path = if paths == 2 { pick(&mut rng, &Path::BOTH) } else { Path::First };
            (path, milliseconds(&mut rng, 300, 2500), milliseconds(&mut rng, 500, 4000))
        });
        Self {
            seed,
            mode,
            mptcp,
            direction: pick(&mut rng, &[Direction::Upload, Direction::Download, Direction::Both]),
            // A few seconds of the slowest path.
            largest: log_between(&mut rng, 10_000, slowest * 400_000),
            links,
            cut,
        }
    }

    /// What is cut and mended when.
    fn events(&self) -> Vec<(Duration, Event)> {
        let Some((path, at, time)) = self.cut else { return Vec::new() };
        vec![(at, Event::Cut(path)), (at + time, Event::Mend(path))]
    }

    fn run(&self, limit: Duration) -> Result<Duration> {
        let bench = Bench::build(Middle::Box, self.mode, &self.links, ServerMptcp::Off)?;
        let lab = bench.lab();
        // Without it, a kernel never finds out that a path swallows its large packets.
        lab.client().sysctl(&[("net.ipv4.tcp_mtu_probing", "1")])?;
        let mut server = TransferServer::start(lab, PORT)?;
        let transfer = Transfer {
            seed: self.seed.wrapping_mul(1000),
            mptcp: self.mptcp,
            connections: CONNECTIONS,
            parallel: CONNECTIONS,
            sizes: Sizes::LogUniform,
            stall: limit.as_secs(),
            ..Transfer::new(self.direction, self.largest)
        };
        let began = Instant::now();
        let mut client = transfer.start(lab, &server)?;
        let events = self.events();
        let mut left = &events[..];
        while !client.is_over()? {
            if let Some(((at, event), rest)) = left.split_first()
                && began.elapsed() >= *at
            {
                bench.happen(event)?;
                left = rest;
            }
            if interrupted() {
                bail!("interrupted");
            }
            ensure!(began.elapsed() < limit, "not over after {limit:?}; {}", bench.state());
            std::thread::sleep(Duration::from_millis(10));
        }
        let took = began.elapsed();
        let faults = client.finish(bench.lab(), &mut server)?.faults();
        ensure!(faults.is_empty(), "{}; {}", faults.join("; "), bench.state());
        if let [(_, mend)] = left {
            bench.happen(mend)?;
        }
        // What is over for its ends must be over for the box as well. Their last segments may be lost again and again, so
        // it takes what transfers may take.
        bench.end(limit)?;
        Ok(took)
    }
}

fn draw_link(rng: &mut Rng, seed: u64) -> LinkPlan {
    let mut faults = Vec::new();
    let mut maybe = |rng: &mut Rng, ppm: u32, text: &dyn Fn(&mut Rng) -> String| {
        if chance(rng, ppm) {
            faults.push(text(rng));
        }
    };
    // Hundredths of a percent.
    let percent = |rng: &mut Rng, low, high| {
        let hundredths = between(rng, low, high);
        format!("{}.{:02}%", hundredths / 100, hundredths % 100)
    };
    maybe(rng, 500_000, &|rng| format!("--loss={}", percent(rng, 1, 300)));
    maybe(rng, 300_000, &|rng| format!("--burst={}/{}", percent(rng, 1, 30), percent(rng, 1000, 6000)));
    maybe(rng, 300_000, &|rng| format!("--reorder={}/{}ms", percent(rng, 10, 1000), between(rng, 1, 30)));
    maybe(rng, 300_000, &|rng| format!("--duplicate={}", percent(rng, 10, 300)));
    maybe(rng, 300_000, &|rng| format!("--corrupt={}", percent(rng, 1, 100)));
    maybe(rng, 200_000, &|rng| format!("--mtu={}", between(rng, 1100, 1499)));
    LinkPlan { mbit: log_between(rng, 1, 100), rtt: Duration::from_millis(log_between(rng, 1, 200)), faults, seed }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, mode, mptcp, direction, largest, links, cut } = self;
        let protocol = if *mptcp { "MPTCP" } else { "TCP" };
        write!(f, "seed {seed}: {protocol}, {mode}, {direction:?} of up to {largest} bytes")?;
        for link in links {
            write!(f, "; {} Mbit/s, {} ms {}", link.mbit, link.rtt.as_millis(), link.faults.join(" "))?;
        }
        if let Some((path, at, time)) = cut {
            write!(f, "; {path:?} path cut at {at:?} for {time:?}")?;
        }
        Ok(())
    }
}

/// Runs the command.
pub(super) fn command(args: &FaultsArgs) -> Result<ExitCode> {
    catch_interrupts()?;
    let next = AtomicU64::new(args.seed);
    let outcomes = Mutex::new(Vec::new());
    let limit = Duration::from_secs(args.limit);
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.seed + args.runs || interrupted() {
                        break;
                    }
                    let case = Case::draw(seed);
                    let outcome = case.run(limit);
                    match &outcome {
                        Ok(took) => eprintln!("  ok    {:6.1} s  {case}", took.as_secs_f64()),
                        Err(error) => println!("FAILED  {case}: {error:#}"),
                    }
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.push(outcome);
                    }
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().map_err(|_| anyhow!("a run panicked"))?;
    let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    let longest = outcomes.iter().flatten().max().copied().unwrap_or_default();
    println!(
        "{} runs of {CONNECTIONS} transfers each, {failed} failed; the longest took {:.1} s",
        outcomes.len(),
        longest.as_secs_f64()
    );
    let whole = outcomes.len() as u64 == args.runs;
    Ok(if failed == 0 && whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
