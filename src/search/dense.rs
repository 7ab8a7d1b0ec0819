//! Search over `f32` embeddings: a matrix product, a block of the corpus at a time.
//!
//! The queries are few and the corpus is large and used once, so what counts is that it is read
//! once. A block of it is packed (which is a transposition), multiplied with the queries and scaled
//! by its lengths while it is in cache; the scores never leave it.

use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{ArrayRef2, ArrayView2, ArrayViewMut2, Axis, s};

use super::top_k::{Hit, Scan};
use crate::kernels::gemm::{PackedMatrix, matmul};
use crate::kernels::isa::Isa;
use crate::kernels::{Distance, Precision, inverse_norms, negative_distances};
use crate::rows::first_not_finite;
use crate::similarity::{SMALLEST_NORM, Similarity, normalized};

/// Corpus rows packed at once: 768 KiB at a width of 768, in a second-level cache of 1 MiB. 64 and
/// 128 rows were a fifth slower (the queries are packed again for each block), 512 and 1024 no
/// faster than the spread.
const BLOCK: usize = 256;

/// How the work is cut; nothing of it shows in the result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunks {
    /// Queries for which the corpus is read at once.
    pub(crate) queries: usize,
    /// Rows that one task scores, at most.
    pub(crate) corpus: usize,
}

impl Default for Chunks {
    fn default() -> Self {
        Self { queries: 256, corpus: 1 << 16 }
    }
}

/// For each query its best rows. If `not_finite` is given, the first row of the corpus with a value
/// that is infinite or not a number is left in it.
pub(crate) fn search(
    similarity: Similarity,
    queries: &ArrayRef2<f32>,
    corpus: &ArrayRef2<f32>,
    top_k: usize,
    chunks: Chunks,
    not_finite: Option<&AtomicUsize>,
) -> Vec<Vec<Hit>> {
    let isa = Isa::exact();
    let scan = |queries: ArrayView2<f32>| {
        let queries = match similarity {
            Similarity::Cosine => normalized(&queries).into(),
            _ => queries.as_standard_layout(),
        };
        let scan = Scan {
            queries: queries.nrows(),
            rows: corpus.nrows(),
            top_k,
            chunk: chunks.corpus,
            block: BLOCK,
        };
        let scratch = || (PackedMatrix::empty(isa, Precision::F32), Vec::new());
        scan.run(scratch, |(packed, scales), range, scores| {
            let rows = corpus.slice(s![range.clone(), ..]);
            let rows = rows.as_standard_layout();
            let flat = rows.as_slice().expect("a standard layout is contiguous");
            if let Some(first) = not_finite
                && let Some(row) = first_not_finite(flat, corpus.ncols())
            {
                first.fetch_min(range.start + row, Ordering::Relaxed);
            }
            if similarity == Similarity::Cosine {
                // First, since it reads the rows in order: packing then finds them in cache.
                scales.resize(range.len(), 0.0);
                inverse_norms(isa, flat, SMALLEST_NORM, scales);
            }
            score(isa, similarity, &queries.view(), &rows.view(), packed, scores);
            if similarity == Similarity::Cosine {
                for scores in scores.chunks_exact_mut(range.len()) {
                    scores.iter_mut().zip(&*scales).for_each(|(score, scale)| *score *= scale);
                }
            }
        })
    };
    queries.axis_chunks_iter(Axis(0), chunks.queries).flat_map(scan).collect()
}

/// Into `scores` `[Q, rows]` the similarity of each query to each row, for the cosine of queries of
/// length 1 without the division by the length of the row.
fn score(
    isa: Isa,
    similarity: Similarity,
    queries: &ArrayRef2<f32>,
    rows: &ArrayRef2<f32>,
    packed: &mut PackedMatrix,
    scores: &mut [f32],
) {
    let distances = |distance, scores: &mut [f32]| {
        let flat = rows.as_slice().expect("the caller's rows are contiguous");
        for (query, scores) in queries.rows().into_iter().zip(scores.chunks_exact_mut(rows.nrows()))
        {
            let query = query.to_slice().expect("the caller's queries are contiguous");
            negative_distances(isa, distance, query, flat, scores);
        }
    };
    match similarity {
        Similarity::Cosine | Similarity::Dot => {
            packed.repack(rows.view());
            let shape = (queries.nrows(), rows.nrows());
            let mut out = ArrayViewMut2::from_shape(shape, scores).expect("[Q, rows] scores");
            matmul(queries.view(), packed, &mut out);
        }
        Similarity::Euclidean => distances(Distance::Euclidean, scores),
        Similarity::Manhattan => distances(Distance::Manhattan, scores),
    }
}
