//! Exact search over embeddings.

use std::cmp::Ordering;

use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;

use crate::similarity::Similarity;

/// Queries and corpus rows scored at once: the scores, 64 × 4096, are 1 MiB, and each corpus row that is read serves 64
/// queries.
const QUERIES: usize = 64;
const CORPUS: usize = 4096;

/// A row of the corpus and how alike it is to the query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Its row in the corpus.
    pub corpus_id: usize,
    /// How alike it is to the query: larger is more alike.
    pub score: f32,
}

impl Hit {
    /// Better hits first: the higher score, then the earlier row. A score that is not a number is worse than any other.
    fn rank(&self, other: &Self) -> Ordering {
        // Adding 0 makes 0 of −0, which `total_cmp` puts below it.
        let key = |hit: &Self| if hit.score.is_nan() { f32::NEG_INFINITY } else { hit.score + 0.0 };
        key(other).total_cmp(&key(self)).then(self.corpus_id.cmp(&other.corpus_id))
    }
}

/// For each query the `top_k` rows of `corpus` with the largest cosine, best first; equal scores by ascending row. Fewer
/// if the corpus is smaller.
///
/// `queries`: `[Q, D]`, `corpus`: `[C, D]`; rows need not have length 1. The corpus is scored in chunks, in parallel, so
/// that memory does not grow with `Q · C`; the chunks do not show in the result.
///
/// ```
/// use mpnet::{ndarray::arr2, search::semantic_search};
///
/// let corpus = arr2(&[[1.0_f32, 0.0], [0.6, 0.8], [0.0, 1.0]]);
/// let queries = arr2(&[[0.0_f32, 2.0]]);
/// let hits = semantic_search(&queries.view(), &corpus.view(), 2);
/// assert_eq!(hits[0][0].corpus_id, 2);
/// assert_eq!(hits[0][1].corpus_id, 1);
/// ```
///
/// # Panics
///
/// If the widths differ.
#[must_use]
pub fn semantic_search(
    queries: &ArrayView2<f32>,
    corpus: &ArrayView2<f32>,
    top_k: usize,
) -> Vec<Vec<Hit>> {
    semantic_search_by(Similarity::Cosine, queries, corpus, top_k)
}

/// As [`semantic_search`], by another similarity than the cosine:
/// [`SentenceEncoder::similarity_fn`](crate::SentenceEncoder::similarity_fn) says which one a model was trained for.
///
/// # Panics
///
/// If the widths differ.
#[must_use]
pub fn semantic_search_by(
    similarity: Similarity,
    queries: &ArrayView2<f32>,
    corpus: &ArrayView2<f32>,
    top_k: usize,
) -> Vec<Vec<Hit>> {
    assert_eq!(queries.ncols(), corpus.ncols(), "semantic_search: the widths differ");
    let top_k = top_k.min(corpus.nrows());
    queries
        .axis_chunks_iter(Axis(0), QUERIES)
        .flat_map(|queries| {
            corpus
                .axis_chunks_iter(Axis(0), CORPUS)
                .enumerate()
                .par_bridge()
                .map(|(chunk, rows)| {
                    let scores = similarity.on_this_thread(&queries, &rows);
                    best_of_chunk(scores.view(), chunk * CORPUS, top_k)
                })
                .reduce(|| vec![Vec::new(); queries.nrows()], |a, b| merge(a, b, top_k))
        })
        .collect()
}

/// For each query the best `top_k` of the rows whose `scores` `[Q, rows]` these are, the first being row `first` of the
/// corpus.
fn best_of_chunk(scores: ArrayView2<f32>, first: usize, top_k: usize) -> Vec<Vec<Hit>> {
    let best = |scores: ndarray::ArrayView1<f32>| {
        let hit = |(j, &score)| Hit { corpus_id: first + j, score };
        keep_best(scores.iter().enumerate().map(hit).collect(), top_k)
    };
    scores.rows().into_iter().map(best).collect()
}

/// The better `top_k` of two lists for each query. The order is total, so it does not matter which two chunks meet first.
fn merge(a: Vec<Vec<Hit>>, b: Vec<Vec<Hit>>, top_k: usize) -> Vec<Vec<Hit>> {
    let both = |(mut a, b): (Vec<Hit>, Vec<Hit>)| {
        a.extend(b);
        keep_best(a, top_k)
    };
    a.into_iter().zip(b).map(both).collect()
}

fn keep_best(mut hits: Vec<Hit>, top_k: usize) -> Vec<Hit> {
    if top_k == 0 {
        return Vec::new();
    }
    if hits.len() > top_k {
        hits.select_nth_unstable_by(top_k - 1, Hit::rank);
        hits.truncate(top_k);
    }
    hits.sort_unstable_by(Hit::rank);
    hits
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, s};

    use super::*;
    use crate::similarity::cos_sim;

    fn vectors(rows: usize, seed: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, 8), |(i, j)| ((i * 13 + j * 5 + seed) as f32 * 0.61).sin())
    }

    #[test]
    fn agrees_with_sorting_all_scores_across_chunks() {
        let (queries, corpus) = (vectors(QUERIES + 3, 1), vectors(CORPUS + 100, 2));
        let hits = semantic_search(&queries.view(), &corpus.view(), 7);
        let scores = cos_sim(&queries.view(), &corpus.view());
        assert_eq!(hits.len(), queries.nrows());
        for (hits, scores) in hits.iter().zip(scores.rows()) {
            let mut all: Vec<Hit> = scores
                .iter()
                .enumerate()
                .map(|(corpus_id, &score)| Hit { corpus_id, score })
                .collect();
            all.sort_by(Hit::rank);
            assert_eq!(hits[..], all[..7]);
        }
    }

    #[test]
    fn by_every_similarity() {
        let (queries, corpus) = (vectors(3, 1), vectors(200, 2));
        for similarity in
            [Similarity::Cosine, Similarity::Dot, Similarity::Euclidean, Similarity::Manhattan]
        {
            let hits = semantic_search_by(similarity, &queries.view(), &corpus.view(), 1);
            let scores = similarity.all(&queries.view(), &corpus.view());
            for (hits, scores) in hits.iter().zip(scores.rows()) {
                let best = scores.fold(f32::MIN, |max, &x| max.max(x));
                assert!((hits[0].score - best).abs() < 1e-6, "{similarity:?}");
                assert!((scores[hits[0].corpus_id] - best).abs() < 1e-6, "{similarity:?}");
            }
        }
    }

    #[test]
    fn ties_go_to_the_earlier_row() {
        let corpus = Array2::from_elem((CORPUS * 2, 2), 0.5);
        let query = Array2::from_elem((1, 2), 1.0);
        let hits = semantic_search(&query.view(), &corpus.view(), 3);
        let ids: Vec<usize> = hits[0].iter().map(|hit| hit.corpus_id).collect();
        assert_eq!(ids, [0, 1, 2]);
    }

    #[test]
    fn edges() {
        let corpus = vectors(3, 1);
        let none = corpus.slice(s![..0, ..]);
        assert_eq!(semantic_search(&corpus.view(), &none, 5), vec![Vec::new(); 3]);
        assert!(semantic_search(&none, &corpus.view(), 5).is_empty());
        assert_eq!(semantic_search(&corpus.view(), &corpus.view(), 0), vec![Vec::new(); 3]);
        assert_eq!(semantic_search(&corpus.view(), &corpus.view(), 99)[0].len(), 3);
        let mut broken = vectors(3, 1);
        broken[[0, 0]] = f32::NAN;
        let hits = semantic_search(&corpus.view(), &broken.view(), 3);
        assert_eq!(hits[1].last().unwrap().corpus_id, 0, "what is not a number comes last");
    }
}
