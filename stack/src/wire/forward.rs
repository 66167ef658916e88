//! What a router does to a packet that it sends on: in place, checks updated, not recomputed (RFC 1624).

use std::net::IpAddr;

use super::emit::write_link;
use super::{IpInfo, LinkHeader, TcpFlags, ethertype, protocol};
use crate::checksum;
use crate::limits::TCP_HEADER;
use crate::options::kind;

/// Whether a packet may go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an expired packet is answered with an ICMP error, not sent on"]
pub enum Hop {
    /// Its time to live was lowered.
    Alive,
    /// Its time to live ran out; it was not changed.
    Expired,
}

/// Lowers the time to live or hop limit of the packet that `info` describes; `bytes` are those of its whole frame.
pub fn decrement_ttl(bytes: &mut [u8], info: &IpInfo) -> Hop {
    // RFC 1812 §5.3.1, RFC 8200 §3: a packet whose limit would reach zero is discarded.
    if info.ttl <= 1 {
        return Hop::Expired;
    }
    let Some(header) = bytes.get_mut(usize::from(info.ip_offset)..usize::from(info.l4_offset)) else {
        return Hop::Expired;
    };
    match (info.src, header) {
        (IpAddr::V4(_), [_, _, _, _, _, _, _, _, ttl, protocol, check @ ..]) => {
            let old = u16::from_be_bytes([*ttl, *protocol]);
            *ttl = info.ttl - 1;
            let new = u16::from_be_bytes([*ttl, *protocol]);
            update_check(check, old, new);
        }
        (IpAddr::V6(_), [_, _, _, _, _, _, _, limit, ..]) => *limit = info.ttl - 1,
        _ => return Hop::Expired,
    }
    Hop::Alive
}

/// Lowers the MSS option of the SYN that `info` describes to `mss` when it is higher; `bytes` are those of its whole
/// frame. True when it was changed. A SYN without the option stays without: its sender takes no more than 536 bytes.
pub fn lower_mss(bytes: &mut [u8], info: &IpInfo, mss: u16) -> bool {
    if info.protocol != protocol::TCP || info.fragment {
        return false;
    }
    let Some(segment) = bytes.get_mut(usize::from(info.l4_offset)..usize::from(info.end)) else { return false };
    let Some(at) = find_mss(segment) else { return false };
    let Some(&[high, low]) = segment.get(at..).and_then(|rest| rest.first_chunk::<2>()) else { return false };
    let old = u16::from_be_bytes([high, low]);
    if old <= mss {
        return false;
    }
    if let Some(value) = segment.get_mut(at..at + 2) {
        value.copy_from_slice(&mss.to_be_bytes());
    }
    if let Some(check) = segment.get_mut(16..) {
        // An option may start anywhere: at an odd offset its halves lie in two words.
        update_check(check, checksum::swap_if_odd(old, at), checksum::swap_if_odd(mss, at));
    }
    true
}

/// Where the MSS value of a SYN stands in its segment.
fn find_mss(segment: &[u8]) -> Option<usize> {
    let header = segment.first_chunk::<TCP_HEADER>()?;
    if !TcpFlags::from_bits_retain(header[13]).contains(TcpFlags::SYN) {
        return None;
    }
    let header_len = usize::from(header[12] >> 4) * 4;
    let options = segment.get(..header_len)?;
    let mut at = TCP_HEADER;
    loop {
        match *options.get(at)? {
            kind::END => return None,
            kind::NOP => at += 1,
            found => {
                let len = usize::from(*options.get(at + 1)?);
                if found == kind::MSS && len == 4 && at + 4 <= header_len {
                    return Some(at + 2);
                }
                if len < 2 {
                    return None;
                }
                at += len;
            }
        }
    }
}

/// Updates the check in the first two of `bytes`.
fn update_check(bytes: &mut [u8], old: u16, new: u16) {
    if let Some(check) = bytes.first_chunk_mut::<2>() {
        *check = checksum::update(u16::from_be_bytes(*check), old, new).to_be_bytes();
    }
}

/// Writes `link` right in front of the IP packet that `info` describes; `bytes` are those of its whole frame. Gives
/// where the packet starts now and its length; `None` when there is no room for a tag that it did not come with.
pub fn set_link(bytes: &mut [u8], info: &IpInfo, link: &LinkHeader) -> Option<(u16, u16)> {
    let ethertype = if info.src.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
    let len = link.emitted_len() as u16;
    let start = info.ip_offset.checked_sub(len)?;
    write_link(bytes.get_mut(usize::from(start)..usize::from(info.ip_offset))?, link, ethertype)?;
    Some((start, info.end - start))
}
