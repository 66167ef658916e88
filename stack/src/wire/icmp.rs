//! ICMP errors of both IP versions: what they say about a connection, and how to say it.
//!
//! smoltcp's types build an error's quotation anew from a parsed IP header and know no MTU; a quotation has to be the
//! packet as it was, so these eight bytes of header are read and written here.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use super::emit::{Header, ip_template, write_ip, write_link, write_tcp};
use super::parse::walk;
use super::{FlowKey, HeaderTemplate, IcmpIn, IcmpKind, IpInfo, LinkHeader, TcpFlags, protocol};
use crate::checksum;
use crate::counters::{Counter, Counters};
use crate::frame::{FrameId, FramePool};
use crate::limits::{
    ICMP_HEADER, IPV4_HEADER, IPV6_HEADER, MAX_ICMPV4_ERROR, MAX_ICMPV6_ERROR, PAYLOAD_OFFSET, TCP_HEADER,
};
use crate::options::Budget;
use crate::seq::SeqNum;

/// An ICMP error about a TCP segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpError {
    /// The connection of the quoted segment, seen from its sender: `local` sent it.
    pub flow: FlowKey,
    /// What the error says, in the form that a connection takes.
    pub icmp: IcmpIn,
}

/// The error in the ICMP message that `info` describes, when it is one and quotes a TCP segment; `bytes` are those of
/// its whole frame. Its checksum was verified by [`parse`](super::parse); whether the quoted segment was ever sent is
/// for the connection to judge (RFC 5927 §4).
pub fn parse_icmp_error(bytes: &[u8], info: &IpInfo) -> Option<IcmpError> {
    let (header, quoted) = info.l4(bytes).split_first_chunk::<ICMP_HEADER>()?;
    let &[message, code, _, _, m0, m1, m2, m3] = header;
    let (kind, mtu) = match info.protocol {
        protocol::ICMP => (kind_v4(message, code)?, u32::from(u16::from_be_bytes([m2, m3]))),
        protocol::ICMPV6 => (kind_v6(message, code)?, u32::from_be_bytes([m0, m1, m2, m3])),
        _ => return None,
    };
    let (local, remote, tcp) = if info.protocol == protocol::ICMP { quoted_v4(quoted)? } else { quoted_v6(quoted)? };
    // RFC 792: at least eight bytes of the segment are there, ports and sequence number.
    let &[s0, s1, d0, d1, q0, q1, q2, q3] = tcp.first_chunk::<8>()?;
    let (local_port, remote_port) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    let quoted_seq = SeqNum(u32::from_be_bytes([q0, q1, q2, q3]));
    let mtu = if kind == IcmpKind::TooBig { mtu } else { 0 };
    Some(IcmpError { flow: FlowKey { local, remote, local_port, remote_port }, icmp: IcmpIn { kind, mtu, quoted_seq } })
}

/// RFC 792, RFC 1812 §5.2.7. Source quench is not heard any more (RFC 6633).
const fn kind_v4(message: u8, code: u8) -> Option<IcmpKind> {
    Some(match (message, code) {
        (3, 0 | 6 | 11) => IcmpKind::NetUnreachable,
        (3, 1 | 5 | 7 | 8 | 12) => IcmpKind::HostUnreachable,
        (3, 2) => IcmpKind::ProtocolUnreachable,
        (3, 3) => IcmpKind::PortUnreachable,
        (3, 4) => IcmpKind::TooBig,
        (3, 9 | 10 | 13..=15) => IcmpKind::Prohibited,
        (11, _) => IcmpKind::TimeExceeded,
        (12, _) => IcmpKind::ParameterProblem,
        _ => return None,
    })
}

/// RFC 4443 §3.
const fn kind_v6(message: u8, code: u8) -> Option<IcmpKind> {
    Some(match (message, code) {
        (1, 0) => IcmpKind::NetUnreachable,
        (1, 2 | 3) => IcmpKind::HostUnreachable,
        (1, 4) => IcmpKind::PortUnreachable,
        (1, 1 | 5 | 6) => IcmpKind::Prohibited,
        (2, _) => IcmpKind::TooBig,
        (3, _) => IcmpKind::TimeExceeded,
        (4, 1) => IcmpKind::ProtocolUnreachable,
        (4, _) => IcmpKind::ParameterProblem,
        _ => return None,
    })
}

/// Type and code of an error that the box sends.
const fn message_v4(kind: IcmpKind) -> [u8; 2] {
    match kind {
        IcmpKind::NetUnreachable => [3, 0],
        IcmpKind::HostUnreachable => [3, 1],
        IcmpKind::ProtocolUnreachable => [3, 2],
        IcmpKind::PortUnreachable => [3, 3],
        IcmpKind::TooBig => [3, 4],
        IcmpKind::Prohibited => [3, 13],
        IcmpKind::TimeExceeded => [11, 0],
        IcmpKind::ParameterProblem => [12, 0],
    }
}

const fn message_v6(kind: IcmpKind) -> [u8; 2] {
    match kind {
        IcmpKind::NetUnreachable => [1, 0],
        IcmpKind::HostUnreachable => [1, 3],
        IcmpKind::ProtocolUnreachable => [4, 1],
        IcmpKind::PortUnreachable => [1, 4],
        IcmpKind::TooBig => [2, 0],
        IcmpKind::Prohibited => [1, 1],
        IcmpKind::TimeExceeded => [3, 0],
        IcmpKind::ParameterProblem => [4, 0],
    }
}

/// Source, destination and segment of a quoted IPv4 packet, which may be cut off anywhere behind.
fn quoted_v4(quoted: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let header = quoted.first_chunk::<IPV4_HEADER>()?;
    let &[version, _, _, _, _, _, f0, f1, _, proto, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = header;
    let first_fragment = u16::from_be_bytes([f0, f1]) & 0x1fff == 0;
    if version >> 4 != 4 || version & 0x0f < 5 || proto != protocol::TCP || !first_fragment {
        return None;
    }
    let tcp = quoted.get(usize::from(version & 0x0f) * 4..)?;
    Some((IpAddr::from([s0, s1, s2, s3]), IpAddr::from([d0, d1, d2, d3]), tcp))
}

fn quoted_v6(quoted: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let header = quoted.first_chunk::<IPV6_HEADER>()?;
    let (src, dst) = (header[8..].first_chunk::<16>()?, header[24..].first_chunk::<16>()?);
    let chain = walk(quoted, header[6]).ok()?;
    if header[0] >> 4 != 6 || chain.protocol != protocol::TCP || chain.opaque {
        return None;
    }
    Some((IpAddr::from(*src), IpAddr::from(*dst), quoted.get(chain.l4..)?))
}

/// Whether the packet that `info` describes may be answered with an ICMP error; `bytes` are those of its whole frame.
/// How many answers a second there may be is for the caller to bound.
pub fn may_answer_with_icmp(bytes: &[u8], info: &IpInfo, kind: IcmpKind) -> bool {
    let source_is_one_host = !info.src.is_unspecified() && !info.src.is_multicast() && !info.src.is_loopback();
    let to_one_host = !info.link.dst.is_multicast() && !info.dst.is_multicast();
    let message = info.l4(bytes).first();
    match (info.src, info.protocol) {
        (IpAddr::V4(_), protocol) => {
            // RFC 1122 §3.2.2: not about an ICMP error, a broadcast, or a fragment other than the first.
            let fragment = info.ip_packet(bytes).get(6..8).is_none_or(|at| at[0] & 0x1f != 0 || at[1] != 0);
            let error = protocol == protocol::ICMP && !matches!(message, Some(0 | 8 | 13..=18));
            let broadcast = matches!(info.dst, IpAddr::V4(dst) if dst.is_broadcast());
            source_is_one_host && to_one_host && !broadcast && !fragment && !error
        }
        (IpAddr::V6(_), protocol) => {
            // RFC 4443 §2.4 (e): nor about an ICMPv6 error; only "too big" may answer a multicast.
            let error = protocol == protocol::ICMPV6 && message.is_none_or(|&message| message < 128);
            source_is_one_host && (to_one_host || kind == IcmpKind::TooBig) && !error
        }
    }
}

/// An ICMP error to be sent.
#[derive(Clone, Copy, Debug)]
pub struct IcmpOut<'a> {
    /// The address that the error comes from.
    pub src: IpAddr,
    /// The source of the quoted packet.
    pub dst: IpAddr,
    /// What it says.
    pub kind: IcmpKind,
    /// With [`IcmpKind::TooBig`], the MTU of the link that the packet did not fit.
    pub mtu: u32,
    /// The packet that it is about, from its IP header on; as much of it as the RFCs allow is quoted.
    pub quoted: &'a [u8],
}

/// Builds an ICMP error: the frame, where its Ethernet header starts, and the packet's length. `None` when no frame is
/// free or the addresses are of two families. Counts what was built as sent.
pub fn emit_icmp_error(
    pool: &mut FramePool,
    link: &LinkHeader,
    out: &IcmpOut<'_>,
    ip_id: u16,
    counters: &mut Counters,
) -> Option<(FrameId, u16, u16)> {
    if out.src.is_ipv4() != out.dst.is_ipv4() {
        return None;
    }
    let Some(frame) = pool.alloc_control() else {
        counters.inc(Counter::TxNoFrame);
        return None;
    };
    let start = PAYLOAD_OFFSET - link.emitted_len();
    let written = pool.bytes_mut(&frame).get_mut(start..).and_then(|bytes| write_icmp(bytes, link, out, ip_id));
    let Some(len) = written else {
        pool.release(frame);
        return None;
    };
    counters.inc(Counter::IcmpSent);
    Some((frame, start as u16, (link.emitted_len() + len) as u16))
}

/// Writes the packet and gives the length from its IP header on.
fn write_icmp(bytes: &mut [u8], link: &LinkHeader, out: &IcmpOut<'_>, ip_id: u16) -> Option<usize> {
    let v4 = out.src.is_ipv4();
    let (proto, ip_len, most, message) = if v4 {
        (protocol::ICMP, IPV4_HEADER, MAX_ICMPV4_ERROR, message_v4(out.kind))
    } else {
        (protocol::ICMPV6, IPV6_HEADER, MAX_ICMPV6_ERROR, message_v6(out.kind))
    };
    let quoted = out.quoted.get(..most - ip_len - ICMP_HEADER).unwrap_or(out.quoted);
    let icmp_len = ICMP_HEADER + quoted.len();
    let template = HeaderTemplate::without_tcp(ip_template(out.src, out.dst, proto, 64));
    let header = Header { segment_len: icmp_len, ip_id, ..Header::default() };
    let bytes = write_link(bytes, link, template.ethertype())?;
    let bytes = write_ip(bytes, &template, &header)?;
    let icmp = bytes.get_mut(..icmp_len)?;
    let (head, body) = icmp.split_first_chunk_mut::<ICMP_HEADER>()?;
    let mtu = if out.kind == IcmpKind::TooBig { out.mtu } else { 0 };
    // RFC 1191 §4 keeps the MTU in the low half of the word, RFC 4443 §3.2 takes all of it.
    let [m0, m1, m2, m3] = (if v4 { mtu.min(u32::from(u16::MAX)) } else { mtu }).to_be_bytes();
    *head = [message[0], message[1], 0, 0, m0, m1, m2, m3];
    body.copy_from_slice(quoted);
    let pseudo = if v4 { 0 } else { checksum::pseudo_header(out.src, out.dst, proto, icmp_len as u32) };
    let check = !checksum::add(pseudo, checksum::sum(icmp));
    icmp.get_mut(2..4)?.copy_from_slice(&check.to_be_bytes());
    Some(ip_len + icmp_len)
}

/// A packet rebuilt to be quoted: IP and TCP header without options.
pub type Quotation = ArrayVec<u8, { IPV6_HEADER + TCP_HEADER }>;

/// The headers of a segment that was received on `flow` and is not there any more, for an ICMP error that its sender
/// recognises: a half-open record keeps the numbers of the client's SYN, not the packet.
pub fn quote(flow: &FlowKey, seq: SeqNum, flags: TcpFlags) -> Quotation {
    let template = HeaderTemplate::new(&flow.reversed(), 64);
    let mut bytes = [0; IPV6_HEADER + TCP_HEADER];
    let header = Header {
        seq: seq.0,
        word: (TCP_HEADER as u32) << 26 | u32::from(flags.bits()) << 16,
        segment_len: TCP_HEADER,
        ..Header::default()
    };
    // The array has room for the larger of both headers, so that both writes succeed.
    let _ =
        write_ip(&mut bytes, &template, &header).and_then(|rest| write_tcp(rest, &template, &header, &Budget::EMPTY));
    let mut quotation = Quotation::from(bytes);
    quotation.truncate(template.ip_header_len() + TCP_HEADER);
    quotation
}
