//! Transparent mode: the box is the router on the path (DESIGN: Opening, transparent).

use mimbox_dataplane::neighbor::{NextHop, Resolution};
use mimbox_mptcp::capable_in_syn;
use mimbox_stack::wire::{self, Hop, IcmpKind, IpInfo};
use mimbox_stack::{Counter, Instant, RxFrame, SegmentIn, TxFrame};

use crate::conversion::Mode;
use crate::opening::Wanted;
use crate::opening::join::Joined;
use crate::path::Origin;
use crate::shard::Shard;

impl Shard {
    /// A segment between others. A client's MPTCP SYN opens a conversion, should its server not speak MPTCP.
    pub(crate) fn on_transit_segment(
        &mut self,
        now: Instant,
        rx: RxFrame,
        info: &IpInfo,
        segment: &SegmentIn,
        syn: bool,
    ) {
        if !self.settings.forwards() {
            return self.drop_frame(rx, Counter::DropNotOurs);
        }
        if syn && self.settings.transparent_from.contains(&rx.port) {
            match self.on_join(now, &rx, info, segment) {
                // A join to the server's own address although it was told otherwise: it is ours all the same.
                Joined::Accepted => return self.res.pool.release(rx.frame),
                Joined::Refused => return self.refuse(rx, info, segment, Counter::MptcpJoinLimit),
                Joined::NotAJoin => self.open_transparently(now, &rx, info, segment),
                Joined::UnknownToken => {}
            }
        }
        self.forward(now, rx, info);
    }

    /// Makes a half-open record for the SYN and lowers its MSS; without a slot it goes on as it is.
    fn open_transparently(&mut self, now: Instant, rx: &RxFrame, info: &IpInfo, segment: &SegmentIn) {
        let client = segment.flow;
        let policy = &self.settings.policy;
        let allowed = policy.allows_client(client.remote) && policy.allows_destination(client.local);
        let wanted = capable_in_syn(segment).is_some_and(|capable| self.settings.answers(&capable));
        if !wanted || !allowed || self.draining {
            return;
        }
        if self.conversions.len() >= self.settings.max_conversions {
            return self.res.counters.inc(Counter::SynForwardedOverload);
        }
        let origin = Origin { port: rx.port, link: info.link.reply() };
        let wanted = Wanted { client, server: client.reversed(), mode: Mode::Transparent, origin };
        match self.open(now, &wanted, segment) {
            Ok(id) => {
                if let Some(mss) = self.openings.get(id).map(|record| record.offer.mss) {
                    wire::lower_mss(self.res.pool.bytes_mut(&rx.frame), info, mss);
                }
            }
            Err(_) => self.res.counters.inc(Counter::SynForwardedOverload),
        }
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
            self.send_icmp_about(now, &rx.frame, info, (IcmpKind::TimeExceeded, 0), Some(Origin::of(&rx, info)));
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
                self.send_icmp_about(now, &rx.frame, info, (IcmpKind::NetUnreachable, 0), Some(Origin::of(&rx, info)));
                self.drop_frame(rx, Counter::DropNoRoute);
            }
        }
    }

    /// Gives the packet its next hop's link-layer header and one hop less to live.
    fn readdress(&mut self, now: Instant, rx: RxFrame, info: &IpInfo, hop: &NextHop) -> Option<TxFrame> {
        if info.ip_len() > hop.mtu {
            self.send_icmp_about(now, &rx.frame, info, (IcmpKind::TooBig, hop.mtu), Some(Origin::of(&rx, info)));
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
