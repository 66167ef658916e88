//! A middlebox on a link that takes MPTCP options out of segments, as some do (RFC 8684 §3.7).

use mimbox_stack::checksum;

use super::draw::{MILLION, mix};

/// Which segments lose their MPTCP options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strips {
    /// SYNs and SYN+ACKs.
    Syns,
    /// All others.
    AllButSyns,
    /// Every segment.
    All,
}

/// A middlebox in one direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Middlebox {
    /// Which segments lose their options.
    pub strips: Strips,
    /// Share of the 4-tuples that it meddles with; always the same ones, in both directions of the link.
    pub flows_ppm: u32,
    /// Decides which 4-tuples those are.
    pub salt: u64,
}

/// Bytes before the IPv4 header.
const ETHERNET: usize = 14;
/// MPTCP's option kind, and the one that fills its place.
const MPTCP: u8 = 30;
const NOP: u8 = 1;

/// The TCP header of an IPv4 frame: where it starts and how long it is.
fn tcp_header(packet: &[u8]) -> Option<(usize, usize)> {
    let ip = packet.get(ETHERNET..)?;
    if packet.get(12..14)? != [0x08, 0x00] || ip.first()? >> 4 != 4 || *ip.get(9)? != 6 {
        return None;
    }
    let start = ETHERNET + usize::from(ip[0] & 0x0f) * 4;
    let len = usize::from(packet.get(start + 12)? >> 4) * 4;
    (len >= 20 && packet.len() >= start + len).then_some((start, len))
}

impl Middlebox {
    /// Takes the MPTCP options out of `packet` if it is one that the middlebox meddles with; true when it had any.
    pub(crate) fn meddle(&self, packet: &mut [u8]) -> bool {
        let Some((start, len)) = tcp_header(packet) else { return false };
        let is_syn = packet[start + 13] & 0x02 != 0;
        let wanted = match self.strips {
            Strips::Syns => is_syn,
            Strips::AllButSyns => !is_syn,
            Strips::All => true,
        };
        if !wanted || !self.meddles_with(packet, start) {
            return false;
        }
        let Some(header) = packet.get_mut(start..start + len) else { return false };
        let before = checksum::sum(header);
        let mut found = false;
        let mut at = 20;
        while let Some(&kind) = header.get(at) {
            let option = match kind {
                0 => break,
                NOP => 1,
                _ => usize::from(header.get(at + 1).copied().unwrap_or(0)).max(2),
            };
            if kind == MPTCP
                && let Some(bytes) = header.get_mut(at..at + option)
            {
                bytes.fill(NOP);
                found = true;
            }
            at += option;
        }
        let check = u16::from_be_bytes([header[16], header[17]]);
        let check = checksum::update(check, before, checksum::sum(header));
        header[16..18].copy_from_slice(&check.to_be_bytes());
        found
    }

    fn meddles_with(&self, packet: &[u8], tcp: usize) -> bool {
        let word = |at: usize, len: usize| -> u64 {
            packet.get(at..at + len).unwrap_or(&[]).iter().fold(0, |word, &byte| word << 8 | u64::from(byte))
        };
        // Symmetric, so that both directions choose alike.
        let addresses = word(ETHERNET + 12, 4) ^ word(ETHERNET + 16, 4);
        let ports = word(tcp, 2) ^ word(tcp + 2, 2);
        mix(self.salt ^ addresses << 16 ^ ports) % u64::from(MILLION) < u64::from(self.flows_ppm)
    }
}

#[cfg(test)]
mod tests;
