//! [`EmbeddingPrecision`]: the number format of finished embeddings.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The number format of finished embeddings, by the names of the reference's `precision`. (In which
/// format the *model* computes is [`Precision`](crate::Precision).)
///
/// ```
/// use mpnet::quantization::EmbeddingPrecision;
///
/// assert_eq!("ubinary".parse::<EmbeddingPrecision>()?, EmbeddingPrecision::Ubinary);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EmbeddingPrecision {
    /// `float32`
    #[default]
    Float32,
    /// `int8`: a bucket between −128 and 127 for each component.
    Int8,
    /// `uint8`: a bucket between 0 and 255 for each component.
    Uint8,
    /// `binary`: a bit for each component, in bytes minus 128.
    Binary,
    /// `ubinary`: a bit for each component.
    Ubinary,
}

impl EmbeddingPrecision {
    /// Every precision.
    ///
    /// ```
    /// use mpnet::quantization::EmbeddingPrecision;
    ///
    /// let names = EmbeddingPrecision::ALL.map(EmbeddingPrecision::name);
    /// assert_eq!(names, ["float32", "int8", "uint8", "binary", "ubinary"]);
    /// ```
    pub const ALL: [Self; 5] =
        [Self::Float32, Self::Int8, Self::Uint8, Self::Binary, Self::Ubinary];

    /// Its name in the reference.
    ///
    /// ```
    /// assert_eq!(mpnet::quantization::EmbeddingPrecision::Ubinary.name(), "ubinary");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Int8 => "int8",
            Self::Uint8 => "uint8",
            Self::Binary => "binary",
            Self::Ubinary => "ubinary",
        }
    }
}

impl FromStr for EmbeddingPrecision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|precision| precision.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::Option {
                option: "precision",
                problem: format!("`{name}` is not known; of embeddings there are {names}"),
            }
        })
    }
}

impl fmt::Display for EmbeddingPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
