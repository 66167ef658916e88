//! The simulator: whole networks in one thread, in virtual time, from a seed.
//!
//! A world has nodes and links. Nodes are independent peers (smoltcp's TCP), hosts that run this project's stack in a
//! host's role, and the box: the very engine that `mimbox` runs, driven as its worker drives it. Links lose, delay,
//! reorder, duplicate and change packets as options say that are drawn from the seed. The same seed gives the same run,
//! so a failing seed is a bug report.
//!
//! Checked in every run: the bytes at both ends are those that were sent, every connection ends as it should, every pool
//! has all its frames at the end, receive windows never shrink, every packet that the box sends is well-formed, nothing
//! of MPTCP reaches a server that speaks TCP only, what waits for a peer has a timer that is due within the retransmission
//! timeout, and nothing is left in the box.
//!
//! Where adversaries play some connections, all others have to end as if there were none, and no conversion may hold more
//! frames than the box's limits allow.

mod adversary;
mod command;
mod content;
mod converter;
pub(crate) mod draw;
mod goodput;
mod host;
mod link;
mod middlebox;
mod node;
mod observer;
mod packet;
mod peer;
mod plan;
mod profile;
mod run;
mod subject;
mod world;

pub use adversary::{Adversary, Mischief};
pub use command::{Report, SimArgs, command, run_many};
pub use goodput::{Case, Goodput, GoodputArgs, Row, differences, goodput_command, measure, parse, table};
pub use link::{Burst, LinkOptions, LinkTotals};
pub use middlebox::{BLOCK, Does, Middlebox, Strips};
pub use node::End;
pub use peer::PeerOptions;
pub use plan::{Closing, Ended, Plan, Speaks, Target, Traffic};
pub use profile::{BoxOptions, HostOptions, Options, PROFILES, Profile, Topology};
pub use run::{Failure, Totals, run, run_captured};
