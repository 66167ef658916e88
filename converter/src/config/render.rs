//! A configuration written out in full, as a recording carries it.

use mimbox_stack::PortId;
use mimbox_stack::time::Duration;
use toml::Spanned;

use super::check::duration_text;
use super::file::{self, File, Number, Text};
use super::{
    AdminConfig, Config, ExplicitConfig, LimitsConfig, MptcpConfig, PolicyConfig, PolicyRule, PortConfig, RouteConfig,
    TcpConfig, TransparentConfig, WorkerConfig,
};

/// The whole configuration; every structure is taken apart by name, so that a new field is not forgotten here.
pub(super) fn to_toml(config: &Config) -> String {
    let Config { ports, routes, explicit, transparent, policy, mptcp, tcp, limits, worker, admin } = config;
    let name = |id: PortId| config.port(id).map_or_else(String::new, |port| port.name.clone());
    let names = |ids: &[PortId]| Some(place(ids.iter().map(|id| place(name(*id))).collect()));
    let file = File {
        port: ports.iter().map(|port| place(self::port(port))).collect(),
        route: routes
            .iter()
            .map(|RouteConfig { prefix, via, port }| {
                place(file::Route { prefix: text(prefix), via: text(via), port: text(&name(*port)) })
            })
            .collect(),
        explicit: explicit.as_ref().map(|ExplicitConfig { ports, exid, source, announce }| {
            place(file::Explicit {
                ports: names(ports),
                source: list(source),
                announce: list(announce),
                dst_opt: Some(place(file::DstOpt { exid: number(*exid) })),
            })
        }),
        transparent: transparent.as_ref().map(|TransparentConfig { from, announce }| {
            place(file::Transparent { from: names(from), announce: list(announce) })
        }),
        policy: self::policy(policy),
        mptcp: self::mptcp(mptcp),
        tcp: self::tcp(tcp),
        limits: self::limits(limits),
        worker: self::worker(worker),
        admin: self::admin(admin),
    };
    toml::to_string(&file).expect("tables with text keys and plain values are always TOML")
}

fn place<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

fn text(value: &impl ToString) -> Option<Text> {
    Some(place(value.to_string()))
}

fn number(value: impl Into<i64>) -> Option<Number> {
    Some(place(value.into()))
}

fn time(value: Duration) -> Option<Text> {
    Some(place(duration_text(value)))
}

fn list<T: ToString>(values: &[T]) -> Option<Spanned<Vec<Text>>> {
    Some(place(values.iter().map(|value| place(value.to_string())).collect()))
}

fn port(port: &PortConfig) -> file::Port {
    let PortConfig { id: _, name, interface, backend, addresses, mode, copy, queue, mac, mtu } = port;
    file::Port {
        name: text(name),
        interface: text(interface),
        backend: text(&backend.name()),
        addresses: list(addresses),
        mode: text(&mode.name()),
        copy: text(&copy.name()),
        queue: number(*queue),
        mac: mac.map(|mac| place(super::mac_text(mac))),
        mtu: mtu.map(|mtu| place(i64::from(mtu))),
    }
}

fn policy(policy: &PolicyConfig) -> file::Policy {
    let PolicyConfig { clients, allow, deny, rules } = policy;
    let rule = rules.iter().map(|rule| place(self::rule(rule))).collect();
    file::Policy { clients: list(clients), allow: list(allow), deny: list(deny), rule }
}

fn rule(rule: &PolicyRule) -> file::Rule {
    let PolicyRule { clients, servers, ports, scheduler, congestion, subflows, announce } = rule;
    file::Rule {
        clients: list(clients),
        servers: list(servers),
        ports: Some(place(ports.iter().map(|port| place(i64::from(*port))).collect())),
        scheduler: scheduler.and_then(|scheduler| text(&scheduler.name())),
        congestion: congestion.and_then(|congestion| text(&congestion.name())),
        subflows: subflows.and_then(number),
        announce: announce.and_then(number),
    }
}

fn mptcp(mptcp: &MptcpConfig) -> file::Mptcp {
    let MptcpConfig {
        enabled,
        version0,
        scheduler,
        congestion,
        subflows,
        announce,
        checksum,
        ask_backup,
        no_subflow_timeout,
    } = mptcp;
    file::Mptcp {
        enabled: Some(*enabled),
        version0: Some(*version0),
        scheduler: text(&scheduler.name()),
        congestion: text(&congestion.name()),
        subflows: number(*subflows),
        announce: number(*announce),
        checksum: Some(*checksum),
        ask_backup: Some(*ask_backup),
        no_subflow_timeout: time(*no_subflow_timeout),
    }
}

fn tcp(tcp: &TcpConfig) -> file::Tcp {
    let TcpConfig {
        congestion,
        initial_window,
        min_rto,
        max_rto,
        delayed_ack,
        user_timeout,
        keepalive,
        time_wait,
        timestamps,
        sack,
        ecn,
        pacing,
    } = tcp;
    file::Tcp {
        congestion: text(&congestion.name()),
        initial_window: number(*initial_window),
        min_rto: time(*min_rto),
        max_rto: time(*max_rto),
        delayed_ack: time(*delayed_ack),
        user_timeout: time(*user_timeout),
        keepalive: keepalive.map_or_else(|| text(&"off"), time),
        time_wait: time(*time_wait),
        timestamps: Some(*timestamps),
        sack: Some(*sack),
        ecn: Some(*ecn),
        pacing: Some(*pacing),
    }
}

fn limits(limits: &LimitsConfig) -> file::Limits {
    let LimitsConfig {
        conversions,
        half_open,
        half_open_per_source,
        half_open_timeout,
        time_wait,
        neighbours,
        frames,
        frame_size,
        rx_reserve,
        window_floor,
        window_ceiling,
    } = limits;
    file::Limits {
        conversions: number(*conversions),
        half_open: number(*half_open),
        half_open_per_source: number(*half_open_per_source),
        half_open_timeout: time(*half_open_timeout),
        time_wait: number(*time_wait),
        neighbours: number(*neighbours),
        frames: number(*frames),
        frame_size: number(*frame_size),
        rx_reserve: number(*rx_reserve),
        window_floor: number(*window_floor),
        window_ceiling: number(*window_ceiling),
    }
}

fn worker(worker: &WorkerConfig) -> file::Worker {
    let WorkerConfig { wait, cpu, batch, ring, drain, next_hop_wait } = worker;
    file::Worker {
        wait: text(&wait.name()),
        cpu: cpu.map(|cpu| place(i64::from(cpu))),
        batch: number(*batch),
        ring: number(*ring),
        drain: time(*drain),
        next_hop_wait: time(*next_hop_wait),
    }
}

fn admin(admin: &AdminConfig) -> file::Admin {
    file::Admin { socket: text(&admin.socket.display()) }
}
