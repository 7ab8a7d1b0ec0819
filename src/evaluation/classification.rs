//! Can a simple classifier learn from a few labelled embeddings?

use std::collections::BTreeMap;

use ndarray::{ArrayRef2, Axis};

use super::Metrics;
use super::binary_classification::average_precision;
use super::input::{Texts, not_empty, same_length, wrong};
use super::logistic_regression::LogisticRegression;
use super::nearest_neighbors::KNeighborsClassifier;
use crate::error::{Result, at_least_one};
use crate::random::RandomState;
use crate::rows::{same_width, usable};
use crate::sentence::SentenceEncoder;

/// What learns from the embeddings.
///
/// ```
/// use mpnet::evaluation::{ClassificationEvaluator, Classifier, KNeighborsClassifier};
///
/// let evaluator = ClassificationEvaluator {
///     classifier: Classifier::KNeighbors(KNeighborsClassifier::default()),
///     ..Default::default()
/// };
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Classifier {
    /// Logistic regression: what MTEB takes.
    LogisticRegression(LogisticRegression),
    /// The nearest neighbours.
    KNeighbors(KNeighborsClassifier),
}

impl Default for Classifier {
    fn default() -> Self {
        Self::LogisticRegression(LogisticRegression::default())
    }
}

/// Trains a classifier on a few random samples of each label and tests it on all test texts,
/// several times.
///
/// As MTEB's classification tasks: the samples of each experiment are the first of each label in a
/// random order, and the orders are MTEB's own for the same seed.
///
/// ```
/// use mpnet::{evaluation::ClassificationEvaluator, ndarray::Array2};
///
/// let embeddings = Array2::from_shape_fn((40, 2), |(i, d)| if i % 2 == d { 1.0 } else { 0.01 * i as f32 });
/// let labels: Vec<usize> = (0..40).map(|i| i % 2).collect();
/// let (train, test) = (embeddings.view(), embeddings.view());
/// let report = ClassificationEvaluator::default().score_embeddings(&train, &labels, &test, &labels)?;
/// assert_eq!(report.mean.accuracy, 1.0);
/// assert_eq!(report.experiments.len(), 10);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ClassificationEvaluator {
    /// What learns.
    pub classifier: Classifier,
    /// Samples of each label that it learns from, or as many as there are.
    pub samples_per_label: usize,
    /// How many times it is trained and tested.
    pub n_experiments: usize,
    /// Of the random numbers.
    pub seed: u32,
    /// Components of the embeddings that are used; `None`: all.
    pub truncate_dim: Option<usize>,
}

impl Default for ClassificationEvaluator {
    /// MTEB's: logistic regression, 8 samples of each label, 10 experiments, seed 42.
    fn default() -> Self {
        Self {
            classifier: Classifier::default(),
            samples_per_label: 8,
            n_experiments: 10,
            seed: 42,
            truncate_dim: None,
        }
    }
}

/// How many labels were predicted, and how evenly: see [`classification_metrics`].
///
/// ```
/// use mpnet::evaluation::classification_metrics;
///
/// let metrics = classification_metrics(&["a", "b", "b"], &["a", "b", "a"])?;
/// assert!((metrics.accuracy - 2.0 / 3.0).abs() < 1e-12);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct ClassificationMetrics {
    /// The part of the predictions that are right. The main metric.
    pub accuracy: f64,
    /// The mean F1 of the labels ("macro"): each label counts the same.
    pub f1: f64,
    /// The mean F1, each label weighted by how often it occurs.
    pub f1_weighted: f64,
    /// The mean precision of the labels.
    pub precision: f64,
    /// The mean precision, weighted.
    pub precision_weighted: f64,
    /// The mean recall of the labels.
    pub recall: f64,
    /// The mean recall, weighted; the same as the accuracy.
    pub recall_weighted: f64,
    /// If there are two labels, the [`average_precision`] of the predictions, the second label
    /// being the positive one.
    pub ap: Option<f64>,
}

impl Metrics for ClassificationMetrics {
    fn entries(&self) -> Vec<(String, f64)> {
        let ap = self.ap.map(|ap| ("ap", ap));
        let rest = [
            ("accuracy", self.accuracy),
            ("f1", self.f1),
            ("f1_weighted", self.f1_weighted),
            ("precision", self.precision),
            ("precision_weighted", self.precision_weighted),
            ("recall", self.recall),
            ("recall_weighted", self.recall_weighted),
        ];
        rest.into_iter().chain(ap).map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

super::printed!(ClassificationMetrics);

/// The metrics of several experiments.
///
/// ```
/// use mpnet::{evaluation::ClassificationEvaluator, ndarray::arr2};
///
/// let rows = arr2(&[[1.0_f32, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]);
/// let labels = [1, 1, 2, 2];
/// let evaluator = ClassificationEvaluator { n_experiments: 3, ..Default::default() };
/// let report = evaluator.score_embeddings(&rows.view(), &labels, &rows.view(), &labels)?;
/// assert_eq!(report.experiments.len(), 3);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ClassificationReport {
    /// The mean of each metric.
    pub mean: ClassificationMetrics,
    /// Each experiment's.
    pub experiments: Vec<ClassificationMetrics>,
}

impl Metrics for ClassificationReport {
    fn entries(&self) -> Vec<(String, f64)> {
        self.mean.entries()
    }
}

super::printed!(ClassificationReport);

impl ClassificationEvaluator {
    /// Encodes those training texts that are drawn, and all test texts, then trains and tests.
    ///
    /// ```
    /// use mpnet::evaluation::ClassificationEvaluator;
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let (train, labels) = (["who was there", "no one was", "an old town", "the house"], [0, 0, 1, 1]);
    /// let report = ClassificationEvaluator::default()
    ///     .evaluate(&encoder, &train, &labels, &["who was it", "a new house"], &[0, 1])?;
    /// println!("{}", report.mean);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if lengths differ or are 0, or the training labels are
    /// all the same; [`Error::Option`](crate::Error::Option) for `samples_per_label` or
    /// `n_experiments` of 0, or an option that the classifier refuses; those of
    /// [`SentenceEncoder::encode_with`].
    pub fn evaluate<S: AsRef<str>, L: Ord + Clone>(
        &self,
        encoder: &SentenceEncoder,
        train_texts: &[S],
        train_labels: &[L],
        test_texts: &[S],
        test_labels: &[L],
    ) -> Result<ClassificationReport> {
        same_length(("train_labels", train_labels.len()), ("train_texts", train_texts.len()))?;
        same_length(("test_labels", test_labels.len()), ("test_texts", test_texts.len()))?;
        not_empty("train_texts", train_texts.len())?;
        not_empty("test_texts", test_texts.len())?;
        let draws = self.draws(train_labels)?;
        let mut drawn: Vec<usize> = draws.concat();
        drawn.sort_unstable();
        drawn.dedup();
        let drawn_texts: Vec<&str> = drawn.iter().map(|&i| train_texts[i].as_ref()).collect();
        let texts = Texts::new(encoder, self.truncate_dim);
        let (train, test) = (texts.encode(&drawn_texts)?, texts.encode(test_texts)?);
        let row = |i: &usize| drawn.binary_search(i).expect("each was drawn");
        let draws: Vec<Draw<L>> = draws
            .iter()
            .map(|draw| Draw {
                rows: draw.iter().map(row).collect(),
                labels: draw.iter().map(|&i| train_labels[i].clone()).collect(),
            })
            .collect();
        self.experiments(&draws, &train.view(), &test.view(), test_labels)
    }

    /// The same of embeddings: `train` `[A, D]`, `test` `[B, D]`.
    ///
    /// ```
    /// use mpnet::{evaluation::ClassificationEvaluator, ndarray::arr2};
    ///
    /// let train = arr2(&[[1.0_f32, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]);
    /// let test = arr2(&[[1.0_f32, 0.2], [0.2, 1.0]]);
    /// let report = ClassificationEvaluator::default()
    ///     .score_embeddings(&train.view(), &["a", "a", "b", "b"], &test.view(), &["a", "b"])?;
    /// assert_eq!(report.mean.accuracy, 1.0);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`evaluate`](Self::evaluate), and [`Error::Input`](crate::Error::Input) if the widths
    /// differ or a component is not finite.
    pub fn score_embeddings<L: Ord + Clone>(
        &self,
        train: &ArrayRef2<f32>,
        train_labels: &[L],
        test: &ArrayRef2<f32>,
        test_labels: &[L],
    ) -> Result<ClassificationReport> {
        same_length(("train_labels", train_labels.len()), ("train", train.nrows()))?;
        same_length(("test_labels", test_labels.len()), ("test", test.nrows()))?;
        not_empty("train", train.nrows())?;
        not_empty("test", test.nrows())?;
        same_width("test", test.ncols(), train.ncols())?;
        usable("train", train)?;
        usable("test", test)?;
        let labels = |draw: &[usize]| draw.iter().map(|&i| train_labels[i].clone()).collect();
        let draws: Vec<Draw<L>> = self
            .draws(train_labels)?
            .into_iter()
            .map(|rows| Draw { labels: labels(&rows), rows })
            .collect();
        self.experiments(&draws, train, test, test_labels)
    }

    /// For each experiment the samples it learns from.
    fn draws<L: Ord>(&self, labels: &[L]) -> Result<Vec<Vec<usize>>> {
        at_least_one("samples_per_label", self.samples_per_label)?;
        at_least_one("n_experiments", self.n_experiments)?;
        if labels.iter().all(|label| *label == labels[0]) {
            return Err(wrong("train_labels", "all are of one class".into()));
        }
        let mut order: Vec<usize> = (0..labels.len()).collect();
        let draw = |_| {
            // MTEB shuffles what the experiment before left, by the same numbers.
            RandomState::new(self.seed).shuffle(&mut order);
            let mut taken = BTreeMap::new();
            let mut take = |&i: &usize| {
                let taken = taken.entry(&labels[i]).or_insert(0);
                *taken += 1;
                *taken <= self.samples_per_label
            };
            order.iter().copied().filter(|i| take(i)).collect()
        };
        Ok((0..self.n_experiments).map(draw).collect())
    }

    fn experiments<L: Ord + Clone>(
        &self,
        draws: &[Draw<L>],
        train: &ArrayRef2<f32>,
        test: &ArrayRef2<f32>,
        test_labels: &[L],
    ) -> Result<ClassificationReport> {
        let experiment = |draw: &Draw<L>| {
            let train = train.select(Axis(0), &draw.rows);
            let predicted = match self.classifier {
                Classifier::LogisticRegression(options) => {
                    options.fit(&train.view(), &draw.labels)?.predict(test)?
                }
                Classifier::KNeighbors(options) => {
                    options.fit(&train.view(), &draw.labels)?.predict(test)?
                }
            };
            classification_metrics(test_labels, &predicted)
        };
        let experiments: Vec<ClassificationMetrics> =
            draws.iter().map(experiment).collect::<Result<_>>()?;
        Ok(ClassificationReport { mean: mean(&experiments), experiments })
    }
}

/// What one experiment learns from: rows of the training embeddings, and their labels.
struct Draw<L> {
    rows: Vec<usize>,
    labels: Vec<L>,
}

fn mean(experiments: &[ClassificationMetrics]) -> ClassificationMetrics {
    let mean = |metric: fn(&ClassificationMetrics) -> f64| {
        experiments.iter().map(metric).sum::<f64>() / experiments.len() as f64
    };
    ClassificationMetrics {
        accuracy: mean(|m| m.accuracy),
        f1: mean(|m| m.f1),
        f1_weighted: mean(|m| m.f1_weighted),
        precision: mean(|m| m.precision),
        precision_weighted: mean(|m| m.precision_weighted),
        recall: mean(|m| m.recall),
        recall_weighted: mean(|m| m.recall_weighted),
        // That there are two labels is so in every experiment or in none.
        ap: experiments[0].ap.map(|_| mean(|m| m.ap.unwrap_or(0.0))),
    }
}

/// How well `predicted` `[B]` matches `labels` `[B]`.
///
/// Precision, recall and F1 of a label are 0 where they are not defined; a label that was predicted
/// but does not occur counts in the means that are not weighted. As scikit-learn's metrics of these
/// names.
///
/// ```
/// let metrics = mpnet::evaluation::classification_metrics(&["a", "a", "b"], &["a", "b", "b"])?;
/// assert!((metrics.accuracy - 2.0 / 3.0).abs() < 1e-12);
/// assert!((metrics.f1 - 2.0 / 3.0).abs() < 1e-12);
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Input`](crate::Error::Input) if the lengths differ or are 0.
pub fn classification_metrics<L: Ord>(
    labels: &[L],
    predicted: &[L],
) -> Result<ClassificationMetrics> {
    same_length(("predicted", predicted.len()), ("labels", labels.len()))?;
    not_empty("labels", labels.len())?;
    let mut counts: BTreeMap<&L, Counts> = BTreeMap::new();
    for (label, predicted) in labels.iter().zip(predicted) {
        counts.entry(label).or_default().occurs += 1.0;
        counts.entry(predicted).or_default().predicted += 1.0;
        if label == predicted {
            counts.entry(label).or_default().right += 1.0;
        }
    }
    let mean =
        |metric: fn(&Counts) -> f64| counts.values().map(metric).sum::<f64>() / counts.len() as f64;
    let n = labels.len() as f64;
    let weighted = |metric: fn(&Counts) -> f64| {
        counts.values().map(|label| metric(label) * label.occurs).sum::<f64>() / n
    };
    Ok(ClassificationMetrics {
        accuracy: counts.values().map(|label| label.right).sum::<f64>() / n,
        f1: mean(Counts::f1),
        f1_weighted: weighted(Counts::f1),
        precision: mean(Counts::precision),
        precision_weighted: weighted(Counts::precision),
        recall: mean(Counts::recall),
        recall_weighted: weighted(Counts::recall),
        ap: ap(labels, predicted, &counts)?,
    })
}

fn ap<L: Ord>(labels: &[L], predicted: &[L], counts: &BTreeMap<&L, Counts>) -> Result<Option<f64>> {
    let occurring: Vec<&L> =
        counts.iter().filter(|(_, label)| label.occurs > 0.0).map(|(label, _)| *label).collect();
    let &[_, positive] = &occurring[..] else { return Ok(None) };
    let scores: Vec<f64> =
        predicted.iter().map(|label| f64::from(u8::from(label == positive))).collect();
    let labels: Vec<bool> = labels.iter().map(|label| label == positive).collect();
    average_precision(&scores, &labels).map(Some)
}

/// How often a label occurs, is predicted, and both.
#[derive(Default)]
struct Counts {
    occurs: f64,
    predicted: f64,
    right: f64,
}

impl Counts {
    fn precision(&self) -> f64 {
        if self.predicted == 0.0 { 0.0 } else { self.right / self.predicted }
    }

    fn recall(&self) -> f64 {
        if self.occurs == 0.0 { 0.0 } else { self.right / self.occurs }
    }

    fn f1(&self) -> f64 {
        2.0 * self.right / (self.occurs + self.predicted)
    }
}
