//! The size of segments: what ICMP says of the path (RFC 1191, RFC 8201), checked against what the peer has acknowledged
//! (RFC 5927 §7.2), and what silence says where no ICMP comes (RFC 4821).

use super::Outcome;
use super::conn::{Conn, ConnFlags};
use crate::counters::Counter;
use crate::env::Env;
use crate::seq::SeqNum;
use crate::time::{Duration, Instant};

/// MTUs of links that there are, greatest first (RFC 1191 §7.1, and what tunnels leave of 1500).
const PLATEAUS: [u32; 9] = [9_000, 4_352, 2_002, 1_492, 1_400, 1_280, 1_006, 576, 296];
/// Where silence leads: sizes that nearly every path takes, and that every path takes. No time is lost on small steps, for
/// each costs a timeout twice as long as the one before.
const REFUGES: [u32; 2] = [1_280, 576];
/// RFC 1191 §6.3, RFC 8201 §4: a larger size is tried again no sooner than after ten minutes.
const RAISE_AFTER: Duration = Duration::from_secs(600);
/// Timeouts of one segment after which its size is to blame: fewer when nothing of its size was ever acknowledged.
const SUSPECT_UNPROVEN: u8 = 2;
const SUSPECT_PROVEN: u8 = 5;

/// What is known of the path's MTU.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Pmtu {
    /// The segment size that was agreed on: never more.
    agreed: u16,
    /// A size that ICMP claims although larger segments have come through; believed at the next timeout.
    claimed: u16,
    /// When a larger size may be tried again.
    raise_at: Instant,
    /// The end of the segment that tries it.
    probe_end: Option<SeqNum>,
}

impl Pmtu {
    pub(super) fn begin(&mut self, agreed: u16) {
        self.agreed = agreed;
    }
}

impl Conn<'_> {
    fn ip_and_tcp(&self) -> u32 {
        if self.cold.flow.remote.is_ipv6() { 60 } else { 40 }
    }

    /// The smallest packet that every path takes.
    fn smallest_mtu(&self) -> u32 {
        if self.cold.flow.remote.is_ipv6() { 1_280 } else { 576 }
    }

    /// The first of `sizes` below the present one; none below what every path takes.
    fn next_below(&self, sizes: &[u32]) -> Option<u32> {
        let now = u32::from(self.hot.snd_mss) + self.ip_and_tcp();
        let floor = self.smallest_mtu();
        sizes.iter().copied().find(|&mtu| mtu < now).map(|mtu| mtu.max(floor)).filter(|&mtu| mtu < now)
    }

    /// ICMP says that a segment was too big; the quoted sequence number is in flight.
    pub(super) fn on_too_big(&mut self, now: Instant, mtu: u32, env: &mut Env<'_>) -> Outcome {
        // RFC 1191 §5: old routers do not say what would fit.
        let mtu = if mtu == 0 { self.next_below(&PLATEAUS).unwrap_or(0) } else { mtu };
        let mss = mtu.max(self.smallest_mtu()).saturating_sub(self.ip_and_tcp()).min(u32::from(u16::MAX)) as u16;
        if mss >= self.hot.snd_mss {
            env.counters.inc(Counter::IcmpIgnored);
            return Outcome::empty();
        }
        let options = self.hot.snd_mss - self.hot.smss.min(self.hot.snd_mss);
        if self.hot.largest_acked > mss.saturating_sub(options) {
            // RFC 5927 §7.2: larger ones came through. If the route has changed, a timeout will confirm it.
            self.cold.pmtu.claimed = mss;
            return Outcome::empty();
        }
        self.lower_segment_size(now, mss);
        self.arm(now);
        Outcome::SEGMENT_SIZE
    }

    /// What is in flight and larger is sent again in pieces; that is no sign of congestion.
    fn lower_segment_size(&mut self, now: Instant, mss: u16) {
        self.set_segment_size(mss);
        self.hot.largest_acked = 0;
        self.cold.pmtu.claimed = 0;
        self.cold.pmtu.probe_end = None;
        self.cold.pmtu.raise_at = now + RAISE_AFTER;
        for index in 0..self.cold.ring.sent_len() {
            if self.cold.ring.get(index).is_some_and(|segment| segment.len > self.hot.smss) {
                self.cold.ring.mark_lost(index);
            }
        }
    }

    /// RFC 4821 §7.6.4, RFC 8899 §4.3: a segment that times out again and again may be too big for a path that does not
    /// say so.
    pub(super) fn shrink_segments_on_timeout(&mut self, now: Instant, env: &mut Env<'_>) {
        let Some(first) = self.cold.ring.get(0).map(|segment| segment.len) else { return };
        let timeouts = self.cold.timeouts;
        if self.cold.pmtu.claimed > 0 {
            let claimed = self.cold.pmtu.claimed;
            return self.lower_segment_size(now, claimed.min(self.hot.snd_mss));
        }
        let unproven = first > self.hot.largest_acked;
        let suspect = timeouts > if unproven { SUSPECT_UNPROVEN } else { SUSPECT_PROVEN };
        let Some(mtu) = self.next_below(&REFUGES).filter(|_| suspect && self.hot.snd_wnd > 0) else { return };
        let mss = mtu.saturating_sub(self.ip_and_tcp()) as u16;
        let options = self.hot.snd_mss - self.hot.smss.min(self.hot.snd_mss);
        if first > mss.saturating_sub(options) {
            env.counters.inc(Counter::TcpBlackHoles);
            self.lower_segment_size(now, mss);
        }
    }

    /// RFC 4821 §7.3: true when the segment of `whole` bytes at `seq`, larger than the present size, may go whole to see
    /// whether the path takes it by now. One in ten minutes.
    #[cold]
    pub(super) fn may_probe_size(&mut self, now: Instant, seq: SeqNum, whole: u16) -> bool {
        let options = self.hot.snd_mss - self.hot.smss.min(self.hot.snd_mss);
        let pmtu = &mut self.cold.pmtu;
        let fits = self.hot.snd_mss < pmtu.agreed && whole.saturating_add(options) <= pmtu.agreed;
        let calm = !self.hot.flags.intersects(ConnFlags::RECOVERY | ConnFlags::LOSS);
        if !fits || !calm || now < pmtu.raise_at {
            return false;
        }
        pmtu.raise_at = now + RAISE_AFTER;
        pmtu.probe_end = Some(seq + u32::from(whole));
        true
    }

    /// The peer has acknowledged a larger segment than any before.
    #[cold]
    pub(super) fn on_larger_acked(&mut self, payload: u16) {
        self.hot.largest_acked = payload;
        if payload > self.hot.smss && self.cold.pmtu.probe_end.is_some() {
            let options = self.hot.snd_mss - self.hot.smss.min(self.hot.snd_mss);
            self.cold.pmtu.probe_end = None;
            let mss = payload.saturating_add(options).min(self.cold.pmtu.agreed);
            self.set_segment_size(mss);
        }
    }
}
