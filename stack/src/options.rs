//! TCP options: parsed in one pass, emitted into a 40-byte budget.

use arrayvec::ArrayVec;
use thiserror::Error;

use crate::checksum;
use crate::seq::SeqNum;
use crate::wire::Outgoing;

/// Most bytes of options that a TCP header holds (RFC 9293 §3.1).
pub const MAX_OPTION_BYTES: usize = 40;
/// Most kind-30 options kept of one segment.
pub const MAX_MPTCP_OPTIONS: usize = 6;
/// Subtype of MPTCP's DSS (RFC 8684 §8.2).
const MPTCP_DSS: u8 = 2;
/// Largest window scale shift (RFC 7323 §2.3).
pub const MAX_WINDOW_SCALE: u8 = 14;

/// Option kinds (RFC 9293 §3.2, RFC 2018, RFC 7323, RFC 7413, RFC 8684, RFC 6994).
pub mod kind {
    /// End of the option list.
    pub const END: u8 = 0;
    /// No operation: one byte of padding.
    pub const NOP: u8 = 1;
    /// Maximum segment size.
    pub const MSS: u8 = 2;
    /// Window scale.
    pub const WINDOW_SCALE: u8 = 3;
    /// SACK permitted.
    pub const SACK_PERMITTED: u8 = 4;
    /// SACK blocks.
    pub const SACK: u8 = 5;
    /// Timestamps.
    pub const TIMESTAMPS: u8 = 8;
    /// Multipath TCP.
    pub const MPTCP: u8 = 30;
    /// TCP Fast Open.
    pub const FAST_OPEN: u8 = 34;
    /// Shared experiments, first codepoint.
    pub const EXPERIMENT_1: u8 = 253;
    /// Shared experiments, second codepoint.
    pub const EXPERIMENT_2: u8 = 254;
}

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

/// Why option bytes could not be parsed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum OptionError {
    /// A length byte is missing, below two, or points beyond the header.
    #[error("option kind {kind} has no valid length")]
    Length {
        /// The option's kind.
        kind: u8,
    },
    /// A known option has a length that its RFC does not know.
    #[error("option kind {kind} is {len} bytes long")]
    KnownLength {
        /// The option's kind.
        kind: u8,
        /// The length that it claims.
        len: u8,
    },
    /// There are more bytes than a TCP header holds.
    #[error("more than 40 bytes of options")]
    TooLong,
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
    /// Parses the bytes between the fixed TCP header and the payload. Unknown kinds are skipped; of each kind but MPTCP
    /// only the first counts.
    ///
    /// # Errors
    /// When a length is malformed: the segment is then not to be believed (RFC 9293 §3.1, MUST-7).
    pub fn parse(bytes: &[u8]) -> Result<Self, OptionError> {
        let mut options = Self::default();
        options.raw.try_extend_from_slice(bytes).map_err(|_| OptionError::TooLong)?;
        options.index()?;
        Ok(options)
    }

    /// The bytes of one option, kind and length included.
    pub fn slice(&self, at: OptionSlice) -> &[u8] {
        let start = usize::from(at.start);
        self.raw.get(start..start + usize::from(at.len)).unwrap_or(&[])
    }

    /// The raw MPTCP options, kind and length included.
    pub fn mptcp_slices(&self) -> impl Iterator<Item = &[u8]> + '_ {
        self.mptcp.iter().map(|&at| self.slice(at))
    }

    /// True when an option of Multipath TCP other than a DSS is there, which an acknowledgment may have been sent for alone.
    pub fn has_mptcp_signal(&self) -> bool {
        self.mptcp_slices().any(|option| option.get(2).is_some_and(|byte| byte >> 4 != MPTCP_DSS))
    }

    /// Fills every field from `raw`; the other fields must be at their defaults.
    #[inline]
    pub(crate) fn index(&mut self) -> Result<(), OptionError> {
        let Self { raw, syn, timestamps, sack, mptcp, experimental, fast_open } = self;
        let mut at = 0;
        // RFC 7323 appendix A: the layout that nearly every segment has.
        if let Some([1, 1, 8, 10, clocks @ ..]) = raw.first_chunk::<12>() {
            *timestamps = Some(timestamps_of(clocks));
            at = 12;
        }
        let bytes = raw.as_slice();
        while let Some(&kind) = bytes.get(at) {
            match kind {
                kind::END => break,
                kind::NOP => {
                    at += 1;
                    continue;
                }
                _ => {}
            }
            let Some(&len) = bytes.get(at + 1) else { return Err(OptionError::Length { kind }) };
            if len < 2 {
                return Err(OptionError::Length { kind });
            }
            let Some(body) = bytes.get(at + 2..at + usize::from(len)) else { return Err(OptionError::Length { kind }) };
            let slice = OptionSlice { start: at as u8, len };
            match (kind, body) {
                (kind::MPTCP, _) => {
                    // Beyond the six that the shortest suboptions could fill with meaning, the rest is ignored.
                    let _ = mptcp.try_push(slice);
                }
                (kind::TIMESTAMPS, clocks) => {
                    let clocks = clocks.try_into().map_err(|_| OptionError::KnownLength { kind, len })?;
                    timestamps.get_or_insert(timestamps_of(clocks));
                }
                (kind::SACK, blocks) => parse_sack(blocks, sack).ok_or(OptionError::KnownLength { kind, len })?,
                (kind::MSS, &[high, low]) => {
                    syn.mss.get_or_insert(u16::from_be_bytes([high, low]));
                }
                // RFC 7323 §2.3: a shift above 14 counts as 14.
                (kind::WINDOW_SCALE, &[shift]) => {
                    syn.window_scale.get_or_insert(shift.min(MAX_WINDOW_SCALE));
                }
                (kind::SACK_PERMITTED, []) => syn.sack_permitted = true,
                (kind::MSS | kind::WINDOW_SCALE | kind::SACK_PERMITTED, _) => {
                    return Err(OptionError::KnownLength { kind, len });
                }
                (kind::EXPERIMENT_1 | kind::EXPERIMENT_2, _) => {
                    experimental.get_or_insert(slice);
                }
                (kind::FAST_OPEN, _) => {
                    fast_open.get_or_insert(slice);
                }
                _ => {}
            }
            at += usize::from(len);
        }
        Ok(())
    }
}

#[inline]
pub(crate) fn timestamps_of(&[a, b, c, d, e, f, g, h]: &[u8; 8]) -> Timestamps {
    Timestamps { value: u32::from_be_bytes([a, b, c, d]), echo: u32::from_be_bytes([e, f, g, h]) }
}

/// RFC 2018 §3: 8n bytes of edges, n from 1 to 4. A second SACK option is skipped.
fn parse_sack(bytes: &[u8], sack: &mut SackBlocks) -> Option<()> {
    let (edges, []) = bytes.as_chunks::<8>() else { return None };
    if !(1..=4).contains(&edges.len()) {
        return None;
    }
    if sack.is_empty() {
        for &[a, b, c, d, e, f, g, h] in edges {
            let start = SeqNum(u32::from_be_bytes([a, b, c, d]));
            let end = SeqNum(u32::from_be_bytes([e, f, g, h]));
            let _ = sack.try_push(SackBlock { start, end });
        }
    }
    Some(())
}

/// Forty bytes of option space being filled, zero where nothing was put; what does not fit whole is left out whole.
pub(crate) struct Budget {
    bytes: [u8; MAX_OPTION_BYTES],
    len: usize,
}

impl Budget {
    /// No options at all.
    pub(crate) const EMPTY: Self = Self { bytes: [0; MAX_OPTION_BYTES], len: 0 };

    #[inline]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        if let Some(target) = self.bytes.get_mut(self.len..self.len + N) {
            target.copy_from_slice(&bytes);
            self.len += N;
        }
    }

    /// Appends `upper` and pads it with NOPs to a multiple of four.
    #[inline]
    fn put_upper(&mut self, upper: &[u8]) {
        let padded = upper.len().next_multiple_of(4);
        let Some(target) = self.bytes.get_mut(self.len..self.len + padded) else {
            debug_assert!(false, "{} bytes of upper options do not fit behind {}", upper.len(), self.len);
            return;
        };
        if let Some((head, padding)) = target.split_at_mut_checked(upper.len()) {
            head.copy_from_slice(upper);
            padding.fill(kind::NOP);
        }
        self.len += padded;
    }

    fn put_sack(&mut self, sack: &SackBlocks) {
        let fit = (MAX_OPTION_BYTES - self.len).saturating_sub(4) / 8;
        let blocks = sack.len().min(fit);
        if blocks == 0 {
            return;
        }
        self.put([kind::NOP, kind::NOP, kind::SACK, (2 + 8 * blocks) as u8]);
        for block in sack.iter().take(blocks) {
            self.put(block.start.0.to_be_bytes());
            self.put(block.end.0.to_be_bytes());
        }
    }

    /// SYN options in the layout that leaves most room: 20 bytes with everything on.
    fn put_syn(&mut self, syn: &SynOptions, timestamps: Option<Timestamps>) {
        if let Some(mss) = syn.mss {
            let [high, low] = mss.to_be_bytes();
            self.put([kind::MSS, 4, high, low]);
        }
        match (syn.sack_permitted, timestamps) {
            // The two bytes of SACK-permitted stand where the padding of timestamps would.
            (true, Some(timestamps)) => self.put_timestamps([kind::SACK_PERMITTED, 2], timestamps),
            (true, None) => self.put([kind::NOP, kind::NOP, kind::SACK_PERMITTED, 2]),
            (false, Some(timestamps)) => self.put_timestamps([kind::NOP, kind::NOP], timestamps),
            (false, None) => {}
        }
        if let Some(shift) = syn.window_scale {
            self.put([kind::NOP, kind::WINDOW_SCALE, 3, shift.min(MAX_WINDOW_SCALE)]);
        }
    }

    #[inline]
    fn put_timestamps(&mut self, lead: [u8; 2], timestamps: Timestamps) {
        let [a, b, c, d] = timestamps.value.to_be_bytes();
        let [e, f, g, h] = timestamps.echo.to_be_bytes();
        self.put([lead[0], lead[1], kind::TIMESTAMPS, 10, a, b, c, d, e, f, g, h]);
    }

    /// The options of `out`, padded to a multiple of four.
    #[inline]
    pub(crate) fn fill(out: &Outgoing) -> Self {
        let mut budget = Self::EMPTY;
        match (&out.syn, out.timestamps) {
            (Some(syn), timestamps) => budget.put_syn(syn, timestamps),
            (None, Some(timestamps)) => budget.put_timestamps([kind::NOP, kind::NOP], timestamps),
            (None, None) => {}
        }
        if !out.upper.is_empty() {
            budget.put_upper(&out.upper);
        }
        if !out.sack.is_empty() {
            budget.put_sack(&out.sack);
        }
        budget
    }

    /// What was filled.
    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }

    /// Unfolded sum of what was filled: zeros behind it add nothing.
    #[inline]
    pub(crate) fn sum(&self) -> u64 {
        checksum::array_words(&self.bytes)
    }

    /// Copies what was filled to the front of `target`, and gives what is left of that. The two lengths that nearly all
    /// segments have are copied as a whole: timestamps, and those with a DSS.
    #[inline]
    pub(crate) fn copy_to<'a>(&self, target: &'a mut [u8]) -> Option<&'a mut [u8]> {
        fn whole<const N: usize>(from: &[u8; MAX_OPTION_BYTES], to: &mut [u8]) {
            if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk::<N>()) {
                *to = *from;
            }
        }
        let (head, rest) = target.split_at_mut_checked(self.len)?;
        match self.len {
            12 => whole::<12>(&self.bytes, head),
            32 => whole::<32>(&self.bytes, head),
            36 => whole::<36>(&self.bytes, head),
            _ => head.copy_from_slice(self.as_slice()),
        }
        Some(rest)
    }
}

/// The option bytes of a segment to be sent: MSS, SACK-permitted and timestamps, window scale, the upper layer's
/// options, and then as many SACK blocks as still fit. Always a multiple of four, at most 40.
pub fn emit(out: &Outgoing) -> OptionBytes {
    Budget::fill(out).as_slice().iter().copied().collect()
}

/// Bytes of payload and upper options that timestamps take away on every segment but a SYN.
pub const TIMESTAMP_BYTES: usize = 12;

#[cfg(test)]
mod tests;
