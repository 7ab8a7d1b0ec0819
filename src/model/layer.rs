//! One layer of the encoder.

use ndarray::{Array2, Array3, ArrayView2};

use super::attention::SelfAttention;
use super::position_bias::PositionBias;
use crate::batch::Batch;
use crate::checkpoint::Weights;
use crate::config::Config;
use crate::error::Result;
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
    pub(super) fn load(w: &Weights, config: &Config) -> Result<Self> {
        let (d, f) = (config.hidden_size, config.intermediate_size);
        Ok(Self {
            attention: SelfAttention::load(&w.at("attention"), config)?,
            expand: Linear::load(&w.at("intermediate.dense"), d, f)?,
            activation: config.hidden_act,
            contract: Linear::load(&w.at("output.dense"), f, d)?,
            norm: LayerNorm::load(&w.at("output.LayerNorm"), d, config.layer_norm_eps)?,
        })
    }

    /// `x: [N, D]` → `[N, D]`
    pub(super) fn forward(
        &self,
        x: ArrayView2<f32>,
        batch: &Batch,
        bias: &PositionBias,
    ) -> Array2<f32> {
        let attended = self.attention.forward(x, batch, bias); // [N, D]
        let wide = self.expand.forward_activated(attended.view(), self.activation); // [N, F]
        self.norm.forward_sum(self.contract.forward(wide.view()), attended.view()) // [N, D]
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
