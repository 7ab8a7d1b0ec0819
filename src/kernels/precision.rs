//! [`Precision`]: the number format of weights and products.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The promise on the numbers, not the instruction that computes them.
///
/// Whatever the precision, attention scores, softmax, LayerNorm, activations, residuals and pooling
/// are computed in `f32`. What then goes from one product into another and nowhere else is kept as
/// bf16 in the two shorter ones, where the machine multiplies bf16 faster.
///
/// ```
/// use mpnet::Precision;
///
/// assert_eq!("bf16".parse::<Precision>()?, Precision::Bf16);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Precision {
    /// `f32`: each component of a normalised embedding is within 10⁻⁵ of the `float64` reference.
    #[default]
    F32,
    /// `bf16`: the weights and inputs of linear layers are rounded to bf16, sums are `f32`. Half
    /// the memory. Cosine to the reference at least 0.9995, but for texts of one token again and
    /// again.
    Bf16,
    /// `int8`: the weights of linear layers are rounded to 8 bits with a scale for each output,
    /// their inputs to 8 bits with a range for each token; sums are exact. A quarter of the memory.
    /// Cosine to the reference at least 0.985: for texts that repeat a few tokens again and again,
    /// on which rounding does most harm, a [`SentenceEncoder`](crate::SentenceEncoder) keeps 8 bits
    /// more of most layers, a sixth of the memory of `f32`.
    Int8,
}

impl Precision {
    /// Every precision, the most exact first.
    ///
    /// ```
    /// use mpnet::Precision;
    ///
    /// assert_eq!(Precision::ALL.map(Precision::name), ["f32", "bf16", "int8"]);
    /// ```
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// Its name, as `--precision` takes it.
    ///
    /// ```
    /// assert_eq!(mpnet::Precision::Int8.name(), "int8");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|precision| precision.name() == name).ok_or_else(|| {
            Error::Option {
                option: "precision",
                problem: format!("`{name}` is not known; f32, bf16 and int8 are"),
            }
        })
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
