//! The rings that an AF_XDP socket shares with the kernel: single producer, single consumer, in mapped memory.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// A mapped ring, unmapped when dropped.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(socket: BorrowedFd<'_>, len: usize, page_offset: libc::off_t) -> io::Result<Self> {
        // SAFETY: a new mapping at an address that the kernel chooses; the result is checked before use.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                socket.as_raw_fd(),
                page_offset,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("a ring was mapped at address zero"))?;
        Ok(Self { base, len })
    }

    /// The word at `offset`.
    fn word(&self, offset: u64) -> io::Result<NonNull<AtomicU32>> {
        self.at(offset, size_of::<AtomicU32>())
    }

    /// The address of `bytes` bytes at `offset`, which the kernel named; refused when they are not in the mapping.
    fn at<T>(&self, offset: u64, bytes: usize) -> io::Result<NonNull<T>> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        if offset.checked_add(bytes).is_none_or(|end| end > self.len) || !offset.is_multiple_of(align_of::<T>()) {
            return Err(io::Error::other("the kernel named a place outside the ring"));
        }
        // SAFETY: the offset was just checked to lie in the mapping.
        Ok(unsafe { self.base.add(offset) }.cast())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this exact range was mapped by `new`, and nothing that points into it outlives `self`'s owner.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// What both directions have in common.
#[derive(Debug)]
struct Shared<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    _mapping: Mapping,
    _entries: PhantomData<T>,
}

// SAFETY: the pointers go into a mapping that the value owns; one thread at a time uses it, through `&mut`.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T: Copy> Shared<T> {
    fn map(
        socket: BorrowedFd<'_>,
        size: u32,
        offsets: &libc::xdp_ring_offset,
        page_offset: libc::off_t,
    ) -> io::Result<Self> {
        if !size.is_power_of_two() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a ring's size must be a power of two"));
        }
        let bytes = size as usize * size_of::<T>();
        let len = usize::try_from(offsets.desc).unwrap_or(usize::MAX).saturating_add(bytes);
        let mapping = Mapping::new(socket, len, page_offset)?;
        Ok(Self {
            producer: mapping.word(offsets.producer)?,
            consumer: mapping.word(offsets.consumer)?,
            flags: mapping.word(offsets.flags)?,
            entries: mapping.at(offsets.desc, bytes)?,
            size,
            _mapping: mapping,
            _entries: PhantomData,
        })
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: points into the live mapping, aligned, and is only ever accessed atomically.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn needs_wakeup(&self) -> bool {
        // SAFETY: as for `producer`.
        unsafe { self.flags.as_ref() }.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// The address of the entry that position `at` falls on.
    fn entry(&self, at: u32) -> *mut T {
        // SAFETY: the mask keeps the index below `size`, and `size` entries were checked to lie in the mapping.
        unsafe { self.entries.as_ptr().add((at & (self.size - 1)) as usize) }
    }
}

/// A ring that the box fills: fill or TX.
#[derive(Debug)]
pub(super) struct ProducerRing<T> {
    shared: Shared<T>,
    /// Position of the next entry; entries up to the published position are the kernel's.
    next: u32,
    /// The kernel's position when it was last asked.
    consumed: u32,
}

impl<T: Copy> ProducerRing<T> {
    /// Maps the ring of `socket` that stands at `page_offset`.
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        size: u32,
        offsets: &libc::xdp_ring_offset,
        page_offset: libc::off_t,
    ) -> io::Result<Self> {
        let shared = Shared::map(socket, size, offsets, page_offset)?;
        let (next, consumed) = (shared.producer().load(Ordering::Relaxed), shared.consumer().load(Ordering::Acquire));
        Ok(Self { shared, next, consumed })
    }

    /// Entries that can still be pushed.
    pub(super) fn room(&mut self) -> u32 {
        let mut room = self.shared.size - self.next.wrapping_sub(self.consumed);
        if room == 0 {
            self.consumed = self.shared.consumer().load(Ordering::Acquire);
            room = self.shared.size - self.next.wrapping_sub(self.consumed);
        }
        room
    }

    /// As `room`, asking the kernel even when some is known to be there.
    pub(super) fn fresh_room(&mut self) -> u32 {
        self.consumed = self.shared.consumer().load(Ordering::Acquire);
        self.room()
    }

    /// Writes an entry; false when the ring is full. The kernel sees it after `publish`.
    #[inline]
    pub(super) fn push(&mut self, entry: T) -> bool {
        if self.room() == 0 {
            return false;
        }
        // SAFETY: the slot lies between the published position and the kernel's, so it is the box's to write.
        unsafe { self.shared.entry(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Shows the kernel what was pushed.
    pub(super) fn publish(&self) {
        self.shared.producer().store(self.next, Ordering::Release);
    }

    /// Entries that the kernel has not taken yet, those not published included.
    pub(super) fn untaken(&self) -> u32 {
        self.next.wrapping_sub(self.shared.consumer().load(Ordering::Acquire))
    }

    /// True when the kernel wants a system call before it looks at the ring.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.shared.needs_wakeup()
    }
}

/// A ring that the kernel fills: RX or completion.
#[derive(Debug)]
pub(super) struct ConsumerRing<T> {
    shared: Shared<T>,
    next: u32,
    produced: u32,
}

impl<T: Copy> ConsumerRing<T> {
    /// Maps the ring of `socket` that stands at `page_offset`.
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        size: u32,
        offsets: &libc::xdp_ring_offset,
        page_offset: libc::off_t,
    ) -> io::Result<Self> {
        let shared = Shared::map(socket, size, offsets, page_offset)?;
        let (next, produced) = (shared.consumer().load(Ordering::Relaxed), shared.producer().load(Ordering::Acquire));
        Ok(Self { shared, next, produced })
    }

    /// The next entry. Its slot is the kernel's again after `release`.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.next == self.produced {
            self.produced = self.shared.producer().load(Ordering::Acquire);
            if self.next == self.produced {
                return None;
            }
        }
        // SAFETY: the slot lies between the box's position and the kernel's published one, so it holds an entry that the
        // kernel finished writing (acquired above) and will not touch before `release`. Every bit pattern is a `T`.
        let entry = unsafe { self.shared.entry(self.next).read() };
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// Gives the slots of what was popped back.
    pub(super) fn release(&self) {
        self.shared.consumer().store(self.next, Ordering::Release);
    }
}
