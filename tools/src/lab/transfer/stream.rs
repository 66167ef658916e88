//! A stream of bytes that its seed and a position determine: fast enough that making it never limits a transfer, and
//! a receiver can say where the first wrong byte is.

use sha2::{Digest, Sha256};

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Word `index` of a seed's stream: a counter through a strong mixer, so that any position can be had at once.
fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A position in a seed's stream.
#[derive(Clone, Debug)]
pub struct Stream {
    seed: u64,
    position: u64,
}

impl Stream {
    /// The beginning of a seed's stream.
    pub fn new(seed: u64) -> Self {
        Self { seed, position: 0 }
    }

    /// Fills a buffer with what comes next.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        let mut index = self.position / 8;
        let skip = (self.position % 8) as usize;
        self.position += buffer.len() as u64;
        let mut rest = buffer;
        if skip > 0 {
            let bytes = word(self.seed, index).to_le_bytes();
            let take = rest.len().min(8 - skip);
            let (head, tail) = rest.split_at_mut(take);
            head.copy_from_slice(&bytes[skip..skip + take]);
            rest = tail;
            index += 1;
        }
        let mut words = rest.chunks_exact_mut(8);
        for chunk in &mut words {
            chunk.copy_from_slice(&word(self.seed, index).to_le_bytes());
            index += 1;
        }
        let last = words.into_remainder();
        let bytes = word(self.seed, index).to_le_bytes();
        last.copy_from_slice(&bytes[..last.len()]);
    }
}

/// Compares what arrives with what a seed's stream says, and sums it.
#[derive(Debug)]
pub(super) struct Checker {
    stream: Stream,
    hash: Sha256,
    expected: Vec<u8>,
    received: u64,
    first_difference: Option<u64>,
}

impl Checker {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            stream: Stream::new(seed),
            hash: Sha256::new(),
            expected: Vec::new(),
            received: 0,
            first_difference: None,
        }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.expected.resize(bytes.len(), 0);
        self.stream.fill(&mut self.expected);
        if self.first_difference.is_none() && self.expected != bytes {
            let at = self.expected.iter().zip(bytes).position(|(wanted, got)| wanted != got);
            self.first_difference = at.map(|at| self.received + at as u64);
        }
        self.received += bytes.len() as u64;
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn first_difference(&self) -> Option<u64> {
        self.first_difference
    }

    pub(super) fn digest(self) -> [u8; 32] {
        self.hash.finalize().into()
    }
}

/// SHA-256 of the first bytes of a seed's stream, in hexadecimal.
pub fn digest(seed: u64, bytes: u64) -> String {
    let mut stream = Stream::new(seed);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut left = bytes;
    while left > 0 {
        let take = left.min(buffer.len() as u64) as usize;
        stream.fill(&mut buffer[..take]);
        hash.update(&buffer[..take]);
        left -= take as u64;
    }
    hex(&hash.finalize().into())
}

/// Whether these bytes are the beginning of a seed's stream.
pub fn is_stream(seed: u64, bytes: &[u8]) -> bool {
    let mut checker = Checker::new(seed);
    for chunk in bytes.chunks(64 * 1024) {
        checker.take(chunk);
    }
    checker.first_difference().is_none()
}

pub(super) fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
