//! One run: a world is made from a seed, lives, and is audited.

use std::fmt::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;

use mimbox_converter::config::Config;
use mimbox_stack::{Counter, Counters, Duration, Instant};
use serde::Serialize;

use super::adversary::{Adversaries, Adversary, Mischief};
use super::converter::Converter;
use super::draw;
use super::host::{Addressing, Host, HostPort, Reach, Role};
use super::link::{Link, LinkTotals};
use super::middlebox::{Does, Way};
use super::node::{End, Node};
use super::observer::{Carries, Observer, Side};
use super::peer::{self, Peers};
use super::plan::{Ended, Plan, Speaks};
use super::profile::{BoxOptions, Options, Profile, Topology};
use super::world::World;
use crate::engine;

/// How long a world goes on after its last application ended, at most: closing timeouts, TIME-WAIT left out.
const CLOSING: Duration = Duration::from_secs(1_800);

/// What a run that held did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Runs.
    pub runs: u64,
    /// Connections.
    pub connections: u64,
    /// Of them, by clients that speak MPTCP.
    pub mptcp: u64,
    /// Bytes that arrived at applications and were as they should be.
    pub bytes: u64,
    /// Packets handed to links.
    pub packets: u64,
    /// Packets lost on links, by chance or for want of room.
    pub lost: u64,
    /// Packets that arrived twice.
    pub duplicated: u64,
    /// Packets held back.
    pub reordered: u64,
    /// Packets with a changed byte.
    pub corrupted: u64,
    /// Packets that lost MPTCP options.
    pub stripped: u64,
    /// Packets that middleboxes changed, renumbered, cut or joined.
    pub meddled: u64,
    /// Further subflows of MPTCP clients.
    pub joined: u64,
    /// MPTCP clients that fell back to TCP.
    pub fallbacks: u64,
    /// Connections of which an adversary played one end.
    pub adversaries: u64,
    /// What those adversaries changed, threw away or added, by the order of [`Mischief::ALL`].
    pub mischief: [u64; Mischief::ALL.len()],
    /// The most frames that any conversion held at once.
    pub most_frames: u32,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
}

impl Totals {
    /// Adds another run's totals.
    pub fn add(&mut self, other: &Self) {
        let Self {
            runs,
            connections,
            mptcp,
            bytes,
            packets,
            lost,
            duplicated,
            reordered,
            corrupted,
            stripped,
            meddled,
            joined,
            fallbacks,
            adversaries,
            mischief,
            most_frames,
            virtual_ms,
        } = other;
        self.runs += runs;
        self.connections += connections;
        self.mptcp += mptcp;
        self.bytes += bytes;
        self.packets += packets;
        self.lost += lost;
        self.duplicated += duplicated;
        self.reordered += reordered;
        self.corrupted += corrupted;
        self.stripped += stripped;
        self.meddled += meddled;
        self.joined += joined;
        self.fallbacks += fallbacks;
        self.adversaries += adversaries;
        self.note_mischief(mischief);
        self.most_frames = self.most_frames.max(*most_frames);
        self.virtual_ms += virtual_ms;
    }

    fn note_links(&mut self, links: &LinkTotals) {
        self.packets = links.packets;
        self.lost = links.lost + links.overflowed + links.oversized;
        self.duplicated = links.duplicated;
        self.reordered = links.reordered;
        self.corrupted = links.corrupted;
    }

    fn note_mischief(&mut self, done: &[u64]) {
        for (sum, times) in self.mischief.iter_mut().zip(done) {
            *sum += times;
        }
    }

    /// Counts what a client's MPTCP did.
    fn note_client(&mut self, counters: &Counters) {
        self.joined += counters.get(Counter::MptcpJoinAccepted);
        self.fallbacks +=
            [Counter::MptcpFallbackHandshake, Counter::MptcpFallbackNoOption, Counter::MptcpFallbackChecksum]
                .iter()
                .map(|&why| counters.get(why))
                .sum::<u64>();
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} runs, {} connections ({} MPTCP with {} further subflows, {} of them fell back), {} bytes compared, {} \
             packets ({} lost, {} duplicated, {} reordered, {} corrupted, {} stripped, {} \
             otherwise meddled with), {} s of virtual time",
            self.runs,
            self.connections,
            self.mptcp,
            self.joined,
            self.fallbacks,
            self.bytes,
            self.packets,
            self.lost,
            self.duplicated,
            self.reordered,
            self.corrupted,
            self.stripped,
            self.meddled,
            self.virtual_ms / 1_000
        )?;
        if self.adversaries > 0 {
            write!(f, ", {} with an adversary", self.adversaries)?;
            for (kind, times) in Mischief::ALL.iter().zip(self.mischief) {
                write!(f, ", {kind:?} {times} times")?;
            }
        }
        if self.most_frames > 0 {
            write!(f, ", at most {} frames in a conversion", self.most_frames)?;
        }
        Ok(())
    }
}

/// A run that did not hold: what was wrong, most telling first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The profile.
    pub profile: &'static str,
    /// Connections of the run.
    pub connections: usize,
    /// Everything that was wrong, up to a limit.
    pub complaints: Vec<String>,
}

impl Failure {
    /// The command that shows the same failure again.
    pub fn command(&self) -> String {
        format!(
            "mimbox-lab sim --seeds 1 --first-seed {} --profile {} --connections {}",
            self.seed, self.profile, self.connections
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} of profile {} failed:", self.seed, self.profile)?;
        for complaint in self.complaints.iter().take(20) {
            writeln!(f, "  {complaint}")?;
        }
        if self.complaints.len() > 20 {
            writeln!(f, "  and {} more", self.complaints.len() - 20)?;
        }
        write!(f, "run it again: {}", self.command())
    }
}

/// Runs one seed.
///
/// # Errors
/// With what was wrong, when anything was.
pub fn run(profile: &'static Profile, seed: u64, connections: usize) -> Result<Totals, Failure> {
    run_captured(profile, seed, connections, None)
}

/// Runs one seed and writes every packet to `capture`.
///
/// # Errors
/// With what was wrong, when anything was.
pub fn run_captured(
    profile: &'static Profile,
    seed: u64,
    connections: usize,
    capture: Option<&Path>,
) -> Result<Totals, Failure> {
    let options = profile.options(seed, connections);
    let mut rng = draw::stream(seed, 2);
    let mut plans: Vec<Plan> = (0..connections).map(|_| Plan::draw(&mut rng, &options.traffic)).collect();
    let cannot_fall_back = options.cannot_fall_back();
    for plan in &mut plans {
        // smoltcp cannot put a destination option into its SYN, and has a link of its own only to a box.
        if !options.topology.has_foreign_clients() && plan.speaks == Speaks::ForeignTcp {
            plan.speaks = Speaks::Tcp;
        }
        let mptcp = plan.speaks == Speaks::Mptcp;
        plan.may_change = mptcp && options.middleboxes().any(|does| does.changes_payload());
        plan.may_break =
            plan.may_change || mptcp && (options.middleboxes().any(Does::loses_mappings) || cannot_fall_back);
        // What the box only forwards is its ends' affair.
        if options.topology == Topology::Transparent && plan.speaks != Speaks::Mptcp {
            plan.adversary = None;
        }
    }
    let failed = |complaints| Failure { seed, profile: profile.name, connections, complaints };
    let built = build(&options, &plans, seed).and_then(|mut world| {
        capture.map_or(Ok(()), |path| world.capture_to(path))?;
        Ok(world)
    });
    let mut world = built.map_err(|error| failed(vec![format!("{error:#}")]))?;
    let limit = Instant::ZERO + options.time_limit;
    world.run(limit, |world| world.nodes().all(|node| node.open_ends() == 0));
    let ended = world.now();
    world.run(ended + CLOSING, |world| world.nodes().all(Node::is_quiet));
    let mut totals = Totals { runs: 1, connections: connections as u64, ..Totals::default() };
    totals.mptcp = plans.iter().filter(|plan| plan.speaks == Speaks::Mptcp).count() as u64;
    totals.adversaries = plans.iter().filter(|plan| plan.adversary.is_some()).count() as u64;
    totals.virtual_ms = ended.as_millis();
    totals.note_links(&world.link_totals());
    (totals.stripped, totals.meddled) = world.meddled();
    let mut complaints = audit(&mut world, &options, &plans, &mut totals);
    if !complaints.is_empty() && options.middleboxes().next().is_some() {
        complaints.push(format!("({:?}, on the paths {:?})", options.topology, options.middleboxes));
    }
    if complaints.is_empty() { Ok(totals) } else { Err(failed(complaints)) }
}

fn audit(world: &mut World, options: &Options, plans: &[Plan], totals: &mut Totals) -> Vec<String> {
    let now = world.now();
    let mut complaints = Vec::new();
    for node in world.nodes_mut() {
        complaints.extend(node.audit(now));
    }
    let mut fell_back = vec![false; plans.len()];
    for node in world.nodes() {
        node.apps(&mut |index, end, app| {
            // A client that finds changed payload itself, before it hears that the box has found some and fallen back, resets
            // the connection.
            let refused = plans[index].may_change && end == End::Client && app.ended == Some(Ended::Reset);
            fell_back[index] |= app.fell_back || refused;
        });
    }
    if !options.middleboxes().any(Does::may_cause_fallback) {
        let without = |(index, _)| format!("connection {index} fell back, and no middlebox gave it a reason to");
        complaints.extend(fell_back.iter().enumerate().filter(|(_, fell)| **fell).map(without));
    }
    for node in world.nodes() {
        totals.note_mischief(&node.mischief());
        totals.most_frames = totals.most_frames.max(node.most_frames());
        if let Some(counters) = node.client_counters() {
            totals.note_client(counters);
        }
        node.apps(&mut |index, end, app| {
            totals.bytes += app.received;
            let Some(plan) = plans.get(index) else { return };
            // A server that never saw its client's SYN has nothing to say.
            if end == End::Server && app.opened.is_none() && plan.resets() {
                return;
            }
            if let Some(what) = app.verdict(plan, fell_back[index]) {
                let who = if end == End::Client { "client" } else { "server" };
                let played = plan.adversary.map(|Adversary { end, mischief }| format!(", {end:?} {mischief:?}"));
                let played = played.unwrap_or_default();
                complaints.push(format!("connection {index} ({:?}{played}): the {who} {what}", plan.speaks));
            }
        });
    }
    complaints
}

/// The client's address on each path, and the box's or server's there.
const PATHS: [[Ipv4Addr; 2]; 2] = [
    [Ipv4Addr::new(10, 1, 0, 2), Ipv4Addr::new(10, 1, 0, 1)],
    [Ipv4Addr::new(10, 2, 0, 2), Ipv4Addr::new(10, 2, 0, 1)],
];
/// The box's address towards the servers.
const CORE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// The box's address towards the independent clients.
const LAN: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
/// The client's address when the servers are on its link.
const ALONE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
/// Experiment identifier of the destination option.
const EXID: u16 = 0x4d42;

pub(super) fn build(options: &Options, plans: &[Plan], seed: u64) -> anyhow::Result<World> {
    let mut world = World::new();
    let rng = |part| draw::stream(seed, part);
    let smol = |network, part| -> Box<dyn Node> {
        Box::new(Peers::new(plans, &options.servers, network, draw::mix(seed ^ part)))
    };
    match options.topology {
        Topology::ForeignDirect => {
            let clients = world.add(smol(peer::clients(None), 10));
            let servers = world.add(smol(peer::servers(None), 11));
            join(&mut world, options, 0, (clients, 0), (servers, 0), seed);
        }
        Topology::TcpDirect => {
            let port = HostPort::new(host_mac(0, 0), ALONE, Reach::Peers(peer::servers(None)));
            let host = Host::new(plans, options.clients, Role::Client, Addressing::Server, vec![port], rng(12))?;
            let clients = world.add(Box::new(host));
            let servers = world.add(smol(peer::servers(None), 11));
            join(&mut world, options, 0, (clients, 0), (servers, 0), seed);
        }
        Topology::MptcpDirect => {
            let to = Addressing::Host { address: PATHS[0][1] };
            let clients = Host::new(plans, options.clients, Role::Client, to, client_ports(), rng(12))?;
            let ports = PATHS.iter().enumerate().map(|(index, [client, server])| {
                HostPort::new(host_mac(1, index as u8), *server, Reach::Neighbour(*client))
            });
            let servers = Host::new(plans, options.clients, Role::Server, to, ports.collect(), rng(13))?;
            let clients = world.add(Box::new(clients));
            let servers = world.add(Box::new(servers));
            join(&mut world, options, 0, (clients, 0), (servers, 0), seed);
            join(&mut world, options, 1, (clients, 1), (servers, 1), seed);
        }
        Topology::Explicit | Topology::Transparent => {
            let explicit = options.topology == Topology::Explicit;
            let to = if explicit { Addressing::Box { address: PATHS[0][1], exid: EXID } } else { Addressing::Server };
            let clients = Host::new(plans, options.clients, Role::Client, to, client_ports(), rng(12))?;
            let played = |node, end, part| Adversaries::over(node, plans, end, rng(part));
            let clients = world.add(played(Box::new(clients), End::Client, 16));
            let foreign = world.add(played(smol(peer::clients(Some(LAN)), 10), End::Client, 17));
            let servers = world.add(played(smol(peer::servers(Some(CORE)), 11), End::Server, 18));
            let carries = if explicit { Carries::Ended } else { Carries::Syns };
            let config = Config::parse(&configuration(options), "the simulated box's configuration")?;
            let engine = engine::shard(&config, draw::mix(seed ^ 14))?;
            let sides = vec![Side::Clients, Side::Clients, Side::Servers, Side::Clients];
            let converter = Converter::new(engine, options.converter, sides, Observer::new(carries), None, rng(15));
            let middle = world.add(Box::new(converter));
            join(&mut world, options, 0, (clients, 0), (middle, 0), seed);
            join(&mut world, options, 1, (clients, 1), (middle, 1), seed);
            join(&mut world, options, 2, (middle, 2), (servers, 0), seed);
            join(&mut world, options, 3, (foreign, 0), (middle, 3), seed);
        }
    }
    Ok(world)
}

fn host_mac(host: u8, port: u8) -> [u8; 6] {
    [0x02, 0, 0, 1, host, port]
}

fn client_ports() -> Vec<HostPort> {
    let port = |(index, [client, other]): (usize, &[Ipv4Addr; 2])| {
        HostPort::new(host_mac(0, index as u8), *client, Reach::Neighbour(*other))
    };
    PATHS.iter().enumerate().map(port).collect()
}

/// The box's configuration file.
fn configuration(options: &Options) -> String {
    let BoxOptions { frames, mtu, window_ceiling, keepalive, .. } = options.converter;
    let ports = [("wan0", PATHS[0][1], 24), ("wan1", PATHS[1][1], 24), ("core0", CORE, 16), ("lan0", LAN, 16)];
    let mut text = String::new();
    for (name, address, len) in ports {
        let _ = writeln!(
            text,
            "[[port]]\nname = \"{name}\"\ninterface = \"{name}\"\nbackend = \"memory\"\nmtu = {mtu}\n\
             addresses = [\"{address}/{len}\"]\n"
        );
    }
    text.push_str(match options.topology {
        Topology::Transparent => "[transparent]\nfrom = [\"wan0\", \"wan1\", \"lan0\"]\n",
        _ => "[explicit]\nports = [\"wan0\", \"wan1\"]\nsource = [\"10.9.0.1\"]\ndst_opt = { exid = 0x4d42 }\n",
    });
    let _ = writeln!(
        text,
        "[limits]\nframes = {frames}\nframe_size = 2048\nwindow_ceiling = {window_ceiling}\n\
         window_floor = 8\nhalf_open_per_source = 8192\n\n[tcp]\nkeepalive = \"{}s\"\n",
        keepalive.as_millis() / 1_000
    );
    text
}

/// Lays both directions of link pair `pair`.
fn join(world: &mut World, options: &Options, pair: usize, left: (usize, u8), right: (usize, u8), seed: u64) {
    let [there, back] = options.links[pair % options.links.len()];
    let part = 100 + 2 * pair as u64;
    let [one, other] = options.middleboxes.get(pair).copied().unwrap_or_default();
    world.connect(left, right, Link::new(there, draw::stream(seed, part)).with(one, Way::There));
    world.connect(right, left, Link::new(back, draw::stream(seed, part + 1)).with(other, Way::Back));
}

#[cfg(test)]
mod tests;
