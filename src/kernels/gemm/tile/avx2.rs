//! The AVX2 tile: 6 rows × 2 registers of 8 lanes.

use std::arch::x86_64::*;

use super::{Ahead, DEPTH, Tile, check, tiles};
use crate::kernels::gemm::words::Format;
use crate::kernels::simd::Avx2;

const LANES: usize = 8;
/// Registers a row.
const WIDTH: usize = 2;
const COLUMNS: usize = WIDTH * LANES;

impl Tile for Avx2 {
    /// 12 sums, 2 registers of `b` and one of `a`: 15 of the 16 there are.
    const ROWS: usize = 6;
    const COLUMNS: usize = COLUMNS;

    type State = ();

    #[inline(always)]
    fn state(self) {}

    #[inline(always)]
    fn has_tile(self, format: Format) -> bool {
        format == Format::F32
    }

    #[inline(always)]
    #[allow(unsafe_code, reason = "calls functions that need the instructions: see the block")]
    fn multiply(
        self,
        format: Format,
        a: &[[u32; DEPTH]],
        b: &[u32],
        c: &mut [u32],
        accumulate: bool,
    ) {
        check(self, format, a, b, c);
        let count = a.len().div_ceil(Self::ROWS);
        for (i, (top, end)) in tiles(a.len(), Self::ROWS).enumerate() {
            let ahead = Ahead::of(b, COLUMNS, i, count);
            let (a, c) = (&a[top..end], &mut c[top * COLUMNS..end * COLUMNS]);
            // SAFETY: an `Avx2` exists only where its features were detected.
            unsafe { tile_of_height!(tile_f32, a, b, c, accumulate, ahead, 1 2 3 4 5 6) }
        }
    }

    #[inline(always)]
    #[allow(unsafe_code, reason = "calls a function that needs the instructions: see the block")]
    fn multiply_adds(self, format: Format, steps: usize) -> Option<usize> {
        if format != Format::F32 {
            return None;
        }
        // SAFETY: as in `multiply`.
        std::hint::black_box(unsafe { multiply_adds(steps) });
        Some(2 * LANES * CHAINS * steps)
    }
}

define_tile!(
    tile_f32,
    "avx2,fma",
    _mm256_setzero_ps(),
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    |word| _mm256_set1_ps(f32::from_bits(word)),
    _mm256_loadu_ps,
    |sum, a, b| _mm256_fmadd_ps(a, b, sum)
);

/// Sums that do not wait for each other, as many as the tile has.
const CHAINS: usize = 12;

#[target_feature(enable = "avx2,fma")]
fn multiply_adds(steps: usize) -> f32 {
    let (factor, term) = (_mm256_set1_ps(0.999), _mm256_set1_ps(0.001));
    let mut sums = [_mm256_set1_ps(0.5); CHAINS];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, factor, term);
        }
    }
    let total = sums.into_iter().fold(term, |total, sum| _mm256_add_ps(total, sum));
    _mm256_cvtss_f32(total)
}
