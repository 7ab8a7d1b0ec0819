//! The blocks of any transformer: [`Embedding`], [`Linear`], [`LayerNorm`].

mod embedding;
mod layer_norm;
mod linear;

pub(crate) use embedding::Embedding;
pub(crate) use layer_norm::LayerNorm;
pub(crate) use linear::{Arithmetic, Linear, Source};
