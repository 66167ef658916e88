//! Benchmarks: what the engine costs on memory ports, and what the box gives over veth.

use std::process::ExitCode;

use clap::Subcommand;

mod callgrind;
mod chart;
mod counts;
mod engine;
mod floor;
mod packet;
mod ports;
mod rounds;
mod rows;
mod stopwatch;
mod talk;
mod veth;
mod world;

pub use counts::CountsArgs;
pub use engine::EngineArgs;
pub use rows::allocations;
pub use veth::{ForwarderArgs, RelayArgs, VethArgs};

/// `mimbox-lab bench`.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// What a segment costs in the engine: the shard between memory ports, on one core.
    ///
    /// A synthetic client and server fill in numbers in packets that are built beforehand; their own time is left out. Every
    /// row has the cost of a bare forwarder over the same ports and frames beside it, from the same run.
    #[command(after_help = "Example: mimbox-lab bench engine --quick --json engine.json --svg engine.svg")]
    Engine(EngineArgs),
    /// Whether a segment has come to cost more instructions or cache lines than the repository has on record.
    ///
    /// Counts of one compiler say nothing of another's code: built by any but the one that the file names, it compares
    /// nothing and says so.
    #[command(
        after_help = "Example: mimbox-lab bench counts, and after a change that was meant: mimbox-lab bench counts --bless"
    )]
    Counts(CountsArgs),
    /// Goodput of one bulk MPTCP connection over veth: through the box, a relay over sockets, a kernel router and a bare
    /// AF_XDP forwarder. Needs root.
    ///
    /// Two subflows, all offloads off, MSS 1460. The box and the relay talk TCP to the server, through the other two the
    /// client talks MPTCP with it. Exit status: 0 when every bound holds, 1 when one is missed.
    #[command(after_help = "Example: mimbox-lab bench veth --runs 5 --seconds 4 --json veth.json")]
    Veth(VethArgs),
    /// The relay over sockets that `veth` has.
    #[command(hide = true)]
    Relay(RelayArgs),
    /// The AF_XDP forwarder that `veth` has.
    #[command(hide = true)]
    Forwarder(ForwarderArgs),
}

/// Runs a benchmark.
///
/// # Errors
/// When it cannot be run to its end.
pub fn command(command: &BenchCommand) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Engine(args) => engine::command(args),
        BenchCommand::Counts(args) => counts::command(args),
        BenchCommand::Veth(args) => veth::command(args),
        BenchCommand::Relay(args) => veth::relay::command(args).map(|()| ExitCode::SUCCESS),
        BenchCommand::Forwarder(args) => veth::forwarder::command(args).map(|()| ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests;
