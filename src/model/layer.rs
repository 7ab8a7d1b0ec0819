//! One layer of the encoder.

use half::bf16;
use ndarray::{Array3, ArrayView2, ArrayViewMut2};

use super::attention::SelfAttention;
use super::buffers::Buffers;
use super::position_bias::PositionBias;
use crate::batch::Batch;
use crate::checkpoint::Weights;
use crate::config::Config;
use crate::error::Result;
use crate::kernels::activation::Activation;
use crate::kernels::gemm::Element;
use crate::kernels::{Precision, Team};
use crate::nn::{Arithmetic, LayerNorm, Linear, Source};

/// Self-attention, then a feed-forward network; each adds its input back and normalises the sum ("post-norm", as in
/// BERT).
#[derive(Debug)]
pub(super) struct EncoderLayer {
    attention: SelfAttention,
    expand: Linear,
    activation: Activation,
    contract: Linear,
    norm: LayerNorm,
    /// Of what is between the two products.
    between: Precision,
}

impl EncoderLayer {
    /// `input` is what makes its input.
    pub(super) fn load(w: &Weights, config: &Config, input: Source) -> Result<Self> {
        let (d, f) = (config.hidden_size, config.intermediate_size);
        let attention = SelfAttention::load(&w.at("attention"), config, input)?;
        // What attention adds leaves the columns that are far from the mean where they are.
        let attended = Source { norm: attention.norm(), ..input };
        let expand = w.at("intermediate.dense");
        Ok(Self {
            expand: Linear::load_after(attended, &[&expand], d, f)?,
            attention,
            activation: config.hidden_act,
            contract: Linear::load(&w.at("output.dense"), f, d)?,
            norm: LayerNorm::load(&w.at("output.LayerNorm"), d, config.layer_norm_eps)?,
            between: w.between(),
        })
    }

    /// What makes its output.
    pub(super) fn source(&self) -> Source<'_> {
        Source { norm: &self.norm, peaks: self.contract.peaks() }
    }

    /// Replaces the layer's input in `buffers.hidden`, `[N, D]`, by its output.
    ///
    /// It computes in full only if it can: see [`Weights::keeping_rest`].
    pub(super) fn forward(
        &self,
        team: &Team,
        arithmetic: Arithmetic,
        buffers: &mut Buffers,
        batch: &Batch,
        bias: &PositionBias,
    ) {
        let (n, d, f) = (batch.ids().len(), self.contract.outputs(), self.expand.outputs());
        let arithmetic = self.within(arithmetic);
        self.attention.forward(team, arithmetic, buffers, batch, bias);
        let Buffers { hidden, attended, wide, .. } = buffers;
        let (attended, mut hidden) = (attended.room(n, d), hidden.room(n, d));
        match self.between {
            Precision::Bf16 if arithmetic == Arithmetic::Reduced => {
                let wide = wide.room::<bf16>(n, f);
                self.feed_forward(team, arithmetic, attended.view(), wide, hidden.view_mut());
            }
            _ => {
                let wide = wide.room::<f32>(n, f);
                self.feed_forward(team, arithmetic, attended.view(), wide, hidden.view_mut());
            }
        }
        self.norm.add_and_normalise(team, hidden, attended.view());
    }

    /// `out = contract(activation(expand(x)))`, with what is between the two in `wide`, `[N, F]`.
    fn feed_forward<E: Element>(
        &self,
        team: &Team,
        arithmetic: Arithmetic,
        x: ArrayView2<f32>,
        mut wide: ArrayViewMut2<E>,
        out: ArrayViewMut2<f32>,
    ) {
        self.expand.forward_into(team, arithmetic, x, self.activation, wide.view_mut());
        self.contract.forward_into(team, arithmetic, wide.view(), Activation::Identity, out);
    }

    /// The attention probabilities of each text, `[H, T, T]`, for the layer's input `x: [N, D]`.
    pub(super) fn attentions(
        &self,
        arithmetic: Arithmetic,
        x: ArrayView2<f32>,
        batch: &Batch,
        bias: &PositionBias,
    ) -> Vec<Array3<f32>> {
        self.attention.probabilities(self.within(arithmetic), x, batch, bias)
    }

    /// Whether it can, though its weights are rounded to integers.
    pub(super) fn computes_in_full(&self) -> bool {
        self.expand.has_rest()
    }

    fn within(&self, arithmetic: Arithmetic) -> Arithmetic {
        if self.computes_in_full() { arithmetic } else { Arithmetic::Reduced }
    }
}
