//! [`Element`]: the element type of rows of `A` and of results.

use std::ops::Range;

use half::bf16;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::format::{Encode, Format};

/// `f32`, or bf16 for results that go into nothing but another product which rounds them anyway, to
/// bf16 or to integers: half of the memory to write and to read.
pub trait Element: Copy + Send + Sync + FromBytes + IntoBytes + Immutable + 'static {
    /// The format of packed words that a row in memory already has.
    const FORMAT: Format;

    /// Its value.
    fn to_f32(self) -> f32;

    /// Rounds the first values of each `stride` of `values` into columns `place`, N at most, of a
    /// row each.
    fn write<const N: usize, S: Encode>(
        simd: S,
        values: &[f32],
        stride: usize,
        rows: &mut [&mut [Self]],
        place: Range<usize>,
    );
}

impl Element for f32 {
    const FORMAT: Format = Format::F32;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn write<const N: usize, S: Encode>(
        _: S,
        values: &[f32],
        stride: usize,
        rows: &mut [&mut [f32]],
        place: Range<usize>,
    ) {
        for (row, values) in rows.iter_mut().zip(values.chunks(stride)) {
            let out = &mut row[place.clone()];
            // For whole panels the length is a compile-time constant.
            match (out.first_chunk_mut::<N>(), values.first_chunk()) {
                (Some(out), Some(values)) => *out = *values,
                _ => out.copy_from_slice(&values[..place.len()]),
            }
        }
    }
}

impl Element for bf16 {
    const FORMAT: Format = Format::Bf16;

    /// Unlike `half::bf16::to_f32`, without a branch for NaN.
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn write<const N: usize, S: Encode>(
        simd: S,
        values: &[f32],
        stride: usize,
        rows: &mut [&mut [bf16]],
        place: Range<usize>,
    ) {
        simd.round_rows(values, stride, rows, place);
    }
}

/// The row itself, if its elements are `f32`.
#[inline(always)]
pub(super) fn floats<E: Element>(row: &[E]) -> Option<&[f32]> {
    if E::FORMAT == Format::F32 { <[f32]>::ref_from_bytes(row.as_bytes()).ok() } else { None }
}

/// The values of `row`: itself, or `own` filled with them.
#[inline(always)]
pub(super) fn to_floats<'a, E: Element>(row: &'a [E], own: &'a mut Vec<f32>) -> &'a [f32] {
    if let Some(row) = floats(row) {
        return row;
    }
    own.resize(row.len(), 0.0);
    own.iter_mut().zip(row).for_each(|(y, x)| *y = x.to_f32());
    own
}

/// Whether a row of `E` in memory already is a row of words of `format`: the first value of a word
/// is its lower half.
#[inline(always)]
pub(super) fn is_packed<E: Element>(format: Format) -> bool {
    E::FORMAT == format && (format == Format::F32 || cfg!(target_endian = "little"))
}

/// Copies a row that [is already packed](is_packed); fills the rest of `words` with zeros.
#[inline(always)]
pub(super) fn copy_words<E: Element>(row: &[E], words: &mut [u32]) {
    let (bytes, words) = (row.as_bytes(), words.as_mut_bytes());
    let (there, rest) = words.split_at_mut(bytes.len());
    there.copy_from_slice(bytes);
    rest.fill(0);
}

/// Packs pairs of a bf16 of `even` and one of `odd`, which may be empty; fills the rest of `words`
/// with zeros.
#[inline(always)]
pub(super) fn pair_rows<E: Element>(even: &[E], odd: &[E], words: &mut [u32]) {
    let halves = |row| <[u16]>::ref_from_bytes(row).expect("two bytes each");
    let (even, odd) = (halves(even.as_bytes()), halves(odd.as_bytes()));
    words.fill(0);
    words.iter_mut().zip(even).for_each(|(word, &x)| *word = u32::from(x));
    words.iter_mut().zip(odd).for_each(|(word, &x)| *word |= u32::from(x) << 16);
}
