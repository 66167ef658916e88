use mimbox_dataplane::record::AFTER_ALL;
use mimbox_stack::mem::Region;
use mimbox_stack::{Counters, Duration, FramePool, PoolConfig, TxFrame};

use super::*;

/// An engine that sends every frame back, the first byte counting the free frames that it saw, and one frame a second.
struct Echo {
    pool: FramePool,
    counters: Counters,
    waiting: VecDeque<TxFrame>,
    next: Instant,
    orders: Vec<Order>,
}

impl Echo {
    fn new() -> Self {
        let pool = FramePool::new(Region::map(32, 2048).expect("memory"), PoolConfig { rx_reserve: 0 });
        let next = Instant::ZERO + Duration::from_secs(1);
        Self { pool, counters: Counters::default(), waiting: VecDeque::new(), next, orders: Vec::new() }
    }
    fn queue(&mut self, rx: RxFrame) {
        let free = self.pool.free_frames() as u8;
        self.pool.bytes_mut(&rx.frame)[usize::from(rx.offset)] = free;
        self.pool.tx_begin(&rx.frame);
        self.waiting.push_back(TxFrame { port: rx.port, frame: rx.frame, offset: rx.offset, len: rx.len });
    }
}

impl Engine for Echo {
    fn on_frames(&mut self, _: Instant, batch: &mut Vec<RxFrame>) {
        for rx in batch.drain(..) {
            self.queue(rx);
        }
    }
    fn on_timer(&mut self, now: Instant) {
        while self.next <= now {
            self.next += Duration::from_secs(1);
            let frame = self.pool.alloc_control().expect("a frame");
            self.queue(RxFrame { port: PortId(0), frame, offset: 0, len: 20 });
        }
    }
    fn obey(&mut self, _: Instant, order: Order) {
        self.orders.push(order);
    }
    fn poll_transmit(&mut self, _: Instant) -> Option<TxFrame> {
        self.waiting.pop_front()
    }
    fn next_deadline(&self) -> Option<Instant> {
        Some(self.next)
    }
    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }
    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

#[derive(Default)]
struct Seen(Vec<(Instant, u8)>);

impl Sink for Seen {
    fn frame(&mut self, now: Instant, _: PortId, bytes: &[u8]) -> anyhow::Result<()> {
        self.0.push((now, bytes[0]));
        Ok(())
    }
}

fn frames(at_ms: u64, free_frames: u32, count: usize, given: Option<Given>) -> Event {
    let frames = vec![(PortId(1), vec![0; 60]); count];
    let (now, cause) = (Instant::from_millis(at_ms), Cause::Frames(frames));
    Event { now, free_frames, cause, given, completions: Vec::new() }
}

#[test]
fn the_engine_has_as_many_free_frames_as_when_it_was_recorded() {
    let mut driver = Driver::new(Echo::new());
    let mut seen = Seen::default();
    for (at, free) in [(1, 30), (2, 3), (3, 17), (4, 31)] {
        driver.recorded(&frames(at, free, 1, None), &mut seen).expect("an event");
    }
    assert_eq!(seen.0.iter().map(|(_, free)| *free).collect::<Vec<_>>(), [30, 3, 17, 31]);
    driver.finish();
    assert_eq!(driver.engine().pool.free_frames(), 32);
}

#[test]
fn an_engine_that_was_not_polled_to_the_end_is_not_now_either() {
    let mut driver = Driver::new(Echo::new());
    let mut seen = Seen::default();
    let stopped = Given { frames: 2, digest: 0, limited: true };
    let given = driver.recorded(&frames(1, 20, 5, Some(stopped)), &mut seen).expect("an event");
    assert_eq!((given.frames, given.limited), (2, true));
    let rest = Event { cause: Cause::Timer, ..frames(2, 20, 0, None) };
    assert_eq!(driver.recorded(&rest, &mut seen).expect("an event").frames, 3);
}

#[test]
fn sent_frames_come_back_when_they_did_and_from_the_port_that_they_did() {
    let mut driver = Driver::new(Echo::new());
    let mut seen = Seen::default();
    let pending = |driver: &mut Driver<Echo>| driver.engine().pool.audit().tx_pending;
    let back = |after, port, frames| Completion { after, port: PortId(port), frames };
    // The ring gave one of three back while the engine was still being polled, and one after that.
    let completions = vec![back(2, 1, 1), back(AFTER_ALL, 1, 1), back(AFTER_ALL, 0, 5)];
    let event = Event { completions, ..frames(1, 20, 3, None) };
    driver.recorded(&event, &mut seen).expect("an event");
    assert_eq!(pending(&mut driver), 1);
    driver
        .recorded(&Event { completions: vec![back(AFTER_ALL, 1, 2)], ..frames(2, 20, 1, None) }, &mut seen)
        .expect("an event");
    assert_eq!(pending(&mut driver), 0);
    driver.finish();
    assert_eq!(driver.engine().pool.free_frames(), 32);
}

#[test]
fn orders_reach_the_engine() {
    let mut driver = Driver::new(Echo::new());
    let event = Event { cause: Cause::Order(Order::ResetAll), ..frames(1, 20, 0, None) };
    driver.recorded(&event, &mut Seen::default()).expect("an event");
    assert_eq!(driver.engine().orders, [Order::ResetAll]);
    driver.finish();
}

#[test]
fn timers_run_at_their_own_times_between_the_packets_of_a_capture() {
    let mut driver = Driver::new(Echo::new());
    let mut seen = Seen::default();
    driver.captured(Instant::from_millis(500), PortId(0), &[0; 60], &mut seen).expect("a packet");
    driver.captured(Instant::from_millis(2_500), PortId(0), &[0; 60], &mut seen).expect("a packet");
    driver.timers_until(Instant::from_millis(3_000), &mut seen).expect("timers");
    let times: Vec<u64> = seen.0.iter().map(|(at, _)| at.as_millis()).collect();
    assert_eq!(times, [500, 1_000, 2_000, 2_500, 3_000]);
    driver.finish();
    assert_eq!(driver.engine().pool.free_frames(), 32);
}

#[test]
fn a_packet_larger_than_a_frame_is_an_error() {
    let mut driver = Driver::new(Echo::new());
    let error = driver.captured(Instant::ZERO, PortId(0), &[0; 3_000], &mut Seen::default());
    assert!(error.is_err_and(|error| error.to_string().contains("frame_size")));
}
