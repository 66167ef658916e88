//! The bytes that a connection carries: a function of a key and the position, so that nobody has to keep them.

use super::draw::mix;

/// Writes the bytes of stream `key` that start at `position`.
pub(crate) fn fill(key: u64, position: u64, out: &mut [u8]) {
    let mut at = position;
    let mut rest = out;
    while !rest.is_empty() {
        let word = word(key, at / 8).to_le_bytes();
        let skip = (at % 8) as usize;
        let take = (8 - skip).min(rest.len());
        let (head, tail) = rest.split_at_mut(take);
        head.copy_from_slice(&word[skip..skip + take]);
        rest = tail;
        at += take as u64;
    }
}

/// The position of the first byte that differs from stream `key` at `position`, if any does.
pub(crate) fn first_difference(key: u64, position: u64, bytes: &[u8]) -> Option<u64> {
    let mut at = position;
    let mut rest = bytes;
    while !rest.is_empty() {
        let word = word(key, at / 8).to_le_bytes();
        let skip = (at % 8) as usize;
        let take = (8 - skip).min(rest.len());
        let (head, tail) = rest.split_at(take);
        if let Some(index) = head.iter().zip(&word[skip..]).position(|(got, want)| got != want) {
            return Some(at + index as u64);
        }
        rest = tail;
        at += take as u64;
    }
    None
}

#[inline]
fn word(key: u64, index: u64) -> u64 {
    mix(key.wrapping_add(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let mut whole = [0u8; 100];
        fill(7, 3, &mut whole);
        let mut parts = [0u8; 100];
        fill(7, 3, &mut parts[..11]);
        fill(7, 14, &mut parts[11..50]);
        fill(7, 53, &mut parts[50..]);
        assert_eq!(whole, parts);
        assert_eq!(first_difference(7, 3, &whole), None);
    }

    #[test]
    fn the_first_wrong_byte_is_named() {
        let mut bytes = [0u8; 64];
        fill(9, 100, &mut bytes);
        bytes[21] ^= 1;
        assert_eq!(first_difference(9, 100, &bytes), Some(121));
    }
}
