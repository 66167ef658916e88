//! The namespaces and their wiring.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use super::client;
use super::dst_opt::{DstOpt, DstOptSettings};
use super::leftovers::RunDirectory;
use super::namespace::Namespace;
use super::plan::{Family, Path, Plan};

/// All namespaces and control groups of labs begin with this.
pub(crate) const PREFIX: &str = "mbl-";

/// How a connection reaches the box.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Mode {
    /// The client's SYN goes to the box and names the server in an option.
    Explicit,
    /// The box is the router on the path.
    Transparent,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Explicit => "explicit",
            Self::Transparent => "transparent",
        })
    }
}

/// Who stands in the box's namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BoxRole {
    /// Bare ports without kernel addresses, for `mimbox run`.
    Ports,
    /// The kernel, with the box's addresses and forwarding: a router to compare with.
    KernelRouter,
}

/// Whether the server's kernel speaks MPTCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerMptcp {
    /// `net.mptcp.enabled = 0`.
    Off,
    /// `net.mptcp.enabled = 1`; a listener must still ask for it.
    On,
}

/// A path's rate in bits a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rate {
    /// As fast as the machine goes.
    Unlimited,
    /// Bits a second.
    Bits(u64),
}

impl Rate {
    /// Megabits a second.
    pub const fn mbit(mbit: u64) -> Self {
        Self::Bits(mbit * 1_000_000)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        if lower == "unlimited" {
            return Ok(Self::Unlimited);
        }
        let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &lower[digits.len()..] {
            "kbit" => 1_000,
            "mbit" => 1_000_000,
            "gbit" => 1_000_000_000,
            _ => return Err(format!("{text:?} is not a rate: write it like 300mbit or 1gbit, or `unlimited`")),
        };
        match digits.parse::<u64>() {
            Ok(number @ 1..=1_000_000) => Ok(Self::Bits(number * unit)),
            _ => Err(format!("{text:?}: a whole number between 1 and 1000000 stands before the unit")),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unlimited => f.write_str("unlimited"),
            Self::Bits(bits) if bits.is_multiple_of(1_000_000_000) => write!(f, "{}gbit", bits / 1_000_000_000),
            Self::Bits(bits) if bits.is_multiple_of(1_000_000) => write!(f, "{}mbit", bits / 1_000_000),
            Self::Bits(bits) => write!(f, "{}kbit", bits / 1_000),
        }
    }
}

/// What a lab is to look like.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// The instance's name; `None` takes one that no other lab has.
    pub name: Option<String>,
    /// How connections reach the box: decides the client's routes and whether its SYNs carry Dst Opt.
    pub mode: Mode,
    /// Who stands in the box's namespace.
    pub box_role: BoxRole,
    /// Rate of each path, in each direction.
    pub rates: [Rate; 2],
    /// How long a full queue at that rate takes to drain.
    pub queue_ms: u32,
    /// MTU of every device.
    pub mtu: u16,
    /// Whether the server's kernel speaks MPTCP.
    pub server_mptcp: ServerMptcp,
    /// Extra subflows that the client's kernel may open: 0 makes it use the first path only.
    pub subflow_limit: u8,
    /// Leaves the client's segmentation and checksum offloads on. Off, every packet is one on every device: slower,
    /// and what a comparison between unlike boxes needs.
    pub client_offloads: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            name: None,
            mode: Mode::Explicit,
            box_role: BoxRole::Ports,
            rates: [Rate::mbit(300); 2],
            queue_ms: 40,
            mtu: 1500,
            server_mptcp: ServerMptcp::Off,
            subflow_limit: 2,
            client_offloads: true,
        }
    }
}

/// Four namespaces, wired. Everything is removed when this is dropped.
#[derive(Debug)]
pub struct Lab {
    options: LabOptions,
    id: String,
    // Dropped in this order: programs first, then what they live in.
    dst_opt: Option<DstOpt>,
    client: Namespace,
    link: Namespace,
    middle: Namespace,
    server: Namespace,
    directory: RunDirectory,
}

impl Lab {
    /// Builds a lab.
    pub fn build(options: LabOptions) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("a lab needs root: it makes network namespaces and loads BPF programs");
        }
        let id = match &options.name {
            Some(name) => checked_name(name)?,
            None => unique_id(),
        };
        let name = |role: &str| format!("{PREFIX}{id}-{role}");
        let directory = RunDirectory::create(&id)?;
        let mut lab = Self {
            client: Namespace::create(name("client"))?,
            link: Namespace::create(name("link"))?,
            middle: Namespace::create(name("box"))?,
            server: Namespace::create(name("server"))?,
            dst_opt: None,
            options,
            id,
            directory,
        };
        lab.set_parameters()?;
        lab.wire().context("cannot wire the lab")?;
        lab.address_box()?;
        lab.address_server()?;
        client::set_up(&lab.client, &lab.options)?;
        for path in Path::BOTH {
            lab.set_rate(path, lab.options.rates[path.index()])?;
        }
        if lab.options.mode == Mode::Explicit {
            lab.dst_opt = Some(DstOpt::attach(&format!("{PREFIX}{}", lab.id), &DstOptSettings::for_lab())?);
        }
        Ok(lab)
    }

    /// The instance's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it was built from.
    pub fn options(&self) -> &LabOptions {
        &self.options
    }

    /// The client: two interfaces, MPTCP.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// What lies between client and box: two bridges.
    pub fn link(&self) -> &Namespace {
        &self.link
    }

    /// The box's namespace.
    pub fn middle(&self) -> &Namespace {
        &self.middle
    }

    /// The server.
    pub fn server(&self) -> &Namespace {
        &self.server
    }

    /// The client's Dst Opt, in explicit mode.
    pub fn dst_opt(&self) -> Option<&DstOpt> {
        self.dst_opt.as_ref()
    }

    /// A directory for configurations, logs and captures of this lab.
    pub fn directory(&self) -> &FilePath {
        self.directory.path()
    }

    /// A file in that directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// A command as the client's user would run it: in explicit mode its connections go to the box and name their
    /// server.
    pub fn client_command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let command = self.client.command(program);
        match &self.dst_opt {
            Some(dst_opt) => dst_opt.wrap(&command),
            None => command,
        }
    }

    /// Lets everything stay when this is dropped, until [`super::remove_leftovers`].
    pub fn keep(mut self) -> Result<()> {
        if let Some(dst_opt) = &mut self.dst_opt {
            dst_opt.keep(&self.directory.path().join("bpf"))?;
        }
        for namespace in [&mut self.client, &mut self.link, &mut self.middle, &mut self.server] {
            namespace.keep();
        }
        self.directory.keep()
    }

    /// Sets a path's rate, both ways.
    pub fn set_rate(&self, path: Path, rate: Rate) -> Result<()> {
        for device in [path.link_towards_client(), path.link_towards_box()] {
            match rate {
                Rate::Unlimited => hold_back(&self.link, device)?,
                Rate::Bits(bits) => {
                    // 4 ms at the rate, and never less than a few packets.
                    let burst = (bits / 8 / 250).max(16_384);
                    self.link.run(
                        "tc",
                        &[
                            "qdisc",
                            "replace",
                            "dev",
                            device,
                            "root",
                            "tbf",
                            "rate",
                            &format!("{bits}bit"),
                            "burst",
                            &format!("{burst}b"),
                            "latency",
                            &format!("{}ms", self.options.queue_ms),
                        ],
                    )?;
                }
            }
        }
        Ok(())
    }

    /// Cuts a path (`ip link set … down` on the client's interface) or mends it, with the routes that the cut took.
    pub fn set_path(&self, path: Path, up: bool) -> Result<()> {
        let device = path.client_interface();
        if !up {
            return self.client.ip(&format!("link set {device} down"));
        }
        self.client.ip(&format!("link set {device} up"))?;
        client::add_routes(&self.client, self.options.mode, path)
    }

    /// Cuts a path outside of the client, which sees its carrier go, or mends it.
    pub fn set_carrier(&self, path: Path, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        self.link.ip(&format!("link set {} {state}", path.link_towards_client()))
    }

    /// Takes the link of the box's own port on a path away (`ip link set … down` in its namespace), or gives it back.
    pub fn set_port(&self, path: Path, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        self.middle.ip(&format!("link set {} {state}", path.box_interface()))
    }

    /// Drops this many packets in a thousand at random, on both paths and in both directions; 0 stops it.
    pub fn set_loss(&self, permille: u16) -> Result<()> {
        self.link.nft("table bridge lab\ndelete table bridge lab\n")?;
        if permille == 0 {
            return Ok(());
        }
        self.link.nft(&format!(
            "table bridge lab {{\n chain forward {{\n  type filter hook forward priority 0; policy accept;\n  \
             ip protocol tcp numgen random mod 1000 < {permille} counter drop\n  \
             ip6 nexthdr tcp numgen random mod 1000 < {permille} counter drop\n }}\n}}\n"
        ))
    }

    fn set_parameters(&self) -> Result<()> {
        for namespace in [&self.client, &self.server] {
            namespace.sysctl(&[
                ("net.ipv6.conf.default.accept_dad", "0"),
                ("net.ipv6.conf.all.accept_ra", "0"),
                ("net.ipv6.conf.default.accept_ra", "0"),
                // A 6.18 kernel that sends MPTCP data into a small initial buffer overruns the window now and then,
                // loses that data and crawls: start with a larger one.
                ("net.ipv4.tcp_rmem", "4096 1048576 33554432"),
                ("net.ipv4.tcp_wmem", "4096 1048576 33554432"),
            ])?;
        }
        let mptcp = match self.options.server_mptcp {
            ServerMptcp::Off => "0",
            ServerMptcp::On => "1",
        };
        self.server.sysctl(&[("net.mptcp.enabled", mptcp)])?;
        // What only passes frames on must not speak for itself.
        self.link.sysctl(&[("net.ipv6.conf.all.disable_ipv6", "1"), ("net.ipv6.conf.default.disable_ipv6", "1")])?;
        self.link.sysctl_where_known(&[
            ("net.bridge.bridge-nf-call-iptables", "0"),
            ("net.bridge.bridge-nf-call-ip6tables", "0"),
            ("net.bridge.bridge-nf-call-arptables", "0"),
        ])?;
        match self.options.box_role {
            BoxRole::Ports => self
                .middle
                .sysctl(&[("net.ipv6.conf.all.disable_ipv6", "1"), ("net.ipv6.conf.default.disable_ipv6", "1")]),
            BoxRole::KernelRouter => self.middle.sysctl(&[
                ("net.ipv6.conf.default.accept_dad", "0"),
                ("net.ipv4.ip_forward", "1"),
                ("net.ipv6.conf.all.forwarding", "1"),
                ("net.ipv4.conf.all.rp_filter", "0"),
                ("net.ipv4.conf.default.rp_filter", "0"),
            ]),
        }
    }

    fn wire(&self) -> Result<()> {
        let mtu = self.options.mtu;
        let (client, middle, server) = (self.client.name(), self.middle.name(), self.server.name());
        let mut lines = String::new();
        for path in Path::BOTH {
            let (c, towards_client) = (path.client_interface(), path.link_towards_client());
            let (b, towards_box, bridge) = (path.box_interface(), path.link_towards_box(), path.bridge());
            lines.push_str(&format!(
                "link add {bridge} mtu {mtu} type bridge forward_delay 0 mcast_snooping 0\n\
                 link add {towards_client} mtu {mtu} type veth peer name {c} mtu {mtu} netns {client}\n\
                 link add {towards_box} mtu {mtu} type veth peer name {b} mtu {mtu} netns {middle}\n\
                 link set {towards_client} master {bridge}\n\
                 link set {towards_box} master {bridge}\n\
                 link set {towards_client} up\n\
                 link set {towards_box} up\n\
                 link set {bridge} up\n"
            ));
        }
        self.link.ip(&lines)?;
        let (core, s) = (super::plan::BOX_PORTS[2], Plan::SERVER_INTERFACE);
        self.middle.ip(&format!(
            "link add {core} mtu {mtu} type veth peer name {s} mtu {mtu} netns {server}\n\
             link set wan0 up\nlink set wan1 up\nlink set {core} up\n"
        ))?;
        // Whatever transmits into a port of the box must send whole checksums and single segments.
        for path in Path::BOTH {
            self.link.finish_checksums(path.link_towards_box())?;
            if !self.options.client_offloads {
                self.client.finish_checksums(path.client_interface())?;
                self.link.finish_checksums(path.link_towards_client())?;
            }
        }
        self.server.finish_checksums(s)?;
        hold_back(&self.server, s)
    }

    fn address_box(&self) -> Result<()> {
        if self.options.box_role == BoxRole::Ports {
            return Ok(());
        }
        let mut lines = String::new();
        for family in [Family::V4, Family::V6] {
            for path in Path::BOTH {
                let address = Plan::with_prefix(Plan::box_wan(path, family));
                lines.push_str(&format!("address add {address} dev {}\n", path.box_interface()));
            }
            let address = Plan::with_prefix(Plan::box_core(family));
            lines.push_str(&format!("address add {address} dev core0\n"));
        }
        self.middle.ip(&lines)
    }

    fn address_server(&self) -> Result<()> {
        let device = Plan::SERVER_INTERFACE;
        let mut lines = format!("link set {device} up\n");
        for family in [Family::V4, Family::V6] {
            lines.push_str(&format!("address add {} dev {device}\n", Plan::with_prefix(Plan::server(family))));
            lines.push_str(&format!("route add default via {} dev {device}\n", Plan::box_core(family)));
        }
        self.server.ip(&lines)
    }
}

/// Gives a veth device a queue, as a network card has one. Without it, packets that the other end has not yet taken are
/// dropped at once; with it, recent kernels hold the sender back instead.
fn hold_back(namespace: &Namespace, device: &str) -> Result<()> {
    namespace.run("tc", &["qdisc", "replace", "dev", device, "root", "pfifo", "limit", "2000"]).map(drop)
}

fn unique_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{:x}-{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn checked_name(name: &str) -> Result<String> {
    let fits = (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !fits {
        bail!("{name:?} cannot name a lab: use 1 to 32 small letters and digits");
    }
    Ok(name.to_owned())
}
