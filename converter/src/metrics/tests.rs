//! Statistics as text, as JSON, and as a page.

use super::*;

fn snapshot() -> Snapshot {
    let ports = [(PortId(0), "wan0", "eth1"), (PortId(1), "core0", "eth2")];
    let mut snapshot = Snapshot::new(ports.into_iter());
    snapshot.uptime_s = 3_725.25;
    snapshot.pool = PoolSnapshot { frames: 100, free: 70, in_rings: 20, in_use: 10 };
    snapshot.conversions = ConversionCounts { live: 3, half_open: 2, time_wait: 1 };
    snapshot.counters.add(Counter::RxFrames, 12_345);
    snapshot.counters.inc(Counter::TcpRetransmits);
    snapshot
}

fn row() -> ConnectionRow {
    let at = |text: &str| text.parse().expect("an address and port");
    ConnectionRow {
        id: 7,
        mode: "explicit".to_owned(),
        client: at("192.0.2.9:40000"),
        server: at("198.51.100.9:80"),
        client_protocol: "mptcp".to_owned(),
        server_protocol: "tcp".to_owned(),
        token: Some(0xabcd),
        age_s: 61.0,
        bytes_to_server: 10,
        bytes_to_client: 1_000_000,
        frames: 4,
        subflows: vec![SubflowRow {
            side: "client".to_owned(),
            port: 0,
            local: at("192.0.2.1:80"),
            remote: at("192.0.2.9:40000"),
            state: "established".to_owned(),
            bytes_in: 10,
            bytes_out: 1_000_000,
            retransmits: 2,
            srtt_us: 20_500,
            cwnd: 14_480,
            backup: false,
        }],
    }
}

#[test]
fn json_has_the_shape_that_scripts_read() {
    let json: serde_json::Value = serde_json::to_value(snapshot()).expect("it is JSON");
    assert_eq!(json["counters"]["rx_frames"], 12_345);
    assert_eq!(json["counters"]["drop_truncated"], 0, "scripts see zeros too");
    assert_eq!(json["pool"], serde_json::json!({"frames": 100, "free": 70, "in_rings": 20, "in_use": 10}));
    assert_eq!(json["conversions"], serde_json::json!({"live": 3, "half_open": 2, "time_wait": 1}));
    assert_eq!(json["ports"][1]["name"], "core0");
    assert_eq!(json["ports"][1]["interface"], "eth2");
    assert_eq!(json["ports"][1]["checksum_partial"], 0);
    assert_eq!(json["uptime_s"], 3_725.25);
    assert_eq!(json["state"], "running");
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_snapshot_survives_the_way_through_json() {
    let text = serde_json::to_string(&snapshot()).expect("it is JSON");
    assert_eq!(serde_json::from_str::<Snapshot>(&text).expect("it reads back"), snapshot());
}

#[test]
fn counters_of_another_version_are_left_out() {
    let mut json = serde_json::to_value(snapshot()).expect("it is JSON");
    json["counters"]["from_the_future"] = 5.into();
    let read: Snapshot = serde_json::from_value(json).expect("it reads back");
    assert_eq!(read, snapshot());
}

#[test]
fn counters_at_zero_are_shown_only_when_asked_for() {
    let text = stats_text(&snapshot(), false, false);
    assert!(text.contains("  rx_frames        12345\n  tcp_retransmits      1\n"), "{text}");
    assert!(!text.contains("drop_truncated"), "{text}");
    assert!(stats_text(&snapshot(), true, false).contains("drop_truncated"));
}

#[test]
fn verbose_statistics_say_what_is_counted() {
    let text = stats_text(&snapshot(), false, true);
    assert!(text.contains("tcp_retransmits      1  segments sent again"), "{text}");
}

#[test]
fn statistics_say_time_conversions_and_frames() {
    let text = stats_text(&snapshot(), false, false);
    assert!(text.contains(", up 1h 2m 5s, running\n"), "{text}");
    assert!(text.contains("3 live, 2 half-open, 1 in TIME-WAIT"), "{text}");
    assert!(text.contains("100 in all, 70 free, 20 in rings, 10 in use"), "{text}");
}

#[test]
fn advice_of_a_port_is_a_warning() {
    let mut snapshot = snapshot();
    snapshot.ports[0].advice = "do this".to_owned();
    assert!(stats_text(&snapshot, false, false).contains("\nwarning: do this\n"));
}

#[test]
fn features_say_how_much_or_why_not_and_once_what_all_ports_have() {
    let feature =
        |name: &str, got, detail: &str| FeatureSnapshot { name: name.to_owned(), got, detail: detail.to_owned() };
    let mut snapshot = snapshot();
    for port in &mut snapshot.ports {
        port.features = vec![feature("huge_pages", true, "128 of 128 MiB"), feature("zero_copy", false, "refused")];
    }
    snapshot.ports[1].features[1] = feature("zero_copy", true, "here");
    let text = stats_text(&snapshot, false, false);
    let expected = "\nAF_XDP\n  huge_pages  all ports  yes  128 of 128 MiB\n  zero_copy   wan0       no   refused\n  \
                    zero_copy   core0      yes  here\n";
    assert!(text.contains(expected), "{text}");
    let json: serde_json::Value = serde_json::to_value(&snapshot).expect("it is JSON");
    assert_eq!(json["ports"][0]["features"][1]["got"], false);
}

#[test]
fn connections_show_their_subflows_with_port_names() {
    let list = ConnectionList { total: 5, connections: vec![row()] };
    let text = connections_text(&list, &["wan0".to_owned()]);
    assert!(
        text.contains("#7 192.0.2.9:40000 (mptcp) -> 198.51.100.9:80 (tcp), explicit, 1m 1s, token 0000abcd"),
        "{text}"
    );
    assert!(text.contains("client  wan0  192.0.2.1:80  192.0.2.9:40000  established  10  1000000"), "{text}");
    assert!(text.contains("20.500 ms"), "{text}");
    assert!(text.ends_with("4 more are not shown: --limit\n"), "{text}");
}

#[test]
fn the_page_of_counters_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/counters.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, counters_markdown()).expect("the page can be written");
    }
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        page == counters_markdown(),
        "docs/counters.md is not what stack/src/counters.rs declares: UPDATE_DOCS=1 cargo test -p mimbox-converter \
         counters writes it anew"
    );
}
