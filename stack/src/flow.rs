//! The table from a 4-tuple to a handle: keyed hash, one cache line a slot, growth in small steps.

use std::net::IpAddr;

use crate::limits::{FLOW_MIGRATION_STEP, FLOW_PAGE};
use crate::mem;
use crate::wire::FlowKey;

/// The secret of a table's hash, so that nobody can choose addresses and ports that collide.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey {
    k0: u64,
    k1: u64,
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(..)")
    }
}

impl HashKey {
    /// A key of 128 bits, drawn from the shard's generator.
    pub const fn new(k0: u64, k1: u64) -> Self {
        Self { k0, k1 }
    }

    /// SipHash-1-3 of the flow's addresses and ports.
    #[inline]
    pub fn hash(&self, flow: &FlowKey) -> u64 {
        let ports = u64::from(flow.local_port.swap_bytes()) | u64::from(flow.remote_port.swap_bytes()) << 16;
        let mut state = Sip::new(self);
        match (flow.local, flow.remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                let both = u64::from(local.to_bits().swap_bytes()) | u64::from(remote.to_bits().swap_bytes()) << 32;
                state.word(both);
                state.finish(ports | 12 << 56)
            }
            (local, remote) => {
                for address in [local, remote] {
                    let bits = match address {
                        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
                        IpAddr::V6(v6) => v6.to_bits(),
                    };
                    let bits = bits.swap_bytes();
                    state.word(bits as u64);
                    state.word((bits >> 64) as u64);
                }
                state.finish(ports | 36 << 56)
            }
        }
    }
}

/// The state of SipHash with one compression and three finalisation rounds.
struct Sip {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl Sip {
    #[inline]
    const fn new(key: &HashKey) -> Self {
        // "somepseudorandomlygeneratedbytes", the constant of the algorithm.
        Self {
            v0: key.k0 ^ 0x736f_6d65_7073_6575,
            v1: key.k1 ^ 0x646f_7261_6e64_6f6d,
            v2: key.k0 ^ 0x6c79_6765_6e65_7261,
            v3: key.k1 ^ 0x7465_6462_7974_6573,
        }
    }

    #[inline]
    const fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }

    #[inline]
    const fn word(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    #[inline]
    const fn finish(mut self, last: u64) -> u64 {
        self.word(last);
        self.v2 ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }
}

/// One slot on a cache line of its own: a lookup that hits at its home touches one line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Slot<V> {
    /// Low half of the flow's hash; its home is this modulo the table's size.
    hash: u32,
    entry: Option<(FlowKey, V)>,
}

type Page<V> = [Slot<V>; FLOW_PAGE];

/// Linear probing over pages that exist once something stands in them.
#[derive(Debug)]
struct Slots<V> {
    pages: Vec<Option<Box<Page<V>>>>,
    mask: usize,
    len: usize,
}

impl<V: Copy> Slots<V> {
    fn new(slots: usize) -> Self {
        let pages = slots.div_ceil(FLOW_PAGE).next_power_of_two();
        Self { pages: std::iter::repeat_with(|| None).take(pages).collect(), mask: pages * FLOW_PAGE - 1, len: 0 }
    }

    #[inline]
    fn slot(&self, at: usize) -> Option<&Slot<V>> {
        let page = self.pages.get(at / FLOW_PAGE)?.as_deref()?;
        Some(&page[at % FLOW_PAGE])
    }

    /// The slot at `at`, its page made when it does not exist.
    fn slot_mut(&mut self, at: usize) -> &mut Slot<V> {
        let page = self.pages[at / FLOW_PAGE]
            .get_or_insert_with(|| Box::new([const { Slot { hash: 0, entry: None } }; FLOW_PAGE]));
        &mut page[at % FLOW_PAGE]
    }

    /// Where the flow stands.
    #[inline]
    fn find(&self, hash: u32, flow: &FlowKey) -> Option<(usize, V)> {
        let mut at = hash as usize & self.mask;
        // The table is never full, so that an empty slot ends every search.
        while let Some(Slot { hash: found, entry: Some((key, value)) }) = self.slot(at) {
            if *found == hash && key == flow {
                return Some((at, *value));
            }
            at = (at + 1) & self.mask;
        }
        None
    }

    /// Adds a flow that is not there.
    fn add(&mut self, hash: u32, flow: FlowKey, value: V) {
        let mut at = hash as usize & self.mask;
        while self.slot(at).is_some_and(|slot| slot.entry.is_some()) {
            at = (at + 1) & self.mask;
        }
        *self.slot_mut(at) = Slot { hash, entry: Some((flow, value)) };
        self.len += 1;
    }

    /// Empties the slot at `hole` and moves what was pushed past it back, so that no search ends early.
    fn take(&mut self, mut hole: usize) -> Option<(u32, FlowKey, V)> {
        let Slot { hash, entry } = *self.slot(hole)?;
        let (flow, value) = entry?;
        let mut at = hole;
        loop {
            at = (at + 1) & self.mask;
            let Some(slot) = self.slot(at).copied().filter(|slot| slot.entry.is_some()) else { break };
            // It may move when its home does not lie behind the hole, on the way from the hole to it.
            let from_home = at.wrapping_sub(slot.hash as usize) & self.mask;
            let from_hole = at.wrapping_sub(hole) & self.mask;
            if from_home >= from_hole {
                *self.slot_mut(hole) = slot;
                hole = at;
            }
        }
        self.slot_mut(hole).entry = None;
        self.len -= 1;
        Some((hash, flow, value))
    }

    fn iter(&self) -> impl Iterator<Item = (&FlowKey, V)> {
        let slots = self.pages.iter().flatten().flat_map(|page| page.iter());
        slots.filter_map(|slot| slot.entry.as_ref().map(|(flow, value)| (flow, *value)))
    }
}

/// Smallest table, in slots.
const SMALLEST: usize = FLOW_PAGE;

/// A table from flows to handles.
///
/// A packet's hash is computed once by [`FlowTable::hash`] and handed to every other call, so that a batch can prefetch
/// its slots. It grows at half load, and moves a few slots with each insertion: no packet waits for a whole table.
#[derive(Debug)]
pub struct FlowTable<V> {
    key: HashKey,
    slots: Slots<V>,
    /// The table before the last growth, while it still holds flows.
    old: Option<Slots<V>>,
    /// Slots of `old` before this are empty.
    cursor: usize,
}

impl<V: Copy> FlowTable<V> {
    /// An empty table that takes `flows` flows before it first grows. It costs eight bytes for each 256 of them until
    /// they come.
    pub fn with_capacity(key: HashKey, flows: usize) -> Self {
        Self { key, slots: Slots::new((flows * 2).max(SMALLEST)), old: None, cursor: 0 }
    }

    /// How many flows there are.
    pub fn len(&self) -> usize {
        self.slots.len + self.old.as_ref().map_or(0, |old| old.len)
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The flow's hash under this table's key.
    #[inline]
    pub fn hash(&self, flow: &FlowKey) -> u64 {
        self.key.hash(flow)
    }

    /// Asks the CPU to fetch the slot where a search for `hash` begins.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        if let Some(slot) = self.slots.slot(hash as usize & self.slots.mask) {
            mem::prefetch(slot);
        }
    }

    /// The flow's handle.
    #[inline]
    pub fn get(&self, hash: u64, flow: &FlowKey) -> Option<V> {
        match self.slots.find(hash as u32, flow) {
            Some((_, value)) => Some(value),
            None => self.old.as_ref()?.find(hash as u32, flow).map(|(_, value)| value),
        }
    }

    /// Sets the flow's handle, and gives the one that it had.
    pub fn insert(&mut self, hash: u64, flow: FlowKey, value: V) -> Option<V> {
        let before = self.remove(hash, &flow);
        self.migrate(FLOW_MIGRATION_STEP);
        if (self.slots.len + 1) * 2 > self.slots.mask {
            self.grow();
        }
        self.slots.add(hash as u32, flow, value);
        before
    }

    /// Removes the flow, and gives the handle that it had.
    pub fn remove(&mut self, hash: u64, flow: &FlowKey) -> Option<V> {
        for slots in [Some(&mut self.slots), self.old.as_mut()].into_iter().flatten() {
            if let Some((at, value)) = slots.find(hash as u32, flow) {
                slots.take(at);
                return Some(value);
            }
        }
        None
    }

    /// All flows, in an order that depends on the key and on history, but on nothing else.
    pub fn iter(&self) -> impl Iterator<Item = (&FlowKey, V)> {
        self.old.iter().flat_map(Slots::iter).chain(self.slots.iter())
    }

    #[cold]
    fn grow(&mut self) {
        self.migrate(usize::MAX);
        let larger = Slots::new((self.slots.mask + 1) * 2);
        self.old = Some(std::mem::replace(&mut self.slots, larger));
        self.cursor = 0;
    }

    /// Moves up to `steps` slots of the old table to the new one.
    #[inline]
    fn migrate(&mut self, steps: usize) {
        if self.old.is_some() {
            self.migrate_some(steps);
        }
    }

    fn migrate_some(&mut self, steps: usize) {
        let Some(old) = &mut self.old else { return };
        for _ in 0..steps {
            if old.len == 0 || self.cursor > old.mask {
                break;
            }
            // What follows a taken slot may move into it, so the cursor stays until the slot is empty.
            match old.take(self.cursor) {
                Some((hash, flow, value)) => self.slots.add(hash, flow, value),
                None => self.cursor += 1,
            }
            if self.cursor.is_multiple_of(FLOW_PAGE) && self.cursor > 0 {
                old.pages[self.cursor / FLOW_PAGE - 1] = None;
            }
        }
        if old.len == 0 {
            self.old = None;
        }
    }
}

// A handle of up to 16 bytes leaves a slot on one cache line.
const _: () = assert!(size_of::<Slot<[u32; 4]>>() == 64);

#[cfg(test)]
mod tests;
