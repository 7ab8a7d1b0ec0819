//! Operands in the order in which a tile reads them: words of 32 bits, each one `f32`, two bf16 or four 8-bit integers that
//! follow each other along `K`.

use half::bf16;
use ndarray::ArrayView1;

use crate::kernels::precision::Precision;

/// How a row of `A` was quantised: its values are `scale · q + offset`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Range {
    pub(super) scale: f32,
    pub(super) offset: f32,
}

impl Range {
    /// Of a row that is not quantised.
    pub(super) const NONE: Self = Self { scale: 1.0, offset: 0.0 };
}

/// Adding this to a number from 0 to 255 rounds it to the nearest integer, which then is in the low byte of the sum.
const ROUND: f32 = 12_582_912.0;

/// Packs `alpha · row` as row `i` of the `[words][m]` block `out`; returns its range.
///
/// With `expanded` each value is a word of its own, an `f32` that has been rounded as the precision asks: for tiles that
/// only know `f32`.
#[inline(always)]
pub(super) fn pack_row(
    precision: Precision,
    expanded: bool,
    alpha: f32,
    row: ArrayView1<f32>,
    (i, m): (usize, usize),
    out: &mut [u32],
) -> Range {
    let words = out.iter_mut().skip(i).step_by(m);
    match precision {
        Precision::F32 => {
            words.zip(&row).for_each(|(word, x)| *word = (alpha * x).to_bits());
            Range::NONE
        }
        Precision::Bf16 => {
            let round = |x: &f32| bf16::from_f32(alpha * x);
            if expanded {
                words.zip(&row).for_each(|(word, x)| *word = round(x).to_f32().to_bits());
            } else {
                pack_words::<2>(words, row, |x| u32::from(round(x).to_bits()));
            }
            Range::NONE
        }
        Precision::Int8 => {
            let (low, high) = row
                .iter()
                .fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
            let (low, high) = if low <= high { (alpha * low, alpha * high) } else { (0.0, 0.0) };
            let scale = if high > low { (high - low) / 255.0 } else { 1.0 };
            let (inverse, offset) = (1.0 / scale, low);
            let quantise = |x: &f32| ((alpha * x - offset) * inverse + ROUND).to_bits() & 0xFF;
            if expanded {
                words.zip(&row).for_each(|(word, x)| *word = (quantise(x) as f32).to_bits());
            } else {
                pack_words::<4>(words, row, quantise);
            }
            Range { scale, offset }
        }
    }
}

/// Puts `PER` values of `32 / PER` bits into each word, the first in the lowest bits; what is beyond the row is zero.
#[inline(always)]
fn pack_words<'a, const PER: usize>(
    words: impl Iterator<Item = &'a mut u32>,
    row: ArrayView1<f32>,
    bits: impl Fn(&f32) -> u32,
) {
    let width = 32 / PER;
    for (word, values) in words.zip(row.axis_chunks_iter(ndarray::Axis(0), PER)) {
        *word = values.iter().enumerate().fold(0, |word, (p, x)| word | (bits(x) << (p * width)));
    }
}

/// What an output needs to be had back from a product of integers: its weights are `scale · q`, and `sum` is `Σ q`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Channel {
    pub(super) scale: f32,
    pub(super) sum: f32,
}

/// Packs `row` of `B` as column `j` of the `[words][columns]` panel `out`; returns the channel's scale.
pub(super) fn pack_column(
    precision: Precision,
    row: ArrayView1<f32>,
    (j, columns): (usize, usize),
    out: &mut [u32],
) -> Channel {
    let words = out.iter_mut().skip(j).step_by(columns);
    match precision {
        Precision::F32 => {
            words.zip(&row).for_each(|(word, x)| *word = x.to_bits());
            Channel { scale: 1.0, sum: 0.0 }
        }
        Precision::Bf16 => {
            pack_words::<2>(words, row, |&x| u32::from(bf16::from_f32(x).to_bits()));
            Channel { scale: 1.0, sum: 0.0 }
        }
        Precision::Int8 => {
            let largest = row.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
            let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
            let quantise = |x: &f32| (x / scale).round_ties_even().clamp(-127.0, 127.0) as i8;
            let sum: i32 = row.iter().map(|x| i32::from(quantise(x))).sum();
            pack_words::<4>(words, row, |x| u32::from(quantise(x) as u8));
            Channel { scale, sum: sum as f32 }
        }
    }
}

/// The values of packed words as bits of `f32`s: `[words][columns]` → `[words · values_per_word][columns]`.
#[inline(always)]
pub(super) fn expand(precision: Precision, words: &[u32], columns: usize, out: &mut [u32]) {
    let per = precision.values_per_word();
    for (words, out) in words.chunks_exact(columns).zip(out.chunks_exact_mut(columns * per)) {
        for (p, out) in out.chunks_exact_mut(columns).enumerate() {
            for (out, &word) in out.iter_mut().zip(words) {
                *out = match precision {
                    Precision::F32 => word,
                    Precision::Bf16 => (word >> (16 * p)) << 16,
                    Precision::Int8 => f32::from((word >> (8 * p)) as u8 as i8).to_bits(),
                };
            }
        }
    }
}
