//! IP packets with TCP segments and ICMP errors, built and read without any help of the code under test.

use std::net::IpAddr;

use mimbox_stack::options::kind;
use mimbox_stack::wire::{Ecn, TcpFlags};

use super::syntax::IcmpKindSpec;

const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_ICMPV6: u8 = 58;

/// Both ends of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ends {
    pub(super) from: (IpAddr, u16),
    pub(super) to: (IpAddr, u16),
}

impl Ends {
    pub(super) fn reversed(self) -> Self {
        Self { from: self.to, to: self.from }
    }
}

/// A TCP segment with absolute numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub(super) ends: Ends,
    pub(super) ecn: Ecn,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: TcpFlags,
    pub(super) window: u16,
    pub(super) urgent: u16,
    /// Option bytes, padding included.
    pub(super) options: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

/// What a packet holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Packet {
    Tcp(Segment),
    /// An ICMP error: what it says, its MTU, and the addresses and ports that it quotes.
    Icmp {
        kind: IcmpKindSpec,
        mtu: u32,
        quoted: Ends,
    },
    /// Anything else.
    Other,
}

fn sum(bytes: &[u8], mut sum: u32) -> u32 {
    for pair in bytes.chunks(2) {
        let word = [pair.first().copied().unwrap_or(0), pair.get(1).copied().unwrap_or(0)];
        sum += u32::from(u16::from_be_bytes(word));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Checksum of a TCP segment or ICMPv6 message.
fn transport_sum(ends: Ends, protocol: u8, bytes: &[u8]) -> u16 {
    let pseudo = [address_bytes(ends.from.0), address_bytes(ends.to.0)].concat();
    let start = sum(&pseudo, 0) + u32::from(protocol) + bytes.len() as u32;
    !(sum(bytes, (start & 0xffff) + (start >> 16)) as u16)
}

/// An IP header in front of `body`.
fn ip(ends: Ends, protocol: u8, ecn: Ecn, body: &[u8]) -> Vec<u8> {
    let (src, dst) = (address_bytes(ends.from.0), address_bytes(ends.to.0));
    let mut packet = Vec::with_capacity(IPV6 + body.len());
    if ends.from.0.is_ipv4() {
        packet.extend([0x45, ecn as u8]);
        packet.extend(((IPV4 + body.len()) as u16).to_be_bytes());
        packet.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
        packet.extend(src);
        packet.extend(dst);
        let check = !(sum(&packet, 0) as u16);
        packet.splice(10..12, check.to_be_bytes());
    } else {
        packet.extend([0x60, (ecn as u8) << 4, 0, 0]);
        packet.extend((body.len() as u16).to_be_bytes());
        packet.extend([protocol, 64]);
        packet.extend(src);
        packet.extend(dst);
    }
    packet.extend_from_slice(body);
    packet
}

impl Segment {
    /// The IP packet.
    pub(super) fn emit(&self) -> Vec<u8> {
        let mut tcp = self.header();
        tcp.extend_from_slice(&self.payload);
        let check = transport_sum(self.ends, PROTOCOL_TCP, &tcp);
        tcp.splice(16..18, check.to_be_bytes());
        ip(self.ends, PROTOCOL_TCP, self.ecn, &tcp)
    }

    fn header(&self) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), kind::NOP);
        let mut tcp = Vec::with_capacity(60 + self.payload.len());
        tcp.extend(self.ends.from.1.to_be_bytes());
        tcp.extend(self.ends.to.1.to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.push((((TCP + options.len()) / 4) << 4) as u8);
        tcp.push(self.flags.bits());
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0, 0]);
        tcp.extend(self.urgent.to_be_bytes());
        tcp.extend(options);
        tcp
    }

    /// The options, kind and body each, without NOP and the end of the list.
    ///
    /// # Errors
    /// When a length is malformed.
    pub(super) fn option_list(&self) -> Result<Vec<(u8, Vec<u8>)>, String> {
        let mut list = Vec::new();
        let mut rest = self.options.as_slice();
        while let Some((&number, behind)) = rest.split_first() {
            match number {
                kind::END => break,
                kind::NOP => rest = behind,
                _ => {
                    let len = usize::from(behind.first().copied().unwrap_or(0));
                    let whole = rest.get(..len).filter(|_| len >= 2);
                    let Some(whole) = whole else { return Err(format!("option kind {number} has no valid length")) };
                    list.push((number, whole.get(2..).unwrap_or_default().to_vec()));
                    rest = rest.get(len..).unwrap_or_default();
                }
            }
        }
        Ok(list)
    }

    /// TSval and TSecr.
    pub(super) fn timestamps(&self) -> Option<(u32, u32)> {
        let list = self.option_list().ok()?;
        let (_, body) = list.into_iter().find(|(number, _)| *number == kind::TIMESTAMPS)?;
        Some((word(&body, 0)?, word(&body, 4)?))
    }

    /// Window scale shift.
    pub(super) fn window_scale(&self) -> Option<u8> {
        let list = self.option_list().ok()?;
        list.iter().find(|(number, _)| *number == kind::WINDOW_SCALE)?.1.first().copied()
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|word| u32::from_be_bytes(*word))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk::<2>().map(|word| u16::from_be_bytes(*word))
}

/// An ICMP error from the network to `ends.from` about a segment from `ends.from` to `ends.to` with this sequence number.
pub(super) fn icmp_error(ends: Ends, kind: IcmpKindSpec, mtu: u16, seq: u32) -> Vec<u8> {
    let segment = Segment {
        ends,
        ecn: Ecn::NotEct,
        seq,
        ack: 0,
        flags: TcpFlags::ACK,
        window: 0,
        urgent: 0,
        options: Vec::new(),
        payload: Vec::new(),
    };
    let quoted = segment.emit();
    let v4 = ends.from.0.is_ipv4();
    let [message, code] = if v4 { message_v4(kind) } else { message_v6(kind) };
    let mut icmp = vec![message, code, 0, 0, 0, 0];
    icmp.extend(mtu.to_be_bytes());
    icmp.extend(quoted);
    let back = Ends { from: ends.to, to: ends.from };
    let check = if v4 { !(sum(&icmp, 0) as u16) } else { transport_sum(back, PROTOCOL_ICMPV6, &icmp) };
    icmp.splice(2..4, check.to_be_bytes());
    ip(back, if v4 { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 }, Ecn::NotEct, &icmp)
}

const fn message_v4(kind: IcmpKindSpec) -> [u8; 2] {
    match kind {
        IcmpKindSpec::TooBig => [3, 4],
        IcmpKindSpec::Port => [3, 3],
        IcmpKindSpec::Host => [3, 1],
        IcmpKindSpec::Network => [3, 0],
        IcmpKindSpec::Protocol => [3, 2],
        IcmpKindSpec::Prohibited => [3, 13],
        IcmpKindSpec::TimeExceeded => [11, 0],
        IcmpKindSpec::SourceQuench => [4, 0],
    }
}

const fn message_v6(kind: IcmpKindSpec) -> [u8; 2] {
    match kind {
        IcmpKindSpec::TooBig => [2, 0],
        IcmpKindSpec::Port => [1, 4],
        IcmpKindSpec::Host => [1, 3],
        IcmpKindSpec::Network => [1, 0],
        IcmpKindSpec::Protocol => [4, 1],
        IcmpKindSpec::Prohibited => [1, 1],
        IcmpKindSpec::TimeExceeded => [3, 0],
        IcmpKindSpec::SourceQuench => [127, 0],
    }
}

const KINDS: [IcmpKindSpec; 8] = [
    IcmpKindSpec::TooBig,
    IcmpKindSpec::Port,
    IcmpKindSpec::Host,
    IcmpKindSpec::Network,
    IcmpKindSpec::Protocol,
    IcmpKindSpec::Prohibited,
    IcmpKindSpec::TimeExceeded,
    IcmpKindSpec::SourceQuench,
];

/// Reads an IP packet.
///
/// # Errors
/// When it is malformed, or a checksum does not fit: nothing that is tested may send such a packet.
pub(super) fn read(packet: &[u8]) -> Result<Packet, String> {
    let outer = outer(packet).ok_or("a malformed IP packet")?;
    if outer.header_sum.is_some_and(|sum| sum != 0xffff) {
        return Err("a wrong IP header checksum".into());
    }
    match outer.protocol {
        PROTOCOL_TCP => read_tcp(&outer).map(Packet::Tcp),
        PROTOCOL_ICMP | PROTOCOL_ICMPV6 => Ok(read_icmp(&outer).unwrap_or(Packet::Other)),
        _ => Ok(Packet::Other),
    }
}

struct Outer<'a> {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    ecn: Ecn,
    header_sum: Option<u16>,
    body: &'a [u8],
}

fn outer(packet: &[u8]) -> Option<Outer<'_>> {
    match packet.first()? >> 4 {
        4 => {
            let header = packet.first_chunk::<IPV4>()?;
            let len = usize::from(header[0] & 15) * 4;
            let total = usize::from(short(header, 2)?);
            let src: [u8; 4] = *header[12..].first_chunk()?;
            let dst: [u8; 4] = *header[16..].first_chunk()?;
            Some(Outer {
                src: src.into(),
                dst: dst.into(),
                protocol: header[9],
                ecn: Ecn::of(header[1]),
                header_sum: Some(sum(packet.get(..len)?, 0) as u16),
                // A quotation may be cut off.
                body: packet.get(len..total.min(packet.len()))?,
            })
        }
        6 => {
            let header = packet.first_chunk::<IPV6>()?;
            let total = IPV6 + usize::from(short(header, 4)?);
            let src: [u8; 16] = *header[8..].first_chunk()?;
            let dst: [u8; 16] = *header[24..].first_chunk()?;
            Some(Outer {
                src: src.into(),
                dst: dst.into(),
                protocol: header[6],
                ecn: Ecn::of(header[1] >> 4),
                header_sum: None,
                body: packet.get(IPV6..total.min(packet.len()))?,
            })
        }
        _ => None,
    }
}

fn read_tcp(outer: &Outer<'_>) -> Result<Segment, String> {
    let tcp = outer.body;
    let header = tcp.first_chunk::<TCP>().ok_or("a truncated TCP header")?;
    let len = usize::from(header[12] >> 4) * 4;
    let (Some(options), Some(payload)) = (tcp.get(TCP..len), tcp.get(len..)) else {
        return Err("a TCP header that is longer than its packet".into());
    };
    let ports = (short(header, 0).unwrap_or(0), short(header, 2).unwrap_or(0));
    let ends = Ends { from: (outer.src, ports.0), to: (outer.dst, ports.1) };
    if transport_sum(ends, PROTOCOL_TCP, tcp) != 0 {
        return Err("a wrong TCP checksum".into());
    }
    Ok(Segment {
        ends,
        ecn: outer.ecn,
        seq: word(header, 4).unwrap_or(0),
        ack: word(header, 8).unwrap_or(0),
        flags: TcpFlags::from_bits_retain(header[13]),
        window: short(header, 14).unwrap_or(0),
        urgent: short(header, 18).unwrap_or(0),
        options: options.to_vec(),
        payload: payload.to_vec(),
    })
}

fn read_icmp(received: &Outer<'_>) -> Option<Packet> {
    let head = received.body.first_chunk::<8>()?;
    let v4 = received.protocol == PROTOCOL_ICMP;
    let message = [head[0], head[1]];
    let kind = KINDS.into_iter().find(|&kind| message == if v4 { message_v4(kind) } else { message_v6(kind) })?;
    let quoted = outer(received.body.get(8..)?)?;
    let ports = (short(quoted.body, 0)?, short(quoted.body, 2)?);
    let quoted = Ends { from: (quoted.src, ports.0), to: (quoted.dst, ports.1) };
    Some(Packet::Icmp { kind, mtu: word(head, 4)? & 0xffff, quoted })
}
