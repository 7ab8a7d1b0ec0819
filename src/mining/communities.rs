//! [`community_detection`]: groups around a centre, for large sets and an unknown number of groups.

use std::cmp::Reverse;

use ndarray::{Array2, ArrayRef2, Axis};
use rayon::prelude::*;

use crate::error::{Error, Result, at_least_one};
use crate::kernels::gemm::{Epilogue, PackedMatrix, par_matmul};
use crate::kernels::isa::Isa;
use crate::kernels::{Precision, Team};
use crate::rows::{finite, has_columns};
use crate::search::Hit;
use crate::similarity::normalized;

/// Options of [`community_detection`]. The default is the reference's: a cosine of 0.75, 10
/// members.
///
/// ```
/// let options = mpnet::mining::CommunityOptions::default().threshold(0.8).min_community_size(3);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct CommunityOptions {
    threshold: f32,
    min_community_size: usize,
    batch_size: usize,
}

impl Default for CommunityOptions {
    fn default() -> Self {
        Self { threshold: 0.75, min_community_size: 10, batch_size: 1024 }
    }
}

impl CommunityOptions {
    /// The least cosine between a centre and a member.
    ///
    /// ```
    /// let options = mpnet::mining::CommunityOptions::default().threshold(0.9);
    /// ```
    #[must_use]
    pub fn threshold(mut self, threshold: f32) -> Self {
        self.threshold = threshold;
        self
    }

    /// Members of a community at least, its centre among them.
    ///
    /// ```
    /// use mpnet::mining::{CommunityOptions, community_detection};
    /// use mpnet::ndarray::arr2;
    ///
    /// let rows = arr2(&[[1.0_f32, 0.0], [1.0, 0.1], [0.0, 1.0]]);
    /// let pairs = CommunityOptions::default().min_community_size(2);
    /// assert_eq!(community_detection(&rows.view(), &pairs)?, [[0, 1]]);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn min_community_size(mut self, rows: usize) -> Self {
        self.min_community_size = rows;
        self
    }

    /// Rows that are compared with all others at once, 1024 by default: `4 · batch_size · B` bytes
    /// of scores, and up to four times that of members. It does not show in the result.
    ///
    /// ```
    /// let options = mpnet::mining::CommunityOptions::default().batch_size(256);
    /// ```
    #[must_use]
    pub fn batch_size(mut self, rows: usize) -> Self {
        self.batch_size = rows;
        self
    }
}

/// Groups of rows of `embeddings` `[B, D]`, the largest first. Each begins with its centre; the
/// others follow by falling cosine to it, which is at least the threshold. No row is in two; many
/// may be in none.
///
/// Every row is a candidate for a centre, with all rows that are near enough. Candidates are taken
/// by falling size (equal ones in the order of rows); one whose centre is taken already is skipped,
/// from another the members that are taken are removed, and it stays if enough remain.
///
/// Mirrors `sentence_transformers.util.community_detection` from 6.1 on. Where the reference leaves
/// the order to chance (equal cosines), the earlier row comes first.
///
/// ```
/// use mpnet::mining::{CommunityOptions, community_detection};
/// use mpnet::ndarray::Array2;
///
/// let angles = [0.0_f32, 0.1, 0.2, 1.5, 1.55, 1.6, 1.65, 3.0];
/// let rows = Array2::from_shape_fn((8, 2), |(i, j)| [angles[i].cos(), angles[i].sin()][j]);
/// let options = CommunityOptions::default().threshold(0.98).min_community_size(2);
/// let mut communities = community_detection(&rows.view(), &options)?;
/// communities.iter_mut().for_each(|rows| rows.sort());
/// assert_eq!(communities, [vec![3, 4, 5, 6], vec![0, 1, 2]]);
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Option`] if the threshold is not a number or a size is 0,
/// [`InputProblem::NotFinite`](crate::InputProblem::NotFinite) for an embedding with a value that
/// is infinite or not a number, [`InputProblem::NoColumns`](crate::InputProblem::NoColumns) for
/// rows without columns. No embeddings give no communities.
pub fn community_detection(
    embeddings: &ArrayRef2<f32>,
    options: &CommunityOptions,
) -> Result<Vec<Vec<usize>>> {
    let CommunityOptions { threshold, min_community_size, batch_size } = *options;
    at_least_one("min_community_size", min_community_size)?;
    at_least_one("batch_size", batch_size)?;
    if threshold.is_nan() {
        let problem = "is not a number".to_owned();
        return Err(Error::Option { option: "threshold", problem });
    }
    has_columns("embeddings", embeddings.dim())?;
    finite("embeddings", embeddings)?;
    if embeddings.nrows() < min_community_size {
        return Ok(Vec::new());
    }
    let near = Neighbours::new(embeddings, threshold);

    // The sizes first and the members, which may be many, when their turn comes.
    let rows: Vec<usize> = (0..embeddings.nrows()).collect();
    let mut candidates: Vec<(usize, usize)> = Vec::new();
    for batch in rows.chunks(batch_size) {
        let sizes = near.of(batch, |members| members.count());
        candidates.extend(batch.iter().copied().zip(sizes));
    }
    candidates.retain(|&(_, size)| size >= min_community_size);
    candidates.sort_by_key(|&(_, size)| Reverse(size));

    let mut used = vec![false; embeddings.nrows()];
    let mut communities = Vec::new();
    let mut candidates = candidates.into_iter().map(|(centre, _)| centre);
    loop {
        let free = candidates.by_ref().filter(|&centre| !used[centre]);
        let centres: Vec<usize> = free.take(batch_size).collect();
        if centres.is_empty() {
            break;
        }
        let members = near.of(&centres, |members| {
            let mut members: Vec<Hit> = members.collect();
            members.sort_unstable_by(Hit::rank);
            members
        });
        for (centre, members) in centres.into_iter().zip(members) {
            if used[centre] {
                continue;
            }
            let others = members.iter().map(|hit| hit.corpus_id);
            let others = others.filter(|&row| row != centre && !used[row]);
            let community: Vec<usize> = std::iter::once(centre).chain(others).collect();
            if community.len() >= min_community_size {
                community.iter().for_each(|&row| used[row] = true);
                communities.push(community);
            }
        }
    }
    communities.sort_by_key(|community| Reverse(community.len()));
    Ok(communities)
}

/// Rows of length 1, and how near they have to be.
struct Neighbours {
    rows: Array2<f32>,
    packed: PackedMatrix,
    threshold: f32,
}

impl Neighbours {
    fn new(embeddings: &ArrayRef2<f32>, threshold: f32) -> Self {
        let rows = normalized(embeddings);
        let packed = PackedMatrix::new(Isa::exact(), Precision::F32, rows.view());
        Self { rows, packed, threshold }
    }

    /// What `f` makes of the rows that are near enough to each of `centres`, itself always among
    /// them.
    fn of<T: Send>(
        &self,
        centres: &[usize],
        f: impl Fn(&mut dyn Iterator<Item = Hit>) -> T + Sync,
    ) -> Vec<T> {
        let mut scores = Array2::zeros((centres.len(), self.rows.nrows()));
        let rows = self.rows.select(Axis(0), centres);
        par_matmul(&Team::gather(), rows.view(), &self.packed, scores.view_mut(), Epilogue::None);
        let near = |(scores, &centre): (ndarray::ArrayView1<f32>, &usize)| {
            let hits =
                scores.iter().enumerate().map(|(corpus_id, &score)| Hit { corpus_id, score });
            f(&mut hits.filter(|hit| hit.score >= self.threshold || hit.corpus_id == centre))
        };
        scores.axis_iter(Axis(0)).into_par_iter().zip(centres).map(near).collect()
    }
}
