//! What is left of connections that are over: TIME-WAIT of those that the box closed first (RFC 9293 §3.6.1), and the
//! 4-tuples of those whose late segments would otherwise be taken for somebody else's and be forwarded.

use std::collections::VecDeque;

use mimbox_stack::tcp::TimeWaitRecord;
use mimbox_stack::{Duration, FlowKey, Instant};

use crate::path::Origin;

/// How long a record stands. Twice the 30 s that segments are taken to live, as the kernel's own TIME-WAIT.
pub(crate) const TIME_WAIT: Duration = Duration::from_secs(60);

/// Names a record; a stale one finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimeWaitId {
    index: u32,
    generation: u32,
}

/// What a late segment is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rest {
    /// The box closed first: an acknowledgment.
    TimeWait,
    /// The connection is closed, and its address is not the box's own: a reset, as an end host would send.
    Gone,
}

/// A record and the way back to its peer.
#[derive(Clone, Debug)]
pub(crate) struct Resting {
    /// What a late segment is told.
    pub rest: Rest,
    /// The connection's last numbers.
    pub record: TimeWaitRecord,
    /// The way back.
    pub origin: Origin,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// Its peer has been heard of, and so may not know yet that the connection is over.
    heard: bool,
    resting: Option<Resting>,
}

/// All TIME-WAIT records of a shard, oldest first.
#[derive(Debug)]
pub(crate) struct TimeWaitTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    order: VecDeque<(Instant, TimeWaitId)>,
    limit: usize,
    live: usize,
}

impl TimeWaitTable {
    /// A table of at most `limit` records.
    pub(crate) fn new(limit: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), order: VecDeque::new(), limit: limit.max(1), live: 0 }
    }

    /// Records in the table.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// True when a further record needs an older one to go.
    pub(crate) fn is_full(&self) -> bool {
        self.live >= self.limit
    }

    /// Keeps a record until `now + TIME_WAIT`, and as long again each time that its peer has been heard of meanwhile.
    pub(crate) fn insert(&mut self, now: Instant, resting: Resting) -> TimeWaitId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, heard: false, resting: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.resting = Some(resting);
        slot.heard = false;
        let id = TimeWaitId { index, generation: slot.generation };
        self.live += 1;
        self.order.push_back((now + TIME_WAIT, id));
        id
    }

    /// The record, if it still stands.
    pub(crate) fn get(&self, id: TimeWaitId) -> Option<&Resting> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation == id.generation { slot.resting.as_ref() } else { None }
    }

    /// Notes that the peer still sends: what it was told may be lost (RFC 9293 §3.10.7.4, "restart the 2 MSL timeout").
    pub(crate) fn note_heard(&mut self, id: TimeWaitId) {
        if let Some(slot) = self.slots.get_mut(id.index as usize)
            && slot.generation == id.generation
        {
            slot.heard = true;
        }
    }

    /// Takes the record out.
    pub(crate) fn remove(&mut self, id: TimeWaitId) -> Option<Resting> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let resting = slot.resting.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        self.live -= 1;
        Some(resting)
    }

    /// Takes out the oldest record, due or not; gives its name and 4-tuple.
    pub(crate) fn evict(&mut self) -> Option<(TimeWaitId, FlowKey)> {
        while let Some((_, id)) = self.order.pop_front() {
            if let Some(resting) = self.remove(id) {
                return Some((id, *resting.record.flow()));
            }
        }
        None
    }

    /// Takes out a record whose time is over; gives its name and 4-tuple.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(TimeWaitId, FlowKey)> {
        while let Some(&(due, id)) = self.order.front() {
            let stale = self.get(id).is_none();
            if !stale && due > now {
                return None;
            }
            self.order.pop_front();
            if !stale
                && let Some(slot) = self.slots.get_mut(id.index as usize)
                && std::mem::take(&mut slot.heard)
            {
                self.order.push_back((now + TIME_WAIT, id));
                continue;
            }
            if let Some(resting) = self.remove(id) {
                return Some((id, *resting.record.flow()));
            }
        }
        None
    }

    /// When the next record is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.order.front().map(|&(due, _)| due)
    }
}
