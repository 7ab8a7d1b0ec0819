//! [`Buffers`]: the memory of a forward pass.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};

/// The intermediate results of one layer, used again by the next one and by the next batch: `N · (6 D + F)` numbers, for the
/// base model 30 KiB a token.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// The hidden states, `[N, D]`.
    pub(super) hidden: Buffer,
    /// Queries, keys and values, `[N, 3 D]`.
    pub(super) qkv: Buffer,
    /// What attention gathers, `[N, D]`.
    pub(super) context: Buffer,
    /// The hidden states after attention, `[N, D]`.
    pub(super) attended: Buffer,
    /// The widened states inside the feed-forward network, `[N, F]`.
    pub(super) wide: Buffer,
}

/// A matrix that grows when it must.
#[derive(Debug, Default)]
pub(super) struct Buffer(Array2<f32>);

impl Buffer {
    /// Room for `[rows, columns]`, with whatever was there before.
    pub(super) fn room(&mut self, rows: usize, columns: usize) -> ArrayViewMut2<'_, f32> {
        if self.0.ncols() != columns || self.0.nrows() < rows {
            self.0 = Array2::zeros((rows, columns));
        }
        self.0.slice_mut(s![..rows, ..])
    }

    /// The first `rows` rows.
    pub(super) fn view(&self, rows: usize) -> ArrayView2<'_, f32> {
        self.0.slice(s![..rows, ..])
    }

    pub(super) fn into_inner(self) -> Array2<f32> {
        self.0
    }
}
