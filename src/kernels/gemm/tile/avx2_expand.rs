//! Packed words into those of a wider format, where a machine has no product for the one that
//! weights are kept in. For a query each panel is expanded for a few rows alone, so that this
//! counts.

use std::arch::x86_64::*;

use crate::kernels::gemm::format::{Format, REST_STEPS};

/// Words in a register.
const LANES: usize = 8;

/// A panel's words of `format` as words of the wider format `to`: `[words][columns]` → as many more
/// rows as words hold fewer values. Integers become `f32`s with their `rest`, as many words, unless
/// that is empty.
///
/// # Panics
///
/// If the columns do not fill registers.
#[target_feature(enable = "avx2")]
pub(super) fn expand(
    to: Format,
    format: Format,
    words: &[u32],
    rest: &[u32],
    columns: usize,
    out: &mut [u32],
) {
    match (to, format) {
        // The even bytes of each word, then the odd ones.
        (Format::Int16, _) => expand_by(words, columns, out, |word| {
            [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(word)), _mm256_srai_epi16::<8>(word)]
        }),
        (_, Format::Bf16) => expand_by(words, columns, out, |word| {
            let upper = _mm256_set1_epi32(0xFFFF_0000_u32 as i32);
            [_mm256_slli_epi32::<16>(word), _mm256_and_si256(word, upper)]
        }),
        (_, Format::Int8) => {
            expand_by(words, columns, out, |word| integers(word).map(|x| _mm256_castps_si256(x)));
            add_rest(rest, columns, out);
        }
        _ => out.copy_from_slice(words),
    }
}

/// The four integers of each word.
#[target_feature(enable = "avx2")]
#[inline]
fn integers(word: __m256i) -> [__m256; 4] {
    let upper = [
        _mm256_slli_epi32::<24>(word),
        _mm256_slli_epi32::<16>(word),
        _mm256_slli_epi32::<8>(word),
        word,
    ];
    upper.map(|x| _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(x)))
}

/// Adds the rounding errors to the integers in `out`.
fn add_rest(rest: &[u32], columns: usize, out: &mut [u32]) {
    for (words, out) in rest.chunks_exact(columns).zip(out.chunks_exact_mut(4 * columns)) {
        for (p, out) in out.chunks_exact_mut(columns).enumerate() {
            for (x, word) in out.iter_mut().zip(words) {
                let r = f32::from((word >> (8 * p)) as u8 as i8);
                *x = (f32::from_bits(*x) + r / REST_STEPS).to_bits();
            }
        }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
#[allow(unsafe_code, reason = "loads and stores by pointer: see the blocks")]
fn expand_by<const PER: usize>(
    words: &[u32],
    columns: usize,
    out: &mut [u32],
    values: impl Fn(__m256i) -> [__m256i; PER],
) {
    assert!(columns.is_multiple_of(LANES), "expand: {columns} columns");
    for (words, out) in words.chunks_exact(columns).zip(out.chunks_exact_mut(PER * columns)) {
        let (words, _) = words.as_chunks::<LANES>();
        let (out, _) = out.as_chunks_mut::<LANES>();
        for (i, word) in words.iter().enumerate() {
            // SAFETY: `word` is as many words as a register has.
            let word = unsafe { _mm256_loadu_si256(word.as_ptr().cast()) };
            for (p, value) in values(word).into_iter().enumerate() {
                let out = &mut out[p * words.len() + i];
                // SAFETY: so is `out`, and nothing else refers to it.
                unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), value) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::Simd;
    use crate::kernels::x86::Avx2;

    #[test]
    #[allow(unsafe_code, reason = "calls a function that needs the instructions: see the block")]
    fn every_byte_and_every_bf16() {
        if Avx2::detect().is_none() {
            return;
        }
        let words: Vec<u32> =
            (0..1 << 16).map(|i: u32| i | (i.wrapping_mul(40_503) << 16)).collect();
        let rest: Vec<u32> = words.iter().map(|word| word.rotate_left(11)).collect();
        for (to, format, rest) in [
            (Format::Int16, Format::Int8, &[][..]),
            (Format::F32, Format::Int8, &[]),
            (Format::F32, Format::Int8, &rest),
            (Format::F32, Format::Bf16, &[]),
        ] {
            let per = format.values_per_word() / to.values_per_word();
            let mut out = vec![0; words.len() * per];
            // SAFETY: the instructions were detected.
            unsafe { expand(to, format, &words, rest, 16, &mut out) };
            for (i, &word) in words.iter().enumerate() {
                let bytes = word.to_le_bytes().map(|byte| byte as i8);
                let pair =
                    |a: i8, b: i8| u32::from(i16::from(a) as u16) | (i32::from(b) << 16) as u32;
                let want = match (to, format) {
                    (Format::Int16, _) => vec![pair(bytes[0], bytes[2]), pair(bytes[1], bytes[3])],
                    (_, Format::Int8) => {
                        let rest = rest.get(i).map_or([0; 4], |rest| rest.to_le_bytes());
                        let of = |p: usize| f32::from(bytes[p]) + f32::from(rest[p] as i8) / 254.0;
                        (0..4).map(|p| of(p).to_bits()).collect()
                    }
                    _ => vec![word << 16, word >> 16 << 16],
                };
                for (p, want) in want.into_iter().enumerate() {
                    assert_eq!(out[(i / 16 * per + p) * 16 + i % 16], want, "{word:#x} to {to:?}");
                }
            }
        }
    }
}
