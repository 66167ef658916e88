//! The timers of a connection: retransmission, tail loss probe, persist, keepalive, and the one deadline that they make.

use super::config::{KEEPALIVE_INTERVAL, KEEPALIVE_PROBES};
use super::conn::{Conn, ConnFlags, TimerKind};
use super::{Outcome, State};
use crate::counters::Counter;
use crate::env::Env;
use crate::time::{Duration, Instant};

impl Conn<'_> {
    /// Runs what is due.
    pub fn on_timer(&mut self, now: Instant, env: &mut Env<'_>) -> Outcome {
        let mut outcome = Outcome::empty();
        if self.hot.ack_at <= now {
            self.hot.ack_at = Instant::MAX;
            self.hot.flags |= ConnFlags::ACK_NOW;
        }
        if self.hot.pace_at <= now {
            self.hot.flags.remove(ConnFlags::PACE_WAITS);
        }
        if self.cold.reorder_at <= now {
            self.on_reordering_timer(now, env);
        }
        if self.cold.linger_at <= now {
            self.close();
            return Outcome::CLOSED;
        }
        if self.hot.rto_at <= now {
            self.hot.rto_at = Instant::MAX;
            outcome |= self.on_retransmission_timer(now, env);
        }
        if self.silent_at() <= now {
            outcome |= self.on_silence();
        }
        outcome |= self.on_keepalive(now, env);
        self.arm(now);
        outcome
    }

    fn on_retransmission_timer(&mut self, now: Instant, env: &mut Env<'_>) -> Outcome {
        if matches!(self.hot.state, State::SynSent | State::SynReceived) {
            if self.cold.handshake.sent > self.cold.config.syn_retries {
                return self.give_up(env);
            }
            env.counters.inc(Counter::TcpSynRetransmits);
            self.hot.flags |= ConnFlags::SYN_QUEUED;
            return Outcome::RTO;
        }
        match self.cold.timer {
            TimerKind::TailProbe => {
                env.counters.inc(Counter::TcpTailProbes);
                self.hot.flags |= ConnFlags::TAIL_PROBE;
                Outcome::empty()
            }
            TimerKind::Persist => {
                // RFC 9293 §3.8.6.1: probing goes on as long as the peer answers.
                if now.since(self.cold.heard_at) > self.cold.config.user_timeout {
                    return self.give_up(env);
                }
                self.cold.probes = self.cold.probes.saturating_add(1);
                env.counters.inc(Counter::TcpZeroWindowProbes);
                self.hot.flags |= ConnFlags::PROBE;
                Outcome::empty()
            }
            TimerKind::Retransmit => self.on_timeout(now, env),
        }
    }

    /// The way to the peer is there again after a time when nothing could be sent: what waits for an answer is sent again at
    /// once, instead of when a timer fires that has backed off meanwhile (RFC 6298 §5.5 backs off for congestion, of which
    /// a missing link says nothing).
    pub fn path_is_back(&mut self, now: Instant) {
        if self.hot.rto_at == Instant::MAX {
            return;
        }
        if self.cold.timer == TimerKind::TailProbe {
            self.cold.timer = TimerKind::Retransmit;
        }
        self.cold.rtt.backoff = 0;
        self.hot.rto_at = now;
    }

    /// The peer is heard.
    #[inline]
    pub(super) fn hear(&mut self, now: Instant, env: &mut Env<'_>) {
        if self.hot.flags.contains(ConnFlags::LOSS) {
            self.hear_again(now, env);
        }
        self.cold.heard_at = now;
        self.cold.keepalives = 0;
    }

    /// A silence of more than a timeout, in which timers backed off, was a cut rather than congestion: what waits is sent
    /// again now, and not when a timer fires that has backed off. RFC 6069 does as much where routers tell of the cut. A window
    /// that is closed has probes of its own.
    #[cold]
    fn hear_again(&mut self, now: Instant, env: &mut Env<'_>) {
        let rtt = &self.cold.rtt;
        let timed_out = rtt.backoff > 1 && self.cold.timer == TimerKind::Retransmit && self.hot.snd_wnd > 0;
        if timed_out && now.since(self.cold.heard_at) > rtt.base_rto() {
            env.counters.inc(Counter::TcpHeardAgain);
            self.path_is_back(now);
        }
    }

    /// The peer has not answered for too long: the connection ends, and a reset says so should it still be there.
    pub(super) fn give_up(&mut self, env: &mut Env<'_>) -> Outcome {
        env.counters.inc(Counter::TcpUserTimeouts);
        self.abort(env);
        Outcome::TIMED_OUT | Outcome::CLOSED
    }

    /// RFC 9293 §3.8.4.
    fn on_keepalive(&mut self, now: Instant, env: &mut Env<'_>) -> Outcome {
        let Some(due) = self.keepalive_at() else { return Outcome::empty() };
        if due > now {
            return Outcome::empty();
        }
        let probes = self.cold.keepalives;
        let over = self.keepalive_ends().is_some_and(|end| end <= now);
        if probes >= KEEPALIVE_PROBES || probes > 0 && over {
            return self.give_up(env);
        }
        self.cold.keepalives += 1;
        env.counters.inc(Counter::TcpKeepalives);
        self.hot.flags |= ConnFlags::PROBE;
        Outcome::empty()
    }

    /// How long the connection may be silent before it is probed; `None` for ever.
    fn keepalive_idle(&self) -> Option<Duration> {
        let keepalive = self.cold.config.keepalive;
        match self.hot.state {
            _ if !self.cold.ring.is_empty() => None,
            State::Established | State::CloseWait => keepalive,
            // Half closed, the peer has only to answer: a connection that it has forgotten does not stay for ever.
            State::FinWait2 => Some(keepalive.unwrap_or(FIN_WAIT_2_IDLE).min(FIN_WAIT_2_IDLE)),
            _ => None,
        }
    }

    fn keepalive_at(&self) -> Option<Instant> {
        let idle = self.keepalive_idle()?;
        let probes = u64::from(self.cold.keepalives);
        let next = self.cold.heard_at + idle + KEEPALIVE_INTERVAL.min(idle) * probes;
        Some(if probes > 0 { next.min(self.keepalive_ends()?) } else { next })
    }

    /// A peer that leaves probes unanswered has as long as one that leaves data unacknowledged (RFC 9293 §3.8.3).
    fn keepalive_ends(&self) -> Option<Instant> {
        Some(self.cold.heard_at + self.keepalive_idle()? + self.cold.config.user_timeout)
    }

    /// When the connection wants [`Conn::on_timer`] called.
    pub fn next_deadline(&self) -> Option<Instant> {
        let due = self.deadline();
        (due < Instant::MAX).then_some(due)
    }

    /// [`Conn::next_deadline`], with [`Instant::MAX`] for never.
    #[inline]
    pub fn deadline(&self) -> Instant {
        let paced = if self.hot.flags.contains(ConnFlags::PACE_WAITS) { self.hot.pace_at } else { Instant::MAX };
        let due = self.hot.rto_at.min(self.hot.ack_at).min(paced).min(self.cold.reorder_at).min(self.cold.linger_at);
        let due = if self.cold.probe.is_some() { due.min(self.silent_at()) } else { due };
        // Of an open connection only the operator's wish is a reason to ask whether the peer is there.
        if self.hot.state == State::Established && self.cold.config.keepalive.is_none() {
            return due;
        }
        due.min(self.keepalive_at().unwrap_or(Instant::MAX))
    }

    /// What is wrong with the timers, once everything that may be sent was sent: what waits for the peer has a timer that is
    /// due within the current retransmission timeout (RFC 6298 §5.1), what waits for its window one that probes it. For
    /// tests and simulations; in a connection that works it is always `None`.
    pub fn timer_fault(&self, now: Instant) -> Option<String> {
        let flags = self.hot.flags;
        if !self.hot.state.is_synchronized() || flags.intersects(ConnFlags::HELD | ConnFlags::RESET_QUEUED) {
            return None;
        }
        let ring = &self.cold.ring;
        let fin_out = flags.contains(ConnFlags::FIN_SENT) && self.hot.snd_una != self.hot.snd_end + 1;
        let (what, limit) = if ring.sent_len() > 0 || fin_out {
            ("is not acknowledged", self.cold.rtt.rto(&self.cold.config))
        } else if ring.unsent > 0 && self.hot.state.may_send() {
            ("is not sent", self.cold.config.max_rto)
        } else {
            return None;
        };
        // Timers for other ends (delayed acknowledgments, keepalive) send none of it.
        let paced = if flags.contains(ConnFlags::PACE_WAITS) { self.hot.pace_at } else { Instant::MAX };
        let due = self.hot.rto_at.min(self.cold.reorder_at).min(paced);
        (due > now + limit).then(|| {
            let (una, nxt, end) = (self.hot.snd_una, self.hot.snd_nxt, self.hot.snd_end);
            let (state, unsent, after) = (self.hot.state, ring.unsent, due.since(now));
            format!(
                "{state:?}, {una:?} to {nxt:?} of {end:?} sent, {unsent} bytes unsent: data {what} and the next timer is \
                 due after {after}, not within {limit}"
            )
        })
    }

    /// Sets the timer at `rto_at` when it is not set and something that was sent waits for an answer.
    #[inline]
    pub(super) fn arm(&mut self, now: Instant) {
        // Without anything out there is nothing that could be armed.
        let out = self.cold.ring.sent_len() > 0 || self.hot.flags.contains(ConnFlags::FIN_SENT);
        if out && self.hot.rto_at == Instant::MAX {
            self.arm_retransmission(now);
        }
    }

    fn arm_retransmission(&mut self, now: Instant) {
        let flags = self.hot.flags;
        if !self.hot.state.is_synchronized() || flags.contains(ConnFlags::HELD) {
            return;
        }
        let fin_out = flags.contains(ConnFlags::FIN_SENT) && self.hot.snd_una != self.hot.snd_end + 1;
        if self.cold.ring.sent_len() == 0 && !fin_out {
            return;
        }
        let (kind, wait) = match self.probe_timeout(now) {
            Some(wait) => (TimerKind::TailProbe, wait),
            None => (TimerKind::Retransmit, self.cold.rtt.rto(&self.cold.config)),
        };
        self.cold.timer = kind;
        self.hot.rto_at = now + wait;
    }

    /// After everything that may be sent was sent: when data waits, nothing is in flight and no timer runs, it is the
    /// peer's window that holds it back, and that has to be probed (RFC 9293 §3.8.6.1).
    pub(super) fn arm_persist(&mut self, now: Instant) {
        let blocked = self.cold.ring.unsent > 0
            && self.cold.ring.sent_len() == 0
            && self.hot.state.is_synchronized()
            && !self.hot.flags.intersects(ConnFlags::SHARED_WINDOW | ConnFlags::HELD | ConnFlags::PACE_WAITS);
        if !blocked || self.hot.rto_at != Instant::MAX {
            return;
        }
        self.cold.timer = TimerKind::Persist;
        let backed_off = self.cold.rtt.rto(&self.cold.config).as_micros() << self.cold.probes.min(12);
        self.hot.rto_at = now + Duration::from_micros(backed_off.min(self.cold.config.max_rto.as_micros()));
    }
}

/// How long a peer that owes us its FIN may be silent before it is asked whether it still knows of the connection.
const FIN_WAIT_2_IDLE: Duration = Duration::from_secs(120);
