use super::*;

const MSS: u32 = 1000;

fn event() -> AckEvent {
    AckEvent {
        now: Instant::from_millis(1000),
        bytes: MSS,
        mss: MSS,
        srtt_us: 10_000,
        rtt_us: Some(10_000),
        round: false,
    }
}

/// The window after `acks` segments were acknowledged one by one in congestion avoidance.
fn after(kind: CcKind, coupling: Coupling, acks: u32) -> u32 {
    let mut controller = Controller::new(kind);
    controller.ssthresh = 1;
    controller.coupling = coupling;
    (0..acks).fold(10 * MSS, |cwnd, _| controller.on_ack(cwnd, &event()))
}

#[test]
fn uncoupled_numbers_are_those_of_newreno() {
    let reno = after(CcKind::NewReno, Coupling::default(), 100);
    assert_eq!(after(CcKind::Coupled, Coupling::default(), 100), reno);
    assert!(reno > 16 * MSS && reno < 19 * MSS, "{reno}");
}

#[test]
fn the_increase_scales_the_growth() {
    let tenth = Coupling { increase: 0.1, ..Coupling::default() };
    let grown = after(CcKind::Coupled, tenth, 100) - 10 * MSS;
    assert!((900..=1000).contains(&grown), "{grown}");
}

#[test]
fn a_negative_increase_shrinks_the_window_to_a_segment_and_no_further() {
    let shrinking = Coupling { increase: -0.5, ..Coupling::default() };
    let once = after(CcKind::Coupled, shrinking, 10);
    assert!(once < 10 * MSS && once > 9 * MSS, "{once}");
    assert_eq!(after(CcKind::Coupled, shrinking, 10_000), MSS);
}

#[test]
fn a_loss_takes_the_share_that_was_told_and_leaves_the_floor() {
    let mut controller = Controller::new(CcKind::Coupled);
    controller.coupling = Coupling { decrease: 0.75, floor: 1, ..Coupling::default() };
    assert_eq!(controller.on_loss(40 * MSS, 40 * MSS, MSS), 10 * MSS);
    assert_eq!(controller.on_loss(3 * MSS, 3 * MSS, MSS), MSS);
    assert_eq!(controller.losses, 2);
}

#[test]
fn a_penalty_halves_window_and_threshold_but_sets_no_threshold_in_slow_start() {
    let mut controller = Controller::new(CcKind::Cubic);
    assert_eq!(controller.on_penalty(40 * MSS, MSS), 20 * MSS);
    assert_eq!(controller.ssthresh, MAX_CWND);
    controller.ssthresh = 16 * MSS;
    assert_eq!(controller.on_penalty(20 * MSS, MSS), 10 * MSS);
    assert_eq!(controller.ssthresh, 8 * MSS);
    assert_eq!(controller.on_penalty(MSS, MSS), MSS);
}
