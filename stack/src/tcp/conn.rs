//! One connection: its state, what its owner may ask and order.

use super::cc::Controller;
use super::handshake::{Agreed, Handshake, PeerSyn, agree};
use super::receive::OutOfOrder;
use super::rtt::Rtt;
use super::send::SendRing;
use super::{ConnSetup, Coupling, Opening, State, SynSeen, TcpConfig};
use crate::env::Env;
use crate::segment::{TxFlags, TxSegment};
use crate::seq::SeqNum;
use crate::time::{Duration, Instant};
use crate::wire::FlowKey;

use bitflags::bitflags;

bitflags! {
    /// What a connection has agreed on and what it owes.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub(super) struct ConnFlags: u16 {
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
        /// Sending is limited by what is queued, not by the window.
        const APP_LIMITED = 1 << 14;
        /// The last segment in flight is to be sent again as a tail loss probe.
        const TAIL_PROBE = 1 << 15;
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
    pub snd_mss: u16,
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
    pub quick_acks: u8,
    pub upper_reserve: u8,
    pub dup_acks: u8,
    pub ooo_frames_hint: u8,
    pub rto_at: Instant,
    pub ack_at: Instant,
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
    pub cc: Controller,
    /// Recovery ends when this is acknowledged.
    pub recovery_point: SeqNum,
    /// Latest transmission known to have arrived (RFC 8985): when it was sent, its end.
    pub rack: Option<(u32, SeqNum)>,
    /// PRR: bytes delivered and sent in this recovery, flight size at its start.
    pub prr_delivered: u32,
    pub prr_out: u32,
    pub recover_flight: u32,
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
    /// A tail loss probe was sent and nothing has been acknowledged since.
    pub tail_probed: bool,
    /// The round trip ends when this is acknowledged.
    pub round_end: SeqNum,
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
        let mut hot = Hot {
            state,
            snd_scale: 0,
            rcv_scale: 0,
            unacked: 0,
            flags,
            snd_mss: 536,
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
            quick_acks: super::config::QUICK_ACKS,
            upper_reserve: setup.config.upper_reserve,
            dup_acks: 0,
            ooo_frames_hint: 0,
            rto_at: Instant::MAX,
            ack_at: Instant::MAX,
        };
        let mut cold = Cold {
            owner: setup.owner,
            flow: setup.flow,
            config: setup.config,
            iss,
            irs: SeqNum(0),
            handshake: Handshake { offer, ..Handshake::default() },
            accepting: peer,
            ring: SendRing::default(),
            ooo: OutOfOrder::default(),
            rtt: Rtt::default(),
            cc: Controller::new(setup.config.cc),
            recovery_point: iss,
            rack: None,
            prr_delivered: 0,
            prr_out: 0,
            recover_flight: 0,
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
            tail_probed: false,
            round_end: iss,
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
        hot.snd_mss = agreed.snd_mss;
        hot.snd_scale = agreed.snd_scale;
        hot.rcv_scale = agreed.rcv_scale;
        hot.flags.set(ConnFlags::TIMESTAMPS, agreed.timestamps);
        hot.flags.set(ConnFlags::SACK, agreed.sack);
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
        // RFC 6928 §2: ten segments, unless they are large.
        let mss = u32::from(hot.snd_mss);
        hot.cwnd = (u32::from(cold.config.initial_cwnd) * mss).min((2 * mss).max(14_600.max(10 * mss)));
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

    /// Says how many bytes beyond `rcv_nxt` the owner takes now. The edge that the peer was shown stays.
    pub fn set_receive_space(&mut self, bytes: u32) {
        self.hot.rcv_space = bytes;
        let edge = self.hot.rcv_nxt + bytes.min(self.largest_window());
        let opened = edge.saturating_distance_from(self.hot.rcv_edge);
        // RFC 9293 §3.8.6.2.2: a window update is worth a packet once it opens by two segments, or from nothing.
        let left = self.hot.rcv_edge.saturating_distance_from(self.hot.rcv_nxt);
        let mss = u32::from(self.hot.snd_mss);
        let worth = opened >= (2 * mss).max(left / 2) && opened > 0 && left < bytes / 2;
        if worth && self.hot.state.may_receive() {
            self.hot.flags |= ConnFlags::ACK_NOW;
        }
    }

    /// MPTCP: the window to advertise as it is; the data level keeps its edge, and the peer's window is its affair too.
    pub fn set_shared_window(&mut self, bytes: u32) {
        self.hot.flags |= ConnFlags::SHARED_WINDOW;
        self.hot.rcv_space = bytes;
    }

    /// MPTCP has fallen back: both windows are the connection's own again. The edge that the peer was shown stays.
    pub fn take_window_back(&mut self) {
        self.hot.flags.remove(ConnFlags::SHARED_WINDOW);
        self.hot.rcv_space = self.hot.rcv_edge.saturating_distance_from(self.hot.rcv_nxt);
    }

    /// With [`super::CcKind::Coupled`]: how the window grows and shrinks from now on.
    pub fn set_coupling(&mut self, coupling: Coupling) {
        self.cold.cc.coupling = coupling;
    }

    /// Halves the congestion window: this connection holds up others of its owner (MPTCP's penalisation).
    pub fn penalise(&mut self) {
        if !self.in_recovery() {
            self.hot.cwnd = self.cold.cc.on_penalty(self.hot.cwnd, u32::from(self.hot.snd_mss));
        }
    }

    /// The largest window that the header's field can say.
    pub(super) fn largest_window(&self) -> u32 {
        0xffff << self.hot.rcv_scale
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
    /// Bytes that the congestion window leaves beyond what is in flight and queued.
    cwnd_space(self) -> u32 = self.hot.cwnd.saturating_sub(self.in_flight_bytes()).saturating_sub(self.cold.ring.unsent);
    /// Smoothed RTT; zero before the first sample.
    srtt(self) -> Duration = self.cold.rtt.srtt();
    /// Retransmission timeout, backoff included.
    rto(self) -> Duration = self.cold.rtt.rto(&self.cold.config);
    /// Most payload of a segment, options taken off.
    segment_payload(self) -> u16 = {
        let options = if self.hot.flags.contains(ConnFlags::TIMESTAMPS) { 12 } else { 0 };
        self.hot.snd_mss.saturating_sub(options + u16::from(self.hot.upper_reserve)).max(super::config::MIN_PAYLOAD)
    };
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
