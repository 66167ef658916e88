//! The short way of a received packet: the one layout that nearly every packet of an open connection has.
//!
//! After an idea of RFC 9293 §3.10.7.4's implementers, header prediction: what is expected is recognised by few
//! comparisons and taken at once; for everything else, malformed packets included, [`parse`](super::parse) has the word.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Ecn, FlowKey, LinkHeader, MacAddr, SegmentIn, TcpFlags, ethertype, protocol};
use crate::checksum::{self, fold};
use crate::limits::{ETHERNET_HEADER, IPV4_HEADER, IPV6_HEADER, TCP_HEADER};
use crate::options::{OptionBytes, OptionSlice, SynOptions, TcpOptions, kind, timestamps_of};
use crate::seq::SeqNum;

/// Parses a packet into `segment` if it has the layout that is expected: untagged Ethernet, IP without options or
/// extensions, and TCP with no options, with timestamps, or with timestamps and one MPTCP option behind them. `known` finds
/// what the packet's 4-tuple belongs to; it is asked before the payload is read, so that a packet of which it knows nothing
/// is not summed here and again by whoever takes it. All checksums are verified. What comes out is what
/// [`parse`](super::parse) gives for the packet; after `None` `segment` means nothing.
#[inline]
pub fn parse_expected<T>(
    packet: &[u8],
    offset: u16,
    segment: &mut SegmentIn,
    known: impl FnOnce(&FlowKey) -> Option<T>,
) -> Option<(LinkHeader, T)> {
    if packet.len() > usize::from(u16::MAX - offset) {
        return None;
    }
    let (header, rest) = packet.split_first_chunk::<ETHERNET_HEADER>()?;
    let &[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, high, low] = header;
    let link =
        LinkHeader { dst: MacAddr([d0, d1, d2, d3, d4, d5]), src: MacAddr([s0, s1, s2, s3, s4, s5]), vlan: None };
    if link.dst.is_multicast() {
        return None;
    }
    let offset = offset + ETHERNET_HEADER as u16;
    let taken = match u16::from_be_bytes([high, low]) {
        ethertype::IPV4 => ipv4(rest, offset, segment, known),
        ethertype::IPV6 => ipv6(rest, offset, segment, known),
        _ => None,
    };
    taken.map(|found| (link, found))
}

#[inline]
fn ipv4<T>(
    packet: &[u8],
    offset: u16,
    segment: &mut SegmentIn,
    known: impl FnOnce(&FlowKey) -> Option<T>,
) -> Option<T> {
    let header = packet.first_chunk::<IPV4_HEADER>()?;
    let &[version, traffic, len0, len1, _, _, fragment0, fragment1, _, next, _, _, ref addresses @ ..] = header;
    let &[s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
    // Neither fragments nor options, and addresses about which there is no question: classes A to C.
    let plain = version == 0x45 && fragment0 & 0x3f == 0 && fragment1 == 0 && next == protocol::TCP;
    let usual = |first: u8| (1..224).contains(&first) && first != 127;
    if !plain || !usual(s0) || !usual(d0) || fold(native_words(header)) != 0xffff {
        return None;
    }
    let l4 = packet.get(IPV4_HEADER..usize::from(u16::from_be_bytes([len0, len1])))?;
    segment.flow.local = IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3));
    segment.flow.remote = IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3));
    segment.ecn = Ecn::of(traffic);
    tcp(l4, offset + IPV4_HEADER as u16, native_words(addresses), segment, known)
}

#[inline]
fn ipv6<T>(
    packet: &[u8],
    offset: u16,
    segment: &mut SegmentIn,
    known: impl FnOnce(&FlowKey) -> Option<T>,
) -> Option<T> {
    let header = packet.first_chunk::<IPV6_HEADER>()?;
    let &[version, traffic, _, _, len0, len1, next, _, ref addresses @ ..] = header;
    let (src, dst) = addresses.split_first_chunk::<16>()?;
    let dst = dst.first_chunk::<16>()?;
    // Neither multicast (ff) nor unspecified, loopback and other forms of 00.
    let usual = |first: u8| first != 0 && first != 0xff;
    if version >> 4 != 6 || next != protocol::TCP || !usual(src[0]) || !usual(dst[0]) {
        return None;
    }
    let l4 = packet.get(IPV6_HEADER..IPV6_HEADER + usize::from(u16::from_be_bytes([len0, len1])))?;
    segment.flow.local = IpAddr::V6(Ipv6Addr::from(*dst));
    segment.flow.remote = IpAddr::V6(Ipv6Addr::from(*src));
    segment.ecn = Ecn::of(traffic >> 4);
    tcp(l4, offset + IPV6_HEADER as u16, native_words(addresses), segment, known)
}

/// `addresses` is the unfolded sum of both addresses, in native order.
#[inline]
fn tcp<T>(
    l4: &[u8],
    offset: u16,
    addresses: u64,
    segment: &mut SegmentIn,
    known: impl FnOnce(&FlowKey) -> Option<T>,
) -> Option<T> {
    let (header, rest) = l4.split_first_chunk::<TCP_HEADER>()?;
    let &[sp0, sp1, dp0, dp1, q0, q1, q2, q3, a0, a1, a2, a3, data_offset, flags, w0, w1, _, _, _, _] = header;
    let header_len = usize::from(data_offset >> 4) * 4;
    let (options, payload) = rest.split_at_checked(header_len.checked_sub(TCP_HEADER)?)?;
    let option_sum = take_options(options, rest, &mut segment.options)?;
    segment.flow.local_port = u16::from_be_bytes([dp0, dp1]);
    segment.flow.remote_port = u16::from_be_bytes([sp0, sp1]);
    let found = known(&segment.flow)?;
    let payload_sum = checksum::sum(payload);
    // No overflow: the IP header went off a packet whose offsets all fit.
    let length = u16::from(protocol::TCP) + l4.len() as u16;
    // RFC 1071 §2 (B): a sum is the same in either byte order, but for the order of its own bytes; and all ones are all
    // ones in both.
    let native = u64::from(payload_sum.to_be()) + u64::from(length.to_be());
    if fold(addresses + native_words(header) + option_sum + native) != 0xffff {
        return None;
    }
    segment.seq = SeqNum(u32::from_be_bytes([q0, q1, q2, q3]));
    segment.ack = SeqNum(u32::from_be_bytes([a0, a1, a2, a3]));
    segment.flags = TcpFlags::from_bits_retain(flags);
    segment.window = u16::from_be_bytes([w0, w1]);
    segment.payload_offset = offset + header_len as u16;
    segment.payload_len = payload.len() as u16;
    segment.payload_sum = payload_sum;
    Some(found)
}

/// Takes options in one of the layouts that are expected; their unfolded sum in native order. `behind` begins with them
/// and goes on to the end of the packet.
#[inline]
fn take_options(bytes: &[u8], behind: &[u8], options: &mut TcpOptions) -> Option<u64> {
    let TcpOptions { raw, syn, timestamps, sack, mptcp, experimental, fast_open } = options;
    raw.clear();
    *syn = SynOptions::default();
    *timestamps = None;
    sack.clear();
    mptcp.clear();
    (*experimental, *fast_open) = (None, None);
    if bytes.is_empty() {
        return Some(0);
    }
    // RFC 7323 appendix A: the layout that everybody uses.
    let (lead, upper) = bytes.split_first_chunk::<TIMESTAMPS>()?;
    let [kind::NOP, kind::NOP, kind::TIMESTAMPS, 10, clocks @ ..] = lead else { return None };
    *timestamps = Some(timestamps_of(clocks));
    if upper.is_empty() {
        raw.try_extend_from_slice(lead).ok()?;
        return Some(native_words(lead));
    }
    let (&[kind::MPTCP, len], _) = upper.split_first_chunk::<2>()? else { return None };
    let padding = upper.get(usize::from(len)..)?;
    if len < 3 || padding.iter().any(|&byte| byte != kind::NOP) {
        return None;
    }
    mptcp.push(OptionSlice { start: TIMESTAMPS as u8, len });
    let (pairs, last) = upper.as_chunks::<8>();
    let upper_sum = pairs.iter().fold(0, |sum, &pair| sum + u128::from(u64::from_ne_bytes(pair)));
    // 2^64 counts as 1, like 2^16.
    let upper_sum = (upper_sum >> 64) as u64 + (upper_sum as u64 >> 32) + (upper_sum as u64 & 0xffff_ffff);
    let last = last.first_chunk().map_or(0, |&word| u64::from(u32::from_ne_bytes(word)));
    let sum = native_words(lead) + upper_sum + last;
    match behind.first_chunk() {
        // One copy of fixed size where the packet is long enough for it.
        Some(most) => {
            *raw = OptionBytes::from(*most);
            raw.truncate(bytes.len());
        }
        None => raw.try_extend_from_slice(bytes).ok()?,
    }
    Some(sum)
}

/// Bytes of timestamps and the padding before them (RFC 7323 appendix A).
pub(super) const TIMESTAMPS: usize = 12;

/// Unfolded sum of 32-bit words in the machine's own byte order.
#[inline]
pub(super) fn native_words<const N: usize>(bytes: &[u8; N]) -> u64 {
    const { assert!(N.is_multiple_of(4)) };
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|&word| u64::from(u32::from_ne_bytes(word))).sum()
}
