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
    writer.timer(Instant::from_micros(9), 13);
    drop(writer);
    let mut given = Given::default();
    given.add(PortId(1), &[1; 60]);
    let frames = vec![(PortId(0), vec![1; 60]), (PortId(1), vec![2; 61])];
    vec![
        Event { now: Instant::from_micros(5), free_frames: 14, cause: Cause::Frames(frames), given: Some(given) },
        Event { now: Instant::from_micros(9), free_frames: 13, cause: Cause::Timer, given: Some(Given::default()) },
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
    for len in (0..bytes.len()).rev() {
        std::fs::write(&path, &bytes[..len]).expect("a shorter file");
        let Ok(mut recording) = Recording::open(&path) else { continue };
        let mut seen = 0;
        while let Ok(Some(event)) = recording.next_event() {
            let whole = &events[seen];
            assert_eq!((event.now, event.free_frames, &event.cause), (whole.now, whole.free_frames, &whole.cause));
            seen += 1;
        }
        assert!(seen <= events.len());
    }
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
