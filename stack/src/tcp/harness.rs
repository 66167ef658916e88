//! Two connections back to back over a link with loss, reordering, duplication and delay, by way of real packets.

use std::net::IpAddr;

use super::*;
use crate::counters::Counters;
use crate::env::{Env, Rng};
use crate::frame::{FramePool, PoolConfig};
use crate::mem::Region;
use crate::ring::RingPool;
use crate::segment::{RxQueue, RxSegment, TxFlags, TxSegment};
use crate::seq::SeqNum;
use crate::time::{Duration, Instant};
use crate::wire::{self, FlowKey, HeaderTemplate, LinkHeader, Parsed, TcpFlags, Verify};

/// What the link does to a packet, in thousandths, and how long it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub loss: u64,
    pub duplicate: u64,
    pub reorder: u64,
    pub delay: Duration,
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
        while self.to_write > 0 && self.with(|conn, _| conn.queued_frames()) < 256 {
            let Some(frame) = self.pool.alloc() else { return };
            let len = u64::from(self.chunk).min(self.to_write) as u16;
            let bytes = &mut self.pool.bytes_mut(&frame)[300..300 + usize::from(len)];
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = pattern(self.written + at as u64);
            }
            let sum = crate::checksum::sum(bytes);
            self.written += u64::from(len);
            self.to_write -= u64::from(len);
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
            if self.to_write == 0 {
                self.with(|conn, _| conn.shutdown());
            }
        }
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
}

impl Pair {
    /// A client that has sent nothing yet, and the server that answers it, both with MSS `mss`.
    pub(super) fn new(seed: u64, link: Link, offers: [Offer; 2], chunk: u16) -> Self {
        let now = Instant::from_millis(5_000);
        let flow = FlowKey {
            local: IpAddr::from([192, 0, 2, 1]),
            remote: IpAddr::from([192, 0, 2, 2]),
            local_port: 1000,
            remote_port: 80,
        };
        let iss = SeqNum(0_u32.wrapping_sub((seed as u32 % 7) * 3_000));
        let config = TcpConfig::default();
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
        Self { now, ends: [client, server], link, rng: Rng::from_u64(seed), flying: Vec::new(), count: 0, seed }
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

    fn launch(&mut self, from: usize, packet: Vec<u8>) {
        let dice = |rng: &mut Rng, chance: u64| rng.below(1000) < chance;
        let copies = 1 + usize::from(dice(&mut self.rng, self.link.duplicate));
        for _ in 0..copies {
            if dice(&mut self.rng, self.link.loss) {
                continue;
            }
            let mut due = self.now + self.link.delay;
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
