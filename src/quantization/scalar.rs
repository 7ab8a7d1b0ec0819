//! `int8` and `uint8`: one of 256 buckets for each component.

use ndarray::{Array2, ArrayRef2, Axis};
use rayon::prelude::*;

use super::ranges::Ranges;
use crate::error::Result;
use crate::rows::finite;

/// The bucket of each component of `embeddings` `[B, D]`, from 0 to 255:
///
/// ```text
/// q = clip(⌊(x − lo) / step⌋, 0, 255),    step = (hi − lo) / 255, or 1 where that is 0
/// ```
///
/// in `f32`, so that the largest value itself may fall into bucket 254.
///
/// ```
/// use mpnet::{ndarray::arr2, quantization::{Ranges, quantize_uint8}};
///
/// let ranges = Ranges::new(arr2(&[[0.0_f32], [255.0]]))?;
/// let bytes = quantize_uint8(&arr2(&[[-9.0_f32], [7.9], [999.0]]).view(), &ranges)?;
/// assert_eq!(bytes, arr2(&[[0], [7], [255]]));
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// [`InputProblem::Width`](crate::InputProblem::Width) for ranges of another width,
/// [`InputProblem::NotFinite`](crate::InputProblem::NotFinite) for an embedding with a value that
/// is infinite or not a number.
pub fn quantize_uint8(embeddings: &ArrayRef2<f32>, ranges: &Ranges) -> Result<Array2<u8>> {
    ranges.fit(embeddings.ncols())?;
    finite("embeddings", embeddings)?;
    let (starts, steps) = (ranges.starts(), ranges.steps());
    let mut out = Array2::zeros(embeddings.dim());
    let rows = embeddings.axis_iter(Axis(0)).into_par_iter();
    out.axis_iter_mut(Axis(0)).into_par_iter().zip(rows).for_each(|(out, row)| {
        for (((out, &x), &start), &step) in out.into_iter().zip(row).zip(&starts).zip(&steps) {
            *out = ((x - start) / step).floor().clamp(0.0, 255.0) as u8;
        }
    });
    Ok(out)
}

/// As [`quantize_uint8`], minus 128.
///
/// ```
/// use mpnet::{ndarray::arr2, quantization::{Ranges, quantize_int8}};
///
/// let ranges = Ranges::new(arr2(&[[-1.0_f32], [1.0]]))?;
/// let bytes = quantize_int8(&arr2(&[[-9.0_f32], [0.0], [9.0]]).view(), &ranges)?;
/// assert_eq!(bytes, arr2(&[[-128], [-1], [127]]));
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// As of [`quantize_uint8`].
pub fn quantize_int8(embeddings: &ArrayRef2<f32>, ranges: &Ranges) -> Result<Array2<i8>> {
    Ok(quantize_uint8(embeddings, ranges)?.mapv(to_signed))
}

/// The lower end of each bucket: `q · step + lo`, `[B, D]`.
///
/// ```
/// use mpnet::ndarray::arr2;
/// use mpnet::quantization::{Ranges, dequantize_uint8, quantize_uint8};
///
/// let embeddings = arr2(&[[-1.0_f32, 0.3], [1.0, 0.5]]);
/// let ranges = Ranges::calibrate(&embeddings.view())?;
/// let back = dequantize_uint8(&quantize_uint8(&embeddings.view(), &ranges)?.view(), &ranges)?;
/// assert!((&back - &embeddings).iter().all(|difference| difference.abs() <= 2.0 / 255.0));
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// [`InputProblem::Width`](crate::InputProblem::Width) for ranges of another width.
pub fn dequantize_uint8(embeddings: &ArrayRef2<u8>, ranges: &Ranges) -> Result<Array2<f32>> {
    ranges.fit(embeddings.ncols())?;
    let (starts, steps) = (ranges.starts(), ranges.steps());
    let mut out = Array2::zeros(embeddings.dim());
    let rows = embeddings.axis_iter(Axis(0)).into_par_iter();
    out.axis_iter_mut(Axis(0)).into_par_iter().zip(rows).for_each(|(out, row)| {
        for (((out, &bucket), &start), &step) in out.into_iter().zip(row).zip(&starts).zip(&steps) {
            *out = f32::from(bucket) * step + start;
        }
    });
    Ok(out)
}

/// As [`dequantize_uint8`], of what [`quantize_int8`] made.
///
/// ```
/// use mpnet::{ndarray::arr2, quantization::{Ranges, dequantize_int8}};
///
/// let ranges = Ranges::new(arr2(&[[0.0_f32], [255.0]]))?;
/// assert_eq!(dequantize_int8(&arr2(&[[-128], [0]]).view(), &ranges)?, arr2(&[[0.0], [128.0]]));
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// As of [`dequantize_uint8`].
pub fn dequantize_int8(embeddings: &ArrayRef2<i8>, ranges: &Ranges) -> Result<Array2<f32>> {
    dequantize_uint8(&embeddings.mapv(to_unsigned).view(), ranges)
}

/// `bucket − 128`
fn to_signed(bucket: u8) -> i8 {
    (bucket ^ 0x80) as i8
}

/// `bucket + 128`
fn to_unsigned(bucket: i8) -> u8 {
    bucket as u8 ^ 0x80
}
