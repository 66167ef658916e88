//! One connection: its state, what its owner may ask and order.

use super::cc::Controller;
use super::config::{INITIAL_RTO, MIN_PAYLOAD};
use super::handshake::{Agreed, Handshake, PeerSyn, agree};
use super::pmtu::Pmtu;
use super::rack::{Probe, Rack};
use super::receive::OutOfOrder;
use super::recovery::Prr;
use super::rtt::{ReceiverRtt, Rtt};
use super::send::SendRing;
use super::undo::{Frto, Undo};
use super::{CcKind, ConnSetup, Coupling, Opening, State, SynSeen, TcpConfig};
use crate::counters::Counter;
use crate::env::Env;
use crate::frame::FrameId;
use crate::limits::COALESCED;
use crate::segment::{TxFlags, TxSegment};
use crate::seq::SeqNum;
use crate::time::{Duration, Instant};
use crate::wire::FlowKey;

use bitflags::bitflags;

bitflags! {
    /// What a connection has agreed on and what it owes.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub(super) struct ConnFlags: u32 {
        /// Timestamps were agreed on.
        const TIMESTAMPS = 1;
        /// SACK was agreed on.
        const SACK = 1 << 1;
        /// The window is the owner's affair (MPTCP).
        const SHARED_WINDOW = 1 << 2;
        /// Nothing may be sent yet.
        const HELD = 1 << 3;
        /// An ACK is to be sent at once.
        const ACK_NOW = 1 << 4;
        /// FIN follows what is queued.
        const FIN_QUEUED = 1 << 5;
        /// FIN was sent.
        const FIN_SENT = 1 << 6;
        /// FIN is to be sent again.
        const FIN_LOST = 1 << 7;
        /// The peer's FIN was received in order.
        const FIN_RECEIVED = 1 << 8;
        /// A reset is to be sent.
        const RESET_QUEUED = 1 << 9;
        /// The SYN or SYN+ACK is to be sent.
        const SYN_QUEUED = 1 << 10;
        /// Loss recovery is under way.
        const RECOVERY = 1 << 11;
        /// The timeout's retransmissions are under way: slow start again.
        const LOSS = 1 << 12;
        /// One segment beyond the peer's window is allowed: a zero-window probe.
        const PROBE = 1 << 13;
        /// Data waits for the congestion window.
        const CWND_LIMITED = 1 << 14;
        /// The last segment in flight is to be sent again as a tail loss probe.
        const TAIL_PROBE = 1 << 15;
        /// Data waited for the congestion window in this round trip.
        const CWND_WAS_LIMITED = 1 << 16;
        /// Data leaves at a rate.
        const PACED = 1 << 17;
        /// Data waits for its time to leave.
        const PACE_WAITS = 1 << 18;
        /// ECN was agreed on.
        const ECN = 1 << 19;
        /// A mark was received and the peer has not yet said that it slowed down: acknowledgments carry ECE.
        const ECHO_MARK = 1 << 20;
        /// The window was reduced: the next new data carries CWR.
        const CWR_DUE = 1 << 21;
        /// The window was reduced for a mark in this round trip.
        const ECN_REDUCED = 1 << 22;
        /// Congestion control has a model of the path and wants delivery rates.
        const MODEL = 1 << 23;
        /// The peer takes nothing out of order yet: one segment is in flight at most, and acknowledgments stand before it.
        const IN_ORDER = 1 << 24;
    }
}

/// What every segment touches: two cache lines.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Hot {
    pub state: State,
    pub snd_scale: u8,
    pub rcv_scale: u8,
    /// Segments received since the last ACK was sent.
    pub unacked: u8,
    pub flags: ConnFlags,
    pub snd_una: SeqNum,
    pub snd_nxt: SeqNum,
    /// Sequence number after everything queued, FIN left out.
    pub snd_end: SeqNum,
    pub snd_wnd: u32,
    pub snd_wl1: SeqNum,
    pub snd_wl2: SeqNum,
    pub rcv_nxt: SeqNum,
    /// The right edge that the peer was shown; never moves left.
    pub rcv_edge: SeqNum,
    /// Bytes beyond `rcv_nxt` that the owner takes.
    pub rcv_space: u32,
    /// `rcv_nxt` of the last ACK.
    pub last_ack: SeqNum,
    pub ts_recent: u32,
    pub ts_offset: u32,
    pub cwnd: u32,
    /// The round trip ends when this is acknowledged.
    pub round_end: SeqNum,
    /// What was used of the window is measured until this is acknowledged, and so far it was so many bytes.
    pub usage_end: SeqNum,
    pub max_flight: u32,
    /// The largest segment that the path and the peer take, options included.
    pub snd_mss: u16,
    /// Most payload of a segment: `snd_mss` without options. Never zero.
    pub smss: u16,
    /// The largest payload that the peer has acknowledged since the path last took less.
    pub largest_acked: u16,
    pub quick_acks: u8,
    pub upper_reserve: u8,
    pub dup_acks: u8,
    /// Acknowledgments owed to a peer without SACK, which counts them.
    pub acks_due: u8,
    pub rto_at: Instant,
    pub ack_at: Instant,
    /// When paced data may leave.
    pub pace_at: Instant,
}

const _: () = assert!(size_of::<Hot>() == 128);

/// What the timer at [`Hot::rto_at`] is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TimerKind {
    /// RFC 6298.
    Retransmit,
    /// RFC 8985 §7.
    TailProbe,
    /// RFC 9293 §3.8.6.1.
    Persist,
}

/// The rest.
#[derive(Debug)]
pub(super) struct Cold {
    pub owner: u64,
    pub flow: FlowKey,
    pub config: TcpConfig,
    pub iss: SeqNum,
    pub irs: SeqNum,
    pub handshake: Handshake,
    /// The peer's SYN, until the handshake is over.
    pub accepting: Option<SynSeen>,
    pub ring: SendRing,
    pub ooo: OutOfOrder,
    pub rtt: Rtt,
    pub receiver_rtt: ReceiverRtt,
    pub cc: Controller,
    pub pmtu: Pmtu,
    /// Recovery ends when this is acknowledged.
    pub recovery_point: SeqNum,
    pub rack: Rack,
    /// A tail loss probe that nothing has answered yet.
    pub probe: Option<Probe>,
    pub prr: Prr,
    pub undo: Option<Undo>,
    pub frto: Frto,
    /// No further mark counts until this is acknowledged.
    pub ecn_end: SeqNum,
    /// When the peer last acknowledged something new, or had nothing to acknowledge.
    pub progress_at: Instant,
    /// When the RACK reordering timer fires.
    pub reorder_at: Instant,
    /// When TIME-WAIT or FIN-WAIT-2 ends.
    pub linger_at: Instant,
    /// When anything was last received.
    pub heard_at: Instant,
    pub challenge_at: Instant,
    pub challenges: u8,
    pub timeouts: u8,
    pub probes: u8,
    pub keepalives: u8,
    /// What the timer at `rto_at` is for.
    pub timer: TimerKind,
    pub ts_recent_at: Instant,
    pub retransmits: u64,
    pub bytes_acked: u64,
    pub bytes_received: u64,
}

/// The view of one connection in its [`super::ConnTable`].
#[derive(Debug)]
pub struct Conn<'a> {
    pub(super) hot: &'a mut Hot,
    pub(super) cold: &'a mut Cold,
}

impl Conn<'_> {
    pub(super) fn begin(now: Instant, setup: &ConnSetup, _env: &mut Env<'_>) -> (Hot, Cold) {
        let offer = *setup.opening.offer();
        let (iss, peer, state) = match setup.opening {
            Opening::Connect { iss, .. } => (iss, None, State::SynSent),
            Opening::Accept { iss, syn, .. } => (iss, Some(syn), State::SynReceived),
            Opening::Adopt { iss, peer, .. } => (iss, Some(peer), State::Established),
        };
        let mut flags = ConnFlags::SYN_QUEUED;
        let mut snd_una = iss;
        if let Opening::Adopt { hold, .. } = setup.opening {
            flags = ConnFlags::ACK_NOW;
            flags.set(ConnFlags::HELD, hold);
            snd_una = iss + 1;
        }
        let model = setup.config.cc == CcKind::Bbr;
        flags.set(ConnFlags::PACED, setup.config.pacing || model);
        flags.set(ConnFlags::MODEL, model);
        let mut hot = Hot {
            state,
            snd_scale: 0,
            rcv_scale: 0,
            unacked: 0,
            flags,
            snd_una,
            snd_nxt: iss + 1,
            snd_end: iss + 1,
            snd_wnd: 0,
            snd_wl1: SeqNum(0),
            snd_wl2: iss,
            rcv_nxt: SeqNum(0),
            rcv_edge: SeqNum(0),
            rcv_space: offer.rcv_wnd,
            last_ack: SeqNum(0),
            ts_recent: 0,
            ts_offset: offer.timestamps.map_or(0, |ts| ts.offset),
            cwnd: 0,
            round_end: iss,
            usage_end: iss,
            max_flight: 0,
            snd_mss: super::config::DEFAULT_MSS_V4,
            smss: super::config::DEFAULT_MSS_V4,
            largest_acked: 0,
            quick_acks: super::config::QUICK_ACKS,
            upper_reserve: setup.config.upper_reserve,
            dup_acks: 0,
            acks_due: 0,
            rto_at: Instant::MAX,
            ack_at: Instant::MAX,
            pace_at: Instant::ZERO,
        };
        let mut cold = Cold {
            owner: setup.owner,
            flow: setup.flow,
            config: setup.config,
            iss,
            irs: SeqNum(0),
            handshake: Handshake { offer, ..Handshake::default() },
            accepting: peer,
            ring: SendRing::new(iss, model.then(Box::default)),
            ooo: OutOfOrder::default(),
            rtt: Rtt::default(),
            receiver_rtt: ReceiverRtt::default(),
            cc: Controller::new(setup.config.cc, u64::from(iss.0) << 16 | u64::from(setup.flow.local_port)),
            pmtu: Pmtu::default(),
            recovery_point: iss,
            rack: Rack::default(),
            probe: None,
            prr: Prr::default(),
            undo: None,
            frto: Frto::Off,
            ecn_end: iss,
            progress_at: now,
            reorder_at: Instant::MAX,
            linger_at: Instant::MAX,
            heard_at: now,
            challenge_at: Instant::ZERO,
            challenges: 0,
            timeouts: 0,
            probes: 0,
            keepalives: 0,
            timer: TimerKind::Retransmit,
            ts_recent_at: now,
            retransmits: 0,
            bytes_acked: 0,
            bytes_received: 0,
        };
        if let Some(peer) = peer {
            let which = if state == State::SynReceived { PeerSyn::Syn } else { PeerSyn::SynAck };
            Conn { hot: &mut hot, cold: &mut cold }.take_peer_syn(now, &peer, which);
        }
        (hot, cold)
    }

    /// Agrees with what the peer's SYN or SYN+ACK says.
    pub(super) fn take_peer_syn(&mut self, now: Instant, peer: &SynSeen, which: PeerSyn) {
        let Self { hot, cold } = self;
        let offer = cold.handshake.offer;
        let agreed: Agreed = agree(&offer, peer, which, &cold.config, cold.flow.remote.is_ipv6());
        cold.irs = peer.seq;
        hot.snd_scale = agreed.snd_scale;
        hot.rcv_scale = agreed.rcv_scale;
        hot.flags.set(ConnFlags::TIMESTAMPS, agreed.timestamps);
        hot.flags.set(ConnFlags::SACK, agreed.sack);
        // The model reads losses, not marks: a peer must not be told otherwise.
        hot.flags.set(ConnFlags::ECN, agreed.ecn && !hot.flags.contains(ConnFlags::MODEL));
        hot.rcv_nxt = peer.seq + 1 + u32::from(peer.data_taken);
        hot.rcv_edge = hot.rcv_nxt + offer.rcv_wnd;
        hot.last_ack = hot.rcv_nxt;
        // RFC 7323 §2.2: the window in a SYN is never scaled.
        hot.snd_wnd = u32::from(peer.window);
        hot.snd_wl1 = peer.seq;
        hot.snd_wl2 = hot.snd_una;
        if let Some(ts) = peer.timestamps {
            hot.ts_recent = ts.value;
            cold.ts_recent_at = now;
        }
        if which == PeerSyn::SynAck
            && let (Some(ts), Some(ours)) = (peer.timestamps, offer.timestamps)
            && cold.handshake.sent == 0
        {
            // Somebody else sent our SYN: the peer's echo is all that tells how long ago.
            let age_ms = (now.as_millis() as u32).wrapping_add(ours.offset).wrapping_sub(ts.echo);
            if age_ms < INITIAL_RTO.as_millis() as u32 {
                cold.rtt.sample((age_ms + 1) * 1_000, now.as_millis() as u32, 1, &cold.config);
            }
        }
        self.set_segment_size(agreed.snd_mss);
        self.cold.pmtu.begin(agreed.snd_mss);
        self.hot.cwnd = self.initial_window();
    }

    /// From now on segments have at most `mss` bytes, options included.
    pub(super) fn set_segment_size(&mut self, mss: u16) {
        let options = if self.hot.flags.contains(ConnFlags::TIMESTAMPS) { 12 } else { 0 };
        self.hot.snd_mss = mss;
        self.hot.smss = mss.saturating_sub(options + u16::from(self.hot.upper_reserve)).max(MIN_PAYLOAD);
    }

    /// Queues payload to be sent; its sequence number is given here.
    pub fn push(&mut self, mut segment: TxSegment, env: &mut Env<'_>) {
        let Self { hot, cold } = self;
        let open = !hot.flags.contains(ConnFlags::FIN_QUEUED) && hot.state != State::Closed;
        if !open || segment.len == 0 {
            return env.pool.release(segment.frame);
        }
        segment.seq = hot.snd_end;
        segment.flags &= TxFlags::MAPPED | TxFlags::PUSH;
        segment.retransmits = 0;
        hot.snd_end += u32::from(segment.len);
        // A peer that takes small segments only costs no more frames than any other.
        let limit = hot.smss.max(COALESCED);
        if segment.len < limit / 4 {
            let saved = cold.ring.push_small(segment, limit, env);
            return env.counters.add(Counter::TcpCoalesced, u64::from(saved));
        }
        cold.ring.push(segment, env);
    }

    /// Ends our direction: FIN follows everything queued.
    pub fn shutdown(&mut self) {
        self.hot.flags |= ConnFlags::FIN_QUEUED;
    }

    /// Resets the connection: everything held is released, and [`Conn::poll_transmit`] gives the reset once.
    pub fn abort(&mut self, env: &mut Env<'_>) {
        let silent = matches!(self.hot.state, State::Closed | State::SynSent | State::TimeWait);
        self.release(env);
        self.hot.flags &= ConnFlags::TIMESTAMPS | ConnFlags::SHARED_WINDOW;
        if !silent {
            self.hot.flags |= ConnFlags::RESET_QUEUED;
        }
        self.close();
    }

    /// Nothing is left but what is queued to be sent.
    pub(super) fn close(&mut self) {
        self.hot.state = State::Closed;
        self.hot.rto_at = Instant::MAX;
        self.hot.ack_at = Instant::MAX;
        self.cold.reorder_at = Instant::MAX;
        self.cold.linger_at = Instant::MAX;
    }

    /// Shows every frame that it holds, one that several segments share several times. For audits and simulations.
    pub fn frames(&self, visit: &mut dyn FnMut(&FrameId)) {
        self.cold.ring.frames(visit);
        self.cold.ooo.frames(visit);
    }

    /// Releases every frame.
    pub(super) fn release(&mut self, env: &mut Env<'_>) {
        self.cold.ring.clear(env);
        self.cold.ooo.clear(env);
    }

    /// Lets a connection that was held back speak.
    pub fn unhold(&mut self) {
        self.hot.flags.remove(ConnFlags::HELD);
        self.hot.flags |= ConnFlags::ACK_NOW;
    }

    /// Sends an ACK at the next poll.
    pub fn request_ack(&mut self) {
        self.hot.flags |= ConnFlags::ACK_NOW;
    }
}

/// What an owner of several connections orders.
impl Conn<'_> {
    /// With [`super::CcKind::Coupled`]: how the window grows and shrinks from now on.
    pub fn set_coupling(&mut self, coupling: Coupling) {
        self.cold.cc.coupling = coupling;
    }

    /// Halves the congestion window: this connection holds up others of its owner (MPTCP's penalisation).
    pub fn penalise(&mut self) {
        if !self.in_recovery() {
            self.hot.cwnd = self.cold.cc.on_penalty(self.hot.cwnd, u32::from(self.hot.smss));
        }
    }

    /// Whether nothing may be sent that the peer would find out of order, should what was sent before it be lost: one
    /// segment is in flight then, and an acknowledgment has the sequence number of the first byte that the peer has not
    /// acknowledged.
    pub fn keep_in_order(&mut self, keep: bool) {
        let ends = !keep && self.hot.flags.contains(ConnFlags::IN_ORDER);
        self.hot.flags.set(ConnFlags::IN_ORDER, keep);
        if ends && !self.in_recovery() {
            // RFC 5681 §3.1 of a lost SYN: what was lost one at a time does not say how much the path takes at once.
            self.cold.cc.begin_anew();
            self.cold.undo = None;
        }
    }
}

macro_rules! facts {
    ($($(#[$doc:meta])* $name:ident($self:ident) -> $type:ty = $value:expr;)+) => {
        impl Conn<'_> { $($(#[$doc])* pub fn $name(&$self) -> $type { $value })+ }
    };
}

facts! {
    /// Its state.
    state(self) -> State = self.hot.state;
    /// Oldest sequence number that is not acknowledged.
    snd_una(self) -> SeqNum = self.hot.snd_una;
    /// Next sequence number to send.
    snd_nxt(self) -> SeqNum = self.hot.snd_nxt;
    /// Sequence number after everything queued.
    snd_end(self) -> SeqNum = self.hot.snd_end;
    /// Next sequence number expected.
    rcv_nxt(self) -> SeqNum = self.hot.rcv_nxt;
    /// Our initial sequence number.
    iss(self) -> SeqNum = self.cold.iss;
    /// The peer's initial sequence number.
    irs(self) -> SeqNum = self.cold.irs;
    /// Bytes queued and not sent.
    unsent_bytes(self) -> u32 = self.cold.ring.unsent;
    /// Bytes in flight: sent, not acknowledged, not known to have arrived or been lost (RFC 6675 "pipe").
    in_flight_bytes(self) -> u32 = {
        // An acknowledged FIN stands behind everything queued.
        let queued = self.hot.snd_end.saturating_distance_from(self.hot.snd_una);
        let outstanding = queued.saturating_sub(self.cold.ring.unsent);
        outstanding.saturating_sub(self.cold.ring.sacked).saturating_sub(self.cold.ring.lost)
    };
    /// Frames queued or in flight.
    queued_frames(self) -> u32 = self.cold.ring.len() as u32;
    /// Frames that wait for what is missing before them.
    ooo_frames(self) -> u32 = self.cold.ooo.len() as u32;
    /// Congestion window in bytes.
    cwnd(self) -> u32 = self.hot.cwnd;
    /// How often losses have reduced the congestion window, modulo 2^32.
    loss_events(self) -> u32 = self.cold.cc.losses;
    /// Largest segment that may be sent, options included.
    sending_mss(self) -> u16 = self.hot.snd_mss;
    /// Slow-start threshold in bytes.
    ssthresh(self) -> u32 = self.cold.cc.ssthresh;
    /// Bytes that wait to be sent, for the first time or again.
    waiting_bytes(self) -> u32 = self.cold.ring.unsent.saturating_add(self.cold.ring.lost);
    /// Bytes that the congestion window leaves beyond what is in flight and what waits to be sent; none while everything goes
    /// in order, segment by segment ([`Conn::keep_in_order`]).
    cwnd_space(self) -> u32 = if self.hot.flags.contains(ConnFlags::IN_ORDER) {
        0
    } else {
        self.hot.cwnd.saturating_sub(self.in_flight_bytes()).saturating_sub(self.waiting_bytes())
    };
    /// Smoothed RTT; zero before the first sample.
    srtt(self) -> Duration = self.cold.rtt.srtt();
    /// Round-trip time by what the peer sends, where it sends; else as [`Conn::srtt`]. For what a window must hold.
    receiver_rtt(self) -> Duration = self.cold.receiver_rtt.get().max(self.cold.rtt.srtt());
    /// Retransmission timeout, backoff included.
    rto(self) -> Duration = self.cold.rtt.rto(&self.cold.config);
    /// Most payload of a segment, options taken off.
    segment_payload(self) -> u16 = self.hot.smss;
    /// The peer's window in bytes.
    peer_window(self) -> u32 = self.hot.snd_wnd;
    /// Retransmission timeouts since the peer last acknowledged something.
    consecutive_timeouts(self) -> u8 = self.cold.timeouts;
    /// Its 4-tuple.
    flow(self) -> &FlowKey = &self.cold.flow;
    /// What the owner gave.
    owner(self) -> u64 = self.cold.owner;
    /// True when everything queued was acknowledged, FIN left out.
    all_acked(self) -> bool = self.cold.ring.is_empty();
    /// True when our FIN was acknowledged.
    fin_acked(self) -> bool =
        self.hot.flags.contains(ConnFlags::FIN_SENT) && self.hot.snd_una == self.hot.snd_end + 1;
    /// True when the peer's FIN was received in order.
    fin_received(self) -> bool = self.hot.flags.contains(ConnFlags::FIN_RECEIVED);
    /// True when nothing is left of it.
    is_closed(self) -> bool = self.hot.state == State::Closed;
    /// Shift of the windows that we send.
    receive_scale(self) -> u8 = self.hot.rcv_scale;
    /// True when timestamps were agreed on.
    timestamps(self) -> bool = self.hot.flags.contains(ConnFlags::TIMESTAMPS);
    /// Segments sent again.
    retransmits(self) -> u64 = self.cold.retransmits;
    /// Bytes that the peer acknowledged.
    bytes_acked(self) -> u64 = self.cold.bytes_acked;
    /// Bytes received in order.
    bytes_received(self) -> u64 = self.cold.bytes_received;
}
