//! Keys, tokens, initial data sequence numbers and HMACs (RFC 8684 §3.1, §3.2, §3.4.1).

use std::net::IpAddr;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::dsn::Dsn;

/// Bytes of the HMAC that stand in the ACK of an MP_JOIN handshake.
pub const JOIN_ACK_HMAC_BYTES: usize = 20;

/// What a key stands for on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Derived {
    /// Names the connection in an MP_JOIN.
    pub token: u32,
    /// Initial data sequence number: the MP_CAPABLE SYN's own octet.
    pub idsn: Dsn,
}

/// Token and initial data sequence number of `key`, from one hash.
pub fn derive(key: u64) -> Derived {
    // RFC 8684 §3.1: the key is hashed in network byte order; the token is the most significant 32 bits of SHA-256, the
    // IDSN the least significant 64.
    let hash: [u8; 32] = Sha256::digest(key.to_be_bytes()).into();
    let [a, b, c, d, ..] = hash;
    let mut low = [0; 8];
    low.copy_from_slice(&hash[24..]);
    Derived { token: u32::from_be_bytes([a, b, c, d]), idsn: Dsn(u64::from_be_bytes(low)) }
}

/// The token of `key`.
pub fn token(key: u64) -> u32 {
    derive(key).token
}

/// The initial data sequence number of `key`.
pub fn idsn(key: u64) -> u64 {
    derive(key).idsn.0
}

/// The two keys of a connection, from the point of view of one host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyPair {
    /// Our own key.
    pub local: u64,
    /// The peer's key.
    pub remote: u64,
}

impl KeyPair {
    /// The pair as the peer sees it.
    pub const fn reversed(self) -> Self {
        Self { local: self.remote, remote: self.local }
    }

    fn mac(self, message: &[u8]) -> [u8; 32] {
        // RFC 8684 §3.2: the sender's key comes first.
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.local.to_be_bytes());
        key[8..].copy_from_slice(&self.remote.to_be_bytes());
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else {
            // HMAC takes keys of any length, so this cannot be; an all-zero code would authenticate nobody.
            return [0; 32];
        };
        mac.update(message);
        mac.finalize().into_bytes().into()
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

    /// The leftmost 160 bits, for the third ACK.
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
