//! What happens to connections, subflows, addresses and ports, for whoever wants to follow it (`mimbox events`).
//!
//! The engine notes an event in a ring of fixed size: nothing is allocated, locked or waited for. The worker's tick empties
//! the ring for those who read, and gives the events words. When nobody reads, the oldest give way and are counted, so that
//! a reader who comes later hears of the latest ones first.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use mimbox_mptcp::{FallbackReason, ResetReason, SubflowEnd};
use mimbox_stack::{FlowKey, Instant, PortId};
use serde::{Deserialize, Serialize};

use crate::conversion::{Mode, Side};

#[cfg(test)]
mod tests;

/// Events that wait for a reader.
pub const EVENTS_MAX: usize = 1024;

/// Who announced or withdrew an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// The box.
    Box,
    /// The client.
    Client,
}

/// How a conversion ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ConversionEnd {
    /// Both sides had sent all they had.
    #[default]
    Finished,
    /// The client reset it.
    ResetByClient,
    /// The server reset it.
    ResetByServer,
    /// The client did not answer any more, or no subflow came back in time.
    ClientLost,
    /// The server did not answer any more.
    ServerLost,
    /// The box was told to stop.
    Stopped,
}

impl ConversionEnd {
    /// The end that a reset by `side` is.
    pub(crate) const fn reset_by(side: Side) -> Self {
        match side {
            Side::Client => Self::ResetByClient,
            Side::Server => Self::ResetByServer,
        }
    }

    /// The end that the silence of `side` is.
    pub(crate) const fn lost(side: Side) -> Self {
        match side {
            Side::Client => Self::ClientLost,
            Side::Server => Self::ServerLost,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::ResetByClient => "reset by the client",
            Self::ResetByServer => "reset by the server",
            Self::ClientLost => "the client did not answer",
            Self::ServerLost => "the server did not answer",
            Self::Stopped => "the box was told to stop",
        }
    }
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Happening {
    Opened { mode: Mode, client: FlowKey, server: FlowKey, protocol: &'static str },
    Closed(ConversionEnd),
    FellBack(FallbackReason),
    SubflowJoined { flow: FlowKey, port: Option<PortId> },
    SubflowClosed { flow: FlowKey, port: Option<PortId>, end: SubflowEnd },
    Announced { by: By, id: u8, addr: IpAddr, port: Option<u16> },
    Withdrawn { by: By, id: u8 },
    Priority { by: By, flow: FlowKey, backup: bool },
    Link { port: PortId, up: bool },
}

/// An event as the engine notes it: plain and small.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    at: Instant,
    /// The conversion's number.
    conversion: Option<u64>,
    what: Happening,
}

/// The events that nobody has read yet.
#[derive(Debug)]
pub(crate) struct EventRing {
    waiting: VecDeque<Event>,
    /// Events that gave way unread.
    unread: u64,
}

impl Default for EventRing {
    fn default() -> Self {
        Self { waiting: VecDeque::with_capacity(EVENTS_MAX), unread: 0 }
    }
}

impl EventRing {
    /// Notes what happened at `at`, to a conversion or to all.
    pub(crate) fn note(&mut self, at: Instant, conversion: Option<u64>, what: Happening) {
        if self.waiting.len() >= EVENTS_MAX {
            self.waiting.pop_front();
            self.unread += 1;
        }
        self.waiting.push_back(Event { at, conversion, what });
    }

    /// The oldest event that was not read.
    pub(crate) fn next(&mut self) -> Option<Event> {
        self.waiting.pop_front()
    }

    /// Events that gave way unread.
    pub(crate) const fn unread(&self) -> u64 {
        self.unread
    }
}

/// An event in words, as a reader gets it. What an event does not say is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventRow {
    /// Seconds since the box was started.
    pub uptime_s: f64,
    /// What happened: one of [`EventRow::NAMES`].
    pub event: String,
    /// The conversion's number, as in `mimbox connections`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<u64>,
    /// How the connection reached the box: "explicit", "transparent".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// What the client speaks: "mptcp", "tcp".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<SocketAddr>,
    /// The server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<SocketAddr>,
    /// The box's end of a subflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// The client's end of a subflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<SocketAddr>,
    /// The port's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Who announced or withdrew an address, or wants a subflow to be used otherwise: "box", "client".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The address's ID (RFC 8684 §3.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_id: Option<u8>,
    /// The address, with its TCP port where it was announced with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// True when the subflow is to be used only when no other works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<bool>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Events that nobody heard of because nobody read, or not fast enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<u64>,
}

impl EventRow {
    /// Every event's name.
    pub const NAMES: [&str; 11] = [
        "listening",
        "connection_opened",
        "connection_closed",
        "connection_fell_back",
        "subflow_joined",
        "subflow_closed",
        "address_announced",
        "address_withdrawn",
        "priority_changed",
        "port_up",
        "port_down",
    ];

    /// The first line that a reader gets.
    pub fn listening(now: Instant, unread: u64) -> Self {
        Self { unread: Some(unread), ..Self::named(now, "listening") }
    }

    /// `event` in words; `port` gives a port its name.
    pub fn new(event: &Event, port: impl Fn(PortId) -> String) -> Self {
        let row = |name| Self { connection: event.conversion, ..Self::named(event.at, name) };
        let subflow = |name, flow: &FlowKey| Self {
            local: Some(SocketAddr::new(flow.local, flow.local_port)),
            remote: Some(SocketAddr::new(flow.remote, flow.remote_port)),
            ..row(name)
        };
        match event.what {
            Happening::Opened { mode, client, server, protocol } => Self {
                mode: Some(mode.name().to_owned()),
                protocol: Some(protocol.to_owned()),
                client: Some(SocketAddr::new(client.remote, client.remote_port)),
                server: Some(SocketAddr::new(server.remote, server.remote_port)),
                ..row("connection_opened")
            },
            Happening::Closed(end) => Self { reason: Some(end.words().to_owned()), ..row("connection_closed") },
            Happening::FellBack(reason) => {
                Self { reason: Some(fallback_words(reason).to_owned()), ..row("connection_fell_back") }
            }
            Happening::SubflowJoined { flow, port: on } => {
                Self { port: on.map(port), ..subflow("subflow_joined", &flow) }
            }
            Happening::SubflowClosed { flow, port: on, end } => {
                Self { port: on.map(port), reason: Some(end_words(end)), ..subflow("subflow_closed", &flow) }
            }
            Happening::Announced { by, id, addr, port } => Self {
                by: Some(by_word(by)),
                address_id: Some(id),
                address: Some(port.map_or_else(|| addr.to_string(), |port| SocketAddr::new(addr, port).to_string())),
                ..row("address_announced")
            },
            Happening::Withdrawn { by, id } => {
                Self { by: Some(by_word(by)), address_id: Some(id), ..row("address_withdrawn") }
            }
            Happening::Priority { by, flow, backup } => {
                Self { by: Some(by_word(by)), backup: Some(backup), ..subflow("priority_changed", &flow) }
            }
            Happening::Link { port: on, up } => {
                Self { port: Some(port(on)), ..row(if up { "port_up" } else { "port_down" }) }
            }
        }
    }

    fn named(at: Instant, name: &str) -> Self {
        Self { uptime_s: at.as_micros() as f64 / 1e6, event: name.to_owned(), ..Self::default() }
    }

    /// One line for people, without its end.
    pub fn line(&self) -> String {
        let Self {
            uptime_s,
            event,
            connection,
            mode,
            protocol,
            client,
            server,
            local,
            remote,
            port,
            by,
            address_id,
            address,
            backup,
            reason,
            unread,
        } = self;
        let mut line = format!("{uptime_s:>12.6}  {:<20}", event.replace('_', " "));
        let mut say = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                line += &format!("  {name} {value}");
            }
        };
        say("connection", connection.map(|id| id.to_string()));
        say("mode", mode.clone());
        say("protocol", protocol.clone());
        say("client", client.map(|addr| addr.to_string()));
        say("server", server.map(|addr| addr.to_string()));
        say("from", remote.map(|addr| addr.to_string()));
        say("to", local.map(|addr| addr.to_string()));
        say("port", port.clone());
        say("by", by.clone());
        say("id", address_id.map(|id| id.to_string()));
        say("address", address.clone());
        say("backup", backup.map(|backup| if backup { "yes" } else { "no" }.to_owned()));
        say("unread", unread.filter(|unread| *unread > 0).map(|unread| unread.to_string()));
        if let Some(reason) = reason {
            line += &format!(": {reason}");
        }
        line
    }
}

fn by_word(by: By) -> String {
    match by {
        By::Box => "box",
        By::Client => "client",
    }
    .to_owned()
}

const fn fallback_words(reason: FallbackReason) -> &'static str {
    match reason {
        FallbackReason::Handshake => "an option of the handshake is missing or wrong",
        FallbackReason::NoOption => "data or its acknowledgment came without an option",
        FallbackReason::Checksum => "a checksum did not match",
        FallbackReason::InfiniteMapping => "the client says that it falls back",
    }
}

fn end_words(end: SubflowEnd) -> String {
    let of = |reason: Option<ResetReason>| match reason {
        None => String::new(),
        Some(reason) => format!(" ({})", reset_words(reason)),
    };
    match end {
        SubflowEnd::Closed => "closed".to_owned(),
        SubflowEnd::TimedOut => "no answer".to_owned(),
        SubflowEnd::ResetByPeer(reason) => format!("reset by the client{}", of(reason)),
        SubflowEnd::ResetByUs(reason) => format!("reset by the box{}", of(reason)),
    }
}

/// RFC 8684 §3.6, the reasons of MP_TCPRST.
fn reset_words(reason: ResetReason) -> String {
    match reason {
        ResetReason::Unspecified => "unspecified".to_owned(),
        ResetReason::MptcpSpecific => "an error in MPTCP signalling".to_owned(),
        ResetReason::LackOfResources => "lack of resources".to_owned(),
        ResetReason::Prohibited => "prohibited".to_owned(),
        ResetReason::TooMuchOutstanding => "too much outstanding".to_owned(),
        ResetReason::UnacceptablePerformance => "unacceptable performance".to_owned(),
        ResetReason::MiddleboxInterference => "a middlebox interferes".to_owned(),
        ResetReason::Other(code) => format!("reason {code}"),
    }
}
