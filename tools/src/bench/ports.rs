//! Memory ports for measuring: rings of descriptors in memory, with the synthetic end on their other side. No byte is
//! copied, so what is measured is the engine and its loop.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::rc::Rc;

use mimbox_dataplane::{Port, PortInfo, PortMode, PortState, PortStats};
use mimbox_stack::wire::MacAddr;
use mimbox_stack::{FrameId, FramePool, PortId, RxFrame, TxFrame};

/// Frames that a port keeps ready for reception.
const FILL: usize = 256;
/// Frames that a port takes for transmission before they complete.
const TX_RING: usize = 4096;

/// The rings, shared by a port and its end.
#[derive(Debug, Default)]
pub(super) struct Rings {
    fill: VecDeque<FrameId>,
    pub(super) arrived: VecDeque<RxFrame>,
    pub(super) sent: VecDeque<TxFrame>,
    completed: Vec<FrameId>,
}

impl Rings {
    /// A frame to write the next packet to.
    pub(super) fn take_frame(&mut self) -> Option<FrameId> {
        self.fill.pop_front()
    }

    /// The end has read a sent frame.
    pub(super) fn complete(&mut self, frame: FrameId) {
        self.completed.push(frame);
    }
}

/// A port over shared rings.
#[derive(Debug)]
pub(super) struct RingPort {
    info: PortInfo,
    rings: Rc<RefCell<Rings>>,
    in_flight: u32,
    stats: PortStats,
}

impl RingPort {
    pub(super) fn new(id: PortId, mac: [u8; 6]) -> (Self, Rc<RefCell<Rings>>) {
        let rings = Rc::new(RefCell::new(Rings {
            fill: VecDeque::with_capacity(FILL),
            arrived: VecDeque::with_capacity(FILL),
            sent: VecDeque::with_capacity(TX_RING),
            completed: Vec::with_capacity(TX_RING),
        }));
        let interface = format!("bench{}", id.0);
        let info = PortInfo { id, interface, mac: MacAddr(mac), mtu: 1500, mode: PortMode::Memory };
        (Self { info, rings: rings.clone(), in_flight: 0, stats: PortStats::default() }, rings)
    }
}

impl Port for RingPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(&mut self, _pool: &mut FramePool, batch: &mut Vec<RxFrame>, max: usize) -> usize {
        let mut rings = self.rings.borrow_mut();
        let taken = max.min(rings.arrived.len());
        batch.extend(rings.arrived.drain(..taken));
        self.stats.rx_frames += taken as u64;
        taken
    }

    fn transmit(&mut self, _pool: &mut FramePool, frame: TxFrame) -> Result<(), TxFrame> {
        if self.in_flight as usize >= TX_RING {
            return Err(frame);
        }
        self.in_flight += 1;
        self.stats.tx_frames += 1;
        self.rings.borrow_mut().sent.push_back(frame);
        Ok(())
    }

    fn flush(&mut self) {}

    fn complete(&mut self, pool: &mut FramePool) -> usize {
        let mut rings = self.rings.borrow_mut();
        let completed = rings.completed.len();
        for frame in rings.completed.drain(..) {
            pool.tx_complete(frame);
        }
        self.in_flight -= completed as u32;
        completed
    }

    fn refill(&mut self, pool: &mut FramePool) {
        let mut rings = self.rings.borrow_mut();
        while rings.fill.len() < FILL {
            let Some(frame) = pool.alloc_control() else { return };
            rings.fill.push_back(frame);
        }
    }

    fn frames_in_rings(&self) -> u32 {
        let rings = self.rings.borrow();
        (rings.fill.len() + rings.arrived.len()) as u32 + self.in_flight
    }

    fn wants_flush(&self) -> bool {
        false
    }

    fn fd(&self) -> Option<RawFd> {
        None
    }

    fn state(&self) -> PortState {
        PortState::Up
    }

    fn stats(&self) -> PortStats {
        self.stats
    }

    fn close(&mut self, pool: &mut FramePool) {
        {
            let mut rings = self.rings.borrow_mut();
            let sent: Vec<FrameId> = rings.sent.drain(..).map(|frame| frame.frame).collect();
            rings.completed.extend(sent);
        }
        self.complete(pool);
        let mut rings = self.rings.borrow_mut();
        for frame in rings.fill.drain(..) {
            pool.release(frame);
        }
        for arrived in rings.arrived.drain(..) {
            pool.release(arrived.frame);
        }
    }
}
