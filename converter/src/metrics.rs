//! What the box tells its operator: plain structures that the engine fills, `mimbox stats` shows and scripts read.

use std::net::SocketAddr;

use mimbox_dataplane::Engine;
use mimbox_stack::{Counter, Counters, Instant, PortId};
use serde::{Deserialize, Serialize};

use crate::events::Event;

#[cfg(test)]
mod tests;
mod text;

pub use text::{connections_text, counters_markdown, stats_text};

/// An engine that an operator can watch. The converter's shard is one.
pub trait Operated: Engine {
    /// Fills in what the engine knows: `counters`, `conversions`, and each port's `checksum_partial`. The ports are
    /// there, in the order of their numbers; the rest is filled in by the caller.
    fn observe(&self, snapshot: &mut Snapshot);
    /// The first `limit` live conversions, and how many there are.
    fn connections(&mut self, now: Instant, limit: usize) -> ConnectionList;
    /// The oldest event that nobody has read. An engine that notes none has none.
    fn next_event(&mut self) -> Option<Event> {
        None
    }
    /// What would be waited for in vain: data whose timer is not set, a deadline for which nothing wakes the engine. For
    /// simulations, which ask for it all the time; `None` in an engine that works.
    fn timer_fault(&mut self, now: Instant) -> Option<String>;
    /// The conversion that holds the most frames, if there is any. For simulations.
    fn heaviest(&mut self) -> Option<Heaviest>;
    /// Lets go of every frame that the engine still holds, without sending anything, so that the pool can be audited.
    fn release_all(&mut self, now: Instant);
}

/// A conversion and the frames that it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heaviest {
    /// The conversion's number.
    pub conversion: u64,
    /// Frames that it holds, each counted once.
    pub frames: u32,
    /// Frames that no conversion may hold more of.
    pub limit: u32,
}

/// Everything that `mimbox stats` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The program's version.
    pub version: String,
    /// Seconds since it was started.
    pub uptime_s: f64,
    /// What it does.
    pub state: RunState,
    /// The frames.
    pub pool: PoolSnapshot,
    /// The conversions.
    pub conversions: ConversionCounts,
    /// The worker's loop.
    pub worker: WorkerSnapshot,
    /// The ports, in the order of their numbers.
    pub ports: Vec<PortSnapshot>,
    /// Every counter by its name.
    #[serde(with = "counters_by_name")]
    pub counters: Counters,
}

/// What the box is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It opens conversions and serves them.
    #[default]
    Running,
    /// It serves those there are and opens none.
    Draining,
}

/// Where the frames are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSnapshot {
    /// Frames in all.
    pub frames: u32,
    /// Frames that nobody holds.
    pub free: u32,
    /// Frames in the ports' rings.
    pub in_rings: u32,
    /// Frames that the engine holds: neither free nor in a ring.
    pub in_use: u32,
}

/// How many conversions there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversionCounts {
    /// Established ones.
    pub live: u64,
    /// SYNs carried to a server that has not answered, or whose client has not.
    pub half_open: u64,
    /// 4-tuples that rest.
    pub time_wait: u64,
}

/// What the worker's loop counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerSnapshot {
    /// Turns of the loop.
    pub turns: u64,
    /// Turns that had something to do.
    #[serde(default)]
    pub busy: u64,
    /// Batches of received frames.
    pub batches: u64,
    /// Times that it slept.
    pub sleeps: u64,
    /// Most frames that ever waited for a port's TX ring.
    pub backlog_peak: u64,
}

/// One port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSnapshot {
    /// The box's word for it.
    pub name: String,
    /// The operating system's.
    pub interface: String,
    /// How frames get in and out.
    pub mode: String,
    /// "up", "down" or "gone".
    pub state: String,
    /// Its Ethernet address.
    pub mac: String,
    /// Largest IP packet.
    pub mtu: u16,
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received, Ethernet headers included.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent, Ethernet headers included.
    pub tx_bytes: u64,
    /// Frames not sent because the port was down or took none.
    pub tx_dropped: u64,
    /// Frames dropped by the kernel or device on reception.
    pub rx_dropped: u64,
    /// Frames dropped because the RX ring was full.
    pub rx_ring_full: u64,
    /// Times that reception found no free frame.
    pub rx_fill_empty: u64,
    /// Descriptors that the kernel refused; not zero is a bug.
    pub invalid_descriptors: u64,
    /// System calls that had the kernel take frames to send.
    #[serde(default)]
    pub tx_calls: u64,
    /// System calls that had the kernel look for received frames, or for room to put them.
    #[serde(default)]
    pub rx_calls: u64,
    /// What makes it fast, as far as it was to be had.
    #[serde(default)]
    pub features: Vec<FeatureSnapshot>,
    /// Segments whose checksum the sending device left unfinished.
    pub checksum_partial: u64,
    /// What to do about them; empty when there are none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub advice: String,
}

/// Something that makes a port fast.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureSnapshot {
    /// Its name.
    pub name: String,
    /// Whether the port has it.
    pub got: bool,
    /// How much of it, or why not.
    pub detail: String,
}

/// Some of the live conversions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConnectionList {
    /// How many conversions live.
    pub total: u64,
    /// The first of them.
    pub connections: Vec<ConnectionRow>,
}

/// One conversion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionRow {
    /// Its number in the engine.
    pub id: u64,
    /// How it reached the box: "explicit", "transparent".
    pub mode: String,
    /// The client.
    pub client: SocketAddr,
    /// The server.
    pub server: SocketAddr,
    /// What the client half speaks: "mptcp", "tcp", or "fallback" for MPTCP that became TCP.
    pub client_protocol: String,
    /// What the server half speaks.
    pub server_protocol: String,
    /// The box's MPTCP token, where there is one.
    pub token: Option<u32>,
    /// Seconds since it was established.
    pub age_s: f64,
    /// Bytes from client to server, as acknowledged by the server.
    pub bytes_to_server: u64,
    /// Bytes from server to client, as acknowledged by the client.
    pub bytes_to_client: u64,
    /// Frames that it holds.
    pub frames: u32,
    /// Its connections: the client's subflows, then those to the server.
    pub subflows: Vec<SubflowRow>,
}

/// One TCP connection of a conversion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubflowRow {
    /// "client" or "server".
    pub side: String,
    /// The port that it is on; a number of the engine, turned into the name for display.
    pub port: u8,
    /// The box's end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
    /// The state of its TCP machine.
    pub state: String,
    /// Payload bytes received.
    pub bytes_in: u64,
    /// Payload bytes sent and acknowledged.
    pub bytes_out: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Smoothed round-trip time in microseconds; zero before the first measurement.
    pub srtt_us: u64,
    /// Congestion window in bytes.
    pub cwnd: u32,
    /// True when the peer wants it used only when no other works.
    pub backup: bool,
}

impl Snapshot {
    /// An empty snapshot for ports with these numbers, names and interfaces.
    pub fn new<'a>(ports: impl Iterator<Item = (PortId, &'a str, &'a str)>) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: 0.0,
            state: RunState::Running,
            pool: PoolSnapshot::default(),
            conversions: ConversionCounts::default(),
            worker: WorkerSnapshot::default(),
            ports: ports
                .map(|(_, name, interface)| PortSnapshot {
                    name: name.to_owned(),
                    interface: interface.to_owned(),
                    ..PortSnapshot::default()
                })
                .collect(),
            counters: Counters::default(),
        }
    }

    /// The port with this number.
    pub fn port_mut(&mut self, id: PortId) -> Option<&mut PortSnapshot> {
        self.ports.get_mut(usize::from(id.0))
    }
}

/// Counters as a table of names and values, in the order of their declaration.
mod counters_by_name {
    use std::collections::BTreeMap;

    use serde::ser::SerializeMap as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Counter, Counters};

    pub(super) fn serialize<S: Serializer>(counters: &Counters, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Counter::ALL.len()))?;
        for (counter, value) in counters.iter() {
            map.serialize_entry(counter.name(), &value)?;
        }
        map.end()
    }

    /// A box of another version may have other counters: those that are not known here are left out.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Counters, D::Error> {
        let values = BTreeMap::<String, u64>::deserialize(deserializer)?;
        let mut counters = Counters::default();
        for &counter in Counter::ALL {
            counters.add(counter, values.get(counter.name()).copied().unwrap_or(0));
        }
        Ok(counters)
    }
}
