//! `binary` and `ubinary`: one bit for each component.

use ndarray::{Array2, ArrayRef2, Axis};
use rayon::prelude::*;

use crate::error::Result;
use crate::rows::finite;

/// A bit for each component of `embeddings` `[B, D]`, 1 if it is above 0: `[B, ⌈D/8⌉]`, the first
/// in the highest bit of the first byte, the last byte filled up with 0, as numpy's `packbits`.
///
/// ```
/// use mpnet::{ndarray::arr2, quantization::quantize_ubinary};
///
/// let bits = quantize_ubinary(&arr2(&[[0.5_f32, -0.5, 0.1, 0.0]]).view())?;
/// assert_eq!(bits, arr2(&[[0b1010_0000]]));
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// [`InputProblem::NotFinite`](crate::InputProblem::NotFinite) for an embedding with a value that
/// is infinite or not a number.
pub fn quantize_ubinary(embeddings: &ArrayRef2<f32>) -> Result<Array2<u8>> {
    finite("embeddings", embeddings)?;
    let (rows, d) = embeddings.dim();
    let mut out = Array2::zeros((rows, d.div_ceil(8)));
    let rows = embeddings.axis_iter(Axis(0)).into_par_iter();
    out.axis_iter_mut(Axis(0)).into_par_iter().zip(rows).for_each(|(mut out, row)| {
        for (k, &x) in row.iter().enumerate() {
            out[k / 8] |= u8::from(x > 0.0) << (7 - k % 8);
        }
    });
    Ok(out)
}

/// As [`quantize_ubinary`], each byte minus 128.
///
/// ```
/// use mpnet::{ndarray::arr2, quantization::quantize_binary};
///
/// let bits = quantize_binary(&arr2(&[[0.5_f32, -0.5, 0.1, 0.0]]).view())?;
/// assert_eq!(bits, arr2(&[[0b1010_0000_u8 as i8 ^ -128]])); // 160 − 128
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// As of [`quantize_ubinary`].
pub fn quantize_binary(embeddings: &ArrayRef2<f32>) -> Result<Array2<i8>> {
    Ok(quantize_ubinary(embeddings)?.mapv(|byte| (byte ^ 0x80) as i8))
}

/// The bit of component `k` in a row of [`quantize_ubinary`].
pub(crate) fn bit(k: usize, byte: impl Fn(usize) -> u8) -> bool {
    byte(k / 8) >> (7 - k % 8) & 1 == 1
}
