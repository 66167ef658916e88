//! MP_JOIN: a further subflow of a connection that the box terminates (RFC 8684 §3.2).

use mimbox_mptcp::join_in_syn;
use mimbox_stack::tcp::{SynSeen, TsOffer};
use mimbox_stack::wire::IpInfo;
use mimbox_stack::{Counter, Instant, RxFrame, SegmentIn};

use crate::conversion::Side;
use crate::flows::FlowEntry;
use crate::half::Half;
use crate::path::Origin;
use crate::shard::Shard;

/// What became of a SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Joined {
    /// It has no MP_JOIN.
    NotAJoin,
    /// No connection of the box has that token.
    UnknownToken,
    /// The connection takes no further subflow.
    Refused,
    /// A subflow was made; its SYN+ACK is on its way.
    Accepted,
}

impl Shard {
    /// Takes a SYN with MP_JOIN whose token is the box's. The frame stays the caller's.
    pub(crate) fn on_join(&mut self, now: Instant, rx: &RxFrame, info: &IpInfo, segment: &SegmentIn) -> Joined {
        let Some(join) = join_in_syn(segment) else { return Joined::NotAJoin };
        let Some(&conversion) = self.tokens.get(&join.token) else { return Joined::UnknownToken };
        self.res.counters.inc(Counter::MptcpJoinIn);
        let Some(state) = self.conversions.get(conversion) else { return Joined::UnknownToken };
        let origin = Origin { port: rx.port, link: info.link.reply() };
        let (mut offer, terms) = (state.client_offer, state.client_terms);
        offer.timestamps = offer.timestamps.map(|_| TsOffer { offset: self.isn.timestamp_offset(&segment.flow) });
        let Some(id) = self.insert_accepted(now, segment.flow, SynSeen::of(segment), offer, origin, terms) else {
            return Joined::Refused;
        };
        let joined = match self.conversions.get_mut(conversion).map(|state| &mut state.client) {
            Some(Half::Mptcp(mptcp)) => {
                mptcp.join(now, segment, join, id, &mut self.conns, &mut self.res.env()).is_ok()
            }
            _ => false,
        };
        if !joined {
            self.remove_connection(now, id);
            return Joined::Refused;
        }
        self.flows.bind(segment.flow, FlowEntry::Connection { id, conversion, side: Side::Client });
        self.touch(conversion);
        Joined::Accepted
    }
}
