//! Matrix products: the one place through which all of them go.
//!
//! `C = α · A · Bᵀ`, since checkpoints store a linear layer as `[out, in]`. `B` is packed once ([`PackedMatrix`]), in a
//! [`Precision`], into the order in which the instruction set's tile reads it. `A` is rounded to the same precision when its
//! rows are packed. Where an instruction set has no tile for a precision, weights stay in it and are expanded to `f32` a piece
//! at a time. [`matmul`] is one product on the calling thread; [`par_matmul`] shares
//! a product among the caller's rayon threads by cutting `C` into rectangles, and hands each piece of a finished row, still
//! in cache, to an [`Epilogue`].
//!
//! How `C` is cut depends on the number of threads; the sum behind each of its elements does not. Every tile adds along `K`
//! from front to back, in blocks of a fixed length (`matrixmultiply` in blocks of its own), whatever the other sizes are and
//! however many rows the tile has. The tests hold it to that.

mod pack;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tile;

use std::cell::RefCell;

use ndarray::{ArrayView1, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use super::activation::{Activation, activate};
use super::isa::Isa;
use super::precision::Precision;
use super::simd::{Kernel, Scalar, Simd};
use pack::{Channel, Range, expand, pack_column, pack_row};
#[cfg(target_arch = "x86_64")]
use {
    super::simd::{Avx2, Avx512},
    tile::Tile,
};

/// Words of the sum between two visits to the partial results: a panel of 32 columns then is 24 KiB and stays, with the
/// rows that meet it, in a first-level cache of 32 KiB or more.
#[cfg(target_arch = "x86_64")]
const DEPTH: usize = 192;

/// Packed words of `A` that one task works on: 512 KiB, half of a second-level cache of 1 MiB.
#[cfg(target_arch = "x86_64")]
const BLOCK: usize = 128 << 10;

/// Rows that one task works on at most, so that the partial results of a panel stay in cache too: 64 KiB for AVX-512.
#[cfg(target_arch = "x86_64")]
const TALLEST: usize = 512;

/// The deepest product whose 8-bit terms, each up to 255 · 127, are sure to add up to less than 2³¹.
#[cfg(target_arch = "x86_64")]
const DEEPEST_INT8: usize = i32::MAX as usize / (255 * 127);

/// Multiply-adds below which a product is not worth sharing among threads (some 5 µs of work).
const SMALL: usize = 1 << 19;

/// The right-hand side of a product, `B` `[N, K]`, in the precision and the order of one instruction set.
#[derive(Debug, Clone)]
pub struct PackedMatrix {
    isa: Isa,
    precision: Precision,
    n: usize,
    k: usize,
    /// Panels, each `[words][columns]`, the last one filled up with zeros. Of the scalar tier a panel is one column.
    values: Vec<u32>,
    /// `[N]` for integers, else empty.
    channels: Vec<Channel>,
}

impl PackedMatrix {
    /// Packs `b` `[N, K]` for `isa`, in parallel if it is large.
    #[must_use]
    pub fn new(isa: Isa, precision: Precision, b: ArrayView2<f32>) -> Self {
        let mut packed = Self::empty(isa, precision);
        let panel = packed.resize(b);
        if panel > 0 {
            let (values, channels) = (&mut packed.values, &mut packed.channels);
            values
                .par_chunks_mut(panel)
                .zip(channels.par_chunks_mut(isa.columns()))
                .enumerate()
                .for_each(|(index, (values, channels))| {
                    pack_panel(isa, precision, b, index, values, channels);
                });
        }
        packed
    }

    /// An empty matrix for `isa`, to be packed into again and again.
    #[must_use]
    pub fn empty(isa: Isa, precision: Precision) -> Self {
        Self { isa, precision, n: 0, k: 0, values: Vec::new(), channels: Vec::new() }
    }

    /// Packs `b` on this thread, into the memory that is there.
    pub fn repack(&mut self, b: ArrayView2<f32>) {
        let panel = self.resize(b);
        let (isa, precision, columns) = (self.isa, self.precision, self.isa.columns());
        if panel > 0 {
            let panels = self.values.chunks_mut(panel).zip(self.channels.chunks_mut(columns));
            for (index, (values, channels)) in panels.enumerate() {
                pack_panel(isa, precision, b, index, values, channels);
            }
        }
    }

    /// `N`: columns of a product with this matrix.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.n
    }

    /// Words along `K`.
    fn words(&self) -> usize {
        self.k.div_ceil(self.precision.values_per_word())
    }

    /// Makes room for `b`; returns the size of a panel.
    fn resize(&mut self, b: ArrayView2<f32>) -> usize {
        (self.n, self.k) = b.dim();
        let columns = self.isa.columns();
        let panel = self.words() * columns;
        self.values.resize(self.n.div_ceil(columns) * panel, 0);
        self.channels.resize(self.n, Channel::NONE);
        panel
    }
}

/// Panel number `index` of `b`.
fn pack_panel(
    isa: Isa,
    precision: Precision,
    b: ArrayView2<f32>,
    index: usize,
    values: &mut [u32],
    channels: &mut [Channel],
) {
    let columns = isa.columns();
    if channels.len() < columns {
        values.fill(0);
    }
    #[cfg(target_arch = "x86_64")]
    if precision == Precision::F32 && !matches!(isa, Isa::Scalar(_)) {
        let rows = index * columns..index * columns + channels.len();
        if let Some(rows) = b.slice(s![rows, ..]).to_slice() {
            tile::transpose(rows, channels.len(), columns, values);
            return;
        }
    }
    let mut scratch = Vec::new();
    let mut copy = Vec::new();
    for (j, channel) in channels.iter_mut().enumerate() {
        let row = contiguous(b.row(index * columns + j), &mut copy);
        *channel = pack_column(precision, row, (j, columns), &mut scratch, values);
    }
}

/// The values of `row` one after another: its own, or `copy` filled with them.
fn contiguous<'a>(row: ArrayView1<'a, f32>, copy: &'a mut Vec<f32>) -> &'a [f32] {
    match row.to_slice() {
        Some(row) => row,
        None => {
            copy.clear();
            copy.extend(row);
            copy
        }
    }
}

/// What is done to each piece of a row of a product while it is in cache.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// Nothing.
    None,
    /// `activation(row + bias)`, `bias`: `[N]`.
    Bias(&'a [f32], Activation),
}

impl Epilogue<'_> {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, row: &mut [f32], column: usize) {
        match self {
            Self::None => {}
            Self::Bias(bias, activation) => {
                let bias = &bias[column..column + row.len()];
                for (x, bias) in row.iter_mut().zip(bias) {
                    *x += bias;
                }
                activate(simd, activation, row);
            }
        }
    }
}

/// `out = alpha · a · bᵀ` on this thread.
///
/// `a`: `[M, K]`, `b`: `[N, K]`, `out`: `[M, N]`, its rows contiguous.
///
/// # Panics
///
/// If the shapes do not fit together, or the rows of `out` are not contiguous.
pub fn matmul(alpha: f32, a: ArrayView2<f32>, b: &PackedMatrix, out: &mut ArrayViewMut2<f32>) {
    check(a, b, out.dim());
    let factors = Factors { alpha, a, b, epilogue: Epilogue::None };
    let rectangle = Rectangle { row: 0, column: 0, out: out.view_mut() };
    b.isa.run(Product { factors, rectangle });
}

/// `out = a · bᵀ`, then the epilogue, shared among the threads of the current rayon pool.
///
/// `a`: `[M, K]`, `b`: `[N, K]`, `out`: `[M, N]`, its rows contiguous.
///
/// # Panics
///
/// If the shapes do not fit together, the rows of `out` are not contiguous, or a bias is shorter than `N`.
pub fn par_matmul(
    a: ArrayView2<f32>,
    b: &PackedMatrix,
    out: ArrayViewMut2<f32>,
    epilogue: Epilogue,
) {
    check(a, b, out.dim());
    let factors = Factors { alpha: 1.0, a, b, epilogue };
    let run = |rectangle: Rectangle| b.isa.run(Product { factors, rectangle });
    let ((m, k), n) = (a.dim(), b.n);
    let cuts = b.isa.cuts(m, n, k, rayon::current_num_threads());
    match cuts {
        (1, 1) => run(Rectangle { row: 0, column: 0, out }),
        _ => Rectangle::split(out, cuts, b.isa.columns()).into_par_iter().for_each(run),
    }
}

fn check(a: ArrayView2<f32>, b: &PackedMatrix, out: (usize, usize)) {
    assert!(
        a.ncols() == b.k && out == (a.nrows(), b.n),
        "matmul: {:?} times {:?} transposed into {out:?}",
        a.dim(),
        (b.n, b.k)
    );
}

/// A rectangle of a product: where it begins, and its elements.
struct Rectangle<'a> {
    row: usize,
    column: usize,
    out: ArrayViewMut2<'a, f32>,
}

impl<'a> Rectangle<'a> {
    /// Cuts `out` into `cuts` pieces downwards and across, the latter at multiples of `panel`.
    fn split(mut out: ArrayViewMut2<'a, f32>, cuts: (usize, usize), panel: usize) -> Vec<Self> {
        let (m, n) = out.dim();
        let panels = n.div_ceil(panel);
        let mut pieces = Vec::with_capacity(cuts.0 * cuts.1);
        for i in 0..cuts.0 {
            let (row, end) = (i * m / cuts.0, (i + 1) * m / cuts.0);
            let (mut rows, below) = out.split_at(Axis(0), end - row);
            out = below;
            for j in 0..cuts.1 {
                let edge = |j: usize| (j * panels / cuts.1 * panel).min(n);
                let (column, end) = (edge(j), edge(j + 1));
                let (piece, right) = rows.split_at(Axis(1), end - column);
                rows = right;
                pieces.push(Self { row, column, out: piece });
            }
        }
        pieces
    }
}

impl Isa {
    /// Columns of a panel: a product is cut at multiples of it.
    fn columns(self) -> usize {
        match self {
            Self::Scalar(_) => 1,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => Avx2::COLUMNS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Avx512::COLUMNS,
        }
    }

    /// Into how many pieces to cut the rows and the columns of an `[m, n]` product of depth `k`.
    ///
    /// The scalar tier packs its rows of `A` and of `B` again for each piece: two pieces a thread, and of all such cuts the
    /// one that packs least. A vector tier packs only `A`, as many rows as fit the cache, and then wants all columns in one
    /// piece; few rows, as of a single query, are cut across, so that every thread reads its share of the weights.
    fn cuts(self, m: usize, n: usize, k: usize, threads: usize) -> (usize, usize) {
        let work = m.saturating_mul(n).saturating_mul(k);
        if work == 0 || work < SMALL {
            return (1, 1);
        }
        let wanted = if threads == 1 { 1 } else { (3 * threads).min(work / SMALL + 1) };
        match self {
            Self::Scalar(_) => (1..=wanted.min(m))
                .map(|rows| (rows, wanted.div_ceil(rows).clamp(1, n)))
                .min_by_key(|&(rows, columns)| columns * m + rows * n)
                .unwrap_or((1, 1)),
            #[cfg(target_arch = "x86_64")]
            _ => {
                let rows = m.div_ceil((BLOCK / k).clamp(1, TALLEST));
                let panels = n.div_ceil(self.columns());
                (rows, wanted.div_ceil(rows).clamp(1, panels))
            }
        }
    }
}

/// One rectangle of a product, on one thread.
struct Product<'a, 'b> {
    factors: Factors<'a>,
    rectangle: Rectangle<'b>,
}

/// What is multiplied, and what is done with the result.
#[derive(Clone, Copy)]
struct Factors<'a> {
    alpha: f32,
    a: ArrayView2<'a, f32>,
    b: &'a PackedMatrix,
    epilogue: Epilogue<'a>,
}

impl Kernel<Scalar> for Product<'_, '_> {
    fn run(self, simd: Scalar) {
        let mut scratch = SCRATCH.take();
        self.factors.by_matrixmultiply(simd, self.rectangle, &mut scratch);
        SCRATCH.set(scratch);
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! by_tiles {
    ($($simd:ty),*) => {$(
        impl Kernel<$simd> for Product<'_, '_> {
            #[inline(always)]
            fn run(self, simd: $simd) {
                // Taken out and put back, since a closure would be compiled without the instructions.
                let mut scratch = SCRATCH.take();
                self.factors.by_tiles(simd, self.rectangle, &mut scratch);
                SCRATCH.set(scratch);
            }
        }
    )*};
}
#[cfg(target_arch = "x86_64")]
by_tiles!(Avx2, Avx512);

/// Memory that a thread keeps from product to product: about 600 KiB in a vector tier, for `K` up to [`BLOCK`].
#[derive(Default)]
struct Scratch {
    /// Packed rows of `A`, and their ranges.
    rows: Vec<u32>,
    ranges: Vec<Range>,
    /// One row of `A` before it is packed: if it is not contiguous, and in fewer bits.
    copy: Vec<f32>,
    bytes: Vec<u8>,
    /// A piece of `B`, where it has to be expanded.
    expanded: Vec<u32>,
    /// Partial results.
    sums: Vec<u32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Factors<'_> {
    /// Puts the sums of products of packed values into `row`, which begins at `column`, as what they stand for.
    #[inline(always)]
    fn finish<S: Simd>(
        self,
        simd: S,
        range: Range,
        sums: impl Iterator<Item = f32>,
        row: &mut [f32],
        column: usize,
    ) {
        if self.b.precision == Precision::Int8 {
            // Σ (scale · q + offset) · (channel.scale · p) = channel.scale · (scale · Σ q·p + offset · Σ p)
            let channels = &self.b.channels[column..column + row.len()];
            for ((x, sum), channel) in row.iter_mut().zip(sums).zip(channels) {
                *x = channel.scale * simd.mul_add(range.scale, sum, range.offset * channel.sum);
            }
        } else {
            row.iter_mut().zip(sums).for_each(|(x, sum)| *x = sum);
        }
        self.epilogue.apply(simd, row, column);
    }

    #[allow(unsafe_code, reason = "matrixmultiply takes pointers: see the block")]
    fn by_matrixmultiply(self, simd: Scalar, rectangle: Rectangle, scratch: &mut Scratch) {
        let Rectangle { row: first, column, mut out } = rectangle;
        let ((m, n), precision) = (out.dim(), self.b.precision);
        let words = self.b.words();
        let k = words * precision.values_per_word();
        let Scratch { rows, ranges, copy, bytes, expanded, sums } = scratch;
        rows.clear();
        rows.resize(m * k, 0);
        ranges.clear();
        for i in 0..m {
            let packed = &mut rows[i * k..(i + 1) * k];
            let row = contiguous(self.a.row(first + i), copy);
            ranges.push(pack_row(precision, true, self.alpha, row, (0, 1), bytes, packed));
        }
        /// Columns at once, so that a piece of `B` that is expanded stays small.
        const COLUMNS: usize = 256;
        for start in (0..n).step_by(COLUMNS) {
            let there = COLUMNS.min(n - start);
            let packed = &self.b.values[(column + start) * words..(column + start + there) * words];
            expanded.resize(there * k, 0);
            expand(precision, packed, 1, expanded);
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
                    rows.as_ptr().cast(),
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
            let rows = out.rows_mut().into_iter().zip(sums.chunks_exact(there)).zip(&*ranges);
            for ((row, sums), &range) in rows {
                let row = row.into_slice().expect(CONTIGUOUS);
                let sums = sums.iter().map(|&sum| f32::from_bits(sum));
                self.finish(simd, range, sums, row, column + start);
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn by_tiles<S: Simd + Tile>(self, simd: S, rectangle: Rectangle, scratch: &mut Scratch) {
        let Rectangle { row, column, mut out } = rectangle;
        let height = (BLOCK / self.b.k.max(1)).clamp(1, TALLEST);
        for first in (0..out.nrows()).step_by(height) {
            let rows = first..(first + height).min(out.nrows());
            let out = out.slice_mut(s![rows, ..]);
            self.block(simd, Rectangle { row: row + first, column, out }, scratch);
        }
    }

    /// A rectangle of as many rows as are packed at once.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn block<S: Simd + Tile>(self, simd: S, rectangle: Rectangle, scratch: &mut Scratch) {
        let Rectangle { row: start, column: first_column, mut out } = rectangle;
        let ((m, n), columns, precision) = (out.dim(), S::COLUMNS, self.b.precision);
        // Without a tile for the precision, each value is expanded to an `f32`, a word of its own.
        let exact = precision != Precision::Int8 || self.b.k <= DEEPEST_INT8;
        let native = simd.has_tile(precision) && exact;
        let per = if native { 1 } else { precision.values_per_word() };
        let tile = if native { precision } else { Precision::F32 };
        let (panel_words, words) = (self.b.words(), self.b.words() * per);
        let Scratch { rows, ranges, copy, bytes, expanded, sums } = scratch;

        // As few tiles as can be, of heights that differ by one at most.
        let tiles = m.div_ceil(S::ROWS);
        let edge = |i: usize| i * m / tiles;
        rows.clear();
        rows.resize(m * words, 0);
        ranges.clear();
        for i in 0..tiles {
            let (top, height) = (edge(i), edge(i + 1) - edge(i));
            let packed = &mut rows[top * words..(top + height) * words];
            for r in 0..height {
                let row = contiguous(self.a.row(start + top + r), copy);
                let place = (r, height);
                ranges.push(pack_row(precision, !native, self.alpha, row, place, bytes, packed));
            }
        }
        sums.clear();
        sums.resize(m * columns, 0);
        for column in (0..n).step_by(columns) {
            let panel = (first_column + column) / columns * panel_words * columns;
            let depth = DEPTH / per;
            for step in (0..panel_words).step_by(depth) {
                let end = (step + depth).min(panel_words);
                let mut b = &self.b.values[panel + step * columns..panel + end * columns];
                let (step, end) = (step * per, end * per);
                if !native {
                    expanded.resize((end - step) * columns, 0);
                    expand(precision, b, columns, expanded);
                    b = expanded;
                }
                for i in 0..tiles {
                    let (top, height) = (edge(i), edge(i + 1) - edge(i));
                    let a = &rows[top * words + step * height..top * words + end * height];
                    let sums = &mut sums[top * columns..(top + height) * columns];
                    tile_of(simd, tile, height, a, b, sums, step > 0);
                }
            }
            let there = columns.min(n - column);
            let mut out = out.slice_mut(s![.., column..column + there]);
            let rows = out.rows_mut().into_iter().zip(sums.chunks_exact(columns)).zip(&*ranges);
            for ((row, sums), &range) in rows {
                let row = row.into_slice().expect(CONTIGUOUS);
                let column = first_column + column;
                if tile == Precision::Int8 {
                    let sums = sums.iter().map(|&sum| sum as i32 as f32);
                    self.finish(simd, range, sums, row, column);
                } else {
                    let sums = sums.iter().map(|&sum| f32::from_bits(sum));
                    self.finish(simd, range, sums, row, column);
                }
            }
        }
    }
}

/// The tile of a height that is known when the program runs.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn tile_of<T: Tile>(
    simd: T,
    precision: Precision,
    height: usize,
    a: &[u32],
    b: &[u32],
    c: &mut [u32],
    accumulate: bool,
) {
    macro_rules! heights {
        ($($m:literal)*) => {
            match height {
                $($m => simd.tile::<$m>(precision, a, b, c, accumulate),)*
                _ => unreachable!("tiles have from 1 to {} rows", T::ROWS),
            }
        };
    }
    heights!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// The number of floating-point operations in `steps` rounds of multiply-adds on registers alone; `None` for the scalar
/// tier.
pub(super) fn register_multiply_adds(isa: Isa, steps: usize) -> Option<usize> {
    match (isa, steps) {
        (Isa::Scalar(_), _) => None,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2(simd), steps) => Some(simd.multiply_adds(steps)),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512(simd), steps) => Some(simd.multiply_adds(steps)),
    }
}

const CONTIGUOUS: &str = "the rows of `out` are contiguous";
