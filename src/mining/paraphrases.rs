//! [`paraphrase_mining`]: the most similar pairs of a set.

use std::cmp::Ordering;

use ndarray::{ArrayView2, s};

use crate::error::{Result, at_least_one};
use crate::search::{Chunks, finite, search};
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

/// Options of [`paraphrase_mining`]. The default is the reference's: by cosine, 100 neighbours for each row, 500 000 pairs.
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

/// The most similar pairs of rows of `embeddings` `[B, D]`, best first; equal scores by ascending rows.
///
/// A pair counts if either row is among the `top_k` nearest of the other. Each is there once, with `i < j`.
///
/// Mirrors `sentence_transformers.util.paraphrase_mining_embeddings`. Memory: the embeddings again, and 24 bytes for each of
/// `2 · max_pairs + query_chunk_size · top_k` pairs.
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
/// [`Error::Option`](crate::Error::Option) if an option is 0, [`Error::NotFinite`](crate::Error::NotFinite) for an embedding with a value that is
/// infinite or not a number. No embeddings, or one, give no pairs.
pub fn paraphrase_mining(
    embeddings: &ArrayView2<f32>,
    options: &ParaphraseOptions,
) -> Result<Vec<Paraphrase>> {
    let ParaphraseOptions { similarity, top_k, max_pairs, query_chunk_size } = *options;
    at_least_one("top_k", top_k)?;
    at_least_one("max_pairs", max_pairs)?;
    at_least_one("query_chunk_size", query_chunk_size)?;
    finite("the embeddings", embeddings)?;
    // Dot products of rows of length 1 are the same bits in both directions, so that a pair has one score.
    let (embeddings, similarity) = match similarity {
        Similarity::Cosine => (normalized(embeddings).into(), Similarity::Dot),
        _ => (embeddings.as_standard_layout(), similarity),
    };
    let all = embeddings.view();
    let mut pairs = Vec::new();
    for start in (0..all.nrows()).step_by(query_chunk_size) {
        let end = start.saturating_add(query_chunk_size).min(all.nrows());
        let rows = all.slice(s![start..end, ..]);
        // One more, since a row is usually its own nearest.
        let wanted = top_k.saturating_add(1);
        let hits = search(similarity, &rows, &all, wanted, Chunks::default(), None);
        for (i, hits) in (start..).zip(hits) {
            let others = hits.iter().filter(|hit| hit.corpus_id != i).take(top_k);
            pairs.extend(others.map(|hit| Paraphrase {
                score: hit.score,
                i: i.min(hit.corpus_id),
                j: i.max(hit.corpus_id),
            }));
        }
        if pairs.len() / 2 >= max_pairs {
            keep_best(&mut pairs, max_pairs);
        }
    }
    keep_best(&mut pairs, max_pairs);
    Ok(pairs)
}

/// The best pairs, in order, each once: both directions of a pair have one score and so stand side by side.
fn keep_best(pairs: &mut Vec<Paraphrase>, max_pairs: usize) {
    pairs.sort_unstable_by(Paraphrase::rank);
    pairs.dedup_by_key(|pair| (pair.i, pair.j));
    pairs.truncate(max_pairs);
}
