//! `mimbox-lab demo`: a real client, the box, a real server, and everything checked.

use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use mimbox_converter::metrics::Snapshot;
use mimbox_stack::Counter;

use super::box_process::{BoxProcess, Configuration};
use super::cli::both;
use super::interrupt::{catch_interrupts, interrupted};
use super::observe::{OptionCounts, ServerWatch};
use super::plan::{Family, Plan};
use super::progress::Progress;
use super::runner::{RunningTransfer, Transfer, TransferReport, TransferServer};
use super::topology::{Lab, LabOptions, Mode, Rate};
use super::transfer::{self, Direction};

mod report;

use report::{Checks, ModeResult, Retransmissions, Run, Summary};

/// The server's port.
const PORT: u16 = 5001;
/// Bytes that curl fetches.
const CURL_BYTES: u64 = 20_000_000;
/// The least share of the bytes that a path must carry when both have the same rate.
const LEAST_SHARE: f64 = 0.2;
/// How long the box may hold conversions after the ends have closed theirs.
const IDLE_LIMIT: Duration = Duration::from_secs(15);

/// `mimbox-lab demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoOptions {
    /// The mode to show; without it, explicit and then transparent.
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// Bytes of each transfer, like 1g, 256m or a plain number.
    #[arg(long, default_value = "1g", value_parser = parse_size)]
    pub size: u64,
    /// Rate of each path and direction, like 300mbit or 1gbit; one for both paths, or two with a comma. Paths are only
    /// shared evenly when they are what limits the transfer: the default is one that two slow cores still fill.
    #[arg(long, value_delimiter = ',', default_value = "200mbit")]
    pub rate: Vec<Rate>,
    /// Where the summary and the box's logs go.
    #[arg(long, value_name = "DIRECTORY", default_value = "target/demo")]
    pub output: PathBuf,
}

pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &lower[digits.len()..] {
        "" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return Err(format!("{text:?} is not a size: write it like 1g, 256m or 1000000")),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|size| (1..=1 << 40).contains(size))
        .ok_or_else(|| format!("{text:?}: between 1 byte and 1024g"))
}

/// Runs the demo; exit status 1 when a check fails.
pub fn demo(options: &DemoOptions) -> Result<ExitCode> {
    catch_interrupts()?;
    fs::create_dir_all(&options.output)
        .with_context(|| format!("cannot make the directory {}", options.output.display()))?;
    let modes = options.mode.map_or_else(|| vec![Mode::Explicit, Mode::Transparent], |mode| vec![mode]);
    let mut results = Vec::new();
    for mode in modes {
        results.push(show(mode, options).with_context(|| format!("{mode} mode"))?);
    }
    report::print(&results);
    let file = options.output.join("summary.json");
    let text = serde_json::to_string_pretty(&Summary::of(&results))?;
    fs::write(&file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    println!("Summary: {}", file.display());
    let failed = results.iter().any(|result| !result.checks.all_hold());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// One mode from an empty machine to an empty machine.
fn show(mode: Mode, options: &DemoOptions) -> Result<ModeResult> {
    let rates = both(&options.rate);
    eprintln!("{mode} mode: client with two paths of {} and {}, box, plain TCP server", rates[0], rates[1]);
    let lab = Lab::build(LabOptions { mode, rates, ..LabOptions::default() })?;
    let mut running = BoxProcess::start(&lab, &Configuration::new(mode))?;
    let result = exercise(&lab, &mut running, mode, options);
    let files = options.output.join(mode.to_string());
    keep_evidence(&running, &files);
    if interrupted() {
        bail!("interrupted");
    }
    let mut result = result.with_context(|| {
        let log = running.log();
        let tail: Vec<&str> = log.lines().rev().take(20).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!("the box's last words (all of them in {}):\n{}\n", files.display(), tail.join("\n"))
    })?;
    result.checks.note("the box stops in order", running.stop());
    Ok(result)
}

/// Statistics and log of the box, for whoever looks into a failure. Not having them fails nothing.
fn keep_evidence(running: &BoxProcess, directory: &FilePath) {
    let _ = fs::create_dir_all(directory);
    let _ = fs::write(directory.join("mimbox.log"), running.log());
    if let Ok(stats) = running.ask(&["stats", "--json"]) {
        let _ = fs::write(directory.join("stats.json"), stats);
    }
}

fn exercise(lab: &Lab, running: &mut BoxProcess, mode: Mode, options: &DemoOptions) -> Result<ModeResult> {
    let mut checks = Checks::default();
    let before = running.stats()?;
    let watch = ServerWatch::begin(lab.server())?;
    let mut server = TransferServer::start(lab, PORT)?;
    checks.note("mimbox stats --json answers", running.ask(&["stats", "--json"]).map(drop));
    checks.note("curl fetches through mptcpize, and by MPTCP", curl(lab));

    let mut runs = Vec::new();
    for (direction, name) in [(Direction::Upload, "upload"), (Direction::Download, "download")] {
        let run = transfer(lab, running, &mut server, direction, options.size, &format!("{mode} {name}"))?;
        checks.note(&format!("{name}: {} bytes arrive, SHA-256 equal at both ends", options.size), sound(&run));
        if lab.options().rates[0] == lab.options().rates[1] {
            checks.note(&format!("{name}: both paths carry more than 20% of the bytes"), shared(&run));
        }
        runs.push(run);
    }

    let idle = running.wait_until_idle(IDLE_LIMIT);
    let after = running.stats()?;
    checks.note("no conversion is left", idle.map(drop));
    checks.note("frames in use are the same before and after", same_frames(&before, &after));
    let seen = watch.counts()?;
    checks.note(&promise(mode, &seen), unseen(&seen, mode));
    checks.note("no socket is stuck at the client or server", closed(lab));
    let cpu_share = cpu_share(running, &before, &after)?;
    Ok(ModeResult { mode, runs, frames_before: before.pool.in_use, frames_after: after.pool.in_use, cpu_share, checks })
}

/// Moves data one way with one connection, showing how far it is.
fn transfer(
    lab: &Lab,
    running: &BoxProcess,
    server: &mut TransferServer,
    direction: Direction,
    bytes: u64,
    label: &str,
) -> Result<Run> {
    let retransmitted = |stats: &Snapshot| stats.counters.get(Counter::TcpRetransmits);
    let before = retransmitted(&running.stats()?);
    let mut client = Transfer::new(direction, bytes).start(lab, server)?;
    watch_progress(lab, &mut client, bytes, label)?;
    let report = client.finish(lab, server)?;
    let retransmissions = Retransmissions {
        client: report.client_retransmissions,
        the_box: retransmitted(&running.stats()?) - before,
        server: report.server_retransmissions,
    };
    Ok(Run { direction, bytes, report, retransmissions })
}

fn watch_progress(lab: &Lab, client: &mut RunningTransfer, bytes: u64, label: &str) -> Result<()> {
    let mut progress = Progress::begin(label, bytes);
    while !client.is_over()? {
        if interrupted() {
            bail!("interrupted");
        }
        progress.set(payload_of(client.path_bytes(lab)?.iter().sum()));
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// About how much data is in so many bytes on the wire: a full segment has 1424 bytes of data in 1514.
fn payload_of(wire: u64) -> u64 {
    wire / 1514 * 1424
}

fn sound(run: &Run) -> Result<()> {
    let faults = run.report.faults();
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    let passed: u64 = run.report.path_bytes.iter().sum();
    if passed < run.bytes {
        bail!("only {passed} bytes passed the client's interfaces");
    }
    Ok(())
}

fn shared(run: &Run) -> Result<()> {
    let shares = run.report.shares();
    if shares.iter().any(|share| *share <= LEAST_SHARE) {
        bail!(
            "{:.1}% and {:.1}%; the client's kernel counted {:?}",
            shares[0] * 100.0,
            shares[1] * 100.0,
            run.report.mptcp
        );
    }
    Ok(())
}

fn same_frames(before: &Snapshot, after: &Snapshot) -> Result<()> {
    let (before, after) = (before.pool.in_use, after.pool.in_use);
    if before != after {
        bail!("{before} before, {after} after");
    }
    Ok(())
}

/// What was looked at in the server's namespace, and what was not to be seen there.
fn promise(mode: Mode, seen: &OptionCounts) -> String {
    let OptionCounts { tcp, mp_capable_syn, .. } = seen;
    match mode {
        Mode::Explicit => format!("none of {tcp} TCP packets at the server had an MPTCP option or Dst Opt"),
        Mode::Transparent => format!(
            "none of {tcp} TCP packets at the server had an MPTCP option, but {mp_capable_syn} SYNs: their MP_CAPABLE is the \
             client's question whether the server speaks MPTCP, which a transparent box lets through; this server does not"
        ),
    }
}

fn unseen(seen: &OptionCounts, mode: Mode) -> Result<()> {
    // A transparent box cannot know whether the server speaks MPTCP unless the client's question gets there.
    let allowed = if mode == Mode::Transparent { seen.mp_capable_syn } else { 0 };
    if seen.tcp == 0 || seen.mptcp > allowed || seen.experimental > 0 {
        bail!("{seen:?}");
    }
    Ok(())
}

/// After a while no connection may be left at either end; TIME-WAIT is the normal end of one.
fn closed(lab: &Lab) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let mut left = lab.client().tcp_sockets()?;
        left.extend(lab.server().tcp_sockets()?);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("{}", left.join("; "));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn cpu_share(running: &BoxProcess, before: &Snapshot, after: &Snapshot) -> Result<f64> {
    Ok(running.cpu_time()?.as_secs_f64() / (after.uptime_s - before.uptime_s).max(1e-3))
}

/// curl, unmodified, as a user would run it.
fn curl(lab: &Lab) -> Result<()> {
    let accepted = || -> Result<u64> {
        Ok(lab.client().protocol_counters()?.get("MPTcpExtMPCapableSYNACKRX").copied().unwrap_or(0))
    };
    let before = accepted()?;
    let file = lab.file("curl.out");
    let url = format!("http://{}:{PORT}/{CURL_BYTES}", Plan::server(Family::V4));
    let mut command = lab.client_command("mptcpize");
    command.args(["run", "curl", "--silent", "--show-error", "--fail", "--max-time", "60", "--output"]);
    super::namespace::run(command.arg(&file).arg(&url))?;
    let got = fs::read(&file)?;
    let _ = fs::remove_file(&file);
    if !transfer::is_stream(CURL_BYTES, &got) || got.len() as u64 != CURL_BYTES {
        bail!("curl received {} bytes, and they are not what the server sent", got.len());
    }
    if accepted()? == before {
        bail!("the bytes are right, but the connection was plain TCP");
    }
    Ok(())
}

/// What a transfer's report says in the summary's words.
fn gbit_per_s(report: &TransferReport) -> f64 {
    report.goodput_bits() / 1e9
}

#[cfg(test)]
mod tests;
