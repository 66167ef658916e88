//! The shard's timing wheel: hierarchical, one millisecond a tick, without allocation once it is warm.

use crate::limits::{TICK_NANOS, WHEEL_LEVELS};
use crate::time::Instant;

/// Slots of a level: one bit each of its occupancy word.
const SLOTS: usize = 64;
/// Bits of a tick that one level looks at.
const BITS: u32 = SLOTS.trailing_zeros();
/// No entry.
const NIL: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    token: T,
    tick: u64,
    next: u32,
}

/// A list of entries, first in first out.
#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

const EMPTY: List = List { first: NIL, last: NIL };

/// Tokens that come due, each once for every time that it was scheduled.
///
/// An entry never comes due early, and at most one tick late. Nothing is ever cancelled: the owner recognises a stale
/// token by its generation. Level *n* holds what differs from now in the *n*-th six bits of its tick and in none above.
#[derive(Debug)]
pub struct TimerWheel<T> {
    entries: Vec<Entry<T>>,
    /// List of free entries.
    free: u32,
    /// Entries that are due, oldest first.
    due: List,
    lists: Box<[[List; SLOTS]; WHEEL_LEVELS]>,
    occupied: [u64; WHEEL_LEVELS],
    /// The tick that the wheel has reached.
    now: u64,
    /// Nothing outside `due` is due before this tick.
    earliest: u64,
    len: usize,
}

impl<T: Copy> Default for TimerWheel<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy> TimerWheel<T> {
    /// An empty wheel.
    pub fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: NIL,
            due: EMPTY,
            lists: Box::new([[EMPTY; SLOTS]; WHEEL_LEVELS]),
            occupied: [0; WHEEL_LEVELS],
            now: 0,
            earliest: u64::MAX,
            len: 0,
        }
    }

    /// How many entries there are, stale ones included.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True when there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Lets `token` come due at `at`. [`Instant::MAX`] is never, and stores nothing. What is past already comes due in
    /// the present round of [`TimerWheel::pop_due`], so an owner re-arms for a later time than the one it was given.
    pub fn schedule(&mut self, at: Instant, token: T) {
        if at == Instant::MAX {
            return;
        }
        let tick = at.as_nanos().div_ceil(TICK_NANOS);
        let index = self.take_entry(Entry { token, tick, next: NIL });
        self.len += 1;
        self.place(index, tick);
    }

    /// The next token that is due at `now`; call it until it gives `None`. Time that runs backwards is taken as
    /// standing still.
    #[inline]
    pub fn pop_due(&mut self, now: Instant) -> Option<T> {
        if self.due.first == NIL {
            // One comparison when nothing is due, which is nearly always.
            if now.as_nanos() < self.earliest.saturating_mul(TICK_NANOS) {
                return None;
            }
            self.advance(now.as_nanos() / TICK_NANOS);
        }
        let index = self.due.first;
        let entry = self.entries.get_mut(index as usize)?;
        self.due.first = entry.next;
        entry.next = self.free;
        self.free = index;
        self.len -= 1;
        Some(entry.token)
    }

    /// When to call [`TimerWheel::pop_due`] next: never later than the first entry is due. It may be earlier, for
    /// entries are sorted as their time comes near; then nothing is popped and the answer moves on.
    #[inline]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.due.first != NIL {
            Some(Instant::from_nanos(self.now.saturating_mul(TICK_NANOS)))
        } else if self.len == 0 {
            None
        } else {
            Some(Instant::from_nanos(self.earliest.saturating_mul(TICK_NANOS)))
        }
    }

    fn take_entry(&mut self, entry: Entry<T>) -> u32 {
        let index = self.free;
        if let Some(slot) = self.entries.get_mut(index as usize) {
            self.free = slot.next;
            *slot = entry;
            return index;
        }
        let index = self.entries.len() as u32;
        assert!(index < NIL, "more timers than a wheel can number");
        self.entries.push(entry);
        index
    }

    /// Puts an entry whose `next` is `NIL` on the list of its tick.
    fn place(&mut self, index: u32, tick: u64) {
        if tick <= self.now {
            append(&mut self.due, &mut self.entries, index);
            return;
        }
        let level = ((tick ^ self.now).ilog2() / BITS) as usize;
        let slot = slot_of(tick, level);
        self.occupied[level] |= 1 << slot;
        append(&mut self.lists[level][slot], &mut self.entries, index);
        self.earliest = self.earliest.min(start_of(tick, level));
    }

    /// Moves time on to `target`, and what comes due by then to the due list, in the order of its ticks.
    #[cold]
    fn advance(&mut self, target: u64) {
        while let Some((level, slot, start)) = self.first_slot() {
            if start > target {
                break;
            }
            self.now = start;
            let mut index = std::mem::replace(&mut self.lists[level][slot], EMPTY).first;
            self.occupied[level] &= !(1 << slot);
            while let Some(entry) = self.entries.get_mut(index as usize) {
                let (tick, next) = (entry.tick, entry.next);
                entry.next = NIL;
                self.place(index, tick);
                index = next;
            }
        }
        self.now = self.now.max(target);
        self.earliest = self.first_slot().map_or(u64::MAX, |(.., start)| start);
    }

    /// The first occupied slot and the tick at which it starts. Everything on a level comes before everything on the
    /// next, and every occupied slot lies ahead of the level's present one.
    fn first_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let slot = self.occupied[level].trailing_zeros() as usize;
        let shift = BITS * level as u32;
        let above = self.now >> (shift + BITS) << BITS;
        Some((level, slot, (above | slot as u64) << shift))
    }
}

/// The slot of a tick on a level.
const fn slot_of(tick: u64, level: usize) -> usize {
    (tick >> (BITS * level as u32)) as usize % SLOTS
}

/// The first tick of the slot that holds `tick` on a level.
const fn start_of(tick: u64, level: usize) -> u64 {
    let shift = BITS * level as u32;
    tick >> shift << shift
}

fn append<T>(list: &mut List, entries: &mut [Entry<T>], index: u32) {
    if list.first == NIL {
        list.first = index;
    } else {
        entries[list.last as usize].next = index;
    }
    list.last = index;
}

#[cfg(test)]
mod tests;
