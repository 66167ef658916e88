//! Handshakes: MP_CAPABLE and MP_JOIN, both ends of each (RFC 8684 §3.1, §3.2).

use mimbox_stack::tcp::{ConnId, ConnTable, Outcome};
use mimbox_stack::{Counter, Env, Instant, RxQueue, SegmentIn, SeqNum};

use super::{Connection, DataFin, Mode, Role, ask_ack};
use crate::dsn::Dsn;
use crate::event::{Event, HalfOutcome, JoinRefused};
use crate::fallback::Reason;
use crate::key::{self, Version};
use crate::limits::{JOIN_ACK_RETRIES, MAX_SUBFLOWS};
use crate::mapping::Mapper;
use crate::option::{Capable, CapableFlags, CapableForm, Join, JoinSyn, JoinSynAck, ResetReason, Signals, VERSION_1};
use crate::subflow::{Origin, Phase, ResetWith};

impl Connection {
    /// Takes an MP_JOIN SYN of the peer; its connection `id` is in `conns`, inserted with `Opening::Accept`.
    ///
    /// # Errors
    /// When the connection takes no further subflow; the caller answers with a reset.
    pub fn join(
        &mut self,
        _now: Instant,
        syn: &SegmentIn,
        join: JoinSyn,
        id: ConnId,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) -> Result<(), JoinRefused> {
        if join.token != self.local.token {
            return Err(JoinRefused::WrongToken);
        }
        self.may_add_subflow()?;
        let origin = Origin::JoinedByPeer { local_nonce: env.rng.next_u32(), remote_nonce: join.nonce };
        let index = self.add_subflow(id, syn.flow, origin, conns);
        let subflow = &mut self.subflows[index];
        subflow.remote_addr_id = join.addr_id;
        subflow.local_addr_id = self.paths.id_of(syn.flow.local, syn.flow.local_port);
        subflow.backup = join.backup;
        Ok(())
    }

    /// Opens a further subflow from our address with ID `addr_id`; its connection `id` is in `conns`, inserted with
    /// `Opening::Connect`.
    ///
    /// # Errors
    /// When the connection can have no further subflow; the caller removes `id`.
    pub fn open_subflow(
        &mut self,
        _now: Instant,
        id: ConnId,
        addr_id: u8,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) -> Result<(), JoinRefused> {
        self.may_add_subflow()?;
        // RFC 8684 §3.1: no further subflow before a DSS has crossed the first one.
        if !self.confirmed {
            return Err(JoinRefused::NotPossible);
        }
        let Some(flow) = conns.get(id).map(|conn| *conn.flow()) else { return Err(JoinRefused::NotPossible) };
        let origin = Origin::JoinedByUs { local_nonce: env.rng.next_u32(), remote_nonce: 0 };
        let index = self.add_subflow(id, flow, origin, conns);
        self.subflows[index].local_addr_id = addr_id;
        Ok(())
    }

    fn may_add_subflow(&self) -> Result<(), JoinRefused> {
        if !matches!(self.mode, Mode::Multipath) || self.over || self.is_done() {
            return Err(JoinRefused::NotPossible);
        }
        let limit = usize::from(self.config.max_subflows).min(MAX_SUBFLOWS);
        if self.subflows.len() >= limit { Err(JoinRefused::TooMany) } else { Ok(()) }
    }

    /// A subflow's TCP handshake has completed with `segment`.
    pub(super) fn on_handshake_done(
        &mut self,
        now: Instant,
        index: usize,
        segment: &SegmentIn,
        signals: &Signals,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) {
        if Self::is_syn(segment) {
            self.subflows[index].mapper = Mapper::new(segment.seq);
        }
        match self.subflows[index].origin {
            Origin::Initial => self.on_first_established(index, segment, signals, conns, env),
            Origin::JoinedByPeer { .. } => self.check_third_ack(now, index, signals, conns, env),
            Origin::JoinedByUs { local_nonce, .. } => {
                self.check_join_answer(now, index, local_nonce, signals, conns, env);
            }
        }
    }

    fn on_first_established(
        &mut self,
        index: usize,
        segment: &SegmentIn,
        signals: &Signals,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) {
        self.established = true;
        self.outcome |= HalfOutcome::ESTABLISHED;
        self.subflows[index].phase = Phase::Open;
        if let Some(conn) = conns.get(self.subflows[index].id) {
            self.snd.edge = self.snd.una + u64::from(conn.peer_window());
        }
        match self.role {
            Role::Client => match signals.capable.filter(|capable| self.answers_ours(capable)) {
                Some(Capable { flags, form: CapableForm::OneKey { sender }, .. }) => {
                    // RFC 8684 §3.1: one side's wish is enough for checksums.
                    self.checksum |= flags.contains(CapableFlags::CHECKSUM);
                    self.peer_denies_joins = self.denies_joins(flags);
                    self.learn_key(sender, env);
                }
                _ => self.fall_back(index, Reason::Handshake, conns, env),
            },
            Role::Server => {
                if !self.take_client_keys(segment, signals, env) {
                    self.fall_back(index, Reason::Handshake, conns, env);
                }
            }
        }
    }

    /// True for a segment that comes before the client's keys but shows that they are on their way: it overtook the first
    /// data, which is at `rcv_nxt`. It cannot be understood yet, so it counts as lost; the client sends it again.
    ///
    /// The first data itself overtakes nothing: sent again with a mapping and without the keys, as Linux does, it shows that
    /// no keys will come, and the connection falls back (RFC 8684 §3.1).
    pub(super) fn overtakes_keys(&self, segment: &SegmentIn, rcv_nxt: SeqNum) -> bool {
        let waits = self.mode == Mode::Negotiating && self.role == Role::Server && self.version == Version::V1;
        let first_data = segment.payload_len > 0 && segment.seq == rcv_nxt;
        if !waits || Self::is_syn(segment) || first_data {
            return false;
        }
        let signals = Signals::read(segment);
        // The infinite mapping shows the opposite: the client has given its keys up and speaks plain TCP.
        let mapped = signals.dss.is_some_and(|dss| dss.mapping.is_none_or(|mapping| mapping.len > 0));
        mapped && signals.capable.is_none()
    }

    /// True for an MP_CAPABLE on a SYN/ACK that agrees to what we asked for.
    fn answers_ours(&self, capable: &Capable) -> bool {
        // RFC 8684 §3.1: an answer in a version that was not asked for cannot be used: its SYN looked otherwise.
        capable.version == self.version.number()
            && capable.flags.contains(CapableFlags::HMAC_SHA256)
            && !capable.flags.contains(CapableFlags::EXTENSIBILITY)
            && matches!(capable.form, CapableForm::OneKey { .. })
    }

    /// True when an MP_CAPABLE with these flags forbids subflows to its sender's address; version 0 cannot say so.
    pub(super) fn denies_joins(&self, flags: CapableFlags) -> bool {
        self.version == Version::V1 && flags.contains(CapableFlags::NO_JOIN_HERE)
    }

    /// Version 0, the server's side: the third ACK must show that MPTCP options pass (RFC 6824 §3.1), by repeating both
    /// keys. When it is lost, the first segment with a DSS shows the same.
    fn check_client_keys(&mut self, signals: &Signals, env: &mut Env<'_>) -> bool {
        let known = self.remote_key;
        let shown = match signals.capable.map(|capable| (capable.version, capable.form)) {
            Some((0, CapableForm::BothKeys { sender, receiver })) => sender == known && receiver == self.local_key,
            Some(_) => false,
            None => signals.dss.is_some(),
        };
        if shown {
            self.learn_key(known, env);
        }
        shown
    }

    /// The server's side: keys from the third ACK or the first data. False when they are not there or do not fit.
    fn take_client_keys(&mut self, segment: &SegmentIn, signals: &Signals, env: &mut Env<'_>) -> bool {
        if self.version == Version::V0 {
            return self.check_client_keys(signals, env);
        }
        let Some(capable) = signals.capable else { return false };
        // RFC 8684 §3.1: 20 bytes without data, 22 with it, 24 with it and a checksum.
        let (sender, receiver) = match capable.form {
            CapableForm::BothKeys { sender, receiver } if segment.payload_len == 0 => (sender, receiver),
            CapableForm::Data { sender, receiver, checksum, .. }
                if segment.payload_len > 0 && checksum.is_some() == self.checksum =>
            {
                (sender, receiver)
            }
            _ => return false,
        };
        if receiver != self.local_key || capable.version != VERSION_1 {
            return false;
        }
        self.learn_key(sender, env);
        true
    }

    fn learn_key(&mut self, remote_key: u64, env: &mut Env<'_>) {
        self.remote_key = remote_key;
        self.remote = key::derive(remote_key, self.version);
        let first = self.remote.idsn + 1;
        // What was promised before the peer's numbers were known counts from its first byte.
        self.rcv.edge = first + self.rcv.edge.distance_from(self.rcv.nxt);
        self.rcv.nxt = first;
        self.rcv.told = first;
        self.mode = Mode::Multipath;
        self.arm_announcements();
        env.counters.inc(Counter::MptcpCapableAccepted);
        self.event(Event::Established);
    }

    /// Segments after the handshake that still belong to it.
    pub(super) fn on_handshake_echo(
        &mut self,
        index: usize,
        segment: &SegmentIn,
        signals: &Signals,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) {
        if Self::is_syn(segment) {
            return;
        }
        if self.mode == Mode::Negotiating && self.role == Role::Server && self.established {
            self.take_client_keys(segment, signals, env);
        }
        let subflow = &mut self.subflows[index];
        match (subflow.phase, subflow.origin) {
            (Phase::AwaitingFourthAck, _) => {
                // RFC 8684 §3.2: any ACK from the peer says that the third one arrived.
                subflow.phase = Phase::Open;
                subflow.third_ack_due = Instant::MAX;
                let id = subflow.id;
                self.on_subflow_open(id, env);
            }
            (Phase::Open, Origin::JoinedByPeer { .. }) if matches!(signals.join, Some(Join::Ack { .. })) => {
                // The third ACK came again: the fourth was lost.
                ask_ack(conns.get(subflow.id));
            }
            _ => {}
        }
    }

    /// The first data decides: without an MPTCP option it is plain TCP for good.
    ///
    /// RFC 8684 §3.7: an option that passed on the SYNs may still be dropped from data.
    #[allow(clippy::too_many_arguments, reason = "one step of on_segment")]
    pub(super) fn check_first_data(
        &mut self,
        now: Instant,
        index: usize,
        result: Outcome,
        signals: &Signals,
        fresh: &RxQueue,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) {
        match self.mode {
            Mode::Negotiating if self.established && (!fresh.is_empty() || result.contains(Outcome::FIN)) => {
                self.fall_back(index, Reason::NoOption, conns, env);
            }
            Mode::Multipath => {
                let subflow = &self.subflows[index];
                let takes_space = !fresh.is_empty() || result.contains(Outcome::FIN);
                if !takes_space || !signals.is_empty() || subflow.bytes_received > 0 || !subflow.mapper.is_blank() {
                    return;
                }
                if !subflow.is_initial() {
                    // RFC 8684 §3.7: mappings stand on every segment until one is acknowledged, so here options are lost.
                    if subflow.phase == Phase::Open && !fresh.is_empty() {
                        let reason = Some(ResetReason::MiddleboxInterference);
                        self.abort_subflow(now, index, reason, ResetWith::Nothing, conns, env);
                    }
                } else if self.contiguous && self.rcv.nxt == self.first_remote() {
                    self.fall_back(index, Reason::NoOption, conns, env);
                }
            }
            _ => {}
        }
    }

    /// The peer's third ACK of an MP_JOIN.
    fn check_third_ack(
        &mut self,
        now: Instant,
        index: usize,
        signals: &Signals,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) {
        let Origin::JoinedByPeer { local_nonce, remote_nonce } = self.subflows[index].origin else { return };
        let expected = self.keys().reversed().join(remote_nonce, local_nonce).for_ack();
        let verified = matches!(signals.join, Some(Join::Ack { hmac }) if key::same_code(&hmac, &expected));
        if !verified || !matches!(self.mode, Mode::Multipath) {
            env.counters.inc(Counter::MptcpJoinBadHmac);
            return self.abort_subflow(now, index, Some(ResetReason::MptcpSpecific), ResetWith::Nothing, conns, env);
        }
        let subflow = &mut self.subflows[index];
        subflow.phase = Phase::Open;
        let id = subflow.id;
        // RFC 8684 §3.2: receipt of this packet must trigger an ACK: the fourth. Until the peer shows that it has it,
        // nothing may arrive that is not next in order: Linux takes that for data before the fourth ACK, and resets.
        if let Some(mut conn) = conns.get(id) {
            conn.keep_in_order(true);
            conn.request_ack();
        }
        self.on_subflow_open(id, env);
    }

    /// The peer's SYN/ACK to our MP_JOIN.
    fn check_join_answer(
        &mut self,
        now: Instant,
        index: usize,
        local_nonce: u32,
        signals: &Signals,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) {
        let answer: Option<JoinSynAck> = match signals.join {
            Some(Join::SynAck(answer)) => Some(answer),
            _ => None,
        };
        let verified = answer.filter(|answer| {
            let expected = self.keys().reversed().join(answer.nonce, local_nonce).for_syn_ack();
            key::same_code(&answer.hmac.to_be_bytes(), &expected.to_be_bytes())
        });
        let Some(answer) = verified.filter(|_| matches!(self.mode, Mode::Multipath)) else {
            if answer.is_some() {
                env.counters.inc(Counter::MptcpJoinBadHmac);
            }
            return self.abort_subflow(now, index, Some(ResetReason::MptcpSpecific), ResetWith::Nothing, conns, env);
        };
        let rto = conns.get(self.subflows[index].id).map(|conn| conn.rto()).unwrap_or_default();
        let subflow = &mut self.subflows[index];
        subflow.origin = Origin::JoinedByUs { local_nonce, remote_nonce: answer.nonce };
        subflow.remote_addr_id = answer.addr_id;
        subflow.backup = answer.backup;
        subflow.phase = Phase::AwaitingFourthAck;
        subflow.third_ack_due = now + rto;
    }

    /// The third ACK of our MP_JOIN is not answered: it goes out again.
    pub(super) fn repeat_third_ack(&mut self, now: Instant, index: usize, conns: &mut ConnTable, env: &mut Env<'_>) {
        let subflow = &mut self.subflows[index];
        subflow.third_ack_due = Instant::MAX;
        if subflow.phase != Phase::AwaitingFourthAck {
            return;
        }
        subflow.third_ack_tries += 1;
        if subflow.third_ack_tries > JOIN_ACK_RETRIES {
            return self.abort_subflow(now, index, Some(ResetReason::Unspecified), ResetWith::Nothing, conns, env);
        }
        if let Some(mut conn) = conns.get(subflow.id) {
            subflow.third_ack_due = now + conn.rto() * (1 << subflow.third_ack_tries);
            conn.request_ack();
        }
    }

    /// A DATA_ACK has come on a subflow. Before the fourth ACK the peer of a join says none.
    #[inline]
    pub(super) fn on_confirmed(&mut self, index: usize, conns: &mut ConnTable) {
        self.confirmed = true;
        let subflow = &mut self.subflows[index];
        if !std::mem::replace(&mut subflow.confirmed, true)
            && let Some(mut conn) = conns.get(subflow.id)
        {
            conn.keep_in_order(false);
            // It takes more than one segment now.
            self.dirty = true;
        }
    }

    fn on_subflow_open(&mut self, id: ConnId, env: &mut Env<'_>) {
        self.deadlines.lonely = Instant::MAX;
        env.counters.inc(Counter::MptcpJoinAccepted);
        self.event(Event::SubflowEstablished(id));
        // Data that was stuck on dead or silent subflows has somewhere to go now.
        self.reinjection.start();
        self.data_tries = 0;
        self.unheard = 0;
    }

    /// True when both directions are over at data level.
    pub(crate) fn is_done(&self) -> bool {
        self.snd.fin == DataFin::Acked && self.rcv.fin_done
    }

    /// The data sequence number of the first byte that the peer sends.
    pub(crate) fn first_remote(&self) -> Dsn {
        self.remote.idsn + 1
    }
}
