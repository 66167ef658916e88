//! Half-open records: what the box remembers between a client's SYN and its server's answer.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use mimbox_mptcp::CapableSyn;
use mimbox_stack::tcp::{Offer, SynSeen};
use mimbox_stack::{FlowKey, Instant, SeqNum};

use crate::conversion::Mode;
use crate::path::Origin;

/// Names a record; a stale one finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OpeningId {
    index: u32,
    generation: u32,
}

/// A connection whose SYN went on to the server.
#[derive(Clone, Debug)]
pub(crate) struct HalfOpen {
    /// Box and client, as the client's packets name them.
    pub client: FlowKey,
    /// Box and server, as the server's packets name them.
    pub server: FlowKey,
    /// How the client reached the box.
    pub mode: Mode,
    /// Port and link-layer neighbour that the client's SYN came from.
    pub origin: Origin,
    /// The newest SYN of the client.
    pub syn: SynSeen,
    /// Its MP_CAPABLE, if it had one that the box takes.
    pub capable: Option<CapableSyn>,
    /// Initial sequence number towards the server.
    pub server_iss: SeqNum,
    /// What was offered to the server.
    pub offer: Offer,
    /// When the record is given up.
    pub deadline: Instant,
}

/// A record takes at most this many bytes.
pub(crate) const MAX_RECORD_BYTES: usize = 256;
const _: () = assert!(size_of::<Slot>() <= MAX_RECORD_BYTES);

#[derive(Debug)]
struct Slot {
    generation: u32,
    record: Option<HalfOpen>,
}

/// Why a record was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// One source holds its share of the slots already.
    PerSourceLimit,
    /// Every slot is taken.
    Full,
}

/// All half-open records of a shard, oldest first.
#[derive(Debug)]
pub(crate) struct OpeningTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    order: VecDeque<OpeningId>,
    per_source: BTreeMap<IpAddr, u32>,
    limit: u32,
    per_source_limit: u32,
    live: u32,
}

impl OpeningTable {
    /// A table of at most `limit` records, of which one client address holds at most `per_source`.
    pub(crate) fn new(limit: u32, per_source: u32) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            order: VecDeque::new(),
            per_source: BTreeMap::new(),
            limit: limit.max(1),
            per_source_limit: per_source.max(1),
            live: 0,
        }
    }

    /// Records in the table.
    pub(crate) fn len(&self) -> u32 {
        self.live
    }

    /// Whether `source` may have one more record.
    pub(crate) fn admit(&self, source: IpAddr) -> Result<(), Refused> {
        if self.per_source.get(&source).is_some_and(|&held| held >= self.per_source_limit) {
            return Err(Refused::PerSourceLimit);
        }
        if self.live >= self.limit { Err(Refused::Full) } else { Ok(()) }
    }

    /// Keeps `record`. The caller has asked [`OpeningTable::admit`].
    pub(crate) fn insert(&mut self, record: HalfOpen) -> OpeningId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, record: None });
            (self.slots.len() - 1) as u32
        });
        *self.per_source.entry(record.client.remote).or_default() += 1;
        let slot = &mut self.slots[index as usize];
        slot.record = Some(record);
        let id = OpeningId { index, generation: slot.generation };
        self.live += 1;
        self.order.push_back(id);
        self.forget_stale();
        id
    }

    /// The record, if it is still there.
    pub(crate) fn get(&self, id: OpeningId) -> Option<&HalfOpen> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation == id.generation { slot.record.as_ref() } else { None }
    }

    /// The record to change, if it is still there.
    pub(crate) fn get_mut(&mut self, id: OpeningId) -> Option<&mut HalfOpen> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation { slot.record.as_mut() } else { None }
    }

    /// Takes the record out.
    pub(crate) fn remove(&mut self, id: OpeningId) -> Option<HalfOpen> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let record = slot.record.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        self.live -= 1;
        if let Some(held) = self.per_source.get_mut(&record.client.remote) {
            *held -= 1;
            if *held == 0 {
                self.per_source.remove(&record.client.remote);
            }
        }
        Some(record)
    }

    /// The record that was made first.
    pub(crate) fn oldest(&mut self) -> Option<OpeningId> {
        while let Some(&id) = self.order.front() {
            if self.get(id).is_some() {
                return Some(id);
            }
            self.order.pop_front();
        }
        None
    }

    /// Names of removed records leave the order from its front, and all at once when they outnumber the live ones.
    fn forget_stale(&mut self) {
        let _ = self.oldest();
        if self.order.len() > 64 + 2 * self.live as usize {
            let slots = &self.slots;
            self.order.retain(|id| {
                slots.get(id.index as usize).is_some_and(|s| s.generation == id.generation && s.record.is_some())
            });
        }
    }
}
