//! TCP options: parsed in one pass, emitted into a 40-byte budget.

use arrayvec::ArrayVec;

use crate::seq::SeqNum;

/// Most bytes of options that a TCP header holds (RFC 9293 §3.1).
pub const MAX_OPTION_BYTES: usize = 40;
/// Most kind-30 options kept of one segment.
pub const MAX_MPTCP_OPTIONS: usize = 6;

/// Option bytes under construction, at most 40.
pub type OptionBytes = ArrayVec<u8, MAX_OPTION_BYTES>;

/// Timestamps of RFC 7323 §3.2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timestamps {
    /// The sender's clock.
    pub value: u32,
    /// The echo of the receiver's clock.
    pub echo: u32,
}

/// One SACK block: `start` up to, not including, `end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SackBlock {
    /// First sequence number of the block.
    pub start: SeqNum,
    /// Sequence number after the block.
    pub end: SeqNum,
}

/// SACK blocks of one segment, most recent first (RFC 2018 §4).
pub type SackBlocks = ArrayVec<SackBlock, 4>;

/// What is negotiated on a SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SynOptions {
    /// Maximum segment size, options not included (RFC 9293 §3.7.1).
    pub mss: Option<u16>,
    /// Window scale shift, at most 14 (RFC 7323 §2).
    pub window_scale: Option<u8>,
    /// SACK-permitted (RFC 2018 §2).
    pub sack_permitted: bool,
}

/// Where an option's bytes stand in [`TcpOptions::raw`], kind and length included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OptionSlice {
    /// Index of the kind byte.
    pub start: u8,
    /// Length of the whole option.
    pub len: u8,
}

/// The options of one received segment. The bytes are copied out of the frame (at most 40), so that the frame may move.
#[derive(Clone, Debug, Default)]
pub struct TcpOptions {
    /// The raw option bytes.
    pub raw: OptionBytes,
    /// MSS, window scale, SACK-permitted; meaningful on SYN only.
    pub syn: SynOptions,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// SACK blocks.
    pub sack: SackBlocks,
    /// Kind 30 (MPTCP), each handed on raw.
    pub mptcp: ArrayVec<OptionSlice, MAX_MPTCP_OPTIONS>,
    /// The first experimental option (kind 253 or 254, RFC 6994), raw.
    pub experimental: Option<OptionSlice>,
    /// TCP Fast Open (kind 34), raw.
    pub fast_open: Option<OptionSlice>,
}

impl TcpOptions {
    /// The bytes of one option, kind and length included.
    pub fn slice(&self, at: OptionSlice) -> &[u8] {
        let start = usize::from(at.start);
        self.raw.get(start..start + usize::from(at.len)).unwrap_or(&[])
    }
    /// The raw MPTCP options, kind and length included.
    pub fn mptcp_slices(&self) -> impl Iterator<Item = &[u8]> + '_ {
        self.mptcp.iter().map(|&at| self.slice(at))
    }
}
