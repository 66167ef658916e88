//! What the simulator must know of an engine beside the verbs that a worker uses.

use mimbox_converter::Shard;
use mimbox_converter::metrics::{Operated, Snapshot};
use mimbox_dataplane::Engine;
use mimbox_stack::Instant;

/// An engine that can be put into a world as its box.
pub(crate) trait Subject: Engine {
    /// Conversions and half-open records that live; TIME-WAIT records do not count.
    fn live(&self) -> u64;
    /// Gives back every frame that it holds, sending nothing.
    fn release(&mut self, now: Instant);
}

impl Subject for Shard {
    fn live(&self) -> u64 {
        let mut snapshot = Snapshot::new(std::iter::empty());
        self.observe(&mut snapshot);
        snapshot.conversions.live + snapshot.conversions.half_open
    }

    fn release(&mut self, now: Instant) {
        self.release_all(now);
    }
}
