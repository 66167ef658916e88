//! Multipath TCP (RFC 8684), sans-IO.
//!
//! [`Connection`] is the data level above the TCP connections of [`mimbox_stack::tcp`]; the codecs and key derivations
//! that a listener needs before a connection exists are public beside it.
#![forbid(unsafe_code)]

mod config;
mod connection;
mod coupled;
pub mod dsn;
mod event;
mod fallback;
pub mod key;
pub mod limits;
mod mapping;
pub mod option;
mod path_manager;
mod pieces;
mod reinject;
mod relief;
mod reorder;
mod scheduler;
mod subflow;
#[cfg(test)]
mod testing;

pub use config::{LastReset, MptcpConfig};
pub use connection::{AcceptParams, ConnectParams, Connection};
pub use coupled::Coupled;
pub use dsn::{Dsn, WireDsn};
pub use event::{Event, HalfOutcome, JoinRefused, SubflowEnd};
pub use fallback::Reason as FallbackReason;
pub use key::Version;
pub use limits::MAX_SUBFLOWS;
pub use option::{
    CapableSyn, JoinSyn, MptcpOption, OptionError, ResetReason, TcpReset, capable_in_syn, join_in_syn, parse,
};
pub use scheduler::SchedulerKind;
pub use subflow::SubflowStats;
