//! Are the right documents of a given list put first?

use ndarray::s;

use super::Metrics;
use super::binary_classification::average_precision;
use super::input::{Role, Texts, finite, not_empty, wrong};
use crate::error::{Result, at_least_one};
use crate::sentence::SentenceEncoder;
use crate::similarity::Similarity;

/// Ranks, for each query, documents that answer it together with ones that do not.
///
/// As sentence-transformers' `RerankingEvaluator`. Samples without positives or without negatives
/// are left out.
///
/// ```
/// use mpnet::{Similarity, evaluation::RerankingEvaluator};
///
/// let evaluator =
///     RerankingEvaluator { at_k: 5, similarity: Similarity::Dot, ..Default::default() };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RerankingEvaluator {
    /// The `k` of MRR@k and NDCG@k.
    pub at_k: usize,
    /// The similarity to rank by; sentence-transformers takes the cosine whatever the model's own
    /// is.
    pub similarity: Similarity,
    /// Components of the embeddings that are used; `None`: all.
    pub truncate_dim: Option<usize>,
}

impl Default for RerankingEvaluator {
    fn default() -> Self {
        Self { at_k: 10, similarity: Similarity::Cosine, truncate_dim: None }
    }
}

/// A query with its documents.
///
/// ```
/// use mpnet::evaluation::RerankingSample;
///
/// let sample = RerankingSample {
///     query: "what is he doing?",
///     positive: vec!["a man is eating food"],
///     negative: vec!["the weather is lovely", "a man is riding a horse"],
/// };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RerankingSample<S> {
    /// The query.
    pub query: S,
    /// Documents that answer it.
    pub positive: Vec<S>,
    /// Documents that do not.
    pub negative: Vec<S>,
}

/// How similar the documents of a sample are to its query.
///
/// ```
/// use mpnet::evaluation::{RerankingEvaluator, RerankingScores};
///
/// let sample = RerankingScores { positive: vec![0.9], negative: vec![0.5, 0.1] };
/// assert_eq!(RerankingEvaluator::default().score(&[sample])?.map, 1.0);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct RerankingScores {
    /// Of the documents that answer it.
    pub positive: Vec<f64>,
    /// Of those that do not.
    pub negative: Vec<f64>,
}

/// How high the documents that answer a query stand: means over the samples.
///
/// ```
/// use mpnet::evaluation::{RerankingEvaluator, RerankingScores};
///
/// let sample = RerankingScores { positive: vec![0.5], negative: vec![0.9, 0.1] };
/// let metrics = RerankingEvaluator::default().score(&[sample])?;
/// assert_eq!((metrics.map, metrics.mrr_at_k), (0.5, 0.5));
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RerankingMetrics {
    /// [`average_precision`].
    pub map: f64,
    /// 1 over the rank of the first positive document; 0 if that is beyond `k`. Of equal scores,
    /// positive ones come first; sentence-transformers leaves their order to torch's sort, which
    /// mostly does the same.
    pub mrr_at_k: f64,
    /// `Σ 1 / log₂(rank + 1)` over positive documents among the first `k`, divided by what it could
    /// be; averaged over the orders of equal scores. The main metric.
    pub ndcg_at_k: f64,
    /// The `k` of both.
    pub at_k: usize,
}

impl Metrics for RerankingMetrics {
    fn entries(&self) -> Vec<(String, f64)> {
        let k = self.at_k;
        vec![
            ("map".to_owned(), self.map),
            (format!("mrr@{k}"), self.mrr_at_k),
            (format!("ndcg@{k}"), self.ndcg_at_k),
        ]
    }
}

super::printed!(RerankingMetrics);

impl RerankingEvaluator {
    /// Encodes queries and documents and ranks the documents of each sample.
    ///
    /// ```
    /// use mpnet::evaluation::{RerankingEvaluator, RerankingSample};
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let sample = RerankingSample {
    ///     query: "who was there?",
    ///     positive: vec!["no one was there"],
    ///     negative: vec!["the house is new", "an old train"],
    /// };
    /// println!("{}", RerankingEvaluator::default().evaluate(&encoder, &[sample])?);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if no sample has both positive and negative documents;
    /// [`Error::Option`](crate::Error::Option) if `at_k` is 0; those of
    /// [`SentenceEncoder::encode_with`].
    pub fn evaluate<S: AsRef<str>>(
        &self,
        encoder: &SentenceEncoder,
        samples: &[RerankingSample<S>],
    ) -> Result<RerankingMetrics> {
        at_least_one("at_k", self.at_k)?;
        let both = |s: &&RerankingSample<S>| !s.positive.is_empty() && !s.negative.is_empty();
        let samples: Vec<&RerankingSample<S>> = samples.iter().filter(both).collect();
        let texts = Texts::new(encoder, self.truncate_dim);
        let queries: Vec<&str> = samples.iter().map(|sample| sample.query.as_ref()).collect();
        let queries = texts.role(Role::Query).encode(&queries)?; // [Q, D]
        let documents: Vec<&str> = samples
            .iter()
            .flat_map(|sample| sample.positive.iter().chain(&sample.negative).map(AsRef::as_ref))
            .collect();
        let documents = texts.role(Role::Document).encode(&documents)?; // [documents, D]
        let mut begin = 0;
        let mut scores = Vec::with_capacity(samples.len());
        for (query, sample) in samples.iter().enumerate() {
            let middle = begin + sample.positive.len();
            let end = middle + sample.negative.len();
            let query = queries.slice(s![query..=query, ..]);
            let found = self.similarity.all(&query, &documents.slice(s![begin..end, ..]))?;
            let found: Vec<f64> = found.iter().map(|&score| f64::from(score)).collect();
            let (positive, negative) = found.split_at(middle - begin);
            scores.push(RerankingScores { positive: positive.into(), negative: negative.into() });
            begin = end;
        }
        self.score(&scores)
    }

    /// The same of similarities, however they were computed.
    ///
    /// ```
    /// use mpnet::evaluation::{RerankingEvaluator, RerankingScores};
    ///
    /// let sample = RerankingScores { positive: vec![0.8, 0.4], negative: vec![0.9, 0.3] };
    /// let metrics = RerankingEvaluator::default().score(&[sample])?;
    /// assert_eq!(metrics.mrr_at_k, 0.5);
    /// assert!((metrics.map - (1.0 / 2.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if no sample has both positive and negative documents,
    /// or a score is not finite; [`Error::Option`](crate::Error::Option) if `at_k` is 0.
    pub fn score(&self, samples: &[RerankingScores]) -> Result<RerankingMetrics> {
        at_least_one("at_k", self.at_k)?;
        not_empty("samples", samples.len())?;
        let (mut map, mut mrr, mut ndcg, mut n) = (0.0, 0.0, 0.0, 0.0);
        for (sample, RerankingScores { positive, negative }) in samples.iter().enumerate() {
            let scores = [&positive[..], negative].concat();
            finite("samples", &scores).map_err(|_| {
                wrong("samples", format!("sample {sample} has a score that is not finite"))
            })?;
            if positive.is_empty() || negative.is_empty() {
                continue;
            }
            let labels: Vec<bool> = (0..scores.len()).map(|i| i < positive.len()).collect();
            map += average_precision(&scores, &labels)?;
            mrr += self.reciprocal_rank(positive, negative);
            ndcg += self.ndcg(&scores, &labels, positive.len());
            n += 1.0;
        }
        if n == 0.0 {
            let problem = "no sample has both positive and negative documents".into();
            return Err(wrong("samples", problem));
        }
        let at_k = self.at_k;
        Ok(RerankingMetrics { map: map / n, mrr_at_k: mrr / n, ndcg_at_k: ndcg / n, at_k })
    }

    fn reciprocal_rank(&self, positive: &[f64], negative: &[f64]) -> f64 {
        let best = positive.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let before = negative.iter().filter(|&&score| score > best).count();
        if before < self.at_k { 1.0 / (before as f64 + 1.0) } else { 0.0 }
    }

    /// Equal scores share the discounts of their ranks, which is the mean over their orders.
    ///
    /// Source: McSherry and Najork 2008, <https://doi.org/10.1007/978-3-540-78646-7_38>; as
    /// scikit-learn's `ndcg_score`.
    fn ndcg(&self, scores: &[f64], labels: &[bool], positives: usize) -> f64 {
        let discount = |rank: usize| {
            if rank < self.at_k { 1.0 / (rank as f64 + 2.0).log2() } else { 0.0 }
        };
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let (mut gain, mut rank) = (0.0, 0);
        for equal in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
            let right = equal.iter().filter(|&&i| labels[i]).count() as f64 / equal.len() as f64;
            gain += right * (rank..rank + equal.len()).map(discount).sum::<f64>();
            rank += equal.len();
        }
        gain / (0..positives).map(discount).sum::<f64>()
    }
}
