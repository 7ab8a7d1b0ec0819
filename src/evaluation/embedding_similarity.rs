//! Semantic textual similarity: does the model rank pairs as people do?

use ndarray::ArrayView2;

use super::correlation::{pearson, spearman};
use super::input::{Texts, finite, or_default, pairwise, same_length};
use crate::error::Result;
use crate::sentence::SentenceEncoder;
use crate::similarity::Similarity;

/// Correlates the similarities of pairs of texts with scores that people gave them (STS), on any scale.
///
/// As sentence-transformers' `EmbeddingSimilarityEvaluator`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EmbeddingSimilarityEvaluator {
    /// The similarity functions to try; none: the model's own, or the cosine of embeddings that come without one.
    pub similarities: Vec<Similarity>,
    /// Components of the embeddings that are used; `None`: all.
    pub truncate_dim: Option<usize>,
}

/// How well similarities follow the scores that people gave.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct EmbeddingSimilarityMetrics {
    /// Pearson's correlation, from −1 to 1; NaN if either side is constant.
    pub pearson: f64,
    /// Spearman's correlation, from −1 to 1; NaN if either side is constant. The main metric.
    pub spearman: f64,
}

super::named!(EmbeddingSimilarityMetrics: pearson, spearman);

impl EmbeddingSimilarityEvaluator {
    /// Encodes the pairs `sentences1[i]`, `sentences2[i]` and correlates their similarity with `scores[i]`.
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if the lengths differ or are below 2, or a score is not finite; those of
    /// [`SentenceEncoder::encode_with`].
    pub fn evaluate<S: AsRef<str>>(
        &self,
        encoder: &SentenceEncoder,
        sentences1: &[S],
        sentences2: &[S],
        scores: &[f64],
    ) -> Result<Vec<(Similarity, EmbeddingSimilarityMetrics)>> {
        same_length(("sentences2", sentences2.len()), ("sentences1", sentences1.len()))?;
        same_length(("scores", scores.len()), ("sentences1", sentences1.len()))?;
        let texts = Texts::new(encoder, self.truncate_dim);
        let (first, second) = (texts.encode(sentences1)?, texts.encode(sentences2)?);
        let similarities = or_default(&self.similarities, encoder.similarity_fn());
        score(&similarities, &first.view(), &second.view(), scores)
    }

    /// The same of embeddings, `[B, D]` each.
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if shapes or lengths do not fit together, there are fewer than two pairs, or
    /// a number is not finite.
    pub fn score_embeddings(
        &self,
        embeddings1: &ArrayView2<f32>,
        embeddings2: &ArrayView2<f32>,
        scores: &[f64],
    ) -> Result<Vec<(Similarity, EmbeddingSimilarityMetrics)>> {
        let similarities = or_default(&self.similarities, Similarity::Cosine);
        score(&similarities, embeddings1, embeddings2, scores)
    }
}

fn score(
    similarities: &[Similarity],
    first: &ArrayView2<f32>,
    second: &ArrayView2<f32>,
    scores: &[f64],
) -> Result<Vec<(Similarity, EmbeddingSimilarityMetrics)>> {
    same_length(("scores", scores.len()), ("embeddings1", first.nrows()))?;
    finite("scores", scores)?;
    let metrics = |&similarity: &Similarity| {
        let found = pairwise(similarity, ("embeddings1", first), ("embeddings2", second))?;
        let (pearson, spearman) = (pearson(&found, scores)?, spearman(&found, scores)?);
        Ok((similarity, EmbeddingSimilarityMetrics { pearson, spearman }))
    };
    similarities.iter().map(metrics).collect()
}
