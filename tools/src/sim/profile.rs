//! Profiles: what a run may draw. A seed and a profile name are a whole run.

use mimbox_stack::{Duration, Rng};

use super::draw::{self, between, chance, log_between, log_micros, pick};
use super::link::{Burst, LinkOptions, draw_shape};
use super::middlebox::{Does, Middlebox, Strips};
use super::peer::PeerOptions;
use super::plan::Traffic;

/// Which nodes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Clients name their server in the destination option and address the box.
    Explicit,
    /// The box is the router between clients and servers.
    Transparent,
    /// No box and nothing of this project: smoltcp's clients straight to smoltcp's servers, to test the simulator.
    ForeignDirect,
    /// No box: plain TCP clients on this stack straight to smoltcp's servers.
    TcpDirect,
    /// No box: MPTCP clients on this stack straight to MPTCP servers on this stack, over two paths.
    MptcpDirect,
}

impl Topology {
    /// True when there may be clients on smoltcp.
    pub const fn has_foreign_clients(self) -> bool {
        matches!(self, Self::Transparent | Self::ForeignDirect)
    }
}

/// How the hosts that run this project's stack are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostOptions {
    /// Largest IP packet, from which the MSS follows.
    pub mtu: u16,
    /// Bytes that one connection may hold unread.
    pub receive_buffer: u32,
    /// Frames that one connection may hold unsent or unacknowledged.
    pub send_frames: u32,
    /// Whether timestamps are offered.
    pub timestamps: bool,
    /// Whether SACK is offered.
    pub sack: bool,
    /// Window scale that is offered.
    pub window_scale: u8,
    /// Whether DSS checksums are asked for.
    pub checksum: bool,
    /// Share of writes that are cut to a random length.
    pub short_writes_ppm: u32,
    /// How long the host gathers packets before it looks at them.
    pub poll_every: Duration,
    /// Idle time after which a peer is asked whether it is still there: a lost reset comes once only.
    pub keepalive: Duration,
    /// Subflow connections are joined this long after the first is established.
    pub join_after: Duration,
    /// Clients give up their first address this long after a connection is established, once they have joined.
    pub leave_after: Option<Duration>,
}

/// How the box under test is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoxOptions {
    /// How long its worker gathers packets before it looks at them.
    pub poll_every: Duration,
    /// How long its NIC takes to give a sent frame back, at most.
    pub completion_within: Duration,
    /// Descriptors of each fill ring.
    pub ring: u32,
    /// Frames of its pool.
    pub frames: u32,
    /// Largest IP packet of its ports.
    pub mtu: u16,
    /// Largest window of a half in frames.
    pub window_ceiling: u32,
    /// Frames that no conversion may hold more of, instead of what the box says itself.
    pub most_frames: Option<u32>,
    /// How often the frames of its conversions are counted.
    pub count_every: Duration,
    /// Idle time after which a peer is asked whether it is still there, in whole seconds.
    pub keepalive: Duration,
}

/// Everything that a seed decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which nodes there are.
    pub topology: Topology,
    /// The connections.
    pub traffic: Traffic,
    /// What the links do, by pairs: first path, second path, towards servers; each has both directions.
    pub links: [[LinkOptions; 2]; 3],
    /// Middleboxes on the two paths, by directions.
    pub middleboxes: [[Option<Middlebox>; 2]; 2],
    /// The clients.
    pub clients: HostOptions,
    /// The servers when they are smoltcp's.
    pub servers: PeerOptions,
    /// The box.
    pub converter: BoxOptions,
    /// The run must be over after this virtual time.
    pub time_limit: Duration,
}

impl Options {
    /// What the middleboxes do.
    pub(crate) fn middleboxes(&self) -> impl Iterator<Item = Does> + '_ {
        self.middleboxes.iter().flatten().flatten().map(|middlebox| middlebox.does)
    }

    /// True when a connection with a second subflow may lose the mappings of its data, which it can no longer answer by a
    /// fallback (RFC 8684 §3.7): the second path strips options, and the first does so too, from data, or is left.
    pub(crate) fn cannot_fall_back(&self) -> bool {
        let [first, second] = &self.middleboxes;
        let any =
            |path: &[Option<Middlebox>; 2], of: fn(Does) -> bool| path.iter().flatten().any(|found| of(found.does));
        any(second, Does::strips) && (self.clients.leave_after.is_some() || any(first, Does::strips_data))
    }
}

/// A named way to draw options.
#[derive(Clone, Copy)]
pub struct Profile {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is for, one line.
    pub about: &'static str,
    draw: fn(&mut Rng, usize) -> Options,
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All profiles.
pub const PROFILES: &[Profile] = &[
    Profile { name: "clean", about: "no loss anywhere; every client by the destination option", draw: clean },
    Profile { name: "issue-a", about: "1% loss, duplication and reordering on every link, both modes", draw: impaired },
    Profile { name: "lossy", about: "up to 5% random loss and bursts of loss", draw: lossy },
    Profile {
        name: "stripped",
        about: "as issue-a, and middleboxes that take MPTCP options out: fallback",
        draw: stripped,
    },
    Profile {
        name: "renumbered",
        about: "every path renumbers sequence numbers, and nothing falls back",
        draw: renumbered,
    },
    Profile {
        name: "middleboxes",
        about: "middleboxes that take options out, change payload, renumber, cut and join; joins and address changes",
        draw: middleboxes,
    },
    Profile {
        name: "swarm",
        about: "everything at random: corruption, middleboxes, small MTUs, resets, slow readers",
        draw: swarm,
    },
    Profile {
        name: "adversaries",
        about: "a quarter of the connections misuse TCP at one end, in seven ways; the others must not notice",
        draw: adversaries,
    },
    Profile {
        name: "foreign-direct",
        about: "no box: smoltcp against itself, a test of the simulator",
        draw: foreign_direct,
    },
    Profile { name: "tcp-direct", about: "no box: this stack's TCP against smoltcp's", draw: tcp_direct },
    Profile { name: "mptcp-direct", about: "no box: this stack's MPTCP against itself", draw: mptcp_direct },
];

impl Profile {
    /// The profile called `name`.
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// A profile of a test's own.
    #[cfg(test)]
    pub(super) const fn of_test(draw: fn(&mut Rng, usize) -> Options) -> Self {
        Self { name: "test", about: "", draw }
    }

    /// The options that `seed` gives under this profile.
    pub fn options(&self, seed: u64, connections: usize) -> Options {
        (self.draw)(&mut draw::stream(seed, 1), connections)
    }
}

/// How long a burst of losses lasts at most: shorter than the shortest of the timeouts that give up on a silent peer.
const LONGEST_BURST: Duration = Duration::from_secs(5);
/// Idle time before every node's keepalive probes.
const KEEPALIVE: Duration = Duration::from_secs(30);

fn base(rng: &mut Rng, connections: usize) -> Options {
    let link = [draw_shape(rng), draw_shape(rng), draw_shape(rng)];
    Options {
        topology: pick(rng, &[Topology::Explicit, Topology::Transparent]),
        traffic: Traffic {
            connections,
            max_bytes: 256 << 10,
            start_within: Duration::from_millis(between(rng, 50, 2_000)),
            mptcp_ppm: 800_000,
            foreign_ppm: 0,
            reset_ppm: 0,
            refused_ppm: 0,
            absent_ppm: 0,
            slow_reader_ppm: 0,
            adversary_ppm: 0,
        },
        links: link.map(|both| [both, both]),
        middleboxes: [[None; 2]; 2],
        clients: HostOptions {
            mtu: 1500,
            receive_buffer: log_between(rng, 16 << 10, 1 << 20) as u32,
            send_frames: log_between(rng, 16, 256) as u32,
            timestamps: true,
            sack: true,
            window_scale: 7,
            checksum: false,
            short_writes_ppm: 20_000,
            poll_every: Duration::from_micros(pick(rng, &[0, 10, 50, 200])),
            keepalive: KEEPALIVE,
            join_after: log_micros(rng, 1, 100_000),
            leave_after: None,
        },
        servers: PeerOptions {
            receive_buffer: log_between(rng, 8 << 10, 128 << 10) as u32,
            send_buffer: log_between(rng, 8 << 10, 128 << 10) as u32,
            mtu: 1500,
            timestamps: rng.below(2) == 0,
            nagle: rng.below(2) == 0,
            ack_delay: pick(rng, &[Duration::ZERO, Duration::from_millis(10), Duration::from_millis(40)]),
            keepalive: KEEPALIVE,
            poll_every: Duration::from_micros(pick(rng, &[0, 20, 100])),
        },
        converter: BoxOptions {
            poll_every: Duration::from_micros(pick(rng, &[0, 10, 50, 200])),
            completion_within: Duration::from_micros(pick(rng, &[0, 20, 500])),
            ring: 256,
            frames: 32 << 10,
            mtu: 1500,
            window_ceiling: log_between(rng, 32, 1024) as u32,
            most_frames: None,
            count_every: Duration::from_millis(50),
            keepalive: KEEPALIVE,
        },
        time_limit: Duration::from_secs(1_800),
    }
}

fn clean(rng: &mut Rng, connections: usize) -> Options {
    let mut options = base(rng, connections);
    options.topology = Topology::Explicit;
    for both in &mut options.links {
        for link in both {
            link.queue_bytes = 64 << 20;
        }
    }
    options
}

fn impair(rng: &mut Rng, options: &mut Options) {
    for link in options.links.iter_mut().flatten() {
        link.loss_ppm = 10_000;
        link.duplicate_ppm = 10_000;
        link.reorder_ppm = 10_000;
        link.reorder_by = log_micros(rng, 100, 10_000);
    }
}

fn impaired(rng: &mut Rng, connections: usize) -> Options {
    let mut options = base(rng, connections);
    impair(rng, &mut options);
    options
}

/// A middlebox on one direction or both of each path.
fn meddle(rng: &mut Rng, options: &mut Options) {
    for [there, back] in &mut options.middleboxes {
        let strips = pick(rng, &[Strips::Syns, Strips::AllButSyns, Strips::All]);
        let middlebox =
            Middlebox { does: Does::Strips(strips), flows_ppm: pick(rng, &[200_000, 1_000_000]), salt: rng.next_u64() };
        let (one, other) = pick(rng, &[(true, true), (true, false), (false, true)]);
        *there = one.then_some(middlebox);
        *back = other.then_some(middlebox);
    }
}

/// A middlebox of any kind, in the directions that it needs.
fn any_middlebox(rng: &mut Rng) -> [Option<Middlebox>; 2] {
    let does = match rng.below(8) {
        0 => return [None, None],
        1 => Does::Strips(Strips::Syns),
        2 => Does::Strips(pick(rng, &[Strips::ThirdAcks, Strips::Data, Strips::AllButSyns])),
        3 | 4 => Does::Changes { ppm: log_between(rng, 10_000, 500_000) as u32 },
        5 => Does::Renumbers,
        6 => Does::Cuts { bytes: between(rng, 100, 700) as u16 },
        _ => Does::Joins { ppm: log_between(rng, 10_000, 300_000) as u32 },
    };
    let middlebox = Middlebox { does, flows_ppm: pick(rng, &[200_000, 1_000_000]), salt: rng.next_u64() };
    let (one, other) = match does {
        Does::Renumbers => (true, true),
        _ => pick(rng, &[(true, true), (true, false), (false, true)]),
    };
    [one.then_some(middlebox), other.then_some(middlebox)]
}

fn middleboxes(rng: &mut Rng, connections: usize) -> Options {
    let mut options = if rng.below(2) == 0 { base(rng, connections) } else { impaired(rng, connections) };
    options.middleboxes = [any_middlebox(rng), any_middlebox(rng)];
    let clients = &mut options.clients;
    // Without checksums nobody can tell that payload was changed.
    clients.checksum = options.middleboxes.iter().flatten().flatten().any(|middlebox| middlebox.does.changes_payload());
    clients.checksum |= chance(rng, 250_000);
    clients.leave_after = chance(rng, 500_000).then(|| log_micros(rng, 1_000, 2_000_000));
    // Short writes and small segments, so that there is something to join.
    clients.short_writes_ppm = pick(rng, &[20_000, 500_000]);
    clients.mtu = pick(rng, &[1500, 600]);
    options.servers.mtu = pick(rng, &[1500, 600]);
    options
}

fn renumbered(rng: &mut Rng, connections: usize) -> Options {
    let mut options = if rng.below(2) == 0 { base(rng, connections) } else { impaired(rng, connections) };
    for path in &mut options.middleboxes {
        let does = Does::Renumbers;
        *path = [Some(Middlebox { does, flows_ppm: 1_000_000, salt: rng.next_u64() }); 2];
    }
    options.clients.checksum = chance(rng, 250_000);
    options
}

fn stripped(rng: &mut Rng, connections: usize) -> Options {
    let mut options = impaired(rng, connections);
    meddle(rng, &mut options);
    options
}

fn lose(rng: &mut Rng, options: &mut Options) {
    for link in options.links.iter_mut().flatten() {
        link.loss_ppm = between(rng, 0, 50_000) as u32;
        if rng.below(2) == 0 {
            link.burst = Some(Burst {
                enter_ppm: between(rng, 10, 2_000) as u32,
                leave_ppm: between(rng, 50_000, 500_000) as u32,
                loss_ppm: between(rng, 200_000, 1_000_000) as u32,
                longest: LONGEST_BURST,
            });
        }
    }
}

fn lossy(rng: &mut Rng, connections: usize) -> Options {
    let mut options = base(rng, connections);
    lose(rng, &mut options);
    options
}

fn swarm(rng: &mut Rng, connections: usize) -> Options {
    let mut options = base(rng, connections);
    if rng.below(2) == 0 {
        lose(rng, &mut options);
    }
    for link in options.links.iter_mut().flatten() {
        if rng.below(2) == 0 {
            link.duplicate_ppm = between(rng, 0, 50_000) as u32;
        }
        if rng.below(2) == 0 {
            link.reorder_ppm = between(rng, 0, 100_000) as u32;
            link.reorder_by = log_micros(rng, 10, 30_000);
        }
        if rng.below(2) == 0 {
            link.corrupt_ppm = between(rng, 0, 10_000) as u32;
        }
        if rng.below(4) == 0 {
            link.queue_bytes = log_between(rng, 8 << 10, 128 << 10) as u32;
        }
    }
    if rng.below(4) == 0 {
        meddle(rng, &mut options);
    }
    let traffic = &mut options.traffic;
    traffic.mptcp_ppm = pick(rng, &[0, 500_000, 1_000_000]);
    traffic.foreign_ppm = pick(rng, &[0, 500_000]);
    traffic.reset_ppm = pick(rng, &[0, 0, 50_000, 300_000]);
    traffic.refused_ppm = pick(rng, &[0, 20_000]);
    traffic.absent_ppm = pick(rng, &[0, 10_000]);
    traffic.slow_reader_ppm = pick(rng, &[0, 50_000, 300_000]);
    let clients = &mut options.clients;
    clients.timestamps = !chance(rng, 250_000);
    clients.sack = !chance(rng, 250_000);
    clients.window_scale = between(rng, 0, 10) as u8;
    clients.checksum = chance(rng, 250_000);
    clients.short_writes_ppm = pick(rng, &[0, 20_000, 500_000]);
    clients.mtu = pick(rng, &[1500, 1500, 1280, 600]);
    options.servers.mtu = pick(rng, &[1500, 1500, 1280, 600]);
    options
}

pub(super) fn adversaries(rng: &mut Rng, connections: usize) -> Options {
    let mut options = if rng.below(2) == 0 { impaired(rng, connections) } else { base(rng, connections) };
    options.traffic.adversary_ppm = 250_000;
    options.traffic.mptcp_ppm = 500_000;
    options.clients.window_scale = between(rng, 0, 10) as u8;
    options.clients.checksum = chance(rng, 250_000);
    // Small enough that what a conversion holds without a limit is far beyond it.
    options.converter.window_ceiling = between(rng, 16, 128) as u32;
    options.converter.count_every = Duration::from_millis(1);
    // A NIC that takes long has a long TX ring: here no more is on it than arrives at once.
    options.converter.completion_within = Duration::from_micros(pick(rng, &[0, 20]));
    for link in options.links.iter_mut().flatten() {
        // A full segment in single bytes is a burst of its own, of which smoltcp brings one hole across in a timeout.
        link.queue_bytes = link.queue_bytes.max(1 << 20);
        link.loss_ppm /= 10;
    }
    options
}

fn tcp_direct(rng: &mut Rng, connections: usize) -> Options {
    let mut options = if rng.below(2) == 0 { impaired(rng, connections) } else { swarm(rng, connections) };
    options.topology = Topology::TcpDirect;
    options.traffic.mptcp_ppm = 0;
    options
}

fn foreign_direct(rng: &mut Rng, connections: usize) -> Options {
    let mut options = impaired(rng, connections);
    options.traffic.mptcp_ppm = 0;
    options.topology = Topology::ForeignDirect;
    options.traffic.foreign_ppm = 1_000_000;
    options
}

fn mptcp_direct(rng: &mut Rng, connections: usize) -> Options {
    let mut options = if rng.below(2) == 0 { impaired(rng, connections) } else { swarm(rng, connections) };
    options.topology = Topology::MptcpDirect;
    options.traffic.mptcp_ppm = options.traffic.mptcp_ppm.max(500_000);
    options
}
