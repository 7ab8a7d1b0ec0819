//! [`Linear`]: `y = x · Wᵀ + b`.

use std::iter;

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2};

use super::{LayerNorm, Placement, parameters};
use crate::checkpoint::Weights;
use crate::error::Result;
use crate::kernels::Team;
use crate::kernels::activation::Activation;
use crate::kernels::gemm::{Element, Epilogue, Factor, PackedMatrix, par_matmul};

parameters! {
    /// The parameters of a linear layer, `in` → `out`.
    pub struct LinearParameters {
        /// `[out, in]`
        weight: Array2<f32> = "weight",
        /// `[out]`
        bias: Array1<f32> = "bias",
    }
}

impl LinearParameters {
    pub(crate) fn zeros(input: usize, output: usize) -> Self {
        Self { weight: Array2::zeros((output, input)), bias: Array1::zeros(output) }
    }
}

/// A linear layer, `in` → `out`, prepared for products.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// `[out, in]`
    weight: PackedMatrix,
    /// `[out]`
    bias: Array1<f32>,
}

/// How a layer computes whose weights are rounded to integers. Other layers have one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    /// On integers.
    Reduced,
    /// On `f32`s, with the residuals of the rounded weights where they were kept.
    Full,
}

/// How weights are rounded to integers. In other precisions nothing of it applies.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rounding<'a> {
    /// Moves the range of large input columns into the weights.
    pub(crate) smoothing: Option<Smoothing<'a>>,
    /// Whether the residuals of rounding are kept too, for [`Arithmetic::Full`].
    pub(crate) keeps_rest: bool,
}

/// The LayerNorm whose output is the input of a linear layer: it tells how large each column is.
///
/// Source: Xiao et al. 2022, SmoothQuant, <https://arxiv.org/abs/2211.10438>, with ranges from
/// parameters where the paper takes them from sample texts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Smoothing<'a> {
    pub(crate) norm: &'a LayerNorm,
    /// The largest weights behind each column of the LayerNorm's input, `[in]`; empty if they are
    /// not known.
    pub(crate) peaks: &'a [f32],
}

impl Smoothing<'_> {
    /// The largest magnitude expected in each column of the LayerNorm's output, `[in]`: a number of
    /// standard deviations from 0, plus the mean.
    ///
    /// Most columns stay within three. A few have weights far above the others', and are far from
    /// the mean for some tokens; no value of a row is further from its mean than `√in` standard
    /// deviations.
    fn magnitudes(&self) -> Vec<f32> {
        const USUAL: f32 = 3.0;
        let (gain, bias) = self.norm.parameters();
        let most = (gain.len() as f32).sqrt().max(USUAL);
        let median = median(self.peaks);
        let deviations = |peak: &f32| match median {
            median if median > 0.0 => (peak / median).clamp(USUAL, most),
            _ => USUAL,
        };
        let deviations = self.peaks.iter().map(deviations).chain(iter::repeat(USUAL));
        let columns = gain.iter().zip(bias).zip(deviations);
        columns.map(|((gain, bias), times)| times * gain.abs() + bias.abs()).collect()
    }
}

/// The middle value; 0 if there are none.
fn median(values: &[f32]) -> f32 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

impl Linear {
    /// Prepares the layer with `weight` `[output, input]` and `bias` `[output]` at `w`.
    pub(crate) fn prepare(
        w: &Weights,
        (input, output): (usize, usize),
        at: &Placement,
    ) -> Result<Self> {
        Self::fused(&[w], (input, output), at, Rounding::default())
    }

    /// Prepares several layers, `[output, input]` each, as one: its output is the outputs of all,
    /// one after another.
    ///
    /// # Panics
    ///
    /// If `layers` is empty.
    pub(crate) fn fused(
        layers: &[&Weights],
        (input, output): (usize, usize),
        at: &Placement,
        Rounding { smoothing, keeps_rest }: Rounding,
    ) -> Result<Self> {
        let magnitudes = smoothing.map(|smoothing| smoothing.magnitudes());
        let weight = at.matrix(layers, (output, input), magnitudes.as_deref(), keeps_rest)?;
        let biases = layers.iter().map(|w| w.vector("bias", output)).collect::<Result<Vec<_>>>()?;
        Ok(Self { weight, bias: biases.iter().flatten().copied().collect() })
    }

    /// Prepares the layer with `weight` `[output, input]` at `w` and this bias.
    pub(crate) fn with_bias(
        w: &Weights,
        input: usize,
        bias: Array1<f32>,
        at: &Placement,
    ) -> Result<Self> {
        let weight = at.matrix(&[w], (bias.len(), input), None, false)?;
        Ok(Self { weight, bias })
    }

    /// The largest weight behind each column of its result, `[out]`; empty where weights are not
    /// rounded to integers.
    pub(crate) fn peaks(&self) -> &[f32] {
        self.weight.peaks()
    }

    /// Whether the residuals of its rounded weights were kept: see [`Arithmetic::Full`].
    pub(crate) fn has_rest(&self) -> bool {
        self.weight.has_rest()
    }

    fn factor(&self, arithmetic: Arithmetic) -> Factor<'_> {
        match arithmetic {
            Arithmetic::Reduced => (&self.weight).into(),
            Arithmetic::Full => self.weight.in_full(),
        }
    }

    /// Width of the result.
    pub(crate) fn outputs(&self) -> usize {
        self.weight.columns()
    }

    /// `activation(x · Wᵀ + b)`; `x: [N, in]` → `[N, out]`.
    pub(crate) fn forward(&self, x: ArrayView2<f32>, activation: Activation) -> Array2<f32> {
        let mut out = Array2::zeros((x.nrows(), self.outputs()));
        self.forward_into(&Team::gather(), Arithmetic::Reduced, x, activation, out.view_mut());
        out
    }

    /// `out = activation(x · Wᵀ + b)`; `x: [N, in]`, `out: [N, out]`. Bias and activation are
    /// applied while a piece of the product is still in cache.
    pub(crate) fn forward_into<A: Element, C: Element>(
        &self,
        team: &Team,
        arithmetic: Arithmetic,
        x: ArrayView2<A>,
        activation: Activation,
        out: ArrayViewMut2<C>,
    ) {
        let bias = self.bias.as_slice().expect("read as one contiguous row");
        par_matmul(team, x, self.factor(arithmetic), out, Epilogue::Bias(bias, activation));
    }
}
