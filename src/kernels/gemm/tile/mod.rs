//! The innermost part of a matrix product: a *tile* of a few rows and a panel of columns, held in registers.
//!
//! A tile sees packed operands only, in words of 32 bits (see [`pack`](super::pack)). `a` is `[words][M]`: for each step of the
//! sum the `M` words of a column of `A`. `b` is `[words][COLUMNS]`: for each step a row of the panel. Both are read front to
//! back, once.

mod avx2;
mod avx512;

use crate::kernels::precision::Precision;

/// The tile kernels of one instruction set.
pub(super) trait Tile: Copy {
    /// Rows of the tallest tile.
    const ROWS: usize;
    /// Columns of a panel.
    const COLUMNS: usize;

    /// Whether there is a tile for words of this precision; for `f32` there always is.
    fn has_tile(self, precision: Precision) -> bool;

    /// `c = a · b`, or `c += a · b` if `accumulate`, for `M` rows, `1 ≤ M ≤ ROWS`.
    ///
    /// `a`: `[words, M]`, `b`: `[words, COLUMNS]`, `c`: `[M, COLUMNS]`, the bits of `f32`s or, for 8-bit words, of `i32`s.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit, or there is no such tile.
    fn tile<const M: usize>(
        self,
        precision: Precision,
        a: &[u32],
        b: &[u32],
        c: &mut [u32],
        accumulate: bool,
    );

    /// Multiply-adds on registers alone, `steps` times over as many as the tile has; returns the number of floating-point
    /// operations. For benchmarks: no product can be faster.
    fn multiply_adds(self, steps: usize) -> usize;
}
