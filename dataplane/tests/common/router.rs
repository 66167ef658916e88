//! A small router as an engine: what the converter does with packets that it does not convert.

use std::collections::VecDeque;

use mimbox_dataplane::neighbor::{Cidr, Interface, NeighborConfig, NeighborEvent, Resolution};
use mimbox_dataplane::{Engine, Neighbors, PortInfo};
use mimbox_stack::wire::{IpInfo, Parsed, Verify, parse};
use mimbox_stack::{Counters, FramePool, Instant, PortId, RxFrame, TxFrame};

/// Forwards IP between its ports and answers ARP, NDP and ping for its own addresses.
#[derive(Debug)]
pub struct Router {
    pub pool: FramePool,
    pub counters: Counters,
    pub neighbors: Neighbors,
    pub forwarded: u64,
    pub malformed: u64,
    out: VecDeque<TxFrame>,
}

/// The box's addresses on its two ports.
pub const ADDRESSES: [[&str; 2]; 2] = [["10.77.1.1/24", "fd77:1::1/64"], ["10.77.2.1/24", "fd77:2::1/64"]];

/// All of them.
pub fn addresses() -> Vec<std::net::IpAddr> {
    ADDRESSES.iter().flatten().map(|text| text.parse::<Cidr>().unwrap().addr()).collect()
}

impl Router {
    pub fn new(pool: FramePool, ports: &[PortInfo]) -> Self {
        let interfaces = ports
            .iter()
            .zip(ADDRESSES)
            .map(|(info, addresses)| Interface {
                port: info.id,
                mac: info.mac,
                mtu: info.mtu,
                addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            })
            .collect();
        let neighbors = Neighbors::new(&NeighborConfig { interfaces, routes: Vec::new(), limit: 64 }).unwrap();
        Self { pool, counters: Counters::default(), neighbors, forwarded: 0, malformed: 0, out: VecDeque::new() }
    }

    fn take(&mut self, now: Instant, rx: RxFrame) {
        let (start, end) = (usize::from(rx.offset), usize::from(rx.offset + rx.len));
        let bytes = self.pool.bytes(&rx.frame);
        match parse(&bytes[start..end], rx.offset, Verify::Lengths) {
            Ok(Parsed::Arp(arp)) => {
                let packet = &bytes[usize::from(arp.arp_offset)..usize::from(arp.end)];
                self.neighbors.on_arp(now, rx.port, &arp.link, packet);
            }
            Ok(Parsed::Ndp(info)) => self.neighbors.on_ndp(now, rx.port, &info, info.l4(bytes)),
            Ok(Parsed::Icmp(info)) if self.neighbors.is_own(info.dst) => {
                if let Err(rx) = self.neighbors.echo(&mut self.pool, rx, &info) {
                    self.pool.release(rx.frame);
                }
                return;
            }
            Ok(Parsed::Tcp(info, _) | Parsed::Icmp(info) | Parsed::OtherIp(info)) => {
                self.forward(now, rx, &info);
                return;
            }
            Err(_) => self.malformed += 1,
        }
        self.pool.release(rx.frame);
    }

    fn forward(&mut self, now: Instant, rx: RxFrame, info: &IpInfo) {
        let (hop, waiting) = match self.neighbors.resolve(now, info.dst, None) {
            Resolution::Ready(hop) => (hop, None),
            Resolution::Pending(waiting) => (waiting.provisional(), Some(waiting)),
            _ => return self.pool.release(rx.frame),
        };
        let start = info.ip_offset - 14;
        let bytes = self.pool.bytes_mut(&rx.frame);
        let link = &mut bytes[usize::from(start)..];
        let ethertype = [link[12], link[13]];
        link[..6].copy_from_slice(&hop.link.dst.0);
        link[6..12].copy_from_slice(&hop.link.src.0);
        link[12..14].copy_from_slice(&ethertype);
        self.forwarded += 1;
        let frame = TxFrame { port: hop.port, frame: rx.frame, offset: start, len: info.end - start };
        match waiting {
            Some(waiting) => {
                if let Err(frame) = self.neighbors.hold(waiting, frame) {
                    self.pool.release(frame.frame);
                }
            }
            None => {
                self.pool.tx_begin(&frame.frame);
                self.out.push_back(frame);
            }
        }
    }
}

impl Engine for Router {
    fn on_frames(&mut self, now: Instant, batch: &mut Vec<RxFrame>) {
        for rx in batch.drain(..) {
            self.take(now, rx);
        }
    }
    fn on_timer(&mut self, now: Instant) {
        self.neighbors.on_timer(now);
        while let Some(event) = self.neighbors.poll_event() {
            if let NeighborEvent::Undeliverable { frame, .. } = event {
                self.pool.release(frame.frame);
            }
        }
    }
    fn poll_transmit(&mut self, _now: Instant) -> Option<TxFrame> {
        if let Some(frame) = self.neighbors.poll_transmit(&mut self.pool, &mut self.counters) {
            return Some(frame);
        }
        self.out.pop_front()
    }
    fn next_deadline(&self) -> Option<Instant> {
        self.neighbors.next_deadline()
    }
    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }
    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

/// The number of a port, for tests.
pub const fn port(n: u8) -> PortId {
    PortId(n)
}
