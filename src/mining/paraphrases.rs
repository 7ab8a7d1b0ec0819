//! [`paraphrase_mining`]: the most similar pairs of a set.

use std::cmp::Ordering;

use ndarray::{ArrayRef2, Axis, s};
use rayon::prelude::*;

use crate::error::{Result, at_least_one};
use crate::rows::{finite, has_columns};
use crate::search::{Chunks, search};
use crate::similarity::{Similarity, normalized};

/// Two rows and how alike they are.
///
/// ```
/// use mpnet::{mining::paraphrase_mining, ndarray::arr2};
///
/// let rows = arr2(&[[1.0_f32, 0.0], [0.0, 1.0], [2.0, 0.0]]);
/// let best = paraphrase_mining(&rows.view(), &Default::default())?[0];
/// assert_eq!((best.score, best.i, best.j), (1.0, 0, 2));
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Paraphrase {
    /// Larger is more alike.
    pub score: f32,
    /// The earlier row.
    pub i: usize,
    /// The later row.
    pub j: usize,
}

impl Paraphrase {
    /// The higher score first, then the earlier rows.
    fn rank(&self, other: &Self) -> Ordering {
        (other.score + 0.0)
            .total_cmp(&(self.score + 0.0))
            .then((self.i, self.j).cmp(&(other.i, other.j)))
    }
}

/// Options of [`paraphrase_mining`]. The default is the reference's: by cosine, 100 neighbours for
/// each row, 500 000 pairs.
///
/// ```
/// let options = mpnet::mining::ParaphraseOptions::default().top_k(10).max_pairs(1000);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ParaphraseOptions {
    similarity: Similarity,
    top_k: usize,
    max_pairs: usize,
    query_chunk_size: usize,
}

impl Default for ParaphraseOptions {
    fn default() -> Self {
        let similarity = Similarity::Cosine;
        Self { similarity, top_k: 100, max_pairs: 500_000, query_chunk_size: 5000 }
    }
}

impl ParaphraseOptions {
    /// What pairs are scored by.
    ///
    /// ```
    /// let options = mpnet::mining::ParaphraseOptions::default().similarity(mpnet::Similarity::Dot);
    /// ```
    #[must_use]
    pub fn similarity(mut self, similarity: Similarity) -> Self {
        self.similarity = similarity;
        self
    }

    /// Neighbours that are looked at for each row.
    ///
    /// ```
    /// let options = mpnet::mining::ParaphraseOptions::default().top_k(10);
    /// ```
    #[must_use]
    pub fn top_k(mut self, top_k: usize) -> Self {
        self.top_k = top_k;
        self
    }

    /// Pairs in the result, at most.
    ///
    /// ```
    /// use mpnet::{mining::{ParaphraseOptions, paraphrase_mining}, ndarray::arr2};
    ///
    /// let rows = arr2(&[[1.0_f32, 0.0], [0.0, 1.0], [2.0, 0.0]]);
    /// let pairs = paraphrase_mining(&rows.view(), &ParaphraseOptions::default().max_pairs(1))?;
    /// assert_eq!(pairs.len(), 1);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn max_pairs(mut self, max_pairs: usize) -> Self {
        self.max_pairs = max_pairs;
        self
    }

    /// Rows whose neighbours are held at once, 5000 by default; it does not show in the result.
    ///
    /// ```
    /// let options = mpnet::mining::ParaphraseOptions::default().query_chunk_size(1000);
    /// ```
    #[must_use]
    pub fn query_chunk_size(mut self, rows: usize) -> Self {
        self.query_chunk_size = rows;
        self
    }
}

/// The most similar pairs of rows of `embeddings` `[B, D]`, best first; equal scores by ascending
/// rows.
///
/// A pair counts if either row is among the `top_k` nearest of the other. Each is there once, with
/// `i < j` and the score of row `i` as the query.
///
/// Mirrors `sentence_transformers.util.paraphrase_mining_embeddings`. Memory: the embeddings again,
/// and 24 bytes for each of `2 · max_pairs + query_chunk_size · top_k` pairs.
///
/// ```
/// use mpnet::mining::{ParaphraseOptions, paraphrase_mining};
/// use mpnet::ndarray::arr2;
///
/// let embeddings = arr2(&[[1.0_f32, 0.0], [0.0, 1.0], [0.9, 0.1]]);
/// let pairs = paraphrase_mining(&embeddings.view(), &ParaphraseOptions::default().max_pairs(1))?;
/// assert_eq!((pairs[0].i, pairs[0].j), (0, 2));
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Option`](crate::Error::Option) if an option is 0,
/// [`InputProblem::NotFinite`](crate::InputProblem::NotFinite) for an embedding with a value that
/// is infinite or not a number, [`InputProblem::NoColumns`](crate::InputProblem::NoColumns) for
/// rows without columns. No embeddings, or one, give no pairs.
pub fn paraphrase_mining(
    embeddings: &ArrayRef2<f32>,
    options: &ParaphraseOptions,
) -> Result<Vec<Paraphrase>> {
    let ParaphraseOptions { similarity, top_k, max_pairs, query_chunk_size } = *options;
    at_least_one("top_k", top_k)?;
    at_least_one("max_pairs", max_pairs)?;
    at_least_one("query_chunk_size", query_chunk_size)?;
    has_columns("embeddings", embeddings.dim())?;
    finite("embeddings", embeddings)?;
    let (embeddings, similarity) = match similarity {
        Similarity::Cosine => (normalized(embeddings).into(), Similarity::Dot),
        _ => (embeddings.as_standard_layout(), similarity),
    };
    let all = embeddings.view();
    let score = |queries: &[usize], row: usize| -> Vec<f32> {
        let (queries, row) = (all.select(Axis(0), queries), all.slice(s![row..=row, ..]));
        let hits = search(similarity, &queries.view(), &row, 1, Chunks::default(), None);
        hits.iter().map(|hits| hits[0].score).collect()
    };
    let mut pairs = Vec::new();
    for start in (0..all.nrows()).step_by(query_chunk_size) {
        let end = start.saturating_add(query_chunk_size).min(all.nrows());
        let rows = all.slice(s![start..end, ..]);
        // One more, since a row is usually its own nearest.
        let wanted = top_k.saturating_add(1);
        let hits = search(similarity, &rows, &all, wanted, Chunks::default(), None);
        for (i, hits) in (start..).zip(hits) {
            let others = hits.iter().filter(|hit| hit.corpus_id != i).take(top_k);
            pairs.extend(others.map(|hit| Paraphrase { score: hit.score, i, j: hit.corpus_id }));
        }
        if pairs.len() / 2 >= max_pairs {
            keep_best(&mut pairs, max_pairs, score);
        }
    }
    keep_best(&mut pairs, max_pairs, score);
    Ok(pairs)
}

/// The best pairs, in order, each once and with `i < j`. As they come, `i` is the row that found
/// `j`.
///
/// A pair has one score, that of its earlier row as the query: the other direction may differ in
/// the last bits, since where a product is made of several in a lower precision it matters which
/// factor comes first. Where the later row alone has found the pair, `score` says what the earlier
/// ones would: of rows as queries and one row of the corpus.
fn keep_best(
    pairs: &mut Vec<Paraphrase>,
    max_pairs: usize,
    score: impl Fn(&[usize], usize) -> Vec<f32> + Sync,
) {
    let rows = |pair: &Paraphrase| (pair.i.max(pair.j), pair.i.min(pair.j));
    pairs.par_sort_unstable_by_key(|pair| (rows(pair), pair.i > pair.j));
    pairs.dedup_by_key(|pair| rows(pair));
    let of_one_row: Vec<&mut [Paraphrase]> =
        pairs.chunk_by_mut(|a, b| rows(a).0 == rows(b).0).collect();
    of_one_row.into_par_iter().for_each(|pairs| {
        let mut turned: Vec<&mut Paraphrase> =
            pairs.iter_mut().filter(|pair| pair.i > pair.j).collect();
        let Some(row) = turned.first().map(|pair| pair.i) else { return };
        let queries: Vec<usize> = turned.iter().map(|pair| pair.j).collect();
        for (pair, score) in turned.iter_mut().zip(score(&queries, row)) {
            **pair = Paraphrase { score, i: pair.j, j: row };
        }
    });
    pairs.par_sort_unstable_by(Paraphrase::rank);
    pairs.truncate(max_pairs);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores of which no two directions agree: the later row scores the pair higher for odd sums
    /// and lower for even ones. As near as last bits, so that other pairs lie between.
    fn score(query: usize, row: usize) -> f32 {
        let (low, high) = (query.min(row), query.max(row));
        let bits = 0.5_f32.to_bits() + ((low * 7 + high * 3) % 5) as u32;
        f32::from_bits(match (query > row, (low + high) % 2) {
            (true, 1) => bits + 2,
            (true, _) => bits - 2,
            (false, _) => bits,
        })
    }

    /// What the rows `queries` find, each its `top_k` best.
    fn found(queries: std::ops::Range<usize>, rows: usize, top_k: usize) -> Vec<Paraphrase> {
        let of = |i: usize| {
            let others = (0..rows).filter(move |&j| j != i);
            let mut hits: Vec<_> =
                others.map(|j| Paraphrase { score: score(i, j), i, j }).collect();
            hits.sort_by(Paraphrase::rank);
            hits.truncate(top_k);
            hits
        };
        queries.flat_map(of).collect()
    }

    fn best(pairs: &mut Vec<Paraphrase>, max_pairs: usize) {
        keep_best(pairs, max_pairs, |queries, row| {
            queries.iter().map(|&i| score(i, row)).collect()
        });
    }

    #[test]
    fn a_pair_whose_directions_differ_is_there_once() {
        const ROWS: usize = 12;
        let mut all = found(0..ROWS, ROWS, ROWS);
        best(&mut all, usize::MAX);
        let mut want: Vec<Paraphrase> = (0..ROWS)
            .flat_map(|i| (i + 1..ROWS).map(move |j| Paraphrase { score: score(i, j), i, j }))
            .collect();
        want.sort_by(Paraphrase::rank);
        assert_eq!(all, want);
    }

    #[test]
    fn neither_chunks_nor_who_found_a_pair_show_in_its_score() {
        const ROWS: usize = 12;
        for (top_k, max_pairs) in [(1, 4), (2, 7), (3, 11), (5, 20), (11, 9)] {
            let mut want = found(0..ROWS, ROWS, top_k);
            best(&mut want, max_pairs);
            assert!(want.iter().all(|pair| pair.i < pair.j && pair.score == score(pair.i, pair.j)));
            for chunk in [1, 2, 5] {
                let mut got = Vec::new();
                for start in (0..ROWS).step_by(chunk) {
                    got.extend(found(start..(start + chunk).min(ROWS), ROWS, top_k));
                    best(&mut got, max_pairs);
                }
                assert_eq!(got, want, "top_k {top_k}, {max_pairs} pairs, chunks of {chunk}");
            }
        }
    }
}
