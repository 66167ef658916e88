//! HyStart++ (RFC 9406): leaves slow start when the RTT rises, before anything is lost.

use super::AckEvent;

/// RFC 9406 §4.3: the least and the largest rise that counts, in microseconds, and the divisor of the RTT in between.
const MIN_RTT_THRESH_US: u32 = 4_000;
const MAX_RTT_THRESH_US: u32 = 16_000;
const MIN_RTT_DIVISOR: u32 = 8;
/// RTT samples that a round must bring before it says anything.
const SAMPLES: u32 = 8;
/// Conservative slow start grows by so much less.
const CSS_GROWTH_DIVISOR: u32 = 4;
/// Rounds of conservative slow start.
const CSS_ROUNDS: u8 = 5;
/// Segments that one acknowledgment adds at most, unless sending is paced.
const LIMIT: u32 = 8;

/// RTTs in microseconds; `u32::MAX` for none yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct HyStart {
    last_round_min: u32,
    round_min: u32,
    samples: u32,
    /// The RTT at which conservative slow start began; zero outside it.
    baseline: u32,
    rounds: u8,
}

impl Default for HyStart {
    fn default() -> Self {
        Self { last_round_min: u32::MAX, round_min: u32::MAX, samples: 0, baseline: 0, rounds: 0 }
    }
}

impl HyStart {
    /// The bytes that the window grows by; `None` when slow start is over.
    pub(super) fn on_ack(&mut self, event: &AckEvent) -> Option<u32> {
        if event.round && !self.next_round() {
            return None;
        }
        if let Some(rtt) = event.rtt_us {
            self.round_min = self.round_min.min(rtt);
            self.samples = self.samples.saturating_add(1);
            if self.samples >= SAMPLES {
                self.judge();
            }
        }
        let bytes = if event.paced { event.bytes } else { event.bytes.min(LIMIT * event.mss) };
        Some(if self.baseline > 0 { bytes / CSS_GROWTH_DIVISOR } else { bytes })
    }

    /// False when the rounds of conservative slow start are used up.
    fn next_round(&mut self) -> bool {
        self.last_round_min = self.round_min;
        self.round_min = u32::MAX;
        self.samples = 0;
        if self.baseline > 0 {
            self.rounds += 1;
        }
        self.rounds < CSS_ROUNDS
    }

    fn judge(&mut self) {
        if self.baseline > 0 {
            if self.round_min < self.baseline {
                // The rise was a passing one.
                (self.baseline, self.rounds) = (0, 0);
            }
        } else if self.last_round_min != u32::MAX {
            let threshold = (self.last_round_min / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH_US, MAX_RTT_THRESH_US);
            if self.round_min >= self.last_round_min.saturating_add(threshold) {
                (self.baseline, self.rounds) = (self.round_min.max(1), 0);
            }
        }
    }
}
