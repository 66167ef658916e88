//! One bulk connection, the kernel's and the box's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::bench::{Bench, LinkPlan, Middle, valid};
use super::flow::{Flow, server_address};
use crate::lab::transfer::Direction;
use crate::lab::transfer::socket::Kind;
use crate::lab::{Mode, ServerMptcp, catch_interrupts};

/// A link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Row {
    /// 1 ms of round trip.
    Rtt1,
    /// 10 ms.
    Rtt10,
    /// 50 ms.
    Rtt50,
    /// 100 ms.
    Rtt100,
    /// 200 ms.
    Rtt200,
    /// 20 ms, and one packet in 1000 lost, each way.
    Loss01,
    /// 20 ms, and one packet in 100 lost, each way.
    Loss1,
    /// 20 ms, and one packet in 20 held back for up to 10 ms, each way.
    Reorder5,
}

impl Row {
    /// Round-trip time in milliseconds, what goes wrong, and its words in the table.
    fn link(self) -> (u64, Option<&'static str>, &'static str) {
        match self {
            Self::Rtt1 => (1, None, "1 ms"),
            Self::Rtt10 => (10, None, "10 ms"),
            Self::Rtt50 => (50, None, "50 ms"),
            Self::Rtt100 => (100, None, "100 ms"),
            Self::Rtt200 => (200, None, "200 ms"),
            Self::Loss01 => (20, Some("--loss=0.1%"), "20 ms, 0.1% lost"),
            Self::Loss1 => (20, Some("--loss=1%"), "20 ms, 1% lost"),
            Self::Reorder5 => (20, Some("--reorder=5%/10ms"), "20 ms, 5% late by up to 10 ms"),
        }
    }
}

/// `mimbox-lab eval tcp`.
#[derive(Clone, Debug, Args)]
pub struct TcpArgs {
    /// The links; without it, all.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub rows: Vec<Row>,
    /// Which way the data goes: upload or download.
    #[arg(long, value_enum, default_value = "download")]
    pub direction: Direction,
    /// Runs of each row, each with a seed of its own.
    #[arg(long, default_value_t = 5)]
    pub runs: u64,
    /// Seconds of each run, from connecting.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// The links' rate in megabits a second.
    #[arg(long, default_value_t = 100)]
    pub mbit: u64,
    /// Seed of the first run.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Runs that are measured at the same time, in labs of their own. Each takes up to a core.
    #[arg(long, default_value_t = 1)]
    pub jobs: usize,
    /// Where to write all figures, after each run.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// The least ratio of the medians; below it the exit status is 1.
    #[arg(long, default_value_t = 0.95)]
    pub bound: f64,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Figure {
    /// The link.
    row: Row,
    /// Its seed.
    seed: u64,
    /// Who stood between client and server.
    middle: Middle,
    /// Bits a second that arrived, from connecting to the end of the run.
    goodput_bps: f64,
    /// Segments that the sender over the link sent again.
    retransmissions: u64,
    /// Packets of the data's direction that the link lost as it was asked to.
    lost: u64,
    /// Packets of the data's direction that found the queue full.
    overflowed: u64,
    /// How late 99 of 100 packets left the link at most, in milliseconds.
    late_p99_ms: f64,
    /// CPU time of the link and of the box.
    link_cpu_s: f64,
    /// CPU time of the box.
    box_cpu_s: f64,
    /// The sender's congestion control; the box's own is configured.
    congestion: String,
    /// Megabits a second in each second of the run.
    course_mbps: Vec<f64>,
    /// Measurements that were void before this one, and why.
    void: Vec<String>,
}

/// Runs the command.
pub(super) fn command(args: &TcpArgs) -> Result<ExitCode> {
    catch_interrupts()?;
    if args.direction == Direction::Both {
        bail!("one direction at a time: --direction upload or download");
    }
    let rows = if args.rows.is_empty() { Row::value_variants() } else { &args.rows };
    let work: Vec<(Row, u64)> = rows.iter().flat_map(|row| (0..args.runs).map(|run| (*row, args.seed + run))).collect();
    eprintln!(
        "{} runs of 2 × {} s at {} Mbit/s; ends and box at real-time priority, links above them",
        work.len(),
        args.seconds,
        args.mbit
    );
    let figures = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| -> Result<()> {
        let work_off = || -> Result<()> {
            while let Some((row, seed)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                for middle in [Middle::Kernel, Middle::Box] {
                    let figure = measure(args, *row, *seed, middle)?;
                    tell(&figure);
                    let mut figures = figures.lock().map_err(|_| anyhow!("another run panicked"))?;
                    figures.push(figure);
                    if let Some(file) = &args.json {
                        write(file, &figures)?;
                    }
                }
            }
            Ok(())
        };
        let threads: Vec<_> = (0..args.jobs.max(1)).map(|_| scope.spawn(work_off)).collect();
        let results = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a run panicked")));
        results.collect::<Result<()>>()
    })?;
    let figures = figures.into_inner().map_err(|_| anyhow!("a run panicked"))?;
    let summaries: Vec<Summary> = rows.iter().filter_map(|row| Summary::of(*row, &figures)).collect();
    print(&summaries, args);
    let holds = summaries.iter().all(|summary| summary.ratio() >= args.bound);
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(file: &Path, figures: &[Figure]) -> Result<()> {
    fs::write(file, serde_json::to_string_pretty(figures)? + "\n")
        .with_context(|| format!("cannot write {}", file.display()))
}

fn measure(args: &TcpArgs, row: Row, seed: u64, middle: Middle) -> Result<Figure> {
    let (figure, void) = valid(&format!("{row:?}, seed {seed}, {middle}"), || measure_once(args, row, seed, middle))?;
    Ok(Figure { void, ..figure })
}

fn measure_once(args: &TcpArgs, row: Row, seed: u64, middle: Middle) -> Result<Figure> {
    let (rtt_ms, fault, _) = row.link();
    let plan = LinkPlan {
        mbit: args.mbit,
        rtt: Duration::from_millis(rtt_ms),
        faults: fault.map(str::to_owned).into_iter().collect(),
        seed,
    };
    let time = Duration::from_secs(args.seconds);
    let flow = Flow {
        direction: args.direction,
        client: Kind::Tcp,
        server: Kind::Tcp,
        time,
        to: server_address(),
        ordinary: false,
    };
    let measured = Bench::build(middle, Mode::Explicit, &[plan], ServerMptcp::Off)?.measure(&flow, &[])?;
    let link = measured.links.first().context("no link")?;
    let way = &link.ways[usize::from(args.direction == Direction::Download)];
    let second = |n| measured.flow.rate(Duration::from_secs(n), Duration::from_secs(n + 1)) / 1e6;
    Ok(Figure {
        row,
        seed,
        middle,
        goodput_bps: measured.flow.bytes() as f64 * 8.0 / time.as_secs_f64(),
        retransmissions: measured.retransmissions,
        lost: way.lost,
        overflowed: way.overflowed,
        late_p99_ms: link.ways.iter().map(|way| way.late_p99_ms).fold(0.0, f64::max),
        link_cpu_s: link.cpu_seconds,
        box_cpu_s: measured.box_cpu.as_secs_f64(),
        congestion: measured.flow.congestion.clone(),
        course_mbps: (0..args.seconds).map(|n| (second(n) * 100.0).round() / 100.0).collect(),
        void: Vec::new(),
    })
}

fn tell(figure: &Figure) {
    eprintln!(
        "  {:30} seed {:2}  {:6}  {:7.2} Mbit/s  {:5} sent again, {} lost, {} overflowed; link late p99 {:.2} ms, CPU {:.1} s",
        figure.row.link().2,
        figure.seed,
        figure.middle,
        figure.goodput_bps / 1e6,
        figure.retransmissions,
        figure.lost,
        figure.overflowed,
        figure.late_p99_ms,
        figure.link_cpu_s,
    );
}

/// All runs of a row.
struct Summary {
    row: Row,
    /// Medians of the kernel and of the box: megabits a second and segments sent again.
    goodput: [f64; 2],
    again: [f64; 2],
    /// The least and the greatest ratio of one run.
    ratios: [f64; 2],
    runs: usize,
    late_p99_ms: f64,
    void: usize,
}

impl Summary {
    fn of(row: Row, figures: &[Figure]) -> Option<Self> {
        let of = |middle| {
            let mut some: Vec<&Figure> = figures.iter().filter(|f| f.row == row && f.middle == middle).collect();
            some.sort_by_key(|figure| figure.seed);
            some
        };
        let (kernel, boxed) = (of(Middle::Kernel), of(Middle::Box));
        let goodput = [&kernel, &boxed].map(|some| median(some.iter().map(|figure| figure.goodput_bps / 1e6)));
        let again = [&kernel, &boxed].map(|some| median(some.iter().map(|figure| figure.retransmissions as f64)));
        let ratios: Vec<f64> = kernel.iter().zip(&boxed).map(|(a, b)| b.goodput_bps / a.goodput_bps.max(1.0)).collect();
        let all = || kernel.iter().chain(&boxed);
        (!ratios.is_empty()).then(|| Self {
            row,
            goodput,
            again,
            ratios: [ratios.iter().copied().fold(f64::MAX, f64::min), ratios.iter().copied().fold(0.0, f64::max)],
            runs: ratios.len(),
            late_p99_ms: all().map(|figure| figure.late_p99_ms).fold(0.0, f64::max),
            void: all().map(|figure| figure.void.len()).sum(),
        })
    }

    fn ratio(&self) -> f64 {
        self.goodput[1] / self.goodput[0].max(1e-9)
    }
}

/// The middle one; of an even number, the mean of the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match (values.get(half.wrapping_sub(1)), values.get(half)) {
        (Some(below), Some(above)) if values.len().is_multiple_of(2) => (below + above) / 2.0,
        (_, Some(middle)) => *middle,
        _ => 0.0,
    }
}

fn print(summaries: &[Summary], args: &TcpArgs) {
    println!(
        "{:?}, {} Mbit/s, {} s a run; medians of goodput in Mbit/s, and of segments sent again",
        args.direction, args.mbit, args.seconds
    );
    println!();
    println!("| link | runs | kernel | box | ratio | least and greatest of one run | sent again: kernel | box |");
    println!("|---|---|---|---|---|---|---|---|");
    for summary in summaries {
        let Summary {
            row,
            goodput: [kernel, boxed],
            again: [again_kernel, again_box],
            ratios: [least, most],
            runs,
            ..
        } = summary;
        println!(
            "| {} | {runs} | {kernel:.2} | {boxed:.2} | {:.3} | {least:.3} – {most:.3} | {again_kernel:.0} | {again_box:.0} |",
            row.link().2,
            summary.ratio()
        );
    }
    println!();
    let void: usize = summaries.iter().map(|summary| summary.void).sum();
    let late = summaries.iter().map(|summary| summary.late_p99_ms).fold(0.0, f64::max);
    println!("{void} measurements were void and repeated; 99 of 100 packets left the links at most {late:.2} ms late.");
}
