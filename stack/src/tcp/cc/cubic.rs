//! CUBIC (RFC 9438). Windows are bytes, times seconds.

use super::AckEvent;
use super::hystart::HyStart;
use crate::time::{Duration, Instant};

/// RFC 9438 §5: the scaling constant C, segments per second cubed.
const C: f64 = 0.4;
/// RFC 9438 §4.6: the multiplicative decrease.
const BETA: f64 = 0.7;
/// RFC 9438 §4.3: the additive increase at which Reno with this decrease has Reno's own mean window.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cubic {
    pub(super) hystart: HyStart,
    /// The plateau: the window before the last reduction, or less of it (RFC 9438 §4.7).
    w_max: f64,
    /// The window before the last reduction.
    prior: f64,
    /// When the congestion avoidance stage began; zero before its first acknowledgment.
    epoch: Instant,
    /// Seconds from `epoch` until the plateau.
    k: f64,
    /// What Reno would have.
    w_est: f64,
    /// Part of a byte still to be added.
    credit: f64,
    /// The stage to come follows a timeout.
    after_timeout: bool,
}

impl Cubic {
    /// RFC 9438 §4.2 to §4.5.
    pub(super) fn avoid(&mut self, cwnd: u32, event: &AckEvent) -> u32 {
        let (window, mss, bytes) = (f64::from(cwnd.max(1)), f64::from(event.mss.max(1)), f64::from(event.bytes));
        if self.epoch == Instant::ZERO {
            self.begin(event.now, window, mss);
        }
        let t = event.now.since(self.epoch).as_secs_f64();
        // §4.3: once Reno has won back the old window it grows like Reno.
        let alpha = if self.w_est < self.prior { ALPHA } else { 1.0 };
        self.w_est += alpha * bytes * mss / window;
        if self.at(t, mss) < self.w_est && self.w_est > window {
            self.credit = 0.0;
            return self.w_est as u32;
        }
        let target = self.at(t + f64::from(event.srtt_us) / 1e6, mss).clamp(window, 1.5 * window);
        self.credit += (target - window) / window * bytes;
        let whole = self.credit.floor();
        self.credit -= whole;
        cwnd.saturating_add(whole as u32)
    }

    fn begin(&mut self, now: Instant, window: f64, mss: f64) {
        self.epoch = now;
        self.w_est = window;
        self.credit = 0.0;
        // §4.8: after a timeout the curve starts at its plateau, as it does when slow start ended without a loss.
        if self.after_timeout || window >= self.w_max {
            self.after_timeout = false;
            self.w_max = window;
            self.k = 0.0;
        } else {
            self.k = cube_root((self.w_max - window) / mss / C);
        }
    }

    /// W_cubic(t).
    fn at(&self, t: f64, mss: f64) -> f64 {
        let offset = t - self.k;
        self.w_max + C * offset * offset * offset * mss
    }

    /// The threshold after a reduction of `cwnd`.
    pub(super) fn reduce(&mut self, cwnd: u32) -> u32 {
        let window = f64::from(cwnd);
        // §4.7, fast convergence: a flow that did not get back to its plateau leaves room for another.
        self.w_max = if window < self.w_max { window * (1.0 + BETA) / 2.0 } else { window };
        self.prior = window;
        self.epoch = Instant::ZERO;
        (window * BETA) as u32
    }

    /// The window was changed by somebody else: the curve begins anew from there.
    pub(super) fn restart(&mut self) {
        self.epoch = Instant::ZERO;
    }

    pub(super) fn on_timeout(&mut self) {
        self.after_timeout = true;
    }

    /// §4.2: time in which nothing was sent is no time of the curve.
    pub(super) fn on_idle(&mut self, span: Duration) {
        if self.epoch != Instant::ZERO {
            self.epoch += span;
        }
    }
}

/// By Newton's method from above, so that every machine finds the same one (a C library's `cbrt` need not).
fn cube_root(value: f64) -> f64 {
    if value <= 0.0 {
        return 0.0;
    }
    let mut root = value.max(1.0);
    for _ in 0..64 {
        let next = (2.0 * root + value / (root * root)) / 3.0;
        if root - next <= root * 1e-12 {
            return next;
        }
        root = next;
    }
    root
}

#[cfg(test)]
mod tests {
    use super::cube_root;

    #[test]
    fn cube_roots_come_out_right() {
        for value in [0.0_f64, 1e-6, 0.3, 1.0, 8.0, 12_345.678, 1e15] {
            let root = cube_root(value);
            assert!((root * root * root - value).abs() <= value * 1e-9, "{value}: {root}");
        }
    }
}
