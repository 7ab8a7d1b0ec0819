//! How alike two embeddings are: all pairs of two sets, or row by row.
//!
//! Distances are negated, so that larger always means more alike, as in sentence-transformers'
//! `util`. The functions panic if shapes do not fit; the methods of [`Similarity`] compute the same
//! and return errors.
//!
//! ```
//! use mpnet::{Similarity, similarity::cos_sim};
//!
//! # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
//! let queries = encoder.encode(&["a long day"])?;
//! let texts = encoder.encode(&["the day was long", "an old train", "who was there?"])?;
//! let scores = cos_sim(&queries.view(), &texts.view()); // [1, 3]
//! assert_eq!(scores, Similarity::Cosine.all(&queries.view(), &texts.view())?);
//! # Ok::<(), mpnet::Error>(())
//! ```

use std::str::FromStr;

use ndarray::{Array1, Array2, ArrayRef2, ArrayView1, Axis, Zip};

use crate::error::{Error, InputProblem, Result};
use crate::kernels::Precision;
use crate::kernels::Team;
use crate::kernels::gemm::{Epilogue, PackedMatrix, par_matmul};
use crate::kernels::isa::Isa;
use crate::rows::{finite, has_columns, same_width};

/// A similarity function, by the names of `similarity_fn_name` in
/// `config_sentence_transformers.json`.
///
/// ```
/// use mpnet::Similarity;
///
/// let similarity: Similarity = "euclidean".parse()?;
/// assert_eq!(similarity, Similarity::Euclidean);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Similarity {
    /// [`cos_sim`]: `cosine`.
    #[default]
    Cosine,
    /// [`dot_score`]: `dot`.
    Dot,
    /// [`euclidean_sim`]: `euclidean`.
    Euclidean,
    /// [`manhattan_sim`]: `manhattan`.
    Manhattan,
}

impl FromStr for Similarity {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "cosine" | "cos" => Self::Cosine,
            "dot" | "dot_score" => Self::Dot,
            "euclidean" => Self::Euclidean,
            "manhattan" => Self::Manhattan,
            _ => {
                let problem =
                    format!("`{name}` is not known; cosine, dot, euclidean and manhattan are");
                return Err(Error::Option { option: "similarity", problem });
            }
        })
    }
}

impl Similarity {
    /// Its name in `config_sentence_transformers.json`.
    ///
    /// ```
    /// assert_eq!(mpnet::Similarity::Dot.name(), "dot");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::Euclidean => "euclidean",
            Self::Manhattan => "manhattan",
        }
    }

    /// The similarity of each row of `a` `[A, D]` to each row of `b` `[B, D]`: `[A, B]`. What
    /// [`cos_sim`] and its siblings compute, with errors for what has no similarity.
    ///
    /// ```
    /// use mpnet::{Similarity, ndarray::arr2};
    ///
    /// let (a, b) = (arr2(&[[3.0_f32, 4.0]]), arr2(&[[0.0_f32, 0.0], [1.0, 1.0]]));
    /// assert_eq!(Similarity::Manhattan.all(&a.view(), &b.view())?, arr2(&[[-7.0, -5.0]]));
    /// let narrow = arr2(&[[1.0_f32]]);
    /// let error = Similarity::Manhattan.all(&a.view(), &narrow.view()).unwrap_err();
    /// assert_eq!(error.to_string(), "`b`: has width 1, expected 2");
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InputProblem::Width`] if the widths differ, [`InputProblem::NotFinite`] for a row with a
    /// value that is infinite or not a number, [`InputProblem::NoColumns`] for rows without
    /// columns.
    pub fn all(self, a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        check(a, b)?;
        Ok(match self {
            Self::Cosine => cos_sim(a, b),
            Self::Dot => dot_score(a, b),
            Self::Euclidean => euclidean_sim(a, b),
            Self::Manhattan => manhattan_sim(a, b),
        })
    }

    /// The similarity of row `i` of `a` and row `i` of `b`, `[A, D]` each: `[A]`.
    ///
    /// Source: `SimilarityFunction.to_similarity_pairwise_fn`.
    ///
    /// ```
    /// use mpnet::{Similarity, ndarray::{arr1, arr2}};
    ///
    /// let (a, b) = (arr2(&[[3.0_f32, 4.0], [1.0, 0.0]]), arr2(&[[0.0_f32, 0.0], [2.0, 5.0]]));
    /// assert_eq!(Similarity::Euclidean.pairwise(&a.view(), &b.view())?[0], -5.0);
    /// assert_eq!(Similarity::Dot.pairwise(&a.view(), &b.view())?, arr1(&[0.0, 2.0]));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`all`](Self::all), and [`Error::Input`] if the numbers of rows differ.
    pub fn pairwise(self, a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) -> Result<Array1<f32>> {
        if a.nrows() != b.nrows() {
            let problem = format!("has {} rows, `a` has {}", b.nrows(), a.nrows());
            return Err(Error::Input { input: "b", problem: InputProblem::Invalid(problem) });
        }
        check(a, b)?;
        Ok(match self {
            Self::Cosine => pairwise_cos_sim(a, b),
            Self::Dot => pairwise_dot_score(a, b),
            Self::Euclidean => pairwise_euclidean_sim(a, b),
            Self::Manhattan => pairwise_manhattan_sim(a, b),
        })
    }
}

/// What the methods of [`Similarity`] ask of two sets of embeddings.
fn check(a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) -> Result<()> {
    let (first, second) = ("a", "b");
    has_columns("a", a.dim())?;
    has_columns("b", b.dim())?;
    same_width(second, b.ncols(), a.ncols())?;
    finite(first, a)?;
    finite(second, b)
}

/// Below this a vector's length counts as this, so that the cosine with a vector of zeros is 0.
pub(crate) const SMALLEST_NORM: f32 = 1e-12;

/// The cosine of each row of `a` `[A, D]` with each row of `b` `[B, D]`: `[A, B]`. Rows need not
/// have length 1. Arrays, views and slices of arrays can be given alike.
///
/// ```
/// use mpnet::ndarray::{arr2, s};
/// use mpnet::similarity::cos_sim;
///
/// let a = arr2(&[[3.0_f32, 4.0]]);
/// let b = arr2(&[[6.0_f32, 8.0], [-4.0, 3.0]]);
/// let scores = cos_sim(&a, &b);
/// assert_eq!(scores, cos_sim(&a.view(), &b.view()));
/// assert_eq!(scores.slice(s![.., ..1]), cos_sim(&a, &b.slice(s![..1, ..])));
/// assert!((scores[[0, 0]] - 1.0).abs() < 1e-6 && scores[[0, 1]].abs() < 1e-6);
/// ```
///
/// # Panics
///
/// If the widths differ, where [`Similarity::all`] returns an error.
#[must_use]
pub fn cos_sim(a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) -> Array2<f32> {
    dot_score(&normalized(a).view(), &normalized(b).view())
}

/// The dot product of each row of `a` `[A, D]` with each row of `b` `[B, D]`: `[A, B]`.
///
/// ```
/// use mpnet::{ndarray::arr2, similarity::dot_score};
///
/// let (a, b) = (arr2(&[[1.0_f32, 2.0]]), arr2(&[[3.0_f32, 4.0], [0.0, 1.0]]));
/// assert_eq!(dot_score(&a.view(), &b.view()), arr2(&[[11.0, 2.0]]));
/// ```
///
/// # Panics
///
/// If the widths differ, where [`Similarity::all`] returns an error.
#[must_use]
pub fn dot_score(a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) -> Array2<f32> {
    assert_same_width(a, b);
    let mut scores = Array2::zeros((a.nrows(), b.nrows()));
    let b = PackedMatrix::new(Isa::exact(), Precision::F32, b.view());
    par_matmul(&Team::gather(), a.view(), &b, scores.view_mut(), Epilogue::None);
    scores
}

/// Minus the euclidean distance of each row of `a` `[A, D]` from each row of `b` `[B, D]`:
/// `[A, B]`. Of the differences themselves, not of `‖a‖² + ‖b‖² − 2 a·b`, which loses all digits
/// for near vectors.
///
/// ```
/// use mpnet::{ndarray::arr2, similarity::euclidean_sim};
///
/// let (a, b) = (arr2(&[[0.0_f32, 0.0]]), arr2(&[[3.0_f32, 4.0]]));
/// assert_eq!(euclidean_sim(&a.view(), &b.view()), arr2(&[[-5.0]]));
/// ```
///
/// # Panics
///
/// If the widths differ, where [`Similarity::all`] returns an error.
#[must_use]
pub fn euclidean_sim(a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) -> Array2<f32> {
    each_pair(a, b, euclidean)
}

/// Minus the sum of absolute differences of each row of `a` `[A, D]` and each row of `b` `[B, D]`:
/// `[A, B]`.
///
/// ```
/// use mpnet::{ndarray::arr2, similarity::manhattan_sim};
///
/// let (a, b) = (arr2(&[[0.0_f32, 0.0]]), arr2(&[[3.0_f32, 4.0]]));
/// assert_eq!(manhattan_sim(&a.view(), &b.view()), arr2(&[[-7.0]]));
/// ```
///
/// # Panics
///
/// If the widths differ, where [`Similarity::all`] returns an error.
#[must_use]
pub fn manhattan_sim(a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) -> Array2<f32> {
    each_pair(a, b, manhattan)
}

/// [`cos_sim`] of row `i` of `a` and row `i` of `b`, `[A]`.
///
/// ```
/// use mpnet::{ndarray::arr2, similarity::pairwise_cos_sim};
///
/// let (a, b) = (arr2(&[[2.0_f32, 0.0], [1.0, 0.0]]), arr2(&[[3.0_f32, 0.0], [0.0, 1.0]]));
/// assert_eq!(pairwise_cos_sim(&a.view(), &b.view()).to_vec(), [1.0, 0.0]);
/// ```
///
/// # Panics
///
/// If the shapes differ, where [`Similarity::pairwise`] returns an error.
#[must_use]
pub fn pairwise_cos_sim(a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) -> Array1<f32> {
    pairwise(&normalized(a).view(), &normalized(b).view(), |a, b| a.dot(&b))
}

/// [`dot_score`] of row `i` of `a` and row `i` of `b`, `[A]`.
///
/// ```
/// use mpnet::{ndarray::arr2, similarity::pairwise_dot_score};
///
/// let (a, b) = (arr2(&[[2.0_f32, 1.0], [1.0, 0.0]]), arr2(&[[3.0_f32, 4.0], [0.0, 1.0]]));
/// assert_eq!(pairwise_dot_score(&a.view(), &b.view()).to_vec(), [10.0, 0.0]);
/// ```
///
/// # Panics
///
/// If the shapes differ, where [`Similarity::pairwise`] returns an error.
#[must_use]
pub fn pairwise_dot_score(a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) -> Array1<f32> {
    pairwise(a, b, |a, b| a.dot(&b))
}

/// [`euclidean_sim`] of row `i` of `a` and row `i` of `b`, `[A]`.
///
/// ```
/// use mpnet::{ndarray::arr2, similarity::pairwise_euclidean_sim};
///
/// let (a, b) = (arr2(&[[0.0_f32, 0.0], [1.0, 1.0]]), arr2(&[[3.0_f32, 4.0], [1.0, 1.0]]));
/// assert_eq!(pairwise_euclidean_sim(&a.view(), &b.view()).to_vec(), [-5.0, 0.0]);
/// ```
///
/// # Panics
///
/// If the shapes differ, where [`Similarity::pairwise`] returns an error.
#[must_use]
pub fn pairwise_euclidean_sim(a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) -> Array1<f32> {
    pairwise(a, b, euclidean)
}

/// [`manhattan_sim`] of row `i` of `a` and row `i` of `b`, `[A]`.
///
/// ```
/// use mpnet::{ndarray::arr2, similarity::pairwise_manhattan_sim};
///
/// let (a, b) = (arr2(&[[0.0_f32, 0.0], [1.0, 1.0]]), arr2(&[[3.0_f32, 4.0], [1.0, 2.0]]));
/// assert_eq!(pairwise_manhattan_sim(&a.view(), &b.view()).to_vec(), [-7.0, -1.0]);
/// ```
///
/// # Panics
///
/// If the shapes differ, where [`Similarity::pairwise`] returns an error.
#[must_use]
pub fn pairwise_manhattan_sim(a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) -> Array1<f32> {
    pairwise(a, b, manhattan)
}

/// Each row of `a` scaled to length 1; rows of zeros stay.
pub(crate) fn normalized(a: &ArrayRef2<f32>) -> Array2<f32> {
    let mut a = a.as_standard_layout().into_owned();
    a.axis_iter_mut(Axis(0)).for_each(|mut row| {
        let norm = row.dot(&row).sqrt();
        row /= norm.max(SMALLEST_NORM);
    });
    a
}

fn euclidean(a: ArrayView1<f32>, b: ArrayView1<f32>) -> f32 {
    -Zip::from(a).and(b).fold(0.0, |sum, a, b| sum + (a - b) * (a - b)).sqrt()
}

fn manhattan(a: ArrayView1<f32>, b: ArrayView1<f32>) -> f32 {
    -Zip::from(a).and(b).fold(0.0, |sum, a, b| sum + (a - b).abs())
}

type Score = fn(ArrayView1<f32>, ArrayView1<f32>) -> f32;

fn each_pair(a: &ArrayRef2<f32>, b: &ArrayRef2<f32>, score: Score) -> Array2<f32> {
    assert_same_width(a, b);
    let mut scores = Array2::zeros((a.nrows(), b.nrows()));
    Zip::indexed(&mut scores).par_for_each(|(i, j), s| *s = score(a.row(i), b.row(j)));
    scores
}

fn pairwise(a: &ArrayRef2<f32>, b: &ArrayRef2<f32>, score: Score) -> Array1<f32> {
    assert_eq!(a.dim(), b.dim(), "pairwise similarity: the shapes differ");
    a.rows().into_iter().zip(b.rows()).map(|(a, b)| score(a, b)).collect()
}

fn assert_same_width(a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) {
    assert_eq!(a.ncols(), b.ncols(), "similarity: the widths differ");
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    /// `A[i][j] = sin(0.7 i + 0.3 j + 0.1)` and `P[i][j] = cos(0.5 i − 0.2 j) + 0.1 j`, `[4, 6]`,
    /// whose cosines are known from the reference.
    fn inputs() -> (Array2<f32>, Array2<f32>) {
        let a =
            Array2::from_shape_fn((4, 6), |(i, j)| (0.7 * i as f32 + 0.3 * j as f32 + 0.1).sin());
        let p = |(i, j): (usize, usize)| (0.5 * i as f32 - 0.2 * j as f32).cos() + 0.1 * j as f32;
        (a, Array2::from_shape_fn((4, 6), p))
    }

    #[test]
    fn cosines_of_the_reference() {
        let (a, p) = inputs();
        let want = [0.905_523_1, 0.988_230_74, 0.757_420_35, -0.188_082_76];
        let pairs = pairwise_cos_sim(&a.view(), &p.view());
        let all = cos_sim(&a.view(), &p.view());
        for i in 0..4 {
            assert!((pairs[i] - want[i]).abs() < 5e-7, "{i}: {} {}", pairs[i], want[i]);
            assert!((all[[i, i]] - want[i]).abs() < 5e-7);
        }
    }

    #[test]
    fn every_pair_is_the_pair() {
        let (a, p) = inputs();
        let (a, p) = (a.view(), p.view());
        for (all, pairs) in [
            (dot_score(&a, &p), pairwise_dot_score(&a, &p)),
            (euclidean_sim(&a, &p), pairwise_euclidean_sim(&a, &p)),
            (manhattan_sim(&a, &p), pairwise_manhattan_sim(&a, &p)),
        ] {
            for i in 0..4 {
                assert!((all[[i, i]] - pairs[i]).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn by_hand() {
        let a = arr2(&[[0.0, 0.0], [1.0, 2.0]]);
        let b = arr2(&[[3.0, 4.0]]);
        assert_eq!(dot_score(&a.view(), &b.view()), arr2(&[[0.0], [11.0]]));
        assert_eq!(euclidean_sim(&a.view(), &b.view()), arr2(&[[-5.0], [-(8.0_f32.sqrt())]]));
        assert_eq!(manhattan_sim(&a.view(), &b.view()), arr2(&[[-7.0], [-4.0]]));
        assert_eq!(cos_sim(&a.view(), &b.view())[[0, 0]], 0.0);
        let none = Array2::zeros((0, 2));
        assert_eq!(cos_sim(&none.view(), &b.view()).dim(), (0, 1));
    }

    #[test]
    fn what_has_no_similarity_is_an_error() {
        let (rows, narrow, nan) =
            (arr2(&[[1.0, 2.0], [3.0, 4.0]]), arr2(&[[1.0], [2.0]]), arr2(&[[1.0, f32::NAN]]));
        let empty = Array2::zeros((2, 0));
        for similarity in
            [Similarity::Cosine, Similarity::Dot, Similarity::Euclidean, Similarity::Manhattan]
        {
            let all = |a: &Array2<f32>, b: &Array2<f32>| {
                similarity.all(&a.view(), &b.view()).map(|scores| scores.dim())
            };
            let pairs = |a: &Array2<f32>, b: &Array2<f32>| {
                similarity.pairwise(&a.view(), &b.view()).map(|scores| scores.len())
            };
            assert_eq!((all(&rows, &rows).unwrap(), pairs(&rows, &rows).unwrap()), ((2, 2), 2));
            assert!(matches!(
                all(&rows, &narrow),
                Err(Error::Input {
                    problem: InputProblem::Width { found: 1, expected: 2, .. },
                    ..
                })
            ));
            assert!(matches!(
                pairs(&rows, &narrow),
                Err(Error::Input { problem: InputProblem::Width { found: 1, .. }, .. })
            ));
            assert!(matches!(
                all(&rows, &nan),
                Err(Error::Input { problem: InputProblem::NotFinite { row: 0, .. }, .. })
            ));
            assert!(matches!(
                pairs(&nan, &nan),
                Err(Error::Input { problem: InputProblem::NotFinite { row: 0, .. }, .. })
            ));
            assert!(matches!(pairs(&rows, &nan), Err(Error::Input { input: "b", .. })));
            assert!(matches!(
                all(&empty, &empty),
                Err(Error::Input { problem: InputProblem::NoColumns, .. })
            ));
            assert!(matches!(
                pairs(&empty, &empty),
                Err(Error::Input { problem: InputProblem::NoColumns, .. })
            ));
        }
    }

    #[test]
    #[should_panic(expected = "the widths differ")]
    fn widths_must_agree() {
        let _ = cos_sim(&arr2(&[[1.0]]).view(), &arr2(&[[1.0, 2.0]]).view());
    }
}
