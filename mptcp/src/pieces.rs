//! Cutting received payload: trimming and splitting descriptors, their sums kept right.

use mimbox_stack::{FramePool, RxSegment, TxSegment, checksum};

/// Sum of the first `len` bytes of the payload at `offset` of `frame`'s bytes.
fn head_sum(bytes: &[u8], offset: u16, len: u16) -> u16 {
    let start = usize::from(offset);
    checksum::sum(bytes.get(start..start + usize::from(len)).unwrap_or(&[]))
}

/// Sum of what follows a head of `head_len` bytes, from the sums of the whole and of the head.
fn tail_sum(total: u16, head: u16, head_len: u16) -> u16 {
    checksum::swap_if_odd(checksum::sub(total, head), usize::from(head_len))
}

/// Takes the first `n` bytes off; `n` is less than the segment's length.
pub(crate) fn trim_front(segment: &mut RxSegment, n: u16, pool: &FramePool) {
    debug_assert!(n < segment.len);
    let head = head_sum(pool.bytes(&segment.frame), segment.offset, n);
    segment.sum = tail_sum(segment.sum, head, n);
    segment.seq += u32::from(n);
    segment.dsn = segment.dsn.wrapping_add(u64::from(n));
    segment.offset += n;
    segment.len -= n;
}

/// Keeps the first `n` bytes only; `n` is neither zero nor more than the segment's length.
pub(crate) fn keep_front(segment: &mut RxSegment, n: u16, pool: &FramePool) {
    debug_assert!(n > 0 && n <= segment.len);
    segment.sum = head_sum(pool.bytes(&segment.frame), segment.offset, n);
    segment.len = n;
}

/// Cuts the first `n` bytes off as a segment of their own; `n` is neither zero nor the segment's length.
pub(crate) fn split_front(segment: &mut RxSegment, n: u16, pool: &mut FramePool) -> RxSegment {
    let head = RxSegment {
        dsn: segment.dsn,
        frame: pool.share_tail(&segment.frame, segment.offset),
        seq: segment.seq,
        offset: segment.offset,
        len: n,
        sum: head_sum(pool.bytes(&segment.frame), segment.offset, n),
        tag: segment.tag,
    };
    trim_front(segment, n, pool);
    head
}

/// Cuts the first `n` bytes of payload to be sent off as a segment of their own, with the same flags.
pub(crate) fn split_tx_front(segment: &mut TxSegment, n: u16, pool: &mut FramePool) -> TxSegment {
    debug_assert!(n > 0 && n < segment.len);
    let head = TxSegment {
        dsn: segment.dsn,
        frame: pool.share_tail(&segment.frame, segment.offset),
        seq: segment.seq,
        sent_us: segment.sent_us,
        offset: segment.offset,
        len: n,
        sum: head_sum(pool.bytes(&segment.frame), segment.offset, n),
        flags: segment.flags,
        retransmits: segment.retransmits,
    };
    segment.sum = tail_sum(segment.sum, head.sum, n);
    segment.dsn = segment.dsn.wrapping_add(u64::from(n));
    segment.offset += n;
    segment.len -= n;
    head
}

#[cfg(test)]
mod tests;
