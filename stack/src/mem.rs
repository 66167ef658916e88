//! The only `unsafe` of the engine: the mapped region that holds every frame, and a frame's bytes.
#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::MmapMut;

/// A page-aligned region of memory cut into frames of equal size.
///
/// It is shared by every pool over it and by the kernel (as UMEM) or the NIC. Which part of it may be touched by whom
/// is decided by [`FrameId`](crate::FrameId) tokens alone.
#[derive(Clone)]
pub struct Region {
    base: NonNull<u8>,
    frame_shift: u32,
    frames: u32,
    huge_pages: bool,
    _map: Arc<MmapMut>,
}

// SAFETY: the region is plain memory; two threads never hold a token of the same frame, so they never touch the same
// bytes, and the mapping lives as long as the last clone.
unsafe impl Send for Region {}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region")
            .field("frames", &self.frames)
            .field("frame_size", &self.frame_size())
            .field("huge_pages", &self.huge_pages)
            .finish()
    }
}

impl Region {
    /// Maps a region of `frames` frames of `frame_size` bytes, on huge pages where there are any: reserved ones, else those
    /// that the kernel puts together when it is asked to.
    ///
    /// # Errors
    /// `InvalidInput` when `frame_size` is not 2048 or 4096 (what an AF_XDP UMEM takes) or `frames` is zero; else what
    /// `mmap` said.
    pub fn map(frames: u32, frame_size: u32) -> io::Result<Self> {
        if !matches!(frame_size, 2048 | 4096) || frames == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "a region needs frames of 2048 or 4096 bytes and at least one of them, not {frames} of {frame_size}"
                ),
            ));
        }
        let len = frames as usize * frame_size as usize;
        // A mapping of reserved pages has whole ones only.
        let huge = memmap2::MmapOptions::new().len(len.next_multiple_of(1 << 21)).huge(Some(21)).map_anon();
        let (mut map, huge_pages) = match huge {
            Ok(map) => (map, true),
            Err(_) => {
                let map = memmap2::MmapOptions::new().len(len).map_anon()?;
                // A kernel that has none to give keeps to small pages.
                let _ = map.advise(memmap2::Advice::HugePage);
                (map, false)
            }
        };
        let base = NonNull::new(map.as_mut_ptr()).ok_or_else(|| io::Error::other("mmap gave a null region"))?;
        Ok(Self { base, frame_shift: frame_size.trailing_zeros(), frames, huge_pages, _map: Arc::new(map) })
    }

    /// Bytes of one frame: 2048 or 4096.
    pub const fn frame_size(&self) -> u32 {
        1 << self.frame_shift
    }

    /// How many frames the region holds.
    pub const fn frames(&self) -> u32 {
        self.frames
    }

    /// Length of the region in bytes.
    pub const fn len(&self) -> usize {
        (self.frames as usize) << self.frame_shift
    }

    /// A region is never empty; here for symmetry with `len`.
    pub const fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// True when the region stands on huge pages that were reserved for it.
    pub const fn huge_pages(&self) -> bool {
        self.huge_pages
    }

    /// The region's first byte, for registration as UMEM.
    pub const fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The bytes of frame `index`, read-only.
    #[inline]
    pub(crate) fn frame(&self, index: u32) -> &[u8] {
        assert!(index < self.frames, "frame {index} is outside the region");
        // SAFETY: the index was checked, so the range lies inside the mapping; the caller holds the frame's token
        // (checked by FramePool's signatures), so nobody writes to it meanwhile.
        unsafe {
            std::slice::from_raw_parts(
                self.base.as_ptr().add((index as usize) << self.frame_shift),
                self.frame_size() as usize,
            )
        }
    }

    /// The bytes of frame `index`, to write.
    #[inline]
    pub(crate) fn frame_mut(&mut self, index: u32) -> &mut [u8] {
        assert!(index < self.frames, "frame {index} is outside the region");
        // SAFETY: as in `frame`; `&mut self` of the pool that owns the region's tokens makes the borrow exclusive
        // within the shard, and frames of other shards have other indices.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.base.as_ptr().add((index as usize) << self.frame_shift),
                self.frame_size() as usize,
            )
        }
    }

    /// The bytes of two different frames, one to read and one to write.
    pub(crate) fn two_frames(&mut self, read: u32, write: u32) -> (&[u8], &mut [u8]) {
        assert_ne!(read, write, "a frame cannot be read and written at once");
        assert!(read < self.frames, "frame {read} is outside the region");
        let size = self.frame_size() as usize;
        // SAFETY: both indices are checked (here and in `frame_mut`) and differ, so the two ranges do not overlap.
        let source =
            unsafe { std::slice::from_raw_parts(self.base.as_ptr().add((read as usize) << self.frame_shift), size) };
        (source, self.frame_mut(write))
    }

    /// Asks the CPU to fetch the cache line at `offset` of frame `index`; out of range does nothing.
    #[inline]
    pub(crate) fn prefetch(&self, index: u32, offset: usize) {
        let at = ((index as usize) << self.frame_shift) + offset;
        if at < self.len() {
            prefetch_raw(self.base.as_ptr().wrapping_add(at));
        }
    }
}

/// Asks the CPU to fetch the cache line that `value` starts on.
#[inline]
pub fn prefetch<T>(value: &T) {
    prefetch_raw(std::ptr::from_ref(value).cast());
}

#[inline]
fn prefetch_raw(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint; it faults on no address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The ones'-complement sum of `bytes` in the form of [`checksum::sum`](crate::checksum::sum).
#[inline]
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    #[cfg(target_arch = "x86_64")]
    if (64..=MOST_AVX2).contains(&bytes.len()) && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has AVX2, as was just asked.
        return unsafe { sum_avx2(bytes) };
    }
    crate::checksum::sum_portable(bytes)
}

/// Most bytes that [`sum_avx2`] takes, more than any packet has: each of 4,096 blocks adds at most 2^19 to a signed
/// 32-bit total.
#[cfg(target_arch = "x86_64")]
const MOST_AVX2: usize = 32 * 4_095;

/// Sums 16 words at a time. Words are biased to signed ones, so that one multiply-add does for widening and adding.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(bytes: &[u8]) -> u16 {
    use std::arch::x86_64::{
        __m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_shuffle_epi32, _mm256_add_epi32, _mm256_and_si256,
        _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_set1_epi16,
        _mm256_setzero_si256, _mm256_xor_si256,
    };
    /// Thirty-two bytes from index *n* on keep the last *n* bytes of a block.
    static MASKS: [u8; 64] = {
        let mut masks = [0; 64];
        let mut at = 32;
        while at < 64 {
            masks[at] = 0xff;
            at += 1;
        }
        masks
    };
    let load = |block: &[u8; 32]| {
        // SAFETY: an unaligned load of the 32 bytes that the reference covers.
        unsafe { _mm256_loadu_si256(block.as_ptr().cast::<__m256i>()) }
    };
    let bias = _mm256_set1_epi16(i16::MIN);
    let ones = _mm256_set1_epi16(1);
    let pair_sums = |words: __m256i| _mm256_madd_epi16(_mm256_xor_si256(words, bias), ones);

    let mut even = _mm256_setzero_si256();
    let mut odd = _mm256_setzero_si256();
    let (quads, mut rest) = bytes.as_chunks::<128>();
    for quad in quads {
        if let ([a, b, c, d], []) = quad.as_chunks::<32>() {
            even = _mm256_add_epi32(even, pair_sums(load(a)));
            odd = _mm256_add_epi32(odd, pair_sums(load(b)));
            even = _mm256_add_epi32(even, pair_sums(load(c)));
            odd = _mm256_add_epi32(odd, pair_sums(load(d)));
        }
    }
    for _ in 0..3 {
        let Some((block, behind)) = rest.split_first_chunk::<32>() else { break };
        even = _mm256_add_epi32(even, pair_sums(load(block)));
        rest = behind;
    }
    // The last whole words: the block that ends with them, without the bytes that were summed already.
    let whole = bytes.get(..bytes.len() & !1).unwrap_or(bytes);
    let keep = rest.len() & !1;
    if let (Some(block), Some(mask)) = (whole.last_chunk(), MASKS[keep..].first_chunk()) {
        odd = _mm256_add_epi32(odd, pair_sums(_mm256_and_si256(load(block), load(mask))));
    }
    let lanes = _mm256_add_epi32(even, odd);
    let lanes = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes));
    let lanes = _mm_add_epi32(lanes, _mm_shuffle_epi32::<0b01_00_11_10>(lanes));
    let lanes = _mm_add_epi32(lanes, _mm_shuffle_epi32::<0b10_11_00_01>(lanes));
    // The bias took 2^15 off each of the sixteen words of a block, and the masked block is one more.
    let blocks = bytes.len() as i64 / 32 + 1;
    let last = if bytes.len() & 1 == 1 { bytes.last().copied().unwrap_or(0) } else { 0 };
    let total = i64::from(_mm_cvtsi128_si32(lanes)) + blocks * (16 << 15) + i64::from(last);
    // The lanes hold little-endian words: the folded sum has its bytes swapped (RFC 1071 §2 (B)).
    crate::checksum::fold(total as u64).swap_bytes()
}

#[cfg(test)]
mod tests;
