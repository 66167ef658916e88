//! A bare forwarder over AF_XDP: IP from port to port, with the ports, rings and loop of the box and nothing else of it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result};
use clap::Args;
use mimbox_dataplane::af_xdp::{self, AfXdpConfig, AfXdpPortConfig, AttachMode, Take};
use mimbox_dataplane::neighbor::{Cidr, Interface, NeighborConfig, NeighborEvent, Resolution};
use mimbox_dataplane::{Engine, MonotonicClock, Neighbors, Port, Tick, Verdict, Worker, WorkerConfig};
use mimbox_stack::mem::Region;
use mimbox_stack::wire::{self, Hop, IpInfo, Parsed, Verify};
use mimbox_stack::{Counters, FramePool, Instant, PoolConfig, PortId, RxFrame, TxFrame};

/// `mimbox-lab bench forwarder`.
#[derive(Args, Clone, Debug)]
pub struct ForwarderArgs {
    /// A port: interface=address/prefix,address/prefix…
    #[arg(required = true)]
    pub ports: Vec<String>,
    /// Frames in all.
    #[arg(long, default_value_t = 65_536)]
    pub frames: u32,
}

/// Sends every IP packet on by the port that its destination is on.
struct Forwarder {
    pool: FramePool,
    counters: Counters,
    neighbors: Neighbors,
    out: VecDeque<TxFrame>,
}

impl Forwarder {
    fn take(&mut self, now: Instant, rx: RxFrame) {
        let bytes = self.pool.bytes(&rx.frame);
        let (start, end) = (usize::from(rx.offset), usize::from(rx.offset) + usize::from(rx.len));
        let parsed = bytes.get(start..end).map(|packet| wire::parse(packet, rx.offset, Verify::Lengths));
        match parsed {
            Some(Ok(Parsed::Tcp(info, _) | Parsed::Icmp(info) | Parsed::OtherIp(info))) => {
                return self.forward(now, rx, &info);
            }
            Some(Ok(Parsed::Arp(arp))) => {
                let packet = bytes.get(usize::from(arp.arp_offset)..usize::from(arp.end)).unwrap_or_default();
                self.neighbors.on_arp(now, rx.port, &arp.link, packet);
            }
            Some(Ok(Parsed::Ndp(info))) => self.neighbors.on_ndp(now, rx.port, &info, info.l4(bytes)),
            Some(Err(_)) | None => {}
        }
        self.pool.release(rx.frame);
    }

    fn forward(&mut self, now: Instant, rx: RxFrame, info: &IpInfo) {
        let (hop, waiting) = match self.neighbors.resolve(now, info.dst, None) {
            Resolution::Ready(hop) => (hop, None),
            Resolution::Pending(waiting) => (waiting.provisional(), Some(waiting)),
            _ => return self.pool.release(rx.frame),
        };
        let bytes = self.pool.bytes_mut(&rx.frame);
        if wire::decrement_ttl(bytes, info) == Hop::Expired {
            return self.pool.release(rx.frame);
        }
        if let Some(link) = bytes.get_mut(usize::from(info.start)..).and_then(|bytes| bytes.first_chunk_mut::<12>()) {
            link[..6].copy_from_slice(&hop.link.dst.0);
            link[6..].copy_from_slice(&hop.link.src.0);
        }
        let frame = TxFrame { port: hop.port, frame: rx.frame, offset: info.start, len: info.end - info.start };
        match waiting {
            Some(waiting) => {
                if let Err(frame) = self.neighbors.hold(waiting, frame) {
                    self.pool.release(frame.frame);
                }
            }
            None => {
                self.pool.tx_begin(&frame.frame);
                self.out.push_back(frame);
            }
        }
    }
}

impl Engine for Forwarder {
    fn on_frames(&mut self, now: Instant, batch: &mut Vec<RxFrame>) {
        for rx in batch.iter() {
            self.pool.prefetch(&rx.frame, usize::from(rx.offset));
        }
        for rx in batch.drain(..) {
            self.take(now, rx);
        }
    }

    fn on_timer(&mut self, now: Instant) {
        self.neighbors.on_timer(now);
        while let Some(event) = self.neighbors.poll_event() {
            if let NeighborEvent::Undeliverable { frame, .. } = event {
                self.pool.release(frame.frame);
            }
        }
    }

    fn poll_transmit(&mut self, _now: Instant) -> Option<TxFrame> {
        let frame = self.out.pop_front();
        frame.or_else(|| self.neighbors.poll_transmit(&mut self.pool, &mut self.counters))
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.neighbors.next_deadline()
    }

    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

/// A port's interface and addresses.
fn port(text: &str) -> Result<(String, Vec<Cidr>)> {
    let (interface, addresses) = text.split_once('=').with_context(|| format!("{text:?} has no ="))?;
    let addresses = addresses.split(',').map(|text| text.parse().map_err(|_| anyhow::anyhow!("{text:?}: no prefix")));
    Ok((interface.to_owned(), addresses.collect::<Result<_>>()?))
}

/// Forwards until it is killed. Prints `listening` when it is ready.
///
/// # Errors
/// When a port cannot be opened.
pub(crate) fn command(args: &ForwarderArgs) -> Result<()> {
    let wanted = args.ports.iter().map(|text| port(text)).collect::<Result<Vec<_>>>()?;
    let addresses: Vec<IpAddr> = wanted.iter().flat_map(|(_, all)| all.iter().map(Cidr::addr)).collect();
    let sockets = (0..).map(PortId).zip(&wanted).map(|(id, (interface, _))| AfXdpPortConfig {
        id,
        interface: interface.clone(),
        queue: 0,
        mac: None,
        attach: AttachMode::Auto,
        take: Take::Routed,
    });
    let mut pool = FramePool::new(Region::map(args.frames, 2048)?, PoolConfig { rx_reserve: args.frames / 8 });
    let ports = af_xdp::open(&mut pool, &AfXdpConfig::new(sockets.collect(), addresses))?;
    let interfaces = ports.iter().zip(&wanted).map(|(port, (_, addresses))| Interface {
        port: port.info().id,
        mac: port.info().mac,
        mtu: port.info().mtu,
        addresses: addresses.clone(),
    });
    let neighbors =
        Neighbors::new(&NeighborConfig { interfaces: interfaces.collect(), routes: Vec::new(), limit: 64 })?;
    let forwarder = Forwarder { pool, counters: Counters::default(), neighbors, out: VecDeque::new() };
    let ports = ports.into_iter().map(|port| Box::new(port) as Box<dyn Port>).collect();
    let mut worker = Worker::new(forwarder, ports, MonotonicClock::start(), WorkerConfig::default())?;
    println!("listening");
    worker.run(&AtomicBool::new(false), &mut |_: Tick<'_, Forwarder>| Verdict::Continue);
    Ok(())
}
