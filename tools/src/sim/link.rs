//! One direction of a link between two nodes, in virtual time.

use mimbox_stack::{Instant, Rng};

use super::draw;
use super::middlebox::{Meddler, Middlebox, Way};
use super::packet::{Packet, Packets};
pub use crate::link::{Burst, LinkOptions, LinkTotals};
use crate::link::{Channel, Dice, Fate, Offered};

/// Length of an Ethernet header.
const ETHERNET: usize = 14;
/// Ethernet types of IPv4 and IPv6: what corruption may strike. ARP has no checksum, so a changed ARP packet would be
/// believed; on a real wire the frame check sequence catches it.
const IP_TYPES: [[u8; 2]; 2] = [[0x08, 0x00], [0x86, 0xdd]];

/// One direction of a link in motion.
#[derive(Debug)]
pub(crate) struct Link {
    channel: Channel,
    meddler: Option<Meddler>,
    /// What came out of the middlebox, kept so that it does not allocate.
    passed: Vec<(Instant, Packet)>,
}

impl Link {
    pub(crate) fn new(options: LinkOptions, rng: Rng) -> Self {
        Self { channel: Channel::new(options, Dice::Sequence(Box::new(rng))), meddler: None, passed: Vec::new() }
    }

    /// The same link with a middlebox on it.
    pub(crate) fn with(self, middlebox: Option<Middlebox>, way: Way) -> Self {
        Self { meddler: middlebox.map(|middlebox| Meddler::new(middlebox, way)), ..self }
    }

    /// The middlebox.
    pub(crate) fn meddler(&mut self) -> Option<&mut Meddler> {
        self.meddler.as_mut()
    }

    /// Packets that lost MPTCP options in the middlebox, and those that it changed otherwise.
    pub(crate) fn meddled(&self) -> (u64, u64) {
        self.meddler.as_ref().map_or((0, 0), |meddler| (meddler.stripped, meddler.changed))
    }

    /// What happened on it.
    pub(crate) fn totals(&self) -> &LinkTotals {
        self.channel.totals()
    }

    /// Takes a packet; hands each copy that will arrive to `arrive` with its time.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        packet: Packet,
        packets: &mut Packets,
        mut arrive: impl FnMut(Instant, Packet),
    ) {
        let is_ip = packet.get(12..14).is_some_and(|kind| IP_TYPES.iter().any(|known| known == kind));
        let carried = packet.len().saturating_sub(ETHERNET);
        let offered = Offered { bytes: packet.len(), carried, exposed: if is_ip { carried } else { 0 } };
        match self.channel.offer(now, offered) {
            Fate::Overflowed | Fate::Oversized | Fate::Lost => packets.recycle(packet),
            Fate::Passes(passage) => {
                match &mut self.meddler {
                    Some(meddler) => {
                        meddler.meddle(passage.at, packet, packets, &mut |at, packet| self.passed.push((at, packet)));
                    }
                    None => self.passed.push((passage.at, packet)),
                }
                for (at, mut packet) in self.passed.drain(..) {
                    if let Some(at) = passage.copy_at {
                        arrive(at, packets.copy_of(&packet));
                    }
                    if let Some((byte, bit)) = passage.flip
                        && let Some(byte) = packet.get_mut(ETHERNET + byte)
                    {
                        *byte ^= 1 << bit;
                    }
                    arrive(at, packet);
                }
            }
        }
    }
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
