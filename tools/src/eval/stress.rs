//! Everything that a client's operator can do to MPTCP while data flows, at random, every fifth of a second.
//!
//! Endpoints are added and deleted, made backup and regular, limits changed, links taken away at the client, between it and
//! the box, and at the box itself. One path always stays up, a link is taken away for two seconds at most, and no path before a
//! sender whose timer has backed off can have tried again, nor before nearly every connection has a subflow by the other one: so
//! whatever stalls, differs or is reset then is a fault.
//!
//! A transparent box forbids subflows to the server's address (RFC 8684 §3.1) and announces one of its own. A kernel opens one
//! to an announced address when it hears of it, and none for an endpoint that is added later: there endpoints are deleted in
//! the second half of a run only, and what follows has the first path alone.
//!
//! With `--kernels` the kernel forwards in the box's place and the server speaks MPTCP itself, in transparent mode with the
//! same flag and an announced address: what happens then is not the box's doing.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use mimbox_converter::metrics::{ConnectionList, ConnectionRow};
use mimbox_stack::{Counter, Rng};
use serde::Serialize;

use crate::lab::transfer::{ConnectionReport, Direction};
use crate::lab::{
    BoxProcess, BoxRole, Configuration, Family, Lab, LabOptions, Mode, Path, Plan, Rate, RunningTransfer, ServerMptcp,
    Transfer, TransferReport, TransferServer, catch_interrupts, damage, interrupted,
};
use crate::sim::draw::{between, chance, pick, stream};

/// The server's port.
const PORT: u16 = 5001;
/// Between two things that are done.
const STEP: Duration = Duration::from_millis(200);
/// How long both paths have been there before one is taken away, beyond the time that the last cut took. A sender's timer
/// doubles while a path is cut (RFC 6298 §5.5): it may try again only as long after the mend as the cut took, and until then the
/// path does nothing for that connection. Joins need their time too.
const CALM: Duration = Duration::from_secs(1);
/// How long the rest is left alone so that a link that is to be taken away can be.
const HOLD: Duration = Duration::from_secs(5);
/// The longest pause of a connection, in seconds, while a path is up.
const LONGEST_PAUSE: f64 = 5.0;
/// What the transfers get beyond the time of the disturbance, to come to their ends.
const GRACE: Duration = Duration::from_secs(120);
/// The box's counters that must not move.
const BOX_SUSPICIOUS: [Counter; 7] = [
    Counter::MptcpFallbackNoOption,
    Counter::MptcpFallbackHandshake,
    Counter::MptcpFallbackChecksum,
    Counter::MptcpDssChecksumErrors,
    Counter::MptcpBadMapping,
    Counter::ConversionsReset,
    Counter::MptcpNoSubflowTimeouts,
];

/// `mimbox-lab eval stress`.
#[derive(Clone, Debug, Args)]
pub struct StressArgs {
    /// How connections reach the box.
    #[arg(long, value_enum, default_value = "explicit")]
    pub mode: Mode,
    /// The kernel forwards in the box's place, and the server speaks MPTCP itself: to compare with.
    #[arg(long)]
    pub kernels: bool,
    /// Two-way connections at a time.
    #[arg(long, default_value_t = 50)]
    pub connections: u64,
    /// Seconds of disturbance.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// What is done when: the same seed does the same.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Rate of each path, in Mbit/s.
    #[arg(long, default_value_t = 40)]
    pub mbit: u64,
    /// How long a full queue of a path takes to drain, in milliseconds.
    #[arg(long, default_value_t = 40)]
    pub queue_ms: u32,
    /// Prints all that is done as it is done.
    #[arg(long)]
    pub verbose: bool,
    /// Writes the figures to a file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Where a path is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// The client's interface is set down, its routes go with it.
    Client,
    /// The client sees its carrier go.
    Carrier,
    /// The box's port is set down.
    Port,
}

/// A link that is to be taken away.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    path: Path,
    place: Place,
    /// When it is given up, as some connection gets no subflow by the other path.
    until: Instant,
    /// The endpoint was taken away and added for it.
    renewed: bool,
}

/// Something that is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    Cut(Path, Place),
    Mend(Path, Place),
    AddEndpoint { backup: bool },
    DeleteEndpoint,
    Change { backup: bool },
    Limits { subflows: u64, accepted: u64 },
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(path, place) => write!(f, "{path:?} path down ({place:?})"),
            Self::Mend(path, place) => write!(f, "{path:?} path up ({place:?})"),
            Self::AddEndpoint { backup } => write!(f, "endpoint add{}", if *backup { " backup" } else { "" }),
            Self::DeleteEndpoint => f.write_str("endpoint del"),
            Self::Change { backup } => write!(f, "endpoint change {}", if *backup { "backup" } else { "nobackup" }),
            Self::Limits { subflows, accepted } => write!(f, "limits subflows {subflows} add_addr_accepted {accepted}"),
        }
    }
}

/// A path that is away.
#[derive(Clone, Copy, Debug)]
struct Cut {
    path: Path,
    place: Place,
    since: Instant,
    until: Instant,
}

/// What was done, and when.
type Done = Vec<(Duration, Act)>;

/// Who stands between client and server.
enum Middle {
    Box(BoxProcess),
    Kernels,
}

impl Middle {
    fn start(lab: &Lab, args: &StressArgs) -> Result<Self> {
        if !args.kernels {
            return Ok(Self::Box(BoxProcess::start(lab, &Configuration::new(args.mode))?));
        }
        lab.server().ip("mptcp limits set subflows 8 add_addr_accepted 0\n")?;
        if args.mode == Mode::Transparent {
            let (addr, device) = (Plan::server_further(Family::V4), Plan::SERVER_INTERFACE);
            lab.server().sysctl(&[("net.mptcp.allow_join_initial_addr_port", "0")])?;
            lab.server().ip(&format!(
                "address add {} dev {device}\nmptcp endpoint add {addr} dev {device} signal\n",
                Plan::with_prefix(addr)
            ))?;
            Self::Kernels.route(args.mode, lab)?;
        }
        Ok(Self::Kernels)
    }

    /// What the kernels announce in transparent mode is reached by the second path, as the box's own address there is.
    fn route(&self, mode: Mode, lab: &Lab) -> Result<()> {
        if matches!(self, Self::Box(_)) || mode == Mode::Explicit {
            return Ok(());
        }
        let (addr, via) = (Plan::server_further(Family::V4), Plan::box_wan(Path::Second, Family::V4));
        lab.client().ip(&format!("route replace {addr} via {via} dev {}\n", Path::Second.client_interface()))
    }

    /// How many connections have no subflow but by `path`, and how many there are.
    fn without(&self, path: Path, lab: &Lab, connections: usize) -> Result<(usize, usize)> {
        let other = Path::BOTH[1 - path.index()];
        let Self::Box(middle) = self else {
            let address = Plan::client(other, Family::V4).to_string();
            let sockets = lab.server().run("ss", &["-Htn", "state", "established"])?;
            let by_other = |line: &&str| line.split_whitespace().nth(3).is_some_and(|peer| peer.contains(&address));
            return Ok((connections.saturating_sub(sockets.lines().filter(by_other).count()), connections));
        };
        let text = middle.ask(&["connections", "--json", "--limit", "1000"])?;
        let list: ConnectionList = serde_json::from_str(&text).context("the list of connections")?;
        let by_other = |row: &ConnectionRow| {
            let mut client = row.subflows.iter().filter(|subflow| subflow.side == "client");
            client.any(|subflow| subflow.port == other.index() as u8 && subflow.state == "Established")
        };
        Ok((list.connections.iter().filter(|row| !by_other(row)).count(), list.connections.len()))
    }
}

/// What is as it is, because of what was done.
struct Disturbance<'a> {
    lab: &'a Lab,
    middle: &'a Middle,
    rng: Rng,
    began: Instant,
    cut: Option<Cut>,
    /// The link that is to go as soon as it may.
    wanted: Option<Wanted>,
    /// Until when no path is taken away.
    calm_until: Instant,
    has_endpoint: bool,
    /// From when on endpoints are deleted.
    deletes_from: Instant,
    backup: bool,
    done: Done,
    /// Links that were left alone, as connections got no subflow by the other path.
    given_up: usize,
    connections: usize,
    mode: Mode,
    verbose: bool,
}

impl Disturbance<'_> {
    /// Does the next thing. One link at most is away, and nothing is done to the other path meanwhile.
    fn step(&mut self) -> Result<()> {
        if let Some(Cut { path, place, until, .. }) = self.cut {
            if Instant::now() >= until {
                self.act(Act::Mend(path, place))?;
            } else if path == Path::First || !chance(&mut self.rng, 500_000) {
                let backup = !self.backup;
                if self.has_endpoint && chance(&mut self.rng, 300_000) {
                    self.act(Act::Change { backup })?;
                }
            }
            return Ok(());
        }
        if let Some(wanted) = self.wanted.take() {
            return self.prepare_to_cut(wanted);
        }
        let act = match between(&mut self.rng, 0, 9) {
            3 | 4 if self.has_endpoint && self.is_calm() && Instant::now() >= self.deletes_from => Act::DeleteEndpoint,
            0..=4 if self.has_endpoint => Act::Change { backup: !self.backup },
            0..=4 => Act::AddEndpoint { backup: chance(&mut self.rng, 300_000) },
            number if number <= 6 || !self.is_calm() => {
                let subflows = between(&mut self.rng, 0, 4);
                Act::Limits { subflows, accepted: between(&mut self.rng, 0, 4) }
            }
            _ => {
                let path = pick(&mut self.rng, &Path::BOTH);
                let place = pick(&mut self.rng, &[Place::Client, Place::Carrier, Place::Port]);
                self.wanted = Some(Wanted { path, place, until: Instant::now() + HOLD, renewed: false });
                Act::Limits { subflows: 4, accepted: 4 }
            }
        };
        self.act(act)
    }

    /// Sees to it that the connections have a subflow by the other path, and cuts this one. A kernel whose limits kept it
    /// from a join does not try again when they are raised, but when its endpoint is there anew.
    fn prepare_to_cut(&mut self, mut wanted: Wanted) -> Result<()> {
        let (cut, late) = (Act::Cut(wanted.path, wanted.place), Instant::now() >= wanted.until);
        let act = if !self.has_endpoint {
            Act::AddEndpoint { backup: false }
        } else if self.may_cut(wanted.path)? {
            return self.act(cut);
        } else if wanted.renewed || Instant::now() < self.deletes_from {
            self.wanted = (!late).then_some(wanted);
            self.given_up += usize::from(late);
            return Ok(());
        } else {
            wanted.renewed = true;
            Act::DeleteEndpoint
        };
        self.wanted = Some(wanted);
        self.act(act)
    }

    fn is_calm(&self) -> bool {
        Instant::now() >= self.calm_until
    }

    /// True when the other path is there, and nine of ten connections have a subflow by it. A kernel does not always join
    /// again; the cut is shorter than the time that counts as a stall, so that this is no excuse for one.
    fn may_cut(&self, path: Path) -> Result<bool> {
        if !self.is_calm() {
            return Ok(false);
        }
        let (without, all) = self.middle.without(path, self.lab, self.connections)?;
        if self.verbose && without > 0 {
            eprintln!(
                "{:8.3}  {without} of {all} have no subflow beside the {path:?} path",
                self.began.elapsed().as_secs_f64()
            );
        }
        Ok(all > 0 && without <= all / 10)
    }

    fn act(&mut self, act: Act) -> Result<()> {
        self.done.push((self.began.elapsed(), act));
        if self.verbose {
            eprintln!("{:8.3}  {act}", self.began.elapsed().as_secs_f64());
        }
        let (client, second) = (self.lab.client(), Plan::client(Path::Second, Family::V4));
        match act {
            Act::Cut(path, place) => {
                let time = Duration::from_millis(between(&mut self.rng, 200, 2_000));
                let since = Instant::now();
                self.cut = Some(Cut { path, place, since, until: since + time });
                self.link(path, place, false)
            }
            Act::Mend(path, place) => {
                let took = self.cut.take().map_or(Duration::ZERO, |cut| cut.since.elapsed());
                self.calm_until = Instant::now() + took + CALM;
                self.link(path, place, true)
            }
            Act::AddEndpoint { backup } => {
                (self.has_endpoint, self.backup) = (true, backup);
                self.calm_until = self.calm_until.max(Instant::now() + CALM);
                let word = if backup { " backup" } else { "" };
                client.ip(&format!("mptcp endpoint add {second} dev c1 subflow{word}\n"))
            }
            Act::DeleteEndpoint => {
                (self.has_endpoint, self.calm_until) = (false, Instant::now() + CALM);
                client.ip(&format!("mptcp endpoint delete id {}\n", self.endpoint_id()?))
            }
            Act::Change { backup } => {
                self.backup = backup;
                let word = if backup { "backup" } else { "nobackup" };
                client.ip(&format!("mptcp endpoint change {second} {word}\n"))
            }
            Act::Limits { subflows, accepted } => {
                client.ip(&format!("mptcp limits set subflows {subflows} add_addr_accepted {accepted}\n"))
            }
        }
    }

    /// The kernel's number of the second address's endpoint.
    fn endpoint_id(&self) -> Result<u32> {
        let second = Plan::client(Path::Second, Family::V4).to_string();
        let text = self.lab.client().run("ip", &["mptcp", "endpoint", "show"])?;
        let line = text.lines().find(|line| line.starts_with(&format!("{second} ")));
        let id = line.and_then(|line| line.split_once(" id ")?.1.split_whitespace().next()?.parse().ok());
        id.with_context(|| format!("no endpoint {second} in:\n{text}"))
    }

    fn link(&self, path: Path, place: Place, up: bool) -> Result<()> {
        match place {
            Place::Client => {
                self.lab.set_path(path, up)?;
                if up && path == Path::Second { self.middle.route(self.mode, self.lab) } else { Ok(()) }
            }
            Place::Carrier => self.lab.set_carrier(path, up),
            Place::Port => self.lab.set_port(path, up),
        }
    }

    /// Puts everything as it was at first, so that what is left can end.
    fn end(&mut self) -> Result<()> {
        if let Some(Cut { path, place, .. }) = self.cut {
            self.act(Act::Mend(path, place))?;
        }
        self.act(Act::Limits { subflows: 2, accepted: 2 })?;
        if self.has_endpoint { Ok(()) } else { self.act(Act::AddEndpoint { backup: false }) }
    }
}

/// What a run came to.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    mode: String,
    kernels: bool,
    seed: u64,
    connections: u64,
    seconds: u64,
    /// How often something was done, by kind.
    done: [(&'static str, usize); 4],
    /// Data bytes both ways.
    bytes: u64,
    /// Seconds of the longest pause of any connection's download, which the box sends, and of any upload.
    longest_pauses: [f64; 2],
    /// Seconds until the last connection had ended.
    wall: f64,
    /// What the box counts; nothing without a box.
    middle: Option<BoxFigures>,
    given_up: usize,
}

/// What the box counts.
#[derive(Clone, Copy, Debug, Serialize)]
struct BoxFigures {
    reinjections: u64,
    removed: u64,
    joins: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, seed, connections, seconds, done, bytes, wall, .. } = self;
        let Self { longest_pauses: [down, up], middle, given_up, kernels, .. } = self;
        let done: Vec<String> = done.iter().map(|(what, count)| format!("{count} {what}")).collect();
        write!(
            f,
            "{mode}{}, seed {seed}: {connections} connections, {seconds} s of disturbance ({}): {:.1} MB both ways in {wall:.1} s, \
             longest pause {down:.2} s down, {up:.2} s up; ",
            if *kernels { " with kernels" } else { "" },
            done.join(", "),
            *bytes as f64 / 1e6,
        )?;
        if let Some(BoxFigures { reinjections, removed, joins }) = middle {
            write!(
                f,
                "the box withdrew {removed} addresses, took {joins} joins, sent {reinjections} segments again elsewhere; "
            )?;
        }
        write!(f, "{given_up} links were left up, as connections had no other")
    }
}

/// A run that is over.
#[derive(Clone, Debug)]
pub struct Stressed {
    figures: Figures,
    wrong: Vec<String>,
    pauses: Pauses,
    done: Done,
}

/// Connections that stood still for too long.
#[derive(Clone, Debug, Default)]
struct Pauses {
    downloads: Vec<String>,
    uploads: Vec<String>,
}

impl Pauses {
    fn of(report: &TransferReport) -> Self {
        let long = |end: &str, connections: &[ConnectionReport]| {
            let stood_still = connections.iter().filter(|connection| connection.longest_pause > LONGEST_PAUSE);
            let told = stood_still.map(|ConnectionReport { seed, longest_pause, longest_pause_from, .. }| {
                format!(
                    "connection {seed}: the {end} received nothing for {longest_pause:.2} s, from {longest_pause_from:.1} s on"
                )
            });
            told.collect()
        };
        Self { downloads: long("client", &report.client), uploads: long("server", &report.server) }
    }
}

impl Stressed {
    /// What must not have happened and did, pauses aside.
    pub fn faults(&self) -> &[String] {
        &self.wrong
    }

    /// Downloads, of which the box is the sender, that stood still for too long.
    pub fn paused_downloads(&self) -> &[String] {
        &self.pauses.downloads
    }

    /// Uploads, of which the client's kernel is the sender, that stood still for too long.
    pub fn paused_uploads(&self) -> &[String] {
        &self.pauses.uploads
    }

    fn holds(&self) -> bool {
        self.failures().next().is_none()
    }

    fn failures(&self) -> impl Iterator<Item = &String> {
        self.wrong.iter().chain(&self.pauses.downloads).chain(&self.pauses.uploads)
    }

    /// How often a link was taken away.
    pub fn links_cut(&self) -> usize {
        self.done.iter().filter(|(_, act)| matches!(act, Act::Cut(..))).count()
    }
}

impl fmt::Display for Stressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.figures)?;
        if !self.holds() {
            for (at, act) in &self.done {
                writeln!(f, "{:8.3}  {act}", at.as_secs_f64())?;
            }
        }
        self.failures().try_for_each(|fault| writeln!(f, "FAILED  {fault}"))
    }
}

/// Runs until the transfers are over.
///
/// # Errors
/// When it cannot be run to its end.
pub fn stress(args: &StressArgs) -> Result<Stressed> {
    let mode = args.mode;
    let (routes, box_role, server_mptcp) = match args.kernels {
        true => (Mode::Transparent, BoxRole::KernelRouter, ServerMptcp::On),
        false => (mode, BoxRole::Ports, ServerMptcp::Off),
    };
    let lab = Lab::build(LabOptions {
        mode: routes,
        box_role,
        server_mptcp,
        rates: [Rate::mbit(args.mbit); 2],
        queue_ms: args.queue_ms,
        ..LabOptions::default()
    })?;
    for namespace in [lab.client(), lab.server()] {
        // What a socket holds must be little beside what a connection carries in the time that counts as a stall.
        namespace.sysctl(&[("net.ipv4.tcp_wmem", "4096 65536 131072")])?;
    }
    let middle = Middle::start(&lab, args)?;
    let mut server =
        if args.kernels { TransferServer::start_mptcp(&lab, PORT)? } else { TransferServer::start(&lab, PORT)? };
    // Both paths full in both directions, for the time of the disturbance and a little more.
    let bytes = (args.mbit * 125_000 * 2 * args.seconds / args.connections.max(1)).max(1 << 16);
    let transfer = Transfer {
        seed: args.seed.wrapping_mul(1000),
        connections: args.connections,
        parallel: args.connections,
        stall: 60,
        ..Transfer::new(Direction::Both, bytes)
    };
    let began = Instant::now();
    let mut running = transfer.start(&lab, &server)?;
    let mut disturbance = Disturbance {
        lab: &lab,
        middle: &middle,
        rng: stream(args.seed, 0x57e5),
        began,
        cut: None,
        wanted: None,
        calm_until: began + CALM,
        has_endpoint: true,
        deletes_from: match mode {
            Mode::Explicit => began,
            Mode::Transparent => began + Duration::from_secs(args.seconds) / 2,
        },
        backup: false,
        done: Vec::new(),
        given_up: 0,
        connections: args.connections as usize,
        mode,
        verbose: args.verbose,
    };
    disturb(args, &mut running, &mut disturbance)?;
    let (done, given_up) = (std::mem::take(&mut disturbance.done), disturbance.given_up);
    let report = running.finish(&lab, &mut server)?;
    let mut wrong = faults(&report, &lab)?;
    let middle = match &middle {
        Middle::Box(middle) => Some(examine(middle, &mut wrong)?),
        Middle::Kernels => None,
    };
    let count = |what: fn(&Act) -> bool| done.iter().filter(|(_, act)| what(act)).count();
    let figures = Figures {
        mode: mode.to_string(),
        kernels: args.kernels,
        seed: args.seed,
        connections: args.connections,
        seconds: args.seconds,
        done: [
            ("links down", count(|act| matches!(act, Act::Cut(..)))),
            ("endpoints added or deleted", count(|act| matches!(act, Act::AddEndpoint { .. } | Act::DeleteEndpoint))),
            ("priorities", count(|act| matches!(act, Act::Change { .. }))),
            ("limits", count(|act| matches!(act, Act::Limits { .. }))),
        ],
        bytes: report.client.iter().map(|connection| connection.sent + connection.received).sum(),
        longest_pauses: [&report.client, &report.server].map(|received| longest_pause(received)),
        wall: report.wall.as_secs_f64(),
        middle,
        given_up,
    };
    Ok(Stressed { figures, wrong, pauses: Pauses::of(&report), done })
}

/// What the box counted; what it should not have is noted in `wrong`.
fn examine(middle: &BoxProcess, wrong: &mut Vec<String>) -> Result<BoxFigures> {
    wrong.extend(middle.wait_until_idle(GRACE).err().map(|error| format!("{error:#}")));
    let stats = middle.stats()?;
    let counters = &stats.counters;
    for counter in BOX_SUSPICIOUS {
        let value = counters.get(counter);
        wrong.extend((value > 0).then(|| format!("the box counts {value} {}", counter.name())));
    }
    if stats.pool.in_use > 0 {
        wrong.push(format!("the box holds {} frames when all is over", stats.pool.in_use));
    }
    Ok(BoxFigures {
        reinjections: counters.get(Counter::MptcpReinjections),
        removed: counters.get(Counter::MptcpRemoveAddrOut),
        joins: counters.get(Counter::MptcpJoinAccepted),
    })
}

fn disturb(args: &StressArgs, running: &mut RunningTransfer, disturbance: &mut Disturbance<'_>) -> Result<()> {
    let began = disturbance.began;
    let end = Duration::from_secs(args.seconds);
    let mut next = Duration::from_secs(1);
    while began.elapsed() < end && !running.is_over()? {
        ensure!(!interrupted(), "interrupted");
        if began.elapsed() >= next {
            next += STEP;
            disturbance.step()?;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    disturbance.end()?;
    while !running.is_over()? {
        ensure!(!interrupted(), "interrupted");
        if began.elapsed() > end + GRACE {
            bail!("not over {GRACE:?} after the disturbance");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn longest_pause(received: &[ConnectionReport]) -> f64 {
    received.iter().map(|connection| connection.longest_pause).fold(0.0, f64::max)
}

/// What is wrong with the transfers and in the client kernel's counters.
fn faults(report: &TransferReport, lab: &Lab) -> Result<Vec<String>> {
    let mut wrong = report.faults();
    wrong.extend(damage(lab.client())?);
    Ok(wrong)
}

/// Runs the command.
pub(super) fn command(args: &StressArgs) -> Result<ExitCode> {
    catch_interrupts()?;
    eprintln!("seed {}", args.seed);
    let stressed = stress(args).with_context(|| format!("seed {}", args.seed))?;
    print!("{stressed}");
    if let Some(file) = &args.json {
        std::fs::write(file, serde_json::to_string_pretty(&stressed.figures)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(if stressed.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
