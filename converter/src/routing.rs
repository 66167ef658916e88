//! The way towards an address: routes and neighbours, and what happens when a next hop does not answer.

use std::net::IpAddr;

use mimbox_dataplane::neighbor::{Hint, NeighborEvent, NextHop, Resolution};
use mimbox_stack::wire::{self, ArpInfo, IcmpKind, IpInfo, Parsed, Verify};
use mimbox_stack::{Counter, FlowKey, Instant, Outgoing, RxFrame, TxFrame};

use crate::conversion::{Mode, Side};
use crate::flows::FlowEntry;
use crate::path::{Origin, Path};
use crate::shard::Shard;

/// What became of a packet that was to be routed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Routed {
    /// It was sent, or waits for its next hop.
    Sent,
    /// No route leads there.
    NoRoute,
}

impl From<NextHop> for Origin {
    fn from(hop: NextHop) -> Self {
        Self { port: hop.port, link: hop.link }
    }
}

impl Shard {
    pub(crate) fn on_arp(&mut self, now: Instant, rx: RxFrame, info: &ArpInfo) {
        let packet = self.res.pool.bytes(&rx.frame).get(usize::from(info.arp_offset)..usize::from(info.end));
        self.neighbours.on_arp(now, rx.port, &info.link, packet.unwrap_or_default());
        self.res.pool.release(rx.frame);
    }

    pub(crate) fn on_ndp(&mut self, now: Instant, rx: RxFrame, info: &IpInfo) {
        let message = info.l4(self.res.pool.bytes(&rx.frame));
        self.neighbours.on_ndp(now, rx.port, info, message);
        self.res.pool.release(rx.frame);
    }

    /// Sends one segment of a connection that is not established yet by the way that the routes say.
    pub(crate) fn send_routed(&mut self, now: Instant, flow: &FlowKey, mut out: Outgoing) -> Routed {
        match self.neighbours.resolve(now, flow.remote, None) {
            Resolution::Ready(hop) => {
                self.send_once(flow, hop.into(), out);
                Routed::Sent
            }
            Resolution::Pending(waiting) => {
                let mut path = Path::new(flow, waiting.provisional().into());
                if let Some(frame) = path.build(&mut self.res.pool, &mut self.res.counters, &mut out)
                    && let Err(refused) = self.neighbours.hold(waiting, frame)
                {
                    self.drop_unsent(refused);
                }
                Routed::Sent
            }
            Resolution::Full => {
                self.res.counters.inc(Counter::DropNoNeighbour);
                Routed::Sent
            }
            Resolution::NoRoute | Resolution::Own => Routed::NoRoute,
        }
    }

    pub(crate) fn drop_unsent(&mut self, frame: TxFrame) {
        self.res.counters.inc(Counter::DropNoNeighbour);
        self.res.pool.release(frame.frame);
    }

    /// The way to forward a packet, or what is to be done with it instead.
    pub(crate) fn resolve(&mut self, now: Instant, dst: IpAddr, hint: Option<&Hint>) -> Resolution {
        self.neighbours.resolve(now, dst, hint)
    }

    /// Next hops that did not answer: whoever sent what waited for them is told.
    pub(crate) fn on_neighbour_events(&mut self, now: Instant) {
        while let Some(event) = self.neighbours.poll_event() {
            match event {
                NeighborEvent::Undeliverable { frame, .. } => self.on_undeliverable(now, frame),
                NeighborEvent::Unreachable { .. } => self.res.counters.inc(Counter::NeighboursUnreachable),
                NeighborEvent::AddressConflict { .. } => self.res.counters.inc(Counter::AddressConflicts),
            }
        }
    }

    fn on_undeliverable(&mut self, now: Instant, frame: TxFrame) {
        self.res.counters.inc(Counter::DropNoNeighbour);
        let (start, end) = (usize::from(frame.offset), usize::from(frame.offset) + usize::from(frame.len));
        let bytes = self.res.pool.bytes(&frame.frame).get(start..end).unwrap_or_default();
        let parsed = wire::parse(bytes, frame.offset, Verify::Lengths);
        let mut back = None;
        let info = match &parsed {
            Ok(Parsed::Tcp(info, segment)) => {
                if let Some(FlowEntry::Opening(id, Side::Server)) = self.flows.find(&segment.flow.reversed()) {
                    match self.openings.get(id).map(|record| record.mode) {
                        Some(Mode::Explicit) => {
                            self.opening_unreachable(now, id, IcmpKind::HostUnreachable);
                            return self.res.pool.release(frame.frame);
                        }
                        // What could not be delivered is the client's own SYN.
                        _ => back = self.forget_unreachable(id),
                    }
                }
                Some(*info)
            }
            Ok(Parsed::Icmp(info) | Parsed::OtherIp(info)) => Some(*info),
            _ => None,
        };
        if let Some(info) = info {
            self.send_icmp_about(now, &frame.frame, &info, (IcmpKind::HostUnreachable, 0), back);
        }
        self.res.pool.release(frame.frame);
    }
}
