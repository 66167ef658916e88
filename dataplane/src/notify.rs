//! A descriptor that another thread makes readable, so that a sleeping worker wakes.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug)]
struct Shared {
    fd: OwnedFd,
    /// Set once the descriptor is readable, so that whoever does not sleep need not make a system call to look.
    raised: AtomicBool,
}

/// Wakes whoever polls it. Clones are the same notification.
#[derive(Clone, Debug)]
pub struct Notify(Arc<Shared>);

impl Notify {
    /// A new one, not raised.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers; the result is checked before it is owned.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self(Arc::new(Shared { fd, raised: AtomicBool::new(false) })))
    }

    /// Raises it. Raising twice is raising once.
    pub fn raise(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: writes eight bytes of a live array to a descriptor that `self` owns. A full counter (EAGAIN) is
        // raised already.
        unsafe { libc::write(self.fd(), one.as_ptr().cast(), one.len()) };
        // Last: a descriptor that is readable and not yet raised is found again, one that is raised and never read would
        // keep its poller awake for ever.
        self.0.raised.store(true, Ordering::Release);
    }

    /// Lowers it; true when it was raised. No system call while it was not.
    pub fn take(&self) -> bool {
        if !self.0.raised.load(Ordering::Relaxed) || !self.0.raised.swap(false, Ordering::AcqRel) {
            return false;
        }
        let mut count = [0u8; 8];
        // SAFETY: reads at most eight bytes into a live array of eight.
        unsafe { libc::read(self.fd(), count.as_mut_ptr().cast(), count.len()) };
        true
    }

    /// The descriptor to poll for reading.
    pub fn fd(&self) -> RawFd {
        self.0.fd.as_raw_fd()
    }
}
