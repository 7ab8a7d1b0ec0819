//! One rectangle of a product on one thread: rows are packed, multiplied with one panel after another, and finished.

use std::cell::RefCell;

use ndarray::{ArrayView2, ArrayViewMut2, s};

use super::Epilogue;
use super::packed::PackedMatrix;
use super::words::{Format, Range, Scaling, encode_as, expand};
use crate::kernels::isa::Isa;
use crate::kernels::simd::{Kernel, Scalar, Simd};
#[cfg(target_arch = "x86_64")]
use {
    super::tile::{DEPTH, Tile, expand as expand_panel},
    crate::kernels::simd::{Amx, Avx2, Avx512},
};

/// Packed words of `A` that one task works on: 512 KiB, half of a second-level cache of 1 MiB.
#[cfg(target_arch = "x86_64")]
const BLOCK: usize = 128 << 10;

/// Rows that one task works on at most, so that the partial results of a group of panels stay in cache too: 128 KiB for
/// AVX-512.
#[cfg(target_arch = "x86_64")]
const TALLEST: usize = 256;

/// Panels between two visits to the result: a row of it is then written 512 bytes at a time, and not 128 in each of as many
/// pages as there are rows.
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
    words: Vec<u32>,
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
    expanded: Vec<u32>,
    sums: Vec<u32>,
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

    /// How many rows to pack at most at once, to multiply them with `b`, and of what they should be a multiple; `None` where
    /// any number will do.
    pub(super) fn height(self, b: &PackedMatrix) -> Option<(usize, usize)> {
        match self {
            Self::Scalar(_) => None,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => Some(height(simd, b)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => Some(height(simd, b)),
            #[cfg(target_arch = "x86_64")]
            Self::Amx(simd) => Some(height(simd, b)),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn height<S: Tile>(simd: S, b: &PackedMatrix) -> (usize, usize) {
    let words = b.words() * b.format.values_per_word() / multiplied_as(simd, b).values_per_word();
    let rows = (BLOCK / words.next_multiple_of(DEPTH).max(1)).clamp(1, TALLEST);
    ((rows / S::ROWS).max(1) * S::ROWS, S::ROW_STEP)
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
    pub(super) rows: &'b Rows,
    pub(super) rectangle: Rectangle<'b>,
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
                let height = factors.b.isa.height(factors.b).map_or(usize::MAX, |(most, _)| most);
                let mut first = 0;
                while first < out.nrows() {
                    let count = height.min(out.nrows() - first);
                    let out = out.slice_mut(s![first..first + count, ..]);
                    factors.pack(simd, row + first, count, rows);
                    factors.multiply(simd, rows, Rectangle { row: row + first, column, out }, partial);
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
                self.factors.multiply(simd, self.rows, self.rectangle, &mut scratch.partial);
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
    fn multiply(self, simd: S, rows: &Rows, rectangle: Rectangle, partial: &mut Partial);
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

    /// Puts the sums of products of packed values into `row`, which begins at `column`, as what they stand for, and adds the
    /// bias.
    #[inline(always)]
    fn finish<S: Simd>(
        self,
        simd: S,
        range: Option<Range>,
        sums: impl Iterator<Item = f32>,
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
                let product = |sum: f32, scale: f32, total: f32| {
                    scale * simd.mul_add(range.scale, sum, range.offset * total)
                };
                let out = out.zip(scales).zip(totals);
                match bias {
                    Some(bias) => out.zip(bias).for_each(|((((x, sum), scale), total), bias)| {
                        *x = product(sum, *scale, *total) + bias;
                    }),
                    None => out.for_each(|(((x, sum), scale), total)| {
                        *x = product(sum, *scale, *total);
                    }),
                }
            }
            (None, Some(bias)) => out.zip(bias).for_each(|((x, sum), bias)| *x = sum + bias),
            (None, None) => out.for_each(|(x, sum)| *x = sum),
        }
    }
}

impl Halves<Scalar> for Factors<'_> {
    fn pack(self, _: Scalar, first: usize, count: usize, rows: &mut Rows) {
        let Rows { words, ranges } = rows;
        let k = self.b.words() * self.b.format.values_per_word();
        words.resize(count * k, 0);
        ranges.clear();
        let mut copy = Vec::new();
        for (i, words) in words.chunks_exact_mut(k.max(1)).enumerate() {
            let row = self.row(first + i, &mut copy);
            let (scaling, range) = self.scaling(row);
            encode_as(Format::F32, self.b.format, scaling, row, words);
            ranges.extend(range);
        }
    }

    #[allow(unsafe_code, reason = "matrixmultiply takes pointers: see the block")]
    fn multiply(self, simd: Scalar, rows: &Rows, rectangle: Rectangle, partial: &mut Partial) {
        let Rectangle { column, mut out, .. } = rectangle;
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
            expanded.resize(there * k, 0);
            expand(format, packed, expanded);
            sums.resize(m * there, 0);
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
                let sums = sums.iter().map(|&sum| f32::from_bits(sum));
                self.finish(simd, rows.ranges.get(i).copied(), sums, row, column + start);
                self.epilogue.activate(simd, row);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl<S: Simd + Tile> Halves<S> for Factors<'_> {
    #[inline(always)]
    fn pack(self, simd: S, first: usize, count: usize, rows: &mut Rows) {
        let Rows { words, ranges } = rows;
        let (format, tile) = (self.b.format, multiplied_as(simd, self.b));
        let per = tile.values_per_word();
        let length = self.b.words() * format.values_per_word() / per;
        let height = count.next_multiple_of(S::ROW_STEP);
        words.resize(length.div_ceil(DEPTH) * height * DEPTH, 0);
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
                encode_as(tile, format, scaling, values, words);
            }
        }
    }

    #[inline(always)]
    #[allow(unsafe_code, reason = "calls a function that needs instructions: see the block")]
    fn multiply(self, simd: S, rows: &Rows, rectangle: Rectangle, partial: &mut Partial) {
        let Rectangle { column: first_column, mut out, .. } = rectangle;
        let ((m, n), columns, format) = (out.dim(), S::COLUMNS, self.b.format);
        let tile = multiplied_as(simd, self.b);
        let per = format.values_per_word() / tile.values_per_word();
        let (panel, depth) = (self.b.words() * columns, DEPTH / per * columns);
        let height = m.next_multiple_of(S::ROW_STEP);
        let (a, _) = rows.words.as_chunks::<DEPTH>();
        let Partial { expanded, sums } = partial;
        let group = columns * GROUP;
        sums.resize(height * group, 0);
        if panel == 0 {
            sums.fill(0);
        }
        let _state = simd.state();
        for column in (0..n).step_by(group) {
            let there = group.min(n - column);
            let panels = there.div_ceil(columns);
            for (p, sums) in sums.chunks_exact_mut(height * columns).enumerate().take(panels) {
                let start = ((first_column + column) / columns + p) * panel;
                let panel = self.b.values[start..start + panel].chunks(depth);
                for (chunk, mut b) in panel.enumerate() {
                    if tile != format {
                        expanded.resize(b.len() * per, 0);
                        // SAFETY: there is no instruction set with tiles that has no AVX2.
                        unsafe { expand_panel(tile, format, b, columns, expanded) };
                        b = expanded;
                    }
                    let a = &a[chunk * height..(chunk + 1) * height];
                    simd.multiply(tile, a, b, sums, chunk > 0);
                }
            }
            let mut out = out.slice_mut(s![.., column..column + there]);
            for (i, row) in out.rows_mut().into_iter().enumerate() {
                let row = row.into_slice().expect(CONTIGUOUS);
                let range = rows.ranges.get(i).copied();
                for (p, piece) in row.chunks_mut(columns).enumerate() {
                    let sums = &sums[(p * height + i) * columns..][..columns];
                    let column = first_column + column + p * columns;
                    if matches!(tile, Format::Int8 | Format::Int16) {
                        let sums = sums.iter().map(|&sum| sum as i32 as f32);
                        self.finish(simd, range, sums, piece, column);
                    } else {
                        let sums = sums.iter().map(|&sum| f32::from_bits(sum));
                        self.finish(simd, range, sums, piece, column);
                    }
                }
                self.epilogue.activate(simd, row);
            }
        }
    }
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
