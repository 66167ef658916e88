use super::*;

#[test]
fn copies_of_a_monotonic_clock_agree_and_never_go_back() {
    let clock = MonotonicClock::start();
    let copy = clock;
    let first = clock.now();
    let second = copy.now();
    assert!(first >= Instant::from_millis(1_000));
    assert!(second >= first);
    assert!(clock.unix_nanos(second) >= clock.unix_nanos(first));
}

#[test]
fn clones_of_a_manual_clock_share_one_time() {
    let clock = ManualClock::new(Instant::from_millis(5));
    let clone = clock.clone();
    clock.advance(Duration::from_millis(2));
    assert_eq!(clone.now(), Instant::from_millis(7));
    clone.advance_to(Instant::from_millis(6));
    assert_eq!(clock.now(), Instant::from_millis(7), "it does not go back");
}
