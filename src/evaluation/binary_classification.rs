//! Does a threshold on the similarity tell pairs that belong together from pairs that do not?

use std::cmp::Ordering;

use ndarray::ArrayRef2;

use super::input::{Texts, finite, not_empty, or_default, pairwise, same_length};
use crate::error::Result;
use crate::sentence::SentenceEncoder;
use crate::similarity::Similarity;

/// Finds the best thresholds between pairs that belong together (duplicates, paraphrases) and pairs
/// that do not.
///
/// As sentence-transformers' `BinaryClassificationEvaluator`: cosine and dot product are
/// similarities; for euclidean and manhattan the scores, and so the thresholds, are distances, of
/// which less is better.
///
/// ```
/// use mpnet::{Similarity, evaluation::BinaryClassificationEvaluator};
///
/// let evaluator = BinaryClassificationEvaluator {
///     similarities: vec![Similarity::Cosine, Similarity::Manhattan],
///     ..Default::default()
/// };
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BinaryClassificationEvaluator {
    /// The similarity functions to try; none: the model's own, or the cosine of embeddings that
    /// come without one.
    pub similarities: Vec<Similarity>,
    /// Components of the embeddings that are used; `None`: all.
    pub truncate_dim: Option<usize>,
}

/// Which scores speak for a pair.
///
/// ```
/// use mpnet::evaluation::{Better, binary_classification};
///
/// let distances = [0.1, 0.2, 0.9];
/// let metrics = binary_classification(&distances, &[true, true, false], Better::Lower)?;
/// assert_eq!(metrics.accuracy, 1.0);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Better {
    /// Higher ones: the scores are similarities.
    Higher,
    /// Lower ones: the scores are distances.
    Lower,
}

impl Better {
    /// Better scores first.
    fn compare(self, a: f64, b: f64) -> Ordering {
        match self {
            Self::Higher => b.total_cmp(&a),
            Self::Lower => a.total_cmp(&b),
        }
    }

    /// Whether a score reaches a threshold.
    fn reaches(self, score: f64, threshold: f64) -> bool {
        match self {
            Self::Higher => score >= threshold,
            Self::Lower => score <= threshold,
        }
    }
}

/// How well thresholds tell the pairs apart.
///
/// ```
/// use mpnet::evaluation::{Better, binary_classification};
///
/// let metrics = binary_classification(&[0.9, 0.4, 0.3], &[true, true, false], Better::Higher)?;
/// println!("{metrics}");
/// assert_eq!((metrics.f1, metrics.f1_threshold), (1.0, 0.35));
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct BinaryClassificationMetrics {
    /// The largest part of the pairs that one threshold puts on the right side.
    pub accuracy: f64,
    /// The threshold of `accuracy`.
    pub accuracy_threshold: f64,
    /// The largest harmonic mean of precision and recall; 0 if no pair belongs together.
    pub f1: f64,
    /// The threshold of `f1`.
    pub f1_threshold: f64,
    /// The part of the pairs found at `f1_threshold` that belong together.
    pub precision: f64,
    /// The part of the pairs that belong together that is found at `f1_threshold`.
    pub recall: f64,
    /// [`average_precision`]; the main metric.
    pub ap: f64,
    /// The correlation of decisions at `f1_threshold` with the labels (Matthews), from −1 to 1; 0
    /// if either is constant.
    pub mcc: f64,
}

super::named!(
    BinaryClassificationMetrics: accuracy, accuracy_threshold, f1, f1_threshold, precision, recall, ap, mcc
);

impl BinaryClassificationEvaluator {
    /// Encodes the pairs `sentences1[i]`, `sentences2[i]`; `labels[i]` says whether they belong
    /// together.
    ///
    /// ```
    /// use mpnet::evaluation::BinaryClassificationEvaluator;
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let (first, second) = (["a long day", "the house"], ["the day was long", "an old train"]);
    /// let results = BinaryClassificationEvaluator::default()
    ///     .evaluate(&encoder, &first, &second, &[true, false])?;
    /// let (similarity, metrics) = &results[0];
    /// println!("{}: {metrics}", similarity.name());
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if the lengths differ or are 0; those of
    /// [`SentenceEncoder::encode_with`].
    pub fn evaluate<S: AsRef<str>>(
        &self,
        encoder: &SentenceEncoder,
        sentences1: &[S],
        sentences2: &[S],
        labels: &[bool],
    ) -> Result<Vec<(Similarity, BinaryClassificationMetrics)>> {
        same_length(("sentences2", sentences2.len()), ("sentences1", sentences1.len()))?;
        same_length(("labels", labels.len()), ("sentences1", sentences1.len()))?;
        let texts = Texts::new(encoder, self.truncate_dim);
        let (first, second) = (texts.encode(sentences1)?, texts.encode(sentences2)?);
        let similarities = or_default(&self.similarities, encoder.similarity_fn());
        score(&similarities, &first.view(), &second.view(), labels)
    }

    /// The same of embeddings, `[B, D]` each.
    ///
    /// ```
    /// use mpnet::{evaluation::BinaryClassificationEvaluator, ndarray::arr2};
    ///
    /// let first = arr2(&[[1.0_f32, 0.0], [1.0, 0.0]]);
    /// let second = arr2(&[[1.0_f32, 0.1], [0.0, 1.0]]);
    /// let results = BinaryClassificationEvaluator::default()
    ///     .score_embeddings(&first.view(), &second.view(), &[true, false])?;
    /// assert_eq!(results[0].1.ap, 1.0);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if shapes or lengths do not fit together, there are no
    /// pairs, or a component is not finite.
    pub fn score_embeddings(
        &self,
        embeddings1: &ArrayRef2<f32>,
        embeddings2: &ArrayRef2<f32>,
        labels: &[bool],
    ) -> Result<Vec<(Similarity, BinaryClassificationMetrics)>> {
        let similarities = or_default(&self.similarities, Similarity::Cosine);
        score(&similarities, embeddings1, embeddings2, labels)
    }
}

fn score(
    similarities: &[Similarity],
    first: &ArrayRef2<f32>,
    second: &ArrayRef2<f32>,
    labels: &[bool],
) -> Result<Vec<(Similarity, BinaryClassificationMetrics)>> {
    let metrics = |&similarity: &Similarity| {
        let scores = pairwise(similarity, ("embeddings1", first), ("embeddings2", second))?;
        let metrics = match similarity {
            Similarity::Cosine | Similarity::Dot => {
                binary_classification(&scores, labels, Better::Higher)
            }
            Similarity::Euclidean | Similarity::Manhattan => {
                let distances: Vec<f64> = scores.iter().map(|similarity| -similarity).collect();
                binary_classification(&distances, labels, Better::Lower)
            }
        };
        Ok((similarity, metrics?))
    };
    similarities.iter().map(metrics).collect()
}

/// The best thresholds for `scores` `[B]` of pairs of which `labels` `[B]` say whether they belong
/// together.
///
/// Thresholds lie halfway between neighbouring different scores (scores that are equal stay
/// together), or at the last score; for the accuracy also just beyond the best. Of equally good
/// ones the one with the fewest pairs is taken.
///
/// ```
/// use mpnet::evaluation::{Better, binary_classification};
///
/// let scores = [0.9, 0.8, 0.7, 0.7, 0.4, 0.3];
/// let labels = [true, true, false, true, false, false];
/// let metrics = binary_classification(&scores, &labels, Better::Higher)?;
/// assert!((metrics.accuracy_threshold - 0.75).abs() < 1e-12);
/// assert!((metrics.f1 - 6.0 / 7.0).abs() < 1e-12);
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Input`](crate::Error::Input) if the lengths differ or are 0, or a score is not finite.
pub fn binary_classification(
    scores: &[f64],
    labels: &[bool],
    better: Better,
) -> Result<BinaryClassificationMetrics> {
    check(scores, labels)?;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| better.compare(scores[a], scores[b]));
    let best = scores[order[0]];
    let positives = labels.iter().filter(|&&label| label).count();
    let negatives = labels.len() - positives;

    let mut accuracy = negatives as f64 / labels.len() as f64;
    let mut accuracy_threshold = match better {
        Better::Higher => best.next_up(),
        Better::Lower => best.next_down(),
    };
    let (mut f1, mut precision, mut recall, mut f1_threshold) = (0.0, 0.0, 0.0, 0.0);
    let (mut taken, mut right) = (0, 0);
    for equal in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        taken += equal.len();
        right += equal.iter().filter(|&&i| labels[i]).count();
        let next = order.get(taken).map(|&i| scores[i]);
        let threshold = threshold(scores[equal[0]], next);

        let correct = right + negatives - (taken - right);
        if correct as f64 / labels.len() as f64 > accuracy {
            accuracy = correct as f64 / labels.len() as f64;
            accuracy_threshold = threshold;
        }
        let p = right as f64 / taken as f64;
        let r = right as f64 / positives as f64;
        if right > 0 && 2.0 * p * r / (p + r) > f1 {
            (f1, precision, recall) = (2.0 * p * r / (p + r), p, r);
            f1_threshold = threshold;
        }
    }
    let ap = match better {
        Better::Higher => average_precision(scores, labels)?,
        Better::Lower => {
            average_precision(&scores.iter().map(|score| -score).collect::<Vec<_>>(), labels)?
        }
    };
    let mcc = matthews(scores.iter().map(|&score| better.reaches(score, f1_threshold)), labels);
    Ok(BinaryClassificationMetrics {
        accuracy,
        accuracy_threshold,
        f1,
        f1_threshold,
        precision,
        recall,
        ap,
        mcc,
    })
}

/// Halfway to the next score; at this one if there is none, or nothing lies between.
fn threshold(score: f64, next: Option<f64>) -> f64 {
    match next.map(|next| (next, f64::midpoint(score, next))) {
        Some((next, middle)) if middle != next => middle,
        _ => score,
    }
}

/// The area under precision over recall, in steps: `Σ (Rᵢ − Rᵢ₋₁) · Pᵢ` over the different scores
/// from the highest down; equal scores are one step. 0 if no label is true.
///
/// As scikit-learn's `average_precision_score`.
///
/// ```
/// let ap = mpnet::evaluation::average_precision(&[0.5, 0.5, 0.2], &[true, false, true])?;
/// assert!((ap - 7.0 / 12.0).abs() < 1e-12);
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Input`](crate::Error::Input) if the lengths differ or are 0, or a score is not finite.
pub fn average_precision(scores: &[f64], labels: &[bool]) -> Result<f64> {
    check(scores, labels)?;
    let positives = labels.iter().filter(|&&label| label).count();
    if positives == 0 {
        return Ok(0.0);
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| Better::Higher.compare(scores[a], scores[b]));
    let (mut taken, mut right, mut sum) = (0, 0, 0.0);
    for equal in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let found = equal.iter().filter(|&&i| labels[i]).count();
        taken += equal.len();
        right += found;
        sum += found as f64 * right as f64 / taken as f64;
    }
    Ok(sum / positives as f64)
}

fn check(scores: &[f64], labels: &[bool]) -> Result<()> {
    same_length(("labels", labels.len()), ("scores", scores.len()))?;
    not_empty("scores", scores.len())?;
    finite("scores", scores)
}

/// `(TP · TN − FP · FN) / √((TP + FP)(TP + FN)(TN + FP)(TN + FN))`
fn matthews(decisions: impl Iterator<Item = bool>, labels: &[bool]) -> f64 {
    let (mut tp, mut tn, mut fp, mut r#fn) = (0.0, 0.0, 0.0, 0.0);
    for (decision, &label) in decisions.zip(labels) {
        *match (decision, label) {
            (true, true) => &mut tp,
            (false, false) => &mut tn,
            (true, false) => &mut fp,
            (false, true) => &mut r#fn,
        } += 1.0;
    }
    let scale: f64 = (tp + fp) * (tp + r#fn) * (tn + fp) * (tn + r#fn);
    if scale == 0.0 { 0.0 } else { (tp * tn - fp * r#fn) / scale.sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [bool; 6] = [true, true, false, true, false, false];

    /// The reference's values, for similarities and for the same as distances.
    #[test]
    fn of_a_small_example() {
        let scores = [0.9, 0.8, 0.7, 0.7, 0.4, 0.3];
        let distances = scores.map(|s| 1.0 - s);
        for (scores, better, thresholds) in
            [(scores, Better::Higher, (0.75, 0.55)), (distances, Better::Lower, (0.25, 0.45))]
        {
            let got = binary_classification(&scores, &LABELS, better).unwrap();
            for (got, want) in [
                (got.accuracy, 5.0 / 6.0),
                (got.accuracy_threshold, thresholds.0),
                (got.f1, 6.0 / 7.0),
                (got.f1_threshold, thresholds.1),
                (got.precision, 0.75),
                (got.recall, 1.0),
                (got.ap, 0.916_666_666_7),
                (got.mcc, std::f64::consts::FRAC_1_SQRT_2),
            ] {
                assert!((got - want).abs() < 1e-9, "{better:?}: {got} {want}");
            }
        }
    }

    #[test]
    fn with_no_pair_that_belongs_together() {
        let got = binary_classification(&[0.3, 0.2], &[false; 2], Better::Higher).unwrap();
        assert_eq!((got.accuracy, got.f1, got.ap, got.mcc), (1.0, 0.0, 0.0, 0.0));
        assert!(got.accuracy_threshold > 0.3);
    }

    #[test]
    fn no_threshold_falls_on_the_next_score() {
        let (low, high) = (1.0_f64, 1.0_f64.next_up());
        let got = binary_classification(&[high, low], &[true, false], Better::Higher).unwrap();
        assert_eq!(got.accuracy, 1.0);
        assert_eq!(got.f1_threshold, high);
    }

    #[test]
    fn wrong_input_is_named() {
        let message = |scores: &[f64], labels: &[bool]| {
            binary_classification(scores, labels, Better::Higher).unwrap_err().to_string()
        };
        assert_eq!(message(&[0.1], &[]), "`labels`: has 0 elements, `scores` has 1");
        assert_eq!(message(&[], &[]), "`scores`: is empty");
        assert_eq!(message(&[f64::NAN], &[true]), "`scores`: element 0 is NaN");
    }
}
