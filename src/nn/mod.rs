//! The blocks of any transformer: [`Linear`], [`LayerNorm`], activations.

mod activation;
mod layer_norm;
mod linear;

pub(crate) use activation::activate;
pub(crate) use layer_norm::LayerNorm;
pub(crate) use linear::Linear;
