use mimbox_dataplane::pcap::CaptureWriter;

use super::*;

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn config(mac: &str) -> Config {
    let text = format!(
        "[[port]]\nname = \"wan0\"\ninterface = \"eth1\"\naddresses = [\"192.0.2.1/24\"]\n{mac}\
         [[port]]\nname = \"core0\"\ninterface = \"eth2\"\naddresses = [\"198.51.100.1/24\"]\n\
         [explicit]\nports = [\"wan0\"]\n"
    );
    Config::parse(&text, "box.toml").unwrap_or_else(|error| panic!("{error}"))
}

/// An ARP packet for IPv4: a question when `to` is `None`, an answer otherwise.
fn arp(from: [u8; 6], sender: [u8; 4], to: Option<[u8; 6]>, target: [u8; 4]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&to.unwrap_or([0xff; 6]));
    bytes.extend_from_slice(&from);
    bytes.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, if to.is_some() { 2 } else { 1 }]);
    bytes.extend_from_slice(&from);
    bytes.extend_from_slice(&sender);
    bytes.extend_from_slice(&to.unwrap_or_default());
    bytes.extend_from_slice(&target);
    bytes.resize(60, 0);
    bytes
}

/// A capture with the question for the box's address, and the box's answer.
fn capture(interface: &str, direction: Option<Direction>) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut writer = CaptureWriter::create(file.path(), None).expect("a capture");
    writer.interface(interface, None).expect("an interface");
    let question = arp(PEER, [192, 0, 2, 9], None, [192, 0, 2, 1]);
    let answer = arp(OWN, [192, 0, 2, 1], Some(PEER), [192, 0, 2, 9]);
    let epoch = 1_700_000_000_000_000_000;
    writer.packet(0, epoch, None, &question, None).expect("a packet");
    writer.packet(0, epoch + 1_000, direction, &answer, None).expect("a packet");
    writer.flush().expect("a capture");
    file
}

fn run(capture: &Path, config: Config, out: Option<&Path>) -> anyhow::Result<Replayed> {
    let args = ReplayArgs { file: capture.to_owned(), out: out.map(Path::to_owned), ..ReplayArgs::default() };
    replay_capture(&args, config)
}

#[test]
fn the_boxs_own_packets_are_told_by_the_address_that_the_capture_shows() {
    let file = capture("eth1", None);
    let out = tempfile::NamedTempFile::new().expect("a file");
    let replayed = run(file.path(), config(""), Some(out.path())).expect("a replay");
    assert_eq!((replayed.events, replayed.frames, replayed.skipped.sent), (1, 1, 1));
    let mut sent = CaptureReader::open(out.path()).expect("the output");
    let answer = sent.next_packet().expect("readable").expect("a packet");
    assert_eq!(answer.bytes[6..12], OWN, "the box answers with its own address");
    assert_eq!(answer.nanos, 1_700_000_000_000_000_000, "in the capture's time");
}

#[test]
fn the_configurations_own_address_comes_first() {
    let file = capture("eth1", None);
    let replayed = run(file.path(), config("mac = \"02:00:00:00:00:07\"\n"), None).expect("a replay");
    assert_eq!((replayed.events, replayed.skipped.sent, replayed.skipped.others), (1, 0, 1));
}

#[test]
fn a_capture_that_knows_directions_needs_no_addresses() {
    let file = capture("eth1", Some(Direction::Outbound));
    let replayed = run(file.path(), config(""), None).expect("a replay");
    assert_eq!((replayed.events, replayed.skipped.sent), (1, 1));
}

#[test]
fn interfaces_are_ports_by_name_else_by_order() {
    let config = config("");
    let names = |index, name| port_of(&config, index, name).map(|port| port.name.clone());
    assert_eq!(names(0, Some("eth2")).as_deref(), Some("core0"));
    assert_eq!(names(1, Some("wan0")).as_deref(), Some("wan0"));
    assert_eq!(names(1, None).as_deref(), Some("core0"));
    assert_eq!(names(2, None), None);
}

#[test]
fn packets_that_the_capture_cut_are_an_error_that_says_what_to_do() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 60, 1, 7, 0, 60, 1514] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&[0; 60]);
    std::fs::write(file.path(), bytes).expect("a capture");
    let error = format!("{:#}", run(file.path(), config(""), None).expect_err("cut packets"));
    assert!(error.contains("packet 1 of ") && error.contains("60 of 1514 bytes") && error.contains("-s 0"), "{error}");
}
