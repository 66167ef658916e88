//! What the simulator must know of an engine beside the verbs that a worker uses.

use std::fmt::Write as _;

use mimbox_converter::Shard;
use mimbox_converter::metrics::{ConnectionRow, Heaviest, Operated, Snapshot};
use mimbox_dataplane::Engine;
use mimbox_stack::Instant;

/// Conversions that a report names at most.
const NAMED_AT_MOST: usize = 3;

/// An engine that can be put into a world as its box.
pub(crate) trait Subject: Engine {
    /// Conversions and half-open records that live; TIME-WAIT records do not count.
    fn live(&self) -> u64;
    /// The first few conversions that live, in words.
    fn living(&mut self, now: Instant) -> Vec<String>;
    /// What would be waited for in vain.
    fn timer_fault(&mut self, now: Instant) -> Option<String>;
    /// The conversion that holds the most frames.
    fn heaviest(&mut self) -> Option<Heaviest>;
    /// Gives back every frame that it holds, sending nothing.
    fn release(&mut self, now: Instant);
}

impl Subject for Shard {
    fn live(&self) -> u64 {
        let mut snapshot = Snapshot::new(std::iter::empty());
        self.observe(&mut snapshot);
        snapshot.conversions.live + snapshot.conversions.half_open
    }

    fn living(&mut self, now: Instant) -> Vec<String> {
        let list = self.connections(now, NAMED_AT_MOST);
        list.connections.iter().map(in_words).collect()
    }

    fn timer_fault(&mut self, now: Instant) -> Option<String> {
        Operated::timer_fault(self, now)
    }

    fn heaviest(&mut self) -> Option<Heaviest> {
        Operated::heaviest(self)
    }

    fn release(&mut self, now: Instant) {
        self.release_all(now);
    }
}

fn in_words(row: &ConnectionRow) -> String {
    let mut text = format!("{} {} to {}:", row.mode, row.client_protocol, row.server_protocol);
    for subflow in &row.subflows {
        let (local, remote, state) = (subflow.local, subflow.remote, &subflow.state);
        let (bytes_in, bytes_out) = (subflow.bytes_in, subflow.bytes_out);
        let _ = write!(text, " [{} {local} {remote} {state}, {bytes_in} in, {bytes_out} out]", subflow.side);
    }
    text
}
