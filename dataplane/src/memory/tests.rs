use mimbox_stack::PoolConfig;
use mimbox_stack::mem::Region;

use super::*;

fn pool() -> FramePool {
    FramePool::new(Region::map(64, 2048).unwrap(), PoolConfig { rx_reserve: 0 })
}

fn frame(pool: &mut FramePool, port: PortId, bytes: &[u8]) -> TxFrame {
    let frame = pool.alloc().unwrap();
    pool.bytes_mut(&frame)[100..100 + bytes.len()].copy_from_slice(bytes);
    pool.tx_begin(&frame);
    TxFrame { port, frame, offset: 100, len: bytes.len() as u16 }
}

#[test]
fn what_one_port_sends_the_other_receives_in_order() {
    let (mut a, mut b) = pair(PortId(0), PortId(1), MemoryConfig::default()).unwrap();
    let (mut pool_a, mut pool_b) = (pool(), pool());
    for text in [b"first".as_slice(), b"second"] {
        let frame = frame(&mut pool_a, PortId(0), text);
        a.transmit(&mut pool_a, frame).unwrap();
    }
    a.flush();
    let mut batch = Vec::new();
    assert_eq!(b.receive(&mut pool_b, &mut batch, 64), 2);
    let seen: Vec<_> = batch
        .iter()
        .map(|rx| pool_b.bytes(&rx.frame)[usize::from(rx.offset)..usize::from(rx.offset + rx.len)].to_vec())
        .collect();
    assert_eq!(seen, [b"first".to_vec(), b"second".to_vec()]);
    assert_eq!(batch[0].offset, 256, "as AF_XDP places them");
    for rx in batch {
        pool_b.release(rx.frame);
    }
    assert_eq!(a.complete(&mut pool_a), 2);
    assert_eq!((pool_a.in_use(), pool_b.in_use()), (0, 0));
}

#[test]
fn a_full_ring_gives_the_frame_back() {
    let (mut port, _end) = with_end(PortId(0), MemoryConfig { tx_ring: 1, queue: 8 }).unwrap();
    let mut pool = pool();
    let first = frame(&mut pool, PortId(0), b"1");
    let second = frame(&mut pool, PortId(0), b"2");
    port.transmit(&mut pool, first).unwrap();
    let second = port.transmit(&mut pool, second).unwrap_err();
    assert_eq!(port.frames_in_rings(), 1);
    port.complete(&mut pool);
    port.transmit(&mut pool, second).unwrap();
    port.close(&mut pool);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn what_exceeds_the_queue_is_lost_and_counted() {
    let (mut port, end) = with_end(PortId(0), MemoryConfig { tx_ring: 1, queue: 2 }).unwrap();
    for _ in 0..3 {
        end.push(b"packet");
    }
    let mut batch = Vec::new();
    assert_eq!(port.receive(&mut pool(), &mut batch, 64), 2);
    assert_eq!(port.stats().rx_ring_full, 1);
}

#[test]
fn a_packet_longer_than_a_frame_is_dropped() {
    let (mut port, end) = with_end(PortId(0), MemoryConfig::default()).unwrap();
    end.push(&[0; 1793]);
    end.push(&[0; 1792]);
    let mut batch = Vec::new();
    assert_eq!(port.receive(&mut pool(), &mut batch, 64), 1);
    assert_eq!((batch[0].len, port.stats().rx_dropped), (1792, 1));
}
