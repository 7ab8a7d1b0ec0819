//! Is a text nearer to one that belongs to it than to one that does not?

use ndarray::ArrayRef2;

use super::input::{Role, Texts, finite, not_empty, or_default, pairwise, same_length};
use crate::error::{Error, Result};
use crate::sentence::SentenceEncoder;
use crate::similarity::Similarity;

/// Counts the triplets whose anchor is nearer to its positive than to its negative.
///
/// As sentence-transformers' `TripletEvaluator`: anchors are encoded as queries, the others as
/// documents.
///
/// ```
/// let evaluator = mpnet::evaluation::TripletEvaluator { margin: 0.1, ..Default::default() };
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TripletEvaluator {
    /// The similarity functions to try; none: the model's own, or the cosine of embeddings that
    /// come without one.
    pub similarities: Vec<Similarity>,
    /// By how much the positive must be more similar. Distances count as negative similarities.
    pub margin: f64,
    /// Components of the embeddings that are used; `None`: all.
    pub truncate_dim: Option<usize>,
}

/// How many triplets are in order.
///
/// ```
/// use mpnet::{evaluation::TripletEvaluator, ndarray::arr2};
///
/// let (a, n) = (arr2(&[[1.0_f32, 0.0]]), arr2(&[[0.0_f32, 1.0]]));
/// let results = TripletEvaluator::default().score_embeddings(&a.view(), &a.view(), &n.view())?;
/// println!("{}", results[0].1); // accuracy  1.0000
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct TripletMetrics {
    /// The part of the triplets whose positive is more similar to the anchor, from 0 to 1.
    pub accuracy: f64,
}

super::named!(TripletMetrics: accuracy);

impl TripletEvaluator {
    /// Encodes the triplets `anchors[i]`, `positives[i]`, `negatives[i]`.
    ///
    /// ```
    /// use mpnet::evaluation::TripletEvaluator;
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let results = TripletEvaluator::default()
    ///     .evaluate(&encoder, &["a new house"], &["the house is new"], &["an old train"])?;
    /// println!("accuracy {}", results[0].1.accuracy);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if the lengths differ or are 0; [`Error::Option`] if
    /// `margin` is not finite; those of [`SentenceEncoder::encode_with`].
    pub fn evaluate<S: AsRef<str>>(
        &self,
        encoder: &SentenceEncoder,
        anchors: &[S],
        positives: &[S],
        negatives: &[S],
    ) -> Result<Vec<(Similarity, TripletMetrics)>> {
        same_length(("positives", positives.len()), ("anchors", anchors.len()))?;
        same_length(("negatives", negatives.len()), ("anchors", anchors.len()))?;
        let texts = Texts::new(encoder, self.truncate_dim);
        let anchors = texts.role(Role::Query).encode(anchors)?;
        let documents = texts.role(Role::Document);
        let (positives, negatives) = (documents.encode(positives)?, documents.encode(negatives)?);
        let similarities = or_default(&self.similarities, encoder.similarity_fn());
        self.score(&similarities, &anchors.view(), &positives.view(), &negatives.view())
    }

    /// The same of embeddings, `[B, D]` each.
    ///
    /// ```
    /// use mpnet::{evaluation::TripletEvaluator, ndarray::arr2};
    ///
    /// let (anchor, positive, negative) =
    ///     (arr2(&[[1.0_f32, 0.0]]), arr2(&[[1.0_f32, 0.1]]), arr2(&[[0.0_f32, 1.0]]));
    /// let results = TripletEvaluator::default()
    ///     .score_embeddings(&anchor.view(), &positive.view(), &negative.view())?;
    /// assert_eq!(results[0].1.accuracy, 1.0);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if the shapes differ, there are no triplets, or a
    /// component is not finite; [`Error::Option`] if `margin` is not finite.
    pub fn score_embeddings(
        &self,
        anchors: &ArrayRef2<f32>,
        positives: &ArrayRef2<f32>,
        negatives: &ArrayRef2<f32>,
    ) -> Result<Vec<(Similarity, TripletMetrics)>> {
        let similarities = or_default(&self.similarities, Similarity::Cosine);
        self.score(&similarities, anchors, positives, negatives)
    }

    fn score(
        &self,
        similarities: &[Similarity],
        anchors: &ArrayRef2<f32>,
        positives: &ArrayRef2<f32>,
        negatives: &ArrayRef2<f32>,
    ) -> Result<Vec<(Similarity, TripletMetrics)>> {
        let metrics = |&similarity: &Similarity| {
            let positive = pairwise(similarity, ("anchors", anchors), ("positives", positives))?;
            let negative = pairwise(similarity, ("anchors", anchors), ("negatives", negatives))?;
            let accuracy = triplet_accuracy(&positive, &negative, self.margin)?;
            Ok((similarity, TripletMetrics { accuracy }))
        };
        similarities.iter().map(metrics).collect()
    }
}

/// The part of the triplets in which `positive[i] > negative[i] + margin`, both similarities to the
/// anchor. Equality does not count.
///
/// ```
/// let accuracy = mpnet::evaluation::triplet_accuracy(&[0.9, 0.5, 0.4], &[0.1, 0.5, 0.6], 0.0)?;
/// assert!((accuracy - 1.0 / 3.0).abs() < 1e-12);
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Input`](crate::Error::Input) if the lengths differ or are 0, or a similarity is not
/// finite; [`Error::Option`] if `margin` is not.
pub fn triplet_accuracy(positive: &[f64], negative: &[f64], margin: f64) -> Result<f64> {
    same_length(("negative", negative.len()), ("positive", positive.len()))?;
    not_empty("positive", positive.len())?;
    finite("positive", positive)?;
    finite("negative", negative)?;
    if !margin.is_finite() {
        let problem = format!("is {margin}, must be finite");
        return Err(Error::Option { option: "margin", problem });
    }
    let right = positive.iter().zip(negative).filter(|(p, n)| **p > **n + margin).count();
    Ok(right as f64 / positive.len() as f64)
}
