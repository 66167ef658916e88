//! From a configuration to a running box, and in good order back to nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8};

use mimbox_dataplane::af_xdp::{self, AfXdpConfig, AfXdpPort, AfXdpPortConfig, AttachMode, BusyPoll, LinkWatch, Take};
use mimbox_dataplane::neighbor::{Cidr, Interface, NeighborConfig, NeighborError, Route};
use mimbox_dataplane::record::{Head, RecordError, RecordWriter};
use mimbox_dataplane::worker::pin_to_cpu;
use mimbox_dataplane::{Clock, MonotonicClock, Neighbors, Port, PortError, Worker, WorkerConfig};
use mimbox_stack::mem::Region;
use mimbox_stack::wire::MacAddr;
use mimbox_stack::{Duration, FramePool, PoolConfig};
use thiserror::Error;

use crate::admin::{AdminError, AdminServer};
use crate::config::{Backend, Config, ConfigError, CopyMode, Wait, XdpMode};
use crate::metrics::Operated;

mod observe;
mod probe;
mod signals;
mod system;
#[cfg(test)]
mod tests;

use observe::Observer;
pub use probe::NextHop;
pub use system::{checksum_advice, missing_privileges};

/// How long a worker looks for packets before it sleeps.
const SPIN: Duration = Duration::from_micros(20);

/// Why a box does not run. Each says what, where and what to do.
#[derive(Debug, Error)]
pub enum Failure {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// A port cannot be opened.
    #[error("port {name:?}: {source}")]
    Port {
        /// The port's name.
        name: String,
        /// Why.
        source: PortError,
    },
    /// Addresses and routes contradict each other.
    #[error("{0}")]
    Neighbors(#[from] NeighborError),
    /// A backend that cannot run.
    #[error("port {name:?}: backend {backend:?} cannot be run by this version; write backend = \"af_xdp\"")]
    Backend {
        /// The port's name.
        name: String,
        /// Its backend.
        backend: &'static str,
    },
    /// The ports do not agree on something that they share.
    #[error("port {name:?}: copy differs from the other ports', but all share one memory: write the same on each")]
    CopyDiffers {
        /// The port's name.
        name: String,
    },
    /// The process lacks privileges.
    #[error(
        "this process lacks {0}: run as root, or with these capabilities (`setcap` or the service manager gives them)"
    )]
    Privileges(String),
    /// No memory for the frames.
    #[error("no memory for {frames} frames of {size} bytes: {source}; make `frames` under [limits] smaller")]
    Memory {
        /// Frames asked for.
        frames: u32,
        /// Bytes of each.
        size: u32,
        /// What the system said.
        source: io::Error,
    },
    /// The CPU cannot be used.
    #[error("the worker cannot be kept on CPU {cpu}: {source}; mend `cpu` under [worker] (`nproc` counts them from 1)")]
    Cpu {
        /// Its number.
        cpu: u16,
        /// What the system said.
        source: io::Error,
    },
    /// A next hop does not answer.
    #[error("{0}")]
    NextHop(String),
    /// The admin socket cannot be made.
    #[error("{0}")]
    Admin(#[from] AdminError),
    /// The recording cannot be made.
    #[error("the recording cannot be made: {0}; give --record a path that can be written")]
    Record(#[from] RecordError),
    /// The system refused something that every process needs.
    #[error("{doing} failed: {source}; look at the limits of this process (`ulimit -a`)")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// Frames were held when nothing was left that could hold them.
    #[error("{0} frames were not given back at the end: this is a bug in mimbox, please report it")]
    Leak(u32),
}

impl Failure {
    /// The exit status: 2 for what the operator can mend, 1 for what only a developer can.
    pub const fn status(&self) -> u8 {
        match self {
            Self::Leak(_) | Self::System { .. } => 1,
            _ => 2,
        }
    }
}

/// A configuration with what the operating system knows of its interfaces: every port has its Ethernet address and MTU.
///
/// # Errors
/// When an interface is missing or unfit, or a backend cannot run.
pub fn complete(mut config: Config) -> Result<Config, Failure> {
    let transparent = config.transparent.is_some();
    let wanted = config.ports.first().map(|port| port.copy);
    for port in &mut config.ports {
        let name = port.name.clone();
        if port.backend != Backend::AfXdp {
            return Err(Failure::Backend { name, backend: port.backend.name() });
        }
        if wanted.is_some_and(|copy| copy != port.copy) {
            return Err(Failure::CopyDiffers { name });
        }
        let facts = af_xdp::check(&socket_config(port, transparent), config.limits.frame_size)
            .map_err(|source| Failure::Port { name: name.clone(), source })?;
        if !facts.up {
            tracing::warn!(
                port = port.name,
                interface = port.interface,
                "the interface is down: `ip link set dev {} up`",
                port.interface
            );
        }
        port.mac = port.mac.or(Some(facts.mac.0));
        let mtu = port.mtu.map_or(facts.mtu, u32::from);
        let (frame_size, max) = (config.limits.frame_size, af_xdp::largest_mtu(config.limits.frame_size));
        if mtu > max {
            let interface = port.interface.clone();
            return Err(Failure::Port { name, source: PortError::Mtu { interface, mtu, max, frame_size } });
        }
        port.mtu = u16::try_from(mtu).ok();
    }
    Ok(config)
}

/// A port as the AF_XDP backend is told of it.
fn socket_config(port: &crate::config::PortConfig, transparent: bool) -> AfXdpPortConfig {
    AfXdpPortConfig {
        id: port.id,
        interface: port.interface.clone(),
        queue: u32::from(port.queue),
        mac: port.mac.map(MacAddr),
        attach: match port.mode {
            XdpMode::Auto => AttachMode::Auto,
            XdpMode::Native => AttachMode::Native,
            XdpMode::Generic => AttachMode::Generic,
        },
        // In transparent mode the box is the router between all its ports: answers of servers come by the others.
        take: if transparent { Take::Routed } else { Take::Own },
    }
}

/// The box's addresses and routes as its engine knows them. The configuration must be [`complete`], or the Ethernet
/// addresses and MTUs are made up.
///
/// # Errors
/// When they contradict each other.
pub fn neighbours(config: &Config) -> Result<Neighbors, NeighborError> {
    let cidr = |addr, len| Cidr::new(addr, len);
    Neighbors::new(&NeighborConfig {
        interfaces: config
            .ports
            .iter()
            .map(|port| Interface {
                port: port.id,
                mac: MacAddr(port.mac_or_default()),
                mtu: port.mtu_or_default(),
                addresses: port.addresses.iter().filter_map(|own| cidr(own.addr, own.prefix_len)).collect(),
            })
            .collect(),
        routes: config
            .routes
            .iter()
            .filter_map(|route| {
                let prefix = cidr(route.prefix.network(), route.prefix.len())?;
                Some(Route { prefix, via: Some(route.via), port: route.port })
            })
            .collect(),
        limit: config.limits.neighbours as usize,
    })
}

/// Maps the region and makes the pool over it.
fn pool(config: &Config) -> Result<FramePool, Failure> {
    let (frames, size) = (config.limits.frames, config.limits.frame_size);
    let region = Region::map(frames, size).map_err(|source| Failure::Memory { frames, size, source })?;
    tracing::info!(frames, frame_size = size, "frames");
    Ok(FramePool::new(region, PoolConfig { rx_reserve: config.limits.rx_reserve }))
}

/// Opens every port of a complete configuration.
fn open(config: &Config, pool: &mut FramePool) -> Result<Vec<AfXdpPort>, Failure> {
    let transparent = config.transparent.is_some();
    let sockets = config.ports.iter().map(|port| socket_config(port, transparent)).collect();
    let addresses = config.addresses().map(|(_, own)| own.addr).collect();
    let wanted = AfXdpConfig {
        ring: config.worker.ring,
        copy: match config.ports.first().map_or(CopyMode::Auto, |port| port.copy) {
            CopyMode::Auto => af_xdp::CopyMode::Auto,
            CopyMode::Copy => af_xdp::CopyMode::Copy,
            CopyMode::ZeroCopy => af_xdp::CopyMode::ZeroCopy,
        },
        busy_poll: (config.worker.wait == Wait::KernelBusyPoll).then(BusyPoll::default),
        ..AfXdpConfig::new(sockets, addresses)
    };
    af_xdp::open(pool, &wanted).map_err(|source| {
        let interface = interface_of(&source);
        let port = config.ports.iter().find(|port| interface.is_none_or(|interface| *interface == port.interface));
        Failure::Port { name: port.map_or_else(String::new, |port| port.name.clone()), source }
    })
}

/// The interface that a port's error is about.
fn interface_of(error: &PortError) -> Option<&String> {
    match error {
        PortError::NoInterface { interface }
        | PortError::NoPrivilege { interface, .. }
        | PortError::Queues { interface, .. }
        | PortError::Mtu { interface, .. }
        | PortError::Busy { interface, .. }
        | PortError::Twice { interface }
        | PortError::Steering { interface, .. }
        | PortError::Io { interface, .. } => Some(interface),
        PortError::NoAfXdp | PortError::Capture { .. } => None,
    }
}

/// Checks what can be checked without taking the interfaces: that they are there and fit, and privileges. With `probe`
/// the ports are opened for a moment and every next hop must answer.
///
/// # Errors
/// What `run` would fail with.
pub fn check(config: Config, probe: bool) -> Result<Vec<NextHop>, Failure> {
    let config = complete(config)?;
    let _ = neighbours(&config)?;
    require_privileges()?;
    if !probe {
        return Ok(Vec::new());
    }
    let mut pool = pool(&config)?;
    let mut ports = open(&config, &mut pool)?;
    let hops = probe::next_hops(&config, &mut pool, &mut ports, || false);
    for port in &mut ports {
        port.close(&mut pool);
    }
    hops
}

fn require_privileges() -> Result<(), Failure> {
    match missing_privileges() {
        missing if missing.is_empty() => Ok(()),
        missing => Err(Failure::Privileges(missing.join(", "))),
    }
}

/// Runs a box until it is told to stop by SIGINT or SIGTERM. `make` makes the engine of the complete configuration, the
/// pool, the seed of its randomness, and its neighbours.
///
/// # Errors
/// When the box cannot be started, or has lost frames at the end.
pub fn run<E: Operated>(
    config: Config,
    record: Option<&Path>,
    make: impl FnOnce(&Config, FramePool, u64, Neighbors) -> E,
) -> Result<(), Failure> {
    require_privileges()?;
    let config = complete(config)?;
    let seed = system::seed().map_err(|source| Failure::System { doing: "reading /dev/urandom", source })?;
    let neighbours = neighbours(&config)?;
    // Before anything is taken: a signal during the start must find somebody who cleans up.
    let signals = signals::Signals::catch().map_err(|source| Failure::System { doing: "catching signals", source })?;
    let mut pool = pool(&config)?;
    let mut ports = open(&config, &mut pool)?;
    let hops = probe::next_hops(&config, &mut pool, &mut ports, || signals.arrived());
    if hops.is_err() || signals.arrived() {
        for port in &mut ports {
            port.close(&mut pool);
        }
    }
    for hop in hops? {
        if let Some(mac) = hop.mac {
            tracing::info!(next_hop = %hop.via, port = hop.port, %mac, "the next hop answers");
        }
    }
    if signals.arrived() {
        tracing::info!("asked to stop before the box was up");
        return Ok(());
    }
    if let Some(cpu) = config.worker.cpu {
        pin_to_cpu(cpu).map_err(|source| Failure::Cpu { cpu, source })?;
    }
    let engine = make(&config, pool, seed, neighbours);
    let ports: Vec<Box<dyn Port>> = ports.into_iter().map(|port| Box::new(port) as Box<dyn Port>).collect();
    let mut worker = Worker::new(engine, ports, MonotonicClock::start(), worker_config(&config))
        .map_err(|source| Failure::System { doing: "making the worker", source })?;
    if let Some(path) = record {
        worker.record(Box::new(recorder(path, &config, seed)?));
        tracing::info!(file = %path.display(), "recording");
    }
    let links = LinkWatch::open().map_err(|source| Failure::System { doing: "listening for links", source })?;
    worker.watch(Box::new(links));
    let stop_requests = Arc::new(AtomicU8::new(0));
    let _listening = signals.listen(Arc::clone(&stop_requests), worker.waker());
    serve(worker, &config, stop_requests)
}

/// Everything from the first packet to the last. A request to stop drains the box, a second one stops it at once.
fn serve<E: Operated, C: Clock>(
    mut worker: Worker<E, C>,
    config: &Config,
    stop_requests: Arc<AtomicU8>,
) -> Result<(), Failure> {
    let waker = worker.waker();
    let (server, requests) = AdminServer::start(&config.admin.socket, move || waker.raise())?;
    tracing::info!(socket = %config.admin.socket.display(), "the box is up");
    let mut observer = Observer::new(config, requests, stop_requests);
    worker.run(&AtomicBool::new(false), &mut observer);
    let now = observer.last_tick();
    // Whoever still waits for an answer is told that none will come.
    drop(observer);
    let mut engine = worker.close();
    engine.release_all(now);
    drop(server);
    let audit = engine.pool().audit();
    if audit.held > 0 || audit.broken > 0 {
        return Err(Failure::Leak(audit.held + audit.broken));
    }
    tracing::info!(frames = audit.free, "stopped; every frame was given back");
    Ok(())
}

fn worker_config(config: &Config) -> WorkerConfig {
    WorkerConfig {
        wait: match config.worker.wait {
            Wait::Sleep => mimbox_dataplane::Wait::Sleep { spin: SPIN },
            Wait::BusyPoll | Wait::KernelBusyPoll => mimbox_dataplane::Wait::BusyPoll,
        },
        batch: usize::from(config.worker.batch),
        ..WorkerConfig::default()
    }
}

/// A recording that says all that a replay needs: the seed, and the configuration with Ethernet addresses and MTUs.
fn recorder(path: &Path, config: &Config, seed: u64) -> Result<RecordWriter, RecordError> {
    let ports = config.ports.iter().map(|port| port.name.clone()).collect();
    RecordWriter::create(&PathBuf::from(path), &Head { seed, config: config.to_toml(), ports })
}
