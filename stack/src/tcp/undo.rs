//! Reductions that were a mistake, and how they are found out: by DSACK (RFC 2883, RFC 3708), by timestamps (Eifel,
//! RFC 3522) and after a timeout by what the next two acknowledgments say (F-RTO, RFC 5682).

use super::cc::CcEvent;
use super::conn::{Conn, ConnFlags};
use super::send::Freed;
use crate::counters::Counter;
use crate::env::Env;
use crate::options::SackBlock;
use crate::seq::SeqNum;
use crate::time::Instant;
use crate::wire::SegmentIn;

/// What stood before the last reduction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undo {
    /// `snd_una` at that time.
    marker: SeqNum,
    cwnd: u32,
    /// Segments sent again since that no DSACK has accounted for.
    retransmissions: u32,
    /// The timestamp of the first of them.
    first_value: Option<u32>,
}

/// How far F-RTO has got (RFC 5682 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Frto {
    /// It is not running.
    #[default]
    Off,
    /// The first segment was sent again; the next acknowledgment decides whether new data may follow.
    First,
    /// New data was sent; the next acknowledgment decides whether the timeout was spurious.
    Second,
}

impl Conn<'_> {
    /// A reduction is about to happen.
    pub(super) fn remember_for_undo(&mut self) {
        self.cold.undo =
            Some(Undo { marker: self.hot.snd_una, cwnd: self.hot.cwnd, retransmissions: 0, first_value: None });
    }

    /// A segment was sent again.
    pub(super) fn note_retransmission(&mut self, now: Instant) {
        let value = self.ts_value(now);
        if let Some(undo) = &mut self.cold.undo {
            undo.retransmissions = undo.retransmissions.saturating_add(1);
            undo.first_value.get_or_insert(value);
        }
    }

    /// RFC 2883 §4: the block that reports data received twice, if the first block is one.
    pub(super) fn read_dsack(&self, segment: &SegmentIn) -> Option<SackBlock> {
        let (&first, second) = (segment.options.sack.first()?, segment.options.sack.get(1));
        let sane = first.start.before(first.end)
            && first.end.at_or_before(self.hot.snd_nxt)
            && first.start.at_or_after(self.hot.snd_una - DSACK_REACH);
        let below = first.end.at_or_before(segment.ack);
        let inside =
            second.is_some_and(|second| first.start.at_or_after(second.start) && first.end.at_or_before(second.end));
        (sane && (below || inside)).then_some(first)
    }

    /// Takes a DSACK into account. True when it accounts for the last retransmission: none was needed.
    pub(super) fn count_dsack(&mut self, block: SackBlock) -> bool {
        let Some(undo) = &mut self.cold.undo else { return false };
        if undo.retransmissions == 0 || block.end.at_or_before(undo.marker) {
            return false;
        }
        let mss = u32::from(self.hot.smss);
        let segments = block.end.distance_from(block.start).div_ceil(mss).max(1);
        undo.retransmissions = undo.retransmissions.saturating_sub(segments);
        undo.retransmissions == 0
    }

    /// RFC 3522 §3.2: the acknowledgment answers a segment that was sent before the first retransmission.
    pub(super) fn answers_the_original(&self, segment: &SegmentIn) -> bool {
        let first = self.cold.undo.as_ref().and_then(|undo| undo.first_value);
        match (first, segment.options.timestamps) {
            (Some(first), Some(ts)) if self.hot.flags.contains(ConnFlags::TIMESTAMPS) => {
                ts.echo != 0 && (ts.echo.wrapping_sub(first) as i32) < 0
            }
            _ => false,
        }
    }

    /// RFC 5682 §3.1, with SACK where there is any. True when the timeout was spurious.
    pub(super) fn step_frto(&mut self, advanced: bool, freed: &Freed) -> bool {
        let before_timeout = |end: SeqNum| end.at_or_before(self.cold.recovery_point);
        match self.cold.frto {
            Frto::Off => false,
            // Step 2: only an acknowledgment of some of what was out leaves the question open.
            Frto::First if advanced && self.hot.snd_una.before(self.cold.recovery_point) => {
                let more = self.cold.ring.unsent > 0 && self.peer_takes_more();
                self.cold.frto = if more { Frto::Second } else { Frto::Off };
                if more {
                    self.hot.cwnd = self.in_flight_bytes() + 2 * u32::from(self.hot.smss);
                }
                false
            }
            // Step 3: data that was sent once and before the timeout has arrived.
            Frto::Second if freed.original.is_some_and(before_timeout) => {
                self.cold.frto = Frto::Off;
                true
            }
            Frto::First | Frto::Second => {
                self.cold.frto = Frto::Off;
                false
            }
        }
    }

    /// Puts back what the last reduction took.
    pub(super) fn undo(&mut self, env: &mut Env<'_>) {
        let Some(undo) = self.cold.undo.take() else { return };
        env.counters.inc(Counter::TcpSpurious);
        // What was taken for lost had been overtaken.
        self.cold.rack.reordering_seen |= !self.hot.flags.contains(ConnFlags::LOSS);
        self.cold.cc.on_event(CcEvent::Undo);
        self.hot.cwnd = self.hot.cwnd.max(undo.cwnd);
        self.cold.ring.unmark_lost();
        self.cold.frto = Frto::Off;
        self.hot.flags.remove(ConnFlags::RECOVERY | ConnFlags::LOSS | ConnFlags::FIN_LOST);
    }
}

/// A DSACK reports data below the cumulative acknowledgment; further down than this it is no news.
const DSACK_REACH: u32 = 1 << 30;
