//! The bytes of one direction: a pattern that tells every position apart, and what a script wrote literally.

use std::collections::BTreeMap;

/// What one side sends.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    salt: u8,
    literal: BTreeMap<u64, u8>,
    /// Bytes that the application has written or read so far.
    pub(super) position: u64,
}

impl Stream {
    /// A stream whose pattern differs from that of another salt.
    pub(super) fn new(salt: u8) -> Self {
        Self { salt, ..Self::default() }
    }

    fn byte(&self, at: u64) -> u8 {
        let pattern = (at.wrapping_mul(37) ^ (at >> 8).wrapping_mul(11)) as u8 ^ self.salt;
        self.literal.get(&at).copied().unwrap_or(pattern)
    }

    /// `len` bytes from `at` on.
    pub(super) fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        (0..len as u64).map(|index| self.byte(at.wrapping_add(index))).collect()
    }

    /// The next bytes.
    pub(super) fn advance(&mut self, len: usize) -> Vec<u8> {
        let bytes = self.bytes(self.position, len);
        self.position += len as u64;
        bytes
    }

    /// From now on these bytes stand at `at`; the first that were put there stay.
    pub(super) fn put(&mut self, at: u64, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            self.literal.entry(at.wrapping_add(index as u64)).or_insert(*byte);
        }
    }
}
