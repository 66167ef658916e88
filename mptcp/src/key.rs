//! Keys, tokens, initial data sequence numbers and HMACs (RFC 8684 §3.1, §3.2, §3.4.1), by SHA-256 in version 1 and by
//! SHA-1 in version 0 (RFC 6824 §3.1, §3.2).

use std::net::IpAddr;

use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::dsn::Dsn;

/// Bytes of the HMAC that stand in the ACK of an MP_JOIN handshake.
pub const JOIN_ACK_HMAC_BYTES: usize = 20;

/// A version of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Version {
    /// RFC 6824.
    V0,
    /// RFC 8684.
    #[default]
    V1,
}

impl Version {
    /// Its number in an MP_CAPABLE.
    pub const fn number(self) -> u8 {
        match self {
            Self::V0 => 0,
            Self::V1 => 1,
        }
    }
}

/// What a key stands for on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Derived {
    /// Names the connection in an MP_JOIN.
    pub token: u32,
    /// Initial data sequence number: the MP_CAPABLE SYN's own octet.
    pub idsn: Dsn,
}

/// Token and initial data sequence number of `key`, from one hash.
pub fn derive(key: u64, version: Version) -> Derived {
    // RFC 8684 §3.1, RFC 6824 §3.1: the key is hashed in network byte order; the token is the most significant 32 bits of
    // the hash, the IDSN the least significant 64.
    let (mut first, mut last) = ([0; 4], [0; 8]);
    match version {
        Version::V1 => {
            let hash: [u8; 32] = Sha256::digest(key.to_be_bytes()).into();
            first.copy_from_slice(&hash[..4]);
            last.copy_from_slice(&hash[24..]);
        }
        Version::V0 => {
            let hash: [u8; 20] = Sha1::digest(key.to_be_bytes()).into();
            first.copy_from_slice(&hash[..4]);
            last.copy_from_slice(&hash[12..]);
        }
    }
    Derived { token: u32::from_be_bytes(first), idsn: Dsn(u64::from_be_bytes(last)) }
}

/// The token of `key`.
pub fn token(key: u64, version: Version) -> u32 {
    derive(key, version).token
}

/// The two keys of a connection, from the point of view of one host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyPair {
    /// Our own key.
    pub local: u64,
    /// The peer's key.
    pub remote: u64,
    /// Which hash signs with them.
    pub version: Version,
}

impl KeyPair {
    /// The pair as the peer sees it.
    pub const fn reversed(self) -> Self {
        Self { local: self.remote, remote: self.local, version: self.version }
    }

    /// The code over `message`: 32 bytes of it in version 1, 20 and zeroes in version 0.
    fn mac(self, message: &[u8]) -> [u8; 32] {
        // RFC 8684 §3.2: the sender's key comes first.
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.local.to_be_bytes());
        key[8..].copy_from_slice(&self.remote.to_be_bytes());
        let mut code = [0; 32];
        // HMAC takes keys of any length, so neither can fail; an all-zero code would authenticate nobody.
        match self.version {
            Version::V1 => {
                if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) {
                    mac.update(message);
                    code = mac.finalize().into_bytes().into();
                }
            }
            Version::V0 => {
                if let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(&key) {
                    mac.update(message);
                    code[..20].copy_from_slice(&mac.finalize().into_bytes());
                }
            }
        }
        code
    }

    /// The full HMAC that this host sends in an MP_JOIN handshake, with its own nonce first.
    pub fn join(self, local_nonce: u32, remote_nonce: u32) -> JoinHmac {
        let mut message = [0; 8];
        message[..4].copy_from_slice(&local_nonce.to_be_bytes());
        message[4..].copy_from_slice(&remote_nonce.to_be_bytes());
        JoinHmac(self.mac(&message))
    }

    /// The truncated HMAC that this host puts on an ADD_ADDR.
    pub fn add_addr(self, addr_id: u8, addr: IpAddr, port: Option<u16>) -> u64 {
        // RFC 8684 §3.4.1: over address ID, address and port, two octets of zero standing for a port that is absent;
        // the rightmost 64 bits are sent.
        let mut message = [0; 19];
        message[0] = addr_id;
        let len = match addr {
            IpAddr::V4(v4) => {
                message[1..5].copy_from_slice(&v4.octets());
                5
            }
            IpAddr::V6(v6) => {
                message[1..17].copy_from_slice(&v6.octets());
                17
            }
        };
        message[len..len + 2].copy_from_slice(&port.unwrap_or(0).to_be_bytes());
        let hash = self.mac(&message[..len + 2]);
        let mut low = [0; 8];
        low.copy_from_slice(&hash[24..]);
        u64::from_be_bytes(low)
    }
}

/// The HMAC of an MP_JOIN handshake, not truncated yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JoinHmac([u8; 32]);

impl JoinHmac {
    /// The leftmost 64 bits, for a SYN/ACK.
    pub fn for_syn_ack(self) -> u64 {
        let mut high = [0; 8];
        high.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(high)
    }

    /// The leftmost 160 bits, for the third ACK: in version 0 all of it.
    pub fn for_ack(self) -> [u8; JOIN_ACK_HMAC_BYTES] {
        let mut high = [0; JOIN_ACK_HMAC_BYTES];
        high.copy_from_slice(&self.0[..JOIN_ACK_HMAC_BYTES]);
        high
    }
}

/// Compares two codes in a time that does not depend on where they differ.
pub fn same_code(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

#[cfg(test)]
mod tests;
