//! Whether the next hops of the routes answer ARP and NDP, asked before the engine takes over.

use std::net::IpAddr;

use mimbox_dataplane::neighbor::Resolution;
use mimbox_dataplane::{Clock as _, MonotonicClock, Neighbors, Port};
use mimbox_stack::wire::{self, MacAddr, Parsed, Verify};
use mimbox_stack::{Counters, Duration, FramePool, Instant, RxFrame};

use super::Failure;
use crate::config::Config;

/// How often the ports are looked at while an answer is awaited.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(2);
/// An answer that takes longer than this is worth a line in the log.
const USUAL: Duration = Duration::from_millis(1_200);

/// A next hop, and whether it answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NextHop {
    /// Its address.
    pub via: IpAddr,
    /// The port that it is behind.
    pub port: String,
    /// The port's interface.
    pub interface: String,
    /// Its Ethernet address, if it answered.
    pub mac: Option<MacAddr>,
}

impl NextHop {
    /// What to say of one that does not answer.
    pub fn complaint(&self) -> String {
        let Self { via, port, interface, .. } = self;
        let protocol = if via.is_ipv4() { "ARP" } else { "NDP" };
        format!(
            "the next hop {via} does not answer {protocol} on port {port:?} ({interface}): look at the cable and at the \
             router, or mend `via` of the [[route]]; a router that comes up later than the box needs a longer \
             `next_hop_wait` under [worker]"
        )
    }
}

/// Asks for every next hop of `config` until each has answered, the configured patience is over, or `stop` says so. Other
/// packets that arrive meanwhile are lost, as they are while a box is not there yet.
///
/// # Errors
/// When one has not answered in time, unless it was stopped.
pub(super) fn next_hops<P: Port>(
    config: &Config,
    pool: &mut FramePool,
    ports: &mut [P],
    stop: impl Fn() -> bool,
) -> Result<Vec<NextHop>, Failure> {
    let mut hops = wanted(config);
    if hops.is_empty() {
        return Ok(hops);
    }
    let clock = MonotonicClock::start();
    let started = clock.now();
    let patience = config.worker.next_hop_wait;
    let mut neighbours = super::neighbours(config)?;
    let mut counters = Counters::default();
    let mut warned = false;
    let mut stopped = false;
    loop {
        let now = clock.now();
        for hop in hops.iter_mut().filter(|hop| hop.mac.is_none()) {
            let Some(port) = config.ports.iter().find(|port| port.name == hop.port) else { continue };
            if let Resolution::Ready(found) = neighbours.resolve_on(now, port.id, hop.via) {
                hop.mac = Some(found.link.dst);
            }
        }
        neighbours.on_timer(now);
        exchange(now, &mut neighbours, pool, ports, &mut counters);
        stopped |= stop();
        if stopped || now.since(started) >= patience || hops.iter().all(|hop| hop.mac.is_some()) {
            break;
        }
        if !warned && now.since(started) >= USUAL {
            warned = true;
            for hop in hops.iter().filter(|hop| hop.mac.is_none()) {
                tracing::warn!(next_hop = %hop.via, port = hop.port, %patience, "no answer yet; still asking");
            }
        }
        wait();
    }
    neighbours.release_all(pool);
    let silent: Vec<String> = hops.iter().filter(|hop| hop.mac.is_none()).map(NextHop::complaint).collect();
    if silent.is_empty() || stopped { Ok(hops) } else { Err(Failure::NextHop(silent.join("\n"))) }
}

/// The next hops of the routes, each once.
fn wanted(config: &Config) -> Vec<NextHop> {
    let mut hops: Vec<NextHop> = Vec::new();
    for route in &config.routes {
        let Some(port) = config.port(route.port) else { continue };
        if !hops.iter().any(|hop| hop.via == route.via && hop.port == port.name) {
            let (name, interface) = (port.name.clone(), port.interface.clone());
            hops.push(NextHop { via: route.via, port: name, interface, mac: None });
        }
    }
    hops
}

#[expect(clippy::disallowed_methods, reason = "the engine does not run yet; there is nothing to poll but the ports")]
fn wait() {
    std::thread::sleep(LOOK_EVERY);
}

/// Hands what arrived to the neighbours, and sends what they have to say.
fn exchange<P: Port>(
    now: Instant,
    neighbours: &mut Neighbors,
    pool: &mut FramePool,
    ports: &mut [P],
    counters: &mut Counters,
) {
    let mut batch: Vec<RxFrame> = Vec::new();
    for port in ports.iter_mut() {
        port.refill(pool);
        port.receive(pool, &mut batch, 64);
    }
    for rx in batch {
        hear(now, neighbours, pool, &rx);
        pool.release(rx.frame);
    }
    while let Some(frame) = neighbours.poll_transmit(pool, counters) {
        let port = ports.iter_mut().find(|port| port.info().id == frame.port);
        let refused = match port {
            Some(port) => port.transmit(pool, frame).err(),
            None => Some(frame),
        };
        // The question is asked again soon.
        if let Some(frame) = refused {
            pool.tx_complete(frame.frame);
        }
    }
    for port in ports {
        port.flush();
        port.complete(pool);
    }
}

fn hear(now: Instant, neighbours: &mut Neighbors, pool: &FramePool, rx: &RxFrame) {
    let bytes = pool.bytes(&rx.frame);
    let start = usize::from(rx.offset);
    let Some(packet) = bytes.get(start..start + usize::from(rx.len)) else { return };
    match wire::parse(packet, rx.offset, Verify::All) {
        Ok(Parsed::Arp(info)) => {
            let arp = bytes.get(usize::from(info.arp_offset)..usize::from(info.end)).unwrap_or_default();
            neighbours.on_arp(now, rx.port, &info.link, arp);
        }
        Ok(Parsed::Ndp(info)) => {
            let message = bytes.get(usize::from(info.l4_offset)..usize::from(info.end)).unwrap_or_default();
            neighbours.on_ndp(now, rx.port, &info, message);
        }
        _ => {}
    }
}
