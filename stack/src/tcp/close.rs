//! The end of a connection: FIN states, TIME-WAIT, and what the reset rules of RFC 5961 ask for.

use super::config::CHALLENGE_ACKS_PER_SECOND;
use super::conn::{Conn, ConnFlags};
use super::handshake::Stray;
use super::{Outcome, State};
use crate::counters::Counter;
use crate::env::Env;
use crate::options::Timestamps;
use crate::seq::SeqNum;
use crate::time::{Duration, Instant};
use crate::wire::{FlowKey, Outgoing, SegmentIn, TcpFlags};

/// What stays of a connection in TIME-WAIT (RFC 9293 §3.6.1).
#[derive(Clone, Copy, Debug)]
pub struct TimeWaitRecord {
    flow: FlowKey,
    snd_nxt: SeqNum,
    rcv_nxt: SeqNum,
    ts_recent: u32,
    ts_offset: u32,
    window: u16,
    timestamps: bool,
}

const _: () = assert!(size_of::<TimeWaitRecord>() <= 96);

impl TimeWaitRecord {
    /// The connection's 4-tuple.
    pub const fn flow(&self) -> &FlowKey {
        &self.flow
    }

    /// True for a SYN that begins a new connection (RFC 6191 §2): newer by its timestamp, where timestamps tell, or by its
    /// sequence number; and any with timestamps after a connection without.
    pub fn gives_way_to(&self, segment: &SegmentIn) -> bool {
        let syn = segment.flags.contains(TcpFlags::SYN) && !segment.flags.intersects(TcpFlags::ACK | TcpFlags::RST);
        let later = segment.seq.after(self.rcv_nxt);
        let newer = match segment.options.timestamps {
            Some(ts) if self.timestamps => match ts.value.wrapping_sub(self.ts_recent) as i32 {
                0 => later,
                ahead => ahead > 0,
            },
            Some(_) => true,
            None => later,
        };
        syn && newer
    }

    /// The ACK that answers anything else than a reset.
    pub fn answer(&self, now: Instant, segment: &SegmentIn) -> Option<Outgoing> {
        if segment.flags.contains(TcpFlags::RST) || segment.seq_len() == 0 {
            return None;
        }
        let mut out = Outgoing::bare(self.snd_nxt, self.rcv_nxt, TcpFlags::ACK);
        out.window = self.window;
        out.timestamps = self
            .timestamps
            .then(|| Timestamps { value: (now.as_millis() as u32).wrapping_add(self.ts_offset), echo: self.ts_recent });
        Some(out)
    }
}

impl Conn<'_> {
    /// What is left of the connection when it goes in [`State::TimeWait`].
    pub fn time_wait_record(&self, _now: Instant) -> TimeWaitRecord {
        TimeWaitRecord {
            flow: self.cold.flow,
            snd_nxt: self.hot.snd_nxt,
            rcv_nxt: self.hot.rcv_nxt,
            ts_recent: self.hot.ts_recent,
            ts_offset: self.hot.ts_offset,
            window: self.shown_window(),
            timestamps: self.hot.flags.contains(ConnFlags::TIMESTAMPS),
        }
    }

    /// The window field that says the edge which the peer was shown (RFC 9293 §3.8.6: it never moves left).
    fn shown_window(&self) -> u16 {
        let left = self.hot.rcv_edge.saturating_distance_from(self.hot.rcv_nxt);
        left.div_ceil(1 << self.hot.rcv_scale).min(0xffff) as u16
    }

    /// RFC 5961 §3.2: a reset counts only at exactly `rcv_nxt`; elsewhere in the window it is challenged.
    pub(super) fn on_reset(&mut self, now: Instant, segment: &SegmentIn, env: &mut Env<'_>) -> Outcome {
        if segment.seq != self.hot.rcv_nxt {
            self.challenge(now, env);
            return Outcome::empty();
        }
        // RFC 1337 §3: nothing is left that a reset could abort, and the peer has had everything.
        if self.hot.state == State::TimeWait {
            return Outcome::empty();
        }
        // RFC 9293 §3.10.7.4, second step: a peer that has closed and acknowledged all data only lacks our FIN.
        let over = matches!(self.hot.state, State::Closing | State::LastAck) && self.cold.ring.is_empty();
        env.counters.inc(Counter::TcpResetsIn);
        self.release(env);
        self.hot.flags &= ConnFlags::TIMESTAMPS | ConnFlags::SHARED_WINDOW;
        self.close();
        if over { Outcome::ACCEPTED | Outcome::CLOSED } else { Outcome::ACCEPTED | Outcome::RESET | Outcome::CLOSED }
    }

    /// Sends a challenge ACK, so many a second and connection (RFC 5961 §7, erratum 4772).
    pub(super) fn challenge(&mut self, now: Instant, env: &mut Env<'_>) {
        if now.since(self.cold.challenge_at) >= Duration::from_secs(1) {
            self.cold.challenge_at = now;
            self.cold.challenges = 0;
        }
        if self.cold.challenges >= CHALLENGE_ACKS_PER_SECOND {
            return env.counters.inc(Counter::TcpChallengeAcksLimited);
        }
        self.cold.challenges += 1;
        env.counters.inc(Counter::TcpChallengeAcks);
        if self.hot.state == State::SynReceived {
            self.cold.handshake.stray = Some(Stray::Challenge);
        } else {
            self.hot.flags |= ConnFlags::ACK_NOW;
        }
    }

    /// Our FIN was acknowledged (RFC 9293 §3.10.7.4, fifth step).
    pub(super) fn on_fin_acked(&mut self) {
        self.hot.state = match self.hot.state {
            State::FinWait1 => State::FinWait2,
            State::Closing => State::TimeWait,
            State::LastAck => State::Closed,
            other => other,
        };
    }

    /// Says once that nothing more will come, when that is so.
    pub(super) fn closing_outcome(&mut self, now: Instant) -> Outcome {
        match self.hot.state {
            State::Closed => {
                self.close();
                Outcome::CLOSED
            }
            State::TimeWait => {
                self.hot.rto_at = Instant::MAX;
                self.cold.linger_at = now + self.cold.config.time_wait;
                Outcome::CLOSED
            }
            _ => Outcome::empty(),
        }
    }
}
