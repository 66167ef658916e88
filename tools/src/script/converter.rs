//! A whole engine as the subject, with a client behind one port and a server behind the other, in virtual time.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};

use mimbox_converter::Shard;
use mimbox_converter::config::Config;
use mimbox_converter::metrics::{Operated as _, Snapshot};
use mimbox_dataplane::Engine as _;
use mimbox_stack::limits::RX_HEADROOM;
use mimbox_stack::{Counter, Duration, Instant, PortId, RxFrame};
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr};

use super::backend::{Answer, Backend, Sent};
use super::packet::Ends;
use super::syntax::{Action, BackendKind, Lane, Mode, Settings};
use crate::engine;

/// Where virtual time begins.
const EPOCH: Instant = Instant::from_millis(10_000_000);
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Events at one moment after which the engine counts as spinning.
const SPINS: u32 = 100_000;

const BOX_WAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const BOX_CORE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);

/// The client's end and the box's, or in transparent mode the server's; then the server's end and the one it answers.
pub(super) fn ends(mode: Mode) -> [Ends; 2] {
    let client = (IpAddr::V4(CLIENT), 40_000);
    let server = (IpAddr::V4(SERVER), 80);
    match mode {
        Mode::Explicit => [
            Ends { from: client, to: (IpAddr::V4(BOX_WAN), 8080) },
            Ends { from: server, to: (IpAddr::V4(BOX_CORE), 0) },
        ],
        Mode::Transparent => [Ends { from: client, to: server }, Ends { from: server, to: client }],
    }
}

fn configuration(settings: &Settings) -> String {
    let mode = match settings.mode {
        Mode::Explicit => "[explicit]\nports = [\"wan0\"]\nsource = [\"198.51.100.1\"]\ndst_opt = { exid = 0x4d42 }\n",
        Mode::Transparent => "[transparent]\nfrom = [\"wan0\"]\nannounce = [\"192.0.2.1\"]\n",
    };
    format!(
        "[[port]]\nname = \"wan0\"\ninterface = \"wan0\"\nbackend = \"memory\"\naddresses = [\"{BOX_WAN}/24\"]\n\n\
         [[port]]\nname = \"core0\"\ninterface = \"core0\"\nbackend = \"memory\"\naddresses = [\"{BOX_CORE}/24\"]\n\n\
         {mode}\n[limits]\nframes = {}\nframe_size = 2048\nwindow_ceiling = 64\nwindow_floor = 8\n\n\
         [worker]\nring = 64\n",
        settings.frames
    )
}

/// The engine between its two peers.
pub(super) struct Converter {
    shard: Shard,
    now: Instant,
    sent: VecDeque<Sent>,
    /// Link-layer address of the box on each port, once it was seen.
    macs: [[u8; 6]; 2],
}

const fn port(lane: Lane) -> u8 {
    match lane {
        Lane::Peer | Lane::Client => 0,
        Lane::Server => 1,
    }
}

/// Link-layer address of what is behind a port.
const fn station(port: u8) -> [u8; 6] {
    [2, 0, 0, 9, 0, port]
}

impl Converter {
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let config = Config::parse(&configuration(settings), "the script's box").map_err(|error| error.to_string())?;
        let shard = engine::shard(&config, 7).map_err(|error| format!("{error:#}"))?;
        let mac = |index: u8| config.port(PortId(index)).map_or([0; 6], |port| port.mac_or_default());
        let macs = [mac(0), mac(1)];
        let mut converter = Self { shard, now: EPOCH, sent: VecDeque::new(), macs };
        converter.pump()?;
        Ok(converter)
    }

    fn receive(&mut self, port: u8, frame: &[u8]) -> Result<(), String> {
        let pool = self.shard.pool();
        let id = pool.alloc_control().ok_or("no frame is free for reception")?;
        match pool.bytes_mut(&id).get_mut(RX_HEADROOM..RX_HEADROOM + frame.len()) {
            Some(room) => room.copy_from_slice(frame),
            None => return Err(format!("a packet of {} bytes does not fit a frame", frame.len())),
        }
        let rx = RxFrame { port: PortId(port), frame: id, offset: RX_HEADROOM as u16, len: frame.len() as u16 };
        self.shard.on_frames(self.now, &mut vec![rx]);
        self.pump()
    }

    /// Takes what the engine sends; what it asks about addresses is answered.
    fn pump(&mut self) -> Result<(), String> {
        let mut spins = 0;
        while let Some(tx) = self.shard.poll_transmit(self.now) {
            spins += 1;
            if spins > SPINS {
                return Err("poll_transmit does not come to an end".into());
            }
            let (start, end) = (usize::from(tx.offset), usize::from(tx.offset) + usize::from(tx.len));
            let pool = self.shard.pool();
            let bytes = pool.bytes(&tx.frame).get(start..end).unwrap_or_default().to_vec();
            pool.tx_complete(tx.frame);
            if let Some(answer) = arp_answer(&bytes, tx.port.0) {
                self.receive(tx.port.0, &answer)?;
            } else if bytes.get(12..ETHERNET) == Some(&[8, 0]) {
                let lane = if tx.port.0 == 0 { Lane::Client } else { Lane::Server };
                let packet = bytes.get(ETHERNET..).unwrap_or_default().to_vec();
                self.sent.push_back(Sent { at: self.now.since(EPOCH), lane, packet });
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new(std::iter::empty());
        self.shard.observe(&mut snapshot);
        snapshot
    }
}

/// The answer to an ARP request of the box, whatever address it asks for.
fn arp_answer(frame: &[u8], port: u8) -> Option<Vec<u8>> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Arp {
        return None;
    }
    let packet = ArpPacket::new_checked(ethernet.payload()).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    if source_protocol_addr == target_protocol_addr {
        return None;
    }
    let own = EthernetAddress(station(port));
    let mut bytes = vec![0; ETHERNET + 28];
    let mut answer = EthernetFrame::new_unchecked(&mut bytes);
    EthernetRepr { src_addr: own, dst_addr: source_hardware_addr, ethertype: EthernetProtocol::Arp }.emit(&mut answer);
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: own,
        source_protocol_addr: target_protocol_addr,
        target_hardware_addr: source_hardware_addr,
        target_protocol_addr: source_protocol_addr,
    };
    arp.emit(&mut ArpPacket::new_unchecked(answer.payload_mut()));
    Some(bytes)
}

impl Backend for Converter {
    fn kind(&self) -> BackendKind {
        BackendKind::Mimbox
    }

    fn tolerance(&self) -> Duration {
        // The timing wheel's tick.
        Duration::from_millis(2)
    }

    fn now(&self) -> Duration {
        self.now.since(EPOCH)
    }

    fn wait(&mut self, until: Duration) -> Result<Option<Sent>, String> {
        let until = EPOCH + until;
        let mut spins = 0;
        loop {
            if let Some(sent) = self.sent.pop_front() {
                return Ok(Some(sent));
            }
            let Some(due) = self.shard.next_deadline().filter(|&due| due <= until) else { break };
            spins = if due > self.now { 0 } else { spins + 1 };
            if spins > SPINS {
                return Err("the same timer is due again and again".into());
            }
            self.now = self.now.max(due);
            self.shard.on_timer(self.now);
            self.pump()?;
        }
        self.now = self.now.max(until);
        Ok(None)
    }

    fn inject(&mut self, lane: Lane, packet: &[u8]) -> Result<(), String> {
        let port = port(lane);
        let mut frame = Vec::with_capacity(ETHERNET + packet.len());
        frame.extend(self.macs[usize::from(port)]);
        frame.extend(station(port));
        frame.extend([8, 0]);
        frame.extend_from_slice(packet);
        self.receive(port, &frame)
    }

    fn act(&mut self, _action: &Action, _bytes: &[u8]) -> Result<Answer, String> {
        Err("a converter has no application of its own".into())
    }

    fn fact(&mut self, name: &str) -> Option<Result<i64, String>> {
        Some(match name {
            "conversions" => Ok(self.snapshot().conversions.live as i64),
            "half_open" => Ok(self.snapshot().conversions.half_open as i64),
            "frames" => Ok(i64::from(self.shard.pool().in_use())),
            _ => match Counter::ALL.iter().find(|counter| counter.name() == name) {
                Some(counter) => Ok(self.shard.counters().get(*counter) as i64),
                None => Err(format!("there is no fact and no counter `{name}`")),
            },
        })
    }

    fn word(&self, _word: &str) -> Option<i64> {
        None
    }

    fn finish(&mut self) -> Vec<String> {
        self.shard.release_all(self.now);
        let audit = self.shard.pool().audit();
        if audit.held == 0 && audit.broken == 0 {
            return Vec::new();
        }
        vec![format!("{} frames are held after everything is let go, {} accounts are broken", audit.held, audit.broken)]
    }
}
