//! Round-trip time and retransmission timeout (RFC 6298).

use crate::time::Duration;

use super::config::{INITIAL_RTO, TcpConfig};

/// How long the minimum RTT is believed, in milliseconds (RFC 8985 §6.2 step 1 asks for a windowed minimum).
const MIN_RTT_WINDOW_MS: u32 = 300_000;

/// The estimator of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rtt {
    /// Smoothed RTT in microseconds; zero before the first sample.
    pub srtt_us: u32,
    /// Mean deviation in microseconds.
    pub rttvar_us: u32,
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
            srtt_us: 0,
            rttvar_us: 0,
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
        if self.srtt_us == 0 {
            // RFC 6298 §2.2.
            self.srtt_us = rtt;
            self.rttvar_us = rtt / 2;
        } else {
            let n = i64::from(samples_per_rtt.max(1));
            let (srtt, var) = (i64::from(self.srtt_us), i64::from(self.rttvar_us));
            let error = i64::from(rtt) - srtt;
            // RFC 6298 §2.3 with the gains of RFC 7323 appendix G: alpha = 1/8, beta = 1/4, divided among the samples.
            let var = var + (error.abs() - var) / (4 * n);
            let srtt = srtt + error / (8 * n);
            self.srtt_us = srtt.clamp(1, i64::from(u32::MAX)) as u32;
            self.rttvar_us = var.clamp(1, i64::from(u32::MAX)) as u32;
        }
        let spread = u64::from(self.rttvar_us) * 4;
        // RFC 6298 §2.4 asks for at least one second; like every stack in use we take a floor on the spread instead,
        // so that a delayed ACK of the peer does not look like a loss.
        let rto = u64::from(self.srtt_us) + spread.max(config.min_rto.as_micros());
        self.rto_us = rto.min(config.max_rto.as_micros()).min(u64::from(u32::MAX)) as u32;
        self.backoff = 0;
    }

    /// The retransmission timeout, backoff included (RFC 6298 §5.5).
    pub(super) fn rto(&self, config: &TcpConfig) -> Duration {
        let backed_off = u64::from(self.rto_us) << self.backoff.min(16);
        Duration::from_micros(backed_off.min(config.max_rto.as_micros()))
    }

    /// Smoothed RTT; zero before the first sample.
    pub(super) fn srtt(&self) -> Duration {
        Duration::from_micros(u64::from(self.srtt_us))
    }

    /// The least RTT, or `fallback` before the first sample.
    pub(super) fn min_or(&self, fallback: u32) -> u32 {
        if self.min_us == u32::MAX { fallback } else { self.min_us }
    }
}
