//! What a connection tells its owner.

use std::net::IpAddr;

use bitflags::bitflags;
use mimbox_stack::tcp::ConnId;

use crate::fallback::Reason;
use crate::option::ResetReason;

bitflags! {
    /// What a verb brought about.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct HalfOutcome: u16 {
        /// Data in order was appended to the receive queue.
        const DATA = 1;
        /// The peer has sent all its data: DATA_FIN, or FIN after fallback. Said once.
        const FIN = 1 << 1;
        /// The peer reset the connection, not just a subflow. Said once.
        const RESET = 1 << 2;
        /// The first subflow's handshake completed. Said once.
        const ESTABLISHED = 1 << 3;
        /// Nothing more will be received; once `poll_transmit` gives nothing more the connection can be released.
        const CLOSED = 1 << 4;
        /// The connection was given up: the peer does not answer, or no subflow came back in time.
        const TIMED_OUT = 1 << 5;
        /// The segment passed every check of its subflow.
        const ACCEPTED = 1 << 6;
        /// The peer acknowledged data: there may be room to push more.
        const ACKED = 1 << 7;
    }
}

/// Why an MP_JOIN, or the opening of a subflow, was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JoinRefused {
    /// The connection has as many subflows as it may have.
    #[error("the connection has as many subflows as it may have")]
    TooMany,
    /// The connection is not fully established, has fallen back to TCP or is closing.
    #[error("the connection cannot take subflows in its present state")]
    NotPossible,
    /// The token is not this connection's.
    #[error("the token is not this connection's")]
    WrongToken,
}

/// How a subflow ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SubflowEnd {
    /// By FINs, or with its connection.
    #[default]
    Closed,
    /// The peer reset it, with the reason that it gave (RFC 8684 §3.6).
    ResetByPeer(Option<ResetReason>),
    /// We reset it.
    ResetByUs(Option<ResetReason>),
    /// The peer did not answer any more.
    TimedOut,
}

/// Something that the owner of a connection may act upon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// MPTCP is agreed on.
    Established,
    /// The connection goes on as plain TCP on its one subflow.
    Fallback(Reason),
    /// The peer's DATA_FIN (after fallback: FIN) was reached in order.
    DataFin,
    /// The peer ended the connection by MP_FASTCLOSE, or by a reset that ends all of it.
    Reset,
    /// A further subflow is in use.
    SubflowEstablished(ConnId),
    /// The subflow's connection is over: the owner removes it.
    SubflowEnded(ConnId, SubflowEnd),
    /// The peer changed what a subflow is for.
    Priority {
        /// The subflow.
        subflow: ConnId,
        /// Only for when no other works.
        backup: bool,
    },
    /// We asked the peer to use a subflow otherwise, as its losses hold the others up, or no longer do.
    AskedPriority {
        /// The subflow.
        subflow: ConnId,
        /// Only for when no other works.
        backup: bool,
    },
    /// The peer announced an address.
    PeerAnnounced {
        /// The peer's ID of the address.
        id: u8,
        /// The address.
        addr: IpAddr,
        /// Its port, when it is not the first subflow's.
        port: Option<u16>,
    },
    /// The peer withdrew an address.
    PeerRemoved {
        /// The peer's ID of the address.
        id: u8,
    },
    /// Nothing is left of the connection.
    Closed,
}
