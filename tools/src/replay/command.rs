//! `mimbox-lab replay`: a recording or a capture through the engine, and what came out.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use mimbox_converter::config::Config;
use mimbox_dataplane::record::{RecordError, Recording};
use mimbox_stack::Counters;

use super::capture::replay_capture;
use super::drive::Driver;
use super::golden::{self, Golden};
use super::out::{Out, Outputs};
use crate::engine;

/// What to replay.
#[derive(Args, Clone, Debug, Default)]
pub struct ReplayArgs {
    /// A recording, a capture, or a directory of recordings with their golden outputs.
    pub file: PathBuf,
    /// The configuration; a recording's own unless given.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to write what the engine sends (pcapng).
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The engine's seed; a recording's own unless given.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Compare what the engine sends with this output of an earlier replay, byte for byte.
    #[arg(long, value_name = "FILE")]
    pub golden: Option<PathBuf>,
    /// Write the golden output of each recording in the directory anew, after a change that was meant to change it.
    #[arg(long, conflicts_with_all = ["config", "out", "seed", "golden"])]
    pub bless: bool,
}

/// What a replay came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Events, or packets of a capture.
    pub events: u64,
    /// Frames that the engine sent.
    pub frames: u64,
    /// Events after which the engine sent something else than the live box did.
    pub changed_events: u64,
    /// The first of them, in words.
    pub difference: Option<String>,
    /// Where the output first differs from the golden one, in words.
    pub against_golden: Option<String>,
    /// Packets of a capture that were not for the box, and why.
    pub skipped: Skipped,
    /// What the engine counted.
    pub counters: Counters,
}

/// Packets of a capture that were not replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// The box itself sent them.
    pub sent: u64,
    /// They were for other stations, or on an interface that stands for no port.
    pub others: u64,
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events in, {} frames out", self.events, self.frames)?;
        if self.skipped != Skipped::default() {
            let Skipped { sent, others } = self.skipped;
            write!(f, " (passed over: {sent} packets that the box sent, {others} that were not for it)")?;
        }
        Ok(())
    }
}

/// Runs the command. The exit status is 1 when something else came out than was recorded, or than the golden output.
///
/// # Errors
/// When the input is wrong: a file cannot be read or written, or the configuration is wrong.
pub fn replay(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    if args.file.is_dir() {
        return directory(args);
    }
    ensure!(!args.bless, "--bless wants a directory of recordings: {} is none", args.file.display());
    let replayed = replay_file(args)?;
    println!("{replayed}");
    if let Some(difference) = &replayed.against_golden {
        println!("not as the golden output: {difference}");
    } else if args.golden.is_some() {
        println!("as the golden output, byte for byte");
    }
    // Who compares with a golden output knows that the engine has changed since the recording was made.
    let failed = match &args.golden {
        Some(_) => replayed.against_golden.is_some(),
        None => replayed.difference.is_some(),
    };
    if let Some(difference) = &replayed.difference {
        println!(
            "not as recorded, after {} of {} events; the first: {difference}",
            replayed.changed_events, replayed.events
        );
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Every recording of a directory against its golden output, or their golden outputs anew.
fn directory(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let alone = args.config.is_none() && args.out.is_none() && args.seed.is_none() && args.golden.is_none();
    ensure!(
        alone,
        "{} is a directory: its recordings are replayed as they are, without further options",
        args.file.display()
    );
    let recordings = golden::recordings(&args.file)?;
    let mut failed = false;
    for file in &recordings {
        let golden = golden::beside(file);
        let name = file.display();
        if args.bless {
            let replayed = golden::bless(file)?;
            println!("{name}: {replayed}; written to {}", golden.display());
            continue;
        }
        ensure!(golden.is_file(), "{name} has no golden output {}: --bless writes it", golden.display());
        let args = ReplayArgs { file: file.clone(), golden: Some(golden), ..ReplayArgs::default() };
        let replayed = replay_file(&args)?;
        match &replayed.against_golden {
            None => println!("{name}: {replayed}, as the golden output, byte for byte"),
            Some(difference) => println!("{name}: {replayed}, not as the golden output: {difference}"),
        }
        failed |= replayed.against_golden.is_some();
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs a recording or capture through an engine.
///
/// # Errors
/// When a file cannot be read or written, or the configuration is wrong. A file that was cut off is replayed as far as it
/// goes, its output written, and is an error then.
pub fn replay_file(args: &ReplayArgs) -> anyhow::Result<Replayed> {
    let config = args.config.as_deref().map(Config::load).transpose()?;
    match Recording::open(&args.file) {
        Ok(recording) => replay_recording(args, recording, config),
        Err(RecordError::NoRecording(_)) => match config {
            Some(config) => replay_capture(args, config),
            None => bail!(
                "{} is a capture without a configuration: name one with -c (a recording of `mimbox run --record` has its own)",
                args.file.display()
            ),
        },
        Err(RecordError::Io { path, source }) => {
            let path = path.display();
            Err(anyhow::Error::new(source).context(format!("cannot read {path} as a recording or a capture")))
        }
        Err(other) => Err(other.into()),
    }
}

fn replay_recording(args: &ReplayArgs, mut recording: Recording, own: Option<Config>) -> anyhow::Result<Replayed> {
    let head = recording.head().clone();
    let as_recorded = own.is_none() && args.seed.is_none_or(|seed| seed == head.seed);
    let config = match own {
        Some(config) => config,
        None => Config::parse(&head.config, "the recording's configuration")?,
    };
    let mut outputs = Outputs::new(out(args, &config)?, args.golden.as_deref().map(Golden::open).transpose()?);
    let mut driver = Driver::new(engine::shard(&config, args.seed.unwrap_or(head.seed))?);
    let mut replayed = Replayed::default();
    let end = loop {
        let event = match recording.next_event() {
            Ok(Some(event)) => event,
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        replayed.events += 1;
        outputs.begin_event(replayed.events);
        let given = driver.recorded(&event, &mut outputs)?;
        if let Some(was) = event.given.filter(|was| as_recorded && *was != given) {
            replayed.changed_events += 1;
            replayed.difference.get_or_insert_with(|| {
                format!(
                    "event {} at {:?}: {} frames were sent then, {} now{}",
                    replayed.events,
                    event.now,
                    was.frames,
                    given.frames,
                    if was.frames == given.frames { ", with other bytes" } else { "" }
                )
            });
        }
    };
    replayed.counters = driver.finish();
    (replayed.frames, replayed.against_golden) = outputs.finish()?;
    match end {
        None => Ok(replayed),
        Some(error) => Err(anyhow::Error::new(error).context(format!("stopped after {replayed}"))),
    }
}

/// The output file that the arguments ask for.
pub(super) fn out(args: &ReplayArgs, config: &Config) -> anyhow::Result<Option<Out>> {
    let ports = config.ports.iter().map(|port| port.name.as_str());
    args.out.as_deref().map(|path: &Path| Out::create(path, ports)).transpose().context("cannot write the output")
}
