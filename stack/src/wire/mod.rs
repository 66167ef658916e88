//! Wire formats: a one-pass view of Ethernet, VLAN, IPv4, IPv6 and TCP, and header emission into headroom.

use std::net::IpAddr;

use bitflags::bitflags;

use crate::frame::FrameId;
use crate::options::{OptionBytes, SackBlocks, SynOptions, TcpOptions, Timestamps};
use crate::seq::SeqNum;

bitflags! {
    /// TCP flags (RFC 9293 §3.1).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct TcpFlags: u8 {
        /// No more data from the sender.
        const FIN = 0x01;
        /// Synchronize sequence numbers.
        const SYN = 0x02;
        /// Reset.
        const RST = 0x04;
        /// Push.
        const PSH = 0x08;
        /// The acknowledgment field means something.
        const ACK = 0x10;
        /// The urgent pointer means something.
        const URG = 0x20;
        /// ECN echo (RFC 3168).
        const ECE = 0x40;
        /// Congestion window reduced (RFC 3168).
        const CWR = 0x80;
    }
}

/// The ECN field of the IP header (RFC 3168 §5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Ecn {
    /// Not ECN-capable.
    #[default]
    NotEct = 0,
    /// ECN-capable, codepoint 1.
    Ect1 = 1,
    /// ECN-capable, codepoint 0.
    Ect0 = 2,
    /// Congestion experienced.
    Ce = 3,
}

/// A connection as its packets name it, seen from the box: `local` is the destination of what the box receives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowKey {
    /// The box's side (in transparent mode the address that the box speaks for).
    pub local: IpAddr,
    /// The other side.
    pub remote: IpAddr,
    /// TCP port of `local`.
    pub local_port: u16,
    /// TCP port of `remote`.
    pub remote_port: u16,
}

/// A TCP segment that was received, parsed and verified. Its payload stays in its frame.
#[derive(Clone, Debug)]
pub struct SegmentIn {
    /// Source and destination as the box sees them.
    pub flow: FlowKey,
    /// Sequence number.
    pub seq: SeqNum,
    /// Acknowledgment number; meaningful with ACK.
    pub ack: SeqNum,
    /// Flags.
    pub flags: TcpFlags,
    /// Window field as it stands in the header, not scaled.
    pub window: u16,
    /// ECN field of the IP header.
    pub ecn: Ecn,
    /// Options.
    pub options: TcpOptions,
    /// First byte of the payload in the frame.
    pub payload_offset: u16,
    /// Length of the payload.
    pub payload_len: u16,
    /// Payload sum as in [`RxSegment::sum`](crate::RxSegment::sum).
    pub payload_sum: u16,
}

impl SegmentIn {
    /// Sequence space that the segment takes: payload plus SYN plus FIN (RFC 9293 §3.4).
    pub fn seq_len(&self) -> u32 {
        u32::from(self.payload_len)
            + u32::from(self.flags.contains(TcpFlags::SYN))
            + u32::from(self.flags.contains(TcpFlags::FIN))
    }
}

/// Payload to be sent: a right to its frame, and where it stands there.
#[derive(Debug)]
pub struct PayloadOut {
    /// A right of its own to the frame.
    pub frame: FrameId,
    /// First byte of the payload.
    pub offset: u16,
    /// Length in bytes.
    pub len: u16,
    /// Payload sum as in [`RxSegment::sum`](crate::RxSegment::sum).
    pub sum: u16,
}

/// A TCP segment that a connection wants sent. Headers are built from it; it is never stored.
#[derive(Debug)]
#[must_use = "the segment may hold a frame"]
pub struct Outgoing {
    /// Sequence number.
    pub seq: SeqNum,
    /// Acknowledgment number.
    pub ack: SeqNum,
    /// Flags.
    pub flags: TcpFlags,
    /// Window field, scaled already.
    pub window: u16,
    /// ECN field of the IP header.
    pub ecn: Ecn,
    /// Options of a SYN or SYN+ACK.
    pub syn: Option<SynOptions>,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// SACK blocks; as many as fit behind the other options are sent.
    pub sack: SackBlocks,
    /// Options of the layer above (kind 30), whole and padded by the emitter.
    pub upper: OptionBytes,
    /// Payload.
    pub payload: Option<PayloadOut>,
    /// Data sequence number of the payload's first byte, when `mapped`.
    pub dsn: u64,
    /// True when the payload has a data sequence mapping.
    pub mapped: bool,
    /// True when this segment was sent before.
    pub retransmit: bool,
}
