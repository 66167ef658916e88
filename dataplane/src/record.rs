//! Recordings: everything that moved an engine, in a pcapng file that other tools can open too.
//!
//! A recording is one pcapng section. Its first custom block names the format, the engine's seed and configuration; an
//! interface stands for each port. Every event of the worker (see [`crate::worker`]) is a custom block, with the received
//! frames behind it as ordinary packets. When the engine has been polled, a further custom block says how many frames it
//! gave and a digest of them, so that a replay knows at which event it differs, and whether it was polled to the end.
//! Custom blocks carry the private enterprise number that RFC 5612 sets aside for documentation; tools skip them.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use mimbox_stack::{FramePool, Instant, PortId, RxFrame, TxFrame};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::unknown::UnknownBlock;
use pcap_file::pcapng::{Block, PcapNgReader, PcapNgWriter};
use pcap_file::{DataLink, Endianness, PcapError};
use thiserror::Error;

use crate::worker::Recorder;

/// Block type of a custom block that may be copied.
const CUSTOM_BLOCK: u32 = 0x0000_0bad;
/// The enterprise number of RFC 5612.
const ENTERPRISE: u32 = 32_473;
/// First word of every block of a recording.
const MAGIC: u32 = u32::from_le_bytes(*b"MiMB");
/// The format's version.
const VERSION: u32 = 1;

/// What a custom block of a recording is.
mod block_kind {
    pub(super) const HEAD: u32 = 0;
    pub(super) const FRAMES: u32 = 1;
    pub(super) const TIMER: u32 = 2;
    pub(super) const SENT: u32 = 3;
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
}

/// Why a recording could not be read or written.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The file cannot be opened, created or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no pcapng file, or damaged.
    #[error("{path} is damaged or no pcapng file: {source}")]
    Capture {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: PcapError,
    },
    /// The file is a capture, but no recording.
    #[error("{0} is no recording: it was not written by `mimbox run --record`")]
    NoRecording(PathBuf),
    /// The recording is of another version of the format.
    #[error("{path} is a recording of format {version}; this program reads format {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
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
    file: Option<PcapNgWriter<BufWriter<File>>>,
    given: Given,
    open_event: bool,
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
        let file = BufWriter::new(File::create(path).map_err(failed)?);
        let damaged = |source| RecordError::Capture { path: path.to_owned(), source };
        let mut file = PcapNgWriter::with_endianness(file, Endianness::Little).map_err(damaged)?;
        let mut words = Words::new(block_kind::HEAD);
        words.u32(VERSION).u32(head.config.len() as u32).u64(head.seed).bytes(head.config.as_bytes());
        words.write(&mut file).map_err(damaged)?;
        for name in &head.ports {
            let mut interface = InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0xffff);
            interface.options.push(InterfaceDescriptionOption::IfName(Cow::Borrowed(name)));
            // Times are in nanoseconds.
            interface.options.push(InterfaceDescriptionOption::IfTsResol(9));
            file.write_pcapng_block(interface).map_err(damaged)?;
        }
        Ok(Self { path: path.to_owned(), file: Some(file), given: Given::default(), open_event: false })
    }

    fn write(&mut self, write: impl FnOnce(&mut PcapNgWriter<BufWriter<File>>) -> Result<(), PcapError>) {
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
            let mut words = Words::new(block_kind::SENT);
            words.u32(frames).u32(u32::from(limited)).u64(digest);
            self.write(|file| words.write(file));
        }
    }

    fn begin_event(&mut self, kind: u32, now: Instant, free_frames: u32, count: u32) {
        self.end_event();
        self.open_event = true;
        let mut words = Words::new(kind);
        words.u64(now.as_nanos()).u32(free_frames).u32(count);
        self.write(|file| words.write(file));
    }
}

impl Drop for RecordWriter {
    fn drop(&mut self) {
        self.end_event();
        self.write(|file| file.get_mut().flush().map_err(PcapError::IoError));
    }
}

impl Recorder for RecordWriter {
    fn frames(&mut self, now: Instant, free_frames: u32, pool: &FramePool, batch: &[RxFrame]) {
        self.begin_event(block_kind::FRAMES, now, free_frames, batch.len() as u32);
        for rx in batch {
            let start = usize::from(rx.offset);
            let bytes = pool.bytes(&rx.frame).get(start..start + usize::from(rx.len)).unwrap_or(&[]);
            let packet = EnhancedPacketBlock {
                interface_id: u32::from(rx.port.0),
                timestamp: std::time::Duration::from_nanos(now.as_nanos()),
                original_len: u32::from(rx.len),
                data: Cow::Borrowed(bytes),
                options: Vec::new(),
            };
            self.write(|file| file.write_pcapng_block(packet).map(drop));
        }
    }

    fn timer(&mut self, now: Instant, free_frames: u32) {
        self.begin_event(block_kind::TIMER, now, free_frames, 0);
    }

    fn sent(&mut self, _: Instant, pool: &FramePool, frame: &TxFrame) {
        let start = usize::from(frame.offset);
        let bytes = pool.bytes(&frame.frame).get(start..start + usize::from(frame.len)).unwrap_or(&[]);
        self.given.add(frame.port, bytes);
    }

    fn limited(&mut self, _: u32) {
        self.given.limited = true;
    }
}

/// A custom block under construction.
struct Words(Vec<u8>);

impl Words {
    fn new(kind: u32) -> Self {
        let mut words = Self(Vec::with_capacity(40));
        words.u32(ENTERPRISE).u32(MAGIC).u32(kind);
        words
    }
    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }
    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }
    fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
    fn write(&self, file: &mut PcapNgWriter<BufWriter<File>>) -> Result<(), PcapError> {
        file.write_block(&Block::Unknown(UnknownBlock::new(CUSTOM_BLOCK, self.0.len() as u32, &self.0))).map(drop)
    }
}

/// The bytes of a custom block, read from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The reader behind the kind of a block of a recording; `None` for other custom blocks.
    fn of(block: &'a UnknownBlock<'_>) -> Option<(u32, Self)> {
        let mut reader = Self(&block.value);
        let ours = block.type_ == CUSTOM_BLOCK && reader.u32()? == ENTERPRISE && reader.u32()? == MAGIC;
        if ours { reader.u32().map(|kind| (kind, reader)) } else { None }
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

/// An event block that was read but whose packets and outcome were not.
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
    file: PcapNgReader<BufReader<File>>,
    head: Head,
    next: Option<Begun>,
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recording").field("path", &self.path).field("head", &self.head).finish_non_exhaustive()
    }
}

/// What the next block of interest is.
enum Part {
    Interface(String),
    Packet(PortId, Vec<u8>),
    Begun(Begun),
    Given(Given),
    End,
}

impl Recording {
    /// Opens a recording and reads its head.
    ///
    /// # Errors
    /// When the file cannot be read or is no recording.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let failed = |source| RecordError::Io { path: path.to_owned(), source };
        let file = BufReader::new(File::open(path).map_err(failed)?);
        let damaged = |source| RecordError::Capture { path: path.to_owned(), source };
        let mut file = PcapNgReader::new(file).map_err(damaged)?;
        let none = || RecordError::NoRecording(path.to_owned());
        let (seed, config) = match file.next_block().ok_or_else(none)?.map_err(damaged)? {
            Block::Unknown(block) => read_head(path, &block)?,
            _ => return Err(none()),
        };
        let head = Head { seed, config, ports: Vec::new() };
        let mut recording = Self { path: path.to_owned(), file, head, next: None };
        loop {
            match recording.part()? {
                Part::Interface(name) => recording.head.ports.push(name),
                Part::Begun(begun) => {
                    recording.next = Some(begun);
                    return Ok(recording);
                }
                Part::End => return Ok(recording),
                Part::Packet(..) | Part::Given(_) => return Err(recording.damaged("a packet before the first event")),
            }
        }
    }

    /// What the engine was made from.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The next event; `None` at the end. A recording that was cut off ends at its last whole event.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn next_event(&mut self) -> Result<Option<Event>, RecordError> {
        let Some(begun) = self.next.take() else { return Ok(None) };
        let mut frames = Vec::with_capacity(begun.count as usize % 4096);
        let mut given = None;
        loop {
            match self.part()? {
                Part::Packet(port, bytes) => frames.push((port, bytes)),
                Part::Given(seen) => given = Some(seen),
                Part::Begun(next) => {
                    self.next = Some(next);
                    break;
                }
                Part::End => break,
                Part::Interface(_) => return Err(self.damaged("an interface among the events")),
            }
        }
        if frames.len() != begun.count as usize {
            return if self.next.is_none() { Ok(None) } else { Err(self.damaged("an event lacks frames")) };
        }
        let cause = if begun.kind == block_kind::TIMER { Cause::Timer } else { Cause::Frames(frames) };
        Ok(Some(Event { now: begun.now, free_frames: begun.free_frames, cause, given }))
    }

    fn damaged(&self, what: &'static str) -> RecordError {
        RecordError::Damaged { path: self.path.clone(), what }
    }

    fn part(&mut self) -> Result<Part, RecordError> {
        let path = &self.path;
        loop {
            let block = match self.file.next_block() {
                None => return Ok(Part::End),
                // The last block of a recording whose writer was killed.
                Some(Err(PcapError::IncompleteBuffer)) => return Ok(Part::End),
                Some(Err(PcapError::IoError(error))) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(Part::End);
                }
                Some(Err(source)) => return Err(RecordError::Capture { path: path.clone(), source }),
                Some(Ok(block)) => block,
            };
            match block {
                Block::InterfaceDescription(interface) => {
                    let name = interface.options.iter().find_map(|option| match option {
                        InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                        _ => None,
                    });
                    return Ok(Part::Interface(name.unwrap_or_default()));
                }
                Block::EnhancedPacket(packet) => {
                    let port = PortId(u8::try_from(packet.interface_id).unwrap_or(u8::MAX));
                    return Ok(Part::Packet(port, packet.data.into_owned()));
                }
                Block::Unknown(block) => {
                    if let Some((kind, reader)) = Reader::of(&block) {
                        let what = "a block is too short";
                        return read_event(kind, reader)
                            .ok_or_else(|| RecordError::Damaged { path: path.clone(), what });
                    }
                }
                _ => {}
            }
        }
    }
}

fn read_head(path: &Path, block: &UnknownBlock<'_>) -> Result<(u64, String), RecordError> {
    let none = || RecordError::NoRecording(path.to_owned());
    let Some((block_kind::HEAD, mut reader)) = Reader::of(block) else { return Err(none()) };
    let version = reader.u32().ok_or_else(none)?;
    if version != VERSION {
        return Err(RecordError::Version { path: path.to_owned(), version });
    }
    let len = reader.u32().ok_or_else(none)? as usize;
    let seed = reader.u64().ok_or_else(none)?;
    let config = reader.0.get(..len).and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
    let what = "its configuration is no text";
    config.map(|config| (seed, config)).ok_or_else(|| RecordError::Damaged { path: path.to_owned(), what })
}

fn read_event(kind: u32, mut reader: Reader<'_>) -> Option<Part> {
    if kind == block_kind::SENT {
        let (frames, limited, digest) = (reader.u32()?, reader.u32()? != 0, reader.u64()?);
        return Some(Part::Given(Given { frames, digest, limited }));
    }
    let now = Instant::from_nanos(reader.u64()?);
    Some(Part::Begun(Begun { kind, now, free_frames: reader.u32()?, count: reader.u32()? }))
}

#[cfg(test)]
mod tests;
