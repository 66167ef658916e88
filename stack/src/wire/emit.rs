//! Headers built in front of a payload, in its own frame, from a cached template and the payload's cached sum.

use std::net::IpAddr;

use super::{FlowKey, LinkHeader, MacAddr, Outgoing, PayloadOut, ethertype, protocol};
use crate::checksum::{self, fold};
use crate::counters::{Counter, Counters};
use crate::frame::{FrameId, FramePool};
use crate::limits::{ETHERNET_HEADER, IPV4_HEADER, IPV6_HEADER, PAYLOAD_OFFSET, TCP_HEADER, VLAN_TAG};
use crate::options::Budget;

/// The IP header of a connection with its changing fields left zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IpTemplate {
    V4([u8; IPV4_HEADER]),
    V6([u8; IPV6_HEADER]),
}

/// What the headers of one connection have in common, with the sums of those parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderTemplate {
    /// Source and destination port as they stand in the header.
    ports: [u8; 4],
    /// Sum of addresses, protocol and ports: TCP's check without length, numbers, options and payload.
    pub(super) tcp_sum: u16,
    /// Sum of the IPv4 header without length, identification and ECN.
    pub(super) ip_sum: u16,
    pub(super) ip: IpTemplate,
}

const _: () = assert!(size_of::<HeaderTemplate>() <= 96);

impl HeaderTemplate {
    /// The template of a flow's packets from `flow.local` to `flow.remote`.
    pub fn new(flow: &FlowKey, ttl: u8) -> Self {
        let [s0, s1] = flow.local_port.to_be_bytes();
        let [d0, d1] = flow.remote_port.to_be_bytes();
        let ports = [s0, s1, d0, d1];
        let pseudo = checksum::pseudo_header(flow.local, flow.remote, protocol::TCP, 0);
        let tcp_sum = fold(u64::from(pseudo) + u64::from(u32::from_be_bytes(ports)));
        Self { ports, tcp_sum, ..Self::without_tcp(ip_template(flow.local, flow.remote, protocol::TCP, ttl)) }
    }

    /// The template of packets of another protocol.
    pub(super) fn without_tcp(ip: IpTemplate) -> Self {
        let ip_sum = match &ip {
            IpTemplate::V4(header) => fold(checksum::array_words(header)),
            IpTemplate::V6(_) => 0,
        };
        Self { ports: [0; 4], tcp_sum: 0, ip_sum, ip }
    }

    /// Bytes of the IP header.
    #[inline]
    pub const fn ip_header_len(&self) -> usize {
        match self.ip {
            IpTemplate::V4(_) => IPV4_HEADER,
            IpTemplate::V6(_) => IPV6_HEADER,
        }
    }
}

/// An IP header with length, identification, ECN and checksum left zero. Don't Fragment is set (RFC 1191 §3).
pub(super) fn ip_template(src: IpAddr, dst: IpAddr, protocol: u8, ttl: u8) -> IpTemplate {
    if let (IpAddr::V4(src), IpAddr::V4(dst)) = (src, dst) {
        let [s0, s1, s2, s3] = src.octets();
        let [d0, d1, d2, d3] = dst.octets();
        IpTemplate::V4([0x45, 0, 0, 0, 0, 0, 0x40, 0, ttl, protocol, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3])
    } else {
        let mut header = [0; IPV6_HEADER];
        header[0] = 0x60;
        header[6] = protocol;
        header[7] = ttl;
        header[8..24].copy_from_slice(&v6_octets(src));
        header[24..40].copy_from_slice(&v6_octets(dst));
        IpTemplate::V6(header)
    }
}

fn v6_octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Builds the packet of `out`: the frame, where its Ethernet header starts, and the packet's length.
///
/// With payload the headers are written right in front of it, in its own frame; where there is no room, or a TX ring
/// still reads the frame, or the bytes there are payload of another right, the payload is copied to a new frame. `None`
/// when that or a frame for a packet without payload is not to be had: `out`'s frame is released then.
/// The caller marks the frame with [`FramePool::tx_begin`] when it queues it.
pub fn emit_tcp(
    pool: &mut FramePool,
    link: &LinkHeader,
    template: &HeaderTemplate,
    mut out: Outgoing,
    ip_id: u16,
    counters: &mut Counters,
) -> Option<(FrameId, u16, u16)> {
    emit_tcp_from(pool, link, template, &mut out, ip_id, counters)
}

/// [`emit_tcp`] of a segment that stays where it is: its payload is taken out of it.
pub fn emit_tcp_from(
    pool: &mut FramePool,
    link: &LinkHeader,
    template: &HeaderTemplate,
    out: &mut Outgoing,
    ip_id: u16,
    counters: &mut Counters,
) -> Option<(FrameId, u16, u16)> {
    let options = Budget::fill(out);
    let tcp_len = TCP_HEADER + options.as_slice().len();
    let headers = link.emitted_len() + template.ip_header_len() + tcp_len;
    let (payload_len, payload_sum) = out.payload.as_ref().map_or((0, 0), |payload| (payload.len, payload.sum));
    let place = match out.payload.take() {
        Some(payload) => place_before(pool, payload, headers, counters),
        None => pool.alloc_control().map(|frame| (frame, PAYLOAD_OFFSET)),
    };
    let Some((frame, payload_offset)) = place else {
        counters.inc(Counter::TxNoFrame);
        return None;
    };
    let start = payload_offset - headers;
    let segment_len = tcp_len + usize::from(payload_len);
    let header = Header {
        seq: out.seq.0,
        ack: out.ack.0,
        word: (tcp_len as u32) << 26 | u32::from(out.flags.bits()) << 16 | u32::from(out.window),
        ecn: out.ecn as u8,
        segment_len,
        payload_sum,
        ip_id,
    };
    let written = pool
        .bytes_mut(&frame)
        .get_mut(start..payload_offset)
        .and_then(|bytes| write_link(bytes, link, template.ethertype()))
        .and_then(|bytes| write_ip(bytes, template, &header))
        .and_then(|bytes| write_tcp(bytes, template, &header, &options));
    if written.is_none() {
        debug_assert!(false, "headers of {headers} bytes do not fit at {start}");
        pool.release(frame);
        return None;
    }
    Some((frame, start as u16, (headers + usize::from(payload_len)) as u16))
}

/// The changing fields of one packet.
#[derive(Default)]
pub(super) struct Header {
    pub(super) seq: u32,
    pub(super) ack: u32,
    /// Data offset, flags and window.
    pub(super) word: u32,
    pub(super) ecn: u8,
    /// Bytes behind the IP header.
    pub(super) segment_len: usize,
    pub(super) payload_sum: u16,
    pub(super) ip_id: u16,
}

impl HeaderTemplate {
    #[inline]
    pub(super) const fn ethertype(&self) -> u16 {
        match self.ip {
            IpTemplate::V4(_) => ethertype::IPV4,
            IpTemplate::V6(_) => ethertype::IPV6,
        }
    }
}

/// The frame to send and where the payload starts in it, with `headers` free bytes before.
#[inline]
pub(super) fn place_before(
    pool: &mut FramePool,
    payload: PayloadOut,
    headers: usize,
    counters: &mut Counters,
) -> Option<(FrameId, usize)> {
    let PayloadOut { frame, offset, .. } = &payload;
    let in_place = usize::from(*offset) >= headers && !pool.tx_pending(frame) && pool.claim_headroom(frame, *offset);
    if in_place {
        Some((payload.frame, usize::from(payload.offset)))
    } else {
        copy_out(pool, payload, headers, counters)
    }
}

#[cold]
fn copy_out(
    pool: &mut FramePool,
    payload: PayloadOut,
    headers: usize,
    counters: &mut Counters,
) -> Option<(FrameId, usize)> {
    let PayloadOut { frame, offset, len, .. } = payload;
    let (offset, len, size) = (usize::from(offset), usize::from(len), pool.frame_size() as usize);
    let target = if PAYLOAD_OFFSET + len <= size { PAYLOAD_OFFSET } else { headers };
    let copy = if offset + len <= size && target + len <= size { pool.alloc() } else { None };
    let placed = copy.map(|copy| {
        counters.inc(Counter::TxCopies);
        pool.copy(&frame, offset, &copy, target, len);
        let _ = pool.claim_headroom(&copy, target as u16);
        (copy, target)
    });
    pool.release(frame);
    placed
}

/// Writes the Ethernet header and its tag, and gives what is left.
#[inline]
pub(super) fn write_link<'a>(bytes: &'a mut [u8], link: &LinkHeader, ethertype: u16) -> Option<&'a mut [u8]> {
    let (header, mut rest) = bytes.split_first_chunk_mut::<ETHERNET_HEADER>()?;
    let MacAddr([d0, d1, d2, d3, d4, d5]) = link.dst;
    let MacAddr([s0, s1, s2, s3, s4, s5]) = link.src;
    let [high, low] = (if link.vlan.is_some() { ethertype::VLAN } else { ethertype }).to_be_bytes();
    *header = [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, high, low];
    if let Some(vlan) = link.vlan {
        let (tag, behind) = rest.split_first_chunk_mut::<VLAN_TAG>()?;
        let [id_high, id_low] = (vlan & 0x0fff).to_be_bytes();
        let [high, low] = ethertype.to_be_bytes();
        *tag = [id_high, id_low, high, low];
        rest = behind;
    }
    Some(rest)
}

#[inline]
pub(super) fn write_ip<'a>(bytes: &'a mut [u8], template: &HeaderTemplate, header: &Header) -> Option<&'a mut [u8]> {
    match &template.ip {
        IpTemplate::V4(image) => {
            let (ip, rest) = bytes.split_first_chunk_mut::<IPV4_HEADER>()?;
            *ip = *image;
            let total_len = (IPV4_HEADER + header.segment_len) as u16;
            let sum =
                u64::from(template.ip_sum) + u64::from(header.ecn) + u64::from(total_len) + u64::from(header.ip_id);
            ip[1] = header.ecn;
            [ip[2], ip[3]] = total_len.to_be_bytes();
            [ip[4], ip[5]] = header.ip_id.to_be_bytes();
            [ip[10], ip[11]] = (!fold(sum)).to_be_bytes();
            Some(rest)
        }
        IpTemplate::V6(image) => {
            let (ip, rest) = bytes.split_first_chunk_mut::<IPV6_HEADER>()?;
            *ip = *image;
            ip[1] = header.ecn << 4;
            [ip[4], ip[5]] = (header.segment_len as u16).to_be_bytes();
            Some(rest)
        }
    }
}

#[inline]
pub(super) fn write_tcp<'a>(
    bytes: &'a mut [u8],
    template: &HeaderTemplate,
    header: &Header,
    options: &Budget,
) -> Option<&'a mut [u8]> {
    let (tcp, rest) = bytes.split_first_chunk_mut::<TCP_HEADER>()?;
    let sum = u64::from(template.tcp_sum)
        + header.segment_len as u64
        + u64::from(header.seq)
        + u64::from(header.ack)
        + u64::from(header.word)
        + u64::from(header.payload_sum)
        + options.sum();
    let behind = options.copy_to(rest)?;
    let [s0, s1, d0, d1] = template.ports;
    let [q0, q1, q2, q3] = header.seq.to_be_bytes();
    let [a0, a1, a2, a3] = header.ack.to_be_bytes();
    let [offset, flags, w0, w1] = header.word.to_be_bytes();
    let [c0, c1] = (!fold(sum)).to_be_bytes();
    *tcp = [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, w0, w1, c0, c1, 0, 0];
    Some(behind)
}
