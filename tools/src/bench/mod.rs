//! Benchmarks: what the engine costs on memory ports.

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
mod world;

pub use counts::CountsArgs;
pub use engine::EngineArgs;
pub use rows::allocations;

/// `mimbox-lab bench`.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// What a segment costs in the engine: the shard between memory ports, on one core.
    ///
    /// A synthetic client and server fill in numbers in packets that are built beforehand; their own time is left out. Every
    /// row has the cost of a bare forwarder over the same ports and frames beside it, from the same run.
    #[command(after_help = "Example: mimbox-lab bench engine --quick --json engine.json --svg engine.svg")]
    Engine(EngineArgs),
    /// Whether a segment has come to cost more instructions than the repository has on record.
    ///
    /// Counts of one compiler say nothing of another's code: built by any but the one that the file names, it compares
    /// nothing and says so.
    #[command(
        after_help = "Example: mimbox-lab bench counts, and after a change that was meant: mimbox-lab bench counts --bless"
    )]
    Counts(CountsArgs),
}

/// Runs a benchmark.
///
/// # Errors
/// When it cannot be run to its end.
pub fn command(command: &BenchCommand) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Engine(args) => engine::command(args),
        BenchCommand::Counts(args) => counts::command(args),
    }
}

#[cfg(test)]
mod tests;
