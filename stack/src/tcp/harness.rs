//! Two connections back to back over a link with loss, reordering, duplication and delay, by way of real packets
//! ([`Pair`]), and one connection whose peer is the test ([`Solo`]).

use std::net::IpAddr;

use super::*;
use crate::counters::Counters;
use crate::env::{Env, Rng};
use crate::frame::{FramePool, PoolConfig};
use crate::mem::Region;
use crate::options::{SackBlock, SynOptions, TcpOptions, Timestamps};
use crate::ring::RingPool;
use crate::segment::{RxQueue, RxSegment, TxFlags, TxSegment};
use crate::seq::SeqNum;
use crate::time::{Duration, Instant};
use crate::wire::{self, Ecn, FlowKey, HeaderTemplate, LinkHeader, Parsed, SegmentIn, TcpFlags, Verify};

/// What the link does to a packet, in thousandths, and how long it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub loss: u64,
    pub duplicate: u64,
    pub reorder: u64,
    pub delay: Duration,
    /// Bytes a second each way; zero for no limit.
    pub rate: u64,
    /// How long a packet may wait for the link before it is dropped.
    pub queue: Duration,
    /// Largest IP packet that passes; larger ones vanish without a word.
    pub mtu: usize,
}

impl Link {
    /// A link that does nothing but take its time.
    pub(super) const fn clean(delay: Duration) -> Self {
        Self { loss: 0, duplicate: 0, reorder: 0, delay, rate: 0, queue: Duration::MAX, mtu: usize::MAX }
    }
}

/// One end: a host that writes a pattern and checks what it reads.
pub(super) struct End {
    pub pool: FramePool,
    rx_rings: RingPool<RxSegment>,
    tx_rings: RingPool<TxSegment>,
    pub counters: Counters,
    rng: Rng,
    pub conns: ConnTable,
    pub id: ConnId,
    template: HeaderTemplate,
    /// Bytes still to write, and written so far.
    pub to_write: u64,
    written: u64,
    pub read: u64,
    pub fin: bool,
    pub outcome: Outcome,
    chunk: u16,
    /// Bytes that it takes beyond those it has read; `None` for plenty.
    pub space: u32,
}

fn pattern(at: u64) -> u8 {
    (at.wrapping_mul(31).wrapping_add(at >> 8)) as u8
}

impl End {
    fn new(now: Instant, flow: FlowKey, opening: Opening, config: TcpConfig, seed: u64, chunk: u16) -> Self {
        let pool = FramePool::new(Region::map(2048, 2048).expect("memory"), PoolConfig { rx_reserve: 64 });
        let conns = ConnTable::with_capacity(4);
        let id = ConnId::default_for_tests();
        let (rx_rings, tx_rings) = (RingPool::default(), RingPool::default());
        let template = HeaderTemplate::new(&flow, 64);
        let mut end = Self {
            pool,
            rx_rings,
            tx_rings,
            counters: Counters::default(),
            rng: Rng::from_u64(seed),
            conns,
            id,
            template,
            to_write: 0,
            written: 0,
            read: 0,
            fin: false,
            outcome: Outcome::empty(),
            chunk,
            space: 512 * 1024,
        };
        let setup = ConnSetup { owner: 0, flow, opening, config };
        let Self { pool, rx_rings, tx_rings, counters, rng, conns, .. } = &mut end;
        let mut env = Env { pool, rx_rings, tx_rings, counters, rng };
        end.id = conns.insert(now, setup, &mut env).expect("room");
        end
    }

    pub(super) fn with<R>(&mut self, act: impl FnOnce(&mut Conn<'_>, &mut Env<'_>) -> R) -> R {
        let Self { pool, rx_rings, tx_rings, counters, rng, conns, id, .. } = self;
        let mut env = Env { pool, rx_rings, tx_rings, counters, rng };
        act(&mut conns.get(*id).expect("the connection lives"), &mut env)
    }

    fn write(&mut self) {
        while self.to_write > 0 && self.with(|conn, _| conn.queued_frames()) < 256 && self.pool.available() > 0 {
            let len = u64::from(self.chunk).min(self.to_write) as u16;
            self.to_write -= u64::from(len);
            self.push_pattern(len);
            if self.to_write == 0 {
                self.with(|conn, _| conn.shutdown());
            }
        }
    }

    pub(super) fn push_pattern(&mut self, len: u16) {
        let frame = self.pool.alloc().expect("a frame");
        let bytes = &mut self.pool.bytes_mut(&frame)[300..300 + usize::from(len)];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = pattern(self.written + at as u64);
        }
        let sum = crate::checksum::sum(bytes);
        self.written += u64::from(len);
        let segment = TxSegment {
            dsn: 0,
            frame,
            seq: SeqNum(0),
            sent_us: 0,
            offset: 300,
            len,
            sum,
            flags: TxFlags::empty(),
            retransmits: 0,
        };
        self.with(|conn, env| conn.push(segment, env));
    }

    pub(super) fn receive(&mut self, now: Instant, packet: &[u8]) {
        let frame = self.pool.alloc_control().expect("a frame");
        self.pool.bytes_mut(&frame)[256..256 + packet.len()].copy_from_slice(packet);
        let parsed = wire::parse(packet, 256, Verify::All).expect("a sound packet");
        let Parsed::Tcp(_, segment) = parsed else { panic!("not TCP") };
        let frame = if segment.payload_len > 0 {
            Some(frame)
        } else {
            self.pool.release(frame);
            None
        };
        let mut out = RxQueue::new();
        let outcome = self.with(|conn, env| conn.on_segment(now, &segment, frame, &mut out, env));
        self.outcome |= outcome;
        self.fin |= outcome.contains(Outcome::FIN);
        self.read_all(out);
    }

    fn read_all(&mut self, out: RxQueue) {
        for rx in out {
            let start = usize::from(rx.offset);
            let bytes = &self.pool.bytes(&rx.frame)[start..start + usize::from(rx.len)];
            assert_eq!(rx.sum, crate::checksum::sum(bytes), "the cached sum is the payload's");
            for &byte in bytes {
                assert_eq!(byte, pattern(self.read), "byte {} differs", self.read);
                self.read += 1;
            }
            self.pool.release(rx.frame);
        }
    }

    pub(super) fn transmit(&mut self, now: Instant, mut send: impl FnMut(Vec<u8>)) {
        self.write();
        let space = self.space;
        if self.with(|conn, _| conn.state()).is_synchronized() {
            self.with(|conn, _| conn.set_receive_space(space));
        }
        while let Some(out) = self.with(|conn, env| conn.poll_transmit(now, env)) {
            let link = LinkHeader::default();
            let emitted = wire::emit_tcp(&mut self.pool, &link, &self.template, out, 0, &mut self.counters);
            if let Some((frame, offset, len)) = emitted {
                let start = usize::from(offset);
                send(self.pool.bytes(&frame)[start..start + usize::from(len)].to_vec());
                self.pool.release(frame);
            }
        }
    }
}

/// A client and a server with a link between them.
pub(super) struct Pair {
    pub now: Instant,
    pub ends: [End; 2],
    pub link: Link,
    rng: Rng,
    flying: Vec<(Instant, u64, usize, Vec<u8>)>,
    count: u64,
    pub seed: u64,
    /// When each direction of the link is free again.
    free_at: [Instant; 2],
    /// The longest that a packet had to wait for the link.
    pub longest_wait: Duration,
}

impl Pair {
    /// A client that has sent nothing yet, and the server that answers it, both with MSS `mss`.
    pub(super) fn new(seed: u64, link: Link, offers: [Offer; 2], chunk: u16) -> Self {
        Self::with_config(seed, link, offers, chunk, TcpConfig::default())
    }

    pub(super) fn with_config(seed: u64, link: Link, offers: [Offer; 2], chunk: u16, config: TcpConfig) -> Self {
        let now = Instant::from_millis(5_000);
        let flow = FlowKey {
            local: IpAddr::from([192, 0, 2, 1]),
            remote: IpAddr::from([192, 0, 2, 2]),
            local_port: 1000,
            remote_port: 80,
        };
        let iss = SeqNum(0_u32.wrapping_sub((seed as u32 % 7) * 3_000));
        let client = End::new(now, flow, Opening::Connect { iss, offer: offers[0] }, config, seed, chunk);
        let syn_out = offers[0].syn(iss, now);
        let syn = SynSeen {
            seq: iss,
            window: syn_out.window,
            options: syn_out.syn.unwrap_or_default(),
            timestamps: syn_out.timestamps,
            flags: TcpFlags::SYN,
            data_taken: 0,
        };
        let opening = Opening::Accept { iss: SeqNum(77), syn, offer: offers[1] };
        let server = End::new(now, flow.reversed(), opening, config, seed + 1, chunk);
        Self {
            now,
            ends: [client, server],
            link,
            rng: Rng::from_u64(seed),
            flying: Vec::new(),
            count: 0,
            seed,
            free_at: [now; 2],
            longest_wait: Duration::ZERO,
        }
    }

    /// Two clients that send each other their SYNs at the same moment.
    pub(super) fn simultaneous(seed: u64, link: Link) -> Self {
        let mut pair = Self::new(seed, link, [Offer::default(); 2], 1_448);
        let flow = pair.ends[1].with(|conn, _| *conn.flow());
        let opening = Opening::Connect { iss: SeqNum(4_000_000), offer: Offer::default() };
        pair.ends[1] = End::new(pair.now, flow, opening, TcpConfig::default(), seed + 1, 1_448);
        pair
    }

    /// What end `side` wants sent now.
    pub(super) fn sent_by(&mut self, side: usize) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        self.ends[side].transmit(self.now, |packet| sent.push(packet));
        sent
    }

    /// Hands packets to end `side`.
    pub(super) fn deliver(&mut self, side: usize, packets: &[Vec<u8>]) {
        for packet in packets {
            self.ends[side].receive(self.now, packet);
        }
    }

    /// Lets time pass until end `side` has something due, and runs it.
    pub(super) fn run_timer(&mut self, side: usize) {
        let due = self.ends[side].with(|conn, _| conn.next_deadline()).expect("something is due");
        let now = self.now.max(due);
        self.now = now;
        let outcome = self.ends[side].with(|conn, env| conn.on_timer(now, env));
        self.ends[side].outcome |= outcome;
    }

    /// When a packet of `len` bytes has left for the other end; `None` when the queue is full.
    fn cross(&mut self, from: usize, len: usize) -> Option<Instant> {
        if self.link.rate == 0 {
            return Some(self.now);
        }
        let start = self.free_at[from].max(self.now);
        let wait = start.since(self.now);
        if wait > self.link.queue {
            return None;
        }
        self.longest_wait = self.longest_wait.max(wait);
        self.free_at[from] = start + Duration::from_nanos(len as u64 * 1_000_000_000 / self.link.rate);
        Some(self.free_at[from])
    }

    fn launch(&mut self, from: usize, packet: Vec<u8>) {
        if packet.len() > self.link.mtu.saturating_add(14) {
            return;
        }
        let dice = |rng: &mut Rng, chance: u64| rng.below(1000) < chance;
        let copies = 1 + usize::from(dice(&mut self.rng, self.link.duplicate));
        for _ in 0..copies {
            if dice(&mut self.rng, self.link.loss) {
                continue;
            }
            let Some(left) = self.cross(from, packet.len()) else { continue };
            let mut due = left + self.link.delay;
            if dice(&mut self.rng, self.link.reorder) {
                due += Duration::from_micros(self.rng.below(5_000));
            }
            self.count += 1;
            self.flying.push((due, self.count, 1 - from, packet.clone()));
        }
    }

    /// Lets time run until `done`, at most `limit`; false when time was up or nothing more would happen.
    pub(super) fn run(&mut self, limit: Duration, done: impl Fn(&[End; 2]) -> bool) -> bool {
        let end = self.now + limit;
        while self.now <= end {
            for side in 0..2 {
                let mut sent = Vec::new();
                self.ends[side].transmit(self.now, |packet| sent.push(packet));
                for packet in sent {
                    self.launch(side, packet);
                }
            }
            if done(&self.ends) {
                return true;
            }
            let arrival = self.flying.iter().map(|f| f.0).min();
            let timer = (0..2).filter_map(|side| self.ends[side].with(|conn, _| conn.next_deadline())).min();
            let Some(next) = arrival.into_iter().chain(timer).min() else { return false };
            self.now = self.now.max(next);
            self.flying.sort_by_key(|f| (f.0, f.1));
            let due = self.flying.iter().take_while(|f| f.0 <= self.now).count();
            for (_, _, to, packet) in self.flying.drain(..due).collect::<Vec<_>>() {
                self.ends[to].receive(self.now, &packet);
            }
            for side in 0..2 {
                let now = self.now;
                let outcome = self.ends[side].with(|conn, env| {
                    if conn.next_deadline().is_some_and(|at| at <= now) {
                        conn.on_timer(now, env)
                    } else {
                        Outcome::empty()
                    }
                });
                self.ends[side].outcome |= outcome;
            }
        }
        false
    }

    /// Removes both connections and checks that no frame stayed behind.
    pub(super) fn audit(&mut self) {
        for end in &mut self.ends {
            end.with(|conn, env| conn.release(env));
            assert_eq!(end.pool.in_use(), 0, "seed {}: frames leaked", self.seed);
        }
    }
}

/// One established connection; the test plays its peer, segment by segment. Our first byte has sequence number
/// [`ISS`]` + 1`, the peer's [`IRS`]` + 1`, and tests count from there: offset 0 is the first byte of either side.
pub(super) struct Solo {
    pub now: Instant,
    pub end: End,
}

pub(super) const ISS: u32 = 1_000;
pub(super) const IRS: u32 = 500_000;
/// What a peer is assumed to be: everything on, a large window.
pub(super) const PEER: SynOptions = SynOptions { mss: Some(1_012), window_scale: Some(10), sack_permitted: true };
/// Payload of a full segment towards [`PEER`] with timestamps.
pub(super) const FULL: u32 = 1_000;

/// A segment that the connection sent, in the test's terms.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sent {
    /// Offset of the first byte and length.
    pub at: i64,
    pub len: u32,
    /// How much of the peer's data is acknowledged, by offset.
    pub ack: i64,
    pub flags: TcpFlags,
    pub window: u16,
    pub ecn: Ecn,
    pub retransmit: bool,
    /// SACK blocks by offset.
    pub sack: Vec<(i64, i64)>,
    pub ts: Option<Timestamps>,
}

/// A segment that the test sends as the peer.
#[derive(Clone, Debug)]
pub(super) struct Say {
    pub at: u32,
    pub len: u32,
    pub ack: u32,
    pub flags: TcpFlags,
    pub window: u16,
    pub ecn: Ecn,
    pub sack: Vec<(u32, u32)>,
    pub ts: Option<Timestamps>,
}

impl Say {
    /// An acknowledgment of our first `ack` bytes.
    pub(super) fn ack(ack: u32) -> Self {
        let flags = TcpFlags::ACK;
        Self { at: 0, len: 0, ack, flags, window: 0xffff, ecn: Ecn::NotEct, sack: Vec::new(), ts: None }
    }
    /// `len` bytes of data from offset `at`.
    pub(super) fn data(at: u32, len: u32) -> Self {
        Self { at, len, ..Self::ack(0) }
    }
    pub(super) fn sacking(mut self, blocks: &[(u32, u32)]) -> Self {
        self.sack = blocks.to_vec();
        self
    }
    pub(super) fn flag(mut self, flags: TcpFlags) -> Self {
        self.flags |= flags;
        self
    }
    pub(super) fn window(mut self, window: u16) -> Self {
        self.window = window;
        self
    }
    pub(super) fn echoing(mut self, value: u32, echo: u32) -> Self {
        self.ts = Some(Timestamps { value, echo });
        self
    }
}

impl Solo {
    /// A connection that offered everything to a peer with `options`, with timestamps or without.
    pub(super) fn new(config: TcpConfig, options: SynOptions, timestamps: bool) -> Self {
        Self::with_offer(config, Offer::default(), options, timestamps, TcpFlags::SYN | TcpFlags::ACK)
    }

    pub(super) fn with_offer(
        config: TcpConfig,
        offered: Offer,
        options: SynOptions,
        timestamps: bool,
        flags: TcpFlags,
    ) -> Self {
        let now = Instant::from_millis(10_000);
        let flow = FlowKey {
            local: IpAddr::from([192, 0, 2, 1]),
            remote: IpAddr::from([192, 0, 2, 2]),
            local_port: 1000,
            remote_port: 80,
        };
        // A round trip of 100 ms, as the echo says.
        let peer = SynSeen {
            seq: SeqNum(IRS),
            window: 0xffff,
            options,
            timestamps: timestamps.then_some(Timestamps { value: 1, echo: 9_900 }),
            flags,
            data_taken: 0,
        };
        let opening = Opening::Adopt { iss: SeqNum(ISS), peer, offered, hold: false };
        let mut solo = Self { now, end: End::new(now, flow, opening, config, 1, 1_000) };
        solo.poll();
        solo
    }

    /// A peer with everything, and the default configuration.
    pub(super) fn usual() -> Self {
        Self::new(TcpConfig::default(), PEER, true)
    }

    /// Queues `bytes`, in segments of at most `len`, and sends what may be sent.
    pub(super) fn write(&mut self, bytes: u32, len: u16) -> Vec<Sent> {
        let mut left = bytes;
        while left > 0 {
            let now = left.min(u32::from(len)) as u16;
            self.end.push_pattern(now);
            left -= u32::from(now);
        }
        self.poll()
    }

    /// What the connection sends now.
    pub(super) fn poll(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        let (now, space) = (self.now, self.end.space);
        if self.end.with(|conn, _| conn.state()).is_synchronized() {
            self.end.with(|conn, _| conn.set_receive_space(space));
        }
        while let Some(out) = self.end.with(|conn, env| conn.poll_transmit(now, env)) {
            let offset = |seq: SeqNum, from: u32| i64::from(seq.distance_from(SeqNum(from + 1)) as i32);
            sent.push(Sent {
                at: offset(out.seq, ISS),
                len: out.payload.as_ref().map_or(0, |payload| u32::from(payload.len)),
                ack: offset(out.ack, IRS),
                flags: out.flags,
                window: out.window,
                ecn: out.ecn,
                retransmit: out.retransmit,
                sack: out.sack.iter().map(|block| (offset(block.start, IRS), offset(block.end, IRS))).collect(),
                ts: out.timestamps,
            });
            if let Some(payload) = out.payload {
                let start = usize::from(payload.offset);
                let bytes = &self.end.pool.bytes(&payload.frame)[start..start + usize::from(payload.len)];
                assert_eq!(
                    crate::checksum::sub(crate::checksum::sum(bytes), payload.sum) % 0xffff,
                    0,
                    "the cached sum"
                );
                self.end.pool.release(payload.frame);
            }
            assert!(sent.len() < 100_000, "it never stops sending");
        }
        sent
    }

    /// Takes a segment of the peer's; what is sent for it.
    pub(super) fn say(&mut self, say: Say) -> Vec<Sent> {
        self.take(say);
        self.poll()
    }

    /// Takes a segment of the peer's, as one of a batch.
    pub(super) fn take(&mut self, say: Say) -> Outcome {
        let mut segment = self.segment(&say);
        let frame = (say.len > 0).then(|| {
            let frame = self.end.pool.alloc_control().expect("a frame");
            let bytes = &mut self.end.pool.bytes_mut(&frame)[400..400 + say.len as usize];
            for (byte, at) in bytes.iter_mut().zip(say.at..) {
                *byte = pattern(u64::from(at));
            }
            segment.payload_sum = crate::checksum::sum(bytes);
            frame
        });
        let (now, mut out) = (self.now, RxQueue::new());
        let outcome = self.end.with(|conn, env| conn.on_segment(now, &segment, frame, &mut out, env));
        self.end.outcome |= outcome;
        self.end.read_all(out);
        outcome
    }

    /// What the peer says, without its payload.
    pub(super) fn segment(&mut self, say: &Say) -> SegmentIn {
        let now_ms = self.now.as_millis() as u32;
        let current = self.end.with(|conn, _| conn.timestamps()).then_some(Timestamps { value: now_ms, echo: now_ms });
        let offset = |at: u32| SeqNum(ISS.wrapping_add(1).wrapping_add(at));
        let sack = say.sack.iter().map(|&(start, end)| SackBlock { start: offset(start), end: offset(end) }).collect();
        SegmentIn {
            flow: self.end.with(|conn, _| *conn.flow()),
            seq: SeqNum(IRS.wrapping_add(1).wrapping_add(say.at)),
            ack: offset(say.ack),
            flags: say.flags,
            window: say.window,
            ecn: say.ecn,
            options: TcpOptions { timestamps: say.ts.or(current), sack, ..TcpOptions::default() },
            payload_offset: 400,
            payload_len: say.len as u16,
            payload_sum: 0,
        }
    }

    /// Lets time pass, running what comes due; what is sent meanwhile.
    pub(super) fn wait(&mut self, span: Duration) -> Vec<Sent> {
        let end = self.now + span;
        let mut sent = Vec::new();
        for _ in 0..100_000 {
            let Some(due) = self.end.with(|conn, _| conn.next_deadline()).filter(|&due| due <= end) else { break };
            self.now = self.now.max(due);
            let now = self.now;
            let outcome = self.end.with(|conn, env| conn.on_timer(now, env));
            self.end.outcome |= outcome;
            sent.extend(self.poll());
        }
        self.now = end;
        sent
    }

    pub(super) fn count(&self, counter: crate::Counter) -> u64 {
        self.end.counters.get(counter)
    }

    pub(super) fn cwnd(&mut self) -> u32 {
        self.end.with(|conn, _| conn.cwnd())
    }

    /// Releases everything and checks that no frame stayed behind.
    pub(super) fn finish(mut self) {
        self.end.with(|conn, env| conn.release(env));
        assert_eq!(self.end.pool.in_use(), 0, "frames leaked");
    }
}

/// Offset and length of what was sent.
pub(super) fn spans(sent: &[Sent]) -> Vec<(i64, u32)> {
    sent.iter().map(|sent| (sent.at, sent.len)).collect()
}
