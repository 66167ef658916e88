//! One run: a world is made from a seed, lives, and is audited.

use std::fmt;
use std::path::Path;

use mimbox_stack::{Duration, Instant};
use serde::Serialize;

use super::draw;
use super::link::{Link, LinkTotals};
use super::node::End;
use super::peer::{self, Peers};
use super::plan::{Plan, Speaks};
use super::profile::{Options, Profile, Topology};
use super::world::World;

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
    /// Virtual milliseconds.
    pub virtual_ms: u64,
}

impl Totals {
    /// Adds another run's totals.
    pub fn add(&mut self, other: &Self) {
        let Self { runs, connections, mptcp, bytes, packets, lost, duplicated, reordered, corrupted, virtual_ms } =
            other;
        self.runs += runs;
        self.connections += connections;
        self.mptcp += mptcp;
        self.bytes += bytes;
        self.packets += packets;
        self.lost += lost;
        self.duplicated += duplicated;
        self.reordered += reordered;
        self.corrupted += corrupted;
        self.virtual_ms += virtual_ms;
    }

    fn note_links(&mut self, links: &LinkTotals) {
        self.packets = links.packets;
        self.lost = links.lost + links.overflowed + links.oversized;
        self.duplicated = links.duplicated;
        self.reordered = links.reordered;
        self.corrupted = links.corrupted;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} runs, {} connections ({} MPTCP), {} bytes compared, {} packets ({} lost, {} duplicated, {} reordered, \
             {} corrupted), {} s of virtual time",
            self.runs,
            self.connections,
            self.mptcp,
            self.bytes,
            self.packets,
            self.lost,
            self.duplicated,
            self.reordered,
            self.corrupted,
            self.virtual_ms / 1_000
        )
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
    let plans: Vec<Plan> = (0..connections).map(|_| Plan::draw(&mut rng, &options.traffic)).collect();
    let mut world = build(&options, &plans, seed);
    if let Some(path) = capture
        && let Err(error) = world.capture_to(path)
    {
        return Err(Failure { seed, profile: profile.name, connections, complaints: vec![format!("{error:#}")] });
    }
    let limit = Instant::ZERO + options.time_limit;
    world.run(limit, |world| world.nodes().all(|node| node.open_ends() == 0));
    let ended = world.now();
    world.run(ended + CLOSING, |world| world.nodes().all(super::node::Node::is_quiet));
    let mut totals = Totals { runs: 1, connections: connections as u64, ..Totals::default() };
    totals.mptcp = plans.iter().filter(|plan| plan.speaks == Speaks::Mptcp).count() as u64;
    totals.virtual_ms = ended.as_millis();
    totals.note_links(&world.link_totals());
    let complaints = audit(&mut world, &plans, &mut totals);
    if complaints.is_empty() {
        Ok(totals)
    } else {
        Err(Failure { seed, profile: profile.name, connections, complaints })
    }
}

fn audit(world: &mut World, plans: &[Plan], totals: &mut Totals) -> Vec<String> {
    let now = world.now();
    let mut complaints = Vec::new();
    for node in world.nodes_mut() {
        complaints.extend(node.audit(now));
    }
    for node in world.nodes() {
        node.apps(&mut |index, end, app| {
            totals.bytes += app.received;
            let Some(plan) = plans.get(index) else { return };
            // A server that never saw its client's SYN has nothing to say.
            if end == End::Server && app.opened.is_none() && plan.resets() {
                return;
            }
            if let Some(what) = app.verdict(plan) {
                let who = if end == End::Client { "client" } else { "server" };
                complaints.push(format!("connection {index} ({:?}): the {who} {what}", plan.speaks));
            }
        });
    }
    complaints
}

fn build(options: &Options, plans: &[Plan], seed: u64) -> World {
    let mut world = World::new();
    match options.topology {
        Topology::ForeignDirect => {
            let clients = Peers::new(plans, &options.servers, peer::clients(None), draw::mix(seed ^ 10));
            let servers = Peers::new(plans, &options.servers, peer::servers(None), draw::mix(seed ^ 11));
            let clients = world.add(Box::new(clients));
            let servers = world.add(Box::new(servers));
            join(&mut world, options, 0, (clients, 0), (servers, 0), seed);
        }
        Topology::Explicit | Topology::Transparent | Topology::TcpDirect | Topology::MptcpDirect => {}
    }
    world
}

/// Lays both directions of link pair `pair`.
fn join(world: &mut World, options: &Options, pair: usize, left: (usize, u8), right: (usize, u8), seed: u64) {
    let [there, back] = options.links[pair];
    let part = 100 + 2 * pair as u64;
    world.connect(left, right, Link::new(there, draw::stream(seed, part)));
    world.connect(right, left, Link::new(back, draw::stream(seed, part + 1)));
}

#[cfg(test)]
mod tests;
