//! What happens on the worker's thread beside packets: snapshots, requests, warnings, and the way to a stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};

use mimbox_dataplane::worker::PortReport;
use mimbox_dataplane::{Control, Feature, Order, PortState, Tick, Verdict};
use mimbox_stack::{Counter, Duration, Instant, PortId};

use crate::admin::{Request, Requests};
use crate::config::{Config, mac_text};
use crate::events::EventRow;
use crate::metrics::{ConversionCounts, FeatureSnapshot, Operated, PortSnapshot, RunState, Snapshot, WorkerSnapshot};

use super::checksum_advice;

/// Called by the worker each tick.
pub(super) struct Observer {
    requests: Requests,
    /// Who follows the events.
    followers: Vec<SyncSender<EventRow>>,
    /// Events that a follower was too slow for.
    too_slow: u64,
    /// How things stood at the last tick.
    snapshot: Snapshot,
    /// How often a stop was asked for: once drains, twice stops at once.
    stop_requests: Arc<AtomicU8>,
    stage: Stage,
    drain: Duration,
    started: Option<Instant>,
    last_tick: Instant,
    ports: Vec<Watched>,
}

/// How far the box is on its way to a stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Running,
    /// No conversion is opened any more; at the instant, those that live are reset.
    Draining(Instant),
    /// The resets are on their way.
    Resetting,
}

/// What is remembered of a port from tick to tick.
struct Watched {
    name: String,
    interface: String,
    state: PortState,
    advice: String,
}

impl Observer {
    pub(super) fn new(config: &Config, requests: Requests, stop_requests: Arc<AtomicU8>) -> Self {
        let watched = |port: &crate::config::PortConfig| Watched {
            name: port.name.clone(),
            interface: port.interface.clone(),
            state: PortState::Up,
            advice: String::new(),
        };
        Self {
            requests,
            followers: Vec::new(),
            too_slow: 0,
            snapshot: Snapshot::new(
                config.ports.iter().map(|port| (port.id, port.name.as_str(), port.interface.as_str())),
            ),
            stop_requests,
            stage: Stage::Running,
            drain: config.worker.drain,
            started: None,
            last_tick: Instant::ZERO,
            ports: config.ports.iter().map(watched).collect(),
        }
    }

    /// When the last tick was.
    pub(super) fn last_tick(&self) -> Instant {
        self.last_tick
    }

    /// Fills in what is known without asking the kernel, and warns of what is seen in it: an idle box makes no system calls
    /// for its ticks.
    fn look<E: Operated>(&mut self, tick: &mut Tick<'_, E>) {
        let Self { snapshot, stage, started, ports, too_slow, .. } = self;
        let uptime = tick.now.since(*started.get_or_insert(tick.now));
        snapshot.uptime_s = uptime.as_secs_f64();
        snapshot.state = if *stage == Stage::Running { RunState::Running } else { RunState::Draining };
        tick.engine.observe(snapshot);
        snapshot.counters.add(Counter::EventsUnread, *too_slow);
        let in_rings = tick.ports.frames();
        let pool = tick.engine.pool();
        snapshot.pool.frames = pool.total();
        snapshot.pool.free = pool.free_frames();
        snapshot.pool.in_rings = in_rings;
        snapshot.pool.in_use = pool.in_use().saturating_sub(in_rings);
        let worker = tick.worker;
        snapshot.worker = WorkerSnapshot {
            turns: worker.turns,
            busy: worker.busy,
            batches: worker.batches,
            sleeps: worker.sleeps,
            backlog_peak: worker.backlog_peak,
        };
        for (id, state) in tick.ports.states() {
            let state = state_name(state);
            if let Some(port) = snapshot.port_mut(id).filter(|port| port.state != state) {
                state.clone_into(&mut port.state);
            }
        }
        for (port, watched) in snapshot.ports.iter_mut().zip(ports.iter_mut()) {
            watched.warn(port);
        }
    }

    /// Answers everybody who asked.
    fn answer<E: Operated>(&mut self, tick: &mut Tick<'_, E>) {
        while let Some(request) = self.requests.take() {
            match request {
                Request::Stats(answer) => {
                    for report in tick.ports.iter() {
                        let features = tick.ports.features(report.info.id);
                        fill_port(&mut self.snapshot, &report, features);
                    }
                    answer.give(self.snapshot.clone());
                }
                Request::Connections { limit, answer } => answer.give(tick.engine.connections(tick.now, limit)),
                Request::Events(follower) => {
                    let unread = self.snapshot.counters.get(Counter::EventsUnread);
                    // It has room: nothing was sent yet.
                    let _ = follower.try_send(EventRow::listening(tick.now, unread));
                    self.followers.push(follower);
                }
            }
        }
    }

    /// Hands what happened to those who follow; what happens while nobody does stays in the engine's ring.
    fn tell_followers<E: Operated>(&mut self, engine: &mut E) {
        while !self.followers.is_empty() {
            let Some(event) = engine.next_event() else { return };
            let name =
                |id: PortId| self.ports.get(usize::from(id.0)).map_or_else(String::new, |port| port.name.clone());
            let row = EventRow::new(&event, name);
            let too_slow = &mut self.too_slow;
            self.followers.retain(|follower| match follower.try_send(row.clone()) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => {
                    *too_slow += 1;
                    true
                }
                Err(TrySendError::Disconnected(_)) => false,
            });
        }
    }

    /// The next step on the way to a stop.
    fn proceed<E>(&mut self, tick: &Tick<'_, E>, counts: ConversionCounts) -> Verdict {
        let asked = self.stop_requests.load(Ordering::Relaxed);
        match self.stage {
            Stage::Running if asked == 0 => Verdict::Continue,
            Stage::Running => {
                tracing::info!(
                    live = counts.live,
                    limit = %self.drain,
                    "draining: no conversion is opened any more; a second signal resets those that live"
                );
                self.stage = Stage::Draining(tick.now + self.drain);
                Verdict::Order(Order::RefuseOpenings)
            }
            Stage::Draining(until) => {
                let idle = counts.live == 0 && counts.half_open == 0;
                if !idle && asked < 2 && tick.now < until {
                    return Verdict::Continue;
                }
                if !idle {
                    tracing::info!(live = counts.live, "resetting the conversions that are left");
                }
                self.stage = Stage::Resetting;
                Verdict::Order(Order::ResetAll)
            }
            Stage::Resetting => Verdict::Stop,
        }
    }
}

impl<E: Operated> Control<E> for Observer {
    fn tick(&mut self, mut tick: Tick<'_, E>) -> Verdict {
        self.last_tick = tick.now;
        self.look(&mut tick);
        self.answer(&mut tick);
        self.tell_followers(tick.engine);
        let counts = self.snapshot.conversions;
        self.proceed(&tick, counts)
    }
}

fn fill_port(snapshot: &mut Snapshot, report: &PortReport<'_>, features: Vec<Feature>) {
    let Some(port) = snapshot.port_mut(report.info.id) else { return };
    let stats = report.stats;
    if port.mode.is_empty() {
        port.mode = report.info.mode.to_string();
        port.mac = mac_text(report.info.mac.0);
        port.mtu = report.info.mtu;
    }
    let shown = |Feature { name, got, detail }| FeatureSnapshot { name: str::to_owned(name), got, detail };
    port.features = features.into_iter().map(shown).collect();
    port.rx_frames = stats.rx_frames;
    port.rx_bytes = stats.rx_bytes;
    port.tx_frames = stats.tx_frames;
    port.tx_bytes = stats.tx_bytes;
    port.tx_dropped = stats.tx_dropped;
    port.rx_dropped = stats.rx_dropped;
    port.rx_ring_full = stats.rx_ring_full;
    port.rx_fill_empty = stats.rx_fill_empty;
    port.invalid_descriptors = stats.invalid_descriptors;
    port.tx_calls = stats.tx_calls;
    port.rx_calls = stats.rx_calls;
}

const fn state_name(state: PortState) -> &'static str {
    match state {
        PortState::Up => "up",
        PortState::Down => "down",
        PortState::Gone => "gone",
    }
}

impl Watched {
    /// Says once what an operator should know at once, and keeps the advice in the statistics.
    fn warn(&mut self, port: &mut PortSnapshot) {
        if port.checksum_partial > 0 && self.advice.is_empty() {
            self.advice = checksum_advice(&self.name, &self.interface);
            tracing::warn!("{}", self.advice);
        }
        if port.advice != self.advice {
            port.advice.clone_from(&self.advice);
        }
        let state = match port.state.as_str() {
            "down" => PortState::Down,
            "gone" => PortState::Gone,
            _ => PortState::Up,
        };
        if state != self.state {
            self.state = state;
            let (port, interface) = (&self.name, &self.interface);
            match state {
                PortState::Up => tracing::info!(port, interface, "the port is up"),
                PortState::Down => tracing::warn!(port, interface, "the port is down: what is sent there is dropped"),
                PortState::Gone => {
                    tracing::error!(port, interface, "the interface is gone: restart mimbox once it is back")
                }
            }
        }
    }
}
