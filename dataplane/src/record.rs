//! Recordings: everything that moved an engine, in a pcapng file that other tools can open too.
//!
//! A recording is a capture with notes ([`CaptureWriter::note`]). The first note names the format, the engine's seed and
//! configuration; an interface stands for each port. Every event of the worker (see [`crate::worker`]) is a note, with the
//! received frames behind it as ordinary packets. Before the next event a further note says how many frames the engine gave
//! and a digest of them, so that a replay knows at which event it differs; whether it was polled to the end; and when ports
//! gave sent frames back.

use std::io;
use std::path::{Path, PathBuf};

use mimbox_stack::{FramePool, Instant, PortId, RxFrame, TxFrame};
use thiserror::Error;

use crate::pcap::{CaptureReader, CaptureWriter, Direction, Item};
use crate::port::Order;
use crate::worker::Recorder;

/// First bytes of every note of a recording.
const MAGIC: [u8; 4] = *b"MiMB";
/// The format's version.
const VERSION: u32 = 2;

/// What a note of a recording is.
mod note_kind {
    pub(super) const HEAD: u32 = 0;
    pub(super) const FRAMES: u32 = 1;
    pub(super) const TIMER: u32 = 2;
    pub(super) const SENT: u32 = 3;
    pub(super) const ORDER: u32 = 4;
}

/// The number of an order in a note. What it is about stands above the lowest eight bits.
fn order_number(order: Order) -> u32 {
    match order {
        Order::RefuseOpenings => 0,
        Order::ResetAll => 1,
        Order::Link { port, up } => u32::from(port.0) << 8 | if up { 3 } else { 2 },
    }
}

/// The order that a number stands for.
fn order_of(number: u32) -> Option<Order> {
    let port = PortId(u8::try_from(number >> 8).ok()?);
    match (number & 0xff, port) {
        (0, PortId(0)) => Some(Order::RefuseOpenings),
        (1, PortId(0)) => Some(Order::ResetAll),
        (2, port) => Some(Order::Link { port, up: false }),
        (3, port) => Some(Order::Link { port, up: true }),
        _ => None,
    }
}

/// What an engine is made from: with it and the events it does the same again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The engine's seed.
    pub seed: u64,
    /// Its configuration, as text.
    pub config: String,
    /// The ports' names, by their numbers.
    pub ports: Vec<String>,
}

/// What the engine gave when it was polled after an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Given {
    /// How many frames.
    pub frames: u32,
    /// A digest of their ports and bytes.
    pub digest: u64,
    /// It was not polled until it had no more.
    pub limited: bool,
}

impl Given {
    /// Counts one more frame.
    pub fn add(&mut self, port: PortId, bytes: &[u8]) {
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut digest = self.digest ^ (u64::from(port.0) << 32) ^ bytes.len() as u64;
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            digest = (digest ^ u64::from_le_bytes(word)).wrapping_mul(SPREAD).rotate_left(29);
        }
        self.digest = digest;
        self.frames += 1;
    }
}

/// What moved the engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Received frames, with their ports.
    Frames(Vec<(PortId, Vec<u8>)>),
    /// Its timers.
    Timer,
    /// An order.
    Order(Order),
}

/// See [`Completion::after`].
pub const AFTER_ALL: u32 = u32::MAX;

/// Sent frames that a port gave back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    /// How many frames the engine had given since the event when it was; [`AFTER_ALL`] when it had given all.
    pub after: u32,
    /// The port.
    pub port: PortId,
    /// How many frames, the oldest first.
    pub frames: u32,
}

/// One event of a recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The time that the engine was given.
    pub now: Instant,
    /// Free frames in its pool just before, the received ones taken out already.
    pub free_frames: u32,
    /// What moved it.
    pub cause: Cause,
    /// What it gave; `None` when the recording stops before that.
    pub given: Option<Given>,
    /// Frames that came back from the event on until the next one.
    pub completions: Vec<Completion>,
}

/// Why a recording could not be read or written.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The file cannot be opened, created, read or written, or is no capture.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is a capture, but no recording.
    #[error("{0} is no recording: it was not written by `mimbox run --record`")]
    NoRecording(PathBuf),
    /// The recording is of another version of the format.
    #[error(
        "{path} is a recording of format {version}, and this program reads format {VERSION}: replay it with the version that recorded it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The file ends in the middle of a block.
    #[error("{path} is cut off: it ends in the middle of {}", .events.map_or_else(|| "its head".to_owned(), |events| format!("event {}", events + 1)))]
    CutOff {
        /// The file.
        path: PathBuf,
        /// Whole events before; `None` when not even the head is whole.
        events: Option<u64>,
    },
    /// A block does not say what it must.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

/// Writes a recording. A write that fails ends it with a warning: the box goes on.
pub struct RecordWriter {
    path: PathBuf,
    file: Option<CaptureWriter>,
    given: Given,
    completions: Vec<Completion>,
    open_event: bool,
    /// The engine has been polled since the event.
    polled: bool,
}

impl std::fmt::Debug for RecordWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

impl RecordWriter {
    /// Creates the file.
    ///
    /// # Errors
    /// When it cannot be created or written.
    pub fn create(path: &Path, head: &Head) -> Result<Self, RecordError> {
        let failed = |source| RecordError::Io { path: path.to_owned(), source };
        let mut file = CaptureWriter::create(path, Some("a recording of mimbox")).map_err(failed)?;
        let mut note = Note::new(note_kind::HEAD);
        note.u32(VERSION).u64(head.seed).bytes(head.config.as_bytes());
        file.note(&note.0).map_err(failed)?;
        for name in &head.ports {
            file.interface(name, None).map_err(failed)?;
        }
        let (path, file) = (path.to_owned(), Some(file));
        let (given, completions) = (Given::default(), Vec::new());
        Ok(Self { path, file, given, completions, open_event: false, polled: false })
    }

    fn write(&mut self, write: impl FnOnce(&mut CaptureWriter) -> io::Result<()>) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = write(file) {
            tracing::warn!(file = %self.path.display(), %error, "the recording ends here");
            self.file = None;
        }
    }

    /// Says what the engine gave after the event before.
    fn end_event(&mut self) {
        if std::mem::take(&mut self.open_event) {
            let Given { frames, digest, limited } = std::mem::take(&mut self.given);
            let mut note = Note::new(note_kind::SENT);
            note.u32(frames).u32(u32::from(limited)).u64(digest);
            for Completion { after, port, frames } in self.completions.drain(..) {
                note.u32(after).u32(u32::from(port.0)).u32(frames);
            }
            self.write(|file| file.note(&note.0));
        }
    }

    fn begin_event(&mut self, kind: u32, now: Instant, free_frames: u32, count: u32) {
        self.end_event();
        self.open_event = true;
        self.polled = false;
        let mut note = Note::new(kind);
        note.u64(now.as_nanos()).u32(free_frames).u32(count);
        self.write(|file| file.note(&note.0));
    }
}

impl Drop for RecordWriter {
    fn drop(&mut self) {
        self.end_event();
        self.write(CaptureWriter::flush);
    }
}

impl Recorder for RecordWriter {
    fn frames(&mut self, now: Instant, free_frames: u32, pool: &FramePool, batch: &[RxFrame]) {
        self.begin_event(note_kind::FRAMES, now, free_frames, batch.len() as u32);
        for rx in batch {
            let start = usize::from(rx.offset);
            let bytes = pool.bytes(&rx.frame).get(start..start + usize::from(rx.len)).unwrap_or(&[]);
            let port = u32::from(rx.port.0);
            self.write(|file| file.packet(port, now.as_nanos(), Some(Direction::Inbound), bytes, None));
        }
    }

    fn timer(&mut self, now: Instant, free_frames: u32) {
        self.begin_event(note_kind::TIMER, now, free_frames, 0);
    }

    fn order(&mut self, now: Instant, free_frames: u32, order: Order) {
        self.begin_event(note_kind::ORDER, now, free_frames, order_number(order));
    }

    fn sent(&mut self, _: Instant, pool: &FramePool, frame: &TxFrame) {
        let start = usize::from(frame.offset);
        let bytes = pool.bytes(&frame.frame).get(start..start + usize::from(frame.len)).unwrap_or(&[]);
        self.given.add(frame.port, bytes);
    }

    fn polled(&mut self, _: u32, limited: bool) {
        self.given.limited = limited;
        self.polled = true;
    }

    fn completed(&mut self, port: PortId, frames: u32) {
        let after = if self.polled { AFTER_ALL } else { self.given.frames };
        match self.completions.last_mut().filter(|last| last.after == after && last.port == port) {
            Some(last) => last.frames += frames,
            None => self.completions.push(Completion { after, port, frames }),
        }
    }
}

/// A note under construction.
struct Note(Vec<u8>);

impl Note {
    fn new(kind: u32) -> Self {
        let mut note = Self(MAGIC.to_vec());
        note.u32(kind);
        note
    }
    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }
    fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }
    fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.0.extend_from_slice(value);
        self
    }
}

/// The bytes of a note, read from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The reader behind the kind of a note of a recording; `None` for other notes.
    fn of(note: &'a [u8]) -> Option<(u32, Self)> {
        let mut reader = Self(note.strip_prefix(&MAGIC)?);
        reader.u32().map(|kind| (kind, reader))
    }
    fn u32(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*head))
    }
    fn u64(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*head))
    }
}

/// An event that was read but whose packets and outcome were not.
#[derive(Clone, Copy)]
struct Begun {
    kind: u32,
    now: Instant,
    free_frames: u32,
    count: u32,
}

/// A recording that is being read.
pub struct Recording {
    path: PathBuf,
    file: CaptureReader,
    head: Head,
    next: Option<Begun>,
    /// Whole events so far.
    events: u64,
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recording").field("path", &self.path).field("head", &self.head).finish_non_exhaustive()
    }
}

/// What comes next in a recording.
enum Part {
    Interface(String),
    Packet(PortId, Vec<u8>),
    Begun(Begun),
    Given(Given, Vec<Completion>),
    End,
}

impl Recording {
    /// Opens a recording and reads its head.
    ///
    /// # Errors
    /// When the file cannot be read or is no recording.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::UnexpectedEof => RecordError::CutOff { path: path.to_owned(), events: None },
            _ => RecordError::Io { path: path.to_owned(), source },
        };
        let mut file = CaptureReader::open(path).map_err(failed)?;
        let (seed, config) = match file.next_item().map_err(failed)? {
            Some(Item::Note(note)) => read_head(path, &note)?,
            _ => return Err(RecordError::NoRecording(path.to_owned())),
        };
        let head = Head { seed, config, ports: Vec::new() };
        let mut recording = Self { path: path.to_owned(), file, head, next: None, events: 0 };
        loop {
            match recording.part()? {
                Part::Interface(name) => recording.head.ports.push(name),
                Part::Begun(begun) => {
                    recording.next = Some(begun);
                    return Ok(recording);
                }
                Part::End => return Ok(recording),
                Part::Packet(..) | Part::Given(..) => return Err(recording.damaged("a packet before the first event")),
            }
        }
    }

    /// What the engine was made from.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    /// When the file is damaged, or [`RecordError::CutOff`] behind the last whole event.
    pub fn next_event(&mut self) -> Result<Option<Event>, RecordError> {
        let Some(begun) = self.next.take() else { return Ok(None) };
        let mut frames = Vec::with_capacity(begun.count as usize % 4096);
        let (mut given, mut completions) = (None, Vec::new());
        loop {
            match self.part()? {
                Part::Packet(port, bytes) => frames.push((port, bytes)),
                Part::Given(seen, came_back) => (given, completions) = (Some(seen), came_back),
                Part::Begun(next) => {
                    self.next = Some(next);
                    break;
                }
                Part::End => break,
                Part::Interface(_) => return Err(self.damaged("an interface among the events")),
            }
        }
        let cause = match begun.kind {
            note_kind::FRAMES if frames.len() == begun.count as usize => Cause::Frames(frames),
            note_kind::TIMER if frames.is_empty() => Cause::Timer,
            note_kind::ORDER if frames.is_empty() => {
                Cause::Order(order_of(begun.count).ok_or_else(|| self.damaged("an order that is not known"))?)
            }
            // A writer that was ended between two blocks.
            note_kind::FRAMES if self.next.is_none() => return Err(self.cut_off()),
            _ => return Err(self.damaged("an event has more or fewer frames than it says")),
        };
        self.events += 1;
        Ok(Some(Event { now: begun.now, free_frames: begun.free_frames, cause, given, completions }))
    }

    fn damaged(&self, what: &'static str) -> RecordError {
        RecordError::Damaged { path: self.path.clone(), what }
    }

    fn cut_off(&self) -> RecordError {
        RecordError::CutOff { path: self.path.clone(), events: Some(self.events) }
    }

    fn part(&mut self) -> Result<Part, RecordError> {
        loop {
            let item = self.file.next_item().map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => self.cut_off(),
                _ => RecordError::Io { path: self.path.clone(), source },
            });
            match item? {
                None => return Ok(Part::End),
                Some(Item::Interface { name }) => return Ok(Part::Interface(name.unwrap_or_default())),
                Some(Item::Packet(packet)) => {
                    let port = PortId(u8::try_from(packet.interface).unwrap_or(u8::MAX));
                    return Ok(Part::Packet(port, packet.bytes));
                }
                Some(Item::Note(note)) => {
                    if let Some((kind, reader)) = Reader::of(&note) {
                        return read_event(kind, reader).ok_or_else(|| self.damaged("a note is too short"));
                    }
                }
            }
        }
    }
}

fn read_head(path: &Path, note: &[u8]) -> Result<(u64, String), RecordError> {
    let none = || RecordError::NoRecording(path.to_owned());
    let Some((note_kind::HEAD, mut reader)) = Reader::of(note) else { return Err(none()) };
    let version = reader.u32().ok_or_else(none)?;
    if version != VERSION {
        return Err(RecordError::Version { path: path.to_owned(), version });
    }
    let seed = reader.u64().ok_or_else(none)?;
    let what = "its configuration is no text";
    let config = String::from_utf8(reader.0.to_vec());
    config.map(|config| (seed, config)).map_err(|_| RecordError::Damaged { path: path.to_owned(), what })
}

fn read_event(kind: u32, mut reader: Reader<'_>) -> Option<Part> {
    if kind == note_kind::SENT {
        let (frames, limited, digest) = (reader.u32()?, reader.u32()? != 0, reader.u64()?);
        let mut completions = Vec::new();
        while !reader.0.is_empty() {
            let (after, port, frames) = (reader.u32()?, reader.u32()?, reader.u32()?);
            completions.push(Completion { after, port: PortId(u8::try_from(port).ok()?), frames });
        }
        return Some(Part::Given(Given { frames, digest, limited }, completions));
    }
    let now = Instant::from_nanos(reader.u64()?);
    Some(Part::Begun(Begun { kind, now, free_frames: reader.u32()?, count: reader.u32()? }))
}

#[cfg(test)]
mod tests;
