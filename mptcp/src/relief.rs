//! Subflows that hold the others up, and what is done about it: the peer is asked to use them as backup (RFC 8684 §3.3.8).
//!
//! A path that loses packets brings little, and all that comes by other paths has to wait for what it loses. The sender does
//! not see that, and Linux goes on sending there. The receiver sees which subflow the waiting data waits for, and what a
//! sender does with the data for us is ours to ask.

use mimbox_stack::tcp::{ConnId, ConnTable};
use mimbox_stack::{Duration, Env, Instant};

use crate::connection::{Connection, Mode};
use crate::event::Event;
use crate::limits::{
    RELIEF_LEAST_BYTES, RELIEF_MEASURE_STEPS, RELIEF_PAUSE, RELIEF_PAUSES, RELIEF_ROUNDS, RELIEF_STEP, RELIEF_STEPS,
};
use crate::subflow::Subflow;

/// How long a measurement takes.
const MEASUREMENT: Duration = Duration::from_millis(RELIEF_STEP.as_millis() * RELIEF_MEASURE_STEPS as u64);
/// Payload of a usual segment, in bytes: what a loss is counted against.
const SEGMENT: u64 = 1400;
/// A subflow that brings less than one byte in so many may be dispensable.
const DISPENSABLE: u64 = 4;
/// One that loses one segment in so many, or more, is lossy.
const LOSSY: u64 = 100;
/// One that one byte in so many of all waits for, or more, holds the others up.
const WAITING: u64 = 4;

/// What a subflow brought since the measurement began, and what waited for it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Burden {
    /// Bytes that it had brought before.
    before: u64,
    /// Bytes by other subflows that waited for some of its own.
    held_up: u64,
    /// Times that a segment arrived with one missing before it, and none had been missing.
    pub(crate) gaps: u32,
    /// What earlier measurements came to, those further back counting less.
    faded: Share,
    /// Measurements in a row in which it did nothing but hold others up.
    rounds: u8,
    /// What all brought in these.
    meanwhile: u64,
    /// The peer was asked to use it as backup because of that.
    asked: bool,
}

/// A subflow's share in what happened.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// Bytes that it brought.
    bytes: u64,
    /// Bytes by other subflows that waited for some of its own.
    held_up: u64,
    /// Gaps, in 1/16.
    gaps: u64,
}

/// What a gap counts in [`Share::gaps`].
const GAP: u64 = 16;

impl Share {
    /// With another measurement.
    fn and(self, new: Self) -> Self {
        Self {
            bytes: self.bytes / 2 + new.bytes,
            held_up: self.held_up / 2 + new.held_up,
            gaps: self.gaps / 2 + new.gaps,
        }
    }

    /// True when a subflow with this share of `total` bytes does nothing but hold the others up.
    fn is_heavy(&self, total: u64) -> bool {
        total >= RELIEF_LEAST_BYTES
            && self.bytes * DISPENSABLE < total
            && self.held_up * WAITING >= total
            && self.gaps > GAP
            && self.gaps * LOSSY * SEGMENT >= self.bytes * GAP
    }
}

impl Burden {
    /// What was measured so far does not count any more.
    fn forget(&mut self) {
        (self.faded, self.rounds, self.meanwhile) = (Share::default(), 0, 0);
    }

    /// The measurement is over.
    fn fade(&mut self, bytes: u64) {
        let new = Share { bytes, held_up: self.held_up, gaps: u64::from(self.gaps) * GAP };
        self.faded = self.faded.and(new);
    }
}

/// When the subflows are compared, and what came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relief {
    /// The end of the measurement; [`Instant::MAX`] while nothing waits for anything.
    pub(crate) due: Instant,
    /// While a subflow is backup at our wish: when it is regular again. Else: before that nothing is asked.
    until: Instant,
    /// How often a subflow was made backup.
    trials: u8,
    /// Steps since that.
    steps: u8,
    /// What all brought before that in [`RELIEF_STEPS`].
    before: u64,
    /// What they bring without it.
    after: u64,
}

impl Default for Relief {
    fn default() -> Self {
        Self { due: Instant::MAX, until: Instant::ZERO, trials: 0, steps: 0, before: 0, after: 0 }
    }
}

impl Connection {
    /// `bytes` that had come by other subflows waited for what has just come by subflow `index`.
    pub(crate) fn note_held_up(&mut self, now: Instant, index: usize, bytes: u64) {
        if self.relief.due == Instant::MAX && self.config.ask_backup {
            for subflow in &mut self.subflows {
                subflow.burden.forget();
            }
            self.measure(now + MEASUREMENT);
        }
        if let Some(subflow) = self.subflows.get_mut(index) {
            subflow.burden.held_up += bytes;
        }
    }

    /// A measurement begins.
    fn measure(&mut self, until: Instant) {
        self.relief.due = until;
        for subflow in &mut self.subflows {
            let burden = &mut subflow.burden;
            (burden.before, burden.held_up, burden.gaps) = (subflow.bytes_received, 0, 0);
        }
    }

    /// A measurement is over.
    pub(crate) fn on_relief_timer(&mut self, now: Instant, conns: &mut ConnTable, env: &mut Env<'_>) {
        self.relief.due = Instant::MAX;
        if self.mode != Mode::Multipath || self.rcv.fin_done {
            return;
        }
        let total: u64 = self.subflows.iter().map(brought).sum();
        if self.subflows.iter().any(|subflow| subflow.burden.asked) {
            return self.watch(now, total, conns, env);
        }
        for subflow in &mut self.subflows {
            subflow.burden.fade(brought(subflow));
        }
        let all = self.subflows.iter().map(|subflow| subflow.burden.faded.bytes).sum();
        let mut heaviest = None;
        for (index, subflow) in self.subflows.iter_mut().enumerate() {
            let heavy = subflow.burden.faded.is_heavy(all);
            let Burden { rounds, meanwhile, .. } = &mut subflow.burden;
            (*rounds, *meanwhile) = if heavy { (rounds.saturating_add(1), *meanwhile + total) } else { (0, 0) };
            let rounds = *rounds;
            if rounds > 0 && heaviest.is_none_or(|(_, most)| rounds > most) && !subflow.backup_wish {
                heaviest = Some((index, rounds));
            }
        }
        match heaviest {
            Some((index, rounds)) if rounds >= RELIEF_ROUNDS && now >= self.relief.until && self.has_others(index) => {
                let (trials, measured) = (self.relief.trials, u64::from(rounds) * u64::from(RELIEF_MEASURE_STEPS));
                let before = self.subflows[index].burden.meanwhile * u64::from(RELIEF_STEPS) / measured;
                self.relief = Relief {
                    until: now + pause(trials),
                    trials: trials.saturating_add(1),
                    before,
                    ..Relief::default()
                };
                self.ask(index, true, conns, env);
                self.measure(now + RELIEF_STEP);
            }
            _ if self.subflows.iter().any(|subflow| subflow.burden.held_up > 0) => {
                self.measure(now + MEASUREMENT);
            }
            _ => {}
        }
    }

    /// A step while a subflow is backup at our wish, in which all brought `total`. The wish ends when the others bring
    /// nothing, as they may be dead; when they bring no more than all did before; and after its time, since a path can
    /// become better.
    fn watch(&mut self, now: Instant, total: u64, conns: &mut ConnTable, env: &mut Env<'_>) {
        let regular: u64 = self.subflows.iter().filter(|subflow| !subflow.burden.asked).map(brought).sum();
        let relief = &mut self.relief;
        relief.steps = relief.steps.saturating_add(1);
        // At first there is still what was under way.
        if u32::from(relief.steps) > RELIEF_STEPS {
            relief.after += total;
        }
        let in_vain = u32::from(relief.steps) == 2 * RELIEF_STEPS && relief.after < relief.before + relief.before / 16;
        if regular > 0 && !in_vain && now < relief.until {
            return self.measure(now + RELIEF_STEP);
        }
        let trials = relief.trials;
        relief.until = if in_vain { now + pause(trials) } else { Instant::ZERO };
        for index in 0..self.subflows.len() {
            self.subflows[index].burden.forget();
            if self.subflows[index].burden.asked {
                self.ask(index, false, conns, env);
            }
        }
        self.measure(now + MEASUREMENT);
    }

    /// True when another subflow than `index` carries data.
    fn has_others(&self, index: usize) -> bool {
        let mut all = self.subflows.iter().enumerate();
        all.any(|(at, other)| at != index && other.takes_data() && !other.stale && !other.backup_wish)
    }

    fn ask(&mut self, index: usize, backup: bool, conns: &mut ConnTable, env: &mut Env<'_>) {
        let subflow: ConnId = self.subflows[index].id;
        self.subflows[index].burden.asked = backup;
        self.set_backup(subflow, backup, conns, env);
        self.event(Event::AskedPriority { subflow, backup });
    }
}

/// Bytes since the measurement began.
fn brought(subflow: &Subflow) -> u64 {
    subflow.bytes_received - subflow.burden.before
}

/// How long a wish stands, or none is uttered, after so many.
fn pause(trials: u8) -> Duration {
    RELIEF_PAUSE * (1 << trials.min(RELIEF_PAUSES))
}
