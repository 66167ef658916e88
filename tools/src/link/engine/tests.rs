use mimbox_stack::PoolConfig;
use mimbox_stack::mem::Region;

use super::*;

const DELAY: Duration = Duration::from_millis(10);
const START: Instant = Instant::from_millis(1000);

fn engine(link: LinkOptions) -> LinkEngine {
    let pool = FramePool::new(Region::map(256, 2048).expect("memory"), PoolConfig { rx_reserve: 8 });
    LinkEngine::new(pool, [WayOptions { link, overhead: 0 }; 2], 1)
}

fn options() -> LinkOptions {
    LinkOptions { rate_bps: 100_000_000, delay: DELAY, ..LinkOptions::CLEAN }
}

/// A frame with an IPv4 packet of `len` bytes, the last of which is `mark`, as received by a port.
fn receive(engine: &mut LinkEngine, now: Instant, port: u8, len: u16, mark: u8) {
    let frame = engine.pool.alloc_control().expect("a frame");
    let bytes = &mut engine.pool.bytes_mut(&frame)[RX_HEADROOM..RX_HEADROOM + 14 + usize::from(len)];
    bytes.fill(0);
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes[14] = 0x45;
    bytes[16..18].copy_from_slice(&len.to_be_bytes());
    bytes[23] = 253;
    *bytes.last_mut().expect("not empty") = mark;
    let mut batch = vec![RxFrame { port: PortId(port), frame, offset: RX_HEADROOM as u16, len: 14 + len }];
    engine.on_frames(now, &mut batch);
}

/// What leaves at `now`: port and last byte of each frame.
fn leave(engine: &mut LinkEngine, now: Instant) -> Vec<(u8, u8)> {
    let mut left = Vec::new();
    while let Some(TxFrame { port, frame, offset, len }) = engine.poll_transmit(now) {
        let end = usize::from(offset) + usize::from(len);
        left.push((port.0, engine.pool.bytes(&frame)[end - 1]));
        engine.pool.tx_complete(frame);
    }
    left
}

#[test]
fn a_frame_leaves_by_the_other_port_when_it_is_due_and_not_before() {
    let mut engine = engine(options());
    receive(&mut engine, START, 0, 1500, 1);
    receive(&mut engine, START, 1, 1500, 2);
    let due = START + DELAY + Duration::from_micros(120);
    assert_eq!(engine.next_deadline(), Some(due));
    assert_eq!(leave(&mut engine, START + DELAY), []);
    assert_eq!(leave(&mut engine, due), [(1, 1), (0, 2)]);
    assert_eq!(engine.next_deadline(), None);
    assert_eq!(engine.pool.in_use(), 0);
}

#[test]
fn the_rate_counts_the_ip_packet_and_what_is_asked_beside_it() {
    let way = |overhead| WayOptions { link: options(), overhead };
    let pool = FramePool::new(Region::map(64, 2048).expect("memory"), PoolConfig { rx_reserve: 8 });
    let mut engine = LinkEngine::new(pool, [way(0), way(38)], 1);
    receive(&mut engine, START, 0, 1000, 1);
    assert_eq!(engine.next_deadline(), Some(START + DELAY + Duration::from_micros(80)));
    assert_eq!(leave(&mut engine, START + DELAY + DELAY), [(1, 1)]);
    receive(&mut engine, START, 1, 1212, 1);
    assert_eq!(engine.next_deadline(), Some(START + DELAY + Duration::from_micros(100)));
    assert_eq!(engine.totals(1).link.bytes, 1250);
    engine.release_all();
}

#[test]
fn frames_keep_their_order_unless_one_is_held_back() {
    let mut engine = engine(options());
    for mark in 0..100 {
        receive(&mut engine, START, 0, 100, mark);
    }
    let marks: Vec<u8> = leave(&mut engine, START + DELAY + DELAY).into_iter().map(|(_, mark)| mark).collect();
    assert_eq!(marks, (0..100).collect::<Vec<u8>>());
}

#[test]
fn a_cut_loses_what_is_on_the_way_and_what_comes_until_it_is_mended() {
    let mut engine = engine(options());
    receive(&mut engine, START, 0, 100, 1);
    engine.set_cut(true);
    receive(&mut engine, START, 0, 100, 2);
    assert_eq!(engine.next_deadline(), None);
    engine.set_cut(false);
    receive(&mut engine, START, 0, 100, 3);
    assert_eq!(leave(&mut engine, START + DELAY + DELAY), [(1, 3)]);
    assert_eq!((engine.totals(0).cut, engine.totals(0).delivered), (2, 1));
    assert_eq!(engine.pool.in_use(), 0);
}

#[test]
fn copies_arrive_unchanged_when_the_original_is_corrupted() {
    let mut engine = engine(LinkOptions { duplicate_ppm: 1_000_000, corrupt_ppm: 1_000_000, ..options() });
    for n in 0..50 {
        receive(&mut engine, START + Duration::from_millis(n), 0, 200, 77);
    }
    let until = START + Duration::from_millis(100);
    let mut packets = Vec::new();
    while let Some(TxFrame { frame, offset, .. }) = engine.poll_transmit(until) {
        packets.push(engine.pool.bytes(&frame)[usize::from(offset)..usize::from(offset) + 214].to_vec());
        engine.pool.tx_complete(frame);
    }
    assert_eq!(packets.len(), 100);
    let ones = |packet: &Vec<u8>| packet.iter().map(|byte| byte.count_ones()).sum::<u32>();
    let whole = packets.iter().filter(|packet| packet[213] == 77 && ones(packet) == ones(&packets_clean())).count();
    assert_eq!(whole, 50);
    assert_eq!(engine.pool.in_use(), 0);
}

/// The packet of the test above as it was sent.
fn packets_clean() -> Vec<u8> {
    let mut packet = vec![0; 214];
    packet[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
    packet[16..18].copy_from_slice(&200u16.to_be_bytes());
    packet[23] = 253;
    packet[213] = 77;
    packet
}

#[test]
fn every_frame_is_given_back_whatever_becomes_of_it() {
    let link = LinkOptions {
        rate_bps: 20_000_000,
        queue_bytes: 20_000,
        loss_ppm: 100_000,
        reorder_ppm: 300_000,
        reorder_by: DELAY,
        duplicate_ppm: 300_000,
        corrupt_ppm: 300_000,
        mtu: 1000,
        ..options()
    };
    let mut engine = engine(link);
    for n in 0..3_000u64 {
        let now = START + Duration::from_micros(70 * n);
        receive(&mut engine, now, (n % 2) as u8, 100 + (n % 1100) as u16, n as u8);
        leave(&mut engine, now);
    }
    let totals = engine.totals(0).link;
    assert!([totals.lost, totals.overflowed, totals.oversized, totals.duplicated].iter().all(|n| *n > 0), "{totals:?}");
    let audit = engine.release_all().audit();
    assert_eq!((audit.held, audit.broken), (0, 0));
}

#[test]
fn lateness_is_the_time_beyond_due() {
    let mut engine = engine(options());
    receive(&mut engine, START, 0, 1500, 1);
    let due = START + DELAY + Duration::from_micros(120);
    leave(&mut engine, due + Duration::from_micros(300));
    let late = engine.take_lateness(0);
    assert_eq!((late.percentile_ms(50), late.max_ms()), (0.3, 0.3));
    assert_eq!(engine.take_lateness(0).max_ms(), 0.0);
}

#[test]
fn a_long_fat_link_has_room_for_what_it_holds() {
    let link = LinkOptions { delay: Duration::from_millis(100), queue_bytes: 2_500_000, ..options() };
    let frames = frames_for(&WayOptions { link, overhead: 0 });
    // Full packets on the way and in the queue.
    assert!(frames > (1_250_000 + 2_500_000) / 1500, "{frames}");
}
