//! Who is behind which address of a link: the state machine of RFC 4861 §7.3, for ARP too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mimbox_stack::wire::MacAddr;
use mimbox_stack::{Duration, Instant, PortId, TxFrame};

use super::limits::{MAX_HELD, MAX_HELD_PER_NEIGHBOUR, MAX_UNRESOLVED};

// RFC 4861 §10.
const RETRANS_TIMER: Duration = Duration::from_secs(1);
const MAX_SOLICITS: u8 = 3;
const REACHABLE_TIME: Duration = Duration::from_secs(30);
/// How long an entry that nobody uses is kept after it grew stale.
const UNUSED_TIME: Duration = Duration::from_secs(120);

/// An address on a link.
pub(super) type Key = (PortId, IpAddr);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Asked for `asked` times, no answer yet.
    Incomplete { asked: u8 },
    /// Confirmed lately.
    Reachable { mac: MacAddr },
    /// Was right once; the next use asks again.
    Stale { mac: MacAddr },
    /// In use while it is being asked again.
    Probe { mac: MacAddr, asked: u8 },
}

#[derive(Debug)]
struct Entry {
    state: State,
    deadline: Instant,
    held: Vec<TxFrame>,
}

/// What a look-up gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lookup {
    Ready(MacAddr),
    Pending,
    Full,
}

/// What the cache wants done.
#[derive(Debug)]
pub(super) enum Effect {
    /// Ask for the address: everybody, or only the station that had it.
    Ask(Key, Option<MacAddr>),
    /// The frame may go, to that station.
    Deliver(MacAddr, TxFrame),
    /// Nobody answered.
    Failed(Key),
    /// Nobody answered; the frame was held for that address.
    Undeliverable(IpAddr, TxFrame),
}

/// What was heard about an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// It answered the question that was put to it.
    Answered {
        /// False when an answer must not replace another address (RFC 4861 §4.4, the override flag).
        overrides: bool,
    },
    /// It asked something, or announced itself.
    Spoke {
        /// Whether an entry may be made for it.
        learn: bool,
        /// As in `Answered`.
        overrides: bool,
    },
}

/// The neighbours of all ports.
#[derive(Debug)]
pub(super) struct Cache {
    entries: BTreeMap<Key, Entry>,
    deadlines: BTreeSet<(Instant, Key)>,
    limit: usize,
    unresolved: usize,
    held: usize,
    /// Changes whenever something that `Ready` said may no longer hold.
    pub(super) epoch: u32,
}

impl Cache {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            limit: limit.max(1),
            unresolved: 0,
            held: 0,
            epoch: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// Every neighbour with its Ethernet address, where it is known.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, Option<MacAddr>)> {
        self.entries.iter().map(|(&key, entry)| (key, entry.mac()))
    }

    /// Who is behind `key`; asks when nobody knows, and again when it is long ago.
    pub(super) fn lookup(&mut self, now: Instant, key: Key, effects: &mut Vec<Effect>) -> Lookup {
        match self.entries.get(&key).map(|entry| entry.state) {
            Some(State::Reachable { mac } | State::Probe { mac, .. }) => Lookup::Ready(mac),
            Some(State::Stale { mac }) => {
                self.set(key, State::Probe { mac, asked: 1 }, now + RETRANS_TIMER);
                effects.push(Effect::Ask(key, Some(mac)));
                Lookup::Ready(mac)
            }
            Some(State::Incomplete { .. }) => Lookup::Pending,
            None if self.unresolved >= MAX_UNRESOLVED || !self.make_room() => Lookup::Full,
            None => {
                self.insert(key, State::Incomplete { asked: 1 }, now + RETRANS_TIMER);
                self.unresolved += 1;
                effects.push(Effect::Ask(key, None));
                Lookup::Pending
            }
        }
    }

    /// Keeps a frame until `key` is resolved.
    pub(super) fn hold(&mut self, key: Key, frame: TxFrame) -> Result<(), TxFrame> {
        match self.entries.get_mut(&key) {
            Some(entry)
                if matches!(entry.state, State::Incomplete { .. })
                    && entry.held.len() < MAX_HELD_PER_NEIGHBOUR
                    && self.held < MAX_HELD =>
            {
                entry.held.push(frame);
                self.held += 1;
                Ok(())
            }
            _ => Err(frame),
        }
    }

    /// Takes every held frame out.
    pub(super) fn take_held(&mut self) -> Vec<TxFrame> {
        self.held = 0;
        self.entries.values_mut().flat_map(|entry| std::mem::take(&mut entry.held)).collect()
    }

    /// The station `mac` said something that shows where `key` is.
    pub(super) fn heard(&mut self, now: Instant, key: Key, mac: MacAddr, heard: Heard, effects: &mut Vec<Effect>) {
        let Some(entry) = self.entries.get_mut(&key) else {
            // RFC 4861 §7.2.5: an answer that nobody asked for makes no entry.
            if matches!(heard, Heard::Spoke { learn: true, .. }) && self.make_room() {
                self.insert(key, State::Stale { mac }, now + UNUSED_TIME);
            }
            return;
        };
        let known = entry.mac();
        let (answered, overrides) = match heard {
            Heard::Answered { overrides } => (true, overrides),
            Heard::Spoke { overrides, .. } => (false, overrides),
        };
        match known {
            None => self.resolved(now, key, mac, answered, effects),
            // RFC 4861 §7.2.5 (I): another address that may not replace the known one only casts doubt on it.
            Some(known) if known != mac && !overrides => {
                if matches!(entry.state, State::Reachable { .. }) {
                    self.set(key, State::Stale { mac: known }, now + UNUSED_TIME);
                    self.epoch = self.epoch.wrapping_add(1);
                }
            }
            Some(_) if answered => self.set(key, State::Reachable { mac }, now + REACHABLE_TIME),
            Some(known) if known != mac => self.set(key, State::Stale { mac }, now + UNUSED_TIME),
            Some(_) => {}
        }
        if known.is_some_and(|known| known != mac) && overrides {
            self.epoch = self.epoch.wrapping_add(1);
        }
    }

    fn resolved(&mut self, now: Instant, key: Key, mac: MacAddr, answered: bool, effects: &mut Vec<Effect>) {
        self.unresolved -= 1;
        self.epoch = self.epoch.wrapping_add(1);
        if answered {
            self.set(key, State::Reachable { mac }, now + REACHABLE_TIME);
        } else {
            self.set(key, State::Stale { mac }, now + UNUSED_TIME);
        }
        if let Some(entry) = self.entries.get_mut(&key) {
            self.held -= entry.held.len();
            effects.extend(entry.held.drain(..).map(|frame| Effect::Deliver(mac, frame)));
        }
    }

    /// Asks again, ages, gives up: what is due at `now`.
    pub(super) fn on_timer(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while let Some(&(at, key)) = self.deadlines.first()
            && at <= now
        {
            self.expire(now, key, effects);
        }
    }

    fn expire(&mut self, now: Instant, key: Key, effects: &mut Vec<Effect>) {
        let Some(state) = self.entries.get(&key).map(|entry| entry.state) else { return };
        match state {
            State::Incomplete { asked } if asked < MAX_SOLICITS => {
                self.set(key, State::Incomplete { asked: asked + 1 }, now + RETRANS_TIMER);
                effects.push(Effect::Ask(key, None));
            }
            State::Incomplete { .. } => self.fail(key, effects),
            State::Reachable { mac } => {
                // Whoever still uses it looks it up again after the epoch changed, and that look-up asks.
                self.set(key, State::Stale { mac }, now + UNUSED_TIME);
                self.epoch = self.epoch.wrapping_add(1);
            }
            State::Stale { .. } => {
                self.remove(key);
            }
            State::Probe { mac, asked } if asked < MAX_SOLICITS => {
                self.set(key, State::Probe { mac, asked: asked + 1 }, now + RETRANS_TIMER);
                effects.push(Effect::Ask(key, Some(mac)));
            }
            State::Probe { .. } => {
                // RFC 4861 §7.3.3: the entry goes; the next use asks everybody.
                self.remove(key);
                self.epoch = self.epoch.wrapping_add(1);
            }
        }
    }

    fn fail(&mut self, key: Key, effects: &mut Vec<Effect>) {
        effects.push(Effect::Failed(key));
        if let Some(entry) = self.remove(key) {
            effects.extend(entry.held.into_iter().map(|frame| Effect::Undeliverable(key.1, frame)));
        }
    }

    fn insert(&mut self, key: Key, state: State, deadline: Instant) {
        self.deadlines.insert((deadline, key));
        self.entries.insert(key, Entry { state, deadline, held: Vec::new() });
    }

    fn set(&mut self, key: Key, state: State, deadline: Instant) {
        if let Some(entry) = self.entries.get_mut(&key) {
            self.deadlines.remove(&(entry.deadline, key));
            self.deadlines.insert((deadline, key));
            entry.state = state;
            entry.deadline = deadline;
        }
    }

    fn remove(&mut self, key: Key) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.deadlines.remove(&(entry.deadline, key));
        self.unresolved -= usize::from(matches!(entry.state, State::Incomplete { .. }));
        self.held -= entry.held.len();
        Some(entry)
    }

    /// Makes room for one entry, at the cost of the stale one that would go first; false when none is stale.
    fn make_room(&mut self) -> bool {
        if self.entries.len() < self.limit {
            return true;
        }
        let oldest = self
            .deadlines
            .iter()
            .map(|&(_, key)| key)
            .find(|key| self.entries.get(key).is_some_and(|entry| matches!(entry.state, State::Stale { .. })));
        // A stale entry may still stand in a connection's cached header; it is asked for again when that is renewed.
        oldest.and_then(|key| self.remove(key)).is_some()
    }
}

impl Entry {
    fn mac(&self) -> Option<MacAddr> {
        match self.state {
            State::Incomplete { .. } => None,
            State::Reachable { mac } | State::Stale { mac } | State::Probe { mac, .. } => Some(mac),
        }
    }
}
