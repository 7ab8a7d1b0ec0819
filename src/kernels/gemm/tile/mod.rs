//! The innermost part of a matrix product: a *tile* of a few rows and a panel of columns, held in
//! registers.
//!
//! A tile sees packed operands only, in words of 32 bits (see [`format`](super::format)). `a` is
//! `[M][KC]`: a piece of each of `M` rows of `A`. `b` is `[words][NR]`, `words` up to [`KC`]: for
//! each step of the sum a row of the panel, read front to back, once.

#[cfg(target_arch = "x86_64")]
#[macro_use]
mod macros;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_expand;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_encode;
#[cfg(test)]
mod portable;
mod prefetch;
#[cfg(target_arch = "x86_64")]
mod sse_transpose;

#[cfg(test)]
pub(in crate::kernels) use portable::Portable;
pub(super) use prefetch::{Prefetch, prefetch_all};

use super::format::{Encode, Format, expand};

/// Words of a row of `A` that are packed next to each other, and steps of the sum between two
/// visits to the partial results, where they are visited: of a panel of 32 columns these are 24
/// KiB, which stay, with the rows that meet them, in a first-level cache of 32 KiB or more. Rows
/// that are 768 bytes apart fall into different sets of that cache.
pub(crate) const KC: usize = 192;

/// Packed rows of `A`: some of those that were packed together, from some chunk of `K` on.
#[derive(Clone, Copy)]
pub(crate) struct BlockA<'a> {
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

/// The micro-kernels of one instruction set.
pub(crate) trait Tile: Encode {
    /// What [`Tile::state`] returns.
    type State;

    /// MR: rows of the tallest tile.
    const MR: usize;
    /// NR: columns of a panel, a multiple of 4 and at most 32.
    const NR: usize;
    /// Rows of `a` and `c` are padded to a multiple of this.
    const M_STEP: usize = 1;
    /// Words along `K` are padded to a multiple of this.
    const K_STEP: usize = 1;
    /// Packed words of `A` that one task works on.
    const PACKED_WORDS: usize;
    /// Whether a tile takes all of `K` at once, for which a panel comes from the second-level cache
    /// as fast as it is needed. Else it takes at most KC words, while which they stay in the first.
    const WHOLE_K: bool;
    /// If it does: words of the panels that all blocks of rows go through together, which should
    /// stay in the second-level cache.
    const NC_WORDS: usize;

    /// Whether there is a tile for words of this format.
    fn has_tile(self, format: Format) -> bool;

    /// The format of the tile for words of `format`: the same, or a wider one that they are
    /// expanded to.
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
    /// `b`: `[words][NR]`, `c`: `[M][NR]`, the bits of `f32`s or, for 8-bit words, of `i32`s. The
    /// words of `ahead` are prefetched meanwhile.
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

    /// A panel's words of `format`, `[words][NR]`, as words of the wider format `to`: as many more
    /// rows as words hold fewer values. Integers become `f32`s with their `rest`, unless that is
    /// empty.
    #[inline(always)]
    fn expand(self, to: Format, format: Format, words: &[u32], rest: &[u32], out: &mut [u32]) {
        expand(to, format, words, rest, Self::NR, out);
    }
}

/// Cuts `rows` into as few tiles as can be, whose heights differ by one at most: for each its
/// first row and the next one's.
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
