//! BBR over a bottleneck.

use crate::tcp::harness::{Link, Pair};
use crate::tcp::*;
use crate::time::Duration;

/// 10 Mbit/s and a round trip of 40 ms: 50,000 bytes fill the pipe.
const RATE: u64 = 1_250_000;
const PATH: Link = Link { rate: RATE, queue: Duration::from_millis(200), ..Link::clean(Duration::from_millis(20)) };

/// Runs a bulk transfer for so long. Bytes read in its second half, as a share of what the link could carry, in hundredths.
fn share(cc: CcKind, link: Link, seconds: u64) -> (u64, Pair) {
    let config = TcpConfig { cc, ..TcpConfig::default() };
    let mut pair = Pair::with_config(7, link, [Offer::default(); 2], 1448, config);
    pair.ends[0].to_write = u64::MAX / 2;
    let half = Duration::from_millis(seconds * 500);
    pair.run(half, |_| false);
    let before = pair.ends[1].read;
    pair.longest_wait = Duration::ZERO;
    pair.run(half, |_| false);
    let carried = pair.ends[1].read - before;
    (carried * 200 / (RATE * seconds), pair)
}

#[test]
fn bbr_fills_the_pipe_and_leaves_the_queue_short() {
    let (share, pair) = share(CcKind::Bbr, PATH, 20);
    assert!(share >= 85, "{share}% of the link");
    assert!(pair.longest_wait < Duration::from_millis(60), "waited {}", pair.longest_wait);
}

#[test]
fn bbr_bears_random_loss_that_cubic_does_not() {
    let lossy = Link { loss: 10, ..PATH };
    let (bbr, _) = share(CcKind::Bbr, lossy, 20);
    let (cubic, _) = share(CcKind::Cubic, lossy, 20);
    assert!(bbr >= 75, "{bbr}% of the link");
    assert!(bbr > cubic, "BBR {bbr}%, CUBIC {cubic}%");
}

#[test]
fn cubic_fills_the_pipe() {
    let (share, _) = share(CcKind::Cubic, PATH, 20);
    assert!(share >= 90, "{share}% of the link");
}

#[test]
fn bbr_finds_a_least_rtt_that_has_changed() {
    let (_, mut pair) = share(CcKind::Bbr, PATH, 8);
    pair.link.delay = Duration::from_millis(40);
    pair.run(Duration::from_secs(15), |_| false);
    let before = pair.ends[1].read;
    pair.run(Duration::from_secs(10), |_| false);
    let share = (pair.ends[1].read - before) * 10 / RATE;
    assert!(share >= 80, "{share}% of the link after its RTT has doubled");
}

#[test]
fn bbr_carries_transfers_whole_over_bad_links() {
    for seed in 0..30 {
        let link = Link { loss: 20, duplicate: 10, reorder: 50, ..Link::clean(Duration::from_millis(10)) };
        let config = TcpConfig { cc: CcKind::Bbr, ..TcpConfig::default() };
        let mut pair = Pair::with_config(seed, link, [Offer::default(); 2], 1448, config);
        pair.ends[0].to_write = 200_000;
        pair.ends[1].to_write = 50_000;
        let done =
            pair.run(Duration::from_secs(3600), |ends| ends.iter().all(|end| end.outcome.contains(Outcome::CLOSED)));
        assert!(done, "seed {seed} hangs");
        assert_eq!((pair.ends[1].read, pair.ends[0].read), (200_000, 50_000), "seed {seed}");
        pair.audit();
    }
}
