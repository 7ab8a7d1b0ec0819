//! The innermost part of a matrix product: a *tile* of a few rows and a panel of columns, held in registers.
//!
//! A tile sees packed operands only. `a` is `[k][M]`: for each step of the sum the `M` values of a column of `A`. `b` is
//! `[k][COLUMNS]`: for each step a row of the panel. Both are read front to back, once.

mod avx2;
mod avx512;

/// A tile kernel of one instruction set.
pub(super) trait Tile: Copy {
    /// Rows of the tallest tile.
    const ROWS: usize;
    /// Columns of a panel.
    const COLUMNS: usize;

    /// `c = a · b`, or `c += a · b` if `accumulate`, for `M` rows, `1 ≤ M ≤ ROWS`.
    ///
    /// `a`: `[k, M]`, `b`: `[k, COLUMNS]`, `c`: `[M, COLUMNS]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit.
    fn tile<const M: usize>(self, a: &[f32], b: &[f32], c: &mut [f32], accumulate: bool);

    /// Multiply-adds on registers alone, `steps` times over as many as the tile has; returns the number of floating-point
    /// operations. For benchmarks: no product can be faster.
    fn multiply_adds(self, steps: usize) -> usize;
}
