//! The AVX2 tile: 6 rows × 2 registers of 8 lanes.

use std::arch::x86_64::*;

use super::prefetch::{Prefetch, PrefetchSteps};
use super::{BlockA, KC, Tile, avx2_expand, check, sse_transpose, tiles};
use crate::kernels::gemm::format::{Encode, Format};
use crate::kernels::x86::Avx2;

const LANES: usize = 8;
/// Registers a row.
const WIDTH: usize = 2;
const NR: usize = WIDTH * LANES;

impl Encode for Avx2 {
    #[inline(always)]
    fn transpose<const WORDS: usize>(self, rows: &[[u32; WORDS]], panel: &mut [u32]) {
        sse_transpose::transpose(rows, panel);
    }
}

impl Tile for Avx2 {
    /// 12 sums, 2 registers of `b` and one of `a`: 15 of the 16 there are.
    const MR: usize = 6;
    const NR: usize = NR;
    /// 512 KiB.
    const PACKED_WORDS: usize = 128 << 10;
    const WHOLE_K: bool = true;
    /// 128 KiB, of 256 KiB or more.
    const NC_WORDS: usize = 32 << 10;

    type State = ();

    #[inline(always)]
    fn state(self) {}

    #[inline(always)]
    fn has_tile(self, format: Format) -> bool {
        matches!(format, Format::F32 | Format::Int16)
    }

    #[inline(always)]
    #[allow(unsafe_code, reason = "calls functions that need the instructions: see the block")]
    fn multiply(
        self,
        format: Format,
        a: BlockA,
        b: &[u32],
        c: &mut [u32],
        accumulate: bool,
        ahead: Prefetch,
    ) {
        check(self, format, a, b, c);
        let count = a.rows.div_ceil(Self::MR);
        for (i, (top, end)) in tiles(a.rows, Self::MR).enumerate() {
            let (rows, ahead) = (end - top, ahead.part(i, count));
            let c = &mut c[top * NR..end * NR];
            // SAFETY: an `Avx2` exists only where its features were detected.
            unsafe {
                match format {
                    Format::Int16 => {
                        tile_of_height!(tile_int16, rows, (a, top, b, c, accumulate, ahead), 1 2 3 4 5 6);
                    }
                    _ => {
                        tile_of_height!(tile_f32, rows, (a, top, b, c, accumulate, ahead), 1 2 3 4 5 6)
                    }
                }
            }
        }
    }

    #[inline(always)]
    #[allow(unsafe_code, reason = "calls a function that needs AVX2: see the block")]
    fn expand(self, to: Format, format: Format, words: &[u32], rest: &[u32], out: &mut [u32]) {
        // SAFETY: a value of `Avx2` exists only where AVX2 was detected.
        unsafe { avx2_expand::expand(to, format, words, rest, NR, out) }
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

// Each word is two 16-bit integers: `sum += a₀·b₀ + a₁·b₁`, in two instructions. There is one for 8
// bits too, `vpmaddubsw`, but its sums of two products saturate at 16 bits, and it needs a third to
// add them up: it is no faster.
define_tile!(
    tile_int16,
    "avx2,fma",
    _mm256_setzero_si256(),
    _mm256_loadu_si256,
    _mm256_storeu_si256,
    |word: u32| _mm256_set1_epi32(word as i32),
    _mm256_loadu_si256,
    |sum, a, b| _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
);
