//! Drawing options and chances from the seeded generator, in integers only so that every machine draws the same.

use mimbox_stack::{Duration, Rng};

/// Chances are given in parts per million.
pub(crate) const MILLION: u32 = 1_000_000;

/// A generator of its own for one part of the world: what one part draws never shifts what another draws.
pub(crate) fn stream(seed: u64, part: u64) -> Rng {
    Rng::from_u64(mix(seed ^ mix(part)))
}

/// A bijection that spreads every input bit over the whole word.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// True `ppm` times in a million.
pub(crate) fn chance(rng: &mut Rng, ppm: u32) -> bool {
    ppm > 0 && rng.below(u64::from(MILLION)) < u64::from(ppm)
}

/// A number in `low..=high`.
pub(crate) fn between(rng: &mut Rng, low: u64, high: u64) -> u64 {
    low + rng.below(high.saturating_sub(low) + 1)
}

/// A number in `low..=high`, every power of two being as likely as any other.
pub(crate) fn log_between(rng: &mut Rng, low: u64, high: u64) -> u64 {
    let low = low.max(1);
    let first = u64::from(low.ilog2());
    let last = u64::from(high.max(low).ilog2());
    let power = between(rng, first, last);
    let bottom = (1u64 << power).max(low);
    let top = ((1u64 << power) * 2 - 1).min(high.max(low));
    between(rng, bottom, top)
}

/// A span in `low..=high` microseconds, log-uniform.
pub(crate) fn log_micros(rng: &mut Rng, low: u64, high: u64) -> Duration {
    Duration::from_micros(log_between(rng, low, high))
}

/// One of `choices`.
pub(crate) fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.below(choices.len() as u64) as usize]
}
