//! Looks at every frame that the box sends, with smoltcp's parsers instead of the project's own, and complains.

use std::collections::HashMap;
use std::net::IpAddr;

use smoltcp::wire::{
    ArpPacket, EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6Packet,
    TcpOption, TcpPacket,
};

/// MPTCP's option kind (RFC 8684 §3).
const MPTCP: u8 = 30;
/// The experimental kind that carries the destination option.
const EXPERIMENT: u8 = 253;

/// On which side of the box a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Towards clients.
    Clients,
    /// Towards servers that speak TCP only.
    Servers,
}

/// How the clients reach the box, which decides what may be seen where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    /// MPTCP ends at the box.
    Ended,
    /// A SYN passes with its options, in the hope that the server takes them.
    Syns,
}

/// One direction of a connection as its sender numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Direction {
    from: (IpAddr, u16),
    to: (IpAddr, u16),
}

impl Direction {
    const fn reversed(self) -> Self {
        Self { from: self.to, to: self.from }
    }
}

/// What the observer knows of one direction's receive window.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// Sequence number of the SYN, to tell a new connection on the same addresses.
    isn: u32,
    /// The scale that the box offered, and whether the peer offered one too.
    offered: Option<u8>,
    peer_offered: bool,
    /// The furthest right edge at subflow level.
    edge: Option<u32>,
    /// The furthest right edge at data level.
    data_edge: Option<u64>,
    /// The acknowledgment number that covers the peer's FIN: a window has no meaning any more then.
    fin_end: Option<u32>,
}

/// A client's SYN as it arrived.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    isn: u32,
    /// The body of its MPTCP option, kind and length left out.
    mptcp: Option<Vec<u8>>,
}

/// The observer of one box.
#[derive(Debug)]
pub(crate) struct Observer {
    carries: Carries,
    windows: HashMap<Direction, Window>,
    /// The MPTCP options of the SYNs that clients sent to servers through the box: those and no others may reach a server.
    asked: HashMap<Direction, Asked>,
    /// The first thing that was wrong.
    pub(crate) complaint: Option<String>,
    /// Frames seen.
    pub(crate) frames: u64,
}

/// TTL of what every node of a world sends: a packet with a lower one was passed on, and is not the box's own.
const TTL: u8 = 64;

/// A TCP segment as the observer needs it.
struct Seen<'a> {
    direction: Direction,
    ttl: u8,
    tcp: TcpPacket<&'a [u8]>,
}

impl Observer {
    pub(crate) fn new(carries: Carries) -> Self {
        Self { carries, windows: HashMap::new(), asked: HashMap::new(), complaint: None, frames: 0 }
    }

    /// Looks at a frame that the box sent towards `side`.
    pub(crate) fn sent(&mut self, side: Side, frame: &[u8]) {
        self.frames += 1;
        if self.complaint.is_some() {
            return;
        }
        if let Err(what) = self.check(side, frame) {
            self.complaint = Some(format!("the box sent {what} (towards the {side:?}): {}", hex(frame)));
        }
    }

    /// Looks at a frame that the box received: only what a SYN offers and where a FIN is matter.
    pub(crate) fn received(&mut self, frame: &[u8]) {
        // The flags of a segment without IP options or extensions: nearly all have neither bit.
        let flags = if frame.get(12) == Some(&0x86) { frame.get(67) } else { frame.get(47) };
        if flags.is_none_or(|flags| flags & 0x03 == 0) {
            return;
        }
        let Ok(Some(seen)) = tcp_of(frame) else {
            return;
        };
        let tcp = &seen.tcp;
        if tcp.syn() {
            let mut scale = false;
            let mut mptcp = None;
            let _ = for_each_option(tcp, |option| {
                scale |= matches!(option, Parsed::Known(TcpOption::WindowScale(_)));
                if let Parsed::Other(MPTCP, body) = option {
                    mptcp = Some(body.to_vec());
                }
                Ok(())
            });
            if self.carries == Carries::Syns && !tcp.ack() {
                self.asked.insert(seen.direction, Asked { isn: tcp.seq_number().0 as u32, mptcp });
            }
            self.windows.entry(seen.direction.reversed()).or_default().peer_offered = scale;
        }
        if tcp.fin() {
            let end = (tcp.seq_number().0 as u32).wrapping_add(tcp.payload().len() as u32).wrapping_add(1);
            self.windows.entry(seen.direction.reversed()).or_default().fin_end = Some(end);
        }
    }

    fn check(&mut self, side: Side, frame: &[u8]) -> Result<(), String> {
        let Some(seen) = tcp_of(frame)? else {
            return Ok(());
        };
        let tcp = &seen.tcp;
        let mut scale = None;
        let mut data_ack = None;
        for_each_option(tcp, |option| {
            match option {
                Parsed::Known(TcpOption::WindowScale(shift)) => scale = Some(shift),
                Parsed::Other(MPTCP, body) => {
                    if side == Side::Servers && !self.may_pass(&seen, body) {
                        return Err("an MPTCP option".to_owned());
                    }
                    data_ack = data_ack.or(data_ack_in(body)?);
                }
                Parsed::Other(EXPERIMENT, _) if side == Side::Servers => {
                    return Err("the destination option".to_owned());
                }
                Parsed::Known(_) | Parsed::Other(..) => {}
            }
            Ok(())
        })?;
        // The windows of segments that are only passed on are their sender's affair. A client's SYN is what the box's own
        // half goes on from, when its server does not speak MPTCP.
        if self.carries == Carries::Syns && seen.ttl < TTL && !tcp.syn() {
            return Ok(());
        }
        self.check_window(&seen, scale, data_ack)
    }

    /// True for the one MPTCP option that a server may see: the MP_CAPABLE of a SYN (RFC 8684 §3.1: version and flags, no
    /// key) that its client sent just so.
    fn may_pass(&self, seen: &Seen<'_>, body: &[u8]) -> bool {
        let tcp = &seen.tcp;
        let bare_capable = matches!(body, &[subtype, _] if subtype >> 4 == 0);
        let asked = self
            .asked
            .get(&seen.direction)
            .is_some_and(|asked| asked.isn == tcp.seq_number().0 as u32 && asked.mptcp.as_deref() == Some(body));
        tcp.syn() && !tcp.ack() && seen.ttl < TTL && bare_capable && asked
    }

    fn check_window(&mut self, seen: &Seen<'_>, scale: Option<u8>, data_ack: Option<DataAck>) -> Result<(), String> {
        let tcp = &seen.tcp;
        if tcp.rst() {
            return Ok(());
        }
        let window = self.windows.entry(seen.direction).or_default();
        if tcp.syn() {
            let isn = tcp.seq_number().0 as u32;
            if window.isn != isn || window.edge.is_none() {
                *window = Window { isn, peer_offered: window.peer_offered, ..Window::default() };
            }
            window.offered = scale;
        }
        if !tcp.ack() {
            return Ok(());
        }
        let shift = match (tcp.syn(), window.offered) {
            (false, Some(shift)) if window.peer_offered => shift.min(14),
            _ => 0,
        };
        let room = u32::from(tcp.window_len()) << shift;
        // Before the keys are exchanged and after a fallback there is no DATA_ACK, and the window is TCP's own.
        if let Some(ack) = data_ack {
            let ack = ack.expand(window.data_edge);
            let edge = ack.wrapping_add(u64::from(room));
            if let Some(before) = window.data_edge
                && (edge.wrapping_sub(before) as i64) < 0
            {
                return Err(format!(
                    "a data-level window whose right edge went from {before} back to {edge} (DATA_ACK {ack}, window {room})"
                ));
            }
            window.data_edge = Some(edge);
            return Ok(());
        }
        let ack = tcp.ack_number().0 as u32;
        if window.fin_end == Some(ack) {
            return Ok(());
        }
        let edge = ack.wrapping_add(room);
        if let Some(before) = window.edge
            && (edge.wrapping_sub(before) as i32) < 0
        {
            return Err(format!(
                "a window whose right edge went from {before} back to {edge} (acknowledgment {ack}, window {room})"
            ));
        }
        window.edge = Some(edge);
        Ok(())
    }
}

/// A DATA_ACK as it stands in a DSS option.
#[derive(Clone, Copy)]
enum DataAck {
    Short(u32),
    Long(u64),
}

impl DataAck {
    /// The 64-bit number, given one near it.
    fn expand(self, near: Option<u64>) -> u64 {
        match self {
            Self::Long(ack) => ack,
            Self::Short(ack) => match near {
                None => u64::from(ack),
                Some(near) => near.wrapping_add_signed(i64::from(ack.wrapping_sub(near as u32) as i32)),
            },
        }
    }
}

/// The DATA_ACK of a DSS option's body, the kind and length bytes left out (RFC 8684 §3.3).
fn data_ack_in(body: &[u8]) -> Result<Option<DataAck>, String> {
    let &[subtype, flags, ..] = body else {
        return Err("an MPTCP option without a subtype".to_owned());
    };
    if subtype >> 4 != 2 || flags & 1 == 0 {
        return Ok(None);
    }
    let short = || Some(DataAck::Short(u32::from_be_bytes(body.get(2..6)?.try_into().ok()?)));
    let long = || Some(DataAck::Long(u64::from_be_bytes(body.get(2..10)?.try_into().ok()?)));
    let ack = if flags & 2 == 0 { short() } else { long() };
    ack.map(Some).ok_or_else(|| "a DSS option shorter than its flags say".to_owned())
}

/// An option by smoltcp's reading, or one that it does not know, with its body.
enum Parsed<'a> {
    Known(TcpOption<'a>),
    Other(u8, &'a [u8]),
}

fn for_each_option(
    tcp: &TcpPacket<&[u8]>,
    mut each: impl FnMut(Parsed<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let mut rest = tcp.options();
    while !rest.is_empty() {
        let (after, option) = TcpOption::parse(rest).map_err(|_| "malformed TCP options".to_owned())?;
        match option {
            TcpOption::EndOfList => break,
            TcpOption::Unknown { kind, data } => each(Parsed::Other(kind, data))?,
            known => each(Parsed::Known(known))?,
        }
        rest = after;
    }
    Ok(())
}

/// The TCP segment of a frame; `None` when it carries something else that is well-formed.
fn tcp_of(frame: &[u8]) -> Result<Option<Seen<'_>>, String> {
    let ethernet = EthernetFrame::new_checked(frame).map_err(|_| "a truncated Ethernet frame".to_owned())?;
    match ethernet.ethertype() {
        EthernetProtocol::Arp => {
            ArpPacket::new_checked(ethernet.payload()).map_err(|_| "a malformed ARP packet".to_owned())?;
            Ok(None)
        }
        EthernetProtocol::Ipv4 => v4(ethernet.payload()),
        EthernetProtocol::Ipv6 => v6(ethernet.payload()),
        EthernetProtocol::Unknown(kind) => Err(format!("an Ethernet type of {kind:#06x}")),
    }
}

fn v4(bytes: &[u8]) -> Result<Option<Seen<'_>>, String> {
    let ip = Ipv4Packet::new_checked(bytes).map_err(|_| "a malformed IPv4 header".to_owned())?;
    if !ip.verify_checksum() {
        return Err("a wrong IPv4 header checksum".to_owned());
    }
    if usize::from(ip.total_len()) != bytes.len() && bytes.len() > 46 {
        return Err(format!("{} bytes of IPv4 with a total length of {}", bytes.len(), ip.total_len()));
    }
    let (src, dst) = (ip.src_addr(), ip.dst_addr());
    match ip.next_header() {
        IpProtocol::Tcp => tcp(ip.payload(), src.into(), dst.into(), ip.hop_limit()),
        IpProtocol::Icmp => {
            let icmp = Icmpv4Packet::new_checked(ip.payload()).map_err(|_| "a malformed ICMP packet".to_owned())?;
            if icmp.verify_checksum() { Ok(None) } else { Err("a wrong ICMP checksum".to_owned()) }
        }
        _ => Ok(None),
    }
}

fn v6(bytes: &[u8]) -> Result<Option<Seen<'_>>, String> {
    let ip = Ipv6Packet::new_checked(bytes).map_err(|_| "a malformed IPv6 header".to_owned())?;
    let (src, dst) = (ip.src_addr(), ip.dst_addr());
    match ip.next_header() {
        IpProtocol::Tcp => tcp(ip.payload(), src.into(), dst.into(), ip.hop_limit()),
        IpProtocol::Icmpv6 => {
            let icmp = Icmpv6Packet::new_checked(ip.payload()).map_err(|_| "a malformed ICMPv6 packet".to_owned())?;
            if icmp.verify_checksum(&src, &dst) { Ok(None) } else { Err("a wrong ICMPv6 checksum".to_owned()) }
        }
        _ => Ok(None),
    }
}

fn tcp(bytes: &[u8], src: IpAddr, dst: IpAddr, ttl: u8) -> Result<Option<Seen<'_>>, String> {
    let tcp = TcpPacket::new_checked(bytes).map_err(|_| "a malformed TCP header".to_owned())?;
    if !tcp.verify_checksum(&src.into(), &dst.into()) {
        return Err("a wrong TCP checksum".to_owned());
    }
    let direction = Direction { from: (src, tcp.src_port()), to: (dst, tcp.dst_port()) };
    Ok(Some(Seen { direction, ttl, tcp }))
}

/// The first bytes of a frame, for a report.
fn hex(frame: &[u8]) -> String {
    let mut text: String = frame.iter().take(110).map(|byte| format!("{byte:02x}")).collect();
    if frame.len() > 110 {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
