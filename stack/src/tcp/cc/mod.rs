//! Congestion control: what happened goes in as events, a window comes out.
//!
//! [`Controller`] keeps what every law has in common, the slow-start threshold and what an undo restores; the laws
//! themselves are CUBIC, NewReno, and NewReno by numbers that the layer above computes, all with HyStart++; and BBR, which
//! has a model of the path.

use super::config::{CcKind, Coupling, MAX_CWND};
use crate::time::{Duration, Instant};

mod bbr;
mod cubic;
mod hystart;
mod rate;
#[cfg(test)]
mod tests;

use bbr::Bbr;
pub(super) use bbr::ModelAck;
use cubic::Cubic;
use hystart::HyStart;
pub(super) use rate::RateEstimator;

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
    /// What is sent is spread over the round trip.
    pub paced: bool,
}

/// What happens beside acknowledgments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CcEvent {
    /// Segments were lost, or one was marked (RFC 3168 §6.1.2): the window was `cwnd`, `flight` bytes were out.
    Congestion { cwnd: u32, flight: u32, mss: u32 },
    /// The retransmission timer fired with nothing of this flight reduced yet.
    Timeout { cwnd: u32, flight: u32, mss: u32 },
    /// The last reduction was a mistake.
    Undo,
    /// Nothing was sent for so long, and now it goes on.
    Idle(Duration),
}

/// The controller of one connection.
#[derive(Debug)]
pub(super) struct Controller {
    /// Slow-start threshold in bytes.
    pub ssthresh: u32,
    /// What the layer above wants, for [`CcKind::Coupled`].
    pub coupling: Coupling,
    /// How often the window was reduced, modulo 2^32.
    pub losses: u32,
    law: Law,
    /// Threshold and curve before the last reduction.
    before: (u32, Cubic),
}

#[derive(Debug)]
enum Law {
    NewReno(NewReno),
    Coupled(NewReno),
    Cubic(Cubic),
    Bbr(Box<Bbr>),
}

/// RFC 5681 §3.1.
#[derive(Clone, Copy, Default, Debug)]
struct NewReno {
    hystart: HyStart,
    /// Part of a byte still to be added.
    credit: f64,
}

impl Controller {
    /// `seed` need only be different from other connections'.
    pub(super) fn new(kind: CcKind, seed: u64) -> Self {
        let law = match kind {
            CcKind::NewReno => Law::NewReno(NewReno::default()),
            CcKind::Coupled => Law::Coupled(NewReno::default()),
            CcKind::Cubic => Law::Cubic(Cubic::default()),
            CcKind::Bbr => Law::Bbr(Box::new(Bbr::new(seed))),
        };
        // RFC 5681 §3.1: the first threshold is as high as can be.
        let before = (MAX_CWND, Cubic::default());
        Self { ssthresh: MAX_CWND, coupling: Coupling::default(), losses: 0, law, before }
    }

    /// Forgets reductions: the window grows by slow start again. A model keeps what it knows.
    pub(super) fn begin_anew(&mut self) {
        self.ssthresh = MAX_CWND;
        self.before = (MAX_CWND, Cubic::default());
        match &mut self.law {
            Law::NewReno(reno) | Law::Coupled(reno) => *reno = NewReno::default(),
            Law::Cubic(cubic) => *cubic = Cubic::default(),
            Law::Bbr(_) => {}
        }
    }

    /// The window after an acknowledgment that it may grow by.
    pub(super) fn on_ack(&mut self, cwnd: u32, event: &AckEvent) -> u32 {
        let grown = if cwnd < self.ssthresh {
            self.slow_start(cwnd, event)
        } else {
            match &mut self.law {
                Law::NewReno(reno) => reno.avoid(cwnd, event, 1.0),
                Law::Coupled(reno) => reno.avoid(cwnd, event, f64::from(self.coupling.increase)),
                Law::Cubic(cubic) => cubic.avoid(cwnd, event),
                Law::Bbr(_) => cwnd,
            }
        };
        grown.min(MAX_CWND)
    }

    /// The window after an acknowledgment, by the model. Only for a law that has one.
    pub(super) fn on_model_ack(&mut self, cwnd: u32, ack: &ModelAck) -> u32 {
        if let Law::Bbr(bbr) = &mut self.law { bbr.on_ack(cwnd, ack) } else { cwnd }
    }

    /// The window after the losses that a timeout found are repaired.
    pub(super) fn restored(&mut self, cwnd: u32) -> u32 {
        if let Law::Bbr(bbr) = &mut self.law { bbr.restored(cwnd) } else { cwnd }
    }

    /// The model's least RTT, for rates; and whether it keeps so little in flight that they say nothing.
    pub(super) fn model_rtt(&self) -> (Duration, bool) {
        if let Law::Bbr(bbr) = &self.law { (bbr.min_rtt(), bbr.is_probing_rtt()) } else { (Duration::ZERO, false) }
    }

    /// Bytes a second at which `cwnd` bytes are to leave in a round trip; zero for no limit.
    pub(super) fn pacing_rate(&self, cwnd: u32, srtt_us: u32) -> u64 {
        if let Law::Bbr(bbr) = &self.law {
            return bbr.pacing_rate(cwnd, srtt_us);
        }
        // Faster than the window asks for, so that it is the window that decides: twice in slow start, which doubles it,
        // else by a quarter.
        let quarters = if cwnd < self.ssthresh / 2 { 8 } else { 5 };
        (u64::from(cwnd) * 250_000 * quarters).checked_div(u64::from(srtt_us)).unwrap_or(0)
    }

    fn slow_start(&mut self, cwnd: u32, event: &AckEvent) -> u32 {
        // RFC 9406 §4.3: HyStart++ is for the first slow start, while the threshold is unknown.
        if self.ssthresh < MAX_CWND {
            // RFC 3465 §2.2: by bytes; what would go beyond the threshold is congestion avoidance's.
            return cwnd.saturating_add(event.bytes).min(self.ssthresh.max(cwnd));
        }
        let hystart = match &mut self.law {
            Law::NewReno(reno) | Law::Coupled(reno) => &mut reno.hystart,
            Law::Cubic(cubic) => &mut cubic.hystart,
            Law::Bbr(_) => return cwnd,
        };
        match hystart.on_ack(event) {
            Some(growth) => cwnd.saturating_add(growth),
            None => {
                self.ssthresh = cwnd;
                cwnd
            }
        }
    }

    /// Takes an event; a reduction leaves its threshold in [`Controller::ssthresh`].
    pub(super) fn on_event(&mut self, event: CcEvent) {
        match event {
            CcEvent::Congestion { cwnd, flight, mss } => self.reduce(cwnd, flight, mss),
            CcEvent::Timeout { cwnd, flight, mss } => {
                self.reduce(cwnd, flight, mss);
                match &mut self.law {
                    Law::Cubic(cubic) => cubic.on_timeout(),
                    Law::Bbr(bbr) => bbr.on_timeout(cwnd),
                    Law::NewReno(_) | Law::Coupled(_) => {}
                }
            }
            // RFC 9438 §4.9: everything is as it was before the reduction.
            CcEvent::Undo => {
                self.ssthresh = self.ssthresh.max(self.before.0);
                if let Law::Cubic(cubic) = &mut self.law {
                    *cubic = self.before.1;
                }
            }
            CcEvent::Idle(span) => {
                if let Law::Cubic(cubic) = &mut self.law {
                    cubic.on_idle(span);
                }
            }
        }
    }

    /// The window after half of it was taken away for the sake of the owner's other connections.
    pub(super) fn on_penalty(&mut self, cwnd: u32, mss: u32) -> u32 {
        match &mut self.law {
            Law::NewReno(reno) | Law::Coupled(reno) => reno.credit = 0.0,
            Law::Cubic(cubic) => cubic.restart(),
            Law::Bbr(_) => {}
        }
        let halved = (cwnd / 2).max(mss.min(cwnd));
        if self.ssthresh < MAX_CWND {
            self.ssthresh = (self.ssthresh / 2).max(2 * mss);
        }
        halved
    }

    fn reduce(&mut self, cwnd: u32, flight: u32, mss: u32) {
        self.before.0 = self.ssthresh;
        self.losses = self.losses.wrapping_add(1);
        let floor = 2 * mss;
        self.ssthresh = match &mut self.law {
            // RFC 5681 §3.1, equation 4.
            Law::NewReno(reno) => {
                reno.credit = 0.0;
                (flight / 2).max(floor)
            }
            Law::Coupled(reno) => {
                reno.credit = 0.0;
                let kept = f64::from(flight) * (1.0 - f64::from(self.coupling.decrease.clamp(0.0, 1.0)));
                (kept as u32).max(u32::from(self.coupling.floor.max(1)) * mss)
            }
            Law::Cubic(cubic) => {
                self.before.1 = *cubic;
                cubic.reduce(cwnd).max(floor)
            }
            // The model decides for itself what a loss means.
            Law::Bbr(_) => self.ssthresh,
        };
    }
}

impl NewReno {
    /// RFC 5681 §3.1, counted in bytes (RFC 3465 §2.1): a segment more each round trip, times `factor`.
    fn avoid(&mut self, cwnd: u32, event: &AckEvent, factor: f64) -> u32 {
        self.credit += factor * f64::from(event.bytes) * f64::from(event.mss) / f64::from(cwnd.max(1));
        let whole = self.credit.trunc();
        self.credit -= whole;
        let smallest = event.mss.min(cwnd);
        (f64::from(cwnd) + whole).clamp(f64::from(smallest), f64::from(MAX_CWND)) as u32
    }
}
