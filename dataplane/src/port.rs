//! What a backend owes the poll loop, and what the loop owes the engine.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use mimbox_stack::wire::MacAddr;
use mimbox_stack::{Counters, FramePool, Instant, PortId, RxFrame, TxFrame};

/// The sans-IO machine that a worker drives: the converter's shard.
///
/// The worker calls `on_frames`, `on_timer` or `obey`, then `poll_transmit` with the same `now`, and nothing else moves the
/// engine. A recording of those calls is therefore enough to run it again.
pub trait Engine {
    /// Takes received frames: the batch is drained, and each frame is kept or released.
    fn on_frames(&mut self, now: Instant, batch: &mut Vec<RxFrame>);
    /// Runs what is due at `now`.
    fn on_timer(&mut self, now: Instant);
    /// Carries out an order; what it makes the engine send comes out of `poll_transmit`. An engine that opens no connections
    /// has nothing to do.
    fn obey(&mut self, now: Instant, order: Order) {
        let _ = (now, order);
    }
    /// The next frame to send; it has been through [`FramePool::tx_begin`].
    fn poll_transmit(&mut self, now: Instant) -> Option<TxFrame>;
    /// When `on_timer` wants to be called next.
    fn next_deadline(&self) -> Option<Instant>;
    /// The frames.
    fn pool(&mut self) -> &mut FramePool;
    /// The counters.
    fn counters(&mut self) -> &mut Counters;
}

/// What an engine is told to do, or told of, beside packets: by the one who runs the box, and by the worker itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// From now on no conversion is opened: new SYNs are answered with a reset, or forwarded in transparent mode.
    RefuseOpenings,
    /// Reset every conversion and half-open record.
    ResetAll,
    /// A port has lost its link, or has it back. Every port has one until this says otherwise.
    Link {
        /// The port.
        port: PortId,
        /// It has a link.
        up: bool,
    },
}

/// Tells which interfaces have a link.
pub trait Links {
    /// True when something may have changed since the last call. Never waits.
    fn news(&mut self) -> bool;
    /// True when the interface can carry packets.
    fn is_up(&self, interface: &str) -> bool;
    /// What to poll for reading to hear of news while sleeping.
    fn fd(&self) -> Option<RawFd>;
}

/// A network interface as the worker sees it. One queue pair; all calls come from one thread.
pub trait Port {
    /// Who and what it is.
    fn info(&self) -> &PortInfo;
    /// Appends up to `max` received frames to `batch`; says how many. Each is a right to a frame.
    fn receive(&mut self, pool: &mut FramePool, batch: &mut Vec<RxFrame>, max: usize) -> usize;
    /// Queues a frame (which has been through [`FramePool::tx_begin`]) for transmission.
    ///
    /// # Errors
    /// Gives the frame back when the ring is full. Try again after [`Port::complete`].
    fn transmit(&mut self, pool: &mut FramePool, frame: TxFrame) -> Result<(), TxFrame>;
    /// Rings the doorbell for what was queued. The worker calls this once per batch, and it is one system call at most,
    /// but on kernels that take few frames at a time.
    fn flush(&mut self);
    /// Takes frames back that have been sent, through [`FramePool::tx_complete`], oldest first; says how many, those that
    /// `transmit` dropped since the last call included.
    fn complete(&mut self, pool: &mut FramePool) -> usize;
    /// Hands free frames to reception.
    fn refill(&mut self, pool: &mut FramePool);
    /// Frames that the port holds: in fill, RX, TX and completion rings.
    fn frames_in_rings(&self) -> u32;
    /// True when `flush` has more to do: frames were queued that the device did not take yet.
    fn wants_flush(&self) -> bool;
    /// What to poll for reading before sleeping; `None` when the port has nothing to wait for.
    fn fd(&self) -> Option<RawFd>;
    /// When the next frame will come, where that is known beforehand: a capture knows, a network does not.
    fn next_arrival(&self) -> Option<Instant> {
        None
    }
    /// Whether it can send and receive.
    fn state(&self) -> PortState;
    /// What it counted. This may ask the kernel.
    fn stats(&self) -> PortStats;
    /// What makes it fast, as far as it was to be had.
    fn features(&self) -> Vec<Feature> {
        Vec::new()
    }
    /// Stops the port and gives every frame back to `pool`. It neither sends nor receives afterwards.
    fn close(&mut self, pool: &mut FramePool);
}

/// Something that makes a port fast, and whether the kernel and the device gave it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feature {
    /// Its name, for scripts.
    pub name: &'static str,
    /// Whether the port has it.
    pub got: bool,
    /// How much of it, or why not.
    pub detail: String,
}

impl Feature {
    /// What the port has, or why it has it not.
    pub fn new(name: &'static str, outcome: Result<String, String>) -> Self {
        let got = outcome.is_ok();
        Self { name, got, detail: outcome.unwrap_or_else(|why| why) }
    }
}

/// Who and what a port is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortInfo {
    /// Its number.
    pub id: PortId,
    /// The operating system's name of the interface, or what stands for it.
    pub interface: String,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// The largest IP packet that it carries.
    pub mtu: u16,
    /// How frames get in and out.
    pub mode: PortMode,
}

/// How frames get in and out of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortMode {
    /// AF_XDP, the NIC reads and writes the frames.
    ZeroCopy,
    /// AF_XDP, the kernel copies; the steering program runs in the driver.
    Copy,
    /// AF_XDP, the kernel copies; the steering program runs behind the driver.
    CopyGeneric,
    /// In memory.
    Memory,
    /// A capture file.
    Capture,
}

impl fmt::Display for PortMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroCopy => "AF_XDP zero-copy",
            Self::Copy => "AF_XDP copy",
            Self::CopyGeneric => "AF_XDP copy, generic XDP",
            Self::Memory => "memory",
            Self::Capture => "capture file",
        })
    }
}

/// Whether a port can send and receive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PortState {
    /// It can.
    #[default]
    Up,
    /// The interface is down: what is sent is dropped and counted.
    Down,
    /// The interface is gone, or the capture is at its end: nothing will come any more.
    Gone,
}

/// What a port counted since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortStats {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received, Ethernet headers included.
    pub rx_bytes: u64,
    /// Frames handed to the device.
    pub tx_frames: u64,
    /// Bytes handed to the device, Ethernet headers included.
    pub tx_bytes: u64,
    /// Frames dropped on transmission because the interface was down or took none for too long.
    pub tx_dropped: u64,
    /// Frames that the kernel or device dropped on reception for other reasons than the two below.
    pub rx_dropped: u64,
    /// Frames dropped because the worker did not empty the RX ring in time.
    pub rx_ring_full: u64,
    /// Times that reception found no free frame.
    pub rx_fill_empty: u64,
    /// Descriptors that the kernel refused, on either side; not zero is a bug.
    pub invalid_descriptors: u64,
    /// System calls that had the kernel take frames to send.
    pub tx_calls: u64,
    /// System calls that had the kernel look for received frames, or for room to put them.
    pub rx_calls: u64,
}

impl PortStats {
    /// Each number with its name, for display.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Self {
            rx_frames,
            rx_bytes,
            tx_frames,
            tx_bytes,
            tx_dropped,
            rx_dropped,
            rx_ring_full,
            rx_fill_empty,
            invalid_descriptors,
            tx_calls,
            rx_calls,
        } = *self;
        [
            ("rx_frames", rx_frames),
            ("rx_bytes", rx_bytes),
            ("tx_frames", tx_frames),
            ("tx_bytes", tx_bytes),
            ("tx_dropped", tx_dropped),
            ("rx_dropped", rx_dropped),
            ("rx_ring_full", rx_ring_full),
            ("rx_fill_empty", rx_fill_empty),
            ("invalid_descriptors", invalid_descriptors),
            ("tx_calls", tx_calls),
            ("rx_calls", rx_calls),
        ]
        .into_iter()
    }
}

/// Why a port could not be opened. Each says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// No such interface.
    #[error(
        "there is no interface `{interface}` in this network namespace: `ip link` lists those there are; mend `interface` of the port"
    )]
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// The process may not do this.
    #[error(
        "{doing} on `{interface}` needs privileges that this process has not: run as root, or with CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF"
    )]
    NoPrivilege {
        /// What was tried.
        doing: &'static str,
        /// The interface.
        interface: String,
    },
    /// The interface spreads packets over queues that nobody would read.
    #[error(
        "`{interface}` has {queues} receive queues and one is used, so the others would bypass the box: `ethtool -L {interface} {setting} 1`"
    )]
    Queues {
        /// The interface.
        interface: String,
        /// How many it has.
        queues: u32,
        /// The word that `ethtool -L` wants.
        setting: &'static str,
    },
    /// The interface's packets do not fit a frame.
    #[error(
        "the MTU of `{interface}` is {mtu}, but a frame of {frame_size} bytes holds packets of at most {max}: `ip link set dev {interface} mtu {max}`{}",
        if *.frame_size < 4096 { ", or set `frame_size = 4096` under [limits]" } else { "" }
    )]
    Mtu {
        /// The interface.
        interface: String,
        /// Its MTU.
        mtu: u32,
        /// The largest that fits.
        max: u32,
        /// The pool's frame size.
        frame_size: u32,
    },
    /// Somebody else holds the queue or the XDP hook.
    #[error(
        "`{interface}` is taken: another process has an AF_XDP socket or an XDP program on it ({waited_ms} ms waited). Stop that process; `ip link show dev {interface}` shows a program, `ip link set dev {interface} xdp off` removes one that was left behind"
    )]
    Busy {
        /// The interface.
        interface: String,
        /// How long it was tried.
        waited_ms: u64,
    },
    /// The kernel has no AF_XDP.
    #[error("this kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS): use Linux 5.11 or later, built with it")]
    NoAfXdp,
    /// Two ports on one interface.
    #[error("the interface `{interface}` stands in two ports: a port is one interface, give each its own")]
    Twice {
        /// The interface.
        interface: String,
    },
    /// The steering program could not be loaded or attached.
    #[error("the steering program cannot be {doing} on `{interface}`: {reason}")]
    Steering {
        /// What was tried: "loaded", "attached", …
        doing: &'static str,
        /// The interface.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
    /// A capture file could not be read.
    #[error("the capture `{path}` cannot be read: {reason}; it has to be a pcap or pcapng file of Ethernet frames")]
    Capture {
        /// The file.
        path: String,
        /// What was wrong.
        reason: String,
    },
    /// A system call failed.
    #[error("{doing} on `{interface}` failed: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The interface.
        interface: String,
        /// What the system said.
        source: io::Error,
    },
}

impl PortError {
    /// The error of a system call, privileges told apart.
    pub(crate) fn io(doing: &'static str, interface: &str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NoPrivilege { doing, interface: interface.to_owned() },
            Some(libc::EAFNOSUPPORT) => Self::NoAfXdp,
            _ => Self::Io { doing, interface: interface.to_owned(), source },
        }
    }
}

#[cfg(test)]
mod tests;
