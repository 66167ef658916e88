//! Simulated networks, one from each seed: what must hold in every one is checked by the simulator. `mimbox-lab sim` runs
//! as many as one likes.

use std::num::NonZero;
use std::thread;

use mimbox_tools::sim::{self, Profile, Totals, run_many};

/// Runs `seeds` seeds of a profile from the first on; a failing one says how to run it again.
fn all_hold(profile: &str, seeds: u64, connections: usize) -> Totals {
    let profile = Profile::named(profile).expect("a profile that there is");
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let report = run_many(profile, 1, seeds, connections, threads, |_| {});
    let failures: Vec<String> = report.failures.iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(report.totals.runs, seeds);
    println!("{}: {}", profile.name, report.totals);
    report.totals
}

#[test]
fn five_hundred_connections_over_links_that_lose_duplicate_and_reorder() {
    let totals = all_hold("issue-a", 50, 500);
    assert_eq!(totals.connections, 25_000);
    // The links did something, and MPTCP used its second paths.
    assert!(totals.lost > 0 && totals.duplicated > 0 && totals.reordered > 0, "{totals}");
    assert!(totals.joined > totals.mptcp / 4, "{totals}");
}

#[test]
fn connections_over_clean_links_and_over_bursts_of_loss() {
    all_hold("clean", 10, 60);
    all_hold("lossy", 10, 60);
}

#[test]
fn connections_whose_options_vanish_fall_back() {
    let totals = all_hold("stripped", 20, 60);
    assert!(totals.fallbacks > totals.mptcp / 10 && totals.joined > 0, "{totals}");
}

#[test]
fn renumbered_sequence_numbers_cost_no_fallback() {
    let totals = all_hold("renumbered", 40, 40);
    assert!(totals.meddled > 10_000 && totals.joined > 100 && totals.fallbacks == 0, "{totals}");
}

#[test]
fn middleboxes_of_every_kind_break_nothing_that_need_not_break() {
    let totals = all_hold("middleboxes", 100, 40);
    assert!(totals.meddled > 10_000 && totals.stripped > 1_000 && totals.joined > 500, "{totals}");
    assert!(totals.fallbacks > 100, "{totals}");
}

#[test]
fn connections_with_everything_at_random() {
    all_hold("swarm", 20, 60);
}

#[test]
fn a_window_too_small_for_its_scale_is_not_told_without_end() {
    // A connection that fell back to a peer with small segments did; it took all memory.
    let swarm = Profile::named("swarm").expect("a profile that there is");
    let totals = sim::run(swarm, 3_513, 60).expect("every transfer ends");
    assert!(totals.fallbacks > 0, "{totals}");
}

#[test]
fn a_connection_that_is_over_leaves_its_peer_in_no_doubt() {
    let swarm = Profile::named("swarm").expect("a profile that there is");
    for seed in [
        // The path that answered was reset as silent, and the DATA_ACK for the client's DATA_FIN with it.
        221,
        // The FIN that was acknowledged had lost its DATA_ACK to a middlebox; the one on the path that was reset had not.
        1_101,
        // A server did not hear the box's reset, and its client's own were kept from it by a record that each of them renewed.
        2_361,
        // A client did not hear two resets, and asked after a minute whether its connection still stood; a transparent box
        // had forgotten it, and sent the question to the server.
        2_228,
    ] {
        sim::run(swarm, seed, 60).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn adversaries_break_nobody_elses_connection() {
    let totals = all_hold("adversaries", 16, 40);
    assert!(totals.adversaries > 100 && totals.mischief.iter().all(|&times| times > 0), "{totals}");
}

#[test]
fn hosts_without_a_box_between_them() {
    all_hold("tcp-direct", 10, 60);
    all_hold("mptcp-direct", 10, 60);
    all_hold("foreign-direct", 10, 60);
}

#[test]
fn goodput_over_loss_round_trip_time_and_buffer_is_that_of_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/goodput.txt");
    let kept = sim::parse(&std::fs::read_to_string(path).expect("the table")).expect("a table");
    let rows = sim::measure().expect("every download ends");
    let found = sim::differences(&kept, &rows);
    assert!(found.is_empty(), "after a change that was meant to: `make bless`\n{}", found.join("\n"));
}
