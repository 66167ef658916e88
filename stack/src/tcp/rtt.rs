//! Round-trip time and retransmission timeout (RFC 6298).

use crate::time::Duration;

use super::config::{INITIAL_RTO, RTO_AFTER_LOST_SYN, TcpConfig};
use crate::seq::SeqNum;

/// How long the minimum RTT is believed, in milliseconds (RFC 8985 §6.2 step 1 asks for a windowed minimum).
const MIN_RTT_WINDOW_MS: u32 = 300_000;

/// Longest pause that is taken for a round trip, in milliseconds.
const MAX_RECEIVER_RTT_MS: u32 = 10_000;

/// The estimator of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rtt {
    /// Smoothed RTT in nanoseconds, so that small gains lose nothing; zero before the first sample.
    srtt_ns: u64,
    /// Mean deviation in nanoseconds.
    rttvar_ns: u64,
    /// The least RTT of the last minutes, in microseconds; `u32::MAX` before the first sample.
    pub min_us: u32,
    /// When `min_us` was measured, in milliseconds.
    min_at_ms: u32,
    /// Retransmission timeout in microseconds, backoff not counted.
    rto_us: u32,
    /// How often the timeout was doubled.
    pub backoff: u8,
}

impl Default for Rtt {
    fn default() -> Self {
        Self {
            srtt_ns: 0,
            rttvar_ns: 0,
            min_us: u32::MAX,
            min_at_ms: 0,
            rto_us: INITIAL_RTO.as_micros() as u32,
            backoff: 0,
        }
    }
}

impl Rtt {
    /// Takes a sample. `samples_per_rtt` is how many a round trip brings (RFC 7323 appendix G).
    pub(super) fn sample(&mut self, rtt_us: u32, now_ms: u32, samples_per_rtt: u32, config: &TcpConfig) {
        let rtt = rtt_us.max(1);
        if rtt <= self.min_us || now_ms.wrapping_sub(self.min_at_ms) > MIN_RTT_WINDOW_MS {
            self.min_us = rtt;
            self.min_at_ms = now_ms;
        }
        let rtt_ns = u64::from(rtt) * 1_000;
        if self.srtt_ns == 0 {
            // RFC 6298 §2.2.
            self.srtt_ns = rtt_ns;
            self.rttvar_ns = rtt_ns / 2;
        } else {
            let n = i64::from(samples_per_rtt.max(1));
            let (srtt, var) = (self.srtt_ns as i64, self.rttvar_ns as i64);
            let error = rtt_ns as i64 - srtt;
            // RFC 6298 §2.3 with the gains of RFC 7323 appendix G: alpha = 1/8, beta = 1/4, divided among the samples.
            self.rttvar_ns = (var + (error.abs() - var) / (4 * n)).max(1) as u64;
            self.srtt_ns = (srtt + error / (8 * n)).max(1) as u64;
        }
        // RFC 6298 §2.4 asks for at least one second; like every stack in use we take a floor on the spread instead,
        // so that a delayed ACK of the peer does not look like a loss.
        let rto = self.srtt_ns / 1_000 + (self.rttvar_ns * 4 / 1_000).max(config.min_rto.as_micros());
        self.rto_us = rto.min(config.max_rto.as_micros()).min(u64::from(u32::MAX)) as u32;
        // RFC 6298 §5: the backoff lasts until a segment that was sent once is measured.
        self.backoff = 0;
    }

    /// RFC 6298 §5.7: after a SYN that was lost, and with nothing measured, data starts with three seconds.
    pub(super) fn after_lost_syn(&mut self) {
        if self.srtt_ns == 0 {
            self.rto_us = RTO_AFTER_LOST_SYN.as_micros() as u32;
        }
    }

    /// The retransmission timeout, backoff included (RFC 6298 §5.5).
    pub(super) fn rto(&self, config: &TcpConfig) -> Duration {
        let backed_off = u64::from(self.rto_us) << self.backoff.min(16);
        Duration::from_micros(backed_off.min(config.max_rto.as_micros()))
    }

    /// The retransmission timeout without any backoff.
    pub(super) fn base_rto(&self) -> Duration {
        Duration::from_micros(u64::from(self.rto_us))
    }

    /// Smoothed RTT; zero before the first sample.
    pub(super) fn srtt(&self) -> Duration {
        Duration::from_nanos(self.srtt_ns)
    }

    /// Smoothed RTT in microseconds; zero before the first sample.
    pub(super) fn srtt_us(&self) -> u32 {
        (self.srtt_ns / 1_000).min(u64::from(u32::MAX)) as u32
    }

    /// The least RTT, or `fallback` before the first sample.
    pub(super) fn min_or(&self, fallback: u32) -> u32 {
        if self.min_us == u32::MAX { fallback } else { self.min_us }
    }
}

/// The round-trip time as a receiver sees it, which sends nothing to measure by: from an acknowledgment to the first data
/// that answers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct ReceiverRtt {
    /// Smoothed, in microseconds; zero before the first sample.
    smoothed_us: u32,
    /// What data must answer to be measured: a timestamp of ours; without timestamps, the window's right edge.
    mark: u32,
    /// When the edge was shown, in microseconds; without timestamps only.
    marked_us: u32,
}

impl ReceiverRtt {
    /// Data arrived that echoes our timestamp `echo`, when `value` is what we would send. A sample each round trip.
    pub(super) fn on_echo(&mut self, echo: u32, value: u32) {
        if self.smoothed_us != 0 && (echo.wrapping_sub(self.mark) as i32) < 0 {
            return;
        }
        self.mark = value;
        let age_ms = value.wrapping_sub(echo);
        if age_ms <= MAX_RECEIVER_RTT_MS {
            self.sample((age_ms + 1) * 1_000);
        }
    }

    /// Data arrived up to `next`, and the right edge is `edge`: how long a window takes, which is a round trip or more.
    pub(super) fn on_edge(&mut self, next: SeqNum, edge: SeqNum, now_us: u32) {
        if self.marked_us != 0 && next.before(SeqNum(self.mark)) {
            return;
        }
        let took = now_us.wrapping_sub(self.marked_us);
        if self.marked_us != 0 && took <= MAX_RECEIVER_RTT_MS * 1_000 {
            self.sample(took.max(1));
        }
        (self.mark, self.marked_us) = (edge.0, now_us | 1);
    }

    /// A pause of the peer's makes a sample too long, nothing makes one too short: down at once, up slowly.
    fn sample(&mut self, rtt_us: u32) {
        self.smoothed_us = match self.smoothed_us {
            0 => rtt_us,
            old if rtt_us < old => rtt_us,
            old => old + (rtt_us - old) / 8,
        };
    }

    /// The estimate; zero before the first sample.
    pub(super) fn get(&self) -> Duration {
        Duration::from_micros(u64::from(self.smoothed_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_measures_once_a_round_trip_by_timestamps() {
        let mut rtt = ReceiverRtt::default();
        // The first echo may be of any age, and half of all clocks are beyond the middle.
        rtt.on_echo(0xf000_0000, 0xf000_0064);
        assert_eq!(rtt.get(), Duration::from_millis(101));
        // Data that answers what was acknowledged before says nothing new.
        rtt.on_echo(0xf000_0020, 0xf000_0070);
        assert_eq!(rtt.get(), Duration::from_millis(101));
        rtt.on_echo(0xf000_0064, 0xf000_0096);
        assert_eq!(rtt.get(), Duration::from_millis(51));
        // A pause is no round trip: it counts by an eighth.
        rtt.on_echo(0xf000_0096, 0xf000_0096 + 450);
        assert_eq!(rtt.get(), Duration::from_millis(101));
        rtt.on_echo(0xf000_0096 + 450, 0xf000_0096 + 450 + 60_000);
        assert_eq!(rtt.get(), Duration::from_millis(101));
    }

    #[test]
    fn a_receiver_without_timestamps_measures_how_long_a_window_takes() {
        let mut rtt = ReceiverRtt::default();
        rtt.on_edge(SeqNum(1_000), SeqNum(11_000), 5_000);
        rtt.on_edge(SeqNum(6_000), SeqNum(16_000), 30_000);
        assert_eq!(rtt.get(), Duration::ZERO);
        rtt.on_edge(SeqNum(11_000), SeqNum(21_000), 55_001);
        assert_eq!(rtt.get(), Duration::from_micros(50_000));
        rtt.on_edge(SeqNum(21_000), SeqNum(31_000), 75_001);
        assert_eq!(rtt.get(), Duration::from_micros(20_000));
    }
}
