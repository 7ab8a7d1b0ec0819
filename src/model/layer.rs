//! One layer of the encoder.

use ndarray::{Array3, ArrayView2};

use super::attention::SelfAttention;
use super::buffers::Buffers;
use super::position_bias::PositionBias;
use crate::batch::Batch;
use crate::checkpoint::Weights;
use crate::config::Config;
use crate::error::Result;
use crate::kernels::activation::Activation;
use crate::kernels::{Precision, Team};
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
    /// Layer `n`; `input` is what makes its input.
    pub(super) fn load(w: &Weights, n: usize, config: &Config, input: &LayerNorm) -> Result<Self> {
        let (d, f) = (config.hidden_size, config.intermediate_size);
        // Two products of the model lose more to 8 bits than all others together, both where special tokens are much of a text.
        // They take a twentieth of the work and stay in bf16: with them in integers too, texts like an empty one or a `<mask>`
        // among few words come down to a cosine of 0.985 to the reference, without them to 0.99.
        let in_integers = w.rounds_to() == Precision::Int8;
        let (mut attention, mut contract) = (w.at("attention"), w.at("output.dense"));
        // The attention of the second layer, where special tokens find each other.
        if in_integers && n == 1 {
            attention = attention.precision(Precision::Bf16);
        }
        // The last layer but one, where a few neurons are hundreds of times as large as the others.
        if in_integers && n + 2 == config.num_hidden_layers {
            contract = contract.precision(Precision::Bf16);
        }
        let attention = SelfAttention::load(&attention, config, input)?;
        let expand = w.at("intermediate.dense");
        Ok(Self {
            expand: Linear::load_after(attention.norm(), &[&expand], d, f)?,
            attention,
            activation: config.hidden_act,
            contract: Linear::load(&contract, f, d)?,
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
