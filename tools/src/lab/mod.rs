//! A network of namespaces around a box, and what runs in it.
//!
//! ```text
//!            client                link                     box                      server
//!   10.71.1.2  c0 ────── client0 ┤bridge├ box0 ────── wan0 10.71.1.1
//!                         (down)           (up)                     core0 10.71.9.1 ────── s0 10.71.9.2
//!   10.71.2.2  c1 ────── client1 ┤bridge├ box1 ────── wan1 10.71.2.1
//! ```
//!
//! The client has two interfaces in two networks and the kernel's MPTCP; the server is plain TCP unless asked otherwise.
//! Rates are set in the link namespace, on devices that a kernel transmits on: a tbf on the box's own ports would be
//! passed by, as AF_XDP transmission skips the queueing discipline. The box's ports carry no kernel addresses, for the
//! box answers for its addresses itself; [`BoxRole::KernelRouter`] makes the kernel forward instead, as a comparison.
//!
//! A [`Lab`] removes everything it made when it is dropped, also while a panic unwinds. What a killed process left
//! behind is found and removed by [`remove_leftovers`].

mod box_process;
mod capture;
pub mod cli;
mod client;

mod demo;
mod dst_opt;
mod interrupt;
mod leftovers;
mod namespace;
mod observe;
mod plan;
pub(crate) mod process;
mod progress;
mod runner;
mod session;
mod topology;
pub mod transfer;

pub use box_process::{BoxProcess, Configuration, mimbox_binary};
pub use capture::Capture;
pub use dst_opt::{DstOpt, DstOptSettings};
pub use interrupt::{catch_interrupts, interrupted};
pub use leftovers::remove_leftovers;
pub use namespace::{InterfaceCounters, Namespace};
pub use observe::{OptionCounts, ServerWatch, damage, tells_of_damage};
pub use plan::{BOX_PORTS, Family, Path, Plan};
pub use process::{Process, require_privileges};
pub use runner::{RunningTransfer, Transfer, TransferReport, TransferServer, lab_binary};
pub use session::{SessionOptions, record};
pub use topology::{BoxRole, Lab, LabOptions, Mode, Rate, ServerMptcp};

#[cfg(test)]
mod tests;
