//! Hosts that misuse TCP on purpose: what they send and hear is changed at their own link, connection by connection.
//!
//! The host itself stays what it is, this project's stack or smoltcp. So an adversary's data is still right, and its
//! transfer has to end whole unless it acknowledges what it never got.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use mimbox_stack::{Counters, Duration, FlowKey, Instant, Rng};
use smoltcp::wire::{Ipv4Packet, TcpPacket, TcpSeqNumber};

use super::draw::{between, chance};
use super::node::{End, Node};
use super::packet::{Outbox, Packet, Packets};
use super::peer::tcp_in;
use super::plan::{App, Plan};

/// How an adversary misuses TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// It takes back windows that it has shown, to zero at times (RFC 9293 §3.8.6 advises against it).
    ShrinksWindow,
    /// It closes its window for ten minutes once data has arrived.
    ClosesWindow,
    /// It throws away what it has reported by SACK (RFC 2018 §8).
    Reneges,
    /// It acknowledges a segment byte by byte (RFC 3465 §2).
    SplitsAcks,
    /// It acknowledges what has not arrived yet, and what was never sent.
    AcksAhead,
    /// It asks for segments of 48 bytes.
    TinySegments,
    /// It sends each byte in a segment of its own.
    SingleBytes,
}

impl Mischief {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::ShrinksWindow,
        Self::ClosesWindow,
        Self::Reneges,
        Self::SplitsAcks,
        Self::AcksAhead,
        Self::TinySegments,
        Self::SingleBytes,
    ];

    /// True when the adversary may never get all the data: it has acknowledged some that was lost.
    pub(crate) fn may_lose(self) -> bool {
        self == Self::AcksAhead
    }

    /// True when the adversary's sender may time out: its segment is a burst of hundreds of packets, of which one lost a
    /// timeout is all that it can mend, with timeouts of a minute in the end.
    pub(crate) fn may_give_up(self) -> bool {
        self == Self::SingleBytes
    }

    /// Most bytes of each direction of such a connection: each may cost a packet.
    pub(crate) fn most_bytes(self) -> u64 {
        if self == Self::SingleBytes { 16 << 10 } else { 128 << 10 }
    }
}

/// The part that an adversary plays in a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adversary {
    /// The end at which it stands.
    pub end: End,
    /// What it does there.
    pub mischief: Mischief,
}

/// How long a window stays closed.
const CLOSED_FOR: Duration = Duration::from_secs(600);
/// An adversary that has acknowledged what it never got gives up after this time, with a reset.
const GIVES_UP_AFTER: Duration = Duration::from_secs(900);
/// Most acknowledgments that one is split into.
const MOST_PARTS: u32 = 200;
/// The segment size of an adversary that wants small ones.
const TINY_MSS: u16 = 48;
/// Times that a connection reneges: each costs its sender a timeout.
const MOST_EPISODES: u32 = 4;
/// Share of new data segments with which such an episode begins.
const EPISODE_PPM: u32 = 100_000;
/// Bytes by which an acknowledgment runs ahead at most.
const MOST_AHEAD: u64 = 4_000;

const ETHERNET: usize = 14;
const MPTCP: u8 = 30;
const SACK: u8 = 5;
const NOP: u8 = 1;

/// A node whose connections adversaries play.
pub(crate) struct Adversaries {
    node: Box<dyn Node>,
    parts: Vec<Option<Mischief>>,
    actors: HashMap<FlowKey, Actor>,
    rng: Rng,
    inbox: Vec<(u8, Packet)>,
    /// What was changed, thrown away or added, by the order of [`Mischief::ALL`].
    done: [u64; Mischief::ALL.len()],
}

impl Adversaries {
    /// `node`, played by adversaries where `plans` has any at this `end`.
    pub(crate) fn over(node: Box<dyn Node>, plans: &[Plan], end: End, rng: Rng) -> Box<dyn Node> {
        let part = |plan: &Plan| plan.adversary.filter(|adversary| adversary.end == end).map(|part| part.mischief);
        let parts: Vec<_> = plans.iter().map(part).collect();
        if parts.iter().all(Option::is_none) {
            return node;
        }
        let done = [0; Mischief::ALL.len()];
        Box::new(Self { node, parts, actors: HashMap::new(), rng, inbox: Vec::new(), done })
    }

    /// The adversary whose connection `flow` is, seen from the node.
    fn actor<'a>(
        actors: &'a mut HashMap<FlowKey, Actor>,
        parts: &[Option<Mischief>],
        node: &dyn Node,
        now: Instant,
        flow: FlowKey,
    ) -> Option<&'a mut Actor> {
        match actors.entry(flow) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(vacant) => {
                let mischief = parts.get(node.plan_of(&flow)?).copied().flatten()?;
                Some(vacant.insert(Actor::new(mischief, now)))
            }
        }
    }
}

impl Node for Adversaries {
    fn run(&mut self, now: Instant, inbox: &mut Vec<(u8, Packet)>, out: &mut Outbox) {
        let Self { node, parts, actors, rng, inbox: heard, done } = self;
        for (port, packet) in inbox.drain(..) {
            let flow = Segment::of(&packet).map(|segment| segment.of_receiver());
            let actor = flow.and_then(|flow| Self::actor(actors, parts, node.as_ref(), now, flow));
            match actor {
                Some(actor) => actor.hear(now, port, packet, heard, rng, out, done),
                None => heard.push((port, packet)),
            }
        }
        for actor in actors.values_mut().filter(|actor| actor.gives_up_at <= now) {
            actor.give_up(heard, out, done);
        }
        let before = std::mem::take(&mut out.queue);
        node.run(now, heard, out);
        let said = std::mem::replace(&mut out.queue, before);
        for (port, packet) in said {
            let flow = Segment::of(&packet).map(|segment| segment.of_sender());
            match flow.and_then(|flow| Self::actor(actors, parts, node.as_ref(), now, flow)) {
                Some(actor) => actor.speak(now, port, packet, rng, out, done),
                None => out.queue.push((port, packet)),
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let leaving = self.actors.values().map(|actor| actor.gives_up_at).filter(|&at| at != Instant::MAX);
        self.node.next_deadline().into_iter().chain(leaving).min()
    }

    fn poll_every(&self) -> Duration {
        self.node.poll_every()
    }

    fn apps(&self, visit: &mut dyn FnMut(usize, End, &App)) {
        self.node.apps(visit);
    }

    fn client_counters(&self) -> Option<&Counters> {
        self.node.client_counters()
    }

    fn mischief(&self) -> [u64; Mischief::ALL.len()] {
        self.done
    }

    fn open_ends(&self) -> usize {
        self.node.open_ends()
    }

    fn is_quiet(&self) -> bool {
        self.node.is_quiet()
    }

    fn audit(&mut self, now: Instant) -> Vec<String> {
        self.node.audit(now)
    }
}

/// One connection of an adversary, or one subflow.
struct Actor {
    mischief: Mischief,
    /// SYNs with the offer of SACK that were said and heard.
    sack: [bool; 2],
    /// Acknowledgments said.
    said: u64,
    /// The acknowledgment number said last.
    acked: Option<u32>,
    /// The end of all data heard.
    heard: Option<u32>,
    /// When the window opens again.
    closed_until: Option<Instant>,
    /// New segments that are still to be reported and thrown away.
    to_drop: u32,
    episodes: u32,
    /// The last pure acknowledgment said, and the last segment heard.
    last_said: Option<(u8, Packet)>,
    last_heard: Option<(u8, Packet)>,
    gives_up_at: Instant,
}

impl Actor {
    fn new(mischief: Mischief, now: Instant) -> Self {
        Self {
            mischief,
            sack: [false; 2],
            said: 0,
            acked: None,
            heard: None,
            closed_until: None,
            to_drop: 0,
            episodes: 0,
            last_said: None,
            last_heard: None,
            gives_up_at: if mischief.may_lose() { now + GIVES_UP_AFTER } else { Instant::MAX },
        }
    }

    fn count(&self, done: &mut [u64; Mischief::ALL.len()], times: u64) {
        let index = Mischief::ALL.iter().position(|kind| *kind == self.mischief);
        if let Some(count) = index.and_then(|index| done.get_mut(index)) {
            *count += times;
        }
    }

    /// Takes a packet that arrived; what the host is to see of it goes to `heard`.
    #[allow(clippy::too_many_arguments, reason = "the packet and everything that it may change")]
    fn hear(
        &mut self,
        now: Instant,
        port: u8,
        packet: Packet,
        heard: &mut Vec<(u8, Packet)>,
        rng: &mut Rng,
        out: &mut Outbox,
        done: &mut [u64; Mischief::ALL.len()],
    ) {
        let Some(segment) = Segment::of(&packet) else { return heard.push((port, packet)) };
        if segment.syn {
            self.sack[1] = segment.sack_offered;
        }
        let (start, end) = (segment.seq, segment.seq.wrapping_add(segment.len as u32));
        let new = segment.len > 0 && self.heard.is_none_or(|heard| !before(start, heard));
        if segment.len > 0 && self.heard.is_none_or(|heard| before(heard, end)) {
            self.heard = Some(end);
        }
        self.last_heard = Some((port, out.packets.copy_of(&packet)));
        match self.mischief {
            Mischief::ClosesWindow if segment.len > 0 => {
                self.closed_until.get_or_insert(now + CLOSED_FOR);
            }
            Mischief::Reneges if new && self.sack == [true; 2] => {
                if self.to_drop > 0 {
                    self.to_drop -= 1;
                    self.report(start, end, out);
                    self.count(done, 1);
                    return out.packets.recycle(packet);
                }
                if self.episodes < MOST_EPISODES && chance(rng, EPISODE_PPM) {
                    self.episodes += 1;
                    self.to_drop = between(rng, 1, 8) as u32;
                    self.count(done, 1);
                    return out.packets.recycle(packet);
                }
            }
            _ => {}
        }
        heard.push((port, packet));
    }

    /// Takes a packet of the host's and sends what the adversary makes of it.
    fn speak(
        &mut self,
        now: Instant,
        port: u8,
        mut packet: Packet,
        rng: &mut Rng,
        out: &mut Outbox,
        done: &mut [u64; Mischief::ALL.len()],
    ) {
        let Some(segment) = Segment::of(&packet) else { return out.queue.push((port, packet)) };
        if segment.syn {
            self.sack[0] = segment.sack_offered;
        }
        let plain = segment.ack.is_some() && !segment.syn && !segment.rst;
        let pure = plain && segment.len == 0 && !segment.fin;
        match self.mischief {
            Mischief::TinySegments if segment.syn => {
                set_mss(&mut packet, TINY_MSS);
                self.count(done, 1);
            }
            Mischief::ShrinksWindow if plain => {
                self.said += 1;
                let shift = (self.said % 8) as u32;
                edit(&mut packet, |tcp| {
                    let window = tcp.window_len();
                    tcp.set_window_len(if shift == 7 { 0 } else { window >> shift });
                });
                self.count(done, 1);
            }
            Mischief::ClosesWindow if plain && self.closed_until.is_some_and(|until| now < until) => {
                edit(&mut packet, |tcp| tcp.set_window_len(0));
                self.count(done, 1);
            }
            Mischief::AcksAhead if pure => {
                let ahead = between(rng, 0, MOST_AHEAD) as u32;
                edit(&mut packet, |tcp| {
                    tcp.set_ack_number(TcpSeqNumber(tcp.ack_number().0.wrapping_add(ahead as i32)))
                });
                if chance(rng, 500_000) {
                    data_ack_ahead(&mut packet, ahead);
                }
                self.count(done, 1);
            }
            Mischief::SplitsAcks if pure => {
                let ack = segment.ack.unwrap_or_default();
                let from = self.acked.filter(|&from| before(from, ack)).unwrap_or(ack);
                let bytes = ack.wrapping_sub(from);
                let parts = bytes.min(MOST_PARTS);
                for part in 1..parts {
                    let mut copy = out.packets.copy_of(&packet);
                    let number = from.wrapping_add((u64::from(bytes) * u64::from(part) / u64::from(parts)) as u32);
                    edit(&mut copy, |tcp| tcp.set_ack_number(TcpSeqNumber(number as i32)));
                    out.queue.push((port, copy));
                    self.count(done, 1);
                }
            }
            Mischief::SingleBytes if plain && segment.len > 1 => {
                self.count(done, segment.len as u64);
                split(&packet, port, out);
                return out.packets.recycle(packet);
            }
            _ => {}
        }
        if plain {
            self.acked = segment.ack;
        }
        if pure {
            let copy = out.packets.copy_of(&packet);
            if let Some((_, old)) = self.last_said.replace((port, copy)) {
                out.packets.recycle(old);
            }
        }
        out.queue.push((port, packet));
    }

    /// Tells of data that will not be kept: the last acknowledgment once more, with a block.
    fn report(&self, start: u32, end: u32, out: &mut Outbox) {
        let Some((port, said)) = &self.last_said else { return };
        if let Some(packet) = with_block(said, start, end, &mut out.packets) {
            out.queue.push((*port, packet));
        }
    }

    /// Resets the connection towards both ends.
    fn give_up(&mut self, heard: &mut Vec<(u8, Packet)>, out: &mut Outbox, done: &mut [u64; Mischief::ALL.len()]) {
        self.gives_up_at = Instant::MAX;
        if let (Some((port, said)), Some(Segment { ack: Some(expected), .. })) =
            (&self.last_said, self.last_heard.as_ref().and_then(|(_, packet)| Segment::of(packet)))
        {
            // The other end has acknowledged everything up to here, so here a reset is believed.
            let reset = reset_like(said, expected, &mut out.packets);
            out.queue.push((*port, reset));
            self.count(done, 1);
        }
        if let (Some((port, last)), Some(acked)) = (&self.last_heard, self.acked) {
            heard.push((*port, reset_like(last, acked, &mut out.packets)));
        }
    }
}

fn before(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other) as i32) < 0
}

/// What an adversary reads of a TCP segment over IPv4.
struct Segment {
    source: ([u8; 4], u16),
    destination: ([u8; 4], u16),
    seq: u32,
    ack: Option<u32>,
    len: usize,
    syn: bool,
    fin: bool,
    rst: bool,
    sack_offered: bool,
}

impl Segment {
    /// The segment of a sound packet.
    fn of(packet: &[u8]) -> Option<Self> {
        let (ip, tcp) = tcp_in(packet)?;
        Some(Self {
            source: (ip.src_addr().octets(), tcp.src_port()),
            destination: (ip.dst_addr().octets(), tcp.dst_port()),
            seq: tcp.seq_number().0 as u32,
            ack: tcp.ack().then(|| tcp.ack_number().0 as u32),
            len: tcp.payload().len(),
            syn: tcp.syn(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            sack_offered: tcp.selective_ack_permitted().unwrap_or(false),
        })
    }

    fn flow(local: ([u8; 4], u16), remote: ([u8; 4], u16)) -> FlowKey {
        FlowKey { local: local.0.into(), remote: remote.0.into(), local_port: local.1, remote_port: remote.1 }
    }

    /// Its connection, as its sender names it.
    fn of_sender(&self) -> FlowKey {
        Self::flow(self.source, self.destination)
    }

    /// Its connection, as its receiver names it.
    fn of_receiver(&self) -> FlowKey {
        Self::flow(self.destination, self.source)
    }
}

/// Where the TCP header of a packet that [`Segment::of`] has read begins.
fn tcp_at(packet: &[u8]) -> usize {
    ETHERNET + usize::from(packet.get(ETHERNET).copied().unwrap_or(0x45) & 0x0f) * 4
}

/// Changes the TCP header, and puts both checksums right.
fn edit(packet: &mut [u8], change: impl FnOnce(&mut TcpPacket<&mut [u8]>)) {
    let at = tcp_at(packet);
    let Some((head, tcp)) = packet.split_at_mut_checked(at) else { return };
    let Some(ip) = head.get_mut(ETHERNET..) else { return };
    // The length counts the whole packet; what comes after it is the link's padding.
    let mut ip = Ipv4Packet::new_unchecked(ip);
    let len = usize::from(ip.total_len()).saturating_sub(at - ETHERNET);
    ip.fill_checksum();
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    let Some(tcp) = tcp.get_mut(..len) else { return };
    let mut tcp = TcpPacket::new_unchecked(tcp);
    change(&mut tcp);
    tcp.fill_checksum(&from.into(), &to.into());
}

/// Visits each option of the packet's TCP header, as kind and bytes with kind and length.
fn for_each_option(packet: &mut [u8], mut each: impl FnMut(u8, &mut [u8])) {
    edit(packet, |tcp| {
        let mut rest = tcp.options_mut();
        while let Some(&kind) = rest.first() {
            let len = match kind {
                0 => return,
                NOP => 1,
                _ => usize::from(rest.get(1).copied().unwrap_or(0)).max(2),
            };
            let Some((option, after)) = rest.split_at_mut_checked(len) else { return };
            each(kind, option);
            rest = after;
        }
    });
}

fn set_mss(packet: &mut [u8], mss: u16) {
    for_each_option(packet, |kind, option| {
        if let (2, [_, _, value @ ..]) = (kind, option)
            && value.len() == 2
        {
            value.copy_from_slice(&mss.to_be_bytes());
        }
    });
}

/// Adds to the DATA_ACK of a DSS (RFC 8684 §3.3).
fn data_ack_ahead(packet: &mut [u8], ahead: u32) {
    for_each_option(packet, |kind, option| {
        if kind != MPTCP {
            return;
        }
        let [_, _, subtype, flags, rest @ ..] = option else { return };
        if *subtype >> 4 != 2 || *flags & 1 == 0 {
            return;
        }
        let len = if *flags & 2 == 0 { 4 } else { 8 };
        let Some(field) = rest.get_mut(..len) else { return };
        let number = field.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
        let bytes = number.wrapping_add(u64::from(ahead)).to_be_bytes();
        field.copy_from_slice(&bytes[8 - len..]);
    });
}

/// A copy of the packet with other contents from the TCP header's `keep` bytes on.
fn rebuilt(packet: &[u8], keep: usize, rest: &[u8], packets: &mut Packets) -> Packet {
    let at = tcp_at(packet);
    let mut copy = packets.copy_of(packet.get(..at + keep).unwrap_or(packet));
    copy.extend_from_slice(rest);
    let total = (copy.len() - ETHERNET) as u16;
    copy[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&total.to_be_bytes());
    copy
}

/// Sends each byte of the packet's payload as a segment of its own, with the options of the whole.
fn split(packet: &[u8], port: u8, out: &mut Outbox) {
    let Some(segment) = Segment::of(packet) else { return };
    let at = tcp_at(packet);
    let header = usize::from(packet[at + 12] >> 4) * 4;
    let payload = &packet[at + header..at + header + segment.len];
    for (index, byte) in payload.iter().enumerate() {
        let mut copy = rebuilt(packet, header, &[*byte], &mut out.packets);
        let last = index + 1 == payload.len();
        edit(&mut copy, |tcp| {
            tcp.set_seq_number(TcpSeqNumber(segment.seq.wrapping_add(index as u32) as i32));
            tcp.set_fin(segment.fin && last);
        });
        out.queue.push((port, copy));
    }
}

/// The acknowledgment once more, with this SACK block instead of any that it has; `None` when there is no room.
fn with_block(said: &[u8], start: u32, end: u32, packets: &mut Packets) -> Option<Packet> {
    let mut options = Vec::new();
    let mut copy = packets.copy_of(said);
    for_each_option(&mut copy, |kind, option| {
        if kind != NOP && kind != SACK {
            options.extend_from_slice(option);
        }
    });
    packets.recycle(copy);
    options.extend_from_slice(&[SACK, 10]);
    options.extend_from_slice(&start.to_be_bytes());
    options.extend_from_slice(&end.to_be_bytes());
    options.resize(options.len().next_multiple_of(4), NOP);
    if options.len() > 40 {
        return None;
    }
    let mut packet = rebuilt(said, 20, &options, packets);
    edit(&mut packet, |tcp| tcp.set_header_len((20 + options.len()) as u8));
    Some(packet)
}

/// A reset on the connection of `packet`, in its direction.
fn reset_like(packet: &[u8], seq: u32, packets: &mut Packets) -> Packet {
    let mut reset = rebuilt(packet, 20, &[], packets);
    edit(&mut reset, |tcp| {
        tcp.set_header_len(20);
        tcp.clear_flags();
        tcp.set_rst(true);
        tcp.set_ack(true);
        tcp.set_seq_number(TcpSeqNumber(seq as i32));
    });
    reset
}

#[cfg(test)]
mod tests;
