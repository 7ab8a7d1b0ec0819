//! Token and position embeddings.

use ndarray::{ArrayViewMut2, Axis};

use super::plan::Plan;
use crate::batch::Batch;
use crate::checkpoint::Weights;
use crate::config::Config;
use crate::error::Result;
use crate::kernels::Team;
use crate::nn::{Embedding, LayerNorm, Placement, Smoothing, TableFormat};

/// The sum of a token's word and position embedding, normalised. There are no token types and no
/// scale.
#[derive(Debug)]
pub(super) struct Embeddings {
    /// `[V, D]`
    word: Embedding,
    /// `[max_position_embeddings, D]`
    position: Embedding,
    norm: LayerNorm,
}

impl Embeddings {
    pub(super) fn prepare(
        w: &Weights,
        config: &Config,
        plan: &Plan,
        at: &Placement,
    ) -> Result<Self> {
        let (v, p, d) = (config.vocab_size, config.max_position_embeddings, config.hidden_size);
        Ok(Self {
            word: Embedding::prepare(&w.at("word_embeddings"), (v, d), plan.word_embeddings, at)?,
            position: Embedding::prepare(
                &w.at("position_embeddings"),
                (p, d),
                TableFormat::F32,
                at,
            )?,
            norm: LayerNorm::prepare(&w.at("LayerNorm"), d, config.layer_norm_eps, at.isa())?,
        })
    }

    /// Tells how large the columns of the result are.
    pub(super) fn smoothing(&self) -> Smoothing<'_> {
        Smoothing { norm: &self.norm, peaks: &[] }
    }

    /// → `out: [N, D]`
    pub(super) fn forward(&self, team: &Team, batch: &Batch, mut out: ArrayViewMut2<f32>) {
        /// Tokens looked up by one task.
        const TOKENS: usize = 64;
        let tokens = batch.ids().chunks(TOKENS).zip(batch.positions().chunks(TOKENS));
        let pieces = out.axis_chunks_iter_mut(Axis(0), TOKENS).zip(tokens).collect();
        team.for_each(
            pieces,
            |(mut rows, (ids, positions)): (ArrayViewMut2<f32>, (&[u32], &[u32]))| {
                for ((mut row, &id), &position) in
                    rows.rows_mut().into_iter().zip(ids).zip(positions)
                {
                    let row = row.as_slice_mut().expect("rows of `out` are contiguous");
                    row.fill(0.0);
                    self.position.add_to(position as usize, row);
                    self.word.add_to(id as usize, row);
                    self.norm.normalise(row);
                }
            },
        );
    }
}
