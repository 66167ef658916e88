//! Programs that move seeded bytes between client and server and compare SHA-256 at both ends.
//!
//! A connection begins with a [`Request`] from the client; what follows depends on it. Each stream of data ends with
//! the sender's digest; an upload is answered by what the server received, so that both ends know both digests.

mod connect;
mod endpoint;
mod serve;
pub(crate) mod socket;
mod stream;

use serde::{Deserialize, Serialize};

pub use connect::{ConnectOptions, Sizes, connect};
pub use serve::{ServeOptions, serve};
pub use stream::{Stream, digest, is_stream};

/// Which way the data goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the client.
    Upload,
    /// From the server.
    Download,
    /// Both ways at once, the same amount each.
    Both,
}

/// How the connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Whoever has sent its data closes its direction, the other follows.
    Orderly,
    /// Half-close: the client closes its direction before a download begins.
    ClientFirst,
    /// Half-close: the server closes its direction before an upload begins.
    ServerFirst,
    /// The client resets the connection half-way.
    ClientReset,
    /// The server resets the connection half-way.
    ServerReset,
}

/// What the client asks for, in the first bytes of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Which way the data goes.
    pub direction: Direction,
    /// How the connection ends.
    pub ending: Ending,
    /// Bytes of data, each way.
    pub bytes: u64,
    /// Seed of the data.
    pub seed: u64,
}

impl Request {
    /// Length of the encoded request.
    pub const LEN: usize = 24;
    const MAGIC: &'static [u8; 4] = b"MBXT";

    /// The bytes on the wire.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(Self::MAGIC);
        bytes[4] = match self.direction {
            Direction::Upload => 0,
            Direction::Download => 1,
            Direction::Both => 2,
        };
        bytes[5] = match self.ending {
            Ending::Orderly => 0,
            Ending::ClientFirst => 1,
            Ending::ServerFirst => 2,
            Ending::ClientReset => 3,
            Ending::ServerReset => 4,
        };
        bytes[8..16].copy_from_slice(&self.bytes.to_be_bytes());
        bytes[16..].copy_from_slice(&self.seed.to_be_bytes());
        bytes
    }

    /// The request in these bytes, unless they are something else.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let (head, numbers) = bytes.split_first_chunk::<8>()?;
        let (count, seed) = numbers.split_first_chunk::<8>()?;
        let [m0, m1, m2, m3, direction, ending, 0, 0] = *head else { return None };
        if [m0, m1, m2, m3] != *Self::MAGIC {
            return None;
        }
        let direction = match direction {
            0 => Direction::Upload,
            1 => Direction::Download,
            2 => Direction::Both,
            _ => return None,
        };
        let ending = match ending {
            0 => Ending::Orderly,
            1 => Ending::ClientFirst,
            2 => Ending::ServerFirst,
            3 => Ending::ClientReset,
            4 => Ending::ServerReset,
            _ => return None,
        };
        let (bytes, seed) = (u64::from_be_bytes(*count), u64::from_be_bytes(seed.try_into().ok()?));
        Some(Self { direction, ending, bytes, seed })
    }

    /// Seed of what the client sends.
    pub fn upload_seed(&self) -> u64 {
        self.seed
    }

    /// Seed of what the server sends.
    pub fn download_seed(&self) -> u64 {
        !self.seed
    }
}

/// How a connection came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything was sent, received and closed.
    Complete,
    /// The peer reset it.
    Reset,
    /// This end reset it, as asked.
    ResetByUs,
    /// It was refused.
    Refused,
    /// Nobody answered, or an answer said that nobody would.
    Unreachable,
    /// No progress for too long.
    Stalled,
    /// Anything else: `error` has it.
    Failed,
}

/// One end's view of one connection.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ConnectionReport {
    /// Seed of its request.
    pub seed: u64,
    /// How it came out.
    pub outcome: Outcome,
    /// What went wrong, in the system's words.
    pub error: Option<String>,
    /// The peer's address as this end sees it.
    pub peer: String,
    /// Data bytes sent.
    pub sent: u64,
    /// Data bytes received.
    pub received: u64,
    /// SHA-256 of what was sent, once all of it was.
    pub sent_sha256: Option<String>,
    /// SHA-256 of what was received, once all of it was.
    pub received_sha256: Option<String>,
    /// The peer's SHA-256 of what we sent, where it told.
    pub peer_received_sha256: Option<String>,
    /// The peer's SHA-256 of what we received, where it told.
    pub peer_sent_sha256: Option<String>,
    /// Position of the first byte received that is not the one sent.
    pub first_difference: Option<u64>,
    /// Seconds of the longest time between two reads that gave data.
    #[serde(default)]
    pub longest_pause: f64,
    /// When it began, in seconds since the connection did.
    #[serde(default)]
    pub longest_pause_from: f64,
    /// Seconds until the connection stood (client only).
    pub connect_seconds: f64,
    /// Seconds from then to its end.
    pub seconds: f64,
    /// Congestion control in use.
    pub congestion: String,
}

impl ConnectionReport {
    /// Whether every digest that both ends told agrees and no byte differed.
    pub fn intact(&self) -> bool {
        let agree = |own: &Option<String>, peer: &Option<String>| peer.is_none() || own == peer;
        self.first_difference.is_none()
            && agree(&self.sent_sha256, &self.peer_received_sha256)
            && agree(&self.received_sha256, &self.peer_sent_sha256)
    }
}
