use super::*;

fn path(cwnd: f64, rtt_ms: f64, between_losses: f64) -> PathState {
    PathState { cwnd, rtt: rtt_ms / 1000.0, between_losses }
}

fn increases(kind: Coupled, paths: &[PathState]) -> Vec<f32> {
    couple(kind, paths).iter().map(|coupling| coupling.increase).collect()
}

fn near(a: f32, b: f64) -> bool {
    (f64::from(a) - b).abs() < 1e-4
}

#[test]
fn a_single_path_is_newreno_under_every_algorithm() {
    for kind in [Coupled::No, Coupled::Lia, Coupled::Olia, Coupled::Balia] {
        assert_eq!(couple(kind, &[path(20_000.0, 10.0, 1e6)]).as_slice(), [Coupling::default()]);
    }
}

#[test]
fn lia_on_equal_paths_grows_in_sum_as_one_connection() {
    // RFC 6356 §3: two equal paths: alpha = 1/2 of each window's share, so each grows a quarter as fast as NewReno's
    // window, which is half as large as the total.
    let shares = increases(Coupled::Lia, &[path(20_000.0, 20.0, 0.0); 2]);
    assert!(shares.iter().all(|&share| near(share, 0.25)), "{shares:?}");
}

#[test]
fn lia_takes_no_path_faster_than_newreno() {
    let shares = increases(Coupled::Lia, &[path(100_000.0, 5.0, 0.0), path(1_000.0, 500.0, 0.0)]);
    assert!(near(shares[0], 0.999_800_0) || shares[0] <= 1.0, "{shares:?}");
    // By hand: w1/rtt1^2 = 4e9, sum of rates = 20_002_000; w2 * 4e9 / sum^2 = 0.0099980.
    assert!(near(shares[1], 0.009_998), "{shares:?}");
    let lopsided = increases(Coupled::Lia, &[path(10_000.0, 10.0, 0.0), path(1e9, 1e6, 0.0)]);
    assert!(near(lopsided[1], 1.0), "the bound of RFC 6356 §3: {lopsided:?}");
}

#[test]
fn olia_moves_traffic_from_the_widest_path_to_the_best_one() {
    // The second path loses less often but its window is the smaller one: it is collected.
    let shares = increases(Coupled::Olia, &[path(40_000.0, 20.0, 1e5), path(10_000.0, 20.0, 1e6)]);
    assert!(near(shares[0], 0.64 - 0.5), "{shares:?}");
    assert!(near(shares[1], 0.04 + 0.5), "{shares:?}");
    // When the best path is also the widest nothing is moved.
    let settled = increases(Coupled::Olia, &[path(40_000.0, 20.0, 1e6), path(10_000.0, 20.0, 1e5)]);
    assert!(near(settled[0], 0.64) && near(settled[1], 0.04), "{settled:?}");
}

#[test]
fn olia_adds_nothing_in_sum_to_what_is_linked() {
    let paths = [path(40_000.0, 20.0, 1e5), path(10_000.0, 20.0, 1e6), path(40_000.0, 30.0, 1e4)];
    let total = total_rate(&paths);
    let linked: f64 = paths.iter().map(|p| (p.rate() / total).powi(2)).sum();
    let sum: f32 = increases(Coupled::Olia, &paths).iter().sum();
    assert!(near(sum, linked), "{sum} {linked}");
}

#[test]
fn balia_is_as_in_its_draft() {
    // Rates 2 and 1: alpha 1 and 2.
    let couplings = couple(Coupled::Balia, &[path(40_000.0, 20.0, 0.0), path(20_000.0, 20.0, 0.0)]);
    assert!(near(couplings[0].increase, 4.0 / 9.0), "{couplings:?}");
    assert!(near(couplings[1].increase, 1.0 / 9.0 * 1.5 * 1.2), "{couplings:?}");
    assert!(near(couplings[0].decrease, 0.5) && near(couplings[1].decrease, 0.75), "{couplings:?}");
}

#[test]
fn bytes_between_losses_are_the_larger_of_the_last_two_spans() {
    let mut history = LossHistory::default();
    assert!(history.update(0, 0, 10));
    assert!(!history.update(0, 5_000, 10), "nothing has changed");
    assert!(history.update(0, 6_000, 11), "a segment more");
    assert_eq!(history.bytes(50_000), 50_000);
    assert!(history.update(1, 50_000, 5));
    assert_eq!(history.bytes(60_000), 50_000);
    assert!(history.update(2, 60_000, 5));
    assert_eq!(history.bytes(61_000), 10_000);
    assert_eq!(history.bytes(90_000), 30_000);
}

#[test]
fn no_number_is_ever_out_of_range() {
    let mut rng = mimbox_stack::Rng::from_u64(7);
    let mut draw = |low: u64, high: u64| (low + rng.below(high - low)) as f64;
    for _ in 0..2_000 {
        let paths: Vec<PathState> =
            (0..8).map(|_| path(draw(1, 1 << 30), draw(1, 60_000) / 100.0, draw(0, 1 << 40))).collect();
        for kind in [Coupled::Lia, Coupled::Olia, Coupled::Balia] {
            for coupling in couple(kind, &paths) {
                assert!(coupling.increase.is_finite(), "{coupling:?}");
                // LIA is bounded by NewReno. OLIA adds at most 1/2 to what is at most 1, and takes at most as much away;
                // Balia's (x + max)(4x + max) / (10 sum^2) is below one.
                let bounds = if kind == Coupled::Olia { -0.5..=1.5 } else { 0.0..=1.0 };
                assert!(bounds.contains(&coupling.increase), "{kind:?} {coupling:?}");
                assert!((0.5..=0.75).contains(&coupling.decrease), "{coupling:?}");
            }
        }
    }
}
