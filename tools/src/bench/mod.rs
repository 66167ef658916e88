//! Benchmarks: what the engine costs on memory ports.

use std::process::ExitCode;

use clap::Subcommand;

mod callgrind;
mod chart;
mod engine;
mod floor;
mod packet;
mod ports;
mod rounds;
mod rows;
mod stopwatch;
mod talk;
mod world;

pub use engine::EngineArgs;

/// `mimbox-lab bench`.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// What a segment costs in the engine: the shard between memory ports, on one core.
    ///
    /// A synthetic client and server fill in numbers in packets that are built beforehand; their own time is left out. Every
    /// row has the cost of a bare forwarder over the same ports and frames beside it, from the same run.
    #[command(after_help = "Example: mimbox-lab bench engine --quick --json engine.json --svg engine.svg")]
    Engine(EngineArgs),
}

/// Runs a benchmark.
///
/// # Errors
/// When it cannot be run to its end.
pub fn command(command: &BenchCommand) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Engine(args) => engine::command(args),
    }
}

#[cfg(test)]
mod tests;
