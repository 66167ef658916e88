//! The opening of a connection: what was offered, what the peer's SYN said, what was agreed.

use crate::env::Env;
use crate::options::{MAX_WINDOW_SCALE, SynOptions, Timestamps};
use crate::seq::SeqNum;
use crate::wire::{SegmentIn, TcpFlags};

use super::config::{DEFAULT_MSS_V4, DEFAULT_MSS_V6, MIN_MSS, TcpConfig};

/// Our side of timestamps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TsOffer {
    /// Added to the engine's clock in milliseconds to make TSval.
    pub offset: u32,
}

/// What our SYN or SYN+ACK offers; what is agreed is what both sides offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// MSS that we announce.
    pub mss: u16,
    /// Window scale shift; `None` for no scaling.
    pub window_scale: Option<u8>,
    /// SACK-permitted.
    pub sack: bool,
    /// Timestamps.
    pub timestamps: Option<TsOffer>,
    /// ECN (RFC 3168).
    pub ecn: bool,
    /// The initial window in bytes.
    pub rcv_wnd: u32,
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            mss: 1460,
            window_scale: Some(7),
            sack: true,
            timestamps: Some(TsOffer { offset: 0 }),
            ecn: false,
            rcv_wnd: 65535,
        }
    }
}

impl Offer {
    /// An offer with timestamps whose clock starts at a random point, so that it does not tell the engine's uptime.
    pub fn with_random_clock(mut self, env: &mut Env<'_>) -> Self {
        self.timestamps = Some(TsOffer { offset: env.rng.next_u32() });
        self
    }

    pub(super) fn options(&self) -> SynOptions {
        SynOptions { mss: Some(self.mss), window_scale: self.window_scale, sack_permitted: self.sack }
    }
}

/// What a peer's SYN or SYN+ACK said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SynSeen {
    /// Its sequence number: the peer's initial one.
    pub seq: SeqNum,
    /// Its window, never scaled.
    pub window: u16,
    /// MSS, window scale, SACK-permitted.
    pub options: SynOptions,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// Its flags, for ECN.
    pub flags: TcpFlags,
    /// Bytes of its payload that the owner has taken (RFC 7413, RFC 8803): our SYN+ACK acknowledges them.
    pub data_taken: u16,
}

impl SynSeen {
    /// What `segment`, a SYN or SYN+ACK, says. None of its payload counts as taken.
    pub fn of(segment: &SegmentIn) -> Self {
        Self {
            seq: segment.seq,
            window: segment.window,
            options: segment.options.syn,
            timestamps: segment.options.timestamps,
            flags: segment.flags,
            data_taken: 0,
        }
    }
}

/// How a connection begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opening {
    /// Active: the connection sends its SYN itself, and again until it is answered.
    Connect {
        /// Our initial sequence number.
        iss: SeqNum,
        /// What the SYN offers.
        offer: Offer,
    },
    /// Passive: the peer's SYN is here; the connection sends the SYN+ACK, and again until the third ACK.
    Accept {
        /// Our initial sequence number.
        iss: SeqNum,
        /// The peer's SYN.
        syn: SynSeen,
        /// What the SYN+ACK offers, as far as the SYN did.
        offer: Offer,
    },
    /// The SYN was sent by somebody else (a half-open record, or the client itself in transparent mode) and the peer's
    /// SYN+ACK is here: the connection is established.
    Adopt {
        /// The initial sequence number that the SYN had.
        iss: SeqNum,
        /// The peer's SYN+ACK.
        peer: SynSeen,
        /// What the SYN offered.
        offered: Offer,
        /// True to send nothing at all, not even the ACK of the SYN+ACK, before [`super::Conn::unhold`].
        hold: bool,
    },
}

impl Opening {
    pub(super) const fn offer(&self) -> &Offer {
        match self {
            Self::Connect { offer, .. } | Self::Accept { offer, .. } | Self::Adopt { offered: offer, .. } => offer,
        }
    }
}

/// What both sides agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Agreed {
    /// Largest segment that we send, options included, the TCP header not.
    pub snd_mss: u16,
    /// Shift of the windows that we receive.
    pub snd_scale: u8,
    /// Shift of the windows that we send.
    pub rcv_scale: u8,
    /// SACK both ways.
    pub sack: bool,
    /// Timestamps both ways.
    pub timestamps: bool,
    /// ECN both ways.
    pub ecn: bool,
}

/// Which of the two SYNs the peer's was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PeerSyn {
    /// A SYN without ACK.
    Syn,
    /// A SYN+ACK.
    SynAck,
}

/// What follows from our offer and the peer's SYN.
pub(super) fn agree(offer: &Offer, syn: &SynSeen, which: PeerSyn, config: &TcpConfig, v6: bool) -> Agreed {
    // RFC 9293 §3.7.1, MUST-15: without an MSS option the default counts.
    let announced = syn.options.mss.unwrap_or(if v6 { DEFAULT_MSS_V6 } else { DEFAULT_MSS_V4 });
    let headers = if v6 { 60 } else { 40 };
    let snd_mss = announced.min(config.mtu.saturating_sub(headers)).max(MIN_MSS);
    // RFC 7323 §2.2: scaling needs the option in both SYNs, and then works both ways.
    let (snd_scale, rcv_scale) = match (offer.window_scale, syn.options.window_scale) {
        (Some(ours), Some(theirs)) => (theirs.min(MAX_WINDOW_SCALE), ours.min(MAX_WINDOW_SCALE)),
        _ => (0, 0),
    };
    let marks = syn.flags & (TcpFlags::ECE | TcpFlags::CWR);
    // RFC 3168 §6.1.1: a SYN asks with ECE and CWR, a SYN+ACK agrees with ECE alone.
    let ecn_asked = match which {
        PeerSyn::Syn => marks == TcpFlags::ECE | TcpFlags::CWR,
        PeerSyn::SynAck => marks == TcpFlags::ECE,
    };
    Agreed {
        snd_mss,
        snd_scale,
        rcv_scale,
        sack: offer.sack && syn.options.sack_permitted,
        timestamps: offer.timestamps.is_some() && syn.timestamps.is_some(),
        ecn: offer.ecn && ecn_asked,
    }
}

/// A connection that is not established yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Handshake {
    /// What our SYN offers.
    pub offer: Offer,
    /// How often it was sent.
    pub sent: u8,
    /// True when the SYN stays plain although ECN is offered: an earlier one was lost (RFC 3168 §6.1.1.1).
    pub without_ecn: bool,
    /// When the SYN was first sent, in microseconds modulo 2^32.
    pub first_sent_us: u32,
    /// What is to be said to a segment that the handshake did not take.
    pub stray: Option<Stray>,
}

/// The answer to a segment that a handshake does not take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stray {
    /// It acknowledged what was never sent: a reset with that number (RFC 9293 §3.10.7.3, §3.10.7.4).
    Reset(SeqNum),
    /// A challenge ACK (RFC 5961 §4.2).
    Challenge,
}
