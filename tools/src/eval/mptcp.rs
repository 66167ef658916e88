//! Bulk MPTCP connections over two paths: what they give together, and what happens when one dies.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::bench::{Bench, Event, LinkPlan, Measured, Middle, valid};
use super::flow::{Flow, STEP, server_address};
use super::tcp::median;
use crate::lab::transfer::Direction;
use crate::lab::transfer::socket::Kind;
use crate::lab::{Mode, Path, ServerMptcp, catch_interrupts, tells_of_damage};

/// When a path is cut.
const CUT: Duration = Duration::from_secs(8);
/// How long there is no path at all.
const DARK: Duration = Duration::from_secs(20);

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    /// Download over 50 and 20 Mbit/s, 20 and 60 ms, beside the sum of both alone.
    Sum,
    /// The same as an upload, beside kernels at both ends.
    Upload,
    /// The same with 2% of the packets lost on the second path, both directions, beside the first path alone.
    Lossy,
    /// Download over 8 and 2 Mbit/s, 20 and 80 ms.
    Slow,
    /// The first path dies.
    Handover,
    /// The only path dies, and another appears 20 s later.
    Dark,
}

/// `mimbox-lab eval mptcp`.
#[derive(Clone, Debug, Args)]
pub struct MptcpArgs {
    /// What to compare; without it, all.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub rows: Vec<Row>,
    /// Runs of each.
    #[arg(long, default_value_t = 3)]
    pub runs: u64,
    /// Seconds of each run, from connecting.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Seed of the first run.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where to write all figures, after each run.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// What is measured by itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Part {
    /// 50 and 20 Mbit/s.
    Both,
    /// The first of them.
    FirstAlone,
    /// The second.
    SecondAlone,
    /// Both, the second lossy.
    Lossy,
    /// 8 and 2 Mbit/s.
    Slow,
    /// Both, until the first dies.
    Handover,
    /// One after the other.
    Dark,
}

impl Part {
    fn links(self, seed: u64) -> Vec<LinkPlan> {
        let link = |mbit, rtt_ms, fault: Option<&str>| LinkPlan {
            mbit,
            rtt: Duration::from_millis(rtt_ms),
            faults: fault.map(str::to_owned).into_iter().collect(),
            seed,
        };
        let (first, second) = (link(50, 20, None), link(20, 60, None));
        match self {
            Self::FirstAlone => vec![first],
            Self::SecondAlone => vec![second],
            Self::Both | Self::Handover | Self::Dark => vec![first, second],
            Self::Lossy => vec![first, link(20, 60, Some("--loss=2%"))],
            Self::Slow => vec![link(8, 20, None), link(2, 80, None)],
        }
    }

    fn events(self) -> Vec<(Duration, Event)> {
        match self {
            Self::Handover => vec![(CUT, Event::Cut(Path::First))],
            Self::Dark => vec![
                (Duration::ZERO, Event::Vanish(Path::Second)),
                (CUT, Event::Cut(Path::First)),
                (CUT + DARK, Event::Appear(Path::Second)),
            ],
            _ => Vec::new(),
        }
    }

    fn time(self, seconds: u64) -> Duration {
        match self {
            Self::Handover => CUT + Duration::from_secs(12),
            Self::Dark => CUT + DARK + Duration::from_secs(12),
            _ => Duration::from_secs(seconds),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Both => "50 + 20 Mbit/s",
            Self::FirstAlone => "50 Mbit/s alone",
            Self::SecondAlone => "20 Mbit/s alone",
            Self::Lossy => "50 + 20 Mbit/s, 2% lost on the second",
            Self::Slow => "8 + 2 Mbit/s",
            Self::Handover => "50 + 20 Mbit/s, the first dies",
            Self::Dark => "one path dies, another 20 s later",
        }
    }
}

/// One thing to measure.
type Case = (Part, Direction, Middle);

impl Row {
    fn cases(self) -> Vec<Case> {
        use Direction::{Download, Upload};
        let boxed = |part, direction| (part, direction, Middle::Box);
        match self {
            Self::Sum => [Part::FirstAlone, Part::SecondAlone, Part::Both].map(|part| boxed(part, Download)).to_vec(),
            Self::Upload => vec![(Part::Both, Upload, Middle::Kernel), boxed(Part::Both, Upload)],
            Self::Lossy => [Download, Upload]
                .into_iter()
                .flat_map(|direction| [boxed(Part::FirstAlone, direction), boxed(Part::Lossy, direction)])
                // What a client's kernel sends is its own affair: how it does towards a kernel stands beside it.
                .chain([(Part::Lossy, Upload, Middle::Kernel)])
                .collect(),
            Self::Slow => vec![boxed(Part::Slow, Download)],
            Self::Handover | Self::Dark => {
                let part = if self == Self::Dark { Part::Dark } else { Part::Handover };
                let middles = [Middle::Kernel, Middle::Box];
                [Download, Upload].into_iter().flat_map(|way| middles.map(|middle| (part, way, middle))).collect()
            }
        }
    }
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Figure {
    part: Part,
    direction: Direction,
    middle: Middle,
    seed: u64,
    /// Bits a second that arrived, from connecting to the end.
    goodput_bps: f64,
    /// From a cut on: the longest time without a byte for the application.
    gap_ms: Option<u64>,
    /// Bits a second in the last five seconds.
    last_bps: f64,
    retransmissions: u64,
    /// Counters of the client's kernel that tell of damage or fallback.
    suspicious: BTreeMap<String, u64>,
    /// All of its counters of MPTCP that moved.
    mptcp: BTreeMap<String, u64>,
    congestion: String,
    /// Smoothed round-trip times of both paths at the cut, as the box has them.
    srtt_ms: Vec<f64>,
    void: Vec<String>,
}

impl Figure {
    /// The RTO of the first path, and a round trip on the second. RFC 6298 §2.3 adds four deviations to the smoothed round-trip
    /// time; the box, like Linux, at least 200 ms, which is more here.
    fn handover_limit_ms(&self) -> Option<f64> {
        match self.srtt_ms[..] {
            [first, second] => Some(first + 200.0 + second),
            _ => None,
        }
    }
}

/// Runs the command.
pub(super) fn command(args: &MptcpArgs) -> Result<ExitCode> {
    catch_interrupts()?;
    let rows = if args.rows.is_empty() { Row::value_variants() } else { &args.rows };
    let mut cases: Vec<Case> = Vec::new();
    for case in rows.iter().flat_map(|row| row.cases()) {
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    let mut figures = Vec::new();
    for seed in args.seed..args.seed + args.runs {
        for case in &cases {
            let figure = measure(*case, seed, args.seconds)?;
            tell(&figure);
            figures.push(figure);
            if let Some(file) = &args.json {
                fs::write(file, serde_json::to_string_pretty(&figures)? + "\n")
                    .with_context(|| format!("cannot write {}", file.display()))?;
            }
        }
    }
    let verdicts: Vec<Verdict> = rows.iter().flat_map(|row| verdicts(*row, &figures)).collect();
    print(&cases, &figures, &verdicts);
    Ok(if verdicts.iter().all(Verdict::holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure((part, direction, middle): Case, seed: u64, seconds: u64) -> Result<Figure> {
    let (server, server_mptcp) = match middle {
        Middle::Kernel => (Kind::Mptcp, ServerMptcp::On),
        Middle::Box => (Kind::Tcp, ServerMptcp::Off),
    };
    // A transparent box forbids subflows to the server's address and announces one of its own, which a kernel client tries
    // when it hears of it and not when it gets another interface later.
    let mode = if part == Part::Dark { Mode::Explicit } else { Mode::Transparent };
    let time = part.time(seconds);
    let flow = Flow { direction, client: Kind::Mptcp, server, time, to: server_address(), ordinary: false };
    let (measured, void) = valid(&format!("{}, {direction:?}, {middle}, seed {seed}", part.words()), || {
        Bench::build(middle, mode, &part.links(seed), server_mptcp)?.measure(&flow, &part.events())
    })?;
    let Measured { flow, retransmissions, mptcp, srtt, .. } = measured;
    let cut = part.events().iter().any(|(_, event)| matches!(event, Event::Cut(_)));
    Ok(Figure {
        part,
        direction,
        middle,
        seed,
        goodput_bps: flow.bytes() as f64 * 8.0 / time.as_secs_f64(),
        // Both ends were started within less than this of each other.
        gap_ms: cut.then(|| flow.longest_gap(CUT - Duration::from_millis(500)).as_millis() as u64),
        last_bps: flow.rate(time - Duration::from_secs(5.min(seconds)), time),
        retransmissions,
        suspicious: mptcp.iter().filter(|(name, _)| tells_of_damage(name)).map(|(k, v)| (k.clone(), *v)).collect(),
        mptcp,
        congestion: flow.congestion,
        srtt_ms: srtt.iter().map(|srtt| srtt.as_secs_f64() * 1e3).collect(),
        void,
    })
}

fn tell(figure: &Figure) {
    let gap = figure.gap_ms.map(|ms| format!(", longest gap {ms} ms")).unwrap_or_default();
    let srtt = figure.srtt_ms.iter().map(|ms| format!(", SRTT {ms:.0} ms")).collect::<String>();
    eprintln!(
        "  {:40} {:8?} {:6} seed {}  {:6.2} Mbit/s, {:.2} in the last seconds{gap}{srtt}, {} sent again {:?}",
        figure.part.words(),
        figure.direction,
        figure.middle,
        figure.seed,
        figure.goodput_bps / 1e6,
        figure.last_bps / 1e6,
        figure.retransmissions,
        figure.suspicious,
    );
}

/// What must hold, and what was measured.
struct Verdict {
    what: &'static str,
    value: f64,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Verdict {
    fn holds(&self) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => self.value >= bound,
            Bound::AtMost(bound) => self.value <= bound,
        }
    }
}

fn verdicts(row: Row, figures: &[Figure]) -> Vec<Verdict> {
    use Direction::{Download, Upload};
    let of = |(part, direction, middle): Case| {
        figures.iter().filter(move |f| (f.part, f.direction, f.middle) == (part, direction, middle))
    };
    let rate = |part, direction, middle| median(of((part, direction, middle)).map(|figure| figure.goodput_bps / 1e6));
    let gap = |part, direction, middle| {
        median(of((part, direction, middle)).filter_map(|figure| figure.gap_ms).map(|ms| ms as f64))
    };
    let boxed = |part, direction| rate(part, direction, Middle::Box);
    let verdict = |what, value: f64, bound| Verdict { what, value, bound };
    match row {
        Row::Sum => {
            let sum = boxed(Part::FirstAlone, Download) + boxed(Part::SecondAlone, Download);
            vec![verdict(
                "download, of the sum of both paths alone",
                boxed(Part::Both, Download) / sum,
                Bound::AtLeast(0.92),
            )]
        }
        Row::Upload => {
            let kernel = rate(Part::Both, Upload, Middle::Kernel);
            vec![verdict("upload, of kernel to kernel", boxed(Part::Both, Upload) / kernel, Bound::AtLeast(0.95))]
        }
        Row::Lossy => [(Download, "download, of the first path alone"), (Upload, "upload, of the first path alone")]
            .map(|(way, what)| {
                verdict(what, boxed(Part::Lossy, way) / boxed(Part::FirstAlone, way), Bound::AtLeast(0.95))
            })
            .into(),
        Row::Slow => {
            vec![verdict("8 + 2 Mbit/s download, Mbit/s", boxed(Part::Slow, Download), Bound::AtLeast(9.0))]
        }
        Row::Handover => {
            let limits = of((Part::Handover, Download, Middle::Box)).filter_map(Figure::handover_limit_ms);
            // As exact as the steps in which bytes are noted.
            let limit = Bound::AtMost(median(limits) + 2.0 * STEP.as_secs_f64() * 1e3);
            let kernel = gap(Part::Handover, Upload, Middle::Kernel);
            vec![
                verdict("handover of a download, ms", gap(Part::Handover, Download, Middle::Box), limit),
                verdict(
                    "handover of an upload, ms (kernel to kernel is the bound)",
                    gap(Part::Handover, Upload, Middle::Box),
                    Bound::AtMost(kernel),
                ),
            ]
        }
        Row::Dark => [(Download, "download after the dark, Mbit/s"), (Upload, "upload after the dark, Mbit/s")]
            .map(|(way, what)| {
                let last = median(of((Part::Dark, way, Middle::Box)).map(|figure| figure.last_bps / 1e6));
                verdict(what, last, Bound::AtLeast(15.0))
            })
            .into(),
    }
}

fn print(cases: &[Case], figures: &[Figure], verdicts: &[Verdict]) {
    println!("Medians; goodput in Mbit/s from connecting to the end");
    println!();
    println!("| paths | direction | between | runs | goodput | last 5 s | longest gap, ms | sent again |");
    println!("|---|---|---|---|---|---|---|---|");
    for (part, direction, middle) in cases {
        let these = || figures.iter().filter(|f| (f.part, f.direction, f.middle) == (*part, *direction, *middle));
        let gaps: Vec<f64> = these().filter_map(|figure| figure.gap_ms).map(|ms| ms as f64).collect();
        let gap = if gaps.is_empty() { String::new() } else { format!("{:.0}", median(gaps.into_iter())) };
        println!(
            "| {} | {} | {middle} | {} | {:.2} | {:.2} | {gap} | {:.0} |",
            part.words(),
            format!("{direction:?}").to_lowercase(),
            these().count(),
            median(these().map(|figure| figure.goodput_bps / 1e6)),
            median(these().map(|figure| figure.last_bps / 1e6)),
            median(these().map(|figure| figure.retransmissions as f64)),
        );
    }
    println!();
    for verdict in verdicts {
        let bound = match verdict.bound {
            Bound::AtLeast(bound) => format!("at least {bound}"),
            Bound::AtMost(bound) => format!("at most {bound}"),
        };
        println!("{} {}: {:.3} ({bound})", if verdict.holds() { "ok " } else { "NOT" }, verdict.what, verdict.value);
    }
    let mut suspicious: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, count) in figures.iter().filter(|f| f.middle == Middle::Box).flat_map(|figure| &figure.suspicious) {
        *suspicious.entry(name).or_default() += count;
    }
    println!("Counters of damage and fallback at the box's clients: {suspicious:?}");
    println!("Void and repeated: {}", figures.iter().map(|figure| figure.void.len()).sum::<usize>());
}
