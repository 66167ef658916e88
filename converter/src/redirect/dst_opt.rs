//! Dst Opt: a TCP option in the client's SYN names the server (DESIGN: Dst Opt; RFC 6994 for the option's form).
//!
//! Kind 253, length, 16-bit ExID, the server's IPv4 (4) or IPv6 (16) address, then optionally its port (2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use arrayvec::ArrayVec;

/// Experimental option kind that carries a destination (RFC 6994 §3).
pub const KIND: u8 = 253;
/// ExID unless the configuration says otherwise.
pub const DEFAULT_EXID: u16 = 0x4d42;
/// The longest form: header, ExID, IPv6 address, port.
pub const MAX_LEN: usize = 22;

/// Why an option does not name a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DstOptError {
    /// Another experiment's option.
    OtherExperiment,
    /// The length fits no address with or without a port.
    Malformed,
}

/// The server that a raw option (kind and length included) names; without a port in it, `syn_port` stands.
pub(crate) fn parse(option: &[u8], exid: u16, syn_port: u16) -> Result<SocketAddr, DstOptError> {
    let [kind, length, hi, lo, rest @ ..] = option else { return Err(DstOptError::Malformed) };
    if *kind != KIND || u16::from_be_bytes([*hi, *lo]) != exid {
        return Err(DstOptError::OtherExperiment);
    }
    if usize::from(*length) != option.len() {
        return Err(DstOptError::Malformed);
    }
    let (address, port) = match rest.len() {
        4 | 6 => {
            let (address, port) = rest.split_at(4);
            let octets: [u8; 4] = address.try_into().map_err(|_| DstOptError::Malformed)?;
            (IpAddr::V4(Ipv4Addr::from(octets)), port)
        }
        16 | 18 => {
            let (address, port) = rest.split_at(16);
            let octets: [u8; 16] = address.try_into().map_err(|_| DstOptError::Malformed)?;
            (IpAddr::V6(Ipv6Addr::from(octets)), port)
        }
        _ => return Err(DstOptError::Malformed),
    };
    let port = match port {
        [hi, lo] => u16::from_be_bytes([*hi, *lo]),
        _ => syn_port,
    };
    if port == 0 {
        return Err(DstOptError::Malformed);
    }
    Ok(SocketAddr::new(address.to_canonical(), port))
}

/// The option that names `server`; the port stands in it only when it differs from the SYN's own.
pub fn emit(server: SocketAddr, exid: u16, syn_port: u16) -> ArrayVec<u8, MAX_LEN> {
    let mut option = ArrayVec::new();
    option.extend([KIND, 0]);
    option.extend(exid.to_be_bytes());
    match server.ip() {
        IpAddr::V4(v4) => option.extend(v4.octets()),
        IpAddr::V6(v6) => option.extend(v6.octets()),
    }
    if server.port() != syn_port {
        option.extend(server.port().to_be_bytes());
    }
    let length = option.len() as u8;
    if let Some(slot) = option.get_mut(1) {
        *slot = length;
    }
    option
}

#[cfg(test)]
mod tests;
