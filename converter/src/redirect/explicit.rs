//! Explicit mode: a SYN to the box itself, whose destination option names the server.

use std::net::SocketAddr;

use mimbox_stack::wire::IpInfo;
use mimbox_stack::{Counter, Instant, RxFrame, SegmentIn, TcpFlags};

use crate::conversion::Mode;
use crate::opening::Wanted;
use crate::opening::join::Joined;
use crate::opening::table::Refused;
use crate::path::Origin;
use crate::redirect::dst_opt::{self, DstOptError};
use crate::shard::Shard;

impl Shard {
    /// A segment that belongs to nothing yet.
    pub(crate) fn on_unknown(&mut self, now: Instant, rx: RxFrame, info: &IpInfo, segment: &SegmentIn) {
        let syn = segment.flags.contains(TcpFlags::SYN)
            && !segment.flags.intersects(TcpFlags::ACK | TcpFlags::RST | TcpFlags::FIN);
        if !self.neighbours.is_own(segment.flow.local) {
            return self.on_transit_segment(now, rx, info, segment, syn);
        }
        if !syn {
            return self.refuse(rx, info, segment, Counter::DropNoConnection);
        }
        match self.on_join(now, &rx, info, segment) {
            Joined::NotAJoin => self.on_explicit_syn(now, rx, info, segment),
            Joined::Accepted => self.res.pool.release(rx.frame),
            Joined::UnknownToken => self.refuse(rx, info, segment, Counter::MptcpJoinUnknownToken),
            Joined::Refused => self.refuse(rx, info, segment, Counter::MptcpJoinLimit),
        }
    }

    fn on_explicit_syn(&mut self, now: Instant, rx: RxFrame, info: &IpInfo, segment: &SegmentIn) {
        if !self.settings.explicit_ports.contains(&rx.port) {
            return self.refuse(rx, info, segment, Counter::DropNoConnection);
        }
        let server = match self.destination(segment) {
            Ok(server) => server,
            Err(why) => return self.refuse(rx, info, segment, why),
        };
        if self.draining {
            return self.refuse(rx, info, segment, Counter::OpeningsDraining);
        }
        let Some(server) = self.pick_source(server) else {
            return self.refuse(rx, info, segment, Counter::SourcePortsExhausted);
        };
        let origin = Origin { port: rx.port, link: info.link.reply() };
        let wanted = Wanted { client: segment.flow, server, mode: Mode::Explicit, origin };
        match self.open(now, &wanted, segment) {
            Ok(id) => {
                self.res.pool.release(rx.frame);
                self.send_server_syn(now, id);
            }
            Err(Refused::PerSourceLimit) => self.refuse(rx, info, segment, Counter::OpeningsPerSourceLimit),
            Err(Refused::Full) => self.refuse(rx, info, segment, Counter::ConversionsLimit),
        }
    }

    /// The server that an explicit SYN names, or the counter that says why there is none.
    fn destination(&self, segment: &SegmentIn) -> Result<SocketAddr, Counter> {
        if self.conversions.len() >= self.settings.max_conversions {
            return Err(Counter::ConversionsLimit);
        }
        let option = segment.options.experimental.ok_or(Counter::DstOptMissing)?;
        let option = segment.options.slice(option);
        let server =
            dst_opt::parse(option, self.settings.exid, segment.flow.local_port).map_err(|error| match error {
                DstOptError::OtherExperiment => Counter::DstOptMissing,
                DstOptError::Malformed => Counter::DstOptMalformed,
            })?;
        if self.neighbours.is_own(server.ip()) {
            return Err(Counter::DstOptLoop);
        }
        let policy = &self.settings.policy;
        if !policy.allows_client(segment.flow.remote) || !policy.allows_destination(server.ip()) {
            return Err(Counter::DstOptForbidden);
        }
        let routable = self.neighbours.route(server.ip()).is_some()
            && self.settings.sources.iter().any(|source| source.is_ipv4() == server.is_ipv4());
        if routable { Ok(server) } else { Err(Counter::DstOptUnroutable) }
    }
}
