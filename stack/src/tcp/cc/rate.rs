//! Delivery rate: how fast the path took what was sent, measured over the flight of each segment. Kept only for
//! congestion control that has a model of the path.

use std::collections::VecDeque;

use crate::time::{Duration, Instant};

/// What stood when a segment was sent.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct Departure {
    /// Bytes delivered until then, and when the last of them were.
    delivered: u64,
    delivered_at: Instant,
    /// When the first segment of this flight was sent.
    first_sent_at: Instant,
    sent_at: Instant,
    /// Bytes lost until then.
    lost: u64,
    /// Bytes in flight, this segment included.
    in_flight: u32,
    /// The application had nothing more to send.
    app_limited: bool,
}

/// What one acknowledgment says of the rate.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::tcp) struct RateSample {
    /// Bytes a second; zero when nothing could be measured.
    pub rate: u64,
    /// Bytes delivered while the newest segment was under way, and before it was sent.
    pub delivered: u64,
    pub prior_delivered: u64,
    /// Bytes that this acknowledgment brought.
    pub newly_acked: u32,
    /// Bytes that were found lost since the last sample.
    pub newly_lost: u32,
    /// Bytes in flight when the newest segment was sent, and bytes lost since.
    pub tx_in_flight: u32,
    pub lost: u64,
    /// It may be the application that was slow.
    pub app_limited: bool,
    /// The worst loss since the last sample.
    pub worst: Option<LostSegment>,
}

/// A segment that was lost.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct LostSegment {
    pub len: u32,
    /// Bytes in flight when it was sent.
    pub tx_in_flight: u32,
    /// Bytes lost since, itself included.
    pub lost: u64,
    pub app_limited: bool,
}

/// The estimator of one connection; its ring runs beside the sent part of the send ring.
#[derive(Debug, Default)]
pub(in crate::tcp) struct RateEstimator {
    ring: VecDeque<Departure>,
    /// Bytes delivered in all.
    pub delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    lost: u64,
    /// Once so many bytes are delivered the application counts as fast again; zero when it does.
    app_limited_until: u64,
    newest: Option<Departure>,
    newly_acked: u32,
    newly_lost: u32,
    worst: Option<LostSegment>,
}

impl RateEstimator {
    fn departure(&mut self, now: Instant, in_flight: u32, len: u32) -> Departure {
        if in_flight == 0 {
            self.first_sent_at = now;
            self.delivered_at = now;
        }
        Departure {
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            sent_at: now,
            lost: self.lost,
            in_flight: in_flight + len,
            app_limited: self.app_limited_until > 0,
        }
    }

    /// A segment behind all others is sent; `in_flight` bytes are out before it.
    pub(in crate::tcp) fn on_sent(&mut self, now: Instant, in_flight: u32, len: u32) {
        let departure = self.departure(now, in_flight, len);
        self.ring.push_back(departure);
    }

    /// The segment at `index` is sent again.
    pub(in crate::tcp) fn on_resent(&mut self, index: usize, now: Instant, in_flight: u32, len: u32) {
        let departure = self.departure(now, in_flight, len);
        if let Some(held) = self.ring.get_mut(index) {
            *held = departure;
        }
    }

    /// The segment at `index` is cut in two.
    pub(in crate::tcp) fn on_split(&mut self, index: usize) {
        if let Some(&held) = self.ring.get(index) {
            self.ring.insert(index + 1, held);
        }
    }

    /// The first segment leaves the ring; `news` when that it arrived was not known.
    pub(in crate::tcp) fn on_acked(&mut self, now: Instant, len: u32, news: bool) {
        if let Some(departure) = self.ring.pop_front()
            && news
        {
            self.deliver(now, departure, len);
        }
    }

    /// The segment at `index` is known to have arrived.
    pub(in crate::tcp) fn on_sacked(&mut self, index: usize, now: Instant, len: u32) {
        if let Some(&departure) = self.ring.get(index) {
            self.deliver(now, departure, len);
        }
    }

    fn deliver(&mut self, now: Instant, departure: Departure, len: u32) {
        self.delivered += u64::from(len);
        self.delivered_at = now;
        self.newly_acked = self.newly_acked.saturating_add(len);
        if self.newest.is_none_or(|held| departure.sent_at >= held.sent_at) {
            self.newest = Some(departure);
            self.first_sent_at = departure.sent_at;
        }
    }

    /// Part of the first segment is acknowledged.
    pub(in crate::tcp) fn on_trimmed(&mut self, now: Instant, len: u32) {
        self.delivered += u64::from(len);
        self.delivered_at = now;
        self.newly_acked = self.newly_acked.saturating_add(len);
    }

    /// The segment at `index` is given up.
    pub(in crate::tcp) fn on_lost(&mut self, index: usize, len: u32) {
        self.lost += u64::from(len);
        self.newly_lost = self.newly_lost.saturating_add(len);
        if let Some(departure) = self.ring.get(index) {
            let lost = self.lost.saturating_sub(departure.lost);
            if self.worst.is_none_or(|held| lost >= held.lost) {
                let (tx_in_flight, app_limited) = (departure.in_flight, departure.app_limited);
                self.worst = Some(LostSegment { len, tx_in_flight, lost, app_limited });
            }
        }
    }

    /// Nothing is left to send while `in_flight` bytes are out.
    pub(in crate::tcp) fn on_app_limited(&mut self, in_flight: u32) {
        self.app_limited_until = (self.delivered + u64::from(in_flight)).max(1);
    }

    /// What was learned since the last call. Rates over less than the least RTT are no rates.
    pub(in crate::tcp) fn sample(&mut self, min_rtt: Duration) -> RateSample {
        if self.app_limited_until > 0 && self.delivered > self.app_limited_until {
            self.app_limited_until = 0;
        }
        let mut sample = RateSample {
            newly_acked: std::mem::take(&mut self.newly_acked),
            newly_lost: std::mem::take(&mut self.newly_lost),
            worst: self.worst.take(),
            ..RateSample::default()
        };
        if let Some(newest) = self.newest.take() {
            sample.prior_delivered = newest.delivered;
            sample.delivered = self.delivered - newest.delivered;
            sample.app_limited = newest.app_limited;
            sample.tx_in_flight = newest.in_flight;
            sample.lost = self.lost.saturating_sub(newest.lost);
            // Acknowledgments may come bunched, and sending may be: the slower of the two is what the path bears.
            let sending = newest.sent_at.since(newest.first_sent_at);
            let acking = self.delivered_at.since(newest.delivered_at);
            let interval = sending.max(acking);
            if interval >= min_rtt && interval > Duration::ZERO {
                sample.rate = per_second(sample.delivered, interval);
            }
        }
        sample
    }

    /// Two neighbours of the ring, the second at `index`, become one that left when the later of them did.
    pub(in crate::tcp) fn on_merged(&mut self, index: usize) {
        if let Some(later) = self.ring.remove(index)
            && let Some(held) = index.checked_sub(1).and_then(|before| self.ring.get_mut(before))
            && later.sent_at >= held.sent_at
        {
            *held = later;
        }
    }

    pub(in crate::tcp) fn clear(&mut self) {
        self.ring.clear();
    }
}

fn per_second(bytes: u64, span: Duration) -> u64 {
    (u128::from(bytes) * 1_000_000_000 / u128::from(span.as_nanos().max(1))) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_what_was_delivered_in_a_flight() {
        let mut rates = RateEstimator::default();
        let start = Instant::from_millis(1_000);
        // Ten segments of 1000 bytes, one a millisecond, each acknowledged 20 ms later.
        for n in 0..10 {
            rates.on_sent(start + Duration::from_millis(n), n as u32 * 1_000, 1_000);
        }
        let mut last = RateSample::default();
        for n in 0..10 {
            rates.on_acked(start + Duration::from_millis(20 + n), 1_000, true);
            last = rates.sample(Duration::from_millis(20));
        }
        // The last segment's flight began with the first one's sending: 10,000 bytes in 29 ms.
        assert_eq!(last.delivered, 10_000);
        assert_eq!(last.rate, 10_000 * 1_000 / 29);
        assert!(!last.app_limited);
    }

    #[test]
    fn what_is_sent_while_the_application_is_slow_says_so() {
        let mut rates = RateEstimator::default();
        let start = Instant::from_millis(1_000);
        rates.on_app_limited(0);
        rates.on_sent(start, 0, 1_000);
        rates.on_acked(start + Duration::from_millis(10), 1_000, true);
        assert!(rates.sample(Duration::ZERO).app_limited);
        rates.on_sent(start + Duration::from_millis(10), 0, 1_000);
        rates.on_acked(start + Duration::from_millis(20), 1_000, true);
        assert!(!rates.sample(Duration::ZERO).app_limited);
    }

    #[test]
    fn losses_are_told_with_the_flight_that_they_were_lost_from() {
        let mut rates = RateEstimator::default();
        let start = Instant::from_millis(1_000);
        for n in 0..5 {
            rates.on_sent(start, n * 1_000, 1_000);
        }
        rates.on_lost(0, 1_000);
        rates.on_lost(1, 1_000);
        let sample = rates.sample(Duration::ZERO);
        assert_eq!(sample.newly_lost, 2_000);
        let worst = sample.worst.expect("a loss");
        assert_eq!((worst.lost, worst.tx_in_flight), (2_000, 2_000));
    }
}
