use super::*;

const FRAME: u32 = 1_000;
const RTT: Duration = Duration::from_millis(100);

/// A direction that is visited each millisecond for `millis` while its receiver takes `rate` bytes a millisecond.
fn run(window: &mut Autotune, now: &mut Instant, delivered: &mut u32, millis: u32, rate: u32) {
    for _ in 0..millis {
        *now += Duration::from_millis(1);
        *delivered = delivered.wrapping_add(rate);
        if window.is_due(*now) {
            window.end_round(*now, *delivered, RTT, FRAME);
        }
    }
}

#[test]
fn a_steady_direction_is_granted_three_round_trips_of_its_rate() {
    let (mut now, mut delivered) = (Instant::from_millis(1), 0);
    let mut window = Autotune::new(now);
    run(&mut window, &mut now, &mut delivered, 5_000, 5_000);
    // 5 MB a second for 100 ms are 500 frames.
    let granted = window.granted();
    assert!((1_516..=1_600).contains(&granted), "{granted}");
}

#[test]
fn slow_start_never_waits_for_the_window() {
    let (mut now, mut delivered) = (Instant::from_millis(1), 0);
    let mut window = Autotune::new(now);
    run(&mut window, &mut now, &mut delivered, 101, 0);
    let mut segments = 10;
    for round in 0..10 {
        run(&mut window, &mut now, &mut delivered, 100, segments * FRAME / 100);
        segments *= 2;
        // What the sender has out in the next round trip, with the queue for the one after it.
        let floor = if segments <= 64 { 64 } else { 0 };
        let granted = window.granted().max(floor);
        assert!(granted >= segments, "round {round}: {granted} frames for {segments}");
    }
}

#[test]
fn what_a_slower_receiver_no_longer_needs_is_taken_back_slowly() {
    let (mut now, mut delivered) = (Instant::from_millis(1), 0);
    let mut window = Autotune::new(now);
    run(&mut window, &mut now, &mut delivered, 2_000, 5_000);
    let before = window.granted();
    run(&mut window, &mut now, &mut delivered, 200, 500);
    assert!(window.granted() >= before * 3 / 4, "{} after {before}", window.granted());
    run(&mut window, &mut now, &mut delivered, 20_000, 500);
    assert!((166..=175).contains(&window.granted()), "{}", window.granted());
}

#[test]
fn silence_says_nothing_about_the_rate() {
    let (mut now, mut delivered) = (Instant::from_millis(1), 0);
    let mut window = Autotune::new(now);
    run(&mut window, &mut now, &mut delivered, 2_000, 5_000);
    // The rest of the round trip in which it fell silent.
    run(&mut window, &mut now, &mut delivered, 101, 0);
    let before = window.granted();
    run(&mut window, &mut now, &mut delivered, 60_000, 0);
    assert!(before > 1_500, "{before}");
    assert_eq!(window.granted(), before);
}

#[test]
fn a_late_visit_does_not_count_as_one_round_trip() {
    let mut now = Instant::from_millis(1);
    let mut window = Autotune::new(now);
    window.end_round(now, 0, RTT, FRAME);
    now += Duration::from_secs(10);
    window.end_round(now, 1_000_000, RTT, FRAME);
    // 1 MB in ten seconds is 10 kB in a round trip.
    assert_eq!(window.granted(), 3 * 10 + SLACK_FRAMES as u32);
}

#[test]
fn the_count_of_delivered_bytes_may_wrap() {
    let (mut now, mut delivered) = (Instant::from_millis(1), u32::MAX - 1_000_000);
    let mut window = Autotune::new(now);
    window.end_round(now, delivered, RTT, FRAME);
    run(&mut window, &mut now, &mut delivered, 3_000, 5_000);
    assert!((1_516..=1_600).contains(&window.granted()), "{}", window.granted());
}

#[test]
fn limits_and_the_pool_bound_what_is_granted() {
    let region = mimbox_stack::mem::Region::map(1_024, 2_048).unwrap();
    let pool = FramePool::new(region, mimbox_stack::PoolConfig { rx_reserve: 24 });
    let limits = WindowLimits { floor_frames: 64, ceiling_frames: 200 };
    assert_eq!(limits.limit(0, &pool), 64);
    assert_eq!(limits.limit(150, &pool), 150);
    assert_eq!(limits.limit(5_000, &pool), 200);
    let short = WindowLimits { floor_frames: 64, ceiling_frames: 4_096 };
    assert_eq!(short.limit(5_000, &pool), 250);
}

#[test]
fn a_window_is_never_smaller_than_its_scale_can_show() {
    let region = mimbox_stack::mem::Region::map(1_024, 2_048).unwrap();
    let pool = FramePool::new(region, mimbox_stack::PoolConfig { rx_reserve: 24 });
    let limits = WindowLimits { floor_frames: 8, ceiling_frames: 200 };
    // Eight segments of 36 bytes are nothing where the window field counts kilobytes.
    let window = Autotune { least_bytes: 2 << 10, ..Autotune::new(Instant::ZERO) };
    assert_eq!(limits.space(&window, 0, 36, &pool), 2_048);
    assert_eq!(limits.space(&window, 40, 36, &pool), 2_048 - 40 * 36);
    assert_eq!(limits.space(&window, 60, 36, &pool), 0);
    // Of full segments the frames hold more.
    assert_eq!(limits.space(&window, 3, 1_428, &pool), 5 * 1_428);
}
