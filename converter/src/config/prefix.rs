//! Addresses with a prefix length.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network: an address whose host bits are zero, and a prefix length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    network: IpAddr,
    len: u8,
}

/// An address of the box on a port, with the length of the prefix that is on the link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InterfaceAddress {
    /// The address itself.
    pub addr: IpAddr,
    /// How many leading bits the link's addresses share.
    pub prefix_len: u8,
}

impl Prefix {
    /// The network that `addr` is in when `len` leading bits name it; `None` when `len` is longer than the address.
    pub fn of(addr: IpAddr, len: u8) -> Option<Self> {
        let network = match addr {
            IpAddr::V4(v4) if len <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) if len <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
            _ => return None,
        };
        Some(Self { network, len })
    }

    /// The network's address: all host bits zero.
    pub const fn network(&self) -> IpAddr {
        self.network
    }

    /// Leading bits that the prefix fixes.
    #[expect(clippy::len_without_is_empty, reason = "a prefix length, not a number of elements")]
    pub const fn len(&self) -> u8 {
        self.len
    }

    /// True when `addr` is of the prefix's family and inside it.
    pub fn contains(&self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.network.is_ipv4()
            && Self::of(addr, self.len).is_some_and(|prefix| prefix.network == self.network)
    }

    /// True when some address is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// The IPv4 broadcast address of the prefix, where it has one.
    pub(super) fn broadcast(&self) -> Option<IpAddr> {
        match self.network {
            IpAddr::V4(v4) if self.len <= 30 => Some(IpAddr::V4(Ipv4Addr::from_bits(
                v4.to_bits() | u32::MAX.checked_shr(u32::from(self.len)).unwrap_or(0),
            ))),
            _ => None,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.len)
    }
}

impl InterfaceAddress {
    /// The network on the link.
    pub fn prefix(&self) -> Prefix {
        Prefix::of(self.addr, self.prefix_len).unwrap_or(Prefix { network: self.addr, len: self.prefix_len })
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix_len)
    }
}
