//! Reductions that were a mistake are taken back.

use crate::Counter;
use crate::options::SynOptions;
use crate::tcp::harness::{FULL, PEER, Say, Solo, spans};
use crate::tcp::*;
use crate::time::Duration;

const RTT: Duration = Duration::from_millis(100);

fn out(timestamps: bool) -> Solo {
    let mut solo = Solo::new(TcpConfig::default(), PEER, timestamps);
    solo.write(10 * FULL, FULL as u16);
    solo.now += RTT;
    solo
}

#[test]
fn a_dsack_for_every_retransmission_undoes_the_recovery() {
    let mut solo = out(false);
    let before = solo.cwnd();
    let sent = solo.say(Say::ack(0).sacking(&[(1_000, 4_000)]));
    assert_eq!(spans(&sent), [(0, 1_000)]);
    solo.say(Say::ack(4_000));
    assert!(solo.cwnd() < before);
    // The retransmission arrives beside the original: RFC 2883's first example.
    solo.say(Say::ack(4_000).sacking(&[(0, 1_000)]));
    assert_eq!(solo.count(Counter::TcpSpurious), 1);
    assert!(solo.cwnd() >= before, "{} after {before}", solo.cwnd());
}

#[test]
fn an_acknowledgment_of_the_original_by_timestamp_undoes_the_recovery() {
    let mut solo = out(true);
    let before = solo.cwnd();
    solo.now += Duration::from_millis(20);
    let sent = solo.say(Say::ack(0).sacking(&[(1_000, 4_000)]));
    assert_eq!(spans(&sent), [(0, 1_000)]);
    let first = 10_000;
    // RFC 3522: the echo is that of the first transmission.
    solo.say(Say::ack(4_000).echoing(10_121, first));
    assert_eq!(solo.count(Counter::TcpSpurious), 1);
    assert!(solo.cwnd() >= before);
    assert!(!solo.end.with(|conn, _| conn.in_recovery()));
}

#[test]
fn an_acknowledgment_of_the_retransmission_undoes_nothing() {
    let mut solo = out(true);
    let before = solo.cwnd();
    solo.say(Say::ack(0).sacking(&[(1_000, 4_000)]));
    solo.now += RTT;
    solo.say(Say::ack(10_000));
    assert_eq!(solo.count(Counter::TcpSpurious), 0);
    assert!(solo.cwnd() < before);
}

fn timed_out() -> Solo {
    let plain = SynOptions { sack_permitted: false, ..PEER };
    let mut solo = Solo::new(TcpConfig::default(), plain, false);
    solo.write(10 * FULL, FULL as u16);
    solo.now += RTT;
    solo.say(Say::ack(1_000));
    solo.write(20 * FULL, FULL as u16);
    let sent = solo.wait(Duration::from_millis(600));
    assert_eq!(spans(&sent), [(1_000, 1_000)], "the timeout's retransmission");
    solo
}

#[test]
fn f_rto_sends_new_data_and_takes_a_spurious_timeout_back() {
    let mut solo = timed_out();
    // RFC 5682 §2.1 step 2: the first acknowledgment after it advances; two new segments go.
    let sent = solo.say(Say::ack(2_000));
    assert!(sent.iter().all(|sent| !sent.retransmit) && sent.len() == 2, "{:?}", spans(&sent));
    // Step 3: the next one advances as well: nothing was lost.
    let sent = solo.say(Say::ack(3_000));
    assert_eq!(solo.count(Counter::TcpSpurious), 1);
    assert!(sent.iter().all(|sent| !sent.retransmit), "{:?}", spans(&sent));
    assert!(solo.cwnd() > 8_000);
}

#[test]
fn f_rto_goes_back_to_slow_start_when_the_second_acknowledgment_is_a_duplicate() {
    let mut solo = timed_out();
    solo.say(Say::ack(2_000));
    let sent = solo.say(Say::ack(2_000));
    assert_eq!(solo.count(Counter::TcpSpurious), 0);
    assert!(sent.first().is_some_and(|sent| sent.retransmit && sent.at == 2_000), "{:?}", spans(&sent));
}

#[test]
fn dsacks_widen_the_reordering_window_once_a_round_trip() {
    let mut solo = out(true);
    solo.say(Say::ack(0).sacking(&[(1_000, 4_000)]));
    solo.say(Say::ack(4_000).echoing(10_100, 10_000));
    solo.say(Say::ack(4_000).sacking(&[(0, 1_000)]));
    solo.say(Say::ack(4_000).sacking(&[(0, 1_000)]));
    solo.write(20 * FULL, FULL as u16);
    solo.now += RTT;
    // Twice a quarter of the RTT now: 50 ms pass before the hole counts as lost.
    solo.say(Say::ack(10_000));
    solo.say(Say::ack(10_000).sacking(&[(11_000, 14_000)]));
    let early = solo.wait(Duration::from_millis(40));
    assert!(early.iter().all(|sent| !sent.retransmit), "{early:?}");
    assert!(solo.wait(Duration::from_millis(20)).iter().any(|sent| sent.retransmit && sent.at == 10_000));
}
