use mimbox_dataplane::pcap::{CaptureWriter, Direction};

use super::*;

const AT: Instant = Instant::from_millis(5);

fn frame(last: u8) -> Vec<u8> {
    let mut bytes = vec![7; 60];
    bytes[41] = last;
    bytes
}

/// A golden output of two frames, the first by port 0 and the second by port 1.
fn golden() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.golden.pcapng");
    let mut writer = CaptureWriter::create(&path, None).expect("a file");
    for name in ["wan0", "core0"] {
        writer.interface(name, None).expect("an interface");
    }
    for port in 0..2u8 {
        let out = Some(Direction::Outbound);
        writer.packet(u32::from(port), AT.as_nanos(), out, &frame(port), None).expect("a packet");
    }
    writer.flush().expect("the file");
    (directory, path)
}

/// Compares with these frames: event, time, port, bytes.
fn compare(frames: &[(u64, Instant, u8, Vec<u8>)]) -> Option<String> {
    let (_directory, path) = golden();
    let mut golden = Golden::open(&path).expect("a golden output");
    for (event, at, port, bytes) in frames {
        golden.compare(*event, *at, PortId(*port), bytes).expect("a comparison");
    }
    golden.finish().expect("a comparison")
}

#[test]
fn the_same_frames_are_no_difference() {
    assert_eq!(compare(&[(3, AT, 0, frame(0)), (4, AT, 1, frame(1))]), None);
}

#[test]
fn another_byte_is_told_with_its_event_and_place() {
    let text = compare(&[(3, AT, 0, frame(0)), (4, AT, 1, frame(9)), (5, AT, 1, frame(1))]).expect("a difference");
    assert!(text.starts_with("at event 4 ("), "{text}");
    assert!(text.contains("frame 2 of the output differs at byte 41: 0x09 now, 0x01 in the golden output"), "{text}");
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    assert!(lines[1].starts_with("before: wan0") && lines[2].starts_with("golden: core0"), "{text}");
    assert!(lines[3].starts_with("now:    core0"), "{text}");
}

#[test]
fn a_frame_more_or_less_another_port_and_another_time_are_differences() {
    let missing = compare(&[(3, AT, 0, frame(0))]).expect("a difference");
    assert!(missing.contains("sends 1 frames, and then the golden output has more"), "{missing}");
    let more = compare(&[(3, AT, 0, frame(0)), (4, AT, 1, frame(1)), (9, AT, 1, frame(1))]).expect("a difference");
    assert!(more.starts_with("at event 9") && more.contains("at its end"), "{more}");
    let port = compare(&[(3, AT, 1, frame(0))]).expect("a difference");
    assert!(port.contains("leaves by another port"), "{port}");
    let late = compare(&[(3, Instant::from_millis(6), 0, frame(0))]).expect("a difference");
    assert!(late.contains("leaves after another event"), "{late}");
    let short = compare(&[(3, AT, 0, frame(0)[..50].to_vec())]).expect("a difference");
    assert!(short.contains("is 50 bytes long, the golden one 60"), "{short}");
}

#[test]
fn recordings_are_found_by_their_names() {
    let (directory, _) = golden();
    for name in ["b.pcapng", "a.pcapng", "README.md"] {
        std::fs::write(directory.path().join(name), "").expect("a file");
    }
    let found = recordings(directory.path()).expect("recordings");
    assert_eq!(found, [directory.path().join("a.pcapng"), directory.path().join("b.pcapng")]);
    assert_eq!(beside(&found[0]), directory.path().join("a.golden.pcapng"));
    let empty = tempfile::tempdir().expect("a directory");
    assert!(recordings(empty.path()).is_err_and(|error| error.to_string().contains("no recording")));
}
