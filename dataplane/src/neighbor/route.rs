//! Address prefixes and the longest-prefix route table.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use mimbox_stack::PortId;

/// An address with a prefix length: `192.0.2.1/24`. The address may have bits behind the prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Cidr {
    addr: IpAddr,
    len: u8,
}

/// A text that is not a prefix.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is not a prefix: write an address, a slash and a length, such as 192.0.2.0/24 or 2001:db8::/64")]
pub struct NotAPrefix(String);

impl Cidr {
    /// `addr/len`; `None` when the length exceeds the address's.
    pub const fn new(addr: IpAddr, len: u8) -> Option<Self> {
        if len <= width(addr) { Some(Self { addr, len }) } else { None }
    }
    /// The address as it was written.
    pub const fn addr(&self) -> IpAddr {
        self.addr
    }
    /// The prefix length.
    pub const fn len(&self) -> u8 {
        self.len
    }
    /// True for `0.0.0.0/0` and `::/0`.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The prefix: the address without the bits behind it.
    pub fn network(&self) -> IpAddr {
        masked(self.addr, self.len)
    }
    /// True when `addr` is in the prefix.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.addr.is_ipv4() == addr.is_ipv4() && masked(addr, self.len) == self.network()
    }
    /// True when the two prefixes share addresses.
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.len <= other.len { self.contains(other.addr) } else { other.contains(self.addr) }
    }
    /// The IPv4 address that reaches every host of the prefix, where there is one.
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        match self.addr {
            IpAddr::V4(addr) if self.len < 31 => Some(Ipv4Addr::from(u32::from(addr) | (u32::MAX >> self.len))),
            _ => None,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for Cidr {
    type Err = NotAPrefix;
    fn from_str(text: &str) -> Result<Self, NotAPrefix> {
        let parsed = text.split_once('/').and_then(|(addr, len)| Self::new(addr.parse().ok()?, len.parse().ok()?));
        parsed.ok_or_else(|| NotAPrefix(text.to_owned()))
    }
}

const fn width(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

fn masked(addr: IpAddr, len: u8) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(addr) & mask))
        }
        IpAddr::V6(addr) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(addr) & mask))
        }
    }
}

/// A way to a prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Where it leads.
    pub prefix: Cidr,
    /// The router; `None` when the destinations are on the link.
    pub via: Option<IpAddr>,
    /// The port that it leaves by.
    pub port: PortId,
}

/// Routes by prefix length, longest first: a look-up costs one map access for each length in use.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteTable {
    lengths: Vec<(u8, BTreeMap<IpAddr, Route>)>,
}

impl RouteTable {
    /// Adds a route; gives back the one that already leads to exactly that prefix.
    pub(super) fn insert(&mut self, route: Route) -> Result<(), Route> {
        let len = route.prefix.len();
        let at = self.lengths.partition_point(|(other, _)| *other > len);
        if self.lengths.get(at).is_none_or(|(other, _)| *other != len) {
            self.lengths.insert(at, (len, BTreeMap::new()));
        }
        let Some((_, routes)) = self.lengths.get_mut(at) else { return Ok(()) };
        match routes.get(&route.prefix.network()) {
            Some(&present) => Err(present),
            None => {
                routes.insert(route.prefix.network(), route);
                Ok(())
            }
        }
    }

    /// The route with the longest prefix that holds `dst`.
    pub(super) fn lookup(&self, dst: IpAddr) -> Option<&Route> {
        let width = width(dst);
        self.lengths.iter().filter(|(len, _)| *len <= width).find_map(|(len, routes)| routes.get(&masked(dst, *len)))
    }
}
