//! Are the most similar pairs of a set of texts its duplicates?

use std::collections::{HashMap, HashSet};

use ndarray::ArrayRef2;

use super::input::{Texts, wrong};
use crate::error::{Error, InputProblem, Result, at_least_one};
use crate::mining::{Paraphrase, ParaphraseOptions, paraphrase_mining};
use crate::rows::usable;
use crate::sentence::SentenceEncoder;

/// Mines a set of texts for its most similar pairs and compares them with the known duplicates.
///
/// As sentence-transformers' `ParaphraseMiningEvaluator`, which mines by the cosine.
///
/// ```
/// use mpnet::evaluation::ParaphraseMiningEvaluator;
///
/// let evaluator = ParaphraseMiningEvaluator { add_transitive_closure: true, ..Default::default() };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParaphraseMiningEvaluator {
    /// The most pairs that are mined.
    pub max_pairs: usize,
    /// How many of the nearest others are considered for each text.
    pub top_k: usize,
    /// Whether duplicates of duplicates count as duplicates too, though not listed.
    pub add_transitive_closure: bool,
    /// Components of the embeddings that are used; `None`: all.
    pub truncate_dim: Option<usize>,
}

impl Default for ParaphraseMiningEvaluator {
    fn default() -> Self {
        Self { max_pairs: 500_000, top_k: 100, add_transitive_closure: false, truncate_dim: None }
    }
}

/// How well the pairs found are the duplicates known.
///
/// ```
/// use mpnet::{evaluation::ParaphraseMiningEvaluator, ndarray::arr2};
///
/// let rows = arr2(&[[1.0_f32, 0.0], [1.0, 0.1], [0.0, 1.0]]);
/// let metrics = ParaphraseMiningEvaluator::default().score_embeddings(&rows.view(), &[(0, 1)])?;
/// println!("from {:.3} on, {:.0} % of the duplicates", metrics.threshold, 100.0 * metrics.recall);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ParaphraseMiningMetrics {
    /// The precision at each duplicate that was found, added up and divided by the number of
    /// duplicates. The main metric.
    pub average_precision: f64,
    /// The largest harmonic mean of precision and recall.
    pub f1: f64,
    /// The part of the pairs above `threshold` that are duplicates.
    pub precision: f64,
    /// The part of the duplicates that is above `threshold`.
    pub recall: f64,
    /// The score at which `f1` is reached: halfway to the next pair's.
    pub threshold: f64,
}

super::named!(ParaphraseMiningMetrics: average_precision, f1, precision, recall, threshold);

impl ParaphraseMiningEvaluator {
    /// Encodes `sentences` and mines them; `duplicates` are the known pairs by place, each once in
    /// either order.
    ///
    /// ```
    /// use mpnet::evaluation::ParaphraseMiningEvaluator;
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let sentences = ["a new house", "the house is new", "an old train", "who was there"];
    /// let metrics = ParaphraseMiningEvaluator::default().evaluate(&encoder, &sentences, &[(0, 1)])?;
    /// println!("{metrics}");
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if `duplicates` is empty, names a sentence beyond the
    /// last, or one as its own duplicate; [`Error::Option`] if `max_pairs` or `top_k` is 0; those
    /// of [`SentenceEncoder::encode_with`].
    pub fn evaluate<S: AsRef<str>>(
        &self,
        encoder: &SentenceEncoder,
        sentences: &[S],
        duplicates: &[(usize, usize)],
    ) -> Result<ParaphraseMiningMetrics> {
        self.check(duplicates, Some(sentences.len()))?;
        let embeddings = Texts::new(encoder, self.truncate_dim).encode(sentences)?;
        self.score_embeddings(&embeddings.view(), duplicates)
    }

    /// The same of embeddings, `[B, D]`.
    ///
    /// ```
    /// use mpnet::{evaluation::ParaphraseMiningEvaluator, ndarray::arr2};
    ///
    /// let rows = arr2(&[[1.0_f32, 0.0], [1.0, 0.1], [0.0, 1.0]]);
    /// let metrics = ParaphraseMiningEvaluator::default().score_embeddings(&rows.view(), &[(1, 0)])?;
    /// assert_eq!(metrics.average_precision, 1.0);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`evaluate`](Self::evaluate), and [`Error::Input`](crate::Error::Input) if a component is
    /// not finite.
    pub fn score_embeddings(
        &self,
        embeddings: &ArrayRef2<f32>,
        duplicates: &[(usize, usize)],
    ) -> Result<ParaphraseMiningMetrics> {
        self.check(duplicates, Some(embeddings.nrows()))?;
        usable("embeddings", embeddings)?;
        let options = ParaphraseOptions::default().top_k(self.top_k).max_pairs(self.max_pairs);
        self.score_pairs(&paraphrase_mining(embeddings, &options)?, duplicates)
    }

    /// The same of `pairs` that were found, by [`paraphrase_mining`] or otherwise, in any order.
    ///
    /// ```
    /// use mpnet::evaluation::ParaphraseMiningEvaluator;
    /// use mpnet::mining::Paraphrase;
    ///
    /// let pairs = [(0.9, 0, 1), (0.6, 2, 3), (0.5, 0, 2)].map(|(score, i, j)| Paraphrase { score, i, j });
    /// let metrics = ParaphraseMiningEvaluator::default().score_pairs(&pairs, &[(1, 0), (0, 2)])?;
    /// assert!((metrics.average_precision - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
    /// assert!((metrics.threshold - 0.5).abs() < 1e-12);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if `duplicates` is empty or names a sentence as its
    /// own duplicate, a pair occurs twice, or a score is not finite.
    pub fn score_pairs(
        &self,
        pairs: &[Paraphrase],
        duplicates: &[(usize, usize)],
    ) -> Result<ParaphraseMiningMetrics> {
        self.check(duplicates, None)?;
        let mut pairs = pairs.to_vec();
        let mut seen = HashSet::new();
        for (index, pair) in pairs.iter().enumerate() {
            if !pair.score.is_finite() {
                return Err(wrong("pairs", format!("pair {index} has score {}", pair.score)));
            }
            if !seen.insert(unordered((pair.i, pair.j))) {
                return Err(wrong("pairs", format!("({}, {}) occurs twice", pair.i, pair.j)));
            }
        }
        pairs.sort_by(|a, b| b.score.total_cmp(&a.score));
        let duplicates = self.known(duplicates);
        let total = duplicates.len() as f64;

        let mut metrics = ParaphraseMiningMetrics {
            average_precision: 0.0,
            f1: 0.0,
            precision: 0.0,
            recall: 0.0,
            threshold: 0.0,
        };
        let (mut taken, mut right) = (0, 0);
        for equal in pairs.chunk_by(|a, b| a.score == b.score) {
            let is_known = |pair: &&Paraphrase| duplicates.contains(&unordered((pair.i, pair.j)));
            let found = equal.iter().filter(is_known).count();
            taken += equal.len();
            right += found;
            if found == 0 {
                continue;
            }
            let (precision, recall) = (right as f64 / taken as f64, right as f64 / total);
            metrics.average_precision += precision * found as f64 / total;
            let f1 = 2.0 * precision * recall / (precision + recall);
            if f1 > metrics.f1 {
                let next = pairs.get(taken).map_or(equal[0].score, |pair| pair.score);
                metrics.threshold = f64::midpoint(equal[0].score.into(), next.into());
                (metrics.f1, metrics.precision, metrics.recall) = (f1, precision, recall);
            }
        }
        Ok(metrics)
    }

    /// The known duplicates, each once; with those that follow, if they are asked for.
    fn known(&self, duplicates: &[(usize, usize)]) -> HashSet<(usize, usize)> {
        if !self.add_transitive_closure {
            return duplicates.iter().copied().map(unordered).collect();
        }
        // Groups are merged, the smaller into the larger.
        let mut group_of: HashMap<usize, usize> = HashMap::new();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for &(i, j) in duplicates {
            let mut group = |text: usize| {
                *group_of.entry(text).or_insert_with(|| {
                    groups.push(vec![text]);
                    groups.len() - 1
                })
            };
            let (a, b) = (group(i), group(j));
            if a == b {
                continue;
            }
            let (large, small) = if groups[a].len() < groups[b].len() { (b, a) } else { (a, b) };
            for text in std::mem::take(&mut groups[small]) {
                group_of.insert(text, large);
                groups[large].push(text);
            }
        }
        let pairs = |group: &Vec<usize>| -> Vec<(usize, usize)> {
            let with_later = |(at, &i): (usize, &usize)| {
                group[at + 1..].iter().map(move |&j| unordered((i, j))).collect::<Vec<_>>()
            };
            group.iter().enumerate().flat_map(with_later).collect()
        };
        groups.iter().flat_map(pairs).collect()
    }

    fn check(&self, duplicates: &[(usize, usize)], sentences: Option<usize>) -> Result<()> {
        at_least_one("max_pairs", self.max_pairs)?;
        at_least_one("top_k", self.top_k)?;
        if duplicates.is_empty() {
            return Err(wrong("duplicates", "is empty".into()));
        }
        for &(i, j) in duplicates {
            if i == j {
                return Err(wrong("duplicates", format!("({i}, {j}) is one sentence")));
            }
            if let Some(sentences) = sentences.filter(|&sentences| i.max(j) >= sentences) {
                let problem = format!("({i}, {j}) is beyond the {sentences} sentences");
                return Err(Error::Input {
                    input: "duplicates",
                    problem: InputProblem::Invalid(problem),
                });
            }
        }
        Ok(())
    }
}

fn unordered((i, j): (usize, usize)) -> (usize, usize) {
    (i.min(j), i.max(j))
}
