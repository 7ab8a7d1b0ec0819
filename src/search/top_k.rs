//! [`TopK`]: the best of a stream of scores; and [`scan`], which runs a corpus through many of
//! them.

use std::cmp::Ordering;
use std::ops::Range;

use rayon::prelude::*;

/// A row of the corpus and how alike it is to the query.
///
/// ```
/// use mpnet::{ndarray::arr2, search::{Hit, semantic_search}};
///
/// let rows = arr2(&[[1.0_f32, 0.0], [0.0, 1.0]]);
/// let hits = semantic_search(&rows.view(), &rows.view(), 1);
/// assert_eq!(hits[1][0], Hit { corpus_id: 1, score: 1.0 });
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Its row in the corpus.
    pub corpus_id: usize,
    /// How alike it is to the query: larger is more alike.
    pub score: f32,
}

impl Hit {
    /// Better hits first: the higher score, then the earlier row. A score that is not a number is
    /// worse than any other.
    pub(crate) fn rank(&self, other: &Self) -> Ordering {
        key(other.score).total_cmp(&key(self.score)).then(self.corpus_id.cmp(&other.corpus_id))
    }
}

/// What scores are compared by. Adding 0 makes 0 of −0, which `total_cmp` puts below it.
fn key(score: f32) -> f32 {
    if score.is_nan() { f32::NEG_INFINITY } else { score + 0.0 }
}

/// The better `k` of `hits`, best first.
pub(crate) fn keep_best(mut hits: Vec<Hit>, k: usize) -> Vec<Hit> {
    cut(&mut hits, k);
    hits.sort_unstable_by(Hit::rank);
    hits
}

/// Leaves the better `k` of `hits`; if anything had to go, the last of them is the worst.
fn cut(hits: &mut Vec<Hit>, k: usize) {
    if k > 0 && hits.len() > k {
        hits.select_nth_unstable_by(k - 1, Hit::rank);
    }
    hits.truncate(k);
}

/// The best `k` of the hits that it is offered, by ascending row.
///
/// Most rows of a large corpus are worse than the `k` best so far. So the common case is a
/// comparison with a threshold, of many scores at once; what passes is collected and, when twice
/// `k` are there, cut to the better half: no heap, no sort.
#[derive(Debug, Clone)]
struct TopK {
    k: usize,
    hits: Vec<Hit>,
    /// The score of the worst of `k` hits, which a later row has to beat; not a number while there
    /// may be fewer.
    threshold: f32,
}

/// Scores that are compared with the threshold at once.
const LANES: usize = 16;

impl TopK {
    fn new(k: usize) -> Self {
        Self { k, hits: Vec::new(), threshold: f32::NAN }
    }

    /// The scores of the rows from `first` on.
    fn offer(&mut self, first: usize, scores: &[f32]) {
        for (i, chunk) in scores.chunks(LANES).enumerate() {
            let threshold = self.threshold;
            if chunk.iter().fold(false, |any, &score| any | beats(score, threshold)) {
                self.collect(first + i * LANES, chunk);
            }
        }
    }

    #[cold]
    fn collect(&mut self, first: usize, scores: &[f32]) {
        for (j, &score) in scores.iter().enumerate() {
            if beats(score, self.threshold) {
                self.hits.push(Hit { corpus_id: first + j, score });
            }
            if self.hits.len() >= 2 * self.k.max(LANES) {
                cut(&mut self.hits, self.k);
                self.threshold = self.hits.last().map_or(f32::INFINITY, |hit| key(hit.score));
            }
        }
    }

    fn finish(self) -> Vec<Hit> {
        keep_best(self.hits, self.k)
    }
}

/// Whether a score may belong to the best, if only more than `threshold` will do. What is not a
/// number is sorted out later.
#[inline(always)]
fn beats(score: f32, threshold: f32) -> bool {
    (score > threshold) | score.is_nan() | threshold.is_nan()
}

/// A corpus to be scored against some queries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan {
    pub(super) queries: usize,
    pub(super) rows: usize,
    pub(super) top_k: usize,
    /// Rows that one task scores, at most.
    pub(super) chunk: usize,
    /// Rows that are scored at once.
    pub(super) block: usize,
}

impl Scan {
    /// For each query the best hits. `score(scratch, rows, scores)` writes the scores `[Q, rows]`
    /// of a block of rows; `scratch` makes what a task keeps from block to block.
    ///
    /// The order of hits is total, so neither the number of threads nor the size of chunks and
    /// blocks shows.
    pub(super) fn run<T>(
        self,
        scratch: impl Fn() -> T + Sync,
        score: impl Fn(&mut T, Range<usize>, &mut [f32]) + Sync,
    ) -> Vec<Vec<Hit>> {
        let top_k = self.top_k.min(self.rows);
        // A few tasks for each thread, so that none waits long for the last.
        let share = self.rows.div_ceil(4 * rayon::current_num_threads()).max(self.block);
        let chunk = self.chunk.min(share);
        let task = |start: usize| {
            let end = (start + chunk).min(self.rows);
            let mut best = vec![TopK::new(top_k); self.queries];
            let mut scores = vec![0.0; self.queries * self.block.min(chunk)];
            let mut scratch = scratch();
            for start in (start..end).step_by(self.block) {
                let rows = start..(start + self.block).min(end);
                let scores = &mut scores[..self.queries * rows.len()];
                score(&mut scratch, rows.clone(), scores);
                for (best, scores) in best.iter_mut().zip(scores.chunks_exact(rows.len())) {
                    best.offer(rows.start, scores);
                }
            }
            best.into_iter().map(TopK::finish).collect()
        };
        (0..self.rows.div_ceil(chunk.max(1)))
            .into_par_iter()
            .map(|index| task(index * chunk))
            .reduce(|| vec![Vec::new(); self.queries], |a, b| merge(a, b, top_k))
    }
}

/// The better `top_k` of two lists for each query.
fn merge(a: Vec<Vec<Hit>>, b: Vec<Vec<Hit>>, top_k: usize) -> Vec<Vec<Hit>> {
    let both = |(mut a, b): (Vec<Hit>, Vec<Hit>)| {
        a.extend(b);
        keep_best(a, top_k)
    };
    a.into_iter().zip(b).map(both).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_cut_to_what_a_sort_would_give() {
        let scores: Vec<f32> = (0..1000_u32)
            .map(|i| match i % 97 {
                5 => f32::NAN,
                7 => f32::NEG_INFINITY,
                // Many ties, and zeros of both signs.
                _ => ((i * 37 % 101) as f32 - 50.0) * if i % 2 == 0 { 1.0 } else { -1.0 },
            })
            .collect();
        let mut all: Vec<Hit> =
            scores.iter().enumerate().map(|(i, &score)| Hit { corpus_id: i, score }).collect();
        all.sort_by(Hit::rank);
        let ids = |hits: &[Hit]| hits.iter().map(|hit| hit.corpus_id).collect::<Vec<_>>();
        for k in [0, 1, 2, 15, 16, 17, 100, 999, 1000] {
            for block in [1, 16, 33, 1000] {
                let mut best = TopK::new(k);
                for (i, scores) in scores.chunks(block).enumerate() {
                    best.offer(i * block, scores);
                }
                assert_eq!(ids(&best.finish()), ids(&all[..k]), "k = {k}, block = {block}");
            }
        }
    }
}
