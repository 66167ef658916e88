//! A Multipath TCP connection: the data level above its subflows (RFC 8684).
//!
//! It has the face of a TCP connection: [`Connection::on_segment`], [`Connection::on_timer`],
//! [`Connection::poll_transmit`] and [`Connection::next_deadline`]. Payload to be sent is retained here until the peer
//! acknowledges it at data level; each subflow that carries it holds a right of its own to the frame.

use std::collections::VecDeque;
use std::net::IpAddr;

use mimbox_stack::limits::{COALESCED, SMALL_SEGMENT};
use mimbox_stack::tcp::{Conn, ConnId, ConnTable, Outcome};
use mimbox_stack::{
    Counter, Duration, Env, FlowKey, FrameId, Instant, Outgoing, Ring, RxQueue, SegmentIn, SeqNum, TcpFlags, TxSegment,
};

use crate::config::{LastReset, MptcpConfig};
use crate::dsn::{Dsn, Width};
use crate::event::{Event, HalfOutcome, SubflowEnd};
use crate::fallback::{Fallback, Reason};
use crate::key::{self, Derived, KeyPair, Version};
use crate::limits::{HOLDER_BITS, MAX_DATA_RTO, MAX_EVENTS, MIN_DATA_RTO};
use crate::option::{CapableSyn, ResetReason, Signals, TcpReset};
use crate::path_manager::PathManager;
use crate::reinject::Reinjection;
use crate::relief::Relief;
use crate::reorder::ReorderQueue;
use crate::scheduler::Scheduler;
use crate::subflow::{Origin, Phase, ResetWith, Subflow, SubflowStats};

mod close;
mod expected;
mod open;
mod receive;
mod transmit;

/// What a connection in the server's role begins with.
#[derive(Clone, Copy, Debug)]
pub struct AcceptParams {
    /// Our key; its token must be no other connection's.
    pub local_key: u64,
    /// The client's MP_CAPABLE.
    pub peer: CapableSyn,
    /// The first subflow, inserted with `Opening::Accept`.
    pub conn: ConnId,
    /// Parameters.
    pub config: MptcpConfig,
    /// Our address.
    pub local: IpAddr,
    /// Our port.
    pub local_port: u16,
    /// The client's address.
    pub remote: IpAddr,
    /// The client's port.
    pub remote_port: u16,
}

/// What a connection in the client's role begins with.
#[derive(Clone, Copy, Debug)]
pub struct ConnectParams {
    /// Our key; its token must be no other connection's.
    pub local_key: u64,
    /// The first subflow, inserted with `Opening::Connect`.
    pub conn: ConnId,
    /// The version to speak.
    pub version: Version,
    /// Parameters.
    pub config: MptcpConfig,
    /// Our address.
    pub local: IpAddr,
    /// Our port.
    pub local_port: u16,
    /// The server's address.
    pub remote: IpAddr,
    /// The server's port.
    pub remote_port: u16,
}

/// Which end of the first handshake we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// We sent the MP_CAPABLE SYN.
    Client,
    /// We answered it.
    Server,
}

/// What the connection runs as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// The first handshake is under way: the peer's key is not known.
    Negotiating,
    /// MPTCP.
    Multipath,
    /// Plain TCP on the one subflow.
    Plain(Fallback),
}

/// Our DATA_FIN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DataFin {
    /// More data may be pushed.
    NotYet,
    /// It follows the last byte pushed.
    Queued,
    /// It was sent at least once.
    Sent,
    /// The peer acknowledged it.
    Acked,
}

/// The sending side of the data level.
#[derive(Debug)]
pub(crate) struct Sender {
    /// First byte that the peer has not acknowledged.
    pub(crate) una: Dsn,
    /// After the last byte that was put on a subflow.
    pub(crate) sent: Dsn,
    /// After the last byte pushed.
    pub(crate) nxt: Dsn,
    /// The furthest that the peer has ever allowed (RFC 8684 §3.3.5).
    pub(crate) edge: Dsn,
    /// Everything not acknowledged, in order. An entry's `seq` holds the bits of the subflows that carry it.
    pub(crate) retained: Ring<TxSegment>,
    /// Index of the first entry that no subflow carries.
    pub(crate) next: usize,
    pub(crate) fin: DataFin,
    pub(crate) fin_tries: u8,
}

/// The receiving side of the data level.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// The next byte expected.
    pub(crate) nxt: Dsn,
    /// The furthest that we have promised to take.
    pub(crate) edge: Dsn,
    /// Bytes beyond `nxt` that the owner takes; after a fallback the subflow's connection makes a window of it.
    pub(crate) space: u32,
    /// `edge` as it stood when it was last sent.
    pub(crate) told: Dsn,
    pub(crate) reorder: ReorderQueue,
    /// The place of the peer's DATA_FIN, once known.
    pub(crate) fin: Option<Dsn>,
    /// True once it was reached in order.
    pub(crate) fin_done: bool,
    /// Width of DATA_ACKs: as wide as the peer's widest DSN.
    pub(crate) width: Width,
}

/// Deadlines of the data level; [`Instant::MAX`] for none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    /// Data or DATA_FIN that subflows have delivered is not acknowledged at data level.
    pub(crate) data: Instant,
    /// The peer's window is closed.
    pub(crate) probe: Instant,
    /// No subflow has come back.
    pub(crate) lonely: Instant,
    /// Both directions are over, but subflows still wait for their peers' FINs.
    pub(crate) close: Instant,
}

/// A Multipath TCP connection.
#[derive(Debug)]
pub struct Connection {
    pub(crate) subflows: Vec<Subflow>,
    pub(crate) snd: Sender,
    pub(crate) rcv: Receiver,
    pub(crate) mode: Mode,
    pub(crate) role: Role,
    pub(crate) version: Version,
    pub(crate) checksum: bool,
    /// There may be something to put on subflows.
    pub(crate) dirty: bool,
    /// The subflow that is polled next.
    poll_at: usize,
    pub(crate) reinjection: Reinjection,
    pub(crate) scheduler: Scheduler,
    /// Working subflows when their congestion windows were last coupled.
    pub(crate) coupled_paths: u8,
    pub(crate) deadlines: Deadlines,
    pub(crate) data_tries: u8,
    /// Such timeouts with nothing in flight on any subflow.
    pub(crate) unheard: u8,
    pub(crate) probe_tries: u8,
    /// Payload in order on a subflow, on its way up; kept so that it does not allocate.
    fresh: RxQueue,
    mapped: RxQueue,
    pub(crate) outcome: HalfOutcome,
    pub(crate) events: VecDeque<Event>,
    pub(crate) config: MptcpConfig,
    pub(crate) local_key: u64,
    pub(crate) remote_key: u64,
    pub(crate) local: Derived,
    pub(crate) remote: Derived,
    /// The peer's MP_CAPABLE had the C flag.
    pub(crate) peer_denies_joins: bool,
    /// There was never more than one subflow and nothing was sent twice: what is in flight is contiguous.
    pub(crate) contiguous: bool,
    /// Something was sent twice, on two subflows.
    pub(crate) repeated: bool,
    /// Something was sent or received on another subflow than the first, which has ended.
    pub(crate) elsewhere: bool,
    /// The subflow whose data arrived last: window updates go there.
    pub(crate) last_rx: Option<ConnId>,
    pub(crate) relief: Relief,
    pub(crate) paths: PathManager,
    /// Our address on the first subflow.
    pub(crate) local_address: IpAddr,
    pub(crate) established: bool,
    /// A DSS with a DATA_ACK has crossed some subflow.
    pub(crate) confirmed: bool,
    /// A last word of a subflow before its reset: version 0's MP_FASTCLOSE.
    pub(crate) parting: Option<(ConnId, Outgoing)>,
    /// Both directions are over, and the peer knows: it has acknowledged a FIN of ours, which brought it our DATA_ACK.
    pub(crate) told: bool,
    /// The end has come: no verb does anything more but send what is queued.
    pub(crate) over: bool,
    pub(crate) closed: bool,
}

impl Connection {
    /// A connection in the server's role: the client's MP_CAPABLE SYN is here, its subflow is in `conns`.
    pub fn accept(_now: Instant, params: AcceptParams, conns: &mut ConnTable, _env: &mut Env<'_>) -> Self {
        let AcceptParams { local_key, peer, conn, config, local, local_port, remote, remote_port } = params;
        let flow = FlowKey { local, remote, local_port, remote_port };
        let mut this = Self::new(Role::Server, local_key, peer.version(), local, config);
        // RFC 6824 §3.1: in version 0 the SYN says the client's key; the third ACK repeats it.
        this.remote_key = peer.key.unwrap_or_default();
        // RFC 8684 §3.1: checksums are used when either side requires them.
        this.checksum = config.checksum || peer.checksum();
        this.peer_denies_joins = this.denies_joins(peer.flags);
        this.add_subflow(conn, flow, Origin::Initial, conns);
        this
    }

    /// A connection in the client's role: its subflow is in `conns` and about to send its SYN.
    pub fn connect(_now: Instant, params: ConnectParams, conns: &mut ConnTable, _env: &mut Env<'_>) -> Self {
        let ConnectParams { local_key, conn, version, config, local, local_port, remote, remote_port } = params;
        let flow = FlowKey { local, remote, local_port, remote_port };
        let mut this = Self::new(Role::Client, local_key, version, local, config);
        this.checksum = config.checksum;
        this.add_subflow(conn, flow, Origin::Initial, conns);
        this
    }

    fn new(role: Role, local_key: u64, version: Version, local_address: IpAddr, config: MptcpConfig) -> Self {
        let local = key::derive(local_key, version);
        // RFC 8684 §3.1: the SYN with MP_CAPABLE takes the first octet of the data sequence space.
        let first = local.idsn + 1;
        Self {
            subflows: Vec::with_capacity(1),
            snd: Sender {
                una: first,
                sent: first,
                nxt: first,
                edge: first,
                retained: Ring::default(),
                next: 0,
                fin: DataFin::NotYet,
                fin_tries: 0,
            },
            rcv: Receiver {
                nxt: Dsn(0),
                edge: Dsn(0),
                space: 0,
                told: Dsn(0),
                reorder: ReorderQueue::default(),
                fin: None,
                fin_done: false,
                width: Width::Short,
            },
            mode: Mode::Negotiating,
            role,
            version,
            checksum: false,
            dirty: false,
            poll_at: 0,
            reinjection: Reinjection::default(),
            scheduler: Scheduler::new(config.scheduler),
            coupled_paths: 0,
            deadlines: Deadlines { data: Instant::MAX, probe: Instant::MAX, lonely: Instant::MAX, close: Instant::MAX },
            data_tries: 0,
            unheard: 0,
            probe_tries: 0,
            fresh: RxQueue::new(),
            mapped: RxQueue::new(),
            outcome: HalfOutcome::empty(),
            events: VecDeque::new(),
            config,
            local_key,
            remote_key: 0,
            local,
            remote: Derived { token: 0, idsn: Dsn(0) },
            peer_denies_joins: false,
            contiguous: true,
            repeated: false,
            elsewhere: false,
            last_rx: None,
            relief: Relief::default(),
            paths: PathManager::default(),
            local_address,
            established: false,
            confirmed: false,
            parting: None,
            told: false,
            over: false,
            closed: false,
        }
    }

    /// Takes a segment of subflow `id`; data in order at data level goes to `out`.
    #[allow(clippy::too_many_arguments, reason = "the verb's own arguments beside the tables that it borrows")]
    pub fn on_segment(
        &mut self,
        now: Instant,
        id: ConnId,
        segment: &SegmentIn,
        frame: Option<FrameId>,
        conns: &mut ConnTable,
        out: &mut RxQueue,
        env: &mut Env<'_>,
    ) -> HalfOutcome {
        let (Some(index), Some(conn)) = (self.index_of(id), conns.get(id)) else {
            if let Some(frame) = frame {
                env.pool.release(frame);
            }
            return HalfOutcome::empty();
        };
        let rcv_nxt = conn.rcv_nxt();
        let beyond_gap = frame.is_some() && segment.seq.after(rcv_nxt);
        if beyond_gap && conn.ooo_frames() == 0 {
            let gaps = &mut self.subflows[index].burden.gaps;
            *gaps = gaps.saturating_add(1);
        }
        let crowded = beyond_gap && self.is_crowded(index, segment.seq, conns, env);
        let ahead = crowded || self.overtakes_keys(segment, rcv_nxt);
        let Some(mut conn) = conns.get(id).filter(|_| !ahead) else {
            if let Some(frame) = frame {
                env.pool.release(frame);
            }
            return HalfOutcome::empty();
        };
        let before = out.len();
        let result = conn.on_segment(now, segment, frame, out, env);
        self.dirty = true;
        if let Some(dss) = self.expects(index, segment, result, &conn) {
            let window = conn.peer_window();
            if self.on_expected(index, result, (&dss, window), before, conns, out, env) {
                return std::mem::take(&mut self.outcome);
            }
        }
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.extend(out.drain(before..));
        if self.over {
            release_all(&mut fresh, env);
        } else if result.contains(Outcome::ACCEPTED) || result.contains(Outcome::RESET) {
            let signals = self.read_signals(segment, env);
            self.take_accepted(now, index, segment, result, &signals, &mut fresh, conns, out, env);
        } else if result.contains(Outcome::ACKED) && matches!(self.mode, Mode::Plain(_)) {
            // Old data that brings news of ours.
            self.outcome |= HalfOutcome::ACKED;
            self.on_plain_ack(conns, env);
        }
        release_all(&mut fresh, env);
        self.fresh = fresh;
        if result.contains(Outcome::ACCEPTED) {
            self.outcome |= HalfOutcome::ACCEPTED;
        }
        self.note_conn_end(now, index, result, conns, env);
        self.close_once_told(now, conns, env);
        std::mem::take(&mut self.outcome)
    }

    /// True when there is no room for a segment of subflow `index` beyond a gap, at `seq`: all subflows together keep as
    /// much there as the connection may. One subflow's own limit is of no use where a peer opens eight. What lies further
    /// beyond makes room, as within a subflow.
    #[cold]
    fn is_crowded(&self, index: usize, seq: SeqNum, conns: &mut ConnTable, env: &mut Env<'_>) -> bool {
        let mut kept = 0;
        for subflow in &self.subflows {
            kept += subflow.mapper.pending_frames() as u32;
            kept += conns.get(subflow.id).map_or(0, |conn| conn.ooo_frames());
        }
        if self.subflows.len() < 2 || kept < u32::from(self.config.max_reorder_frames) {
            return false;
        }
        let subflow = self.subflows.get(index).and_then(|subflow| conns.get(subflow.id));
        if subflow.is_some_and(|mut conn| conn.give_up_beyond(seq, env)) {
            return false;
        }
        env.counters.inc(Counter::TcpNoBuffer);
        true
    }

    fn read_signals(&self, segment: &SegmentIn, env: &mut Env<'_>) -> Signals {
        if segment.options.mptcp.is_empty() || matches!(self.mode, Mode::Plain(_)) {
            return Signals::default();
        }
        let signals = Signals::read(segment);
        env.counters.add(Counter::MptcpBadOption, u64::from(signals.refused));
        signals
    }

    #[allow(clippy::too_many_arguments, reason = "one step of on_segment")]
    fn take_accepted(
        &mut self,
        now: Instant,
        index: usize,
        segment: &SegmentIn,
        result: Outcome,
        signals: &Signals,
        fresh: &mut RxQueue,
        conns: &mut ConnTable,
        out: &mut RxQueue,
        env: &mut Env<'_>,
    ) {
        if result.contains(Outcome::RESET) {
            return self.on_reset(now, index, signals, conns, env);
        }
        if result.contains(Outcome::ESTABLISHED) {
            self.on_handshake_done(now, index, segment, signals, conns, env);
        } else {
            self.on_handshake_echo(index, segment, signals, conns, env);
        }
        if result.contains(Outcome::ACKED) {
            self.subflows[index].stale = self.subflows[index].down;
            self.outcome |= HalfOutcome::ACKED;
            self.recouple(index, conns);
        }
        match self.mode {
            Mode::Multipath => {
                self.on_signals(now, index, segment, signals, conns, env);
                if matches!(self.mode, Mode::Multipath) {
                    self.check_options_pass(now, index, result, signals, conns, env);
                }
            }
            Mode::Negotiating | Mode::Plain(_) => {}
        }
        self.check_first_data(now, index, result, signals, fresh, conns, env);
        if let Mode::Plain(_) = self.mode {
            self.on_plain_ack(conns, env);
        }
        self.take_payload(now, index, fresh, conns, out, env);
        if result.contains(Outcome::FIN) {
            if self.peer_fell_back_unheard(index) {
                self.fall_back(index, Reason::NoOption, conns, env);
                self.take_plain(index, &mut RxQueue::new(), out, env);
            }
            self.on_subflow_fin(index, conns);
        }
    }

    /// Runs what is due: of the subflow `id`, or of the data level when there is none.
    pub fn on_timer(
        &mut self,
        now: Instant,
        id: Option<ConnId>,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) -> HalfOutcome {
        self.dirty = true;
        match id {
            Some(id) => {
                if let (Some(index), Some(mut conn)) = (self.index_of(id), conns.get(id)) {
                    let result = conn.on_timer(now, env);
                    if result.intersects(Outcome::RTO | Outcome::SILENT) && conn.peer_window() > 0 {
                        self.on_silence(index);
                    }
                    self.note_conn_end(now, index, result, conns, env);
                }
            }
            None => self.on_own_timers(now, conns, env),
        }
        self.close_once_told(now, conns, env);
        std::mem::take(&mut self.outcome)
    }

    fn on_own_timers(&mut self, now: Instant, conns: &mut ConnTable, env: &mut Env<'_>) {
        if self.over {
            return;
        }
        if self.deadlines.lonely <= now {
            self.deadlines.lonely = Instant::MAX;
            env.counters.inc(Counter::MptcpNoSubflowTimeouts);
            self.outcome |= HalfOutcome::TIMED_OUT;
            return self.end(env);
        }
        if self.deadlines.close <= now {
            return self.on_close_timeout(conns, env);
        }
        if self.deadlines.data <= now {
            self.on_data_timeout(conns, env);
        }
        if self.deadlines.probe <= now {
            self.on_probe_timer(now, conns, env);
        }
        for index in 0..self.subflows.len() {
            if self.subflows[index].third_ack_due <= now {
                self.repeat_third_ack(now, index, conns, env);
            }
            let subflow = &mut self.subflows[index];
            if subflow.resumes_at() <= now {
                subflow.end_signal_pause();
                ask_ack(conns.get(subflow.id));
            }
        }
        if self.paths.deadline <= now {
            self.announce_again(now, conns);
        }
        if self.relief.due <= now {
            self.on_relief_timer(now, conns, env);
        }
    }

    /// When the data level wants to be called again; each subflow has a deadline of its own.
    pub fn next_deadline(&self) -> Option<Instant> {
        let due = self.own_deadline();
        (due < Instant::MAX).then_some(due)
    }

    fn own_deadline(&self) -> Instant {
        if self.over {
            return Instant::MAX;
        }
        let Deadlines { data, probe, lonely, close } = self.deadlines;
        let mut due = data.min(probe).min(lonely).min(close).min(self.paths.deadline).min(self.relief.due);
        for subflow in &self.subflows {
            due = due.min(subflow.third_ack_due).min(subflow.resumes_at());
        }
        due
    }

    /// When the connection or one of its subflows wants to be called again; [`Instant::MAX`] for never.
    pub fn deadline(&self, conns: &mut ConnTable) -> Instant {
        let mut due = self.own_deadline();
        for subflow in &self.subflows {
            if let Some(conn) = conns.get(subflow.id) {
                due = due.min(conn.deadline());
            }
        }
        due
    }

    /// Queues payload to be sent.
    pub fn push(&mut self, mut segment: TxSegment, env: &mut Env<'_>) {
        if self.over || self.snd.fin != DataFin::NotYet || segment.len == 0 {
            env.pool.release(segment.frame);
            return;
        }
        segment.dsn = self.snd.nxt.0;
        set_holders(&mut segment, 0);
        self.snd.nxt += u64::from(segment.len);
        let waits = self.snd.retained.len() > self.snd.next;
        if segment.len < SMALL_SEGMENT
            && let Some(last) = self.snd.retained.back_mut().filter(|_| waits)
            && last.absorb(&segment, COALESCED, env.pool)
        {
            env.counters.inc(Counter::TcpCoalesced);
            env.pool.release(segment.frame);
            self.dirty = true;
            return;
        }
        self.snd.retained.push_back(segment, env.tx_rings);
        self.dirty = true;
    }

    /// Ends our direction once everything queued is sent: DATA_FIN.
    pub fn shutdown(&mut self) {
        if self.snd.fin == DataFin::NotYet {
            self.snd.fin = DataFin::Queued;
            self.dirty = true;
        }
    }

    /// Says how many bytes beyond those already handed out the owner takes now. The edge never moves left. True when
    /// there is something to send, such as the news of a window that has opened.
    pub fn set_receive_space(&mut self, bytes: u32) -> bool {
        self.rcv.space = bytes;
        // RFC 8684 §3.3.4: DATA_ACK plus window must not shrink.
        self.rcv.edge = self.rcv.edge.max(self.rcv.nxt + u64::from(bytes));
        self.dirty |= self.owes_window();
        self.dirty || matches!(self.mode, Mode::Plain(_))
    }

    /// True when there is something to send that was left over, or nothing that was received has given.
    pub fn has_more(&self) -> bool {
        self.dirty && !self.over
    }

    /// True once nothing is left to be sent or received: the connection can be released.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// True once the connection goes on as plain TCP.
    pub fn has_fallen_back(&self) -> bool {
        matches!(self.mode, Mode::Plain(_))
    }

    /// The token that names the connection in the peer's MP_JOINs.
    pub fn local_token(&self) -> u32 {
        self.local.token
    }

    /// True once the peer is known to have both keys: further subflows can be opened (RFC 8684 §3.1).
    pub fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Our address on the first subflow, whether that lives or not: its ID is 0.
    pub fn local_address(&self) -> IpAddr {
        self.local_address
    }

    /// The version that it speaks.
    pub fn version(&self) -> Version {
        self.version
    }

    /// True when the peer forbade subflows to the address of the first one (RFC 8684 §3.1, C flag).
    pub fn peer_denies_joins(&self) -> bool {
        self.peer_denies_joins
    }

    /// True when DSS checksums were agreed on.
    pub fn uses_checksums(&self) -> bool {
        self.checksum
    }

    /// The subflows' connections.
    pub fn subflow_ids(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.subflows.iter().map(|subflow| subflow.id)
    }

    /// What there is to say about each subflow.
    pub fn subflow_stats(&self) -> impl Iterator<Item = SubflowStats> + '_ {
        self.subflows.iter().map(|subflow| SubflowStats {
            id: subflow.id,
            flow: subflow.flow,
            bytes_sent: subflow.bytes_sent,
            bytes_received: subflow.bytes_received,
            backup: subflow.backup,
            stale: subflow.stale,
            open: subflow.phase == Phase::Open,
        })
    }

    /// Segments pushed that the peer has not acknowledged at data level.
    pub fn queued_frames(&self) -> u32 {
        self.snd.retained.len() as u32
    }

    /// Data sequence number up to which the peer has acknowledged: its growth is what was delivered, in bytes.
    pub fn data_acknowledged(&self) -> u64 {
        self.snd.una.0
    }

    /// Bytes pushed that no subflow carries yet.
    pub fn unsent_bytes(&self) -> u64 {
        self.snd.nxt.distance_from(self.snd.sent)
    }

    /// Frames that wait for data of another subflow, or for a mapping.
    pub fn reorder_frames(&self) -> u32 {
        let pending: usize = self.subflows.iter().map(|subflow| subflow.mapper.pending_frames()).sum();
        (self.rcv.reorder.len() + pending) as u32
    }

    /// Bytes that wait for data of another subflow.
    pub fn reorder_bytes(&self) -> u64 {
        self.rcv.reorder.bytes()
    }

    /// True when [`Connection::poll_event`] has one.
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// Shows every frame that the data level holds, those of the subflows' connections left out. For audits and
    /// simulations.
    pub fn frames(&self, visit: &mut dyn FnMut(&FrameId)) {
        self.snd.retained.iter().for_each(|segment| visit(&segment.frame));
        self.rcv.reorder.frames(visit);
        self.subflows.iter().for_each(|subflow| subflow.mapper.frames(visit));
    }

    /// Takes the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Gives every frame back that the data level holds. Those of the subflows go with their connections.
    pub fn release(&mut self, env: &mut Env<'_>) {
        while let Some(segment) = self.snd.retained.pop_front(env.tx_rings) {
            env.pool.release(segment.frame);
        }
        self.snd.next = 0;
        self.rcv.reorder.clear(env);
        for subflow in &mut self.subflows {
            subflow.mapper.clear(env);
        }
        release_all(&mut self.fresh, env);
        release_all(&mut self.mapped, env);
    }

    pub(crate) fn keys(&self) -> KeyPair {
        KeyPair { local: self.local_key, remote: self.remote_key, version: self.version }
    }

    pub(crate) fn index_of(&self, id: ConnId) -> Option<usize> {
        self.subflows.iter().position(|subflow| subflow.id == id)
    }

    pub(crate) fn event(&mut self, event: Event) {
        // A subflow's end must never be lost: its owner removes the connection on it. There are at most as many of those
        // as subflows; other events give way to them.
        if self.events.len() < MAX_EVENTS || matches!(event, Event::SubflowEnded(..)) {
            self.events.push_back(event);
        }
    }

    /// Remembers a subflow whose connection is in `conns`.
    pub(crate) fn add_subflow(&mut self, id: ConnId, flow: FlowKey, origin: Origin, conns: &mut ConnTable) -> usize {
        let holder = self.free_holder();
        let mut subflow = Subflow::new(id, flow, origin, holder);
        if let Some(conn) = conns.get(id) {
            subflow.snd_origin = conn.iss();
            subflow.last_una = conn.iss() + 1;
            // The peer's data counts from its SYN; when that is not here yet, this is set with the SYN/ACK.
            subflow.mapper = crate::mapping::Mapper::new(conn.rcv_nxt() - 1);
        }
        self.contiguous &= self.subflows.is_empty();
        self.subflows.push(subflow);
        self.subflows.len() - 1
    }

    /// A bit that no entry of the retained ring has.
    fn free_holder(&mut self) -> u32 {
        let live = self.subflows.iter().fold(0, |bits, subflow| bits | subflow.holder);
        let free = (0..HOLDER_BITS).map(|bit| 1 << bit).find(|bit| (live | self.reinjection.used) & bit == 0);
        let bit = free.unwrap_or_else(|| {
            // Every bit was used once: take those of the dead out of the ring, once in so many subflows.
            for entry in self.snd.retained.iter_mut() {
                let kept = holders(entry) & live;
                set_holders(entry, kept);
            }
            self.reinjection.used = live;
            (0..HOLDER_BITS).map(|bit| 1 << bit).find(|bit| live & bit == 0).unwrap_or(1)
        });
        self.reinjection.used |= bit;
        bit
    }

    /// Aborts a subflow: its RST carries `reset` and what else is due.
    pub(crate) fn abort_subflow(
        &mut self,
        now: Instant,
        index: usize,
        reason: Option<ResetReason>,
        with: ResetWith,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) {
        let subflow = &mut self.subflows[index];
        if subflow.phase == Phase::Aborted {
            return;
        }
        // RFC 6824 has no reasons.
        let told = reason.filter(|_| self.version == Version::V1);
        subflow.reset = told.map(|reason| TcpReset { transient: false, reason });
        subflow.reset_with = with;
        if !subflow.ended {
            subflow.end = SubflowEnd::ResetByUs(reason);
        }
        if let Some(mut conn) = conns.get(subflow.id) {
            conn.abort(env);
        }
        self.note_ended(now, index, LastReset::Wait, env);
    }

    /// The retransmission timeout of the data level: when subflows have had time for a retransmission of their own.
    pub(crate) fn data_rto(&self, tries: u8, conns: &mut ConnTable) -> Duration {
        let ids = self.subflows.iter().filter(|subflow| subflow.takes_signals() && !subflow.stale);
        let slowest = ids.filter_map(|subflow| conns.get(subflow.id).map(|conn| conn.rto())).max();
        let base = (slowest.unwrap_or(MIN_DATA_RTO) * 2).max(MIN_DATA_RTO);
        (base * (1 << tries.min(6))).min(MAX_DATA_RTO)
    }

    /// True when a segment is a SYN of either kind.
    pub(crate) fn is_syn(segment: &SegmentIn) -> bool {
        segment.flags.contains(TcpFlags::SYN)
    }
}

/// The subflows that carry an entry of the retained ring.
pub(crate) fn holders(entry: &TxSegment) -> u32 {
    entry.seq.0
}

pub(crate) fn set_holders(entry: &mut TxSegment, holders: u32) {
    entry.seq.0 = holders;
}

/// The data sequence number after an entry.
pub(crate) fn entry_end(entry: &TxSegment) -> Dsn {
    Dsn(entry.dsn) + u64::from(entry.len)
}

pub(crate) fn release_all(queue: &mut RxQueue, env: &mut Env<'_>) {
    for segment in queue.drain(..) {
        env.pool.release(segment.frame);
    }
}

/// Asks for an ACK on `conn` at the next poll, to carry signals.
pub(crate) fn ask_ack(conn: Option<Conn<'_>>) {
    if let Some(mut conn) = conn {
        conn.request_ack();
    }
}

#[cfg(test)]
mod tests;
