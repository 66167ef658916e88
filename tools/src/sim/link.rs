//! One direction of a link between two nodes, in virtual time.

use mimbox_stack::{Instant, Rng};

use super::draw;
use super::middlebox::Middlebox;
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
    middlebox: Option<Middlebox>,
    /// Packets that lost MPTCP options.
    pub(crate) stripped: u64,
}

impl Link {
    pub(crate) fn new(options: LinkOptions, rng: Rng) -> Self {
        Self { channel: Channel::new(options, Dice::Sequence(Box::new(rng))), middlebox: None, stripped: 0 }
    }

    /// The same link with a middlebox on it.
    pub(crate) fn with(self, middlebox: Option<Middlebox>) -> Self {
        Self { middlebox, ..self }
    }

    /// What happened on it.
    pub(crate) fn totals(&self) -> &LinkTotals {
        self.channel.totals()
    }

    /// Takes a packet; hands each copy that will arrive to `arrive` with its time.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        mut packet: Packet,
        packets: &mut Packets,
        mut arrive: impl FnMut(Instant, Packet),
    ) {
        let is_ip = packet.get(12..14).is_some_and(|kind| IP_TYPES.iter().any(|known| known == kind));
        let carried = packet.len().saturating_sub(ETHERNET);
        let offered = Offered { bytes: packet.len(), carried, exposed: if is_ip { carried } else { 0 } };
        match self.channel.offer(now, offered) {
            Fate::Overflowed | Fate::Oversized | Fate::Lost => packets.recycle(packet),
            Fate::Passes(passage) => {
                if self.middlebox.is_some_and(|middlebox| middlebox.meddle(&mut packet)) {
                    self.stripped += 1;
                }
                if let Some(at) = passage.copy_at {
                    arrive(at, packets.copy_of(&packet));
                }
                if let Some((byte, bit)) = passage.flip {
                    packet[ETHERNET + byte] ^= 1 << bit;
                }
                arrive(passage.at, packet);
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
