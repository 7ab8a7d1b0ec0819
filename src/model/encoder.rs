//! The stack of layers.

use ndarray::{Array2, Array3, ArrayView2, ArrayViewMut2};

use super::buffers::LayerBuffers;
use super::layer::EncoderLayer;
use super::pass::Pass;
use super::plan::Plan;
use crate::checkpoint::Weights;
use crate::config::Config;
use crate::error::Result;
use crate::nn::{Placement, Smoothing};

/// `L` layers, one after another, all with the same position bias.
#[derive(Debug)]
pub(super) struct Encoder {
    layers: Vec<EncoderLayer>,
}

impl Encoder {
    /// `input` tells how large the columns of the first layer's input are.
    pub(super) fn prepare(
        w: &Weights,
        config: &Config,
        plan: &Plan,
        at: &Placement,
        input: Smoothing,
    ) -> Result<Self> {
        // Grows as layers are found: the number in the file may be anything.
        let mut layers: Vec<EncoderLayer> = Vec::new();
        for n in 0..config.num_hidden_layers {
            let input = layers.last().map_or(input, EncoderLayer::smoothing);
            let keeps_rest = plan.residuals.contains(&n);
            let w = w.at(&format!("layer.{n}"));
            layers.push(EncoderLayer::prepare(&w, config, plan, at, input, keeps_rest)?);
        }
        Ok(Self { layers })
    }

    /// Whether there are layers that can compute in full though their weights are rounded to
    /// integers.
    pub(super) fn computes_in_full(&self) -> bool {
        self.layers.iter().any(EncoderLayer::computes_in_full)
    }

    /// Replaces the embeddings `hidden`, `[N, D]`, by the hidden states after each layer in turn,
    /// and shows them to `visit`.
    pub(super) fn forward(
        &self,
        pass: Pass,
        mut hidden: ArrayViewMut2<f32>,
        buffers: &mut LayerBuffers,
        mut visit: impl FnMut(ArrayView2<f32>),
    ) {
        for layer in &self.layers {
            layer.forward(pass, hidden.view_mut(), buffers);
            visit(hidden.view());
        }
    }

    /// For each layer the attention probabilities of each text, `[H, T, T]`; `states` are those of
    /// [`Mpnet::hidden_states`](super::Mpnet::hidden_states).
    pub(super) fn attentions(&self, pass: Pass, states: &[Array2<f32>]) -> Vec<Vec<Array3<f32>>> {
        let layers = self.layers.iter().zip(states);
        layers.map(|(layer, x)| layer.attentions(pass, x.view())).collect()
    }
}
