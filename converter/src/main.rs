//! The operator's binary: `mimbox run`, `check`, `stats`, `connections`, `events`.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;
use mimbox_converter::Shard;
use mimbox_converter::admin::{AdminError, ask_connections, ask_stats, follow_events};
use mimbox_converter::config::{Config, DEFAULT_SOCKET};
use mimbox_converter::events::EventRow;
use mimbox_converter::metrics::{connections_text, stats_text};
use mimbox_converter::run::{self, Failure};
use tracing_subscriber::EnvFilter;

mod cli;

use cli::{Cli, Command, Whom};

/// The configuration or the command line is wrong.
const BAD_INPUT: u8 = 2;
/// Nobody answers, or something failed.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr();
    match execute(cli.command) {
        Ok(text) => print(&text),
        Err((status, why)) => {
            eprintln!("mimbox: {why}");
            ExitCode::from(status)
        }
    }
}

/// What the command has to say, or its exit status and why it failed.
fn execute(command: Command) -> Result<String, (u8, String)> {
    match command {
        Command::Run { config, record } => run_box(&config, record.as_deref()).map_err(|why| failed(&why)),
        Command::Check { config, probe, print } => check(&config, probe, print).map_err(|why| failed(&why)),
        Command::Stats { whom, json, all, verbose } => {
            let snapshot = ask_stats(&whom.socket()?).map_err(|why| unanswered(&why))?;
            Ok(if json { to_json(&snapshot) } else { stats_text(&snapshot, all, verbose) })
        }
        Command::Connections { whom, json, limit } => {
            let socket = whom.socket()?;
            let list = ask_connections(&socket, usize::from(limit)).map_err(|why| unanswered(&why))?;
            if json {
                return Ok(to_json(&list));
            }
            let ports = ask_stats(&socket).map_err(|why| unanswered(&why))?.ports;
            let names: Vec<String> = ports.into_iter().map(|port| port.name).collect();
            Ok(connections_text(&list, &names))
        }
        Command::Events { whom, json } => {
            let mut out = std::io::stdout().lock();
            let each = |row: &EventRow| {
                let line = if json { serde_json::to_string(row)? } else { row.line() };
                writeln!(out, "{line}")?;
                out.flush()
            };
            follow_events(&whom.socket()?, each).map_err(|why| unanswered(&why))?;
            Ok(String::new())
        }
    }
}

fn run_box(path: &std::path::Path, record: Option<&std::path::Path>) -> Result<String, Failure> {
    let config = Config::load(path)?;
    run::run(config, record, Shard::new)?;
    Ok(String::new())
}

fn check(path: &std::path::Path, probe: bool, print: bool) -> Result<String, Failure> {
    let config = Config::load(path)?;
    if print {
        return Ok(config.to_toml());
    }
    let (ports, routes) = (config.ports.len(), config.routes.len());
    let hops = run::check(config, probe)?;
    let mut text = format!("{} is sound: {ports} ports, {routes} routes\n", path.display());
    for hop in hops {
        let mac = hop.mac.map_or_else(String::new, |mac| format!(" at {mac}"));
        text += &format!("next hop {} answers on port {}{mac}\n", hop.via, hop.port);
    }
    Ok(text)
}

fn failed(why: &Failure) -> (u8, String) {
    (why.status(), why.to_string())
}

fn unanswered(why: &AdminError) -> (u8, String) {
    (FAILED, why.to_string())
}

impl Whom {
    /// The socket that is meant.
    fn socket(&self) -> Result<PathBuf, (u8, String)> {
        match (&self.socket, &self.config) {
            (Some(socket), _) => Ok(socket.clone()),
            (None, Some(config)) => {
                let config = Config::load(config).map_err(|why| (BAD_INPUT, why.to_string()))?;
                Ok(config.admin.socket)
            }
            (None, None) => Ok(PathBuf::from(DEFAULT_SOCKET)),
        }
    }
}

fn to_json(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string_pretty(value);
    text.map_or_else(|error| format!("{{\"error\": {:?}}}\n", error.to_string()), |text| text + "\n")
}

/// Writes to standard output; a reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("mimbox: standard output: {error}");
            ExitCode::from(FAILED)
        }
        _ => ExitCode::SUCCESS,
    }
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("MIMBOX_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .init();
}
