//! BBR, version 3 as publicly described (draft-ietf-ccwg-bbr): a model of the path, its bandwidth and its least RTT, paces
//! what is sent; loss bounds the model, it does not drive it.

use super::rate::{LostSegment, RateSample};
use crate::time::{Duration, Instant};

/// Gains, in hundredths.
const STARTUP_PACING_GAIN: u64 = 277;
const DRAIN_PACING_GAIN: u64 = 50;
const DOWN_PACING_GAIN: u64 = 90;
const CRUISE_PACING_GAIN: u64 = 100;
const UP_PACING_GAIN: u64 = 125;
const CWND_GAIN: u64 = 200;
const UP_CWND_GAIN: u64 = 225;
const PROBE_RTT_CWND_GAIN: u64 = 50;
/// So much less than the model is sent, in hundredths, so that queues drain.
const PACING_MARGIN: u64 = 1;
/// Share of a flight whose loss says that it was too much, in hundredths.
const LOSS_THRESHOLD: u64 = 2;
/// What remains of a bound after a loss, in hundredths.
const BETA: u64 = 70;
/// Share of the longest flight left to others while cruising, in hundredths.
const HEADROOM: u64 = 15;
/// Rounds without a quarter's growth after which the pipe is full.
const FULL_ROUNDS: u8 = 3;
/// Losses in a round of startup that end it.
const STARTUP_LOSSES: u8 = 6;
/// Segments that the window keeps.
const MIN_PIPE: u32 = 4;
const PROBE_RTT_INTERVAL: Duration = Duration::from_secs(5);
const PROBE_RTT_TIME: Duration = Duration::from_millis(200);
const MIN_RTT_WINDOW: Duration = Duration::from_secs(10);
/// Rounds that one half of the acknowledgment aggregation filter lasts.
const EXTRA_ACKED_ROUNDS: u64 = 5;
/// No bound.
const UNBOUNDED: u64 = u64::MAX;
/// Rounds after which bandwidth is probed at the latest, as Reno would have grown by a segment in each.
const MOST_ROUNDS: u64 = 63;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Startup,
    Drain,
    Down,
    Cruise,
    Refill,
    Up,
    ProbeRtt,
}

/// What acknowledgments are about while bandwidth is probed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Acks {
    Ordinary,
    Refilling,
    ProbeStarting,
    ProbeFeedback,
    ProbeStopping,
}

/// What an acknowledgment says beside its rate.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct ModelAck {
    pub now: Instant,
    pub sample: RateSample,
    /// Bytes delivered in all.
    pub delivered: u64,
    /// Bytes in flight after it.
    pub in_flight: u32,
    pub mss: u32,
    pub rtt_us: Option<u32>,
    /// The window, not the application, limits what is sent.
    pub cwnd_limited: bool,
    /// Losses are being repaired.
    pub recovering: bool,
}

/// The model and the state of its probing.
#[derive(Debug)]
pub(super) struct Bbr {
    phase: Phase,
    acks: Acks,
    /// Greatest bandwidth of the last probing cycle and of this one.
    max_bw: [u64; 2],
    /// Bounds from losses since the last probe, and from the last probe that lost too much.
    bw_short: u64,
    inflight_short: u64,
    inflight_long: u64,
    bw_latest: u64,
    inflight_latest: u64,
    /// Rounds, by bytes delivered.
    next_round: u64,
    round_start: bool,
    rounds: u64,
    rounds_since_probe: u64,
    loss_round: u64,
    loss_round_start: bool,
    loss_in_round: bool,
    losses_in_round: u8,
    lost_in_round: u64,
    full_bw: u64,
    full_rounds: u8,
    full_now: bool,
    full_reached: bool,
    cycle_at: Instant,
    probe_wait: Duration,
    probe_samples: bool,
    probe_up_rounds: u32,
    probe_up_acked: u64,
    /// Bytes to be acknowledged for each segment that the long bound is raised by.
    probe_up_count: u64,
    min_rtt: Duration,
    min_rtt_at: Instant,
    probe_rtt_min: Duration,
    probe_rtt_min_at: Instant,
    probe_rtt_done_at: Option<Instant>,
    probe_rtt_round_done: bool,
    prior_cwnd: u32,
    extra_acked: [u64; 2],
    extra_acked_round: u64,
    extra_acked_at: Instant,
    extra_acked_delivered: u64,
    pacing_rate: u64,
    initial_cwnd: u32,
    /// State of a small generator: flows that share a path must not probe in step.
    dice: u64,
}

impl Bbr {
    /// `seed` need not be secret, only different from other connections'.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            phase: Phase::Startup,
            acks: Acks::Ordinary,
            max_bw: [0; 2],
            bw_short: UNBOUNDED,
            inflight_short: UNBOUNDED,
            inflight_long: UNBOUNDED,
            bw_latest: 0,
            inflight_latest: 0,
            next_round: 0,
            round_start: false,
            rounds: 0,
            rounds_since_probe: 0,
            loss_round: 0,
            loss_round_start: false,
            loss_in_round: false,
            losses_in_round: 0,
            lost_in_round: 0,
            full_bw: 0,
            full_rounds: 0,
            full_now: false,
            full_reached: false,
            cycle_at: Instant::ZERO,
            probe_wait: Duration::ZERO,
            probe_samples: false,
            probe_up_rounds: 0,
            probe_up_acked: 0,
            probe_up_count: u64::MAX,
            min_rtt: Duration::MAX,
            min_rtt_at: Instant::ZERO,
            probe_rtt_min: Duration::MAX,
            probe_rtt_min_at: Instant::ZERO,
            probe_rtt_done_at: None,
            probe_rtt_round_done: false,
            prior_cwnd: 0,
            extra_acked: [0; 2],
            extra_acked_round: 0,
            extra_acked_at: Instant::ZERO,
            extra_acked_delivered: 0,
            pacing_rate: 0,
            initial_cwnd: 0,
            dice: seed | 1,
        }
    }

    /// Bytes a second that data leaves at; `cwnd` in an RTT before anything was measured.
    pub(super) fn pacing_rate(&self, cwnd: u32, srtt_us: u32) -> u64 {
        if self.pacing_rate > 0 {
            return self.pacing_rate;
        }
        u64::from(cwnd) * 10_000 * STARTUP_PACING_GAIN / u64::from(srtt_us.max(1_000))
    }

    /// The least RTT; zero before it is known.
    pub(super) fn min_rtt(&self) -> Duration {
        if self.min_rtt == Duration::MAX { Duration::ZERO } else { self.min_rtt }
    }

    /// True while the model wants little in flight to see the path's least RTT: what it measures then says nothing of the
    /// bandwidth.
    pub(super) fn is_probing_rtt(&self) -> bool {
        self.phase == Phase::ProbeRtt
    }

    /// The window after an acknowledgment.
    pub(super) fn on_ack(&mut self, cwnd: u32, ack: &ModelAck) -> u32 {
        if self.initial_cwnd == 0 {
            self.initial_cwnd = cwnd;
        }
        self.update_latest(ack);
        self.update_congestion_signals(cwnd, ack);
        self.update_aggregation(cwnd, ack);
        self.check_full_pipe(&ack.sample);
        self.check_startup_done(ack);
        if self.phase == Phase::Drain && u64::from(ack.in_flight) <= self.inflight(100, ack.mss) {
            self.start_down(ack);
        }
        self.update_probing(cwnd, ack);
        self.update_min_rtt(ack);
        let cwnd = self.check_probe_rtt(cwnd, ack);
        if self.loss_round_start {
            (self.bw_latest, self.inflight_latest) = (ack.sample.rate, ack.sample.delivered);
        }
        self.set_pacing_rate();
        self.window(cwnd, ack)
    }

    /// The retransmission timer fired: the window starts again from what is in flight.
    pub(super) fn on_timeout(&mut self, cwnd: u32) {
        if self.phase != Phase::ProbeRtt {
            self.prior_cwnd = self.prior_cwnd.max(cwnd);
        }
    }

    /// The window when recovery is over, or was a mistake.
    pub(super) fn restored(&mut self, cwnd: u32) -> u32 {
        cwnd.max(std::mem::take(&mut self.prior_cwnd))
    }

    fn bw(&self) -> u64 {
        self.max_bw[0].max(self.max_bw[1]).min(self.bw_short)
    }

    fn greatest_bw(&self) -> u64 {
        self.max_bw[0].max(self.max_bw[1])
    }

    /// Bandwidth times least RTT, times a gain in hundredths; the initial window before they are known.
    fn bdp(&self, bw: u64, gain: u64) -> u64 {
        if self.min_rtt == Duration::MAX {
            return u64::from(self.initial_cwnd);
        }
        (u128::from(bw) * u128::from(self.min_rtt.as_nanos()) * u128::from(gain) / 100_000_000_000) as u64
    }

    fn inflight(&self, gain: u64, mss: u32) -> u64 {
        self.bdp(self.bw(), gain).max(u64::from(MIN_PIPE * mss))
    }

    fn update_latest(&mut self, ack: &ModelAck) {
        let sample = &ack.sample;
        self.round_start = sample.delivered > 0 && sample.prior_delivered >= self.next_round;
        if self.round_start {
            self.next_round = ack.delivered;
            self.rounds += 1;
            self.rounds_since_probe += 1;
        }
        self.loss_round_start = sample.delivered > 0 && sample.prior_delivered >= self.loss_round;
        if self.loss_round_start {
            self.loss_round = ack.delivered;
        }
        self.bw_latest = self.bw_latest.max(sample.rate);
        self.inflight_latest = self.inflight_latest.max(sample.delivered);
        if sample.rate >= self.greatest_bw() || !sample.app_limited {
            self.max_bw[1] = self.max_bw[1].max(sample.rate);
        }
    }

    fn update_congestion_signals(&mut self, cwnd: u32, ack: &ModelAck) {
        if ack.sample.newly_lost > 0 {
            self.loss_in_round = true;
            self.losses_in_round = self.losses_in_round.saturating_add(1);
            self.lost_in_round += u64::from(ack.sample.newly_lost);
        }
        if !self.loss_round_start {
            return;
        }
        let probing = matches!(self.phase, Phase::Startup | Phase::Refill | Phase::Up);
        if self.loss_in_round && !probing {
            if self.bw_short == UNBOUNDED {
                self.bw_short = self.greatest_bw();
            }
            if self.inflight_short == UNBOUNDED {
                self.inflight_short = u64::from(cwnd);
            }
            self.bw_short = self.bw_latest.max(self.bw_short / 100 * BETA);
            self.inflight_short = self.inflight_latest.max(self.inflight_short * BETA / 100);
        }
        if !self.full_reached && ack.recovering {
            self.check_startup_loss(ack.mss);
        }
        self.loss_in_round = false;
        (self.losses_in_round, self.lost_in_round) = (0, 0);
    }

    /// Startup ends when a round loses much.
    fn check_startup_loss(&mut self, mss: u32) {
        let round = self.inflight_latest + self.lost_in_round;
        if self.losses_in_round >= STARTUP_LOSSES && self.lost_in_round * 100 > round * LOSS_THRESHOLD {
            self.full_reached = true;
            self.inflight_long =
                self.bdp(self.greatest_bw(), 100).max(self.inflight_latest).max(u64::from(MIN_PIPE * mss));
        }
    }

    fn update_aggregation(&mut self, cwnd: u32, ack: &ModelAck) {
        let interval = ack.now.since(self.extra_acked_at);
        let mut expected = (u128::from(self.bw()) * u128::from(interval.as_nanos()) / 1_000_000_000) as u64;
        if self.extra_acked_delivered <= expected {
            self.extra_acked_delivered = 0;
            self.extra_acked_at = ack.now;
            expected = 0;
        }
        self.extra_acked_delivered += u64::from(ack.sample.newly_acked);
        if self.rounds >= self.extra_acked_round + EXTRA_ACKED_ROUNDS {
            self.extra_acked_round = self.rounds;
            self.extra_acked = [self.extra_acked[1], 0];
        }
        let extra = self.extra_acked_delivered.saturating_sub(expected).min(u64::from(cwnd));
        self.extra_acked[1] = self.extra_acked[1].max(extra);
    }

    fn forget_full_pipe(&mut self) {
        (self.full_bw, self.full_rounds, self.full_now) = (0, 0, false);
    }

    fn check_full_pipe(&mut self, sample: &RateSample) {
        if self.full_now || !self.round_start || sample.app_limited || sample.rate == 0 {
            return;
        }
        if sample.rate >= self.full_bw + self.full_bw / 4 {
            self.forget_full_pipe();
            self.full_bw = sample.rate;
            return;
        }
        self.full_rounds += 1;
        self.full_now = self.full_rounds >= FULL_ROUNDS;
        self.full_reached |= self.full_now;
    }

    fn check_startup_done(&mut self, ack: &ModelAck) {
        if self.phase == Phase::Startup && self.full_reached {
            self.phase = Phase::Drain;
            if u64::from(ack.in_flight) <= self.inflight(100, ack.mss) {
                self.start_down(ack);
            }
        }
    }

    fn is_in_probe_bw(&self) -> bool {
        matches!(self.phase, Phase::Down | Phase::Cruise | Phase::Refill | Phase::Up)
    }

    fn update_probing(&mut self, cwnd: u32, ack: &ModelAck) {
        if !self.full_reached {
            return;
        }
        self.adapt_long_bound(cwnd, ack);
        match self.phase {
            Phase::Down => {
                let probes = self.try_refill(ack);
                if !probes && self.may_cruise(ack) {
                    self.phase = Phase::Cruise;
                }
            }
            Phase::Cruise => {
                self.try_refill(ack);
            }
            Phase::Refill if self.round_start => {
                // What is acknowledged from here on was sent with the pipe full.
                self.probe_samples = true;
                self.start_up(cwnd, ack);
            }
            Phase::Up => {
                if ack.cwnd_limited && u64::from(cwnd) >= self.inflight_long {
                    // It is the bound that limits, not the path.
                    self.forget_full_pipe();
                    self.full_bw = ack.sample.rate;
                } else if self.full_now {
                    self.start_down(ack);
                }
            }
            _ => {}
        }
    }

    fn adapt_long_bound(&mut self, cwnd: u32, ack: &ModelAck) {
        if self.round_start {
            match self.acks {
                Acks::ProbeStarting => self.acks = Acks::ProbeFeedback,
                Acks::ProbeStopping => {
                    self.acks = Acks::Ordinary;
                    self.probe_samples = false;
                    if self.is_in_probe_bw() && !ack.sample.app_limited && self.max_bw[1] > 0 {
                        self.max_bw = [self.max_bw[1], 0];
                    }
                }
                _ => {}
            }
        }
        if let Some(lost) = ack.sample.worst.filter(|_| self.probe_samples)
            && lost.lost * 100 > u64::from(lost.tx_in_flight) * LOSS_THRESHOLD
        {
            return self.on_inflight_too_high(ack, inflight_at(&lost), lost.app_limited);
        }
        let sample = &ack.sample;
        if sample.lost * 100 > u64::from(sample.tx_in_flight) * LOSS_THRESHOLD {
            if self.probe_samples {
                self.on_inflight_too_high(ack, u64::from(sample.tx_in_flight), sample.app_limited);
            }
            return;
        }
        if self.inflight_long == UNBOUNDED {
            return;
        }
        self.inflight_long = self.inflight_long.max(u64::from(sample.tx_in_flight));
        if self.phase == Phase::Up {
            self.raise_long_bound(cwnd, ack);
        }
    }

    fn raise_long_bound(&mut self, cwnd: u32, ack: &ModelAck) {
        if !ack.cwnd_limited || u64::from(cwnd) < self.inflight_long {
            return;
        }
        self.probe_up_acked += u64::from(ack.sample.newly_acked);
        if self.probe_up_acked >= self.probe_up_count {
            let segments = self.probe_up_acked / self.probe_up_count.max(1);
            self.probe_up_acked -= segments * self.probe_up_count;
            self.inflight_long += segments * u64::from(ack.mss);
        }
        if self.round_start {
            self.raise_slope(cwnd);
        }
    }

    /// Each round of probing raises the bound by twice as many segments as the one before.
    fn raise_slope(&mut self, cwnd: u32) {
        self.probe_up_count = (u64::from(cwnd) >> self.probe_up_rounds).max(1);
        self.probe_up_rounds = (self.probe_up_rounds + 1).min(30);
    }

    fn on_inflight_too_high(&mut self, ack: &ModelAck, inflight: u64, app_limited: bool) {
        self.probe_samples = false;
        if !app_limited {
            let target = self.bdp(self.bw(), 100) * BETA / 100;
            self.inflight_long = inflight.max(target).max(u64::from(MIN_PIPE * ack.mss));
        }
        if self.phase == Phase::Up {
            self.start_down(ack);
        }
    }

    /// Starts a probe when it is time: after some seconds, or as many rounds as Reno would need for a segment more.
    fn try_refill(&mut self, ack: &ModelAck) -> bool {
        let reno_rounds = (self.bdp(self.bw(), 100) / u64::from(ack.mss.max(1))).min(MOST_ROUNDS);
        let due = ack.now.since(self.cycle_at) > self.probe_wait || self.rounds_since_probe >= reno_rounds.max(2);
        if due {
            (self.bw_short, self.inflight_short) = (UNBOUNDED, UNBOUNDED);
            (self.probe_up_rounds, self.probe_up_acked) = (0, 0);
            self.acks = Acks::Refilling;
            self.next_round = ack.delivered;
            self.phase = Phase::Refill;
        }
        due
    }

    fn start_up(&mut self, cwnd: u32, ack: &ModelAck) {
        self.acks = Acks::ProbeStarting;
        self.next_round = ack.delivered;
        self.forget_full_pipe();
        self.full_bw = ack.sample.rate;
        self.cycle_at = ack.now;
        self.phase = Phase::Up;
        self.raise_slope(cwnd);
    }

    fn start_down(&mut self, ack: &ModelAck) {
        self.loss_in_round = false;
        (self.bw_latest, self.inflight_latest) = (0, 0);
        self.probe_up_count = u64::MAX;
        let roll = self.roll();
        self.rounds_since_probe = roll & 1;
        self.probe_wait = Duration::from_millis(2_000 + (roll >> 8) % 1_000);
        self.cycle_at = ack.now;
        self.acks = Acks::ProbeStopping;
        self.next_round = ack.delivered;
        self.phase = Phase::Down;
    }

    fn roll(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice
    }

    fn with_headroom(&self, mss: u32) -> u64 {
        if self.inflight_long == UNBOUNDED {
            return UNBOUNDED;
        }
        let headroom = (self.inflight_long * HEADROOM / 100).max(u64::from(mss));
        self.inflight_long.saturating_sub(headroom).max(u64::from(MIN_PIPE * mss))
    }

    fn may_cruise(&self, ack: &ModelAck) -> bool {
        let in_flight = u64::from(ack.in_flight);
        in_flight <= self.with_headroom(ack.mss) && in_flight <= self.inflight(100, ack.mss)
    }

    fn update_min_rtt(&mut self, ack: &ModelAck) {
        let Some(rtt) = ack.rtt_us.map(|us| Duration::from_micros(u64::from(us))) else { return };
        let expired = ack.now.since(self.probe_rtt_min_at) > PROBE_RTT_INTERVAL;
        if rtt < self.probe_rtt_min || expired && self.phase == Phase::ProbeRtt {
            (self.probe_rtt_min, self.probe_rtt_min_at) = (rtt, ack.now);
        }
        if self.probe_rtt_min < self.min_rtt || ack.now.since(self.min_rtt_at) > MIN_RTT_WINDOW {
            (self.min_rtt, self.min_rtt_at) = (self.probe_rtt_min, self.probe_rtt_min_at);
        }
    }

    fn check_probe_rtt(&mut self, cwnd: u32, ack: &ModelAck) -> u32 {
        let expired = ack.now.since(self.probe_rtt_min_at) > PROBE_RTT_INTERVAL && self.min_rtt != Duration::MAX;
        if self.phase != Phase::ProbeRtt {
            if !expired {
                return cwnd;
            }
            self.prior_cwnd = self.prior_cwnd.max(cwnd);
            self.phase = Phase::ProbeRtt;
            self.acks = Acks::ProbeStopping;
            self.next_round = ack.delivered;
            self.probe_rtt_done_at = None;
            // What is measured from now on takes the place of what has grown old.
            self.probe_rtt_min = Duration::MAX;
            return cwnd;
        }
        match self.probe_rtt_done_at {
            None if u64::from(ack.in_flight) <= self.inflight(PROBE_RTT_CWND_GAIN, ack.mss) => {
                self.probe_rtt_done_at = Some(ack.now + PROBE_RTT_TIME);
                self.probe_rtt_round_done = false;
                self.next_round = ack.delivered;
            }
            Some(done) => {
                self.probe_rtt_round_done |= self.round_start;
                if self.probe_rtt_round_done && ack.now > done {
                    return self.leave_probe_rtt(cwnd, ack);
                }
            }
            None => {}
        }
        cwnd
    }

    fn leave_probe_rtt(&mut self, cwnd: u32, ack: &ModelAck) -> u32 {
        self.probe_rtt_min_at = ack.now;
        (self.bw_short, self.inflight_short) = (UNBOUNDED, UNBOUNDED);
        if self.full_reached {
            self.start_down(ack);
            self.phase = Phase::Cruise;
        } else {
            self.phase = Phase::Startup;
        }
        self.restored(cwnd)
    }

    fn set_pacing_rate(&mut self) {
        let gain = match self.phase {
            Phase::Startup => STARTUP_PACING_GAIN,
            Phase::Drain => DRAIN_PACING_GAIN,
            Phase::Down => DOWN_PACING_GAIN,
            Phase::Cruise | Phase::Refill | Phase::ProbeRtt => CRUISE_PACING_GAIN,
            Phase::Up => UP_PACING_GAIN,
        };
        let rate = self.bw() / 100 * gain / 100 * (100 - PACING_MARGIN);
        if rate > 0 && (self.full_reached || rate > self.pacing_rate) {
            self.pacing_rate = rate;
        }
    }

    fn window(&self, cwnd: u32, ack: &ModelAck) -> u32 {
        let gain = if self.phase == Phase::Up { UP_CWND_GAIN } else { CWND_GAIN };
        let most = self.inflight(gain, ack.mss) + self.extra_acked[0].max(self.extra_acked[1]) + u64::from(3 * ack.mss);
        let grown = u64::from(cwnd) + u64::from(ack.sample.newly_acked);
        let mut window = if self.full_reached {
            grown.min(most)
        } else if u64::from(cwnd) < most || ack.delivered < 2 * u64::from(self.initial_cwnd) {
            grown
        } else {
            u64::from(cwnd)
        };
        if self.phase == Phase::ProbeRtt {
            window = window.min(self.inflight(PROBE_RTT_CWND_GAIN, ack.mss));
        }
        let bound = match self.phase {
            Phase::Down | Phase::Refill | Phase::Up => self.inflight_long,
            Phase::Cruise | Phase::ProbeRtt => self.with_headroom(ack.mss),
            Phase::Startup | Phase::Drain => UNBOUNDED,
        };
        let bound = bound.min(self.inflight_short);
        window.min(bound).max(u64::from(MIN_PIPE * ack.mss)).min(u64::from(super::MAX_CWND)) as u32
    }
}

/// How much was in flight when the loss passed the threshold: some of the lost segment was still fine.
fn inflight_at(lost: &LostSegment) -> u64 {
    let before = u64::from(lost.tx_in_flight.saturating_sub(lost.len));
    let lost_before = lost.lost.saturating_sub(u64::from(lost.len));
    let fine = (before * LOSS_THRESHOLD).saturating_sub(lost_before * 100) / (100 - LOSS_THRESHOLD);
    before + fine
}
