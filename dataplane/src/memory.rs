//! Ports joined in memory: what one sends the other receives. For tests, benchmarks and simulation on one machine.
//!
//! Bytes are copied between the pools of the two sides, as a NIC would; buffers are recycled, so nothing is allocated
//! once the traffic has reached its width.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mimbox_stack::limits::RX_HEADROOM;
use mimbox_stack::wire::MacAddr;
use mimbox_stack::{FrameId, FramePool, PortId, RxFrame, TxFrame};

use crate::notify::Notify;
use crate::port::{Port, PortInfo, PortMode, PortState, PortStats};

/// How long the queues of a memory port are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryConfig {
    /// Frames that a port holds for transmission until [`Port::complete`] is called.
    pub tx_ring: usize,
    /// Frames that wait for the receiver; what comes beyond is lost, as on a link.
    pub queue: usize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { tx_ring: 1024, queue: 4096 }
    }
}

#[derive(Debug, Default)]
struct Packets {
    waiting: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    lost: u64,
}

/// One direction of a link.
#[derive(Clone, Debug)]
struct Lane {
    packets: Arc<Mutex<Packets>>,
    arrived: Notify,
    limit: usize,
}

impl Lane {
    fn new(limit: usize) -> io::Result<Self> {
        Ok(Self { packets: Arc::default(), arrived: Notify::new()?, limit })
    }

    fn lock(&self) -> MutexGuard<'_, Packets> {
        self.packets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a packet on the lane; true when the lane was empty, so that its reader must be woken.
    fn push(&self, bytes: &[u8]) -> bool {
        let mut packets = self.lock();
        if packets.waiting.len() >= self.limit {
            packets.lost += 1;
            return false;
        }
        let mut packet = packets.spare.pop().unwrap_or_default();
        packet.clear();
        packet.extend_from_slice(bytes);
        packets.waiting.push_back(packet);
        packets.waiting.len() == 1
    }
}

/// A port whose link is memory.
#[derive(Debug)]
pub struct MemoryPort {
    info: PortInfo,
    inbound: Lane,
    outbound: Lane,
    sent: Vec<FrameId>,
    tx_ring: usize,
    wake: bool,
    closed: bool,
    stats: PortStats,
}

/// The far end of a [`MemoryPort`], in the hands of a test.
#[derive(Debug)]
pub struct MemoryEnd {
    inbound: Lane,
    outbound: Lane,
}

fn address_of(id: PortId) -> MacAddr {
    MacAddr([0x02, 0x4d, 0x42, 0, 0, id.0])
}

fn port(id: PortId, config: MemoryConfig, inbound: Lane, outbound: Lane) -> MemoryPort {
    MemoryPort {
        info: PortInfo {
            id,
            interface: format!("memory{}", id.0),
            mac: address_of(id),
            mtu: 1500,
            mode: PortMode::Memory,
        },
        inbound,
        outbound,
        sent: Vec::with_capacity(config.tx_ring),
        tx_ring: config.tx_ring,
        wake: false,
        closed: false,
        stats: PortStats::default(),
    }
}

/// Two ports joined to each other.
///
/// # Errors
/// When the process has no descriptor left.
pub fn pair(a: PortId, b: PortId, config: MemoryConfig) -> io::Result<(MemoryPort, MemoryPort)> {
    let (to_a, to_b) = (Lane::new(config.queue)?, Lane::new(config.queue)?);
    Ok((port(a, config, to_a.clone(), to_b.clone()), port(b, config, to_b, to_a)))
}

/// A port and the far end of its link.
///
/// # Errors
/// When the process has no descriptor left.
pub fn with_end(id: PortId, config: MemoryConfig) -> io::Result<(MemoryPort, MemoryEnd)> {
    let (to_port, to_end) = (Lane::new(config.queue)?, Lane::new(config.queue)?);
    let end = MemoryEnd { inbound: to_end.clone(), outbound: to_port.clone() };
    Ok((port(id, config, to_port, to_end), end))
}

impl MemoryEnd {
    /// Sends a packet to the port; it is lost when the port's queue is full.
    pub fn push(&self, packet: &[u8]) {
        if self.outbound.push(packet) {
            self.outbound.arrived.raise();
        }
    }
    /// The next packet that the port sent.
    pub fn pop(&self) -> Option<Vec<u8>> {
        self.inbound.lock().waiting.pop_front()
    }
    /// Gives a packet's buffer back, so that the port need not allocate the next.
    pub fn recycle(&self, packet: Vec<u8>) {
        self.inbound.lock().spare.push(packet);
    }
    /// Packets on their way to the port.
    pub fn unread(&self) -> usize {
        self.outbound.lock().waiting.len()
    }
}

impl MemoryPort {
    /// The same port with another Ethernet address.
    pub fn with_mac(mut self, mac: MacAddr) -> Self {
        self.info.mac = mac;
        self
    }
    /// The same port with another MTU.
    pub fn with_mtu(mut self, mtu: u16) -> Self {
        self.info.mtu = mtu;
        self
    }
}

impl Port for MemoryPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(&mut self, pool: &mut FramePool, batch: &mut Vec<RxFrame>, max: usize) -> usize {
        self.inbound.arrived.take();
        let room = (pool.frame_size() as usize).saturating_sub(RX_HEADROOM);
        let mut packets = self.inbound.lock();
        let mut taken = 0;
        while taken < max && !self.closed {
            let Some(packet) = packets.waiting.pop_front() else { break };
            if packet.len() > room {
                self.stats.rx_dropped += 1;
                packets.spare.push(packet);
                continue;
            }
            let Some(frame) = pool.alloc_control() else {
                self.stats.rx_fill_empty += 1;
                packets.spare.push(packet);
                break;
            };
            if let Some(target) = pool.bytes_mut(&frame).get_mut(RX_HEADROOM..RX_HEADROOM + packet.len()) {
                target.copy_from_slice(&packet);
            }
            self.stats.rx_frames += 1;
            self.stats.rx_bytes += packet.len() as u64;
            // Both fit: a frame is at most 4096 bytes.
            batch.push(RxFrame { port: self.info.id, frame, offset: RX_HEADROOM as u16, len: packet.len() as u16 });
            packets.spare.push(packet);
            taken += 1;
        }
        // What is left over must wake a sleeper again.
        if !packets.waiting.is_empty() {
            self.inbound.arrived.raise();
        }
        taken
    }

    fn transmit(&mut self, pool: &mut FramePool, frame: TxFrame) -> Result<(), TxFrame> {
        if self.sent.len() >= self.tx_ring || self.closed {
            return Err(frame);
        }
        let (start, end) = (usize::from(frame.offset), usize::from(frame.offset) + usize::from(frame.len));
        self.wake |= self.outbound.push(pool.bytes(&frame.frame).get(start..end).unwrap_or(&[]));
        self.stats.tx_frames += 1;
        self.stats.tx_bytes += u64::from(frame.len);
        self.sent.push(frame.frame);
        Ok(())
    }

    fn flush(&mut self) {
        if std::mem::take(&mut self.wake) {
            self.outbound.arrived.raise();
        }
    }

    fn complete(&mut self, pool: &mut FramePool) -> usize {
        let completed = self.sent.len();
        for frame in self.sent.drain(..) {
            pool.tx_complete(frame);
        }
        completed
    }

    fn refill(&mut self, _pool: &mut FramePool) {}

    fn frames_in_rings(&self) -> u32 {
        self.sent.len() as u32
    }

    fn wants_flush(&self) -> bool {
        self.wake
    }

    fn fd(&self) -> Option<RawFd> {
        Some(self.inbound.arrived.fd())
    }

    fn state(&self) -> PortState {
        if self.closed { PortState::Gone } else { PortState::Up }
    }

    fn stats(&self) -> PortStats {
        PortStats { rx_ring_full: self.inbound.lock().lost, ..self.stats }
    }

    fn close(&mut self, pool: &mut FramePool) {
        self.flush();
        self.complete(pool);
        self.closed = true;
    }
}

#[cfg(test)]
mod tests;
