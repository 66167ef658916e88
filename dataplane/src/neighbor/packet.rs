//! The frames that neighbours exchange: ARP (RFC 826) and neighbour discovery (RFC 4861).

use std::net::{Ipv4Addr, Ipv6Addr};

use mimbox_stack::limits::{ETHERNET_HEADER, VLAN_TAG};
use mimbox_stack::wire::{LinkHeader, MacAddr, ethertype};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr,
    NdiscNeighborFlags, NdiscRepr,
};

/// Longest frame built here: Ethernet, a tag, IPv6, a solicitation with its option.
pub(super) const MAX_LEN: usize = ETHERNET_HEADER + VLAN_TAG + 40 + 32;
/// Where such a frame starts in its buffer.
pub(super) const OFFSET: usize = 128;
// RFC 4861 §7.1: what comes from beyond the link has a lower hop limit and is not believed.
pub(super) const NDP_HOP_LIMIT: u8 = 255;

/// What is to be said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Body {
    /// Who has `target`? Or, with `target == sender`, a gratuitous announcement.
    ArpRequest { sender: Ipv4Addr, target: Ipv4Addr },
    /// `sender` is here; told to `target`.
    ArpReply { sender: Ipv4Addr, target: Ipv4Addr },
    /// Who has `target`?
    Solicit { src: Ipv6Addr, dst: Ipv6Addr, target: Ipv6Addr },
    /// `target` is here.
    Advertise { src: Ipv6Addr, dst: Ipv6Addr, target: Ipv6Addr, solicited: bool },
}

/// A packet to be built when there is a frame for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Message {
    pub(super) link: LinkHeader,
    pub(super) body: Body,
}

impl Message {
    /// Writes the packet to the start of `out` and says how long it is; zero when `out` is shorter than [`MAX_LEN`].
    pub(super) fn build(&self, out: &mut [u8]) -> usize {
        let Some(out) = out.get_mut(..MAX_LEN) else { return 0 };
        let ethertype = match self.body {
            Body::ArpRequest { .. } | Body::ArpReply { .. } => ethertype::ARP,
            Body::Solicit { .. } | Body::Advertise { .. } => ethertype::IPV6,
        };
        let header = write_link(&self.link, ethertype, out);
        let Some(out) = out.get_mut(header..) else { return 0 };
        let mac = self.link.src;
        header
            + match self.body {
                Body::ArpRequest { sender, target } => {
                    arp(ArpOperation::Request, mac, sender, MacAddr::default(), target, out)
                }
                Body::ArpReply { sender, target } => arp(ArpOperation::Reply, mac, sender, self.link.dst, target, out),
                Body::Solicit { src, dst, target } => {
                    // RFC 4861 §4.3: no source option when the source is unspecified.
                    let lladdr = (!src.is_unspecified()).then(|| EthernetAddress(mac.0).into());
                    ndp(src, dst, NdiscRepr::NeighborSolicit { target_addr: target, lladdr }, out)
                }
                Body::Advertise { src, dst, target, solicited } => {
                    let mut flags = NdiscNeighborFlags::OVERRIDE;
                    flags.set(NdiscNeighborFlags::SOLICITED, solicited);
                    let lladdr = Some(EthernetAddress(mac.0).into());
                    ndp(src, dst, NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr }, out)
                }
            }
    }
}

/// Writes an Ethernet header and says how long it is.
fn write_link(link: &LinkHeader, ethertype: u16, out: &mut [u8]) -> usize {
    let mut header = [0u8; ETHERNET_HEADER + VLAN_TAG];
    header[..6].copy_from_slice(&link.dst.0);
    header[6..12].copy_from_slice(&link.src.0);
    let len = link.emitted_len();
    if let Some(vlan) = link.vlan {
        header[12..14].copy_from_slice(&mimbox_stack::wire::ethertype::VLAN.to_be_bytes());
        header[14..16].copy_from_slice(&vlan.to_be_bytes());
    }
    header[len - 2..len].copy_from_slice(&ethertype.to_be_bytes());
    if let Some(out) = out.get_mut(..len) {
        out.copy_from_slice(&header[..len]);
    }
    len
}

fn arp(
    operation: ArpOperation,
    source: MacAddr,
    sender: Ipv4Addr,
    destination: MacAddr,
    target: Ipv4Addr,
    out: &mut [u8],
) -> usize {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(source.0),
        source_protocol_addr: sender,
        target_hardware_addr: EthernetAddress(destination.0),
        target_protocol_addr: target,
    };
    repr.emit(&mut ArpPacket::new_unchecked(out));
    repr.buffer_len()
}

fn ndp(src: Ipv6Addr, dst: Ipv6Addr, repr: NdiscRepr<'_>, out: &mut [u8]) -> usize {
    let repr = Icmpv6Repr::Ndisc(repr);
    let ip = Ipv6Repr {
        src_addr: src,
        dst_addr: dst,
        next_header: IpProtocol::Icmpv6,
        payload_len: repr.buffer_len(),
        hop_limit: NDP_HOP_LIMIT,
    };
    let mut packet = Ipv6Packet::new_unchecked(out);
    ip.emit(&mut packet);
    let mut icmp = Icmpv6Packet::new_unchecked(packet.payload_mut());
    repr.emit(&src, &dst, &mut icmp, &ChecksumCapabilities::default());
    ip.buffer_len() + repr.buffer_len()
}

/// An ARP packet as it was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ArpSeen {
    pub(super) request: bool,
    pub(super) sender_mac: MacAddr,
    pub(super) sender: Ipv4Addr,
    pub(super) target: Ipv4Addr,
}

/// Reads an ARP packet; `None` for anything but an Ethernet/IPv4 request or reply.
pub(super) fn read_arp(packet: &[u8]) -> Option<ArpSeen> {
    let ArpRepr::EthernetIpv4 { operation, source_hardware_addr, source_protocol_addr, target_protocol_addr, .. } =
        ArpRepr::parse(&ArpPacket::new_checked(packet).ok()?).ok()?
    else {
        return None;
    };
    let request = match operation {
        ArpOperation::Request => true,
        ArpOperation::Reply => false,
        ArpOperation::Unknown(_) => return None,
    };
    Some(ArpSeen {
        request,
        sender_mac: MacAddr(source_hardware_addr.0),
        sender: source_protocol_addr,
        target: target_protocol_addr,
    })
}

/// A neighbour discovery message as it was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NdpSeen {
    Solicit { target: Ipv6Addr, mac: Option<MacAddr> },
    Advertise { target: Ipv6Addr, mac: Option<MacAddr>, solicited: bool, overrides: bool },
}

/// Length of a solicitation or advertisement without options (RFC 4861 §4.3, §4.4).
const NDP_FIXED: usize = 24;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;

/// Reads a solicitation or advertisement; `None` for other messages and malformed ones.
///
/// By hand, because options that do not concern the box must only be stepped over.
pub(super) fn read_ndp(message: &[u8]) -> Option<NdpSeen> {
    let fixed: &[u8; NDP_FIXED] = message.first_chunk()?;
    let [kind, code, _, _, flags, ..] = *fixed;
    let target = Ipv6Addr::from(*fixed.last_chunk::<16>()?);
    // RFC 4861 §7.1.1, §7.1.2: code 0, a target that is not multicast.
    if code != 0 || target.is_multicast() {
        return None;
    }
    let options = message.get(NDP_FIXED..)?;
    match kind {
        135 => Some(NdpSeen::Solicit { target, mac: link_layer_option(options, SOURCE_LINK_LAYER)? }),
        136 => Some(NdpSeen::Advertise {
            target,
            mac: link_layer_option(options, TARGET_LINK_LAYER)?,
            solicited: flags & 0x40 != 0,
            overrides: flags & 0x20 != 0,
        }),
        _ => None,
    }
}

/// The address in the option `kind`; the outer `None` when the options are malformed.
fn link_layer_option(mut options: &[u8], kind: u8) -> Option<Option<MacAddr>> {
    let mut found = None;
    while let [option, units, ..] = *options {
        // RFC 4861 §7.1: an option of length zero makes the message invalid.
        let len = usize::from(units) * 8;
        if len == 0 {
            return None;
        }
        let bytes = options.get(..len)?;
        if option == kind
            && found.is_none()
            && let Some(mac) = bytes.get(2..8).and_then(|mac| mac.first_chunk::<6>())
        {
            found = Some(MacAddr(*mac));
        }
        options = options.get(len..)?;
    }
    Some(found)
}

/// The multicast address that the owner of `target` listens to (RFC 4291 §2.7.1).
pub fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., x, y, z] = target.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z])
}

/// The Ethernet address of an IPv6 multicast address (RFC 2464 §7).
pub fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}
