//! Exact search over embeddings.
//!
//! | corpus | function |
//! |---|---|
//! | `f32` | [`semantic_search`]; [`semantic_search_with`] takes options, and returns an error for what cannot be searched |
//! | `int8`, `uint8`, bits | [`semantic_search_quantized`] |
//! | the same, the best candidates scored again by finer numbers | [`semantic_search_rescored`] |
//!
//! All score the corpus in blocks, in parallel on the caller's rayon pool, so that memory does not
//! grow with the number of queries times that of rows; neither blocks nor threads show in the
//! result. Equal scores are ordered by ascending row.
//!
//! ```
//! use mpnet::search::{SearchOptions, semantic_search_with};
//!
//! # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
//! let texts = ["The weather is lovely today.", "He drove to the stadium."];
//! let corpus = encoder.encode_document(&texts)?;
//! let queries = encoder.encode_query(&["Is it warm?"])?;
//! let options = SearchOptions::default().similarity(encoder.similarity_fn()).top_k(2);
//! let hits = semantic_search_with(&queries.view(), &corpus.view(), &options)?;
//! for hit in &hits[0] {
//!     println!("{:.4} {}", hit.score, texts[hit.corpus_id]);
//! }
//! # assert_eq!(hits[0].len(), 2);
//! # Ok::<(), mpnet::Error>(())
//! ```

mod dense;
mod options;
mod quantized;
mod rescore;
mod top_k;

use ndarray::ArrayRef2;

use crate::similarity::Similarity;

pub use options::{SearchOptions, semantic_search_with};
pub use quantized::semantic_search_quantized;
pub use rescore::{Rescore, RescoreOptions, semantic_search_rescored};
pub use top_k::Hit;

pub(crate) use dense::{Chunks, search};

/// For each query the `top_k` rows of `corpus` with the largest cosine, best first; equal scores by
/// ascending row. Fewer if the corpus is smaller.
///
/// `queries`: `[Q, D]`, `corpus`: `[C, D]`; rows need not have length 1. A row whose score is not a
/// number comes last. To be told of such rows, and of other input that makes no sense, use
/// [`semantic_search_with`], which searches by other similarities than the cosine, too.
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
/// If the widths differ, where [`semantic_search_with`] returns an error.
#[must_use]
pub fn semantic_search(
    queries: &ArrayRef2<f32>,
    corpus: &ArrayRef2<f32>,
    top_k: usize,
) -> Vec<Vec<Hit>> {
    assert_eq!(queries.ncols(), corpus.ncols(), "semantic_search: the widths differ");
    search(Similarity::Cosine, queries, corpus, top_k, Chunks::default(), None)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, s};

    use super::top_k::keep_best;
    use super::*;
    use crate::similarity::cos_sim;

    fn vectors(rows: usize, seed: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, 8), |(i, j)| ((i * 13 + j * 5 + seed) as f32 * 0.61).sin())
    }

    /// More than one chunk and block of each, and not a multiple.
    const QUERIES: usize = 256;
    const CORPUS: usize = 2100;

    #[test]
    fn agrees_with_sorting_all_scores_across_chunks() {
        let (queries, corpus) = (vectors(QUERIES + 3, 1), vectors(CORPUS + 100, 2));
        let hits = semantic_search(&queries.view(), &corpus.view(), 7);
        let scores = cos_sim(&queries.view(), &corpus.view());
        assert_eq!(hits.len(), queries.nrows());
        for (hits, scores) in hits.iter().zip(scores.rows()) {
            let all = scores.iter().enumerate();
            let all = all.map(|(corpus_id, &score)| Hit { corpus_id, score }).collect();
            for (hit, want) in hits.iter().zip(keep_best(all, 7)) {
                // The corpus repeats itself nearly, so the rows may differ where the scores do not.
                assert!((hit.score - want.score).abs() < 5e-7, "{hit:?}, {want:?}");
                assert!((scores[hit.corpus_id] - hit.score).abs() < 5e-7, "{hit:?}");
            }
        }
    }

    #[test]
    fn neither_company_nor_layout_nor_threads_show() {
        let (queries, corpus) = (vectors(QUERIES + 3, 1), vectors(CORPUS, 2));
        let want = semantic_search(&queries.view(), &corpus.view(), 20);
        let alone = semantic_search(&queries.slice(s![5..6, ..]), &corpus.view(), 20);
        assert_eq!(alone[0], want[5]);
        let (queries, columns) = (queries.view(), corpus.t().as_standard_layout().into_owned());
        assert_eq!(semantic_search(&queries, &columns.t(), 20), want);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(pool.install(|| semantic_search(&queries, &corpus.view(), 20)), want);
    }

    #[test]
    fn by_every_similarity() {
        let (queries, corpus) = (vectors(3, 1), vectors(200, 2));
        for similarity in
            [Similarity::Cosine, Similarity::Dot, Similarity::Euclidean, Similarity::Manhattan]
        {
            let options = SearchOptions::default().similarity(similarity).top_k(1);
            let hits = semantic_search_with(&queries.view(), &corpus.view(), &options).unwrap();
            let scores = similarity.all(&queries.view(), &corpus.view()).unwrap();
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
