//! The bottom of MiMBox: frames, wire formats and TCP.
//!
//! Everything here is sans-IO: time is an argument, randomness is a seeded generator handed in, packets are frames of
//! a [`FramePool`]. `unsafe` is confined to `mem.rs`.
#![deny(unsafe_code)]

pub mod checksum;
pub mod counters;
pub mod env;
pub mod flow;
pub mod frame;
pub mod limits;
pub mod mem;
pub mod options;
pub mod ring;
pub mod segment;
pub mod seq;
pub mod tcp;
pub mod time;
pub mod timer;
pub mod wire;

pub use counters::{Counter, Counters};
pub use env::{Env, Rng};
pub use frame::{FrameId, FramePool, PoolAudit, PoolConfig, PortId, RxFrame, TxFrame};
pub use ring::{Ring, RingPool};
pub use segment::{RxQueue, RxSegment, TxFlags, TxSegment};
pub use seq::SeqNum;
pub use tcp::{ConnId, ConnTable};
pub use time::{Duration, Instant};
pub use wire::{FlowKey, Outgoing, PayloadOut, SegmentIn, TcpFlags};
