//! What the operating system knows of a network interface, and what it is asked to let through.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use mimbox_stack::wire::MacAddr;

use super::Take;
use super::steer::Steered;
use crate::neighbor::{multicast_mac, solicited_node};
use crate::port::PortError;

/// What the operating system knows of an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InterfaceFacts {
    /// Its number.
    pub index: u32,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its MTU.
    pub mtu: u32,
    /// True when it is up.
    pub up: bool,
    /// How many receive queues are in use, and the word by which `ethtool -L` sets them.
    pub queues: (u32, &'static str),
}

const ETHTOOL_GCHANNELS: u32 = 0x3c;
const SIOCETHTOOL: u32 = 0x8946;

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// Asks about `interface`.
///
/// # Errors
/// [`PortError::NoInterface`] when there is none of that name in this network namespace.
pub fn interface_facts(interface: &str) -> Result<InterfaceFacts, PortError> {
    let missing = || PortError::NoInterface { interface: interface.to_owned() };
    let name = CString::new(interface).map_err(|_| missing())?;
    // SAFETY: `name` is a live, terminated string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 || name.as_bytes().len() >= libc::IFNAMSIZ {
        return Err(missing());
    }
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)
        .map_err(|error| PortError::io("asking for its properties", interface, error))?;
    let ask = |request: u32, what: &'static str, before: &dyn Fn(&mut libc::ifreq)| {
        ioctl(&socket, request, interface, before).map_err(|error| PortError::io(what, interface, error))
    };
    let address = ask(libc::SIOCGIFHWADDR as u32, "asking for its Ethernet address", &|_| {})?;
    // SAFETY: SIOCGIFHWADDR filled in the union's address.
    let address = unsafe { address.ifr_ifru.ifru_hwaddr }.sa_data;
    let mtu = ask(libc::SIOCGIFMTU as u32, "asking for its MTU", &|_| {})?;
    // SAFETY: SIOCGIFMTU filled in the union's MTU.
    let mtu = unsafe { mtu.ifr_ifru.ifru_mtu };
    let flags =
        flags_by(&socket, interface).map_err(|error| PortError::io("asking whether it is up", interface, error))?;
    let [a, b, c, d, e, f, ..] = address.map(|byte| byte as u8);
    Ok(InterfaceFacts {
        index,
        mac: MacAddr([a, b, c, d, e, f]),
        mtu: u32::try_from(mtu).unwrap_or(0),
        up: flags & libc::IFF_UP != 0,
        queues: queues(&socket, interface),
    })
}

/// The flags (`IFF_UP`, …) of an interface.
///
/// # Errors
/// When there is no such interface in this network namespace.
pub(super) fn interface_flags(interface: &str) -> io::Result<libc::c_int> {
    if interface.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::NotFound.into());
    }
    flags_by(&socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?, interface)
}

fn flags_by(socket: &OwnedFd, interface: &str) -> io::Result<libc::c_int> {
    let answer = ioctl(socket, libc::SIOCGIFFLAGS as u32, interface, &|_| {})?;
    // SAFETY: SIOCGIFFLAGS filled in the union's flags. IFF_RUNNING and all below it fit their 16 bits.
    Ok(libc::c_int::from(unsafe { answer.ifr_ifru.ifru_flags }))
}

/// How many queues receive; a driver that does not say has one.
fn queues(socket: &OwnedFd, interface: &str) -> (u32, &'static str) {
    let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
    let pointer = std::ptr::from_mut(&mut channels);
    let asked = ioctl(socket, SIOCETHTOOL, interface, &|request| request.ifr_ifru.ifru_data = pointer.cast());
    match asked {
        Ok(_) if channels.combined > 0 => (channels.combined + channels.rx, "combined"),
        Ok(_) => (channels.rx.max(1), "rx"),
        Err(_) => (1, "combined"),
    }
}

fn ioctl(
    socket: &OwnedFd,
    request: u32,
    interface: &str,
    before: &dyn Fn(&mut libc::ifreq),
) -> io::Result<libc::ifreq> {
    // SAFETY: an ifreq is plain data, for which zeros are a value.
    let mut ifreq: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in ifreq.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    before(&mut ifreq);
    // SAFETY: every request used here reads and writes one ifreq, and for SIOCETHTOOL the structure that `before` pointed
    // it to, which its caller keeps alive.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::Ioctl::from(request), &raw mut ifreq) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(ifreq) }
}

/// A socket that is closed on exec.
pub(super) fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers; the result is checked before it is owned.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets a socket option from a plain value.
pub(super) fn set_option<T: Copy>(socket: &OwnedFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: reads `size_of::<T>()` bytes of a live value.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `struct packet_mreq`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Membership {
    index: i32,
    kind: u16,
    len: u16,
    address: [u8; 8],
}

const PACKET_MR_MULTICAST: u16 = 0;
const PACKET_MR_PROMISC: u16 = 1;
const PACKET_MR_UNICAST: u16 = 3;

/// Asks the NIC's filter to let through what neighbours send to the groups of the box's addresses, and to `mac` when it is
/// not the NIC's own; or everything, when that is what the port takes. It does so as long as the descriptor that comes
/// back is open.
pub(super) fn listen(interface: &str, facts: &InterfaceFacts, steered: &Steered<'_>) -> Result<OwnedFd, PortError> {
    let Steered { mac, take, addresses } = *steered;
    let trouble = |error| PortError::io("joining the groups of its addresses", interface, error);
    let socket = socket(libc::AF_PACKET, libc::SOCK_RAW, 0).map_err(trouble)?;
    let groups = addresses.iter().filter_map(|address| match address {
        IpAddr::V6(address) => Some(multicast_mac(solicited_node(*address))),
        IpAddr::V4(_) => None,
    });
    let all_nodes = multicast_mac(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
    let wanted = groups
        .chain(addresses.iter().any(IpAddr::is_ipv6).then_some(all_nodes))
        .map(|group| (PACKET_MR_MULTICAST, group))
        .chain((mac != facts.mac).then_some((PACKET_MR_UNICAST, mac)))
        .chain((take == Take::All).then_some((PACKET_MR_PROMISC, mac)));
    for (kind, address) in wanted {
        let [a, b, c, d, e, f] = address.0;
        let index = i32::try_from(facts.index).unwrap_or(i32::MAX);
        let membership = Membership { index, kind, len: 6, address: [a, b, c, d, e, f, 0, 0] };
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership).map_err(trouble)?;
    }
    Ok(socket)
}
