//! What a link has to know of a frame: how long its packet is, and whether its checksum was left for a device to finish.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mimbox_stack::checksum;
use mimbox_stack::limits::{ETHERNET_HEADER, VLAN_TAG};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Tags of 802.1Q and 802.1ad.
const VLAN_TYPES: [u16; 2] = [0x8100, 0x88a8];
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Tags that are looked behind.
const MAX_TAGS: usize = 2;

/// Where a frame's packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    /// First byte behind the Ethernet header and its tags.
    pub(super) start: usize,
    /// Length of the IP packet; of anything else, the rest of the frame.
    pub(super) len: usize,
    /// Whether it is IP: only that has checksums that notice a changed bit.
    pub(super) is_ip: bool,
    /// Protocol, source, destination and first byte of a transport header that is whole here.
    transport: Option<(u8, IpAddr, IpAddr, usize)>,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).map(u16::from_be_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N).and_then(|some| some.try_into().ok())
}

impl Shape {
    /// Looks at a frame.
    pub(super) fn of(frame: &[u8]) -> Self {
        let mut start = ETHERNET_HEADER;
        let mut kind = word(frame, start - 2);
        for _ in 0..MAX_TAGS {
            if kind.is_some_and(|kind| VLAN_TYPES.contains(&kind)) {
                start += VLAN_TAG;
                kind = word(frame, start - 2);
            }
        }
        let rest = frame.len().saturating_sub(start);
        let ip = match kind {
            Some(IPV4) => Self::ipv4(frame, start),
            Some(IPV6) => Self::ipv6(frame, start),
            _ => None,
        };
        match ip {
            // A length beyond the frame's end is nonsense; one before it leaves padding out.
            Some(shape) if shape.len <= rest => shape,
            _ => Self { start, len: rest, is_ip: false, transport: None },
        }
    }

    fn ipv4(frame: &[u8], start: usize) -> Option<Self> {
        let header = usize::from(frame.get(start)? & 15) * 4;
        let len = usize::from(word(frame, start + 2)?);
        // More fragments, or an offset: the checksum covers what is elsewhere.
        let fragment = word(frame, start + 6)? & 0x3fff != 0;
        let [src, dst] = [12, 16].map(|at| array::<4>(frame, start + at));
        let addresses = (IpAddr::V4(Ipv4Addr::from(src?)), IpAddr::V4(Ipv4Addr::from(dst?)));
        let protocol = *frame.get(start + 9)?;
        let transport = (!fragment).then_some((protocol, addresses.0, addresses.1, start + header));
        Some(Self { start, len, is_ip: true, transport })
    }

    fn ipv6(frame: &[u8], start: usize) -> Option<Self> {
        let len = 40 + usize::from(word(frame, start + 4)?);
        let [src, dst] = [8, 24].map(|at| array::<16>(frame, start + at));
        let addresses = (IpAddr::V6(Ipv6Addr::from(src?)), IpAddr::V6(Ipv6Addr::from(dst?)));
        Some(Self {
            start,
            len,
            is_ip: true,
            transport: Some((*frame.get(start + 6)?, addresses.0, addresses.1, start + 40)),
        })
    }

    /// Writes the checksum of a TCP or UDP packet that holds the sum of its pseudo header only: what a kernel leaves for
    /// the device to finish, which a virtual device never does. True when it did.
    pub(super) fn finish_checksum(&self, frame: &mut [u8]) -> bool {
        let Some((protocol, src, dst, at)) = self.transport else { return false };
        let field = match protocol {
            TCP => at + 16,
            UDP => at + 6,
            _ => return false,
        };
        let Some(packet) = frame.get_mut(at..self.start + self.len) else { return false };
        let pseudo = checksum::pseudo_header(src, dst, protocol, packet.len() as u32);
        let Some(check) = packet.get_mut(field - at..field - at + 2) else { return false };
        if *check != pseudo.to_be_bytes() {
            return false;
        }
        // The field itself is summed with the rest, in the pseudo header's place.
        let sum = !checksum::sum(packet);
        // Zero means "none" in UDP (RFC 768).
        let sum = if sum == 0 && protocol == UDP { 0xffff } else { sum };
        if let Some(check) = packet.get_mut(field - at..field - at + 2) {
            check.copy_from_slice(&sum.to_be_bytes());
        }
        true
    }
}

#[cfg(test)]
mod tests;
