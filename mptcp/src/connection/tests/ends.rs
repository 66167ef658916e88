//! How connections end.

use super::*;
use crate::HalfOutcome;

#[test]
fn half_close_leaves_the_other_direction_open() {
    for side in 0..2 {
        let mut pair = pair(7, vec![Path::clean(10), Path::clean(20)]);
        pair.hosts[1 - side].closes = false;
        pair.hosts[side].to_write = 1000;
        assert!(pair.run(SECOND * 5, |pair| pair.hosts[1 - side].fin));
        pair.hosts[1 - side].to_write = 1_000_000;
        assert!(pair.run(MINUTE, |pair| pair.hosts[side].read == 1_000_000), "{}", pair.status());
        pair.hosts[1 - side].closes = true;
        close(&mut pair);
    }
}

#[test]
fn an_abort_reaches_the_peer_as_a_reset_of_all() {
    for side in 0..2 {
        let mut pair = pair(8, vec![Path::clean(10), Path::clean(20)]);
        pair.hosts[1].to_write = 10_000_000;
        pair.hosts[0].closes = false;
        assert!(pair.run(MINUTE, |pair| pair.hosts[0].read > 200_000));
        pair.hosts[side].abort();
        assert!(pair.run(SECOND * 2, |pair| pair.all_closed()), "{}", pair.status());
        assert!(pair.hosts[1 - side].outcome.contains(HalfOutcome::RESET | HalfOutcome::CLOSED));
        assert!(pair.hosts[1 - side].events.contains(&Event::Reset));
        assert_eq!(pair.counter(1 - side, Counter::MptcpFastcloseIn), 1);
        pair.audit();
    }
}

#[test]
fn the_data_fin_is_repeated_until_it_is_acknowledged() {
    for seed in 0..60 {
        let mut pair = pair(seed, vec![lossy(250, 0, 10), lossy(250, 0, 10)]);
        exchange(&mut pair, [3000, 3000], MINUTE * 3);
        close(&mut pair);
    }
}

#[test]
fn a_client_whose_server_never_answers_times_out() {
    let mut pair = pair(9, vec![Path { up: false, ..Path::clean(10) }]);
    let ended = pair.run(MINUTE * 10, |pair| pair.hosts[0].connection().is_closed());
    assert!(ended, "{}", pair.status());
    assert!(pair.hosts[0].outcome.contains(HalfOutcome::TIMED_OUT));
}

#[test]
fn a_subflow_that_alone_can_bring_the_data_ack_is_closed_not_reset() {
    for side in 0..2 {
        let mut pair = pair(10, vec![Path::clean(10)]);
        pair.hosts[0].closes = false;
        pair.hosts[1].closes = false;
        pair.hosts[0].to_write = 1_000;
        pair.hosts[1].to_write = 1_000;
        assert!(pair.run(SECOND * 5, |pair| pair.hosts.iter().all(|host| host.read == 1_000)));
        pair.run(SECOND * 2, |_| false);
        // A timeout fired on it, and DATA_FINs on pure ACKs do not tell that it works again.
        pair.hosts[side].connection().subflows[0].stale = true;
        pair.trace = Some(Vec::new());
        pair.hosts[0].closes = true;
        pair.hosts[1].closes = true;
        close(&mut pair);
        let trace = pair.trace.take().unwrap();
        let resets = trace.iter().filter(|(.., segment)| segment.flags.contains(mimbox_stack::TcpFlags::RST)).count();
        assert_eq!(resets, 0);
        for host in &pair.hosts {
            assert!(!host.outcome.intersects(HalfOutcome::RESET | HalfOutcome::TIMED_OUT), "{:?}", host.outcome);
        }
    }
}

#[test]
fn a_peer_that_forgets_a_finished_connection_does_not_keep_it_open() {
    for side in 0..2 {
        let mut pair = pair(11, vec![Path::clean(10)]);
        // The FINs and resets of one side vanish, as with a host that is switched off once it has everything.
        pair.meddler = Some(Box::new(move |_, from, segment, _| {
            from != side || !segment.flags.intersects(mimbox_stack::TcpFlags::FIN | mimbox_stack::TcpFlags::RST)
        }));
        exchange(&mut pair, [1_000, 1_000], SECOND * 5);
        let other = 1 - side;
        let ended = pair.run(MINUTE * 2, |pair| pair.hosts[other].connection().is_closed());
        assert!(ended, "{}", pair.status());
        assert!(!pair.hosts[other].outcome.intersects(HalfOutcome::RESET | HalfOutcome::TIMED_OUT));
    }
}

#[test]
fn a_path_that_went_while_nothing_was_sent_there_does_not_keep_a_finished_connection_open() {
    for side in 0..2 {
        let mut pair = pair(12, vec![Path::clean(10), Path::clean(20)]);
        pair.hosts[0].closes = false;
        pair.hosts[1].closes = false;
        pair.hosts[side].to_write = 500_000;
        assert!(pair.run(SECOND * 20, |pair| pair.hosts[1 - side].read == 500_000), "{}", pair.status());
        pair.run(SECOND * 2, |_| false);
        assert_eq!(pair.hosts[side].connection().subflows.len(), 2);
        pair.paths[1].up = false;
        pair.hosts[0].closes = true;
        pair.hosts[1].closes = true;
        let closed = pair.run(SECOND * 10, |pair| pair.all_closed());
        assert!(closed, "{}", pair.status());
        for host in &pair.hosts {
            assert!(!host.outcome.intersects(HalfOutcome::RESET | HalfOutcome::TIMED_OUT), "{:?}", host.outcome);
            assert!(
                host.outcome.contains(HalfOutcome::CLOSED),
                "an owner that only looks at results learns of the end"
            );
        }
        pair.audit();
    }
}

/// Two paths, of which the second drops everything from before the ends on. Returns the pair with a trace running.
fn end_with_a_silent_path(seed: u64) -> Pair {
    let mut pair = pair(seed, vec![Path::clean(10), Path::clean(10)]);
    for host in &mut pair.hosts {
        host.closes = false;
        host.to_write = 100_000;
    }
    assert!(pair.run(SECOND * 5, |pair| pair.hosts.iter().all(|host| host.read == 100_000)));
    pair.run(SECOND * 2, |_| false);
    pair.paths[1].up = false;
    pair.trace = Some(Vec::new());
    for host in &mut pair.hosts {
        host.closes = true;
    }
    pair
}

fn resets(pair: &Pair) -> usize {
    let trace = pair.trace.as_ref().expect("a trace");
    trace.iter().filter(|(.., segment)| segment.flags.contains(mimbox_stack::TcpFlags::RST)).count()
}

#[test]
fn a_path_that_stays_silent_does_not_keep_a_connection_that_is_over() {
    for seed in 0..20 {
        let mut pair = end_with_a_silent_path(seed);
        let timeouts = [0, 1].map(|side| pair.counter(side, Counter::TcpTimeouts));
        assert!(pair.run(SECOND * 15, |pair| pair.all_closed()), "{}", pair.status());
        for (side, before) in timeouts.into_iter().enumerate() {
            assert!(
                pair.hosts[side].events.contains(&Event::Closed) && !pair.hosts[side].events.contains(&Event::Reset)
            );
            let tries = pair.counter(side, Counter::TcpTimeouts) - before;
            assert!(tries >= 4, "side {side} gave its FIN on the silent path up after {tries} timeouts");
        }
        pair.audit();
    }
}

#[test]
fn a_path_that_lost_two_fins_is_closed_by_the_third() {
    for seed in 0..20 {
        let mut pair = end_with_a_silent_path(seed);
        let before = pair.counter(1, Counter::TcpTimeouts);
        assert!(pair.run(SECOND * 15, |pair| pair.counter(1, Counter::TcpTimeouts) == before + 2), "{}", pair.status());
        pair.paths[1].up = true;
        close(&mut pair);
        assert_eq!(resets(&pair), 0, "the peer may not have been told elsewhere");
    }
}
