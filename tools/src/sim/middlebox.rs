//! Middleboxes on a link, as there are on real paths (RFC 8684 §3.7, §6): they take MPTCP options out, change payload,
//! renumber, cut and join segments. What they let through has correct checks.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use mimbox_stack::{Duration, Instant, checksum};

use super::draw::{MILLION, mix};
use super::packet::{Packet, Packets};

/// Which segments lose their MPTCP options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strips {
    /// SYNs and SYN+ACKs.
    Syns,
    /// The first segment of each connection that has no SYN: a client's third ACK.
    ThirdAcks,
    /// Segments with payload.
    Data,
    /// All but SYNs and SYN+ACKs.
    AllButSyns,
    /// Every segment.
    All,
}

/// What a middlebox does to the connections that it meddles with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// It takes MPTCP options out.
    Strips(Strips),
    /// It changes a byte of payload in some of the blocks of sequence numbers, the same one whenever it passes; of MPTCP's
    /// subflows only.
    Changes {
        /// Share of the blocks of [`BLOCK`] sequence numbers.
        ppm: u32,
    },
    /// It gives each direction of a connection sequence numbers of its own.
    Renumbers,
    /// It cuts payload into pieces; each has the options of the whole.
    Cuts {
        /// Bytes of a piece.
        bytes: u16,
    },
    /// It holds some of the segments back and joins them with the next one; the options of only one of them are left.
    Joins {
        /// Share of the segments with payload.
        ppm: u32,
    },
}

impl Does {
    /// True for what a Multipath TCP connection may end in a fallback by (RFC 8684 §3.7).
    pub(crate) const fn may_cause_fallback(self) -> bool {
        matches!(self, Self::Strips(_) | Self::Changes { .. } | Self::Joins { .. })
    }

    /// True for one that takes MPTCP options away.
    pub(crate) const fn strips(self) -> bool {
        matches!(self, Self::Strips(_))
    }

    /// True for one that takes MPTCP options away from data only: subflows are set up through it.
    pub(crate) const fn strips_data(self) -> bool {
        matches!(self, Self::Strips(Strips::Data))
    }

    /// True for one that MPTCP's checksum is there to find.
    pub(crate) const fn changes_payload(self) -> bool {
        matches!(self, Self::Changes { .. })
    }

    /// True for one after which there may be payload without a mapping on a subflow that works otherwise.
    pub(crate) const fn loses_mappings(self) -> bool {
        matches!(self, Self::Joins { .. })
    }
}

/// A middlebox on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Middlebox {
    /// What it does.
    pub does: Does,
    /// Share of the 4-tuples that it meddles with; always the same ones, in both directions of the link.
    pub flows_ppm: u32,
    /// Decides which 4-tuples those are, and what is changed.
    pub salt: u64,
}

/// Which direction of its link a middlebox sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Away from whoever connects.
    There,
    /// Towards them.
    Back,
}

/// Of each block of sequence numbers a [`Does::Changes`] changes one or none.
pub const BLOCK: u32 = 4096;
/// How long a segment is held back for the next one.
const HOLD: Duration = Duration::from_millis(1);
/// The largest IP packet that joining makes.
const MTU: usize = 1500;
/// Bytes before the IPv4 header, and of that: the hosts of a world send no IP options.
const ETHERNET: usize = 14;
const IP: usize = 20;
const TCP: usize = ETHERNET + IP;
/// MPTCP's option kind, SACK's, and the one that fills the place of what is taken out.
const MPTCP: u8 = 30;
const SACK: u8 = 5;
const NOP: u8 = 1;
/// TCP flags.
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;

/// The addresses and ports of a connection.
type Ends = ((u32, u16), (u32, u16));

/// A TCP segment in an IPv4 frame.
struct Segment<'a>(&'a mut Packet);

impl<'a> Segment<'a> {
    fn of(packet: &'a mut Packet) -> Option<Self> {
        let whole = |packet: &[u8]| {
            let tcp = packet.get(12..14)? == [0x08, 0x00] && *packet.get(ETHERNET)? == 0x45 && *packet.get(23)? == 6;
            let header = TCP + usize::from(*packet.get(TCP + 12)? >> 4) * 4;
            Some(tcp && header >= TCP + 20 && packet.len() >= header)
        };
        // Padding up to the least length of a frame is no payload.
        let total = usize::from(u16::from_be_bytes([*packet.get(16)?, *packet.get(17)?]));
        if whole(packet)? && total >= IP + 20 && ETHERNET + total <= packet.len() {
            packet.truncate(ETHERNET + total);
            return Some(Self(packet));
        }
        None
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    fn set_word(&mut self, at: usize, word: u32) {
        self.0[at..at + 4].copy_from_slice(&word.to_be_bytes());
    }

    fn seq(&self) -> u32 {
        self.word(TCP + 4)
    }

    fn flags(&self) -> u8 {
        self.0[TCP + 13]
    }

    fn has(&self, flag: u8) -> bool {
        self.flags() & flag != 0
    }

    /// Where the payload begins in the frame.
    fn payload_at(&self) -> usize {
        TCP + usize::from(self.0[TCP + 12] >> 4) * 4
    }

    fn payload_len(&self) -> usize {
        self.0.len() - self.payload_at()
    }

    /// A number for the 4-tuple, the same in both directions, and perhaps for other 4-tuples.
    fn flow(&self) -> u64 {
        let port = |at| u64::from(u16::from_be_bytes([self.0[at], self.0[at + 1]]));
        let addresses = u64::from(self.word(ETHERNET + 12) ^ self.word(ETHERNET + 16));
        addresses << 16 ^ port(TCP) ^ port(TCP + 2)
    }

    /// The 4-tuple, the same in both directions.
    fn ends(&self) -> Ends {
        let end = |address, port| (self.word(address), u16::from_be_bytes([self.0[port], self.0[port + 1]]));
        let (from, to) = (end(ETHERNET + 12, TCP), end(ETHERNET + 16, TCP + 2));
        (from.min(to), from.max(to))
    }

    /// Place and length of each option.
    fn options(&self) -> Vec<(usize, usize)> {
        let end = self.payload_at();
        let mut at = TCP + 20;
        let mut found = Vec::new();
        while at < end && self.0[at] != 0 {
            let len = match self.0[at] {
                NOP => 1,
                _ if at + 1 < end => usize::from(self.0[at + 1]).max(2),
                _ => break,
            };
            if at + len > end {
                break;
            }
            found.push((at, len));
            at += len;
        }
        found
    }

    fn has_mptcp(&self) -> bool {
        self.options().iter().any(|&(at, _)| self.0[at] == MPTCP)
    }

    /// Sets the lengths and checks right.
    fn seal(&mut self) {
        let len = self.0.len();
        self.0[16..18].copy_from_slice(&((len - ETHERNET) as u16).to_be_bytes());
        self.0[24..26].fill(0);
        let check = !checksum::sum(&self.0[ETHERNET..TCP]);
        self.0[24..26].copy_from_slice(&check.to_be_bytes());
        self.0[TCP + 16..TCP + 18].fill(0);
        let (from, to) = (Ipv4Addr::from(self.word(ETHERNET + 12)), Ipv4Addr::from(self.word(ETHERNET + 16)));
        let pseudo = checksum::pseudo_header(from.into(), to.into(), 6, (len - TCP) as u32);
        let check = !checksum::add(pseudo, checksum::sum(&self.0[TCP..]));
        self.0[TCP + 16..TCP + 18].copy_from_slice(&check.to_be_bytes());
    }

    /// Takes MPTCP's options out; true when there were any.
    fn strip(&mut self) -> bool {
        let options = self.options();
        let mut found = false;
        for (at, len) in options {
            if self.0[at] == MPTCP {
                self.0[at..at + len].fill(NOP);
                found = true;
            }
        }
        found
    }
}

/// A segment that waits for the next one.
#[derive(Debug)]
struct Held {
    packet: Packet,
    ends: Ends,
    /// When it would have arrived.
    arrives: Instant,
    /// Somebody knows until when it waits.
    told: bool,
}

/// Two segments in one, with the options of the first or of the second, when they follow each other and fit.
fn join(first: &mut Packet, second: &mut Packet, keep_first: bool) -> Option<Packet> {
    let (one, other) = (Segment::of(first)?, Segment::of(second)?);
    let follows = other.seq() == one.seq().wrapping_add(one.payload_len() as u32);
    if !follows || other.payload_len() == 0 || other.has(SYN | RST | URG) {
        return None;
    }
    let base = if keep_first { &one } else { &other };
    let mut joined = base.0[..base.payload_at()].to_vec();
    for part in [&one, &other] {
        joined.extend_from_slice(&part.0[part.payload_at()..]);
    }
    if joined.len() > ETHERNET + MTU {
        return None;
    }
    let (seq, ack, flags, window) =
        (one.seq(), other.word(TCP + 8), one.flags() | other.flags(), &other.0[TCP + 14..TCP + 16]);
    joined[TCP + 14..TCP + 16].copy_from_slice(window);
    let mut segment = Segment(&mut joined);
    segment.set_word(TCP + 4, seq);
    segment.set_word(TCP + 8, ack);
    segment.0[TCP + 13] = flags;
    segment.seal();
    Some(joined)
}

/// A middlebox at work in one direction of a link.
#[derive(Debug)]
pub(crate) struct Meddler {
    middlebox: Middlebox,
    way: Way,
    /// Connections whose third ACK is yet to come.
    opening: HashSet<Ends>,
    /// What is known of connections whose SYN passed: whether it had an MPTCP option.
    mptcp: HashMap<Ends, bool>,
    held: Option<Held>,
    /// Segments that it has decided about, for the next decision.
    count: u64,
    /// Segments that lost MPTCP options.
    pub(crate) stripped: u64,
    /// Segments that were changed, renumbered, cut or joined.
    pub(crate) changed: u64,
}

impl Meddler {
    pub(crate) fn new(middlebox: Middlebox, way: Way) -> Self {
        Self {
            middlebox,
            way,
            opening: HashSet::new(),
            mptcp: HashMap::new(),
            held: None,
            count: 0,
            stripped: 0,
            changed: 0,
        }
    }

    /// Takes a packet that would arrive at `arrives`, and hands on what arrives instead, in order.
    pub(crate) fn meddle(
        &mut self,
        arrives: Instant,
        mut packet: Packet,
        packets: &mut Packets,
        pass: &mut impl FnMut(Instant, Packet),
    ) {
        let Some(mut segment) = Segment::of(&mut packet) else { return pass(arrives, packet) };
        let flow = segment.flow();
        if mix(self.middlebox.salt ^ flow) % u64::from(MILLION) >= u64::from(self.middlebox.flows_ppm) {
            return pass(arrives, packet);
        }
        match self.middlebox.does {
            Does::Strips(strips) => self.strip(strips, &mut segment),
            Does::Changes { ppm } => self.change(ppm, flow, &mut segment),
            Does::Renumbers => self.renumber(flow, &mut segment),
            Does::Cuts { bytes } => return self.cut(arrives, usize::from(bytes), packet, packets, pass),
            Does::Joins { ppm } => return self.hold_or_join(arrives, ppm, packet, packets, pass),
        }
        pass(arrives, packet);
    }

    fn strip(&mut self, strips: Strips, segment: &mut Segment<'_>) {
        let is_syn = segment.has(SYN);
        let wanted = match strips {
            Strips::Syns => is_syn,
            Strips::ThirdAcks if is_syn => {
                self.opening.insert(segment.ends());
                false
            }
            Strips::ThirdAcks => self.opening.remove(&segment.ends()),
            Strips::Data => segment.payload_len() > 0,
            Strips::AllButSyns => !is_syn,
            Strips::All => true,
        };
        if wanted && segment.strip() {
            segment.seal();
            self.stripped += 1;
        }
    }

    fn change(&mut self, ppm: u32, flow: u64, segment: &mut Segment<'_>) {
        if segment.has(SYN) {
            self.mptcp.insert(segment.ends(), segment.has_mptcp());
        }
        if segment.has(SYN) || !self.mptcp.get(&segment.ends()).copied().unwrap_or(false) {
            return;
        }
        let (first, len) = (segment.seq(), segment.payload_len() as u32);
        // The last of each block, so that nothing has to be known of where the connection began.
        let to_mark = BLOCK - 1 - first % BLOCK;
        if to_mark >= len {
            return;
        }
        let block = u64::from(first.wrapping_add(to_mark) / BLOCK);
        if mix(self.middlebox.salt ^ mix(flow ^ mix(block))) % u64::from(MILLION) < u64::from(ppm) {
            let at = segment.payload_at() + to_mark as usize;
            segment.0[at] ^= 0x55;
            segment.seal();
            self.changed += 1;
        }
    }

    /// By how much the numbers of direction `way` differ behind the middlebox.
    fn shift(&self, flow: u64, way: Way) -> u32 {
        mix(self.middlebox.salt ^ mix(flow ^ mix(way as u64))) as u32
    }

    fn renumber(&mut self, flow: u64, segment: &mut Segment<'_>) {
        let (own, other) = match self.way {
            Way::There => (self.shift(flow, Way::There), self.shift(flow, Way::Back)),
            Way::Back => (self.shift(flow, Way::Back), self.shift(flow, Way::There)),
        };
        segment.set_word(TCP + 4, segment.seq().wrapping_add(own));
        if segment.has(ACK) {
            segment.set_word(TCP + 8, segment.word(TCP + 8).wrapping_sub(other));
        }
        for (at, len) in segment.options() {
            if segment.0[at] == SACK {
                for edge in (at + 2..at + len - 3).step_by(4) {
                    segment.set_word(edge, segment.word(edge).wrapping_sub(other));
                }
            }
        }
        segment.seal();
        self.changed += 1;
    }

    fn cut(
        &mut self,
        arrives: Instant,
        bytes: usize,
        mut packet: Packet,
        packets: &mut Packets,
        pass: &mut impl FnMut(Instant, Packet),
    ) {
        let Some(segment) = Segment::of(&mut packet) else { return pass(arrives, packet) };
        let (start, len, seq) = (segment.payload_at(), segment.payload_len(), segment.seq());
        if len <= bytes || segment.has(SYN) {
            return pass(arrives, packet);
        }
        self.changed += 1;
        for from in (0..len).step_by(bytes) {
            let to = (from + bytes).min(len);
            let mut piece = packets.copy_of(&packet[..start]);
            piece.extend_from_slice(&packet[start + from..start + to]);
            let mut cut = Segment(&mut piece);
            cut.set_word(TCP + 4, seq.wrapping_add(from as u32));
            if to < len {
                cut.0[TCP + 13] &= !(FIN | PSH);
            }
            cut.seal();
            pass(arrives, piece);
        }
        packets.recycle(packet);
    }

    fn hold_or_join(
        &mut self,
        arrives: Instant,
        ppm: u32,
        mut packet: Packet,
        packets: &mut Packets,
        pass: &mut impl FnMut(Instant, Packet),
    ) {
        let Some(segment) = Segment::of(&mut packet) else { return pass(arrives, packet) };
        let ends = segment.ends();
        let plain = segment.payload_len() > 0 && !segment.has(SYN | RST | FIN | URG);
        self.count += 1;
        let chosen = mix(self.middlebox.salt ^ self.count) % u64::from(MILLION) < u64::from(ppm);
        if let Some(mut held) = self.held.take_if(|held| held.ends == ends) {
            if let Some(joined) = join(&mut held.packet, &mut packet, mix(self.count) & 1 == 0) {
                self.changed += 1;
                packets.recycle(held.packet);
                packets.recycle(packet);
                return pass(arrives, joined);
            }
            pass(held.arrives, held.packet);
        }
        if plain && chosen && self.held.is_none() {
            self.held = Some(Held { packet, ends, arrives, told: false });
            return;
        }
        pass(arrives, packet);
    }

    /// When what is held back is to be passed on; said once.
    pub(crate) fn takes_up(&mut self) -> Option<Instant> {
        let held = self.held.as_mut().filter(|held| !held.told)?;
        held.told = true;
        Some(held.arrives + HOLD)
    }

    /// Passes on what was held back for long enough.
    pub(crate) fn let_go(&mut self, now: Instant) -> Option<Packet> {
        self.held.take_if(|held| held.arrives + HOLD <= now).map(|held| held.packet)
    }
}

#[cfg(test)]
mod tests;
