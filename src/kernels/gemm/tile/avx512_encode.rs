//! Values into packed words by AVX-512's conversions. Each function takes as many of the first
//! values as fill whole registers, and says how many.

use std::arch::x86_64::*;
use std::ops::Range;

use crate::kernels::gemm::format::{PAIRS, Scaling};

/// Values in a register.
const LANES: usize = 16;

/// Two bf16 to a word.
///
/// As [`half::bf16::from_f32`], but that subnormal numbers become zero.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16")]
#[allow(unsafe_code, reason = "loads and stores by pointer: see the blocks")]
pub(super) fn bf16(values: &[f32], words: &mut [u32]) -> usize {
    let (values, _) = values.as_chunks::<{ 2 * LANES }>();
    let (words, _) = words.as_chunks_mut::<LANES>();
    for (values, words) in values.iter().zip(&mut *words) {
        let rounded = round(load(values));
        // SAFETY: `words` is as many as a register has.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), rounded) };
    }
    2 * LANES * values.len().min(words.len())
}

/// The first values of each `stride` of `values` into columns `place` of a row each. As [`bf16`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16")]
#[allow(unsafe_code, reason = "loads and stores by pointer: see the blocks")]
pub(super) fn bf16_rows(
    values: &[f32],
    stride: usize,
    rows: &mut [&mut [half::bf16]],
    place: Range<usize>,
) {
    for (row, values) in rows.iter_mut().zip(values.chunks(stride)) {
        let out = &mut row[place.clone()];
        let values = values[..out.len()].chunks(2 * LANES);
        for (out, values) in out.chunks_mut(2 * LANES).zip(values) {
            let some = u32::MAX >> (2 * LANES - out.len());
            let half = |mask: u32, start: usize| {
                // SAFETY: `some` has a bit for each of the values, which are as many as `out` has,
                // 32 at most; what has none is not read.
                unsafe { _mm512_maskz_loadu_ps(mask as u16, values.as_ptr().wrapping_add(start)) }
            };
            let rounded = round([half(some, 0), half(some >> LANES, LANES)]);
            // SAFETY: nor is it written.
            unsafe { _mm512_mask_storeu_epi16(out.as_mut_ptr().cast(), some, rounded) };
        }
    }
}

/// For each [`PAIRS`] values the words of the rounded values, then those of the rounding errors.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16")]
#[allow(unsafe_code, reason = "loads and stores by pointer: see the blocks")]
pub(super) fn bf16_pairs(values: &[f32], words: &mut [u32]) -> usize {
    const { assert!(PAIRS == 2 * LANES) };
    let infinity = _mm512_set1_ps(f32::INFINITY);
    let (values, _) = values.as_chunks::<PAIRS>();
    let (words, _) = words.as_chunks_mut::<PAIRS>();
    for (values, words) in values.iter().zip(&mut *words) {
        let [x, y] = load(values);
        let upper = round([x, y]);
        let half = |half: __m256i| {
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
        };
        let rest = |x: __m512, upper: __m512| {
            // ∞ − ∞ would be NaN.
            let finite = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_abs_ps(x), infinity);
            _mm512_maskz_sub_ps(finite, x, upper)
        };
        let (first, second) =
            (_mm512_castsi512_si256(upper), _mm512_extracti64x4_epi64::<1>(upper));
        let lower = round([rest(x, half(first)), rest(y, half(second))]);
        // SAFETY: `words` is as many as two registers have.
        unsafe {
            _mm512_storeu_si512(words.as_mut_ptr().cast(), upper);
            _mm512_storeu_si512(words.as_mut_ptr().add(LANES).cast(), lower);
        }
    }
    PAIRS * values.len().min(words.len())
}

/// Four 8-bit integers to a word.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
#[allow(unsafe_code, reason = "loads and stores by pointer: see the blocks")]
pub(super) fn bytes(scaling: Scaling, values: &[f32], words: &mut [u32]) -> usize {
    let (offset, inverse) = (_mm512_set1_ps(scaling.offset), _mm512_set1_ps(scaling.inverse));
    let (values, _) = values.as_chunks::<LANES>();
    let (words, _) = words.as_chunks_mut::<{ LANES / 4 }>();
    for (values, words) in values.iter().zip(&mut *words) {
        // SAFETY: `values` is as many as a register has.
        let x = unsafe { _mm512_loadu_ps(values.as_ptr()) };
        let x = _mm512_mul_ps(_mm512_sub_ps(x, offset), inverse);
        let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x));
        // SAFETY: `words` is as many as a quarter of a register has.
        unsafe { _mm_storeu_si128(words.as_mut_ptr().cast(), bytes) };
    }
    LANES * values.len().min(words.len())
}

/// Words of one bf16 of `even` and one of `odd`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16")]
#[allow(unsafe_code, reason = "loads and stores by pointer: see the blocks")]
pub(super) fn bf16_of_rows(even: &[f32], odd: &[f32], words: &mut [u32]) -> usize {
    let ((even, _), (odd, _)) = (even.as_chunks::<LANES>(), odd.as_chunks::<LANES>());
    let (words, _) = words.as_chunks_mut::<LANES>();
    for ((even, odd), words) in even.iter().zip(odd).zip(&mut *words) {
        // SAFETY: each is as many as a register has.
        let rows = unsafe { [_mm512_loadu_ps(even.as_ptr()), _mm512_loadu_ps(odd.as_ptr())] };
        let rounded = round(rows);
        let even = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(rounded));
        let odd = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(rounded));
        let both = _mm512_or_si512(even, _mm512_slli_epi32::<16>(odd));
        // SAFETY: as above.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), both) };
    }
    LANES * even.len().min(odd.len()).min(words.len())
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16")]
#[inline]
#[allow(unsafe_code, reason = "loads by pointer: see the block")]
fn load(values: &[f32; 2 * LANES]) -> [__m512; 2] {
    // SAFETY: `values` is as many as two registers have.
    unsafe { [_mm512_loadu_ps(values.as_ptr()), _mm512_loadu_ps(values.as_ptr().add(LANES))] }
}

/// The values of both registers as bf16, one after another.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16")]
#[inline]
#[allow(unsafe_code, reason = "changes a type: see the block")]
fn round([first, second]: [__m512; 2]) -> __m512i {
    // SAFETY: `__m512bh` and `__m512i` have the same size, and any bits are valid in both.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first)) }
}
