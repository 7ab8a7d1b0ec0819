//! The AVX-512 tiles: 12 rows × 2 registers of 16 lanes.

use std::arch::x86_64::*;
use std::ops::Range;

use super::prefetch::{Prefetch, PrefetchSteps};
use super::{BlockA, KC, Tile, avx2_expand, avx512_encode, check, sse_transpose, tiles};
use crate::kernels::gemm::format::{Encode, Format, Scaling};
use crate::kernels::simd::Scalar;
use crate::kernels::x86::Avx512;

const LANES: usize = 16;
/// Registers a row.
const WIDTH: usize = 2;
const NR: usize = WIDTH * LANES;

impl Encode for Avx512 {
    #[inline(always)]
    #[allow(unsafe_code, reason = "calls a function that needs the instructions: see the block")]
    fn round_rows(
        self,
        values: &[f32],
        stride: usize,
        rows: &mut [&mut [half::bf16]],
        place: Range<usize>,
    ) {
        match self.has_bf16() {
            // SAFETY: it was detected.
            true => unsafe { avx512_encode::bf16_rows(values, stride, rows, place) },
            false => Scalar.round_rows(values, stride, rows, place),
        }
    }

    #[inline(always)]
    #[allow(unsafe_code, reason = "calls functions that need the instructions: see the block")]
    fn encode_first(
        self,
        format: Format,
        scaling: Scaling,
        values: &[f32],
        words: &mut [u32],
    ) -> usize {
        // SAFETY: an `Avx512` exists only where its features were detected, and says whether it has
        // those for bf16.
        unsafe {
            match format {
                Format::Bf16 if self.has_bf16() => avx512_encode::bf16(values, words),
                Format::Bf16Pairs if self.has_bf16() => avx512_encode::bf16_pairs(values, words),
                Format::Int8 => avx512_encode::bytes(scaling, values, words),
                _ => 0,
            }
        }
    }

    #[inline(always)]
    #[allow(unsafe_code, reason = "calls a function that needs the instructions: see the block")]
    fn encode_first_pairs(self, even: &[f32], odd: &[f32], words: &mut [u32]) -> usize {
        match self.has_bf16() {
            // SAFETY: it was detected.
            true => unsafe { avx512_encode::bf16_of_rows(even, odd, words) },
            false => 0,
        }
    }

    #[inline(always)]
    fn transpose<const WORDS: usize>(self, rows: &[[u32; WORDS]], panel: &mut [u32]) {
        sse_transpose::transpose(rows, panel);
    }
}

impl Tile for Avx512 {
    /// 24 sums, 2 registers of `b` and one of `a`, of the 32 there are; 24 independent sums hide
    /// the latency of 2 × 4.
    const MR: usize = 12;
    const NR: usize = NR;
    /// 1 MiB, which is read from front to back for each group of panels.
    const PACKED_WORDS: usize = 256 << 10;
    const WHOLE_K: bool = true;
    /// 384 KiB, of 1 MiB or more.
    const NC_WORDS: usize = 96 << 10;

    type State = ();

    #[inline(always)]
    fn state(self) {}

    #[inline(always)]
    fn has_tile(self, format: Format) -> bool {
        match format {
            Format::F32 => true,
            Format::Bf16 => self.has_bf16(),
            Format::Int8 => self.has_vnni(),
            Format::Int16 | Format::Bf16Pairs => false,
        }
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
            // SAFETY: an `Avx512` exists only where its features were detected; those of the
            // shorter formats were too, by `check`.
            unsafe {
                match format {
                    Format::Bf16 => {
                        tile_of_height!(tile_bf16, rows, (a, top, b, c, accumulate, ahead), 1 2 3 4 5 6 7 8 9 10 11 12);
                    }
                    Format::Int8 => {
                        tile_of_height!(tile_int8, rows, (a, top, b, c, accumulate, ahead), 1 2 3 4 5 6 7 8 9 10 11 12);
                    }
                    _ => {
                        tile_of_height!(tile_f32, rows, (a, top, b, c, accumulate, ahead), 1 2 3 4 5 6 7 8 9 10 11 12)
                    }
                }
            }
        }
    }

    #[inline(always)]
    #[allow(unsafe_code, reason = "calls a function that needs AVX2: see the block")]
    fn expand(self, to: Format, format: Format, words: &[u32], rest: &[u32], out: &mut [u32]) {
        // SAFETY: a value of `Avx512` exists only where AVX2 was detected.
        unsafe { avx2_expand::expand(to, format, words, rest, NR, out) }
    }
}

define_tile!(
    tile_f32,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma",
    _mm512_setzero_ps(),
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    |word| _mm512_set1_ps(f32::from_bits(word)),
    _mm512_loadu_ps,
    |sum, a, b| _mm512_fmadd_ps(a, b, sum)
);

// Each word is two bf16: `sum += a₀·b₀ + a₁·b₁`. All vectors of 512 bits have one layout, which is
// what the transmutes rest on: `__m512bh` has no intrinsic of its own to load it or to fill it with
// one value.
define_tile!(
    tile_bf16,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16",
    _mm512_setzero_ps(),
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    |word: u32| _mm512_set1_epi32(word as i32),
    _mm512_loadu_si512,
    // SAFETY: `__m512i` and `__m512bh` have the same size, and any bits are valid in both.
    |sum, a: __m512i, b: __m512i| unsafe {
        _mm512_dpbf16_ps(
            sum,
            std::mem::transmute::<__m512i, __m512bh>(a),
            std::mem::transmute::<__m512i, __m512bh>(b),
        )
    }
);

// Each word is four unsigned bytes of `a` and four signed ones of `b`: `sum += Σ aᵢ·bᵢ`, exact in
// 32 bits for K up to `DEEPEST_INT8`, beyond which the driver does not come here.
define_tile!(
    tile_int8,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512vnni",
    _mm512_setzero_si512(),
    _mm512_loadu_si512,
    _mm512_storeu_si512,
    |word: u32| _mm512_set1_epi32(word as i32),
    _mm512_loadu_si512,
    |sum, a, b| _mm512_dpbusd_epi32(sum, a, b)
);
