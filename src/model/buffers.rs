//! [`Buffers`]: the memory of a forward pass.

use ndarray::{ArrayView2, ArrayViewMut2};
use zerocopy::{FromBytes, IntoBytes};

use crate::kernels::gemm::Element;
use crate::kernels::memory::Lines;

/// The intermediate results of one layer, used again by the next one and by the next batch: `N · (6 D + F)` numbers, for the
/// base model 30 KiB a token; 18 where all but two of them, the hidden states, are bf16.
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

/// A matrix that grows when it must, its rows one after another from the beginning of a cache line on.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    lines: Lines,
    columns: usize,
}

impl Buffer {
    /// Room for `[rows, columns]`, with whatever in it; with what was there before if the columns are as many and the rows no
    /// more.
    pub(super) fn room<E: Element>(&mut self, rows: usize, columns: usize) -> ArrayViewMut2<'_, E> {
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

    /// The first `rows` rows, of the numbers that there was room for.
    pub(super) fn view<E: Element>(&self, rows: usize) -> ArrayView2<'_, E> {
        let bytes = rows * self.columns * size_of::<E>();
        let numbers = <[E]>::ref_from_bytes(&self.lines.as_bytes()[..bytes]);
        let numbers = numbers.expect("numbers no wider than words");
        ArrayView2::from_shape((rows, self.columns), numbers).expect("as long as it is wide")
    }
}
