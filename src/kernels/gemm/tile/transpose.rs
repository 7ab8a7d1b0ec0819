//! Rows into a panel, four by four. Packing `f32`s is a transposition, and where `B` is used only once (a corpus that is
//! searched) it costs a fifth of the product with a hundred rows.

use std::arch::x86_64::*;

/// `panel[i][j] = rows[j][i]`, as bits, for all `n` of `rows` `[n, K]`; `panel`: `[K][columns]`, whose other columns stay.
pub(in super::super) fn transpose(rows: &[f32], n: usize, columns: usize, panel: &mut [u32]) {
    let k = rows.len() / n.max(1);
    assert!(n <= columns && rows.len() == n * k && panel.len() == k * columns, "transpose");
    let (fours, lines) = (n / 4 * 4, k / LINE * LINE);
    for start in (0..lines).step_by(LINE) {
        let panel = &mut panel[start * columns..][..LINE * columns];
        for j in (0..fours).step_by(4) {
            let line = |r| rows[(j + r) * k + start..].first_chunk().expect("a line is there");
            transpose_lines(std::array::from_fn(line), &mut panel[j..], columns);
        }
    }
    for j in 0..n {
        let from = if j < fours { lines } else { 0 };
        for (i, x) in rows[j * k..][..k].iter().enumerate().skip(from) {
            panel[i * columns + j] = x.to_bits();
        }
    }
}

/// Values along `K` between two visits to a row: a cache line.
const LINE: usize = 16;

/// `out[i · columns + j] = rows[j][i]`.
#[inline(always)]
#[allow(unsafe_code, reason = "loads and stores by pointer: see the block")]
fn transpose_lines(rows: [&[f32; LINE]; 4], out: &mut [u32], columns: usize) {
    assert!(out.len() >= (LINE - 1) * columns + 4, "transpose: room for {LINE} rows");
    for i in (0..LINE).step_by(4) {
        // SAFETY: SSE is part of every x86-64. `i` is at most LINE − 4, so each row has the four values that are loaded, and
        // `out`, by the assertion, the four places of each of its LINE rows; a `u32` may have any bits.
        unsafe {
            let [mut a, mut b, mut c, mut d] = rows.map(|row| _mm_loadu_ps(row.as_ptr().add(i)));
            _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
            for (r, column) in [a, b, c, d].into_iter().enumerate() {
                _mm_storeu_ps(out.as_mut_ptr().add((i + r) * columns).cast(), column);
            }
        }
    }
}
