//! Packets of one connection that come one after the other in a batch.

use mimbox_stack::options::TcpOptions;
use mimbox_stack::wire::{Following, LinkHeader, TrainHead};
use mimbox_stack::{PortId, RxFrame, SegmentIn, TcpFlags};

use crate::flows::Member;

/// Option bytes of a DSS that has a DATA_ACK of 64 bits and nothing else (RFC 8684 §3.3); anything more is longer.
const LONGEST_DATA_ACK: u8 = 12;

/// The packet that was parsed last in a batch, as long as the next may be the next of a train.
#[derive(Debug)]
pub(crate) struct Train {
    head: TrainHead,
    /// The port that it came in by.
    pub port: PortId,
    /// Its link-layer header.
    pub link: LinkHeader,
    /// What it says.
    pub segment: SegmentIn,
    /// The connection that it belongs to, while there is a train.
    pub member: Option<Member>,
    /// The segment was taken, and brought about nothing unusual.
    pub taken: bool,
    /// The segment is an acknowledgment that nobody has seen yet: the next may say more.
    pub held: bool,
}

impl Train {
    /// No train.
    pub(crate) fn none() -> Self {
        Self {
            head: TrainHead::default(),
            port: PortId(0),
            link: LinkHeader::default(),
            segment: SegmentIn::blank(),
            member: None,
            taken: false,
            held: false,
        }
    }

    /// The segment, which has just been parsed, is the first of a train, if there is going to be one; `bytes` begin with its
    /// packet.
    pub(crate) fn begin(&mut self, port: PortId, link: LinkHeader, bytes: &[u8], member: Member) {
        self.member = self.head.begin(bytes, &self.segment).then_some(member);
        (self.port, self.link) = (port, link);
        (self.taken, self.held) = (false, false);
    }

    /// What the next packet says, if it is of the train.
    #[inline]
    pub(crate) fn follow(&self, rx: &RxFrame, packet: &[u8]) -> Option<Following> {
        if self.member.is_none() || rx.port != self.port { None } else { self.head.follow(packet, rx.offset) }
    }

    /// True when the segment is an acknowledgment and nothing else, so that one that acknowledges more makes it needless.
    #[inline]
    pub(crate) fn is_bare_ack(&self) -> bool {
        let SegmentIn { flags, payload_len, options: TcpOptions { mptcp, .. }, .. } = &self.segment;
        *payload_len == 0
            && *flags == TcpFlags::ACK
            && mptcp.iter().all(|option| option.len <= LONGEST_DATA_ACK)
            && !self.segment.options.has_mptcp_signal()
    }

    /// True when `next` says all that the held acknowledgment says, and acknowledges more. One that acknowledges the same
    /// may be a duplicate (RFC 5681 §2), and counts.
    #[inline]
    pub(crate) fn is_outdone_by(&self, next: &Following) -> bool {
        next.payload_len == 0 && next.seq == self.segment.seq && next.ack.after(self.segment.ack)
    }
}

#[cfg(test)]
mod tests;
