//! Packets of the synthetic ends: built from fixed layouts with the numbers filled in, and read at fixed places.

use mimbox_stack::checksum;
use mimbox_stack::wire::protocol;

/// Bytes in front of the TCP header: Ethernet without a tag, IPv4 without options.
const L4: usize = 34;
/// Bytes in front of the options.
pub(super) const OPTIONS: usize = L4 + 20;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const ACK: u8 = 0x10;

/// Shift of every window that an end states.
pub(super) const SCALE: u8 = 8;

/// Ethernet addresses: the box's port, its peer behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) to: [u8; 6],
    pub(super) from: [u8; 6],
}

/// What one packet says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Says<'a> {
    pub(super) src: (u32, u16),
    pub(super) dst: (u32, u16),
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    /// A multiple of four bytes.
    pub(super) options: &'a [u8],
    /// The payload and its sum.
    pub(super) payload: (&'a [u8], u16),
}

/// Writes a packet to `bytes` and gives its length.
pub(super) fn write(bytes: &mut [u8], link: Link, says: &Says<'_>) -> usize {
    let header_len = 20 + says.options.len();
    let (payload, payload_sum) = says.payload;
    let segment_len = header_len + payload.len();
    bytes[0..6].copy_from_slice(&link.to);
    bytes[6..12].copy_from_slice(&link.from);
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes[14..26].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol::TCP, 0, 0]);
    bytes[16..18].copy_from_slice(&((20 + segment_len) as u16).to_be_bytes());
    bytes[26..30].copy_from_slice(&says.src.0.to_be_bytes());
    bytes[30..34].copy_from_slice(&says.dst.0.to_be_bytes());
    let check = !checksum::sum(&bytes[14..L4]);
    bytes[24..26].copy_from_slice(&check.to_be_bytes());

    bytes[34..36].copy_from_slice(&says.src.1.to_be_bytes());
    bytes[36..38].copy_from_slice(&says.dst.1.to_be_bytes());
    bytes[38..42].copy_from_slice(&says.seq.to_be_bytes());
    bytes[42..46].copy_from_slice(&says.ack.to_be_bytes());
    bytes[46] = (header_len as u8 / 4) << 4;
    bytes[47] = says.flags;
    bytes[48..50].copy_from_slice(&says.window.to_be_bytes());
    bytes[50..54].copy_from_slice(&[0; 4]);
    bytes[OPTIONS..L4 + header_len].copy_from_slice(says.options);
    let addresses = checksum::sum(&bytes[26..L4]);
    let pseudo = checksum::fold(u64::from(addresses) + u64::from(protocol::TCP) + segment_len as u64);
    let header = checksum::sum(&bytes[L4..L4 + header_len]);
    let check = !checksum::add(checksum::add(pseudo, header), payload_sum);
    bytes[50..52].copy_from_slice(&check.to_be_bytes());
    bytes[L4 + header_len..L4 + segment_len].copy_from_slice(payload);
    L4 + segment_len
}

/// What an end looks at in a packet of the box.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) src: (u32, u16),
    pub(super) dst: (u32, u16),
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) options: usize,
    pub(super) payload: u32,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}

/// Reads a packet of the box; `None` for what is not TCP over IPv4.
pub(super) fn read(bytes: &[u8]) -> Option<Seen> {
    if bytes.len() < OPTIONS || bytes[12..14] != [8, 0] || bytes[23] != protocol::TCP {
        return None;
    }
    let header_len = usize::from(bytes[46] >> 4) * 4;
    Some(Seen {
        src: (u32_at(bytes, 26), u16_at(bytes, 34)),
        dst: (u32_at(bytes, 30), u16_at(bytes, 36)),
        seq: u32_at(bytes, 38),
        ack: u32_at(bytes, 42),
        flags: bytes[47],
        window: u16_at(bytes, 48),
        options: header_len - 20,
        payload: u32::from(u16_at(bytes, 16)) - 20 - header_len as u32,
    })
}

/// The first MPTCP option of a packet.
pub(super) fn mptcp<'a>(bytes: &'a [u8], seen: &Seen) -> Option<&'a [u8]> {
    let options = &bytes[OPTIONS..OPTIONS + seen.options];
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        match kind {
            0 => return None,
            1 => at += 1,
            _ => {
                let len = usize::from(*options.get(at + 1)?);
                if kind == 30 {
                    return options.get(at..at + len);
                }
                at += len.max(2);
            }
        }
    }
    None
}

/// Timestamps with their padding.
pub(super) fn timestamps(now_ms: u32) -> [u8; 12] {
    let [a, b, c, d] = now_ms.to_be_bytes();
    [1, 1, 8, 10, a, b, c, d, 0, 0, 0, 0]
}

/// The answer to an ARP request for whatever address it asks about.
pub(super) fn arp_reply(bytes: &mut [u8], request: &[u8], mac: [u8; 6]) -> Option<usize> {
    if request.len() < 42 || request[12..14] != [8, 6] || request[20..22] != [0, 1] {
        return None;
    }
    bytes[..42].copy_from_slice(&request[..42]);
    bytes[0..6].copy_from_slice(&request[6..12]);
    bytes[6..12].copy_from_slice(&mac);
    bytes[21] = 2;
    bytes[22..28].copy_from_slice(&mac);
    bytes[28..32].copy_from_slice(&request[38..42]);
    bytes[32..42].copy_from_slice(&request[22..32]);
    Some(42)
}
