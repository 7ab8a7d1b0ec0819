//! k-means on random samples of the rows, as scikit-learn's `MiniBatchKMeans`.

use ndarray::{Array2, ArrayRef2, Axis};

use super::kmeans::{
    Clustering, KMeansInit, check, distances, mean_variance, members, nearest, not_negative,
    plus_plus, sums,
};
use crate::error::{Result, at_least_one};
use crate::random::RandomState;

/// k-means for many rows: each step assigns a random sample of them and moves every centroid
/// towards its new members, the less the more it has had.
///
/// Definitions and defaults are those of scikit-learn's `MiniBatchKMeans`: initial centroids by the
/// better of `n_init` k-means++ runs on samples, centroids with few rows moved to random ones now
/// and then, and an end when a moving average of the inertia stops falling. Random numbers are
/// drawn as scikit-learn draws them for `random_state = seed`. The result is the same for any
/// number of threads.
///
/// Source: Sculley 2010, <https://doi.org/10.1145/1772690.1772862>.
///
/// ```
/// use mpnet::{mining::MiniBatchKMeans, ndarray::Array2};
///
/// let embeddings = Array2::from_shape_fn((600, 2), |(i, d)| (i % 3 * (d + 1)) as f32);
/// let clustering = MiniBatchKMeans { batch_size: 100, ..MiniBatchKMeans::new(3) }.fit(&embeddings.view())?;
/// assert!(clustering.inertia < 1e-6);
/// assert_eq!(clustering.predict(&embeddings.view())?, clustering.labels);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct MiniBatchKMeans {
    /// `k`: how many clusters.
    pub n_clusters: usize,
    /// Where to begin.
    pub init: KMeansInit,
    /// How many initialisations are tried on samples; the best is used.
    pub n_init: usize,
    /// Rows of the samples that initialisations are made from and compared on; `None`: three
    /// batches, or `3 · n_clusters` if that is more than three batches hold.
    pub init_size: Option<usize>,
    /// Rows of a step.
    pub batch_size: usize,
    /// The most steps, in rounds over all rows.
    pub max_iter: usize,
    /// Steps without a better average inertia after which it ends; `None`: only `max_iter` and
    /// `tol` end it.
    pub max_no_improvement: Option<usize>,
    /// A step that moves the centroids by less than this (the sum of squares, relative to the mean
    /// variance of a column) ends it; 0: none does.
    pub tol: f64,
    /// A centroid that has had fewer rows than this part of what the largest has had is moved to a
    /// random row.
    pub reassignment_ratio: f64,
    /// Of the random numbers.
    pub seed: u32,
}

impl MiniBatchKMeans {
    /// With scikit-learn's defaults: batches of 1024, at most 100 rounds, an end after 10 steps
    /// without improvement, reassignment below 1 %; seed 0.
    ///
    /// ```
    /// use mpnet::mining::MiniBatchKMeans;
    ///
    /// let kmeans = MiniBatchKMeans { batch_size: 4096, ..MiniBatchKMeans::new(100) };
    /// ```
    #[must_use]
    pub fn new(n_clusters: usize) -> Self {
        Self {
            n_clusters,
            init: KMeansInit::default(),
            n_init: 1,
            init_size: None,
            batch_size: 1024,
            max_iter: 100,
            max_no_improvement: Some(10),
            tol: 0.0,
            reassignment_ratio: 0.01,
            seed: 0,
        }
    }

    /// Clusters the rows of `embeddings` `[N, D]`.
    ///
    /// ```
    /// use mpnet::{mining::MiniBatchKMeans, ndarray::arr2};
    ///
    /// let rows = arr2(&[[0.0_f32, 0.1], [5.0, 5.0], [0.1, 0.0], [5.1, 5.0]]);
    /// let clustering = MiniBatchKMeans::new(2).fit(&rows.view())?;
    /// assert_eq!(clustering.labels[0], clustering.labels[2]);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) for fewer rows than clusters, rows without columns, a
    /// component that is not finite, or initial centroids of another shape than `[k, D]`;
    /// [`Error::Option`](crate::Error::Option) if `n_clusters`, `n_init`, `init_size`, `batch_size`
    /// or `max_iter` is 0, or `tol` or `reassignment_ratio` is negative.
    pub fn fit(&self, embeddings: &ArrayRef2<f32>) -> Result<Clustering> {
        check(embeddings, self.n_clusters, &self.init)?;
        at_least_one("n_init", self.n_init)?;
        at_least_one("init_size", self.init_size.unwrap_or(1))?;
        at_least_one("batch_size", self.batch_size)?;
        at_least_one("max_iter", self.max_iter)?;
        not_negative("tol", self.tol)?;
        not_negative("reassignment_ratio", self.reassignment_ratio)?;

        let n = embeddings.nrows();
        let batch_size = self.batch_size.min(n);
        let mut random = RandomState::new(self.seed);
        let centroids = self.begin(embeddings, batch_size, &mut random);
        let mut state = State {
            options: self,
            batch_size,
            counts: vec![0.0; self.n_clusters],
            centroids,
            since_reassignment: 0,
        };
        let mut stop = Stop {
            weight: (2.0 * batch_size as f64 / (n as f64 + 1.0)).min(1.0),
            tolerance: self.tol * mean_variance(embeddings),
            max_no_improvement: self.max_no_improvement,
            average: None,
            best: f64::INFINITY,
            no_improvement: 0,
        };
        let steps = (self.max_iter.saturating_mul(n) / batch_size).max(1);
        let mut step = 0;
        while step < steps {
            step += 1;
            let sample: Vec<usize> = (0..batch_size).map(|_| random.choice(n)).collect();
            let batch = embeddings.select(Axis(0), &sample);
            let (inertia, shift) = state.step(&batch.view(), &mut random);
            // The first step's inertia is the initialisation's.
            if step > 1 && stop.now(inertia / batch_size as f64, shift) {
                break;
            }
        }
        let labels = nearest(embeddings, &state.centroids.view());
        let inertia = distances(embeddings, &labels, &state.centroids.view()).iter().sum();
        let n_iter = (step * batch_size).div_ceil(n);
        Ok(Clustering { centroids: state.centroids, labels, inertia, n_iter })
    }

    /// The best of `n_init` initialisations, by the inertia of a sample.
    fn begin(
        &self,
        rows: &ArrayRef2<f32>,
        batch_size: usize,
        random: &mut RandomState,
    ) -> Array2<f32> {
        let n = rows.nrows();
        let default =
            if 3 * batch_size < self.n_clusters { 3 * self.n_clusters } else { 3 * batch_size };
        let size = match self.init_size {
            // Too few to begin with.
            Some(size) if size < self.n_clusters => 3 * self.n_clusters,
            size => size.unwrap_or(default),
        }
        .min(n);
        let sample = |random: &mut RandomState| -> Array2<f32> {
            let chosen: Vec<usize> = (0..size).map(|_| random.below(n)).collect();
            rows.select(Axis(0), &chosen)
        };
        let valid = sample(random);
        let mut best: Option<(f64, Array2<f32>)> = None;
        for _ in 0..self.n_init {
            let centroids = match &self.init {
                KMeansInit::Centroids(centroids) => centroids.clone(),
                KMeansInit::PlusPlus if size < n => {
                    plus_plus(&sample(random).view(), self.n_clusters, random)
                }
                KMeansInit::PlusPlus => plus_plus(rows, self.n_clusters, random),
            };
            let labels = nearest(&valid.view(), &centroids.view());
            let inertia = distances(&valid.view(), &labels, &centroids.view()).iter().sum::<f64>();
            if best.as_ref().is_none_or(|best| inertia < best.0) {
                best = Some((inertia, centroids));
            }
        }
        best.expect("n_init is at least 1").1
    }
}

struct State<'a> {
    options: &'a MiniBatchKMeans,
    batch_size: usize,
    centroids: Array2<f32>,
    /// Rows that each centroid has had.
    counts: Vec<f64>,
    since_reassignment: usize,
}

impl State<'_> {
    /// One step on the rows `batch`: their inertia before it, and how far the centroids moved (the
    /// sum of squares).
    fn step(&mut self, batch: &ArrayRef2<f32>, random: &mut RandomState) -> (f64, f64) {
        let reassign = self.reassignment_is_due();
        let labels = nearest(batch, &self.centroids.view());
        let inertia = distances(batch, &labels, &self.centroids.view()).iter().sum();
        let members = members(&labels, self.centroids.nrows());
        let sums = sums(batch, &members);
        let mut moved = self.centroids.clone();
        for (j, members) in members.iter().enumerate().filter(|(_, members)| !members.is_empty()) {
            let (before, now) = (self.counts[j], self.counts[j] + members.len() as f64);
            for (centroid, sum) in moved.row_mut(j).iter_mut().zip(sums.row(j)) {
                *centroid = ((f64::from(*centroid) * before + sum) / now) as f32;
            }
            self.counts[j] = now;
        }
        if reassign && self.options.reassignment_ratio > 0.0 {
            self.reassign(batch, &mut moved, random);
        }
        let shift = (&moved - &self.centroids).iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        self.centroids = moved;
        (inertia, shift)
    }

    /// Whenever a centroid has had no row yet, and each time `10 · k` rows have been seen.
    fn reassignment_is_due(&mut self) -> bool {
        self.since_reassignment += self.batch_size;
        let due = self.counts.contains(&0.0) || self.since_reassignment >= 10 * self.counts.len();
        if due {
            self.since_reassignment = 0;
        }
        due
    }

    /// Moves centroids that have had too few rows to random rows of the batch, at most half as many
    /// as it has.
    fn reassign(
        &mut self,
        batch: &ArrayRef2<f32>,
        moved: &mut Array2<f32>,
        random: &mut RandomState,
    ) {
        let largest = self.counts.iter().copied().fold(0.0, f64::max);
        let few = self.options.reassignment_ratio * largest;
        let mut by_count: Vec<usize> = (0..self.counts.len()).collect();
        by_count.sort_by(|&a, &b| self.counts[a].total_cmp(&self.counts[b]));
        let mut low: Vec<usize> =
            by_count.iter().copied().take_while(|&j| self.counts[j] < few).collect();
        low.truncate(low.len().min(batch.nrows() / 2));
        low.sort_unstable();
        if low.is_empty() {
            return;
        }
        for (&j, row) in low.iter().zip(random.sample(batch.nrows(), low.len())) {
            moved.row_mut(j).assign(&batch.row(row));
        }
        // Not so few that they would be moved again at once.
        let kept = (0..self.counts.len()).filter(|j| !low.contains(j)).map(|j| self.counts[j]);
        let smallest = kept.fold(f64::INFINITY, f64::min);
        low.iter().for_each(|&j| self.counts[j] = smallest);
    }
}

/// When to stop: a moving average of the batches' mean inertia.
struct Stop {
    /// Of a new value in the average.
    weight: f64,
    tolerance: f64,
    max_no_improvement: Option<usize>,
    average: Option<f64>,
    best: f64,
    no_improvement: usize,
}

impl Stop {
    fn now(&mut self, inertia: f64, shift: f64) -> bool {
        let average = match self.average {
            Some(average) => average * (1.0 - self.weight) + inertia * self.weight,
            None => inertia,
        };
        self.average = Some(average);
        if self.tolerance > 0.0 && shift <= self.tolerance {
            return true;
        }
        if average < self.best {
            (self.best, self.no_improvement) = (average, 0);
        } else {
            self.no_improvement += 1;
        }
        self.max_no_improvement.is_some_and(|limit| self.no_improvement >= limit)
    }
}
