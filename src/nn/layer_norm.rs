//! [`LayerNorm`]: each row to zero mean and unit variance, then a learned scale and shift.

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis};

use super::parameters;
use crate::checkpoint::Weights;
use crate::error::Result;
use crate::kernels::isa::Isa;
use crate::kernels::{Team, add_layer_norm, layer_norm};

/// Rows normalised by one task: some 50 µs of work at the width of the base model.
const ROWS: usize = 64;

parameters! {
    /// The parameters of a layer normalisation.
    pub struct LayerNormParameters {
        /// The gain, `[D]`.
        weight: Array1<f32> = "weight",
        /// `[D]`
        bias: Array1<f32> = "bias",
    }
}

impl LayerNormParameters {
    pub(crate) fn zeros(d: usize) -> Self {
        Self { weight: Array1::zeros(d), bias: Array1::zeros(d) }
    }
}

/// Layer normalisation over the last axis.
#[derive(Debug, Clone)]
pub(crate) struct LayerNorm {
    /// `[D]`
    gain: Array1<f32>,
    /// `[D]`
    bias: Array1<f32>,
    eps: f32,
    isa: Isa,
}

impl LayerNorm {
    /// `D`
    pub(crate) fn width(&self) -> usize {
        self.gain.len()
    }

    /// Reads `weight` and `bias`, `[d]` each.
    pub(crate) fn prepare(w: &Weights, d: usize, eps: f32, isa: Isa) -> Result<Self> {
        let (gain, bias) = (w.vector("weight", d)?, w.vector("bias", d)?);
        Ok(Self { gain, bias, eps, isa })
    }

    /// Normalises each row of `x: [N, D]`.
    pub(crate) fn forward(&self, mut x: Array2<f32>) -> Array2<f32> {
        let pieces = x.axis_chunks_iter_mut(Axis(0), ROWS).collect();
        Team::gather().for_each(pieces, |mut rows: ArrayViewMut2<f32>| {
            for mut row in rows.rows_mut() {
                self.normalise(row.as_slice_mut().expect(CONTIGUOUS));
            }
        });
        x
    }

    /// Adds `residual` to `x`, `[N, D]` both, and normalises each row of the sum.
    pub(crate) fn add_and_normalise(
        &self,
        team: &Team,
        mut x: ArrayViewMut2<f32>,
        residual: ArrayView2<f32>,
    ) {
        let rows = x.axis_chunks_iter_mut(Axis(0), ROWS);
        let pieces = rows.into_iter().zip(residual.axis_chunks_iter(Axis(0), ROWS)).collect();
        team.for_each(pieces, |(mut rows, residuals): (ArrayViewMut2<f32>, ArrayView2<f32>)| {
            for (mut row, residual) in rows.rows_mut().into_iter().zip(residuals.rows()) {
                let row = row.as_slice_mut().expect(CONTIGUOUS);
                let residual = residual.to_slice().expect(CONTIGUOUS);
                let (gain, bias) = self.parameters();
                add_layer_norm(self.isa, row, residual, gain, bias, self.eps);
            }
        });
    }

    pub(crate) fn normalise(&self, row: &mut [f32]) {
        let (gain, bias) = self.parameters();
        layer_norm(self.isa, row, gain, bias, self.eps);
    }

    /// Gain and bias, `[D]` each.
    pub(super) fn parameters(&self) -> (&[f32], &[f32]) {
        (self.gain.as_slice().expect(CONTIGUOUS), self.bias.as_slice().expect(CONTIGUOUS))
    }
}

const CONTIGUOUS: &str = "rows of an owned array are contiguous";
