//! What can run a script.

use mimbox_stack::Duration;

use super::syntax::{Action, BackendKind, Lane};

/// A packet that the subject sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    /// When, counted from the start of the script.
    pub(super) at: Duration,
    /// To whom.
    pub(super) lane: Lane,
    /// The IP packet.
    pub(super) packet: Vec<u8>,
}

/// What became of an action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// It was done.
    Done,
    /// A read gave these bytes.
    Bytes(Vec<u8>),
    /// A read found nothing.
    Nothing,
    /// A read found the end of the stream.
    End,
    /// The connection was reset or refused.
    Reset,
    /// The peer does not answer.
    TimedOut,
    /// The peer cannot be reached.
    Unreachable,
}

/// The subject of a script, with its time.
pub(super) trait Backend {
    /// Which one.
    fn kind(&self) -> BackendKind;
    /// What a time in a script may be off by.
    fn tolerance(&self) -> Duration;
    /// How much later than asked a timer of this length may fire.
    fn slack(&self, _timer: Duration) -> Duration {
        Duration::ZERO
    }
    /// Time since the start of the script.
    fn now(&self) -> Duration;
    /// Lets time pass until `until`, or until something is sent.
    fn wait(&mut self, until: Duration) -> Result<Option<Sent>, String>;
    /// Gives the subject an IP packet.
    fn inject(&mut self, lane: Lane, packet: &[u8]) -> Result<(), String>;
    /// Does what the application is to do. Reads say what they found.
    fn act(&mut self, action: &Action, bytes: &[u8]) -> Result<Answer, String>;
    /// A fact of the inside, relative sequence numbers among them; `None` when there is no looking inside.
    fn fact(&mut self, name: &str) -> Option<Result<i64, String>>;
    /// A value that facts are compared with, when it is not a number.
    fn word(&self, word: &str) -> Option<i64>;
    /// What is wrong at the end.
    fn finish(&mut self) -> Vec<String>;
}
