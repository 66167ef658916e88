//! Backpressure: how much each direction of a conversion may hold, and so what the halves' windows say.
//!
//! A direction needs what one round trip of both its halves carries, three times so that slow start and repairs find room
//! (DESIGN: MSS, windows, memory). That is measured: every round trip what the receiver of the direction acknowledged is
//! set against the time that it took. More than that would only be a queue in the box.

use mimbox_stack::limits::COALESCE_FROM;
use mimbox_stack::tcp::ConnTable;
use mimbox_stack::{Duration, FramePool, Instant};

use crate::conversion::{Conversion, Side};

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

/// Shortest time that is measured: hosts answer in bursts, and what is faster is bounded by the floor.
const MIN_ROUND: Duration = Duration::from_millis(4);
/// A direction holds what so many round trips carry: one that is under way; one that was received behind a lost segment
/// and waits until that is mended; one more, for what is lost again meanwhile and for what the sender has yet to bring.
/// With two, goodput falls by a fifth at 200 ms and one loss in a thousand (`mimbox-lab goodput`).
const ROUND_TRIPS: u64 = 3;
/// Segments beyond that, for delayed acknowledgments and the tails of bursts.
const SLACK_FRAMES: u64 = 16;
/// What is granted beyond the target is taken back by this part each round trip.
const DECAY: u32 = 16;

/// What a direction takes for each frame of its window when its segments are small: they are put together until payload
/// fills a quarter of the frames, give or take what comes between two such efforts, and two frames more while they wait for
/// what is missing before them, on a subflow and at data level.
const FRAMES_PER_WINDOW_FRAME: u32 = 8;

impl WindowLimits {
    /// Frames that a conversion never holds more of, both directions together, whatever its peers send.
    pub(crate) fn most_frames(&self) -> u32 {
        2 * (self.ceiling_frames.saturating_mul(FRAMES_PER_WINDOW_FRAME).saturating_add(COALESCE_FROM))
    }

    /// Frames that one direction may hold while the pool is as it is now.
    fn limit(&self, granted: u32, pool: &FramePool) -> u32 {
        granted.min(pool.available() / SHARE_OF_FREE).clamp(self.floor_frames, self.ceiling_frames)
    }

    /// Bytes that a direction still takes of which `held` frames wait, given payload bytes that a frame stands for.
    fn space(&self, window: &Autotune, held: u32, frame_bytes: u32, pool: &FramePool) -> u32 {
        let bytes = self.limit(window.granted(), pool).saturating_mul(frame_bytes).max(window.least_bytes);
        bytes.saturating_sub(held.saturating_mul(frame_bytes))
    }
}

/// What one direction of a conversion is granted, by its measured rate and round-trip time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Autotune {
    /// When the round trip that is being measured began.
    began: Instant,
    /// How long it takes, in microseconds; zero until data moves.
    round_us: u32,
    /// What the receiver had acknowledged when it began, modulo 2^32.
    delivered: u32,
    /// What it acknowledged in the round trip before, in bytes.
    last: u32,
    /// Frames that the direction may hold; the floor of the configuration while less.
    granted: u32,
    /// Bytes that it may hold in any case: what the scale of the source's window can show, twice. Where segments are so small
    /// that the granted frames hold less, the window would stay closed for ever.
    least_bytes: u32,
    /// Frames that it held when its sender's window was last set.
    held: u32,
    /// It has carried payload since.
    carried: bool,
}

impl Autotune {
    /// A direction of which nothing is known yet.
    pub(crate) const fn new(now: Instant) -> Self {
        Self { began: now, round_us: 0, delivered: 0, last: 0, granted: 0, least_bytes: 0, held: 0, carried: true }
    }

    /// Frames that it may hold by what was measured.
    pub(crate) const fn granted(&self) -> u32 {
        self.granted
    }

    /// Payload has gone through: the sender's window is no longer what was set.
    #[inline]
    pub(crate) fn carry(&mut self) {
        self.carried = true;
    }

    /// True when a round trip has passed.
    #[inline]
    fn is_due(&self, now: Instant) -> bool {
        now.since(self.began) >= Duration::from_micros(u64::from(self.round_us))
    }

    /// A round trip has passed in which the receiver came to `delivered` bytes; the next one takes `rtt`.
    fn end_round(&mut self, now: Instant, delivered: u32, rtt: Duration, frame_bytes: u32) {
        let rtt = rtt.max(MIN_ROUND);
        let took = now.since(self.began).as_micros().max(1);
        let bytes = u64::from(delivered.wrapping_sub(self.delivered));
        if self.round_us > 0 && bytes > 0 {
            // A conversion that nothing happened to is looked at late.
            let carried = bytes * u64::from(self.round_us) / took.max(u64::from(self.round_us));
            self.follow(carried, frame_bytes);
        }
        self.began = now;
        self.delivered = delivered;
        self.round_us = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
    }

    /// The direction carried `carried` bytes in a round trip.
    fn follow(&mut self, carried: u64, frame_bytes: u32) {
        let last = u64::from(self.last).max(1);
        // A sender in slow start brings as much more in the next round trip as it did in this one.
        let growth = if self.last > 0 { carried.saturating_sub(last).min(last) * carried / last } else { 0 };
        let bytes = ROUND_TRIPS * (carried + growth);
        let target = (bytes / u64::from(frame_bytes.max(1)) + SLACK_FRAMES).min(u64::from(u32::MAX)) as u32;
        self.granted = self.granted.saturating_sub(self.granted.saturating_sub(target).div_ceil(DECAY)).max(target);
        self.last = u32::try_from(carried).unwrap_or(u32::MAX);
    }
}

/// Tells each half how much it may still accept: what its direction may hold, less what waits at either half. A direction
/// of which nothing has moved is left as it is, and so is the half that has nothing new to say for it.
///
/// The right edge that a half has shown its peer never moves left; the halves see to that themselves.
pub(crate) fn update(
    now: Instant,
    conversion: &mut Conversion,
    limits: &WindowLimits,
    conns: &mut ConnTable,
    pool: &FramePool,
) {
    let frame_bytes = u32::from(conversion.segment_bytes);
    for side in Side::BOTH {
        let held = conversion.half(side.other()).queued_frames(conns);
        let window = conversion.window_mut(side);
        let due = window.is_due(now);
        if !due && !window.carried && window.held == held {
            continue;
        }
        (window.held, window.carried) = (held, false);
        if due {
            let mut window = *window;
            let (source, sink) = (conversion.half(side), conversion.half(side.other()));
            let rtt = source.receiver_rtt(conns) + sink.srtt(conns);
            window.end_round(now, sink.delivered(conns), rtt, frame_bytes);
            window.least_bytes = 2 << source.receive_scale(conns);
            *conversion.window_mut(side) = window;
        }
        // Frames that wait out of order lie inside the window already shown, so they take nothing off what is left.
        let space = limits.space(conversion.window_mut(side), held, frame_bytes, pool);
        if conversion.half_mut(side).set_receive_space(space, conns) {
            conversion.stirred |= side.into();
        }
    }
}

#[cfg(test)]
mod tests;
