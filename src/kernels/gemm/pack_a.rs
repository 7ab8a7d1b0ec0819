//! Packing `A`: rows of the input, in the format and the order of the tile that multiplies them.

use ndarray::{ArrayView1, ArrayView2};

use super::element::{Element, copy_words, is_packed};
use super::format::{Format, Quantization, Scaling, encode_as};
use super::packed::Factor;
use super::tile::{KC, Tile};
use crate::kernels::memory::Lines;
use crate::kernels::simd::{Kernel, Tier};

/// Rows of one packed block at most.
const MAX_PACKED_ROWS: usize = 512;

/// Packed rows of `A`: packed by one thread, read by all that multiply with them.
#[derive(Default)]
pub(crate) struct PackedA {
    /// `[chunks][rows][KC]`, the rows padded as the tile asks for; in the scalar tier `[rows][K]`.
    pub(super) words: Lines,
    /// How each row was quantised, `[rows]`; empty if rows were not.
    pub(super) quantization: Vec<Quantization>,
}

/// Packs `count` rows of `a`, beginning with `first`, to be multiplied with `b`.
pub(crate) struct PackA<'a, 'b, A> {
    pub(super) a: ArrayView2<'a, A>,
    pub(super) b: Factor<'a>,
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) rows: &'b mut PackedA,
}

impl<A: Element> PackA<'_, '_, A> {
    /// Calls `pack` for each row with its index, its values, and the scaling that quantises them;
    /// and keeps their quantization.
    #[inline(always)]
    pub(super) fn for_each_row(
        &mut self,
        mut pack: impl FnMut(&mut [u32], usize, &[f32], Scaling),
    ) {
        let PackedA { words, quantization } = &mut *self.rows;
        let (mut own, mut copy) = (Vec::new(), Vec::new());
        for i in 0..self.count {
            let row = self.a.row(self.first + i);
            let row = row.to_slice().unwrap_or_else(|| copied(row, &mut own));
            let row = self.b.spread.of_a(row, &mut copy);
            let scaling = match self.b.format {
                Format::Int8 if self.b.in_full => {
                    quantization.push(Quantization::NONE);
                    Scaling::NONE
                }
                Format::Int8 => {
                    let range = Quantization::of(row);
                    quantization.push(range);
                    range.scaling()
                }
                _ => Scaling::NONE,
            };
            pack(words, i, row, scaling);
        }
    }
}

/// A row whose values are not contiguous, copied into `own`.
fn copied<'o, A: Copy>(row: ArrayView1<A>, own: &'o mut Vec<A>) -> &'o [A] {
    own.clear();
    own.extend(row);
    own
}

impl<A: Element> Kernel for PackA<'_, '_, A> {
    #[inline(always)]
    fn run<S: Tier>(self, simd: S) {
        simd.pack_a(self);
    }
}

/// For tiles: chunks of KC words, those of all rows next to each other.
#[inline(always)]
pub(super) fn pack<S: Tile, A: Element>(mut rows: PackA<A>, simd: S) {
    let (format, tile) = (rows.b.format, rows.b.multiplied_as(simd));
    let (rounded, per) = (rows.b.rows_as(), tile.values_per_word());
    let length = rows.b.words() * format.values_per_word() / per;
    let height = rows.count.next_multiple_of(S::M_STEP);
    let chunks = (0..length).step_by(KC).enumerate();
    let place = |chunk: usize, i: usize, start: usize| {
        let first = (chunk * height + i) * KC;
        first..first + KC.min(length - start)
    };
    rows.rows.words.resize(chunks.len() * height * KC);
    rows.rows.quantization.clear();
    // Rows that have the tile's format already are only copied.
    if is_packed::<A>(tile) && tile == format {
        let mut own = Vec::new();
        for i in 0..rows.count {
            let row = rows.a.row(rows.first + i);
            let row = row.to_slice().unwrap_or_else(|| copied(row, &mut own));
            let mut values = row.chunks(KC * per);
            for (chunk, start) in chunks.clone() {
                let values = values.next().unwrap_or_default();
                copy_words(values, &mut rows.rows.words[place(chunk, i, start)]);
            }
        }
        return;
    }
    rows.for_each_row(|words, i, row, scaling| {
        let mut values = row.chunks(KC * per);
        for (chunk, start) in chunks.clone() {
            let values = values.next().unwrap_or_default();
            encode_as(simd, tile, rounded, scaling, values, &mut words[place(chunk, i, start)]);
        }
    });
}

/// Numbers of rows that an instruction set is fast with.
pub(crate) struct RowSizes {
    /// Any number is padded to a multiple of this.
    pub(super) step: usize,
    /// MR: rows of the tallest tile.
    pub(super) tile: usize,
    /// The fewest that are worth a block of their own.
    pub(super) least: usize,
    /// The most that one thread packs at once.
    pub(super) most: usize,
}

pub(super) fn row_sizes<S: Tile>(simd: S, b: Factor) -> RowSizes {
    let tile = b.multiplied_as(simd);
    let words = b.words() * b.format.values_per_word() / tile.values_per_word();
    let rows = (S::PACKED_WORDS / words.next_multiple_of(KC).max(1)).clamp(1, MAX_PACKED_ROWS);
    let tiles = if S::WHOLE_K && tile == b.format { 2 } else { 64 / S::MR };
    RowSizes {
        step: S::M_STEP,
        tile: S::MR,
        least: tiles * S::MR,
        most: (rows / S::MR).max(1) * S::MR,
    }
}
