//! Moves segments from one half's receive side to the other half's send side, with backpressure.

use mimbox_stack::tcp::ConnTable;
use mimbox_stack::{Env, FramePool, RxQueue, TxSegment};

use crate::conversion::{Conversion, Side};
use crate::half::Half;

/// How many frames a direction of a conversion may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowLimits {
    /// Always granted, however short the pool is.
    pub floor_frames: u32,
    /// Never exceeded, however large the pool is.
    pub ceiling_frames: u32,
}

/// A direction may hold at most one frame in so many of those that are free: conversions that share a short pool then
/// find an equilibrium instead of emptying it.
const SHARE_OF_FREE: u32 = 4;

impl WindowLimits {
    /// Frames that one direction may hold while the pool is as it is now.
    fn limit(&self, pool: &FramePool) -> u32 {
        (pool.available() / SHARE_OF_FREE).clamp(self.floor_frames, self.ceiling_frames)
    }
}

/// Hands everything in `from` to `to`: frames change hands, no byte moves.
pub(crate) fn forward(from: &mut RxQueue, to: &mut Half, conns: &mut ConnTable, env: &mut Env<'_>) {
    while let Some(segment) = from.pop_front() {
        to.push(TxSegment::from_rx(segment), conns, env);
    }
}

/// Tells each half how much it may still accept: what its direction may hold, less what waits at either half.
///
/// The right edge that a half has shown its peer never moves left; the halves see to that themselves.
pub(crate) fn update_windows(
    conversion: &mut Conversion,
    limits: &WindowLimits,
    conns: &mut ConnTable,
    pool: &FramePool,
) {
    let limit = limits.limit(pool);
    for side in Side::BOTH {
        let held = conversion.half(side.other()).queued_frames(conns);
        // Frames that wait out of order lie inside the window already shown, so they take nothing off what is left.
        let space = limit.saturating_sub(held);
        let bytes = space.saturating_mul(u32::from(conversion.segment_bytes));
        conversion.half_mut(side).set_receive_space(bytes, conns);
    }
}
