//! Which frames are in a ring: the kernel keeps some where they cannot be counted, so the box keeps account itself.

/// A set of frame numbers.
#[derive(Debug)]
pub(super) struct FrameSet {
    words: Vec<u64>,
    /// Frames that are in the set more than once: a frame may be sent again while its first copy is on the ring.
    again: Vec<u32>,
    len: u32,
}

impl FrameSet {
    /// An empty set of frames below `frames`.
    pub(super) fn new(frames: u32) -> Self {
        Self { words: vec![0; frames.div_ceil(64) as usize], again: Vec::new(), len: 0 }
    }

    /// Adds a frame; one more time when it is there already.
    #[inline]
    pub(super) fn insert(&mut self, frame: u32) {
        let Some(word) = self.words.get_mut((frame / 64) as usize) else { return };
        let bit = 1 << (frame % 64);
        if *word & bit != 0 {
            self.again.push(frame);
        }
        *word |= bit;
        self.len += 1;
    }

    /// Takes a frame out once; false when it is not there.
    #[inline]
    pub(super) fn remove(&mut self, frame: u32) -> bool {
        let Some(word) = self.words.get_mut((frame / 64) as usize) else { return false };
        let bit = 1 << (frame % 64);
        if *word & bit == 0 {
            return false;
        }
        match self.again.iter().position(|&other| other == frame) {
            Some(at) => {
                self.again.swap_remove(at);
            }
            None => *word &= !bit,
        }
        self.len -= 1;
        true
    }

    /// How many there are, each as often as it was added.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Takes all of them out.
    pub(super) fn drain(&mut self) -> Vec<u32> {
        let mut all = std::mem::take(&mut self.again);
        for (word, base) in self.words.iter_mut().zip((0u32..).step_by(64)) {
            while *word != 0 {
                all.push(base + word.trailing_zeros());
                *word &= *word - 1;
            }
        }
        self.len = 0;
        all
    }
}

#[cfg(test)]
mod tests;
