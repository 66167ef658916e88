use super::*;

const MSS: u32 = 1_000;

fn event(now: Instant, bytes: u32) -> AckEvent {
    AckEvent { now, bytes, mss: MSS, srtt_us: 100_000, rtt_us: Some(100_000), round: false, paced: false }
}

/// A window after `rounds` round trips of 100 ms in which all of it is acknowledged.
fn after(cc: &mut Controller, mut cwnd: u32, start: Instant, rounds: u64) -> (u32, Instant) {
    let mut now = start;
    for _ in 0..rounds {
        let acks = cwnd / (2 * MSS);
        for index in 0..acks {
            let at = now + Duration::from_micros(100_000 * u64::from(index) / u64::from(acks.max(1)));
            cwnd = cc.on_ack(cwnd, &event(at, 2 * MSS));
        }
        now += Duration::from_millis(100);
    }
    (cwnd, now)
}

#[test]
fn slow_start_doubles_the_window_each_round() {
    let mut cc = Controller::new(CcKind::Cubic, 1);
    let (cwnd, _) = after(&mut cc, 10 * MSS, Instant::from_millis(1_000), 3);
    assert_eq!(cwnd, 80 * MSS);
}

#[test]
fn an_acknowledgment_of_a_whole_window_opens_it_by_eight_segments() {
    let mut cc = Controller::new(CcKind::Cubic, 1);
    let grown = cc.on_ack(100 * MSS, &event(Instant::from_millis(1_000), 100 * MSS));
    assert_eq!(grown, 108 * MSS);
}

#[test]
fn newreno_grows_by_a_segment_a_round_and_halves() {
    let mut cc = Controller::new(CcKind::NewReno, 1);
    cc.ssthresh = 20 * MSS;
    let (cwnd, _) = after(&mut cc, 20 * MSS, Instant::from_millis(1_000), 10);
    assert!((29 * MSS..=30 * MSS).contains(&cwnd), "{cwnd}");
    cc.on_event(CcEvent::Congestion { cwnd, flight: 30 * MSS, mss: MSS });
    assert_eq!(cc.ssthresh, 15 * MSS);
}

#[test]
fn cubic_comes_back_to_its_plateau_after_k_seconds() {
    let mut cc = Controller::new(CcKind::Cubic, 1);
    let old = 1_000 * MSS;
    cc.on_event(CcEvent::Congestion { cwnd: old, flight: old, mss: MSS });
    assert_eq!(cc.ssthresh, 700 * MSS);
    // K = cbrt(1000 * 0.3 / 0.4) = 9.09 s.
    let (at_k, now) = after(&mut cc, 700 * MSS, Instant::from_millis(1_000), 91);
    assert!((990 * MSS..=1_010 * MSS).contains(&at_k), "{at_k}");
    let (later, _) = after(&mut cc, at_k, now, 50);
    // 0.4 * 5^3 = 50 segments above it five seconds later.
    assert!((1_035 * MSS..=1_070 * MSS).contains(&later), "{later}");
}

#[test]
fn cubic_is_no_slower_than_reno_where_windows_are_small() {
    let mut cc = Controller::new(CcKind::Cubic, 1);
    cc.on_event(CcEvent::Congestion { cwnd: 20 * MSS, flight: 20 * MSS, mss: MSS });
    // 14 segments: by the curve alone K is 2.47 s; Reno's part wins back the six in 6 / 0.53 rounds.
    let (cwnd, _) = after(&mut cc, 14 * MSS, Instant::from_millis(1_000), 14);
    assert!(cwnd >= 20 * MSS, "{cwnd}");
}

#[test]
fn fast_convergence_lowers_the_plateau_of_a_flow_that_did_not_reach_it() {
    let mut cc = Controller::new(CcKind::Cubic, 1);
    cc.on_event(CcEvent::Congestion { cwnd: 1_000 * MSS, flight: 0, mss: MSS });
    cc.on_event(CcEvent::Congestion { cwnd: 800 * MSS, flight: 0, mss: MSS });
    // W_max = 800 * 0.85 = 680; from 560, K = cbrt(120 / 0.4) = 6.7 s.
    let (cwnd, _) = after(&mut cc, 560 * MSS, Instant::from_millis(1_000), 67);
    assert!((670 * MSS..=695 * MSS).contains(&cwnd), "{cwnd}");
}

#[test]
fn an_undo_restores_threshold_and_curve() {
    let mut cc = Controller::new(CcKind::Cubic, 1);
    cc.on_event(CcEvent::Congestion { cwnd: 1_000 * MSS, flight: 0, mss: MSS });
    let mut other = Controller::new(CcKind::Cubic, 1);
    other.on_event(CcEvent::Congestion { cwnd: 1_000 * MSS, flight: 0, mss: MSS });
    cc.on_event(CcEvent::Congestion { cwnd: 700 * MSS, flight: 0, mss: MSS });
    assert!(cc.ssthresh < other.ssthresh);
    cc.on_event(CcEvent::Undo);
    assert_eq!(cc.ssthresh, other.ssthresh);
    let start = Instant::from_millis(1_000);
    assert_eq!(after(&mut cc, 700 * MSS, start, 30), after(&mut other, 700 * MSS, start, 30));
}

#[test]
fn hystart_leaves_slow_start_when_the_rtt_rises() {
    let mut cc = Controller::new(CcKind::Cubic, 1);
    let mut cwnd = 10 * MSS;
    let mut now = Instant::from_millis(1_000);
    for round in 0..12_u32 {
        // The queue begins to build in the fourth round: the RTT rises by more than an eighth.
        let rtt = if round < 4 { 100_000 } else { 130_000 };
        let acks = cwnd / (2 * MSS);
        for index in 0..acks {
            let ack = AckEvent { rtt_us: Some(rtt), round: index == 0, ..event(now, 2 * MSS) };
            cwnd = cc.on_ack(cwnd, &ack);
        }
        now += Duration::from_millis(130);
    }
    assert!(cc.ssthresh < MAX_CWND, "slow start is over");
    // Five rounds of a quarter's growth each behind some 160 segments.
    assert!(cwnd < 700 * MSS, "{cwnd}");
}

#[test]
fn a_passing_rise_of_the_rtt_does_not_end_slow_start() {
    let mut cc = Controller::new(CcKind::Cubic, 1);
    let mut cwnd = 10 * MSS;
    for round in 0..8_u32 {
        let rtt = if round == 3 { 130_000 } else { 100_000 };
        for index in 0..cwnd / (2 * MSS) {
            let ack = AckEvent { rtt_us: Some(rtt), round: index == 0, ..event(Instant::from_millis(1_000), 2 * MSS) };
            cwnd = cc.on_ack(cwnd, &ack);
        }
    }
    assert_eq!(cc.ssthresh, MAX_CWND);
}

#[test]
fn time_without_sending_is_no_time_of_the_curve() {
    let mut cc = Controller::new(CcKind::Cubic, 1);
    cc.on_event(CcEvent::Congestion { cwnd: 1_000 * MSS, flight: 0, mss: MSS });
    let mut idle = Controller::new(CcKind::Cubic, 1);
    idle.on_event(CcEvent::Congestion { cwnd: 1_000 * MSS, flight: 0, mss: MSS });
    let (cwnd, now) = after(&mut cc, 700 * MSS, Instant::from_millis(1_000), 10);
    assert_eq!(after(&mut idle, 700 * MSS, Instant::from_millis(1_000), 10), (cwnd, now));
    idle.on_event(CcEvent::Idle(Duration::from_secs(60)));
    let resumed = idle.on_ack(cwnd, &event(now + Duration::from_secs(60), 2 * MSS));
    assert_eq!(resumed, cc.on_ack(cwnd, &event(now, 2 * MSS)));
}

/// The window after `acks` segments were acknowledged one by one in congestion avoidance.
fn coupled(kind: CcKind, coupling: Coupling, acks: u32) -> u32 {
    let mut controller = Controller::new(kind, 1);
    controller.ssthresh = 1;
    controller.coupling = coupling;
    (0..acks).fold(10 * MSS, |cwnd, _| controller.on_ack(cwnd, &event(Instant::from_millis(1_000), MSS)))
}

#[test]
fn uncoupled_numbers_are_those_of_newreno() {
    let reno = coupled(CcKind::NewReno, Coupling::default(), 100);
    assert_eq!(coupled(CcKind::Coupled, Coupling::default(), 100), reno);
    assert!(reno > 16 * MSS && reno < 19 * MSS, "{reno}");
}

#[test]
fn the_increase_scales_the_growth() {
    let tenth = Coupling { increase: 0.1, ..Coupling::default() };
    let grown = coupled(CcKind::Coupled, tenth, 100) - 10 * MSS;
    assert!((900..=1000).contains(&grown), "{grown}");
}

#[test]
fn a_negative_increase_shrinks_the_window_to_a_segment_and_no_further() {
    let shrinking = Coupling { increase: -0.5, ..Coupling::default() };
    let once = coupled(CcKind::Coupled, shrinking, 10);
    assert!(once < 10 * MSS && once > 9 * MSS, "{once}");
    assert_eq!(coupled(CcKind::Coupled, shrinking, 10_000), MSS);
}

#[test]
fn a_loss_takes_the_share_that_was_told_and_leaves_the_floor() {
    let mut controller = Controller::new(CcKind::Coupled, 1);
    controller.coupling = Coupling { decrease: 0.75, floor: 1, ..Coupling::default() };
    controller.on_event(CcEvent::Congestion { cwnd: 40 * MSS, flight: 40 * MSS, mss: MSS });
    assert_eq!(controller.ssthresh, 10 * MSS);
    controller.on_event(CcEvent::Congestion { cwnd: 3 * MSS, flight: 3 * MSS, mss: MSS });
    assert_eq!(controller.ssthresh, MSS);
    assert_eq!(controller.losses, 2);
}

#[test]
fn a_penalty_halves_window_and_threshold_but_sets_no_threshold_in_slow_start() {
    let mut controller = Controller::new(CcKind::Cubic, 1);
    assert_eq!(controller.on_penalty(40 * MSS, MSS), 20 * MSS);
    assert_eq!(controller.ssthresh, MAX_CWND);
    controller.ssthresh = 16 * MSS;
    assert_eq!(controller.on_penalty(20 * MSS, MSS), 10 * MSS);
    assert_eq!(controller.ssthresh, 8 * MSS);
    assert_eq!(controller.on_penalty(MSS, MSS), MSS);
}
