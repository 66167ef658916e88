//! The configuration as the engine needs it: looked up by port, in the engine's own types.

use std::net::IpAddr;

use mimbox_mptcp::{CapableSyn, Coupled, MptcpConfig, SchedulerKind, Version};
use mimbox_stack::tcp::{CcKind, TcpConfig};
use mimbox_stack::{Duration, FlowKey, PortId};

use crate::config::{Config, Congestion, PolicyConfig, Scheduler};
use crate::conversion::Mode;
use crate::window::WindowLimits;

/// Ports that the box opens connections from: the dynamic range, as Linux has it.
const SOURCE_PORTS: (u16, u16) = (32_768, 60_999);
/// The largest window that a SYN+ACK can state, as it is never scaled (RFC 7323 §2.2).
const MAX_UNSCALED_WINDOW: u32 = 65_535;
/// Connections that a conversion has on the average: two, and one more for every second subflow.
const CONNECTIONS_PER_CONVERSION: usize = 3;
/// IP MTU of a port that does not say otherwise.
const DEFAULT_MTU: u16 = 1500;

/// How one MPTCP half behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MptcpTerms {
    /// The data level.
    pub mptcp: MptcpConfig,
    /// Congestion control of each subflow.
    pub cc: CcKind,
    /// Addresses that are announced at most.
    pub announce: u8,
}

/// What the shard looks up on its way.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Ports where SYNs to the box may name a server.
    pub explicit_ports: Vec<PortId>,
    /// ExID of the destination option.
    pub exid: u16,
    /// The box's addresses towards servers.
    pub sources: Vec<IpAddr>,
    /// Ports behind which transparent clients are.
    pub transparent_from: Vec<PortId>,
    /// Addresses announced to transparent clients.
    announce_transparent: Vec<IpAddr>,
    /// Addresses announced to explicit clients.
    announce_explicit: Vec<IpAddr>,
    /// How MPTCP halves behave where no rule says otherwise; `None` when clients get plain TCP.
    pub mptcp: Option<MptcpTerms>,
    /// True when the box routes what is not for it.
    forwards: bool,
    /// Who may be converted to where.
    pub policy: PolicyConfig,
    /// How connections towards clients and servers behave.
    pub tcp: TcpConfig,
    /// Whether timestamps are offered.
    pub timestamps: bool,
    /// Whether selective acknowledgments are offered.
    pub sack: bool,
    /// Whether ECN is offered and agreed to.
    pub ecn: bool,
    /// What a direction of a conversion may hold.
    pub windows: WindowLimits,
    /// The shift that makes the largest window fit its field.
    pub window_scale: u8,
    /// Source ports, first and last.
    pub source_ports: (u16, u16),
    /// Most conversions.
    pub max_conversions: usize,
    /// Half-open slots.
    pub half_open: u32,
    /// Half-open slots of one client address.
    pub half_open_per_source: u32,
    /// How long a half-open record waits for its server.
    pub half_open_timeout: Duration,
    /// TIME-WAIT records.
    pub time_wait_records: usize,
    /// MTU by port.
    mtus: Vec<u16>,
    /// The box's addresses with their ports.
    addresses: Vec<(PortId, IpAddr)>,
}

impl Settings {
    /// The engine's view of `config`.
    pub(crate) fn new(config: &Config) -> Self {
        let windows =
            WindowLimits { floor_frames: config.limits.window_floor, ceiling_frames: config.limits.window_ceiling };
        let explicit = config.explicit.as_ref();
        let transparent = config.transparent.as_ref();
        Self {
            explicit_ports: explicit.map(|e| e.ports.clone()).unwrap_or_default(),
            exid: explicit.map_or(crate::redirect::dst_opt::DEFAULT_EXID, |e| e.exid),
            sources: explicit.map(|e| e.source.clone()).unwrap_or_default(),
            transparent_from: transparent.map(|t| t.from.clone()).unwrap_or_default(),
            announce_transparent: transparent.map(|t| t.announce.clone()).unwrap_or_default(),
            announce_explicit: explicit.map(|e| e.announce.clone()).unwrap_or_default(),
            mptcp: config.mptcp.enabled.then(|| mptcp_terms(config)),
            forwards: transparent.is_some(),
            policy: config.policy.clone(),
            tcp: tcp_config(config),
            timestamps: config.tcp.timestamps,
            sack: config.tcp.sack,
            ecn: config.tcp.ecn,
            windows,
            window_scale: window_scale(config.limits.window_ceiling),
            source_ports: SOURCE_PORTS,
            max_conversions: config.limits.conversions as usize,
            half_open: config.limits.half_open,
            half_open_per_source: config.limits.half_open_per_source,
            half_open_timeout: config.limits.half_open_timeout,
            time_wait_records: config.limits.time_wait as usize,
            addresses: config.addresses().map(|(port, own)| (port, own.addr)).collect(),
            mtus: config.ports.iter().map(|port| port.mtu_or_default()).collect(),
        }
    }

    /// How the MPTCP half of a client behaves, given the 4-tuple that its server is reached by.
    pub(crate) fn mptcp_terms(&self, client: IpAddr, server: &FlowKey) -> Option<MptcpTerms> {
        let mut terms = self.mptcp?;
        let Some(rule) = self.policy.rule(client, server.remote, server.remote_port) else { return Some(terms) };
        if let Some(kind) = rule.scheduler {
            terms.mptcp.scheduler = scheduler(kind);
        }
        if let Some(congestion) = rule.congestion {
            (terms.cc, terms.mptcp.coupled) = congestion_control(congestion);
        }
        if let Some(subflows) = rule.subflows {
            terms.mptcp.max_subflows = subflows;
        }
        if let Some(announce) = rule.announce {
            terms.announce = announce;
        }
        Some(terms)
    }

    /// True when an MP_CAPABLE like this is answered.
    pub(crate) fn answers(&self, capable: &CapableSyn) -> bool {
        self.mptcp.is_some_and(|terms| terms.mptcp.version_0 || capable.version() == Version::V1)
    }

    /// Addresses that clients of `mode` are told of.
    pub(crate) fn announced(&self, mode: Mode) -> &[IpAddr] {
        match mode {
            Mode::Explicit => &self.announce_explicit,
            Mode::Transparent => &self.announce_transparent,
        }
    }

    /// The port that has `addr`, if it is one of the box's.
    pub(crate) fn port_of(&self, addr: IpAddr) -> Option<PortId> {
        self.addresses.iter().find(|(_, own)| *own == addr).map(|(port, _)| *port)
    }

    /// IP MTU of a port.
    pub(crate) fn mtu(&self, port: PortId) -> u16 {
        self.mtus.get(usize::from(port.0)).copied().unwrap_or(DEFAULT_MTU)
    }

    /// IP MTU where no route says which port.
    pub(crate) fn default_mtu(&self) -> u16 {
        DEFAULT_MTU
    }

    /// True when the box routes packets that are not for it.
    pub(crate) fn forwards(&self) -> bool {
        self.forwards
    }

    /// Connections that the table is laid out for.
    pub(crate) fn max_connections(&self) -> usize {
        self.max_conversions.saturating_mul(CONNECTIONS_PER_CONVERSION).max(64)
    }

    /// The window that a SYN or SYN+ACK states: what a fresh direction may hold, as far as the field goes.
    pub(crate) fn initial_window(&self, mss: u16) -> u32 {
        self.windows.floor_frames.saturating_mul(u32::from(mss)).min(MAX_UNSCALED_WINDOW)
    }
}

/// How MPTCP halves behave.
fn mptcp_terms(config: &Config) -> MptcpTerms {
    let (cc, coupled) = congestion_control(config.mptcp.congestion);
    let mptcp = MptcpConfig {
        checksum: config.mptcp.checksum,
        ask_backup: config.mptcp.ask_backup,
        version_0: config.mptcp.version0,
        scheduler: scheduler(config.mptcp.scheduler),
        coupled,
        max_subflows: config.mptcp.subflows,
        no_subflow_timeout: config.mptcp.no_subflow_timeout,
        max_reorder_frames: config.limits.window_ceiling.min(u32::from(u16::MAX)) as u16,
        ..MptcpConfig::default()
    };
    MptcpTerms { mptcp, cc, announce: config.mptcp.announce }
}

fn scheduler(scheduler: Scheduler) -> SchedulerKind {
    match scheduler {
        Scheduler::LowestRtt => SchedulerKind::LowestRtt,
        Scheduler::RoundRobin => SchedulerKind::RoundRobin,
        Scheduler::Redundant => SchedulerKind::Redundant,
        Scheduler::Blest => SchedulerKind::Blest,
    }
}

/// What each connection runs, and what couples it with others.
fn congestion_control(congestion: Congestion) -> (CcKind, Coupled) {
    match congestion {
        Congestion::Cubic => (CcKind::Cubic, Coupled::No),
        Congestion::NewReno => (CcKind::NewReno, Coupled::No),
        Congestion::Bbr => (CcKind::Bbr, Coupled::No),
        Congestion::Lia => (CcKind::Coupled, Coupled::Lia),
        Congestion::Olia => (CcKind::Coupled, Coupled::Olia),
        Congestion::Balia => (CcKind::Coupled, Coupled::Balia),
    }
}

/// How every connection behaves.
fn tcp_config(config: &Config) -> TcpConfig {
    TcpConfig {
        min_rto: config.tcp.min_rto,
        max_rto: config.tcp.max_rto,
        user_timeout: config.tcp.user_timeout,
        keepalive: config.tcp.keepalive,
        delayed_ack: config.tcp.delayed_ack,
        time_wait: config.tcp.time_wait,
        cc: congestion_control(config.tcp.congestion).0,
        initial_cwnd: config.tcp.initial_window,
        pacing: config.tcp.pacing,
        max_ooo_frames: config.limits.window_ceiling.min(u32::from(u16::MAX)) as u16,
        ..TcpConfig::default()
    }
}

/// The smallest shift by which `frames` full frames fit the 16-bit window field (RFC 7323 §2.3: at most 14).
fn window_scale(frames: u32) -> u8 {
    let bytes = u64::from(frames) * 1_500;
    (0..14).find(|shift| bytes >> shift <= u64::from(MAX_UNSCALED_WINDOW)).unwrap_or(14)
}
