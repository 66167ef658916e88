//! `mimbox-lab bench engine`: the table, as text, JSON and SVG.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::rows::{self, Effort, Measured, Row, Table, What};
use super::world::{Direction, World};
use super::{callgrind, chart};

/// What `mimbox-lab bench engine` is to do.
#[derive(Args, Clone, Debug)]
pub struct EngineArgs {
    /// Write the rows to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a chart of cost over live conversions to this file.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Fewer rows, shorter slices.
    #[arg(long)]
    pub quick: bool,
    /// Count instructions too (needs valgrind; takes minutes).
    #[arg(long)]
    pub callgrind: bool,
    /// Do one row once, for callgrind to count.
    #[arg(long, hide = true, value_name = "ROW")]
    pub one: Option<String>,
}

/// Everything that was found in one run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// The rows.
    pub(super) rows: Vec<Measured>,
    /// Resident bytes of one idle conversion, by how many there were.
    pub(super) idle_bytes: Vec<(u32, f64)>,
}

/// Runs the command.
///
/// # Errors
/// When the box does not do its work, or a file cannot be written.
pub(super) fn command(args: &EngineArgs) -> anyhow::Result<ExitCode> {
    if let Some(row) = &args.one {
        println!("{}", rows::count_once(&serde_json::from_str(row)?)?);
        return Ok(ExitCode::SUCCESS);
    }
    let (table, effort) = if args.quick { (Table::quick(), Effort::QUICK) } else { (Table::full(), Effort::FULL) };
    let mut report = Report { rows: Vec::new(), idle_bytes: Vec::new() };
    print_heading();
    for &segment_bytes in &table.segment_bytes {
        for direction in [Direction::Upload, Direction::Download] {
            let ns = rows::measure_floor(segment_bytes, direction, effort)?;
            let row = Row::floor(segment_bytes, direction);
            report.take(row, ns, None, args)?;
        }
    }
    for (row, ns) in rows::measure_ends(&table.ends(), effort)? {
        report.take(row, ns, None, args)?;
    }
    for (shape, rows) in table.worlds() {
        let before = resident_bytes()?;
        let mut world = World::new(shape)?;
        world.open_all(false)?;
        if shape.conversions >= 1_000 && shape.subflows == 1 && !shape.checksum {
            let each = (resident_bytes()? as f64 - before as f64) / f64::from(shape.conversions);
            report.idle_bytes.push((shape.conversions, each));
        }
        for row in rows {
            let ns = rows::measure(&mut world, &row, effort)?;
            let floor = report.floor(&row);
            report.take(row, ns, floor, args)?;
        }
    }
    print_ratios(&report);
    if let Some(file) = &args.json {
        std::fs::write(file, serde_json::to_string_pretty(&report)? + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Some(file) = &args.svg {
        chart::write(file, &report.rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Bytes of memory that the process holds.
fn resident_bytes() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").context("this process's memory")?;
    let pages = text.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    Ok(pages.context("/proc/self/statm has a second number")? * rustix::param::page_size() as u64)
}

impl Report {
    fn take(&mut self, row: Row, ns: f64, floor_ns: Option<f64>, args: &EngineArgs) -> anyhow::Result<()> {
        let counted = args.callgrind && callgrind::is_counted(&row);
        let instructions = if counted { Some(callgrind::instructions(&row)?) } else { None };
        let measured = Measured { row, ns_per_segment: ns, floor_ns, instructions_per_segment: instructions };
        print_row(&measured);
        self.rows.push(measured);
        Ok(())
    }

    fn floor(&self, row: &Row) -> Option<f64> {
        let same = |other: &&Measured| {
            let (a, b) = (other.row.load, row.load);
            other.row.what == What::Floor && a.segment_bytes == b.segment_bytes && a.direction == b.direction
        };
        (row.what == What::Data).then(|| self.rows.iter().find(same).map(|found| found.ns_per_segment)).flatten()
    }
}

fn print_heading() {
    println!(
        "{:<15} {:>11} {:>5} {:>9} {:>8} {:>8} {:>8} {:>9} {:>9} {:>6} {:>7}",
        "what", "conversions", "bytes", "order", "subflows", "checksum", "way", "ns", "floor ns", "ratio", "instr."
    );
}

fn print_row(measured: &Measured) {
    let Row { what, shape, load } = measured.row;
    let word = |value: &dyn erased::Word| value.word();
    let blank = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    println!(
        "{:<15} {:>11} {:>5} {:>9} {:>8} {:>8} {:>8} {:>9.1} {:>9} {:>6} {:>7}",
        word(&what),
        shape.conversions,
        load.segment_bytes,
        word(&load.order),
        shape.subflows,
        if shape.checksum { "yes" } else { "no" },
        word(&load.direction),
        measured.ns_per_segment,
        blank(measured.floor_ns.map(|ns| format!("{ns:.1}"))),
        blank(measured.floor_ns.map(|ns| format!("{:.2}", measured.ns_per_segment / ns))),
        blank(measured.instructions_per_segment.map(|count| format!("{count:.0}"))),
    );
}

/// The words of enums, as they stand in the JSON.
mod erased {
    use serde::Serialize;

    pub(super) trait Word {
        fn word(&self) -> String;
    }

    impl<T: Serialize> Word for T {
        fn word(&self) -> String {
            serde_json::to_value(self).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
        }
    }
}

/// What the figures are about: one row against another of the same run.
fn print_ratios(report: &Report) {
    println!();
    for (conversions, bytes) in &report.idle_bytes {
        println!("an idle conversion among {conversions}: {bytes:.0} bytes of memory");
    }
    for ratio in ratios(&report.rows) {
        println!("{ratio}");
    }
}

/// Each bound with what was found.
fn ratios(rows: &[Measured]) -> Vec<String> {
    let mut lines = Vec::new();
    let value = |measured: &Measured| measured.instructions_per_segment.unwrap_or(measured.ns_per_segment);
    for measured in rows.iter().filter(|measured| measured.row.what == What::Data) {
        let Row { shape, load, .. } = measured.row;
        let find = |change: &dyn Fn(&mut Row)| {
            let mut wanted = measured.row;
            change(&mut wanted);
            rows.iter().find(|other| other.row == wanted)
        };
        let mut say = |what: &str, than: Option<&Measured>, by: &dyn Fn(&Measured) -> f64| {
            if let Some(than) = than {
                let percent = (by(measured) / by(than) - 1.0) * 100.0;
                let (bytes, way) = (load.segment_bytes, erased::Word::word(&load.direction));
                lines.push(format!("{what:<46} {bytes:>5} bytes, {way:>8}: {percent:+.1}%"));
            }
        };
        let ns = |measured: &Measured| measured.ns_per_segment;
        if shape.conversions == 100_000 && shape.subflows == 1 && !shape.checksum {
            say("time, 100,000 conversions over 1,000", find(&|row| row.shape.conversions = 1_000), &ns);
        }
        if shape.conversions != 1_000 {
            continue;
        }
        if shape.checksum {
            say("DSS checksum over none", find(&|row| row.shape.checksum = false), &value);
        } else if shape.subflows == 2 {
            say("two subflows over one", find(&|row| row.shape.subflows = 1), &value);
        } else if load.order == super::world::Order::Reordered {
            say("1% reordering over none", find(&|row| row.load.order = super::world::Order::Straight), &value);
        }
    }
    lines
}
