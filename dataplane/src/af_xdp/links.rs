//! Which interfaces have a link: netlink says that something has changed, the interface's flags say what.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::netdev::{interface_flags, socket};
use crate::port::Links;

/// Hears of every change of an interface of this network namespace.
///
/// What the messages say is not read: they can be lost (ENOBUFS), and then nothing but the interfaces' own state counts.
#[derive(Debug)]
pub struct LinkWatch {
    news: OwnedFd,
}

impl LinkWatch {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn open() -> io::Result<Self> {
        let news = socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_NONBLOCK, libc::NETLINK_ROUTE)?;
        // SAFETY: a sockaddr_nl is plain data, for which zeros are a value.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = libc::RTMGRP_LINK as u32;
        let len = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: reads `len` bytes of a live address of that size.
        let result = unsafe { libc::bind(news.as_raw_fd(), (&raw const address).cast(), len) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(Self { news }) }
    }
}

impl Links for LinkWatch {
    fn news(&mut self) -> bool {
        let mut message = [0u8; 256];
        let mut heard = false;
        loop {
            // SAFETY: writes at most as many bytes as the live array has; the rest of a message is dropped.
            let read = unsafe { libc::recv(self.news.as_raw_fd(), message.as_mut_ptr().cast(), message.len(), 0) };
            // Messages that did not fit the socket's buffer are news as well.
            if read < 0 && io::Error::last_os_error().raw_os_error() != Some(libc::ENOBUFS) {
                return heard;
            }
            heard = true;
        }
    }

    fn is_up(&self, interface: &str) -> bool {
        let flags = interface_flags(interface);
        flags.is_ok_and(|flags| flags & libc::IFF_UP != 0 && flags & libc::IFF_RUNNING != 0)
    }

    fn fd(&self) -> Option<RawFd> {
        Some(self.news.as_raw_fd())
    }
}
