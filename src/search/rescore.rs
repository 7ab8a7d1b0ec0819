//! Two stages: many candidates by coarse numbers, the best of them by finer ones.

use ndarray::{Array1, ArrayRef2, ArrayView1, ArrayView2};
use rayon::prelude::*;

use super::quantized::semantic_search_quantized;
use super::top_k::{Hit, keep_best};
use crate::error::{Error, Result, at_least_one};
use crate::quantization::{
    EmbeddingPrecision, QuantizedView, Ranges, bit, dequantize_int8, dequantize_uint8,
    quantize_embeddings,
};
use crate::rows::{finite, has_columns, not_finite, same_width};

/// By what candidates are scored again: by the dot product of the `f32` query with this.
///
/// ```
/// use mpnet::{ndarray::arr2, search::{Rescore, RescoreOptions}};
///
/// let as_they_were = arr2(&[[0.5_f32, 0.1], [0.1, 0.9]]);
/// let options = RescoreOptions::default().rescore(Rescore::Float32(as_they_were.view()));
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub enum Rescore<'a> {
    /// Not at all: hits keep the score of the first stage, as of [`semantic_search_quantized`].
    None,
    /// The quantised corpus itself, as the reference does: its bits as 0 and 1, its buckets as the
    /// values they stand for.
    #[default]
    Corpus,
    /// The same corpus in `int8`, with its ranges: for a first stage of bits.
    Int8(ArrayView2<'a, i8>, &'a Ranges),
    /// The same corpus as it was.
    Float32(ArrayView2<'a, f32>),
}

/// Options of [`semantic_search_rescored`]. The default: the 10 best of 20 candidates, scored again
/// by the corpus itself.
///
/// ```
/// use mpnet::search::{Rescore, RescoreOptions};
///
/// let options = RescoreOptions::default().top_k(5).rescore_multiplier(4).rescore(Rescore::Corpus);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RescoreOptions<'a> {
    top_k: usize,
    multiplier: usize,
    ranges: Option<&'a Ranges>,
    rescore: Rescore<'a>,
}

impl Default for RescoreOptions<'_> {
    fn default() -> Self {
        Self { top_k: 10, multiplier: 2, ranges: None, rescore: Rescore::Corpus }
    }
}

impl<'a> RescoreOptions<'a> {
    /// Hits for each query.
    ///
    /// ```
    /// let options = mpnet::search::RescoreOptions::default().top_k(100);
    /// ```
    #[must_use]
    pub fn top_k(mut self, top_k: usize) -> Self {
        self.top_k = top_k;
        self
    }

    /// Candidates for each hit, 2 by default: `top_k · multiplier` are scored again.
    ///
    /// ```
    /// let options = mpnet::search::RescoreOptions::default().rescore_multiplier(4);
    /// ```
    #[must_use]
    pub fn rescore_multiplier(mut self, multiplier: usize) -> Self {
        self.multiplier = multiplier;
        self
    }

    /// The ranges with which an `int8` or `uint8` corpus was quantised; the queries are too.
    ///
    /// ```
    /// use mpnet::{ndarray::arr2, quantization::{EmbeddingPrecision, Ranges, quantize_embeddings}};
    /// use mpnet::search::{RescoreOptions, semantic_search_rescored};
    ///
    /// let corpus = arr2(&[[0.5_f32, 0.1], [0.1, 0.9], [-0.9, 0.1]]);
    /// let ranges = Ranges::calibrate(&corpus.view())?;
    /// let codes = quantize_embeddings(&corpus.view(), EmbeddingPrecision::Int8, Some(&ranges))?;
    /// let options = RescoreOptions::default().ranges(&ranges);
    /// let hits = semantic_search_rescored(&corpus.view(), &codes.view(), &options)?;
    /// assert_eq!(hits[1][0].corpus_id, 1);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn ranges(mut self, ranges: &'a Ranges) -> Self {
        self.ranges = Some(ranges);
        self
    }

    /// By what the candidates are scored again.
    ///
    /// ```
    /// use mpnet::search::{Rescore, RescoreOptions};
    ///
    /// let first_stage_only = RescoreOptions::default().rescore(Rescore::None);
    /// ```
    #[must_use]
    pub fn rescore(mut self, rescore: Rescore<'a>) -> Self {
        self.rescore = rescore;
        self
    }
}

/// For each `f32` query the best rows of a quantised corpus: the query is quantised, the best
/// `top_k · rescore_multiplier` rows are found as by [`semantic_search_quantized`], and those are
/// scored again by the query as it was.
///
/// `queries`: `[Q, D]`; `corpus`: `[C, D]`, or `[C, ⌈D/8⌉]` bytes of bits.
///
/// Mirrors `sentence_transformers.quantization`'s `semantic_search_faiss` and
/// `semantic_search_usearch` with exact search.
///
/// ```
/// use mpnet::ndarray::arr2;
/// use mpnet::quantization::{EmbeddingPrecision, quantize_embeddings};
/// use mpnet::search::{Rescore, RescoreOptions, semantic_search_rescored};
///
/// let corpus = arr2(&[[0.5_f32, 0.1], [0.1, 0.9], [-0.9, 0.1]]);
/// let bits = quantize_embeddings(&corpus.view(), EmbeddingPrecision::Ubinary, None)?;
/// let query = arr2(&[[0.1_f32, 1.0]]);
/// let options = RescoreOptions::default().top_k(1).rescore(Rescore::Float32(corpus.view()));
/// let hits = semantic_search_rescored(&query.view(), &bits.view(), &options)?;
/// assert_eq!(hits[0][0].corpus_id, 1); // The bits alone cannot tell it from row 0.
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Option`] if `top_k` or the multiplier is 0, or ranges are missing;
/// [`InputProblem::Empty`](crate::InputProblem::Empty) for a corpus without rows,
/// [`InputProblem::NoColumns`](crate::InputProblem::NoColumns) for rows without columns;
/// [`InputProblem::Width`](crate::InputProblem::Width) if queries, corpus, ranges or the finer
/// corpus do not fit together; [`InputProblem::NotFinite`](crate::InputProblem::NotFinite) for
/// embeddings with a value that is infinite or not a number.
pub fn semantic_search_rescored(
    queries: &ArrayRef2<f32>,
    corpus: &QuantizedView,
    options: &RescoreOptions,
) -> Result<Vec<Vec<Hit>>> {
    let &RescoreOptions { top_k, multiplier, ranges, ref rescore } = options;
    at_least_one("top_k", top_k)?;
    at_least_one("rescore_multiplier", multiplier)?;
    has_columns("queries", queries.dim())?;
    finite("queries", queries)?;
    let precision = corpus.precision();
    if ranges.is_none() && matches!(precision, EmbeddingPrecision::Int8 | EmbeddingPrecision::Uint8)
    {
        let problem = format!("a corpus in {precision} needs those it was quantised with");
        return Err(Error::Option { option: "ranges", problem });
    }
    let finer = Finer::new(queries.ncols(), corpus, ranges, rescore)?;
    let candidates = match finer {
        None => top_k,
        Some(_) => top_k.saturating_mul(multiplier),
    };
    let asked = quantize_embeddings(queries, precision, ranges)?;
    let mut hits = semantic_search_quantized(&asked.view(), corpus, candidates)?;
    if let Some(finer) = finer {
        hits.par_iter_mut().enumerate().try_for_each(|(i, hits)| {
            for hit in hits.iter_mut() {
                hit.score = dot(queries.row(i), finer.row(hit.corpus_id)?.view());
            }
            *hits = keep_best(std::mem::take(hits), top_k);
            Ok(())
        })?;
    }
    Ok(hits)
}

/// The rows that candidates are scored by.
enum Finer<'a> {
    Float32(ArrayView2<'a, f32>),
    Int8(ArrayView2<'a, i8>, &'a Ranges),
    Uint8(ArrayView2<'a, u8>, &'a Ranges),
    /// Bits as 0 and 1, and how many there are.
    Binary(ArrayView2<'a, i8>, usize),
    Ubinary(ArrayView2<'a, u8>, usize),
}

impl<'a> Finer<'a> {
    fn new(
        width: usize,
        corpus: &'a QuantizedView<'_>,
        ranges: Option<&'a Ranges>,
        rescore: &'a Rescore<'_>,
    ) -> Result<Option<Self>> {
        let finer = match (rescore, corpus, ranges) {
            (Rescore::None, ..) => return Ok(None),
            (Rescore::Float32(rows), ..) => Self::Float32(rows.view()),
            (Rescore::Int8(rows, ranges), ..) => Self::Int8(rows.view(), ranges),
            (Rescore::Corpus, QuantizedView::Float32(rows), _) => Self::Float32(rows.view()),
            (Rescore::Corpus, QuantizedView::Binary(rows), _) => Self::Binary(rows.view(), width),
            (Rescore::Corpus, QuantizedView::Ubinary(rows), _) => Self::Ubinary(rows.view(), width),
            (Rescore::Corpus, QuantizedView::Int8(rows), Some(ranges)) => {
                Self::Int8(rows.view(), ranges)
            }
            (Rescore::Corpus, QuantizedView::Uint8(rows), Some(ranges)) => {
                Self::Uint8(rows.view(), ranges)
            }
            (Rescore::Corpus, QuantizedView::Int8(_) | QuantizedView::Uint8(_), None) => {
                unreachable!("the caller has asked for ranges")
            }
        };
        let (rows, found, expected) = match &finer {
            Self::Float32(rows) => (rows.nrows(), rows.ncols(), width),
            Self::Int8(rows, _) => (rows.nrows(), rows.ncols(), width),
            Self::Uint8(rows, _) => (rows.nrows(), rows.ncols(), width),
            Self::Binary(rows, _) => (rows.nrows(), rows.ncols(), width.div_ceil(8)),
            Self::Ubinary(rows, _) => (rows.nrows(), rows.ncols(), width.div_ceil(8)),
        };
        same_width("rescore", found, expected)?;
        if rows != corpus.dim().0 {
            let problem = format!("has {rows} rows, the corpus {}", corpus.dim().0);
            return Err(Error::Option { option: "rescore", problem });
        }
        Ok(Some(finer))
    }

    /// Row `i` as `f32`, `[D]`.
    fn row(&self, i: usize) -> Result<Array1<f32>> {
        let row = i..i + 1;
        let one = |rows: ndarray::Array2<f32>| rows.index_axis_move(ndarray::Axis(0), 0);
        let bits = |width: usize, byte: &dyn Fn(usize) -> u8| {
            Array1::from_shape_fn(width, |k| f32::from(u8::from(bit(k, byte))))
        };
        Ok(match self {
            Self::Float32(rows) => {
                let row = rows.row(i);
                if row.iter().any(|x| !x.is_finite()) {
                    return Err(not_finite("rescore", i, row));
                }
                row.to_owned()
            }
            Self::Int8(rows, ranges) => {
                one(dequantize_int8(&rows.slice(ndarray::s![row, ..]), ranges)?)
            }
            Self::Uint8(rows, ranges) => {
                one(dequantize_uint8(&rows.slice(ndarray::s![row, ..]), ranges)?)
            }
            Self::Binary(rows, width) => bits(*width, &|k| rows[[i, k]] as u8 ^ 0x80),
            Self::Ubinary(rows, width) => bits(*width, &|k| rows[[i, k]]),
        })
    }
}

/// In `f64`: the candidates are few.
fn dot(a: ArrayView1<f32>, b: ArrayView1<f32>) -> f32 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32
}
