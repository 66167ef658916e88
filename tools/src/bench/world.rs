//! A shard between two memory ports, and the synthetic ends that keep it at work.
//!
//! The ends are light: fixed layouts, no queues, no timers, an acknowledgment for every second segment and for the last of
//! a round. The clock is the ends' own and moves on by a fixed step each turn, so that a run does the same work whatever
//! the machine. Only the turns of the worker's loop are timed: what the ends cost stays outside.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::Context as _;
use mimbox_converter::Shard;
use mimbox_converter::config::Config;
use mimbox_dataplane::{Engine, ManualClock, Port, Worker, WorkerConfig};
use mimbox_stack::limits::RX_HEADROOM;
use mimbox_stack::{Counter, PortId, RxFrame};

use super::packet::{self, ACK, FIN, Link, SYN, Says, Seen};
use super::ports::{RingPort, Rings};
use super::stopwatch::Stopwatch;
use super::talk::{self, LINES, Line, Talk, WINDOW};
use crate::engine;

/// Packets that an end sends before the box has a turn: a worker's batch.
pub(super) const BATCH: usize = 64;
/// Segments of one visit when there are many conversations: what one acknowledgment covers.
pub(super) const VISIT: usize = 2;
/// Time between two turns: about a microsecond for each segment.
const STEP: mimbox_stack::Duration = mimbox_stack::Duration::from_micros(64);

/// The two ends of the box.
pub(super) const CLIENTS: usize = 0;
pub(super) const SERVERS: usize = 1;
const BOX_MACS: [[u8; 6]; 2] = [[2, 0x4d, 0x42, 0, 0, 0], [2, 0x4d, 0x42, 0, 0, 1]];
const END_MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// Which way payload goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Direction {
    /// From the MPTCP client to the TCP server.
    Upload,
    /// From the TCP server to the MPTCP client.
    Download,
}

/// In which order segments reach the box.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Order {
    /// As they were sent.
    #[serde(rename = "in-order")]
    Straight,
    /// One in a hundred late.
    Reordered,
    /// In order; one in a hundred of the box's own segments is lost behind it.
    Lossy,
}

/// What a world is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Shape {
    /// Live conversions.
    pub(super) conversions: u32,
    /// Subflows of each.
    pub(super) subflows: u8,
    /// Whether DSS checksums are agreed on.
    pub(super) checksum: bool,
}

/// How a round of data looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Load {
    /// Payload of each segment.
    pub(super) segment_bytes: u16,
    /// Which way.
    pub(super) direction: Direction,
    /// In which order.
    pub(super) order: Order,
}

/// Calls the loop once where callgrind looks: it counts between entry and return of this function.
#[inline(never)]
pub(super) fn measured_turn<E: Engine>(worker: &mut Worker<E, ManualClock>) -> bool {
    std::hint::black_box(worker.turn())
}

/// The box and both ends.
pub(super) struct World {
    pub(super) worker: Worker<Shard, ManualClock>,
    clock: ManualClock,
    rings: [Rc<RefCell<Rings>>; 2],
    pub(super) talks: Vec<Talk>,
    pub(super) shape: Shape,
    pub(super) payload: Rc<[u8]>,
    pub(super) payload_sum: u16,
    box_scale: u8,
    random: u64,
    /// Ends that have something to acknowledge: conversation, subflow, end.
    owing: Vec<(u32, usize, usize)>,
    pub(super) lossy: bool,
    pub(super) measured: bool,
    /// How often the program has allocated, where anybody counts that; and how often while a turn was measured.
    pub(super) probe: fn() -> u64,
    pub(super) allocated: u64,
    pub(super) watch: Stopwatch,
    pub(super) delivered: u64,
    pub(super) opened: u32,
    pub(super) over: u32,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// A box with a port for clients and one for servers, for `conversions` conversions.
pub(super) fn configuration(shape: Shape) -> anyhow::Result<Config> {
    let text = format!(
        r#"
[[port]]
name      = "clients"
interface = "bench0"
backend   = "memory"
addresses = ["192.0.2.1/24"]

[[port]]
name      = "servers"
interface = "bench1"
backend   = "memory"
addresses = ["198.51.100.2/24"]

[[route]]
prefix = "0.0.0.0/0"
via    = "198.51.100.1"
port   = "servers"

[explicit]
ports   = ["clients"]
dst_opt = {{ exid = 0x4d42 }}

[mptcp]
checksum = {}

[limits]
conversions = {}
frames      = 16384
time_wait   = 65536
# A batch fits the window at any time: what is measured waits for no window update.
window_floor = 256
"#,
        shape.checksum,
        shape.conversions + 64
    );
    Config::parse(&text, "bench.toml").context("the bench's own configuration is wrong")
}

impl World {
    /// A world whose conversations are all to be opened yet.
    ///
    /// # Errors
    /// When the frames cannot be mapped.
    pub(super) fn new(shape: Shape) -> anyhow::Result<Self> {
        let shard = engine::shard(&configuration(shape)?, 1)?;
        let clock = ManualClock::new(mimbox_stack::Instant::from_millis(1_000));
        let (clients, client_rings) = RingPort::new(PortId(0), BOX_MACS[CLIENTS]);
        let (servers, server_rings) = RingPort::new(PortId(1), BOX_MACS[SERVERS]);
        let ports: Vec<Box<dyn Port>> = vec![Box::new(clients), Box::new(servers)];
        let mut worker = Worker::new(shard, ports, clock.clone(), WorkerConfig::default())?;
        // The ports fill their rings.
        worker.turn();
        Ok(Self {
            worker,
            clock,
            rings: [client_rings, server_rings],
            talks: vec![Talk::default(); shape.conversions as usize],
            shape,
            payload: Rc::from([]),
            payload_sum: 0,
            box_scale: 0,
            random: 0x2545_f491_4f6c_dd1d,
            owing: Vec::with_capacity(BATCH * 4),
            lossy: false,
            measured: false,
            probe: || 0,
            allocated: 0,
            watch: Stopwatch::default(),
            delivered: 0,
            opened: 0,
            over: 0,
        })
    }

    pub(super) fn counter(&mut self, counter: Counter) -> u64 {
        self.worker.engine().counters().get(counter)
    }

    /// What the box counted, for a complaint.
    pub(super) fn counted(&mut self) -> String {
        let counters = self.worker.engine().counters();
        let told = counters.iter().filter(|&(_, value)| value > 0);
        told.map(|(counter, value)| format!("{} {value}", counter.name())).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn now_ms(&self) -> u32 {
        use mimbox_dataplane::Clock as _;
        self.clock.now().as_millis() as u32
    }

    pub(super) fn random(&mut self, below: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (((self.random >> 32) * u64::from(below)) >> 32) as u32
    }

    /// One turn of the box, then all that it sent is read.
    pub(super) fn turn(&mut self) {
        self.clock.advance(STEP);
        let Self { worker, watch, measured, probe, .. } = self;
        let mut allocated = 0;
        watch.time(|| {
            let before = probe();
            if *measured {
                measured_turn(worker)
            } else {
                worker.turn()
            };
            allocated = probe() - before;
        });
        if self.measured {
            self.allocated += allocated;
        }
        for end in [CLIENTS, SERVERS] {
            loop {
                let Some(sent) = self.rings[end].borrow_mut().sent.pop_front() else { break };
                let mut head = [0u8; 128];
                let start = usize::from(sent.offset);
                let bytes = self.worker.engine().pool().bytes(&sent.frame);
                let len = usize::from(sent.len).min(head.len());
                head[..len].copy_from_slice(&bytes[start..start + len]);
                self.rings[end].borrow_mut().complete(sent.frame);
                self.read(end, &head[..len]);
            }
        }
        self.acknowledge();
    }

    /// Sends the packet that `write` makes; false when the port has no frame ready.
    fn send(&mut self, end: usize, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let Some(frame) = self.rings[end].borrow_mut().take_frame() else { return false };
        let len = write(&mut self.worker.engine().pool().bytes_mut(&frame)[RX_HEADROOM..]) as u16;
        let port = PortId(end as u8);
        self.rings[end].borrow_mut().arrived.push_back(RxFrame { port, frame, offset: RX_HEADROOM as u16, len });
        true
    }

    pub(super) fn say(&mut self, end: usize, says: &Says<'_>) -> bool {
        let link = Link { to: BOX_MACS[end], from: END_MACS[end] };
        self.send(end, |bytes| packet::write(bytes, link, says))
    }

    fn read(&mut self, end: usize, bytes: &[u8]) {
        let Some(seen) = packet::read(bytes) else {
            let mut answer = [0; 42];
            if packet::arp_reply(&mut answer, bytes, END_MACS[end]).is_some() {
                self.send(end, |to| {
                    to[..42].copy_from_slice(&answer);
                    42
                });
            }
            return;
        };
        if end == CLIENTS { self.client_reads(bytes, &seen) } else { self.server_reads(bytes, &seen) }
    }

    fn client_reads(&mut self, bytes: &[u8], seen: &Seen) {
        let Some((index, line)) = talk::client_of(seen) else { return };
        let scale = self.box_scale;
        let Some(talk) = self.talks.get_mut(index as usize) else { return };
        if talk::is_syn_ack(seen) {
            talk.client[line].rcv = seen.seq.wrapping_add(1);
            talk.client[line].seq = seen.ack;
            talk.client[line].open = line == 0;
            let Some(upper) = talk::third_ack(index, line, talk, bytes, seen) else { return };
            self.client_says(index, line, &upper, ACK, 0);
            return;
        }
        talk.hear(bytes, seen, scale);
        let this = &mut talk.client[line];
        if !this.open {
            // The fourth ACK of a join.
            this.open = true;
            self.opened += 1;
        }
        if seen.payload > 0 {
            if self.lossy && this.beyond.is_none() && seen.seq == this.rcv && self.drop_this() {
                return;
            }
            let talk = &mut self.talks[index as usize];
            let in_order = talk.client[line].take(seen.seq, seen.payload);
            talk.data_rcv += u64::from(in_order);
            self.delivered += 1;
            self.owe(index, line, CLIENTS);
        }
        self.client_ends(index, line, seen);
    }

    fn drop_this(&mut self) -> bool {
        self.random(100) == 0
    }

    /// What a client does about the end of the connection.
    fn client_ends(&mut self, index: u32, line: usize, seen: &Seen) {
        let talk = &mut self.talks[index as usize];
        let mut answer = false;
        if talk::is_fin(seen) && !talk.client[line].ended {
            talk.client[line].ended = true;
            talk.client[line].rcv = seen.seq.wrapping_add(seen.payload).wrapping_add(1);
            answer = true;
        }
        if !talk.data_ended {
            return;
        }
        let lines: Vec<usize> = (0..LINES).filter(|&l| talk.client[l].open && !talk.client[l].finished).collect();
        for &l in &lines {
            self.client_says(index, l, talk::dss(self.talks[index as usize].data_rcv, None).as_slice(), ACK | FIN, 0);
            let this = &mut self.talks[index as usize].client[l];
            this.finished = true;
            this.seq = this.seq.wrapping_add(1);
        }
        if answer && lines.is_empty() {
            let dss = talk::dss(self.talks[index as usize].data_rcv, None);
            self.client_says(index, line, dss.as_slice(), ACK, 0);
        }
        self.note_over(index);
    }

    fn server_reads(&mut self, bytes: &[u8], seen: &Seen) {
        let Some(index) = talk::server_of(seen) else { return };
        let now_ms = self.now_ms();
        let Some(talk) = self.talks.get_mut(index as usize) else { return };
        if seen.flags & SYN != 0 {
            talk.source = seen.src;
            talk.server = Line { rcv: seen.seq.wrapping_add(1), ..Line::starting(index ^ 0x7777_0000) };
            if self.box_scale == 0 {
                self.box_scale = scale_of(bytes, seen).unwrap_or(0);
            }
            let says = Says {
                src: seen.dst,
                dst: seen.src,
                seq: talk.server.seq,
                ack: talk.server.rcv,
                flags: SYN | ACK,
                window: WINDOW,
                options: &talk::server_syn(now_ms),
                payload: (&[], 0),
            };
            self.say(SERVERS, &says);
            return;
        }
        if !talk.server.open && !talk.server.ended {
            talk.server.open = true;
            talk.server.seq = seen.ack;
            talk.server_edge = seen.ack;
            self.opened += 1;
        }
        let talk = &mut self.talks[index as usize];
        let edge = seen.ack.wrapping_add(u32::from(seen.window) << self.box_scale);
        if edge.wrapping_sub(talk.server_edge) as i32 > 0 {
            talk.server_edge = edge;
        }
        if seen.payload > 0 {
            if self.lossy && talk.server.beyond.is_none() && seen.seq == talk.server.rcv && self.drop_this() {
                return;
            }
            let talk = &mut self.talks[index as usize];
            talk.server.take(seen.seq, seen.payload);
            self.delivered += 1;
            self.owe(index, 0, SERVERS);
        }
        let talk = &mut self.talks[index as usize];
        if talk::is_fin(seen) && !talk.server.ended {
            talk.server.ended = true;
            talk.server.rcv = seen.seq.wrapping_add(seen.payload).wrapping_add(1);
            self.server_says(index, ACK | FIN, WINDOW, 0);
            let server = &mut self.talks[index as usize].server;
            server.finished = true;
            server.seq = server.seq.wrapping_add(1);
            self.note_over(index);
        }
    }

    fn note_over(&mut self, index: u32) {
        let talk = &mut self.talks[index as usize];
        if talk.is_over() && talk.client[0].open {
            talk.client[0].open = false;
            self.over += 1;
        }
    }

    /// Remembers that an acknowledgment is due; the second segment gets it at once.
    fn owe(&mut self, index: u32, line: usize, end: usize) {
        let talk = &self.talks[index as usize];
        let this = if end == CLIENTS { &talk.client[line] } else { &talk.server };
        // RFC 5681 §4.2: at once for what is beyond a hole.
        if this.unacked >= VISIT as u8 || this.beyond.is_some() {
            self.pay(index, line, end);
        } else {
            self.owing.push((index, line, end));
        }
    }

    fn pay(&mut self, index: u32, line: usize, end: usize) {
        let talk = &mut self.talks[index as usize];
        let this = if end == CLIENTS { &mut talk.client[line] } else { &mut talk.server };
        if this.unacked == 0 {
            return;
        }
        this.unacked = 0;
        if end == CLIENTS {
            let dss = talk::dss(talk.data_rcv, None);
            self.client_says(index, line, dss.as_slice(), ACK, 0);
        } else {
            self.server_says(index, ACK, WINDOW, 0);
        }
    }

    fn acknowledge(&mut self) {
        let mut owing = std::mem::take(&mut self.owing);
        for (index, line, end) in owing.drain(..) {
            self.pay(index, line, end);
        }
        self.owing = owing;
    }

    pub(super) fn client_says(&mut self, index: u32, line: usize, upper: &[u8], flags: u8, payload: usize) -> bool {
        let mut options = [1; 40];
        options[..12].copy_from_slice(&packet::timestamps(self.now_ms()));
        options[12..12 + upper.len()].copy_from_slice(upper);
        let this = self.talks[index as usize].client[line];
        let mut len = 12 + upper.len().next_multiple_of(4);
        if let Some((start, end)) = this.beyond.filter(|_| len + 12 <= 40) {
            options[len..len + 4].copy_from_slice(&[1, 1, 5, 10]);
            options[len + 4..len + 8].copy_from_slice(&start.to_be_bytes());
            options[len + 8..len + 12].copy_from_slice(&end.to_be_bytes());
            len += 12;
        }
        let bytes = self.payload.clone();
        let sum = if payload > 0 { self.payload_sum } else { 0 };
        let says = Says {
            src: talk::client_address(index, line),
            dst: talk::box_address(),
            seq: this.seq,
            ack: this.rcv,
            flags,
            window: WINDOW,
            options: &options[..len],
            payload: (&bytes[..payload], sum),
        };
        self.say(CLIENTS, &says)
    }

    pub(super) fn server_says(&mut self, index: u32, flags: u8, window: u16, payload: usize) -> bool {
        let talk = &self.talks[index as usize];
        let mut options = [1; 24];
        options[..12].copy_from_slice(&packet::timestamps(self.now_ms()));
        let mut len = 12;
        if let Some((start, end)) = talk.server.beyond {
            options[12..16].copy_from_slice(&[1, 1, 5, 10]);
            options[16..20].copy_from_slice(&start.to_be_bytes());
            options[20..24].copy_from_slice(&end.to_be_bytes());
            len = 24;
        }
        let (src, dst) = (talk::server_address(index), talk.source);
        let (seq, ack) = (talk.server.seq, talk.server.rcv);
        let bytes = self.payload.clone();
        let sum = if payload > 0 { self.payload_sum } else { 0 };
        let says =
            Says { src, dst, seq, ack, flags, window, options: &options[..len], payload: (&bytes[..payload], sum) };
        self.say(SERVERS, &says)
    }
}

/// The shift in the window scale option of a SYN.
fn scale_of(bytes: &[u8], seen: &Seen) -> Option<u8> {
    let options = bytes.get(packet::OPTIONS..packet::OPTIONS + seen.options)?;
    let at = options.windows(3).position(|three| three[0] == 3 && three[1] == 3)?;
    options.get(at + 2).copied()
}
