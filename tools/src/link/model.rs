//! What one direction of a link does to packets: rate, delay, a bounded queue, and everything that goes wrong on the way.
//!
//! The simulator and `mimbox-lab link` share this. It knows no packets, only their sizes, and no clock but its arguments.

use mimbox_stack::{Duration, Instant, Rng};

use crate::sim::draw::{self, chance};

/// Losses that come in runs (a Gilbert-Elliott channel): the link is good or bad, and only loses while bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// Chance per packet that a good link turns bad.
    pub enter_ppm: u32,
    /// Chance per packet that a bad link turns good.
    pub leave_ppm: u32,
    /// Chance of loss while bad.
    pub loss_ppm: u32,
    /// How long the link stays bad at most. Chances are per packet, so without a limit a bad link stays bad for minutes where
    /// nothing but retransmissions is sent.
    pub longest: Duration,
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
    /// Bytes handed to the link, as the rate counts them.
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

/// A packet, as far as a link cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Offered {
    /// Bytes that the rate and the queue count.
    pub(crate) bytes: usize,
    /// Length of the IP packet, or of whatever the Ethernet frame carries.
    pub(crate) carried: usize,
    /// Bytes behind the Ethernet header that corruption may strike; none where nobody would notice.
    pub(crate) exposed: usize,
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// The queue is full.
    Overflowed,
    /// It is larger than the MTU.
    Oversized,
    /// It is lost by chance.
    Lost,
    /// It arrives.
    Passes(Passage),
}

/// How a packet arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Passage {
    /// When.
    pub(crate) at: Instant,
    /// When its copy arrives, which is never corrupted.
    pub(crate) copy_at: Option<Instant>,
    /// The bit that changes: a byte counted from behind the Ethernet header, and the bit in it.
    pub(crate) flip: Option<(usize, u8)>,
}

/// Where a channel's chances come from.
#[derive(Debug)]
pub(crate) enum Dice {
    /// One generator for all packets.
    Sequence(Box<Rng>),
    /// A generator for each packet, from the seed and the number of packets that went on the wire before it. So two runs
    /// with one seed lose the same packets by number, whatever the senders make of it.
    EachPacket(u64),
}

/// One direction of a link in motion.
#[derive(Debug)]
pub(crate) struct Channel {
    dice: Dice,
    /// Packets that went on the wire.
    carried: u64,
    /// When the wire is free again.
    free_at: Instant,
    way: Way,
}

/// What the chances of a channel work on.
#[derive(Debug)]
struct Way {
    options: LinkOptions,
    bad: bool,
    /// When the link turned bad.
    bad_since: Instant,
    totals: LinkTotals,
}

impl Channel {
    pub(crate) fn new(options: LinkOptions, dice: Dice) -> Self {
        let way = Way { options, bad: false, bad_since: Instant::ZERO, totals: LinkTotals::default() };
        Self { dice, carried: 0, free_at: Instant::ZERO, way }
    }

    /// What happened so far.
    pub(crate) fn totals(&self) -> &LinkTotals {
        &self.way.totals
    }

    /// Bytes that wait for the wire.
    pub(crate) fn waiting(&self, now: Instant) -> u64 {
        bytes_in(self.free_at.since(now), self.way.options.rate_bps)
    }

    /// Takes a packet and says what becomes of it.
    pub(crate) fn offer(&mut self, now: Instant, packet: Offered) -> Fate {
        self.way.totals.packets += 1;
        self.way.totals.bytes += packet.bytes as u64;
        let Some(sent) = self.serialize(now, packet.bytes) else {
            self.way.totals.overflowed += 1;
            return Fate::Overflowed;
        };
        if packet.carried > usize::from(self.way.options.mtu) {
            self.way.totals.oversized += 1;
            return Fate::Oversized;
        }
        let number = self.carried;
        self.carried += 1;
        match &mut self.dice {
            Dice::EachPacket(seed) => self.way.travel(sent, packet, &mut draw::stream(*seed, number)),
            Dice::Sequence(rng) => self.way.travel(sent, packet, rng),
        }
    }

    /// When the last bit of a packet of `len` bytes has left, or `None` when the queue is full.
    fn serialize(&mut self, now: Instant, len: usize) -> Option<Instant> {
        let options = &self.way.options;
        let start = if self.free_at < now { now } else { self.free_at };
        if bytes_in(start.since(now), options.rate_bps) > u64::from(options.queue_bytes) {
            return None;
        }
        let nanos = (len as u64 * 8).saturating_mul(1_000_000_000) / options.rate_bps.max(1);
        self.free_at = start + Duration::from_nanos(nanos);
        Some(self.free_at)
    }
}

impl Way {
    /// What becomes of a packet whose last bit left at `sent`.
    fn travel(&mut self, sent: Instant, packet: Offered, rng: &mut Rng) -> Fate {
        if self.loses(sent, rng) {
            self.totals.lost += 1;
            return Fate::Lost;
        }
        let mut at = sent + self.options.delay;
        if chance(rng, self.options.reorder_ppm) {
            self.totals.reordered += 1;
            at += Duration::from_nanos(rng.below(self.options.reorder_by.as_nanos() + 1));
        }
        let mut copy_at = None;
        if chance(rng, self.options.duplicate_ppm) {
            self.totals.duplicated += 1;
            copy_at = Some(at + Duration::from_nanos(rng.below(self.options.delay.as_nanos() + 1)));
        }
        let mut flip = None;
        if chance(rng, self.options.corrupt_ppm) && packet.exposed > 0 {
            self.totals.corrupted += 1;
            // One changed bit is always seen by a ones'-complement sum; a changed byte could turn 0x00 into 0xff, which
            // is not.
            let byte = rng.below(packet.exposed as u64) as usize;
            flip = Some((byte, rng.below(8) as u8));
        }
        Fate::Passes(Passage { at, copy_at, flip })
    }

    fn loses(&mut self, now: Instant, rng: &mut Rng) -> bool {
        let mut lost = chance(rng, self.options.loss_ppm);
        if let Some(burst) = self.options.burst {
            self.bad &= now.since(self.bad_since) <= burst.longest;
            let turn = if self.bad { burst.leave_ppm } else { burst.enter_ppm };
            if chance(rng, turn) {
                self.bad = !self.bad;
                self.bad_since = now;
            }
            lost |= self.bad && chance(rng, burst.loss_ppm);
        }
        lost
    }
}

fn bytes_in(span: Duration, rate_bps: u64) -> u64 {
    let bytes = (u128::from(span.as_nanos()) * u128::from(rate_bps)) / 8_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
