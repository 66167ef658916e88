//! What the owner of a connection decides, and the bounds of this module.

use crate::time::Duration;

/// Which congestion control a connection runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum CcKind {
    /// RFC 9438 with HyStart++ (RFC 9406).
    #[default]
    Cubic,
    /// RFC 5681, RFC 6582.
    NewReno,
    /// BBR, version 3: a model of the path's bandwidth and RTT, and pacing.
    Bbr,
    /// As NewReno, but how much the window grows and shrinks is told by the layer above ([`Coupling`]).
    Coupled,
}

/// How the window of a connection with [`CcKind::Coupled`] changes, in comparison with NewReno's.
///
/// Congestion controllers that couple the connections of one owner (RFC 6356 and its successors) differ from NewReno in
/// two numbers, which depend on the other connections: whoever knows those computes the numbers and hands them down.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Coupling {
    /// Share of NewReno's growth in congestion avoidance; negative when the window is to shrink.
    pub increase: f32,
    /// Share of what was in flight that a loss takes away.
    pub decrease: f32,
    /// Segments that the window keeps after a loss at least.
    pub floor: u8,
}

impl Default for Coupling {
    /// NewReno.
    fn default() -> Self {
        Self { increase: 1.0, decrease: 0.5, floor: 2 }
    }
}

/// The parameters of one connection. Small and `Copy`: every connection keeps its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpConfig {
    /// Smallest part of the retransmission timeout above the smoothed RTT.
    pub min_rto: Duration,
    /// Largest retransmission timeout.
    pub max_rto: Duration,
    /// How long unacknowledged data may stay without progress before the connection is given up (RFC 9293 §3.8.3, R2), and
    /// keepalive probes without an answer.
    pub user_timeout: Duration,
    /// Idle time before the first keepalive probe; `None` for no keepalive (RFC 9293 §3.8.4).
    pub keepalive: Option<Duration>,
    /// How long FIN-WAIT-2 and TIME-WAIT last: twice the maximum segment lifetime.
    pub time_wait: Duration,
    /// Congestion control.
    pub cc: CcKind,
    /// Whether data leaves at a rate instead of in bursts.
    pub pacing: bool,
    /// Longest time that an acknowledgment is held back (RFC 9293 §3.8.6.3: less than 0.5 s).
    pub delayed_ack: Duration,
    /// Initial window in segments (RFC 6928).
    pub initial_cwnd: u8,
    /// Largest IP packet that the way out takes.
    pub mtu: u16,
    /// Option bytes kept free on data segments for the layer above.
    pub upper_reserve: u8,
    /// Most frames that out-of-order data may hold.
    pub max_ooo_frames: u16,
    /// How often a SYN or SYN+ACK is sent again before the opening is given up.
    pub syn_retries: u8,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            min_rto: Duration::from_millis(200),
            max_rto: Duration::from_secs(60),
            user_timeout: Duration::from_secs(120),
            keepalive: None,
            time_wait: Duration::from_secs(60),
            cc: CcKind::Cubic,
            pacing: false,
            delayed_ack: Duration::from_millis(40),
            initial_cwnd: 10,
            mtu: 1500,
            upper_reserve: 0,
            max_ooo_frames: 4096,
            syn_retries: 6,
        }
    }
}

/// Retransmission timeout before the first RTT sample (RFC 6298 §2.1).
pub(super) const INITIAL_RTO: Duration = Duration::from_secs(1);
/// Retransmission timeout of the first data after a SYN that was lost (RFC 6298 §5.7).
pub(super) const RTO_AFTER_LOST_SYN: Duration = Duration::from_secs(3);
/// The smallest MSS that is believed: 40 bytes of options and 8 of payload.
pub(super) const MIN_MSS: u16 = 48;
/// The least payload that a segment is cut to, whatever MSS and options say.
pub(super) const MIN_PAYLOAD: u16 = 8;
/// MSS of a peer that does not announce one, IPv4 (RFC 9293 §3.7.1).
pub(super) const DEFAULT_MSS_V4: u16 = 536;
/// MSS of a peer that does not announce one, IPv6.
pub(super) const DEFAULT_MSS_V6: u16 = 1220;
/// How long a peer may hold its ACK of a lone segment back (RFC 8985 §7.2, the worst case of delayed ACK timers).
pub(super) const MAX_PEER_ACK_DELAY: Duration = Duration::from_millis(200);
/// Segments after the handshake that are acknowledged at once: the peer is in slow start.
pub(super) const QUICK_ACKS: u8 = 16;
/// Challenge ACKs that one connection sends a second (RFC 5961 §7).
pub(super) const CHALLENGE_ACKS_PER_SECOND: u8 = 10;
/// Duplicate ACKs, or segments SACKed above, that show a loss (RFC 5681 §3.2).
pub(super) const DUP_THRESH: u32 = 3;
/// SACK blocks that the receiver remembers, most recent first.
pub(super) const SACK_MEMORY: usize = 6;
/// Most keepalive probes without an answer before the connection is given up.
pub(super) const KEEPALIVE_PROBES: u8 = 9;
/// Time between keepalive probes, unless the idle time before the first is shorter.
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(75);
/// The largest congestion window: nothing beyond a gigabyte is in flight.
pub(super) const MAX_CWND: u32 = 1 << 30;

const _: () = assert!(MIN_MSS >= 40 + MIN_PAYLOAD);
