//! The box beside the kernel: the same transfers over the same emulated links, once with the box between client and server
//! and once with a kernel router in its place.
//!
//! ```text
//!   client ── emulated link(s) ── box or kernel router ── server
//! ```
//!
//! Everything that the two have in common is the same by construction: the lab, the link with its seed, the client and the
//! server. Plain TCP reaches the box by the destination option, as a transparent box converts MPTCP only; MPTCP clients
//! have a transparent box. Offloads are off and every device has a queue, so that nothing is lost but what the link was asked
//! to lose; a measurement in which something else was is void.

pub(crate) mod bench;
mod faults;
pub(crate) mod flow;
mod mptcp;
mod stress;
mod tcp;

pub use stress::{StressArgs, Stressed, stress};
pub(crate) use tcp::median;

use std::process::ExitCode;

use clap::Subcommand;

/// `mimbox-lab eval`.
#[derive(Clone, Debug, Subcommand)]
pub enum EvalCommand {
    /// Bulk TCP connections: goodput through the box beside that of the kernel's own CUBIC.
    ///
    /// A download's data crosses the emulated link as the box sends it; an upload's as the kernel sends it, and the box
    /// receives. The queue of the link is one bandwidth-delay product, and at least 20 ms of its rate.
    #[command(after_help = "Example: mimbox-lab eval tcp --rows rtt50,loss1 --runs 5 --seconds 60 --json tcp.json")]
    Tcp(tcp::TcpArgs),
    /// Bulk MPTCP connections over two paths: what they give together, handover, and a time without any path.
    ///
    /// Downloads are sent by the box, uploads by the client's kernel. Beside the box stand, as the row has it, its own
    /// downloads over one path and MPTCP from kernel to kernel.
    #[command(after_help = "Example: mimbox-lab eval mptcp --rows sum,upload --runs 3 --json mptcp.json")]
    Mptcp(mptcp::MptcpArgs),
    /// Transfers over links with faults drawn from a seed: every one must end, and no byte differ.
    ///
    /// Loss, runs of it, reordering, duplication, corruption, MTUs of which nobody tells, and cuts of a few seconds; TCP and
    /// MPTCP, over one path or two, both modes and directions. The seed of a run that fails is printed.
    #[command(after_help = "Example: mimbox-lab eval faults --runs 100 --seed 1 --jobs 4")]
    Faults(faults::FaultsArgs),
    /// Two-way MPTCP connections while endpoints, priorities, limits and links change at random, every 200 ms.
    ///
    /// No byte may differ, no connection stall for more than 5 s while a path is up, none be reset or fall back, and the
    /// client kernel's counters must show no corruption. The seed says what is done when; it is printed.
    #[command(after_help = "Example: mimbox-lab eval stress --seconds 60 --connections 50 --seed 1")]
    Stress(stress::StressArgs),
    /// One end of a bulk connection.
    #[command(hide = true)]
    End(flow::FlowArgs),
}

/// Runs an evaluation.
///
/// # Errors
/// When it cannot be run to its end.
pub fn command(command: &EvalCommand) -> anyhow::Result<ExitCode> {
    match command {
        EvalCommand::End(args) => flow::end(args).map(|()| ExitCode::SUCCESS),
        EvalCommand::Tcp(args) => tcp::command(args),
        EvalCommand::Faults(args) => faults::command(args),
        EvalCommand::Mptcp(args) => mptcp::command(args),
        EvalCommand::Stress(args) => stress::command(args),
    }
}
