//! Runs transfers in a lab: a server, then a client, then what both and the kernels counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::interrupt::interrupted;
use super::namespace::{InterfaceCounters, Namespace};
use super::plan::{Family, Path, Plan};
use super::process::{Process, bound_to_parent};
use super::topology::Lab;
use super::transfer::{ConnectionReport, Direction, Ending, Outcome, Sizes};

/// How long the server may take to tell of connections whose client has ended.
const SERVER_GRACE: Duration = Duration::from_secs(10);

/// The program `mimbox-lab`: what `MIMBOX_LAB` names, else this very program when it is one, else beside it or, for a
/// test, one directory above.
pub fn lab_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("MIMBOX_LAB") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("mimbox-lab"))
        .find(|path| path.is_file())
        .ok_or_else(|| anyhow!("no program mimbox-lab beside {}: `cargo build --bins` makes it", own.display()))
}

/// The lab's server program, listening in the server's namespace (or another).
#[derive(Debug)]
pub struct TransferServer {
    process: Process,
    port: u16,
    reported: usize,
}

impl TransferServer {
    /// Starts a plain TCP server in the server's namespace.
    pub fn start(lab: &Lab, port: u16) -> Result<Self> {
        Self::start_in(lab, lab.server(), port, &[])
    }

    /// Starts a server that accepts MPTCP.
    pub fn start_mptcp(lab: &Lab, port: u16) -> Result<Self> {
        Self::start_in(lab, lab.server(), port, &["--mptcp"])
    }

    /// Starts a server in any namespace with further arguments.
    pub fn start_in(lab: &Lab, namespace: &Namespace, port: u16, arguments: &[&str]) -> Result<Self> {
        let mut command = namespace.command(lab_binary()?);
        command.args(["transfer", "serve", "--listen", &format!("[::]:{port}")]).args(arguments);
        let log = lab.file(&format!("serve-{}-{port}.log", namespace.name()));
        let mut process = Process::spawn("the server", bound_to_parent(&command), &log)?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !process.output().starts_with("listening\n") {
            if process.try_wait()?.is_some() || Instant::now() >= deadline {
                bail!("the server does not listen: {}", process.output());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { process, port, reported: 0 })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process itself.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Reports of connections that ended since the last call; waits a while until there are `wanted`.
    pub fn new_reports(&mut self, wanted: usize) -> Result<Vec<ConnectionReport>> {
        let deadline = Instant::now() + SERVER_GRACE;
        loop {
            let output = self.process.output();
            let whole = output.rfind('\n').map_or("", |end| &output[..end]);
            let lines: Vec<&str> = whole.lines().filter(|line| line.starts_with('{')).collect();
            let fresh = lines.get(self.reported..).unwrap_or_default();
            if fresh.len() >= wanted || Instant::now() >= deadline {
                let reports = fresh.iter().map(|line| serde_json::from_str(line)).collect::<Result<Vec<_>, _>>();
                self.reported = lines.len();
                return reports.context("the server's report cannot be read");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What the client is to do.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Which way the data goes.
    pub direction: Direction,
    /// How a connection ends.
    pub ending: Ending,
    /// Bytes of data.
    pub bytes: u64,
    /// Seed of the data.
    pub seed: u64,
    /// Whether the client uses MPTCP.
    pub mptcp: bool,
    /// Congestion control at the client; `auto` takes cubic or reno.
    pub congestion: String,
    /// Number of connections.
    pub connections: u64,
    /// How many at once.
    pub parallel: u64,
    /// How their sizes are drawn.
    pub sizes: Sizes,
    /// IPv4 or IPv6.
    pub family: Family,
    /// Another destination than the lab's server.
    pub to: Option<SocketAddr>,
    /// Seconds without progress until the client gives up.
    pub stall: u64,
}

impl Transfer {
    /// One MPTCP connection over IPv4 that ends in order.
    pub fn new(direction: Direction, bytes: u64) -> Self {
        Self {
            direction,
            ending: Ending::Orderly,
            bytes,
            seed: 1,
            mptcp: true,
            congestion: "auto".into(),
            connections: 1,
            parallel: 1,
            sizes: Sizes::Fixed,
            family: Family::V4,
            to: None,
            stall: 30,
        }
    }

    /// Runs it to its end.
    pub fn run(&self, lab: &Lab, server: &mut TransferServer) -> Result<TransferReport> {
        self.start(lab, server)?.finish(lab, server)
    }

    /// Starts the client.
    pub fn start(&self, lab: &Lab, server: &TransferServer) -> Result<RunningTransfer> {
        let to = self.to.unwrap_or_else(|| (Plan::server(self.family), server.port).into());
        let mut command = lab.client_command(lab_binary()?);
        command.args(["transfer", "connect", &to.to_string()]);
        let mut option = |name: &str, value: String| {
            command.arg(format!("--{name}={value}"));
        };
        option("direction", value_name(&self.direction));
        option("ending", value_name(&self.ending));
        option("bytes", self.bytes.to_string());
        option("seed", self.seed.to_string());
        option("congestion", self.congestion.clone());
        option("connections", self.connections.to_string());
        option("parallel", self.parallel.to_string());
        option("sizes", value_name(&self.sizes));
        option("stall", self.stall.to_string());
        if !self.mptcp {
            command.arg("--tcp");
        }
        let before = Counts::take(lab)?;
        let log = lab.file(&format!("connect-{}.log", self.seed));
        let process = Process::spawn("the client", bound_to_parent(&command), &log)?;
        Ok(RunningTransfer { process, transfer: self.clone(), before, began: Instant::now() })
    }
}

/// The word for a choice on the command line.
fn value_name(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// A client at work; ended when this is dropped.
#[derive(Debug)]
pub struct RunningTransfer {
    process: Process,
    transfer: Transfer,
    before: Counts,
    began: Instant,
}

impl RunningTransfer {
    /// Bytes that passed the client's interfaces since the start, headers included.
    pub fn path_bytes(&self, lab: &Lab) -> Result<[u64; 2]> {
        Ok(Counts::take(lab)?.path_bytes_since(&self.before, self.transfer.direction))
    }

    /// Waits until at least this many bytes passed in all.
    pub fn wait_for_bytes(&mut self, lab: &Lab, bytes: u64, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let passed = self.path_bytes(lab)?.iter().sum::<u64>();
            if passed >= bytes {
                return Ok(());
            }
            if self.is_over()? || Instant::now() >= deadline {
                bail!("only {passed} of {bytes} bytes passed; the client printed:\n{}", self.process.output());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the client has ended.
    pub fn is_over(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_some())
    }

    /// The client's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits for the end and gathers what everybody counted.
    pub fn finish(mut self, lab: &Lab, server: &mut TransferServer) -> Result<TransferReport> {
        while self.process.try_wait()?.is_none() {
            if interrupted() {
                bail!("interrupted");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let after = Counts::take(lab)?;
        let output = self.process.output();
        let client = output
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(serde_json::from_str)
            .collect::<Result<Vec<ConnectionReport>, _>>()
            .with_context(|| format!("the client's report cannot be read: {output}"))?;
        if client.is_empty() {
            bail!("the client reported nothing: {output}");
        }
        let reached = client.iter().filter(|report| report.sent + report.received > 0).count();
        let server = server.new_reports(reached)?;
        let path_bytes = after.path_bytes_since(&self.before, self.transfer.direction);
        Ok(TransferReport {
            wall: self.began.elapsed(),
            client_retransmissions: after.retransmissions[0] - self.before.retransmissions[0],
            server_retransmissions: after.retransmissions[1] - self.before.retransmissions[1],
            mptcp: after.mptcp_since(&self.before),
            path_bytes,
            client,
            server,
        })
    }
}

/// What a transfer came to.
#[derive(Clone, Debug)]
pub struct TransferReport {
    /// The client's view of each connection.
    pub client: Vec<ConnectionReport>,
    /// The server's view of each, in the order in which they ended.
    pub server: Vec<ConnectionReport>,
    /// Bytes of the data's direction on each of the client's interfaces, headers included.
    pub path_bytes: [u64; 2],
    /// Segments that the client's kernel retransmitted.
    pub client_retransmissions: u64,
    /// Segments that the server's kernel retransmitted.
    pub server_retransmissions: u64,
    /// The client kernel's `MPTcpExt` counters that moved.
    pub mptcp: BTreeMap<String, u64>,
    /// Time from starting the client until everything was gathered.
    pub wall: Duration,
}

impl TransferReport {
    /// Each path's share of the bytes.
    pub fn shares(&self) -> [f64; 2] {
        let total = self.path_bytes.iter().sum::<u64>().max(1) as f64;
        self.path_bytes.map(|bytes| bytes as f64 / total)
    }

    /// Data bytes a second, as bits, over the longest connection.
    pub fn goodput_bits(&self) -> f64 {
        let bytes: u64 = self.client.iter().map(|report| report.sent + report.received).sum();
        let seconds = self.client.iter().map(|report| report.seconds).fold(0.0, f64::max);
        bytes as f64 * 8.0 / seconds.max(1e-9)
    }

    /// Whether both ends completed every connection with equal digests at both ends.
    pub fn intact(&self) -> bool {
        self.faults().is_empty()
    }

    /// What is wrong, one line each: connections that did not complete, and digests that differ.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut by_seed: BTreeMap<u64, &ConnectionReport> = BTreeMap::new();
        for report in &self.server {
            by_seed.insert(report.seed, report);
        }
        for client in &self.client {
            let seed = client.seed;
            faults.extend(own_faults("client", client));
            let Some(server) = by_seed.get(&seed) else {
                faults.push(format!("connection {seed}: the server does not know it"));
                continue;
            };
            faults.extend(own_faults("server", server));
            if client.sent_sha256 != server.received_sha256 {
                faults.push(format!("connection {seed}: the server received other bytes than the client sent"));
            }
            if client.received_sha256 != server.sent_sha256 {
                faults.push(format!("connection {seed}: the client received other bytes than the server sent"));
            }
        }
        faults
    }
}

fn own_faults(end: &str, report: &ConnectionReport) -> Vec<String> {
    let mut faults = Vec::new();
    if report.outcome != Outcome::Complete {
        faults.push(format!(
            "connection {}: {end}: {:?} after {} bytes sent and {} received: {}",
            report.seed,
            report.outcome,
            report.sent,
            report.received,
            report.error.as_deref().unwrap_or("no error"),
        ));
    }
    if let Some(at) = report.first_difference {
        faults.push(format!("connection {}: {end}: byte {at} received is not the one sent", report.seed));
    }
    if !report.intact() {
        faults.push(format!("connection {}: {end}: digests differ", report.seed));
    }
    faults
}

/// Counters of the kernels at both ends.
#[derive(Clone, Debug)]
struct Counts {
    paths: [InterfaceCounters; 2],
    retransmissions: [u64; 2],
    mptcp: BTreeMap<String, u64>,
}

impl Counts {
    fn take(lab: &Lab) -> Result<Self> {
        let interfaces = lab.client().interfaces()?;
        let path = |path: Path| interfaces.get(path.client_interface()).copied().unwrap_or_default();
        let client = lab.client().protocol_counters()?;
        let server = lab.server().protocol_counters()?;
        let retransmissions = |counters: &BTreeMap<String, u64>| counters.get("TcpRetransSegs").copied().unwrap_or(0);
        Ok(Self {
            paths: Path::BOTH.map(path),
            retransmissions: [retransmissions(&client), retransmissions(&server)],
            mptcp: client.into_iter().filter(|(name, _)| name.starts_with("MPTcpExt")).collect(),
        })
    }

    fn path_bytes_since(&self, before: &Self, direction: Direction) -> [u64; 2] {
        [0, 1].map(|index| {
            let (now, then) = (&self.paths[index], &before.paths[index]);
            let (up, down) = (now.tx_bytes - then.tx_bytes, now.rx_bytes - then.rx_bytes);
            match direction {
                Direction::Upload => up,
                Direction::Download => down,
                Direction::Both => up + down,
            }
        })
    }

    fn mptcp_since(&self, before: &Self) -> BTreeMap<String, u64> {
        let moved = |(name, now): (&String, &u64)| {
            let by = now.saturating_sub(before.mptcp.get(name).copied().unwrap_or(0));
            (by > 0).then(|| (name.clone(), by))
        };
        self.mptcp.iter().filter_map(moved).collect()
    }
}
