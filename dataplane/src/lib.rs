//! Packet IO of MiMBox: ports, the poll loop that drives an engine over them, and the neighbours on their links.
//!
//! - [`port`] is the contract between a backend and the loop, and between the loop and the engine.
//! - [`af_xdp`], [`memory`] and [`pcap`] are backends.
//! - [`worker`] is the loop; [`clock`] its clock, the only one.
//! - [`neighbor`] is sans-IO: routes, ARP, NDP and echo for the addresses that the box owns. The engine holds it.

pub mod af_xdp;
pub mod clock;
pub mod memory;
pub mod neighbor;
pub mod notify;
pub mod pcap;
pub mod port;
pub mod record;
pub mod worker;

pub use clock::{Clock, ManualClock, MonotonicClock};
pub use neighbor::Neighbors;
pub use notify::Notify;
pub use port::{Engine, Feature, Links, Order, Port, PortError, PortInfo, PortMode, PortState, PortStats};
pub use worker::{Control, Recorder, Tick, Verdict, Wait, Worker, WorkerConfig, WorkerStats};
