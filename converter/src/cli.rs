//! The command line of `mimbox`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use mimbox_converter::admin::CONNECTIONS_MAX;
use mimbox_stack::Counter;

/// A TCP/MPTCP protocol converter in user space.
#[derive(Parser, Debug)]
#[command(
    name = "mimbox",
    version,
    after_help = "Example:\n  mimbox check -c /etc/mimbox.toml && mimbox run -c /etc/mimbox.toml\n\n\
                  MIMBOX_LOG sets what is logged to standard error: error, warn, info (default), debug.\n\
                  Exit status: 0 done, 1 the box does not answer or failed, 2 the input is wrong."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run the box until it is told to stop (SIGINT, SIGTERM).
    #[command(after_help = "Example:\n  mimbox run -c /etc/mimbox.toml\n\n\
                            A second signal, or the end of the drain time, resets what is left.\n\
                            A next hop that does not answer for `next_hop_wait` ends the start with status 2.")]
    Run {
        /// The configuration file.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Write everything that is received to a capture which `mimbox-lab replay` plays back.
        #[arg(long, value_name = "FILE")]
        record: Option<PathBuf>,
    },
    /// Check a configuration, its interfaces, and this process's privileges.
    #[command(after_help = "Example:\n  mimbox check -c /etc/mimbox.toml --probe\n\n\
                            Without --probe nothing is touched, so that it can be used beside a running box.")]
    Check {
        /// The configuration file.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Open the ports for a moment and see whether every next hop answers ARP or NDP. Not beside a running box.
        #[arg(long)]
        probe: bool,
        /// Print the configuration with every default written out.
        #[arg(long)]
        print: bool,
    },
    /// Show what a running box counts.
    #[command(
        after_help = "Example:\n  mimbox stats --verbose\n\n--help explains every counter.",
        after_long_help = counters_help()
    )]
    Stats {
        #[command(flatten)]
        whom: Whom,
        /// Print one JSON document, for scripts.
        #[arg(long)]
        json: bool,
        /// Show counters at zero too.
        #[arg(short, long)]
        all: bool,
        /// Say what each counter counts.
        #[arg(short, long)]
        verbose: bool,
    },
    /// Show the conversions of a running box, with their subflows.
    #[command(after_help = "Example:\n  mimbox connections --limit 10")]
    Connections {
        #[command(flatten)]
        whom: Whom,
        /// Print one JSON document, for scripts.
        #[arg(long)]
        json: bool,
        /// Show at most so many.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=CONNECTIONS_MAX as i64))]
        limit: u16,
    },
    /// Follow what happens in a running box: connections, subflows, addresses, ports.
    #[command(after_help = "Example:\n  mimbox events --json\n\n\
                            One event a line, until the box stops or this is interrupted. The first line says how many\n\
                            were lost because nobody followed them; the latest 1024 of those come next.")]
    Events {
        #[command(flatten)]
        whom: Whom,
        /// Print one JSON document a line, for scripts.
        #[arg(long)]
        json: bool,
    },
}

/// Which box is asked.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub(crate) struct Whom {
    /// The box's admin socket (default: /run/mimbox.sock).
    #[arg(short, long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// The box's configuration file, which names the socket.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Every counter with its explanation.
fn counters_help() -> String {
    let width = Counter::ALL.iter().map(|counter| counter.name().len()).max().unwrap_or(0);
    let mut text = String::from("Example:\n  mimbox stats --json | jq .pool\n\nCounters:");
    for counter in Counter::ALL {
        text += &format!("\n  {:width$}  {}", counter.name(), counter.help());
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_declaration_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_of_every_command_has_an_example_that_parses() {
        let mut cli = Cli::command();
        cli.build();
        let names: Vec<String> = cli.get_subcommands().map(|command| command.get_name().to_owned()).collect();
        for name in names.iter().filter(|name| *name != "help") {
            let help = cli.find_subcommand_mut(name).expect("it is there").render_help().to_string();
            let mut lines = help.lines().skip_while(|line| *line != "Example:");
            let example = lines.nth(1).unwrap_or_else(|| panic!("{name} has no example:\n{help}"));
            let words: Vec<&str> = example.split_whitespace().collect();
            assert!(Cli::try_parse_from(&words).is_ok(), "{example}");
        }
    }

    #[test]
    fn the_long_help_of_stats_explains_every_counter() {
        let help = counters_help();
        assert!(Counter::ALL.iter().all(|counter| help.contains(counter.name()) && help.contains(counter.help())));
    }

    #[test]
    fn socket_and_configuration_exclude_each_other() {
        assert!(Cli::try_parse_from(["mimbox", "stats", "--socket", "/x", "-c", "/y"]).is_err());
        assert!(Cli::try_parse_from(["mimbox", "connections", "--limit", "0"]).is_err());
    }
}
