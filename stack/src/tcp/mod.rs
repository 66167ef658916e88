//! TCP (RFC 9293) for a converter: segments in, segments out, payload never copied.
//!
//! A [`ConnTable`] holds every connection; [`Conn`] is the view of one, with the verbs: [`Conn::on_segment`],
//! [`Conn::on_timer`], [`Conn::poll_transmit`] and [`Conn::next_deadline`], and [`Conn::push`] for what is to be sent.
//! Payload that arrives in order leaves through the queue that the caller hands in; payload that is pushed stands in a
//! send ring, which is also the scoreboard of loss recovery, until the peer acknowledges it.

use bitflags::bitflags;

mod ack;
mod cc;
mod close;
mod config;
mod conn;
mod ecn;
mod expected;
mod handshake;
mod input;
mod output;
mod pacing;
mod pmtu;
mod rack;
mod receive;
mod recovery;
mod rtt;
mod send;
mod table;
mod timers;
mod train;
mod undo;
mod window;

pub use close::TimeWaitRecord;
pub use config::{CcKind, Coupling, TcpConfig};
pub use conn::Conn;
pub use handshake::{Agreed, Offer, Opening, SynSeen, TsOffer};
pub use table::{ConnId, ConnSetup, ConnTable};

/// The state of a connection (RFC 9293 §3.3.2). There is no LISTEN: the shard listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum State {
    /// A SYN was sent.
    SynSent,
    /// A SYN was received and answered.
    SynReceived,
    /// Data flows both ways.
    Established,
    /// Our FIN is sent, the peer's is not there.
    FinWait1,
    /// Our FIN is acknowledged, the peer's is not there.
    FinWait2,
    /// The peer's FIN is there, ours is not sent.
    CloseWait,
    /// Both FINs are under way, ours is not acknowledged.
    Closing,
    /// The peer closed first; our FIN is sent and not acknowledged.
    LastAck,
    /// Both FINs are acknowledged; old segments may still be about.
    TimeWait,
    /// Nothing is left.
    #[default]
    Closed,
}

impl State {
    /// True once the handshake is over and until the connection is closed.
    pub const fn is_synchronized(self) -> bool {
        !matches!(self, Self::SynSent | Self::SynReceived | Self::Closed)
    }
    /// True while the peer may still send data.
    pub const fn may_receive(self) -> bool {
        matches!(self, Self::Established | Self::FinWait1 | Self::FinWait2)
    }
    /// True while queued data may be sent.
    pub const fn may_send(self) -> bool {
        matches!(self, Self::Established | Self::CloseWait | Self::FinWait1 | Self::Closing | Self::LastAck)
    }
}

bitflags! {
    /// What a verb brought about.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Outcome: u16 {
        /// The segment passed every check: the layer above may believe its options.
        const ACCEPTED = 1;
        /// The peer acknowledged new data.
        const ACKED = 1 << 1;
        /// Payload was appended to the receive queue.
        const DATA = 1 << 2;
        /// The peer's FIN was reached in order; said once.
        const FIN = 1 << 3;
        /// A valid reset: the connection is closed.
        const RESET = 1 << 4;
        /// The handshake completed.
        const ESTABLISHED = 1 << 5;
        /// Nothing more will come: poll what is to be sent, then remove the connection. In [`State::TimeWait`] take a
        /// [`TimeWaitRecord`] first.
        const CLOSED = 1 << 6;
        /// The connection was given up because the peer does not answer.
        const TIMED_OUT = 1 << 7;
        /// The peer's window changed.
        const WINDOW = 1 << 8;
        /// A retransmission timeout fired.
        const RTO = 1 << 9;
        /// The peer's SYN came again; the answer is repeated.
        const DUPLICATE_SYN = 1 << 10;
        /// An ICMP error says that the peer cannot be reached.
        const UNREACHABLE = 1 << 11;
        /// The largest segment that may be sent changed.
        const SEGMENT_SIZE = 1 << 12;
        /// Nothing was acknowledged for a retransmission timeout, a tail loss probe included. Said once, of connections whose
        /// window is shared with others, that is, where another can take the data.
        const SILENT = 1 << 13;
    }
}

#[cfg(test)]
mod harness;
#[cfg(test)]
mod tests;
