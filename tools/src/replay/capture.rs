//! A plain capture through the engine: what the packets' own network saw, not what moved a box.
//!
//! A capture says less than a recording: not which packets came in one batch, not when timers ran, and in most cases not
//! which of the packets the box itself sent. The last is told by the Ethernet addresses.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, bail};
use mimbox_converter::config::{Config, PortConfig};
use mimbox_dataplane::pcap::{CaptureReader, Direction, Item, Packet};
use mimbox_stack::wire::{self, Parsed, Verify};
use mimbox_stack::{Duration, Instant, PortId};

use super::command::{ReplayArgs, Replayed, out};
use super::drive::Driver;
use super::out::Outputs;
use crate::engine;

/// How long the engine's timers go on after the last packet of a capture.
const LINGER: Duration = Duration::from_secs(10);
/// The engine's time at the first packet, as with a live box.
const START: Instant = Instant::from_millis(1_000);

/// Runs a capture through an engine.
pub(super) fn replay_capture(args: &ReplayArgs, mut config: Config) -> anyhow::Result<Replayed> {
    let path = &args.file;
    let first = learn(path, &mut config)?;
    let epoch = first.saturating_sub(START.as_nanos());
    let mut out = out(args, &config)?;
    if let Some(out) = &mut out {
        out.set_epoch(epoch);
    }
    let mut outputs = Outputs::new(out, None);
    let mut driver = Driver::new(engine::shard(&config, args.seed.unwrap_or(0))?);
    let mut replayed = Replayed::default();
    let mut last = START;
    let mut file = Packets::open(path)?;
    let end = loop {
        let (packet, port) = match file.next(&config) {
            Ok(Some(next)) => next,
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        match whose(&packet, port) {
            Whose::Sent => replayed.skipped.sent += 1,
            Whose::Others => replayed.skipped.others += 1,
            Whose::Received(port) => {
                replayed.events += 1;
                outputs.begin_event(replayed.events);
                last = last.max(Instant::from_nanos(packet.nanos.saturating_sub(epoch)));
                driver.captured(last, port, &packet.bytes, &mut outputs).with_context(|| file.place())?;
            }
        }
    };
    if end.is_none() {
        driver.timers_until(last + LINGER, &mut outputs)?;
    }
    replayed.counters = driver.finish();
    (replayed.frames, _) = outputs.finish()?;
    match end {
        None => Ok(replayed),
        Some(error) => Err(error.context(format!("stopped after {replayed}"))),
    }
}

/// The packets of a capture with the ports that their interfaces stand for.
struct Packets<'a> {
    path: &'a Path,
    file: CaptureReader,
    /// The names of the interfaces so far.
    interfaces: Vec<Option<String>>,
    /// Packets so far.
    count: u64,
}

impl<'a> Packets<'a> {
    fn open(path: &'a Path) -> anyhow::Result<Self> {
        let file = CaptureReader::open(path).with_context(|| format!("cannot read {} as a capture", path.display()))?;
        Ok(Self { path, file, interfaces: Vec::new(), count: 0 })
    }

    /// The last packet, for an error about it.
    fn place(&self) -> String {
        format!("packet {} of {}", self.count, self.path.display())
    }

    fn next<'c>(&mut self, config: &'c Config) -> anyhow::Result<Option<(Packet, Option<&'c PortConfig>)>> {
        loop {
            match self
                .file
                .next_item()
                .with_context(|| format!("{}, behind packet {}", self.path.display(), self.count))?
            {
                None => return Ok(None),
                Some(Item::Interface { name }) => self.interfaces.push(name),
                Some(Item::Note(_)) => {}
                Some(Item::Packet(packet)) => {
                    self.count += 1;
                    let (here, wire) = (packet.bytes.len(), packet.wire_len);
                    if here < wire as usize {
                        let place = self.place();
                        bail!("{place} holds {here} of {wire} bytes: capture whole packets (`tcpdump -s 0`)");
                    }
                    let name = self.interfaces.get(packet.interface as usize).and_then(Option::as_deref);
                    let port = port_of(config, packet.interface, name);
                    return Ok(Some((packet, port)));
                }
            }
        }
    }
}

/// The port that an interface of a capture stands for.
fn port_of<'c>(config: &'c Config, index: u32, name: Option<&str>) -> Option<&'c PortConfig> {
    let named = config.ports.iter().find(|port| name.is_some_and(|name| port.name == name || port.interface == name));
    named.or_else(|| config.ports.get(index as usize))
}

/// Finds out when the capture begins, and the Ethernet addresses of ports whose configuration does not have one.
fn learn(path: &Path, config: &mut Config) -> anyhow::Result<u64> {
    let mut first = None;
    let mut found: Vec<(PortId, [u8; 6])> = Vec::new();
    // Clients reach any address of the box through any port.
    let own: Vec<IpAddr> = config.addresses().map(|(_, own)| own.addr).collect();
    let mut file = Packets::open(path)?;
    // What is wrong with the file shows when it is replayed.
    while let Ok(Some((packet, port))) = file.next(config) {
        first.get_or_insert(packet.nanos);
        let Some(port) = port.filter(|port| port.mac.is_none()) else { continue };
        if found.iter().any(|(id, _)| *id == port.id) {
            continue;
        }
        found.extend(mac_of(&packet.bytes, &own).map(|mac| (port.id, mac)));
    }
    for port in &mut config.ports {
        if let Some((_, mac)) = found.iter().find(|(id, _)| *id == port.id) {
            port.mac = Some(*mac);
        }
    }
    Ok(first.unwrap_or(START.as_nanos()))
}

/// The Ethernet address of the station that owns one of these addresses, where this packet shows it.
fn mac_of(bytes: &[u8], own: &[IpAddr]) -> Option<[u8; 6]> {
    let six = |at: usize| bytes.get(at..at + 6).and_then(<[u8]>::first_chunk::<6>).copied();
    let ip = match wire::parse(bytes, 0, Verify::Lengths) {
        Ok(Parsed::Arp(info)) => {
            // Sender's hardware and protocol address of an ARP packet for IPv4 over Ethernet.
            let at = usize::from(info.arp_offset);
            let sender = bytes.get(at + 14..at + 18).and_then(<[u8]>::first_chunk::<4>)?;
            return if own.contains(&IpAddr::from(*sender)) { six(at + 8) } else { None };
        }
        Ok(Parsed::Tcp(info, _) | Parsed::Icmp(info) | Parsed::Ndp(info) | Parsed::OtherIp(info)) => info,
        Err(_) => return None,
    };
    let mac = six(0).filter(|mac| mac[0] & 1 == 0)?;
    own.contains(&ip.dst).then_some(mac)
}

/// What a packet of a capture is to the box.
enum Whose {
    Received(PortId),
    Sent,
    Others,
}

fn whose(packet: &Packet, port: Option<&PortConfig>) -> Whose {
    let Some(port) = port else { return Whose::Others };
    let (Some(to), Some(from)) = (packet.bytes.get(..6), packet.bytes.get(6..12)) else { return Whose::Others };
    if packet.direction == Some(Direction::Outbound) || port.mac.is_some_and(|mac| from == mac) {
        return Whose::Sent;
    }
    let group = to[0] & 1 == 1;
    if group || port.mac.is_none_or(|mac| to == mac) { Whose::Received(port.id) } else { Whose::Others }
}

#[cfg(test)]
mod tests;
