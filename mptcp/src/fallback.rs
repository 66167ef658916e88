//! Every way down to plain TCP, and when it must be a reset instead (RFC 8684 §3.7).
//!
//! After a fallback the data sequence space goes on as a mirror of the one subflow's: data sent and received keeps its
//! numbers, which only stop being said. So the sending and receiving sides work as before, with the subflow's ACKs in
//! the place of DATA_ACKs.

use mimbox_stack::tcp::ConnTable;
use mimbox_stack::{Counter, Env, Instant, RxQueue, SeqNum};

use crate::connection::{Connection, DataFin, Mode, ask_ack};
use crate::dsn::Dsn;
use crate::event::{Event, HalfOutcome};
use crate::limits::{INFINITE_ON_ACKS, UNCONFIRMED_TIMEOUTS};
use crate::option::{MptcpOption, ResetReason};
use crate::subflow::{Phase, ResetWith, Subflow};

/// Why a connection falls back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// An MPTCP option of the handshake is missing or wrong.
    Handshake,
    /// Data or its acknowledgment came without an option.
    NoOption,
    /// A checksum did not match, here or at the peer.
    Checksum,
    /// The peer declared the infinite mapping.
    InfiniteMapping,
}

/// What plain operation needs to know beside the subflow itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fallback {
    /// No option is sent any more.
    Silent,
    /// The infinite mapping is said on what takes sequence space, until some of it that carried the mapping has arrived. As
    /// there may be nothing of the kind to send, it is said on so many pure ACKs as well.
    SayInfinite {
        /// What acknowledges the first segment that carried it.
        said_to: Option<SeqNum>,
        /// Pure ACKs that will carry it.
        on_acks: u8,
    },
}

impl Fallback {
    /// True when the next segment carries the infinite mapping; `end` is its end if it takes sequence space. A segment that
    /// is sent `again` may have arrived before, and then nobody reads what it says now.
    pub(crate) fn says_infinite(&mut self, end: Option<SeqNum>, again: bool) -> bool {
        match (self, end) {
            (Self::SayInfinite { said_to, .. }, Some(end)) => {
                if !again {
                    said_to.get_or_insert(end);
                }
                true
            }
            (Self::SayInfinite { on_acks, .. }, None) if *on_acks > 0 => {
                *on_acks -= 1;
                true
            }
            _ => false,
        }
    }

    /// Everything before `una` has arrived.
    fn on_ack(&mut self, una: SeqNum) {
        if matches!(self, Self::SayInfinite { said_to: Some(end), .. } if una.at_or_after(*end)) {
            *self = Self::Silent;
        }
    }
}

impl Connection {
    /// Goes on as plain TCP on subflow `index`, the only one.
    pub(crate) fn fall_back(&mut self, index: usize, reason: Reason, conns: &mut ConnTable, env: &mut Env<'_>) {
        if matches!(self.mode, Mode::Plain(_)) {
            return;
        }
        env.counters.inc(match reason {
            Reason::Handshake => Counter::MptcpFallbackHandshake,
            Reason::NoOption | Reason::InfiniteMapping => Counter::MptcpFallbackNoOption,
            Reason::Checksum => Counter::MptcpFallbackChecksum,
        });
        // RFC 8684 §3.7: whoever finds that options do not pass says so by one infinite mapping, in case they pass in
        // the other direction. After a handshake without MP_CAPABLE no option is sent at all.
        let says = self.mode == Mode::Multipath && reason != Reason::Handshake;
        self.mode = Mode::Plain(if says {
            Fallback::SayInfinite { said_to: None, on_acks: INFINITE_ON_ACKS }
        } else {
            Fallback::Silent
        });
        self.established = true;
        self.deadlines.data = Instant::MAX;
        self.deadlines.probe = Instant::MAX;
        self.paths.clear();
        self.dirty = true;
        // A DATA_FIN no longer means anything: our FIN takes its place.
        self.snd.una = self.snd.una.min(self.snd.nxt);
        if self.snd.fin != DataFin::NotYet {
            self.snd.fin = DataFin::Queued;
        }
        let subflow = &mut self.subflows[index];
        subflow.phase = Phase::Open;
        subflow.signals.clear();
        subflow.end_signal_pause();
        subflow.fin_due = false;
        if let Some(mut conn) = conns.get(subflow.id) {
            conn.take_window_back();
            // What the peer has acknowledged so far on the subflow counts from here on instead of DATA_ACKs.
            subflow.last_una = conn.snd_una();
            let acked = u64::from(conn.snd_una().distance_from(subflow.snd_origin + 1)).min(u64::from(u32::MAX / 2));
            let una = (self.first_local() + acked).min(self.snd.sent);
            if una.after(self.snd.una) && self.contiguous {
                self.advance_una(una, env);
            }
        }
        self.event(Event::Fallback(reason));
    }

    /// The data sequence number of the first byte that we send.
    pub(crate) fn first_local(&self) -> Dsn {
        self.local.idsn + 1
    }

    /// After a fallback: what the subflow's ACKs say, in place of DATA_ACKs.
    ///
    /// RFC 8684 §3.7: after the infinite mapping only subflow ACKs clear the send buffer.
    pub(crate) fn on_plain_ack(&mut self, conns: &mut ConnTable, env: &mut Env<'_>) {
        let Some(subflow) = self.subflows.first_mut() else { return };
        let Some(conn) = conns.get(subflow.id) else { return };
        let una = conn.snd_una();
        if let Mode::Plain(state) = &mut self.mode {
            state.on_ack(una);
        }
        let acked = una.saturating_distance_from(subflow.last_una);
        subflow.last_una = subflow.last_una.max(una);
        // The FIN takes a sequence number but no byte.
        let data_una = (self.snd.una + u64::from(acked)).min(self.snd.sent);
        if data_una.after(self.snd.una) {
            self.advance_una(data_una, env);
        }
    }

    /// After a fallback: payload in order on the subflow is the stream.
    pub(crate) fn take_plain(&mut self, index: usize, fresh: &mut RxQueue, out: &mut RxQueue, env: &mut Env<'_>) {
        let mut waiting = std::mem::take(fresh);
        // What waited for a mapping or its checksum comes first.
        let mut held = RxQueue::new();
        self.subflows[index].mapper.drain_unmapped(&mut held, env);
        for mut segment in held.drain(..).chain(waiting.drain(..)) {
            segment.dsn = self.rcv.nxt.0;
            self.hand_out(segment, out);
        }
        *fresh = waiting;
    }

    /// The peer maps all that follows without end: it falls back. With one subflow and contiguous data that is the line
    /// which the mappings lie on anyway.
    pub(crate) fn on_infinite_mapping(&mut self, index: usize, now: Instant, conns: &mut ConnTable, env: &mut Env<'_>) {
        if !self.may_follow(now, index, conns, env) {
            return self.abort_subflow(now, index, Some(ResetReason::MptcpSpecific), ResetWith::Nothing, conns, env);
        }
        self.fall_back(index, Reason::InfiniteMapping, conns, env);
    }

    /// True when the stream is contiguous on the one subflow, so that plain TCP can go on where MPTCP ends.
    pub(crate) fn may_fall_back(&self) -> bool {
        self.contiguous && self.subflows.len() == 1 && self.rcv.reorder.is_empty()
    }

    /// Something is sent on a second subflow.
    pub(crate) fn repeat(&mut self) {
        self.contiguous = false;
        self.repeated = true;
    }

    /// True when the connection can follow a peer that fell back on subflow `index`. A join of ours may be under way of which
    /// the peer does not know, or may have failed, or stands and has carried nothing. The stream is contiguous on the first
    /// subflow then all the same, and the others are reset.
    fn may_follow(&mut self, now: Instant, index: usize, conns: &mut ConnTable, env: &mut Env<'_>) -> bool {
        if self.may_fall_back() {
            return true;
        }
        let first = self.subflows.get(index).is_some_and(Subflow::is_initial);
        let carries = |subflow: &Subflow| !subflow.is_initial() && subflow.has_carried();
        let elsewhere = self.elsewhere || self.subflows.iter().any(carries);
        let nothing_elsewhere = first && !elsewhere && !self.repeated && self.rcv.reorder.is_empty();
        if nothing_elsewhere {
            for other in (0..self.subflows.len()).filter(|&other| other != index) {
                let reason = Some(ResetReason::MiddleboxInterference);
                self.abort_subflow(now, other, reason, ResetWith::Nothing, conns, env);
            }
            self.contiguous = true;
        }
        nothing_elsewhere
    }

    /// A mapping that starts at `dsn` does not match its checksum.
    pub(crate) fn on_checksum_failure(
        &mut self,
        now: Instant,
        index: usize,
        dsn: Dsn,
        conns: &mut ConnTable,
        out: &mut RxQueue,
        env: &mut Env<'_>,
    ) {
        env.counters.inc(Counter::MptcpDssChecksumErrors);
        env.counters.inc(Counter::MptcpFailOut);
        if !self.may_fall_back() {
            // RFC 8684 §3.7: several subflows: this one is closed by a RST with MP_FAIL, its data comes by another.
            return self.abort_subflow(
                now,
                index,
                Some(ResetReason::MiddleboxInterference),
                ResetWith::Fail(dsn.0),
                conns,
                env,
            );
        }
        // One subflow, contiguous data: MP_FAIL on the ACK, then both sides go on as plain TCP. What a middlebox made of
        // the payload is what plain TCP would have delivered as well.
        self.fall_back(index, Reason::Checksum, conns, env);
        self.subflows[index].signals.push(MptcpOption::Fail { dsn: dsn.0 });
        ask_ack(conns.get(self.subflows[index].id));
        let mut nothing = RxQueue::new();
        self.take_plain(index, &mut nothing, out, env);
    }

    /// The peer says that what we sent from `dsn` on did not arrive as it was.
    pub(crate) fn on_fail(&mut self, now: Instant, index: usize, conns: &mut ConnTable, env: &mut Env<'_>) {
        env.counters.inc(Counter::MptcpFailIn);
        if !self.may_follow(now, index, conns, env) {
            // It came on an ACK, not with a reset: the peer goes on as plain TCP on what it takes for the only subflow. What
            // is in flight here lies on no single line. To go on would give the peer's application data twice, or unchecked.
            env.counters.inc(Counter::MptcpFastcloseOut);
            self.reset_all(ResetWith::FastClose, conns, env);
            return self.reset_by_peer(env);
        }
        // RFC 8684 §3.7: the receiver of an MP_FAIL answers with one and reverts to plain TCP entirely.
        env.counters.inc(Counter::MptcpFailOut);
        self.fall_back(index, Reason::Checksum, conns, env);
        self.subflows[index].signals.push(MptcpOption::Fail { dsn: self.rcv.nxt.0 });
        ask_ack(conns.get(self.subflows[index].id));
    }

    /// After a fallback: the peer's FIN ends its stream.
    pub(crate) fn on_plain_fin(&mut self) {
        if !self.rcv.fin_done {
            self.rcv.fin_done = true;
            self.outcome |= HalfOutcome::FIN;
            self.event(Event::DataFin);
        }
    }

    /// After a fallback: our FIN follows the last byte.
    pub(crate) fn finish_plain(&mut self, conns: &mut ConnTable) {
        if self.snd.fin == DataFin::Queued && self.snd.next == self.snd.retained.len() {
            self.snd.fin = DataFin::Sent;
            if let Some(mut conn) = self.subflows.first().and_then(|subflow| conns.get(subflow.id)) {
                conn.shutdown();
            }
        }
    }

    /// Where the infinite mapping starts: at the first byte not acknowledged, on the data level and on subflow `index`.
    pub(crate) fn infinite_start(&self, index: usize) -> (Dsn, u32) {
        let subflow = &self.subflows[index];
        (self.snd.una.min(self.snd.nxt), subflow.last_una.distance_from(subflow.snd_origin))
    }

    /// True when the FIN of the only subflow there ever was ends a connection whose peer has fallen back, though its
    /// infinite mapping was lost: there is data before the FIN that has no mapping and can get none any more, or its last
    /// acknowledgments of our data had no DATA_ACK. A peer that only closes a subflow goes on with its options.
    pub(crate) fn peer_fell_back_unheard(&self, index: usize) -> bool {
        let subflow = &self.subflows[index];
        matches!(self.mode, Mode::Multipath)
            && self.may_fall_back()
            && self.rcv.fin.is_none()
            && subflow.is_initial()
            && subflow.phase == Phase::Open
            && (subflow.mapper.pending_frames() > 0 || subflow.bare_acks)
    }

    /// True when a data-level timeout shows that options do not pass on the only subflow there ever was: what is sent there
    /// arrives, but no DATA_ACK comes back.
    ///
    /// RFC 8684 §3.7 lets the ACK of the first data decide. It is silent about a peer that falls back later and has no data
    /// to say so with, and about a connection that ends without any.
    pub(crate) fn options_are_lost(&self, conns: &mut ConnTable) -> bool {
        let [subflow] = self.subflows.as_slice() else { return false };
        if !subflow.is_initial() || !self.may_fall_back() {
            return false;
        }
        if subflow.confirmed {
            return subflow.bare_acks;
        }
        self.data_tries >= UNCONFIRMED_TIMEOUTS && conns.get(subflow.id).is_some_and(|conn| conn.all_acked())
    }
}
