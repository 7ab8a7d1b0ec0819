//! k-means: Lloyd's algorithm, as scikit-learn's `KMeans`.

use ndarray::{Array1, Array2, ArrayRef2, ArrayView1, Axis, s};
use rayon::prelude::*;

use crate::error::{Error, InputProblem, Result, at_least_one};
use crate::kernels::gemm::{Epilogue, PackedMatrix, par_matmul};
use crate::kernels::isa::Isa;
use crate::kernels::{Precision, Team};
use crate::random::RandomState;
use crate::rows::usable;

/// Rows whose products with all centroids are held at once.
const CHUNK: usize = 4096;

/// Where k-means begins.
///
/// ```
/// use mpnet::{mining::{KMeans, KMeansInit}, ndarray::arr2};
///
/// let init = KMeansInit::Centroids(arr2(&[[0.0_f32, 0.0], [5.0, 5.0]]));
/// let kmeans = KMeans { init, ..KMeans::new(2) };
/// assert_eq!(kmeans.fit(&arr2(&[[4.0_f32, 5.0], [1.0, 0.0]]).view())?.labels, [1, 0]);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub enum KMeansInit {
    /// "Greedy k-means++": each next centroid is a row drawn with a probability proportional to its
    /// squared distance from the centroids so far, the best of `2 + ⌊ln k⌋` such draws.
    ///
    /// Source: Arthur and Vassilvitskii 2007, <https://dl.acm.org/doi/10.5555/1283383.1283494>.
    #[default]
    PlusPlus,
    /// At these centroids, `[k, D]`.
    Centroids(Array2<f32>),
}

/// k-means by Lloyd's algorithm: rows go to the nearest centroid, centroids to the mean of their
/// rows, until nothing changes.
///
/// Definitions and defaults are those of scikit-learn's `KMeans`: tolerance relative to the
/// variance of the rows, the final assignment, and a centroid without rows moving to the row that
/// is furthest from its own. Random numbers are drawn as scikit-learn draws them for
/// `random_state = seed`, so that both begin with the same rows. The result is the same for any
/// number of threads.
///
/// ```
/// use mpnet::{mining::KMeans, ndarray::arr2};
///
/// let embeddings = arr2(&[[0.0_f32, 0.1], [5.0, 5.0], [0.1, 0.0], [5.1, 5.0]]);
/// let clustering = KMeans::new(2).fit(&embeddings.view())?;
/// assert_eq!(clustering.labels[0], clustering.labels[2]);
/// assert_ne!(clustering.labels[0], clustering.labels[1]);
/// assert!((clustering.inertia - 0.015).abs() < 1e-6);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct KMeans {
    /// `k`: how many clusters.
    pub n_clusters: usize,
    /// Where to begin.
    pub init: KMeansInit,
    /// How often to begin anew; the run with the smallest inertia is kept.
    pub n_init: usize,
    /// The most rounds of one run.
    pub max_iter: usize,
    /// A run ends when the centroids have moved by less than this (the sum of squares, relative to
    /// the mean variance of a column).
    pub tol: f64,
    /// Of the random numbers.
    pub seed: u32,
}

/// What k-means found.
///
/// ```
/// use mpnet::{mining::KMeans, ndarray::arr2};
///
/// let clustering = KMeans::new(1).fit(&arr2(&[[0.0_f32, 2.0], [4.0, 0.0]]).view())?;
/// assert_eq!(clustering.centroids, arr2(&[[2.0, 1.0]]));
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Clustering {
    /// The centre of each cluster, `[k, D]`.
    pub centroids: Array2<f32>,
    /// The cluster of each row, `[N]`.
    pub labels: Vec<usize>,
    /// The sum of the squared distances of the rows from their centroids.
    pub inertia: f64,
    /// Rounds of the run that was kept; for mini-batches, as many as would have seen that number of
    /// rows.
    pub n_iter: usize,
}

impl KMeans {
    /// With scikit-learn's defaults: k-means++ once, at most 300 rounds, tolerance 10⁻⁴; seed 0.
    ///
    /// ```
    /// use mpnet::mining::KMeans;
    ///
    /// let kmeans = KMeans { seed: 7, ..KMeans::new(8) };
    /// ```
    #[must_use]
    pub fn new(n_clusters: usize) -> Self {
        let init = KMeansInit::default();
        Self { n_clusters, init, n_init: 1, max_iter: 300, tol: 1e-4, seed: 0 }
    }

    /// Clusters the rows of `embeddings` `[N, D]`.
    ///
    /// ```
    /// use mpnet::{mining::KMeans, ndarray::arr2};
    ///
    /// let rows = arr2(&[[0.0_f32, 0.1], [5.0, 5.0], [0.1, 0.0], [5.1, 5.0]]);
    /// let clustering = KMeans::new(2).fit(&rows.view())?;
    /// assert_eq!(clustering.labels[0], clustering.labels[2]);
    /// assert_ne!(clustering.labels[0], clustering.labels[1]);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) for fewer rows than clusters, rows without columns, a
    /// component that is not finite, or initial centroids of another shape than `[k, D]`;
    /// [`Error::Option`] if `n_clusters`, `n_init` or `max_iter` is 0, or `tol` is negative.
    pub fn fit(&self, embeddings: &ArrayRef2<f32>) -> Result<Clustering> {
        check(embeddings, self.n_clusters, &self.init)?;
        at_least_one("n_init", self.n_init)?;
        at_least_one("max_iter", self.max_iter)?;
        not_negative("tol", self.tol)?;
        // Around the origin, products lose fewer digits of the distances.
        let mean = mean(embeddings);
        let rows = &embeddings.view() - &mean; // [N, D]
        let tolerance = self.tol * mean_variance(embeddings);
        let mut random = RandomState::new(self.seed);
        let mut best: Option<Clustering> = None;
        for _ in 0..self.n_init {
            let begin = match &self.init {
                KMeansInit::PlusPlus => plus_plus(&rows.view(), self.n_clusters, &mut random),
                KMeansInit::Centroids(centroids) => centroids - &mean,
            };
            let run = lloyd(&rows.view(), begin, self.max_iter, tolerance);
            if best.as_ref().is_none_or(|best| run.inertia < best.inertia) {
                best = Some(run);
            }
        }
        let mut best = best.expect("n_init is at least 1");
        best.centroids += &mean;
        Ok(best)
    }
}

impl Clustering {
    /// The cluster of each row of `embeddings` `[M, D]`: that of the nearest centroid, the first of
    /// equally near ones.
    ///
    /// ```
    /// use mpnet::{mining::KMeans, ndarray::arr2};
    ///
    /// let rows = arr2(&[[0.0_f32, 0.1], [5.0, 5.0], [0.1, 0.0], [5.1, 5.0]]);
    /// let clustering = KMeans::new(2).fit(&rows.view())?;
    /// assert_eq!(clustering.predict(&arr2(&[[4.0_f32, 4.0]]).view())?, [clustering.labels[1]]);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if the width is another than the centroids', or a
    /// component is not finite.
    pub fn predict(&self, embeddings: &ArrayRef2<f32>) -> Result<Vec<usize>> {
        let (width, want) = (embeddings.ncols(), self.centroids.ncols());
        if width != want {
            let problem = format!("width {width}, the centroids have {want}");
            return Err(Error::Input {
                input: "embeddings",
                problem: InputProblem::Invalid(problem),
            });
        }
        usable("embeddings", embeddings)?;
        let mean = mean(&self.centroids.view());
        let (rows, centroids) = (&embeddings.view() - &mean, &self.centroids - &mean);
        Ok(nearest(&rows.view(), &centroids.view()))
    }
}

/// One run from the centroids `begin` `[k, D]`.
fn lloyd(rows: &ArrayRef2<f32>, begin: Array2<f32>, max_iter: usize, tolerance: f64) -> Clustering {
    let (mut centroids, mut labels) = (begin, Vec::new());
    let (mut n_iter, mut settled) = (0, false);
    while n_iter < max_iter && !settled {
        n_iter += 1;
        let now = nearest(rows, &centroids.view());
        let moved = means(rows, &now, &centroids.view());
        let shift = (&moved - &centroids).iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        settled = now == labels;
        (centroids, labels) = (moved, now);
        if !settled && shift <= tolerance {
            break;
        }
    }
    if !settled {
        // The centroids have moved since.
        labels = nearest(rows, &centroids.view());
    }
    let inertia = distances(rows, &labels, &centroids.view()).iter().sum();
    Clustering { centroids, labels, inertia, n_iter }
}

/// The mean of each cluster's rows, `[k, D]`, where `centroids` are those the labels belong to.
fn means(rows: &ArrayRef2<f32>, labels: &[usize], centroids: &ArrayRef2<f32>) -> Array2<f32> {
    let mut members = members(labels, centroids.nrows());
    let mut sums = sums(rows, &members); // [k, D]
    relocate(rows, labels, centroids, &mut members, &mut sums);
    let counts: Vec<usize> = members.iter().map(Vec::len).collect();
    let largest = (0..counts.len()).rev().max_by_key(|&j| counts[j]).unwrap_or(0);
    Array2::from_shape_fn(sums.dim(), |(j, d)| {
        // Where nothing could be moved there, a centroid without rows stands with the largest
        // cluster's.
        let j = if counts[j] == 0 { largest } else { j };
        (sums[[j, d]] / counts[j] as f64) as f32
    })
}

/// Gives each cluster without rows the row that is furthest from its centroid.
fn relocate(
    rows: &ArrayRef2<f32>,
    labels: &[usize],
    centroids: &ArrayRef2<f32>,
    members: &mut [Vec<usize>],
    sums: &mut Array2<f64>,
) {
    let empty: Vec<usize> = (0..members.len()).filter(|&j| members[j].is_empty()).collect();
    if empty.is_empty() {
        return;
    }
    let far = distances(rows, labels, centroids);
    let mut furthest: Vec<usize> = (0..labels.len()).collect();
    furthest.sort_by(|&a, &b| far[b].total_cmp(&far[a]));
    if far[furthest[0]] == 0.0 {
        // Fewer different rows than clusters.
        return;
    }
    for (&to, &row) in empty.iter().zip(&furthest) {
        let from = labels[row];
        let values = rows.row(row).mapv(f64::from);
        let mut left = sums.row_mut(from);
        left -= &values;
        sums.row_mut(to).assign(&values);
        members[from].retain(|&i| i != row);
        members[to].push(row);
    }
}

/// The rows of each cluster, ascending.
pub(super) fn members(labels: &[usize], n_clusters: usize) -> Vec<Vec<usize>> {
    let mut members = vec![Vec::new(); n_clusters];
    for (i, &label) in labels.iter().enumerate() {
        members[label].push(i);
    }
    members
}

/// The sum of each cluster's rows, `[k, D]`; in their order, so that threads do not show in it.
pub(super) fn sums(rows: &ArrayRef2<f32>, members: &[Vec<usize>]) -> Array2<f64> {
    let mut sums = Array2::zeros((members.len(), rows.ncols()));
    sums.axis_iter_mut(Axis(0)).into_par_iter().zip(members).for_each(|(mut sum, members)| {
        for &i in members {
            sum.zip_mut_with(&rows.row(i), |sum, &x| *sum += f64::from(x));
        }
    });
    sums
}

/// The nearest of `centroids` `[k, D]` to each of `rows` `[N, D]`: the largest `x·c − ‖c‖²/2`, the
/// first of equal ones.
pub(super) fn nearest(rows: &ArrayRef2<f32>, centroids: &ArrayRef2<f32>) -> Vec<usize> {
    let packed = PackedMatrix::new(Isa::exact(), Precision::F32, centroids.view());
    let halves: Array1<f32> = squared_norms(centroids).mapv(|norm| norm / 2.0);
    let closest = |scores: ArrayView1<f32>| {
        let mut best = (0, f32::NEG_INFINITY);
        for (j, (score, half)) in scores.iter().zip(&halves).enumerate() {
            if score - half > best.1 {
                best = (j, score - half);
            }
        }
        best.0
    };
    let mut labels = Vec::with_capacity(rows.nrows());
    for rows in rows.axis_chunks_iter(Axis(0), CHUNK) {
        let mut scores = Array2::zeros((rows.nrows(), centroids.nrows()));
        par_matmul(&Team::gather(), rows, &packed, scores.view_mut(), Epilogue::None);
        labels.par_extend(scores.axis_iter(Axis(0)).into_par_iter().map(closest));
    }
    labels
}

/// The squared distance of each row from the centroid of its label: of the differences, which keeps
/// all digits.
pub(super) fn distances(
    rows: &ArrayRef2<f32>,
    labels: &[usize],
    centroids: &ArrayRef2<f32>,
) -> Vec<f64> {
    let distance = |(row, &label): (ArrayView1<f32>, &usize)| {
        let differences = row.iter().zip(centroids.row(label)).map(|(x, c)| f64::from(x - c));
        differences.map(|d| d * d).sum()
    };
    rows.axis_iter(Axis(0)).into_par_iter().zip(labels).map(distance).collect()
}

/// Greedy k-means++: `k` different places to begin at, `[k, D]`. Draws as scikit-learn does.
pub(super) fn plus_plus(rows: &ArrayRef2<f32>, k: usize, random: &mut RandomState) -> Array2<f32> {
    let trials = 2 + (k as f64).ln() as usize;
    let norms = squared_norms(rows);
    let mut chosen = vec![random.choice(rows.nrows())];
    let mut closest = candidate_distances(rows, &norms, &chosen).column(0).to_owned(); // [N]
    while chosen.len() < k {
        let mut sum = 0.0;
        let cumulative: Vec<f64> = closest
            .iter()
            .map(|&distance| {
                sum += f64::from(distance);
                sum
            })
            .collect();
        let candidates: Vec<usize> = (0..trials)
            .map(|_| random.uniform() * sum)
            .map(|at| cumulative.partition_point(|&c| c < at).min(rows.nrows() - 1))
            .collect();
        let mut with = candidate_distances(rows, &norms, &candidates); // [N, trials]
        for (mut row, &closest) in with.rows_mut().into_iter().zip(&closest) {
            row.mapv_inplace(|distance| distance.min(closest));
        }
        let potential = |t: usize| with.column(t).iter().map(|&x| f64::from(x)).sum::<f64>();
        let best = (0..trials).map(|t| (t, potential(t))).min_by(|a, b| a.1.total_cmp(&b.1));
        let best = best.expect("at least two trials").0;
        closest.assign(&with.column(best));
        chosen.push(candidates[best]);
    }
    rows.select(Axis(0), &chosen)
}

/// The squared distance of each row from each of the rows `candidates`: `[N, candidates]`.
fn candidate_distances(
    rows: &ArrayRef2<f32>,
    norms: &Array1<f32>,
    candidates: &[usize],
) -> Array2<f32> {
    let points = rows.select(Axis(0), candidates);
    let packed = PackedMatrix::new(Isa::exact(), Precision::F32, points.view());
    let mut distances = Array2::<f32>::zeros((rows.nrows(), candidates.len()));
    par_matmul(&Team::gather(), rows.view(), &packed, distances.view_mut(), Epilogue::None);
    for ((i, t), distance) in distances.indexed_iter_mut() {
        *distance = (norms[i] + norms[candidates[t]] - 2.0 * *distance).max(0.0);
    }
    for (t, &candidate) in candidates.iter().enumerate() {
        distances[[candidate, t]] = 0.0;
    }
    distances
}

fn squared_norms(rows: &ArrayRef2<f32>) -> Array1<f32> {
    rows.rows().into_iter().map(|row| row.dot(&row)).collect()
}

/// The mean of the rows, `[D]`.
fn mean(rows: &ArrayRef2<f32>) -> Array1<f32> {
    let all: Vec<usize> = (0..rows.nrows()).collect();
    let n = rows.nrows().max(1) as f64;
    sums(rows, &[all]).slice(s![0, ..]).mapv(|sum| (sum / n) as f32)
}

/// The variance of a column, on average over the columns.
pub(super) fn mean_variance(rows: &ArrayRef2<f32>) -> f64 {
    let mean = mean(rows);
    let row = |row: ArrayView1<f32>| -> f64 {
        row.iter().zip(&mean).map(|(x, m)| f64::from(x - m).powi(2)).sum()
    };
    let squares = rows.rows().into_iter().map(row).sum::<f64>();
    squares / rows.len().max(1) as f64
}

/// What every k-means asks of its input.
pub(super) fn check(
    embeddings: &ArrayRef2<f32>,
    n_clusters: usize,
    init: &KMeansInit,
) -> Result<()> {
    at_least_one("n_clusters", n_clusters)?;
    let (rows, width) = embeddings.dim();
    if rows < n_clusters {
        let problem = format!("{rows} rows cannot make {n_clusters} clusters");
        return Err(Error::Input { input: "embeddings", problem: InputProblem::Invalid(problem) });
    }
    usable("embeddings", embeddings)?;
    if let KMeansInit::Centroids(centroids) = init {
        if centroids.dim() != (n_clusters, width) {
            let problem =
                format!("shape {:?}, expected {:?}", centroids.dim(), (n_clusters, width));
            return Err(Error::Input { input: "init", problem: InputProblem::Invalid(problem) });
        }
        usable("init", centroids)?;
    }
    Ok(())
}

pub(super) fn not_negative(option: &'static str, value: f64) -> Result<()> {
    if value >= 0.0 {
        return Ok(());
    }
    Err(Error::Option { option, problem: format!("is {value}, must not be negative") })
}
