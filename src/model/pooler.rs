//! The pooler: a text's first token through a linear layer and `tanh`.

use ndarray::{Array2, ArrayView2, Axis};

use crate::batch::Batch;
use crate::checkpoint::Weights;
use crate::config::Config;
use crate::error::Result;
use crate::kernels::activation::Activation;
use crate::nn::{Linear, Placement};

/// BERT's pooler. Sentence-embedding checkpoints carry one, which nothing has trained.
#[derive(Debug)]
pub(super) struct Pooler {
    dense: Linear,
}

impl Pooler {
    /// `None` if the checkpoint has no pooler, as those of masked-language models do not.
    pub(super) fn prepare(w: &Weights, config: &Config, at: &Placement) -> Result<Option<Self>> {
        let dense = w.at("dense");
        if !dense.has("weight") {
            return Ok(None);
        }
        let d = config.hidden_size;
        Ok(Some(Self { dense: Linear::prepare(&dense, (d, d), at)? }))
    }

    /// `hidden: [N, D]` → `[B, D]`
    pub(super) fn forward(&self, hidden: ArrayView2<f32>, batch: &Batch) -> Array2<f32> {
        let first: Vec<usize> = batch.ranges().map(|tokens| tokens.start).collect();
        self.dense.forward(hidden.select(Axis(0), &first).view(), Activation::Tanh)
    }
}
