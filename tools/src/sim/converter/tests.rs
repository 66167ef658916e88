use mimbox_dataplane::Engine;
use mimbox_stack::mem::Region;
use mimbox_stack::{Counters, FramePool, PoolConfig, TxFrame};

use super::*;
use crate::sim::draw;
use crate::sim::link::{Link, LinkOptions};
use crate::sim::observer::Carries;
use crate::sim::peer::{self, Peers};
use crate::sim::plan::Plan;
use crate::sim::profile::Profile;
use crate::sim::world::World;

/// What a repeater does wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    LosesFrames,
    ChangesBytes,
    SleepsThrough,
    NeverStops,
}

/// An engine that sends every frame of port 0 by port 1, and the other way round.
struct Repeater {
    pool: FramePool,
    counters: Counters,
    waiting: VecDeque<TxFrame>,
    fault: Fault,
    seen: u64,
}

impl Engine for Repeater {
    fn on_frames(&mut self, _: Instant, batch: &mut Vec<RxFrame>) {
        for RxFrame { port, frame, offset, len } in batch.drain(..) {
            self.seen += 1;
            if self.fault == Fault::LosesFrames && self.seen == 100 {
                let _ = frame.into_raw();
                continue;
            }
            if self.fault == Fault::ChangesBytes && self.seen == 100 {
                self.pool.bytes_mut(&frame)[usize::from(offset) + 40] ^= 1;
            }
            self.pool.tx_begin(&frame);
            self.waiting.push_back(TxFrame { port: PortId(1 - port.0), frame, offset, len });
        }
    }
    fn on_timer(&mut self, _: Instant) {}
    fn poll_transmit(&mut self, _: Instant) -> Option<TxFrame> {
        let next = self.waiting.pop_front()?;
        if self.fault == Fault::NeverStops && self.seen >= 100 {
            let frame = self.pool.share(&next.frame);
            self.pool.tx_begin(&frame);
            self.waiting.push_back(TxFrame { frame, ..next });
        }
        Some(next)
    }
    fn next_deadline(&self) -> Option<Instant> {
        None
    }
    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }
    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

impl Subject for Repeater {
    fn live(&self) -> u64 {
        0
    }
    fn living(&mut self, _: Instant) -> Vec<String> {
        Vec::new()
    }
    fn heaviest(&mut self) -> Option<Heaviest> {
        None
    }
    fn timer_fault(&mut self, _: Instant) -> Option<String> {
        (self.fault == Fault::SleepsThrough && self.seen >= 100).then(|| "for its timer".to_owned())
    }
    fn release(&mut self, _: Instant) {}
}

/// Twenty connections through a repeater; what its audit says, and how many ends stayed open.
fn through_repeater(fault: Fault) -> (Vec<String>, usize) {
    let options = Profile::named("foreign-direct").expect("a profile").options(7, 20);
    let mut rng = draw::stream(7, 2);
    let plans: Vec<Plan> = (0..20).map(|_| Plan::draw(&mut rng, &options.traffic)).collect();
    let mut world = World::new();
    let clients = world.add(Box::new(Peers::new(&plans, &options.servers, peer::clients(None), 1)));
    let servers = world.add(Box::new(Peers::new(&plans, &options.servers, peer::servers(None), 2)));
    let region = Region::map(4096, 2048).expect("memory");
    let pool = FramePool::new(region, PoolConfig { rx_reserve: 64 });
    let engine = Repeater { pool, counters: Counters::default(), waiting: VecDeque::new(), fault, seen: 0 };
    let sides = vec![Side::Clients, Side::Servers];
    let observer = Observer::new(Carries::Ended);
    let middle = Converter::new(engine, options.converter, sides, observer, None, draw::stream(7, 9));
    let middle = world.add(Box::new(middle));
    for (part, (from, to)) in [
        ((clients, 0), (middle, 0)),
        ((middle, 0), (clients, 0)),
        ((middle, 1), (servers, 0)),
        ((servers, 0), (middle, 1)),
    ]
    .into_iter()
    .enumerate()
    {
        world.connect(from, to, Link::new(LinkOptions::CLEAN, draw::stream(7, 20 + part as u64)));
    }
    let limit = Instant::ZERO + Duration::from_secs(100);
    world.run(limit, |world| world.nodes().all(|node| node.open_ends() == 0));
    let open = world.nodes().map(Node::open_ends).sum();
    let now = world.now();
    (world.nodes_mut().flat_map(|node| node.audit(now)).collect(), open)
}

#[test]
fn what_a_faultless_engine_does_is_not_complained_of() {
    let (complaints, open) = through_repeater(Fault::None);
    // smoltcp itself moves the right edge of its window back when its scale rounds it.
    let other: Vec<&String> = complaints.iter().filter(|complaint| !complaint.contains("right edge")).collect();
    assert!(other.is_empty(), "{other:?}");
    assert_eq!(open, 0);
}

#[test]
fn a_lost_frame_is_found() {
    let (complaints, _) = through_repeater(Fault::LosesFrames);
    assert!(complaints.iter().any(|complaint| complaint.contains("leaks frames")), "{complaints:?}");
}

#[test]
fn a_wrong_checksum_is_found() {
    let (complaints, _) = through_repeater(Fault::ChangesBytes);
    assert!(complaints.iter().any(|complaint| complaint.contains("checksum")), "{complaints:?}");
}

#[test]
fn a_timer_that_is_missing_is_found() {
    let (complaints, _) = through_repeater(Fault::SleepsThrough);
    assert!(complaints.iter().any(|complaint| complaint.starts_with("the box waits in vain")), "{complaints:?}");
}

#[test]
#[should_panic(expected = "the box sends without end")]
fn an_engine_that_never_stops_sending_is_stopped() {
    through_repeater(Fault::NeverStops);
}
