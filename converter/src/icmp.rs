//! ICMP: echo for the box's addresses, errors about its connections, errors that it has to send.

use mimbox_dataplane::neighbor::{Hint, Resolution};
use mimbox_stack::wire::{self, IcmpError, IcmpKind, IcmpOut, IpInfo, TcpFlags};
use mimbox_stack::{Counter, Duration, FrameId, Instant, RxFrame, TxFrame};

use crate::conversion::{ConversionId, Mode, Side};
use crate::flows::FlowEntry;
use crate::opening::table::OpeningId;
use crate::path::Origin;
use crate::shard::Shard;

/// ICMP errors that may be sent in a second (RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f)).
const ERRORS_PER_SECOND: u32 = 1_000;

/// How many ICMP errors may still be sent in this second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IcmpBudget {
    since: Instant,
    spent: u32,
}

impl IcmpBudget {
    fn spend(&mut self, now: Instant) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            *self = Self { since: now, spent: 0 };
        }
        self.spent += 1;
        self.spent <= ERRORS_PER_SECOND
    }
}

impl Shard {
    pub(crate) fn on_icmp(&mut self, now: Instant, rx: RxFrame, info: &IpInfo) {
        let error = wire::parse_icmp_error(self.res.pool.bytes(&rx.frame), info);
        if let Some(error) = error {
            match self.flows.find(&error.flow) {
                Some(FlowEntry::Connection { id, conversion, side }) => {
                    self.res.pool.release(rx.frame);
                    return self.on_connection_icmp(now, &error, id, (conversion, side));
                }
                Some(FlowEntry::Opening(id, Side::Server)) => return self.on_opening_icmp(now, rx, info, &error, id),
                _ => {}
            }
        }
        if !self.neighbours.is_own(info.dst) {
            return if self.settings.forwards() {
                self.forward(now, rx, info)
            } else {
                self.drop_frame(rx, Counter::DropNotOurs)
            };
        }
        if let Err(rx) = self.neighbours.echo(&mut self.res.pool, rx, info) {
            let why = if error.is_some() { Counter::IcmpIgnored } else { Counter::DropIpProtocol };
            self.drop_frame(rx, why);
        }
    }

    fn on_connection_icmp(
        &mut self,
        now: Instant,
        error: &IcmpError,
        id: mimbox_stack::tcp::ConnId,
        (conversion, side): (ConversionId, Side),
    ) {
        self.res.counters.inc(Counter::IcmpReceived);
        let Some(mut conn) = self.conns.get(id) else { return };
        let outcome = conn.on_icmp(now, &error.icmp, &mut self.res.env());
        self.advance(now, conversion, side, outcome.into());
        self.touch(conversion);
    }

    /// An error about a SYN that the box carried to a server: the client gets the same error about its own SYN.
    fn on_opening_icmp(&mut self, now: Instant, rx: RxFrame, info: &IpInfo, error: &IcmpError, id: OpeningId) {
        let Some(record) = self.openings.get(id) else { return self.drop_frame(rx, Counter::IcmpIgnored) };
        // RFC 5927 §4.1: the quoted segment must be the one that is in flight.
        if error.icmp.quoted_seq != record.server_iss {
            return self.drop_frame(rx, Counter::IcmpIgnored);
        }
        self.res.counters.inc(Counter::IcmpReceived);
        if record.mode == Mode::Transparent {
            // It quotes the client's own SYN already.
            self.forget_unreachable(id);
            return self.forward(now, rx, info);
        }
        self.res.pool.release(rx.frame);
        if error.icmp.kind != IcmpKind::TooBig {
            self.opening_unreachable(now, id, error.icmp.kind);
        }
    }

    /// The server of a transparent opening cannot be reached: nothing is left to wait for. The client is told by an ICMP
    /// error about the SYN, which is its own; this says where it came from.
    pub(crate) fn forget_unreachable(&mut self, id: OpeningId) -> Option<Origin> {
        self.res.counters.inc(Counter::OpeningsUnreachable);
        self.forget_opening(id).map(|record| record.origin)
    }

    /// The server of an explicit opening cannot be reached: the client is told so about its own SYN.
    pub(crate) fn opening_unreachable(&mut self, now: Instant, id: OpeningId, kind: IcmpKind) {
        let Some(record) = self.forget_opening(id) else { return };
        self.res.counters.inc(Counter::OpeningsUnreachable);
        if !self.icmp_budget.spend(now) {
            return self.res.counters.inc(Counter::IcmpLimited);
        }
        let quoted = wire::quote(&record.client, record.syn.seq, TcpFlags::SYN);
        let (src, dst) = (record.client.local, record.client.remote);
        let out = IcmpOut { src, dst, kind, mtu: 0, quoted: &quoted };
        self.send_icmp(&out, record.origin);
    }

    /// Tells the sender of the packet in `frame` what became of it; by the way back when no neighbour is known for it.
    pub(crate) fn send_icmp_about(
        &mut self,
        now: Instant,
        frame: &FrameId,
        info: &IpInfo,
        (kind, mtu): (IcmpKind, u16),
        back: Option<Origin>,
    ) {
        let bytes = self.res.pool.bytes(frame);
        if !wire::may_answer_with_icmp(bytes, info, kind) {
            return;
        }
        if !self.icmp_budget.spend(now) {
            return self.res.counters.inc(Counter::IcmpLimited);
        }
        let mut quoted = [0; 1280];
        let packet = info.ip_packet(bytes);
        let len = packet.len().min(quoted.len());
        quoted[..len].copy_from_slice(&packet[..len]);
        let origin = match self.neighbours.resolve(now, info.src, None::<&Hint>) {
            Resolution::Ready(hop) => Some(hop.into()),
            Resolution::Pending(_) | Resolution::Full => back,
            Resolution::Own | Resolution::NoRoute => None,
        };
        let Some(origin) = origin else { return };
        let Some(src) = self.neighbours.source_on(origin.port, info.src) else { return };
        let out = IcmpOut { src, dst: info.src, kind, mtu: u32::from(mtu), quoted: &quoted[..len] };
        self.send_icmp(&out, origin);
    }

    fn send_icmp(&mut self, out: &IcmpOut<'_>, origin: Origin) {
        let built = wire::emit_icmp_error(&mut self.res.pool, &origin.link, out, 0, &mut self.res.counters);
        if let Some((frame, offset, len)) = built {
            self.res.pool.tx_begin(&frame);
            self.outbox.push_back(TxFrame { port: origin.port, frame, offset, len });
        }
    }
}
