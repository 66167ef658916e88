use std::collections::BTreeMap;

use super::*;

#[test]
fn sizes_are_read_with_their_unit() {
    assert_eq!(parse_size("1g"), Ok(1 << 30));
    assert_eq!(parse_size("256MiB"), Ok(256 << 20));
    assert_eq!(parse_size("1000"), Ok(1000));
}

#[test]
fn sizes_that_are_none_or_too_much_are_refused() {
    for text in ["", "g", "0", "-1", "1.5g", "3parsec", "2000000g", "99999999999999999999"] {
        assert!(parse_size(text).is_err(), "{text:?}");
    }
}

fn result(mode: Mode, fault: Option<&str>) -> ModeResult {
    let report = TransferReport {
        client: Vec::new(),
        server: Vec::new(),
        path_bytes: [250, 750],
        client_retransmissions: 1,
        server_retransmissions: 3,
        mptcp: BTreeMap::new(),
        wall: Duration::from_secs(1),
    };
    let retransmissions = Retransmissions { client: 1, the_box: 2, server: 3 };
    let mut checks = Checks::default();
    checks.note("something holds", fault.map_or(Ok(()), |fault| Err(anyhow::anyhow!("{fault}"))));
    let runs = vec![Run { direction: Direction::Download, bytes: 1000, report, retransmissions }];
    ModeResult { mode, runs, frames_before: 2, frames_after: 3, cpu_share: 0.5, checks }
}

#[test]
fn the_summary_has_what_scripts_read() {
    let results = [result(Mode::Explicit, None), result(Mode::Transparent, Some("it does not"))];
    let summary = serde_json::to_value(Summary::of(&results)).expect("JSON");
    let runs = summary["runs"].as_array().expect("runs");
    let expected = serde_json::json!({
        "mode": "transparent", "direction": "download", "bytes": 1000, "gbit_per_s": 0.0, "sha256_equal": true,
        "subflow_share": [0.25, 0.75], "retransmissions": 6,
    });
    assert_eq!((runs.len(), &runs[1]), (2, &expected));
    assert_eq!((&summary["frames_in_use_before"], &summary["frames_in_use_after"]), (&4.into(), &6.into()));
    let failed = serde_json::json!({
        "mode": "transparent", "check": "something holds", "holds": false, "fault": "it does not"
    });
    assert_eq!(summary["checks"][1], failed);
}

#[test]
fn what_the_server_may_see_depends_on_the_mode() {
    let seen = OptionCounts { tcp: 10, mptcp: 2, mp_capable_syn: 2, experimental: 0 };
    assert!(unseen(&seen, Mode::Transparent).is_ok());
    assert!(unseen(&seen, Mode::Explicit).is_err());
    assert!(unseen(&OptionCounts { mptcp: 3, ..seen }, Mode::Transparent).is_err(), "one that is no MP_CAPABLE SYN");
    assert!(unseen(&OptionCounts { experimental: 1, ..seen }, Mode::Transparent).is_err());
    assert!(unseen(&OptionCounts::default(), Mode::Explicit).is_err(), "nothing was looked at");
    assert!(promise(Mode::Transparent, &seen).contains("but 2 SYNs"));
}
