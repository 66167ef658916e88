//! The operator's configuration: read from TOML, checked as a whole, handed on as plain types.
//!
//! [`Config`] is what the rest of the converter sees: ports are indices, addresses are addresses, every value is in
//! its range. Reading never stops at the first mistake that it can look past; each has its place and its remedy.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use mimbox_stack::PortId;
use mimbox_stack::time::Duration;

mod check;
mod error;
mod file;
mod prefix;
mod render;
#[cfg(test)]
mod tests;

pub use error::{ConfigError, Problem};
pub use prefix::{InterfaceAddress, Prefix};

/// Declares an enum whose variants have a name in the configuration file.
macro_rules! choices {
    ($(#[$meta:meta])* $type:ident { $($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $type { $($(#[$doc])* $variant),+ }

        impl $type {
            /// Every choice.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word for it in the configuration file.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

choices! {
    /// What moves a port's packets.
    Backend {
        /// AF_XDP sockets on a network interface.
        AfXdp = "af_xdp",
        /// netmap rings.
        Netmap = "netmap",
        /// A capture file (replay).
        Pcap = "pcap",
        /// Memory (simulation, benchmarks).
        Memory = "memory",
    }
}

choices! {
    /// How the steering program is attached to an interface.
    XdpMode {
        /// In the driver where it can, else generic.
        Auto = "auto",
        /// In the driver, or not at all.
        Native = "native",
        /// In the kernel's generic path.
        Generic = "generic",
    }
}

choices! {
    /// Whether frames are copied between the kernel and the region.
    CopyMode {
        /// Zero-copy when every port can, else copied.
        Auto = "auto",
        /// Copied.
        Copy = "copy",
        /// Zero-copy, or not at all.
        ZeroCopy = "zero-copy",
    }
}

choices! {
    /// Which subflow gets the next data.
    Scheduler {
        /// The one with the lowest smoothed RTT that has room in its congestion window.
        LowestRtt = "lowest-rtt",
        /// Each in its turn.
        RoundRobin = "round-robin",
        /// All of them get all data.
        Redundant = "redundant",
        /// Lowest RTT, unless the slow subflow would block the window.
        Blest = "blest",
    }
}

choices! {
    /// How a connection decides how much it may have in flight.
    Congestion {
        /// RFC 9438.
        Cubic = "cubic",
        /// RFC 5681 and 6582.
        NewReno = "newreno",
        /// BBR, version 3: a model of the path instead of losses.
        Bbr = "bbr",
        /// Coupled over subflows: RFC 6356.
        Lia = "lia",
        /// Coupled: opportunistic linked increases.
        Olia = "olia",
        /// Coupled: balanced linked adaptation.
        Balia = "balia",
    }
}

choices! {
    /// What a worker does when there is nothing to do.
    Wait {
        /// Sleeps until a packet comes or a timer is due.
        Sleep = "sleep",
        /// Looks at the rings without pause: lowest delay, a whole core.
        BusyPoll = "busy-poll",
        /// That, and drives the NIC's driver itself in place of its interrupts.
        KernelBusyPoll = "kernel-busy-poll",
    }
}

/// A network interface that the box uses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortConfig {
    /// Its number: its place in the file, from 0.
    pub id: PortId,
    /// The box's own word for it.
    pub name: String,
    /// The operating system's name for it.
    pub interface: String,
    /// What moves its packets.
    pub backend: Backend,
    /// The box's addresses on it.
    pub addresses: Vec<InterfaceAddress>,
    /// How the steering program is attached.
    pub mode: XdpMode,
    /// Whether frames are copied.
    pub copy: CopyMode,
    /// The queue that is served.
    pub queue: u16,
    /// The box's Ethernet address there; `None` takes the interface's own, which `mimbox run` fills in.
    pub mac: Option<[u8; 6]>,
    /// Largest IP packet; `None` takes the interface's own, which `mimbox run` fills in.
    pub mtu: Option<u16>,
}

impl PortConfig {
    /// Largest IP packet: the configured or the interface's, else Ethernet's 1500.
    pub fn mtu_or_default(&self) -> u16 {
        self.mtu.unwrap_or(1500)
    }

    /// The box's Ethernet address, or a locally administered one made of the port's number.
    pub fn mac_or_default(&self) -> [u8; 6] {
        self.mac.unwrap_or([0x02, 0x4d, 0x42, 0, 0, self.id.0])
    }
}

/// A way to networks behind a router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteConfig {
    /// Destinations that take it.
    pub prefix: Prefix,
    /// The router, on the link of `port`.
    pub via: IpAddr,
    /// The port that the router is behind.
    pub port: PortId,
}

/// Clients address the box and name the server in the destination option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExplicitConfig {
    /// Where clients' SYNs are accepted.
    pub ports: Vec<PortId>,
    /// Experiment identifier of the destination option (RFC 6994).
    pub exid: u16,
    /// The box's addresses towards servers. Never empty: without the key, the addresses of every port that is not in
    /// `ports`, or of every port when all are.
    pub source: Vec<IpAddr>,
    /// Addresses announced by ADD_ADDR to MPTCP clients; without the key, none.
    pub announce: Vec<IpAddr>,
}

/// Clients address the server and the box is the router between them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransparentConfig {
    /// Ports behind which clients are.
    pub from: Vec<PortId>,
    /// Addresses announced by ADD_ADDR; without the key, those of the ports in `from`.
    pub announce: Vec<IpAddr>,
}

/// Who may be converted to where. Addresses that cannot be a peer (multicast, loopback, …) are never allowed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PolicyConfig {
    /// Clients' addresses; empty allows all.
    pub clients: Vec<Prefix>,
    /// Servers' addresses; empty allows all.
    pub allow: Vec<Prefix>,
    /// Servers' addresses that are forbidden although `allow` has them.
    pub deny: Vec<Prefix>,
    /// Terms of single connections; the first rule that fits decides.
    pub rules: Vec<PolicyRule>,
}

/// Other terms than those under `[mptcp]` for some connections.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PolicyRule {
    /// Clients' addresses; empty fits all.
    pub clients: Vec<Prefix>,
    /// Servers' addresses; empty fits all.
    pub servers: Vec<Prefix>,
    /// Servers' ports; empty fits all.
    pub ports: Vec<u16>,
    /// Which subflow gets the next data, when it is another than `[mptcp]` has.
    pub scheduler: Option<Scheduler>,
    /// Each subflow's congestion control, when it is another.
    pub congestion: Option<Congestion>,
    /// Subflows of one connection, when it is another number.
    pub subflows: Option<u8>,
    /// Addresses announced at most, when it is another number.
    pub announce: Option<u8>,
}

impl PolicyRule {
    fn fits(&self, client: IpAddr, server: IpAddr, port: u16) -> bool {
        let among = |list: &[Prefix], addr| list.is_empty() || list.iter().any(|prefix| prefix.contains(addr));
        let port_fits = self.ports.is_empty() || self.ports.contains(&port);
        port_fits && among(&self.clients, client) && among(&self.servers, server)
    }
}

impl PolicyConfig {
    /// True when connections from `client` are converted.
    pub fn allows_client(&self, client: IpAddr) -> bool {
        self.clients.is_empty() || self.clients.iter().any(|prefix| prefix.contains(client))
    }

    /// The first rule for connections of `client` to `server`.
    pub fn rule(&self, client: IpAddr, server: IpAddr, port: u16) -> Option<&PolicyRule> {
        self.rules.iter().find(|rule| rule.fits(client, server, port))
    }

    /// True when connections to `server` are converted.
    pub fn allows_destination(&self, server: IpAddr) -> bool {
        let allowed = self.allow.is_empty() || self.allow.iter().any(|prefix| prefix.contains(server));
        allowed && !self.deny.iter().any(|prefix| prefix.contains(server))
    }
}

/// Multipath TCP towards clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MptcpConfig {
    /// Whether MP_CAPABLE is answered at all.
    pub enabled: bool,
    /// Whether clients of version 0 (RFC 6824) are answered as such; else they get plain TCP.
    pub version0: bool,
    /// Which subflow gets the next data.
    pub scheduler: Scheduler,
    /// Each subflow's congestion control.
    pub congestion: Congestion,
    /// Subflows of one connection.
    pub subflows: u8,
    /// Addresses that are announced to one client at most.
    pub announce: u8,
    /// Whether DSS checksums are asked for.
    pub checksum: bool,
    /// Whether a client is asked to use a subflow as backup whose losses hold the others up.
    pub ask_backup: bool,
    /// How long a connection lives without any subflow.
    pub no_subflow_timeout: Duration,
}

/// TCP, on both sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpConfig {
    /// Congestion control of plain TCP connections.
    pub congestion: Congestion,
    /// Initial congestion window in segments (RFC 6928).
    pub initial_window: u8,
    /// Shortest retransmission timeout.
    pub min_rto: Duration,
    /// Longest retransmission timeout.
    pub max_rto: Duration,
    /// Longest time that an acknowledgement is held back.
    pub delayed_ack: Duration,
    /// How long data may stay unacknowledged before the connection is given up.
    pub user_timeout: Duration,
    /// Idle time before a keepalive probe; `None` sends none.
    pub keepalive: Option<Duration>,
    /// How long a 4-tuple rests after its connection.
    pub time_wait: Duration,
    /// Whether timestamps (RFC 7323) are offered and accepted.
    pub timestamps: bool,
    /// Whether SACK (RFC 2018) is offered and accepted.
    pub sack: bool,
    /// Whether ECN (RFC 3168) is offered and accepted.
    pub ecn: bool,
    /// Whether CUBIC and NewReno send at a rate (the window over the RTT) instead of in bursts; BBR always does.
    pub pacing: bool,
}

/// What the box holds at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LimitsConfig {
    /// Live conversions.
    pub conversions: u32,
    /// Half-open records: SYNs carried to a server that has not answered.
    pub half_open: u32,
    /// Half-open records of one client address.
    pub half_open_per_source: u32,
    /// How long a half-open record lives after its client's last SYN.
    pub half_open_timeout: Duration,
    /// TIME-WAIT records.
    pub time_wait: u32,
    /// Learned neighbours.
    pub neighbours: u32,
    /// Frames of the region.
    pub frames: u32,
    /// Bytes of a frame: 2048 or 4096.
    pub frame_size: u32,
    /// Frames that only reception and control packets may use.
    pub rx_reserve: u32,
    /// Smallest window of a half, in frames.
    pub window_floor: u32,
    /// Largest window of a half, in frames.
    pub window_ceiling: u32,
}

/// The worker and its rings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerConfig {
    /// What it does when there is nothing to do.
    pub wait: Wait,
    /// The CPU that it is pinned to.
    pub cpu: Option<u16>,
    /// Frames taken from a port at a time.
    pub batch: u16,
    /// Descriptors of each ring of a port; a power of two.
    pub ring: u32,
    /// How long live conversions may go on after a signal to stop.
    pub drain: Duration,
    /// How long a start waits for next hops that do not answer ARP or NDP.
    pub next_hop_wait: Duration,
}

/// Where `mimbox stats` asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdminConfig {
    /// The Unix socket's path.
    pub socket: PathBuf,
}

/// Where the admin socket is unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/mimbox.sock";

/// A whole configuration, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The ports; a port's `id` is its index here.
    pub ports: Vec<PortConfig>,
    /// Ways through routers.
    pub routes: Vec<RouteConfig>,
    /// Explicit mode, when it is on.
    pub explicit: Option<ExplicitConfig>,
    /// Transparent mode, when it is on.
    pub transparent: Option<TransparentConfig>,
    /// Who may be converted.
    pub policy: PolicyConfig,
    /// Multipath TCP.
    pub mptcp: MptcpConfig,
    /// TCP.
    pub tcp: TcpConfig,
    /// Limits.
    pub limits: LimitsConfig,
    /// The worker.
    pub worker: WorkerConfig,
    /// The admin socket.
    pub admin: AdminConfig,
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// When the file cannot be read or anything in it is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, &name),
            Err(why) => {
                let help = match why.kind() {
                    std::io::ErrorKind::NotFound => "give the path of a configuration file with -c".to_owned(),
                    std::io::ErrorKind::PermissionDenied => "run as a user that may read the file".to_owned(),
                    std::io::ErrorKind::InvalidData => "write the file in UTF-8".to_owned(),
                    _ => "give the path of a readable text file with -c".to_owned(),
                };
                let problem = Problem {
                    line: 0,
                    column: 0,
                    source: String::new(),
                    width: 0,
                    what: format!("the configuration cannot be read: {why}"),
                    help,
                };
                Err(ConfigError { file: name, problems: vec![problem] })
            }
        }
    }

    /// Reads and checks `text`; `file` is its name in errors.
    ///
    /// # Errors
    /// When anything in it is wrong.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        check::parse(text).map_err(|problems| ConfigError { file: file.to_owned(), problems })
    }

    /// The configuration as a file in which every value is written out; [`Config::parse`] reads it back unchanged.
    pub fn to_toml(&self) -> String {
        render::to_toml(self)
    }

    /// The port with this number.
    pub fn port(&self, id: PortId) -> Option<&PortConfig> {
        self.ports.get(usize::from(id.0))
    }

    /// Every address of the box with its port.
    pub fn addresses(&self) -> impl Iterator<Item = (PortId, InterfaceAddress)> + '_ {
        self.ports.iter().flat_map(|port| port.addresses.iter().map(move |address| (port.id, *address)))
    }

    /// True when `addr` is one of the box's.
    pub fn owns(&self, addr: IpAddr) -> bool {
        self.addresses().any(|(_, own)| own.addr == addr)
    }
}

/// An Ethernet address as people write it.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
