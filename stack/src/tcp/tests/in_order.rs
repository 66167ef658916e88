//! A peer that takes nothing out of order yet: the first moments of a joined MPTCP subflow.

use crate::options::SynOptions;
use crate::tcp::TcpConfig;
use crate::tcp::harness::{PEER, Say, Solo, spans};
use crate::time::Duration;
use crate::wire::{Outgoing, TcpFlags};

fn in_order() -> Solo {
    let mut solo = Solo::usual();
    solo.end.with(|conn, _| conn.keep_in_order(true));
    solo
}

#[test]
fn one_segment_is_in_flight_and_the_rest_follows_its_acknowledgment() {
    let mut solo = in_order();
    assert_eq!(spans(&solo.write(5_000, 1_000)), [(0, 1_000)]);
    assert_eq!(
        solo.end.with(|conn, _| conn.cwnd_space()),
        0,
        "an owner with other connections puts no more on this one"
    );
    assert_eq!(spans(&solo.say(Say::ack(1_000))), [(1_000, 1_000)]);
    solo.end.with(|conn, _| conn.keep_in_order(false));
    assert_eq!(spans(&solo.poll()), [(2_000, 1_000), (3_000, 1_000), (4_000, 1_000)]);
    solo.finish();
}

#[test]
fn no_train_follows_the_segment_in_flight() {
    let mut solo = in_order();
    let now = solo.now;
    solo.end.push_pattern(1_000);
    solo.end.push_pattern(1_000);
    solo.end.with(|conn, env| {
        let mut out = Outgoing::blank();
        assert!(conn.poll_transmit_into(now, &mut out, env));
        if let Some(payload) = out.payload.take() {
            env.pool.release(payload.frame);
        }
        assert!(!conn.poll_train(now, &mut out, env));
        conn.keep_in_order(false);
        assert!(conn.poll_train(now, &mut out, env), "it would else");
        if let Some(payload) = out.payload.take() {
            env.pool.release(payload.frame);
        }
    });
    solo.finish();
}

#[test]
fn a_segment_that_is_cut_goes_piece_by_piece() {
    let small = SynOptions { mss: Some(600), ..PEER };
    let mut solo = Solo::new(TcpConfig::default(), small, true);
    solo.end.with(|conn, _| conn.keep_in_order(true));
    let payload = solo.end.with(|conn, _| conn.segment_payload());
    let sent = solo.write(2 * u32::from(payload), 2 * payload);
    assert_eq!(spans(&sent), [(0, u32::from(payload))]);
    // Neither a tail loss probe nor a timeout sends what is behind it.
    let again = solo.wait(Duration::from_secs(3));
    assert!(again.len() > 1 && again.iter().all(|sent| sent.at == 0), "{again:?}");
    solo.finish();
}

#[test]
fn what_is_lost_one_at_a_time_does_not_end_slow_start() {
    let mut solo = in_order();
    solo.write(30_000, 1_000);
    assert!(!solo.wait(Duration::from_secs(1)).is_empty(), "the first segment is sent again");
    solo.say(Say::ack(1_000));
    assert!(solo.end.with(|conn, _| conn.ssthresh()) < 10_000, "a loss like any other, so far");
    solo.end.with(|conn, _| conn.keep_in_order(false));
    assert!(solo.end.with(|conn, _| conn.ssthresh()) > 1 << 20);
    solo.finish();
}

#[test]
fn an_acknowledgment_does_not_overtake_what_is_in_flight() {
    let mut solo = in_order();
    solo.write(1_000, 1_000);
    solo.end.with(|conn, _| conn.request_ack());
    assert_eq!(spans(&solo.poll()), [(0, 0)]);
    solo.say(Say::ack(1_000));
    solo.end.with(|conn, _| conn.request_ack());
    assert_eq!(spans(&solo.poll()), [(1_000, 0)]);
    solo.finish();
}

#[test]
fn a_fin_waits_for_what_is_in_flight() {
    let mut solo = in_order();
    solo.write(1_000, 1_000);
    solo.end.with(|conn, _| conn.shutdown());
    assert!(solo.poll().is_empty());
    let sent = solo.say(Say::ack(1_000));
    assert!(sent.len() == 1 && sent[0].flags.contains(TcpFlags::FIN), "{sent:?}");
    solo.finish();
}
