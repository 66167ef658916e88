//! Stream sockets with what the standard library does not offer: MPTCP, congestion control, a reset on demand.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::time::Duration;

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, socket_with, sockopt};

/// IPPROTO_MPTCP.
const MPTCP: NonZeroU32 = NonZeroU32::new(262).unwrap();

/// Congestion controls to try, in order, when any will do.
const USUAL: [&str; 2] = ["cubic", "reno"];

/// TCP or Multipath TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Tcp,
    Mptcp,
}

fn open(kind: Kind, peer: &SocketAddr) -> io::Result<rustix::fd::OwnedFd> {
    let family = if peer.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let protocol = match kind {
        Kind::Tcp => ipproto::TCP,
        Kind::Mptcp => Protocol::from_raw(MPTCP),
    };
    Ok(socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(protocol))?)
}

/// Asks for a congestion control; `auto` takes the first usual one that the system lets us have.
fn set_congestion(socket: &impl rustix::fd::AsFd, congestion: &str) -> io::Result<()> {
    if congestion != "auto" {
        return sockopt::set_tcp_congestion(socket, congestion)
            .map_err(|error| io::Error::other(format!("congestion control {congestion}: {error}")));
    }
    for usual in USUAL {
        if sockopt::set_tcp_congestion(socket, usual).is_ok() {
            break;
        }
    }
    Ok(())
}

pub(crate) fn connect(kind: Kind, from: Option<SocketAddr>, to: SocketAddr, congestion: &str) -> io::Result<TcpStream> {
    let socket = open(kind, &to)?;
    set_congestion(&socket, congestion)?;
    if let Some(from) = from {
        rustix::net::bind(&socket, &from)?;
    }
    rustix::net::connect(&socket, &to)?;
    Ok(socket.into())
}

pub(crate) fn listen(kind: Kind, at: SocketAddr, congestion: &str) -> io::Result<TcpListener> {
    let socket = open(kind, &at)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    set_congestion(&socket, congestion)?;
    rustix::net::bind(&socket, &at)?;
    rustix::net::listen(&socket, 4096)?;
    Ok(socket.into())
}

pub(crate) fn congestion(socket: &TcpStream) -> String {
    sockopt::tcp_congestion(socket).unwrap_or_else(|_| "unknown".into())
}

/// No read or write may take longer than this.
pub(crate) fn limit_waiting(socket: &TcpStream, stall: Duration) -> io::Result<()> {
    socket.set_read_timeout(Some(stall))?;
    socket.set_write_timeout(Some(stall))
}

/// Resets the connection. Lingering for no time does it for TCP; an MPTCP connection is told by dissolving it.
pub(crate) fn reset(socket: TcpStream) -> io::Result<()> {
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    // Where a kernel refuses this, closing with a zero linger time resets as well.
    let _ = rustix::net::connect_unspec(&socket);
    drop(socket);
    Ok(())
}
