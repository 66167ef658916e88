//! Ones'-complement sums of the Internet protocols (RFC 1071), kept so that a payload is summed once.
//!
//! A *sum* here is folded to 16 bits, **not** inverted, in big-endian word order, and computed as if the bytes began at
//! an even offset. A *check* is what stands in a header: the inverted sum.

use std::net::IpAddr;

use crate::mem;

/// The sum of `bytes`. An odd last byte counts as the high half of a word.
#[inline]
pub fn sum(bytes: &[u8]) -> u16 {
    mem::sum(bytes)
}

/// The sum of `bytes` without SIMD: what [`sum`] falls back to, and what its tests compare it with.
pub fn sum_portable(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut total = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum::<u64>();
    let (pairs, last) = rest.as_chunks::<2>();
    for pair in pairs {
        total += u64::from(u16::from_be_bytes(*pair));
    }
    if let [byte] = last {
        total += u64::from(*byte) << 8;
    }
    fold(total)
}

/// Unfolded sum of at most ten 32-bit words, the options of a segment. Three words are the rule: timestamps. In the loop
/// carries go round at once, which keeps the compiler from making a vector loop of it with a long way in and out.
#[inline]
pub(crate) fn option_words(words: &[[u8; 4]]) -> u64 {
    if let [a, b, c] = words {
        return [a, b, c].into_iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
    }
    let (pairs, last) = words.as_chunks::<2>();
    let mut total = 0u64;
    for &[[a, b, c, d], [e, f, g, h]] in pairs {
        let (sum, carry) = total.overflowing_add(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
        total = sum + u64::from(carry);
    }
    let total = (total >> 32) + (total & 0xffff_ffff);
    total + last.first().map_or(0, |word| u64::from(u32::from_be_bytes(*word)))
}

/// Folds an accumulator of big-endian 16- and 32-bit words to 16 bits: 2^16 counts as 1.
#[inline]
pub const fn fold(total: u64) -> u16 {
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    total as u16
}

/// Adds two sums with end-around carry.
#[inline]
pub const fn add(a: u16, b: u16) -> u16 {
    let (total, carry) = a.overflowing_add(b);
    total + carry as u16
}

/// Subtracts a sum that is part of another: `sub(add(a, b), b)` is `a`, give or take the two forms of zero.
#[inline]
pub const fn sub(total: u16, part: u16) -> u16 {
    add(total, !part)
}

/// The sum of a run that starts at `offset` of the whole, from its own sum: a run at an odd offset has its bytes in the
/// other halves of their words.
#[inline]
pub const fn swap_if_odd(sum: u16, offset: usize) -> u16 {
    // RFC 1071 §2 (B): swapping the bytes of the data swaps the bytes of the sum.
    if offset & 1 == 1 { sum.swap_bytes() } else { sum }
}

/// The check after one of the words that it covers changed from `old` to `new`.
#[inline]
pub const fn update(check: u16, old: u16, new: u16) -> u16 {
    // RFC 1624 §3, equation 3: HC' = ~(~HC + ~m + m').
    !add(add(!check, !old), new)
}

/// Sum of the pseudo header that TCP and ICMPv6 checks cover (RFC 9293 §3.1, RFC 8200 §8.1).
pub fn pseudo_header(src: IpAddr, dst: IpAddr, proto: u8, len: u32) -> u16 {
    fold(address_words(src) + address_words(dst) + u64::from(proto) + u64::from(len))
}

/// Unfolded sum of an address, for an accumulator that is folded later.
#[inline]
pub(crate) fn address_words(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => array_words(&v6.octets()),
    }
}

/// Unfolded sum of an array whose length is a multiple of four.
#[inline]
pub(crate) fn array_words<const N: usize>(bytes: &[u8; N]) -> u64 {
    const { assert!(N.is_multiple_of(4)) };
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum()
}

#[cfg(test)]
mod tests;
