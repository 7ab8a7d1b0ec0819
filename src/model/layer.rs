//! One layer of the encoder.

use ndarray::{Array3, ArrayView2};

use super::attention::SelfAttention;
use super::buffers::Buffers;
use super::position_bias::PositionBias;
use crate::batch::Batch;
use crate::checkpoint::Weights;
use crate::config::Config;
use crate::error::Result;
use crate::kernels::Team;
use crate::kernels::activation::Activation;
use crate::nn::{LayerNorm, Linear};

/// Self-attention, then a feed-forward network; each adds its input back and normalises the sum ("post-norm", as in
/// BERT).
#[derive(Debug)]
pub(super) struct EncoderLayer {
    attention: SelfAttention,
    expand: Linear,
    activation: Activation,
    contract: Linear,
    norm: LayerNorm,
}

impl EncoderLayer {
    /// `input` is what makes the layer's input.
    pub(super) fn load(w: &Weights, config: &Config, input: &LayerNorm) -> Result<Self> {
        let (d, f) = (config.hidden_size, config.intermediate_size);
        let attention = SelfAttention::load(&w.at("attention"), config, input)?;
        let expand = w.at("intermediate.dense");
        Ok(Self {
            expand: Linear::load_after(attention.norm(), &[&expand], d, f)?,
            attention,
            activation: config.hidden_act,
            contract: Linear::load(&w.at("output.dense"), f, d)?,
            norm: LayerNorm::load(&w.at("output.LayerNorm"), d, config.layer_norm_eps)?,
        })
    }

    /// What makes its output.
    pub(super) fn norm(&self) -> &LayerNorm {
        &self.norm
    }

    /// Replaces the layer's input in `buffers.hidden`, `[N, D]`, by its output.
    pub(super) fn forward(
        &self,
        team: &Team,
        buffers: &mut Buffers,
        batch: &Batch,
        bias: &PositionBias,
    ) {
        let (n, d, f) = (batch.ids().len(), self.contract.outputs(), self.expand.outputs());
        self.attention.forward(team, buffers, batch, bias);
        let Buffers { hidden, attended, wide, .. } = buffers;
        let (attended, mut wide) = (attended.room(n, d), wide.room(n, f));
        self.expand.forward_into(team, attended.view(), self.activation, wide.view_mut());
        let mut hidden = hidden.room(n, d);
        self.contract.forward_into(team, wide.view(), Activation::Identity, hidden.view_mut());
        self.norm.add_and_normalise(team, hidden, attended.view());
    }

    /// The attention probabilities of each text, `[H, T, T]`, for the layer's input `x: [N, D]`.
    pub(super) fn attentions(
        &self,
        x: ArrayView2<f32>,
        batch: &Batch,
        bias: &PositionBias,
    ) -> Vec<Array3<f32>> {
        self.attention.probabilities(x, batch, bias)
    }
}
