//! Golden outputs: what the engine sent when somebody last looked at it and found it right.
//!
//! `NAME.pcapng` is a recording, `NAME.golden.pcapng` beside it what the engine sends when the recording is replayed. The
//! comparison is between golden output and today's engine, not with what the live box sent when it was recorded: the
//! recording's input stays as it is while the engine goes on.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use mimbox_dataplane::pcap::{CaptureReader, Item, Packet};
use mimbox_stack::{Instant, PortId};

use super::command::{ReplayArgs, Replayed, replay_file};
use super::words::Words;

/// End of a golden output's name.
const SUFFIX: &str = ".golden.pcapng";

/// Every recording in a directory, by name.
pub(super) fn recordings(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", directory.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".pcapng") && !name.ends_with(SUFFIX) {
            found.push(path);
        }
    }
    found.sort();
    ensure!(!found.is_empty(), "{} holds no recording: their names end in .pcapng", directory.display());
    Ok(found)
}

/// The golden output of a recording.
pub(super) fn beside(recording: &Path) -> PathBuf {
    let name = recording.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".pcapng").unwrap_or(&name);
    recording.with_file_name(format!("{stem}{SUFFIX}"))
}

/// Writes the golden output of a recording anew.
pub(super) fn bless(recording: &Path) -> anyhow::Result<Replayed> {
    let golden = beside(recording);
    // Written aside, so that an error leaves the old one as it was.
    let fresh = golden.with_extension("pcapng.new");
    let args = ReplayArgs { file: recording.to_owned(), out: Some(fresh.clone()), ..ReplayArgs::default() };
    let replayed = replay_file(&args)?;
    std::fs::rename(&fresh, &golden).with_context(|| format!("cannot write {}", golden.display()))?;
    Ok(replayed)
}

/// A golden output that a replay is compared with, frame by frame.
pub(super) struct Golden {
    path: PathBuf,
    reader: CaptureReader,
    ports: Vec<String>,
    /// What both outputs said so far: words are relative to it.
    words: Words,
    /// The last frames before the difference.
    frames: u64,
    difference: Option<String>,
    context: VecDeque<String>,
}

/// Frames before a difference that are shown with it.
const CONTEXT: usize = 3;

impl Golden {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let name = || format!("cannot read {} as a golden output", path.display());
        let reader = CaptureReader::open(path).with_context(name)?;
        Ok(Self {
            path: path.to_owned(),
            reader,
            ports: Vec::new(),
            words: Words::default(),
            frames: 0,
            difference: None,
            context: VecDeque::new(),
        })
    }

    fn next(&mut self) -> anyhow::Result<Option<Packet>> {
        loop {
            match self.reader.next_item().with_context(|| format!("cannot read {}", self.path.display()))? {
                None => return Ok(None),
                Some(Item::Interface { name }) => self.ports.push(name.unwrap_or_default()),
                Some(Item::Packet(packet)) => return Ok(Some(packet)),
                Some(Item::Note(_)) => {}
            }
        }
    }

    fn port(&self, number: u32) -> &str {
        self.ports.get(number as usize).map_or("?", String::as_str)
    }

    /// Compares the next frame of the replay. After the first difference nothing is compared any more.
    pub(super) fn compare(&mut self, event: u64, now: Instant, port: PortId, bytes: &[u8]) -> anyhow::Result<()> {
        if self.difference.is_some() {
            return Ok(());
        }
        self.frames += 1;
        let golden = self.next()?;
        let line = format!("{} {}", self.port(u32::from(port.0)).to_owned(), self.words.of(bytes));
        let Some(golden) = golden else {
            let at = at(event, now, self.frames);
            self.difference = Some(format!("{at} is sent, and the golden output is at its end\n  now:    {line}"));
            return Ok(());
        };
        if golden.bytes == bytes && golden.interface == u32::from(port.0) && golden.nanos == now.as_nanos() {
            if self.context.len() == CONTEXT {
                self.context.pop_front();
            }
            self.context.push_back(line);
            return Ok(());
        }
        let mut text = format!("{} {}", at(event, now, self.frames), difference(&golden, now, port, bytes));
        for line in &self.context {
            text += &format!("\n  before: {line}");
        }
        let theirs = self.words.of(&golden.bytes);
        text += &format!("\n  golden: {} {theirs}\n  now:    {line}", self.port(golden.interface));
        self.difference = Some(text);
        Ok(())
    }

    /// Where the outputs first differ, in words.
    pub(super) fn finish(mut self) -> anyhow::Result<Option<String>> {
        if self.difference.is_none()
            && let Some(golden) = self.next()?
        {
            let (port, words) = (self.port(golden.interface).to_owned(), self.words.of(&golden.bytes));
            let (frames, at) = (self.frames, Instant::from_nanos(golden.nanos));
            let text = format!(
                "the replay sends {frames} frames, and then the golden output has more, at {at:?}\n  golden: {port} {words}"
            );
            return Ok(Some(text));
        }
        Ok(self.difference)
    }
}

fn at(event: u64, now: Instant, frame: u64) -> String {
    format!("at event {event} ({now:?}), frame {frame} of the output")
}

/// What is different about a frame.
fn difference(golden: &Packet, now: Instant, port: PortId, bytes: &[u8]) -> String {
    if golden.nanos != now.as_nanos() {
        return format!("leaves after another event: the golden one leaves at {:?}", Instant::from_nanos(golden.nanos));
    }
    if golden.interface != u32::from(port.0) {
        return "leaves by another port".to_owned();
    }
    match golden.bytes.iter().zip(bytes).position(|(then, now)| then != now) {
        Some(byte) => format!(
            "differs at byte {byte}: {:#04x} now, {:#04x} in the golden output ({} and {} bytes)",
            bytes[byte],
            golden.bytes[byte],
            bytes.len(),
            golden.bytes.len()
        ),
        None => format!("is {} bytes long, the golden one {}", bytes.len(), golden.bytes.len()),
    }
}

#[cfg(test)]
mod tests;
