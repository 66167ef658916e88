use std::fs::File;
use std::io::Read as _;

use mimbox_stack::mem::Region;
use mimbox_stack::{FramePool, PoolConfig};

use super::*;

fn head() -> Head {
    Head { seed: 7, config: "[explicit]\n".to_owned(), ports: vec!["wan0".to_owned(), "core0".to_owned()] }
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("mimbox-record-{name}-{}.pcapng", std::process::id()))
}

/// Writes one event of two frames, which makes the engine give one, and one event of a timer.
fn write(path: &Path) -> Vec<Event> {
    let mut pool = FramePool::new(Region::map(16, 2048).expect("memory"), PoolConfig { rx_reserve: 0 });
    let mut writer = RecordWriter::create(path, &head()).expect("a file");
    let batch: Vec<RxFrame> = [(0u8, 60u16), (1, 61)]
        .map(|(port, len)| {
            let frame = pool.alloc().expect("a frame");
            pool.bytes_mut(&frame)[256..][..usize::from(len)].fill(port + 1);
            RxFrame { port: PortId(port), frame, offset: 256, len }
        })
        .into();
    writer.frames(Instant::from_micros(5), 14, &pool, &batch);
    let sent = TxFrame { port: PortId(1), frame: pool.share(&batch[0].frame), offset: 256, len: 60 };
    writer.sent(Instant::from_micros(5), &pool, &sent);
    writer.completed(PortId(0), 2);
    writer.polled(1, false);
    writer.completed(PortId(0), 1);
    writer.completed(PortId(1), 3);
    writer.completed(PortId(1), 4);
    writer.timer(Instant::from_micros(9), 13);
    writer.polled(0, true);
    writer.order(Instant::from_micros(10), 12, Order::ResetAll);
    writer.polled(0, false);
    writer.order(Instant::from_micros(11), 12, Order::Link { port: PortId(1), up: false });
    writer.polled(0, false);
    drop(writer);
    let mut given = Given::default();
    given.add(PortId(1), &[1; 60]);
    let frames = vec![(PortId(0), vec![1; 60]), (PortId(1), vec![2; 61])];
    let came_back = |after, port, frames| Completion { after, port: PortId(port), frames };
    let event = |micros, free_frames, cause, given, completions| {
        let now = Instant::from_micros(micros);
        Event { now, free_frames, cause, given: Some(given), completions }
    };
    let completions = vec![came_back(1, 0, 2), came_back(AFTER_ALL, 0, 1), came_back(AFTER_ALL, 1, 7)];
    let limited = Given { limited: true, ..Given::default() };
    vec![
        event(5, 14, Cause::Frames(frames), given, completions),
        event(9, 13, Cause::Timer, limited, Vec::new()),
        event(10, 12, Cause::Order(Order::ResetAll), Given::default(), Vec::new()),
        event(11, 12, Cause::Order(Order::Link { port: PortId(1), up: false }), Given::default(), Vec::new()),
    ]
}

fn read(path: &Path) -> Vec<Event> {
    let mut recording = Recording::open(path).expect("a recording");
    assert_eq!(recording.head(), &head());
    std::iter::from_fn(|| recording.next_event().expect("an event")).collect()
}

#[test]
fn a_recording_reads_back_as_it_was_written() {
    let path = scratch("whole");
    let events = write(&path);
    assert_eq!(read(&path), events);
    std::fs::remove_file(path).expect("the file");
}

#[test]
fn a_recording_that_was_cut_off_ends_at_its_last_whole_event() {
    let path = scratch("cut");
    let events = write(&path);
    let mut bytes = Vec::new();
    File::open(&path).expect("the file").read_to_end(&mut bytes).expect("its bytes");
    let mut whole_ends = 0;
    for len in (0..bytes.len()).rev() {
        std::fs::write(&path, &bytes[..len]).expect("a shorter file");
        let mut recording = match Recording::open(&path) {
            Ok(recording) => recording,
            Err(RecordError::CutOff { .. } | RecordError::Io { .. } | RecordError::NoRecording(_)) => continue,
            Err(other) => panic!("cut to {len} bytes: {other}"),
        };
        let mut seen = 0;
        let end = loop {
            match recording.next_event() {
                Ok(Some(event)) => {
                    let whole = &events[seen];
                    assert_eq!(
                        (event.now, event.free_frames, &event.cause),
                        (whole.now, whole.free_frames, &whole.cause)
                    );
                    seen += 1;
                }
                end => break end,
            }
        };
        match end {
            Ok(None) => whole_ends += 1,
            Err(RecordError::CutOff { events, .. }) => assert_eq!(events, Some(seen as u64)),
            other => panic!("cut to {len} bytes: {other:?}"),
        }
    }
    // Behind the head and its two interfaces, and behind each of the notes of the events that need no packets.
    assert!((4..=10).contains(&whole_ends), "{whole_ends}");
    std::fs::remove_file(path).expect("the file");
}

#[test]
fn another_file_is_no_recording() {
    let path = scratch("other");
    std::fs::write(&path, b"not a capture").expect("a file");
    assert!(matches!(Recording::open(&path), Err(RecordError::Io { .. })));
    drop(CaptureWriter::create(&path, None).expect("a capture"));
    assert!(matches!(Recording::open(&path), Err(RecordError::NoRecording(_))));
    std::fs::remove_file(path).expect("the file");
}

#[test]
fn the_digest_tells_ports_bytes_and_order_apart() {
    let of = |frames: &[(u8, &[u8])]| {
        let mut given = Given::default();
        for (port, bytes) in frames {
            given.add(PortId(*port), bytes);
        }
        given.digest
    };
    let all = [
        of(&[(0, b"ab")]),
        of(&[(1, b"ab")]),
        of(&[(0, b"ab\0")]),
        of(&[(0, b"a"), (0, b"b")]),
        of(&[(0, b"b"), (0, b"a")]),
    ];
    let distinct: std::collections::HashSet<u64> = all.into_iter().collect();
    assert_eq!(distinct.len(), all.len());
}
