//! What every node of a world has in common.

use mimbox_stack::{Counters, Duration, FlowKey, Instant};

use super::adversary::Mischief;
use super::packet::{Outbox, Packet};
use super::plan::App;

/// Which end of its connection an application stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
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
    /// The connection that a host's 4-tuple belongs to, while it has any.
    fn plan_of(&self, _flow: &FlowKey) -> Option<usize> {
        None
    }
    /// What adversaries have changed, thrown away or added, by kind.
    fn mischief(&self) -> [u64; Mischief::ALL.len()] {
        [0; Mischief::ALL.len()]
    }
    /// The most frames that a conversion of the box has held at once.
    fn most_frames(&self) -> u32 {
        0
    }
    /// Segments that the box has sent again.
    fn box_retransmits(&mut self) -> u64 {
        0
    }
    /// Applications that have not ended.
    fn open_ends(&self) -> usize;
    /// True when nothing is left of any connection, TIME-WAIT apart.
    fn is_quiet(&self) -> bool;
    /// Lets go of everything and says what was wrong with the node's accounts.
    fn audit(&mut self, now: Instant) -> Vec<String>;
}

/// Packets that a node sends, for one connection or all of them, without waiting for anything at most; more are a bug, which
/// would fill the memory before anybody sees which seed it was.
pub(crate) const MOST_IN_A_ROW: u32 = 100_000;

/// How often a node's timers are looked at: a missing one stays missing, so that not every moment need be looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks at a node's timers as it runs, and keeps the first thing that was wrong.
#[derive(Debug, Default)]
pub(crate) struct TimerWatch {
    next: Instant,
    fault: Option<String>,
}

impl TimerWatch {
    /// Asks `fault` what is wrong, if it is time to.
    pub(crate) fn look(&mut self, now: Instant, fault: impl FnOnce() -> Option<String>) {
        if now < self.next || self.fault.is_some() {
            return;
        }
        self.next = now + LOOK_EVERY;
        self.fault = fault().map(|fault| format!("at {} ms: {fault}", now.as_millis()));
    }

    /// What was wrong with the timers of `node`.
    pub(crate) fn complaint(&mut self, node: &str) -> Option<String> {
        self.fault.take().map(|fault| format!("{node} waits in vain {fault}"))
    }
}
