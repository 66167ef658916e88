//! An engine moved by a recording or a capture instead of a worker.

use std::collections::VecDeque;

use anyhow::{Context as _, bail};
use mimbox_dataplane::record::{Cause, Completion, Event, Given};
use mimbox_dataplane::{Engine, Order};
use mimbox_stack::limits::RX_HEADROOM;
use mimbox_stack::{Counters, FrameId, Instant, PortId, RxFrame};

/// Takes what the engine gives.
pub(crate) trait Sink {
    /// A frame that leaves by `port`.
    fn frame(&mut self, now: Instant, port: PortId, bytes: &[u8]) -> anyhow::Result<()>;
}

/// What moves the engine in one step.
enum Move {
    Frames,
    Timer,
    Order(Order),
}

/// Moves an engine, event by event, as the worker did that recorded them.
pub(crate) struct Driver<E> {
    engine: E,
    batch: Vec<RxFrame>,
    /// Frames that a port has not given back yet, in the order in which they were sent.
    sent: VecDeque<(PortId, FrameId)>,
    /// Frames kept away from the engine, as rings kept them then.
    held: Vec<FrameId>,
}

impl<E: Engine> Driver<E> {
    pub(crate) fn new(engine: E) -> Self {
        Self { engine, batch: Vec::new(), sent: VecDeque::new(), held: Vec::new() }
    }

    /// The engine.
    #[cfg(test)]
    pub(crate) fn engine(&mut self) -> &mut E {
        &mut self.engine
    }

    /// Runs one event of a recording; says what the engine gave.
    pub(crate) fn recorded(&mut self, event: &Event, sink: &mut dyn Sink) -> anyhow::Result<Given> {
        let limit = event.given.filter(|given| given.limited).map(|given| given.frames);
        if let Cause::Frames(frames) = &event.cause {
            for (port, bytes) in frames {
                self.receive(*port, bytes)?;
            }
        }
        self.match_free_frames(event.free_frames);
        let moved = match event.cause {
            Cause::Frames(_) => Move::Frames,
            Cause::Timer => Move::Timer,
            Cause::Order(order) => Move::Order(order),
        };
        self.step(event.now, &moved, limit, &event.completions, sink)
    }

    /// Runs one packet of a capture, after the timers that were due before it.
    pub(crate) fn captured(
        &mut self,
        now: Instant,
        port: PortId,
        bytes: &[u8],
        sink: &mut dyn Sink,
    ) -> anyhow::Result<()> {
        self.timers_until(now, sink)?;
        self.complete_all();
        self.receive(port, bytes)?;
        self.step(now, &Move::Frames, None, &[], sink).map(drop)
    }

    /// Runs the timers that are due up to `until`, each at its own time.
    pub(crate) fn timers_until(&mut self, until: Instant, sink: &mut dyn Sink) -> anyhow::Result<()> {
        let mut last = Instant::ZERO;
        while let Some(at) = self.engine.next_deadline().filter(|&at| at <= until) {
            self.complete_all();
            // A deadline that does not move on would keep the replay for ever.
            last = at.max(last + mimbox_stack::Duration::from_micros(1));
            self.step(last.min(until), &Move::Timer, None, &[], sink)?;
            if last >= until {
                break;
            }
        }
        Ok(())
    }

    /// Gives every frame back that is not the engine's; says what the engine counted.
    pub(crate) fn finish(&mut self) -> Counters {
        self.complete_all();
        let pool = self.engine.pool();
        for frame in self.held.drain(..) {
            pool.release(frame);
        }
        self.engine.counters().clone()
    }

    fn step(
        &mut self,
        now: Instant,
        moved: &Move,
        limit: Option<u32>,
        completions: &[Completion],
        sink: &mut dyn Sink,
    ) -> anyhow::Result<Given> {
        match *moved {
            Move::Frames => self.engine.on_frames(now, &mut self.batch),
            Move::Timer => self.engine.on_timer(now),
            Move::Order(order) => self.engine.obey(now, order),
        }
        let mut given = Given { limited: limit.is_some(), ..Given::default() };
        let mut completions = completions.iter();
        loop {
            while let Some(back) = completions.as_slice().first().filter(|back| back.after <= given.frames) {
                self.complete_by(back.port, back.frames);
                completions.next();
            }
            if limit.is_some_and(|limit| given.frames >= limit) {
                break;
            }
            let Some(tx) = self.engine.poll_transmit(now) else { break };
            let start = usize::from(tx.offset);
            let bytes = self.engine.pool().bytes(&tx.frame).get(start..start + usize::from(tx.len)).unwrap_or(&[]);
            given.add(tx.port, bytes);
            sink.frame(now, tx.port, bytes)?;
            self.sent.push_back((tx.port, tx.frame));
        }
        // An engine that gives fewer frames than the one that was recorded must have them back all the same.
        for back in completions {
            self.complete_by(back.port, back.frames);
        }
        Ok(given)
    }

    fn receive(&mut self, port: PortId, bytes: &[u8]) -> anyhow::Result<()> {
        let frame = self.take_frame().context("the pool is too small for what the recording holds")?;
        let Some(room) = self.engine.pool().bytes_mut(&frame).get_mut(RX_HEADROOM..RX_HEADROOM + bytes.len()) else {
            self.engine.pool().release(frame);
            bail!(
                "a packet of {} bytes does not fit a frame: set frame_size = 4096 under [limits]; if it is longer than the \
                 link's MTU, capture again with the offloads of the capturing device off (`ethtool -K DEV gro off tso off gso off`)",
                bytes.len()
            );
        };
        room.copy_from_slice(bytes);
        self.batch.push(RxFrame { port, frame, offset: RX_HEADROOM as u16, len: bytes.len() as u16 });
        Ok(())
    }

    fn take_frame(&mut self) -> Option<FrameId> {
        if let Some(frame) = self.held.pop() {
            return Some(frame);
        }
        if self.engine.pool().free_frames() == 0 {
            self.complete_one();
        }
        self.engine.pool().alloc_control()
    }

    /// Makes the pool have as many free frames as it had then: the engine's windows may depend on it. Frames that are kept
    /// away stand for those that waited for reception then; only an engine that keeps more than the recorded one did is
    /// given sent frames back before their time.
    fn match_free_frames(&mut self, free: u32) {
        while self.engine.pool().free_frames() < free {
            match self.held.pop() {
                Some(frame) => self.engine.pool().release(frame),
                None if self.sent.is_empty() => break,
                None => self.complete_one(),
            }
        }
        while self.engine.pool().free_frames() > free {
            let Some(frame) = self.engine.pool().alloc_control() else { break };
            self.held.push(frame);
        }
    }

    fn complete_one(&mut self) {
        if let Some((_, frame)) = self.sent.pop_front() {
            self.engine.pool().tx_complete(frame);
        }
    }

    /// Gives back the oldest `frames` frames of a port.
    fn complete_by(&mut self, port: PortId, frames: u32) {
        let mut left = frames;
        let mut at = 0;
        while left > 0 && at < self.sent.len() {
            if self.sent.get(at).is_none_or(|(of, _)| *of != port) {
                at += 1;
            } else if let Some((_, frame)) = self.sent.remove(at) {
                self.engine.pool().tx_complete(frame);
                left -= 1;
            }
        }
    }

    fn complete_all(&mut self) {
        while !self.sent.is_empty() {
            self.complete_one();
        }
    }
}

#[cfg(test)]
mod tests;
