//! The stack of layers.

use ndarray::{Array2, Array3};

use super::layer::EncoderLayer;
use super::position_bias::PositionBias;
use crate::batch::Batch;
use crate::checkpoint::Weights;
use crate::config::Config;
use crate::error::Result;

/// `L` layers, one after another, all with the same position bias.
#[derive(Debug)]
pub(super) struct Encoder {
    layers: Vec<EncoderLayer>,
}

impl Encoder {
    pub(super) fn load(w: &Weights, config: &Config) -> Result<Self> {
        let layers = (0..config.num_hidden_layers)
            .map(|n| EncoderLayer::load(&w.at(&format!("layer.{n}")), config))
            .collect::<Result<_>>()?;
        Ok(Self { layers })
    }

    /// `x: [N, D]` → `[N, D]`
    pub(super) fn forward(
        &self,
        x: Array2<f32>,
        batch: &Batch,
        bias: &PositionBias,
    ) -> Array2<f32> {
        self.layers.iter().fold(x, |x, layer| layer.forward(x.view(), batch, bias))
    }

    /// `x` and the result of each layer, `L + 1` arrays `[N, D]`.
    pub(super) fn hidden_states(
        &self,
        x: Array2<f32>,
        batch: &Batch,
        bias: &PositionBias,
    ) -> Vec<Array2<f32>> {
        let mut states = Vec::with_capacity(self.layers.len() + 1);
        let last = self.layers.iter().fold(x, |x, layer| {
            let next = layer.forward(x.view(), batch, bias);
            states.push(x);
            next
        });
        states.push(last);
        states
    }

    /// For each layer the attention probabilities of each text, `[H, T, T]`; `states` are those of
    /// [`Encoder::hidden_states`].
    pub(super) fn attentions(
        &self,
        states: &[Array2<f32>],
        batch: &Batch,
        bias: &PositionBias,
    ) -> Vec<Vec<Array3<f32>>> {
        let of_layer =
            |(layer, x): (&EncoderLayer, &Array2<f32>)| layer.attentions(x.view(), batch, bias);
        self.layers.iter().zip(states).map(of_layer).collect()
    }
}
