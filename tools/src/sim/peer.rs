//! Independent peers: smoltcp's TCP sockets, which share no line with this project's stack. Servers, and plain clients.

use std::net::{IpAddr, SocketAddrV4};

use mimbox_stack::{Duration, FlowKey, Instant};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration as SmolDuration, Instant as SmolInstant};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, HardwareAddress, IpAddress,
    IpCidr, IpProtocol, Ipv4Address, Ipv4Packet, TcpPacket, TcpSeqNumber,
};

use super::node::{End, Node};
use super::packet::{Outbox, Packet, Packets};
use super::plan::{App, Ended, Plan, Speaks, Target, Wish};

/// Sockets of one host: few, since smoltcp asks every socket for every packet.
pub(crate) const SOCKETS_PER_HOST: usize = 8;
/// The first port that servers listen on.
pub(crate) const FIRST_PORT: u16 = 8000;
/// How often what sends IP packets confirms its link-layer address, before smoltcp forgets it.
const CONFIRM_EVERY: Duration = Duration::from_secs(30);
/// How often a slow reader looks whether it may read on.
const SLOW_READ: Duration = Duration::from_millis(5);

/// How the peers' TCP is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerOptions {
    /// Bytes of a receive buffer.
    pub receive_buffer: u32,
    /// Bytes of a send buffer.
    pub send_buffer: u32,
    /// Largest IP packet, from which the MSS follows.
    pub mtu: u16,
    /// Whether they offer timestamps.
    pub timestamps: bool,
    /// Whether Nagle's algorithm is on.
    pub nagle: bool,
    /// How long ACKs are delayed; zero for none.
    pub ack_delay: Duration,
    /// Idle time after which the other end is asked whether it is still there.
    pub keepalive: Duration,
    /// How long the hosts gather packets before they look at them.
    pub poll_every: Duration,
}

/// A network of peers: hosts that connect, or hosts that accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    /// Which end of their connections the hosts are.
    pub(crate) end: End,
    /// Second byte of their IPv4 addresses, and what tells their link-layer addresses apart.
    pub(crate) number: u8,
    /// The router.
    pub(crate) gateway: Option<Ipv4Address>,
}

impl Network {
    /// The link-layer address of host `index`.
    pub(crate) fn mac(&self, index: usize) -> [u8; 6] {
        [0x02, 0, 0, self.number, (index >> 8) as u8, index as u8]
    }

    /// The link-layer address of the host with this address.
    pub(crate) fn mac_of(&self, address: Ipv4Address) -> Option<[u8; 6]> {
        let [_, number, high, low] = address.octets();
        let index = usize::from(high.checked_sub(1)?) * 250 + usize::from(low.checked_sub(1)?);
        (number == self.number).then(|| self.mac(index))
    }

    /// The IPv4 address of host `index`.
    pub(crate) fn v4(&self, index: usize) -> [u8; 4] {
        [10, self.number, 1 + (index / 250) as u8, 1 + (index % 250) as u8]
    }
}

/// The network of the servers, whose hosts send what they have to say to strangers by `gateway`.
pub(crate) fn servers(gateway: Option<Ipv4Address>) -> Network {
    Network { end: End::Server, number: 9, gateway }
}

/// The network of the independent clients.
pub(crate) fn clients(gateway: Option<Ipv4Address>) -> Network {
    Network { end: End::Client, number: 8, gateway }
}

/// The host that connection `plan` runs on.
pub(crate) const fn host_of(plan: usize) -> usize {
    plan / SOCKETS_PER_HOST
}

/// The socket address of the server of connection `plan`.
pub(crate) fn server_of(plan: usize) -> SocketAddrV4 {
    SocketAddrV4::new(servers(None).v4(host_of(plan)).into(), port_of(plan))
}

fn smol_time(now: Instant) -> SmolInstant {
    SmolInstant::from_micros(now.as_micros() as i64)
}

/// A network device in memory.
struct Wire {
    arrived: Option<Packet>,
    packets: Packets,
    sent: Vec<Packet>,
    mtu: usize,
}

struct Arrived<'a>(Packet, &'a mut Packets);
struct Sending<'a>(&'a mut Vec<Packet>, Packet);

impl RxToken for Arrived<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let result = f(&self.0);
        self.1.recycle(self.0);
        result
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self(sent, mut packet) = self;
        packet.resize(len, 0);
        let result = f(&mut packet);
        sent.push(packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Arrived<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: SmolInstant) -> Option<(Arrived<'_>, Sending<'_>)> {
        let packet = self.arrived.take()?;
        let answer = self.packets.empty();
        Some((Arrived(packet, &mut self.packets), Sending(&mut self.sent, answer)))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Sending<'_>> {
        let packet = self.packets.empty();
        Some(Sending(&mut self.sent, packet))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities
    }
}

/// One socket and the application on it.
struct Service {
    plan: usize,
    handle: SocketHandle,
    app: App,
    /// When a client connects; `None` once it has.
    connect_at: Option<Instant>,
    /// The other end's FIN has been seen, though not everything before it may have been read.
    fin_seen: bool,
    /// The acknowledgment number that arrived last.
    last_ack: Option<u32>,
    /// The highest acknowledgment number that arrived, whether or not smoltcp took the segment with it.
    acknowledged: Option<u32>,
    /// The acknowledgment number that acknowledges the FIN, once that was sent.
    fin_end: Option<u32>,
    /// The sequence number after all that was sent.
    sent_end: Option<u32>,
}

/// One host.
struct Host {
    inbox: Vec<Packet>,
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    services: Vec<Service>,
    /// Services whose application has not ended.
    open: usize,
    wake: Instant,
    /// The router, whose address stands for those of all strangers.
    gateway: Option<Ipv4Address>,
    /// When a neighbour's link-layer address was last confirmed.
    confirmed: Instant,
}

/// All hosts of a network.
pub(crate) struct Peers {
    hosts: Vec<Host>,
    network: Network,
    poll_every: Duration,
}

impl Peers {
    /// Hosts for the connections of `plans`; connection `i` runs on host `i / SOCKETS_PER_HOST`.
    pub(crate) fn new(plans: &[Plan], options: &PeerOptions, network: Network, seed: u64) -> Self {
        let count = plans.len().div_ceil(SOCKETS_PER_HOST);
        let mut hosts: Vec<Host> =
            (0..count).map(|index| Host::new(index, options, &network, seed.wrapping_add(index as u64))).collect();
        for (index, plan) in plans.iter().enumerate() {
            let host = &mut hosts[host_of(index)];
            match network.end {
                End::Server if plan.target == Target::Listening => host.listen(index, plan, options),
                End::Client if plan.speaks == Speaks::ForeignTcp => host.prepare_client(index, plan, options),
                End::Server | End::Client => {}
            }
        }
        Self { hosts, network, poll_every: options.poll_every }
    }

    fn deliver(&mut self, packet: Packet, out: &mut Outbox) {
        let Some(target) = packet.get(..6) else {
            out.packets.recycle(packet);
            return;
        };
        if target[0] & 1 == 1 {
            for host in &mut self.hosts {
                let copy = host.wire.packets.copy_of(&packet);
                host.inbox.push(copy);
            }
            out.packets.recycle(packet);
            return;
        }
        let index = usize::from(target[4]) << 8 | usize::from(target[5]);
        match self.hosts.get_mut(index) {
            Some(host) if self.network.mac(index) == *target => host.inbox.push(packet),
            _ => out.packets.recycle(packet),
        }
    }

    fn services(&self) -> impl Iterator<Item = &Service> {
        self.hosts.iter().flat_map(|host| &host.services)
    }
}

impl Node for Peers {
    fn run(&mut self, now: Instant, inbox: &mut Vec<(u8, Packet)>, out: &mut Outbox) {
        for (_, packet) in inbox.drain(..) {
            self.deliver(packet, out);
        }
        for host in &mut self.hosts {
            if host.wake <= now || !host.inbox.is_empty() {
                host.run(now, out);
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.hosts.iter().map(|host| host.wake).min().filter(|&at| at != Instant::MAX)
    }

    fn poll_every(&self) -> Duration {
        self.poll_every
    }

    fn apps(&self, visit: &mut dyn FnMut(usize, End, &App)) {
        for service in self.services() {
            visit(service.plan, self.network.end, &service.app);
        }
    }

    fn plan_of(&self, flow: &FlowKey) -> Option<usize> {
        let IpAddr::V4(local) = flow.local else { return None };
        let mac = self.network.mac_of(local)?;
        let host = self.hosts.get(usize::from(mac[4]) << 8 | usize::from(mac[5]))?;
        let port = |plan: usize| match self.network.end {
            End::Server => port_of(plan),
            End::Client => local_port_of(plan),
        };
        host.services.iter().map(|service| service.plan).find(|&plan| port(plan) == flow.local_port)
    }

    fn open_ends(&self) -> usize {
        self.hosts.iter().map(|host| host.open).sum()
    }

    fn is_quiet(&self) -> bool {
        true
    }

    fn audit(&mut self, _: Instant) -> Vec<String> {
        Vec::new()
    }
}

impl Host {
    fn new(index: usize, options: &PeerOptions, network: &Network, seed: u64) -> Self {
        let mtu = usize::from(options.mtu);
        let mut wire = Wire { arrived: None, packets: Packets::default(), sent: Vec::new(), mtu };
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(network.mac(index))));
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wire, SmolInstant::ZERO);
        let v4 = Ipv4Address::from(network.v4(index));
        // With a router only the own network is on the link, without one everything is.
        let prefix = if network.gateway.is_some() { 16 } else { 8 };
        interface.update_ip_addrs(|addresses| {
            let pushed = addresses.push(IpCidr::new(IpAddress::Ipv4(v4), prefix));
            debug_assert!(pushed.is_ok(), "a fresh interface has room for one address");
        });
        if let Some(gateway) = network.gateway {
            let added = interface.routes_mut().add_default_ipv4_route(gateway);
            debug_assert!(added.is_ok(), "a fresh interface has room for one route");
        }
        Self {
            inbox: Vec::new(),
            wire,
            interface,
            sockets: SocketSet::new(Vec::new()),
            services: Vec::new(),
            open: 0,
            wake: Instant::MAX,
            gateway: network.gateway,
            confirmed: Instant::ZERO,
        }
    }

    fn socket(options: &PeerOptions) -> Socket<'static> {
        let receive = SocketBuffer::new(vec![0; options.receive_buffer as usize]);
        let send = SocketBuffer::new(vec![0; options.send_buffer as usize]);
        let mut socket = Socket::new(receive, send);
        socket.set_nagle_enabled(options.nagle);
        socket.set_keep_alive(Some(SmolDuration::from_micros(options.keepalive.as_micros())));
        let delay = SmolDuration::from_micros(options.ack_delay.as_micros());
        socket.set_ack_delay((options.ack_delay != Duration::ZERO).then_some(delay));
        if options.timestamps {
            socket.set_tsval_generator(Some(next_timestamp));
        }
        socket
    }

    fn listen(&mut self, plan: usize, what: &Plan, options: &PeerOptions) {
        let mut socket = Self::socket(options);
        let listening = socket.listen(port_of(plan));
        debug_assert!(listening.is_ok(), "a fresh socket can always listen");
        self.add(plan, socket, App::server(what), None);
    }

    fn prepare_client(&mut self, plan: usize, what: &Plan, options: &PeerOptions) {
        self.add(plan, Self::socket(options), App::client(what), Some(what.start));
        self.wake = self.wake.min(what.start);
    }

    fn add(&mut self, plan: usize, socket: Socket<'static>, app: App, connect_at: Option<Instant>) {
        let handle = self.sockets.add(socket);
        self.services.push(Service {
            plan,
            handle,
            app,
            connect_at,
            fin_seen: false,
            last_ack: None,
            acknowledged: None,
            fin_end: None,
            sent_end: None,
        });
        self.open += 1;
    }

    /// Takes what arrived, packet by packet.
    fn take(&mut self, now: Instant) {
        let time = smol_time(now);
        let mut inbox = std::mem::take(&mut self.inbox);
        for mut packet in inbox.drain(..) {
            self.confirm_neighbour(now, &packet);
            match self.stall_on(&packet) {
                Stall::Lost => {
                    self.wire.packets.recycle(packet);
                    continue;
                }
                Stall::Opened => show_one_byte(&mut packet),
                Stall::None => {}
            }
            self.wire.arrived = Some(packet);
            self.interface.poll_ingress_single(time, &mut self.wire, &mut self.sockets);
        }
        self.inbox = inbox;
    }

    /// Tells smoltcp again where a packet comes from, by an ARP reply. It forgets an address after a minute and throws away
    /// the answer for which it asks, so that an answer to what comes once a minute, as a FIN with a timeout that has backed
    /// off does, would be lost each time.
    fn confirm_neighbour(&mut self, now: Instant, packet: &[u8]) {
        if now.since(self.confirmed) < CONFIRM_EVERY {
            return;
        }
        let Some(reply) = confirmation(packet, self.gateway) else { return };
        self.confirmed = now;
        self.wire.arrived = Some(reply);
        self.interface.poll_ingress_single(smol_time(now), &mut self.wire, &mut self.sockets);
    }

    /// Finds the acknowledgments after which smoltcp 0.14 has no timer any more though something is unacknowledged. Any
    /// network may lose an acknowledgment, so these get lost:
    ///
    /// - one that says nothing new to a socket of which only the FIN is unacknowledged. The third is taken for a reason to
    ///   retransmit at once, no data is found, and a lost FIN is never sent again;
    /// - one that acknowledges part of what is in flight and closes the window. The retransmission timer gives way to a
    ///   probe of the window, which is stopped when the window opens, and the rest is never sent again. With data on it
    ///   such an acknowledgment cannot be lost: when both ends' windows are closed and both have data under way, nothing
    ///   else would come any more. It shows a window of one then.
    fn stall_on(&mut self, packet: &[u8]) -> Stall {
        let Some(ack) = Acknowledgment::of(packet) else { return Stall::None };
        let Self { services, sockets, .. } = self;
        let own = services.iter_mut().find(|service| {
            let socket = sockets.get::<Socket<'_>>(service.handle);
            socket.local_endpoint().is_some_and(|local| local.port == ack.port)
        });
        let Some(service) = own else { return Stall::None };
        let socket = sockets.get::<Socket<'_>>(service.handle);
        let only_fin = matches!(socket.state(), State::FinWait1 | State::Closing | State::LastAck);
        if service.acknowledged.is_none_or(|before| (ack.number.wrapping_sub(before) as i32) > 0) {
            service.acknowledged = Some(ack.number);
        }
        let part = service.sent_end.is_some_and(|end| (end.wrapping_sub(ack.number) as i32) > 0);
        if ack.window == 0 && part {
            return if ack.pure { Stall::Lost } else { Stall::Opened };
        }
        if !ack.pure {
            return Stall::None;
        }
        let again = service.last_ack.replace(ack.number) == Some(ack.number);
        let stalls = again && only_fin && socket.send_queue() == 0 && service.fin_end != Some(ack.number);
        if stalls { Stall::Lost } else { Stall::None }
    }

    /// Starts the clients whose time has come; says when the next one's does.
    fn connect(&mut self, now: Instant) -> Instant {
        let mut next = Instant::MAX;
        for service in &mut self.services {
            let Some(at) = service.connect_at else { continue };
            if at > now {
                next = next.min(at);
                continue;
            }
            service.connect_at = None;
            let server = server_of(service.plan);
            let remote = (IpAddress::Ipv4(*server.ip()), server.port());
            let socket = self.sockets.get_mut::<Socket<'_>>(service.handle);
            let connected = socket.connect(self.interface.context(), remote, local_port_of(service.plan));
            debug_assert!(connected.is_ok(), "a fresh socket can always connect");
        }
        next
    }

    fn run(&mut self, now: Instant, out: &mut Outbox) {
        set_timestamp_clock(now);
        let time = smol_time(now);
        let mut wake = self.connect(now);
        self.take(now);
        self.interface.poll(time, &mut self.wire, &mut self.sockets);
        let mut moved = false;
        for service in &mut self.services {
            if service.connect_at.is_some() {
                continue;
            }
            let socket = self.sockets.get_mut::<Socket<'_>>(service.handle);
            moved |= drive(socket, &mut service.app, &mut service.fin_seen, now);
            if service.app.is_slow() && socket.can_recv() {
                wake = wake.min(now + SLOW_READ);
            }
        }
        self.open = self.services.iter().filter(|service| service.app.ended.is_none()).count();
        if moved {
            self.interface.poll(time, &mut self.wire, &mut self.sockets);
        }
        for mut packet in self.wire.sent.drain(..) {
            if let Some(Sent { port, end, fin }) = Sent::of(&packet)
                && let Some(service) = self.services.iter_mut().find(|service| {
                    let socket = self.sockets.get::<Socket<'_>>(service.handle);
                    socket.local_endpoint().is_some_and(|local| local.port == port)
                })
            {
                if fin {
                    service.fin_end = Some(end);
                }
                if service.sent_end.is_none_or(|before| (end.wrapping_sub(before) as i32) > 0) {
                    service.sent_end = Some(end);
                }
            } else {
                let Self { services, sockets, .. } = self;
                keep_up(&mut packet, |port| {
                    let of_port = |service: &&Service| {
                        let socket = sockets.get::<Socket<'_>>(service.handle);
                        socket.local_endpoint().is_some_and(|local| local.port == port)
                    };
                    services.iter().find(of_port)?.acknowledged
                });
            }
            out.queue.push((0, packet));
        }
        if let Some(at) = self.interface.poll_at(time, &self.sockets) {
            // The socket's clock counts microseconds; a deadline in the past means "again", but never at this instant.
            let at = Instant::from_micros(at.total_micros().max(0) as u64 + 1);
            wake = wake.min(at.max(now + Duration::from_micros(1)));
        }
        self.wake = wake;
    }
}

/// An IPv4 packet and the TCP segment in it.
pub(super) type TcpInIp<'a> = (Ipv4Packet<&'a [u8]>, TcpPacket<&'a [u8]>);

/// The TCP segment of an IPv4 packet whose checksum is right.
pub(super) fn tcp_in(packet: &[u8]) -> Option<TcpInIp<'_>> {
    let ethernet = EthernetFrame::new_checked(packet).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    if ip.next_header() != IpProtocol::Tcp {
        return None;
    }
    let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
    tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()).then_some((ip, tcp))
}

/// What becomes of a segment on which smoltcp would stall.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stall {
    /// It would not.
    None,
    /// The segment is lost.
    Lost,
    /// Its window is opened.
    Opened,
}

/// Makes the window of a TCP segment over IPv4 one.
fn show_one_byte(packet: &mut [u8]) {
    rewrite(packet, |tcp| tcp.set_window_len(1));
}

/// Changes a TCP segment over IPv4, and its checksum with it.
fn rewrite(packet: &mut [u8], change: impl FnOnce(&mut TcpPacket<&mut [u8]>)) {
    let Some(bytes) = packet.get_mut(14..) else { return };
    let Ok(mut ip) = Ipv4Packet::new_checked(bytes) else { return };
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    let Ok(mut tcp) = TcpPacket::new_checked(ip.payload_mut()) else { return };
    change(&mut tcp);
    tcp.fill_checksum(&from.into(), &to.into());
}

/// Gives a pure ACK the sequence number up to which the other end has acknowledged, if its own is older. smoltcp's SND.NXT
/// goes back when it retransmits, and it takes no acknowledgment from a segment before its window (RFC 9293 §3.10.7.4): when
/// both ends have gone back, neither would ever hear of the other again.
fn keep_up(packet: &mut [u8], acknowledged: impl Fn(u16) -> Option<u32>) {
    let Some((port, seq)) = Sent::pure_ack(packet) else { return };
    let Some(to) = acknowledged(port) else { return };
    if (to.wrapping_sub(seq) as i32) > 0 {
        rewrite(packet, |tcp| tcp.set_seq_number(TcpSeqNumber(to as i32)));
    }
}

/// The ARP reply by which the sender of an IPv4 packet would confirm its link-layer address.
fn confirmation(packet: &[u8], gateway: Option<Ipv4Address>) -> Option<Packet> {
    let ethernet = EthernetFrame::new_checked(packet).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: ethernet.src_addr(),
        source_protocol_addr: gateway.unwrap_or_else(|| ip.src_addr()),
        target_hardware_addr: ethernet.dst_addr(),
        target_protocol_addr: ip.dst_addr(),
    };
    let mut reply = packet.get(..14)?.to_vec();
    reply.resize(14 + arp.buffer_len(), 0);
    let mut frame = EthernetFrame::new_checked(reply.as_mut_slice()).ok()?;
    frame.set_ethertype(EthernetProtocol::Arp);
    arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    Some(reply)
}

/// A segment with data or a FIN that a host sent.
struct Sent {
    /// The port that it comes from.
    port: u16,
    /// What acknowledges all of it.
    end: u32,
    /// It has a FIN.
    fin: bool,
}

impl Sent {
    fn of(packet: &[u8]) -> Option<Self> {
        // smoltcp's own IPv4 has no options, so the TCP header is where it always is; most hosts mostly acknowledge.
        let tcp = TcpPacket::new_checked(packet.get(34..)?).ok()?;
        let is_tcp = packet.get(12..14)? == [0x08, 0x00] && *packet.get(23)? == 6;
        let fin = tcp.fin();
        let len = tcp.payload().len() as u32 + u32::from(fin);
        let end = (tcp.seq_number().0 as u32).wrapping_add(len);
        (is_tcp && len > 0 && !tcp.syn() && !tcp.rst()).then(|| Self { port: tcp.src_port(), end, fin })
    }

    /// The port and sequence number of a segment that only acknowledges.
    fn pure_ack(packet: &[u8]) -> Option<(u16, u32)> {
        let (_, tcp) = tcp_in(packet)?;
        let pure = tcp.ack() && tcp.payload().is_empty() && !tcp.fin() && !tcp.syn() && !tcp.rst();
        pure.then(|| (tcp.src_port(), tcp.seq_number().0 as u32))
    }
}

/// What a segment says to a host beside its data.
struct Acknowledgment {
    /// The port that it goes to.
    port: u16,
    /// The acknowledgment number.
    number: u32,
    /// The window, before scaling.
    window: u16,
    /// It has no data and no flag but ACK.
    pure: bool,
}

impl Acknowledgment {
    fn of(packet: &[u8]) -> Option<Self> {
        let (_, tcp) = tcp_in(packet)?;
        let pure = !tcp.fin() && tcp.payload().is_empty();
        let (port, number, window) = (tcp.dst_port(), tcp.ack_number().0 as u32, tcp.window_len());
        (tcp.ack() && !tcp.syn() && !tcp.rst()).then_some(Self { port, number, window, pure })
    }
}

/// The port on which the server of connection `plan` listens.
pub(crate) fn port_of(plan: usize) -> u16 {
    FIRST_PORT + (plan % SOCKETS_PER_HOST) as u16
}

/// The port from which the independent client of connection `plan` connects.
fn local_port_of(plan: usize) -> u16 {
    FIRST_PORT + 1000 + plan as u16
}

/// Lets the application use its socket; says whether it did anything that the socket may answer with a packet.
fn drive(socket: &mut Socket<'_>, app: &mut App, fin_seen: &mut bool, now: Instant) -> bool {
    if app.ended.is_some() {
        return false;
    }
    if matches!(socket.state(), State::Listen | State::SynReceived | State::SynSent) {
        return false;
    }
    if app.opened.is_none() && socket.state() == State::Closed {
        app.ended = Some(Ended::Failed);
        return false;
    }
    app.opened.get_or_insert(now);
    let mut moved = false;
    while socket.can_recv() && app.received < app.may_have_read(now) {
        let budget = app.may_have_read(now) - app.received;
        let took = socket.recv(|bytes| {
            let take = (bytes.len() as u64).min(budget) as usize;
            app.consume(&bytes[..take]);
            (take, take)
        });
        moved = true;
        if took.unwrap_or(0) == 0 {
            break;
        }
    }
    *fin_seen |= matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
    if *fin_seen && socket.recv_queue() == 0 {
        app.note_peer_closed();
    }
    while socket.can_send() && app.left() > 0 {
        let wrote = socket.send(|room| {
            let wrote = app.produce(room);
            (wrote, wrote)
        });
        moved = true;
        if wrote.unwrap_or(0) == 0 {
            break;
        }
    }
    match app.wish() {
        // smoltcp forgets what was not read when a connection is over.
        Wish::Close if !app.has_read_all() => {}
        Wish::Nothing => {}
        Wish::Close => {
            socket.close();
            app.closed = true;
            moved = true;
        }
        Wish::Reset => {
            socket.abort();
            app.ended = Some(Ended::Reset);
            return true;
        }
    }
    match socket.state() {
        State::TimeWait | State::Closed if app.closed && app.peer_closed => app.ended = Some(Ended::Finished),
        State::Closed if !*fin_seen || !app.closed => app.ended = Some(Ended::Reset),
        _ => {}
    }
    moved
}

thread_local! {
    /// Virtual milliseconds for smoltcp's timestamp generator, which is a plain function.
    static TIMESTAMP_CLOCK: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

fn set_timestamp_clock(now: Instant) {
    TIMESTAMP_CLOCK.set(now.as_millis() as u32 + 1);
}

fn next_timestamp() -> u32 {
    TIMESTAMP_CLOCK.get()
}
