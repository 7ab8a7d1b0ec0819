//! One rectangle of a product on one thread: rows are packed, multiplied with one panel after another, and finished.

use std::cell::RefCell;

use ndarray::{ArrayView2, ArrayViewMut2, s};

use super::Epilogue;
use super::packed::PackedMatrix;
use super::words::{Encode, Format, Range, Scaling, encode_as, expand};
use crate::kernels::isa::Isa;
use crate::kernels::memory::Lines;
use crate::kernels::simd::{Kernel, Scalar, Simd};
#[cfg(target_arch = "x86_64")]
use {
    super::tile::{Ahead, Band, DEPTH, Tile, expand as expand_panel, fetch, tiles},
    crate::kernels::simd::{Amx, Avx2, Avx512},
};

/// Rows that are packed at once at most.
#[cfg(target_arch = "x86_64")]
const TALLEST: usize = 512;

/// Rows that go together through a group of panels where they are few, or where panels have to be expanded for them: the
/// partial results of the group, 128 KiB for AVX-512, stay in a second-level cache.
#[cfg(target_arch = "x86_64")]
const TOGETHER: usize = 256;

/// Rows so few that what counts is how panels come from memory: they are then visited in pieces, each by all rows, while the
/// next one is fetched.
#[cfg(target_arch = "x86_64")]
const FEW: usize = 48;

/// Panels between two visits to the result at most: a row of it is then written 512 bytes at a time, and not 128 in each of as
/// many pages as there are rows.
#[cfg(target_arch = "x86_64")]
const GROUP: usize = 4;

/// The deepest product whose 8-bit terms, each up to 255 · 127, are sure to add up to less than 2³¹.
#[cfg(target_arch = "x86_64")]
const DEEPEST_INT8: usize = i32::MAX as usize / (255 * 127);

/// A rectangle of a product: where it begins, and its elements.
pub(super) struct Rectangle<'a> {
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) out: ArrayViewMut2<'a, f32>,
}

/// What is multiplied, and what is done with the result.
#[derive(Clone, Copy)]
pub(super) struct Factors<'a> {
    pub(super) alpha: f32,
    pub(super) a: ArrayView2<'a, f32>,
    pub(super) b: &'a PackedMatrix,
    pub(super) epilogue: Epilogue<'a>,
}

/// Rows of `A` that are packed: by one thread, for all that multiply with them.
#[derive(Default)]
pub(super) struct Rows {
    /// `[chunks][rows][DEPTH]`, the rows filled up to what the tile asks for; of the scalar tier `[rows][K]`.
    words: Lines,
    /// Of integers `[rows]`, else empty.
    ranges: Vec<Range>,
}

/// Memory that a thread keeps from product to product.
#[derive(Default)]
struct Scratch {
    rows: Rows,
    partial: Partial,
}

/// What is between packed rows and a result.
#[derive(Default)]
struct Partial {
    /// A piece of `B`, where it has to be expanded.
    expanded: Lines,
    sums: Lines,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Isa {
    /// Columns of a panel: a product is cut at multiples of it.
    pub(super) fn columns(self) -> usize {
        match self {
            Self::Scalar(_) => 1,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => Avx2::COLUMNS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Avx512::COLUMNS,
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) => Amx::COLUMNS,
        }
    }

    /// Words of a row along `K` are a multiple of this.
    pub(super) fn step(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) => Amx::WORD_STEP,
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
    pub(super) fn heights(self, b: &PackedMatrix) -> Option<Heights> {
        match self {
            Self::Scalar(_) => None,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => Some(heights(simd, b)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => Some(heights(simd, b)),
            #[cfg(target_arch = "x86_64")]
            Self::Amx(simd) => Some(heights(simd, b)),
        }
    }
}

/// Numbers of rows that an instruction set is fast with.
pub(super) struct Heights {
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
fn heights<S: Tile>(simd: S, b: &PackedMatrix) -> Heights {
    let tile = multiplied_as(simd, b);
    let words = b.words() * b.format.values_per_word() / tile.values_per_word();
    let rows = (S::BLOCK / words.next_multiple_of(DEPTH).max(1)).clamp(1, TALLEST);
    let tiles = if S::WHOLE && tile == b.format { 2 } else { 64 / S::ROWS };
    Heights {
        step: S::ROW_STEP,
        tile: S::ROWS,
        least: tiles * S::ROWS,
        most: (rows / S::ROWS).max(1) * S::ROWS,
    }
}

/// The format in which the tiles of `simd` multiply with `b`: its own, or a wider one that it is expanded to.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn multiplied_as<S: Tile>(simd: S, b: &PackedMatrix) -> Format {
    if b.format == Format::Int8 && b.k > DEEPEST_INT8 {
        Format::F32
    } else {
        tile_for(simd, b.format)
    }
}

/// The tile for words of `format`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn tile_for<S: Tile>(simd: S, format: Format) -> Format {
    match format {
        format if simd.has_tile(format) => format,
        Format::Int8 if simd.has_tile(Format::Int16) => Format::Int16,
        _ => Format::F32,
    }
}

/// Packs rows and multiplies them: a whole product on this thread.
pub(super) struct Product<'a, 'b> {
    pub(super) factors: Factors<'a>,
    pub(super) rectangle: Rectangle<'b>,
}

/// Packs some rows of `a`, beginning with `first`.
pub(super) struct Pack<'a, 'b> {
    pub(super) factors: Factors<'a>,
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) rows: &'b mut Rows,
}

/// Multiplies rows that are packed, those of the rectangle.
pub(super) struct Multiply<'a, 'b> {
    pub(super) factors: Factors<'a>,
    pub(super) blocks: Blocks<'b>,
    pub(super) rectangle: Rectangle<'b>,
}

/// Packed rows, as many in each block but perhaps the last.
#[derive(Clone, Copy)]
pub(super) struct Blocks<'a> {
    pub(super) blocks: &'a [Rows],
    pub(super) height: usize,
}

/// The scratch memory is taken out of its place and put back, since a closure would be compiled without the instructions.
macro_rules! kernels {
    ($($simd:ty),*) => {$(
        impl Kernel<$simd> for Product<'_, '_> {
            #[inline(always)]
            fn run(self, simd: $simd) {
                let Self { factors, rectangle: Rectangle { row, column, mut out } } = self;
                let mut scratch = SCRATCH.take();
                let Scratch { rows, partial } = &mut scratch;
                let height = factors.b.isa.heights(factors.b).map_or(usize::MAX, |heights| heights.most);
                let mut first = 0;
                while first < out.nrows() {
                    let count = height.min(out.nrows() - first);
                    let out = out.slice_mut(s![first..first + count, ..]);
                    factors.pack(simd, row + first, count, rows);
                    let blocks = Blocks { blocks: std::slice::from_ref(rows), height: count };
                    factors.multiply(simd, blocks, Rectangle { row: row + first, column, out }, partial);
                    first += count;
                }
                SCRATCH.set(scratch);
            }
        }

        impl Kernel<$simd> for Pack<'_, '_> {
            #[inline(always)]
            fn run(self, simd: $simd) {
                self.factors.pack(simd, self.first, self.count, self.rows);
            }
        }

        impl Kernel<$simd> for Multiply<'_, '_> {
            #[inline(always)]
            fn run(self, simd: $simd) {
                let mut scratch = SCRATCH.take();
                self.factors.multiply(simd, self.blocks, self.rectangle, &mut scratch.partial);
                SCRATCH.set(scratch);
            }
        }
    )*};
}
kernels!(Scalar);
#[cfg(target_arch = "x86_64")]
kernels!(Avx2, Avx512, Amx);

/// The two halves of a product, for each instruction set: by tiles, or by `matrixmultiply`.
trait Halves<S> {
    fn pack(self, simd: S, first: usize, count: usize, rows: &mut Rows);
    fn multiply(self, simd: S, blocks: Blocks, rectangle: Rectangle, partial: &mut Partial);
}

impl Factors<'_> {
    /// Row `i` of `A`, balanced: its own values, or `copy` filled with them.
    #[inline(always)]
    fn row<'c>(&'c self, i: usize, copy: &'c mut Vec<f32>) -> &'c [f32] {
        let (row, balance) = (self.a.row(i), &self.b.balance);
        if balance.is_empty() {
            return match row.to_slice() {
                Some(row) => row,
                None => {
                    copy.clear();
                    copy.extend(row);
                    copy
                }
            };
        }
        copy.resize(row.len(), 0.0);
        match row.to_slice() {
            Some(row) => {
                copy.iter_mut().zip(row).zip(balance).for_each(|((y, x), factor)| *y = x * factor);
            }
            None => {
                copy.iter_mut().zip(row).zip(balance).for_each(|((y, x), factor)| *y = x * factor)
            }
        }
        copy
    }

    /// How a row is to be scaled, and its range if it is quantised.
    #[inline(always)]
    fn scaling(self, row: &[f32]) -> (Scaling, Option<Range>) {
        if self.b.format == Format::Int8 {
            let range = Range::of(self.alpha, row);
            (range.scaling(self.alpha), Some(range))
        } else {
            (Scaling::by(self.alpha), None)
        }
    }

    /// Puts the sums of products of packed values, each made a number by `value`, into `row`, which begins at `column`, as what
    /// they stand for, and adds the bias.
    #[inline(always)]
    fn finish<S: Simd>(
        self,
        simd: S,
        range: Option<Range>,
        sums: &[u32],
        value: impl Fn(u32) -> f32,
        row: &mut [f32],
        column: usize,
    ) {
        let bias = self.epilogue.bias(column, row.len());
        let out = row.iter_mut().zip(sums);
        match (range, bias) {
            // Σ (scale · q + offset) · (channel_scale · p) = channel_scale · (scale · Σ q·p + offset · Σ p)
            (Some(range), bias) => {
                let scales = &self.b.scales[column..];
                let totals = &self.b.sums[column..];
                let product = |sum: u32, scale: f32, total: f32| {
                    scale * simd.mul_add(range.scale, value(sum), range.offset * total)
                };
                let out = out.zip(scales).zip(totals);
                match bias {
                    Some(bias) => out.zip(bias).for_each(|((((x, sum), scale), total), bias)| {
                        *x = product(*sum, *scale, *total) + bias;
                    }),
                    None => out.for_each(|(((x, sum), scale), total)| {
                        *x = product(*sum, *scale, *total);
                    }),
                }
            }
            (None, Some(bias)) => {
                out.zip(bias).for_each(|((x, sum), bias)| *x = value(*sum) + bias)
            }
            (None, None) => out.for_each(|(x, sum)| *x = value(*sum)),
        }
    }

    /// The same for a whole panel of N columns, which begin at `column`, and some rows: what belongs to the columns stays in
    /// registers for all of them. `sums`: `[rows][N]`, `ranges`: of integers `[rows]`.
    #[inline(always)]
    fn finish_panel<'o, const N: usize, S: Simd>(
        self,
        simd: S,
        ranges: &[Range],
        sums: &[u32],
        value: impl Fn(u32) -> f32 + Copy,
        rows: impl Iterator<Item = &'o mut [f32]>,
        column: usize,
    ) {
        let of_panel = |values: &[f32]| *values[column..].first_chunk::<N>().expect("N columns");
        let bias = match self.epilogue.bias(column, N) {
            Some(bias) => *bias.first_chunk::<N>().expect("N columns"),
            None => [0.0; N],
        };
        let (sums, _) = sums.as_chunks::<N>();
        let rows = rows.map(|row| row.first_chunk_mut::<N>().expect("N columns")).zip(sums);
        if ranges.is_empty() {
            for (row, sums) in rows {
                for ((x, &sum), bias) in row.iter_mut().zip(sums).zip(&bias) {
                    *x = value(sum) + bias;
                }
            }
        } else {
            let (scales, totals) = (of_panel(&self.b.scales), of_panel(&self.b.sums));
            for ((row, sums), range) in rows.zip(ranges) {
                let channels = scales.iter().zip(&totals).zip(&bias);
                for ((x, &sum), ((scale, total), bias)) in row.iter_mut().zip(sums).zip(channels) {
                    let sum = simd.mul_add(range.scale, value(sum), range.offset * total);
                    *x = scale * sum + bias;
                }
            }
        }
    }
}

impl Halves<Scalar> for Factors<'_> {
    fn pack(self, simd: Scalar, first: usize, count: usize, rows: &mut Rows) {
        let Rows { words, ranges } = rows;
        let k = self.b.words() * self.b.format.values_per_word();
        let words = words.resize(count * k);
        ranges.clear();
        let mut copy = Vec::new();
        for (i, words) in words.chunks_exact_mut(k.max(1)).enumerate() {
            let row = self.row(first + i, &mut copy);
            let (scaling, range) = self.scaling(row);
            encode_as(simd, Format::F32, self.b.format, scaling, row, words);
            ranges.extend(range);
        }
    }

    #[allow(unsafe_code, reason = "matrixmultiply takes pointers: see the block")]
    fn multiply(self, simd: Scalar, blocks: Blocks, rectangle: Rectangle, partial: &mut Partial) {
        let Rectangle { column, mut out, .. } = rectangle;
        let [rows] = blocks.blocks else { unreachable!("this tier has no blocks of rows") };
        let ((m, n), format) = (out.dim(), self.b.format);
        let words = self.b.words();
        let k = words * format.values_per_word();
        assert_eq!(rows.words.len(), m * k, "as many rows are packed as the rectangle has");
        let Partial { expanded, sums } = partial;
        /// Columns at once, so that a piece of `B` that is expanded stays small.
        const COLUMNS: usize = 256;
        for start in (0..n).step_by(COLUMNS) {
            let there = COLUMNS.min(n - start);
            let packed = &self.b.values[(column + start) * words..(column + start + there) * words];
            expanded.resize(there * k);
            expand(format, packed, expanded);
            sums.resize(m * there);
            // SAFETY: `rows` holds m rows of k values, `expanded` as many rows of k as there are columns (passed transposed by
            // its strides), and `sums` has room for m rows of them; all are contiguous. Their words are the bits of `f32`s,
            // for which `u32` has the size and the alignment.
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
                    there as isize,
                    1,
                );
            }
            let mut out = out.slice_mut(s![.., start..start + there]);
            for (i, (row, sums)) in out.rows_mut().into_iter().zip(sums.chunks(there)).enumerate() {
                let row = row.into_slice().expect(CONTIGUOUS);
                let range = rows.ranges.get(i).copied();
                self.finish(simd, range, sums, f32::from_bits, row, column + start);
                self.epilogue.activate(simd, row);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl<S: Encode + Tile> Halves<S> for Factors<'_> {
    #[inline(always)]
    fn pack(self, simd: S, first: usize, count: usize, rows: &mut Rows) {
        let Rows { words, ranges } = rows;
        let (format, tile) = (self.b.format, multiplied_as(simd, self.b));
        let per = tile.values_per_word();
        let length = self.b.words() * format.values_per_word() / per;
        let height = count.next_multiple_of(S::ROW_STEP);
        let words = words.resize(length.div_ceil(DEPTH) * height * DEPTH);
        ranges.clear();
        let mut copy = Vec::new();
        for i in 0..count {
            let row = self.row(first + i, &mut copy);
            let (scaling, range) = self.scaling(row);
            ranges.extend(range);
            let mut values = row.chunks(DEPTH * per);
            for (chunk, start) in (0..length).step_by(DEPTH).enumerate() {
                let words = &mut words[(chunk * height + i) * DEPTH..][..DEPTH.min(length - start)];
                let values = values.next().unwrap_or_default();
                encode_as(simd, tile, format, scaling, values, words);
            }
        }
    }

    #[inline(always)]
    #[allow(unsafe_code, reason = "calls a function that needs instructions: see the block")]
    fn multiply(self, simd: S, blocks: Blocks, rectangle: Rectangle, partial: &mut Partial) {
        let Rectangle { column: first_column, mut out, .. } = rectangle;
        let ((m, n), columns, format) = (out.dim(), S::COLUMNS, self.b.format);
        let tile = multiplied_as(simd, self.b);
        let per = format.values_per_word() / tile.values_per_word();
        let panel = self.b.words() * columns;
        let Partial { expanded, sums } = partial;
        // Bands of one tile hold their sums in registers all along K; the panels of a group then stay in cache for all bands.
        let (band, depth, group) = match S::WHOLE && tile == format && m > FEW {
            true => (S::ROWS, panel, (S::GROUP_WORDS / panel.max(1)).clamp(1, GROUP)),
            false => (TOGETHER, DEPTH / per * columns, GROUP),
        };
        let bands = || bands::<S>(m, blocks.height, band);
        let count = bands().count();
        let _state = simd.state();
        for column in (0..n).step_by(group * columns) {
            let there = (group * columns).min(n - column);
            let first_panel = (first_column + column) / columns;
            let panels = there.div_ceil(columns);
            for (i, (block, first, top, end)) in bands().enumerate() {
                let rows = &blocks.blocks[block];
                let height = blocks.height.min(m - first).next_multiple_of(S::ROW_STEP);
                let (a, _) = rows.words.as_chunks::<DEPTH>();
                let size = (end - top) * columns;
                let out_rows = first + top..(first + end).min(m);
                sums.resize(panels * size);
                if panel == 0 {
                    sums.fill(0);
                }
                for start in (0..panel).step_by(depth.max(1)) {
                    let words = depth.min(panel - start);
                    let chunk = start / (DEPTH / per * columns);
                    let a = Band { words: &a[chunk * height + top..], height, rows: end - top };
                    for (p, sums) in sums.chunks_exact_mut(size).enumerate() {
                        if start + depth >= panel {
                            // The result will be written when the sums are complete; fetched first, its lines need not be
                            // waited for one by one.
                            let left = column + p * columns;
                            let right = (left + columns).min(column + there);
                            for i in out_rows.clone() {
                                fetch(&out.row(i).to_slice().expect(CONTIGUOUS)[left..right]);
                            }
                        }
                        let at = |p: usize, start: usize| (first_panel + p) * panel + start;
                        let mut b = &self.b.values[at(p, start)..][..words];
                        // What will be read when this has been.
                        let next = match () {
                            () if depth == panel => at(p + group, 0),
                            () if p + 1 < panels => at(p + 1, start),
                            () if start + depth < panel => at(0, start + depth),
                            () => at(panels, 0),
                        };
                        let next = self.b.values.get(next..).unwrap_or_default();
                        let ahead = Ahead::of(&next[..words.min(next.len())]).part(i, count);
                        if tile != format {
                            expanded.resize(b.len() * per);
                            // SAFETY: there is no instruction set with tiles that has no AVX2.
                            unsafe { expand_panel(tile, format, b, columns, expanded) };
                            b = expanded;
                        }
                        simd.multiply(tile, a, b, sums, start > 0, ahead);
                    }
                }
                let ranges = rows.ranges.get(top..top + out_rows.len()).unwrap_or_default();
                let mut out = out.slice_mut(s![out_rows, column..column + there]);
                for (p, sums) in sums.chunks_exact(size).enumerate() {
                    let (left, right) = (p * columns, ((p + 1) * columns).min(there));
                    let column = first_column + column + left;
                    let rows = out.rows_mut().into_iter();
                    let rows =
                        rows.map(|row| &mut row.into_slice().expect(CONTIGUOUS)[left..right]);
                    let integers = matches!(tile, Format::Int8 | Format::Int16);
                    let of_integer = |sum: u32| sum as i32 as f32;
                    match (right - left == columns, columns, integers) {
                        (true, 32, false) => {
                            self.finish_panel::<32, S>(
                                simd,
                                ranges,
                                sums,
                                f32::from_bits,
                                rows,
                                column,
                            );
                        }
                        (true, 32, true) => {
                            self.finish_panel::<32, S>(
                                simd, ranges, sums, of_integer, rows, column,
                            );
                        }
                        (true, 16, false) => {
                            self.finish_panel::<16, S>(
                                simd,
                                ranges,
                                sums,
                                f32::from_bits,
                                rows,
                                column,
                            );
                        }
                        (true, 16, true) => {
                            self.finish_panel::<16, S>(
                                simd, ranges, sums, of_integer, rows, column,
                            );
                        }
                        _ => {
                            for (i, (row, sums)) in rows.zip(sums.chunks_exact(columns)).enumerate()
                            {
                                let range = ranges.get(i).copied();
                                match integers {
                                    true => self.finish(simd, range, sums, of_integer, row, column),
                                    false => {
                                        self.finish(simd, range, sums, f32::from_bits, row, column)
                                    }
                                }
                            }
                        }
                    }
                }
                if self.epilogue.activates() {
                    for row in out.rows_mut() {
                        self.epilogue.activate(simd, row.into_slice().expect(CONTIGUOUS));
                    }
                }
            }
        }
    }
}

/// Cuts `m` rows, packed in blocks of `height`, into bands of at most `most`, as even as can be: for each the number of its block,
/// that one's first row, and in it the band's own first row and the next one's, filled up as the tiles of `S` want it.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn bands<S: Tile>(
    m: usize,
    height: usize,
    most: usize,
) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..m).step_by(height.max(1)).enumerate().flat_map(move |(block, first)| {
        let steps = height.min(m - first).div_ceil(S::ROW_STEP);
        tiles(steps, most / S::ROW_STEP)
            .map(move |(top, end)| (block, first, top * S::ROW_STEP, end * S::ROW_STEP))
    })
}

/// The number of operations in `steps` rounds of multiply-adds on registers alone, of the tile for `format`.
pub(super) fn register_multiply_adds(isa: Isa, format: Format, steps: usize) -> Option<usize> {
    match (isa, format, steps) {
        (Isa::Scalar(_), ..) => None,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2(simd), format, steps) => simd.multiply_adds(tile_for(simd, format), steps),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512(simd), format, steps) => simd.multiply_adds(tile_for(simd, format), steps),
        #[cfg(target_arch = "x86_64")]
        (Isa::Amx(simd), format, steps) => simd.multiply_adds(tile_for(simd, format), steps),
    }
}

const CONTIGUOUS: &str = "the rows of `out` are contiguous";
