//! The blocks of any transformer, each a pair: parameters (named arrays of `f32`), and what
//! products are computed with, prepared from them by a [`Placement`].

mod embedding;
mod layer_norm;
mod linear;
mod packed_file;
mod parameters;
mod placement;

pub use embedding::EmbeddingParameters;
pub(crate) use embedding::{Embedding, TableFormat};
pub(crate) use layer_norm::LayerNorm;
pub use layer_norm::LayerNormParameters;
pub use linear::LinearParameters;
pub(crate) use linear::{Arithmetic, Linear, Rounding, Smoothing};
pub use parameters::{NamedParameters, Parameters};
pub(crate) use parameters::{fill, join, parameters};
pub use placement::Placement;
