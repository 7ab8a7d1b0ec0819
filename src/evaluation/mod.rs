//! How good embeddings are: the evaluators of sentence-transformers and MTEB, by their definitions.
//!
//! | evaluator | asks | main metric |
//! |---|---|---|
//! | [`EmbeddingSimilarityEvaluator`] | do similarities rank pairs as people do? (STS) | Spearman |
//! | [`BinaryClassificationEvaluator`] | does a threshold tell duplicates from other pairs? | average precision |
//! | [`TripletEvaluator`] | is the positive nearer than the negative? | accuracy |
//! | [`InformationRetrievalEvaluator`] | are relevant documents ranked first? | NDCG@10 |
//! | [`RerankingEvaluator`] | the same, within a list for each query | NDCG@10 |
//! | [`ParaphraseMiningEvaluator`] | are the nearest pairs of a set its duplicates? | average precision |
//! | [`ClusteringEvaluator`] | does k-means find the classes? | V-measure |
//! | [`ClassificationEvaluator`] | can a simple classifier learn from few examples? | accuracy |
//!
//! Each is a struct of options with two entrances: `evaluate`, which takes an encoder and texts,
//! and `score…`, which takes embeddings or scores from anywhere. Both give a struct of named
//! numbers, which prints as a table.
//!
//! ```
//! use mpnet::evaluation::{EmbeddingSimilarityEvaluator, Metrics};
//! use mpnet::ndarray::arr2;
//!
//! let first = arr2(&[[1.0_f32, 0.0], [1.0, 0.0], [1.0, 0.0]]);
//! let second = arr2(&[[1.0_f32, 0.1], [1.0, 1.0], [0.0, 1.0]]);
//! let people_say = [5.0, 2.5, 0.5];
//! let results = EmbeddingSimilarityEvaluator::default()
//!     .score_embeddings(&first.view(), &second.view(), &people_say)?;
//! let (_, metrics) = &results[0];
//! assert!((metrics.spearman - 1.0).abs() < 1e-12);
//! println!("{metrics}");
//! # Ok::<(), mpnet::Error>(())
//! ```
//!
//! Wrong input (lengths that differ, a score that is not a number, an empty list, rows without
//! columns) is [`Error::Input`](crate::Error::Input), which names the argument; an impossible
//! option is [`Error::Option`](crate::Error::Option).

mod binary_classification;
mod classification;
mod clustering;
mod correlation;
mod embedding_similarity;
mod information_retrieval;
mod input;
mod lbfgs;
mod line_search;
mod logistic_regression;
mod nearest_neighbors;
mod paraphrase_mining;
mod reranking;
mod triplet;

use std::fmt;

pub use binary_classification::{
    Better, BinaryClassificationEvaluator, BinaryClassificationMetrics, average_precision,
    binary_classification,
};
pub use classification::{
    ClassificationEvaluator, ClassificationMetrics, ClassificationReport, Classifier,
    classification_metrics,
};
pub use clustering::{ClusteringEvaluator, ClusteringMetrics, v_measure};
pub use correlation::{pearson, spearman};
pub use embedding_similarity::{EmbeddingSimilarityEvaluator, EmbeddingSimilarityMetrics};
pub use information_retrieval::{InformationRetrievalEvaluator, InformationRetrievalMetrics};
pub use logistic_regression::{LogisticRegression, LogisticRegressionModel};
pub use nearest_neighbors::{KNeighborsClassifier, KNeighborsModel};
pub use paraphrase_mining::{ParaphraseMiningEvaluator, ParaphraseMiningMetrics};
pub use reranking::{RerankingEvaluator, RerankingMetrics, RerankingSample, RerankingScores};
pub use triplet::{TripletEvaluator, TripletMetrics, triplet_accuracy};

/// Named numbers.
///
/// ```
/// use mpnet::evaluation::{Metrics, v_measure};
///
/// let names: Vec<String> = v_measure(&[0, 1], &[1, 0])?.entries().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["v_measure", "homogeneity", "completeness"]);
/// # Ok::<(), mpnet::Error>(())
/// ```
pub trait Metrics {
    /// Each metric's name, as sentence-transformers or MTEB writes it (`ndcg@10`), and its value.
    ///
    /// ```
    /// use mpnet::evaluation::{InformationRetrievalEvaluator, Metrics};
    ///
    /// let metrics = InformationRetrievalEvaluator::default().score_rankings(&[vec![1, 0]], &[vec![0]])?;
    /// let entries = metrics.entries();
    /// let (_, mrr) = entries.iter().find(|(name, _)| name == "mrr@10").unwrap();
    /// assert_eq!(*mrr, 0.5);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    fn entries(&self) -> Vec<(String, f64)>;
}

/// A metric a line: its name, and its value to four digits.
fn write_table(metrics: &dyn Metrics, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let entries = metrics.entries();
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (line, (name, value)) in entries.iter().enumerate() {
        let end_of_last = if line == 0 { "" } else { "\n" };
        write!(f, "{end_of_last}{name:width$}  {value:.4}")?;
    }
    Ok(())
}

/// `Metrics` of a struct by the names of its fields, in their order.
macro_rules! named {
    ($metrics:ty: $($field:ident),+) => {
        impl $crate::evaluation::Metrics for $metrics {
            fn entries(&self) -> Vec<(String, f64)> {
                vec![$((stringify!($field).to_owned(), self.$field)),+]
            }
        }
        $crate::evaluation::printed!($metrics);
    };
}

/// `Display` as a table.
macro_rules! printed {
    ($metrics:ty) => {
        impl std::fmt::Display for $metrics {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::evaluation::write_table(self, f)
            }
        }
    };
}

use {named, printed};
