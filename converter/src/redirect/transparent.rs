//! Transparent mode: the box is the router on the path (DESIGN: Opening, transparent).

use mimbox_dataplane::neighbor::{NextHop, Resolution};
use mimbox_stack::wire::{self, Hop, IcmpKind, IpInfo};
use mimbox_stack::{Counter, Instant, RxFrame, TxFrame};

use crate::shard::Shard;

impl Shard {
    /// A segment between others: the box is a router to it.
    pub(crate) fn on_transit_segment(&mut self, now: Instant, rx: RxFrame, info: &IpInfo) {
        if !self.settings.forwards() {
            return self.drop_frame(rx, Counter::DropNotOurs);
        }
        self.forward(now, rx, info);
    }

    /// A packet that is not TCP, or not for the box.
    pub(crate) fn on_other_ip(&mut self, now: Instant, rx: RxFrame, info: &IpInfo) {
        if self.neighbours.is_own(info.dst) {
            return self.drop_frame(rx, Counter::DropIpProtocol);
        }
        if !self.settings.forwards() {
            return self.drop_frame(rx, Counter::DropNotOurs);
        }
        self.forward(now, rx, info);
    }

    /// Forwards a packet as a router does (RFC 1812 §5.2, RFC 8200 §3), in the frame that it came in.
    pub(crate) fn forward(&mut self, now: Instant, rx: RxFrame, info: &IpInfo) {
        if info.ttl <= 1 {
            self.send_icmp_about(now, &rx.frame, info, IcmpKind::TimeExceeded, 0);
            return self.drop_frame(rx, Counter::DropTtlExceeded);
        }
        match self.resolve(now, info.dst, None) {
            Resolution::Ready(hop) => {
                if let Some(frame) = self.readdress(now, rx, info, &hop) {
                    self.res.pool.tx_begin(&frame.frame);
                    self.outbox.push_back(frame);
                }
            }
            Resolution::Pending(waiting) => {
                if let Some(frame) = self.readdress(now, rx, info, &waiting.provisional())
                    && let Err(refused) = self.neighbours.hold(waiting, frame)
                {
                    self.drop_unsent(refused);
                }
            }
            Resolution::Full => self.drop_frame(rx, Counter::DropNoNeighbour),
            Resolution::Own => self.drop_frame(rx, Counter::DropMartian),
            Resolution::NoRoute => {
                self.send_icmp_about(now, &rx.frame, info, IcmpKind::NetUnreachable, 0);
                self.drop_frame(rx, Counter::DropNoRoute);
            }
        }
    }

    /// Gives the packet its next hop's link-layer header and one hop less to live.
    fn readdress(&mut self, now: Instant, rx: RxFrame, info: &IpInfo, hop: &NextHop) -> Option<TxFrame> {
        if info.ip_len() > hop.mtu {
            self.send_icmp_about(now, &rx.frame, info, IcmpKind::TooBig, hop.mtu);
            self.drop_frame(rx, Counter::DropTooBig);
            return None;
        }
        let bytes = self.res.pool.bytes_mut(&rx.frame);
        let place = match wire::decrement_ttl(bytes, info) {
            Hop::Alive => wire::set_link(bytes, info, &hop.link),
            Hop::Expired => None,
        };
        let Some((offset, len)) = place else {
            self.drop_frame(rx, Counter::DropTtlExceeded);
            return None;
        };
        self.res.counters.inc(Counter::Forwarded);
        Some(TxFrame { port: hop.port, frame: rx.frame, offset, len })
    }
}
