//! One direction of a link: rate, delay, a bounded queue, and everything that goes wrong on the way.

use mimbox_stack::{Duration, Instant, Rng};

use super::draw::{self, chance};
use super::packet::{Packet, Packets};

/// Losses that come in runs (a Gilbert-Elliott channel): the link is good or bad, and only loses while bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// Chance per packet that a good link turns bad.
    pub enter_ppm: u32,
    /// Chance per packet that a bad link turns good.
    pub leave_ppm: u32,
    /// Chance of loss while bad.
    pub loss_ppm: u32,
}

/// What a link does to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkOptions {
    /// Bits per second.
    pub rate_bps: u64,
    /// Propagation delay.
    pub delay: Duration,
    /// Bytes that may wait for the wire; a packet that does not fit is lost.
    pub queue_bytes: u32,
    /// Chance of loss of each packet.
    pub loss_ppm: u32,
    /// Losses in runs.
    pub burst: Option<Burst>,
    /// Chance that a packet is held back.
    pub reorder_ppm: u32,
    /// How long it is held back at most.
    pub reorder_by: Duration,
    /// Chance that a packet arrives twice.
    pub duplicate_ppm: u32,
    /// Chance that one byte behind the Ethernet header changes.
    pub corrupt_ppm: u32,
    /// Largest IP packet that passes; larger ones are lost without a word.
    pub mtu: u16,
}

impl LinkOptions {
    /// A link on which nothing goes wrong.
    pub const CLEAN: Self = Self {
        rate_bps: 1_000_000_000,
        delay: Duration::from_micros(500),
        queue_bytes: 4 << 20,
        loss_ppm: 0,
        burst: None,
        reorder_ppm: 0,
        reorder_by: Duration::ZERO,
        duplicate_ppm: 0,
        corrupt_ppm: 0,
        mtu: 1500,
    };
}

/// What happened on a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkTotals {
    /// Packets handed to the link.
    pub packets: u64,
    /// Bytes handed to the link, Ethernet headers included.
    pub bytes: u64,
    /// Packets lost by chance.
    pub lost: u64,
    /// Packets lost because the queue was full.
    pub overflowed: u64,
    /// Packets larger than the MTU.
    pub oversized: u64,
    /// Packets held back.
    pub reordered: u64,
    /// Packets that arrived twice.
    pub duplicated: u64,
    /// Packets with a changed byte.
    pub corrupted: u64,
}

impl LinkTotals {
    /// Adds another link's totals.
    pub fn add(&mut self, other: &Self) {
        let Self { packets, bytes, lost, overflowed, oversized, reordered, duplicated, corrupted } = other;
        self.packets += packets;
        self.bytes += bytes;
        self.lost += lost;
        self.overflowed += overflowed;
        self.oversized += oversized;
        self.reordered += reordered;
        self.duplicated += duplicated;
        self.corrupted += corrupted;
    }
}

/// Length of an Ethernet header.
const ETHERNET: usize = 14;
/// Ethernet types of IPv4 and IPv6: what corruption may strike. ARP has no checksum, so a changed ARP packet would be
/// believed; on a real wire the frame check sequence catches it.
const IP_TYPES: [[u8; 2]; 2] = [[0x08, 0x00], [0x86, 0xdd]];

/// One direction of a link in motion.
#[derive(Debug)]
pub(crate) struct Link {
    options: LinkOptions,
    rng: Rng,
    /// When the wire is free again.
    free_at: Instant,
    bad: bool,
    pub(crate) totals: LinkTotals,
}

impl Link {
    pub(crate) fn new(options: LinkOptions, rng: Rng) -> Self {
        Self { options, rng, free_at: Instant::ZERO, bad: false, totals: LinkTotals::default() }
    }

    /// Takes a packet; hands each copy that will arrive to `arrive` with its time.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        packet: Packet,
        packets: &mut Packets,
        mut arrive: impl FnMut(Instant, Packet),
    ) {
        self.totals.packets += 1;
        self.totals.bytes += packet.len() as u64;
        let Some(sent) = self.serialize(now, packet.len()) else {
            self.totals.overflowed += 1;
            packets.recycle(packet);
            return;
        };
        if packet.len() > ETHERNET + usize::from(self.options.mtu) {
            self.totals.oversized += 1;
            packets.recycle(packet);
            return;
        }
        if self.loses() {
            self.totals.lost += 1;
            packets.recycle(packet);
            return;
        }
        let mut at = sent + self.options.delay;
        if chance(&mut self.rng, self.options.reorder_ppm) {
            self.totals.reordered += 1;
            at += Duration::from_nanos(self.rng.below(self.options.reorder_by.as_nanos() + 1));
        }
        if chance(&mut self.rng, self.options.duplicate_ppm) {
            self.totals.duplicated += 1;
            let extra = Duration::from_nanos(self.rng.below(self.options.delay.as_nanos() + 1));
            let copy = packets.copy_of(&packet);
            arrive(at + extra, copy);
        }
        let packet = if chance(&mut self.rng, self.options.corrupt_ppm) { self.corrupt(packet) } else { packet };
        arrive(at, packet);
    }

    /// When the last bit of a packet of `len` bytes has left, or `None` when the queue is full.
    fn serialize(&mut self, now: Instant, len: usize) -> Option<Instant> {
        let start = if self.free_at < now { now } else { self.free_at };
        let waiting = bytes_in(start.since(now), self.options.rate_bps);
        if waiting > u64::from(self.options.queue_bytes) {
            return None;
        }
        let nanos = (len as u64 * 8).saturating_mul(1_000_000_000) / self.options.rate_bps.max(1);
        self.free_at = start + Duration::from_nanos(nanos);
        Some(self.free_at)
    }

    fn loses(&mut self) -> bool {
        let mut lost = chance(&mut self.rng, self.options.loss_ppm);
        if let Some(burst) = self.options.burst {
            let turn = if self.bad { burst.leave_ppm } else { burst.enter_ppm };
            if chance(&mut self.rng, turn) {
                self.bad = !self.bad;
            }
            lost |= self.bad && chance(&mut self.rng, burst.loss_ppm);
        }
        lost
    }

    fn corrupt(&mut self, mut packet: Packet) -> Packet {
        let is_ip = packet.get(12..14).is_some_and(|kind| IP_TYPES.iter().any(|known| known == kind));
        if !is_ip || packet.len() <= ETHERNET {
            return packet;
        }
        let index = ETHERNET + self.rng.below((packet.len() - ETHERNET) as u64) as usize;
        // One changed bit is always seen by a ones'-complement sum; a changed byte could turn 0x00 into 0xff, which is not.
        packet[index] ^= 1 << self.rng.below(8);
        self.totals.corrupted += 1;
        packet
    }
}

fn bytes_in(span: Duration, rate_bps: u64) -> u64 {
    ((u128::from(span.as_nanos()) * u128::from(rate_bps)) / 8_000_000_000) as u64
}

/// A link drawn from the whole range of what a test may ask.
pub(crate) fn draw_shape(rng: &mut Rng) -> LinkOptions {
    LinkOptions {
        rate_bps: draw::log_between(rng, 20_000_000, 10_000_000_000),
        delay: draw::log_micros(rng, 20, 40_000),
        queue_bytes: draw::log_between(rng, 64 << 10, 8 << 20) as u32,
        ..LinkOptions::CLEAN
    }
}
