//! Classification by the nearest labelled embeddings.

use ndarray::{Array2, ArrayRef2};

use super::input::wrong;
use super::logistic_regression::classes_of;
use crate::error::{Error, Result, at_least_one};
use crate::rows::usable;
use crate::search::{Chunks, search};
use crate::similarity::Similarity;

/// k nearest neighbours: the class that most of the `k` nearest labelled embeddings have.
///
/// As scikit-learn's `KNeighborsClassifier` with equal weights: of classes with equally many
/// neighbours, the first. Of neighbours equally near, the earlier.
///
/// ```
/// use mpnet::{evaluation::KNeighborsClassifier, ndarray::arr2};
///
/// let embeddings = arr2(&[[1.0_f32, 0.0], [0.9, 0.1], [0.0, 1.0]]);
/// let model = KNeighborsClassifier { n_neighbors: 1, ..Default::default() }
///     .fit(&embeddings.view(), &["greeting", "greeting", "order"])?;
/// assert_eq!(model.predict(&arr2(&[[0.2_f32, 0.7]]).view())?, ["order"]);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KNeighborsClassifier {
    /// `k`: how many neighbours vote.
    pub n_neighbors: usize,
    /// What is near.
    pub similarity: Similarity,
}

impl Default for KNeighborsClassifier {
    /// scikit-learn's: 5 neighbours, by euclidean distance.
    fn default() -> Self {
        Self { n_neighbors: 5, similarity: Similarity::Euclidean }
    }
}

/// Labelled embeddings to compare with.
///
/// ```
/// use mpnet::{evaluation::{KNeighborsClassifier, KNeighborsModel}, ndarray::arr2};
///
/// let rows = arr2(&[[1.0_f32, 0.0], [0.0, 1.0]]);
/// let classifier = KNeighborsClassifier { n_neighbors: 1, ..Default::default() };
/// let model: KNeighborsModel<u32> = classifier.fit(&rows.view(), &[7, 9])?;
/// # assert_eq!(model.predict(&rows.view())?, [7, 9]);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct KNeighborsModel<L> {
    options: KNeighborsClassifier,
    embeddings: Array2<f32>,
    classes: Vec<L>,
    targets: Vec<usize>,
}

impl KNeighborsClassifier {
    /// Keeps `embeddings` `[B, D]` with their `labels` `[B]`.
    ///
    /// ```
    /// use mpnet::{evaluation::KNeighborsClassifier, ndarray::arr2};
    ///
    /// let rows = arr2(&[[1.0_f32, 0.0], [0.0, 1.0]]);
    /// let classifier = KNeighborsClassifier { n_neighbors: 1, ..Default::default() };
    /// let model = classifier.fit(&rows.view(), &["a", "b"])?;
    /// assert_eq!(model.predict(&rows.view())?, ["a", "b"]);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if the lengths differ or are 0, or a component is not
    /// finite; [`Error::Option`] if `n_neighbors` is 0 or more than there are embeddings.
    pub fn fit<L: Ord + Clone>(
        &self,
        embeddings: &ArrayRef2<f32>,
        labels: &[L],
    ) -> Result<KNeighborsModel<L>> {
        at_least_one("n_neighbors", self.n_neighbors)?;
        let (classes, targets) = classes_of(embeddings, labels)?;
        if self.n_neighbors > targets.len() {
            let problem =
                format!("is {}, there are {} embeddings", self.n_neighbors, targets.len());
            return Err(Error::Option { option: "n_neighbors", problem });
        }
        Ok(KNeighborsModel { options: *self, embeddings: embeddings.to_owned(), classes, targets })
    }
}

impl<L: Clone> KNeighborsModel<L> {
    /// The class of each of `embeddings` `[B, D]`.
    ///
    /// ```
    /// use mpnet::{evaluation::KNeighborsClassifier, ndarray::arr2};
    ///
    /// let rows = arr2(&[[1.0_f32, 0.0], [0.9, 0.0], [0.0, 1.0]]);
    /// let classifier = KNeighborsClassifier { n_neighbors: 3, ..Default::default() };
    /// let model = classifier.fit(&rows.view(), &["a", "a", "b"])?;
    /// assert_eq!(model.predict(&arr2(&[[0.0_f32, 0.9]]).view())?, ["a"]); // two votes to one
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if the width is another than that of the labelled
    /// embeddings, or a component is not finite.
    pub fn predict(&self, embeddings: &ArrayRef2<f32>) -> Result<Vec<L>> {
        let (width, want) = (embeddings.ncols(), self.embeddings.ncols());
        if width != want {
            return Err(wrong("embeddings", format!("has width {width}, the model {want}")));
        }
        usable("embeddings", embeddings)?;
        let KNeighborsClassifier { n_neighbors, similarity } = self.options;
        let labelled = self.embeddings.view();
        let neighbours =
            search(similarity, embeddings, &labelled, n_neighbors, Chunks::default(), None);
        let class = |hits: &Vec<crate::search::Hit>| {
            let mut votes = vec![0; self.classes.len()];
            hits.iter().for_each(|hit| votes[self.targets[hit.corpus_id]] += 1);
            let best = (0..votes.len()).rev().max_by_key(|&class| votes[class]);
            self.classes[best.expect("there is a class")].clone()
        };
        Ok(neighbours.iter().map(class).collect())
    }
}
