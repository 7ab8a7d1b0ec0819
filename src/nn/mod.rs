//! The blocks of any transformer: [`Linear`], [`LayerNorm`].

mod layer_norm;
mod linear;

pub(crate) use layer_norm::LayerNorm;
pub(crate) use linear::Linear;
