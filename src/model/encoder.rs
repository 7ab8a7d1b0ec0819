//! The stack of layers.

use ndarray::{Array2, Array3};

use super::buffers::Buffers;
use super::layer::EncoderLayer;
use super::position_bias::PositionBias;
use crate::batch::Batch;
use crate::checkpoint::Weights;
use crate::config::Config;
use crate::error::Result;
use crate::kernels::Team;
use crate::nn::{Arithmetic, Source};

/// `L` layers, one after another, all with the same position bias.
#[derive(Debug)]
pub(super) struct Encoder {
    layers: Vec<EncoderLayer>,
}

impl Encoder {
    /// `input` is what makes the first layer's input.
    pub(super) fn load(w: &Weights, config: &Config, input: Source) -> Result<Self> {
        // Grows as layers are found: the number in the file may be anything.
        let mut layers: Vec<EncoderLayer> = Vec::new();
        for n in 0..config.num_hidden_layers {
            let input = layers.last().map_or(input, EncoderLayer::source);
            // In the last third of the layers rounding does no harm that matters.
            let keeps_rest = w.keeps_rest() && n < config.num_hidden_layers.div_ceil(3) * 2;
            let w = w.at(&format!("layer.{n}")).keeping_rest(keeps_rest);
            let layer = EncoderLayer::load(&w, config, input)?;
            layers.push(layer);
        }
        Ok(Self { layers })
    }

    /// Whether there are layers that can compute in full though their weights are rounded to integers.
    pub(super) fn computes_in_full(&self) -> bool {
        self.layers.iter().any(EncoderLayer::computes_in_full)
    }

    /// Replaces the embeddings in `buffers.hidden`, `[N, D]`, by the hidden states after each layer in turn, and shows them to
    /// `visit`.
    pub(super) fn forward(
        &self,
        team: &Team,
        arithmetic: Arithmetic,
        buffers: &mut Buffers,
        batch: &Batch,
        bias: &PositionBias,
        mut visit: impl FnMut(&mut Buffers),
    ) {
        for layer in &self.layers {
            layer.forward(team, arithmetic, buffers, batch, bias);
            visit(buffers);
        }
    }

    /// For each layer the attention probabilities of each text, `[H, T, T]`; `states` are those of
    /// [`Mpnet::hidden_states`](super::Mpnet::hidden_states).
    pub(super) fn attentions(
        &self,
        arithmetic: Arithmetic,
        states: &[Array2<f32>],
        batch: &Batch,
        bias: &PositionBias,
    ) -> Vec<Vec<Array3<f32>>> {
        let of_layer = |(layer, x): (&EncoderLayer, &Array2<f32>)| {
            layer.attentions(arithmetic, x.view(), batch, bias)
        };
        self.layers.iter().zip(states).map(of_layer).collect()
    }
}
