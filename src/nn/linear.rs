//! [`Linear`]: `y = x · Wᵀ + b`.

use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate};

use super::activate;
use crate::checkpoint::Weights;
use crate::config::Activation;
use crate::error::Result;
use crate::kernels::gemm::par_matmul;

/// A linear layer, `in` → `out`.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// `[out, in]`, as checkpoints store it.
    weight: Array2<f32>,
    /// `[out]`
    bias: Array1<f32>,
}

impl Linear {
    /// Reads `weight` `[output, input]` and `bias` `[output]`.
    pub(crate) fn load(w: &Weights, input: usize, output: usize) -> Result<Self> {
        Ok(Self { weight: w.matrix("weight", output, input)?, bias: w.vector("bias", output)? })
    }

    /// As [`Linear::load`], with a bias of zeros.
    pub(crate) fn load_without_bias(w: &Weights, input: usize, output: usize) -> Result<Self> {
        Ok(Self { weight: w.matrix("weight", output, input)?, bias: Array1::zeros(output) })
    }

    /// One layer whose output is the outputs of `layers` one after another: one product instead of several.
    ///
    /// # Panics
    ///
    /// If the layers' inputs differ in width.
    pub(crate) fn stack(layers: &[Self]) -> Self {
        let weights: Vec<_> = layers.iter().map(|layer| layer.weight.view()).collect();
        let biases: Vec<_> = layers.iter().map(|layer| layer.bias.view()).collect();
        Self {
            weight: concatenate(Axis(0), &weights).expect("stacked layers have one input"),
            bias: concatenate(Axis(0), &biases).expect("vectors always fit"),
        }
    }

    /// `x: [N, in]` → `[N, out]`
    pub(crate) fn forward(&self, x: ArrayView2<f32>) -> Array2<f32> {
        self.forward_activated(x, Activation::Identity)
    }

    /// `activation(x · Wᵀ + b)`; `x: [N, in]` → `[N, out]`. Bias and activation are applied while a piece of the product
    /// is still in cache.
    pub(crate) fn forward_activated(
        &self,
        x: ArrayView2<f32>,
        activation: Activation,
    ) -> Array2<f32> {
        let mut out = Array2::zeros((x.nrows(), self.weight.nrows()));
        let bias = self.bias.as_slice().expect("read as one contiguous row");
        par_matmul(x, self.weight.view(), out.view_mut(), |row, column| {
            let length = row.len();
            for (y, b) in row.iter_mut().zip(&bias[column..column + length]) {
                *y += b;
            }
            activate(activation, row);
        });
        out
    }
}
