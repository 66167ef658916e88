//! What one download through the box brings over links of every kind: goodput over loss, round-trip time and buffer, in
//! the simulator, where it is the same each time. The table in `tests/goodput.txt` says what it was when somebody last
//! looked at it; a change that costs goodput somewhere is seen here before it is felt.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use mimbox_stack::{Duration, Instant};

use super::link::LinkOptions;
use super::node::{End, Node};
use super::peer::PeerOptions;
use super::plan::{Closing, Plan, Speaks, Target, Traffic};
use super::profile::{BoxOptions, HostOptions, Options, Topology};
use super::run::build;

/// Bytes of the download: eight seconds of the link, more where packets are lost.
const BYTES: u64 = 20_000_000;
/// Rate of the client's link.
const RATE_BPS: u64 = 20_000_000;
/// Round-trip times of the client's link, in milliseconds.
const RTTS_MS: [u64; 4] = [2, 20, 80, 200];
/// Losses, in packets of a million, towards the client.
const LOSSES_PPM: [u32; 4] = [0, 100, 1_000, 10_000];
/// What may wait for the link, in per cent of what a round trip carries.
const BUFFERS: [u32; 3] = [25, 100, 400];
/// Runs of a case with chance in it; their mean counts.
const SEEDS: u64 = 4;
/// How far goodput may be from the table before somebody has to look at it.
const TOLERANCE: f64 = 0.05;
/// A download that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(3_600);

/// A link of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// Packets lost of a million, towards the client.
    pub loss_ppm: u32,
    /// Round-trip time without queues, in milliseconds.
    pub rtt_ms: u64,
    /// What may wait for the link, in per cent of what a round trip carries; ten full packets at least.
    pub buffer: u32,
}

/// What a case came to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Goodput {
    /// Bits of payload in a microsecond, from the client's SYN to the last byte.
    pub mbit: f64,
    /// Segments that the box sent again, for each million bytes.
    pub retransmits: f64,
}

/// A row of the table.
pub type Row = (Case, Goodput);

/// Options of the command.
#[derive(Args, Clone, Debug)]
pub struct GoodputArgs {
    /// Compare with the table in this file: differences of more than 5% fail.
    #[arg(long, value_name = "FILE", conflicts_with = "bless")]
    pub check: Option<PathBuf>,
    /// Write the table to this file.
    #[arg(long, value_name = "FILE")]
    pub bless: Option<PathBuf>,
    /// Run one case only: loss in packets of a million, round-trip time in milliseconds, buffer in per cent.
    #[arg(long, value_name = "LOSS/RTT/BUFFER", conflicts_with_all = ["check", "bless"])]
    pub only: Option<Case>,
    /// Write every packet of that case's first seed to this file (pcapng).
    #[arg(long, value_name = "FILE", requires = "only")]
    pub capture: Option<PathBuf>,
}

impl Case {
    /// All cases of the table.
    pub fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for loss_ppm in LOSSES_PPM {
            for rtt_ms in RTTS_MS {
                cases.extend(BUFFERS.map(|buffer| Self { loss_ppm, rtt_ms, buffer }));
            }
        }
        cases
    }

    /// Runs the case.
    ///
    /// # Errors
    /// When the download does not end, or a byte of it differs.
    pub fn run(&self) -> anyhow::Result<Goodput> {
        self.run_captured(None)
    }

    fn run_captured(&self, capture: Option<&Path>) -> anyhow::Result<Goodput> {
        let seeds = if self.loss_ppm == 0 { 1 } else { SEEDS };
        let mut sum = Goodput { mbit: 0.0, retransmits: 0.0 };
        for seed in 1..=seeds {
            let once =
                self.run_once(seed, capture.filter(|_| seed == 1)).with_context(|| format!("{self}, seed {seed}"))?;
            sum.mbit += once.mbit / seeds as f64;
            sum.retransmits += once.retransmits / seeds as f64;
        }
        Ok(sum)
    }

    fn run_once(&self, seed: u64, capture: Option<&Path>) -> anyhow::Result<Goodput> {
        let mut world = build(&self.options(), &[download()], seed)?;
        capture.map_or(Ok(()), |path| world.capture_to(path))?;
        world.run(Instant::ZERO + LIMIT, |world| world.nodes().any(has_all));
        ensure!(world.nodes().any(has_all), "the download did not end within {LIMIT}");
        let took = world.now().since(Instant::ZERO);
        let mut complaint = None;
        for node in world.nodes() {
            node.apps(&mut |_, _, app| complaint = complaint.take().or_else(|| app.complaint.clone()));
        }
        ensure!(complaint.is_none(), "{}", complaint.unwrap_or_default());
        let retransmits: u64 = world.nodes_mut().map(|node| node.box_retransmits()).sum();
        Ok(Goodput {
            mbit: BYTES as f64 * 8.0 / took.as_micros() as f64,
            retransmits: retransmits as f64 * 1e6 / BYTES as f64,
        })
    }

    fn options(&self) -> Options {
        let bdp = RATE_BPS / 8 * self.rtt_ms / 1_000;
        let there = LinkOptions {
            rate_bps: RATE_BPS,
            delay: Duration::from_micros(self.rtt_ms * 500),
            queue_bytes: (bdp * u64::from(self.buffer) / 100).max(15_000) as u32,
            ..LinkOptions::CLEAN
        };
        let back = LinkOptions { loss_ppm: self.loss_ppm, ..there };
        // Nothing is lost towards the box: its sender is what is measured.
        let core = LinkOptions { delay: Duration::from_micros(50), queue_bytes: 64 << 20, ..LinkOptions::CLEAN };
        let keepalive = Duration::from_secs(30);
        Options {
            topology: Topology::Explicit,
            traffic: Traffic {
                connections: 1,
                max_bytes: BYTES,
                start_within: Duration::ZERO,
                mptcp_ppm: 0,
                foreign_ppm: 0,
                reset_ppm: 0,
                refused_ppm: 0,
                absent_ppm: 0,
                slow_reader_ppm: 0,
                adversary_ppm: 0,
            },
            links: [[there, back], [there, back], [core, core]],
            middleboxes: [[None; 2]; 2],
            clients: HostOptions {
                mtu: 1500,
                receive_buffer: 8 << 20,
                send_frames: 256,
                timestamps: true,
                sack: true,
                window_scale: 8,
                checksum: false,
                short_writes_ppm: 0,
                poll_every: Duration::ZERO,
                keepalive,
                join_after: Duration::from_secs(1),
                leave_after: None,
            },
            servers: PeerOptions {
                receive_buffer: 1 << 20,
                send_buffer: 4 << 20,
                mtu: 1500,
                timestamps: true,
                nagle: false,
                ack_delay: Duration::ZERO,
                keepalive,
                poll_every: Duration::ZERO,
            },
            converter: BoxOptions {
                poll_every: Duration::from_micros(20),
                completion_within: Duration::from_micros(20),
                ring: 256,
                frames: 32 << 10,
                mtu: 1500,
                window_ceiling: 4096,
                most_frames: None,
                count_every: Duration::from_millis(50),
                keepalive,
            },
            time_limit: LIMIT,
        }
    }
}

impl FromStr for Case {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let words: Vec<&str> = text.split('/').collect();
        let [loss, rtt, buffer] = words[..] else {
            bail!("three numbers are expected, like 1000/80/100");
        };
        Ok(Self { loss_ppm: loss.parse()?, rtt_ms: rtt.parse()?, buffer: buffer.parse()? })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loss = f64::from(self.loss_ppm) / 10_000.0;
        write!(f, "{loss}% loss, {} ms, buffer of {}%", self.rtt_ms, self.buffer)
    }
}

fn download() -> Plan {
    Plan {
        start: Instant::ZERO,
        speaks: Speaks::Tcp,
        target: Target::Listening,
        up: 100,
        down: BYTES,
        up_key: 1,
        down_key: 2,
        client_closing: Closing::AfterPeer,
        server_closing: Closing::AfterPeer,
        client_pace: 0,
        server_pace: 0,
        may_break: false,
        may_change: false,
        adversary: None,
    }
}

/// True for the client's node once it has the whole download.
fn has_all(node: &dyn Node) -> bool {
    let mut all = false;
    node.apps(&mut |_, end, app| all |= end == End::Client && app.has_read_all());
    all
}

/// Runs every case, as many at a time as there are cores.
///
/// # Errors
/// As [`Case::run`].
pub fn measure() -> anyhow::Result<Vec<Row>> {
    let cases = Case::all();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((index, case)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    cases.get(index).map(|case| (index, case))
                } {
                    let result = case.run();
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((index, *case, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, ..)| *index);
    done.into_iter().map(|(_, case, result)| result.map(|goodput| (case, goodput))).collect()
}

/// The table as text, a case a line.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "# A download of 20 MB by one TCP client through the box (CUBIC, both halves), over a client's link of 20 Mbit/s in\n\
         # the simulator. `make bless` writes it anew; `make test` compares goodput with it, to 5%.\n\
         # Loss in packets of a million; the buffer in per cent of what a round trip carries; goodput in Mbit/s, of which at\n\
         # most 19.3 fit; segments that were sent again for each million bytes.\n\
         # loss   rtt_ms   buffer   goodput   retransmits\n",
    );
    for (case, goodput) in rows {
        let Case { loss_ppm, rtt_ms, buffer } = case;
        let _ = writeln!(
            text,
            "{loss_ppm:6}   {rtt_ms:6}   {buffer:6}   {:7.2}   {:11.1}",
            goodput.mbit, goodput.retransmits
        );
    }
    text
}

/// Reads what [`table`] wrote.
///
/// # Errors
/// When a line is none of a table's.
pub fn parse(text: &str) -> anyhow::Result<Vec<Row>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [loss, rtt, buffer, mbit, retransmits] = words[..] else {
                bail!("line {}: five numbers are expected, not `{line}`", number + 1);
            };
            let case = Case { loss_ppm: loss.parse()?, rtt_ms: rtt.parse()?, buffer: buffer.parse()? };
            Ok((case, Goodput { mbit: mbit.parse()?, retransmits: retransmits.parse()? }))
        })
        .collect()
}

/// What differs between the table that is kept and today's rows, a line each.
pub fn differences(kept: &[Row], today: &[Row]) -> Vec<String> {
    let mut found = Vec::new();
    if kept.len() != today.len() {
        found.push(format!("the table has {} rows, and there are {} cases", kept.len(), today.len()));
    }
    for (case, now) in today {
        match kept.iter().find(|(of, _)| of == case) {
            None => found.push(format!("{case}: not in the table")),
            Some((_, then)) if (now.mbit / then.mbit - 1.0).abs() > TOLERANCE => {
                let percent = (now.mbit / then.mbit - 1.0) * 100.0;
                found.push(format!("{case}: {:.2} Mbit/s, {percent:+.1}% against {:.2}", now.mbit, then.mbit));
            }
            Some(_) => {}
        }
    }
    found
}

/// Runs the command.
///
/// # Errors
/// When a case fails or a file cannot be read or written.
pub fn goodput_command(args: &GoodputArgs) -> anyhow::Result<ExitCode> {
    let rows = match &args.only {
        Some(case) => vec![(*case, case.run_captured(args.capture.as_deref())?)],
        None => measure()?,
    };
    let text = table(&rows);
    if let Some(path) = &args.bless {
        std::fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    print!("{text}");
    let Some(path) = &args.check else { return Ok(ExitCode::SUCCESS) };
    let kept = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let kept = parse(&kept).with_context(|| format!("{} is no goodput table", path.display()))?;
    let found = differences(&kept, &rows);
    for difference in &found {
        eprintln!("{difference}");
    }
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let mut mbit = 20.0;
        let row = |case| {
            mbit -= 0.3;
            (case, Goodput { mbit, retransmits: 1.5 })
        };
        Case::all().into_iter().map(row).collect()
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let rows = rows();
        let read = parse(&table(&rows)).expect("a table");
        assert_eq!(read.len(), LOSSES_PPM.len() * RTTS_MS.len() * BUFFERS.len());
        assert!(differences(&read, &rows).is_empty());
    }

    #[test]
    fn a_difference_either_way_a_missing_row_and_a_spare_one_are_told() {
        let kept = rows();
        let mut today = kept.clone();
        today[3].1.mbit *= 0.94;
        today[5].1.mbit *= 1.06;
        today[7].1.mbit *= 0.96;
        let found = differences(&kept, &today);
        assert_eq!(found.len(), 2, "{found:?}");
        let found = differences(&kept[1..], &kept);
        assert!(found.len() == 2 && found[1].contains("not in the table"), "{found:?}");
        assert!(parse("0 2 25 19.0").is_err() && parse("0 2 25 19.0 x").is_err());
    }
}
