//! [`Plan`]: which arithmetic each product of a model is computed in.

use std::ops::Range;

use crate::config::Config;
use crate::kernels::Precision;
use crate::kernels::isa::Isa;
use crate::nn::{Placement, TableFormat};

/// The arithmetic of a model, decided once, when it is prepared. `docs/numerics.md` explains it.
///
/// ```
/// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
/// println!("{:#?}", encoder.model().plan());
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The instruction set of all products.
    pub(super) isa: Isa,
    /// The weights and the inputs of linear layers.
    pub(super) linear: Precision,
    /// Attention's products with keys and values, and activations that go from one product into the
    /// next. Rounding them gains nothing where bf16 is no faster.
    pub(super) attention: Precision,
    /// The projections that are computed as one product.
    pub(super) fused: [&'static str; 3],
    /// The layers whose input columns are rescaled before they are rounded to integers.
    pub(super) smoothed: &'static [&'static str],
    /// The encoder layers that keep the residuals of their rounded weights, to compute monotonous
    /// texts in `f32`.
    pub(super) residuals: Range<usize>,
    /// The word embeddings.
    pub(super) word_embeddings: TableFormat,
}

/// Q, K and V.
const PROJECTIONS: [&str; 3] = ["attn.q", "attn.k", "attn.v"];

/// The layers that follow a LayerNorm, whose parameters tell how large their input columns are.
const AFTER_LAYER_NORM: &[&str] = &["attn.q", "attn.k", "attn.v", "intermediate.dense"];

impl Plan {
    /// For a model with this `config` that is prepared `at`. With `keeps_residuals`, 8 bits keep
    /// residuals.
    pub(super) fn new(config: &Config, at: &Placement, keeps_residuals: bool) -> Self {
        let (isa, linear) = (at.isa(), at.linear());
        let integers = linear == Precision::Int8;
        // In the last third of the layers rounding does not matter much, even to monotonous texts.
        let first_two_thirds = config.num_hidden_layers.div_ceil(3) * 2;
        Self {
            isa,
            linear,
            attention: match linear {
                Precision::Bf16 | Precision::Int8 if isa.multiplies_bf16() => Precision::Bf16,
                _ => Precision::F32,
            },
            fused: PROJECTIONS,
            smoothed: if integers { AFTER_LAYER_NORM } else { &[] },
            residuals: 0..if integers && keeps_residuals { first_two_thirds } else { 0 },
            word_embeddings: if integers { TableFormat::Int16 } else { TableFormat::F32 },
        }
    }
}
