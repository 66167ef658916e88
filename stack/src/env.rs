//! What every verb is handed beside its own state.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::counters::Counters;
use crate::frame::FramePool;
use crate::ring::RingPool;
use crate::segment::{RxSegment, TxSegment};

/// The shard's generator: the same seed gives the same keys, nonces and sequence numbers.
#[derive(Debug, Clone)]
pub struct Rng(ChaCha12Rng);

impl Rng {
    /// A generator from a full seed; the data plane draws it from the operating system, tests choose it.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha12Rng::from_seed(seed))
    }
    /// A generator from a short seed, for simulation.
    pub fn from_u64(seed: u64) -> Self {
        Self(ChaCha12Rng::seed_from_u64(seed))
    }
    /// 32 uniform bits.
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }
    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
    /// A number in `0..bound`; zero when `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

/// What a shard lends to the verbs of its machines.
#[derive(Debug)]
pub struct Env<'a> {
    /// The frames.
    pub pool: &'a mut FramePool,
    /// Storage of receive queues.
    pub rx_rings: &'a mut RingPool<RxSegment>,
    /// Storage of send rings.
    pub tx_rings: &'a mut RingPool<TxSegment>,
    /// The shard's counters.
    pub counters: &'a mut Counters,
    /// The shard's generator.
    pub rng: &'a mut Rng,
}
