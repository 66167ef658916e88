//! The rules for ports and their addresses.

use std::net::IpAddr;
use std::ops::Range;

use mimbox_dataplane::af_xdp::largest_mtu;
use mimbox_stack::PortId;
use toml::Spanned;

use super::{Checker, PORTS_MAX, is_link_local};
use crate::config::file::{self, Text};
use crate::config::{Backend, CopyMode, InterfaceAddress, PortConfig, XdpMode};

/// Longest name that the operating system gives an interface (IFNAMSIZ less its end).
const INTERFACE_NAME_MAX: usize = 15;

impl Checker<'_> {
    pub(super) fn ports(&mut self, ports: &[Spanned<file::Port>]) -> Vec<PortConfig> {
        if ports.is_empty() {
            self.missing("no port is configured", "add a [[port]] with name, interface and addresses");
        }
        if let Some(port) = ports.get(PORTS_MAX) {
            self.problem(port.span(), format!("more than {PORTS_MAX} ports"), "leave some out");
        }
        let mut checked: Vec<PortConfig> = Vec::new();
        let mut places: Vec<(usize, InterfaceAddress)> = Vec::new();
        for (index, port) in ports.iter().take(PORTS_MAX).enumerate() {
            let name = self.port_name(port);
            let interface = self.interface(port, &checked);
            let own = self.addresses(port, index, &mut places, &checked);
            let port = port.get_ref();
            let queue = self.number(port.queue.as_ref(), "queue", 0, 0..=1023) as u16;
            let mtu = port
                .mtu
                .as_ref()
                .map(|mtu| self.number(Some(mtu), "mtu", 1500, 68..=u64::from(largest_mtu(4096))) as u16);
            checked.push(PortConfig {
                id: PortId(index as u8),
                name: name.clone(),
                interface,
                backend: self.choice(port.backend.as_ref(), "backend", Backend::AfXdp, Backend::ALL, Backend::name),
                addresses: own,
                mode: self.choice(port.mode.as_ref(), "mode", XdpMode::Auto, XdpMode::ALL, XdpMode::name),
                copy: self.choice(port.copy.as_ref(), "copy", CopyMode::Auto, CopyMode::ALL, CopyMode::name),
                queue,
                mac: port.mac.as_ref().and_then(|mac| self.mac(mac)),
                mtu,
            });
            self.names.push(name);
        }
        checked
    }

    fn port_name(&mut self, port: &Spanned<file::Port>) -> String {
        let Some(name) = &port.get_ref().name else {
            self.problem(port.span(), "a [[port]] needs a name", "write name = \"wan0\", the box's own word for it");
            return String::new();
        };
        let word = name.get_ref();
        if word.is_empty() || !word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            self.problem(
                name.span(),
                format!("{word:?} cannot be a port's name"),
                "use letters, digits, '-', '_' and '.'",
            );
        } else if self.names.contains(word) {
            self.problem(name.span(), format!("two ports have the name {word:?}"), "give each its own name");
        }
        word.clone()
    }

    fn interface(&mut self, port: &Spanned<file::Port>, before: &[PortConfig]) -> String {
        let Some(interface) = &port.get_ref().interface else {
            self.problem(
                port.span(),
                "a [[port]] needs an interface",
                "write interface = \"eth1\"; `ip -brief link` lists the interfaces",
            );
            return String::new();
        };
        let word = interface.get_ref();
        if word.is_empty() || word.len() > INTERFACE_NAME_MAX || word.contains(|c: char| c == '/' || c.is_whitespace())
        {
            self.problem(
                interface.span(),
                format!("{word:?} cannot be an interface's name"),
                "write a name that `ip -brief link` lists (at most 15 characters)",
            );
        } else if let Some(other) = before.iter().find(|other| other.interface == *word) {
            let other = other.name.clone();
            self.problem(
                interface.span(),
                format!("interface {word:?} is port {other:?} already"),
                "use each interface once; one port can have several addresses",
            );
        }
        word.clone()
    }

    /// The port's addresses. `places` holds those of the ports before, each with its port's index.
    fn addresses(
        &mut self,
        port: &Spanned<file::Port>,
        index: usize,
        places: &mut Vec<(usize, InterfaceAddress)>,
        before: &[PortConfig],
    ) -> Vec<InterfaceAddress> {
        let Some(list) = port.get_ref().addresses.as_ref().filter(|list| !list.get_ref().is_empty()) else {
            let place = port.get_ref().addresses.as_ref().map_or(port.span(), Spanned::span);
            self.problem(
                place,
                "a [[port]] needs at least one address",
                "write addresses = [\"192.0.2.1/24\"]: the box answers ARP and NDP for them itself",
            );
            return Vec::new();
        };
        let mut own = Vec::new();
        for text in list.get_ref() {
            let Some(address) = self.address_and_length(text) else { continue };
            if self.usable(address, text) && self.apart(address, text.span(), index, places, before) {
                own.push(address);
                places.push((index, address));
            }
        }
        own
    }

    /// Says whether a host can have the address.
    fn usable(&mut self, address: InterfaceAddress, text: &Text) -> bool {
        let InterfaceAddress { addr, prefix_len } = address;
        let host_bits = if addr.is_ipv4() { 32 } else { 128 } - prefix_len;
        let why = if addr.is_multicast() {
            "is a multicast address"
        } else if addr.is_loopback() {
            "is a loopback address"
        } else if addr.is_unspecified() {
            "is the unspecified address"
        } else if prefix_len == 0 {
            "has prefix length 0: every address would be on the link"
        } else if host_bits >= 2 && addr == address.prefix().network() {
            "is the network's own address"
        } else if matches!(addr, IpAddr::V4(_)) && address.prefix().broadcast() == Some(addr) {
            "is the network's broadcast address"
        } else {
            return true;
        };
        self.problem(
            text.span(),
            format!("{address} {why}"),
            "give the box a host address of the network on that port",
        );
        false
    }

    /// Says whether the address stands apart from those before it.
    fn apart(
        &mut self,
        address: InterfaceAddress,
        place: Range<usize>,
        index: usize,
        places: &[(usize, InterfaceAddress)],
        before: &[PortConfig],
    ) -> bool {
        for (other_index, other) in places {
            let other_name =
                before.get(*other_index).map_or("this port".to_owned(), |port| format!("port {:?}", port.name));
            if other.addr == address.addr {
                self.problem(
                    place,
                    format!("the address {} is used twice (first by {other_name})", address.addr),
                    "give each address to one port, once",
                );
                return false;
            }
            let links_differ = *other_index != index && !is_link_local(address.addr);
            if links_differ && other.prefix().overlaps(&address.prefix()) {
                self.problem(
                    place,
                    format!("the network {} overlaps {} of {other_name}", address.prefix(), other.prefix()),
                    "a network can be behind one port only: mend the prefix lengths, or put both addresses on one port",
                );
                return false;
            }
        }
        true
    }

    fn mac(&mut self, text: &Text) -> Option<[u8; 6]> {
        let bytes: Vec<u8> = text
            .get_ref()
            .split(':')
            .filter(|part| part.len() == 2)
            .filter_map(|part| u8::from_str_radix(part, 16).ok())
            .collect();
        let mac = <[u8; 6]>::try_from(bytes).ok().filter(|_| text.get_ref().len() == 17);
        let what = match mac {
            None => "is not an Ethernet address",
            Some(mac) if mac[0] & 1 == 1 => "is a group address, which no port can have",
            Some([0, 0, 0, 0, 0, 0]) => "is the empty Ethernet address",
            Some(mac) => return Some(mac),
        };
        self.problem(
            text.span(),
            format!("{:?} {what}", text.get_ref()),
            "write six bytes such as \"02:00:00:00:00:01\", or leave the key out to use the interface's own",
        );
        None
    }
}
