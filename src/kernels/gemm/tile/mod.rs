//! The innermost part of a matrix product: a *tile* of a few rows and a panel of columns, held in registers.
//!
//! A tile sees packed operands only, in words of 32 bits (see [`words`](super::format)). `a` is `[M][KC]`: a piece of each
//! of `M` rows of `A`. `b` is `[words][NR]`, `words` up to [`KC`]: for each step of the sum a row of the panel, read
//! front to back, once.

/// Defines a tile by what its sums begin as, how they are loaded and stored, how a word of `a` fills a register, how words of
/// `b` are loaded, and the instruction. `NR`, `WIDTH` and `LANES` are those of the place where it is used.
macro_rules! define_tile {
    ($name:ident, $features:literal, $zero:expr, $load:expr, $store:expr, $broadcast:expr, $load_b:expr, $fma:expr) => {
        #[target_feature(enable = $features)]
        #[allow(unsafe_code, reason = "loads and stores by pointer: see the blocks")]
        fn $name<const M: usize>(
            a: BlockA,
            top: usize,
            b: &[u32],
            c: &mut [u32],
            accumulate: bool,
            ahead: Prefetch,
        ) {
            let (c, _) = c.as_chunks_mut::<NR>();
            // That there are M rows is known when this is compiled: the sums then never leave the registers.
            let c: &mut [_; M] = c.try_into().expect("as many rows of `c` as of `a`");
            let mut sums = [[$zero; WIDTH]; M];
            if accumulate {
                for (sums, c) in sums.iter_mut().zip(c.iter()) {
                    for (w, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: `c` has WIDTH · LANES words, of which these are LANES from w · LANES on.
                        *sum = unsafe { $load(c.as_ptr().add(w * LANES).cast()) };
                    }
                }
            }
            let mut ahead = ahead.over(b.len() / NR);
            for (chunk, b) in b.chunks(KC * NR).enumerate() {
                let a: &[_; M] = a.chunk(chunk)[top..][..M].try_into().expect("M rows");
                // The rows of the next tile: so many words of each step are as many as it has there.
                let mut rows = PrefetchSteps { at: a.as_ptr_range().end.cast(), stride: M };
                let (b, _) = b.as_chunks::<NR>();
                for (p, b) in b.iter().take(KC).enumerate() {
                    ahead.fetch();
                    rows.fetch_line();
                    let load = |w: usize| {
                        // SAFETY: as above, for `b`.
                        unsafe { $load_b(b.as_ptr().add(w * LANES).cast()) }
                    };
                    let b: [_; WIDTH] = std::array::from_fn(load);
                    for (sums, a) in sums.iter_mut().zip(a) {
                        let a = $broadcast(a[p]);
                        for (sum, &b) in sums.iter_mut().zip(&b) {
                            *sum = $fma(*sum, a, b);
                        }
                    }
                }
            }
            for (c, sums) in c.iter_mut().zip(&sums) {
                for (w, &sum) in sums.iter().enumerate() {
                    // SAFETY: as above; nothing else refers to `c` while it is borrowed.
                    unsafe { $store(c.as_mut_ptr().add(w * LANES).cast(), sum) };
                }
            }
        }
    };
}

/// Calls `$tile::<M>` for `$rows` rows, which are at most 12.
macro_rules! tile_of_height {
    ($tile:ident, $rows:expr, $arguments:tt, $($m:literal)*) => {
        match $rows {
            $($m => $tile::<$m> $arguments,)*
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
}

/// Defines a function that does one multiply-add on each of CHAINS sums, `steps` times: `$sum` is what they begin with, `$add`
/// the instruction.
macro_rules! define_multiply_adds {
    ($name:ident, $features:literal, $sum:expr, $add:expr) => {
        #[target_feature(enable = $features)]
        fn $name(steps: usize) {
            let mut sums = [$sum; CHAINS];
            for _ in 0..steps {
                for sum in &mut sums {
                    *sum = $add(*sum);
                }
            }
            std::hint::black_box(sums);
        }
    };
}

mod amx;
mod avx2;
mod avx2_expand;
mod avx512;
mod avx512_encode;
mod sse_transpose;

pub(super) use avx2_expand::expand;
pub(super) use sse_transpose::transpose;

use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};

use super::format::Format;

/// Words of a row of `A` that are packed next to each other, and steps of the sum between two visits to the partial results,
/// where they are visited: of a panel of 32 columns these are 24 KiB, which stay, with the rows that meet them, in a first-level
/// cache of 32 KiB or more. PackedA that are 768 bytes apart fall into different sets of that cache.
pub(super) const KC: usize = 192;

/// Packed rows of `A`: some of those that were packed together, from some chunk of `K` on.
#[derive(Clone, Copy)]
pub(super) struct BlockA<'a> {
    /// `[chunks][height][KC]`, without the rows before the first.
    pub(super) words: &'a [[u32; KC]],
    /// How many rows were packed together.
    pub(super) height: usize,
    /// How many rows these are.
    pub(super) rows: usize,
}

impl<'a> BlockA<'a> {
    /// KC words of each row.
    #[inline(always)]
    fn chunk(self, index: usize) -> &'a [[u32; KC]] {
        &self.words[index * self.height..][..self.rows]
    }
}

/// The tile kernels of one instruction set, which has AVX2 at least.
pub(super) trait Tile: Copy {
    /// What [`Tile::state`] returns.
    type State;

    /// PackedA of the tallest tile.
    const MR: usize;
    /// Columns of a panel.
    const NR: usize;
    /// PackedA of `a` and `c` are filled up to a multiple of this.
    const M_STEP: usize = 1;
    /// Words along `K` are filled up to a multiple of this.
    const K_STEP: usize = 1;
    /// Packed words of `A` that one task works on.
    const PACKED_WORDS: usize;
    /// Whether a tile takes all of `K` at once, for which a panel comes from the second-level cache as fast as it is needed.
    /// Else it takes at most KC words, while which they stay in the first.
    const WHOLE_K: bool;
    /// If it does: words of the panels that all mc_blocks of rows go through together, which should stay in the second-level cache.
    const NC_WORDS: usize;

    /// Whether there is a tile for words of this format.
    fn has_tile(self, format: Format) -> bool;

    /// The format of the tile for words of `format`: the same, or a wider one that they are expanded to.
    #[inline(always)]
    fn tile_for(self, format: Format) -> Format {
        match format {
            format if self.has_tile(format) => format,
            Format::Int8 if self.has_tile(Format::Int16) => Format::Int16,
            _ => Format::F32,
        }
    }

    /// Puts this thread into the state that the tiles need, for as long as the value lives.
    fn state(self) -> Self::State;

    /// `c = a · b`, or `c += a · b` if `accumulate`: one panel, and any number of rows.
    ///
    /// `b`: `[words][NR]`, `c`: `[M][NR]`, the bits of `f32`s or, for 8-bit words, of `i32`s. What is `ahead` is fetched
    /// meanwhile.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit, or there is no such tile.
    fn multiply(
        self,
        format: Format,
        a: BlockA,
        b: &[u32],
        c: &mut [u32],
        accumulate: bool,
        ahead: Prefetch,
    );

    /// Multiply-adds on registers alone, `steps` times over as many as the tile has; returns the number of operations. For
    /// benchmarks: no product can be faster. `None` if there is no such tile.
    fn multiply_adds(self, format: Format, steps: usize) -> Option<usize>;
}

/// Words that are fetched from memory while others are multiplied, since they will be read next. Else the processor would wait
/// for memory at the first tile of each piece of a panel, and memory for the processor at the others.
#[derive(Clone, Copy)]
pub(super) struct Prefetch {
    from: *const u32,
    words: usize,
}

/// Words in a cache line.
const LINE: usize = 16;

impl Prefetch {
    pub(super) fn of(words: &[u32]) -> Self {
        Self { from: words.as_ptr(), words: words.len() }
    }

    /// Part `i` of `count`, up to a word.
    #[inline(always)]
    pub(super) fn part(self, i: usize, count: usize) -> Self {
        let words = self.words / count;
        Self { from: self.from.wrapping_add(i * words), words }
    }

    /// To be fetched in `steps` steps.
    #[inline(always)]
    fn over(self, steps: usize) -> PrefetchSteps {
        PrefetchSteps { at: self.from, stride: self.words.div_ceil(steps.max(1)) }
    }
}

/// Fetches all of `values` into the first-level cache.
#[inline(always)]
#[allow(unsafe_code, reason = "takes a pointer: see the block")]
pub(super) fn fetch<C>(values: &[C]) {
    for line in values.chunks(LINE * size_of::<u32>() / size_of::<C>().max(1)) {
        // SAFETY: a prefetch may be given any address; it is there on all of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
}

/// What is fetched step by step.
#[derive(Clone, Copy)]
struct PrefetchSteps {
    at: *const u32,
    /// Words for each step.
    stride: usize,
}

impl PrefetchSteps {
    /// Cache lines for each step, at least one.
    fn lines(self) -> usize {
        self.stride.div_ceil(LINE).max(1)
    }

    /// What is due at the next step, two lines at most.
    #[inline(always)]
    #[allow(unsafe_code, reason = "takes a pointer: see the block")]
    fn fetch(&mut self) {
        // SAFETY: as in `fetch_line`.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(self.at.wrapping_add(LINE).cast()) };
        self.fetch_line();
    }

    /// What is due at the next step, a line at most.
    #[inline(always)]
    #[allow(unsafe_code, reason = "takes a pointer: see the block")]
    fn fetch_line(&mut self) {
        // SAFETY: a prefetch may be given any address, also one where nothing is; it is there on all of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(self.at.cast()) };
        self.at = self.at.wrapping_add(self.stride);
    }
}

/// Cuts `rows` into as few tiles as can be, of row_sizes that differ by one at most: for each its first row and the next
/// one's.
pub(super) fn tiles(rows: usize, tallest: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = rows.div_ceil(tallest);
    (0..count).map(move |i| (i * rows / count, (i + 1) * rows / count))
}

/// Holds the lengths that the blocks of a tile rest on.
#[track_caller]
fn check<T: Tile>(tile: T, format: Format, a: BlockA, b: &[u32], c: &[u32]) {
    let chunks = b.len().div_ceil(KC * T::NR);
    assert!(
        b.len().is_multiple_of(T::NR * T::K_STEP)
            && (T::WHOLE_K || chunks <= 1)
            && a.rows.is_multiple_of(T::M_STEP)
            && (chunks == 0 || a.words.len() >= (chunks - 1) * a.height + a.rows)
            && c.len() == a.rows * T::NR,
        "tile: {} of {} rows, {} words of b into {} of {} columns",
        a.rows,
        a.words.len(),
        b.len(),
        c.len(),
        T::NR
    );
    assert!(tile.has_tile(format), "there is no tile for {format:?} on this machine");
}
