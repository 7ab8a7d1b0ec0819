//! The innermost part of a matrix product: a *tile* of a few rows and a panel of columns, held in registers.
//!
//! A tile sees packed operands only, in words of 32 bits (see [`pack`](super::pack)). `a` is `[words][M]`: for each step of the
//! sum the `M` words of a column of `A`. `b` is `[words][COLUMNS]`: for each step a row of the panel. Both are read front to
//! back, once.

/// Defines a tile by what its sums begin as, how they are loaded and stored, how a word of `a` fills a register, how words of
/// `b` are loaded, and the instruction. `COLUMNS`, `WIDTH` and `LANES` are those of the place where it is used.
macro_rules! define_tile {
    ($name:ident, $features:literal, $zero:expr, $load:expr, $store:expr, $broadcast:expr, $load_b:expr, $fma:expr) => {
        #[target_feature(enable = $features)]
        #[allow(unsafe_code, reason = "loads and stores by pointer: see the blocks")]
        fn $name<const M: usize>(a: &[u32], b: &[u32], c: &mut [u32], accumulate: bool) {
            let (c, _) = c.as_chunks_mut::<COLUMNS>();
            let mut sums = [[$zero; WIDTH]; M];
            if accumulate {
                for (sums, c) in sums.iter_mut().zip(c.iter()) {
                    for (w, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: `c` has WIDTH · LANES words, of which these are LANES from w · LANES on.
                        *sum = unsafe { $load(c.as_ptr().add(w * LANES).cast()) };
                    }
                }
            }
            let (a, _) = a.as_chunks::<M>();
            let (b, _) = b.as_chunks::<COLUMNS>();
            for (a, b) in a.iter().zip(b) {
                let load = |w: usize| {
                    // SAFETY: as above, for `b`.
                    unsafe { $load_b(b.as_ptr().add(w * LANES).cast()) }
                };
                let b: [_; WIDTH] = std::array::from_fn(load);
                for (sums, &a) in sums.iter_mut().zip(a) {
                    let a = $broadcast(a);
                    for (sum, &b) in sums.iter_mut().zip(&b) {
                        *sum = $fma(*sum, a, b);
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

mod avx2;
mod avx512;
mod transpose;

pub(super) use transpose::transpose;

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
