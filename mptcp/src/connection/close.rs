//! Ends: of the data level (DATA_FIN, MP_FASTCLOSE) and of single subflows (RFC 8684 §3.3.3, §3.5, §3.6).

use mimbox_stack::tcp::{Conn, ConnId, ConnTable, Outcome, State};
use mimbox_stack::{Counter, Env, Instant, Outgoing, TcpFlags};

use super::{Connection, DataFin, Mode, ask_ack};
use crate::config::LastReset;
use crate::event::{Event, HalfOutcome, SubflowEnd};
use crate::key::Version;
use crate::option::{MptcpOption, ResetReason, Signals};
use crate::subflow::{Phase, ResetWith};

/// Timeouts after which a silent subflow of a connection that is over is reset. That another subflow's FIN was acknowledged
/// is no proof that the DATA_ACK on it was read: a middlebox may strip the options there. After fewer, the next FIN on this
/// one may still bring it across.
const LAST_TRIES: u8 = 4;

impl Connection {
    /// Ends the connection at once: MP_FASTCLOSE and RST on every subflow.
    pub fn abort(&mut self, conns: &mut ConnTable, env: &mut Env<'_>) {
        if self.over {
            return;
        }
        // RFC 8684 §3.5, option R: a RST with MP_FASTCLOSE on all subflows. Without the peer's key it is a plain RST.
        let with = if matches!(self.mode, Mode::Multipath) {
            env.counters.inc(Counter::MptcpFastcloseOut);
            self.say_fastclose(conns);
            ResetWith::FastClose
        } else {
            ResetWith::Nothing
        };
        self.reset_all(with, conns, env);
        self.end(env);
    }

    /// RFC 6824 §3.5: in version 0 MP_FASTCLOSE stands on an ACK, the resets follow it.
    fn say_fastclose(&mut self, conns: &mut ConnTable) {
        if self.version != Version::V0 {
            return;
        }
        let Some(index) = self.best_signaller(conns, None) else { return };
        let id = self.subflows[index].id;
        if let Some(conn) = conns.get(id) {
            let mut ack = Outgoing::bare(conn.snd_nxt(), conn.rcv_nxt(), TcpFlags::ACK);
            MptcpOption::FastClose { key: self.remote_key }.emit(&mut ack.upper);
            self.parting = Some((id, ack));
        }
    }

    /// Tells the connection that the owner has removed subflow `id` by itself.
    pub fn subflow_closed(&mut self, now: Instant, id: ConnId, env: &mut Env<'_>) {
        if let Some(index) = self.index_of(id) {
            self.note_ended(now, index, LastReset::Wait, env);
            self.subflows[index].mapper.clear(env);
            self.subflows.remove(index);
        }
    }

    pub(crate) fn reset_all(&mut self, with: ResetWith, conns: &mut ConnTable, env: &mut Env<'_>) {
        for subflow in &mut self.subflows {
            if subflow.phase != Phase::Aborted {
                subflow.phase = Phase::Aborted;
                subflow.reset_with = with;
                subflow.end = SubflowEnd::ResetByUs(None);
                if let Some(mut conn) = conns.get(subflow.id) {
                    conn.abort(env);
                }
            }
        }
    }

    /// Nothing more is sent or received at data level. Resets that are queued still go out.
    pub(super) fn end(&mut self, env: &mut Env<'_>) {
        if self.over {
            return;
        }
        self.over = true;
        self.outcome |= HalfOutcome::CLOSED;
        while let Some(segment) = self.snd.retained.pop_front(env.tx_rings) {
            env.pool.release(segment.frame);
        }
        self.snd.next = 0;
        self.rcv.reorder.clear(env);
        for subflow in &mut self.subflows {
            subflow.mapper.clear(env);
        }
        if self.subflows.is_empty() {
            self.finish();
        }
    }

    /// The last thing that a connection says.
    pub(super) fn finish(&mut self) {
        if !self.closed {
            self.closed = true;
            self.event(Event::Closed);
        }
    }

    /// The peer ends the whole connection.
    pub(super) fn on_fastclose(&mut self, conns: &mut ConnTable, env: &mut Env<'_>) {
        env.counters.inc(Counter::MptcpFastcloseIn);
        // RFC 8684 §3.5: answered by RSTs on all subflows.
        self.reset_all(ResetWith::Nothing, conns, env);
        self.reset_by_peer(env);
    }

    pub(crate) fn reset_by_peer(&mut self, env: &mut Env<'_>) {
        if !self.over {
            self.outcome |= HalfOutcome::RESET;
            self.event(Event::Reset);
            self.end(env);
        }
    }

    /// The peer reset subflow `index`.
    pub(super) fn on_reset(
        &mut self,
        now: Instant,
        index: usize,
        signals: &Signals,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) {
        if signals.reset.is_some() {
            env.counters.inc(Counter::MptcpTcprstIn);
        }
        if signals.fail.is_some() {
            env.counters.inc(Counter::MptcpFailIn);
        }
        if !self.subflows[index].ended {
            self.subflows[index].end = SubflowEnd::ResetByPeer(signals.reset.map(|reset| reset.reason));
        }
        if signals.fastclose == Some(self.local_key) && matches!(self.mode, Mode::Multipath) {
            self.subflows[index].phase = Phase::Aborted;
            return self.on_fastclose(conns, env);
        }
        self.note_ended(now, index, self.config.last_reset, env);
    }

    /// What a verb of a subflow's connection said about its end.
    pub(super) fn note_conn_end(
        &mut self,
        now: Instant,
        index: usize,
        result: Outcome,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) {
        if result.contains(Outcome::TIMED_OUT) {
            if !self.established {
                self.outcome |= HalfOutcome::TIMED_OUT;
            }
            self.subflows[index].end = SubflowEnd::TimedOut;
            self.note_ended(now, index, LastReset::Wait, env);
            return;
        }
        let conn = conns.get(self.subflows[index].id);
        self.told |= self.is_done() && conn.as_ref().is_some_and(|conn| conn.fin_acked());
        let state = conn.map_or(State::Closed, |conn| conn.state());
        let ended = result.intersects(Outcome::CLOSED | Outcome::RESET);
        if ended || matches!(state, State::TimeWait | State::Closed) {
            self.note_ended(now, index, LastReset::Wait, env);
        }
    }

    /// Subflow `index` is over. What it has queued (a RST, a last ACK) is still polled; then it is reaped.
    pub(crate) fn note_ended(&mut self, now: Instant, index: usize, last_reset: LastReset, env: &mut Env<'_>) {
        let subflow = &mut self.subflows[index];
        if subflow.ended {
            return;
        }
        subflow.ended = true;
        subflow.phase = Phase::Aborted;
        subflow.third_ack_due = Instant::MAX;
        subflow.mapper.clear(env);
        self.elsewhere |= !subflow.is_initial() && subflow.has_carried();
        if self.over {
            return;
        }
        if !self.is_done() {
            env.counters.inc(Counter::MptcpSubflowsDead);
        }
        self.dirty = true;
        self.reinjection.start();
        let waits = matches!(self.mode, Mode::Multipath) && last_reset == LastReset::Wait && !self.is_done();
        if waits && !self.subflows.iter().any(|subflow| !subflow.ended && subflow.phase != Phase::Opening) {
            // RFC 8684 §3.3.3: the connection outlives its last subflow for a while, so that another path can take over.
            // Attempts that fail do not lengthen the time.
            self.deadlines.lonely = self.deadlines.lonely.min(now + self.config.no_subflow_timeout);
        }
        if self.subflows.iter().any(|subflow| !subflow.ended) {
            return;
        }
        let finished = match self.mode {
            Mode::Multipath => self.is_done(),
            Mode::Plain(_) => self.rcv.fin_done && self.snd.fin == DataFin::Sent && self.snd.retained.is_empty(),
            Mode::Negotiating => false,
        };
        if finished {
            return self.end(env);
        }
        if !waits {
            self.reset_by_peer(env);
        }
    }

    /// The peer closed subflow `index` by a FIN.
    pub(super) fn on_subflow_fin(&mut self, index: usize, conns: &mut ConnTable) {
        if matches!(self.mode, Mode::Plain(_)) {
            return self.on_plain_fin();
        }
        let subflow = &mut self.subflows[index];
        if subflow.phase == Phase::Open {
            // RFC 8684 §3.3.3: a FIN ends the subflow only. Ours follows what is queued there.
            subflow.phase = Phase::Closing;
            if let Some(mut conn) = conns.get(subflow.id) {
                conn.shutdown();
            }
        }
    }

    /// Says the DATA_FIN on the subflow that is best for it.
    pub(super) fn say_data_fin(&mut self, conns: &mut ConnTable) {
        if let Some(index) = self.best_signaller(conns, None) {
            self.snd.fin = DataFin::Sent;
            self.subflows[index].fin_due = true;
            ask_ack(conns.get(self.subflows[index].id));
        }
    }

    /// The DATA_FIN is not acknowledged: says it on every subflow.
    pub(crate) fn say_data_fin_everywhere(&mut self, conns: &mut ConnTable) {
        self.snd.fin_tries = self.snd.fin_tries.saturating_add(1);
        for subflow in self.subflows.iter_mut().filter(|subflow| subflow.takes_signals()) {
            subflow.fin_due = true;
            ask_ack(conns.get(subflow.id));
        }
    }

    /// Both directions are over, and some subflow has not closed in time: it is reset, and nobody misses anything.
    pub(super) fn on_close_timeout(&mut self, conns: &mut ConnTable, env: &mut Env<'_>) {
        self.deadlines.close = Instant::MAX;
        self.reset_all(ResetWith::Nothing, conns, env);
        self.end(env);
    }

    /// Closes what is left of a connection that is over and whose peer knows. It may be the last subflow: the verb that is
    /// at work then says that the connection is closed.
    pub(super) fn close_once_told(&mut self, now: Instant, conns: &mut ConnTable, env: &mut Env<'_>) {
        if self.told && !self.over && matches!(self.mode, Mode::Multipath) {
            self.close_subflows(now, conns, env);
        }
    }

    /// Once both DATA_FINs are acknowledged the subflows are closed (RFC 8684 §3.3.3).
    pub(super) fn close_subflows(&mut self, now: Instant, conns: &mut ConnTable, env: &mut Env<'_>) {
        // The peer may not know yet that its DATA_FIN arrived. A FIN brings it the DATA_ACK, however often it must be sent;
        // a reset does not, and is sent only once. So a silent subflow gets its FIN like all others: until the peer is known
        // to be told, it may be the only one that brings anything across.
        for index in 0..self.subflows.len() {
            let subflow = &mut self.subflows[index];
            let tried = |conn: Conn<'_>| subflow.down || conn.consecutive_timeouts() >= LAST_TRIES;
            match subflow.phase {
                Phase::Open | Phase::Closing
                    if subflow.stale && self.told && conns.get(subflow.id).is_none_or(tried) =>
                {
                    // Its data has been acknowledged elsewhere, or our FIN went unanswered there, as on a path that is down:
                    // waiting for it to come back serves nobody.
                    let reason = Some(ResetReason::TooMuchOutstanding);
                    self.abort_subflow(now, index, reason, ResetWith::Nothing, conns, env);
                }
                Phase::Open => {
                    subflow.phase = Phase::Closing;
                    if let Some(mut conn) = conns.get(subflow.id) {
                        conn.shutdown();
                    }
                }
                Phase::Opening | Phase::AwaitingFourthAck => {
                    self.abort_subflow(now, index, Some(ResetReason::Unspecified), ResetWith::Nothing, conns, env);
                }
                Phase::Closing | Phase::Aborted => {}
            }
        }
    }
}
