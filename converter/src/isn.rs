//! Initial sequence numbers and timestamp offsets (RFC 6528 §3, RFC 7323 §5.4).

use std::hash::Hasher;
use std::net::IpAddr;

use mimbox_stack::{FlowKey, Instant, Rng, SeqNum};
use siphasher::sip::SipHasher24;

/// Draws initial sequence numbers that rise for one 4-tuple and tell nothing about another.
#[derive(Clone, Debug)]
pub(crate) struct IsnGenerator {
    key: [u8; 16],
}

impl IsnGenerator {
    /// A generator with a secret of its own.
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
        key[8..].copy_from_slice(&rng.next_u64().to_le_bytes());
        Self { key }
    }

    fn hash(&self, flow: &FlowKey) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        for address in [flow.local, flow.remote] {
            match address {
                IpAddr::V4(v4) => hasher.write(&v4.octets()),
                IpAddr::V6(v6) => hasher.write(&v6.octets()),
            }
        }
        hasher.write_u16(flow.local_port);
        hasher.write_u16(flow.remote_port);
        hasher.finish()
    }

    /// The initial sequence number for `flow` at `now`: a clock of 4 µs plus a keyed hash (RFC 6528 §3).
    pub(crate) fn isn(&self, now: Instant, flow: &FlowKey) -> SeqNum {
        let clock = (now.as_micros() / 4) as u32;
        SeqNum(clock.wrapping_add(self.hash(flow) as u32))
    }

    /// What `flow` adds to the millisecond clock in its timestamps (RFC 7323 §5.4).
    pub(crate) fn timestamp_offset(&self, flow: &FlowKey) -> u32 {
        (self.hash(flow) >> 32) as u32
    }
}
