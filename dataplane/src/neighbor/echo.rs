//! Answering pings in place.

use std::net::IpAddr;

use mimbox_stack::checksum;
use mimbox_stack::limits::{ETHERNET_HEADER, IPV4_HEADER, IPV6_HEADER};
use mimbox_stack::wire::{IpInfo, MacAddr, protocol};

/// Hop limit of what the box answers itself.
const REPLY_TTL: u8 = 64;

/// Makes an echo request its reply; false, with nothing written, when it is something else.
pub(super) fn turn_around(frame: &mut [u8], info: &IpInfo, mac: MacAddr) -> bool {
    let (request, reply, addresses, header) = match (info.src, info.protocol) {
        (IpAddr::V4(_), protocol::ICMP) => (8u8, 0u8, 12..20, IPV4_HEADER),
        (IpAddr::V6(_), protocol::ICMPV6) => (128, 129, 8..40, IPV6_HEADER),
        _ => return false,
    };
    let (start, ip, l4) = (usize::from(info.start), usize::from(info.ip_offset), usize::from(info.l4_offset));
    // A request with IP options or extension headers is not worth the trouble that turning those around would be.
    if info.fragment || ip + header != l4 || start + ETHERNET_HEADER > ip {
        return false;
    }
    let Some(message) = frame.get_mut(l4..usize::from(info.end)) else { return false };
    let [kind, 0, c0, c1, ..] = *message else { return false };
    if kind != request {
        return false;
    }
    let check = checksum::update(
        u16::from_be_bytes([c0, c1]),
        u16::from_be_bytes([request, 0]),
        u16::from_be_bytes([reply, 0]),
    );
    message[0] = reply;
    message[2..4].copy_from_slice(&check.to_be_bytes());
    let Some(packet) = frame.get_mut(ip..l4) else { return false };
    let half = addresses.len() / 2;
    let (first, second) = packet[addresses].split_at_mut(half);
    first.swap_with_slice(second);
    if header == IPV4_HEADER {
        let check = checksum::update(
            u16::from_be_bytes([packet[10], packet[11]]),
            u16::from_be_bytes([packet[8], packet[9]]),
            u16::from_be_bytes([REPLY_TTL, packet[9]]),
        );
        packet[8] = REPLY_TTL;
        packet[10..12].copy_from_slice(&check.to_be_bytes());
    } else {
        packet[7] = REPLY_TTL;
    }
    if let Some(link) = frame.get_mut(start..start + 12) {
        link[..6].copy_from_slice(&info.link.src.0);
        link[6..].copy_from_slice(&mac.0);
    }
    true
}
