//! Operands in the order in which a tile reads them: words of 32 bits, each one `f32`, two bf16 or four 8-bit integers that
//! follow each other along `K`.

use crate::kernels::precision::Precision;
use crate::kernels::{LANES, fold};

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

/// Packs `alpha · row` as row `i` of the `[words][m]` block `out`; returns its range.
///
/// With `expanded` each value is a word of its own, an `f32` that has been rounded as the precision asks: for tiles that
/// only know `f32`.
#[inline(always)]
pub(super) fn pack_row(
    precision: Precision,
    expanded: bool,
    alpha: f32,
    row: &[f32],
    (i, m): (usize, usize),
    scratch: &mut Vec<u8>,
    out: &mut [u32],
) -> Range {
    let words = out.get_mut(i..).unwrap_or_default().iter_mut().step_by(m);
    match precision {
        Precision::F32 => {
            words.zip(row).for_each(|(word, x)| *word = (alpha * x).to_bits());
            Range::NONE
        }
        Precision::Bf16 if expanded => {
            words.zip(row).for_each(|(word, x)| *word = u32::from(to_bf16(alpha * x)) << 16);
            Range::NONE
        }
        Precision::Bf16 => {
            bytes(row, scratch, |x| to_bf16(alpha * x).to_le_bytes());
            scatter(scratch, words);
            Range::NONE
        }
        Precision::Int8 => {
            let (low, high) = extremes(row);
            let (low, high) = if low <= high { (alpha * low, alpha * high) } else { (0.0, 0.0) };
            let scale = if high > low { (high - low) / 255.0 } else { 1.0 };
            let (inverse, offset) = (1.0 / scale, low);
            let quantise = |x: f32| nearest((alpha * x - offset) * inverse) as u8;
            if expanded {
                words.zip(row).for_each(|(word, x)| *word = f32::from(quantise(*x)).to_bits());
            } else {
                bytes(row, scratch, |x| [quantise(x)]);
                scatter(scratch, words);
            }
            Range { scale, offset }
        }
    }
}

/// The nearest integer, for `|x|` below 2²², ties to even, as the low bits of what is returned.
///
/// Adding 1.5 · 2²³ leaves no bits for a fraction; subtracting the bits of that number leaves the integer.
#[inline(always)]
fn nearest(x: f32) -> i32 {
    const ROUND: f32 = 12_582_912.0;
    ((x + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32)
}

/// The upper half of the nearest `f32` whose lower half is zero, ties to even; not a number stays that. What
/// `half::bf16::from_f32` does, without a branch.
#[inline(always)]
fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16) as u16;
    if x.is_nan() { (bits >> 16) as u16 | 0x40 } else { rounded }
}

/// `f(x)` of each value, one after another, and zeros up to a multiple of four bytes.
#[inline(always)]
fn bytes<const SIZE: usize>(row: &[f32], out: &mut Vec<u8>, f: impl Fn(f32) -> [u8; SIZE]) {
    out.clear();
    out.resize((row.len() * SIZE).next_multiple_of(4), 0);
    let (places, _) = out.as_chunks_mut::<SIZE>();
    for (place, &x) in places.iter_mut().zip(row) {
        *place = f(x);
    }
}

#[inline(always)]
fn scatter<'a>(bytes: &[u8], words: impl Iterator<Item = &'a mut u32>) {
    let (values, _) = bytes.as_chunks::<4>();
    for (word, &value) in words.zip(values) {
        *word = u32::from_le_bytes(value);
    }
}

/// The smallest and the largest value; if there are none, the wrong way round.
#[inline(always)]
fn extremes(row: &[f32]) -> (f32, f32) {
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    let (chunks, tail) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for ((low, high), &x) in low.iter_mut().zip(&mut high).zip(chunk) {
            *low = low.min(x);
            *high = high.max(x);
        }
    }
    for ((low, high), &x) in low.iter_mut().zip(&mut high).zip(tail) {
        *low = low.min(x);
        *high = high.max(x);
    }
    (fold(low, f32::min), fold(high, f32::max))
}

/// What an output needs to be had back from a product of integers: its weights are `scale · q`, and `sum` is `Σ q`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Channel {
    pub(super) scale: f32,
    pub(super) sum: f32,
}

impl Channel {
    /// Of an output that is not quantised.
    pub(super) const NONE: Self = Self { scale: 1.0, sum: 0.0 };
}

/// Packs `row` of `B` as column `j` of the `[words][columns]` panel `out`; returns its channel.
pub(super) fn pack_column(
    precision: Precision,
    row: &[f32],
    (j, columns): (usize, usize),
    scratch: &mut Vec<u8>,
    out: &mut [u32],
) -> Channel {
    let words = out.get_mut(j..).unwrap_or_default().iter_mut().step_by(columns);
    match precision {
        Precision::F32 => {
            words.zip(row).for_each(|(word, x)| *word = x.to_bits());
            Channel::NONE
        }
        Precision::Bf16 => {
            bytes(row, scratch, |x| to_bf16(x).to_le_bytes());
            scatter(scratch, words);
            Channel::NONE
        }
        Precision::Int8 => {
            let (low, high) = extremes(row);
            let largest = high.max(-low);
            let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
            let inverse = 1.0 / scale;
            bytes(row, scratch, |x| [nearest(x * inverse) as i8 as u8]);
            let sum: i32 = scratch.iter().map(|&byte| i32::from(byte as i8)).sum();
            scatter(scratch, words);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_to_bf16_is_that_of_half() {
        // Every 97th bit pattern, infinities and what is not a number among them.
        for bits in (0..=u32::MAX).step_by(97).chain([0x7F80_0000, 0xFF80_0000, 0x7F80_0001]) {
            let x = f32::from_bits(bits);
            assert_eq!(to_bf16(x), half::bf16::from_f32(x).to_bits(), "{bits:#x}");
        }
    }

    #[test]
    fn rounding_to_integers() {
        for (x, want) in
            [(0.0, 0), (0.49, 0), (0.5, 0), (1.5, 2), (-0.6, -1), (254.6, 255), (-127.0, -127)]
        {
            assert_eq!(nearest(x), want, "{x}");
        }
    }

    #[test]
    fn extremes_of_every_length_around_the_lanes() {
        for n in [1, 2, 15, 16, 17, 33] {
            let row: Vec<f32> = (0..n).map(|i| (i as f32 * 2.3).sin()).collect();
            let low = row.iter().copied().fold(f32::MAX, f32::min);
            let high = row.iter().copied().fold(f32::MIN, f32::max);
            assert_eq!(extremes(&row), (low, high));
        }
        let (low, high) = extremes(&[]);
        assert!(low > high);
    }
}
