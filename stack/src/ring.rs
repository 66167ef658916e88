//! Queues whose storage is pooled: an empty one costs nothing, a busy one does not allocate.

use std::collections::VecDeque;

/// Capacity of the smallest pooled ring, in entries.
const SMALLEST: usize = 8;
/// How many capacities there are, each four times the one before: 8 to 131,072 entries.
const CLASSES: usize = 8;

/// Storage for rings of one element type, by capacity class.
#[derive(Debug)]
pub struct RingPool<T> {
    classes: [Vec<VecDeque<T>>; CLASSES],
}

impl<T> Default for RingPool<T> {
    fn default() -> Self {
        Self { classes: std::array::from_fn(|_| Vec::new()) }
    }
}

impl<T> RingPool<T> {
    fn class_of(capacity: usize) -> Option<usize> {
        (0..CLASSES).find(|&class| capacity <= SMALLEST << (2 * class))
    }

    fn take(&mut self, at_least: usize) -> VecDeque<T> {
        match Self::class_of(at_least) {
            Some(class) => {
                self.classes[class].pop().unwrap_or_else(|| VecDeque::with_capacity(SMALLEST << (2 * class)))
            }
            None => VecDeque::with_capacity(at_least),
        }
    }

    fn give(&mut self, ring: VecDeque<T>) {
        debug_assert!(ring.is_empty());
        if ring.capacity() == 0 {
            return;
        }
        // A ring is filed under the largest class that it can serve in full.
        if let Some(class) = (0..CLASSES).rev().find(|&class| ring.capacity() >= SMALLEST << (2 * class)) {
            self.classes[class].push(ring);
        }
    }
}

/// A double-ended queue on storage from a [`RingPool`].
#[derive(Debug)]
pub struct Ring<T> {
    queue: VecDeque<T>,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new() }
    }
}

impl<T> Ring<T> {
    /// Appends `value`, growing from `pool` when full.
    #[inline]
    pub fn push_back(&mut self, value: T, pool: &mut RingPool<T>) {
        if self.queue.len() == self.queue.capacity() {
            self.grow(pool);
        }
        self.queue.push_back(value);
    }

    /// Inserts `value` before entry `index` (at the end when `index` is the length or more), growing when full.
    pub fn insert(&mut self, index: usize, value: T, pool: &mut RingPool<T>) {
        if self.queue.len() == self.queue.capacity() {
            self.grow(pool);
        }
        self.queue.insert(index.min(self.queue.len()), value);
    }

    #[cold]
    fn grow(&mut self, pool: &mut RingPool<T>) {
        let mut larger = pool.take(self.queue.len() + 1);
        larger.extend(self.queue.drain(..));
        pool.give(std::mem::replace(&mut self.queue, larger));
    }

    /// Takes the first entry; the storage goes back to `pool` when it was the last.
    #[inline]
    pub fn pop_front(&mut self, pool: &mut RingPool<T>) -> Option<T> {
        let value = self.queue.pop_front()?;
        self.shrink(pool);
        Some(value)
    }

    /// Takes the last entry; the storage goes back to `pool` when it was the only one.
    pub fn pop_back(&mut self, pool: &mut RingPool<T>) -> Option<T> {
        let value = self.queue.pop_back()?;
        self.shrink(pool);
        Some(value)
    }

    /// Takes entry `index` out.
    pub fn remove(&mut self, index: usize, pool: &mut RingPool<T>) -> Option<T> {
        let value = self.queue.remove(index)?;
        self.shrink(pool);
        Some(value)
    }

    #[inline]
    fn shrink(&mut self, pool: &mut RingPool<T>) {
        if self.queue.is_empty() {
            pool.give(std::mem::take(&mut self.queue));
        }
    }

    /// Entries in the ring.
    #[inline]
    pub fn len(&self) -> usize {
        self.queue.len()
    }
    /// True when there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
    /// Entry `index` from the front.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.queue.get(index)
    }
    /// Entry `index` from the front, to change.
    #[inline]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.queue.get_mut(index)
    }
    /// The first entry.
    #[inline]
    pub fn front(&self) -> Option<&T> {
        self.queue.front()
    }
    /// The first entry, to change.
    #[inline]
    pub fn front_mut(&mut self) -> Option<&mut T> {
        self.queue.front_mut()
    }
    /// The last entry.
    #[inline]
    pub fn back(&self) -> Option<&T> {
        self.queue.back()
    }
    /// The last entry, to change.
    #[inline]
    pub fn back_mut(&mut self) -> Option<&mut T> {
        self.queue.back_mut()
    }
    /// All entries from the front.
    pub fn iter(&self) -> std::collections::vec_deque::Iter<'_, T> {
        self.queue.iter()
    }
    /// All entries from the front, to change.
    pub fn iter_mut(&mut self) -> std::collections::vec_deque::IterMut<'_, T> {
        self.queue.iter_mut()
    }
    /// Index of the first entry for which `pred` is false, entries being partitioned by it.
    pub fn partition_point(&self, pred: impl FnMut(&T) -> bool) -> usize {
        self.queue.partition_point(pred)
    }
}
