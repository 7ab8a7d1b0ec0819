//! Packed operands: words of 32 bits that follow each other along `K`, in the [`Format`] that a
//! tile reads.

use std::ops;

use half::bf16;

use crate::kernels::isa::Isa;
use crate::kernels::lanes::{LANES, fold, for_each, zip};
use crate::kernels::precision::Precision;
use crate::kernels::simd::{Scalar, Simd};

/// The contents of a packed word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One `f32`.
    F32,
    /// Two bf16.
    Bf16,
    /// Four 8-bit integers.
    Int8,
    /// Two 16-bit integers; four 8-bit ones become a word with the even ones, then a word with the
    /// odd ones. No matrix is kept in this format: [`Format::Int8`] is widened to it where there is
    /// an instruction for 16 bits only.
    Int16,
    /// Two bf16: for 32 values, 16 words with the values rounded to bf16, then 16 words with the
    /// rounding errors, rounded too. Together they hold 16 of the 24 bits of an `f32`.
    Bf16Pairs,
}

/// Values that make up a block of [`Format::Bf16Pairs`], in as many words.
pub(super) const PAIRS: usize = 32;

impl Format {
    /// The format in which `isa` keeps a matrix of `precision`.
    pub(super) fn of(isa: Isa, precision: Precision) -> Self {
        match precision {
            Precision::F32 if isa.splits_f32() => Self::Bf16Pairs,
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
            Precision::Int8 => Self::Int8,
        }
    }

    pub(super) fn values_per_word(self) -> usize {
        match self {
            Self::F32 | Self::Bf16Pairs => 1,
            Self::Bf16 | Self::Int16 => 2,
            Self::Int8 => 4,
        }
    }

    /// Words of a row of `k` values, padded to a multiple of `step`.
    pub(super) fn words(self, k: usize, step: usize) -> usize {
        let step = if self == Self::Bf16Pairs { step.max(PAIRS) } else { step };
        k.div_ceil(self.values_per_word()).next_multiple_of(step)
    }
}

/// How values become integers: `(x − offset) · inverse`.
#[derive(Debug, Clone, Copy)]
pub struct Scaling {
    pub(super) offset: f32,
    pub(super) inverse: f32,
}

impl Scaling {
    /// For values that do not become integers.
    pub(super) const NONE: Self = Self { offset: 0.0, inverse: 1.0 };
}

/// How a row of `A` was quantised: its values are `scale · q + offset`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Quantization {
    pub(super) scale: f32,
    pub(super) offset: f32,
}

impl Quantization {
    /// For a row that was not quantised.
    pub(super) const NONE: Self = Self { scale: 1.0, offset: 0.0 };

    /// The smallest range that holds `row`, for `q` from 0 to 255.
    #[inline(always)]
    pub(super) fn of(row: &[f32]) -> Self {
        let (low, high) = extremes(row);
        let (low, high) = if low <= high { (low, high) } else { (0.0, 0.0) };
        let scale = if high > low { (high - low) / 255.0 } else { 1.0 };
        Self { scale, offset: low }
    }

    /// The scaling that quantises the row.
    pub(super) fn scaling(self) -> Scaling {
        Scaling { offset: self.offset, inverse: 1.0 / self.scale }
    }
}

/// The largest integer that a weight becomes.
pub(super) const WEIGHT_STEPS: f32 = 127.0;

/// Steps between two neighbouring integers for the rounding error of a weight, which is up to half
/// of them either way.
pub(super) const REST_STEPS: f32 = 254.0;

/// The scale of a row of `B`: its values are `scale · q`, `q` from −127 to 127.
#[inline(always)]
pub(super) fn channel_scale(row: &[f32]) -> f32 {
    let (low, high) = extremes(row);
    let largest = high.max(-low);
    if largest > 0.0 { largest / WEIGHT_STEPS } else { 1.0 }
}

/// The scaling that quantises a row of `B`.
pub(super) fn channel_scaling(scale: f32) -> Scaling {
    Scaling { offset: 0.0, inverse: 1.0 / scale }
}

/// Packing, in plain Rust unless an instruction set overrides it.
pub trait Encode: Simd {
    /// Rounds the first values of each `stride` of `values` to bf16, into columns `place` of a row
    /// each.
    #[inline(always)]
    fn round_rows(
        self,
        values: &[f32],
        stride: usize,
        rows: &mut [&mut [bf16]],
        place: ops::Range<usize>,
    ) {
        for (row, values) in rows.iter_mut().zip(values.chunks(stride)) {
            for (out, &x) in row[place.clone()].iter_mut().zip(values) {
                *out = bf16::from_bits((round_to_bf16(x) >> 16) as u16);
            }
        }
    }

    /// Packs as many of the first values as it has an instruction for, and returns how many: whole
    /// words.
    #[inline(always)]
    fn encode_first(self, _: Format, _: Scaling, _: &[f32], _: &mut [u32]) -> usize {
        0
    }

    /// Packs pairs of a value of `even` and one of `odd` as bf16, for as many of the first words as
    /// it has an instruction for, and returns how many.
    #[inline(always)]
    fn encode_first_pairs(self, _even: &[f32], _odd: &[f32], _words: &mut [u32]) -> usize {
        0
    }

    /// `panel[i][j] = rows[j][i]`, for as many words of each row as the panel has steps; `panel`:
    /// `[words][rows]`.
    #[inline(always)]
    fn transpose<const WORDS: usize>(self, rows: &[[u32; WORDS]], panel: &mut [u32]) {
        for (i, out) in panel.chunks_exact_mut(rows.len()).enumerate() {
            for (out, row) in out.iter_mut().zip(rows) {
                *out = row[i];
            }
        }
    }
}

impl Encode for Scalar {}

/// Packs `values` as words; fills the rest of `words` with zeros.
#[inline(always)]
pub(super) fn encode<S: Encode>(
    simd: S,
    format: Format,
    scaling: Scaling,
    values: &[f32],
    words: &mut [u32],
) {
    let done = simd.encode_first(format, scaling, values, words);
    let (values, words) = (&values[done..], &mut words[done / format.values_per_word()..]);
    match format {
        Format::F32 => encode_by(values, words, |[x]| x.to_bits()),
        Format::Bf16 => {
            encode_by(values, words, |[x, y]| bf16_pair(round_to_bf16(x), round_to_bf16(y)));
        }
        Format::Int8 => encode_bytes(scaling, values, words),
        Format::Int16 => {
            // A few words at a time, so that the shorter ones stay in registers or nearly so.
            let mut short = [0; PAIRS];
            let mut values = values.chunks(4 * PAIRS);
            for words in words.chunks_mut(2 * PAIRS) {
                let (words, _) = words.as_chunks_mut::<2>();
                let short = &mut short[..words.len()];
                encode_bytes(scaling, values.next().unwrap_or_default(), short);
                for (out, word) in words.iter_mut().zip(short) {
                    *out = [*word & 0x00FF_00FF, (*word >> 8) & 0x00FF_00FF];
                }
            }
        }
        Format::Bf16Pairs => {
            let (blocks, _) = words.as_chunks_mut::<PAIRS>();
            let values = values.chunks(PAIRS).chain(std::iter::repeat(&[] as &[f32]));
            for (words, values) in blocks.iter_mut().zip(values) {
                let (high, low) = words.split_at_mut(PAIRS / 2);
                encode_by(values, high, |[x, y]| bf16_pair(round_to_bf16(x), round_to_bf16(y)));
                encode_by(values, low, |[x, y]| bf16_pair(rest_of_bf16(x), rest_of_bf16(y)));
            }
        }
    }
}

/// Four values to a word, as 8-bit integers.
#[inline(always)]
fn encode_bytes(scaling: Scaling, values: &[f32], words: &mut [u32]) {
    let byte = |x: f32| u32::from(quantise(scaling, x));
    encode_by(values, words, |[a, b, c, d]| {
        byte(a) | (byte(b) << 8) | (byte(c) << 16) | (byte(d) << 24)
    });
}

/// Word `w` of each column, from the rows of a transposed `B`: of the two rows that a word holds
/// values of, each a value for each column; beyond the last row they are empty. For bf16 formats.
#[inline(always)]
pub(super) fn encode_pair_of_rows<'a, S: Encode>(
    simd: S,
    format: Format,
    w: usize,
    row: impl Fn(usize) -> &'a [f32],
    words: &mut [u32],
) {
    let (block, within) = (w / PAIRS, w % PAIRS);
    let low = format == Format::Bf16Pairs && within >= PAIRS / 2;
    let first = match format {
        Format::Bf16Pairs => block * PAIRS + within % (PAIRS / 2) * 2,
        _ => 2 * w,
    };
    let (even, odd) = (row(first), row(first + 1));
    words.fill(0);
    if low {
        words.iter_mut().zip(even).for_each(|(word, &x)| *word = rest_of_bf16(x) >> 16);
        words.iter_mut().zip(odd).for_each(|(word, &x)| *word |= rest_of_bf16(x));
    } else {
        let done = simd.encode_first_pairs(even, odd, words);
        let (even, odd) =
            (even.get(done..).unwrap_or_default(), odd.get(done..).unwrap_or_default());
        let words = &mut words[done..];
        words.iter_mut().zip(even).for_each(|(word, &x)| *word = round_to_bf16(x) >> 16);
        words.iter_mut().zip(odd).for_each(|(word, &x)| *word |= round_to_bf16(x));
    }
}

/// As [`encode`], rounded to `format`, but as words of the wider format `to`.
#[inline(always)]
pub(super) fn encode_as<S: Encode>(
    simd: S,
    to: Format,
    format: Format,
    scaling: Scaling,
    values: &[f32],
    words: &mut [u32],
) {
    match (to, format) {
        (Format::F32, Format::Bf16) => {
            encode_by(values, words, |[x]| round_to_bf16(x));
        }
        (Format::F32, Format::Int8) => {
            encode_by(values, words, |[x]| f32::from(quantise(scaling, x)).to_bits());
        }
        _ => encode(simd, to, scaling, values, words),
    }
}

#[inline(always)]
fn encode_by<const PER: usize>(
    values: &[f32],
    words: &mut [u32],
    word: impl Fn([f32; PER]) -> u32,
) {
    let (whole, tail) = values.as_chunks::<PER>();
    let (full, rest) = words.split_at_mut(whole.len());
    for (out, &values) in full.iter_mut().zip(whole) {
        *out = word(values);
    }
    rest.fill(0);
    if let (false, Some(out)) = (tail.is_empty(), rest.first_mut()) {
        // Zero times anything finite adds nothing; zero itself is packed as the row's offset asks,
        // and meets zeros of `B`.
        let mut last = [0.0; PER];
        last[..tail.len()].copy_from_slice(tail);
        *out = word(last);
    }
}

#[inline(always)]
fn bf16_pair(first: u32, second: u32) -> u32 {
    (first >> 16) | second
}

#[inline(always)]
fn quantise(scaling: Scaling, x: f32) -> u8 {
    nearest((x - scaling.offset) * scaling.inverse) as u8
}

/// The nearest integer, for `|x|` below 2²², ties to even, as the low bits of the result.
///
/// Adding 1.5 · 2²³ leaves no bits for a fraction; subtracting the bits of that number leaves the
/// integer.
#[inline(always)]
pub(crate) fn nearest(x: f32) -> i32 {
    const ROUND: f32 = 12_582_912.0;
    ((x + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32)
}

/// The bits of the nearest `f32` whose lower half is zero, ties to even; NaN stays NaN. The same as
/// `half::bf16::from_f32`, without a branch.
#[inline(always)]
fn round_to_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1));
    (if x.is_nan() { bits | 0x40_0000 } else { rounded }) & 0xFFFF_0000
}

/// The error of rounding `x` to bf16, rounded to bf16 too.
#[inline(always)]
fn rest_of_bf16(x: f32) -> u32 {
    let rest = x - f32::from_bits(round_to_bf16(x));
    // ∞ − ∞ would be NaN.
    round_to_bf16(if x.is_finite() { rest } else { 0.0 })
}

/// The smallest and the largest value; if there are none, the wrong way round.
#[inline(always)]
fn extremes(row: &[f32]) -> (f32, f32) {
    // The comparison ignores NaN and is one instruction, unlike `f32::min`.
    let smaller = |a: f32, b: f32| if b < a { b } else { a };
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    for_each(row, f32::NAN, |x| {
        low = zip(low, x, smaller);
        high = zip(high, x, larger);
    });
    (fold(low, smaller), fold(high, larger))
}

/// Packed words of `format`, `[words][columns]`, as words of the wider format `to`: as many more
/// rows as words hold fewer values. Integers become `f32`s with their `rest`, as many words, unless
/// that is empty.
#[inline(always)]
pub(super) fn expand(
    to: Format,
    format: Format,
    words: &[u32],
    rest: &[u32],
    columns: usize,
    out: &mut [u32],
) {
    let per = format.values_per_word() / to.values_per_word();
    if per == 1 {
        return out.copy_from_slice(words);
    }
    let byte = |word: u32, p: usize| f32::from((word >> (8 * p)) as u8 as i8);
    // The even bytes of each word, then the odd ones.
    let short = |word: u32, p: usize| {
        let half = |half: u32| (((half as u16) << (8 * (1 - p))) as i16 >> 8) as u16;
        u32::from(half(word)) | (u32::from(half(word >> 16)) << 16)
    };
    let mut rest = rest.chunks_exact(columns);
    for (words, out) in words.chunks_exact(columns).zip(out.chunks_exact_mut(per * columns)) {
        let rest = rest.next();
        for (p, out) in out.chunks_exact_mut(columns).enumerate() {
            for (j, (out, &word)) in out.iter_mut().zip(words).enumerate() {
                *out = match (to, format, rest) {
                    (Format::Int16, ..) => short(word, p),
                    (_, Format::Int8, Some(rest)) => {
                        (byte(word, p) + byte(rest[j], p) / REST_STEPS).to_bits()
                    }
                    (_, Format::Int8, None) => byte(word, p).to_bits(),
                    _ => (word >> (16 * p)) << 16,
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
        // Every 97th bit pattern, with infinities and NaN among them.
        for bits in (0..=u32::MAX).step_by(97).chain([0x7F80_0000, 0xFF80_0000, 0x7F80_0001]) {
            let x = f32::from_bits(bits);
            assert_eq!(
                (round_to_bf16(x) >> 16) as u16,
                half::bf16::from_f32(x).to_bits(),
                "{bits:#x}"
            );
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
        assert_eq!(extremes(&[f32::NAN, 2.0, f32::NAN]), (2.0, 2.0));
    }

    #[test]
    fn words_hold_the_values_in_order() {
        let values: Vec<f32> = (1..=9).map(|i| i as f32).collect();
        let bf16 = |x: f32| u32::from(half::bf16::from_f32(x).to_bits());
        let mut words = [u32::MAX; 6];
        encode(Scalar, Format::Bf16, Scaling::NONE, &values, &mut words);
        assert_eq!(words[0], bf16(1.0) | (bf16(2.0) << 16));
        assert_eq!(words[4..], [bf16(9.0), 0]);
        let scaling = channel_scaling(channel_scale(&[127.0, -1.0]));
        encode(Scalar, Format::Int8, scaling, &[1.0, -2.0, 3.0, -4.0, 5.0], &mut words);
        assert_eq!(words[0].to_le_bytes().map(|byte| byte as i8), [1, -2, 3, -4]);
        assert_eq!(words[1..3], [5, 0]);
    }

    #[test]
    fn widened_words_hold_the_same_integers() {
        let values: Vec<f32> = (0..301).map(|i| (i * 53 % 256) as f32).collect();
        let scaling = Quantization { scale: 1.0, offset: 0.0 }.scaling();
        let mut words = [u32::MAX; 152];
        encode_as(Scalar, Format::Int16, Format::Int8, scaling, &values, &mut words);
        // The even bytes of each four, then the odd ones.
        for (words, values) in words.chunks(2).zip(values.chunks(4)) {
            let of = |i: usize| values.get(i).map_or(0, |&x| x as u32);
            assert_eq!(words, [of(0) | (of(2) << 16), of(1) | (of(3) << 16)]);
        }
    }

    /// Except for subnormal numbers, which the instructions take for zero.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn instructions_pack_as_plain_code_does() {
        use crate::kernels::x86::{Avx2, Avx512};

        fn compare<S: Encode>(simd: S) {
            let every = (0..=u32::MAX).step_by(9973).map(f32::from_bits);
            let special = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -0.0, f32::MAX, -2.5, 2.5];
            let values: Vec<f32> = every.chain(special).filter(|x| !x.is_subnormal()).collect();
            let bytes: Vec<f32> = (0..2048).map(|i| i as f32 / 8.0 - 0.3).collect();
            let scaling = Quantization { scale: 0.9, offset: -0.7 }.scaling();
            // Of every length around the registers.
            for n in (0..100).chain([values.len()]) {
                for (format, scaling, values) in [
                    (Format::F32, Scaling::NONE, &values),
                    (Format::Bf16, Scaling::NONE, &values),
                    (Format::Bf16Pairs, Scaling::NONE, &values),
                    (Format::Int8, scaling, &bytes),
                ] {
                    let values = &values[values.len() - n.min(values.len())..];
                    let mut got = vec![u32::MAX; format.words(n, PAIRS)];
                    let mut want = got.clone();
                    encode(simd, format, scaling, values, &mut got);
                    encode(Scalar, format, scaling, values, &mut want);
                    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                        // The rounding error may be subnormal.
                        let halves =
                            |word: u32| [word << 16, word & 0xFFFF_0000].map(f32::from_bits);
                        let same =
                            halves(*got).into_iter().zip(halves(*want)).all(|(got, want)| {
                                got.to_bits() == want.to_bits()
                                    || got == 0.0 && want.abs() <= f32::MIN_POSITIVE
                            });
                        let same = if format == Format::Bf16Pairs { same } else { got == want };
                        assert!(same, "{format:?}, {n} values, word {i}: {got:#x} {want:#x}");
                    }
                }
                let (even, odd) = values[..n].split_at(n / 2);
                let mut got = vec![u32::MAX; n - n / 2];
                let mut want = got.clone();
                for odd in [odd, &[]] {
                    let row = |i: usize| if i == 0 { even } else { odd };
                    encode_pair_of_rows(simd, Format::Bf16, 0, row, &mut got);
                    encode_pair_of_rows(Scalar, Format::Bf16, 0, row, &mut want);
                    assert_eq!(got, want, "{n}");
                }
            }
        }
        if let Some(simd) = Avx2::detect() {
            compare(simd);
        }
        if let Some(simd) = Avx512::detect() {
            compare(simd);
        }
    }

    #[test]
    fn pairs_hold_sixteen_bits() {
        let values: Vec<f32> = (0..40).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
        let mut words = [u32::MAX; 64];
        encode(Scalar, Format::Bf16Pairs, Scaling::NONE, &values, &mut words);
        for (i, &x) in values.iter().enumerate() {
            let half = |start: usize| {
                let word = words[i / PAIRS * PAIRS + start + i % PAIRS / 2];
                f32::from_bits((word >> (16 * (i % 2))) << 16)
            };
            let (high, low) = (half(0), half(PAIRS / 2));
            assert!((high - x).abs() <= x.abs() / 256.0, "{x}: {high}");
            assert!((high + low - x).abs() <= x.abs() / 65536.0, "{x}: {high} + {low}");
        }
        assert!(words[36..48].iter().all(|&word| word == 0));
        encode(Scalar, Format::Bf16Pairs, Scaling::NONE, &[f32::INFINITY], &mut words);
        assert_eq!((words[0], words[16]), (0x7F80, 0));
    }
}
