//! Embeddings in fewer bits, byte for byte as sentence-transformers' `quantize_embeddings` makes
//! them.
//!
//! | precision | one component becomes | bytes at width 768 |
//! |---|---|---|
//! | `float32` | itself | 3072 |
//! | `uint8` | one of 256 buckets between the smallest and the largest value of its dimension ([`Ranges`]) | 768 |
//! | `int8` | the same minus 128 | 768 |
//! | `ubinary` | one bit: 1 if above 0; eight to a byte, the first in the highest bit | 96 |
//! | `binary` | the same, each byte minus 128 | 96 |
//!
//! Queries and corpus must be quantised with the same ranges.
//!
//! ```
//! use mpnet::ndarray::arr2;
//! use mpnet::quantization::{EmbeddingPrecision, QuantizedEmbeddings, Ranges, quantize_embeddings};
//!
//! let embeddings = arr2(&[[0.0_f32, -255.0], [255.0, 255.0]]);
//! let ranges = Ranges::calibrate(&embeddings.view())?;
//! let bytes = quantize_embeddings(&embeddings.view(), EmbeddingPrecision::Uint8, Some(&ranges))?;
//! assert_eq!(bytes, QuantizedEmbeddings::Uint8(arr2(&[[0, 0], [255, 255]])));
//! let bits = quantize_embeddings(&embeddings.view(), EmbeddingPrecision::Ubinary, None)?;
//! assert_eq!(bits, QuantizedEmbeddings::Ubinary(arr2(&[[0b0000_0000], [0b1100_0000]])));
//! # Ok::<(), mpnet::Error>(())
//! ```

mod binary;
mod precision;
mod ranges;
mod scalar;

use ndarray::{Array2, ArrayRef2, ArrayView2};

use crate::error::Result;
use crate::rows::finite;

pub use binary::{quantize_binary, quantize_ubinary};
pub use precision::EmbeddingPrecision;
pub use ranges::Ranges;
pub use scalar::{dequantize_int8, dequantize_uint8, quantize_int8, quantize_uint8};

pub(crate) use binary::bit;

/// Embeddings in one of the precisions: `[B, D]`, or `[B, ⌈D/8⌉]` bytes of bits.
///
/// ```
/// use mpnet::{Embeddings, ndarray::arr2};
/// use mpnet::quantization::{EmbeddingPrecision, QuantizedEmbeddings};
///
/// match arr2(&[[0.5_f32, -0.5]]).quantize(EmbeddingPrecision::Ubinary, None)? {
///     QuantizedEmbeddings::Ubinary(bits) => assert_eq!(bits, arr2(&[[0b1000_0000]])),
///     _ => unreachable!(),
/// }
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum QuantizedEmbeddings {
    /// As they were.
    Float32(Array2<f32>),
    /// Buckets, minus 128.
    Int8(Array2<i8>),
    /// Buckets.
    Uint8(Array2<u8>),
    /// Bits, each byte minus 128.
    Binary(Array2<i8>),
    /// Bits.
    Ubinary(Array2<u8>),
}

impl QuantizedEmbeddings {
    /// Which precision they are in.
    ///
    /// ```
    /// use mpnet::{Embeddings, ndarray::Array2, quantization::EmbeddingPrecision};
    ///
    /// let bits = Array2::<f32>::zeros((3, 768)).quantize(EmbeddingPrecision::Ubinary, None)?;
    /// assert_eq!(bits.precision(), EmbeddingPrecision::Ubinary);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn precision(&self) -> EmbeddingPrecision {
        self.view().precision()
    }

    /// The same, borrowed.
    ///
    /// ```
    /// use mpnet::{ndarray::arr2, quantization::{QuantizedEmbeddings, QuantizedView}};
    ///
    /// let owned = QuantizedEmbeddings::Uint8(arr2(&[[1, 2]]));
    /// assert!(matches!(owned.view(), QuantizedView::Uint8(rows) if rows[[0, 1]] == 2));
    /// ```
    #[must_use]
    pub fn view(&self) -> QuantizedView<'_> {
        match self {
            Self::Float32(a) => QuantizedView::Float32(a.view()),
            Self::Int8(a) => QuantizedView::Int8(a.view()),
            Self::Uint8(a) => QuantizedView::Uint8(a.view()),
            Self::Binary(a) => QuantizedView::Binary(a.view()),
            Self::Ubinary(a) => QuantizedView::Ubinary(a.view()),
        }
    }
}

/// [`QuantizedEmbeddings`] that somebody else owns: a corpus mapped from a file, say.
///
/// ```
/// use mpnet::{ndarray::ArrayView2, quantization::QuantizedView};
///
/// let bytes: &[u8] = &[0b1000_0000, 0b0100_0000]; // a mapped file, say
/// let corpus = QuantizedView::Ubinary(ArrayView2::from_shape((2, 1), bytes).unwrap());
/// assert_eq!(corpus.dim(), (2, 1));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum QuantizedView<'a> {
    /// As they were.
    Float32(ArrayView2<'a, f32>),
    /// Buckets, minus 128.
    Int8(ArrayView2<'a, i8>),
    /// Buckets.
    Uint8(ArrayView2<'a, u8>),
    /// Bits, each byte minus 128.
    Binary(ArrayView2<'a, i8>),
    /// Bits.
    Ubinary(ArrayView2<'a, u8>),
}

impl QuantizedView<'_> {
    /// Which precision they are in.
    ///
    /// ```
    /// use mpnet::{ndarray::arr2, quantization::{EmbeddingPrecision, QuantizedView}};
    ///
    /// let bytes = arr2(&[[1_u8, 2]]);
    /// assert_eq!(QuantizedView::Uint8(bytes.view()).precision(), EmbeddingPrecision::Uint8);
    /// ```
    #[must_use]
    pub fn precision(&self) -> EmbeddingPrecision {
        match self {
            Self::Float32(_) => EmbeddingPrecision::Float32,
            Self::Int8(_) => EmbeddingPrecision::Int8,
            Self::Uint8(_) => EmbeddingPrecision::Uint8,
            Self::Binary(_) => EmbeddingPrecision::Binary,
            Self::Ubinary(_) => EmbeddingPrecision::Ubinary,
        }
    }

    /// Rows and columns; of bits, columns of bytes.
    ///
    /// ```
    /// use mpnet::{Embeddings, ndarray::Array2, quantization::EmbeddingPrecision};
    ///
    /// let bits = Array2::<f32>::zeros((3, 768)).quantize(EmbeddingPrecision::Ubinary, None)?;
    /// assert_eq!(bits.view().dim(), (3, 96));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn dim(&self) -> (usize, usize) {
        match self {
            Self::Float32(a) => a.dim(),
            Self::Int8(a) | Self::Binary(a) => a.dim(),
            Self::Uint8(a) | Self::Ubinary(a) => a.dim(),
        }
    }
}

/// Embeddings that ranges should be taken from at least: of fewer, the reference warns too.
const FEWEST_FOR_RANGES: usize = 100;

/// `embeddings` `[B, D]` in another precision. `ranges` matter for `int8` and `uint8` only; without
/// them they are taken from the embeddings themselves, which then cannot be compared with anything
/// quantised apart from them. If there are fewer than 100, that is a warning by `tracing`.
///
/// Mirrors `sentence_transformers.quantize_embeddings` from 5.7 on (before, values outside the
/// ranges wrapped around).
///
/// ```
/// use mpnet::ndarray::arr2;
/// use mpnet::quantization::{EmbeddingPrecision, QuantizedEmbeddings, quantize_embeddings};
///
/// let embeddings = arr2(&[[0.0_f32, 10.0], [255.0, 265.0]]);
/// let bytes = quantize_embeddings(&embeddings.view(), EmbeddingPrecision::Int8, None)?;
/// assert_eq!(bytes, QuantizedEmbeddings::Int8(arr2(&[[-128, -128], [127, 127]])));
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// [`InputProblem::NotFinite`](crate::InputProblem::NotFinite) for an embedding with a value that
/// is infinite or not a number, [`InputProblem::Width`](crate::InputProblem::Width) for ranges of
/// another width, and what [`Ranges::calibrate`] says if there are none.
pub fn quantize_embeddings(
    embeddings: &ArrayRef2<f32>,
    precision: EmbeddingPrecision,
    ranges: Option<&Ranges>,
) -> Result<QuantizedEmbeddings> {
    let own;
    let ranges = match (precision, ranges) {
        (EmbeddingPrecision::Int8 | EmbeddingPrecision::Uint8, None) if embeddings.nrows() > 0 => {
            own = Ranges::calibrate(embeddings)?;
            let embeddings = embeddings.nrows();
            if embeddings < FEWEST_FOR_RANGES {
                tracing::warn!(embeddings, "ranges for {precision} are taken from few embeddings");
            }
            Some(&own)
        }
        (_, ranges) => ranges,
    };
    Ok(match (precision, ranges) {
        (EmbeddingPrecision::Float32, _) => {
            finite("embeddings", embeddings)?;
            QuantizedEmbeddings::Float32(embeddings.to_owned())
        }
        (EmbeddingPrecision::Binary, _) => {
            QuantizedEmbeddings::Binary(quantize_binary(embeddings)?)
        }
        (EmbeddingPrecision::Ubinary, _) => {
            QuantizedEmbeddings::Ubinary(quantize_ubinary(embeddings)?)
        }
        (EmbeddingPrecision::Int8, Some(ranges)) => {
            QuantizedEmbeddings::Int8(quantize_int8(embeddings, ranges)?)
        }
        (EmbeddingPrecision::Uint8, Some(ranges)) => {
            QuantizedEmbeddings::Uint8(quantize_uint8(embeddings, ranges)?)
        }
        // No rows need no ranges.
        (EmbeddingPrecision::Int8, None) => {
            QuantizedEmbeddings::Int8(Array2::zeros(embeddings.dim()))
        }
        (EmbeddingPrecision::Uint8, None) => {
            QuantizedEmbeddings::Uint8(Array2::zeros(embeddings.dim()))
        }
    })
}
