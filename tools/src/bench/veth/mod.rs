//! `mimbox-lab bench veth`: one bulk MPTCP connection with two subflows through the box, and through what could stand in
//! its place, in one run on the same wires.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::eval::bench::plain;
use crate::eval::flow::{Flow, server_address, wait_until};
use crate::eval::median;
use crate::lab::process::bound_to_parent;
use crate::lab::transfer::Direction;
use crate::lab::transfer::socket::Kind;
use crate::lab::{
    BOX_PORTS, BoxProcess, BoxRole, Configuration, Family, Lab, LabOptions, Mode, Path, Plan, Process, Rate,
    ServerMptcp, catch_interrupts, lab_binary,
};

pub(super) mod forwarder;
pub(super) mod relay;
#[cfg(test)]
mod tests;

pub use forwarder::ForwarderArgs;
pub use relay::RelayArgs;

/// How long what stands in the middle may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `mimbox-lab bench veth` is to do.
#[derive(Args, Clone, Debug)]
pub struct VethArgs {
    /// Runs of each case; the cases take turns, so that what else the machine does meets all of them.
    #[arg(long, default_value_t = 5)]
    pub runs: usize,
    /// Seconds of each, from connecting on.
    #[arg(long, default_value_t = 4)]
    pub seconds: u64,
    /// Write every run and every bound to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Further lines of the box's configuration.
    #[arg(long, value_name = "TOML", default_value = "")]
    pub configuration: String,
    /// Tells the figures only: a bound that is missed is no failure.
    #[arg(long)]
    pub no_bounds: bool,
}

/// Who stands between the client and the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Middle {
    /// The box, to a plain TCP server.
    Box,
    /// A relay over sockets, to a plain TCP server.
    Relay,
    /// The kernel as a router, to an MPTCP server.
    Router,
    /// A bare forwarder over the box's own AF_XDP ports, to an MPTCP server.
    Forwarder,
}

impl Middle {
    const ALL: [Self; 4] = [Self::Box, Self::Relay, Self::Router, Self::Forwarder];
}

impl fmt::Display for Middle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Box => "box",
            Self::Relay => "relay",
            Self::Router => "router",
            Self::Forwarder => "forwarder",
        })
    }
}

/// One run.
#[derive(Clone, Debug, Serialize)]
struct Figure {
    middle: Middle,
    direction: Direction,
    goodput_gbps: f64,
    /// The share of the bytes that the second path carried.
    second_path: f64,
    /// CPUs that the middle's own process kept busy; of a kernel router there is none.
    middle_cpus: Option<f64>,
    congestion: String,
    /// Of the box's datapath: packets received and sent for each system call.
    packets_per_call: Option<f64>,
}

/// What must hold between two cases of one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Bound {
    direction: Direction,
    than: Middle,
    least_ratio: f64,
    ratio: f64,
    holds: bool,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    figures: &'a [Figure],
    bounds: &'a [Bound],
}

/// What the box is held to, and how much of the other's goodput it must give.
const BOUNDS: [(Direction, Middle, f64); 4] = [
    (Direction::Upload, Middle::Router, 1.0),
    (Direction::Download, Middle::Router, 1.0),
    (Direction::Download, Middle::Relay, 1.0),
    (Direction::Upload, Middle::Forwarder, 0.9),
];

/// Runs the command; exit status 1 when a bound is missed.
///
/// # Errors
/// When a case cannot be run to its end.
pub(super) fn command(args: &VethArgs) -> Result<ExitCode> {
    catch_interrupts()?;
    let mut figures = Vec::new();
    for run in 1..=args.runs {
        for direction in [Direction::Upload, Direction::Download] {
            for middle in Middle::ALL {
                let figure =
                    measure(args, middle, direction).with_context(|| format!("{middle}, {direction:?}, run {run}"))?;
                tell(run, &figure);
                figures.push(figure);
            }
        }
    }
    let bounds = bounds(&figures);
    print(&figures, &bounds, args);
    if let Some(file) = &args.json {
        let report = Report { figures: &figures, bounds: &bounds };
        std::fs::write(file, serde_json::to_string_pretty(&report)? + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    let holds = args.no_bounds || bounds.iter().all(|bound| bound.holds);
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The middle's process, where it has one.
enum Running {
    Box(BoxProcess),
    Program(Process),
    Kernel,
}

impl Running {
    fn start(lab: &Lab, middle: Middle, mode: Mode, extra: &str) -> Result<Self> {
        let program = |arguments: Vec<String>| -> Result<Self> {
            let mut command = lab.middle().command(lab_binary()?);
            command.arg("bench").args(arguments);
            let log = lab.file("middle.log");
            let mut process = Process::spawn("the middle", bound_to_parent(&command), &log)?;
            wait_until(PATIENCE, "the middle does not work", || {
                ensure!(process.try_wait()?.is_none(), "the middle ended: {}", process.output());
                Ok(process.output().starts_with("listening\n"))
            })?;
            Ok(Self::Program(process))
        };
        match middle {
            Middle::Box => {
                let configuration = Configuration { extra: extra.to_owned(), ..Configuration::new(mode) };
                Ok(Self::Box(BoxProcess::start(lab, &configuration)?))
            }
            Middle::Relay => {
                let listen = SocketAddr::new([0, 0, 0, 0].into(), server_address().port());
                let (listen, server) = (format!("--listen={listen}"), format!("--server={}", server_address()));
                program(vec!["relay".to_owned(), listen, server, "--congestion=cubic".to_owned()])
            }
            Middle::Router => Ok(Self::Kernel),
            Middle::Forwarder => {
                let own = [Plan::box_wan(Path::First, Family::V4), Plan::box_wan(Path::Second, Family::V4)];
                let addresses = own.into_iter().chain([Plan::box_core(Family::V4)]);
                let ports = BOX_PORTS.into_iter().zip(addresses);
                let ports = ports.map(|(port, address)| format!("{port}={}", Plan::with_prefix(address)));
                program(std::iter::once("forwarder".to_owned()).chain(ports).collect())
            }
        }
    }

    fn cpu(&self) -> Result<Option<Duration>> {
        match self {
            Self::Box(process) => process.cpu_time().map(Some),
            Self::Program(process) => process.cpu_time().map(Some),
            Self::Kernel => Ok(None),
        }
    }

    /// Packets received and sent, and the system calls that it took.
    fn packets_and_calls(&self) -> Result<Option<[u64; 2]>> {
        let Self::Box(process) = self else { return Ok(None) };
        let stats = process.stats()?;
        let packets = stats.ports.iter().map(|port| port.rx_frames + port.tx_frames).sum();
        let calls: u64 = stats.ports.iter().map(|port| port.rx_calls + port.tx_calls).sum();
        Ok(Some([packets, calls + stats.worker.sleeps]))
    }
}

fn measure(args: &VethArgs, middle: Middle, direction: Direction) -> Result<Figure> {
    let mode = if middle == Middle::Box { Mode::Explicit } else { Mode::Transparent };
    let ports = matches!(middle, Middle::Box | Middle::Forwarder);
    let end_to_end = matches!(middle, Middle::Router | Middle::Forwarder);
    let lab = Lab::build(LabOptions {
        mode,
        box_role: if ports { BoxRole::Ports } else { BoxRole::KernelRouter },
        rates: [Rate::Unlimited; 2],
        server_mptcp: if end_to_end { ServerMptcp::On } else { ServerMptcp::Off },
        client_offloads: false,
        ..LabOptions::default()
    })?;
    let devices =
        [(lab.client(), &["c0", "c1"][..]), (lab.middle(), &BOX_PORTS), (lab.server(), &[Plan::SERVER_INTERFACE])];
    for (namespace, devices) in devices {
        devices.iter().try_for_each(|device| plain(namespace, device))?;
    }
    if middle == Middle::Relay {
        // What the labs' other kernels have; see there.
        let buffers = "4096 1048576 33554432";
        lab.middle().sysctl(&[("net.ipv4.tcp_rmem", buffers), ("net.ipv4.tcp_wmem", buffers)])?;
    }
    let running = Running::start(&lab, middle, mode, &args.configuration)?;
    let time = Duration::from_secs(args.seconds);
    let to = match middle {
        Middle::Relay => SocketAddr::new(Plan::box_wan(Path::First, Family::V4), server_address().port()),
        _ => server_address(),
    };
    let server = if end_to_end { Kind::Mptcp } else { Kind::Tcp };
    let flow = Flow { direction, client: Kind::Mptcp, server, time, to, ordinary: true };
    let (cpu, passed, counts) = (running.cpu()?, path_bytes(&lab, direction)?, running.packets_and_calls()?);
    let flowed = flow.run(&lab, |_| Ok(()))?;
    let used = running.cpu()?.zip(cpu).map(|(after, before)| (after - before).as_secs_f64() / time.as_secs_f64());
    let carried = path_bytes(&lab, direction)?;
    let carried = [carried[0] - passed[0], carried[1] - passed[1]].map(|bytes| bytes as f64);
    let second_path = carried[1] / (carried[0] + carried[1]).max(1.0);
    let joined = lab.client().protocol_counters()?.get("MPTcpExtMPJoinSynAckRx").copied().unwrap_or(0);
    ensure!(joined == 1, "{joined} subflows were joined, not one");
    let per_call =
        |(after, before): ([u64; 2], [u64; 2])| (after[0] - before[0]) as f64 / (after[1] - before[1]).max(1) as f64;
    Ok(Figure {
        middle,
        direction,
        goodput_gbps: flowed.bytes() as f64 * 8.0 / time.as_secs_f64() / 1e9,
        second_path,
        middle_cpus: used,
        congestion: flowed.congestion,
        packets_per_call: running.packets_and_calls()?.zip(counts).map(per_call),
    })
}

/// Bytes of the data's direction that passed each of the client's interfaces.
fn path_bytes(lab: &Lab, direction: Direction) -> Result<[u64; 2]> {
    let interfaces = lab.client().interfaces()?;
    Ok(Path::BOTH.map(|path| {
        let counters = interfaces.get(path.client_interface()).copied().unwrap_or_default();
        if direction == Direction::Upload { counters.tx_bytes } else { counters.rx_bytes }
    }))
}

fn of(figures: &[Figure], middle: Middle, direction: Direction) -> impl Iterator<Item = f64> + Clone {
    let these = move |figure: &&Figure| figure.middle == middle && figure.direction == direction;
    figures.iter().filter(these).map(|figure| figure.goodput_gbps)
}

/// Each bound with the ratio of the medians.
fn bounds(figures: &[Figure]) -> Vec<Bound> {
    let bound = |(direction, than, least_ratio)| {
        let ratio = median(of(figures, Middle::Box, direction)) / median(of(figures, than, direction)).max(1e-9);
        Bound { direction, than, least_ratio, ratio, holds: ratio >= least_ratio }
    };
    BOUNDS.into_iter().map(bound).collect()
}

fn tell(run: usize, figure: &Figure) {
    let cpus = figure.middle_cpus.map_or_else(String::new, |cpus| format!(", {cpus:.2} CPUs"));
    let calls = figure.packets_per_call.map_or_else(String::new, |count| format!(", {count:.0} packets a call"));
    eprintln!(
        "  run {run}  {:8} {:9} {:5.2} Gbit/s, {:.0}% on the second path{cpus}{calls}",
        format!("{:?}", figure.direction).to_lowercase(),
        figure.middle.to_string(),
        figure.goodput_gbps,
        figure.second_path * 100.0,
    );
}

fn print(figures: &[Figure], bounds: &[Bound], args: &VethArgs) {
    println!(
        "One MPTCP connection, two subflows, offloads off, MSS 1460, {}; {} runs of {} s each",
        figures.first().map_or("", |figure| &figure.congestion),
        args.runs,
        args.seconds
    );
    println!();
    println!("| between client and server | direction | goodput, Gbit/s | least and greatest | CPUs of the middle |");
    println!("|---|---|---|---|---|");
    for direction in [Direction::Upload, Direction::Download] {
        for middle in Middle::ALL {
            let goodput = || of(figures, middle, direction);
            let these = figures.iter().filter(|figure| figure.middle == middle && figure.direction == direction);
            let cpus: Vec<f64> = these.filter_map(|figure| figure.middle_cpus).collect();
            println!(
                "| {middle} | {} | {:.2} | {:.2} – {:.2} | {} |",
                format!("{direction:?}").to_lowercase(),
                median(goodput()),
                goodput().fold(f64::MAX, f64::min),
                goodput().fold(0.0, f64::max),
                if cpus.is_empty() { "the kernel's".to_owned() } else { format!("{:.2}", median(cpus.into_iter())) },
            );
        }
    }
    println!();
    for Bound { direction, than, least_ratio, ratio, holds } in bounds {
        println!(
            "{} {}: {ratio:.2} of the {than}, at least {least_ratio:.1} is due",
            if *holds { "holds " } else { "MISSED" },
            format!("{direction:?}").to_lowercase(),
        );
    }
}
