//! Capture files: read as a port, and written as pcapng.
//!
//! A [`CapturePort`] receives the packets of one interface of a pcap or pcapng file, each when the clock has come to its
//! time; what is sent by it goes to a [`CaptureWriter`], or nowhere. With a [`ManualClock`](crate::ManualClock),
//! [`Worker::replay`](crate::Worker::replay) runs a whole capture as fast as the engine goes.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use mimbox_stack::limits::RX_HEADROOM;
use mimbox_stack::wire::MacAddr;
use mimbox_stack::{FrameId, FramePool, Instant, PortId, RxFrame, TxFrame};
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::blocks::unknown::UnknownBlock;
use pcap_file::pcapng::{Block, PcapNgReader, PcapNgWriter};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};

use crate::clock::Clock;
use crate::port::{Port, PortError, PortInfo, PortMode, PortState, PortStats};

/// Which way a packet went, as the capturing host saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// It came in.
    Inbound,
    /// It went out.
    Outbound,
}

/// A packet of a capture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// When, in nanoseconds since the capture's epoch.
    pub nanos: u64,
    /// On which of the capture's interfaces.
    pub interface: u32,
    /// Which way it went, where the capture says so.
    pub direction: Option<Direction>,
    /// Its bytes from the Ethernet header on.
    pub bytes: Vec<u8>,
    /// How many bytes it had on the wire: more than there are here when the capture cut it.
    pub wire_len: u32,
    /// The first comment on it.
    pub comment: Option<String>,
}

/// What a capture holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// The next interface; they are numbered from 0 as they come.
    Interface {
        /// Its name, where there is one.
        name: Option<String>,
    },
    /// A packet.
    Packet(Packet),
    /// A note that [`CaptureWriter::note`] left.
    Note(Vec<u8>),
}

/// A pcapng block that is nobody's but its writer's, and may be copied to other files.
const CUSTOM_BLOCK: u32 = 0x0000_0bad;
/// RFC 5612: the enterprise number for whoever has none.
const ENTERPRISE: u32 = 32473;
/// Bits of the flags of a packet that say which way it went.
const DIRECTION_BITS: u32 = 3;

enum Format<R: Read> {
    Pcap { reader: PcapReader<R>, announced: bool },
    PcapNg { reader: PcapNgReader<R>, nanos: u64 },
}

/// Reads a capture from the start.
pub struct CaptureReader<R: Read = BufReader<File>> {
    format: Format<R>,
    comments: Vec<String>,
}

impl<R: Read> std::fmt::Debug for CaptureReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaptureReader").field("comments", &self.comments).finish_non_exhaustive()
    }
}

fn trouble(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// An error of the library. A file that ends where it must not is [`io::ErrorKind::UnexpectedEof`].
fn unread(error: PcapError) -> io::Error {
    let cut_off = || io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off: it ends in the middle of a packet");
    match error {
        PcapError::IncompleteBuffer => cut_off(),
        PcapError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => cut_off(),
        PcapError::IoError(error) => error,
        other => trouble(other),
    }
}

/// First bytes of a pcapng file.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// First bytes of a pcap file: times in micro- or nanoseconds, either byte order.
const PCAP: [[u8; 4]; 4] = [
    0xa1b2_c3d4u32.to_be_bytes(),
    0xa1b2_c3d4u32.to_le_bytes(),
    0xa1b2_3c4du32.to_be_bytes(),
    0xa1b2_3c4du32.to_le_bytes(),
];

impl CaptureReader {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be read or is no capture.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::new(BufReader::new(File::open(path)?))
    }
}

impl<R: Read + io::BufRead> CaptureReader<R> {
    /// Reads the beginning of a capture.
    ///
    /// # Errors
    /// When it cannot be read or is no capture.
    pub fn new(mut source: R) -> io::Result<Self> {
        let magic = source.fill_buf()?.first_chunk::<4>().copied().unwrap_or_default();
        if magic != PCAPNG && !PCAP.contains(&magic) {
            return Err(trouble("it is neither pcap nor pcapng"));
        }
        if magic == PCAPNG {
            let reader = PcapNgReader::new(source).map_err(unread)?;
            let comment = |option: &SectionHeaderOption<'_>| match option {
                SectionHeaderOption::Comment(text) => Some(text.to_string()),
                _ => None,
            };
            let comments = reader.section().options.iter().filter_map(comment).collect();
            return Ok(Self { format: Format::PcapNg { reader, nanos: 0 }, comments });
        }
        let reader = PcapReader::new(source).map_err(unread)?;
        ethernet(reader.header().datalink)?;
        Ok(Self { format: Format::Pcap { reader, announced: false }, comments: Vec::new() })
    }
}

impl<R: Read> CaptureReader<R> {
    /// Comments on the whole capture.
    pub fn comments(&self) -> &[String] {
        &self.comments
    }

    /// What comes next; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read or is malformed; [`io::ErrorKind::UnexpectedEof`] when it ends in the middle of a packet.
    pub fn next_item(&mut self) -> io::Result<Option<Item>> {
        match &mut self.format {
            Format::Pcap { announced, .. } if !*announced => {
                *announced = true;
                Ok(Some(Item::Interface { name: None }))
            }
            Format::Pcap { reader, .. } => {
                // The library's own reading of a packet refuses those that the capture cut short.
                let unit = match reader.header().ts_resolution {
                    TsResolution::MicroSecond => 1_000,
                    TsResolution::NanoSecond => 1,
                };
                let Some(packet) = reader.next_raw_packet() else { return Ok(None) };
                let packet = packet.map_err(unread)?;
                Ok(Some(Item::Packet(Packet {
                    nanos: u64::from(packet.ts_sec) * 1_000_000_000 + u64::from(packet.ts_frac) * unit,
                    interface: 0,
                    direction: None,
                    wire_len: packet.orig_len,
                    bytes: packet.data.into_owned(),
                    comment: None,
                })))
            }
            Format::PcapNg { reader, nanos } => next_block(reader, nanos),
        }
    }

    /// The next packet, other things left out; `None` at the end.
    ///
    /// # Errors
    /// As for [`CaptureReader::next_item`].
    pub fn next_packet(&mut self) -> io::Result<Option<Packet>> {
        loop {
            match self.next_item()? {
                Some(Item::Packet(packet)) => return Ok(Some(packet)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }
}

fn ethernet(link: DataLink) -> io::Result<()> {
    if link == DataLink::ETHERNET { Ok(()) } else { Err(trouble(format!("its link layer is {link:?}, not Ethernet"))) }
}

fn next_block<R: Read>(reader: &mut PcapNgReader<R>, latest: &mut u64) -> io::Result<Option<Item>> {
    loop {
        let big_endian = reader.section().endianness == Endianness::Big;
        // Copied, so that the reader can be asked about the packet's interface.
        let block = match reader.next_block() {
            None => return Ok(None),
            Some(block) => block.map_err(unread)?.into_owned(),
        };
        match block {
            Block::InterfaceDescription(interface) => {
                ethernet(interface.linktype)?;
                let name = interface.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                    _ => None,
                });
                return Ok(Some(Item::Interface { name }));
            }
            Block::EnhancedPacket(packet) => {
                let interface = reader
                    .packet_interface(&packet)
                    .ok_or_else(|| trouble(format!("a packet names interface {}", packet.interface_id)))?;
                // The library counts whatever the unit is as nanoseconds.
                let units = u64::try_from(packet.timestamp.as_nanos()).unwrap_or(u64::MAX);
                let nanos = to_nanos(units, resolution(interface));
                *latest = nanos;
                return Ok(Some(Item::Packet(enhanced(packet, nanos))));
            }
            Block::SimplePacket(packet) => {
                // It has no time: it came when the one before it did.
                let (bytes, wire_len) = (packet.data.into_owned(), packet.original_len);
                let packet = Packet { nanos: *latest, interface: 0, direction: None, wire_len, bytes, comment: None };
                return Ok(Some(Item::Packet(packet)));
            }
            Block::Unknown(block) if block.type_ == CUSTOM_BLOCK => {
                if let Some(note) = read_note(&block.value, big_endian) {
                    return Ok(Some(Item::Note(note)));
                }
            }
            _ => {}
        }
    }
}

fn enhanced(packet: EnhancedPacketBlock<'_>, nanos: u64) -> Packet {
    let direction = packet.options.iter().find_map(|option| match option {
        EnhancedPacketOption::Flags(flags) => match flags & DIRECTION_BITS {
            1 => Some(Direction::Inbound),
            2 => Some(Direction::Outbound),
            _ => None,
        },
        _ => None,
    });
    let comment = packet.options.iter().find_map(|option| match option {
        EnhancedPacketOption::Comment(text) => Some(text.to_string()),
        _ => None,
    });
    let (interface, wire_len) = (packet.interface_id, packet.original_len);
    Packet { nanos, interface, direction, wire_len, bytes: packet.data.into_owned(), comment }
}

/// The unit of an interface's times: microseconds unless it says otherwise.
fn resolution(interface: &InterfaceDescriptionBlock<'_>) -> u8 {
    let said = interface.options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
        _ => None,
    });
    said.unwrap_or(6)
}

/// `units` of 10^-n seconds, or of 2^-n when the highest bit is set, in nanoseconds.
fn to_nanos(units: u64, resolution: u8) -> u64 {
    let exponent = u32::from(resolution & 0x7f);
    let second = if resolution & 0x80 == 0 { 10u128.checked_pow(exponent) } else { 1u128.checked_shl(exponent) };
    // A second of more units than 128 bits count is shorter than any time that a capture holds.
    let nanos = second.filter(|&second| second > 0).map_or(0, |second| u128::from(units) * 1_000_000_000 / second);
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

/// What [`CaptureWriter::note`] wrote; `None` for other people's blocks.
fn read_note(value: &[u8], big_endian: bool) -> Option<Vec<u8>> {
    let word = |at: usize| {
        let bytes = value.get(at..at + 4)?.first_chunk::<4>()?;
        Some(if big_endian { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) })
    };
    if word(0)? != ENTERPRISE {
        return None;
    }
    let len = word(4)? as usize;
    value.get(8..8usize.checked_add(len)?).map(<[u8]>::to_vec)
}

/// Writes a pcapng file; times are in nanoseconds.
pub struct CaptureWriter<W: Write = BufWriter<File>> {
    writer: PcapNgWriter<W>,
    interfaces: u32,
}

impl<W: Write> std::fmt::Debug for CaptureWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaptureWriter").field("interfaces", &self.interfaces).finish_non_exhaustive()
    }
}

impl CaptureWriter {
    /// Makes a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path, comment: Option<&str>) -> io::Result<Self> {
        Self::new(BufWriter::new(File::create(path)?), comment)
    }
}

impl<W: Write> CaptureWriter<W> {
    /// Begins a capture.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(out: W, comment: Option<&str>) -> io::Result<Self> {
        let mut options = vec![SectionHeaderOption::UserApplication(Cow::Borrowed("MiMBox"))];
        options.extend(comment.map(|text| SectionHeaderOption::Comment(Cow::Owned(text.to_owned()))));
        // The same on every machine: a golden file is compared byte for byte.
        let header = SectionHeaderBlock { endianness: Endianness::Little, options, ..SectionHeaderBlock::default() };
        Ok(Self { writer: PcapNgWriter::with_section_header(out, header).map_err(trouble)?, interfaces: 0 })
    }

    /// Adds an interface and says its number.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn interface(&mut self, name: &str, mac: Option<MacAddr>) -> io::Result<u32> {
        let mut interface = InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0);
        interface.options.push(InterfaceDescriptionOption::IfName(Cow::Owned(name.to_owned())));
        if let Some(mac) = mac {
            interface.options.push(InterfaceDescriptionOption::IfMacAddr(Cow::Owned(mac.0.to_vec())));
        }
        interface.options.push(InterfaceDescriptionOption::IfTsResol(9));
        self.writer.write_pcapng_block(interface).map_err(trouble)?;
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    /// Adds a packet.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn packet(
        &mut self,
        interface: u32,
        nanos: u64,
        direction: Option<Direction>,
        bytes: &[u8],
        comment: Option<&str>,
    ) -> io::Result<()> {
        let mut options = Vec::new();
        options.extend(comment.map(|text| EnhancedPacketOption::Comment(Cow::Borrowed(text))));
        options.extend(direction.map(|direction| {
            EnhancedPacketOption::Flags(match direction {
                Direction::Inbound => 1,
                Direction::Outbound => 2,
            })
        }));
        let block = EnhancedPacketBlock {
            interface_id: interface,
            timestamp: std::time::Duration::from_nanos(nanos),
            original_len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            data: Cow::Borrowed(bytes),
            options,
        };
        self.writer.write_pcapng_block(block).map_err(trouble)?;
        Ok(())
    }

    /// Adds bytes that mean something to MiMBox alone; other tools step over them.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut value = Vec::with_capacity(bytes.len() + 11);
        value.extend_from_slice(&ENTERPRISE.to_le_bytes());
        value.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        value.extend_from_slice(bytes);
        value.resize(value.len().next_multiple_of(4), 0);
        let length = u32::try_from(value.len() + 12).unwrap_or(u32::MAX);
        let block = UnknownBlock::new(CUSTOM_BLOCK, length, &value);
        self.writer.write_block(&Block::Unknown(block)).map_err(trouble)?;
        Ok(())
    }

    /// Writes everything out.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.get_mut().flush()
    }

    /// Ends the capture and gives back what it was written to.
    pub fn into_inner(self) -> W {
        self.writer.into_inner()
    }
}

/// A writer that several ports share.
pub type SharedWriter = Arc<Mutex<CaptureWriter>>;

/// What a capture port reads and writes.
#[derive(Clone, Debug)]
pub struct CaptureConfig<'a> {
    /// The port's number.
    pub id: PortId,
    /// The file that it receives from.
    pub input: &'a Path,
    /// Which of the file's interfaces it is.
    pub interface: u32,
    /// Its Ethernet address: the one that the capture's packets are addressed to.
    pub mac: MacAddr,
    /// The largest IP packet of its link.
    pub mtu: u16,
    /// When the first packet of the file comes.
    pub start: Instant,
    /// Where what is sent goes, and as which interface.
    pub output: Option<(SharedWriter, u32)>,
}

/// One interface of a capture file as a port.
#[derive(Debug)]
pub struct CapturePort<C> {
    info: PortInfo,
    reader: CaptureReader,
    interface: u32,
    next: Option<(Instant, Vec<u8>)>,
    /// What is added to the capture's times to have the clock's.
    first: u64,
    start: Instant,
    clock: C,
    output: Option<(SharedWriter, u32)>,
    sent: Vec<FrameId>,
    stats: PortStats,
}

/// Frames that a capture port holds for transmission.
const TX_RING: usize = 1024;

impl<C: Clock> CapturePort<C> {
    /// Opens the file and finds the first packet.
    ///
    /// # Errors
    /// When the file cannot be read, or is no capture of Ethernet.
    pub fn open(config: &CaptureConfig<'_>, clock: C) -> Result<Self, PortError> {
        let path = config.input.display().to_string();
        let error = |error: io::Error| PortError::Capture { path: path.clone(), reason: error.to_string() };
        // The first packet of all interfaces sets the time of all ports.
        let first = CaptureReader::open(config.input).and_then(|mut reader| reader.next_packet()).map_err(error)?;
        let mut this = Self {
            info: PortInfo {
                id: config.id,
                interface: path.clone(),
                mac: config.mac,
                mtu: config.mtu,
                mode: PortMode::Capture,
            },
            reader: CaptureReader::open(config.input).map_err(error)?,
            interface: config.interface,
            next: None,
            first: first.map_or(0, |packet| packet.nanos),
            start: config.start,
            clock,
            output: config.output.clone(),
            sent: Vec::new(),
            stats: PortStats::default(),
        };
        this.advance();
        Ok(this)
    }

    /// Finds the next packet that came in by this interface.
    fn advance(&mut self) {
        self.next = None;
        loop {
            match self.reader.next_packet() {
                Ok(Some(packet))
                    if packet.interface == self.interface && packet.direction != Some(Direction::Outbound) =>
                {
                    let since = packet.nanos.saturating_sub(self.first);
                    self.next = Some((self.start + mimbox_stack::Duration::from_nanos(since), packet.bytes));
                    return;
                }
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(capture = self.info.interface, %error, "the capture ends here");
                    return;
                }
            }
        }
    }
}

impl<C: Clock> Port for CapturePort<C> {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(&mut self, pool: &mut FramePool, batch: &mut Vec<RxFrame>, max: usize) -> usize {
        let now = self.clock.now();
        let room = (pool.frame_size() as usize).saturating_sub(RX_HEADROOM);
        let mut taken = 0;
        while taken < max
            && let Some((_, bytes)) = self.next.take_if(|(at, _)| *at <= now)
        {
            if bytes.len() > room {
                self.stats.rx_dropped += 1;
            } else if let Some(frame) = pool.alloc_control() {
                if let Some(target) = pool.bytes_mut(&frame).get_mut(RX_HEADROOM..RX_HEADROOM + bytes.len()) {
                    target.copy_from_slice(&bytes);
                }
                self.stats.rx_frames += 1;
                self.stats.rx_bytes += bytes.len() as u64;
                // Both fit: a frame is at most 4096 bytes.
                batch.push(RxFrame { port: self.info.id, frame, offset: RX_HEADROOM as u16, len: bytes.len() as u16 });
                taken += 1;
            } else {
                self.stats.rx_fill_empty += 1;
            }
            self.advance();
        }
        taken
    }

    fn transmit(&mut self, pool: &mut FramePool, frame: TxFrame) -> Result<(), TxFrame> {
        if self.sent.len() >= TX_RING {
            return Err(frame);
        }
        if let Some((writer, interface)) = &self.output {
            let (start, end) = (usize::from(frame.offset), usize::from(frame.offset) + usize::from(frame.len));
            let bytes = pool.bytes(&frame.frame).get(start..end).unwrap_or(&[]);
            let nanos = self.clock.now().as_nanos();
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = writer.packet(*interface, nanos, Some(Direction::Outbound), bytes, None) {
                tracing::error!(%error, "the output capture is not complete");
                self.stats.tx_dropped += 1;
            }
        }
        self.stats.tx_frames += 1;
        self.stats.tx_bytes += u64::from(frame.len);
        self.sent.push(frame.frame);
        Ok(())
    }

    fn flush(&mut self) {}

    fn complete(&mut self, pool: &mut FramePool) -> usize {
        let completed = self.sent.len();
        for frame in self.sent.drain(..) {
            pool.tx_complete(frame);
        }
        completed
    }

    fn refill(&mut self, _pool: &mut FramePool) {}

    fn frames_in_rings(&self) -> u32 {
        self.sent.len() as u32
    }

    fn wants_flush(&self) -> bool {
        false
    }

    fn fd(&self) -> Option<RawFd> {
        None
    }

    fn next_arrival(&self) -> Option<Instant> {
        self.next.as_ref().map(|(at, _)| *at)
    }

    fn state(&self) -> PortState {
        if self.next.is_some() { PortState::Up } else { PortState::Gone }
    }

    fn stats(&self) -> PortStats {
        self.stats
    }

    fn close(&mut self, pool: &mut FramePool) {
        self.complete(pool);
        self.next = None;
        if let Some((writer, _)) = &self.output
            && let Err(error) = writer.lock().unwrap_or_else(PoisonError::into_inner).flush()
        {
            tracing::error!(%error, "the output capture is not complete");
        }
    }
}

#[cfg(test)]
mod tests;
