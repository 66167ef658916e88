//! A conversion: a client half, a server half, and what has passed between them so far.

use bitflags::bitflags;
use mimbox_stack::Instant;
use mimbox_stack::tcp::Offer;

use crate::events::ConversionEnd;
use crate::half::Half;
use crate::settings::MptcpTerms;
use crate::window::Autotune;

/// Names a conversion; a stale name finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub(crate) struct ConversionId {
    index: u32,
    generation: u32,
}

impl ConversionId {
    /// A number that no other live conversion has, for display.
    pub(crate) fn number(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }
}

/// How a connection reached the box.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// The client's SYN was addressed to the box and named the server.
    Explicit,
    /// The client's SYN was addressed to the server and the box is the router on the path.
    Transparent,
}

impl Mode {
    /// The mode's name in statistics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Explicit => "explicit",
            Self::Transparent => "transparent",
        }
    }
}

/// One of the two sides of a conversion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// Towards the client.
    Client,
    /// Towards the server.
    Server,
}

impl Side {
    /// Both sides, the client's first.
    pub(crate) const BOTH: [Self; 2] = [Self::Client, Self::Server];

    /// The side across.
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

bitflags! {
    /// Sides of a conversion.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub(crate) struct Sides: u8 {
        /// Towards the client.
        const CLIENT = 1;
        /// Towards the server.
        const SERVER = 1 << 1;
    }
}

impl From<Side> for Sides {
    #[inline]
    fn from(side: Side) -> Self {
        match side {
            Side::Client => Self::CLIENT,
            Side::Server => Self::SERVER,
        }
    }
}

/// What has passed on one side.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Progress {
    /// The peer's FIN or DATA_FIN arrived in order.
    pub fin_received: bool,
    /// Our FIN or DATA_FIN is queued or sent.
    pub shut_down: bool,
    /// The half has ended; nothing of it is left.
    pub ended: bool,
}

/// A client half and a server half.
#[derive(Debug)]
pub(crate) struct Conversion {
    /// The half towards the client.
    pub client: Half,
    /// The half towards the server.
    pub server: Half,
    /// What passed on the client's side.
    pub client_progress: Progress,
    /// What passed on the server's side.
    pub server_progress: Progress,
    /// How the connection reached the box.
    pub mode: Mode,
    /// What the client's first connection was offered; further subflows are offered the same.
    pub client_offer: Offer,
    /// How the MPTCP half towards the client behaves, when it is one.
    pub client_terms: Option<MptcpTerms>,
    /// True when the client's first address is IPv4.
    pub client_ipv4: bool,
    /// One side was reset: nothing is left to do but to tell the other.
    pub aborted: bool,
    /// How it ends.
    pub end: ConversionEnd,
    /// The client's third ACK has arrived: the server may be answered.
    pub established: bool,
    /// It stands in the shard's list of conversions with something to do.
    pub ready: bool,
    /// Halves that something happened to since they were last polled: no other has anything to send.
    pub stirred: Sides,
    /// When its entry in the timing wheel fires.
    pub armed: Instant,
    /// When its SYN+ACK was sent to the client.
    pub opened: Instant,
    /// What the direction from the client may hold.
    pub client_window: Autotune,
    /// What the direction from the server may hold.
    pub server_window: Autotune,
    /// Payload bytes that one frame of window stands for.
    pub segment_bytes: u16,
}

impl Conversion {
    /// The half of `side`.
    pub(crate) fn half(&self, side: Side) -> &Half {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    /// The half of `side`, to change.
    pub(crate) fn half_mut(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// What the direction that comes in on `side` may hold.
    pub(crate) fn window_mut(&mut self, side: Side) -> &mut Autotune {
        match side {
            Side::Client => &mut self.client_window,
            Side::Server => &mut self.server_window,
        }
    }

    /// Something has happened to both halves, or may have, and to both directions.
    pub(crate) fn stir(&mut self) {
        self.stirred = Sides::all();
        self.client_window.carry();
        self.server_window.carry();
    }

    /// Payload has gone across from `side`.
    #[inline]
    pub(crate) fn carried(&mut self, side: Side) {
        self.stirred = Sides::all();
        self.window_mut(side).carry();
    }

    /// True while there is nothing about the conversion that ends, and nothing to be heard of its halves.
    #[inline]
    pub(crate) fn goes_on(&self) -> bool {
        let quiet = |half: &Half| !half.has_event() && !half.is_closed();
        let ended = self.client_progress.ended && self.server_progress.ended;
        !self.aborted && !ended && quiet(&self.client) && quiet(&self.server)
    }

    /// What passed on `side`.
    pub(crate) fn progress_mut(&mut self, side: Side) -> &mut Progress {
        match side {
            Side::Client => &mut self.client_progress,
            Side::Server => &mut self.server_progress,
        }
    }
}

/// All conversions of a shard.
#[derive(Debug, Default)]
pub(crate) struct ConversionTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    conversion: Option<Conversion>,
}

impl ConversionTable {
    /// Conversions in the table.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Keeps `conversion`.
    pub(crate) fn insert(&mut self, conversion: Conversion) -> ConversionId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, conversion: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.conversion = Some(conversion);
        ConversionId { index, generation: slot.generation }
    }

    /// The conversion, if it still lives.
    pub(crate) fn get(&self, id: ConversionId) -> Option<&Conversion> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation == id.generation { slot.conversion.as_ref() } else { None }
    }

    /// The conversion to change, if it still lives.
    pub(crate) fn get_mut(&mut self, id: ConversionId) -> Option<&mut Conversion> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation { slot.conversion.as_mut() } else { None }
    }

    /// Takes the conversion out.
    pub(crate) fn remove(&mut self, id: ConversionId) -> Option<Conversion> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let conversion = slot.conversion.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        Some(conversion)
    }

    /// Names of all live conversions.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ConversionId> + '_ {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.conversion.is_some())
            .map(|(index, slot)| ConversionId { index: index as u32, generation: slot.generation })
    }
}
