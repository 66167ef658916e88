use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

fn drain(wheel: &mut TimerWheel<u32>, now: Instant) -> Vec<u32> {
    std::iter::from_fn(|| wheel.pop_due(now)).collect()
}

#[test]
fn nothing_comes_due_early_or_more_than_a_tick_late() {
    let mut wheel = TimerWheel::new();
    wheel.schedule(at(1_500_000), 1);
    assert_eq!(wheel.pop_due(at(1_499_999)), None);
    assert_eq!(wheel.pop_due(at(1_999_999)), None);
    assert_eq!(wheel.pop_due(at(2_000_000)), Some(1));
    assert!(wheel.is_empty());
}

#[test]
fn what_is_past_is_due_at_once() {
    let mut wheel = TimerWheel::new();
    assert_eq!(wheel.pop_due(Instant::from_millis(500)), None);
    wheel.schedule(Instant::from_millis(5000), 9);
    assert_eq!(wheel.pop_due(Instant::from_millis(4999)), None);
    wheel.schedule(Instant::from_millis(3), 1);
    assert!(wheel.next_deadline().unwrap() <= Instant::from_millis(4999));
    assert_eq!(wheel.pop_due(Instant::from_millis(4999)), Some(1));
}

#[test]
fn an_empty_wheel_has_no_deadline() {
    let mut wheel = TimerWheel::<u32>::new();
    assert_eq!(wheel.next_deadline(), None);
    wheel.schedule(Instant::MAX, 1);
    assert_eq!(wheel.next_deadline(), None);
}

#[test]
fn entries_of_one_tick_come_in_the_order_they_were_scheduled() {
    let mut wheel = TimerWheel::new();
    for token in 0..10 {
        wheel.schedule(Instant::from_millis(300), token);
    }
    assert_eq!(drain(&mut wheel, Instant::from_millis(300)), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_late_visit_gives_everything_in_the_order_of_time() {
    let mut wheel = TimerWheel::new();
    let times = [5_000_000u64, 3, 70, 4096, 65, 64, 63, 1, 262_144, 900];
    for &time in &times {
        wheel.schedule(Instant::from_millis(time), time as u32);
    }
    let mut expected: Vec<u32> = times.iter().map(|&time| time as u32).collect();
    expected.sort_unstable();
    assert_eq!(drain(&mut wheel, Instant::from_millis(10_000_000)), expected);
}

#[test]
fn a_warm_wheel_does_not_grow() {
    let mut wheel = TimerWheel::new();
    for round in 0..1000u64 {
        for token in 0..10u32 {
            wheel.schedule(Instant::from_millis(round + 200 + u64::from(token)), token);
        }
        while wheel.pop_due(Instant::from_millis(round)).is_some() {}
    }
    assert!(wheel.entries.len() <= 10 * 211, "{} entries", wheel.entries.len());
}

#[test]
fn the_ends_of_time_are_in_reach() {
    let mut wheel = TimerWheel::new();
    wheel.schedule(at(u64::MAX - 1), 1);
    wheel.schedule(at(u64::MAX - TICK_NANOS * 2), 2);
    wheel.schedule(at(0), 0);
    assert_eq!(drain(&mut wheel, at(0)), [0]);
    assert_eq!(drain(&mut wheel, at(u64::MAX - TICK_NANOS)), [2]);
}

#[derive(Clone, Debug)]
enum Step {
    Schedule(u64),
    Advance(u64),
    ToDeadline,
}

fn nanos() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..3_000_000, 0u64..300_000_000, 0u64..20_000_000_000, 0u64..5_000_000_000_000_000]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => nanos().prop_map(Step::Schedule),
        1 => nanos().prop_map(Step::Advance),
        3 => Just(Step::ToDeadline),
    ];
    proptest::collection::vec(step, 0..300)
}

proptest! {
    #[test]
    fn the_wheel_equals_a_sorted_list(start in nanos(), steps in steps()) {
        let mut wheel = TimerWheel::new();
        let mut now = at(start);
        // By tick, and by order of scheduling within it.
        let mut model: BTreeMap<(u64, u32), ()> = BTreeMap::new();
        let mut token = 0;
        for step in steps {
            match step {
                Step::Schedule(after) => {
                    let due = at(now.as_nanos() + after);
                    wheel.schedule(due, token);
                    model.insert((due.as_nanos().div_ceil(TICK_NANOS), token), ());
                    token += 1;
                }
                Step::Advance(by) => now = at(now.as_nanos() + by),
                Step::ToDeadline => now = wheel.next_deadline().unwrap_or(now).max(now),
            }
            let first = model.keys().next().map(|&(tick, _)| tick * TICK_NANOS);
            match (wheel.next_deadline(), first) {
                (None, None) => {}
                (Some(deadline), Some(first)) => prop_assert!(deadline.as_nanos() <= first.max(now.as_nanos())),
                (deadline, first) => prop_assert!(false, "{:?} for {:?}", deadline, first),
            }
            if matches!(step, Step::Schedule(_)) {
                continue;
            }
            let expected: Vec<u32> = {
                let later = model.split_off(&(now.as_nanos() / TICK_NANOS + 1, 0));
                std::mem::replace(&mut model, later).into_keys().map(|(_, token)| token).collect()
            };
            let mut popped = drain(&mut wheel, now);
            // Entries of one tick that were sorted at different times may change places.
            popped.sort_unstable();
            let mut expected = expected;
            expected.sort_unstable();
            prop_assert_eq!(popped, expected);
            prop_assert_eq!(wheel.len(), model.len());
        }
        // A driver that sleeps from deadline to deadline comes to the end in few steps.
        let mut visits = 0;
        while let Some(deadline) = wheel.next_deadline() {
            now = now.max(deadline);
            let before = model.len();
            for token in drain(&mut wheel, now) {
                model.retain(|&(_, other), ()| other != token);
            }
            visits += 1;
            prop_assert!(visits <= (before + 1) * WHEEL_LEVELS * 300, "no progress");
        }
        prop_assert!(model.is_empty());
    }
}
