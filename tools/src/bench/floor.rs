//! The floor under the engine's cost: a bare forwarder over the same ports and frames. It parses, verifies the checksum,
//! looks nothing up, rewrites addresses and ports where they stand with the checksums brought up to date, and sends.

use std::cell::RefCell;
use std::rc::Rc;

use mimbox_dataplane::{Engine, ManualClock, Port, Worker, WorkerConfig};
use mimbox_stack::limits::RX_HEADROOM;
use mimbox_stack::mem::Region;
use mimbox_stack::wire::{self, IpInfo, Parsed, Verify};
use mimbox_stack::{Counters, FramePool, PoolConfig, PortId, RxFrame, TxFrame, checksum};

use super::packet::{self, ACK, Link, Says};
use super::ports::{RingPort, Rings};
use super::stopwatch::Stopwatch;
use super::talk::{self, Maps};
use super::world::{BATCH, Direction, VISIT, measured_turn};

/// Forwards from each port to the other.
#[derive(Debug)]
struct Forwarder {
    pool: FramePool,
    counters: Counters,
    waiting: Vec<TxFrame>,
    /// Where each direction goes: link, source and destination with ports.
    ways: [Way; 2],
}

#[derive(Clone, Copy, Debug)]
struct Way {
    link: [u8; 12],
    /// Both addresses and both ports, as they stand in the packet.
    names: [u8; 12],
}

impl Forwarder {
    /// Rewrites a verified packet; `None` for one that is no TCP.
    fn forward(&mut self, rx: RxFrame) {
        let start = usize::from(rx.offset);
        let bytes = &self.pool.bytes(&rx.frame)[start..start + usize::from(rx.len)];
        let Ok(Parsed::Tcp(info, _)) = wire::parse(bytes, rx.offset, Verify::All) else {
            return self.pool.release(rx.frame);
        };
        let way = self.ways[usize::from(rx.port.0)];
        rewrite(self.pool.bytes_mut(&rx.frame), &info, &way);
        self.pool.tx_begin(&rx.frame);
        let port = PortId(1 - rx.port.0);
        self.waiting.push(TxFrame { port, frame: rx.frame, offset: rx.offset, len: rx.len });
    }
}

fn rewrite(bytes: &mut [u8], info: &IpInfo, way: &Way) {
    let (start, ip, l4) = (usize::from(info.start), usize::from(info.ip_offset), usize::from(info.l4_offset));
    bytes[start..start + 12].copy_from_slice(&way.link);
    let old = checksum::sum(&bytes[ip + 12..ip + 20]);
    let new = checksum::sum(&way.names[..8]);
    let old_ports = checksum::sum(&bytes[l4..l4 + 4]);
    let new_ports = checksum::sum(&way.names[8..]);
    bytes[ip + 12..ip + 20].copy_from_slice(&way.names[..8]);
    bytes[l4..l4 + 4].copy_from_slice(&way.names[8..]);
    let mut update = |at: usize, old: u16, new: u16| {
        let check = checksum::update(u16::from_be_bytes([bytes[at], bytes[at + 1]]), old, new);
        bytes[at..at + 2].copy_from_slice(&check.to_be_bytes());
    };
    update(ip + 10, old, new);
    update(l4 + 16, checksum::add(old, old_ports), checksum::add(new, new_ports));
}

impl Engine for Forwarder {
    fn on_frames(&mut self, _now: mimbox_stack::Instant, batch: &mut Vec<RxFrame>) {
        for rx in batch.iter() {
            self.pool.prefetch(&rx.frame, usize::from(rx.offset));
        }
        for rx in batch.drain(..) {
            self.forward(rx);
        }
        // Taken from the end one by one, so the first comes last.
        self.waiting.reverse();
    }

    fn on_timer(&mut self, _now: mimbox_stack::Instant) {}

    fn poll_transmit(&mut self, _now: mimbox_stack::Instant) -> Option<TxFrame> {
        self.waiting.pop()
    }

    fn next_deadline(&self) -> Option<mimbox_stack::Instant> {
        None
    }

    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

/// The forwarder with what it forwards.
pub(super) struct Floor {
    worker: Worker<Forwarder, ManualClock>,
    rings: [Rc<RefCell<Rings>>; 2],
    data: Vec<u8>,
    ack: Vec<u8>,
    data_end: usize,
}

impl Floor {
    pub(super) fn new(segment_bytes: u16, direction: Direction) -> anyhow::Result<Self> {
        let pool = FramePool::new(Region::map(16_384, 2048)?, PoolConfig { rx_reserve: 64 });
        let macs: [[u8; 6]; 2] = [[2, 0x4d, 0x42, 0, 0, 0], [2, 0x4d, 0x42, 0, 0, 1]];
        let (clients, client_rings) = RingPort::new(PortId(0), macs[0]);
        let (servers, server_rings) = RingPort::new(PortId(1), macs[1]);
        let (client, inner) = (talk::client_address(0, 0), talk::box_address());
        let (outer, server) = ((0xc633_6402, 40_000), talk::server_address(0));
        let way = |src: (u32, u16), dst: (u32, u16)| {
            let mut names = [0; 12];
            names[..4].copy_from_slice(&src.0.to_be_bytes());
            names[4..8].copy_from_slice(&dst.0.to_be_bytes());
            names[8..10].copy_from_slice(&src.1.to_be_bytes());
            names[10..].copy_from_slice(&dst.1.to_be_bytes());
            Way { link: [2, 0, 0, 0, 0, 9, 2, 0x4d, 0x42, 0, 0, 1], names }
        };
        let forwarder = Forwarder {
            pool,
            counters: Counters::default(),
            waiting: Vec::with_capacity(BATCH),
            ways: [way(outer, server), way(inner, client)],
        };
        let ports: Vec<Box<dyn Port>> = vec![Box::new(clients), Box::new(servers)];
        let clock = ManualClock::new(mimbox_stack::Instant::from_millis(1_000));
        let mut worker = Worker::new(forwarder, ports, clock, WorkerConfig::default())?;
        worker.turn();

        let payload = vec![0x5a; usize::from(segment_bytes)];
        let maps = Maps { dsn: 1, ssn: 1, len: segment_bytes, sum: None, data_fin: false };
        let mapped = talk::dss(1, Some(maps));
        let acked = talk::dss(1, None);
        let build = |upload: bool, payload: &[u8], dss: &[u8]| {
            let mut options = packet::timestamps(1).to_vec();
            if upload {
                options.extend(dss);
            }
            let (src, dst, to) = if upload { (client, inner, macs[0]) } else { (server, outer, macs[1]) };
            let sum = checksum::sum(payload);
            let says =
                Says { src, dst, seq: 1, ack: 1, flags: ACK, window: 1, options: &options, payload: (payload, sum) };
            let mut bytes = vec![0; 1600];
            let len = packet::write(&mut bytes, Link { to, from: [2, 0, 0, 0, 0, 1] }, &says);
            bytes.truncate(len);
            bytes
        };
        let upload = direction == Direction::Upload;
        let data = build(upload, &payload, mapped.as_slice());
        let ack = build(!upload, &[], acked.as_slice());
        Ok(Self { worker, rings: [client_rings, server_rings], data, ack, data_end: usize::from(!upload) })
    }

    fn put(&mut self, end: usize, ack: bool) {
        let Some(frame) = self.rings[end].borrow_mut().take_frame() else { return };
        let bytes = if ack { &self.ack } else { &self.data };
        let room = self.worker.engine().pool.bytes_mut(&frame);
        room[RX_HEADROOM..RX_HEADROOM + bytes.len()].copy_from_slice(bytes);
        let len = bytes.len() as u16;
        let rx = RxFrame { port: PortId(end as u8), frame, offset: RX_HEADROOM as u16, len };
        self.rings[end].borrow_mut().arrived.push_back(rx);
    }

    /// Forwards `segments` data segments, and an acknowledgment for every second one; nanoseconds for each segment.
    pub(super) fn run(&mut self, segments: u64, measured: bool) -> f64 {
        let mut watch = Stopwatch::default();
        let mut done = 0;
        while done < segments {
            for n in 0..BATCH {
                self.put(self.data_end, false);
                if n % VISIT == 0 {
                    self.put(1 - self.data_end, true);
                }
            }
            let worker = &mut self.worker;
            watch.time(|| if measured { measured_turn(worker) } else { worker.turn() });
            for end in 0..2 {
                let mut rings = self.rings[end].borrow_mut();
                while let Some(sent) = rings.sent.pop_front() {
                    done += u64::from(end != self.data_end);
                    rings.complete(sent.frame);
                }
            }
        }
        watch.lap().as_nanos() as f64 / done.max(1) as f64
    }
}
