use super::*;

const FULL: Offered = Offered { bytes: 1500, carried: 1500, exposed: 1500 };
const DELAY: Duration = Duration::from_millis(10);

fn options() -> LinkOptions {
    LinkOptions { rate_bps: 100_000_000, delay: DELAY, queue_bytes: 1 << 30, ..LinkOptions::CLEAN }
}

fn channel(options: LinkOptions, seed: u64) -> Channel {
    Channel::new(options, Dice::EachPacket(seed))
}

fn arrival(fate: Fate) -> Option<Instant> {
    match fate {
        Fate::Passes(passage) => Some(passage.at),
        _ => None,
    }
}

/// Which of `count` packets are lost, sent `gap` apart.
fn lost(options: LinkOptions, seed: u64, count: usize, gap: Duration) -> Vec<usize> {
    let mut channel = channel(options, seed);
    let mut now = Instant::from_millis(5);
    (0..count)
        .filter(|_| {
            now += gap;
            channel.offer(now, FULL) == Fate::Lost
        })
        .collect()
}

#[test]
fn packets_leave_at_the_rate_and_arrive_after_the_delay() {
    let mut channel = channel(options(), 1);
    let now = Instant::from_millis(1);
    // 1500 bytes take 120 µs at 100 Mbit/s.
    for n in 1..=1000u64 {
        assert_eq!(arrival(channel.offer(now, FULL)), Some(now + DELAY + Duration::from_micros(120 * n)));
    }
    assert_eq!(channel.waiting(now), 1_500_000);
    assert_eq!(channel.waiting(now + Duration::from_millis(60)), 750_000);
    assert_eq!(channel.waiting(now + Duration::from_millis(500)), 0);
}

#[test]
fn an_idle_wire_gathers_no_credit() {
    let mut channel = channel(options(), 1);
    channel.offer(Instant::from_millis(1), FULL);
    let later = Instant::from_millis(1000);
    assert_eq!(arrival(channel.offer(later, FULL)), Some(later + DELAY + Duration::from_micros(120)));
}

#[test]
fn a_link_without_a_rate_only_delays() {
    let mut channel = channel(LinkOptions { rate_bps: u64::MAX, ..options() }, 1);
    let now = Instant::from_millis(1);
    for _ in 0..1000 {
        assert_eq!(arrival(channel.offer(now, FULL)), Some(now + DELAY));
    }
    assert_eq!(channel.waiting(now), 0);
}

#[test]
fn what_finds_the_queue_full_is_lost_and_counted() {
    let mut channel = channel(LinkOptions { queue_bytes: 15_000, ..options() }, 1);
    let now = Instant::from_millis(1);
    let passed = (0..100).filter(|_| channel.offer(now, FULL) != Fate::Overflowed).count();
    // Ten wait, and one is let in while not more than that wait.
    assert_eq!(passed, 11);
    assert_eq!(channel.totals().overflowed, 89);
    // One packet later there is room for one.
    let later = now + Duration::from_micros(120);
    assert_ne!(channel.offer(later, FULL), Fate::Overflowed);
    assert_eq!(channel.offer(later, FULL), Fate::Overflowed);
}

#[test]
fn a_packet_above_the_mtu_is_lost() {
    let mut channel = channel(LinkOptions { mtu: 1400, ..options() }, 1);
    let now = Instant::from_millis(1);
    assert_eq!(channel.offer(now, Offered { carried: 1401, ..FULL }), Fate::Oversized);
    assert!(arrival(channel.offer(now, Offered { carried: 1400, ..FULL })).is_some());
}

#[test]
fn a_seed_loses_the_same_packets_by_number_at_any_pace() {
    let options = LinkOptions {
        loss_ppm: 10_000,
        burst: Some(Burst {
            enter_ppm: 2_000,
            leave_ppm: 200_000,
            loss_ppm: 900_000,
            longest: Duration::from_secs(60),
        }),
        ..options()
    };
    let first = lost(options, 7, 20_000, Duration::from_micros(500));
    assert_eq!(first, lost(options, 7, 20_000, Duration::from_micros(121)));
    // What else is left to chance does not shift it.
    let other = LinkOptions { reorder_ppm: 50_000, reorder_by: DELAY, duplicate_ppm: 10_000, ..options };
    assert_eq!(first, lost(other, 7, 20_000, Duration::from_micros(500)));
    assert_ne!(first, lost(options, 8, 20_000, Duration::from_micros(500)));
}

#[test]
fn packets_that_the_queue_refuses_do_not_shift_the_losses() {
    let options = LinkOptions { loss_ppm: 100_000, queue_bytes: 3_000, ..options() };
    let mut channel = channel(options, 3);
    let mut on_the_wire = Vec::new();
    for n in 0..4_000u64 {
        // Twice the rate: every other one finds the queue full.
        match channel.offer(Instant::from_millis(1) + Duration::from_micros(60 * n), FULL) {
            Fate::Overflowed => {}
            fate => on_the_wire.push(fate == Fate::Lost),
        }
    }
    let lossy: Vec<usize> = (0..on_the_wire.len()).filter(|n| on_the_wire[*n]).collect();
    assert_eq!(lossy, lost(options, 3, on_the_wire.len(), Duration::from_micros(500)));
}

#[test]
fn losses_come_as_often_as_asked() {
    let options = LinkOptions { loss_ppm: 10_000, ..options() };
    // Within four standard deviations of a thousand in a hundred thousand.
    let count = lost(options, 11, 100_000, Duration::from_micros(121)).len();
    assert!((874..=1126).contains(&count), "{count}");
}

#[test]
fn losses_in_runs_are_as_long_as_asked() {
    let burst = Burst { enter_ppm: 5_000, leave_ppm: 250_000, loss_ppm: 1_000_000, longest: Duration::from_secs(60) };
    let losses = lost(LinkOptions { burst: Some(burst), ..options() }, 5, 200_000, Duration::from_micros(121));
    let runs = 1 + losses.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    let mean = losses.len() as f64 / runs as f64;
    assert!((3.6..4.4).contains(&mean), "{mean} packets a run, {runs} runs");
    assert!((800..1150).contains(&runs), "{runs}");
}

#[test]
fn a_run_of_losses_is_over_when_its_time_is() {
    // One packet a second: 20 of them on the average, and every one lost, if nothing but the chance ended a run.
    let burst = Burst { enter_ppm: 100_000, leave_ppm: 50_000, loss_ppm: 1_000_000, longest: Duration::from_secs(5) };
    let losses = lost(LinkOptions { burst: Some(burst), ..options() }, 5, 20_000, Duration::from_secs(1));
    let most = losses.chunk_by(|one, next| *next == one + 1).map(<[_]>::len).max();
    assert!(losses.len() > 1_000, "{}", losses.len());
    // A run may begin anew with the packet after one.
    assert!(most.is_some_and(|most| (5..=30).contains(&most)), "{most:?}");
}

#[test]
fn a_packet_is_held_back_for_at_most_so_long() {
    let by = Duration::from_millis(4);
    let mut channel = channel(LinkOptions { reorder_ppm: 50_000, reorder_by: by, ..options() }, 9);
    let mut late = 0;
    let mut now = Instant::from_millis(1);
    for _ in 0..20_000 {
        now += Duration::from_micros(500);
        let due = now + DELAY + Duration::from_micros(120);
        let at = arrival(channel.offer(now, FULL)).expect("nothing is lost");
        assert!(at >= due && at <= due + by);
        late += u32::from(at > due);
    }
    assert!((880..=1120).contains(&late), "{late}");
    assert_eq!(channel.totals().reordered, u64::from(late));
}

#[test]
fn a_copy_follows_and_a_bit_changes_within_the_packet() {
    let mut channel = channel(LinkOptions { duplicate_ppm: 500_000, corrupt_ppm: 500_000, ..options() }, 2);
    let (mut copies, mut flips) = (0, 0);
    for n in 0..2_000 {
        let now = Instant::from_millis(1 + n);
        let Fate::Passes(passage) = channel.offer(now, Offered { exposed: 40, ..FULL }) else { panic!("lost") };
        if let Some(copy) = passage.copy_at {
            assert!(copy >= passage.at && copy <= passage.at + DELAY);
            copies += 1;
        }
        if let Some((byte, bit)) = passage.flip {
            assert!(byte < 40 && bit < 8);
            flips += 1;
        }
    }
    assert!((900..1100).contains(&copies) && (900..1100).contains(&flips), "{copies} {flips}");
    let totals = channel.totals();
    assert_eq!((totals.duplicated, totals.corrupted), (copies, flips));
}
