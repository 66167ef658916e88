//! The poll loop: complete, receive, run the engine, transmit, flush, refill; then again, or sleep.
//!
//! # What moves the engine, and how to do it again
//! The engine sees a sequence of *events*, each at one instant, and nothing else:
//!
//! - **Frames**: `on_frames(now, batch)`, then `poll_transmit(now)` until it gives `None`;
//! - **Timer**: `on_timer(now)`, then `poll_transmit(now)` until it gives `None`;
//! - **Order**: `obey(now, order)`, then `poll_transmit(now)` until it gives `None`. A port that loses its link or gets it
//!   back is one of them.
//!
//! When a port takes no more frames the worker stops polling early, after a number of frames that the [`Recorder`] is told
//! ([`Recorder::polled`]); what the engine still had comes out at the next event, which the worker makes a Timer one if
//! nothing is received. A replay that makes the same calls with the same times, the same frames and the same early stops
//! gets the same frames out, byte for byte, as long as the pool looks the same to the engine as it did then. For that
//! every event says how many frames were free, and the [`Recorder`] is told when ports give sent frames back
//! ([`Recorder::completed`]): a frame that a TX ring may still read is treated otherwise than one that it may not.
//! `now` never goes back, and is read once for all events of one turn.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use mimbox_stack::{Duration, FramePool, Instant, PortId, RxFrame, TxFrame};

use crate::clock::{Clock, ManualClock};
use crate::notify::Notify;
use crate::port::{Engine, Feature, Links, Order, Port, PortInfo, PortState, PortStats};

mod idle;

use idle::Idle;

/// What a worker does when there is nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Sleeps until a packet comes or a timer is due.
    Sleep {
        /// How long to look before sleeping, while packets come as soon as that: waking up costs about as much as a few of
        /// them. When they come later, the worker sleeps at once.
        spin: Duration,
    },
    /// Looks without pause: the lowest delay, and a whole core.
    BusyPoll,
}

/// How a worker works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerConfig {
    /// What it does when there is nothing to do.
    pub wait: Wait,
    /// Frames taken from a port at a time.
    pub batch: usize,
    /// How often [`Control::tick`] is called while there is traffic.
    pub tick: Duration,
    /// How often it is called while there is none; [`Worker::waker`] asks for one at once.
    pub idle_tick: Duration,
    /// Frames that wait for one port's TX ring before the engine is asked for no more.
    pub backlog: usize,
    /// A port that takes no frame for so long loses those that wait for it, or one dead link would stop all.
    pub stall: Duration,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            wait: Wait::Sleep { spin: Duration::from_micros(20) },
            batch: MAX_BATCH,
            tick: Duration::from_millis(20),
            idle_tick: Duration::from_millis(200),
            backlog: 4096,
            stall: Duration::from_millis(1_000),
        }
    }
}

/// Most frames that are taken from a port at a time.
pub const MAX_BATCH: usize = 64;
/// How long a port that reports an error is left alone, so that its error does not keep the worker from sleeping.
const ERROR_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);
/// How often frames are offered again that a device did not take while there was nothing else to do.
const OFFER_AGAIN: Duration = Duration::from_millis(1);
/// Turns without a sleep after which those frames are offered again all the same.
const BUSY_TURNS: u64 = 256;
/// Nanoseconds by which the system may put off the end of a sleep; its own choice is 50,000.
const TIMER_SLACK_NS: libc::c_ulong = 1_000;
/// Times that the worker tries, a millisecond apart, to send what waits when it stops.
const LAST_TRIES: u32 = 50;

/// Sees what the engine sees, to write it down. See the module's page for what a replay needs.
pub trait Recorder {
    /// The engine is about to take these frames.
    fn frames(&mut self, now: Instant, free_frames: u32, pool: &FramePool, batch: &[RxFrame]);
    /// The engine is about to be called for its timers.
    fn timer(&mut self, now: Instant, free_frames: u32);
    /// The engine is about to carry out an order.
    fn order(&mut self, now: Instant, free_frames: u32, order: Order);
    /// The engine gave a frame to send.
    fn sent(&mut self, now: Instant, pool: &FramePool, frame: &TxFrame);
    /// The event is over: the engine gave `taken` frames. When it was not polled until `None`, that was `limited`.
    fn polled(&mut self, taken: u32, limited: bool);
    /// A port gave so many sent frames back, the oldest first: now, between two polls or two events.
    fn completed(&mut self, port: PortId, frames: u32);
}

/// What is called now and then on the worker's thread: snapshots, commands.
pub trait Control<E> {
    /// A tick.
    fn tick(&mut self, tick: Tick<'_, E>) -> Verdict;
}

impl<E, F: FnMut(Tick<'_, E>) -> Verdict> Control<E> for F {
    fn tick(&mut self, tick: Tick<'_, E>) -> Verdict {
        self(tick)
    }
}

/// What a tick may look at.
#[derive(Debug)]
pub struct Tick<'a, E> {
    /// The time.
    pub now: Instant,
    /// The engine.
    pub engine: &'a mut E,
    /// The ports.
    pub ports: PortsView<'a>,
    /// The worker's own numbers.
    pub worker: WorkerStats,
    /// True when [`Worker::waker`] asked for this tick.
    pub asked: bool,
}

/// What a tick wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Go on.
    Continue,
    /// The engine was changed: ask it for frames now. What changed is not recorded: an engine that is to be replayed is
    /// given orders.
    Touched,
    /// Have the engine obey, send what that makes it send, and tick again at once.
    Order(Order),
    /// Stop.
    Stop,
}

/// The ports as a tick sees them.
#[derive(Clone, Copy)]
pub struct PortsView<'a>(&'a [Slot]);

impl std::fmt::Debug for PortsView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> PortsView<'a> {
    /// A report of each port.
    pub fn iter(&self) -> impl Iterator<Item = PortReport<'a>> + use<'a> {
        self.0.iter().map(|slot| {
            let stats = slot.port.stats();
            PortReport {
                info: slot.port.info(),
                state: slot.state(),
                stats: PortStats { tx_dropped: stats.tx_dropped + slot.stalled, ..stats },
                frames_in_rings: slot.port.frames_in_rings(),
                backlog: slot.backlog.len(),
            }
        })
    }

    /// Whether each port works. Unlike a report, this asks nobody.
    pub fn states(&self) -> impl Iterator<Item = (PortId, PortState)> + use<'a> {
        self.0.iter().map(|slot| (slot.id, slot.state()))
    }

    /// What makes a port fast, as far as it was to be had.
    pub fn features(&self, id: PortId) -> Vec<Feature> {
        self.0.iter().find(|slot| slot.id == id).map(|slot| slot.port.features()).unwrap_or_default()
    }

    /// The report of one port.
    pub fn get(&self, id: PortId) -> Option<PortReport<'a>> {
        self.iter().find(|report| report.info.id == id)
    }

    /// Frames in rings and backlogs: in use, but not held by the engine.
    pub fn frames(&self) -> u32 {
        self.0.iter().map(|slot| slot.port.frames_in_rings() + slot.backlog.len() as u32).sum()
    }
}

/// What there is to know of a port.
#[derive(Clone, Copy, Debug)]
pub struct PortReport<'a> {
    /// Who and what it is.
    pub info: &'a PortInfo,
    /// Whether it works.
    pub state: PortState,
    /// What it counted.
    pub stats: PortStats,
    /// Frames that it holds.
    pub frames_in_rings: u32,
    /// Frames that wait for its TX ring.
    pub backlog: usize,
}

/// What the worker counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WorkerStats {
    /// Turns of the loop.
    pub turns: u64,
    /// Turns that had something to do.
    pub busy: u64,
    /// Frames events.
    pub batches: u64,
    /// Timer events.
    pub timers: u64,
    /// Times that it slept.
    pub sleeps: u64,
    /// Frames that the engine gave.
    pub sent: u64,
    /// Frames that had to wait for a TX ring.
    pub backlogged: u64,
    /// Most frames that ever waited for one port.
    pub backlog_peak: u64,
    /// Times that the engine was not polled until `None`.
    pub limited: u64,
    /// Frames dropped because their port took none for too long.
    pub stalled: u64,
    /// Frames dropped because they named a port that is not there; not zero is a bug.
    pub misaddressed: u64,
}

/// A port with what waits for it.
struct Slot {
    id: PortId,
    port: Box<dyn Port>,
    backlog: VecDeque<TxFrame>,
    /// When the port last took a frame, or had none waiting.
    progress: Instant,
    touched: bool,
    /// Its doorbell was rung in this turn: once is enough.
    rung: bool,
    /// Its interface has a link, as the engine was told.
    linked: bool,
    stalled: u64,
    /// Frames that came back and of which the recorder does not know yet.
    completed: u32,
}

/// A loop over ports that drives one engine.
pub struct Worker<E, C> {
    engine: E,
    clock: C,
    config: WorkerConfig,
    slots: Vec<Slot>,
    batch: Vec<RxFrame>,
    recorder: Option<Box<dyn Recorder>>,
    links: Option<Box<dyn Links>>,
    notify: Notify,
    polls: Vec<libc::pollfd>,
    limited: bool,
    asked: bool,
    /// What a device did not take is offered again in the next turn.
    offer: bool,
    /// Links may have changed: netlink said so in a sleep, or there was none since the last tick.
    news: bool,
    /// The time of the last turn.
    now: Instant,
    next_tick: Instant,
    idle: Idle,
    stats: WorkerStats,
}

impl<E: std::fmt::Debug, C> std::fmt::Debug for Worker<E, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ports = PortsView(&self.slots);
        f.debug_struct("Worker").field("engine", &self.engine).field("ports", &ports).finish_non_exhaustive()
    }
}

impl<E: Engine, C: Clock> Worker<E, C> {
    /// A worker over `ports`.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new(engine: E, ports: Vec<Box<dyn Port>>, clock: C, config: WorkerConfig) -> io::Result<Self> {
        let now = clock.now();
        let slot = |port: Box<dyn Port>| Slot {
            id: port.info().id,
            port,
            backlog: VecDeque::new(),
            progress: now,
            touched: false,
            rung: false,
            linked: true,
            stalled: 0,
            completed: 0,
        };
        let config = WorkerConfig { batch: config.batch.clamp(1, MAX_BATCH), ..config };
        Ok(Self {
            engine,
            clock,
            config,
            slots: ports.into_iter().map(slot).collect(),
            batch: Vec::with_capacity(config.batch),
            recorder: None,
            links: None,
            notify: Notify::new()?,
            polls: Vec::new(),
            limited: false,
            asked: false,
            offer: false,
            news: true,
            now,
            next_tick: now,
            idle: Idle::new(match config.wait {
                Wait::Sleep { spin } => spin,
                Wait::BusyPoll => Duration::ZERO,
            }),
            stats: WorkerStats::default(),
        })
    }

    /// Has everything that the engine sees written down from now on.
    pub fn record(&mut self, recorder: Box<dyn Recorder>) {
        self.recorder = Some(recorder);
    }

    /// Has the engine told, from now on, of ports that lose their links or get them back: at the next tick, or at once
    /// while the worker sleeps.
    pub fn watch(&mut self, links: Box<dyn Links>) {
        self.links = Some(links);
        self.tell_links(self.now);
    }

    /// Tells the engine of every port whose link is not as it was.
    fn tell_links(&mut self, now: Instant) {
        let Some(links) = self.links.take() else { return };
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(index) else { continue };
            let up = links.is_up(&slot.port.info().interface);
            if slot.linked != up {
                slot.linked = up;
                let port = slot.id;
                self.order_event(now, Order::Link { port, up });
            }
        }
        self.links = Some(links);
    }

    /// Wakes the worker from another thread and makes it tick at once.
    pub fn waker(&self) -> Notify {
        self.notify.clone()
    }

    /// The engine.
    pub fn engine(&mut self) -> &mut E {
        &mut self.engine
    }

    /// The ports.
    pub fn ports(&self) -> PortsView<'_> {
        PortsView(&self.slots)
    }

    /// What it counted.
    pub fn stats(&self) -> WorkerStats {
        self.stats
    }

    /// Works until `stop` is set (seen at the latest after an idle tick; [`Worker::waker`] makes it at once) or a tick says
    /// so. May be called again.
    pub fn run(&mut self, stop: &AtomicBool, control: &mut impl Control<E>) {
        // SAFETY: takes no pointers; it is about this thread alone. Where it is refused, sleeps are a little longer.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, TIMER_SLACK_NS) };
        for slot in &mut self.slots {
            slot.port.refill(self.engine.pool());
        }
        while !stop.load(Ordering::Relaxed) {
            let busy = self.turn();
            let now = self.now;
            if self.tick_due(now, busy) {
                self.next_tick = now + self.config.tick;
                // Sleeping, the worker is told by the descriptor whether there is any.
                let ask = std::mem::replace(&mut self.news, true);
                if self.links.as_mut().is_some_and(|links| (ask || links.fd().is_none()) && links.news()) {
                    self.tell_links(now);
                }
                let asked = std::mem::take(&mut self.asked);
                let ports = PortsView(&self.slots);
                match control.tick(Tick { now, engine: &mut self.engine, ports, worker: self.stats, asked }) {
                    Verdict::Continue => {}
                    Verdict::Touched => self.timer_event(now),
                    Verdict::Order(order) => {
                        self.order_event(now, order);
                        self.asked = true;
                    }
                    Verdict::Stop => return,
                }
            }
            self.rest(now, busy);
        }
    }

    fn tick_due(&self, now: Instant, busy: bool) -> bool {
        let idle = !busy && self.idle.since().is_some_and(|since| now.since(since) >= self.config.tick);
        let due = if idle { self.next_tick + (self.config.idle_tick - self.config.tick) } else { self.next_tick };
        self.asked || now >= due
    }

    /// One turn of the loop; false when there was nothing to do.
    pub fn turn(&mut self) -> bool {
        self.stats.turns += 1;
        let now = self.clock.now();
        self.now = now;
        self.complete(now);
        let mut busy = false;
        for index in 0..self.slots.len() {
            busy |= self.receive(now, index);
        }
        let due = self.engine.next_deadline().is_some_and(|deadline| deadline <= now);
        if due || (self.limited && !self.is_full()) {
            self.timer_event(now);
            busy = true;
        }
        self.stats.busy += u64::from(busy);
        let offer = std::mem::replace(&mut self.offer, busy) || busy;
        let pool = self.engine.pool();
        for slot in &mut self.slots {
            let rung = std::mem::take(&mut slot.rung);
            if !rung && (std::mem::take(&mut slot.touched) || (offer && slot.port.wants_flush())) {
                slot.port.flush();
                slot.complete(pool);
            }
            slot.port.refill(pool);
        }
        busy
    }

    /// When something will happen by itself: a timer, or a packet that a capture holds.
    fn next_event(&self) -> Option<Instant> {
        let arrivals = self.slots.iter().filter_map(|slot| slot.port.next_arrival());
        arrivals.chain(self.engine.next_deadline()).min()
    }

    /// Takes back what was sent, and sends what waits.
    fn complete(&mut self, now: Instant) {
        let pool = self.engine.pool();
        for slot in &mut self.slots {
            let completed = slot.complete(pool);
            if slot.backlog.is_empty() {
                slot.progress = now;
                continue;
            }
            if completed > 0 || slot.send_backlog(pool) > 0 {
                slot.send_backlog(pool);
                slot.progress = now;
            } else if now.since(slot.progress) >= self.config.stall {
                let dropped = slot.backlog.len() as u64;
                tracing::warn!(interface = slot.port.info().interface, dropped, "the port takes no frames");
                for frame in slot.backlog.drain(..) {
                    pool.tx_complete(frame.frame);
                }
                slot.stalled += dropped;
                slot.completed += dropped as u32;
                self.stats.stalled += dropped;
                slot.progress = now;
            }
        }
    }

    fn is_full(&self) -> bool {
        self.slots.iter().any(|slot| slot.backlog.len() >= self.config.backlog)
    }

    fn receive(&mut self, now: Instant, index: usize) -> bool {
        let Some(slot) = self.slots.get_mut(index) else { return false };
        if slot.port.receive(self.engine.pool(), &mut self.batch, self.config.batch) == 0 {
            return false;
        }
        self.stats.batches += 1;
        self.tell_completed();
        if let Some(recorder) = &mut self.recorder {
            let pool = self.engine.pool();
            recorder.frames(now, pool.free_frames(), pool, &self.batch);
        }
        self.engine.on_frames(now, &mut self.batch);
        debug_assert!(self.batch.is_empty(), "the engine left frames in the batch");
        self.drain(now);
        true
    }

    fn timer_event(&mut self, now: Instant) {
        self.stats.timers += 1;
        self.tell_completed();
        if let Some(recorder) = &mut self.recorder {
            recorder.timer(now, self.engine.pool().free_frames());
        }
        self.engine.on_timer(now);
        self.drain(now);
    }

    fn order_event(&mut self, now: Instant, order: Order) {
        self.tell_completed();
        if let Some(recorder) = &mut self.recorder {
            recorder.order(now, self.engine.pool().free_frames(), order);
        }
        self.engine.obey(now, order);
        self.drain(now);
    }

    /// Tells the recorder which frames came back since it was told last.
    fn tell_completed(&mut self) {
        let Some(recorder) = &mut self.recorder else { return };
        for slot in &mut self.slots {
            let completed = std::mem::take(&mut slot.completed);
            if completed > 0 {
                recorder.completed(slot.port.info().id, completed);
            }
        }
    }

    /// Takes what the engine has to send, as long as the ports can do with it.
    fn drain(&mut self, now: Instant) {
        let mut taken = 0;
        self.limited = false;
        loop {
            if self.limited {
                self.stats.limited += 1;
                break;
            }
            let Some(frame) = self.engine.poll_transmit(now) else { break };
            taken += 1;
            self.stats.sent += 1;
            let pool = self.engine.pool();
            if let Some(recorder) = &mut self.recorder {
                recorder.sent(now, pool, &frame);
            }
            match self.slots.iter_mut().find(|slot| slot.id == frame.port) {
                Some(slot) => {
                    if !slot.send(pool, frame) {
                        self.stats.backlogged += 1;
                        self.stats.backlog_peak = self.stats.backlog_peak.max(slot.backlog.len() as u64);
                        self.limited = slot.backlog.len() >= self.config.backlog;
                    }
                    if slot.completed > 0
                        && let Some(recorder) = &mut self.recorder
                    {
                        recorder.completed(slot.port.info().id, std::mem::take(&mut slot.completed));
                    }
                }
                None => {
                    self.stats.misaddressed += 1;
                    if let Some(recorder) = &mut self.recorder {
                        recorder.completed(frame.port, 1);
                    }
                    pool.tx_complete(frame.frame);
                }
            }
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.polled(taken, self.limited);
        }
    }

    /// Sleeps when there is nothing to do and the configuration says so.
    fn rest(&mut self, now: Instant, busy: bool) {
        if busy {
            self.idle.work(now);
            return;
        }
        let tired = self.idle.nothing(now);
        match self.config.wait {
            Wait::BusyPoll => {
                // Without a sleep in sight, another thread's request must still be seen.
                self.asked |= self.notify.take();
                self.offer |= self.stats.turns.is_multiple_of(BUSY_TURNS);
                std::hint::spin_loop();
            }
            Wait::Sleep { .. } if tired => self.sleep(now),
            Wait::Sleep { .. } => std::hint::spin_loop(),
        }
    }

    fn sleep(&mut self, now: Instant) {
        let mut until = self.next_tick.max(now + self.config.idle_tick);
        if let Some(next) = self.next_event() {
            until = until.min(next);
        }
        self.polls.clear();
        self.polls.push(pollfd(self.notify.fd(), libc::POLLIN));
        let links = self.links.as_ref().and_then(|links| links.fd());
        self.polls.extend(links.map(|fd| pollfd(fd, libc::POLLIN)));
        for slot in &self.slots {
            let writable = if slot.backlog.is_empty() { 0 } else { libc::POLLOUT };
            if let Some(fd) = slot.port.fd() {
                self.polls.push(pollfd(fd, libc::POLLIN | writable));
            }
            // A port that nothing announces is looked after every now and then.
            if writable != 0 || slot.port.wants_flush() {
                until = until.min(now + OFFER_AGAIN);
            }
        }
        self.stats.sleeps += 1;
        self.offer = true;
        self.news = false;
        let timeout = until.since(now).as_nanos();
        let timeout = libc::timespec {
            tv_sec: (timeout / 1_000_000_000) as libc::time_t,
            tv_nsec: (timeout % 1_000_000_000) as libc::c_long,
        };
        // SAFETY: `polls` is a live vector of as many entries as its length says, the timeout a live value; without a
        // signal mask the pointer to one may be null.
        let ready = unsafe {
            libc::ppoll(self.polls.as_mut_ptr(), self.polls.len() as libc::nfds_t, &raw const timeout, std::ptr::null())
        };
        if ready > 0 {
            self.asked |= self.polls.first().is_some_and(|notify| notify.revents != 0) && self.notify.take();
            if links.is_some() && self.polls.get(1).is_some_and(|news| news.revents != 0) {
                self.asked = true;
                self.news = true;
            }
            let useful = self.polls.iter().any(|poll| poll.revents & (libc::POLLIN | libc::POLLOUT) != 0);
            if !useful {
                std::thread::sleep(ERROR_PAUSE);
            }
        }
    }

    /// Stops: sends what waits if that goes quickly, takes every frame back from the ports, and gives the engine back.
    /// What its pool still has in use then is what the engine itself holds.
    pub fn close(mut self) -> E {
        for _ in 0..LAST_TRIES {
            let pool = self.engine.pool();
            for slot in &mut self.slots {
                slot.port.complete(pool);
                slot.send_backlog(pool);
                slot.port.flush();
            }
            if self.slots.iter().all(|slot| slot.backlog.is_empty()) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let pool = self.engine.pool();
        for slot in &mut self.slots {
            for frame in slot.backlog.drain(..) {
                pool.tx_complete(frame.frame);
            }
            slot.port.close(pool);
        }
        self.engine
    }
}

impl<E: Engine> Worker<E, ManualClock> {
    /// Runs as fast as the engine goes, moving the clock from event to event, until `linger` after the last packet of the
    /// captures that the ports read.
    pub fn replay(&mut self, linger: Duration) {
        let mut last = self.clock.now();
        loop {
            while self.turn() {}
            let arrival = self.slots.iter().filter_map(|slot| slot.port.next_arrival()).max();
            if let Some(arrival) = arrival {
                last = arrival;
            }
            match self.next_event() {
                Some(next) if arrival.is_some() || next <= last + linger => self.clock.advance_to(next),
                _ => return,
            }
        }
    }
}

impl Slot {
    fn state(&self) -> PortState {
        match self.port.state() {
            PortState::Up if !self.linked => PortState::Down,
            state => state,
        }
    }

    /// Takes back what was sent; says how many frames.
    fn complete(&mut self, pool: &mut FramePool) -> usize {
        let completed = self.port.complete(pool);
        self.completed = self.completed.wrapping_add(completed as u32);
        completed
    }

    /// Sends a frame behind those that wait; false when it has to wait too.
    #[inline]
    fn send(&mut self, pool: &mut FramePool, frame: TxFrame) -> bool {
        self.touched = true;
        if !self.backlog.is_empty() {
            self.backlog.push_back(frame);
            return false;
        }
        let Err(frame) = self.port.transmit(pool, frame) else { return true };
        // The ring is full. Where the kernel copies, ringing the doorbell empties it.
        if !std::mem::replace(&mut self.rung, true) {
            self.port.flush();
        }
        self.complete(pool);
        let Err(frame) = self.port.transmit(pool, frame) else { return true };
        self.backlog.push_back(frame);
        false
    }

    /// Sends of those that wait as many as the port takes; says how many.
    fn send_backlog(&mut self, pool: &mut FramePool) -> usize {
        let mut sent = 0;
        while let Some(frame) = self.backlog.pop_front() {
            self.touched = true;
            if let Err(frame) = self.port.transmit(pool, frame) {
                self.backlog.push_front(frame);
                break;
            }
            sent += 1;
        }
        sent
    }
}

fn pollfd(fd: RawFd, events: libc::c_short) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

/// Has the calling thread run before every ordinary one (SCHED_RR): for what must keep time, and sleeps. What it forks is
/// ordinary again. `priority` is between 1 and 99.
///
/// # Errors
/// When the process may not do that (it takes CAP_SYS_NICE), or there is no such priority.
pub fn run_in_real_time(priority: u8) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: libc::c_int::from(priority) };
    // SAFETY: reads one live structure; 0 is the calling thread.
    let result =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Keeps the calling thread on one CPU.
///
/// # Errors
/// When there is no such CPU, or the process may not use it.
pub fn pin_to_cpu(cpu: u16) -> io::Result<()> {
    // SAFETY: a CPU set is plain data, for which zeros are the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if usize::from(cpu) >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the CPU's number was checked to be within the set.
    unsafe { libc::CPU_SET(usize::from(cpu), &mut set) };
    // SAFETY: reads one live set of the size given; 0 is the calling thread.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
