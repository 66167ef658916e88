//! Which MSS to announce, so that a full segment of one side is one segment on the other (DESIGN: MSS, windows, memory).
//!
//! MSS leaves options out of account (RFC 9293 §3.7.1), so every option that the other side's segments will carry has to
//! be taken off here, before the sender fills its segments to the brim.

use std::net::IpAddr;

/// Timestamps with their padding.
pub(crate) const TIMESTAMPS: u16 = 12;
/// Our DSS: 64-bit DATA_ACK, 32-bit DSN, padded (RFC 8684 §3.3.1).
pub(crate) const OUR_DSS: u16 = 24;
/// A peer's largest DSS without checksum: 64-bit DATA_ACK and 64-bit DSN, padded.
pub(crate) const PEER_DSS: u16 = 28;
/// The smallest segment size that the box works with; a smaller announcement is raised to it.
pub(crate) const MIN_MSS: u16 = 88;
/// What a SYN without the option means over IPv4 (RFC 9293 §3.7.1).
const DEFAULT_V4: u16 = 536;
/// What a SYN without the option means over IPv6 (RFC 9293 §3.7.1).
const DEFAULT_V6: u16 = 1220;

/// What the MSS computation knows of one side of a conversion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side {
    /// IP MTU of the port towards that side.
    pub mtu: u16,
    /// An address of that side; only its family counts.
    pub address: IpAddr,
    /// The MSS that the side announced, if it is known and was announced.
    pub announced: Option<u16>,
    /// True when the half towards that side speaks MPTCP.
    pub mptcp: bool,
}

impl Side {
    /// The largest MSS that the side's link takes.
    fn link(&self) -> u16 {
        let headers = if self.address.is_ipv4() { 40 } else { 60 };
        self.mtu.saturating_sub(headers).max(MIN_MSS)
    }

    /// The MSS that we may send with, options included in it.
    fn sending(&self) -> u16 {
        let default = if self.address.is_ipv4() { DEFAULT_V4 } else { DEFAULT_V6 };
        self.announced.unwrap_or(default).clamp(MIN_MSS, self.link())
    }
}

/// The MSS to announce to the server: its full segments then fit towards `client` with our options on them.
pub(crate) fn towards_server(client: &Side, server: &Side) -> u16 {
    let dss = if client.mptcp { OUR_DSS } else { 0 };
    client.sending().saturating_sub(dss).clamp(MIN_MSS, server.link())
}

/// The MSS to announce to the client: its full segments, freed of their MPTCP options, then fit towards `server`.
pub(crate) fn towards_client(client: &Side, server: &Side) -> u16 {
    let dss = if client.mptcp { PEER_DSS } else { 0 };
    server.sending().saturating_add(dss).clamp(MIN_MSS, client.link())
}

#[cfg(test)]
mod tests;
