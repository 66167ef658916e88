//! Round-trip time and retransmission timeout (RFC 6298).

use crate::time::Duration;

use super::config::{INITIAL_RTO, RTO_AFTER_LOST_SYN, TcpConfig};

/// How long the minimum RTT is believed, in milliseconds (RFC 8985 §6.2 step 1 asks for a windowed minimum).
const MIN_RTT_WINDOW_MS: u32 = 300_000;

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
