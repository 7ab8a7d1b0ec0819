//! [`semantic_search_with`]: search that checks what it is given.

use std::sync::atomic::AtomicUsize;

use ndarray::ArrayRef2;

use super::dense::{self, Chunks};
use super::top_k::Hit;
use crate::error::{Error, InputProblem, Result, at_least_one};
use crate::rows::{finite, has_columns, not_finite, same_width};
use crate::similarity::Similarity;

/// Options of [`semantic_search_with`]. The default: the 10 best by cosine.
///
/// ```
/// use mpnet::{Similarity, search::SearchOptions};
///
/// let options = SearchOptions::default().top_k(3).similarity(Similarity::Dot);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct SearchOptions {
    similarity: Similarity,
    top_k: usize,
    chunks: Chunks,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self { similarity: Similarity::Cosine, top_k: 10, chunks: Chunks::default() }
    }
}

impl SearchOptions {
    /// What hits are scored by: the reference's `score_function`.
    ///
    /// ```
    /// let options = mpnet::search::SearchOptions::default().similarity(mpnet::Similarity::Euclidean);
    /// ```
    #[must_use]
    pub fn similarity(mut self, similarity: Similarity) -> Self {
        self.similarity = similarity;
        self
    }

    /// Hits for each query.
    ///
    /// ```
    /// use mpnet::{ndarray::arr2, search::{SearchOptions, semantic_search_with}};
    ///
    /// let rows = arr2(&[[1.0_f32, 0.0], [0.0, 1.0], [1.0, 1.0]]);
    /// let hits = semantic_search_with(&rows.view(), &rows.view(), &SearchOptions::default().top_k(2))?;
    /// assert_eq!(hits[0].len(), 2);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn top_k(mut self, top_k: usize) -> Self {
        self.top_k = top_k;
        self
    }

    /// Queries for which the corpus is read at once, 256 by default. More read it less often and
    /// take more memory: about a kilobyte and `32 · top_k` bytes for each query and thread.
    ///
    /// ```
    /// let options = mpnet::search::SearchOptions::default().query_chunk_size(64);
    /// ```
    #[must_use]
    pub fn query_chunk_size(mut self, queries: usize) -> Self {
        self.chunks.queries = queries;
        self
    }

    /// Rows of the corpus that one task scores at most, 65 536 by default: a bound on what a thread
    /// does without pause.
    ///
    /// ```
    /// let options = mpnet::search::SearchOptions::default().corpus_chunk_size(10_000);
    /// ```
    #[must_use]
    pub fn corpus_chunk_size(mut self, rows: usize) -> Self {
        self.chunks.corpus = rows;
        self
    }

    fn check(&self) -> Result<()> {
        at_least_one("top_k", self.top_k)?;
        at_least_one("query_chunk_size", self.chunks.queries)?;
        at_least_one("corpus_chunk_size", self.chunks.corpus)
    }
}

/// As [`semantic_search`](super::semantic_search), with options, and an error for what cannot be
/// searched.
///
/// `queries`: `[Q, D]`, `corpus`: `[C, D]`. For each query up to `top_k` hits, best first. No
/// queries give no lists.
///
/// Mirrors `sentence_transformers.util.semantic_search`, whose chunk sizes do not show in the
/// result either.
///
/// ```
/// use mpnet::ndarray::arr2;
/// use mpnet::search::{SearchOptions, semantic_search_with};
///
/// let corpus = arr2(&[[1.0_f32, 0.0], [0.6, 0.8], [0.0, f32::NAN]]);
/// let queries = arr2(&[[0.0_f32, 2.0]]);
/// let error = semantic_search_with(&queries.view(), &corpus.view(), &SearchOptions::default());
/// assert_eq!(
///     error.unwrap_err().to_string(),
///     "`corpus`: row 2 has NaN"
/// );
/// ```
///
/// # Errors
///
/// [`InputProblem::Empty`](crate::InputProblem::Empty) for a corpus without rows,
/// [`InputProblem::NoColumns`](crate::InputProblem::NoColumns) for rows without columns,
/// [`InputProblem::Width`](crate::InputProblem::Width) if the widths differ,
/// [`InputProblem::NotFinite`](crate::InputProblem::NotFinite) for a row of either that has a value
/// that is infinite or not a number, [`Error::Option`] if `top_k` or a chunk size is 0.
pub fn semantic_search_with(
    queries: &ArrayRef2<f32>,
    corpus: &ArrayRef2<f32>,
    options: &SearchOptions,
) -> Result<Vec<Vec<Hit>>> {
    options.check()?;
    if corpus.nrows() == 0 {
        return Err(Error::Input { input: "corpus", problem: InputProblem::Empty });
    }
    has_columns("corpus", corpus.dim())?;
    has_columns("queries", queries.dim())?;
    same_width("queries", queries.ncols(), corpus.ncols())?;
    finite("queries", queries)?;
    let first = AtomicUsize::new(usize::MAX);
    let SearchOptions { similarity, top_k, chunks } = *options;
    let hits = dense::search(similarity, queries, corpus, top_k, chunks, Some(&first));
    match first.into_inner() {
        usize::MAX => {}
        row => return Err(not_finite("corpus", row, corpus.row(row))),
    }
    Ok(hits)
}
