//! What the link says of itself.

use std::fmt;

use mimbox_stack::Duration;
use serde::{Deserialize, Serialize};

/// How much later than they were due packets left.
#[derive(Clone, Debug)]
pub struct Lateness {
    /// Packets by lateness, in steps of [`STEP_NANOS`]; the last one has all that is beyond.
    counts: [u32; STEPS],
    packets: u64,
    max_nanos: u64,
}

/// Ten microseconds.
const STEP_NANOS: u64 = 10_000;
/// Up to ten milliseconds are told apart.
const STEPS: usize = 1001;

impl Default for Lateness {
    fn default() -> Self {
        Self { counts: [0; STEPS], packets: 0, max_nanos: 0 }
    }
}

impl Lateness {
    pub(super) fn note(&mut self, late: Duration) {
        let nanos = late.as_nanos();
        let step = usize::try_from(nanos / STEP_NANOS).unwrap_or(STEPS).min(STEPS - 1);
        self.counts[step] = self.counts[step].saturating_add(1);
        self.packets += 1;
        self.max_nanos = self.max_nanos.max(nanos);
    }

    /// Adds another's packets.
    pub fn add(&mut self, other: &Self) {
        let Self { counts, packets, max_nanos } = other;
        for (mine, theirs) in self.counts.iter_mut().zip(counts) {
            *mine = mine.saturating_add(*theirs);
        }
        self.packets += packets;
        self.max_nanos = self.max_nanos.max(*max_nanos);
    }

    /// The lateness, in milliseconds, that this share of the packets does not exceed.
    pub fn percentile_ms(&self, percent: u64) -> f64 {
        let wanted = (self.packets * percent).div_ceil(100);
        let mut seen = 0;
        for (step, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted && wanted > 0 {
                let nanos = (step as u64 + 1) * STEP_NANOS;
                return if step == STEPS - 1 { self.max_ms() } else { (nanos.min(self.max_nanos)) as f64 / 1e6 };
            }
        }
        0.0
    }

    /// The greatest, in milliseconds.
    pub fn max_ms(&self) -> f64 {
        self.max_nanos as f64 / 1e6
    }
}

/// One direction.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct WayReport {
    /// The interface that it comes from.
    pub from: String,
    /// The interface that it goes to.
    pub to: String,
    /// Packets that came in.
    pub packets: u64,
    /// Bytes that came in, as the rate counts them.
    pub bytes: u64,
    /// Packets that went out, copies included.
    pub delivered: u64,
    /// Bytes that went out, as the rate counts them.
    pub delivered_bytes: u64,
    /// Bits a second that went out in this interval; at the end, over the whole time.
    pub rate_bps: f64,
    /// Packets lost by chance.
    pub lost: u64,
    /// Packets that found the queue full.
    pub overflowed: u64,
    /// Packets above the MTU.
    pub oversized: u64,
    /// Packets lost while the link was cut.
    pub cut: u64,
    /// Packets that were held back.
    pub reordered: u64,
    /// Packets that were sent twice.
    pub duplicated: u64,
    /// Packets with a changed bit.
    pub corrupted: u64,
    /// Bytes that wait for the wire.
    pub waiting_bytes: u64,
    /// Packets that wait or are on the way.
    pub held: u64,
    /// How late packets left, in milliseconds: half of them at most.
    pub late_p50_ms: f64,
    /// The same for 99 of 100.
    pub late_p99_ms: f64,
    /// The same for all.
    pub late_max_ms: f64,
}

/// Losses that were not asked for: the program, or the kernel on its behalf, did not keep up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OwnLosses {
    /// Frames that came when no frame was free for them.
    pub no_free_frame: u64,
    /// Frames that came while the ring was full.
    pub ring_full: u64,
    /// Frames that the kernel dropped for other reasons on the way in.
    pub receive: u64,
    /// Frames that an interface did not take.
    pub transmit: u64,
}

impl OwnLosses {
    /// All together.
    pub fn total(&self) -> u64 {
        let Self { no_free_frame, ring_full, receive, transmit } = *self;
        no_free_frame + ring_full + receive + transmit
    }
}

/// The whole link.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Statistics {
    /// Seconds since it began.
    pub seconds: f64,
    /// From the first interface to the second, and back.
    pub ways: [WayReport; 2],
    /// What should not have been lost.
    pub own_losses: OwnLosses,
    /// Checksums that were finished for a sender whose device left them.
    pub finished_checksums: u64,
    /// CPU time of the whole program, in seconds.
    pub cpu_seconds: f64,
}

/// A line of `--json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The link carries packets from now on.
    Ready {
        /// How frames get in and out.
        mode: String,
        /// The seed of its chances.
        seed: u64,
    },
    /// Numbers, while it runs.
    Statistics(Statistics),
    /// It was cut or mended.
    Cut {
        /// Which of both.
        cut: bool,
        /// Time of day, in nanoseconds since 1970.
        unix_nanos: u64,
    },
    /// Numbers at the end.
    End(Statistics),
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, ways, own_losses, finished_checksums, cpu_seconds: _ } = self;
        for (index, way) in ways.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{seconds:7.1} s  {way}")?;
        }
        if *finished_checksums > 0 {
            write!(f, "\n           {finished_checksums} checksums finished for senders that left them")?;
        }
        if own_losses.total() > 0 {
            let OwnLosses { no_free_frame, ring_full, receive, transmit } = own_losses;
            write!(
                f,
                "\n           LOST WITHOUT BEING ASKED TO: {no_free_frame} for want of a frame (--frames), {ring_full} in a \
                 full ring, {receive} on the way in, {transmit} on the way out"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for WayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, packets, delivered, rate_bps, .. } = self;
        write!(f, "{from} -> {to}  {packets} packets in, {delivered} out, {:.2} Mbit/s", rate_bps / 1e6)?;
        let rare = [
            ("lost", self.lost),
            ("queue full", self.overflowed),
            ("too large", self.oversized),
            ("lost to the cut", self.cut),
            ("reordered", self.reordered),
            ("duplicated", self.duplicated),
            ("corrupted", self.corrupted),
        ];
        for (name, count) in rare.into_iter().filter(|(_, count)| *count > 0) {
            write!(f, ", {count} {name}")?;
        }
        write!(f, "; {} kB wait, {} packets on the way", self.waiting_bytes / 1000, self.held)?;
        if self.delivered > 0 {
            write!(
                f,
                "; late by {:.2} ms, p99 {:.2}, at most {:.2}",
                self.late_p50_ms, self.late_p99_ms, self.late_max_ms
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
