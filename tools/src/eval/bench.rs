//! A lab whose paths are emulated links, with the box or a kernel router between client and server.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mimbox_converter::metrics::ConnectionList;
use mimbox_stack::Counter;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::flow::{Flow, Flowed, PRIORITY};
use crate::lab::process::bound_to_parent;
use crate::lab::{
    BoxProcess, BoxRole, Configuration, Family, Lab, LabOptions, Mode, Namespace, Path, Plan, Process, Rate,
    ServerMptcp, interrupted, lab_binary,
};
use crate::link::{Event as Told, Statistics};

/// Who stands between client and server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Middle {
    /// The kernel forwards: the connection is one of kernels from end to end.
    Kernel,
    /// The box ends both halves.
    Box,
}

impl fmt::Display for Middle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Box => "box",
        })
    }
}

/// What one path is made of: arguments of `mimbox-lab link`, and the seed.
#[derive(Clone, Debug)]
pub(super) struct LinkPlan {
    /// Megabits a second, each way.
    pub(super) mbit: u64,
    /// Both ways together.
    pub(super) rtt: Duration,
    /// Further arguments: what goes wrong.
    pub(super) faults: Vec<String>,
    pub(super) seed: u64,
}

impl LinkPlan {
    /// A queue of one bandwidth-delay product, and never less than 20 ms of the rate.
    fn queue(&self) -> Duration {
        self.rtt.max(Duration::from_millis(20))
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--rate={}mbit", self.mbit),
            format!("--delay={}us", (self.rtt / 2).as_micros()),
            format!("--queue={}us", self.queue().as_micros()),
            format!("--seed={}", self.seed),
            "--json".to_owned(),
        ];
        arguments.extend(self.faults.iter().cloned());
        arguments
    }
}

/// An emulated link at work.
#[derive(Debug)]
struct Link {
    process: Process,
}

impl Link {
    fn start(lab: &Lab, path: Path, plan: &LinkPlan) -> Result<Self> {
        let mut command = lab.link().command(lab_binary()?);
        command.args(["link", path.link_towards_client(), path.link_towards_box()]).args(plan.arguments());
        let log = lab.file(&format!("link-{}.log", path.index()));
        let mut process = Process::spawn("the link", bound_to_parent(&command), &log)?;
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let output = process.output();
            if events(&output).any(|event| matches!(event, Told::Ready { .. })) {
                return Ok(Self { process });
            }
            if process.try_wait()?.is_some() || Instant::now() >= deadline {
                bail!("the link does not start: {output}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn stop(mut self) -> Result<Statistics> {
        self.process.signal(Signal::TERM)?;
        let status = self.process.wait(Duration::from_secs(10))?;
        let output = self.process.output();
        ensure!(status.success(), "the link failed: {output}");
        let end = events(&output).find_map(|event| match event {
            Told::End(statistics) => Some(statistics),
            _ => None,
        });
        end.with_context(|| format!("the link told nothing at its end: {output}"))
    }
}

fn events(output: &str) -> impl Iterator<Item = Told> {
    output.lines().filter_map(|line| serde_json::from_str(line).ok())
}

/// The lab, the links, and who stands between.
#[derive(Debug)]
pub(super) struct Bench {
    // Dropped in this order.
    running: Option<BoxProcess>,
    links: Vec<Link>,
    lab: Lab,
}

/// What happens while something flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// The link loses everything from now on, and no interface tells.
    Cut(Path),
    /// It is as it was before.
    Mend(Path),
    /// The client has no such interface.
    Vanish(Path),
    /// It gets it, and its MPTCP learns of the address.
    Appear(Path),
}

/// Times that a void measurement is tried again.
const AGAIN: usize = 3;

/// Measures until a measurement is valid; why those before were not is told.
pub(super) fn valid<T>(what: &str, measure: impl Fn() -> Result<T>) -> Result<(T, Vec<String>)> {
    let mut void = Vec::new();
    loop {
        match measure() {
            Ok(figure) => return Ok((figure, void)),
            Err(error) if void.len() >= AGAIN || interrupted() => {
                return Err(error.context(format!("{what}: void {} times", void.len() + 1)));
            }
            Err(error) => {
                eprintln!("  {what}: void, again: {error:#}");
                void.push(format!("{error:#}"));
            }
        }
    }
}

/// What a measurement came to.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) flow: Flowed,
    /// Segments that the sender over the links sent again.
    pub(super) retransmissions: u64,
    /// CPU time of the box.
    pub(super) box_cpu: Duration,
    pub(super) links: Vec<Statistics>,
    /// The client kernel's counters of MPTCP that moved.
    pub(super) mptcp: BTreeMap<String, u64>,
    /// The smoothed round-trip time of each path before the first event, as the box has it.
    pub(super) srtt: Vec<Duration>,
}

impl Bench {
    /// Builds it: path by path as `plans` say, one or two. Clients reach the box by `mode`.
    pub(super) fn build(middle: Middle, mode: Mode, plans: &[LinkPlan], server_mptcp: ServerMptcp) -> Result<Self> {
        let mode = if middle == Middle::Box { mode } else { Mode::Transparent };
        let options = LabOptions {
            mode,
            box_role: if middle == Middle::Box { BoxRole::Ports } else { BoxRole::KernelRouter },
            // The emulated links have the rates.
            rates: [Rate::Unlimited; 2],
            server_mptcp,
            subflow_limit: if plans.len() > 1 { 2 } else { 0 },
            client_offloads: false,
            ..LabOptions::default()
        };
        let lab = Lab::build(options)?;
        for (namespace, devices) in
            [(lab.client(), &["c0", "c1"][..]), (lab.middle(), &["wan0", "wan1", "core0"]), (lab.server(), &["s0"])]
        {
            for device in devices {
                plain(namespace, device)?;
            }
        }
        let links = Path::BOTH
            .into_iter()
            .zip(plans)
            .map(|(path, plan)| Link::start(&lab, path, plan))
            .collect::<Result<_>>()?;
        let mut bench = Self { running: None, links, lab };
        if middle == Middle::Box {
            let configuration = Configuration { real_time: Some(PRIORITY), ..Configuration::new(mode) };
            bench.running = Some(BoxProcess::start(&bench.lab, &configuration)?);
        }
        Ok(bench)
    }

    pub(super) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Runs a flow during which things happen, and stops everything; an error when a process died or something was lost
    /// that should not have been.
    pub(super) fn measure(self, flow: &Flow, events: &[(Duration, Event)]) -> Result<Measured> {
        let before = Tally::take(&self.lab)?;
        let mut left = events;
        while let Some(((Duration::ZERO, event), rest)) = left.split_first() {
            self.happen(event)?;
            left = rest;
        }
        let mut srtt = Vec::new();
        let meanwhile = |elapsed: Duration| -> Result<()> {
            if let Some(((at, event), rest)) = left.split_first()
                && elapsed >= *at
            {
                if srtt.is_empty() {
                    srtt = self.round_trips()?;
                }
                self.happen(event)?;
                left = rest;
            }
            Ok(())
        };
        let flowed = flow.run(&self.lab, meanwhile).with_context(|| self.last_words())?;
        Ok(Measured { srtt, ..self.conclude(flow, &before, flowed)? })
    }

    /// The smoothed round-trip times of the client's subflows, in the order in which they were opened.
    fn round_trips(&self) -> Result<Vec<Duration>> {
        let Some(running) = &self.running else { return Ok(Vec::new()) };
        let list: ConnectionList = serde_json::from_str(&running.ask(&["connections", "--json"])?)?;
        let subflows = list.connections.iter().flat_map(|connection| &connection.subflows);
        Ok(subflows.filter(|it| it.side == "client").map(|it| Duration::from_micros(it.srtt_us)).collect())
    }

    /// What the box says of its connections, for whoever looks into a failure.
    pub(super) fn state(&self) -> String {
        let Some(running) = &self.running else { return String::new() };
        let asked = running.ask(&["connections", "--json"]).unwrap_or_else(|error| format!("{error:#}"));
        format!("connections of the box: {asked}; its log: {}", running.log())
    }

    /// Waits until the box has no connection left, and stops everything; an error when a process died, or frames are
    /// missing.
    pub(super) fn end(self, limit: Duration) -> Result<()> {
        if let Some(running) = self.running {
            running.wait_until_idle(limit)?;
            running.stop()?;
        }
        self.links.into_iter().try_for_each(|link| link.stop().map(drop))
    }

    /// Has something happen.
    pub(super) fn happen(&self, event: &Event) -> Result<()> {
        match event {
            // The link takes the same signal for both.
            Event::Cut(path) | Event::Mend(path) => {
                self.links.get(path.index()).context("no such link")?.process.signal(Signal::USR2)
            }
            Event::Vanish(path) => {
                // Nor may the client reach the box's other address by the way that is left.
                self.lab.client().ip("mptcp endpoint flush\nmptcp limits set subflows 2 add_addr_accepted 0")?;
                self.lab.set_path(*path, false)
            }
            Event::Appear(path) => {
                self.lab.set_path(*path, true)?;
                let (address, device) = (Plan::client(*path, Family::V4), path.client_interface());
                self.lab.client().ip(&format!("mptcp endpoint add {address} dev {device} subflow"))
            }
        }
    }

    fn conclude(self, flow: &Flow, before: &Tally, flowed: Flowed) -> Result<Measured> {
        let after = Tally::take(&self.lab)?;
        let upload = flow.direction == crate::lab::transfer::Direction::Upload;
        let mut retransmissions =
            after.retransmissions[usize::from(!upload)] - before.retransmissions[usize::from(!upload)];
        let mut box_cpu = Duration::ZERO;
        if let Some(running) = self.running {
            let stats = running.stats().context("the box is gone")?;
            // A transparent box passes on what is not its own, such as the reset of a connection that it has closed.
            let [forwarded, converted] = [Counter::Forwarded, Counter::TcpSegmentsIn].map(|it| stats.counters.get(it));
            ensure!(forwarded < converted / 10, "the box forwarded {forwarded} packets unconverted");
            box_cpu = running.cpu_time()?;
            if !upload {
                // Its halves together: the one towards the server sends but requests.
                retransmissions = stats.counters.get(Counter::TcpRetransmits);
            }
            let dropped: u64 =
                stats.ports.iter().map(|port| port.rx_dropped + port.rx_ring_full + port.tx_dropped).sum();
            ensure!(dropped == 0, "the box's ports dropped {dropped} frames");
            running.stop()?;
        }
        let links = self.links.into_iter().map(Link::stop).collect::<Result<Vec<_>>>()?;
        for link in &links {
            ensure!(link.own_losses.total() == 0, "a link lost packets of its own account: {link}");
        }
        let dropped = after.dropped - before.dropped;
        ensure!(dropped == 0, "interfaces dropped {dropped} packets: {}", after.droppers());
        Ok(Measured {
            flow: flowed,
            retransmissions,
            box_cpu,
            links,
            mptcp: moved(&before.mptcp, &after.mptcp),
            srtt: Vec::new(),
        })
    }

    fn last_words(&self) -> String {
        self.running.as_ref().map(|running| format!("the box logged:\n{}", running.log())).unwrap_or_default()
    }
}

/// Every packet is one on this device, with its checksum, and what the other end has not taken yet waits in a queue.
pub(crate) fn plain(namespace: &Namespace, device: &str) -> Result<()> {
    namespace.run("ethtool", &["-K", device, "tx", "off", "tso", "off", "gso", "off", "sg", "off", "gro", "off"])?;
    namespace.run("tc", &["qdisc", "replace", "dev", device, "root", "pfifo", "limit", "2000"]).map(drop)
}

/// What kernels counted.
#[derive(Clone, Debug, Default)]
struct Tally {
    /// Of the client and the server.
    retransmissions: [u64; 2],
    dropped: u64,
    by_device: BTreeMap<String, u64>,
    mptcp: BTreeMap<String, u64>,
}

impl Tally {
    fn take(lab: &Lab) -> Result<Self> {
        let mut tally = Self::default();
        for namespace in [lab.client(), lab.link(), lab.middle(), lab.server()] {
            for (device, counters) in namespace.interfaces()? {
                tally.dropped += counters.dropped;
                tally.by_device.insert(device, counters.dropped);
            }
        }
        for (index, end) in [lab.client(), lab.server()].into_iter().enumerate() {
            let counters = end.protocol_counters()?;
            tally.retransmissions[index] = counters.get("TcpRetransSegs").copied().unwrap_or(0);
            if index == 0 {
                tally.mptcp = counters.into_iter().filter(|(name, _)| name.starts_with("MPTcpExt")).collect();
            }
        }
        Ok(tally)
    }

    fn droppers(&self) -> String {
        let some = self.by_device.iter().filter(|(_, count)| **count > 0);
        some.map(|(device, count)| format!("{device} {count}")).collect::<Vec<_>>().join(", ")
    }
}

fn moved(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let by = |(name, now): (&String, &u64)| (name.clone(), now - before.get(name).copied().unwrap_or(0));
    after.iter().map(by).filter(|(_, by)| *by > 0).collect()
}
