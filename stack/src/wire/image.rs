//! Headers of a packet train: each segment's are those of the one before, with other numbers.
//!
//! A connection that sends several segments at once sends the same headers several times, but for lengths, sequence number,
//! checks and the mapping of the payload. [`HeaderImage`] keeps what the first of them was sent with.

use super::emit::{IpTemplate, place_before};
use super::expected::TIMESTAMPS;
use super::{HeaderTemplate, Outgoing, TcpFlags};
use crate::checksum::fold;
use crate::counters::{Counter, Counters};
use crate::frame::{FrameId, FramePool};
use crate::limits::{ETHERNET_HEADER, IPV4_HEADER, IPV6_HEADER, TCP_HEADER};
use crate::options::{MAX_OPTION_BYTES, kind};

/// Bytes kept: the longest headers of untagged Ethernet, IPv6 and TCP.
const KEPT: usize = ETHERNET_HEADER + IPV6_HEADER + TCP_HEADER + MAX_OPTION_BYTES;
/// The shortest headers that are worth an image, and what is copied at once: two such pieces make up any longer ones.
const PIECE: usize = 64;
const _: () = assert!(KEPT <= 2 * PIECE);

/// The headers of the data segment that a connection sent last.
#[derive(Clone, Debug)]
pub struct HeaderImage {
    bytes: [u8; KEPT],
    /// Length of all headers; zero when there are none.
    len: usize,
    /// Bytes of the IP header.
    ip: usize,
    /// Bytes of the options of the layer above, which stand last, with their padding.
    upper: usize,
    /// Unfolded sum of acknowledgment number, data offset, flags but PSH, window and timestamps.
    sum: u64,
}

impl Default for HeaderImage {
    fn default() -> Self {
        Self { bytes: [0; KEPT], len: 0, ip: 0, upper: 0, sum: 0 }
    }
}

impl HeaderImage {
    /// Keeps the headers of the data segment that was built of `out` and stands at `start` of `frame`. False when they are
    /// of a kind that is not kept: behind a VLAN tag, too short, or of a SYN, a reset or a segment with SACK blocks.
    #[inline]
    pub fn keep(
        &mut self,
        pool: &FramePool,
        frame: &FrameId,
        start: u16,
        out: &Outgoing,
        template: &HeaderTemplate,
    ) -> bool {
        self.len = 0;
        let plain = out.flags.difference(TcpFlags::PSH) == TcpFlags::ACK && out.syn.is_none() && out.sack.is_empty();
        if !plain || out.timestamps.is_none() {
            return false;
        }
        let upper = out.upper.len().next_multiple_of(4);
        let ip = template.ip_header_len();
        let len = ETHERNET_HEADER + ip + TCP_HEADER + TIMESTAMPS + upper;
        let start = usize::from(start);
        let Some(bytes) = pool.bytes(frame).get(start..).and_then(|bytes| bytes.first_chunk::<KEPT>()) else {
            return false;
        };
        let kept = bytes.get(ETHERNET_HEADER - 2..ETHERNET_HEADER) == Some(&template.ethertype().to_be_bytes()[..]);
        if !kept || !(PIECE..=KEPT).contains(&len) {
            return false;
        }
        self.bytes = *bytes;
        (self.len, self.ip, self.upper) = (len, ip, upper);
        let word = (len - ETHERNET_HEADER - ip) as u32;
        let word = word << 26 | u32::from(TcpFlags::ACK.bits()) << 16 | u32::from(out.window);
        self.sum = u64::from(out.ack.0) + u64::from(word);
        if let Some(timestamps) = out.timestamps {
            // NOP, NOP, kind and length: RFC 7323 appendix A.
            let lead = u32::from_be_bytes([kind::NOP, kind::NOP, kind::TIMESTAMPS, 10]);
            self.sum += u64::from(lead) + u64::from(timestamps.value) + u64::from(timestamps.echo);
        }
        true
    }

    /// Builds the packet of the train's next segment: `out` differs from the segment whose headers are kept in sequence
    /// number, PSH, payload and the bytes of `upper` only. What it gives is what [`super::emit_tcp_from`] does.
    #[inline]
    pub fn emit(
        &self,
        pool: &mut FramePool,
        template: &HeaderTemplate,
        out: &mut Outgoing,
        ip_id: u16,
        counters: &mut Counters,
    ) -> Option<(FrameId, u16, u16)> {
        let payload = out.payload.take()?;
        let (payload_len, payload_sum) = (payload.len, payload.sum);
        let Some((frame, payload_offset)) = place_before(pool, payload, self.len, counters) else {
            counters.inc(Counter::TxNoFrame);
            return None;
        };
        let start = payload_offset - self.len;
        let segment_len = self.len - ETHERNET_HEADER - self.ip + usize::from(payload_len);
        let push = out.flags.intersection(TcpFlags::PSH).bits();
        let sum = u64::from(template.tcp_sum)
            + self.sum
            + (u64::from(push) << 16)
            + segment_len as u64
            + u64::from(out.seq.0)
            + u64::from(payload_sum);
        let written = pool.bytes_mut(&frame).get_mut(start..payload_offset).and_then(|headers| {
            self.copy_to(headers)?;
            let (headers, upper) = headers.split_at_mut_checked(self.len - self.upper)?;
            let sum = sum + write_upper(upper, &out.upper)?;
            let ip = headers.get_mut(ETHERNET_HEADER..)?;
            let tcp = match template.ip {
                IpTemplate::V4(_) => {
                    let (ip, tcp) = ip.split_first_chunk_mut::<IPV4_HEADER>()?;
                    let total_len = (IPV4_HEADER + segment_len) as u16;
                    let ecn = out.ecn as u8;
                    let sum = u64::from(template.ip_sum) + u64::from(ecn) + u64::from(total_len) + u64::from(ip_id);
                    [ip[2], ip[3]] = total_len.to_be_bytes();
                    [ip[4], ip[5]] = ip_id.to_be_bytes();
                    [ip[10], ip[11]] = (!fold(sum)).to_be_bytes();
                    tcp
                }
                IpTemplate::V6(_) => {
                    let (ip, tcp) = ip.split_first_chunk_mut::<IPV6_HEADER>()?;
                    [ip[4], ip[5]] = (segment_len as u16).to_be_bytes();
                    tcp
                }
            };
            let tcp = tcp.first_chunk_mut::<TCP_HEADER>()?;
            [tcp[4], tcp[5], tcp[6], tcp[7]] = out.seq.0.to_be_bytes();
            tcp[13] = out.flags.bits();
            [tcp[16], tcp[17]] = (!fold(sum)).to_be_bytes();
            Some(())
        });
        if written.is_none() {
            debug_assert!(false, "headers of {} bytes do not fit at {start}", self.len);
            pool.release(frame);
            return None;
        }
        Some((frame, start as u16, (self.len + usize::from(payload_len)) as u16))
    }

    /// The kept headers, in two pieces of fixed size that overlap.
    #[inline]
    fn copy_to(&self, headers: &mut [u8]) -> Option<()> {
        let image = self.bytes.get(..self.len)?;
        *headers.first_chunk_mut::<PIECE>()? = *image.first_chunk::<PIECE>()?;
        *headers.last_chunk_mut::<PIECE>()? = *image.last_chunk::<PIECE>()?;
        Some(())
    }
}

/// Writes the options of the layer above and their padding; their unfolded sum.
#[inline]
fn write_upper(room: &mut [u8], upper: &[u8]) -> Option<u64> {
    if room.is_empty() {
        return upper.is_empty().then_some(0);
    }
    let (head, padding) = room.split_at_mut_checked(upper.len())?;
    match upper.len() {
        // A DSS with 32-bit numbers, and with a 64-bit one.
        20 => *head.first_chunk_mut::<20>()? = *upper.first_chunk()?,
        24 => *head.first_chunk_mut::<24>()? = *upper.first_chunk()?,
        _ => head.copy_from_slice(upper),
    }
    padding.fill(kind::NOP);
    let (words, _) = room.as_chunks::<4>();
    Some(words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum())
}
