//! Does k-means find the classes again?

use std::collections::BTreeMap;

use ndarray::ArrayRef2;

use super::input::{Texts, not_empty, same_length};
use crate::error::Result;
use crate::mining::MiniBatchKMeans;
use crate::sentence::SentenceEncoder;

/// Clusters texts into as many groups as they have labels, and compares the groups with the labels.
///
/// As MTEB's clustering tasks: mini-batch k-means on the embeddings as they are. A task of several
/// sets is scored by the mean over the sets.
///
/// ```
/// use mpnet::{evaluation::ClusteringEvaluator, ndarray::arr2};
///
/// let embeddings = arr2(&[[0.0_f32, 0.1], [5.0, 5.0], [0.1, 0.0], [5.1, 5.0]]);
/// let labels = ["near", "far", "near", "far"];
/// let metrics = ClusteringEvaluator::default().score_embeddings(&embeddings.view(), &labels)?;
/// assert_eq!(metrics.v_measure, 1.0);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusteringEvaluator {
    /// Rows of a step of k-means.
    pub batch_size: usize,
    /// Of the random numbers.
    pub seed: u32,
    /// Components of the embeddings that are used; `None`: all.
    pub truncate_dim: Option<usize>,
}

impl Default for ClusteringEvaluator {
    /// MTEB's: batches of 500, seed 42.
    fn default() -> Self {
        Self { batch_size: 500, seed: 42, truncate_dim: None }
    }
}

/// How well clusters are classes; see [`v_measure`].
///
/// ```
/// let metrics = mpnet::evaluation::v_measure(&["x", "x", "y"], &[0, 0, 1])?;
/// assert_eq!((metrics.v_measure, metrics.completeness), (1.0, 1.0));
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ClusteringMetrics {
    /// The harmonic mean of the other two, from 0 to 1. The main metric.
    pub v_measure: f64,
    /// 1 if each cluster has members of one class only.
    pub homogeneity: f64,
    /// 1 if all members of a class are in one cluster.
    pub completeness: f64,
}

super::named!(ClusteringMetrics: v_measure, homogeneity, completeness);

impl ClusteringEvaluator {
    /// Encodes `texts` and clusters them; `labels[i]` is the class of `texts[i]`.
    ///
    /// ```
    /// use mpnet::evaluation::ClusteringEvaluator;
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let texts = ["who was there", "who was it", "an old town", "a new town"];
    /// let metrics = ClusteringEvaluator::default().evaluate(&encoder, &texts, &[0, 0, 1, 1])?;
    /// println!("{metrics}");
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if the lengths differ or are 0;
    /// [`Error::Option`](crate::Error::Option) if `batch_size` is 0; those of
    /// [`SentenceEncoder::encode_with`].
    pub fn evaluate<S: AsRef<str>, L: Ord>(
        &self,
        encoder: &SentenceEncoder,
        texts: &[S],
        labels: &[L],
    ) -> Result<ClusteringMetrics> {
        same_length(("labels", labels.len()), ("texts", texts.len()))?;
        not_empty("texts", texts.len())?;
        let embeddings = Texts::new(encoder, self.truncate_dim).encode(texts)?;
        self.score_embeddings(&embeddings.view(), labels)
    }

    /// The same of embeddings, `[B, D]`.
    ///
    /// ```
    /// use mpnet::{evaluation::ClusteringEvaluator, ndarray::arr2};
    ///
    /// let embeddings = arr2(&[[0.0_f32, 0.1], [5.0, 5.0], [0.1, 0.0], [5.1, 5.0]]);
    /// let metrics = ClusteringEvaluator::default().score_embeddings(&embeddings.view(), &[0, 1, 0, 1])?;
    /// assert_eq!(metrics.homogeneity, 1.0);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if the lengths differ or are 0, or a component is not
    /// finite; [`Error::Option`](crate::Error::Option) if `batch_size` is 0.
    pub fn score_embeddings<L: Ord>(
        &self,
        embeddings: &ArrayRef2<f32>,
        labels: &[L],
    ) -> Result<ClusteringMetrics> {
        same_length(("labels", labels.len()), ("embeddings", embeddings.nrows()))?;
        not_empty("embeddings", embeddings.nrows())?;
        let n_clusters = counts(labels.iter()).len();
        let options = MiniBatchKMeans {
            batch_size: self.batch_size,
            seed: self.seed,
            ..MiniBatchKMeans::new(n_clusters)
        };
        v_measure(labels, &options.fit(embeddings)?.labels)
    }
}

/// Homogeneity, completeness and their harmonic mean, of `clusters` `[B]` against the `classes`
/// `[B]`.
///
/// Homogeneity is `1 − H(C|K) / H(C)` (1 if there is one class), completeness `1 − H(K|C) / H(K)`
/// (1 if there is one cluster). As scikit-learn's `v_measure_score`.
///
/// Source: Rosenberg and Hirschberg 2007, <https://aclanthology.org/D07-1043>.
///
/// ```
/// let metrics = mpnet::evaluation::v_measure(&[0, 0, 1, 1, 2, 2], &[0, 0, 1, 2, 2, 2])?;
/// assert!((metrics.v_measure - 0.7396673768).abs() < 1e-9);
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Input`](crate::Error::Input) if the lengths differ or are 0.
pub fn v_measure<C: Ord, K: Ord>(classes: &[C], clusters: &[K]) -> Result<ClusteringMetrics> {
    same_length(("clusters", clusters.len()), ("classes", classes.len()))?;
    not_empty("classes", classes.len())?;
    let both = entropy(counts(classes.iter().zip(clusters)));
    let (of_classes, of_clusters) =
        (entropy(counts(classes.iter())), entropy(counts(clusters.iter())));
    // H(C|K) = H(C, K) − H(K). Rounding must not make it negative.
    let part = |own: f64, other: f64| {
        if own == 0.0 { 1.0 } else { (1.0 - (both - other) / own).clamp(0.0, 1.0) }
    };
    let (homogeneity, completeness) =
        (part(of_classes, of_clusters), part(of_clusters, of_classes));
    let sum = homogeneity + completeness;
    let v_measure = if sum == 0.0 { 0.0 } else { 2.0 * homogeneity * completeness / sum };
    Ok(ClusteringMetrics { v_measure, homogeneity, completeness })
}

fn counts<L: Ord>(labels: impl Iterator<Item = L>) -> Vec<usize> {
    let mut counts = BTreeMap::new();
    labels.for_each(|label| *counts.entry(label).or_insert(0) += 1);
    counts.into_values().collect()
}

/// `−Σ (n/N) ln(n/N)`
fn entropy(counts: Vec<usize>) -> f64 {
    if counts.len() == 1 {
        return 0.0;
    }
    let total = counts.iter().sum::<usize>() as f64;
    counts.iter().map(|&n| n as f64 / total).map(|p| -p * p.ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_the_scale() {
        let v = |classes: &[u8], clusters: &[u8]| v_measure(classes, clusters).unwrap().v_measure;
        assert_eq!(v(&[0, 0, 1, 1], &[0, 0, 0, 0]), 0.0);
        assert_eq!(v(&[0, 0, 0, 0], &[0, 1, 0, 1]), 0.0);
        assert_eq!(v(&[0, 0, 0, 0], &[7, 7, 7, 7]), 1.0);
        assert!((v(&[0, 1, 2, 0, 1], &[5, 3, 4, 5, 3]) - 1.0).abs() < 1e-12);
    }
}
