//! Layer normalisation of one row.

use super::isa::Isa;
use super::lanes::{LANES, fold, sum, update_with, zip};
use super::simd::{Kernel, Tier};

/// Normalises `row` in place to zero mean and unit variance, then scales and shifts it:
///
/// ```text
/// row[i] ← (row[i] − mean) / √(variance + eps) · gain[i] + bias[i]
/// ```
///
/// `row`, `gain`, `bias`: `[D]`. The variance is the biased one (divided by `D`); `eps` is added
/// inside the root. Two passes, so that a large mean does not cancel the variance.
///
/// Source: Ba et al. 2016, eq. 4, <https://arxiv.org/abs/1607.06450>.
///
/// # Panics
///
/// If the three lengths differ.
pub fn layer_norm(isa: Isa, row: &mut [f32], gain: &[f32], bias: &[f32], eps: f32) {
    check(row, gain, bias);
    isa.run(LayerNorm { row, residual: &[], gain, bias, eps });
}

/// [`layer_norm`] of `row + residual`, in place of `row`.
///
/// # Panics
///
/// If the four lengths differ.
pub fn add_layer_norm(
    isa: Isa,
    row: &mut [f32],
    residual: &[f32],
    gain: &[f32],
    bias: &[f32],
    eps: f32,
) {
    check(row, gain, bias);
    assert_eq!(row.len(), residual.len(), "layer_norm: one residual for each value");
    isa.run(LayerNorm { row, residual, gain, bias, eps });
}

fn check(row: &[f32], gain: &[f32], bias: &[f32]) {
    assert!(
        row.len() == gain.len() && row.len() == bias.len(),
        "layer_norm: a row of {} values, {} gains, {} biases",
        row.len(),
        gain.len(),
        bias.len()
    );
}

struct LayerNorm<'a> {
    row: &'a mut [f32],
    /// Added first; empty for nothing.
    residual: &'a [f32],
    gain: &'a [f32],
    bias: &'a [f32],
    eps: f32,
}

impl Kernel for LayerNorm<'_> {
    #[inline(always)]
    fn run<S: Tier>(self, simd: S) {
        let Self { row, residual, gain, bias, eps } = self;
        let scale = 1.0 / row.len() as f32;
        let total = if residual.is_empty() {
            sum(row, 0.0, |x| x)
        } else {
            let mut sums = [0.0; LANES];
            update_with(row, residual, (0.0, 0.0), |x, residual| {
                let x = zip(x, residual, |x, residual| x + residual);
                sums = zip(sums, x, |sum, x| sum + x);
                x
            });
            fold(sums, |a, b| a + b)
        };
        let mean = total * scale;
        let variance = sum(row, mean, |x| (x - mean) * (x - mean)) * scale;
        let inverse = 1.0 / (variance + eps).sqrt();
        for ((x, gain), bias) in row.iter_mut().zip(gain).zip(bias) {
            *x = simd.mul_add((*x - mean) * inverse, *gain, *bias);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{assert_close, reference};

    #[test]
    fn every_isa_agrees_with_f64_for_every_width_around_the_lanes() {
        for d in [0, 1, 2, 15, 16, 17, 31, 32, 33, 768, 769] {
            let row: Vec<f32> = (0..d).map(|i| 5.0 + (i as f32 * 0.37).sin()).collect();
            let residual: Vec<f32> = (0..d).map(|i| (i as f32 * 0.91).cos() - 2.0).collect();
            let gain: Vec<f32> = (0..d).map(|i| 1.0 + 0.1 * (i as f32).cos()).collect();
            let bias: Vec<f32> = (0..d).map(|i| 0.2 * (i as f32 * 1.7).sin()).collect();
            let eps = 1e-5;
            let plain = reference::layer_norm(&row, &gain, &bias, eps);
            let added = reference::add_layer_norm(&row, &residual, &gain, &bias, eps);
            for &isa in Isa::available() {
                // The mean is near 5, or near 3 with the residual, and the spread near 1: rounding
                // the mean to f32 (2.4e-7) and the differences is all that is lost, a few times
                // over.
                let mut got = row.clone();
                layer_norm(isa, &mut got, &gain, &bias, eps);
                assert_close(&got, &plain, 3e-6);
                let mut got = row.clone();
                add_layer_norm(isa, &mut got, &residual, &gain, &bias, eps);
                assert_close(&got, &added, 3e-6);
            }
        }
    }

    #[test]
    fn a_constant_row_becomes_the_bias() {
        for &isa in Isa::available() {
            let mut row = [3.0; 5];
            layer_norm(isa, &mut row, &[2.0; 5], &[0.5; 5], 1e-5);
            assert_eq!(row, [0.5; 5]);
        }
    }
}
