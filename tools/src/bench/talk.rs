//! What the synthetic client and server of one conversion remember: numbers, no queues and no timers.

use mimbox_mptcp::key::{self, KeyPair, Version};

use super::packet::{self, ACK, FIN, SCALE, SYN, Seen};

/// Subflows of one conversation at most.
pub(super) const LINES: usize = 2;
/// The port of the box that clients connect to.
const BOX_PORT: u16 = 443;
/// The box's address for clients, in the configuration's words 192.0.2.1.
const BOX: u32 = 0xc000_0201;
/// Servers: 198.18.0.0/15, 256 ports each.
const SERVERS: u32 = 0xc612_0000;
const SERVER_PORTS: u16 = 10_000;
/// Clients: one network for first subflows, one for second ones.
const CLIENTS: [u32; LINES] = [0x0a00_0000, 0x0b00_0000];
const CLIENT_PORTS: [u16; LINES] = [5001, 5002];
/// The window field of every packet: with the shift, 16 MB.
pub(super) const WINDOW: u16 = 0xffff;

/// One side of one TCP connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line {
    /// Next sequence number to send.
    pub(super) seq: u32,
    /// Next sequence number expected.
    pub(super) rcv: u32,
    /// Our initial sequence number: relative numbers of mappings count from it.
    pub(super) origin: u32,
    /// Segments that were received and not acknowledged.
    pub(super) unacked: u8,
    pub(super) open: bool,
    /// Our FIN was sent.
    pub(super) finished: bool,
    /// The box's FIN arrived.
    pub(super) ended: bool,
    /// A hole after `rcv`: what arrived behind it, start and end.
    pub(super) beyond: Option<(u32, u32)>,
}

/// A client, its server, and nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Talk {
    pub(super) client: [Line; LINES],
    pub(super) server: Line,
    /// The box's port towards the server, and its address there.
    pub(super) source: (u32, u16),
    /// The client's next data sequence number, and the next one expected of the box.
    pub(super) dsn: u64,
    pub(super) data_rcv: u64,
    /// What the box's windows allow: data sequence numbers of the client, sequence numbers of the server.
    pub(super) data_edge: u64,
    pub(super) server_edge: u32,
    box_key: u64,
    /// The box's DATA_FIN arrived.
    pub(super) data_ended: bool,
}

/// The client's key of conversation `index`.
fn client_key(index: u32) -> u64 {
    0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(u64::from(index) + 1)
}

pub(super) fn server_address(index: u32) -> (u32, u16) {
    (SERVERS + (index >> 8), SERVER_PORTS + (index & 0xff) as u16)
}

pub(super) fn client_address(index: u32, line: usize) -> (u32, u16) {
    (CLIENTS[line] + index, CLIENT_PORTS[line])
}

pub(super) const fn box_address() -> (u32, u16) {
    (BOX, BOX_PORT)
}

/// The conversation, and its subflow, that a packet to a client belongs to.
pub(super) fn client_of(seen: &Seen) -> Option<(u32, usize)> {
    let line = CLIENT_PORTS.iter().position(|&port| port == seen.dst.1)?;
    Some((seen.dst.0.checked_sub(CLIENTS[line])?, line))
}

/// The conversation that a packet to a server belongs to.
pub(super) fn server_of(seen: &Seen) -> Option<u32> {
    let high = seen.dst.0.checked_sub(SERVERS)?;
    Some(high << 8 | u32::from(seen.dst.1.checked_sub(SERVER_PORTS)? & 0xff))
}

/// A DSS of a client or of its acknowledgments; 32-bit numbers, as clients of one vendor send them.
pub(super) struct DssBytes {
    bytes: [u8; 20],
    len: usize,
}

impl DssBytes {
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What a DSS maps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Maps {
    pub(super) dsn: u64,
    pub(super) ssn: u32,
    pub(super) len: u16,
    /// Sum of the payload, when a checksum goes with it.
    pub(super) sum: Option<u16>,
    pub(super) data_fin: bool,
}

pub(super) fn dss(data_ack: u64, maps: Option<Maps>) -> DssBytes {
    let mut bytes = [1; 20];
    bytes[..3].copy_from_slice(&[30, 8, 0x20]);
    bytes[3] = 1;
    bytes[4..8].copy_from_slice(&(data_ack as u32).to_be_bytes());
    let Some(maps) = maps else { return DssBytes { bytes, len: 8 } };
    bytes[3] |= 4 | if maps.data_fin { 0x10 } else { 0 };
    bytes[1] = 18;
    bytes[8..12].copy_from_slice(&(maps.dsn as u32).to_be_bytes());
    bytes[12..16].copy_from_slice(&maps.ssn.to_be_bytes());
    bytes[16..18].copy_from_slice(&maps.len.to_be_bytes());
    if let Some(sum) = maps.sum {
        // RFC 8684 §3.3.1: the pseudo header has the whole data sequence number.
        let mut pseudo = [0; 14];
        pseudo[..8].copy_from_slice(&maps.dsn.to_be_bytes());
        pseudo[8..12].copy_from_slice(&maps.ssn.to_be_bytes());
        pseudo[12..].copy_from_slice(&maps.len.to_be_bytes());
        let check = !mimbox_stack::checksum::add(mimbox_stack::checksum::sum(&pseudo), sum);
        bytes[18..20].copy_from_slice(&check.to_be_bytes());
        bytes[1] = 20;
    }
    DssBytes { bytes, len: 20 }
}

/// Options of a SYN in front of what MPTCP and the destination add: MSS, SACK-permitted, timestamps, window scale.
fn syn_options(now_ms: u32) -> [u8; 20] {
    let [a, b, c, d] = now_ms.to_be_bytes();
    [2, 4, 0x05, 0xb4, 4, 2, 8, 10, a, b, c, d, 0, 0, 0, 0, 1, 3, 3, SCALE]
}

/// The options of the client's SYN on `line`.
pub(super) fn client_syn(index: u32, line: usize, talk: &Talk, checksum: bool, now_ms: u32) -> Vec<u8> {
    let mut options = syn_options(now_ms).to_vec();
    if line == 0 {
        options.extend([30, 4, 0x01, if checksum { 0x81 } else { 0x01 }]);
        let (addr, port) = server_address(index);
        options.extend([253, 10, 0x4d, 0x42]);
        options.extend(addr.to_be_bytes());
        options.extend(port.to_be_bytes());
        options.extend([1, 1]);
    } else {
        options.extend([30, 12, 0x10, line as u8]);
        options.extend(key::token(talk.box_key, Version::V1).to_be_bytes());
        options.extend(nonce(index).to_be_bytes());
    }
    options
}

pub(super) fn server_syn(now_ms: u32) -> [u8; 20] {
    syn_options(now_ms)
}

fn nonce(index: u32) -> u32 {
    index ^ 0x5bd1_e995
}

/// The options behind timestamps of the client's third ACK, from what the box's SYN+ACK says.
pub(super) fn third_ack(index: u32, line: usize, talk: &mut Talk, bytes: &[u8], seen: &Seen) -> Option<Vec<u8>> {
    let option = packet::mptcp(bytes, seen)?;
    let local = client_key(index);
    if line == 0 {
        talk.box_key = packet::u64_at(option.get(..12)?, 4);
        talk.dsn = key::derive(local, Version::V1).idsn.0.wrapping_add(1);
        talk.data_rcv = key::derive(talk.box_key, Version::V1).idsn.0.wrapping_add(1);
        talk.data_edge = talk.dsn;
        let mut options = vec![30, 20, 0x01, option[3]];
        options.extend(local.to_be_bytes());
        options.extend(talk.box_key.to_be_bytes());
        return Some(options);
    }
    let theirs = packet::u32_at(option.get(..16)?, 12);
    let keys = KeyPair { local, remote: talk.box_key, version: Version::V1 };
    let mut options = vec![30, 24, 0x10, 0];
    options.extend(keys.join(nonce(index), theirs).for_ack());
    Some(options)
}

impl Line {
    /// A line about to send its SYN.
    pub(super) fn starting(iss: u32) -> Self {
        Self { seq: iss, origin: iss, ..Self::default() }
    }

    /// The relative number of the next byte.
    pub(super) fn ssn(&self) -> u32 {
        self.seq.wrapping_sub(self.origin)
    }

    /// Takes a data segment; gives the bytes that are in order now.
    pub(super) fn take(&mut self, seq: u32, len: u32) -> u32 {
        let before = self.rcv;
        if seq == self.rcv {
            self.rcv = self.rcv.wrapping_add(len);
            if let Some((start, end)) = self.beyond
                && self.rcv.wrapping_sub(start) as i32 >= 0
            {
                self.rcv = end;
                self.beyond = None;
            }
        } else if seq.wrapping_sub(self.rcv) as i32 > 0 {
            let (start, _) = self.beyond.unwrap_or((seq, seq));
            self.beyond = Some((start, seq.wrapping_add(len)));
        }
        self.unacked = self.unacked.saturating_add(1);
        self.rcv.wrapping_sub(before)
    }
}

impl Talk {
    /// Learns what the box's packet to the client says of windows and of the data level.
    pub(super) fn hear(&mut self, bytes: &[u8], seen: &Seen, scale: u8) {
        let Some([30, _, sub, flags, rest @ ..]) = packet::mptcp(bytes, seen) else { return };
        if sub >> 4 != 2 || flags & 1 == 0 {
            return;
        }
        let low = match (flags & 2 != 0, rest) {
            (true, [_, _, _, _, a, b, c, d, ..]) | (false, [a, b, c, d, ..]) => u32::from_be_bytes([*a, *b, *c, *d]),
            _ => return,
        };
        let ack = self.dsn.wrapping_sub(u64::from((self.dsn as u32).wrapping_sub(low)));
        self.data_edge = self.data_edge.max(ack + (u64::from(seen.window) << scale));
        if flags & 0x10 != 0 && seen.payload == 0 && !self.data_ended {
            self.data_ended = true;
            self.data_rcv += 1;
        }
    }

    /// True once nothing of the conversation is left at its ends.
    pub(super) fn is_over(&self) -> bool {
        let lines = self.client.iter().filter(|line| line.open);
        self.server.ended && self.server.finished && lines.into_iter().all(|line| line.ended && line.finished)
    }
}

/// What kind of packet of the handshake it is.
pub(super) fn is_syn_ack(seen: &Seen) -> bool {
    seen.flags & (SYN | ACK) == SYN | ACK
}

pub(super) fn is_fin(seen: &Seen) -> bool {
    seen.flags & FIN != 0
}
