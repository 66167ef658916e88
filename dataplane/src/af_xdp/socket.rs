//! One AF_XDP socket with its four rings.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use mimbox_stack::mem::Region;

use super::gains::refused;
use super::netdev::{set_option, socket};
use super::ring::{ConsumerRing, ProducerRing};
use super::{AfXdpConfig, BusyPoll};
use crate::port::{PortError, PortStats};

// linux/if_xdp.h and asm-generic/socket.h; not in libc.
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;
const SO_BUSY_POLL: i32 = 46;
const SO_PREFER_BUSY_POLL: i32 = 69;
const SO_BUSY_POLL_BUDGET: i32 = 70;

/// Whether the kernel copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Copying {
    Never,
    Always,
}

/// A socket with its rings.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) rx: ConsumerRing<libc::xdp_desc>,
    pub(super) tx: ProducerRing<libc::xdp_desc>,
    pub(super) fill: ProducerRing<u64>,
    pub(super) completion: ConsumerRing<u64>,
    // After the rings: a mapping keeps the socket alive.
    fd: OwnedFd,
}

impl Socket {
    /// Makes a socket and its rings; registers `region` as UMEM unless an earlier socket, `umem`, did.
    pub(super) fn open(
        interface: &str,
        region: &Region,
        umem: Option<BorrowedFd<'_>>,
        config: &AfXdpConfig,
    ) -> Result<Self, PortError> {
        let io = |doing| move |error| PortError::io(doing, interface, error);
        let fd = socket(libc::AF_XDP, libc::SOCK_RAW, 0).map_err(io("making an AF_XDP socket"))?;
        if umem.is_none() {
            let umem = libc::xdp_umem_reg {
                addr: region.as_ptr() as u64,
                len: region.len() as u64,
                chunk_size: region.frame_size(),
                // The kernel adds 256 bytes of its own: frames begin at RX_HEADROOM.
                headroom: 0,
                flags: 0,
                tx_metadata_len: 0,
            };
            set_option(&fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &umem).map_err(io("registering its frames"))?;
        }
        for ring in [libc::XDP_RX_RING, libc::XDP_TX_RING, libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING] {
            set_option(&fd, libc::SOL_XDP, ring, &config.ring).map_err(io("sizing its rings"))?;
        }
        Self::map(fd, config.ring).map_err(io("mapping its rings"))
    }

    fn map(fd: OwnedFd, ring: u32) -> io::Result<Self> {
        let offsets: libc::xdp_mmap_offsets = get_option(&fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS)?;
        let at = |offset: u64| libc::off_t::try_from(offset).map_err(|_| io::Error::other("a ring is out of reach"));
        Ok(Self {
            rx: ConsumerRing::map(fd.as_fd(), ring, &offsets.rx, libc::XDP_PGOFF_RX_RING)?,
            tx: ProducerRing::map(fd.as_fd(), ring, &offsets.tx, libc::XDP_PGOFF_TX_RING)?,
            fill: ProducerRing::map(fd.as_fd(), ring, &offsets.fr, at(libc::XDP_UMEM_PGOFF_FILL_RING)?)?,
            completion: ConsumerRing::map(fd.as_fd(), ring, &offsets.cr, at(libc::XDP_UMEM_PGOFF_COMPLETION_RING)?)?,
            fd,
        })
    }

    /// Binds to a queue, on the UMEM and in the mode of `first` when there is one.
    pub(super) fn bind(
        &self,
        interface: &str,
        index: u32,
        queue: u32,
        copying: Copying,
        first: Option<&Self>,
    ) -> Result<(), PortError> {
        let (flags, shared) = match first {
            // The kernel takes the mode from the first socket and refuses to hear it again.
            Some(first) => (libc::XDP_SHARED_UMEM, first.fd.as_raw_fd() as u32),
            None => {
                let mode = match copying {
                    Copying::Never => libc::XDP_ZEROCOPY,
                    Copying::Always => libc::XDP_COPY,
                };
                (mode | libc::XDP_USE_NEED_WAKEUP, 0)
            }
        };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: flags,
            sxdp_ifindex: index,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: shared,
        };
        // SAFETY: reads one live sockaddr_xdp.
        let result = unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_xdp>() as libc::socklen_t,
            )
        };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EBUSY) => Err(PortError::Busy { interface: interface.to_owned(), waited_ms: 0 }),
            _ => Err(PortError::io("binding its AF_XDP socket", interface, error)),
        }
    }

    /// True when the NIC itself reads and writes the frames.
    pub(super) fn is_zero_copy(&self) -> bool {
        get_option::<libc::xdp_options>(&self.fd, libc::SOL_XDP, libc::XDP_OPTIONS)
            .is_ok_and(|options| options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// Lets the kernel poll the driver in the worker's system calls.
    pub(super) fn prefer_busy_poll(&self, busy_poll: BusyPoll) -> Result<BusyPoll, String> {
        let set = |name, value: u32| set_option(&self.fd, libc::SOL_SOCKET, name, &value);
        set(SO_PREFER_BUSY_POLL, 1)
            .and_then(|()| set(SO_BUSY_POLL, busy_poll.micros))
            .and_then(|()| set(SO_BUSY_POLL_BUDGET, busy_poll.budget))
            .map(|()| busy_poll)
            .map_err(|error| refused(&error, "Linux 5.11"))
    }

    /// Lets one system call send all that is on a ring of `ring` frames in copy mode.
    pub(super) fn raise_tx_budget(&self, ring: u32) -> Result<u32, String> {
        set_option(&self.fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &ring)
            .map(|()| ring)
            .map_err(|error| refused(&error, "Linux 6.18"))
    }

    /// Lets `bytes` be on their way in copy mode, or what the system allows; says how many.
    pub(super) fn raise_send_buffer(&self, bytes: i32) -> u32 {
        if set_option(&self.fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &bytes).is_err() {
            let _the_system_bounds_it = set_option(&self.fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &bytes);
        }
        get_option(&self.fd, libc::SOL_SOCKET, libc::SO_SNDBUF).unwrap_or(0)
    }

    /// Has the kernel look at the TX ring; what it complained of.
    pub(super) fn kick(&self) -> Option<i32> {
        // SAFETY: sends nothing and names no address: both pointers may be null with a length of zero.
        let result =
            unsafe { libc::sendto(self.fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
        if result < 0 { io::Error::last_os_error().raw_os_error() } else { None }
    }

    /// Has the kernel look at the fill ring, or poll the driver.
    pub(super) fn poke(&self) {
        // SAFETY: receives nothing and asks for no address: all pointers may be null with a length of zero.
        unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
    }

    /// What the kernel counted.
    pub(super) fn statistics(&self) -> Option<PortStats> {
        let seen: libc::xdp_statistics = get_option(&self.fd, libc::SOL_XDP, libc::XDP_STATISTICS).ok()?;
        Some(PortStats {
            rx_dropped: seen.rx_dropped,
            rx_ring_full: seen.rx_ring_full,
            rx_fill_empty: seen.rx_fill_ring_empty_descs,
            invalid_descriptors: seen.rx_invalid_descs + seen.tx_invalid_descs,
            ..PortStats::default()
        })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Reads a socket option into a plain value.
fn get_option<T: Copy>(fd: &OwnedFd, level: i32, name: i32) -> io::Result<T> {
    // SAFETY: `T` is one of libc's plain structures of integers, for which zeros are a value.
    let mut value: T = unsafe { std::mem::zeroed() };
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: writes at most `len` bytes to a live value of that size.
    let result =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, std::ptr::from_mut(&mut value).cast(), &raw mut len) };
    if result < 0 || len as usize != size_of::<T>() { Err(io::Error::last_os_error()) } else { Ok(value) }
}
