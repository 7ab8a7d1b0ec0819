//! One rectangle of a product on one thread: packed rows are multiplied with one panel after another, and finished.

use std::cell::RefCell;

use ndarray::ArrayViewMut2;

use super::Epilogue;
use super::element::Element;
use super::epilogue::ApplyEpilogue;
use super::format::{Format, expand};
use super::pack_a::PackedA;
use super::packed::Factor;
use crate::kernels::isa::Isa;
use crate::kernels::lanes::LANES;
use crate::kernels::memory::Lines;
use crate::kernels::simd::{Kernel, Scalar};
#[cfg(target_arch = "x86_64")]
use {
    super::format::Encode,
    super::tile::{BlockA, KC, Prefetch, Tile, expand as expand_panel, fetch, tiles},
    crate::kernels::simd::{Amx, Avx2, Avx512},
};

/// PackedA that are packed at once at most.
#[cfg(target_arch = "x86_64")]
const MAX_PACKED_ROWS: usize = 512;

/// PackedA that go together through a group of panels where they are few, or where panels have to be expanded for them: the
/// partial results of the group, 128 KiB for AVX-512, stay in a second-level cache.
#[cfg(target_arch = "x86_64")]
const MC: usize = 256;

/// PackedA so few that what counts is how panels come from memory: they are then visited in pieces, each by all rows, while the
/// next one is fetched.
#[cfg(target_arch = "x86_64")]
const FEW_ROWS: usize = 48;

/// Panels between two visits to the result at most: a row of it is then written 512 bytes at a time, and not 128 in each of as
/// many pages as there are rows.
#[cfg(target_arch = "x86_64")]
const NC: usize = 4;

/// A rectangle of a product: where it begins, and its elements.
pub(super) struct Rectangle<'a, C> {
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) out: ArrayViewMut2<'a, C>,
}

/// Multiplies rows that are packed, those of the rectangle, with `b`.
pub(super) struct Multiply<'a, 'b, C> {
    pub(super) b: Factor<'a>,
    pub(super) epilogue: Epilogue<'a>,
    pub(super) blocks: PackedBlocks<'b>,
    pub(super) rectangle: Rectangle<'b, C>,
}

/// Packed rows, as many in each block but perhaps the last.
#[derive(Clone, Copy)]
pub(super) struct PackedBlocks<'a> {
    pub(super) blocks: &'a [PackedA],
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "there is one block only"))]
    pub(super) height: usize,
}

/// What is between packed rows and a result, in memory that a thread keeps from product to product.
#[derive(Default)]
struct Workspace {
    /// A piece of `B`, where it has to be expanded.
    expanded: Lines,
    sums: Lines,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

impl Isa {
    /// Columns of a panel: a product is cut at multiples of it.
    pub(super) fn nr(self) -> usize {
        match self {
            Self::Scalar(_) => 1,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => Avx2::NR,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Avx512::NR,
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) => Amx::NR,
        }
    }

    /// Words of a row along `K` are a multiple of this.
    pub(super) fn k_step(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) => Amx::K_STEP,
            _ => 1,
        }
    }

    /// Whether a matrix of `f32` is kept as pairs of bf16.
    pub(in crate::kernels) fn splits_f32(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return matches!(self, Self::Amx(_));
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Whether products of bf16 are faster than those of `f32`.
    pub(crate) fn multiplies_bf16(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.has_bf16(),
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) => true,
            _ => false,
        }
    }

    /// How rows are packed that are to be multiplied with `b`; `None` where any number of them will do.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(unused_variables, reason = "no tiles, no row_sizes")
    )]
    pub(super) fn row_sizes(self, b: Factor) -> Option<RowSizes> {
        match self {
            Self::Scalar(_) => None,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => Some(row_sizes(simd, b)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => Some(row_sizes(simd, b)),
            #[cfg(target_arch = "x86_64")]
            Self::Amx(simd) => Some(row_sizes(simd, b)),
        }
    }
}

/// Numbers of rows that an instruction set is fast with.
pub(super) struct RowSizes {
    /// Any number is a multiple of this, or filled up to one.
    pub(super) step: usize,
    /// Of the tallest tile.
    pub(super) tile: usize,
    /// The fewest that are worth a block of their own.
    pub(super) least: usize,
    /// The most that one thread packs at once.
    pub(super) most: usize,
}

#[cfg(target_arch = "x86_64")]
fn row_sizes<S: Tile>(simd: S, b: Factor) -> RowSizes {
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

/// The memory is taken out of its place and put back, since a closure would be compiled without the instructions.
macro_rules! kernels {
    ($($multiply:ident: $($simd:ty),*;)*) => {$($(
        impl<C: Element> Kernel<$simd> for Multiply<'_, '_, C> {
            #[inline(always)]
            fn run(self, simd: $simd) {
                let mut partial = WORKSPACE.take();
                $multiply(self, simd, &mut partial);
                WORKSPACE.set(partial);
            }
        }
    )*)*};
}
kernels!(by_matrixmultiply: Scalar;);
#[cfg(target_arch = "x86_64")]
kernels!(by_tiles: Avx2, Avx512, Amx;);

#[allow(unsafe_code, reason = "matrixmultiply takes pointers: see the block")]
fn by_matrixmultiply<C: Element>(product: Multiply<C>, simd: Scalar, partial: &mut Workspace) {
    let Multiply { b, epilogue, blocks, rectangle: Rectangle { column, mut out, .. } } = product;
    let [rows] = blocks.blocks else { unreachable!("this tier has no blocks of rows") };
    let (m, n) = out.dim();
    let mut out = contiguous(&mut out);
    let words = b.words();
    let k = words * b.format.values_per_word();
    assert_eq!(rows.words.len(), m * k, "as many rows are packed as the rectangle has");
    let Workspace { expanded, sums } = partial;
    /// Columns at once, so that a piece of `B` that is expanded stays small.
    const COLUMNS: usize = 256;
    for start in (0..n).step_by(COLUMNS) {
        let there = COLUMNS.min(n - start);
        let place = (column + start) * words..(column + start + there) * words;
        expanded.resize(there * k);
        expand(b.format, &b.values[place.clone()], b.rest_in(place), expanded);
        // PackedA are filled up to whole pieces of LANES.
        let width = there.next_multiple_of(LANES);
        sums.resize(m * width);
        // SAFETY: `rows` holds m rows of k values, `expanded` as many rows of k as there are columns (passed transposed by
        // its strides), and `sums` has room for m rows of them, `width` apart; all are contiguous. Their words are the bits of
        // `f32`s, for which `u32` has the size and the alignment.
        unsafe {
            matrixmultiply::sgemm(
                m,
                k,
                there,
                1.0,
                rows.words.as_ptr().cast(),
                k as isize,
                1,
                expanded.as_ptr().cast(),
                1,
                k as isize,
                0.0,
                sums.as_mut_ptr().cast(),
                width as isize,
                1,
            );
        }
        let quantization = &rows.quantization;
        let finish = ApplyEpilogue { b, epilogue, format: Format::F32, column, quantization };
        for (j, left) in (start..start + there).step_by(LANES).enumerate() {
            let place = left..(left + LANES).min(start + there);
            finish.panel::<LANES, _, _>(simd, &mut sums[j * LANES..], width, &mut out, place);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[allow(unsafe_code, reason = "calls a function that needs instructions: see the block")]
fn by_tiles<S: Encode + Tile, C: Element>(product: Multiply<C>, simd: S, partial: &mut Workspace) {
    let Multiply { b: matrix, epilogue, blocks, rectangle } = product;
    let Rectangle { column: first_column, mut out, .. } = rectangle;
    let ((m, n), columns, format) = (out.dim(), S::NR, matrix.format);
    let mut out = contiguous(&mut out);
    let tile = matrix.multiplied_as(simd);
    let per = format.values_per_word() / tile.values_per_word();
    let panel = matrix.words() * columns;
    let values: &[u32] = &matrix.values;
    let Workspace { expanded, sums } = partial;
    // Bands of one tile hold their sums in registers all along K; the panels of a group then stay in cache for all mc_blocks.
    let (band, depth, group) = match S::WHOLE_K && tile == format && m > FEW_ROWS {
        true => (S::MR, panel, (S::NC_WORDS / panel.max(1)).clamp(1, NC)),
        false => (MC, KC / per * columns, NC),
    };
    let mc_blocks = || mc_blocks::<S>(m, blocks.height, band);
    let count = mc_blocks().count();
    let _state = simd.state();
    for column in (0..n).step_by(group * columns) {
        let there = (group * columns).min(n - column);
        let first_panel = (first_column + column) / columns;
        let panels = there.div_ceil(columns);
        for (i, (block, first, top, end)) in mc_blocks().enumerate() {
            let rows = &blocks.blocks[block];
            let height = blocks.height.min(m - first).next_multiple_of(S::M_STEP);
            let (a, _) = rows.words.as_chunks::<KC>();
            let size = (end - top) * columns;
            let out = &mut out[first + top..(first + end).min(m)];
            // Where the columns of panel p are in a row.
            let place = |p: usize| column + p * columns..(column + (p + 1) * columns).min(n);
            sums.resize(panels * size);
            if panel == 0 {
                sums.fill(0);
            }
            for start in (0..panel).step_by(depth.max(1)) {
                let words = depth.min(panel - start);
                let chunk = start / (KC / per * columns);
                let a = BlockA { words: &a[chunk * height + top..], height, rows: end - top };
                for (p, sums) in sums.chunks_exact_mut(size).enumerate() {
                    if start + depth >= panel {
                        // The result will be written when the sums are complete; fetched first, its lines need not be waited
                        // for one by one.
                        out.iter().for_each(|row| fetch(&row[place(p)]));
                    }
                    let at = |p: usize, start: usize| (first_panel + p) * panel + start;
                    let place = at(p, start)..at(p, start) + words;
                    let mut b = &values[place.clone()];
                    // What will be read when this has been.
                    let next = match () {
                        () if depth == panel => at(p + group, 0),
                        () if p + 1 < panels => at(p + 1, start),
                        () if start + depth < panel => at(0, start + depth),
                        () => at(panels, 0),
                    };
                    let next = values.get(next..).unwrap_or_default();
                    let ahead = Prefetch::of(&next[..words.min(next.len())]).part(i, count);
                    if tile != format {
                        expanded.resize(b.len() * per);
                        // SAFETY: there is no instruction set with tiles that has no AVX2.
                        unsafe {
                            expand_panel(tile, format, b, matrix.rest_in(place), columns, expanded)
                        };
                        b = expanded;
                    }
                    simd.multiply(tile, a, b, sums, start > 0, ahead);
                }
            }
            let quantization = rows.quantization.get(top..).unwrap_or_default();
            let finish = ApplyEpilogue {
                b: matrix,
                epilogue,
                format: tile,
                column: first_column,
                quantization,
            };
            for (p, sums) in sums.chunks_exact_mut(size).enumerate() {
                match columns {
                    32 => finish.panel::<32, S, C>(simd, sums, columns, out, place(p)),
                    _ => finish.panel::<LANES, S, C>(simd, sums, columns, out, place(p)),
                }
            }
        }
    }
}

/// Cuts `m` rows, packed in blocks of `height`, into mc_blocks of at most `most`, as even as can be: for each the number of its block,
/// that one's first row, and in it the band's own first row and the next one's, filled up as the tiles of `S` want it.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn mc_blocks<S: Tile>(
    m: usize,
    height: usize,
    most: usize,
) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..m).step_by(height.max(1)).enumerate().flat_map(move |(block, first)| {
        let steps = height.min(m - first).div_ceil(S::M_STEP);
        tiles(steps, most / S::M_STEP)
            .map(move |(top, end)| (block, first, top * S::M_STEP, end * S::M_STEP))
    })
}

/// The number of operations in `steps` rounds of multiply-adds on registers alone, of the tile for `format`.
pub(super) fn register_multiply_adds(isa: Isa, format: Format, steps: usize) -> Option<usize> {
    match (isa, format, steps) {
        (Isa::Scalar(_), ..) => None,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2(simd), format, steps) => simd.multiply_adds(simd.tile_for(format), steps),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512(simd), format, steps) => simd.multiply_adds(simd.tile_for(format), steps),
        #[cfg(target_arch = "x86_64")]
        (Isa::Amx(simd), format, steps) => simd.multiply_adds(simd.tile_for(format), steps),
    }
}

fn contiguous<'a, C>(out: &'a mut ArrayViewMut2<C>) -> Vec<&'a mut [C]> {
    let rows = out.rows_mut().into_iter();
    rows.map(|row| row.into_slice().expect("the rows of `out` are contiguous")).collect()
}
