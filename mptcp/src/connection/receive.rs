//! What arrives: DSS and the other signals, payload into the data sequence space (RFC 8684 §3.3).

use mimbox_stack::tcp::{ConnTable, Outcome};
use mimbox_stack::{Counter, Env, Instant, RxQueue, RxSegment, SegmentIn};

use super::{Connection, DataFin, Mode, Role, ask_ack, entry_end, release_all};
use crate::dsn::{Dsn, Width, WireDsn};
use crate::event::{Event, HalfOutcome};
use crate::fallback::Reason;
use crate::mapping::{Mapping, MappingError, dss_checksum};
use crate::option::{CapableForm, Dss, DssMapping, ResetReason, Signals};
use crate::pieces;
use crate::reorder::{self, Inserted};
use crate::subflow::{Phase, ResetWith};

impl Connection {
    /// Acts on the options of an accepted segment.
    pub(super) fn on_signals(
        &mut self,
        now: Instant,
        index: usize,
        segment: &SegmentIn,
        signals: &Signals,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) {
        if signals.is_empty() || !matches!(self.subflows[index].phase, Phase::Open | Phase::Closing) {
            return;
        }
        if signals.fastclose == Some(self.local_key) {
            return self.on_fastclose(conns, env);
        }
        if signals.fail.is_some() {
            self.on_fail(now, index, conns, env);
        }
        if let Some(dss) = &signals.dss {
            self.on_dss(now, index, segment, dss, conns, env);
        } else if let Some(capable) = &signals.capable
            && let CapableForm::Data { len, checksum, .. } = capable.form
            && self.role == Role::Server
        {
            // RFC 8684 §3.1: an MP_CAPABLE with data stands for the mapping of the first data.
            let mapping = DssMapping { dsn: WireDsn::Long(self.first_remote().0), ssn: 1, len, checksum };
            self.on_mapping(now, index, &mapping, false, conns, env);
        }
        self.on_path_signals(index, signals, conns, env);
    }

    fn on_dss(
        &mut self,
        now: Instant,
        index: usize,
        segment: &SegmentIn,
        dss: &Dss,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) {
        if let Some(ack) = dss.data_ack {
            self.on_confirmed(index, conns);
            let window = conns.get(self.subflows[index].id).map_or(0, |conn| conn.peer_window());
            self.on_data_ack(ack.expand(self.snd.una), window, Self::is_syn(segment), env);
        }
        if let Some(mapping) = &dss.mapping {
            self.on_mapping(now, index, mapping, dss.data_fin, conns, env);
        }
    }

    /// The peer expects `ack` next and takes `window` bytes from there.
    pub(super) fn on_data_ack(&mut self, ack: Dsn, window: u32, is_syn: bool, env: &mut Env<'_>) {
        let fin = u64::from(self.snd.fin == DataFin::Sent || self.snd.fin == DataFin::Acked);
        if ack.after(self.snd.sent + fin) {
            // It acknowledges what was never sent: not to be believed, nor is its window.
            return;
        }
        if !is_syn {
            // RFC 8684 §3.3.5: the window is updated only when its right edge moves right.
            let edge = ack + u64::from(window);
            if edge.after(self.snd.edge) {
                self.snd.edge = edge;
                self.dirty = true;
            }
        }
        if ack.at_or_before(self.snd.una) {
            return;
        }
        self.advance_una(ack, env);
        self.data_tries = 0;
        self.unheard = 0;
        self.probe_tries = 0;
        self.deadlines.probe = Instant::MAX;
        self.deadlines.data = Instant::MAX;
    }

    /// Forgets what lies before `ack`.
    pub(crate) fn advance_una(&mut self, ack: Dsn, env: &mut Env<'_>) {
        if self.snd.fin == DataFin::Sent && ack.after(self.snd.nxt) {
            self.snd.fin = DataFin::Acked;
        }
        self.snd.una = ack;
        let mut gone = 0;
        while self.snd.retained.front().is_some_and(|first| entry_end(first).at_or_before(ack)) {
            if let Some(first) = self.snd.retained.pop_front(env.tx_rings) {
                env.pool.release(first.frame);
            }
            gone += 1;
        }
        self.snd.next = self.snd.next.saturating_sub(gone);
        self.reinjection.shift(gone);
        self.outcome |= HalfOutcome::ACKED;
    }

    fn on_mapping(
        &mut self,
        now: Instant,
        index: usize,
        wire: &DssMapping,
        data_fin: bool,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) {
        if wire.dsn.width() == Width::Long && !matches!(self.mode, Mode::Plain(_)) {
            // RFC 8684 §3.3.2: data with a 64-bit DSN must be acknowledged with a 64-bit DATA_ACK. An MP_CAPABLE carries
            // no DSN at all; the first DSS tells.
            self.rcv.width = Width::Long;
        }
        let dsn = wire.dsn.expand(self.rcv.nxt);
        if wire.len == 0 {
            return self.on_infinite_mapping(index, now, conns, env);
        }
        // RFC 8684 §3.3: a checksum that was not agreed on, or a missing one that was, breaks the subflow.
        if wire.checksum.is_some() != self.checksum {
            env.counters.inc(Counter::MptcpBadMapping);
            return self.abort_subflow(now, index, Some(ResetReason::MptcpSpecific), ResetWith::Nothing, conns, env);
        }
        let len = u64::from(wire.len) - u64::from(data_fin);
        if data_fin {
            let alone = wire.ssn == 0 || len == 0;
            let wrong = alone && wire.checksum.is_some_and(|sum| sum != dss_checksum(dsn, wire.ssn, wire.len, 0));
            if wrong {
                env.counters.inc(Counter::MptcpDssChecksumErrors);
                return;
            }
            self.on_data_fin(index, dsn + len, conns);
            if alone {
                return;
            }
        }
        let subflow = &mut self.subflows[index];
        let mapping = Mapping {
            dsn,
            start: subflow.mapper.absolute(wire.ssn),
            len: len as u32,
            checksum: wire.checksum,
            fin: data_fin,
        };
        if subflow.mapper.insert(mapping).is_err() {
            self.on_mapping_error(now, index, MappingError::Conflict, conns, env);
        }
    }

    /// The peer's last byte is before `fin`.
    fn on_data_fin(&mut self, index: usize, fin: Dsn, conns: &mut ConnTable) {
        if self.rcv.fin_done || fin.before(self.rcv.nxt) {
            // It came again: the DATA_ACK was lost.
            return ask_ack(conns.get(self.subflows[index].id));
        }
        self.rcv.fin.get_or_insert(fin);
        self.reach_fin();
        if self.rcv.fin_done {
            ask_ack(conns.get(self.subflows[index].id));
        }
    }

    /// Takes the peer's DATA_FIN when all before it has arrived.
    fn reach_fin(&mut self) {
        if self.rcv.fin == Some(self.rcv.nxt) && !self.rcv.fin_done {
            self.rcv.fin_done = true;
            // RFC 8684 §3.3.3: the DATA_FIN takes one octet of the data sequence space.
            self.rcv.nxt += 1;
            self.rcv.edge = self.rcv.edge.max(self.rcv.nxt);
            self.outcome |= HalfOutcome::FIN;
            self.event(Event::DataFin);
        }
    }

    /// Payload that is in order on subflow `index`.
    pub(super) fn take_payload(
        &mut self,
        now: Instant,
        index: usize,
        fresh: &mut RxQueue,
        conns: &mut ConnTable,
        out: &mut RxQueue,
        env: &mut Env<'_>,
    ) {
        let bytes: u64 = fresh.iter().map(|segment| u64::from(segment.len)).sum();
        self.subflows[index].bytes_received += bytes;
        match self.mode {
            Mode::Plain(_) => self.take_plain(index, fresh, out, env),
            Mode::Negotiating => release_all(fresh, env),
            Mode::Multipath
                if self.subflows[index].phase == Phase::Open || self.subflows[index].phase == Phase::Closing =>
            {
                if bytes > 0 {
                    self.last_rx = Some(self.subflows[index].id);
                }
                self.take_mapped(now, index, fresh, conns, out, env);
            }
            Mode::Multipath => release_all(fresh, env),
        }
    }

    fn take_mapped(
        &mut self,
        now: Instant,
        index: usize,
        fresh: &mut RxQueue,
        conns: &mut ConnTable,
        out: &mut RxQueue,
        env: &mut Env<'_>,
    ) {
        let mut mapped = std::mem::take(&mut self.mapped);
        let verdict = self.subflows[index].mapper.map(now, fresh, &mut mapped, env);
        while let Some(segment) = mapped.pop_front() {
            self.deliver(now, index, segment, out, env);
        }
        self.mapped = mapped;
        let had_fin = self.rcv.fin_done;
        self.reach_fin();
        if self.rcv.fin_done && !had_fin {
            ask_ack(conns.get(self.subflows[index].id));
        }
        match verdict {
            Ok(()) => {}
            Err(MappingError::Checksum(dsn)) => self.on_checksum_failure(now, index, dsn, conns, out, env),
            Err(error) => self.on_mapping_error(now, index, error, conns, env),
        }
    }

    /// Places payload of subflow `index` in the data sequence space.
    fn deliver(&mut self, now: Instant, index: usize, mut segment: RxSegment, out: &mut RxQueue, env: &mut Env<'_>) {
        let (start, end) = (Dsn(segment.dsn), reorder::end(&segment));
        if end.at_or_before(self.rcv.nxt) {
            env.counters.inc(Counter::MptcpDataDuplicates);
            return env.pool.release(segment.frame);
        }
        let beyond_fin = self.rcv.fin.is_some_and(|fin| end.after(fin));
        if beyond_fin || end.after(self.rcv.edge + u64::from(self.config.window_slack)) {
            // RFC 8684 §3.8: a DSN out of the window: the data is dropped and not DATA_ACKed.
            env.counters.inc(Counter::MptcpDataOutOfWindow);
            return env.pool.release(segment.frame);
        }
        if start.after(self.rcv.nxt) {
            env.counters.inc(Counter::MptcpDataOutOfOrder);
            let limit = usize::from(self.config.max_reorder_frames);
            if self.rcv.reorder.insert(segment, limit, env) == Inserted::Duplicate {
                env.counters.inc(Counter::MptcpDataDuplicates);
            }
            return;
        }
        let old = self.rcv.nxt.distance_from(start);
        if old > 0 {
            pieces::trim_front(&mut segment, old as u16, env.pool);
        }
        self.hand_out(segment, out);
        let waited_from = self.rcv.nxt;
        while let Some(ready) = self.rcv.reorder.pop_ready(self.rcv.nxt, env) {
            self.hand_out(ready, out);
        }
        let waited = self.rcv.nxt.distance_from(waited_from);
        if waited > 0 {
            self.note_held_up(now, index, waited);
        }
    }

    pub(crate) fn hand_out(&mut self, segment: RxSegment, out: &mut RxQueue) {
        self.pass_by(segment.len);
        out.push_back(segment);
    }

    /// So many bytes that were next in order are handed out.
    #[inline]
    pub(super) fn pass_by(&mut self, len: u16) {
        self.rcv.nxt += u64::from(len);
        self.rcv.edge = self.rcv.edge.max(self.rcv.nxt);
        self.rcv.space = self.rcv.space.saturating_sub(u32::from(len));
        self.outcome |= HalfOutcome::DATA;
    }

    /// A mapping that cannot be, or data that has none.
    fn on_mapping_error(
        &mut self,
        now: Instant,
        index: usize,
        error: MappingError,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) {
        env.counters.inc(Counter::MptcpBadMapping);
        let first_data_unmapped = error == MappingError::Unmapped
            && self.contiguous
            && self.subflows[index].is_initial()
            && self.rcv.nxt == self.first_remote();
        if first_data_unmapped {
            // RFC 8684 §3.7: options passed on the SYNs but not on data, before anything else happened.
            return self.fall_back(index, Reason::NoOption, conns, env);
        }
        let reason = match error {
            MappingError::Unmapped => ResetReason::MiddleboxInterference,
            MappingError::Conflict | MappingError::Checksum(_) => ResetReason::MptcpSpecific,
        };
        self.abort_subflow(now, index, Some(reason), ResetWith::Nothing, conns, env);
    }

    /// RFC 8684 §3.7: an ACK of data without a DATA_ACK shows that the path drops options.
    pub(super) fn check_options_pass(
        &mut self,
        now: Instant,
        index: usize,
        result: Outcome,
        signals: &Signals,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) {
        let subflow = &mut self.subflows[index];
        if !signals.is_empty() {
            subflow.bare_acks = false;
            return;
        }
        let acked_data = conns.get(subflow.id).is_some_and(|conn| conn.snd_una().after(subflow.snd_origin + 1));
        if !result.contains(Outcome::ACKED) || !acked_data {
            return;
        }
        if subflow.confirmed {
            // One such ACK may be a middlebox's own. Should no DATA_ACK come either, a timeout will tell.
            subflow.bare_acks = true;
            return;
        }
        if subflow.is_initial() && self.contiguous {
            self.fall_back(index, Reason::NoOption, conns, env);
        } else {
            self.abort_subflow(now, index, Some(ResetReason::MiddleboxInterference), ResetWith::Nothing, conns, env);
        }
    }
}
