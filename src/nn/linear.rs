//! [`Linear`]: `y = x · Wᵀ + b`.

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis, concatenate};

use crate::checkpoint::Weights;
use crate::error::Result;
use crate::kernels::Team;
use crate::kernels::activation::Activation;
use crate::kernels::gemm::{Element, Epilogue, Factor, PackedMatrix, par_matmul};
use crate::nn::LayerNorm;

/// A linear layer, `in` → `out`.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// `[out, in]`
    weight: PackedMatrix,
    /// `[out]`
    bias: Array1<f32>,
}

/// How a layer computes whose weights are rounded to integers; of others it makes no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    /// On integers.
    Reduced,
    /// On `f32`s, of what rounding has left of the weights too, if that was kept.
    Full,
}

/// What makes the input of a linear layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) norm: &'a LayerNorm,
    /// See [`LayerNorm::magnitudes`].
    pub(crate) peaks: &'a [f32],
}

impl Linear {
    /// Reads `weight` `[output, input]` and `bias` `[output]`.
    pub(crate) fn load(w: &Weights, input: usize, output: usize) -> Result<Self> {
        let weight = w.packed("weight", output, input)?;
        Ok(Self { weight, bias: w.vector("bias", output)? })
    }

    /// A layer of a `weight` `[out, in]` and a `bias` `[out]` that do not stand side by side, packed as `w` asks for.
    pub(crate) fn new(w: &Weights, weight: ArrayView2<f32>, bias: Array1<f32>) -> Self {
        Self { weight: w.pack(weight), bias }
    }

    /// As [`Linear::load`], with a bias of zeros.
    pub(crate) fn load_without_bias(w: &Weights, input: usize, output: usize) -> Result<Self> {
        let weight = w.packed("weight", output, input)?;
        Ok(Self { weight, bias: Array1::zeros(output) })
    }

    /// One layer whose output is the outputs of several, `[output]` each, one after another: one product instead of
    /// several.
    ///
    /// # Panics
    ///
    /// If `layers` is empty.
    pub(crate) fn load_after(
        source: Source,
        layers: &[&Weights],
        input: usize,
        output: usize,
    ) -> Result<Self> {
        let magnitudes = source.norm.magnitudes(source.peaks);
        let weight = Weights::stacked(layers, "weight", output, input, Some(&magnitudes))?;
        let biases = layers.iter().map(|w| w.vector("bias", output)).collect::<Result<Vec<_>>>()?;
        let biases: Vec<_> = biases.iter().map(|bias| bias.view()).collect();
        let bias = concatenate(Axis(0), &biases).expect("vectors always fit");
        Ok(Self { weight, bias })
    }

    /// The largest weight behind each column of its result, `[out]`; empty where weights are not rounded to integers.
    pub(crate) fn peaks(&self) -> &[f32] {
        self.weight.peaks()
    }

    /// Whether there is more to its weights than the integers that they are multiplied as: see [`Arithmetic::Full`].
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

    /// `x: [N, in]` → `[N, out]`
    pub(crate) fn forward(&self, x: ArrayView2<f32>) -> Array2<f32> {
        self.forward_activated(x, Activation::Identity)
    }

    /// As [`forward`](Self::forward), computed as `arithmetic` says.
    pub(crate) fn forward_by(&self, arithmetic: Arithmetic, x: ArrayView2<f32>) -> Array2<f32> {
        self.forward_with(arithmetic, x, Activation::Identity)
    }

    /// `activation(x · Wᵀ + b)`; `x: [N, in]` → `[N, out]`.
    pub(crate) fn forward_activated(
        &self,
        x: ArrayView2<f32>,
        activation: Activation,
    ) -> Array2<f32> {
        self.forward_with(Arithmetic::Reduced, x, activation)
    }

    fn forward_with(
        &self,
        arithmetic: Arithmetic,
        x: ArrayView2<f32>,
        activation: Activation,
    ) -> Array2<f32> {
        let mut out = Array2::zeros((x.nrows(), self.outputs()));
        self.forward_into(&Team::gather(), arithmetic, x, activation, out.view_mut());
        out
    }

    /// `out = activation(x · Wᵀ + b)`; `x: [N, in]`, `out: [N, out]`. Bias and activation are applied while a piece of the
    /// product is still in cache.
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
