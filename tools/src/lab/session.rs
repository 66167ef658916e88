//! `mimbox-lab record`: a session of every kind of connection between real kernels, recorded by the box in the middle.

use std::path::{Path as FilePath, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::box_process::{BoxProcess, Configuration};
use super::demo::parse_size;
use super::interrupt::{catch_interrupts, interrupted};
use super::plan::Family;
use super::runner::{Transfer, TransferServer};
use super::topology::{Lab, LabOptions, Mode, Rate};
use super::transfer::{Direction, Ending};

/// The server's port.
const PORT: u16 = 5001;
/// How long the box may hold conversions after a step.
const IDLE_LIMIT: Duration = Duration::from_secs(20);
/// Small windows and few frames: the recording stays small, and backpressure is in it.
const SETTINGS: &str = "[limits]\nframes = 16384\nwindow_floor = 16\nwindow_ceiling = 64\n\
                        [worker]\nring = 512\ndrain = \"20ms\"\n";

/// `mimbox-lab record`.
#[derive(Clone, Debug, Args)]
pub struct RecordOptions {
    /// The recording to write.
    pub file: PathBuf,
    /// What is to be recorded.
    #[command(flatten)]
    pub session: SessionOptions,
}

/// A session.
#[derive(Clone, Debug, Args)]
pub struct SessionOptions {
    /// How connections reach the box.
    #[arg(long, value_enum, default_value = "explicit")]
    pub mode: Mode,
    /// Packets in a thousand that both paths lose, each way.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=500))]
    pub loss: u16,
    /// Bytes of each of the two larger transfers, like 64k.
    #[arg(long, default_value = "64k", value_parser = parse_size)]
    pub size: u64,
}

impl SessionOptions {
    /// A lab for it: rates at which short transfers use both paths, and queues that drop nothing.
    pub fn lab(&self) -> LabOptions {
        LabOptions { mode: self.mode, rates: [Rate::mbit(2); 2], queue_ms: 1000, ..LabOptions::default() }
    }
}

/// Runs the command.
pub(super) fn command(options: &RecordOptions) -> Result<ExitCode> {
    catch_interrupts()?;
    let lab = Lab::build(options.session.lab())?;
    record(&lab, &options.session, &options.file, |_| Ok(()))?;
    let bytes = std::fs::metadata(&options.file).map_or(0, |file| file.len());
    println!("{}: {} kB", options.file.display(), bytes / 1000);
    Ok(ExitCode::SUCCESS)
}

/// Runs a session in a lab and has its box record it. `before_stop` is called when everything but the last connection is
/// over, with the box still there.
pub fn record(
    lab: &Lab,
    options: &SessionOptions,
    file: &FilePath,
    before_stop: impl FnOnce(&BoxProcess) -> Result<()>,
) -> Result<()> {
    // The box runs elsewhere than its caller thinks when the path is a relative one.
    let file = std::path::absolute(file).with_context(|| format!("cannot tell where {} is", file.display()))?;
    let configuration = Configuration {
        extra: SETTINGS.to_owned(),
        arguments: vec!["--record".to_owned(), file.display().to_string()],
        ..Configuration::new(options.mode)
    };
    // A client that has handed all its data over closes its direction, and its kernel joins no path any more then: small
    // buffers keep it sending.
    lab.client().sysctl(&[("net.ipv4.tcp_wmem", "4096 16384 16384")])?;
    let running = BoxProcess::start(lab, &configuration)?;
    let mut server = TransferServer::start(lab, PORT)?;
    lab.set_loss(options.loss)?;
    for (name, transfer) in steps(options) {
        if interrupted() {
            bail!("interrupted");
        }
        eprintln!("  {name} …");
        step(lab, &mut server, &transfer, options.loss > 0)
            .with_context(|| format!("{name}, with the box's log:\n{}", running.log()))?;
        // A reset is sent once. Where it is lost, the box keeps the connection as long as one whose last path may come back.
        if options.loss == 0 || !is_reset(&transfer) {
            running.wait_until_idle(IDLE_LIMIT).with_context(|| format!("after: {name}"))?;
        }
    }
    before_stop(&running)?;
    eprintln!("  a connection that is reset when the box stops …");
    let last = Transfer { seed: 99, ..Transfer::new(Direction::Upload, 1 << 20) };
    let mut last = last.start(lab, &server)?;
    last.wait_for_bytes(lab, 8 << 10, Duration::from_secs(10))?;
    running.stop()?;
    let _ = last.process().stop();
    lab.set_loss(0)
}

/// What happens, one after the other.
fn steps(options: &SessionOptions) -> Vec<(&'static str, Transfer)> {
    const SMALL: u64 = 6_000;
    let plain = |direction, bytes| Transfer { stall: 60, ..Transfer::new(direction, bytes) };
    let ending = |direction, ending| Transfer { ending, ..plain(direction, 2 * SMALL) };
    let mut steps = vec![
        ("an upload", plain(Direction::Upload, options.size)),
        ("a download", plain(Direction::Download, options.size)),
        ("both ways at once", plain(Direction::Both, SMALL)),
        ("a download after the client has closed", ending(Direction::Download, Ending::ClientFirst)),
        ("an upload after the server has closed", ending(Direction::Upload, Ending::ServerFirst)),
        ("a client without MPTCP", Transfer { mptcp: false, ..plain(Direction::Download, SMALL) }),
        ("three connections at once", Transfer { connections: 3, parallel: 3, ..plain(Direction::Upload, SMALL) }),
    ];
    if options.mode == Mode::Transparent {
        // The destination option of an IPv6 server does not fit an MPTCP SYN with timestamps.
        steps.push(("IPv6", Transfer { family: Family::V6, ..plain(Direction::Both, SMALL) }));
    }
    // Last, for on lossy paths they may leave something behind.
    steps.push(("a reset by the client", ending(Direction::Upload, Ending::ClientReset)));
    steps.push(("a reset by the server", ending(Direction::Download, Ending::ServerReset)));
    for (seed, (_, transfer)) in (1..).zip(&mut steps) {
        transfer.seed = seed * 10;
    }
    steps
}

fn is_reset(transfer: &Transfer) -> bool {
    matches!(transfer.ending, Ending::ClientReset | Ending::ServerReset)
}

/// Runs a transfer; what is to end in order must come out whole.
fn step(lab: &Lab, server: &mut TransferServer, transfer: &Transfer, lossy: bool) -> Result<()> {
    let report = transfer.run(lab, server)?;
    if is_reset(transfer) {
        return Ok(());
    }
    let faults = report.faults();
    ensure!(faults.is_empty(), "{}", faults.join("; "));
    // With losses the join itself may come too late for so short a transfer.
    let both = transfer.mptcp && transfer.bytes >= 32 << 10 && !lossy;
    ensure!(!both || report.shares().iter().all(|share| *share > 0.1), "only one path was used: {:?}", report.shares());
    Ok(())
}
