//! Once warm, the engine allocates nothing for what arrives.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use mimbox_tools::bench::allocations;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call goes on to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

#[test]
fn nothing_is_allocated_for_segments_once_the_rings_have_grown() {
    let found = allocations(|| ALLOCATIONS.load(Ordering::Relaxed)).expect("everything arrives");
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > 0, "the allocator counts");
    let allocating: Vec<_> = found.into_iter().filter(|(_, allocations)| *allocations > 0).collect();
    assert!(allocating.is_empty(), "{allocating:#?}");
}
