//! The command line of the lab.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

pub use super::demo::{DemoOptions, demo};
use super::leftovers::remove_leftovers;
use super::plan::{Family, Path, Plan};
pub use super::session::RecordOptions;
use super::topology::{BoxRole, Lab, LabOptions, Mode, PREFIX, Rate, ServerMptcp};
use super::transfer::{ConnectOptions, ServeOptions, connect, serve};

/// `mimbox-lab up`.
#[derive(Clone, Debug, Args)]
pub struct UpOptions {
    /// The lab's name: small letters and digits.
    #[arg(default_value = "lab")]
    pub name: String,
    /// How connections reach the box.
    #[arg(long, value_enum, default_value = "explicit")]
    pub mode: Mode,
    /// Rate of each path and direction, like 300mbit, 1gbit or unlimited; one for both paths, or two with a comma.
    #[arg(long, value_delimiter = ',', default_value = "300mbit")]
    pub rate: Vec<Rate>,
    /// MTU of every device.
    #[arg(long, default_value_t = 1500)]
    pub mtu: u16,
    /// Lets the server's kernel speak MPTCP.
    #[arg(long)]
    pub server_mptcp: bool,
    /// Puts a kernel router where the box would be.
    #[arg(long)]
    pub kernel_router: bool,
}

impl UpOptions {
    fn lab(&self) -> LabOptions {
        LabOptions {
            name: Some(self.name.clone()),
            mode: self.mode,
            box_role: if self.kernel_router { BoxRole::KernelRouter } else { BoxRole::Ports },
            rates: both(&self.rate),
            mtu: self.mtu,
            server_mptcp: if self.server_mptcp { ServerMptcp::On } else { ServerMptcp::Off },
            ..LabOptions::default()
        }
    }
}

/// One rate for both paths, or one for each.
pub(super) fn both(rates: &[Rate]) -> [Rate; 2] {
    match *rates {
        [first, second, ..] => [first, second],
        [only] => [only; 2],
        [] => LabOptions::default().rates,
    }
}

/// `mimbox-lab down`.
#[derive(Clone, Debug, Args)]
pub struct DownOptions {
    /// The lab to remove; without it, every lab whose process is gone, and the one called "lab".
    pub name: Option<String>,
}

/// `mimbox-lab transfer`.
#[derive(Clone, Debug, Subcommand)]
pub enum TransferCommand {
    /// Serves until it is killed.
    Serve(ServeOptions),
    /// Connects, moves data, prints a line of JSON for each connection.
    Connect(ConnectOptions),
}

/// Builds a lab that stays.
pub fn up(options: &UpOptions) -> Result<ExitCode> {
    let lab = Lab::build(options.lab())?;
    let directory = lab.directory().to_owned();
    let group = lab.dst_opt().map(|dst_opt| dst_opt.group().to_owned());
    let file = lab.file("mimbox.toml");
    let text = super::Configuration::new(options.mode).render(&lab);
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    lab.keep()?;

    let namespace = |role: &str| format!("{PREFIX}{}-{role}", options.name);
    println!("The lab \"{}\" is up ({} mode). Files: {}", options.name, options.mode, directory.display());
    println!();
    println!("  client  {}   {} and {}", namespace("client"), client(Path::First), client(Path::Second));
    println!("  link    {}", namespace("link"));
    println!("  box     {}", namespace("box"));
    println!("  server  {}   {}", namespace("server"), Plan::server(Family::V4));
    println!();
    println!("Start the box:    ip netns exec {} mimbox run -c {}", namespace("box"), file.display());
    println!("Start a server:   ip netns exec {} mimbox-lab transfer serve --listen [::]:5001", namespace("server"));
    if let Some(group) = group {
        println!("Be a Dst Opt client (this shell and what it starts):");
        println!("                  echo $$ > {}/cgroup.procs", group.display());
    }
    let server = Plan::server(Family::V4);
    println!(
        "Fetch:            ip netns exec {} mptcpize run curl -o /dev/null http://{server}:5001/100000000",
        namespace("client")
    );
    println!("Remove it all:    mimbox-lab down {}", options.name);
    Ok(ExitCode::SUCCESS)
}

fn client(path: Path) -> String {
    Plan::client(path, Family::V4).to_string()
}

/// Removes labs.
pub fn down(options: &DownOptions) -> Result<ExitCode> {
    let mut removed = Vec::new();
    match &options.name {
        Some(name) => removed.extend(remove_leftovers(Some(name))?),
        None => {
            removed.extend(remove_leftovers(Some("lab"))?);
            removed.extend(remove_leftovers(None)?);
        }
    }
    match (&options.name, removed.is_empty()) {
        (Some(name), true) => {
            eprintln!("There is no lab \"{name}\".");
            return Ok(ExitCode::FAILURE);
        }
        (None, true) => println!("There was nothing to remove."),
        _ => println!("Removed: {}", removed.join(", ")),
    }
    Ok(ExitCode::SUCCESS)
}

/// The programs that transfers are made of.
pub fn transfer(command: &TransferCommand) -> Result<ExitCode> {
    match command {
        TransferCommand::Serve(options) => serve(options).map(|()| ExitCode::SUCCESS),
        TransferCommand::Connect(options) => {
            for report in connect(options)? {
                println!("{}", serde_json::to_string(&report)?);
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Records a session of a live box.
pub fn record(options: &RecordOptions) -> Result<ExitCode> {
    super::session::command(options)
}
