//! [`Embedding`]: a vector for each number.

use crate::checkpoint::Weights;
use crate::error::Result;
use crate::kernels::memory::Words;

/// A table of `count` vectors of `width`.
#[derive(Debug, Clone)]
pub(crate) struct Embedding {
    /// `[count, width]`
    table: Words,
    width: usize,
}

impl Embedding {
    /// Reads `weight` `[count, width]`.
    pub(crate) fn load(w: &Weights, count: usize, width: usize) -> Result<Self> {
        Ok(Self { table: w.table("weight", count, width)?, width })
    }

    /// The vector of `index`, `[width]`.
    pub(crate) fn row(&self, index: usize) -> &[f32] {
        &self.table.as_floats()[index * self.width..(index + 1) * self.width]
    }
}
