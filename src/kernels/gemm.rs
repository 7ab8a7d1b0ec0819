//! Matrix products: the one place through which all of them go.
//!
//! `C = α · A · Bᵀ`, since checkpoints store a linear layer as `[out, in]` and both operands are then read along their
//! rows. [`matmul`] is one product on the calling thread; [`par_matmul`] shares a product among the caller's rayon
//! threads by cutting `C` into rectangles, each of which one thread computes and then hands, still in cache, to an
//! *epilogue* (bias, activation).
//!
//! How `C` is cut depends on the number of threads; the sum behind each of its elements does not: `matrixmultiply` adds
//! along `K` in blocks of a fixed length, in the same order for every row and column. The tests hold it to that.

#![allow(unsafe_code, reason = "matrixmultiply takes pointers: see the block")]

use ndarray::{ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

/// Multiply-adds below which a product is not worth sharing among threads (some 5 µs of work).
const SMALL: usize = 1 << 19;

/// `out = alpha · a · bᵀ` on this thread.
///
/// `a`: `[M, K]`, `b`: `[N, K]`, `out`: `[M, N]`, all with any strides.
///
/// # Panics
///
/// If the shapes do not fit together.
pub fn matmul(alpha: f32, a: ArrayView2<f32>, b: ArrayView2<f32>, out: &mut ArrayViewMut2<f32>) {
    let ((m, k), (n, k_of_b)) = (a.dim(), b.dim());
    assert!(
        k == k_of_b && out.dim() == (m, n),
        "matmul: {:?} times {:?} transposed into {:?}",
        a.dim(),
        b.dim(),
        out.dim()
    );
    let (a_strides, b_strides) = (a.strides(), b.strides());
    let (out_row_stride, out_column_stride) = (out.strides()[0], out.strides()[1]);
    // SAFETY: the views guarantee that every element (i, j) within their dimensions, reached by their strides from
    // their pointer, is valid to read and, for `out`, to write, and that no two elements of `out` are the same. The
    // dimensions passed are those of the views, by the assertion; `b` is passed transposed by swapping its strides.
    unsafe {
        matrixmultiply::sgemm(
            m,
            k,
            n,
            alpha,
            a.as_ptr(),
            a_strides[0],
            a_strides[1],
            b.as_ptr(),
            b_strides[1],
            b_strides[0],
            0.0,
            out.as_mut_ptr(),
            out_row_stride,
            out_column_stride,
        );
    }
}

/// `out = a · bᵀ`, shared among the threads of the current rayon pool, then `epilogue(row, column)` for each piece of a
/// row of `out`, which begins at that column.
///
/// `a`: `[M, K]`, `b`: `[N, K]`, `out`: `[M, N]`, its rows contiguous. Every element of `out` is in exactly one piece.
///
/// # Panics
///
/// If the shapes do not fit together, or the rows of `out` are not contiguous.
pub fn par_matmul(
    a: ArrayView2<f32>,
    b: ArrayView2<f32>,
    out: ArrayViewMut2<f32>,
    epilogue: impl Fn(&mut [f32], usize) + Sync,
) {
    let tile = |Tile { row, column, mut out }: Tile| {
        let a = a.slice_axis(Axis(0), (row..row + out.nrows()).into());
        let b = b.slice_axis(Axis(0), (column..column + out.ncols()).into());
        matmul(1.0, a, b, &mut out);
        for row in out.rows_mut() {
            epilogue(row.into_slice().expect("the rows of `out` are contiguous"), column);
        }
    };
    let ((m, k), n) = (a.dim(), b.nrows());
    let (row_cuts, column_cuts) = cuts(m, n, k, rayon::current_num_threads());
    if row_cuts * column_cuts == 1 {
        tile(Tile { row: 0, column: 0, out });
    } else {
        Tile::split(out, row_cuts, column_cuts).into_par_iter().for_each(tile);
    }
}

/// A rectangle of a product: where it begins, and its elements.
struct Tile<'a> {
    row: usize,
    column: usize,
    out: ArrayViewMut2<'a, f32>,
}

impl<'a> Tile<'a> {
    fn split(mut out: ArrayViewMut2<'a, f32>, row_cuts: usize, column_cuts: usize) -> Vec<Self> {
        let (m, n) = out.dim();
        let mut tiles = Vec::with_capacity(row_cuts * column_cuts);
        for i in 0..row_cuts {
            let (row, end) = (i * m / row_cuts, (i + 1) * m / row_cuts);
            let (mut panel, below) = out.split_at(Axis(0), end - row);
            out = below;
            for j in 0..column_cuts {
                let (column, end) = (j * n / column_cuts, (j + 1) * n / column_cuts);
                let (tile, right) = panel.split_at(Axis(1), end - column);
                panel = right;
                tiles.push(Self { row, column, out: tile });
            }
        }
        tiles
    }
}

/// Into how many pieces to cut the rows and the columns of an `[m, n]` product of depth `k`: two tiles for each thread, so
/// that a thread that falls behind holds the others up less, and of all such cuts the one that packs least. (Each tile
/// packs its rows of `A` and of `B` again.)
fn cuts(m: usize, n: usize, k: usize, threads: usize) -> (usize, usize) {
    let work = m.saturating_mul(n).saturating_mul(k);
    if threads == 1 || work < SMALL {
        return (1, 1);
    }
    let tiles = (2 * threads).min(work / SMALL * 2).max(2);
    (1..=tiles.min(m))
        .map(|rows| (rows, tiles.div_ceil(rows).clamp(1, n)))
        .min_by_key(|&(rows, columns)| columns * m + rows * n)
        .unwrap_or((1, 1))
}

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
    fn agrees_with_f64_for_shapes_around_the_tiles() {
        for &(m, n, k) in &[
            (1, 1, 1),
            (1, 768, 768),
            (2, 3, 5),
            (7, 9, 8),
            (8, 8, 256),
            (17, 33, 257),
            (65, 130, 300),
            (130, 768, 768),
            (3, 5, 0),
            (0, 5, 3),
        ] {
            let (a, b) = (matrix(m, k, 1), matrix(n, k, 2));
            let want = exact(&a, &b);
            // Each of k additions rounds a partial sum that is at most Σ|a·b|: by half an epsilon of it, k times in the
            // worst case, √k times if the roundings are independent. Twice that is allowed.
            let size = exact(&a.mapv(f32::abs), &b.mapv(f32::abs));
            let tolerance = size * f64::from(f32::EPSILON) * (k as f64).sqrt();
            let mut got = Array2::from_elem((m, n), f32::NAN);
            matmul(1.0, a.view(), b.view(), &mut got.view_mut());
            for ((got, want), tolerance) in got.iter().zip(&want).zip(&tolerance) {
                assert!((f64::from(*got) - want).abs() <= *tolerance, "{m}×{n}×{k}: {got} {want}");
            }
            let mut shared = Array2::from_elem((m, n), f32::NAN);
            par_matmul(a.view(), b.view(), shared.view_mut(), |_, _| {});
            assert_eq!(got, shared, "{m}×{n}×{k}");
        }
    }

    #[test]
    fn the_scale_and_strided_views() {
        let (a, b) = (matrix(10, 12, 1), matrix(20, 12, 2));
        let (a, b) = (a.slice(s![2..9, 4..8]), b.slice(s![3..8;2, 4..8]));
        let mut wide = Array2::zeros((9, 9));
        matmul(0.5, a, b, &mut wide.slice_mut(s![1..8, 2..5]));
        let want = exact(&a.to_owned(), &b.to_owned()) * 0.5;
        for ((i, j), want) in want.indexed_iter() {
            assert!((f64::from(wide[[i + 1, j + 2]]) - want).abs() < 1e-6);
        }
        assert_eq!(wide.row(0).sum() + wide.row(8).sum() + wide.column(5).sum(), 0.0);
    }

    /// The promise that the whole crate rests on.
    #[test]
    fn a_row_has_the_same_bits_in_any_product_and_with_any_number_of_threads() {
        let (a, b) = (matrix(150, 768, 3), matrix(900, 768, 4));
        let mut whole = Array2::zeros((150, 900));
        matmul(1.0, a.view(), b.view(), &mut whole.view_mut());
        for i in [0, 1, 7, 63, 64, 149] {
            let mut row = Array2::zeros((1, 900));
            matmul(1.0, a.slice(s![i..=i, ..]), b.view(), &mut row.view_mut());
            assert_eq!(row.row(0), whole.row(i), "row {i} alone");
        }
        for threads in [1, 2, 3, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut shared = Array2::zeros((150, 900));
            pool.install(|| par_matmul(a.view(), b.view(), shared.view_mut(), |_, _| {}));
            assert_eq!(shared, whole, "{threads} threads");
        }
    }

    #[test]
    fn the_epilogue_sees_every_element_once() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let (a, b) = (Array2::zeros((70, 200)), Array2::zeros((130, 200)));
        let mut out = Array2::zeros((70, 130));
        let add_column = |row: &mut [f32], column: usize| {
            for (j, x) in row.iter_mut().enumerate() {
                *x += (column + j) as f32;
            }
        };
        pool.install(|| par_matmul(a.view(), b.view(), out.view_mut(), add_column));
        for ((_, j), &x) in out.indexed_iter() {
            assert_eq!(x, j as f32);
        }
    }

    #[test]
    fn cuts_leave_no_empty_tile() {
        for (m, n) in [(1, 1), (1, 3072), (3, 2), (2048, 768), (5, 1_000_000)] {
            for threads in [1, 2, 3, 8, 64] {
                let (rows, columns) = cuts(m, n, 768, threads);
                assert!((1..=m).contains(&rows) && (1..=n).contains(&columns));
            }
        }
    }
}
