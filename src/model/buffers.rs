//! [`Buffers`]: the memory of a forward pass.

use ndarray::{ArrayView2, ArrayViewMut2};
use zerocopy::{FromBytes, IntoBytes};

use crate::kernels::gemm::Element;
use crate::kernels::memory::Lines;

/// The hidden states and the intermediate activations of one layer, used again by the next layer
/// and the next batch: `N · (6 D + F)` numbers. For the base model these are 30 KiB a token, or 18
/// where all but the hidden states before and after attention are bf16.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// The hidden states, `[N, D]`.
    pub(super) hidden: Buffer,
    pub(super) layer: LayerBuffers,
}

/// The intermediate activations of one layer.
#[derive(Debug, Default)]
pub(super) struct LayerBuffers {
    /// Queries, keys and values, `[N, 3 D]`.
    pub(super) qkv: Buffer,
    /// The values, weighted by attention, `[N, D]`.
    pub(super) context: Buffer,
    /// The hidden states after attention, `[N, D]`.
    pub(super) attended: Buffer,
    /// The expanded states inside the feed-forward network, `[N, F]`.
    pub(super) wide: Buffer,
}

/// A matrix whose memory grows as needed and begins at a cache line.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    lines: Lines,
    columns: usize,
}

impl Buffer {
    /// The matrix resized to `[rows, columns]`. Its elements are arbitrary, for the caller to
    /// overwrite.
    pub(super) fn resized<E: Element>(
        &mut self,
        rows: usize,
        columns: usize,
    ) -> ArrayViewMut2<'_, E> {
        self.columns = columns;
        let bytes = rows * columns * size_of::<E>();
        let words = bytes.div_ceil(size_of::<u32>());
        if self.lines.len() < words {
            self.lines.resize(words);
        }
        let numbers = <[E]>::mut_from_bytes(&mut self.lines.as_mut_bytes()[..bytes]);
        let numbers = numbers.expect("numbers no wider than words");
        ArrayViewMut2::from_shape((rows, columns), numbers).expect("as long as it is wide")
    }

    /// The first `rows` rows, with elements of the type that the matrix was last resized for.
    pub(super) fn view<E: Element>(&self, rows: usize) -> ArrayView2<'_, E> {
        let bytes = rows * self.columns * size_of::<E>();
        let numbers = <[E]>::ref_from_bytes(&self.lines.as_bytes()[..bytes]);
        let numbers = numbers.expect("numbers no wider than words");
        ArrayView2::from_shape((rows, self.columns), numbers).expect("as long as it is wide")
    }
}
