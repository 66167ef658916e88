//! What a 4-tuple belongs to.

use mimbox_stack::flow::{FlowTable, HashKey};
use mimbox_stack::{ConnId, FlowKey};

use crate::closing::time_wait::TimeWaitId;
use crate::conversion::{ConversionId, Side};
use crate::opening::table::OpeningId;

/// What a 4-tuple belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FlowEntry {
    /// A connection of a conversion.
    Connection {
        /// The connection.
        id: ConnId,
        /// Its conversion.
        conversion: ConversionId,
        /// Its side of the conversion.
        side: Side,
    },
    /// A half-open record, and the side of it that the packet comes from.
    Opening(OpeningId, Side),
    /// A connection that the box closed first.
    TimeWait(TimeWaitId),
}

/// A connection, its conversion, and its side of that.
pub(crate) type Member = (ConnId, ConversionId, Side);

/// Every 4-tuple that the shard knows.
#[derive(Debug)]
pub(crate) struct Flows {
    table: FlowTable<FlowEntry>,
    /// The connection that was found last: packets come in runs, and its next one need not be looked up. Forgotten whenever
    /// the table changes.
    last: Option<(FlowKey, Member)>,
    /// How often the table has changed.
    changes: u64,
}

impl Flows {
    /// A table with room for `flows` of them.
    pub(crate) fn with_capacity(key: HashKey, flows: usize) -> Self {
        Self { table: FlowTable::with_capacity(key, flows), last: None, changes: 0 }
    }

    /// What a 4-tuple belongs to.
    pub(crate) fn find(&self, flow: &FlowKey) -> Option<FlowEntry> {
        self.table.get(self.table.hash(flow), flow)
    }

    /// The connection that a 4-tuple belongs to.
    ///
    /// # Errors
    /// What it belongs to instead.
    #[inline]
    pub(crate) fn find_connection(&mut self, flow: &FlowKey) -> Result<Member, Option<FlowEntry>> {
        if let Some((last, member)) = &self.last
            && last == flow
        {
            return Ok(*member);
        }
        match self.find(flow) {
            Some(FlowEntry::Connection { id, conversion, side }) => {
                let member = (id, conversion, side);
                self.last = Some((*flow, member));
                Ok(member)
            }
            other => Err(other),
        }
    }

    /// How often anything has been bound or unbound: while it is the same, what was found is still so.
    #[inline]
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    /// Says what a 4-tuple belongs to from now on.
    pub(crate) fn bind(&mut self, flow: FlowKey, entry: FlowEntry) {
        self.last = None;
        self.changes += 1;
        self.table.insert(self.table.hash(&flow), flow, entry);
    }

    /// Forgets a 4-tuple.
    pub(crate) fn unbind(&mut self, flow: &FlowKey) {
        self.last = None;
        self.changes += 1;
        self.table.remove(self.table.hash(flow), flow);
    }
}
