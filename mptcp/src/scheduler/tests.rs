use super::*;

fn candidate(index: usize, rtt_ms: u64, space: u32) -> Candidate {
    Candidate {
        index,
        holder: 1 << index,
        srtt: Duration::from_millis(rtt_ms),
        space,
        cwnd: 20_000,
        queued: 0,
        idle: false,
    }
}

fn all(list: &[Candidate]) -> Candidates {
    list.iter().copied().collect()
}

#[test]
fn the_lowest_rtt_goes_first_until_its_window_is_full() {
    let mut candidates = all(&[candidate(0, 50, 5000), candidate(1, 10, 2000)]);
    let mut scheduler = Scheduler::new(SchedulerKind::LowestRtt);
    let mut order = Vec::new();
    while let Some(at) = scheduler.pick(&candidates, 1000, u64::MAX) {
        order.push(candidates[at].index);
        candidates[at].book(1000);
    }
    assert_eq!(order, [1, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn round_robin_takes_turns_and_skips_the_full() {
    let mut candidates = all(&[candidate(0, 50, 9000), candidate(1, 10, 1000), candidate(3, 20, 9000)]);
    let mut scheduler = Scheduler::new(SchedulerKind::RoundRobin);
    let mut order = Vec::new();
    for _ in 0..6 {
        let at = scheduler.pick(&candidates, 1000, u64::MAX).unwrap();
        order.push(candidates[at].index);
        candidates[at].book(1000);
    }
    assert_eq!(order, [1, 3, 0, 3, 0, 3]);
}

#[test]
fn an_idle_subflow_takes_a_segment_larger_than_its_window() {
    let mut only = candidate(0, 10, 100);
    assert_eq!(lowest_rtt(&all(&[only]), 1000, 0), None);
    only.idle = true;
    assert_eq!(lowest_rtt(&all(&[only]), 1000, 0), Some(0));
}

#[test]
fn a_subflow_that_holds_the_data_is_no_candidate_for_its_reinjection() {
    let candidates = all(&[candidate(0, 50, 5000), candidate(1, 10, 5000)]);
    assert_eq!(lowest_rtt(&candidates, 1000, 0b10), Some(0));
    assert_eq!(lowest_rtt(&candidates, 1000, 0b11), None);
}

#[test]
fn blest_keeps_data_off_a_slow_path_that_would_block_the_window() {
    let fast = Candidate { space: 0, ..candidate(0, 10, 0) };
    let slow = candidate(1, 100, 20_000);
    let mut scheduler = Scheduler::new(SchedulerKind::Blest);
    assert_eq!(scheduler.pick(&all(&[fast, slow]), 1000, 50_000), None);
    assert_eq!(scheduler.pick(&all(&[fast, slow]), 1000, 10_000_000), Some(1));
}
