//! How many bits differ: one row of bits against many.

use super::isa::Isa;
use super::lanes::WORD_LANES;
use super::simd::{Kernel, Tier};

/// Rows that are compared at once.
pub const ROWS: usize = WORD_LANES;

/// `out[r] = −(bits in which row r differs from query)`, a whole number of at most 2²⁴ and so
/// exact.
///
/// `query`: `[W]` words; `rows`: groups of [`ROWS`] rows, each group `[W][ROWS]`; `out`: `[groups ·
/// ROWS]`.
///
/// # Panics
///
/// If the lengths do not fit.
pub fn negative_hamming(isa: Isa, query: &[u64], rows: &[u64], out: &mut [f32]) {
    assert!(
        out.len().is_multiple_of(ROWS) && rows.len() == out.len() * query.len(),
        "negative_hamming: {} words against {} for {} rows",
        query.len(),
        rows.len(),
        out.len()
    );
    isa.run(Hamming { query, rows, out });
}

struct Hamming<'a> {
    query: &'a [u64],
    rows: &'a [u64],
    out: &'a mut [f32],
}

impl Kernel for Hamming<'_> {
    #[inline(always)]
    fn run<S: Tier>(self, simd: S) {
        simd.negative_differing_bits(self.query, self.rows, self.out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::reference;

    #[test]
    fn every_isa_counts_the_bits() {
        let words = |n: usize| (0..n as u64).map(|i| (i + 3).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for (w, groups) in [(0, 1), (1, 1), (3, 2), (12, 3)] {
            let query: Vec<u64> = words(w).map(|word| word.rotate_left(17)).collect();
            let rows: Vec<u64> = words(w * groups * ROWS).collect();
            for &isa in Isa::available() {
                let mut out = vec![1.0; groups * ROWS];
                negative_hamming(isa, &query, &rows, &mut out);
                for (r, &got) in out.iter().enumerate() {
                    let word = |i: usize| rows[(r / ROWS * w + i) * ROWS + r % ROWS];
                    let want = reference::hamming((0..w).map(word), &query);
                    assert_eq!(got, -(want as f32), "{isa}, {w} words, row {r}");
                }
            }
        }
    }
}
