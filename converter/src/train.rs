//! Packets of one connection that come one after the other in a batch, or in turns with those of one other.

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
    /// The connection that it belongs to.
    seen: Option<Member>,
    /// The same, while there is a train.
    pub member: Option<Member>,
    /// How often the flow table had changed when it was found there.
    found_at: u64,
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
            seen: None,
            member: None,
            found_at: 0,
            taken: false,
            held: false,
        }
    }

    /// The segment, which has just been parsed, is the first of a train, if there is going to be one; `bytes` begin with its
    /// packet.
    fn begin(&mut self, bytes: &[u8], found_at: u64) {
        self.member = if self.head.begin(bytes, &self.segment) { self.seen } else { None };
        self.found_at = found_at;
    }

    /// What the next packet says, if it is of the train and the flow table has not changed since that began.
    #[inline]
    pub(crate) fn follow(&self, rx: &RxFrame, packet: &[u8], changes: u64) -> Option<(Member, Following)> {
        let member = self.member.filter(|_| rx.port == self.port && changes == self.found_at)?;
        Some((member, self.head.follow(packet, rx.offset)?))
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

/// The trains of a batch: the one that the last packet was of, and the one before, since the packets of two subflows or of
/// both directions take turns.
#[derive(Debug)]
pub(crate) struct Trains {
    trains: [Train; 2],
    /// Index of the train of the last packet.
    last: usize,
}

impl Trains {
    /// No trains.
    pub(crate) fn none() -> Self {
        Self { trains: [Train::none(), Train::none()], last: 0 }
    }

    /// A batch begins: what was seen in another does not count.
    #[inline]
    pub(crate) fn forget(&mut self) {
        for train in &mut self.trains {
            (train.seen, train.member, train.held) = (None, None, false);
        }
    }

    /// The train of the last packet.
    #[inline]
    pub(crate) fn last(&mut self) -> &mut Train {
        &mut self.trains[self.last & 1]
    }

    /// The train before it.
    #[inline]
    pub(crate) fn other(&mut self) -> &mut Train {
        &mut self.trains[!self.last & 1]
    }

    /// From now on the other train is the last one.
    #[inline]
    pub(crate) fn turn(&mut self) {
        self.last ^= 1;
    }

    /// The place for a packet that follows none of the two trains.
    #[inline]
    pub(crate) fn next(&mut self) -> &mut Train {
        self.turn();
        let train = self.last();
        train.member = None;
        (train.taken, train.held) = (false, false);
        train
    }

    /// The packet in the last place came in by `port` with `link` and belongs to `member`. Data begins a train, and so does
    /// the second acknowledgment of a connection: most that come alone would begin it in vain. `bytes` begin with the packet,
    /// and the flow table had changed `found_at` times.
    #[inline]
    pub(crate) fn note(&mut self, port: PortId, link: LinkHeader, bytes: &[u8], member: Member, found_at: u64) {
        let known = self.trains.iter().any(|train| train.seen == Some(member));
        let train = self.last();
        (train.port, train.link, train.seen) = (port, link, Some(member));
        if known || train.segment.payload_len > 0 {
            train.begin(bytes, found_at);
        }
    }
}

#[cfg(test)]
mod tests;
