//! One pass over a received frame: every length checked once, every checksum verified, the payload summed once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    ArpInfo, Drop, Ecn, FlowKey, IpInfo, LinkHeader, MacAddr, Parsed, SegmentIn, TcpFlags, Verify, ethertype, protocol,
};
use crate::checksum::{self, fold};
use crate::limits::{ETHERNET_HEADER, IPV4_HEADER, IPV6_HEADER, MAX_IPV6_EXTENSIONS, TCP_HEADER, VLAN_TAG};
use crate::options::{MAX_OPTION_BYTES, OptionBytes, TcpOptions};
use crate::seq::SeqNum;

/// Parses a received packet. `packet` runs from its Ethernet header to the end of what was received, and `offset` is
/// where that header stands in the frame, so that all offsets in the answer are those of the frame.
///
/// # Errors
/// Why the packet is to be dropped; [`Drop::counter`] counts it.
#[inline]
pub fn parse(packet: &[u8], offset: u16, verify: Verify) -> Result<Parsed, Drop> {
    if packet.len() > usize::from(u16::MAX - offset) {
        return Err(Drop::Truncated);
    }
    let header = packet.first_chunk::<ETHERNET_HEADER>().ok_or(Drop::Truncated)?;
    let ([dst, src], &[high, low]) = header.as_chunks::<6>() else { return Err(Drop::Truncated) };
    let mut link = LinkHeader { dst: MacAddr(*dst), src: MacAddr(*src), vlan: None };
    let mut kind = u16::from_be_bytes([high, low]);
    let mut l3 = ETHERNET_HEADER;
    if kind == ethertype::VLAN {
        let &[tci_high, tci_low, high, low] =
            packet.get(l3..).and_then(|rest| rest.first_chunk::<VLAN_TAG>()).ok_or(Drop::Truncated)?;
        // IEEE 802.1Q: identifier zero marks a frame that has a priority but no VLAN.
        let id = u16::from_be_bytes([tci_high, tci_low]) & 0x0fff;
        link.vlan = (id != 0).then_some(id);
        kind = u16::from_be_bytes([high, low]);
        l3 += VLAN_TAG;
    }
    let cursor = Cursor { packet, offset, l3, link, verify };
    match kind {
        ethertype::IPV4 => cursor.ipv4(),
        ethertype::IPV6 => cursor.ipv6(),
        ethertype::ARP => {
            Ok(Parsed::Arp(ArpInfo { link, arp_offset: offset + l3 as u16, end: offset + packet.len() as u16 }))
        }
        _ => Err(Drop::Ethertype),
    }
}

/// A packet whose link layer is parsed.
struct Cursor<'a> {
    packet: &'a [u8],
    offset: u16,
    l3: usize,
    link: LinkHeader,
    verify: Verify,
}

impl Cursor<'_> {
    #[inline]
    fn ipv4(&self) -> Result<Parsed, Drop> {
        let rest = self.packet.get(self.l3..).unwrap_or(&[]);
        let header = rest.first_chunk::<IPV4_HEADER>().ok_or(Drop::Truncated)?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[0] >> 4 != 4 || header_len < IPV4_HEADER || total_len < header_len {
            return Err(Drop::IpHeader);
        }
        let (Some(full_header), Some(l4)) = (rest.get(..header_len), rest.get(header_len..total_len)) else {
            return Err(Drop::Truncated);
        };
        if self.verify == Verify::All {
            let sum = if header_len == IPV4_HEADER {
                fold(checksum::array_words(header))
            } else {
                checksum::sum(full_header)
            };
            if sum != 0xffff {
                return Err(Drop::IpChecksum);
            }
        }
        let src = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
        let dst = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
        if martian_v4(src) || src.is_multicast() || src.is_broadcast() || martian_v4(dst) {
            return Err(Drop::Martian);
        }
        let ip_offset = self.offset + self.l3 as u16;
        let info = IpInfo {
            link: self.link,
            src: IpAddr::V4(src),
            dst: IpAddr::V4(dst),
            protocol: header[9],
            ttl: header[8],
            ecn: Ecn::of(header[1]),
            // More fragments, or an offset: RFC 791 §3.1.
            fragment: u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0,
            start: self.offset,
            ip_offset,
            l4_offset: ip_offset + header_len as u16,
            end: ip_offset + total_len as u16,
        };
        if info.fragment {
            return Ok(Parsed::OtherIp(info));
        }
        match info.protocol {
            protocol::TCP => {
                if dst.is_multicast() || dst.is_broadcast() {
                    return Err(Drop::Martian);
                }
                self.tcp(info, l4, u64::from(src.to_bits()) + u64::from(dst.to_bits()))
            }
            protocol::ICMP => {
                if l4.len() < 8 || self.verify == Verify::All && checksum::sum(l4) != 0xffff {
                    return Err(Drop::Icmp);
                }
                Ok(Parsed::Icmp(info))
            }
            _ => Ok(Parsed::OtherIp(info)),
        }
    }

    #[inline]
    fn ipv6(&self) -> Result<Parsed, Drop> {
        let rest = self.packet.get(self.l3..).unwrap_or(&[]);
        let header = rest.first_chunk::<IPV6_HEADER>().ok_or(Drop::Truncated)?;
        if header[0] >> 4 != 6 {
            return Err(Drop::IpHeader);
        }
        let end = IPV6_HEADER + usize::from(u16::from_be_bytes([header[4], header[5]]));
        let whole = rest.get(..end).ok_or(Drop::Truncated)?;
        let &[_, _, _, _, _, _, next, ttl, ref addresses @ ..] = header;
        let (src, dst) = split_addresses(addresses);
        if src.is_multicast() || src.is_loopback() || dst.is_loopback() || dst.is_unspecified() {
            return Err(Drop::Martian);
        }
        let chain = if next == protocol::TCP {
            Chain { protocol: next, l4: IPV6_HEADER, opaque: false }
        } else {
            walk(whole, next)?
        };
        let ip_offset = self.offset + self.l3 as u16;
        let info = IpInfo {
            link: self.link,
            src: IpAddr::V6(src),
            dst: IpAddr::V6(dst),
            protocol: chain.protocol,
            ttl,
            ecn: Ecn::of(header[1] >> 4),
            fragment: chain.opaque,
            start: self.offset,
            ip_offset,
            l4_offset: ip_offset + chain.l4 as u16,
            end: ip_offset + end as u16,
        };
        if info.fragment {
            return Ok(Parsed::OtherIp(info));
        }
        let l4 = whole.get(chain.l4..).unwrap_or(&[]);
        match info.protocol {
            protocol::TCP => {
                if dst.is_multicast() || src.is_unspecified() {
                    return Err(Drop::Martian);
                }
                self.tcp(info, l4, checksum::array_words(addresses))
            }
            protocol::ICMPV6 => self.icmpv6(info, l4),
            _ => Ok(Parsed::OtherIp(info)),
        }
    }

    fn icmpv6(&self, info: IpInfo, l4: &[u8]) -> Result<Parsed, Drop> {
        let &[message, ..] = l4.first_chunk::<8>().ok_or(Drop::Icmp)?;
        let pseudo = checksum::pseudo_header(info.src, info.dst, protocol::ICMPV6, l4.len() as u32);
        if self.verify == Verify::All && checksum::add(pseudo, checksum::sum(l4)) != 0xffff {
            return Err(Drop::Icmp);
        }
        // RFC 4861 §4: router and neighbour solicitations and advertisements, and redirects.
        Ok(if (133..=137).contains(&message) { Parsed::Ndp(info) } else { Parsed::Icmp(info) })
    }

    /// `addresses` is the unfolded sum of both addresses.
    #[inline]
    fn tcp(&self, info: IpInfo, l4: &[u8], addresses: u64) -> Result<Parsed, Drop> {
        let header = l4.first_chunk::<TCP_HEADER>().ok_or(Drop::TcpHeader)?;
        let header_len = usize::from(header[12] >> 4) * 4;
        if header_len < TCP_HEADER {
            return Err(Drop::TcpHeader);
        }
        let (Some(option_bytes), Some(payload)) = (l4.get(TCP_HEADER..header_len), l4.get(header_len..)) else {
            return Err(Drop::TcpHeader);
        };
        // RFC 1122 §4.2.3.10: a segment that the link layer broadcast is discarded.
        if self.link.dst.is_multicast() {
            return Err(Drop::Martian);
        }
        let payload_sum = checksum::sum(payload);
        if self.verify == Verify::All {
            let pseudo = addresses + u64::from(protocol::TCP) + l4.len() as u64;
            let (words, _) = option_bytes.as_chunks::<4>();
            let options = checksum::option_words(words);
            if fold(pseudo + checksum::array_words(header) + options + u64::from(payload_sum)) != 0xffff {
                // A kernel peer with checksum offload leaves the sum of the pseudo header for its device to finish.
                let partial = u16::from_be_bytes([header[16], header[17]]) == fold(pseudo);
                return Err(if partial { Drop::TcpChecksumPartial } else { Drop::TcpChecksum });
            }
        }
        let mut options = TcpOptions::default();
        if !option_bytes.is_empty() {
            options.raw = copy_options(l4, option_bytes);
            options.index().map_err(|_| Drop::TcpHeader)?;
        }
        let &[sp0, sp1, dp0, dp1, q0, q1, q2, q3, a0, a1, a2, a3, _, flags, w0, w1, _, _, _, _] = header;
        let segment = SegmentIn {
            flow: FlowKey {
                local: info.dst,
                remote: info.src,
                local_port: u16::from_be_bytes([dp0, dp1]),
                remote_port: u16::from_be_bytes([sp0, sp1]),
            },
            seq: SeqNum(u32::from_be_bytes([q0, q1, q2, q3])),
            ack: SeqNum(u32::from_be_bytes([a0, a1, a2, a3])),
            flags: TcpFlags::from_bits_retain(flags),
            window: u16::from_be_bytes([w0, w1]),
            ecn: info.ecn,
            options,
            payload_offset: info.l4_offset + header_len as u16,
            payload_len: payload.len() as u16,
            payload_sum,
        };
        Ok(Parsed::Tcp(info, segment))
    }
}

/// The option bytes, by one copy of fixed size where the packet is long enough for it.
#[inline]
fn copy_options(l4: &[u8], option_bytes: &[u8]) -> OptionBytes {
    match l4.get(TCP_HEADER..).and_then(|rest| rest.first_chunk::<MAX_OPTION_BYTES>()) {
        Some(most) => {
            let mut raw = OptionBytes::from(*most);
            raw.truncate(option_bytes.len());
            raw
        }
        None => option_bytes.iter().copied().take(MAX_OPTION_BYTES).collect(),
    }
}

/// 0/8 and 127/8 never appear on a wire (RFC 1122 §3.2.1.3).
#[inline]
const fn martian_v4(address: Ipv4Addr) -> bool {
    matches!(address.octets()[0], 0 | 127)
}

#[inline]
fn split_addresses(both: &[u8; 32]) -> (Ipv6Addr, Ipv6Addr) {
    let (halves, _) = both.as_chunks::<16>();
    match halves {
        [src, dst] => (Ipv6Addr::from(*src), Ipv6Addr::from(*dst)),
        _ => (Ipv6Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED),
    }
}

/// Where a chain of IPv6 extension headers ends.
pub(super) struct Chain {
    pub(super) protocol: u8,
    pub(super) l4: usize,
    /// A fragment, or a packet whose final destination is another than its header says.
    pub(super) opaque: bool,
}

/// Walks the extension headers of an IPv6 packet (RFC 8200 §4) as far as there are bytes of it.
pub(super) fn walk(packet: &[u8], first: u8) -> Result<Chain, Drop> {
    let mut next = first;
    let mut at = IPV6_HEADER;
    for _ in 0..MAX_IPV6_EXTENSIONS {
        if !matches!(next, protocol::HOP_BY_HOP | protocol::ROUTING | protocol::FRAGMENT | protocol::DESTINATION) {
            return Ok(Chain { protocol: next, l4: at, opaque: false });
        }
        let &[following, len, third, fourth, ..] =
            packet.get(at..).and_then(|rest| rest.first_chunk::<8>()).ok_or(Drop::IpHeader)?;
        if next == protocol::FRAGMENT {
            // RFC 8200 §4.5. An atomic fragment (offset zero, no more) is a whole packet: RFC 6946 §4.
            if u16::from_be_bytes([third, fourth]) & 0xfff9 != 0 {
                return Ok(Chain { protocol: following, l4: at + 8, opaque: true });
            }
            at += 8;
        } else {
            // RFC 8200 §4.4: with segments left, checksums cover an address that the header does not name yet.
            if next == protocol::ROUTING && fourth != 0 {
                return Ok(Chain { protocol: next, l4: at, opaque: true });
            }
            at += 8 + usize::from(len) * 8;
        }
        if at > packet.len() {
            return Err(Drop::IpHeader);
        }
        next = following;
    }
    Err(Drop::IpHeader)
}
