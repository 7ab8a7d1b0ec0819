//! Operands in the order in which a tile reads them.

use ndarray::{ArrayView2, s};

/// Appends the rows of `a` `[M, K]`, times `alpha`, as `[K][M]`.
pub(super) fn pack_rows(a: ArrayView2<f32>, alpha: f32, out: &mut [f32]) {
    let (m, k) = a.dim();
    debug_assert_eq!(out.len(), m * k);
    for (i, row) in a.rows().into_iter().enumerate() {
        for (p, &x) in row.iter().enumerate() {
            out[p * m + i] = alpha * x;
        }
    }
}

/// Columns `column..` of `Bᵀ`, that is rows of `b` `[N, K]`, as one panel `[K][columns]`; what is beyond `N` is zero.
pub(super) fn pack_panel(b: ArrayView2<f32>, column: usize, columns: usize, out: &mut [f32]) {
    let (n, k) = b.dim();
    debug_assert_eq!(out.len(), k * columns);
    let there = columns.min(n - column);
    if there < columns {
        out.fill(0.0);
    }
    // In squares, so that both sides stay in cache: `b` is read along its rows, `out` is written along its own.
    const SQUARE: usize = 16;
    for first in (0..k).step_by(SQUARE) {
        let depth = SQUARE.min(k - first);
        let block = b.slice(s![column..column + there, first..first + depth]);
        for (j, row) in block.rows().into_iter().enumerate() {
            for (p, &x) in row.iter().enumerate() {
                out[(first + p) * columns + j] = x;
            }
        }
    }
}
