//! Prefetching: the words that will be read next are brought into cache while others are
//! multiplied. Elsewhere than on x86-64 the hints do nothing.

#[cfg(target_arch = "x86_64")]
mod hint {
    use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};

    /// Into the first-level cache.
    #[inline(always)]
    #[allow(unsafe_code, reason = "takes a pointer: see the block")]
    pub(super) fn first_level(at: *const u32) {
        // SAFETY: a prefetch may be given any address; every x86-64 processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }

    /// Into the second-level cache.
    #[inline(always)]
    #[allow(unsafe_code, reason = "takes a pointer: see the block")]
    pub(super) fn second_level(at: *const u32) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod hint {
    pub(super) fn first_level(_: *const u32) {}
    pub(super) fn second_level(_: *const u32) {}
}

/// Words that are fetched from memory while others are multiplied, since they will be read next.
/// Else the processor would wait for memory at the first tile of each piece of a panel, and memory
/// for the processor at the others.
#[derive(Clone, Copy)]
pub(crate) struct Prefetch {
    from: *const u32,
    words: usize,
}

/// Words in a cache line.
const LINE: usize = 16;

impl Prefetch {
    pub(in super::super) fn of(words: &[u32]) -> Self {
        Self { from: words.as_ptr(), words: words.len() }
    }

    /// Part `i` of `count`, up to a word.
    #[inline(always)]
    pub(in super::super) fn part(self, i: usize, count: usize) -> Self {
        let words = self.words / count;
        Self { from: self.from.wrapping_add(i * words), words }
    }

    /// To be fetched in `steps` steps.
    #[inline(always)]
    pub(super) fn over(self, steps: usize) -> PrefetchSteps {
        PrefetchSteps { at: self.from, stride: self.words.div_ceil(steps.max(1)) }
    }
}

/// Fetches all of `values` into the first-level cache.
#[inline(always)]
pub(in super::super) fn prefetch_all<C>(values: &[C]) {
    for line in values.chunks(LINE * size_of::<u32>() / size_of::<C>().max(1)) {
        hint::first_level(line.as_ptr().cast());
    }
}

/// A prefetch in steps.
#[derive(Clone, Copy)]
pub(super) struct PrefetchSteps {
    pub(super) at: *const u32,
    /// Words for each step.
    pub(super) stride: usize,
}

impl PrefetchSteps {
    /// Cache lines for each step, at least one.
    pub(super) fn lines(self) -> usize {
        self.stride.div_ceil(LINE).max(1)
    }

    /// Prefetches the share of the next step, two lines at most.
    #[inline(always)]
    pub(super) fn fetch(&mut self) {
        hint::second_level(self.at.wrapping_add(LINE));
        self.fetch_line();
    }

    /// Prefetches the share of the next step, a line at most.
    #[inline(always)]
    pub(super) fn fetch_line(&mut self) {
        hint::second_level(self.at);
        self.at = self.at.wrapping_add(self.stride);
    }
}
