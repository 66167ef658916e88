//! Congestion control: CUBIC (RFC 9438) with HyStart++ (RFC 9406), and NewReno (RFC 5681), alone or coupled.

use super::config::{CcKind, Coupling, MAX_CWND};
use crate::time::Instant;

/// CUBIC's scaling constant C, segments per second cubed (RFC 9438 §5).
const C: f64 = 0.4;
/// CUBIC's multiplicative decrease (RFC 9438 §4.6).
const BETA: f64 = 0.7;
/// Segments that an epoch of RTT samples needs (RFC 9406 §4.2).
const HYSTART_SAMPLES: u32 = 8;
/// Conservative slow start grows by so much less (RFC 9406 §4.2).
const CSS_DIVISOR: u32 = 4;
/// Rounds of conservative slow start (RFC 9406 §4.2).
const CSS_ROUNDS: u8 = 5;

/// What an acknowledgment says.
#[derive(Clone, Copy, Debug)]
pub(super) struct AckEvent {
    pub now: Instant,
    /// Bytes that arrived.
    pub bytes: u32,
    pub mss: u32,
    pub srtt_us: u32,
    /// This acknowledgment's own RTT sample.
    pub rtt_us: Option<u32>,
    /// A round trip has ended.
    pub round: bool,
}

/// The controller of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Controller {
    kind: CcKind,
    /// What the layer above wants, for [`CcKind::Coupled`].
    pub coupling: Coupling,
    /// How often the window was reduced, modulo 2^32.
    pub losses: u32,
    pub ssthresh: u32,
    /// Window before the last reduction, in bytes (RFC 9438 §4.1.2).
    w_max: f64,
    /// Start of the congestion avoidance stage; zero before it.
    epoch: Instant,
    /// Seconds from `epoch` until the window is `w_max` again.
    k: f64,
    /// What Reno would have, in bytes.
    w_est: f64,
    /// Bytes acknowledged towards the next increase.
    credit: f64,
    hystart: HyStart,
}

#[derive(Clone, Copy, Debug)]
struct HyStart {
    last_round_min: u32,
    round_min: u32,
    samples: u32,
    /// The RTT at which conservative slow start began; zero outside it.
    baseline: u32,
    rounds: u8,
}

impl Controller {
    pub(super) fn new(kind: CcKind) -> Self {
        let hystart = HyStart { last_round_min: u32::MAX, round_min: u32::MAX, samples: 0, baseline: 0, rounds: 0 };
        Self {
            kind,
            coupling: Coupling::default(),
            losses: 0,
            ssthresh: MAX_CWND,
            w_max: 0.0,
            epoch: Instant::ZERO,
            k: 0.0,
            w_est: 0.0,
            credit: 0.0,
            hystart,
        }
    }

    /// The window after an acknowledgment outside recovery.
    pub(super) fn on_ack(&mut self, cwnd: u32, event: &AckEvent) -> u32 {
        let grown = if cwnd < self.ssthresh {
            self.slow_start(cwnd, event)
        } else {
            match self.kind {
                CcKind::NewReno => self.additive(cwnd, event, 1.0),
                CcKind::Coupled => self.additive(cwnd, event, f64::from(self.coupling.increase)),
                CcKind::Cubic => self.cubic(cwnd, event),
            }
        };
        grown.min(MAX_CWND)
    }

    /// RFC 5681 §3.1: a segment a round trip, times `factor`.
    fn additive(&mut self, cwnd: u32, event: &AckEvent, factor: f64) -> u32 {
        self.credit += factor * f64::from(event.bytes) * f64::from(event.mss) / f64::from(cwnd.max(1));
        let whole = self.credit.trunc();
        self.credit -= whole;
        let smallest = event.mss.min(cwnd);
        (f64::from(cwnd) + whole).clamp(f64::from(smallest), f64::from(MAX_CWND)) as u32
    }

    fn take_credit(&mut self) -> u32 {
        let whole = self.credit.floor();
        self.credit -= whole;
        whole as u32
    }

    /// RFC 9406 §4.3.
    fn slow_start(&mut self, cwnd: u32, event: &AckEvent) -> u32 {
        let hystart = &mut self.hystart;
        if event.round {
            hystart.last_round_min = hystart.round_min;
            hystart.round_min = u32::MAX;
            hystart.samples = 0;
            if hystart.baseline > 0 {
                hystart.rounds += 1;
                if hystart.rounds >= CSS_ROUNDS {
                    self.ssthresh = cwnd;
                    return cwnd;
                }
            }
        }
        if let Some(rtt) = event.rtt_us {
            hystart.round_min = hystart.round_min.min(rtt);
            hystart.samples += 1;
        }
        if hystart.samples >= HYSTART_SAMPLES && hystart.last_round_min != u32::MAX {
            let threshold = (hystart.last_round_min / 8).clamp(4_000, 16_000);
            if hystart.baseline == 0 && hystart.round_min >= hystart.last_round_min.saturating_add(threshold) {
                hystart.baseline = hystart.round_min;
                hystart.rounds = 0;
            } else if hystart.baseline > 0 && hystart.round_min < hystart.baseline {
                hystart.baseline = 0;
            }
        }
        let divisor = if hystart.baseline > 0 { CSS_DIVISOR } else { 1 };
        // RFC 3465, RFC 9406 §4.2: one acknowledgment opens the window by at most eight segments.
        cwnd.saturating_add(event.bytes.min(8 * event.mss) / divisor)
    }

    /// RFC 9438 §4.2 to §4.5.
    fn cubic(&mut self, cwnd: u32, event: &AckEvent) -> u32 {
        let (window, mss) = (f64::from(cwnd), f64::from(event.mss.max(1)));
        if self.epoch == Instant::ZERO {
            self.epoch = event.now;
            self.w_est = window;
            if window < self.w_max {
                self.k = ((self.w_max - window) / mss / C).cbrt();
            } else {
                self.k = 0.0;
                self.w_max = window;
            }
        }
        let t = event.now.since(self.epoch).as_secs_f64() + f64::from(event.srtt_us) / 1e6;
        let offset = t - self.k;
        let target = (self.w_max + C * offset * offset * offset * mss).clamp(window, 1.5 * window);
        // RFC 9438 §4.3: the Reno-friendly window.
        let alpha = if self.w_est < self.w_max { 3.0 * (1.0 - BETA) / (1.0 + BETA) } else { 1.0 };
        self.w_est += alpha * f64::from(event.bytes) * mss / window.max(1.0);
        let goal = target.max(self.w_est);
        self.credit += (goal - window).max(0.0) * f64::from(event.bytes) / window.max(1.0);
        cwnd.saturating_add(self.take_credit())
    }

    /// The slow-start threshold after a loss with `flight` bytes out.
    pub(super) fn on_loss(&mut self, cwnd: u32, flight: u32, mss: u32) -> u32 {
        let (window, floor) = (f64::from(cwnd), 2 * mss);
        self.losses = self.losses.wrapping_add(1);
        self.epoch = Instant::ZERO;
        self.credit = 0.0;
        self.hystart.baseline = 0;
        self.ssthresh = match self.kind {
            CcKind::NewReno => (flight / 2).max(floor),
            CcKind::Coupled => {
                let kept = f64::from(flight) * (1.0 - f64::from(self.coupling.decrease.clamp(0.0, 1.0)));
                (kept as u32).max(u32::from(self.coupling.floor.max(1)) * mss)
            }
            CcKind::Cubic => {
                // RFC 9438 §4.7: fast convergence.
                self.w_max = if window < self.w_max { window * (1.0 + BETA) / 2.0 } else { window };
                ((window * BETA) as u32).max(floor)
            }
        };
        self.ssthresh
    }

    /// The window after half of it was taken away for the sake of the owner's other connections.
    pub(super) fn on_penalty(&mut self, cwnd: u32, mss: u32) -> u32 {
        self.epoch = Instant::ZERO;
        self.credit = 0.0;
        let halved = (cwnd / 2).max(mss.min(cwnd));
        if self.ssthresh < MAX_CWND {
            self.ssthresh = (self.ssthresh / 2).max(2 * mss);
        }
        halved
    }
}

#[cfg(test)]
mod tests;
