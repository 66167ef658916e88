//! `mimbox-lab replay`: a recording or a capture through the engine, and what came out.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use mimbox_converter::config::Config;
use mimbox_dataplane::pcap::{CaptureReader, CaptureWriter, Direction, Item, Packet};
use mimbox_dataplane::record::{RecordError, Recording};
use mimbox_stack::{Duration, Instant, PortId};

use super::drive::{Driver, Sink};
use crate::engine;

/// How long the engine's timers go on after the last packet of a capture.
const LINGER: Duration = Duration::from_secs(10);

/// What to replay.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// The recording or capture.
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
}

/// What a replay came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Events, or packets of a capture.
    pub events: u64,
    /// Frames that the engine sent.
    pub frames: u64,
    /// The first event at which it sent something else than was recorded, in words.
    pub difference: Option<String>,
}

/// Writes what is sent to a capture, when there is one.
struct Out {
    writer: Option<CaptureWriter>,
    frames: u64,
}

impl Out {
    fn create(path: Option<&Path>, config: &Config) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self { writer: None, frames: 0 }) };
        let mut writer =
            CaptureWriter::create(path, None).with_context(|| format!("cannot create {}", path.display()))?;
        for port in &config.ports {
            writer.interface(&port.name, None)?;
        }
        Ok(Self { writer: Some(writer), frames: 0 })
    }

    fn finish(mut self) -> io::Result<u64> {
        if let Some(writer) = &mut self.writer {
            writer.flush()?;
        }
        Ok(self.frames)
    }
}

impl Sink for Out {
    fn frame(&mut self, now: Instant, port: PortId, bytes: &[u8]) -> anyhow::Result<()> {
        self.frames += 1;
        if let Some(writer) = &mut self.writer {
            let port = u32::from(port.0);
            writer.packet(port, now.as_nanos(), Some(Direction::Outbound), bytes, None).context("cannot write")?;
        }
        Ok(())
    }
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read or written, or the configuration is wrong.
pub fn replay(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let replayed = replay_file(args)?;
    println!("{} events in, {} frames out", replayed.events, replayed.frames);
    match &replayed.difference {
        Some(difference) => {
            println!("not as recorded: {difference}");
            Ok(ExitCode::FAILURE)
        }
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Runs a recording or capture through an engine.
///
/// # Errors
/// When a file cannot be read or written, or the configuration is wrong.
pub fn replay_file(args: &ReplayArgs) -> anyhow::Result<Replayed> {
    let config = args.config.as_deref().map(Config::load).transpose()?;
    match Recording::open(&args.file) {
        Ok(recording) => replay_recording(args, recording, config),
        Err(RecordError::NoRecording(_)) => match config {
            Some(config) => replay_capture(args, &config),
            None => bail!(
                "{} is a capture without a configuration: name one with -c (a recording of `mimbox run --record` has its own)",
                args.file.display()
            ),
        },
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
    let mut out = Out::create(args.out.as_deref(), &config)?;
    let mut driver = Driver::new(engine::shard(&config, args.seed.unwrap_or(head.seed))?);
    let mut replayed = Replayed::default();
    while let Some(event) = recording.next_event()? {
        replayed.events += 1;
        let given = driver.recorded(&event, &mut out)?;
        if let Some(was) = event.given.filter(|was| as_recorded && *was != given)
            && replayed.difference.is_none()
        {
            replayed.difference = Some(format!(
                "event {} at {:?}: {} frames were sent then, {} now{}",
                replayed.events,
                event.now,
                was.frames,
                given.frames,
                if was.frames == given.frames { ", with other bytes" } else { "" }
            ));
        }
    }
    driver.finish();
    replayed.frames = out.finish()?;
    Ok(replayed)
}

fn replay_capture(args: &ReplayArgs, config: &Config) -> anyhow::Result<Replayed> {
    let name = args.file.display();
    let mut file = CaptureReader::open(&args.file).with_context(|| format!("cannot read {name} as a capture"))?;
    let mut out = Out::create(args.out.as_deref(), config)?;
    let mut driver = Driver::new(engine::shard(config, args.seed.unwrap_or(0))?);
    let mut replayed = Replayed::default();
    let mut ports = HashMap::new();
    let mut last = Instant::ZERO;
    while let Some(item) = file.next_item().with_context(|| format!("{name} is damaged"))? {
        match item {
            Item::Interface { name } => {
                let index = ports.len() as u32;
                ports.insert(index, port_of(config, index, name.as_deref()));
            }
            // What the box itself sent is not what it received.
            Item::Packet(Packet { direction: Some(Direction::Outbound), .. }) | Item::Note(_) => {}
            Item::Packet(packet) => {
                let Some(port) = ports.get(&packet.interface).copied().flatten() else { continue };
                replayed.events += 1;
                last = last.max(Instant::from_nanos(packet.nanos));
                driver.captured(last, port, &packet.bytes, &mut out)?;
            }
        }
    }
    driver.timers_until(last + LINGER, &mut out)?;
    driver.finish();
    replayed.frames = out.finish()?;
    Ok(replayed)
}

/// The port that an interface of a capture stands for.
fn port_of(config: &Config, index: u32, name: Option<&str>) -> Option<PortId> {
    let named = config.ports.iter().find(|port| name.is_some_and(|name| port.name == name || port.interface == name));
    named.or_else(|| config.ports.get(index as usize)).map(|port| port.id)
}
