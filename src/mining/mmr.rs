//! [`mmr`]: hits that are relevant and do not repeat each other.

use ndarray::{Array2, ArrayRef1, ArrayRef2, ArrayView2, Axis};

use crate::error::{Error, InputProblem, Result, at_least_one};
use crate::kernels::gemm::{Epilogue, PackedMatrix, par_matmul};
use crate::kernels::isa::Isa;
use crate::kernels::{Precision, Team};
use crate::rows::{finite, has_columns, same_width};
use crate::search::Hit;
use crate::similarity::normalized;

/// Up to `top_k` rows of `documents` `[C, D]`, chosen one after another by maximal marginal
/// relevance to `query` `[D]`:
///
/// ```text
/// next = argmax over rows d not chosen of   lambda · cos(d, query) − (1 − lambda) · max over chosen c of cos(d, c)
/// ```
///
/// The first is the most similar row, as in KeyBERT, for a `lambda` of 0 too. `lambda` of 1 ranks
/// by similarity alone, smaller values ask for diversity; of equal ones the earlier row is chosen.
/// Each hit's score is its cosine to the query; their order is that of the choice.
///
/// With the mean of a text's sentences as the query, the rows chosen are an extractive summary of
/// it.
///
/// Source: Carbonell and Goldstein 1998, *The use of MMR, diversity-based reranking for reordering
/// documents and producing summaries*, <https://doi.org/10.1145/290941.291025>.
///
/// ```
/// use mpnet::{mining::mmr, ndarray::{arr1, arr2}};
///
/// let documents = arr2(&[[1.0_f32, 0.1], [1.0, 0.11], [0.6, 0.8]]);
/// let query = arr1(&[1.0_f32, 0.2]);
/// let ids = |lambda| -> mpnet::Result<Vec<usize>> {
///     let hits = mmr(&query.view(), &documents.view(), 2, lambda)?;
///     Ok(hits.iter().map(|hit| hit.corpus_id).collect())
/// };
/// assert_eq!(ids(1.0)?, [1, 0]);
/// assert_eq!(ids(0.5)?, [1, 2]);
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// [`InputProblem::Empty`](crate::InputProblem::Empty) for no documents,
/// [`InputProblem::NoColumns`](crate::InputProblem::NoColumns) for documents without columns,
/// [`InputProblem::Width`](crate::InputProblem::Width) if the widths differ,
/// [`InputProblem::NotFinite`](crate::InputProblem::NotFinite) for a value that is infinite or not
/// a number, [`Error::Option`] if `top_k` is 0 or `lambda` is not between 0 and 1.
pub fn mmr(
    query: &ArrayRef1<f32>,
    documents: &ArrayRef2<f32>,
    top_k: usize,
    lambda: f32,
) -> Result<Vec<Hit>> {
    at_least_one("top_k", top_k)?;
    if !(0.0..=1.0).contains(&lambda) {
        let problem = format!("is {lambda}, not between 0 and 1");
        return Err(Error::Option { option: "lambda", problem });
    }
    if documents.nrows() == 0 {
        return Err(Error::Input { input: "documents", problem: InputProblem::Empty });
    }
    has_columns("documents", documents.dim())?;
    same_width("query", query.len(), documents.ncols())?;
    let query = query.view().insert_axis(Axis(0));
    finite("query", &query)?;
    finite("documents", documents)?;
    let documents = normalized(documents);
    let packed = PackedMatrix::new(Isa::exact(), Precision::F32, documents.view());
    // The cosine of each document to a row of length 1, `[1, D]` → `[1, C]`.
    let cosines = |row: ArrayView2<f32>| {
        let mut cosines = Array2::zeros((1, documents.nrows()));
        par_matmul(&Team::gather(), row, &packed, cosines.view_mut(), Epilogue::None);
        cosines
    };
    let relevance = cosines(normalized(&query).view());
    let relevance = relevance.row(0);
    // The largest cosine to a row that was chosen; not used before one was.
    let mut redundancy = vec![f32::NEG_INFINITY; documents.nrows()];
    let mut chosen: Vec<Hit> = Vec::new();
    let mut free: Vec<usize> = (0..documents.nrows()).collect();
    while chosen.len() < top_k && !free.is_empty() {
        let value = |row: usize| match chosen.is_empty() {
            true => relevance[row],
            false => lambda * relevance[row] - (1.0 - lambda) * redundancy[row],
        };
        let better = |best: usize, at: usize| {
            if value(free[at]) > value(free[best]) { at } else { best }
        };
        let corpus_id = free.remove((1..free.len()).fold(0, better));
        chosen.push(Hit { corpus_id, score: relevance[corpus_id] });
        let to_it = cosines(documents.row(corpus_id).insert_axis(Axis(0)));
        redundancy.iter_mut().zip(&to_it).for_each(|(most, &cosine)| *most = most.max(cosine));
    }
    Ok(chosen)
}
