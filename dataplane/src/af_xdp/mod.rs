//! AF_XDP: the frame pool's region is the UMEM of every socket, so a frame received on one interface is sent on another
//! as it is.
//!
//! All sockets share one UMEM; each (port, queue) has a fill and a completion ring of its own. They all run in one mode:
//! zero-copy when every interface can, else copied.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use mimbox_stack::limits::{ETHERNET_HEADER, RX_HEADROOM, VLAN_TAG};
use mimbox_stack::wire::MacAddr;
use mimbox_stack::{FrameId, FramePool, PortId, RxFrame, TxFrame};

use crate::port::{Feature, Port, PortError, PortInfo, PortMode, PortState, PortStats};

mod frames;
mod gains;
mod links;
mod netdev;
mod ring;
mod socket;
mod steer;

use frames::FrameSet;
use gains::{Gains, OLD_TX_BUDGET};
pub use links::LinkWatch;
pub use netdev::{InterfaceFacts, interface_facts};
use socket::{Copying, Socket};
use steer::{Steered, Steering};

/// Where the steering program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AttachMode {
    /// In the driver where it can, else behind it.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// Behind the driver.
    Generic,
}

/// Whether the kernel copies frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CopyMode {
    /// Zero-copy when every interface can, else copied.
    #[default]
    Auto,
    /// Copied.
    Copy,
    /// Zero-copy, or not at all.
    ZeroCopy,
}

/// Which of an interface's packets come to the socket; the others go on to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Take {
    /// What is meant for the box's own addresses.
    #[default]
    Own,
    /// That, and all unicast IP: the box is the router (transparent mode).
    Routed,
    /// Every frame, whoever it is for: the box is a piece of the wire.
    All,
}

/// An interface to be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AfXdpPortConfig {
    /// The port's number.
    pub id: PortId,
    /// The operating system's name of the interface.
    pub interface: String,
    /// The queue that is served; the interface must have no other.
    pub queue: u32,
    /// The Ethernet address; `None` is the interface's own.
    pub mac: Option<MacAddr>,
    /// Where the steering program runs.
    pub attach: AttachMode,
    /// Which packets come to it.
    pub take: Take,
}

/// Kernel busy polling (`SO_PREFER_BUSY_POLL`): the worker's own system calls drive the driver, not interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BusyPoll {
    /// How long one call may poll, in microseconds.
    pub micros: u32,
    /// Packets of one call.
    pub budget: u32,
}

impl Default for BusyPoll {
    fn default() -> Self {
        Self { micros: 20, budget: 64 }
    }
}

/// All AF_XDP ports of a pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AfXdpConfig {
    /// The interfaces.
    pub ports: Vec<AfXdpPortConfig>,
    /// The box's addresses, on whatever port.
    pub addresses: Vec<IpAddr>,
    /// Descriptors of each ring; a power of two.
    pub ring: u32,
    /// Whether frames are copied.
    pub copy: CopyMode,
    /// Kernel busy polling, or interrupts.
    pub busy_poll: Option<BusyPoll>,
    /// How long to wait for an interface that is still taken: the kernel frees a queue a little after its socket is
    /// closed.
    pub patience: Duration,
}

impl AfXdpConfig {
    /// Ports with the usual rings.
    pub fn new(ports: Vec<AfXdpPortConfig>, addresses: Vec<IpAddr>) -> Self {
        let patience = Duration::from_secs(2);
        Self { ports, addresses, ring: 2048, copy: CopyMode::Auto, busy_poll: None, patience }
    }
}

/// The largest IP packet that a frame of `frame_size` bytes holds.
pub const fn largest_mtu(frame_size: u32) -> u32 {
    frame_size - (RX_HEADROOM + ETHERNET_HEADER + VLAN_TAG) as u32
}

/// Opens every port, all on one UMEM: the pool's region.
///
/// # Errors
/// When an interface is missing, taken or unfit, or the process lacks privileges. No frame is left behind then.
pub fn open(pool: &mut FramePool, config: &AfXdpConfig) -> Result<Vec<AfXdpPort>, PortError> {
    let mut facts = Vec::with_capacity(config.ports.len());
    for (n, port) in config.ports.iter().enumerate() {
        if config.ports.iter().take(n).any(|other| other.interface == port.interface) {
            return Err(PortError::Twice { interface: port.interface.clone() });
        }
        facts.push(check(port, pool.frame_size())?);
    }
    let modes: &[Copying] = match config.copy {
        CopyMode::Auto => &[Copying::Never, Copying::Always],
        CopyMode::Copy => &[Copying::Always],
        CopyMode::ZeroCopy => &[Copying::Never],
    };
    let started = std::time::Instant::now();
    let mut mode = modes.iter().peekable();
    let mut why_copied = "`copy` asks for copies".to_owned();
    loop {
        let Some(&&copying) = mode.peek() else {
            return Err(PortError::NoAfXdp);
        };
        match open_all(pool, config, &facts, copying) {
            Ok(mut ports) => {
                let huge_pages = gains::huge_pages(pool.region());
                for port in &mut ports {
                    port.gains.huge_pages.clone_from(&huge_pages);
                    if port.copies {
                        port.gains.zero_copy = Err(why_copied.clone());
                    }
                }
                return Ok(ports);
            }
            // The driver has no zero-copy; one port that has not keeps all from it.
            Err(PortError::Io { source, interface, .. })
                if copying == Copying::Never && modes.len() > 1 && lacks_zero_copy(&source) =>
            {
                why_copied = format!("the driver of {interface} has it not ({source})");
                mode.next();
            }
            Err(PortError::Busy { interface, .. }) => {
                let waited = started.elapsed();
                if waited >= config.patience {
                    let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
                    return Err(PortError::Busy { interface, waited_ms });
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
    }
}

fn lacks_zero_copy(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::EPROTONOSUPPORT | libc::ENOSYS))
}

/// What the operating system knows of a port's interface, found fit for frames of `frame_size` bytes.
///
/// # Errors
/// When there is no such interface, it has several queues, or its packets do not fit.
pub fn check(port: &AfXdpPortConfig, frame_size: u32) -> Result<InterfaceFacts, PortError> {
    let facts = interface_facts(&port.interface)?;
    let (queues, setting) = facts.queues;
    if queues > 1 {
        return Err(PortError::Queues { interface: port.interface.clone(), queues, setting });
    }
    let max = largest_mtu(frame_size);
    if facts.mtu > max {
        return Err(PortError::Mtu { interface: port.interface.clone(), mtu: facts.mtu, max, frame_size });
    }
    Ok(facts)
}

fn open_all(
    pool: &mut FramePool,
    config: &AfXdpConfig,
    facts: &[InterfaceFacts],
    copying: Copying,
) -> Result<Vec<AfXdpPort>, PortError> {
    let mut ports: Vec<AfXdpPort> = Vec::with_capacity(facts.len());
    for (port, facts) in config.ports.iter().zip(facts) {
        let umem = ports.first().and_then(|first| first.socket.as_ref()).map(Socket::as_fd);
        let opened = Socket::open(&port.interface, pool.region(), umem, config).and_then(|socket| {
            let mut new = AfXdpPort::new(pool, port, facts);
            let first = ports.first().and_then(|first| first.socket.as_ref());
            let ready = new.start(pool, socket, port, facts, config, copying, first);
            ports.push(new);
            ready
        });
        if let Err(error) = opened {
            for mut port in ports {
                port.close(pool);
            }
            return Err(error);
        }
    }
    Ok(ports)
}

/// Bytes that a socket may have on their way in copy mode.
const SEND_BUFFER: i32 = 8 << 20;
/// Frames that are missing in the fill ring before it is worth filling up.
const REFILL_STEP: u32 = 16;

/// One queue of one interface.
#[derive(Debug)]
pub struct AfXdpPort {
    // Detached before the socket is closed, so that packets go on to the kernel at once.
    steering: Option<Steering>,
    /// Gone when the port is closed.
    socket: Option<Socket>,
    _groups: Option<OwnedFd>,
    info: PortInfo,
    frame_shift: u32,
    /// Frames in the fill and RX rings, or in the kernel's hands between them.
    receiving: FrameSet,
    /// Frames in the TX and completion rings, or in the device's hands between them.
    sending: FrameSet,
    copies: bool,
    gains: Gains,
    queued: bool,
    /// Frames that were dropped on transmission and not yet told as completed.
    dropped: usize,
    state: PortState,
    stats: PortStats,
    last_kernel: PortStats,
}

impl AfXdpPort {
    fn new(pool: &FramePool, config: &AfXdpPortConfig, facts: &InterfaceFacts) -> Self {
        Self {
            steering: None,
            socket: None,
            _groups: None,
            info: PortInfo {
                id: config.id,
                interface: config.interface.clone(),
                mac: config.mac.unwrap_or(facts.mac),
                mtu: u16::try_from(facts.mtu).unwrap_or(u16::MAX),
                mode: PortMode::Copy,
            },
            frame_shift: pool.frame_size().trailing_zeros(),
            receiving: FrameSet::new(pool.total()),
            sending: FrameSet::new(pool.total()),
            copies: true,
            gains: Gains::none(),
            queued: false,
            dropped: 0,
            state: PortState::Up,
            stats: PortStats::default(),
            last_kernel: PortStats::default(),
        }
    }

    /// Fills, binds, steers.
    #[allow(clippy::too_many_arguments, reason = "called once, with what `open_all` has at hand")]
    fn start(
        &mut self,
        pool: &mut FramePool,
        socket: Socket,
        port: &AfXdpPortConfig,
        facts: &InterfaceFacts,
        config: &AfXdpConfig,
        copying: Copying,
        first: Option<&Socket>,
    ) -> Result<(), PortError> {
        let steered = Steered { mac: self.info.mac, take: port.take, addresses: &config.addresses };
        let mut steering = Steering::load(&port.interface, &steered)?;
        // Some drivers want frames to be there when the socket is bound.
        self.socket = Some(socket);
        self.refill(pool);
        let Some(socket) = &self.socket else { return Ok(()) };
        socket.bind(&port.interface, facts.index, port.queue, copying, first)?;
        self.copies = !socket.is_zero_copy();
        self._groups = Some(netdev::listen(&port.interface, facts, &steered)?);
        let gains = &mut self.gains;
        gains.zero_copy = if self.copies { Err("the kernel chose to copy".to_owned()) } else { Ok(()) };
        // Right after the binding the kernel wants to be woken, if it ever says so.
        gains.need_wakeup = match socket.tx.needs_wakeup() {
            true => Ok(()),
            false => Err("the kernel sets no flag on its rings, so every batch has its call".to_owned()),
        };
        gains.busy_poll = match config.busy_poll {
            Some(busy_poll) => socket.prefer_busy_poll(busy_poll),
            None => Err("not asked for: `wait = \"kernel-busy-poll\"` under [worker] does".to_owned()),
        };
        gains.tx_budget = socket.raise_tx_budget(config.ring);
        gains.send_buffer = socket.raise_send_buffer(SEND_BUFFER);
        steering.set_socket(port.queue, socket.as_fd())?;
        let attached = steering.attach(facts.index, port.attach)?;
        let native = attached.is_ok();
        self.gains.native = attached;
        self.steering = Some(steering);
        self.info.mode = match (self.copies, native) {
            (false, _) => PortMode::ZeroCopy,
            (true, true) => PortMode::Copy,
            (true, false) => PortMode::CopyGeneric,
        };
        Ok(())
    }

    /// Asks the kernel to take what is on the TX ring. Where it copies and takes no more than a few frames at a time, as
    /// often as it gets on with it.
    fn kick(&mut self) {
        let Some(socket) = &self.socket else { return };
        let at_once = !self.copies || self.gains.tx_budget.is_ok();
        let mut left = socket.tx.untaken();
        loop {
            self.stats.tx_calls += 1;
            let complaint = socket.kick();
            let now_left = socket.tx.untaken();
            let more = now_left > 0 && now_left + OLD_TX_BUDGET <= left;
            left = now_left;
            match complaint {
                Some(libc::ENETDOWN) => {
                    if self.state == PortState::Up {
                        tracing::warn!(interface = self.info.interface, "the interface is down");
                    }
                    self.state = PortState::Down;
                    return;
                }
                Some(libc::ENXIO | libc::ENODEV | libc::EBADF) => {
                    if self.state != PortState::Gone {
                        tracing::error!(interface = self.info.interface, "the interface is gone");
                    }
                    self.state = PortState::Gone;
                    return;
                }
                // Out of budget, of buffer or of luck: what is left stays on the ring until the next batch.
                _ if self.state == PortState::Down => {
                    tracing::info!(interface = self.info.interface, "the interface is up again");
                    self.state = PortState::Up;
                }
                _ => {}
            }
            if at_once || !more {
                return;
            }
        }
    }

    fn release(pool: &mut FramePool, frames: &mut FrameSet, sent: bool) {
        for frame in frames.drain() {
            let frame = FrameId::from_raw(frame);
            if sent {
                pool.tx_complete(frame);
            } else {
                pool.release(frame);
            }
        }
    }
}

impl Port for AfXdpPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(&mut self, _pool: &mut FramePool, batch: &mut Vec<RxFrame>, max: usize) -> usize {
        let Some(socket) = &mut self.socket else { return 0 };
        let mask = (1u64 << self.frame_shift) - 1;
        let mut taken = 0;
        while taken < max {
            let Some(descriptor) = socket.rx.pop() else { break };
            let frame = (descriptor.addr >> self.frame_shift) as u32;
            if !self.receiving.remove(frame) {
                self.stats.invalid_descriptors += 1;
                continue;
            }
            // Offset and length are below the frame's size, which is at most 4096.
            let (offset, len) = ((descriptor.addr & mask) as u16, descriptor.len as u16);
            self.stats.rx_frames += 1;
            self.stats.rx_bytes += u64::from(descriptor.len);
            batch.push(RxFrame { port: self.info.id, frame: FrameId::from_raw(frame), offset, len });
            taken += 1;
        }
        if taken > 0 {
            socket.rx.release();
        } else if self.gains.busy_poll.is_ok() {
            self.stats.rx_calls += 1;
            socket.poke();
        }
        taken
    }

    fn transmit(&mut self, pool: &mut FramePool, frame: TxFrame) -> Result<(), TxFrame> {
        self.queued = true;
        let Some(socket) = self.socket.as_mut().filter(|_| self.state == PortState::Up) else {
            self.stats.tx_dropped += 1;
            self.dropped += 1;
            pool.tx_complete(frame.frame);
            return Ok(());
        };
        let addr = (u64::from(frame.frame.index()) << self.frame_shift) + u64::from(frame.offset);
        if !socket.tx.push(libc::xdp_desc { addr, len: u32::from(frame.len), options: 0 }) {
            return Err(frame);
        }
        self.stats.tx_frames += 1;
        self.stats.tx_bytes += u64::from(frame.len);
        self.sending.insert(frame.frame.into_raw());
        Ok(())
    }

    fn flush(&mut self) {
        self.queued = false;
        let Some(socket) = &self.socket else { return };
        socket.tx.publish();
        // A ring that the kernel keeps no flag on is never known to be looked at.
        if socket.tx.needs_wakeup() || self.gains.need_wakeup.is_err() || self.state != PortState::Up {
            self.kick();
        }
    }

    fn complete(&mut self, pool: &mut FramePool) -> usize {
        let mut completed = std::mem::take(&mut self.dropped);
        let Some(socket) = &mut self.socket else { return completed };
        let mut popped = false;
        while let Some(addr) = socket.completion.pop() {
            popped = true;
            let frame = (addr >> self.frame_shift) as u32;
            if self.sending.remove(frame) {
                pool.tx_complete(FrameId::from_raw(frame));
                completed += 1;
            } else {
                self.stats.invalid_descriptors += 1;
            }
        }
        if popped {
            socket.completion.release();
        }
        completed
    }

    fn refill(&mut self, pool: &mut FramePool) {
        let Some(socket) = &mut self.socket else { return };
        if socket.fill.fresh_room() < REFILL_STEP {
            return;
        }
        while socket.fill.room() > 0 {
            let Some(frame) = pool.alloc_control() else { break };
            let frame = frame.into_raw();
            self.receiving.insert(frame);
            socket.fill.push(u64::from(frame) << self.frame_shift);
        }
        socket.fill.publish();
        // A driver that found the ring empty stopped receiving.
        if socket.fill.needs_wakeup() && self.steering.is_some() {
            self.stats.rx_calls += 1;
            socket.poke();
        }
    }

    fn frames_in_rings(&self) -> u32 {
        self.receiving.len() + self.sending.len()
    }

    fn wants_flush(&self) -> bool {
        self.queued || (self.copies && self.socket.as_ref().is_some_and(|socket| socket.tx.untaken() > 0))
    }

    fn fd(&self) -> Option<RawFd> {
        self.socket.as_ref().filter(|_| self.state != PortState::Gone).map(|socket| socket.as_fd().as_raw_fd())
    }

    fn state(&self) -> PortState {
        self.state
    }

    fn stats(&self) -> PortStats {
        let kernel = self.socket.as_ref().and_then(Socket::statistics).unwrap_or(self.last_kernel);
        PortStats {
            rx_dropped: kernel.rx_dropped,
            rx_ring_full: kernel.rx_ring_full,
            rx_fill_empty: kernel.rx_fill_empty,
            invalid_descriptors: self.stats.invalid_descriptors + kernel.invalid_descriptors,
            ..self.stats
        }
    }

    fn features(&self) -> Vec<Feature> {
        self.gains.features(&self.info.interface)
    }

    fn close(&mut self, pool: &mut FramePool) {
        self.last_kernel = self.socket.as_ref().and_then(Socket::statistics).unwrap_or(self.last_kernel);
        self.steering = None;
        // A port that was opened in vain has no interface to kick; nothing was ever sent there.
        if self.sending.len() > 0 {
            self.flush();
        }
        // What the device still reads must not be given away: it gets a moment to finish.
        for _ in 0..50 {
            self.complete(pool);
            if self.sending.len() == 0 || self.state != PortState::Up {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
            self.kick();
        }
        self.state = PortState::Gone;
        self.socket = None;
        Self::release(pool, &mut self.receiving, false);
        Self::release(pool, &mut self.sending, true);
    }
}
