//! Matrix products: the one place through which all of them go.
//!
//! `C = α · A · Bᵀ`, since checkpoints store a linear layer as `[out, in]`. `B` is packed once ([`PackedMatrix`]), into the
//! order in which the instruction set's tile reads it. [`matmul`] is one product on the calling thread; [`par_matmul`] shares
//! a product among the caller's rayon threads by cutting `C` into rectangles, and hands each piece of a finished row, still
//! in cache, to an [`Epilogue`].
//!
//! How `C` is cut depends on the number of threads; the sum behind each of its elements does not. Every tile adds along `K`
//! from front to back, in blocks of [`DEPTH`] (`matrixmultiply` in blocks of its own), whatever the other sizes are and
//! however many rows the tile has. The tests hold it to that.

#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(target_arch = "x86_64")]
mod tile;

use std::cell::RefCell;

use ndarray::{ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use super::activation::{Activation, activate};
use super::isa::Isa;
use super::simd::{Kernel, Scalar, Simd};
#[cfg(target_arch = "x86_64")]
use {
    super::simd::{Avx2, Avx512},
    pack::{pack_panel, pack_rows},
    tile::Tile,
};

/// Steps of the sum between two visits to the partial results: a panel of 32 columns then is 24 KiB and stays, with the
/// rows that meet it, in a first-level cache of 32 KiB or more.
const DEPTH: usize = 192;

/// Packed values of `A` that one task works on: 512 KiB, half of a second-level cache of 1 MiB.
const BLOCK: usize = 128 << 10;

/// Multiply-adds below which a product is not worth sharing among threads (some 5 µs of work).
const SMALL: usize = 1 << 19;

/// The right-hand side of a product, `B` `[N, K]`, in the order of one instruction set.
#[derive(Debug, Clone)]
pub struct PackedMatrix {
    isa: Isa,
    n: usize,
    k: usize,
    /// Of a vector tier: panels, each `[K][COLUMNS]`, the last one filled up with zeros. Of the scalar tier: `[N, K]`.
    values: Vec<f32>,
}

impl PackedMatrix {
    /// Packs `b` `[N, K]` for `isa`, in parallel if it is large.
    #[must_use]
    pub fn new(isa: Isa, b: ArrayView2<f32>) -> Self {
        let mut packed = Self { isa, n: 0, k: 0, values: Vec::new() };
        packed.resize(b);
        let (k, columns) = (packed.k, isa.columns());
        if k > 0 {
            packed.values.par_chunks_mut(k * columns).enumerate().for_each(|(panel, out)| {
                pack_panel_for(isa, b, panel * columns, out);
            });
        }
        packed
    }

    /// An empty matrix for `isa`, to be packed into again and again.
    #[must_use]
    pub fn empty(isa: Isa) -> Self {
        Self { isa, n: 0, k: 0, values: Vec::new() }
    }

    /// Packs `b` on this thread, into the memory that is there.
    pub fn repack(&mut self, b: ArrayView2<f32>) {
        self.resize(b);
        let (isa, k, columns) = (self.isa, self.k, self.isa.columns());
        if k > 0 {
            for (panel, out) in self.values.chunks_mut(k * columns).enumerate() {
                pack_panel_for(isa, b, panel * columns, out);
            }
        }
    }

    /// `N`: columns of a product with this matrix.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.n
    }

    fn resize(&mut self, b: ArrayView2<f32>) {
        (self.n, self.k) = b.dim();
        let columns = self.isa.columns();
        self.values.resize(self.n.div_ceil(columns) * columns * self.k, 0.0);
    }
}

fn pack_panel_for(isa: Isa, b: ArrayView2<f32>, column: usize, out: &mut [f32]) {
    match isa {
        // A "panel" of one column, `[K]`, is a row of `b`.
        Isa::Scalar(_) => out.iter_mut().zip(b.row(column)).for_each(|(out, x)| *out = *x),
        #[cfg(target_arch = "x86_64")]
        _ => pack_panel(b, column, isa.columns(), out),
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
    let tile = Rectangle { row: 0, column: 0, out: out.view_mut() };
    b.isa.run(Product { alpha, a, b, epilogue: Epilogue::None, rectangle: tile });
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
    let run = |rectangle: Rectangle| {
        b.isa.run(Product { alpha: 1.0, a, b, epilogue, rectangle });
    };
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
                let rows = m.div_ceil((BLOCK / k).max(1));
                let panels = n.div_ceil(self.columns());
                (rows, wanted.div_ceil(rows).clamp(1, panels))
            }
        }
    }
}

/// One rectangle of a product, on one thread.
struct Product<'a, 'b> {
    alpha: f32,
    a: ArrayView2<'a, f32>,
    b: &'a PackedMatrix,
    epilogue: Epilogue<'a>,
    rectangle: Rectangle<'b>,
}

impl Kernel<Scalar> for Product<'_, '_> {
    fn run(self, simd: Scalar) {
        self.by_matrixmultiply(simd);
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! by_tiles {
    ($($simd:ty),*) => {$(
        impl Kernel<$simd> for Product<'_, '_> {
            #[inline(always)]
            fn run(self, simd: $simd) {
                self.by_tiles(simd);
            }
        }
    )*};
}
#[cfg(target_arch = "x86_64")]
by_tiles!(Avx2, Avx512);

thread_local! {
    /// Packed rows of `A` and the partial results of a panel, kept from product to product: at most about 600 KiB a thread
    /// for `K` up to [`BLOCK`].
    static SCRATCH: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

impl Product<'_, '_> {
    #[allow(unsafe_code, reason = "matrixmultiply takes pointers: see the block")]
    fn by_matrixmultiply(self, simd: Scalar) {
        let Rectangle { row, column, mut out } = self.rectangle;
        let ((m, n), k) = (out.dim(), self.b.k);
        let a = self.a.slice(s![row..row + m, ..]);
        let b = &self.b.values[column * k..(column + n) * k];
        let (out_rows, out_columns) = (out.strides()[0], out.strides()[1]);
        // SAFETY: the views guarantee that every element (i, j) within their dimensions, reached by their strides from
        // their pointer, is valid to read and, for `out`, to write, and that no two elements of `out` are the same. `b` is
        // a slice of n rows of k values, passed transposed by swapping its strides. The dimensions agree by `check`.
        unsafe {
            matrixmultiply::sgemm(
                m,
                k,
                n,
                self.alpha,
                a.as_ptr(),
                a.strides()[0],
                a.strides()[1],
                b.as_ptr(),
                1,
                k as isize,
                0.0,
                out.as_mut_ptr(),
                out_rows,
                out_columns,
            );
        }
        for row in out.rows_mut() {
            self.epilogue.apply(simd, row.into_slice().expect(CONTIGUOUS), column);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn by_tiles<S: Simd + Tile>(mut self, simd: S) {
        SCRATCH.with_borrow_mut(|(packed, sums)| {
            let k = self.b.k;
            let rows = (BLOCK / k.max(1)).max(1);
            for first in (0..self.rectangle.out.nrows()).step_by(rows) {
                let m = rows.min(self.rectangle.out.nrows() - first);
                self.block(simd, first, m, packed, sums);
            }
        });
    }

    /// Rows `first..first + m` of the rectangle.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn block<S: Simd + Tile>(
        &mut self,
        simd: S,
        first: usize,
        m: usize,
        packed: &mut Vec<f32>,
        sums: &mut Vec<f32>,
    ) {
        let (k, columns) = (self.b.k, S::COLUMNS);
        // As few tiles as can be, of heights that differ by one at most.
        let tiles = m.div_ceil(S::ROWS);
        let edge = |i: usize| i * m / tiles;
        let start = self.rectangle.row + first;
        packed.resize(m * k, 0.0);
        for i in 0..tiles {
            let rows = self.a.slice(s![start + edge(i)..start + edge(i + 1), ..]);
            pack_rows(rows, self.alpha, &mut packed[edge(i) * k..edge(i + 1) * k]);
        }
        sums.resize(m * columns, 0.0);
        let n = self.rectangle.out.ncols();
        for column in (0..n).step_by(columns) {
            let panel = (self.rectangle.column + column) / columns;
            let b = &self.b.values[panel * k * columns..(panel + 1) * k * columns];
            if k == 0 {
                sums.fill(0.0);
            }
            for step in (0..k).step_by(DEPTH) {
                let depth = DEPTH.min(k - step);
                let b = &b[step * columns..(step + depth) * columns];
                for i in 0..tiles {
                    let (top, height) = (edge(i), edge(i + 1) - edge(i));
                    let a = &packed[top * k + step * height..top * k + (step + depth) * height];
                    let sums = &mut sums[top * columns..(top + height) * columns];
                    tile_of(simd, height, a, b, sums, step > 0);
                }
            }
            let there = columns.min(n - column);
            let mut out =
                self.rectangle.out.slice_mut(s![first..first + m, column..column + there]);
            for (row, sums) in out.rows_mut().into_iter().zip(sums.chunks_exact(columns)) {
                let row = row.into_slice().expect(CONTIGUOUS);
                row.copy_from_slice(&sums[..there]);
                self.epilogue.apply(simd, row, self.rectangle.column + column);
            }
        }
    }
}

/// The number of floating-point operations in `steps` rounds of multiply-adds on registers alone; `None` for the scalar
/// tier.
pub(super) fn register_multiply_adds(isa: Isa, steps: usize) -> Option<usize> {
    match isa {
        Isa::Scalar(_) => None,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(simd) => Some(simd.multiply_adds(steps)),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(simd) => Some(simd.multiply_adds(steps)),
    }
}

/// The tile of a height that is known when the program runs.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn tile_of<T: Tile>(simd: T, height: usize, a: &[f32], b: &[f32], c: &mut [f32], accumulate: bool) {
    macro_rules! heights {
        ($($m:literal)*) => {
            match height {
                $($m => simd.tile::<$m>(a, b, c, accumulate),)*
                _ => unreachable!("tiles have from 1 to {} rows", T::ROWS),
            }
        };
    }
    heights!(1 2 3 4 5 6 7 8 9 10 11 12);
}

const CONTIGUOUS: &str = "the rows of `out` are contiguous";

#[cfg(test)]
mod tests {
    use ndarray::{Array2, s};

    use super::*;

    fn matrix(rows: usize, columns: usize, seed: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |(i, j)| ((i * 31 + j * 7 + seed) as f32).sin())
    }

    fn exact(a: &Array2<f32>, b: &Array2<f32>) -> Array2<f64> {
        a.mapv(f64::from).dot(&b.mapv(f64::from).t())
    }

    #[test]
    fn every_isa_agrees_with_f64_for_shapes_around_the_tiles() {
        for &(m, n, k) in &[
            (1, 1, 1),
            (1, 768, 768),
            (2, 3, 5),
            (5, 15, 8),
            (6, 16, 191),
            (7, 17, 192),
            (11, 31, 193),
            (12, 32, 256),
            (13, 33, 384),
            (25, 65, 385),
            (65, 130, 300),
            (180, 100, 768),
            (50, 40, 3072),
            (3, 5, 0),
            (0, 5, 3),
            (3, 0, 5),
        ] {
            let (a, b) = (matrix(m, k, 1), matrix(n, k, 2));
            let want = exact(&a, &b);
            // Each of k additions rounds a partial sum that is at most Σ|a·b|: by half an epsilon of it, k times in the
            // worst case, √k times if the roundings are independent. Twice that is allowed.
            let size = exact(&a.mapv(f32::abs), &b.mapv(f32::abs));
            let tolerance = size * f64::from(f32::EPSILON) * (k as f64).sqrt();
            for &isa in Isa::available() {
                let b = PackedMatrix::new(isa, b.view());
                let mut got = Array2::from_elem((m, n), f32::NAN);
                matmul(1.0, a.view(), &b, &mut got.view_mut());
                for ((got, want), tolerance) in got.iter().zip(&want).zip(&tolerance) {
                    let distance = (f64::from(*got) - want).abs();
                    assert!(distance <= *tolerance, "{isa}, {m}×{n}×{k}: {got} {want}");
                }
                let mut shared = Array2::from_elem((m, n), f32::NAN);
                par_matmul(a.view(), &b, shared.view_mut(), Epilogue::None);
                assert_eq!(got, shared, "{isa}, {m}×{n}×{k}");
            }
        }
    }

    #[test]
    fn the_scale_strided_views_and_memory_used_again() {
        let (a, b) = (matrix(10, 12, 1), matrix(20, 12, 2));
        let (a, b) = (a.slice(s![2..9, 4..8]), b.slice(s![3..8;2, 4..8]));
        let want = exact(&a.to_owned(), &b.to_owned()) * 0.5;
        for &isa in Isa::available() {
            let mut packed = PackedMatrix::empty(isa);
            packed.repack(matrix(40, 50, 3).view());
            packed.repack(b);
            let mut wide = Array2::zeros((9, 9));
            matmul(0.5, a, &packed, &mut wide.slice_mut(s![1..8, 2..5]));
            for ((i, j), want) in want.indexed_iter() {
                assert!((f64::from(wide[[i + 1, j + 2]]) - want).abs() < 1e-6, "{isa}");
            }
            assert_eq!(wide.row(0).sum() + wide.row(8).sum() + wide.column(5).sum(), 0.0);
        }
    }

    /// The promise that the whole crate rests on.
    #[test]
    fn a_row_has_the_same_bits_in_any_product_and_with_any_number_of_threads() {
        let (a, b) = (matrix(380, 768, 3), matrix(900, 768, 4));
        for &isa in Isa::available() {
            let b = PackedMatrix::new(isa, b.view());
            let mut whole = Array2::zeros((380, 900));
            matmul(1.0, a.view(), &b, &mut whole.view_mut());
            for i in [0, 1, 7, 11, 12, 63, 64, 170, 379] {
                let mut row = Array2::zeros((1, 900));
                matmul(1.0, a.slice(s![i..=i, ..]), &b, &mut row.view_mut());
                assert_eq!(row.row(0), whole.row(i), "{isa}: row {i} alone");
            }
            for threads in [1, 2, 3, 8] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                for m in [13, 380] {
                    let mut shared = Array2::zeros((m, 900));
                    let rows = a.slice(s![..m, ..]);
                    pool.install(|| par_matmul(rows, &b, shared.view_mut(), Epilogue::None));
                    assert_eq!(shared, whole.slice(s![..m, ..]), "{isa}: {threads} threads");
                }
            }
        }
    }

    #[test]
    fn the_epilogue_sees_every_element_once() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let (a, b) = (Array2::zeros((70, 200)), Array2::zeros((130, 200)));
        let bias: Vec<f32> = (0..130).map(|j| j as f32 - 65.0).collect();
        for &isa in Isa::available() {
            let b = PackedMatrix::new(isa, b.view());
            let mut out = Array2::zeros((70, 130));
            let epilogue = Epilogue::Bias(&bias, Activation::Relu);
            pool.install(|| par_matmul(a.view(), &b, out.view_mut(), epilogue));
            for ((_, j), &x) in out.indexed_iter() {
                assert_eq!(x, bias[j].max(0.0), "{isa}");
            }
        }
    }

    #[test]
    fn cuts_leave_no_empty_piece() {
        for &isa in Isa::available() {
            for (m, n) in [(1, 1), (1, 3072), (3, 2), (2048, 768), (5, 1_000_000), (13, 770)] {
                for threads in [1, 2, 3, 8, 64] {
                    let mut out = Array2::<f32>::zeros((m, n));
                    let cuts = isa.cuts(m, n, 768, threads);
                    let pieces = Rectangle::split(out.view_mut(), cuts, isa.columns());
                    assert!(pieces.iter().all(|piece| !piece.out.is_empty()), "{isa} {m}×{n}");
                    assert_eq!(pieces.iter().map(|piece| piece.out.len()).sum::<usize>(), m * n);
                }
            }
        }
    }
}
