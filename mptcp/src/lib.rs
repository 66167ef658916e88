//! Multipath TCP (RFC 8684), sans-IO.
#![forbid(unsafe_code)]

pub mod dsn;
pub mod key;
pub mod option;

pub use dsn::{Dsn, WireDsn};
pub use option::{
    CapableSyn, JoinSyn, MptcpOption, OptionError, ResetReason, TcpReset, capable_in_syn, join_in_syn, parse,
};
