//! How many bits differ: one row of bits against many.

use super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::simd::{Amx, Avx2, Avx512};
use super::simd::{Kernel, Scalar};

/// Rows that are compared at once: a whole AVX-512 register of words.
pub const ROWS: usize = 8;

/// `out[r] = −(bits in which row r differs from query)`, a whole number of at most 2²⁴ and so exact.
///
/// `query`: `[W]` words; `rows`: groups of [`ROWS`] rows, each group `[W][ROWS]`; `out`: `[groups · ROWS]`.
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

impl Hamming<'_> {
    #[inline(always)]
    fn count(self) {
        let (groups, _) = self.out.as_chunks_mut::<ROWS>();
        if self.query.is_empty() {
            groups.as_flattened_mut().fill(0.0);
            return;
        }
        for (group, out) in self.rows.chunks_exact(self.query.len() * ROWS).zip(groups) {
            let mut counts = [0_u64; ROWS];
            for (words, &query) in group.as_chunks::<ROWS>().0.iter().zip(self.query) {
                for (count, &word) in counts.iter_mut().zip(words) {
                    *count += u64::from((word ^ query).count_ones());
                }
            }
            for (out, &count) in out.iter_mut().zip(&counts) {
                *out = -(count as i32 as f32);
            }
        }
    }
}

impl Kernel<Scalar> for Hamming<'_> {
    fn run(self, _: Scalar) {
        self.count();
    }
}

#[cfg(target_arch = "x86_64")]
impl Kernel<Avx2> for Hamming<'_> {
    #[inline(always)]
    fn run(self, _: Avx2) {
        self.count();
    }
}

#[cfg(target_arch = "x86_64")]
impl Kernel<Avx512> for Hamming<'_> {
    #[inline(always)]
    #[allow(unsafe_code, reason = "calls a function that needs the instruction: see the block")]
    fn run(self, simd: Avx512) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq")]
        fn with_popcount(hamming: Hamming) {
            hamming.count();
        }
        if simd.has_vpopcntdq() {
            // SAFETY: an `Avx512` exists only where its features were detected; this one was just now asked for.
            unsafe { with_popcount(self) }
        } else {
            self.count();
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Kernel<Amx> for Hamming<'_> {
    #[inline(always)]
    fn run(self, simd: Amx) {
        Kernel::<Avx512>::run(self, simd.avx512());
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
