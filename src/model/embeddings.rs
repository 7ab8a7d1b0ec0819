//! Token and position embeddings.

use ndarray::parallel::prelude::*;
use ndarray::{Array2, Axis};

use crate::batch::Batch;
use crate::checkpoint::Weights;
use crate::config::Config;
use crate::error::Result;
use crate::nn::LayerNorm;

/// The sum of a token's word and position embedding, normalised. There are no token types and no scale.
#[derive(Debug)]
pub(super) struct Embeddings {
    /// `[V, D]`
    word: Array2<f32>,
    /// `[max_position_embeddings, D]`
    position: Array2<f32>,
    norm: LayerNorm,
}

impl Embeddings {
    pub(super) fn load(w: &Weights, config: &Config) -> Result<Self> {
        let (v, p, d) = (config.vocab_size, config.max_position_embeddings, config.hidden_size);
        Ok(Self {
            word: w.at("word_embeddings").matrix("weight", v, d)?,
            position: w.at("position_embeddings").matrix("weight", p, d)?,
            norm: LayerNorm::load(&w.at("LayerNorm"), d, config.layer_norm_eps)?,
        })
    }

    /// → `[N, D]`
    pub(super) fn forward(&self, batch: &Batch) -> Array2<f32> {
        let mut x = Array2::zeros((batch.ids().len(), self.word.ncols()));
        x.axis_iter_mut(Axis(0)).into_par_iter().zip(batch.ids()).zip(batch.positions()).for_each(
            |((mut row, &id), &position)| {
                row.assign(&self.word.row(id as usize));
                row += &self.position.row(position as usize);
            },
        );
        self.norm.forward(x)
    }
}
