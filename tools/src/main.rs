//! The engineer's binary: labs, replay and simulation.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mimbox_tools::bench::{self, BenchCommand};
use mimbox_tools::eval::{self, EvalCommand};
use mimbox_tools::lab::cli;
use mimbox_tools::link::{self, LinkArgs};
use mimbox_tools::replay::{self, InspectArgs, ReplayArgs};
use mimbox_tools::script::{self, ScriptArgs};
use mimbox_tools::sim::{self, GoodputArgs, SimArgs};

/// Labs, replay and simulation for MiMBox.
#[derive(Parser)]
#[command(name = "mimbox-lab", version, about, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the box at work between a real MPTCP client with two paths and a plain TCP server, and checks everything.
    #[command(after_help = "Example: mimbox-lab demo --size 256m --mode transparent\n\n\
                            Needs root. Exit status: 0 when every check holds, 1 when one fails.")]
    Demo(cli::DemoOptions),
    /// Builds a network of namespaces that stays, for trying things by hand.
    #[command(after_help = "Example: mimbox-lab up --mode transparent --rate 300mbit,100mbit")]
    Up(cli::UpOptions),
    /// Removes a network that `up` built, or what killed labs left behind.
    #[command(after_help = "Example: mimbox-lab down lab")]
    Down(cli::DownOptions),
    /// Joins two interfaces by an emulated link: rate, delay, queue, loss, reordering, duplication, corruption.
    ///
    /// Every frame that arrives on one interface is taken from the kernel and sent by the other. Made for virtual
    /// interfaces, whose unfinished checksums it finishes. SIGUSR1 prints statistics, SIGUSR2 cuts the link (everything is
    /// lost) and mends it, SIGINT or SIGTERM ends it. Needs root, and an interface with a single receive queue.
    #[command(
        after_help = "Example, a line of 50 Mbit/s down and 10 up with 40 ms of round trip and one packet in 100 lost:\n\
                            mimbox-lab link veth0 veth1 --rate 50mbit,10mbit --delay 20ms --loss 1% --every 1s\n\n\
                            Between namespaces a and b, each with one end of a pair whose other end is here:\n\
                            ip link add a0 type veth peer name eth0 netns a; ip link set a0 up\n\
                            ip link add b0 type veth peer name eth0 netns b; ip link set b0 up\n\
                            mimbox-lab link a0 b0 --delay 10ms"
    )]
    Link(LinkArgs),
    /// Runs simulated networks, one from each seed, and checks what must hold in every one.
    #[command(after_help = "Example: mimbox-lab sim --seeds 1000 --profile issue-a")]
    Sim(SimArgs),
    /// Simulates a download through the box over links of every loss, round-trip time and buffer, and prints its goodput.
    #[command(after_help = "Example: mimbox-lab goodput --check tests/goodput.txt\n\n\
                            Exit status: 0 when every case is within 5% of the table, 1 when one is not.")]
    Goodput(GoodputArgs),
    /// Records a box at work in a lab: transfers of every kind over two paths, for `replay`.
    #[command(after_help = "Example: mimbox-lab record session.pcapng --mode transparent --loss 20\n\nNeeds root.")]
    Record(cli::RecordOptions),
    /// Runs a recording, or a capture, through the engine and writes what it sends.
    ///
    /// A recording (`mimbox run --record`) brings its configuration and seed and gives the same packets again, byte for
    /// byte. A directory of recordings is compared with the golden outputs beside them, NAME.golden.pcapng.
    ///
    /// Any other pcap or pcapng file needs a configuration; its interfaces are matched with the ports by name, else by their
    /// order. What the box itself sent is told by the Ethernet addresses: `mac` of a port, or what the capture shows.
    #[command(after_help = "Examples: mimbox-lab replay session.pcapng -o out.pcapng\n          \
                            mimbox-lab replay capture.pcap -c box.toml -o out.pcapng\n          \
                            mimbox-lab replay tests/replay            (compares; --bless writes the golden outputs anew)\n\n\
                            Exit status: 0 as recorded, 1 something else came out, 2 the input is wrong.")]
    Replay(ReplayArgs),
    /// Runs protocol scripts: segments in, segments expected, each against the clock.
    #[command(after_help = "Example: mimbox-lab script tests/script/rfc5961-3.2-rst-in-window.pkt\n\n\
                            Exit status: 0 when every script holds or fails as tests/script/KNOWN.md says.")]
    Script(ScriptArgs),
    /// Prints the packets of a capture, one line each, with their MPTCP options in words.
    #[command(after_help = "Example: mimbox-lab inspect session.pcapng --only MP_JOIN")]
    Inspect(InspectArgs),
    /// Measures the box beside the kernel over emulated links. Needs root.
    #[command(subcommand)]
    Eval(EvalCommand),
    /// Measures what the box costs.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// The sender and receiver that labs use.
    #[command(subcommand, hide = true)]
    Transfer(cli::TransferCommand),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(options) => cli::demo(&options),
        Command::Up(options) => cli::up(&options),
        Command::Down(options) => cli::down(&options),
        Command::Link(args) => link::command(&args),
        Command::Sim(args) => sim::command(&args),
        Command::Goodput(args) => sim::goodput_command(&args),
        Command::Record(options) => cli::record(&options),
        Command::Replay(args) => return of_input(replay::replay(&args)),
        Command::Script(args) => script::command(&args),
        Command::Inspect(args) => return of_input(replay::inspect(&args)),
        Command::Eval(command) => eval::command(&command),
        Command::Bench(command) => bench::command(&command),
        Command::Transfer(command) => cli::transfer(&command),
    };
    result.unwrap_or_else(|error| {
        eprintln!("mimbox-lab: {error:#}");
        ExitCode::FAILURE
    })
}

/// For commands that do nothing but read files: an error is one of their input.
fn of_input(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("mimbox-lab: {error:#}");
        ExitCode::from(2)
    })
}
