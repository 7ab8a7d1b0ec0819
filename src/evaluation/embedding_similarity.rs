//! Semantic textual similarity: does the model rank pairs as people do?

use ndarray::{Array2, ArrayRef2, Axis, concatenate};

use super::correlation::{pearson, spearman};
use super::input::{Texts, finite, or_default, pairwise, same_length};
use crate::error::Result;
use crate::quantization::{EmbeddingPrecision, Ranges, bit, quantize_ubinary, quantize_uint8};
use crate::rows::{same_width, usable};
use crate::sentence::SentenceEncoder;
use crate::similarity::{Similarity, normalized};

/// Correlates the similarities of pairs of texts with scores that people gave them (STS), on any
/// scale.
///
/// As sentence-transformers' `EmbeddingSimilarityEvaluator`.
///
/// ```
/// use mpnet::{Similarity, evaluation::EmbeddingSimilarityEvaluator};
/// use mpnet::quantization::EmbeddingPrecision;
///
/// let evaluator = EmbeddingSimilarityEvaluator {
///     similarities: vec![Similarity::Cosine, Similarity::Manhattan],
///     precision: Some(EmbeddingPrecision::Binary),
///     ..Default::default()
/// };
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EmbeddingSimilarityEvaluator {
    /// The similarity functions to try; none: the model's own, or the cosine of embeddings that
    /// come without one.
    pub similarities: Vec<Similarity>,
    /// Components of the embeddings that are used; `None`: all.
    pub truncate_dim: Option<usize>,
    /// Quantise the embeddings first, to see what that costs: they are scaled to length 1, both
    /// sides calibrated together for `int8` and `uint8`, and compared as the numbers of their
    /// buckets, or as zeros and ones. `None`: as they are.
    pub precision: Option<EmbeddingPrecision>,
}

/// How well similarities follow the scores that people gave.
///
/// ```
/// use mpnet::evaluation::{EmbeddingSimilarityEvaluator, Metrics};
/// # use mpnet::ndarray::arr2;
///
/// # let rows = arr2(&[[1.0_f32, 0.0], [1.0, 1.0], [0.0, 1.0]]);
/// # let all = EmbeddingSimilarityEvaluator::default().score_embeddings(&rows.view(), &arr2(&[[1.0_f32, 0.0]; 3]).view(), &[3.0, 2.0, 1.0])?;
/// let (_, metrics) = all[0]; // of `evaluate` or `score_embeddings`
/// for (name, value) in metrics.entries() {
///     println!("{name} {value:.4}");
/// }
/// # Ok::<(), mpnet::Error>(())
/// ```
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
    /// Encodes the pairs `sentences1[i]`, `sentences2[i]` and correlates their similarity with
    /// `scores[i]`.
    ///
    /// ```
    /// use mpnet::evaluation::EmbeddingSimilarityEvaluator;
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let first = ["a long day", "the house", "who was there"];
    /// let second = ["the day was long", "a new house", "an old train"];
    /// let results = EmbeddingSimilarityEvaluator::default()
    ///     .evaluate(&encoder, &first, &second, &[5.0, 4.0, 0.5])?;
    /// println!("Spearman by the {}: {:.3}", results[0].0.name(), results[0].1.spearman);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if the lengths differ or are below 2, or a score is
    /// not finite; those of [`SentenceEncoder::encode_with`].
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
        self.score(&similarities, &first.view(), &second.view(), scores)
    }

    /// The same of embeddings, `[B, D]` each.
    ///
    /// ```
    /// use mpnet::{evaluation::EmbeddingSimilarityEvaluator, ndarray::arr2};
    ///
    /// let first = arr2(&[[1.0_f32, 0.0], [1.0, 0.0], [1.0, 0.0]]);
    /// let second = arr2(&[[1.0_f32, 0.1], [1.0, 1.0], [0.0, 1.0]]);
    /// let results = EmbeddingSimilarityEvaluator::default()
    ///     .score_embeddings(&first.view(), &second.view(), &[0.5, 2.5, 5.0])?;
    /// assert!((results[0].1.spearman + 1.0).abs() < 1e-12);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if shapes or lengths do not fit together, there are
    /// fewer than two pairs, or a number is not finite.
    pub fn score_embeddings(
        &self,
        embeddings1: &ArrayRef2<f32>,
        embeddings2: &ArrayRef2<f32>,
        scores: &[f64],
    ) -> Result<Vec<(Similarity, EmbeddingSimilarityMetrics)>> {
        let similarities = or_default(&self.similarities, Similarity::Cosine);
        self.score(&similarities, embeddings1, embeddings2, scores)
    }

    fn score(
        &self,
        similarities: &[Similarity],
        first: &ArrayRef2<f32>,
        second: &ArrayRef2<f32>,
        scores: &[f64],
    ) -> Result<Vec<(Similarity, EmbeddingSimilarityMetrics)>> {
        same_length(("scores", scores.len()), ("embeddings1", first.nrows()))?;
        finite("scores", scores)?;
        if let Some(precision) = self.precision {
            let (first, second) = in_precision(precision, first, second)?;
            return correlate(similarities, &first.view(), &second.view(), scores);
        }
        correlate(similarities, first, second, scores)
    }
}

fn correlate(
    similarities: &[Similarity],
    first: &ArrayRef2<f32>,
    second: &ArrayRef2<f32>,
    scores: &[f64],
) -> Result<Vec<(Similarity, EmbeddingSimilarityMetrics)>> {
    let metrics = |&similarity: &Similarity| {
        let found = pairwise(similarity, ("embeddings1", first), ("embeddings2", second))?;
        let (pearson, spearman) = (pearson(&found, scores)?, spearman(&found, scores)?);
        Ok((similarity, EmbeddingSimilarityMetrics { pearson, spearman }))
    };
    similarities.iter().map(metrics).collect()
}

/// Both sides, normalised and quantised, as numbers again: buckets, signed for `int8`, or bits.
fn in_precision(
    precision: EmbeddingPrecision,
    first: &ArrayRef2<f32>,
    second: &ArrayRef2<f32>,
) -> Result<(Array2<f32>, Array2<f32>)> {
    usable("embeddings1", first)?;
    usable("embeddings2", second)?;
    same_width("embeddings2", second.ncols(), first.ncols())?;
    let (first, second) = (normalized(first), normalized(second));
    let buckets = |offset: f32| {
        let both = concatenate![Axis(0), first, second];
        let ranges = Ranges::calibrate(&both.view())?;
        let of = |rows: &Array2<f32>| {
            let buckets = quantize_uint8(&rows.view(), &ranges)?;
            Ok(buckets.mapv(|bucket| f32::from(bucket) - offset))
        };
        Ok((of(&first)?, of(&second)?))
    };
    let bits = |rows: &Array2<f32>| {
        let bytes = quantize_ubinary(&rows.view())?;
        let value = |(i, k)| f32::from(u8::from(bit(k, |byte| bytes[[i, byte]])));
        Ok(Array2::from_shape_fn(rows.dim(), value))
    };
    match precision {
        EmbeddingPrecision::Float32 => Ok((first, second)),
        EmbeddingPrecision::Int8 => buckets(128.0),
        EmbeddingPrecision::Uint8 => buckets(0.0),
        EmbeddingPrecision::Binary | EmbeddingPrecision::Ubinary => {
            Ok((bits(&first)?, bits(&second)?))
        }
    }
}
