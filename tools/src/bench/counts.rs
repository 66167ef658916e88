//! `mimbox-lab bench counts`: instructions and cache lines of the rows that the project promises something about, against those
//! that the repository has on record.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::callgrind;
use super::rows::{Row, What};
use super::world::{Direction, Load, Order, Shape};

/// A count may be so much above what is on record.
const TOLERANCE: f64 = 0.05;
/// The compiler that this program was built by.
const RUSTC: &str = env!("MIMBOX_RUSTC");

/// What `mimbox-lab bench counts` is to do.
#[derive(Args, Clone, Debug)]
pub struct CountsArgs {
    /// Write what is counted to the file, instead of comparing.
    #[arg(long)]
    pub bless: bool,
    /// The file with the counts on record.
    #[arg(long, value_name = "FILE", default_value = "tools/counts.toml")]
    pub file: PathBuf,
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The compiler that the counts are about: another one makes other code.
    rustc: String,
    /// Instructions for each segment.
    instructions: Counts,
    /// Distinct cache lines for each segment, of what its conversation has and of its packets.
    lines: Counts,
}

/// What was counted, by row.
type Counts = BTreeMap<String, f64>;

/// How a kind of count is made.
struct Kind {
    name: &'static str,
    rows: Vec<(&'static str, Row)>,
    count: fn(&Row) -> anyhow::Result<f64>,
    /// Steps of one that are told apart.
    steps: f64,
    on_record: fn(&Record) -> &Counts,
}

/// All that is counted.
fn kinds() -> [Kind; 2] {
    let many = |(_, row): &(&str, Row)| row.what == What::Data && row.shape.conversions > 1;
    [
        Kind {
            name: "instructions",
            rows: rows(),
            count: callgrind::instructions,
            steps: 1.0,
            on_record: |record| &record.instructions,
        },
        Kind {
            name: "lines",
            rows: rows().into_iter().filter(many).collect(),
            count: callgrind::lines,
            steps: 10.0,
            on_record: |record| &record.lines,
        },
    ]
}

/// The rows, each by its name in the file.
fn rows() -> Vec<(&'static str, Row)> {
    let row = |what, conversions, subflows, checksum, direction, order| Row {
        what,
        shape: Shape { conversions, subflows, checksum },
        load: Load { segment_bytes: 1_424, direction, order },
    };
    let data = |conversions, subflows, checksum, direction, order| {
        row(What::Data, conversions, subflows, checksum, direction, order)
    };
    vec![
        ("upload", data(1, 1, false, Direction::Upload, Order::Straight)),
        ("download", data(1, 1, false, Direction::Download, Order::Straight)),
        ("upload-checksum", data(1, 1, true, Direction::Upload, Order::Straight)),
        ("upload-two-subflows", data(1, 2, false, Direction::Upload, Order::Straight)),
        ("upload-reordered", data(1, 1, false, Direction::Upload, Order::Reordered)),
        ("upload-thousand", data(1_000, 1, false, Direction::Upload, Order::Straight)),
        ("download-thousand", data(1_000, 1, false, Direction::Download, Order::Straight)),
        ("upload-two-subflows-thousand", data(1_000, 2, false, Direction::Upload, Order::Straight)),
        ("client-ack", row(What::PureAck, 1_000, 1, false, Direction::Upload, Order::Straight)),
        ("server-ack", row(What::PureAck, 1_000, 1, false, Direction::Download, Order::Straight)),
    ]
}

/// Why nothing can be compared here, if so.
fn obstacle(record: Option<&Record>) -> Option<String> {
    if cfg!(debug_assertions) {
        return Some("this is not a release build".to_owned());
    }
    if !has_avx2() {
        return Some("the counts are of x86-64 with AVX2, which payload is summed by".to_owned());
    }
    if !callgrind::is_there() {
        return Some("valgrind is not installed".to_owned());
    }
    let record = record.filter(|record| record.rustc != RUSTC)?;
    Some(format!("the counts are of {}, and this was built by {RUSTC}", record.rustc))
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
const fn has_avx2() -> bool {
    false
}

/// Runs the command.
///
/// # Errors
/// When the file cannot be read or written, or a row cannot be counted.
pub(super) fn command(args: &CountsArgs) -> anyhow::Result<ExitCode> {
    let record = if args.bless { None } else { Some(read(&args.file)?) };
    if let Some(why) = obstacle(record.as_ref()) {
        if args.bless {
            bail!("nothing can be counted: {why}");
        }
        println!("NOTHING IS COMPARED: {why}");
        return Ok(ExitCode::SUCCESS);
    }
    let [instructions, lines] = kinds();
    let (instructions, grown) = compare(&instructions, record.as_ref())?;
    let (lines, more) = compare(&lines, record.as_ref())?;
    let grown = grown + more;
    if args.bless {
        return write(&args.file, instructions, lines).map(|()| ExitCode::SUCCESS);
    }
    if grown > 0 {
        println!("{grown} grew by more than {:.0}%: mend that, or say why and bless", TOLERANCE * 100.0);
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Counts all rows of a kind and prints them. What was counted, and how many have grown.
fn compare(kind: &Kind, record: Option<&Record>) -> anyhow::Result<(Counts, u32)> {
    let Kind { name, rows, count, steps, on_record } = kind;
    let (mut counts, mut grown) = (Counts::new(), 0);
    println!("{name:<28} {:>9} {:>9}", "on record", "now");
    for (row_name, row) in rows {
        let now = (count(row)? * steps).round() / steps;
        let before = record.and_then(|record| on_record(record).get(*row_name)).copied();
        let verdict = before.map_or("", |before| verdict(before, now));
        grown += u32::from(verdict == GROWN);
        println!("{row_name:<28} {:>9} {now:>9} {verdict}", before.map_or("-".to_owned(), |before| before.to_string()));
        counts.insert((*row_name).to_owned(), now);
    }
    Ok((counts, grown))
}

const GROWN: &str = "GREW";

fn verdict(before: f64, now: f64) -> &'static str {
    if now > before * (1.0 + TOLERANCE) {
        GROWN
    } else if now < before * (1.0 - TOLERANCE) {
        "fell: worth blessing"
    } else {
        ""
    }
}

fn read(file: &Path) -> anyhow::Result<Record> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read {}: name it by --file, or write it by --bless", file.display()))?;
    let record: Record =
        toml::from_str(&text).with_context(|| format!("{} is not what --bless writes", file.display()))?;
    for Kind { name, rows, on_record, .. } in kinds() {
        if let Some((row, _)) = rows.iter().find(|(row, _)| !on_record(&record).contains_key(*row)) {
            bail!("{} has no {name} of {row}: --bless writes all", file.display());
        }
    }
    Ok(record)
}

fn write(file: &Path, instructions: Counts, lines: Counts) -> anyhow::Result<()> {
    let record = Record { rustc: RUSTC.to_owned(), instructions, lines };
    let head = "# Instructions and distinct cache lines for each full-size segment (or acknowledgment), counted by callgrind in\n\
                # the release build. `mimbox-lab bench counts` compares, with --bless it writes this file.\n\n";
    std::fs::write(file, format!("{head}{}", toml::to_string(&record)?))
        .with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_may_grow_by_a_twentieth() {
        assert_eq!(verdict(1_000.0, 1_050.0), "");
        assert_eq!(verdict(1_000.0, 1_051.0), GROWN);
        assert_eq!(verdict(1_000.0, 949.0), "fell: worth blessing");
    }

    #[test]
    fn counts_of_another_compiler_are_not_compared() {
        let other = Record { rustc: "rustc 1.0.0".to_owned(), instructions: Counts::new(), lines: Counts::new() };
        assert!(obstacle(Some(&other)).is_some());
    }
}
