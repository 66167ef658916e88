//! From subflow sequence numbers to data sequence numbers (RFC 8684 §3.3.1): mappings that span segments, that are
//! repeated, that arrive out of order; and the DSS checksum from cached payload sums.

use std::collections::VecDeque;

use mimbox_stack::limits::{COALESCED, SMALL_SEGMENT};
use mimbox_stack::{Counter, Env, FrameId, Instant, Ring, RxQueue, RxSegment, SeqNum, checksum};

use crate::dsn::Dsn;
use crate::limits::{MAX_MAPPINGS, MAX_UNMAPPED_FRAMES, MAX_UNMAPPED_TIME};
use crate::pieces;

/// How far ahead of the data a mapping may lie and still be believed.
const MAX_AHEAD: u32 = 1 << 30;

/// A run of a subflow's sequence space that stands for a run of data sequence space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mapping {
    /// Data sequence number of the first byte.
    pub(crate) dsn: Dsn,
    /// Sequence number of the first byte, absolute.
    pub(crate) start: SeqNum,
    /// Bytes mapped, a DATA_FIN not counted.
    pub(crate) len: u32,
    /// Checksum over them, as it stood in the option.
    pub(crate) checksum: Option<u16>,
    /// True when the option's length counted a DATA_FIN as well.
    pub(crate) fin: bool,
}

impl Mapping {
    fn end(&self) -> SeqNum {
        self.start + self.len
    }

    fn covers(&self, other: &Self) -> bool {
        self.start.at_or_before(other.start) && self.end().at_or_after(other.end())
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.start.before(other.end()) && other.start.before(self.end())
    }

    /// True when both give every byte that they share the same data sequence number.
    fn agrees_with(&self, other: &Self) -> bool {
        let ahead = self.start.distance_from(other.start) as i32;
        self.dsn == Dsn(other.dsn.0.wrapping_add_signed(i64::from(ahead)))
    }
}

/// What is wrong with what a subflow carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MappingError {
    /// Bytes were mapped twice, to different places.
    Conflict,
    /// More data arrived without a mapping than is kept.
    Unmapped,
    /// The checksum over the mapping that starts here did not match.
    Checksum(Dsn),
}

/// The DSS checksum over data whose sum is `data_sum`; `len` counts a DATA_FIN as the option does.
pub(crate) fn dss_checksum(dsn: Dsn, ssn: u32, len: u16, data_sum: u16) -> u16 {
    // RFC 8684 §3.3.1, figure 10: the pseudo header has the 64-bit DSN whatever the option carries.
    let dsn_words = (dsn.0 >> 32) + (dsn.0 & 0xffff_ffff);
    !checksum::fold(dsn_words + u64::from(ssn) + u64::from(len) + u64::from(data_sum))
}

/// True when two checksums say the same: both forms of zero stand for one sum.
fn matches(computed: u16, expected: u16) -> bool {
    computed == expected || computed == 0 && expected == 0xffff || computed == 0xffff && expected == 0
}

/// A subflow's way from in-order payload to payload with data sequence numbers.
#[derive(Debug, Default)]
pub(crate) struct Mapper {
    /// Mappings in order of their sequence numbers, without overlap.
    mappings: VecDeque<Mapping>,
    /// Payload in order that lacks its mapping, or the rest of one that must be verified whole.
    pending: Ring<RxSegment>,
    /// Sequence number that relative subflow sequence numbers count from.
    origin: SeqNum,
    /// The first byte that was not handed out yet.
    next: SeqNum,
    /// True when the front mapping's checksum has matched.
    verified: bool,
    /// Since when the data that is next in order waits for a mapping.
    unmapped_since: Option<Instant>,
}

impl Mapper {
    /// A mapper whose subflow's relative sequence numbers count from `origin`, the SYN.
    pub(crate) fn new(origin: SeqNum) -> Self {
        Self { origin, next: origin + 1, ..Self::default() }
    }

    /// The sequence number with relative number `ssn`.
    pub(crate) fn absolute(&self, ssn: u32) -> SeqNum {
        self.origin + ssn
    }

    /// Remembers a mapping.
    ///
    /// # Errors
    /// When the mapping contradicts one that is known.
    pub(crate) fn insert(&mut self, mut new: Mapping) -> Result<(), MappingError> {
        let next = self.next;
        if new.len == 0 || new.end().at_or_before(next) || new.end().distance_from(next) > MAX_AHEAD {
            return Ok(());
        }
        match self.mappings.back() {
            None => {
                self.mappings.push_back(new);
                return Ok(());
            }
            Some(last) if *last == new => return Ok(()),
            Some(last) if last.end().at_or_before(new.start) => {
                if self.mappings.len() < MAX_MAPPINGS {
                    self.mappings.push_back(new);
                }
                return Ok(());
            }
            Some(_) => {}
        }
        let mut at = self.mappings.partition_point(|known| known.end().at_or_before(new.start));
        while let Some(known) = self.mappings.get(at).copied() {
            if !known.overlaps(&new) {
                break;
            }
            // RFC 8684 §3.3.1: a mapping is fixed once declared.
            if !known.agrees_with(&new) {
                return Err(MappingError::Conflict);
            }
            if known.covers(&new) {
                return Ok(());
            }
            if new.covers(&known) && !(at == 0 && known.start.before(next)) {
                self.mappings.remove(at);
                continue;
            }
            if new.checksum.is_some() {
                // What is left of a summed mapping cannot be verified; it comes again once the known one is through.
                return Ok(());
            }
            if known.start.after(new.start) {
                // Only the part before the known mapping is new here; what lies behind it comes with another segment.
                new.len = known.start.distance_from(new.start);
                break;
            }
            let cut = known.end().distance_from(new.start);
            new = Mapping { start: new.start + cut, dsn: new.dsn + u64::from(cut), len: new.len - cut, ..new };
            at += 1;
        }
        if self.mappings.len() < MAX_MAPPINGS {
            self.mappings.insert(at, new);
        }
        Ok(())
    }

    /// Places a segment that is next on the subflow by the mapping that came with it, when that covers it and nothing from
    /// before is left: what [`Mapper::insert`] and [`Mapper::map`] would make of the two, in one step. False, and nothing
    /// is changed, when it is for those to see to.
    #[inline]
    pub(crate) fn map_next(&mut self, new: &Mapping, segment: &mut RxSegment) -> bool {
        let (start, end) = (segment.seq, segment.end());
        let covered = start == self.next && new.start.at_or_before(start) && new.end().at_or_after(end);
        let follows = match self.mappings.front() {
            None => true,
            Some(known) => known.end().at_or_before(new.start) || known == new,
        };
        if !covered || !follows || !self.pending.is_empty() || self.mappings.len() > 1 {
            return false;
        }
        if let Some(expected) = new.checksum {
            let whole = new.start == start && new.end() == end;
            let ssn = start.distance_from(self.origin);
            if !whole || !matches(dss_checksum(new.dsn, ssn, segment.len, segment.sum), expected) {
                return false;
            }
            self.mappings.clear();
        } else {
            // It stays until the next data comes: what it says cannot be said otherwise.
            match self.mappings.front_mut() {
                Some(known) => *known = *new,
                None => self.mappings.push_back(*new),
            }
        }
        self.verified = false;
        segment.dsn = (new.dsn + u64::from(start.distance_from(new.start))).0;
        self.next = end;
        true
    }

    /// Takes payload that is in order on the subflow and hands out what can be placed in the data sequence space.
    ///
    /// # Errors
    /// When the subflow cannot go on; what was placed before the fault is in `out`.
    pub(crate) fn map(
        &mut self,
        now: Instant,
        fresh: &mut RxQueue,
        out: &mut RxQueue,
        env: &mut Env<'_>,
    ) -> Result<(), MappingError> {
        while let Some(mut segment) = fresh.pop_front() {
            if self.pending.is_empty() {
                self.forget_before(segment.seq);
                if let Some(mapping) = self.mappings.front()
                    && mapping.checksum.is_none()
                    && mapping.start.at_or_before(segment.seq)
                    && mapping.end().at_or_after(segment.end())
                {
                    segment.dsn = (mapping.dsn + u64::from(segment.seq.distance_from(mapping.start))).0;
                    self.next = segment.end();
                    out.push_back(segment);
                    continue;
                }
            }
            // Parts of a mapping that is verified whole wait until all are there, however small they come.
            let belongs = |known: &Mapping| known.start.before(segment.seq) && known.end().at_or_after(segment.end());
            if segment.len < SMALL_SEGMENT
                && self.mappings.front().is_some_and(belongs)
                && let Some(last) = self.pending.back_mut()
                && last.absorb(&segment, COALESCED, env.pool)
            {
                env.counters.inc(Counter::TcpCoalesced);
                env.pool.release(segment.frame);
                continue;
            }
            self.pending.push_back(segment, env.rx_rings);
        }
        if self.pending.is_empty() { Ok(()) } else { self.map_pending(now, out, env) }
    }

    fn map_pending(&mut self, now: Instant, out: &mut RxQueue, env: &mut Env<'_>) -> Result<(), MappingError> {
        while let Some(first) = self.pending.front() {
            let (seq, end) = (first.seq, first.end());
            self.forget_before(seq);
            let Some(mapping) = self.mappings.front().copied().filter(|known| known.start.at_or_before(seq)) else {
                // RFC 8684 §3.3.1: unmapped data is kept for a while, then the subflow counts as broken.
                let since = *self.unmapped_since.get_or_insert(now);
                let hopeless = self.pending.len() > MAX_UNMAPPED_FRAMES
                    || self.is_passed_over()
                    || now.since(since) > MAX_UNMAPPED_TIME;
                return if hopeless { Err(MappingError::Unmapped) } else { Ok(()) };
            };
            self.unmapped_since = None;
            if mapping.checksum.is_some() && !self.verified && !self.verify(&mapping, env)? {
                return Ok(());
            }
            let mapped = mapping.end().distance_from(seq);
            let mut segment = if mapped < end.distance_from(seq) {
                let Some(first) = self.pending.front_mut() else { return Ok(()) };
                pieces::split_front(first, mapped as u16, env.pool)
            } else {
                let Some(first) = self.pending.pop_front(env.rx_rings) else { return Ok(()) };
                first
            };
            segment.dsn = (mapping.dsn + u64::from(seq.distance_from(mapping.start))).0;
            self.next = segment.end();
            out.push_back(segment);
        }
        self.forget_before(self.next);
        Ok(())
    }

    /// True when the data of a whole later mapping is here in order: one for what is before it will not come any more. A
    /// mapping stands on some segment of those that it maps.
    fn is_passed_over(&self) -> bool {
        let (Some(later), Some(last)) = (self.mappings.front(), self.pending.back()) else { return false };
        later.end().at_or_before(last.end())
    }

    fn forget_before(&mut self, seq: SeqNum) {
        while self.mappings.front().is_some_and(|known| known.end().at_or_before(seq)) {
            self.mappings.pop_front();
            self.verified = false;
        }
    }

    /// True when all of `mapping` is here and its checksum matches; false when some of it is missing yet.
    fn verify(&mut self, mapping: &Mapping, env: &Env<'_>) -> Result<bool, MappingError> {
        let (Some(first), Some(last), Some(expected)) = (self.pending.front(), self.pending.back(), mapping.checksum)
        else {
            return Ok(false);
        };
        if last.end().before(mapping.end()) {
            return Ok(false);
        }
        if first.seq != mapping.start {
            // Part of it went through under another mapping: what is left cannot be verified.
            return Err(MappingError::Conflict);
        }
        let mut sum = 0;
        for segment in self.pending.iter() {
            let at = segment.seq.distance_from(mapping.start);
            let Some(left) = mapping.len.checked_sub(at).filter(|&left| left > 0) else { break };
            let part = if left >= u32::from(segment.len) {
                segment.sum
            } else {
                let start = usize::from(segment.offset);
                checksum::sum(env.pool.bytes(&segment.frame).get(start..start + left as usize).unwrap_or(&[]))
            };
            sum = checksum::add(sum, checksum::swap_if_odd(part, at as usize));
        }
        let ssn = mapping.start.distance_from(self.origin);
        let len = mapping.len as u16 + u16::from(mapping.fin);
        if !matches(dss_checksum(mapping.dsn, ssn, len, sum), expected) {
            return Err(MappingError::Checksum(mapping.dsn));
        }
        self.verified = true;
        Ok(true)
    }

    /// True when no mapping is known and nothing waits for one.
    pub(crate) fn is_blank(&self) -> bool {
        self.mappings.is_empty() && self.pending.is_empty()
    }

    /// Frames that wait for a mapping or for the rest of one.
    pub(crate) fn pending_frames(&self) -> usize {
        self.pending.len()
    }

    /// Shows the frame of each segment that waits.
    pub(crate) fn frames(&self, visit: &mut dyn FnMut(&FrameId)) {
        self.pending.iter().for_each(|segment| visit(&segment.frame));
    }

    /// Hands everything that waits out as it is, for a connection that has fallen back to TCP.
    pub(crate) fn drain_unmapped(&mut self, out: &mut RxQueue, env: &mut Env<'_>) {
        while let Some(segment) = self.pending.pop_front(env.rx_rings) {
            out.push_back(segment);
        }
        self.mappings = VecDeque::new();
    }

    /// Releases every frame and forgets every mapping.
    pub(crate) fn clear(&mut self, env: &mut Env<'_>) {
        while let Some(segment) = self.pending.pop_front(env.rx_rings) {
            env.pool.release(segment.frame);
        }
        self.mappings = VecDeque::new();
        self.verified = false;
    }
}

#[cfg(test)]
mod tests;
