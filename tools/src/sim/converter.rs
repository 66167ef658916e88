//! The box under test: an engine, driven exactly as a worker drives it (see `mimbox_dataplane::worker`).

use std::collections::VecDeque;

use mimbox_converter::metrics::Heaviest;
use mimbox_dataplane::Recorder;
use mimbox_stack::limits::RX_HEADROOM;
use mimbox_stack::{Counter, Duration, FrameId, Instant, PortId, Rng, RxFrame};

use super::node::{End, MOST_IN_A_ROW, Node, TimerWatch};
use super::observer::{Observer, Side};
use super::packet::{Outbox, Packet};
use super::plan::App;
use super::profile::BoxOptions;
use super::subject::Subject;

/// Frames that a worker takes at a time.
const BATCH: usize = 64;

/// A frame that the NIC still has.
struct Sent {
    back_at: Instant,
    frame: FrameId,
}

/// Counts what conversions hold, and keeps the first that held more than it may.
#[derive(Debug, Default)]
struct FrameWatch {
    next: Instant,
    most: u32,
    complaint: Option<String>,
}

impl FrameWatch {
    fn look(&mut self, now: Instant, options: &BoxOptions, heaviest: impl FnOnce() -> Option<Heaviest>) {
        if now < self.next || self.complaint.is_some() {
            return;
        }
        self.next = now + options.count_every;
        let Some(heaviest) = heaviest() else { return };
        let Heaviest { conversion, frames, .. } = heaviest;
        self.most = self.most.max(frames);
        // What a TX ring still reads cannot be put together with its neighbours.
        let limit = options.most_frames.unwrap_or(heaviest.limit + options.ring);
        if frames > limit {
            let at = now.as_millis();
            let what = format!("at {at} ms conversion {conversion} holds {frames} frames, more than {limit}");
            self.complaint = Some(what);
        }
    }
}

/// The box.
pub(crate) struct Converter<E> {
    engine: E,
    options: BoxOptions,
    rng: Rng,
    fill: Vec<VecDeque<FrameId>>,
    /// Frames that arrived, by port.
    arrived: Vec<VecDeque<RxFrame>>,
    batch: Vec<RxFrame>,
    sent: VecDeque<Sent>,
    sides: Vec<Side>,
    observer: Observer,
    recorder: Option<Box<dyn Recorder>>,
    /// Frames lost because a fill ring was empty.
    starved: u64,
    watch: TimerWatch,
    frames: FrameWatch,
}

impl<E: Subject> Converter<E> {
    /// A box with one port per entry of `sides`.
    pub(crate) fn new(
        engine: E,
        options: BoxOptions,
        sides: Vec<Side>,
        observer: Observer,
        recorder: Option<Box<dyn Recorder>>,
        rng: Rng,
    ) -> Self {
        let fill = sides.iter().map(|_| VecDeque::new()).collect();
        let arrived = sides.iter().map(|_| VecDeque::new()).collect();
        let mut made = Self {
            engine,
            options,
            rng,
            fill,
            arrived,
            batch: Vec::with_capacity(BATCH),
            sent: VecDeque::new(),
            sides,
            observer,
            recorder,
            starved: 0,
            watch: TimerWatch::default(),
            frames: FrameWatch::default(),
        };
        made.refill();
        made
    }

    fn refill(&mut self) {
        for ring in &mut self.fill {
            while ring.len() < self.options.ring as usize {
                match self.engine.pool().alloc_control() {
                    Some(frame) => ring.push_back(frame),
                    None => return,
                }
            }
        }
    }

    fn complete(&mut self, now: Instant) {
        while self.sent.front().is_some_and(|sent| sent.back_at <= now) {
            if let Some(sent) = self.sent.pop_front() {
                self.engine.pool().tx_complete(sent.frame);
            }
        }
    }

    /// Puts an arrived packet into a frame of its port's fill ring.
    fn receive(&mut self, port: u8, packet: &Packet) {
        let index = usize::from(port);
        let (Some(fill), Some(arrived)) = (self.fill.get_mut(index), self.arrived.get_mut(index)) else { return };
        let Some(frame) = fill.pop_front() else {
            self.starved += 1;
            return;
        };
        self.observer.received(packet);
        let pool = self.engine.pool();
        match pool.bytes_mut(&frame).get_mut(RX_HEADROOM..RX_HEADROOM + packet.len()) {
            Some(room) => room.copy_from_slice(packet),
            None => return pool.release(frame),
        }
        let (offset, len) = (RX_HEADROOM as u16, packet.len() as u16);
        arrived.push_back(RxFrame { port: PortId(port), frame, offset, len });
    }

    /// One event of frames for each port that has any; false when none has.
    fn frame_events(&mut self, now: Instant, out: &mut Outbox) -> bool {
        let mut any = false;
        for index in 0..self.arrived.len() {
            let Some(arrived) = self.arrived.get_mut(index) else { break };
            let take = arrived.len().min(BATCH);
            if take == 0 {
                continue;
            }
            any = true;
            self.batch.extend(arrived.drain(..take));
            if let Some(recorder) = &mut self.recorder {
                let pool = self.engine.pool();
                recorder.frames(now, pool.free_frames(), pool, &self.batch);
            }
            self.engine.on_frames(now, &mut self.batch);
            debug_assert!(self.batch.is_empty(), "the engine takes every frame of a batch");
            self.drain(now, out);
        }
        any
    }

    fn timer_event(&mut self, now: Instant, out: &mut Outbox) {
        if self.engine.next_deadline().is_none_or(|at| at > now) {
            return;
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.timer(now, self.engine.pool().free_frames());
        }
        self.engine.on_timer(now);
        self.drain(now, out);
    }

    fn drain(&mut self, now: Instant, out: &mut Outbox) {
        let mut sent = 0;
        while let Some(tx) = self.engine.poll_transmit(now) {
            sent += 1;
            assert!(sent < MOST_IN_A_ROW, "the box sends without end: {tx:?}");
            let start = usize::from(tx.offset);
            let pool = self.engine.pool();
            if let Some(recorder) = &mut self.recorder {
                recorder.sent(now, pool, &tx);
            }
            let bytes = pool.bytes(&tx.frame).get(start..start + usize::from(tx.len)).unwrap_or(&[]);
            let side = self.sides.get(usize::from(tx.port.0)).copied().unwrap_or(Side::Clients);
            self.observer.sent(side, bytes);
            out.send(tx.port.0, bytes);
            let delay = Duration::from_nanos(self.rng.below(self.options.completion_within.as_nanos() + 1));
            // A ring completes in the order in which it was filled.
            let back_at = self.sent.back().map_or(now + delay, |last| last.back_at.max(now + delay));
            self.sent.push_back(Sent { back_at, frame: tx.frame });
        }
    }
}

impl<E: Subject> Node for Converter<E> {
    fn run(&mut self, now: Instant, inbox: &mut Vec<(u8, Packet)>, out: &mut Outbox) {
        for (port, packet) in inbox.drain(..) {
            self.receive(port, &packet);
            out.packets.recycle(packet);
        }
        self.complete(now);
        while self.frame_events(now, out) {}
        self.timer_event(now, out);
        self.refill();
        let engine = &mut self.engine;
        self.watch.look(now, || engine.timer_fault(now));
        self.frames.look(now, &self.options, || engine.heaviest());
    }

    fn next_deadline(&self) -> Option<Instant> {
        let completion = self.sent.front().map(|sent| sent.back_at);
        [self.engine.next_deadline(), completion].into_iter().flatten().min()
    }

    fn poll_every(&self) -> Duration {
        self.options.poll_every
    }

    fn apps(&self, _: &mut dyn FnMut(usize, End, &App)) {}

    fn most_frames(&self) -> u32 {
        self.frames.most
    }

    fn box_retransmits(&mut self) -> u64 {
        self.engine.counters().get(Counter::TcpRetransmits)
    }

    fn open_ends(&self) -> usize {
        0
    }

    fn is_quiet(&self) -> bool {
        self.engine.live() == 0
    }

    fn audit(&mut self, now: Instant) -> Vec<String> {
        let mut complaints: Vec<String> = self.observer.complaint.take().into_iter().collect();
        complaints.extend(self.watch.complaint("the box"));
        complaints.extend(self.frames.complaint.take());
        let live = self.engine.live();
        if live > 0 {
            complaints.push(format!("the box still holds {live} conversions or half-open records"));
            complaints.extend(self.engine.living(now));
        }
        for sent in self.sent.drain(..) {
            self.engine.pool().tx_complete(sent.frame);
        }
        self.engine.release(now);
        let in_rings: u32 = self.fill.iter().map(|ring| ring.len() as u32).sum();
        let audit = self.engine.pool().audit();
        if audit.held != in_rings || audit.broken > 0 {
            complaints.push(format!(
                "the box leaks frames: {} held of which {in_rings} in rings, {} with broken accounts",
                audit.held, audit.broken
            ));
        }
        let unsent = self.engine.counters().get(Counter::TxNoFrame);
        if unsent > 0 && self.options.frames >= 16 << 10 {
            complaints.push(format!("{unsent} packets were not sent for want of a frame, in a large pool"));
        }
        complaints
    }
}

#[cfg(test)]
mod tests;
