//! The packets of a train: those that follow another of the same connection.
//!
//! A packet whose link-layer header, addresses, ports and kinds of options are those of the one before belongs to the same
//! connection and has the same layout: what is left to be read are its numbers. Nothing about it is taken on trust, its
//! checksums least of all.

use super::expected::{TIMESTAMPS, native_words};
use super::{SegmentIn, TcpFlags, ethertype, protocol};
use crate::checksum::{self, fold};
use crate::limits::{ETHERNET_HEADER, IPV4_HEADER, IPV6_HEADER, TCP_HEADER};
use crate::options::{MAX_OPTION_BYTES, OptionBytes, Timestamps, kind, timestamps_of};
use crate::seq::SeqNum;

/// Where TCP begins behind IPv4 and behind IPv6.
const BEHIND_V4: usize = ETHERNET_HEADER + IPV4_HEADER;
const BEHIND_V6: usize = ETHERNET_HEADER + IPV6_HEADER;
/// Bytes up to the end of the timestamps.
const UPPER_V4: usize = BEHIND_V4 + TCP_HEADER + TIMESTAMPS;
const UPPER_V6: usize = BEHIND_V6 + TCP_HEADER + TIMESTAMPS;
/// Bytes kept of a packet: all headers and the head of the option behind the timestamps.
const KEPT: usize = UPPER_V6 + 4;

/// What the packets of a train have in common: headers of a packet that
/// [`parse_expected`](super::parse_expected) has taken.
#[derive(Clone, Debug)]
pub struct TrainHead {
    bytes: [u8; KEPT],
    /// Length of the TCP header; zero when there is no train.
    header_len: usize,
    /// Length of the option behind the timestamps, without its padding; zero when there is none.
    option_len: usize,
    /// Unfolded sum of both addresses, in native order.
    addresses: u64,
}

impl Default for TrainHead {
    fn default() -> Self {
        Self { bytes: [0; KEPT], header_len: 0, option_len: 0, addresses: 0 }
    }
}

/// What a packet of a train says.
#[derive(Clone, Debug)]
pub struct Following {
    /// Sequence number.
    pub seq: SeqNum,
    /// Acknowledgment number.
    pub ack: SeqNum,
    /// ACK, with or without PSH.
    pub flags: TcpFlags,
    /// Window field as it stands in the header.
    pub window: u16,
    /// Timestamps.
    pub timestamps: Timestamps,
    /// Option bytes.
    pub raw: OptionBytes,
    /// First byte of the payload in the frame.
    pub payload_offset: u16,
    /// Length of the payload.
    pub payload_len: u16,
    /// Payload sum as in [`RxSegment::sum`](crate::RxSegment::sum).
    pub payload_sum: u16,
}

impl Following {
    /// Becomes `segment`, which is of the same train.
    #[inline]
    pub fn put_in(self, segment: &mut SegmentIn) {
        let Self { seq, ack, flags, window, timestamps, raw, payload_offset, payload_len, payload_sum } = self;
        (segment.seq, segment.ack, segment.flags, segment.window) = (seq, ack, flags, window);
        segment.options.timestamps = Some(timestamps);
        segment.options.raw = raw;
        segment.payload_offset = payload_offset;
        segment.payload_len = payload_len;
        segment.payload_sum = payload_sum;
    }

    /// True when, but for its payload and where that belongs, it says what `segment` said before it.
    #[inline]
    pub fn repeats(&self, segment: &SegmentIn) -> bool {
        self.ack == segment.ack
            && self.window == segment.window
            && segment.options.timestamps.is_some_and(|timestamps| timestamps == self.timestamps)
    }
}

impl TrainHead {
    /// No train: nothing follows.
    pub fn clear(&mut self) {
        self.header_len = 0;
    }

    /// Begins a train with a packet that [`parse_expected`](super::parse_expected) has made `segment` of; `bytes` begin with
    /// it. False, and there is no train, when the packet is of a kind that none is made of: without timestamps, or with
    /// other flags than ACK and PSH.
    #[inline]
    pub fn begin(&mut self, bytes: &[u8], segment: &SegmentIn) -> bool {
        self.header_len = 0;
        let options = &segment.options;
        let usual = segment.flags.difference(TcpFlags::PSH) == TcpFlags::ACK && options.timestamps.is_some();
        let Some(kept) = bytes.first_chunk::<KEPT>().filter(|_| usual) else { return false };
        self.bytes = *kept;
        self.option_len = options.mptcp.first().map_or(0, |option| usize::from(option.len));
        self.addresses = if is_v4(kept) {
            kept.get(BEHIND_V4 - 8..).and_then(|bytes| bytes.first_chunk::<8>()).map_or(0, native_words)
        } else {
            kept.get(BEHIND_V6 - 32..).and_then(|bytes| bytes.first_chunk::<32>()).map_or(0, native_words)
        };
        self.header_len = TCP_HEADER + options.raw.len();
        true
    }

    /// What `packet`, at `offset` of its frame, says, if it is of the train.
    #[inline]
    pub fn follow(&self, packet: &[u8], offset: u16) -> Option<Following> {
        if self.header_len == 0 || packet.len() > usize::from(u16::MAX - offset) {
            return None;
        }
        if is_v4(&self.bytes) { self.follow_v4(packet, offset) } else { self.follow_v6(packet, offset) }
    }

    #[inline]
    fn follow_v4(&self, packet: &[u8], offset: u16) -> Option<Following> {
        let (head, was) = (packet.first_chunk::<UPPER_V4>()?, self.bytes.first_chunk::<UPPER_V4>()?);
        // Left out: total length, identification, checksum; sequence and acknowledgment number; and what is no part of the
        // layout behind those.
        let apart = (word::<16>(head, 0)? ^ word::<16>(was, 0)?)
            | (word::<4>(head, 20)? ^ word::<4>(was, 20)?)
            | (word::<8>(head, 26)? ^ word::<8>(was, 26)?)
            | (word::<4>(head, BEHIND_V4)? ^ word::<4>(was, BEHIND_V4)?);
        let ip = head.get(ETHERNET_HEADER..)?.first_chunk::<IPV4_HEADER>()?;
        if apart != 0 || fold(native_words(ip)) != 0xffff {
            return None;
        }
        let end = ETHERNET_HEADER + usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        self.follow_tcp(packet.get(BEHIND_V4..end)?, was.get(BEHIND_V4..)?, offset + BEHIND_V4 as u16)
    }

    #[inline]
    fn follow_v6(&self, packet: &[u8], offset: u16) -> Option<Following> {
        let (head, was) = (packet.first_chunk::<UPPER_V6>()?, self.bytes.first_chunk::<UPPER_V6>()?);
        // Left out: the payload's length.
        let apart = (word::<16>(head, 0)? ^ word::<16>(was, 0)?)
            | (word::<2>(head, 16)? ^ word::<2>(was, 16)?)
            | (word::<16>(head, 20)? ^ word::<16>(was, 20)?)
            | (word::<16>(head, 36)? ^ word::<16>(was, 36)?)
            | (word::<2>(head, 52)? ^ word::<2>(was, 52)?)
            | (word::<4>(head, BEHIND_V6)? ^ word::<4>(was, BEHIND_V6)?);
        if apart != 0 {
            return None;
        }
        let len = head.get(18..20)?.first_chunk::<2>().map(|&len| usize::from(u16::from_be_bytes(len)))?;
        self.follow_tcp(packet.get(BEHIND_V6..BEHIND_V6 + len)?, was.get(BEHIND_V6..)?, offset + BEHIND_V6 as u16)
    }

    /// `was` is the TCP header of the train's first packet.
    #[inline]
    fn follow_tcp(&self, l4: &[u8], was: &[u8], offset: u16) -> Option<Following> {
        let (header, behind) = l4.split_first_chunk::<TCP_HEADER>()?;
        let &[_, _, _, _, q0, q1, q2, q3, a0, a1, a2, a3, data_offset, flags, w0, w1, _, _, _, _] = header;
        let (options, payload) = behind.split_at_checked(self.header_len - TCP_HEADER)?;
        let (clocks, upper) = options.split_first_chunk::<TIMESTAMPS>()?;
        let flags = TcpFlags::from_bits_retain(flags);
        let layout = was.get(12).copied() == Some(data_offset)
            && flags.difference(TcpFlags::PSH) == TcpFlags::ACK
            && was.get(TCP_HEADER..TCP_HEADER + 4)? == clocks.get(..4)?;
        if !layout {
            return None;
        }
        if let Some(lead) = upper.first_chunk::<4>() {
            // Kind, length, subtype and what stands beside it; the rest is for the layer above to read.
            let kept = self.option_head()?;
            let padding = upper.get(self.option_len..)?;
            if lead != kept || padding.iter().any(|&byte| byte != kind::NOP) {
                return None;
            }
        }
        let (words, _) = upper.as_chunks::<4>();
        let upper_sum = words.iter().fold(0, |sum, &word| sum + u64::from(u32::from_ne_bytes(word)));
        let payload_sum = checksum::sum(payload);
        let length = u16::from(protocol::TCP) + l4.len() as u16;
        // As in `parse_expected`.
        let native = u64::from(payload_sum.to_be()) + u64::from(length.to_be());
        if fold(self.addresses + native_words(header) + native_words(clocks) + upper_sum + native) != 0xffff {
            return None;
        }
        let mut raw = OptionBytes::new();
        match behind.first_chunk::<MAX_OPTION_BYTES>() {
            Some(most) => {
                raw = OptionBytes::from(*most);
                raw.truncate(options.len());
            }
            None => raw.try_extend_from_slice(options).ok()?,
        }
        Some(Following {
            seq: SeqNum(u32::from_be_bytes([q0, q1, q2, q3])),
            ack: SeqNum(u32::from_be_bytes([a0, a1, a2, a3])),
            flags,
            window: u16::from_be_bytes([w0, w1]),
            timestamps: timestamps_of(clocks.last_chunk()?),
            raw,
            payload_offset: offset + self.header_len as u16,
            payload_len: payload.len() as u16,
            payload_sum,
        })
    }

    /// Kind, length and subtype of the option behind the timestamps.
    #[inline]
    fn option_head(&self) -> Option<&[u8; 4]> {
        let at = if is_v4(&self.bytes) { UPPER_V4 } else { UPPER_V6 };
        self.bytes.get(at..)?.first_chunk()
    }
}

#[inline]
fn is_v4(bytes: &[u8; KEPT]) -> bool {
    let [high, low] = ethertype::IPV4.to_be_bytes();
    bytes[12] == high && bytes[13] == low
}

/// `N` bytes at `at` as a number whose value means nothing.
#[inline]
fn word<const N: usize>(bytes: &[u8], at: usize) -> Option<u128> {
    const { assert!(N <= 16) };
    let piece = bytes.get(at..)?.first_chunk::<N>()?;
    let mut all = [0; 16];
    all.first_chunk_mut::<N>()?.copy_from_slice(piece);
    Some(u128::from_ne_bytes(all))
}
