//! Names and addresses, the same in every lab: only the namespaces' names differ from one instance to the next.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The interfaces of the box: two towards the client, one towards the server.
pub const BOX_PORTS: [&str; 3] = ["wan0", "wan1", "core0"];

/// IPv4 or IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// One of the two ways between client and box.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Path {
    /// `c0` to `wan0`: the way of the first subflow.
    First,
    /// `c1` to `wan1`: the way of the joined one.
    Second,
}

impl Path {
    /// Both ways.
    pub const BOTH: [Self; 2] = [Self::First, Self::Second];

    /// 0 or 1.
    pub fn index(self) -> usize {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }

    /// The client's interface, in its namespace.
    pub fn client_interface(self) -> &'static str {
        ["c0", "c1"][self.index()]
    }

    /// The link namespace's device towards the client.
    pub fn link_towards_client(self) -> &'static str {
        ["client0", "client1"][self.index()]
    }

    /// The link namespace's device towards the box: whatever it transmits arrives at the box's port.
    pub fn link_towards_box(self) -> &'static str {
        ["box0", "box1"][self.index()]
    }

    /// The bridge that joins those two.
    pub fn bridge(self) -> &'static str {
        ["bridge0", "bridge1"][self.index()]
    }

    /// The box's interface.
    pub fn box_interface(self) -> &'static str {
        BOX_PORTS[self.index()]
    }
}

/// The addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plan;

impl Plan {
    /// The server's interface, in its namespace.
    pub const SERVER_INTERFACE: &str = "s0";
    /// Prefix length of every IPv4 network here.
    pub const PREFIX_V4: u8 = 24;
    /// Prefix length of every IPv6 network here.
    pub const PREFIX_V6: u8 = 64;

    fn address(network: u16, host: u16, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(10, 71, network as u8, host as u8).into(),
            Family::V6 => Ipv6Addr::new(0xfd71, network, 0, 0, 0, 0, 0, host).into(),
        }
    }

    fn network(path: Path) -> u16 {
        path.index() as u16 + 1
    }

    /// The client's address on a path.
    pub fn client(path: Path, family: Family) -> IpAddr {
        Self::address(Self::network(path), 2, family)
    }

    /// The box's address on a path.
    pub fn box_wan(path: Path, family: Family) -> IpAddr {
        Self::address(Self::network(path), 1, family)
    }

    /// The box's address towards the server; its source in explicit mode.
    pub fn box_core(family: Family) -> IpAddr {
        Self::address(9, 1, family)
    }

    /// The server's address.
    pub fn server(family: Family) -> IpAddr {
        Self::address(9, 2, family)
    }

    /// Another address for the server, which no lab gives it by itself.
    pub fn server_further(family: Family) -> IpAddr {
        Self::address(9, 3, family)
    }

    /// An address on the server's network where nobody answers.
    pub fn nobody(family: Family) -> IpAddr {
        Self::address(9, 77, family)
    }

    /// The prefix length that goes with an address.
    pub fn prefix(address: IpAddr) -> u8 {
        if address.is_ipv4() { Self::PREFIX_V4 } else { Self::PREFIX_V6 }
    }

    /// `address/prefix`, as `ip` and the configuration want it.
    pub fn with_prefix(address: IpAddr) -> String {
        format!("{address}/{}", Self::prefix(address))
    }
}
