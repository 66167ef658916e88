//! Wire formats: a one-pass view of Ethernet, VLAN, IPv4, IPv6 and TCP, and header emission into headroom.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use bitflags::bitflags;

use crate::counters::Counter;

use crate::frame::FrameId;
use crate::limits::{ETHERNET_HEADER, VLAN_TAG};
use crate::options::{OptionBytes, SackBlocks, SynOptions, TcpOptions, Timestamps};
use crate::seq::SeqNum;

mod emit;
mod expected;
mod forward;
mod icmp;
mod image;
mod parse;
mod train;

pub use emit::{HeaderTemplate, emit_tcp, emit_tcp_from};
pub use expected::parse_expected;
pub use forward::{Hop, decrement_ttl, lower_mss, set_link};
pub use icmp::{IcmpError, IcmpOut, Quotation, emit_icmp_error, may_answer_with_icmp, parse_icmp_error, quote};
pub use image::HeaderImage;
pub use parse::parse;
pub use train::{Following, TrainHead};

/// IP protocol and next-header numbers.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// GRE.
    pub const GRE: u8 = 47;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
}

/// Ethernet types.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// An 802.1Q tag follows.
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Every station.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// True for multicast and broadcast.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The link layer of one packet: Ethernet addresses and VLAN.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct LinkHeader {
    /// Source.
    pub src: MacAddr,
    /// Destination.
    pub dst: MacAddr,
    /// VLAN identifier; `None` when untagged (or tagged with a priority only).
    pub vlan: Option<u16>,
}

impl LinkHeader {
    /// The link layer of an answer.
    pub const fn reply(&self) -> Self {
        Self { src: self.dst, dst: self.src, vlan: self.vlan }
    }
    /// Bytes of the header as it is emitted.
    #[inline]
    pub const fn emitted_len(&self) -> usize {
        if self.vlan.is_some() { ETHERNET_HEADER + VLAN_TAG } else { ETHERNET_HEADER }
    }
}

/// How much of a received packet to verify.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Verify {
    /// Every checksum.
    #[default]
    All,
    /// Lengths only: the checksums were verified before, or the device vouches for them.
    Lengths,
}

/// What a frame holds.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "the large variant is the common one, and lives for one call")]
pub enum Parsed {
    /// A whole TCP segment.
    Tcp(IpInfo, SegmentIn),
    /// An ICMP message other than neighbour discovery, its checksum verified.
    Icmp(IpInfo),
    /// Neighbour discovery (RFC 4861), its checksum verified.
    Ndp(IpInfo),
    /// An ARP packet.
    Arp(ArpInfo),
    /// Any other IP packet: another protocol, or a fragment.
    OtherIp(IpInfo),
}

/// Where an ARP packet stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArpInfo {
    /// The link layer that it came by.
    pub link: LinkHeader,
    /// First byte of the ARP packet in the frame.
    pub arp_offset: u16,
    /// Byte after the packet, Ethernet padding included.
    pub end: u16,
}

/// The IP layer of a received packet, enough to forward it. All offsets are those of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpInfo {
    /// The link layer that it came by.
    pub link: LinkHeader,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// The protocol behind IPv4's header or IPv6's extension headers.
    pub protocol: u8,
    /// Time to live, hop limit.
    pub ttl: u8,
    /// ECN field.
    pub ecn: Ecn,
    /// True for a fragment; its protocol header is then not to be looked for.
    pub fragment: bool,
    /// First byte of the Ethernet header.
    pub start: u16,
    /// First byte of the IP header.
    pub ip_offset: u16,
    /// First byte behind the IP header and its extensions.
    pub l4_offset: u16,
    /// Byte after the IP packet, Ethernet padding not included.
    pub end: u16,
}

impl IpInfo {
    /// Length of the IP packet: what a link's MTU bounds.
    pub const fn ip_len(&self) -> u16 {
        self.end - self.ip_offset
    }
    /// The IP packet, from `bytes` of its frame.
    pub fn ip_packet<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(usize::from(self.ip_offset)..usize::from(self.end)).unwrap_or(&[])
    }
    /// What stands behind the IP header, from `bytes` of its frame.
    pub fn l4<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(usize::from(self.l4_offset)..usize::from(self.end)).unwrap_or(&[])
    }
}

/// Why a frame was not understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drop {
    /// Shorter than its headers say.
    Truncated,
    /// An Ethernet type that the box does not speak.
    Ethertype,
    /// A malformed IP header.
    IpHeader,
    /// A wrong IPv4 header checksum.
    IpChecksum,
    /// A malformed TCP header or options.
    TcpHeader,
    /// A wrong TCP checksum.
    TcpChecksum,
    /// A TCP checksum that is only the pseudo-header sum, left for a device to finish.
    TcpChecksumPartial,
    /// A truncated ICMP message, or one with a wrong checksum.
    Icmp,
    /// An address that no packet may come from or go to.
    Martian,
}

impl Drop {
    /// The counter of the reason.
    pub const fn counter(self) -> Counter {
        match self {
            Self::Truncated => Counter::DropTruncated,
            Self::Ethertype => Counter::DropEthertype,
            Self::IpHeader => Counter::DropIpHeader,
            Self::IpChecksum => Counter::DropIpChecksum,
            Self::TcpHeader => Counter::DropTcpHeader,
            Self::TcpChecksum => Counter::DropTcpChecksum,
            Self::TcpChecksumPartial => Counter::DropTcpChecksumPartial,
            Self::Icmp => Counter::DropIcmp,
            Self::Martian => Counter::DropMartian,
        }
    }
}

/// What an ICMP error says, for both IP versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IcmpKind {
    /// No route to the network.
    NetUnreachable,
    /// The host does not answer.
    HostUnreachable,
    /// The host does not speak the protocol.
    ProtocolUnreachable,
    /// Nobody listens on the port.
    PortUnreachable,
    /// Policy forbids it.
    Prohibited,
    /// The packet does not fit the link: fragmentation needed, packet too big.
    TooBig,
    /// Time to live or hop limit ran out on the way.
    TimeExceeded,
    /// A header field that the sender of the error did not accept.
    ParameterProblem,
}

/// An ICMP error as a connection takes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpIn {
    /// What it says.
    pub kind: IcmpKind,
    /// With [`IcmpKind::TooBig`], the MTU of the link, zero when it does not say; else zero.
    pub mtu: u32,
    /// Sequence number of the segment that it quotes.
    pub quoted_seq: SeqNum,
}

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
    /// No segment at all: a place for [`parse_expected`] to fill.
    pub fn blank() -> Self {
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            flow: FlowKey { local: nowhere, remote: nowhere, local_port: 0, remote_port: 0 },
            seq: SeqNum(0),
            ack: SeqNum(0),
            flags: TcpFlags::empty(),
            window: 0,
            ecn: Ecn::NotEct,
            options: TcpOptions::default(),
            payload_offset: 0,
            payload_len: 0,
            payload_sum: 0,
        }
    }

    /// Sequence space that the segment takes: payload plus SYN plus FIN (RFC 9293 §3.4).
    pub fn seq_len(&self) -> u32 {
        u32::from(self.payload_len)
            + u32::from(self.flags.contains(TcpFlags::SYN))
            + u32::from(self.flags.contains(TcpFlags::FIN))
    }
}

impl Ecn {
    /// The ECN field of a traffic class byte.
    #[inline]
    pub const fn of(traffic_class: u8) -> Self {
        match traffic_class & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }
}

impl FlowKey {
    /// The same connection seen from the other side.
    pub const fn reversed(&self) -> Self {
        Self { local: self.remote, remote: self.local, local_port: self.remote_port, remote_port: self.local_port }
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

impl Outgoing {
    /// Becomes what [`Outgoing::bare`] makes, without being moved.
    #[inline]
    pub(crate) fn begin(&mut self, seq: SeqNum, ack: SeqNum, flags: TcpFlags) {
        let Self {
            seq: own_seq,
            ack: own_ack,
            flags: own_flags,
            window,
            ecn,
            syn,
            timestamps,
            sack,
            upper,
            payload,
            dsn,
            mapped,
            retransmit,
        } = self;
        (*own_seq, *own_ack, *own_flags) = (seq, ack, flags);
        (*window, *ecn) = (0, Ecn::NotEct);
        (*syn, *timestamps) = (None, None);
        sack.clear();
        upper.clear();
        debug_assert!(payload.is_none(), "the payload of a segment was left behind");
        *payload = None;
        (*dsn, *mapped, *retransmit) = (0, false, false);
    }

    /// No segment at all: a place for a verb to fill.
    pub fn blank() -> Self {
        Self::bare(SeqNum(0), SeqNum(0), TcpFlags::empty())
    }

    /// A segment with nothing but its numbers and flags.
    pub fn bare(seq: SeqNum, ack: SeqNum, flags: TcpFlags) -> Self {
        Self {
            seq,
            ack,
            flags,
            window: 0,
            ecn: Ecn::NotEct,
            syn: None,
            timestamps: None,
            sack: SackBlocks::new(),
            upper: OptionBytes::new(),
            payload: None,
            dsn: 0,
            mapped: false,
            retransmit: false,
        }
    }

    /// The reset that answers a segment which belongs to no connection; `None` when the segment is a reset itself.
    pub fn reset_for(segment: &SegmentIn) -> Option<Self> {
        // RFC 9293 §3.10.7.1: with ACK, the reset stands where the peer expects; without, it acknowledges everything.
        if segment.flags.contains(TcpFlags::RST) {
            None
        } else if segment.flags.contains(TcpFlags::ACK) {
            Some(Self::bare(segment.ack, SeqNum(0), TcpFlags::RST))
        } else {
            Some(Self::bare(SeqNum(0), segment.seq + segment.seq_len(), TcpFlags::RST | TcpFlags::ACK))
        }
    }
}

#[cfg(test)]
mod tests;
