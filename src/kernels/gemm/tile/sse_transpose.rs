//! Rows into a panel, four by four. Packing is a transposition, and where `B` is used only once (a
//! corpus that is searched, the keys of a text) it costs a fifth of the product with a hundred
//! rows.

use std::arch::x86_64::*;

/// `panel[i][j] = rows[j][i]` for all rows and for as many words of them as the panel has steps;
/// `panel`: `[words][rows]`.
#[inline(always)]
pub(super) fn transpose<const WORDS: usize>(rows: &[[u32; WORDS]], panel: &mut [u32]) {
    let columns = rows.len();
    let words = panel.len() / columns.max(1);
    let (fours, whole) = (columns / 4 * 4, words / 4 * 4);
    for i in (0..whole).step_by(4) {
        for j in (0..fours).step_by(4) {
            let of = |r: usize| rows[j + r][i..].first_chunk().expect("four words are there");
            transpose_four(std::array::from_fn(of), &mut panel[i * columns + j..], columns);
        }
    }
    for (j, row) in rows.iter().enumerate() {
        for i in if j < fours { whole } else { 0 }..words {
            panel[i * columns + j] = row[i];
        }
    }
}

/// `out[i · columns + j] = rows[j][i]`.
#[inline(always)]
#[allow(unsafe_code, reason = "loads and stores by pointer: see the block")]
fn transpose_four(rows: [&[u32; 4]; 4], out: &mut [u32], columns: usize) {
    assert!(out.len() >= 3 * columns + 4, "transpose: room for four rows");
    // SAFETY: SSE is part of every x86-64. Each row has the four words that are loaded, and `out`,
    // by the assertion, four places in each of four rows; any bits are valid in a `u32` and in a
    // register.
    unsafe {
        let [mut a, mut b, mut c, mut d] = rows.map(|row| _mm_loadu_ps(row.as_ptr().cast()));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        for (r, column) in [a, b, c, d].into_iter().enumerate() {
            _mm_storeu_ps(out.as_mut_ptr().add(r * columns).cast(), column);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_rows_and_words() {
        let rows: [[u32; 8]; 7] =
            std::array::from_fn(|j| std::array::from_fn(|i| (10 * j + i) as u32));
        for columns in 0..=7 {
            for words in 0..=8 {
                let mut panel = vec![0; words * columns];
                transpose(&rows[..columns], &mut panel);
                for (at, &word) in panel.iter().enumerate() {
                    assert_eq!(word as usize, 10 * (at % columns) + at / columns);
                }
            }
        }
    }
}
