//! The world of one run: nodes, links between them, and virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use anyhow::Context as _;
use mimbox_dataplane::pcap::CaptureWriter;
use mimbox_stack::{Duration, Instant};

use super::link::{Link, LinkTotals};
use super::middlebox::Meddler;
use super::node::Node;
use super::packet::{Outbox, Packet};

/// A node's place in the world.
pub(crate) type NodeIndex = usize;

/// What happens at a time.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A packet arrives at a port of a node; the number names its slot.
    Arrive { node: NodeIndex, port: u8, slot: usize },
    /// A node wants to run.
    Wake { node: NodeIndex },
    /// A middlebox passes on what it has held back for long enough.
    LetGo { wire: usize },
}

struct Place {
    node: Box<dyn Node>,
    inbox: Vec<(u8, Packet)>,
    /// The time of the wake-up that counts; any other that comes is stale.
    wake: Instant,
}

struct Wire {
    from: (NodeIndex, u8),
    to: (NodeIndex, u8),
    link: Link,
}

/// Nodes, wires and the events to come.
pub(crate) struct World {
    now: Instant,
    order: u64,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    places: Vec<Place>,
    wires: Vec<Wire>,
    on_the_way: Vec<Packet>,
    free_slots: Vec<usize>,
    outbox: Outbox,
    capture: Option<CaptureWriter>,
    /// Events handled.
    pub(crate) steps: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            now: Instant::ZERO,
            order: 0,
            events: BinaryHeap::new(),
            places: Vec::new(),
            wires: Vec::new(),
            on_the_way: Vec::new(),
            free_slots: Vec::new(),
            outbox: Outbox::default(),
            capture: None,
            steps: 0,
        }
    }

    /// Virtual time.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// Puts a node into the world; it runs at the start.
    pub(crate) fn add(&mut self, node: Box<dyn Node>) -> NodeIndex {
        let index = self.places.len();
        self.places.push(Place { node, inbox: Vec::new(), wake: Instant::ZERO });
        self.schedule(Instant::ZERO, Event::Wake { node: index });
        index
    }

    /// Lays one direction of a link between two ports.
    pub(crate) fn connect(&mut self, from: (NodeIndex, u8), to: (NodeIndex, u8), link: Link) {
        self.wires.push(Wire { from, to, link });
    }

    /// Writes everything that nodes send to a file; all links are to be laid by now.
    pub(crate) fn capture_to(&mut self, path: &std::path::Path) -> anyhow::Result<()> {
        let mut capture =
            CaptureWriter::create(path, None).with_context(|| format!("cannot create {}", path.display()))?;
        for Wire { from, to, .. } in &self.wires {
            let name = format!("node {} port {} to node {} port {}", from.0, from.1, to.0, to.1);
            capture.interface(&name, None)?;
        }
        self.capture = Some(capture);
        Ok(())
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }

    /// Runs until `done` says so, nothing is left to happen, or virtual time passes `until`. `done` is asked whenever
    /// a node has run. True when it was `done`.
    pub(crate) fn run(&mut self, until: Instant, mut done: impl FnMut(&Self) -> bool) -> bool {
        if done(self) {
            return true;
        }
        while let Some(Reverse((at, _, _))) = self.events.peek() {
            if *at > until {
                break;
            }
            let Some(Reverse((at, _, event))) = self.events.pop() else { break };
            self.now = at;
            self.steps += 1;
            match event {
                Event::Arrive { node, port, slot } => self.arrive(node, port, slot),
                Event::Wake { node } if self.places[node].wake == at => {
                    self.run_node(node);
                    if done(self) {
                        return true;
                    }
                }
                Event::Wake { .. } => {}
                Event::LetGo { wire } => self.let_go(wire),
            }
        }
        false
    }

    fn arrive(&mut self, node: NodeIndex, port: u8, slot: usize) {
        let packet = std::mem::take(&mut self.on_the_way[slot]);
        self.free_slots.push(slot);
        let now = self.now;
        let place = &mut self.places[node];
        place.inbox.push((port, packet));
        let every = place.node.poll_every().as_nanos();
        let at = if every == 0 { now } else { Instant::from_nanos(now.as_nanos().next_multiple_of(every)) };
        self.wake_at(node, at);
    }

    fn let_go(&mut self, wire: usize) {
        let wire = &mut self.wires[wire];
        if let Some(packet) = wire.link.meddler().and_then(|meddler| meddler.let_go(self.now)) {
            let (node, port) = wire.to;
            let slot = slot_for(packet, &mut self.on_the_way, &mut self.free_slots);
            self.arrive(node, port, slot);
        }
    }

    fn wake_at(&mut self, node: NodeIndex, at: Instant) {
        if at < self.places[node].wake {
            self.places[node].wake = at;
            self.schedule(at, Event::Wake { node });
        }
    }

    fn run_node(&mut self, node: NodeIndex) {
        let now = self.now;
        let place = &mut self.places[node];
        place.node.run(now, &mut place.inbox, &mut self.outbox);
        let mut queue = std::mem::take(&mut self.outbox.queue);
        for (port, packet) in queue.drain(..) {
            self.launch((node, port), packet);
        }
        self.outbox.queue = queue;
        let place = &mut self.places[node];
        place.wake = Instant::MAX;
        if let Some(at) = place.node.next_deadline() {
            // A node that asks for the past or the present runs again soon, but time must move on.
            self.wake_at(node, at.max(now + Duration::from_micros(1)));
        }
    }

    fn launch(&mut self, from: (NodeIndex, u8), packet: Packet) {
        let Self { now, order, events, wires, on_the_way, free_slots, outbox, capture, .. } = self;
        let Some((index, wire)) = wires.iter_mut().enumerate().find(|(_, wire)| wire.from == from) else {
            outbox.packets.recycle(packet);
            return;
        };
        if let Some(capture) = capture {
            let written = capture.packet(index as u32, now.as_nanos(), None, &packet, None);
            if let Err(error) = written {
                tracing::warn!(%error, "the capture is not complete");
            }
        }
        let (node, port) = wire.to;
        wire.link.send(*now, packet, &mut outbox.packets, |at, packet| {
            let slot = slot_for(packet, on_the_way, free_slots);
            *order += 1;
            events.push(Reverse((at, *order, Event::Arrive { node, port, slot })));
        });
        if let Some(at) = wire.link.meddler().and_then(Meddler::takes_up) {
            *order += 1;
            events.push(Reverse((at, *order, Event::LetGo { wire: index })));
        }
    }

    /// The nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &dyn Node> {
        self.places.iter().map(|place| place.node.as_ref())
    }

    /// The nodes, to audit.
    pub(crate) fn nodes_mut(&mut self) -> impl Iterator<Item = &mut Box<dyn Node>> {
        self.places.iter_mut().map(|place| &mut place.node)
    }

    /// What happened on all links together.
    pub(crate) fn link_totals(&self) -> LinkTotals {
        let mut totals = LinkTotals::default();
        for wire in &self.wires {
            totals.add(wire.link.totals());
        }
        totals
    }

    /// Packets that lost MPTCP options, and those that middleboxes changed otherwise.
    pub(crate) fn meddled(&self) -> (u64, u64) {
        let each = self.wires.iter().map(|wire| wire.link.meddled());
        each.fold((0, 0), |sum, meddled| (sum.0 + meddled.0, sum.1 + meddled.1))
    }
}

/// Keeps a packet that is on its way; says where.
fn slot_for(packet: Packet, on_the_way: &mut Vec<Packet>, free_slots: &mut Vec<usize>) -> usize {
    let slot = free_slots.pop().unwrap_or_else(|| {
        on_the_way.push(Packet::new());
        on_the_way.len() - 1
    });
    on_the_way[slot] = packet;
    slot
}
