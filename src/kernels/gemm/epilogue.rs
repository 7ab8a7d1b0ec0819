//! The epilogue: accumulators of a product become numbers, with the bias added and the activation
//! applied.

use std::ops;

use zerocopy::{FromBytes, IntoBytes};

use super::Epilogue;
use super::element::Element;
use super::format::{Encode, Format, Quantization};
use super::packed::Factor;
use crate::kernels::activation::{Activation, activate};

/// How accumulators become results.
pub(super) struct ApplyEpilogue<'a> {
    pub(super) b: Factor<'a>,
    pub(super) epilogue: Epilogue<'a>,
    /// The format of the words that were multiplied: accumulators are the bits of `f32`s, or 32-bit
    /// integers.
    pub(super) format: Format,
    /// Column of `b` where the result begins.
    pub(super) column: usize,
    /// How the rows of `A` were quantised; empty if they were not.
    pub(super) quantization: &'a [Quantization],
}

impl ApplyEpilogue<'_> {
    /// Writes columns `place` of `rows` from the accumulators of a panel, `stride` a row. Clobbers
    /// the accumulators.
    ///
    /// # Panics
    ///
    /// If `stride` is not a multiple of 4.
    #[inline(always)]
    pub(super) fn panel<S: Encode, C: Element>(
        &self,
        simd: S,
        sums: &mut [u32],
        stride: usize,
        rows: &mut [&mut [C]],
        place: ops::Range<usize>,
    ) {
        match stride {
            32 => self.columns::<32, S, C>(simd, sums, stride, rows, place),
            16 => self.columns::<16, S, C>(simd, sums, stride, rows, place),
            8 => self.columns::<8, S, C>(simd, sums, stride, rows, place),
            _ => {
                assert!(stride.is_multiple_of(4), "a panel of {stride} columns");
                for (i, start) in place.clone().step_by(4).enumerate() {
                    let place = start..(start + 4).min(place.end);
                    self.columns::<4, S, C>(simd, &mut sums[4 * i..], stride, rows, place);
                }
            }
        }
    }

    /// Writes columns `place` of `rows`, N at most, from the first N of each `stride` sums, in
    /// whose place there is afterwards anything. What belongs to the columns stays in registers for
    /// all rows.
    ///
    /// The sums become the result where they stand, in the first-level cache, and are then copied
    /// or rounded: loops that read here and write there are not vectorised, since the two might
    /// overlap.
    #[inline(always)]
    pub(super) fn columns<const N: usize, S: Encode, C: Element>(
        &self,
        simd: S,
        sums: &mut [u32],
        stride: usize,
        rows: &mut [&mut [C]],
        place: ops::Range<usize>,
    ) {
        let used = (rows.len() * stride).min(sums.len());
        let sums = &mut sums[..used];
        let (bias, activation) = match self.epilogue {
            Epilogue::None => (None, Activation::Identity),
            Epilogue::Bias(bias, activation) => (Some(bias), activation),
        };
        let first = self.column + place.start;
        let bias = bias.map(|bias| first_of::<N>(&bias[first..]));
        let each_row =
            sums.chunks_mut(stride).map(|row| row.first_chunk_mut::<N>().expect("N columns"));
        if !self.quantization.is_empty() {
            let bias = bias.unwrap_or([0.0; N]);
            let scales = first_of::<N>(&self.b.scales[first..]);
            let totals = first_of::<N>(&self.b.sums[first..]);
            let integers = matches!(self.format, Format::Int8 | Format::Int16);
            for (row, range) in each_row.zip(self.quantization) {
                let channels = scales.iter().zip(&totals).zip(&bias);
                for (x, ((scale, total), bias)) in row.iter_mut().zip(channels) {
                    let sum = if integers { *x as i32 as f32 } else { f32::from_bits(*x) };
                    // Σ (scale · q + offset) · (channel_scale · p) = channel_scale · (scale · Σ q·p
                    // + offset · Σ p)
                    let sum = scale * simd.mul_add(range.scale, sum, range.offset * total);
                    *x = (sum + bias).to_bits();
                }
            }
        } else if let Some(bias) = bias {
            for row in each_row {
                for (x, bias) in row.iter_mut().zip(&bias) {
                    *x = (f32::from_bits(*x) + bias).to_bits();
                }
            }
        }
        let values = <[f32]>::mut_from_bytes(sums.as_mut_bytes()).expect("of the same size");
        // All at once if they follow each other.
        let (step, length) = if stride == N { (used, used) } else { (stride, N) };
        values.chunks_mut(step.max(1)).for_each(|x| activate(simd, activation, &mut x[..length]));
        C::write::<N, S>(simd, values, stride, rows, place);
    }
}

/// The first N values, followed by zeros if there are fewer.
#[inline(always)]
fn first_of<const N: usize>(values: &[f32]) -> [f32; N] {
    // For whole panels the length is a compile-time constant.
    values.first_chunk().copied().unwrap_or_else(|| {
        let mut own = [0.0; N];
        own[..values.len()].copy_from_slice(values);
        own
    })
}
