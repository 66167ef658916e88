//! The box's addresses, its routes, and its neighbours on the links. Sans-IO: part of the engine, driven by it.
//!
//! ARP and NDP packets come in by [`Neighbors::on_arp`] and [`Neighbors::on_ndp`], pings by [`Neighbors::echo`];
//! questions, answers and packets that waited for an answer leave by [`Neighbors::poll_transmit`]; what the engine has to
//! know comes by [`Neighbors::poll_event`].
//!
//! A connection resolves its peer once and keeps the [`NextHop`] beside [`Neighbors::epoch`]; as long as the epoch is
//! the same, what it keeps is right.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mimbox_stack::wire::{IpInfo, LinkHeader, MacAddr};
use mimbox_stack::{Counter, Counters, FramePool, Instant, PortId, RxFrame, TxFrame};

mod cache;
mod echo;
mod packet;
mod route;

use cache::{Cache, Effect, Heard, Lookup};
use packet::{Body, Message, NDP_HOP_LIMIT, NdpSeen};
pub use packet::{multicast_mac, solicited_node};
use route::RouteTable;
pub use route::{Cidr, NotAPrefix, Route};

/// Bounds of this module.
pub mod limits {
    /// Frames held for one neighbour that has not answered yet.
    pub const MAX_HELD_PER_NEIGHBOUR: usize = 8;
    /// Frames held for all of them.
    pub const MAX_HELD: usize = 512;
    /// Neighbours being asked for at once: whoever scans a link must not fill the table.
    pub const MAX_UNRESOLVED: usize = 256;
    /// Questions and answers waiting to be sent; what comes beyond is dropped, as the asker asks again.
    pub const MAX_MESSAGES: usize = 1024;
    /// Events waiting to be taken, those that carry a frame apart.
    pub const MAX_EVENTS: usize = 1024;
    /// Echo replies waiting to be sent.
    pub const MAX_ECHOES: usize = 256;

    const _: () = assert!(MAX_HELD_PER_NEIGHBOUR <= MAX_HELD && MAX_UNRESOLVED <= MAX_MESSAGES);
}

/// A port as its link sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its number.
    pub port: PortId,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// The largest IP packet that the link carries.
    pub mtu: u16,
    /// The box's addresses there, with the prefixes that are on the link.
    pub addresses: Vec<Cidr>,
}

/// What [`Neighbors`] is made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NeighborConfig {
    /// The ports.
    pub interfaces: Vec<Interface>,
    /// Routes beyond the links.
    pub routes: Vec<Route>,
    /// Most neighbours remembered.
    pub limit: usize,
}

/// Why a configuration makes no sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NeighborError {
    /// The same address twice.
    #[error("the address {0} stands on two ports: give it to one of them")]
    AddressTwice(IpAddr),
    /// The same prefix on two ports.
    #[error(
        "{0} and {1} are on two ports but share addresses, so the box cannot know which link they are on: use prefixes that do not overlap"
    )]
    Overlap(Cidr, Cidr),
    /// A route to the same prefix twice.
    #[error("there are two routes to {0}: keep one")]
    RouteTwice(Cidr),
    /// A route over a port that is not there.
    #[error("the route to {0} names port {1}, which does not exist")]
    NoPort(Cidr, u8),
    /// A next hop that is not on the link.
    #[error(
        "the next hop {via} of the route to {prefix} is not on the link of its port: name a router within one of the port's prefixes"
    )]
    OffLink {
        /// The route's prefix.
        prefix: Cidr,
        /// Its next hop.
        via: IpAddr,
    },
    /// A next hop that is the box itself.
    #[error("the next hop {via} of the route to {prefix} is the box itself")]
    ViaSelf {
        /// The route's prefix.
        prefix: Cidr,
        /// Its next hop.
        via: IpAddr,
    },
}

/// Where a packet of a connection came from: its answers go back there unless a route says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hint {
    /// The port that it came in by.
    pub port: PortId,
    /// The station that sent it: the client itself, or the last router before the box.
    pub mac: MacAddr,
    /// The VLAN that it came on.
    pub vlan: Option<u16>,
}

impl Hint {
    /// The hint that a received packet gives.
    pub const fn of(port: PortId, link: &LinkHeader) -> Self {
        Self { port, mac: link.src, vlan: link.vlan }
    }
}

/// How to reach a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NextHop {
    /// The port to leave by.
    pub port: PortId,
    /// The Ethernet header.
    pub link: LinkHeader,
    /// The largest IP packet that the link carries.
    pub mtu: u16,
}

/// An address that is being asked for; the handle of [`Neighbors::hold`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiting {
    port: PortId,
    next_hop: IpAddr,
    src: MacAddr,
    mtu: u16,
}

impl Waiting {
    /// The port that the packet will leave by.
    pub const fn port(&self) -> PortId {
        self.port
    }
    /// Who has been asked for.
    pub const fn next_hop(&self) -> IpAddr {
        self.next_hop
    }
    /// The link layer as far as it is known: [`Neighbors::hold`] fills the destination in when it is there.
    pub const fn provisional(&self) -> NextHop {
        let link = LinkHeader { src: self.src, dst: MacAddr([0; 6]), vlan: None };
        NextHop { port: self.port, link, mtu: self.mtu }
    }
}

/// The answer to "how do I reach this address".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// Like this.
    Ready(NextHop),
    /// The next hop has been asked for. [`Neighbors::hold`] the packet, or drop it.
    Pending(Waiting),
    /// Too many neighbours are unknown at once: drop the packet.
    Full,
    /// No route leads there.
    NoRoute,
    /// It is one of the box's own addresses.
    Own,
}

/// What the engine has to know.
#[derive(Debug)]
pub enum NeighborEvent {
    /// Nobody at `next_hop` answered.
    Unreachable {
        /// The link.
        port: PortId,
        /// Who was asked for.
        next_hop: IpAddr,
    },
    /// A packet was held for a next hop that did not answer. It has not been through [`FramePool::tx_begin`]; release it,
    /// or quote it in an ICMP error first.
    Undeliverable {
        /// Who was asked for.
        next_hop: IpAddr,
        /// The packet, as it was given to [`Neighbors::hold`].
        frame: TxFrame,
    },
    /// Another station uses an address of the box.
    AddressConflict {
        /// The link.
        port: PortId,
        /// The box's address.
        address: IpAddr,
        /// Who claims it.
        mac: MacAddr,
    },
}

/// Addresses, routes and neighbours.
#[derive(Debug)]
pub struct Neighbors {
    interfaces: BTreeMap<PortId, Interface>,
    own: BTreeMap<IpAddr, PortId>,
    routes: RouteTable,
    cache: Cache,
    messages: VecDeque<(PortId, Message)>,
    ready: VecDeque<Ready>,
    events: VecDeque<NeighborEvent>,
    effects: Vec<Effect>,
    echoes: usize,
}

/// A frame that only waits to be taken.
#[derive(Debug)]
enum Ready {
    /// An echo reply, complete.
    Echo(TxFrame),
    /// A packet that was held, and the station that it goes to.
    Held(MacAddr, TxFrame),
}

impl Neighbors {
    /// Checks the configuration and starts with no neighbour known.
    ///
    /// # Errors
    /// When addresses or routes contradict each other.
    pub fn new(config: &NeighborConfig) -> Result<Self, NeighborError> {
        let mut this = Self {
            interfaces: config.interfaces.iter().map(|interface| (interface.port, interface.clone())).collect(),
            own: BTreeMap::new(),
            routes: RouteTable::default(),
            cache: Cache::new(config.limit),
            messages: VecDeque::new(),
            ready: VecDeque::new(),
            events: VecDeque::new(),
            effects: Vec::new(),
            echoes: 0,
        };
        let addresses = || config.interfaces.iter().flat_map(|i| i.addresses.iter().map(|&address| (i.port, address)));
        for (port, address) in addresses() {
            if this.own.insert(address.addr(), port).is_some() {
                return Err(NeighborError::AddressTwice(address.addr()));
            }
        }
        for (port, address) in addresses() {
            this.add_link(port, address)?;
        }
        for &route in &config.routes {
            this.add_route(route)?;
        }
        Ok(this)
    }

    fn add_link(&mut self, port: PortId, address: Cidr) -> Result<(), NeighborError> {
        // Link-local prefixes are the same on every link; a hint or a route's port tells them apart.
        if is_link_local(address.addr()) {
            return Ok(());
        }
        let others = self.interfaces.values().filter(|interface| interface.port != port);
        if let Some(other) = others.flat_map(|other| &other.addresses).find(|other| other.overlaps(&address)) {
            return Err(NeighborError::Overlap(address, *other));
        }
        // A second address in the same prefix on the same port finds its route there already.
        let _already_there = self.routes.insert(Route { prefix: address, via: None, port });
        Ok(())
    }

    fn add_route(&mut self, route: Route) -> Result<(), NeighborError> {
        let Some(interface) = self.interfaces.get(&route.port) else {
            return Err(NeighborError::NoPort(route.prefix, route.port.0));
        };
        if let Some(via) = route.via {
            let on_link = interface.addresses.iter().any(|address| address.contains(via));
            if !on_link && !is_link_local(via) {
                return Err(NeighborError::OffLink { prefix: route.prefix, via });
            }
            if self.own.contains_key(&via) {
                return Err(NeighborError::ViaSelf { prefix: route.prefix, via });
            }
        }
        self.routes.insert(route).map_err(|_| NeighborError::RouteTwice(route.prefix))
    }

    /// True for an address of the box, on whatever port.
    #[inline]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains_key(&address)
    }

    /// The box's addresses with their ports.
    pub fn own_addresses(&self) -> impl Iterator<Item = (IpAddr, PortId)> {
        self.own.iter().map(|(&address, &port)| (address, port))
    }

    /// A port as its link sees it.
    pub fn interface(&self, port: PortId) -> Option<&Interface> {
        self.interfaces.get(&port)
    }

    /// Neighbours with their Ethernet addresses, where they are known.
    pub fn iter(&self) -> impl Iterator<Item = (PortId, IpAddr, Option<MacAddr>)> {
        self.cache.iter().map(|((port, address), mac)| (port, address, mac))
    }

    /// How many neighbours are remembered or asked for.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// True when none is.
    pub fn is_empty(&self) -> bool {
        self.cache.len() == 0
    }

    /// Changes whenever a [`NextHop`] that was given out may no longer be right.
    #[inline]
    pub fn epoch(&self) -> u32 {
        self.cache.epoch
    }

    /// The route with the longest prefix that holds `dst`.
    pub fn route(&self, dst: IpAddr) -> Option<&Route> {
        self.routes.lookup(dst)
    }

    /// The box's address to speak to `dst` from: one of the port that the route to it leaves by.
    pub fn address_towards(&self, dst: IpAddr) -> Option<IpAddr> {
        let route = self.route(dst)?;
        self.source_on(route.port, route.via.unwrap_or(dst))
    }

    /// The address of `port` to speak to `peer` from: one that shares a prefix with it, else any of the same family.
    pub fn source_on(&self, port: PortId, peer: IpAddr) -> Option<IpAddr> {
        let addresses = &self.interfaces.get(&port)?.addresses;
        let family = |address: &&Cidr| address.addr().is_ipv4() == peer.is_ipv4();
        let near = addresses.iter().find(|address| address.contains(peer));
        near.or_else(|| addresses.iter().find(|a| family(a) && !is_link_local(a.addr())))
            .or_else(|| addresses.iter().find(family))
            .map(Cidr::addr)
    }

    /// How to reach `dst`. With a hint, a destination that only the default route covers (or none) is answered by the way
    /// that the hint came.
    pub fn resolve(&mut self, now: Instant, dst: IpAddr, hint: Option<&Hint>) -> Resolution {
        if self.is_own(dst) {
            return Resolution::Own;
        }
        if dst.is_unspecified() || dst.is_multicast() || dst.is_loopback() || self.is_broadcast(dst) {
            return Resolution::NoRoute;
        }
        let hinted = hint.and_then(|hint| {
            let interface = self.interfaces.get(&hint.port)?;
            let link = LinkHeader { src: interface.mac, dst: hint.mac, vlan: hint.vlan };
            (!hint.mac.is_multicast()).then_some(NextHop { port: hint.port, link, mtu: interface.mtu })
        });
        match (self.routes.lookup(dst).copied(), hinted) {
            (Some(route), None) => self.resolve_on(now, route.port, route.via.unwrap_or(dst)),
            (Some(route), Some(_)) if !route.prefix.is_empty() => {
                self.resolve_on(now, route.port, route.via.unwrap_or(dst))
            }
            (_, Some(hinted)) => Resolution::Ready(hinted),
            (None, None) => Resolution::NoRoute,
        }
    }

    /// Who is behind `next_hop` on the link of `port`.
    pub fn resolve_on(&mut self, now: Instant, port: PortId, next_hop: IpAddr) -> Resolution {
        let Some(interface) = self.interfaces.get(&port) else { return Resolution::NoRoute };
        let (src, mtu) = (interface.mac, interface.mtu);
        let found = self.cache.lookup(now, (port, next_hop), &mut self.effects);
        self.apply_effects();
        match found {
            Lookup::Ready(dst) => Resolution::Ready(NextHop { port, link: LinkHeader { src, dst, vlan: None }, mtu }),
            Lookup::Pending => Resolution::Pending(Waiting { port, next_hop, src, mtu }),
            Lookup::Full => Resolution::Full,
        }
    }

    /// Keeps a packet until its next hop answers. It begins with an Ethernet header made from
    /// [`Waiting::provisional`] and has not been through [`FramePool::tx_begin`].
    ///
    /// # Errors
    /// Gives the packet back when too many wait already.
    pub fn hold(&mut self, waiting: Waiting, frame: TxFrame) -> Result<(), TxFrame> {
        self.cache.hold((waiting.port, waiting.next_hop), frame)
    }

    fn is_broadcast(&self, dst: IpAddr) -> bool {
        let IpAddr::V4(dst) = dst else { return false };
        dst.is_broadcast()
            || self.interfaces.values().flat_map(|i| &i.addresses).any(|address| address.broadcast() == Some(dst))
    }

    /// An ARP packet (its bytes behind the Ethernet header) came in.
    pub fn on_arp(&mut self, now: Instant, port: PortId, link: &LinkHeader, packet: &[u8]) {
        let Some(seen) = packet::read_arp(packet) else { return };
        let Some(mac) = self.interfaces.get(&port).map(|interface| interface.mac) else { return };
        if seen.sender_mac.is_multicast() || seen.sender_mac == mac {
            return;
        }
        if self.own.contains_key(&IpAddr::V4(seen.sender)) {
            self.event(NeighborEvent::AddressConflict { port, address: seen.sender.into(), mac: seen.sender_mac });
            return;
        }
        let for_us = self.own.contains_key(&IpAddr::V4(seen.target));
        // RFC 826: whoever asks for the box will be spoken to, so it is remembered; others only update what is known.
        if !seen.sender.is_unspecified() && link.vlan.is_none() {
            let heard = if for_us && !seen.request {
                Heard::Answered { overrides: true }
            } else {
                Heard::Spoke { learn: for_us && self.on_link(port, seen.sender.into()), overrides: true }
            };
            self.hear(now, port, seen.sender.into(), seen.sender_mac, heard);
        }
        if for_us && seen.request {
            let link = LinkHeader { src: mac, dst: seen.sender_mac, vlan: link.vlan };
            self.say(port, Message { link, body: Body::ArpReply { sender: seen.target, target: seen.sender } });
        }
    }

    /// A neighbour discovery message came in: the ICMPv6 message behind the IPv6 header that `info` tells of.
    pub fn on_ndp(&mut self, now: Instant, port: PortId, info: &IpInfo, message: &[u8]) {
        // RFC 4861 §7.1: a packet with a lower hop limit came from beyond the link.
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (info.src, info.dst) else { return };
        if info.ttl != NDP_HOP_LIMIT || !self.interfaces.contains_key(&port) {
            return;
        }
        match packet::read_ndp(message) {
            Some(NdpSeen::Solicit { target, mac }) => self.on_solicit(now, port, &info.link, (src, dst), target, mac),
            Some(NdpSeen::Advertise { target, mac, solicited, overrides }) => {
                let mac = mac.unwrap_or(info.link.src);
                if mac.is_multicast() || info.link.vlan.is_some() {
                    return;
                }
                if self.own.contains_key(&IpAddr::V6(target)) {
                    self.event(NeighborEvent::AddressConflict { port, address: target.into(), mac });
                    return;
                }
                let heard = if solicited && !dst.is_multicast() {
                    Heard::Answered { overrides }
                } else {
                    Heard::Spoke { learn: false, overrides }
                };
                self.hear(now, port, target.into(), mac, heard);
            }
            None => {}
        }
    }

    fn on_solicit(
        &mut self,
        now: Instant,
        port: PortId,
        link: &LinkHeader,
        (src, dst): (Ipv6Addr, Ipv6Addr),
        target: Ipv6Addr,
        mac: Option<MacAddr>,
    ) {
        if !self.own.contains_key(&IpAddr::V6(target)) {
            return;
        }
        let Some(own) = self.interfaces.get(&port).map(|interface| interface.mac) else { return };
        if src.is_unspecified() {
            // RFC 4861 §7.1.1: somebody checks whether the address is free; the answer goes to everybody (§7.2.4).
            if mac.is_some() || dst != solicited_node(target) {
                return;
            }
            let all_nodes = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            let link = LinkHeader { src: own, dst: multicast_mac(all_nodes), vlan: link.vlan };
            let body = Body::Advertise { src: target, dst: all_nodes, target, solicited: false };
            self.say(port, Message { link, body });
            return;
        }
        let station = mac.unwrap_or(link.src);
        if station.is_multicast() || station == own {
            return;
        }
        if mac.is_some() && link.vlan.is_none() {
            let learn = is_link_local(src.into()) || self.on_link(port, src.into());
            self.hear(now, port, src.into(), station, Heard::Spoke { learn, overrides: true });
        }
        let link = LinkHeader { src: own, dst: station, vlan: link.vlan };
        self.say(port, Message { link, body: Body::Advertise { src: target, dst: src, target, solicited: true } });
    }

    fn on_link(&self, port: PortId, address: IpAddr) -> bool {
        self.interfaces.get(&port).is_some_and(|interface| interface.addresses.iter().any(|a| a.contains(address)))
    }

    fn hear(&mut self, now: Instant, port: PortId, address: IpAddr, mac: MacAddr, heard: Heard) {
        self.cache.heard(now, (port, address), mac, heard, &mut self.effects);
        self.apply_effects();
    }

    /// Turns an echo request to one of the box's addresses into its reply, in place, to be sent by where it came from.
    ///
    /// # Errors
    /// Gives the frame back when it is something else, or too many replies wait already.
    pub fn echo(&mut self, pool: &mut FramePool, rx: RxFrame, info: &IpInfo) -> Result<(), RxFrame> {
        let Some(mac) = self.interfaces.get(&rx.port).map(|interface| interface.mac) else { return Err(rx) };
        let unicast = !info.src.is_unspecified() && !info.src.is_multicast() && !info.link.src.is_multicast();
        if !self.is_own(info.dst) || self.is_own(info.src) || !unicast || self.echoes >= limits::MAX_ECHOES {
            return Err(rx);
        }
        // The box never shares a frame that it just received, so nobody else reads these bytes.
        if !echo::turn_around(pool.bytes_mut(&rx.frame), info, mac) {
            return Err(rx);
        }
        self.echoes += 1;
        pool.tx_begin(&rx.frame);
        let len = info.end.saturating_sub(info.start);
        self.ready.push_back(Ready::Echo(TxFrame { port: rx.port, frame: rx.frame, offset: info.start, len }));
        Ok(())
    }

    /// Tells every link about the box's addresses, so that neighbours forget who had them before.
    pub fn announce(&mut self) {
        let all_nodes = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let messages: Vec<_> = self
            .interfaces
            .values()
            .flat_map(|interface| interface.addresses.iter().map(move |address| (interface, address.addr())))
            .map(|(interface, address)| {
                let (dst, body) = match address {
                    // RFC 5227 §2.3: an announcement asks for the address that it comes from.
                    IpAddr::V4(own) => (MacAddr::BROADCAST, Body::ArpRequest { sender: own, target: own }),
                    IpAddr::V6(own) => (
                        multicast_mac(all_nodes),
                        Body::Advertise { src: own, dst: all_nodes, target: own, solicited: false },
                    ),
                };
                (interface.port, Message { link: LinkHeader { src: interface.mac, dst, vlan: None }, body })
            })
            .collect();
        for (port, message) in messages {
            self.say(port, message);
        }
    }

    /// Asks again, ages and gives up: what is due at `now`.
    pub fn on_timer(&mut self, now: Instant) {
        self.cache.on_timer(now, &mut self.effects);
        self.apply_effects();
    }

    /// When [`Neighbors::on_timer`] wants to be called next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.cache.next_deadline()
    }

    /// What happened since.
    pub fn poll_event(&mut self) -> Option<NeighborEvent> {
        self.events.pop_front()
    }

    /// The next frame to send; it has been through [`FramePool::tx_begin`].
    #[inline]
    pub fn poll_transmit(&mut self, pool: &mut FramePool, counters: &mut Counters) -> Option<TxFrame> {
        // Asked for every frame that a worker sends, and nearly always in vain.
        if self.ready.is_empty() && self.messages.is_empty() { None } else { self.poll_waiting(pool, counters) }
    }

    fn poll_waiting(&mut self, pool: &mut FramePool, counters: &mut Counters) -> Option<TxFrame> {
        while let Some(ready) = self.ready.pop_front() {
            match ready {
                Ready::Echo(frame) => {
                    self.echoes -= 1;
                    counters.inc(Counter::PingReplies);
                    return Some(frame);
                }
                Ready::Held(mac, frame) => {
                    if let Some(frame) = address_frame(pool, mac, frame) {
                        return Some(frame);
                    }
                }
            }
        }
        let (port, message) = self.messages.pop_front()?;
        let Some(frame) = pool.alloc_control() else {
            counters.inc(Counter::TxNoFrame);
            return None;
        };
        let len = message.build(pool.bytes_mut(&frame).get_mut(packet::OFFSET..).unwrap_or_default());
        match message.body {
            Body::ArpReply { .. } => counters.inc(Counter::ArpReplies),
            Body::Advertise { .. } => counters.inc(Counter::NdpReplies),
            Body::ArpRequest { .. } | Body::Solicit { .. } => {}
        }
        pool.tx_begin(&frame);
        Some(TxFrame { port, frame, offset: packet::OFFSET as u16, len: len as u16 })
    }

    /// Gives every frame back that is held or waits to be taken.
    pub fn release_all(&mut self, pool: &mut FramePool) {
        for frame in self.cache.take_held() {
            pool.release(frame.frame);
        }
        for ready in self.ready.drain(..) {
            match ready {
                Ready::Echo(frame) => pool.tx_complete(frame.frame),
                Ready::Held(_, frame) => pool.release(frame.frame),
            }
        }
        for event in self.events.drain(..) {
            if let NeighborEvent::Undeliverable { frame, .. } = event {
                pool.release(frame.frame);
            }
        }
        self.echoes = 0;
        self.messages.clear();
    }

    /// Frames held for neighbours that have not answered yet, and frames waiting to be taken.
    pub fn frames_held(&self) -> usize {
        self.cache.held() + self.ready.len()
    }
}

impl Neighbors {
    fn apply_effects(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Ask((port, address), station) => self.ask(port, address, station),
                Effect::Deliver(mac, frame) => self.ready.push_back(Ready::Held(mac, frame)),
                Effect::Failed((port, next_hop)) => self.event(NeighborEvent::Unreachable { port, next_hop }),
                Effect::Undeliverable(next_hop, frame) => {
                    // Not bounded here: it carries a frame, and frames are bounded where they are held.
                    self.events.push_back(NeighborEvent::Undeliverable { next_hop, frame });
                }
            }
        }
        self.effects = effects;
    }

    /// Asks who has `address`: the `station` that had it, or everybody.
    fn ask(&mut self, port: PortId, address: IpAddr, station: Option<MacAddr>) {
        let Some(src) = self.interfaces.get(&port).map(|interface| interface.mac) else { return };
        let sender = self.source_on(port, address);
        let message = match (address, sender) {
            (IpAddr::V4(target), sender) => {
                let sender = match sender {
                    Some(IpAddr::V4(sender)) => sender,
                    _ => Ipv4Addr::UNSPECIFIED,
                };
                let link = LinkHeader { src, dst: station.unwrap_or(MacAddr::BROADCAST), vlan: None };
                Message { link, body: Body::ArpRequest { sender, target } }
            }
            (IpAddr::V6(target), Some(IpAddr::V6(own))) => {
                let dst = if station.is_some() { target } else { solicited_node(target) };
                let link = LinkHeader { src, dst: station.unwrap_or(multicast_mac(dst)), vlan: None };
                Message { link, body: Body::Solicit { src: own, dst, target } }
            }
            // Without an address of its own the box cannot be answered.
            (IpAddr::V6(_), _) => return,
        };
        self.say(port, message);
    }

    fn say(&mut self, port: PortId, message: Message) {
        if self.messages.len() < limits::MAX_MESSAGES {
            self.messages.push_back((port, message));
        }
    }

    fn event(&mut self, event: NeighborEvent) {
        if self.events.len() < limits::MAX_EVENTS {
            self.events.push_back(event);
        }
    }
}

/// Writes the station's address into a packet that was held; `None` when a device reads the frame, which is then dropped.
fn address_frame(pool: &mut FramePool, mac: MacAddr, frame: TxFrame) -> Option<TxFrame> {
    if pool.tx_pending(&frame.frame) {
        pool.release(frame.frame);
        return None;
    }
    let at = usize::from(frame.offset);
    if let Some(dst) = pool.bytes_mut(&frame.frame).get_mut(at..at + 6) {
        dst.copy_from_slice(&mac.0);
    }
    pool.tx_begin(&frame.frame);
    Some(frame)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
