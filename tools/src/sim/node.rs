//! What every node of a world has in common.

use mimbox_stack::{Counters, Duration, Instant};

use super::packet::{Outbox, Packet};
use super::plan::App;

/// Which end of its connection an application stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The one that connects.
    Client,
    /// The one that accepts.
    Server,
}

/// A node: packets in, packets out, a time to come back. It never looks at a clock.
pub(crate) trait Node {
    /// Takes what arrived, runs what is due, and sends.
    fn run(&mut self, now: Instant, inbox: &mut Vec<(u8, Packet)>, out: &mut Outbox);
    /// When the node wants to run again without input.
    fn next_deadline(&self) -> Option<Instant>;
    /// Arrived packets wait until the next multiple of this.
    fn poll_every(&self) -> Duration;
    /// Shows each application at this node, with the number of its connection.
    fn apps(&self, visit: &mut dyn FnMut(usize, End, &App));
    /// What a host of clients that speak MPTCP counted.
    fn client_counters(&self) -> Option<&Counters> {
        None
    }
    /// Applications that have not ended.
    fn open_ends(&self) -> usize;
    /// True when nothing is left of any connection, TIME-WAIT apart.
    fn is_quiet(&self) -> bool;
    /// Lets go of everything and says what was wrong with the node's accounts.
    fn audit(&mut self, now: Instant) -> Vec<String>;
}
