//! A host's network port: its addresses, and ARP for the one neighbour that it talks to.

use std::net::{IpAddr, Ipv4Addr};

use mimbox_stack::{Duration, Instant};
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr};

use crate::sim::packet::Outbox;
use crate::sim::peer::Network;

/// How long an ARP request waits for its answer.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Length of an Ethernet frame that carries ARP.
const ARP_FRAME: usize = 14 + 28;

/// Whom a port's packets are handed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// One router or host, which is asked for its link-layer address.
    Neighbour(Ipv4Addr),
    /// Peers on the link, whose link-layer addresses follow from their addresses.
    Peers(Network),
}

/// One port of a host.
#[derive(Debug)]
pub(crate) struct HostPort {
    /// Its own link-layer address.
    pub(crate) mac: [u8; 6],
    /// Its own address.
    pub(crate) address: Ipv4Addr,
    reach: Reach,
    /// The neighbour's link-layer address, once it has answered.
    neighbour: Option<[u8; 6]>,
    ask_at: Instant,
}

impl HostPort {
    pub(crate) fn new(mac: [u8; 6], address: Ipv4Addr, reach: Reach) -> Self {
        Self { mac, address, reach, neighbour: None, ask_at: Instant::ZERO }
    }

    /// True when packets can be sent.
    pub(crate) fn is_ready(&self) -> bool {
        self.neighbour.is_some() || matches!(self.reach, Reach::Peers(_))
    }

    /// The link-layer address that a packet to `target` goes to.
    pub(crate) fn link_to(&self, target: IpAddr) -> Option<[u8; 6]> {
        match (self.reach, target) {
            (Reach::Neighbour(_), _) => self.neighbour,
            (Reach::Peers(network), IpAddr::V4(target)) => network.mac_of(target),
            (Reach::Peers(_), IpAddr::V6(_)) => None,
        }
    }

    /// True when `address` is this port's.
    pub(crate) fn owns(&self, address: IpAddr) -> bool {
        address == IpAddr::V4(self.address)
    }

    /// Asks for the neighbour when it is unknown and the last question was a while ago.
    pub(crate) fn on_timer(&mut self, now: Instant, port: u8, out: &mut Outbox) {
        if let Reach::Neighbour(address) = self.reach
            && self.neighbour.is_none()
            && self.ask_at <= now
        {
            self.ask_at = now + ASK_AGAIN;
            self.send(ArpOperation::Request, [0xff; 6], address, port, out);
        }
    }

    /// When the next question is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        (!self.is_ready()).then_some(self.ask_at)
    }

    /// Takes an ARP packet: answers a question for this port's address, and learns the neighbour.
    pub(crate) fn on_arp(&mut self, frame: &[u8], port: u8, out: &mut Outbox) {
        let Ok(ethernet) = EthernetFrame::new_checked(frame) else { return };
        let Ok(packet) = ArpPacket::new_checked(ethernet.payload()) else { return };
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(mac),
            source_protocol_addr,
            target_protocol_addr,
            ..
        }) = ArpRepr::parse(&packet)
        else {
            return;
        };
        if self.reach == Reach::Neighbour(source_protocol_addr) {
            self.neighbour = Some(mac);
        }
        if operation == ArpOperation::Request && target_protocol_addr == self.address {
            self.send(ArpOperation::Reply, mac, source_protocol_addr, port, out);
        }
    }

    fn send(&self, operation: ArpOperation, to: [u8; 6], target: Ipv4Addr, port: u8, out: &mut Outbox) {
        let mut bytes = [0u8; ARP_FRAME];
        let mut ethernet = EthernetFrame::new_unchecked(&mut bytes[..]);
        let header = EthernetRepr {
            src_addr: EthernetAddress(self.mac),
            dst_addr: EthernetAddress(to),
            ethertype: EthernetProtocol::Arp,
        };
        header.emit(&mut ethernet);
        let unknown = operation == ArpOperation::Request;
        let arp = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(self.mac),
            source_protocol_addr: self.address,
            target_hardware_addr: EthernetAddress(if unknown { [0; 6] } else { to }),
            target_protocol_addr: target,
        };
        arp.emit(&mut ArpPacket::new_unchecked(ethernet.payload_mut()));
        out.send(port, &bytes);
    }
}
