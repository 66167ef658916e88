use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use mimbox_stack::mem::Region;
use mimbox_stack::{Counters, FrameId, PoolConfig};

use super::*;
use crate::clock::{ManualClock, MonotonicClock};
use crate::memory::{MemoryConfig, MemoryEnd, with_end};

/// Sends every frame out by the other of two ports, `copies` times.
struct Relay {
    pool: FramePool,
    counters: Counters,
    out: VecDeque<TxFrame>,
    copies: usize,
    deadline: Option<Instant>,
    seen: Vec<(Instant, usize)>,
    orders: Vec<Order>,
}

impl Relay {
    fn new() -> Self {
        Self {
            pool: FramePool::new(Region::map(256, 2048).unwrap(), PoolConfig { rx_reserve: 16 }),
            counters: Counters::default(),
            out: VecDeque::new(),
            copies: 1,
            deadline: None,
            seen: Vec::new(),
            orders: Vec::new(),
        }
    }
}

impl Engine for Relay {
    fn on_frames(&mut self, now: Instant, batch: &mut Vec<RxFrame>) {
        self.seen.push((now, batch.len()));
        for rx in batch.drain(..) {
            for _ in 0..self.copies {
                let frame: FrameId = self.pool.share(&rx.frame);
                self.pool.tx_begin(&frame);
                self.out.push_back(TxFrame { port: PortId(1 - rx.port.0), frame, offset: rx.offset, len: rx.len });
            }
            self.pool.release(rx.frame);
        }
    }
    fn on_timer(&mut self, now: Instant) {
        self.seen.push((now, 0));
        self.deadline = self.deadline.filter(|&deadline| deadline > now);
    }
    fn obey(&mut self, _now: Instant, order: Order) {
        self.orders.push(order);
    }
    fn poll_transmit(&mut self, _now: Instant) -> Option<TxFrame> {
        self.out.pop_front()
    }
    fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }
    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }
    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

fn bench(memory: MemoryConfig, config: WorkerConfig) -> (Worker<Relay, ManualClock>, [MemoryEnd; 2], ManualClock) {
    let (a, end_a) = with_end(PortId(0), memory).unwrap();
    let (b, end_b) = with_end(PortId(1), memory).unwrap();
    let clock = ManualClock::new(Instant::from_millis(1));
    let worker = Worker::new(Relay::new(), vec![Box::new(a), Box::new(b)], clock.clone(), config).unwrap();
    (worker, [end_a, end_b], clock)
}

fn audit(worker: Worker<Relay, ManualClock>) {
    let mut relay = worker.close();
    for frame in std::mem::take(&mut relay.out) {
        relay.pool.tx_complete(frame.frame);
    }
    assert_eq!(relay.pool.in_use(), 0, "a frame leaked");
}

#[test]
fn frames_go_in_order_from_port_to_port() {
    let (mut worker, [a, b], _) = bench(MemoryConfig::default(), WorkerConfig::default());
    for n in 0..100u8 {
        a.push(&[n; 60]);
    }
    assert!(worker.turn() && worker.turn());
    assert!(!worker.turn(), "everything was taken, 64 at a time");
    let got: Vec<u8> = std::iter::from_fn(|| b.pop()).map(|packet| packet[0]).collect();
    assert_eq!(got, (0..100).collect::<Vec<u8>>());
    assert_eq!(worker.engine().seen.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [64, 36]);
    audit(worker);
}

#[test]
fn timers_run_when_they_are_due_and_not_before() {
    let (mut worker, _ends, clock) = bench(MemoryConfig::default(), WorkerConfig::default());
    worker.engine().deadline = Some(Instant::from_millis(5));
    assert!(!worker.turn());
    clock.advance_to(Instant::from_millis(5));
    assert!(worker.turn());
    assert_eq!(worker.engine().seen, [(Instant::from_millis(5), 0)]);
    audit(worker);
}

#[test]
fn a_full_ring_loses_and_reorders_nothing() {
    let config = WorkerConfig { backlog: 8, ..WorkerConfig::default() };
    let (mut worker, [a, b], clock) = bench(MemoryConfig { tx_ring: 0, queue: 4096 }, config);
    worker.engine().copies = 3;
    for n in 0..10u8 {
        a.push(&[n; 60]);
    }
    worker.turn();
    assert_eq!(worker.ports().get(PortId(1)).unwrap().backlog, 8);
    assert_eq!(worker.engine().out.len(), 22, "the engine is not asked for more than can wait");
    assert_eq!(worker.stats().limited, 1);
    // The port that takes nothing is exchanged for one that does.
    let (open, open_end) = with_end(PortId(1), MemoryConfig::default()).unwrap();
    worker.slots[1].port = Box::new(open);
    clock.advance(Duration::from_millis(1));
    while worker.turn() {}
    let got: Vec<u8> = std::iter::from_fn(|| open_end.pop()).map(|packet| packet[0]).collect();
    assert_eq!(got, (0..10).flat_map(|n| [n; 3]).collect::<Vec<u8>>());
    assert!(b.pop().is_none());
    audit(worker);
}

#[test]
fn a_port_that_takes_nothing_for_long_loses_what_waits() {
    let config = WorkerConfig { backlog: 8, ..WorkerConfig::default() };
    let (mut worker, [a, _b], clock) = bench(MemoryConfig { tx_ring: 0, queue: 4096 }, config);
    for n in 0..5u8 {
        a.push(&[n; 60]);
    }
    worker.turn();
    clock.advance(Duration::from_millis(999));
    worker.turn();
    assert_eq!(worker.stats().stalled, 0);
    clock.advance(Duration::from_millis(1));
    worker.turn();
    assert_eq!(worker.stats().stalled, 5);
    assert_eq!(worker.ports().get(PortId(1)).unwrap().stats.tx_dropped, 5);
    audit(worker);
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Frames(Instant, u32, Vec<(PortId, Vec<u8>)>),
    Timer(Instant, u32),
    Sent(Instant, PortId, Vec<u8>),
    Order(Instant, u32, Order),
    Polled(u32, bool),
    Completed(PortId, u32),
}

#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<Event>>>);

fn bytes(pool: &FramePool, frame: &FrameId, offset: u16, len: u16) -> Vec<u8> {
    pool.bytes(frame)[usize::from(offset)..usize::from(offset + len)].to_vec()
}

impl Recorder for Log {
    fn frames(&mut self, now: Instant, free: u32, pool: &FramePool, batch: &[RxFrame]) {
        let frames = batch.iter().map(|rx| (rx.port, bytes(pool, &rx.frame, rx.offset, rx.len))).collect();
        self.0.borrow_mut().push(Event::Frames(now, free, frames));
    }
    fn timer(&mut self, now: Instant, free: u32) {
        self.0.borrow_mut().push(Event::Timer(now, free));
    }
    fn sent(&mut self, now: Instant, pool: &FramePool, frame: &TxFrame) {
        let bytes = bytes(pool, &frame.frame, frame.offset, frame.len);
        self.0.borrow_mut().push(Event::Sent(now, frame.port, bytes));
    }
    fn order(&mut self, now: Instant, free: u32, order: Order) {
        self.0.borrow_mut().push(Event::Order(now, free, order));
    }
    fn polled(&mut self, taken: u32, limited: bool) {
        self.0.borrow_mut().push(Event::Polled(taken, limited));
    }
    fn completed(&mut self, port: PortId, frames: u32) {
        self.0.borrow_mut().push(Event::Completed(port, frames));
    }
}

#[test]
fn the_recorder_sees_every_event_with_its_time_before_the_engine_does() {
    let config = WorkerConfig { backlog: 1, ..WorkerConfig::default() };
    let (mut worker, [a, _b], clock) = bench(MemoryConfig { tx_ring: 0, queue: 16 }, config);
    let log = Log::default();
    worker.record(Box::new(log.clone()));
    a.push(b"one packet");
    a.push(b"another");
    worker.turn();
    let start = Instant::from_millis(1);
    clock.advance(Duration::from_millis(1_000));
    worker.turn();
    let expected = [
        Event::Frames(start, 254, vec![(PortId(0), b"one packet".to_vec()), (PortId(0), b"another".to_vec())]),
        Event::Sent(start, PortId(1), b"one packet".to_vec()),
        Event::Polled(1, true),
        // The port stalled, so there is room again, and what was left comes out.
        Event::Completed(PortId(1), 1),
        Event::Timer(Instant::from_millis(1_001), 255),
        Event::Sent(Instant::from_millis(1_001), PortId(1), b"another".to_vec()),
        Event::Polled(1, true),
    ];
    assert_eq!(*log.0.borrow(), expected);
    audit(worker);
}

#[test]
fn the_recorder_is_told_when_frames_come_back_between_polls_and_between_events() {
    let (mut worker, [a, _b], _) = bench(MemoryConfig { tx_ring: 2, queue: 16 }, WorkerConfig::default());
    let log = Log::default();
    worker.record(Box::new(log.clone()));
    for n in 0..3u8 {
        a.push(&[n; 60]);
    }
    worker.turn();
    a.push(&[3; 60]);
    worker.turn();
    let told: Vec<Event> = log.0.borrow().iter().filter(|event| !matches!(event, Event::Frames(..))).cloned().collect();
    let now = Instant::from_millis(1);
    let sent = |n: u8| Event::Sent(now, PortId(1), vec![n; 60]);
    let expected = [
        sent(0),
        sent(1),
        // The ring is full: it is emptied to make room for the third.
        sent(2),
        Event::Completed(PortId(1), 2),
        Event::Polled(3, false),
        Event::Completed(PortId(1), 1),
        sent(3),
        Event::Polled(1, false),
    ];
    assert_eq!(told, expected);
    audit(worker);
}

/// A port that counts how often its doorbell is rung, and whose device takes nothing for a while.
struct Doorbell {
    inner: crate::memory::MemoryPort,
    rung: Rc<RefCell<u32>>,
    stuck: Rc<RefCell<bool>>,
}

impl Port for Doorbell {
    fn info(&self) -> &PortInfo {
        self.inner.info()
    }
    fn receive(&mut self, pool: &mut FramePool, batch: &mut Vec<RxFrame>, max: usize) -> usize {
        self.inner.receive(pool, batch, max)
    }
    fn transmit(&mut self, pool: &mut FramePool, frame: TxFrame) -> Result<(), TxFrame> {
        self.inner.transmit(pool, frame)
    }
    fn flush(&mut self) {
        *self.rung.borrow_mut() += 1;
        self.inner.flush();
    }
    fn complete(&mut self, pool: &mut FramePool) -> usize {
        if *self.stuck.borrow() { 0 } else { self.inner.complete(pool) }
    }
    fn refill(&mut self, pool: &mut FramePool) {
        self.inner.refill(pool);
    }
    fn frames_in_rings(&self) -> u32 {
        self.inner.frames_in_rings()
    }
    fn wants_flush(&self) -> bool {
        *self.stuck.borrow()
    }
    fn fd(&self) -> Option<RawFd> {
        self.inner.fd()
    }
    fn state(&self) -> PortState {
        self.inner.state()
    }
    fn stats(&self) -> PortStats {
        self.inner.stats()
    }
    fn close(&mut self, pool: &mut FramePool) {
        self.inner.close(pool);
    }
}

#[test]
fn a_doorbell_is_rung_once_a_batch_even_when_the_ring_is_full_and_not_while_there_is_nothing_to_do() {
    let (mut worker, [a, _b], _) = bench(MemoryConfig::default(), WorkerConfig::default());
    let (inner, end) = with_end(PortId(1), MemoryConfig { tx_ring: 4, queue: 4096 }).unwrap();
    let (rung, stuck) = (Rc::new(RefCell::new(0)), Rc::new(RefCell::new(false)));
    worker.slots[1].port = Box::new(Doorbell { inner, rung: Rc::clone(&rung), stuck: Rc::clone(&stuck) });
    let rings = || std::mem::take(&mut *rung.borrow_mut());
    a.push(&[0; 60]);
    worker.turn();
    assert_eq!(rings(), 1);
    for n in 0..64u8 {
        a.push(&[n; 60]);
    }
    // Sixteen rings full of frames, in one batch.
    worker.turn();
    assert_eq!(rings(), 1);
    while worker.turn() {
        assert!(rings() <= 1);
    }
    while worker.slots[1].backlog.front().is_some() {
        worker.turn();
        assert!(rings() <= 1);
    }
    assert_eq!(std::iter::from_fn(|| end.pop()).count(), 65, "nothing is lost by it");
    // The device takes nothing: it is asked after a batch, once more, and then not until the worker has slept.
    worker.turn();
    rings();
    *stuck.borrow_mut() = true;
    a.push(&[0; 60]);
    worker.turn();
    worker.turn();
    assert_eq!(rings(), 2);
    for _ in 0..100 {
        worker.turn();
    }
    assert_eq!(rings(), 0);
    worker.sleep(worker.now);
    worker.turn();
    assert_eq!(rings(), 1);
    *stuck.borrow_mut() = false;
    audit(worker);
}

#[test]
fn an_order_is_recorded_and_followed_by_another_tick_at_once() {
    let (mut worker, _ends, _) = bench(MemoryConfig::default(), WorkerConfig::default());
    let log = Log::default();
    worker.record(Box::new(log.clone()));
    let mut orders =
        [Verdict::Order(Order::RefuseOpenings), Verdict::Order(Order::ResetAll), Verdict::Stop].into_iter();
    worker.run(&AtomicBool::new(false), &mut |_: Tick<'_, Relay>| orders.next().unwrap());
    let now = Instant::from_millis(1);
    let expected = [
        Event::Order(now, 256, Order::RefuseOpenings),
        Event::Polled(0, false),
        Event::Order(now, 256, Order::ResetAll),
        Event::Polled(0, false),
    ];
    assert_eq!(*log.0.borrow(), expected);
    audit(worker);
}

#[test]
fn a_frame_for_a_port_that_is_not_there_is_given_back() {
    let (mut worker, [a, _], _) = bench(MemoryConfig::default(), WorkerConfig::default());
    worker.slots.pop();
    a.push(b"packet");
    worker.turn();
    assert_eq!(worker.stats().misaddressed, 1);
    audit(worker);
}

#[test]
fn a_sleeping_worker_wakes_for_frames_and_requests_and_uses_no_cpu_in_between() {
    let (a, end_a) = with_end(PortId(0), MemoryConfig::default()).unwrap();
    let (b, end_b) = with_end(PortId(1), MemoryConfig::default()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (ready, waker) = std::sync::mpsc::channel();
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || {
        let ports: Vec<Box<dyn Port>> = vec![Box::new(a), Box::new(b)];
        let mut worker = Worker::new(Relay::new(), ports, MonotonicClock::start(), WorkerConfig::default()).unwrap();
        ready.send(worker.waker()).unwrap();
        let mut asked = 0;
        worker.run(&stopped, &mut |tick: Tick<'_, Relay>| {
            asked += u32::from(tick.asked);
            Verdict::Continue
        });
        let turns = worker.stats().turns;
        (worker.close().pool.in_use(), asked, turns)
    });
    let waker = waker.recv().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    for n in 0..20u8 {
        let sent = std::time::Instant::now();
        end_a.push(&[n; 60]);
        while end_b.pop().is_none() {
            assert!(sent.elapsed() < std::time::Duration::from_secs(5), "the worker sleeps on");
            std::thread::yield_now();
        }
    }
    waker.raise();
    std::thread::sleep(std::time::Duration::from_millis(100));
    stop.store(true, Ordering::Relaxed);
    waker.raise();
    let (in_use, asked, turns) = thread.join().unwrap();
    assert_eq!(in_use, 0);
    assert!((1..=2).contains(&asked), "asked {asked} times");
    // A turn takes less than a microsecond: 400 ms of looking would be hundreds of thousands.
    assert!(turns < 50_000, "{turns} turns");
}

/// Links as a test says they are.
struct Told(Rc<RefCell<(bool, Vec<&'static str>)>>);

impl Links for Told {
    fn news(&mut self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().0)
    }
    fn is_up(&self, interface: &str) -> bool {
        !self.0.borrow().1.contains(&interface)
    }
    fn fd(&self) -> Option<RawFd> {
        None
    }
}

#[test]
fn an_engine_is_told_once_of_each_link_that_is_lost_or_back() {
    let (mut worker, _ends, clock) = bench(MemoryConfig::default(), WorkerConfig::default());
    let links = Rc::new(RefCell::new((false, vec!["memory1"])));
    worker.watch(Box::new(Told(Rc::clone(&links))));
    let link = |port, up| Order::Link { port: PortId(port), up };
    assert_eq!(worker.engine().orders, [link(1, false)], "at once, if a port has none from the beginning");
    assert_eq!(worker.ports().get(PortId(1)).unwrap().state, PortState::Down);
    let mut tick = 0;
    let stop = AtomicBool::new(false);
    worker.run(&stop, &mut |_: Tick<'_, Relay>| {
        tick += 1;
        match tick {
            1 => *links.borrow_mut() = (true, vec!["memory0", "memory1"]),
            2 => *links.borrow_mut() = (true, vec![]),
            3 => *links.borrow_mut() = (false, vec!["memory0"]),
            4 => return Verdict::Stop,
            _ => {}
        }
        clock.advance_to(Instant::from_millis(1_000 * tick));
        Verdict::Continue
    });
    let all = [link(1, false), link(0, false), link(0, true), link(1, true)];
    assert_eq!(worker.engine().orders, all, "nothing is asked while there is no news");
    audit(worker);
}
