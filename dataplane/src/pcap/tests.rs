use std::io::Cursor;

use mimbox_stack::mem::Region;
use mimbox_stack::{Counters, PoolConfig};
use proptest::prelude::*;

use super::*;
use crate::Engine;
use crate::clock::ManualClock;
use crate::worker::{Worker, WorkerConfig};

fn items(bytes: &[u8]) -> io::Result<Vec<Item>> {
    let mut reader = CaptureReader::new(Cursor::new(bytes))?;
    std::iter::from_fn(|| reader.next_item().transpose()).collect()
}

fn packet(interface: u32, nanos: u64, direction: Option<Direction>, bytes: &[u8], comment: Option<&str>) -> Packet {
    let (wire_len, comment) = (bytes.len() as u32, comment.map(str::to_owned));
    Packet { nanos, interface, direction, bytes: bytes.to_vec(), wire_len, comment }
}

#[test]
fn what_is_written_is_read_again() {
    let mut writer = CaptureWriter::new(Vec::new(), Some("seed 7")).unwrap();
    assert_eq!(writer.interface("wan0", Some(MacAddr([2, 0, 0, 0, 0, 1]))).unwrap(), 0);
    assert_eq!(writer.interface("core0", None).unwrap(), 1);
    writer.note(b"three").unwrap();
    writer.packet(1, 1_700_000_000_123_456_789, Some(Direction::Inbound), b"abc", Some("hello")).unwrap();
    writer.packet(0, 5, Some(Direction::Outbound), b"", None).unwrap();
    writer.note(&[]).unwrap();
    let bytes = writer.into_inner();
    assert_eq!(CaptureReader::new(Cursor::new(&bytes)).unwrap().comments(), ["seed 7"]);
    let expected = [
        Item::Interface { name: Some("wan0".into()) },
        Item::Interface { name: Some("core0".into()) },
        Item::Note(b"three".to_vec()),
        Item::Packet(packet(1, 1_700_000_000_123_456_789, Some(Direction::Inbound), b"abc", Some("hello"))),
        Item::Packet(packet(0, 5, Some(Direction::Outbound), b"", None)),
        Item::Note(Vec::new()),
    ];
    assert_eq!(items(&bytes).unwrap(), expected);
}

#[test]
fn times_are_read_in_the_unit_that_the_interface_names() {
    assert_eq!(to_nanos(1_500, 6), 1_500_000);
    assert_eq!(to_nanos(1_500, 9), 1_500);
    assert_eq!(to_nanos(3, 0), 3_000_000_000);
    assert_eq!(to_nanos(1 << 20, 0x80 | 20), 1_000_000_000);
    assert_eq!(to_nanos(u64::MAX, 0), u64::MAX);
    assert_eq!(to_nanos(u64::MAX, 0x7f), 0);
}

#[test]
fn an_old_pcap_is_one_interface_without_a_name() {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65535, 1] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for word in [7u32, 250, 3, 3] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(b"abc");
    let expected = [Item::Interface { name: None }, Item::Packet(packet(0, 7_000_250_000, None, b"abc", None))];
    assert_eq!(items(&bytes).unwrap(), expected);
}

#[test]
fn what_is_no_capture_is_refused() {
    for bytes in [&b""[..], b"this is a text file, and a long one at that"] {
        let error = items(bytes).expect_err("no capture");
        assert_eq!(error.to_string(), "it is neither pcap nor pcapng");
    }
}

/// A pcap file of two packets, of which the second was cut to three bytes.
fn old_pcap(link: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 4, link, 7, 250, 3, 3] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(b"abc");
    for word in [8u32, 1, 4, 1500] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(b"defg");
    bytes
}

#[test]
fn a_packet_that_the_capture_cut_says_how_long_it_was() {
    let Item::Packet(packet) = items(&old_pcap(1)).unwrap().remove(2) else { panic!("a packet") };
    assert_eq!((packet.nanos, packet.bytes.as_slice(), packet.wire_len), (8_000_001_000, &b"defg"[..], 1500));
}

#[test]
fn another_link_layer_than_ethernet_is_refused_by_name() {
    let error = items(&old_pcap(276)).expect_err("cooked packets");
    assert!(error.to_string().contains("LINUX_SLL2"), "{error}");
}

#[test]
fn a_capture_that_was_cut_off_says_so_wherever_it_ends() {
    let mut writer = CaptureWriter::new(Vec::new(), None).unwrap();
    writer.interface("wan0", None).unwrap();
    writer.packet(0, 1, None, b"abcd", None).unwrap();
    for whole in [old_pcap(1), writer.into_inner()] {
        let ends: Vec<usize> = (4..whole.len()).filter(|&len| items(&whole[..len]).is_ok()).collect();
        for len in (4..whole.len()).filter(|len| !ends.contains(len)) {
            let error = items(&whole[..len]).expect_err("cut off");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{len} of {} bytes: {error}", whole.len());
        }
        assert!(ends.len() <= 3, "it may end between packets only: {ends:?}");
    }
}

/// Sends what it receives out again by the same port, and once more ten milliseconds later.
struct Echo {
    pool: FramePool,
    counters: Counters,
    out: Vec<TxFrame>,
    later: Vec<(Instant, TxFrame)>,
}

impl Engine for Echo {
    fn on_frames(&mut self, now: Instant, batch: &mut Vec<RxFrame>) {
        for rx in batch.drain(..) {
            let copy = self.pool.share(&rx.frame);
            for frame in [&rx.frame, &copy] {
                self.pool.tx_begin(frame);
            }
            let (port, offset, len) = (rx.port, rx.offset, rx.len);
            self.out.push(TxFrame { port, frame: rx.frame, offset, len });
            let at = now + mimbox_stack::Duration::from_millis(10);
            self.later.push((at, TxFrame { port, frame: copy, offset, len }));
        }
    }
    fn on_timer(&mut self, now: Instant) {
        while self.later.first().is_some_and(|(at, _)| *at <= now) {
            self.out.push(self.later.remove(0).1);
        }
    }
    fn poll_transmit(&mut self, _now: Instant) -> Option<TxFrame> {
        if self.out.is_empty() { None } else { Some(self.out.remove(0)) }
    }
    fn next_deadline(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }
    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }
    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

#[test]
fn a_capture_is_replayed_in_its_own_time_and_what_is_sent_is_captured() {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("in.pcapng"), directory.path().join("out.pcapng"));
    let mut writer = CaptureWriter::create(&input, None).unwrap();
    writer.interface("a", None).unwrap();
    writer.interface("b", None).unwrap();
    let millis = |n: u64| 1_000_000_000_000 + n * 1_000_000;
    writer.packet(0, millis(0), None, b"first", None).unwrap();
    writer.packet(1, millis(4), Some(Direction::Inbound), b"second", None).unwrap();
    writer.packet(1, millis(5), Some(Direction::Outbound), b"not received", None).unwrap();
    writer.packet(0, millis(12), None, b"third", None).unwrap();
    writer.flush().unwrap();

    let start = Instant::from_millis(1_000);
    let clock = ManualClock::new(start);
    let mut writer = CaptureWriter::create(&output, None).unwrap();
    let interfaces = [writer.interface("a", None).unwrap(), writer.interface("b", None).unwrap()];
    let writer: SharedWriter = Arc::new(Mutex::new(writer));
    let ports = interfaces.map(|n| {
        let config = CaptureConfig {
            id: PortId(n as u8),
            input: &input,
            interface: n,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            start,
            output: Some((writer.clone(), n)),
        };
        Box::new(CapturePort::open(&config, clock.clone()).unwrap()) as Box<dyn Port>
    });
    let echo = Echo {
        pool: FramePool::new(Region::map(64, 2048).unwrap(), PoolConfig { rx_reserve: 0 }),
        counters: Counters::default(),
        out: Vec::new(),
        later: Vec::new(),
    };
    let mut worker = Worker::new(echo, ports.into(), clock, WorkerConfig::default()).unwrap();
    worker.replay(mimbox_stack::Duration::from_millis(100));
    assert_eq!(worker.close().pool.in_use(), 0);

    let mut reader = CaptureReader::open(&output).unwrap();
    let sent: Vec<_> = std::iter::from_fn(|| reader.next_packet().unwrap())
        .map(|packet| (packet.nanos / 1_000_000 - 1_000, packet.interface, packet.bytes))
        .collect();
    let expected: [(u64, u32, &[u8]); 6] = [
        (0, 0, b"first"),
        (4, 1, b"second"),
        (10, 0, b"first"),
        (12, 0, b"third"),
        (14, 1, b"second"),
        (22, 0, b"third"),
    ];
    assert_eq!(sent, expected.map(|(at, interface, bytes)| (at, interface, bytes.to_vec())));
}

proptest! {
    #[test]
    fn any_bytes_as_a_capture_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..3) {
        let mut file = match kind {
            0 => Vec::new(),
            1 => vec![0x0a, 0x0d, 0x0d, 0x0a],
            _ => {
                let mut writer = CaptureWriter::new(Vec::new(), None).unwrap();
                writer.interface("x", None).unwrap();
                writer.into_inner()
            }
        };
        file.extend_from_slice(&bytes);
        let _whatever_it_is = items(&file);
    }
}
