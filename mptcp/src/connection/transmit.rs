//! What is sent: data put on subflows, and the options that go with every segment.

use mimbox_stack::limits::{COALESCE_FROM, SMALL_SEGMENT};
use mimbox_stack::options::MAX_OPTION_BYTES;
use mimbox_stack::tcp::{ConnId, ConnTable};
use mimbox_stack::{Env, Instant, Outgoing, SeqNum, TcpFlags, TxFlags, TxSegment};

use super::{Connection, DataFin, Mode, Role, ask_ack, entry_end, holders, set_holders};
use crate::dsn::{Dsn, Width, WireDsn};
use crate::event::Event;
use crate::key::Version;
use crate::limits::{MAX_DATA_RTO, SCHEDULE_BURST, SIGNAL_PAUSE, SIGNALS_IN_A_ROW};
use crate::mapping::dss_checksum;
use crate::option::{Capable, CapableFlags, CapableForm, Dss, DssMapping, Join, JoinSyn, JoinSynAck, MptcpOption};
use crate::pieces;
use crate::scheduler::{Candidate, Candidates, SchedulerKind};
use crate::subflow::{Origin, Phase, ResetWith};

/// A window update is worth an ACK of its own when the window has grown by as much.
const WINDOW_STEP: u64 = 2 * 1448;
/// Option bytes of timestamps with their padding.
const TIMESTAMP_BYTES: usize = 12;

impl Connection {
    /// The next segment to send, and the subflow that sends it. Call it until it gives `None`.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) -> Option<(ConnId, Outgoing)> {
        let mut out = Outgoing::blank();
        self.poll_transmit_into(now, &mut out, conns, env).map(|id| (id, out))
    }

    /// [`Connection::poll_transmit`] into a place of the caller's, as [`mimbox_stack::tcp::Conn::poll_transmit_into`].
    pub fn poll_transmit_into(
        &mut self,
        now: Instant,
        out: &mut Outgoing,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) -> Option<ConnId> {
        if self.dirty && !self.over {
            self.dirty = false;
            self.prepare(now, conns, env);
        }
        if let Some((id, parting)) = self.parting.take() {
            *out = parting;
            return Some(id);
        }
        while let Some(subflow) = self.subflows.get(self.poll_at) {
            let id = subflow.id;
            if let Some(mut conn) = conns.get(id) {
                match self.mode {
                    // After a fallback the window is TCP's own affair, with the rules that TCP has for it.
                    Mode::Plain(_) => {
                        conn.set_receive_space(self.rcv.space);
                    }
                    Mode::Negotiating | Mode::Multipath => {
                        conn.set_shared_window(self.window(conn.receive_scale()));
                    }
                }
                if conn.poll_transmit_into(now, out, env) {
                    self.decorate(self.poll_at, out);
                    let subflow = &mut self.subflows[self.poll_at];
                    if subflow.signal_acks >= SIGNALS_IN_A_ROW && subflow.signals_due == Instant::MAX {
                        // In a round trip data that was in flight has come, and has been acknowledged.
                        subflow.signals_due = now + SIGNAL_PAUSE.max(conn.srtt());
                    }
                    if subflow.may_signal() || subflow.fin_due {
                        conn.request_ack();
                    }
                    return Some(id);
                }
            }
            self.poll_at += 1;
        }
        self.poll_at = 0;
        self.reap(env);
        None
    }

    /// The next segment of a train, as [`mimbox_stack::tcp::Conn::poll_train`]: `out` is what subflow `id` sent last, with a
    /// mapping, and nothing has happened since.
    #[inline]
    pub fn poll_train(
        &mut self,
        now: Instant,
        id: ConnId,
        out: &mut Outgoing,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) -> bool {
        let index = self.poll_at;
        let goes_on = self.mode == Mode::Multipath
            && !self.dirty
            && out.mapped
            && self.subflows.get(index).is_some_and(|subflow| subflow.id == id && subflow.phase == Phase::Open);
        if !goes_on || !conns.get(id).is_some_and(|mut conn| conn.poll_train(now, out, env)) {
            return false;
        }
        out.upper.clear();
        self.decorate_data(index, out);
        true
    }

    /// Before anything is polled: announcements, data onto subflows, DATA_FIN, window updates, deadlines.
    fn prepare(&mut self, now: Instant, conns: &mut ConnTable, env: &mut Env<'_>) {
        self.say_withdrawals(now, conns, env);
        if self.paths.deadline <= now {
            self.announce_again(now, conns);
        }
        self.schedule(now, conns, env);
        match self.mode {
            Mode::Multipath => {
                if self.snd.fin == DataFin::Queued && self.snd.next == self.snd.retained.len() {
                    self.say_data_fin(conns);
                }
                if self.is_done() {
                    self.close_subflows(now, conns, env);
                    self.deadlines.close = self.deadlines.close.min(now + self.config.close_timeout);
                }
                let outstanding = self.snd.una.before(self.snd.sent) || self.snd.fin == DataFin::Sent;
                if outstanding && self.deadlines.data == Instant::MAX && self.deadlines.lonely == Instant::MAX {
                    self.deadlines.data = now + self.data_rto(self.data_tries, conns);
                } else if !outstanding {
                    self.deadlines.data = Instant::MAX;
                }
            }
            Mode::Plain(_) => self.finish_plain(conns),
            Mode::Negotiating => {}
        }
        self.arm_probe(now, conns);
        self.update_window(conns);
    }

    /// Subflows that have nothing more to send are given back to the owner.
    fn reap(&mut self, env: &mut Env<'_>) {
        let mut index = 0;
        while let Some(subflow) = self.subflows.get_mut(index) {
            if subflow.ended || self.over {
                subflow.mapper.clear(env);
                let (id, end) = (subflow.id, subflow.end);
                self.subflows.remove(index);
                self.event(Event::SubflowEnded(id, end));
            } else {
                index += 1;
            }
        }
        if self.over && self.subflows.is_empty() {
            self.finish();
        }
    }

    /// Puts data on the subflows that have room: first what must be sent again, then new data.
    fn schedule(&mut self, now: Instant, conns: &mut ConnTable, env: &mut Env<'_>) {
        // Before the peer's key is known nothing can be mapped in a way that it would be sure to understand.
        if self.mode == Mode::Negotiating
            || (self.snd.next == self.snd.retained.len() && !self.reinjection.is_running())
        {
            return;
        }
        if self.owes_third_ack(conns) {
            return;
        }
        let mut candidates = self.candidates(conns);
        if candidates.is_empty() {
            return;
        }
        self.reinject(now, &mut candidates, conns, env);
        for _ in 0..SCHEDULE_BURST {
            let Some(entry) = self.snd.retained.get(self.snd.next) else { return };
            let (len, end) = (u32::from(entry.len), entry_end(entry));
            // After a fallback the connection itself keeps to the peer's window.
            if end.after(self.snd.edge) && self.mode == Mode::Multipath {
                return self.unblock_window(now, &mut candidates, conns, env);
            }
            if len < u32::from(SMALL_SEGMENT) && self.is_thin(&candidates, conns) {
                return;
            }
            let window = self.snd.edge.saturating_distance_from(self.snd.una);
            let Some(pick) = self.scheduler.pick(&candidates, len, window) else { return };
            let at = self.snd.next;
            self.put_on(now, at, &mut candidates[pick], conns, env);
            if self.scheduler.kind == SchedulerKind::Redundant {
                if candidates.len() > 1 {
                    self.repeat();
                }
                for other in 0..candidates.len() {
                    if other != pick && (candidates[other].space >= len || candidates[other].idle) {
                        self.put_on(now, at, &mut candidates[other], conns, env);
                    }
                }
            }
            self.snd.next += 1;
            self.snd.sent = end;
        }
        // More fits: the rest goes in the next step.
        self.dirty = true;
    }

    /// True when what is in flight takes many frames and fills less than a quarter of them. A small segment waits then
    /// until the peer has acknowledged some of it, or until it is no longer small: in flight no frame can be put together
    /// with its neighbour, since the subflow and the data level share it.
    fn is_thin(&self, candidates: &Candidates, conns: &mut ConnTable) -> bool {
        let thin =
            |frames: u32, bytes: u64| frames >= COALESCE_FROM && bytes < u64::from(frames) * u64::from(SMALL_SEGMENT);
        // What a subflow has yet to hear of may be acknowledged at data level already, and keeps its frames.
        let on_subflow = |candidate: &Candidate| {
            let conn = self.subflows.get(candidate.index).and_then(|subflow| conns.get(subflow.id));
            conn.is_some_and(|conn| {
                let bytes = conn.snd_end().saturating_distance_from(conn.snd_una());
                thin(conn.queued_frames(), u64::from(bytes))
            })
        };
        thin(self.snd.next as u32, self.snd.sent.distance_from(self.snd.una)) || candidates.iter().any(on_subflow)
    }

    /// RFC 6824 §3.1: in version 0 the third packet must show both keys, for which a data segment has no room.
    fn owes_third_ack(&mut self, conns: &mut ConnTable) -> bool {
        let old_client = self.version == Version::V0 && self.role == Role::Client && self.mode == Mode::Multipath;
        if !old_client || self.confirmed {
            return false;
        }
        let Some(subflow) = self.subflows.iter().find(|subflow| subflow.is_initial()) else { return false };
        if !subflow.third_ack_sent {
            ask_ack(conns.get(subflow.id));
        }
        !subflow.third_ack_sent
    }

    /// The subflows that may carry data now: of those the peer does not want as backup, if any works, else of those.
    fn candidates(&self, conns: &mut ConnTable) -> Candidates {
        let rank = |subflow: &crate::subflow::Subflow| (subflow.stale, subflow.backup);
        let open = || self.subflows.iter().enumerate().filter(|(_, subflow)| subflow.takes_data());
        let Some(best) = open().map(|(_, subflow)| rank(subflow)).min() else { return Candidates::new() };
        let mut list = Candidates::new();
        for (index, subflow) in open().filter(|(_, subflow)| rank(subflow) == best) {
            let Some(conn) = conns.get(subflow.id) else { continue };
            let queued = conn.in_flight_bytes().saturating_add(conn.waiting_bytes());
            let candidate = Candidate {
                index,
                holder: subflow.holder,
                srtt: conn.srtt(),
                space: conn.cwnd_space(),
                cwnd: conn.cwnd(),
                queued,
                idle: queued == 0,
            };
            if list.try_push(candidate).is_err() {
                break;
            }
        }
        list
    }

    /// Puts entry `at` of the retained ring on a subflow.
    pub(crate) fn put_on(
        &mut self,
        now: Instant,
        at: usize,
        candidate: &mut Candidate,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) {
        let Some(entry) = self.snd.retained.get_mut(at) else { return };
        let subflow = &mut self.subflows[candidate.index];
        let Some(mut conn) = conns.get(subflow.id) else { return };
        entry.sent_us = now.as_micros() as u32;
        let bits = holders(entry) | subflow.holder;
        set_holders(entry, bits);
        let copy = TxSegment {
            dsn: entry.dsn,
            frame: env.pool.share(&entry.frame),
            seq: SeqNum(0),
            sent_us: 0,
            offset: entry.offset,
            len: entry.len,
            sum: entry.sum,
            flags: (entry.flags & TxFlags::PUSH) | TxFlags::MAPPED,
            retransmits: 0,
        };
        subflow.bytes_sent += u64::from(copy.len);
        candidate.book(u32::from(copy.len));
        conn.push(copy, env);
    }

    /// When the peer's window lets nothing more out and nothing is in flight that would bring news of it, a probe is due.
    fn arm_probe(&mut self, now: Instant, conns: &mut ConnTable) {
        let blocked = self.mode == Mode::Multipath
            && self.snd.retained.get(self.snd.next).is_some_and(|entry| entry_end(entry).after(self.snd.edge));
        if !blocked || self.snd.una != self.snd.sent || !self.established {
            self.deadlines.probe = Instant::MAX;
        } else if self.deadlines.probe == Instant::MAX {
            let wait = self.data_rto(self.probe_tries, conns);
            self.deadlines.probe = now + wait.min(MAX_DATA_RTO);
        }
    }

    /// The peer's window has been too small for a while: sends as much as fits, one byte at least.
    pub(super) fn on_probe_timer(&mut self, now: Instant, conns: &mut ConnTable, env: &mut Env<'_>) {
        self.deadlines.probe = Instant::MAX;
        self.probe_tries = self.probe_tries.saturating_add(1);
        let window = self.snd.edge.saturating_distance_from(self.snd.sent).clamp(1, u64::from(u16::MAX)) as u16;
        let at = self.snd.next;
        let Some(entry) = self.snd.retained.get_mut(at) else { return };
        if window < entry.len {
            // RFC 9293 §3.8.6.1 at data level: a probe of new data. The segment is cut, not sent twice: after a fallback
            // there are no data sequence numbers that would tell.
            let head = pieces::split_tx_front(entry, window, env.pool);
            self.snd.retained.insert(at, head, env.tx_rings);
        }
        let mut candidates = self.candidates(conns);
        if let Some(best) = crate::scheduler::lowest_rtt(&candidates, 1, 0) {
            self.put_on(now, at, &mut candidates[best], conns, env);
            let end = self.snd.retained.get(at).map_or(self.snd.sent, entry_end);
            self.snd.next += 1;
            self.snd.sent = end;
        }
    }

    /// The window to advertise: from the next byte expected to the edge, in whole units of the window's scale, so that the
    /// edge on the wire never moves left.
    fn window(&mut self, scale: u8) -> u32 {
        let unit = 1_u64 << scale;
        let window = self.rcv.edge.distance_from(self.rcv.nxt).next_multiple_of(unit).min(u64::from(u32::MAX));
        self.rcv.edge = self.rcv.edge.max(self.rcv.nxt + window);
        window as u32
    }

    /// True when the window has opened so far that the peer is to be told even if nothing else is.
    #[inline]
    pub(super) fn owes_window(&self) -> bool {
        let told = self.rcv.told.saturating_distance_from(self.rcv.nxt);
        let open = self.rcv.edge.distance_from(self.rcv.nxt);
        // RFC 9293 §3.8.6.2.2: not for less than two segments, nor while the peer has half of it left.
        open >= told + WINDOW_STEP
            && told <= open / 2
            && self.established
            && !self.rcv.fin_done
            && !matches!(self.mode, Mode::Plain(_))
    }

    /// Tells the peer of a window that has opened, when nothing else would tell it in time.
    fn update_window(&mut self, conns: &mut ConnTable) {
        if !self.owes_window() {
            return;
        }
        let last = self.last_rx.and_then(|id| self.index_of(id)).filter(|&index| {
            let subflow = &self.subflows[index];
            subflow.takes_signals() && !subflow.stale
        });
        if let Some(index) = last.or_else(|| self.best_signaller(conns, None)) {
            ask_ack(conns.get(self.subflows[index].id));
        }
    }

    /// Puts the MPTCP options of subflow `index` on a segment.
    fn decorate(&mut self, index: usize, out: &mut Outgoing) {
        let is_syn = out.flags.contains(TcpFlags::SYN);
        if !is_syn && !out.flags.contains(TcpFlags::RST) {
            self.rcv.told = self.rcv.told.max(self.rcv.edge);
        }
        if let Mode::Plain(_) = self.mode {
            return self.decorate_plain(index, out);
        }
        if is_syn {
            let answers = out.flags.contains(TcpFlags::ACK);
            let option = self.syn_option(index, answers);
            option.emit(&mut out.upper);
        } else if out.flags.contains(TcpFlags::RST) {
            self.decorate_reset(index, out);
        } else if self.mode == Mode::Multipath {
            self.decorate_segment(index, out);
        }
    }

    fn own_flags(&self) -> CapableFlags {
        let mut flags = CapableFlags::HMAC_SHA256;
        flags.set(CapableFlags::CHECKSUM, self.checksum);
        // RFC 6824 §3.1: in version 0 this bit belongs to the negotiation of algorithms.
        let denies = self.config.deny_join_initial_address && self.version == Version::V1;
        flags.set(CapableFlags::NO_JOIN_HERE, denies);
        flags
    }

    fn syn_option(&self, index: usize, answers: bool) -> MptcpOption {
        let subflow = &self.subflows[index];
        let (backup, addr_id) = (subflow.backup_wish, subflow.local_addr_id);
        match subflow.origin {
            Origin::Initial => {
                // RFC 6824 §3.1: in version 0 the SYN says its sender's key too.
                let keyed = answers || self.version == Version::V0;
                let form = if keyed { CapableForm::OneKey { sender: self.local_key } } else { CapableForm::Bare };
                MptcpOption::Capable(Capable { version: self.version.number(), flags: self.own_flags(), form })
            }
            Origin::JoinedByUs { local_nonce, .. } => {
                let token = self.remote.token;
                MptcpOption::Join(Join::Syn(JoinSyn { backup, addr_id, token, nonce: local_nonce }))
            }
            Origin::JoinedByPeer { local_nonce, remote_nonce } => {
                let hmac = self.keys().join(local_nonce, remote_nonce).for_syn_ack();
                MptcpOption::Join(Join::SynAck(JoinSynAck { backup, addr_id, hmac, nonce: local_nonce }))
            }
        }
    }

    fn decorate_reset(&self, index: usize, out: &mut Outgoing) {
        let subflow = &self.subflows[index];
        match subflow.reset_with {
            ResetWith::FastClose => {
                MptcpOption::FastClose { key: self.remote_key }.emit(&mut out.upper);
            }
            ResetWith::Fail(dsn) => {
                MptcpOption::Fail { dsn }.emit(&mut out.upper);
            }
            ResetWith::Nothing => {}
        }
        if let Some(reset) = subflow.reset {
            MptcpOption::Reset(reset).emit(&mut out.upper);
        }
    }

    fn data_ack(&self) -> WireDsn {
        WireDsn::new(self.rcv.nxt, self.rcv.width)
    }

    /// Options of a segment that is neither SYN nor RST.
    fn decorate_segment(&mut self, index: usize, out: &mut Outgoing) {
        let subflow = &mut self.subflows[index];
        let news = out.ack != subflow.last_ack;
        if news {
            subflow.last_ack = out.ack;
            subflow.end_signal_pause();
        }
        match (subflow.phase, subflow.origin) {
            (Phase::AwaitingFourthAck, Origin::JoinedByUs { local_nonce, remote_nonce }) => {
                // RFC 8684 §3.2: the third ACK authenticates us, however often it has to be sent.
                let hmac = self.keys().join(local_nonce, remote_nonce).for_ack();
                MptcpOption::Join(Join::Ack { hmac }).emit(&mut out.upper);
            }
            (Phase::Opening, _) => {}
            (_, Origin::Initial) if self.needs_capable(index, out) => self.decorate_capable(index, out),
            _ if out.payload.is_some() => self.decorate_data(index, out),
            _ => self.decorate_ack(index, news, out),
        }
    }

    /// RFC 8684 §3.1: the client repeats both keys on its first ACK and its first data until the server is known to have
    /// them.
    fn needs_capable(&self, index: usize, out: &Outgoing) -> bool {
        let subflow = &self.subflows[index];
        let first = self.role == Role::Client && !subflow.confirmed && out.seq == subflow.snd_origin + 1;
        if self.version == Version::V0 && (out.payload.is_some() || subflow.third_ack_sent && subflow.fin_due) {
            // RFC 6824 §3.1: both sides have the keys from the SYNs; data says its mapping by a DSS.
            return false;
        }
        // A DATA_FIN without any data before it takes turns with the keys.
        let fin_turn = subflow.third_ack_sent && subflow.fin_due && self.snd.fin_tries.is_multiple_of(2);
        first && (out.payload.is_some() || !fin_turn)
    }

    fn decorate_capable(&mut self, index: usize, out: &mut Outgoing) {
        self.subflows[index].third_ack_sent = true;
        // In version 0 data has waited for this.
        self.dirty = true;
        self.subflows[index].fin_due &= out.payload.is_some();
        let (sender, receiver) = (self.local_key, self.remote_key);
        let form = match &out.payload {
            Some(payload) => {
                let sum = dss_checksum(Dsn(out.dsn), 1, payload.len, payload.sum);
                CapableForm::Data { sender, receiver, len: payload.len, checksum: self.checksum.then_some(sum) }
            }
            None => CapableForm::BothKeys { sender, receiver },
        };
        let version = self.version.number();
        MptcpOption::Capable(Capable { version, flags: self.own_flags(), form }).emit(&mut out.upper);
    }

    fn decorate_data(&mut self, index: usize, out: &mut Outgoing) {
        let Some(payload) = &out.payload else { return };
        let ssn = out.seq.distance_from(self.subflows[index].snd_origin);
        let end = Dsn(out.dsn) + u64::from(payload.len);
        // RFC 8684 §3.3.3: a DATA_FIN with data adds one to the length.
        let data_fin = self.snd.fin != DataFin::NotYet && end == self.snd.nxt;
        let len = payload.len + u16::from(data_fin);
        let checksum = self.checksum.then(|| dss_checksum(Dsn(out.dsn), ssn, len, payload.sum));
        if data_fin && self.snd.fin == DataFin::Queued {
            self.snd.fin = DataFin::Sent;
        }
        let mapping = DssMapping { dsn: WireDsn::new(Dsn(out.dsn), Width::Short), ssn, len, checksum };
        let dss = Dss { data_ack: Some(self.data_ack()), mapping: Some(mapping), data_fin };
        dss.emit(&mut out.upper);
    }

    /// A pure ACK carries the DATA_ACK, the DATA_FIN when it is due, and one signal if there is room. `news` when it
    /// acknowledges more than the segment before it.
    fn decorate_ack(&mut self, index: usize, news: bool, out: &mut Outgoing) {
        let taken = if out.timestamps.is_some() { TIMESTAMP_BYTES } else { 0 };
        let budget = MAX_OPTION_BYTES - taken;
        let fin = std::mem::take(&mut self.subflows[index].fin_due) && self.snd.fin == DataFin::Sent;
        let mapping = fin.then(|| {
            // RFC 8684 §3.3.3: DATA_FIN alone: its own DSN, SSN 0, length 1.
            let checksum = self.checksum.then(|| dss_checksum(self.snd.nxt, 0, 1, 0));
            DssMapping { dsn: WireDsn::new(self.snd.nxt, Width::Short), ssn: 0, len: 1, checksum }
        });
        let dss = Dss { data_ack: Some(self.data_ack()), mapping, data_fin: fin };
        let subflow = &mut self.subflows[index];
        // The DATA_FIN goes first; a signal has the next ACK.
        if !fin && subflow.may_signal() {
            // RFC 8684 §3.4.1: not more than two duplicate acknowledgments in a row for signals.
            subflow.signal_acks += u8::from(!news);
            subflow.signals.remove(0).emit(&mut out.upper);
        }
        let before = out.upper.len();
        if before.next_multiple_of(4) > budget {
            // ADD_ADDR with IPv6 and a port takes 30 bytes: on this one ACK, which moves nothing, timestamps give way.
            out.timestamps = None;
        } else if !dss.emit(&mut out.upper) || out.upper.len().next_multiple_of(4) > budget {
            // RFC 8684 §3.4.1: an ADD_ADDR with a port or an IPv6 address leaves no room for a DSS.
            out.upper.truncate(before);
        }
    }

    /// After a fallback: no options, but for an MP_FAIL and the infinite mapping.
    fn decorate_plain(&mut self, index: usize, out: &mut Outgoing) {
        let Mode::Plain(mut state) = self.mode else { return };
        if out.flags.intersects(TcpFlags::SYN | TcpFlags::RST) {
            return;
        }
        let len = out.payload.as_ref().map_or(0, |payload| u32::from(payload.len));
        let len = len + u32::from(out.flags.contains(TcpFlags::FIN));
        if out.payload.is_none() && !self.subflows[index].signals.is_empty() {
            let signal = self.subflows[index].signals.remove(0);
            signal.emit(&mut out.upper);
        } else if state.says_infinite((len > 0).then(|| out.seq + len), out.retransmit) {
            self.mode = Mode::Plain(state);
            let (dsn, ssn) = self.infinite_start(index);
            let checksum = self.checksum.then_some(0);
            let mapping = DssMapping { dsn: WireDsn::new(dsn, Width::Long), ssn, len: 0, checksum };
            MptcpOption::Dss(Dss { data_ack: None, mapping: Some(mapping), data_fin: false }).emit(&mut out.upper);
        }
    }
}
