//! Distances of one row from many.

use super::isa::Isa;
use super::lanes::{LANES, Lanes, filled_up, fold, zip};
use super::simd::{Kernel, Tier};

/// The distance measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distance {
    /// `√Σ (aᵢ − bᵢ)²`
    Euclidean,
    /// `Σ |aᵢ − bᵢ|`
    Manhattan,
}

/// `out[r] = −distance(query, row r)` for the rows of the length of `query` that follow each other
/// in `rows`.
///
/// # Panics
///
/// If the lengths do not fit.
pub fn negative_distances(
    isa: Isa,
    distance: Distance,
    query: &[f32],
    rows: &[f32],
    out: &mut [f32],
) {
    assert_eq!(rows.len(), out.len() * query.len(), "negative_distances: whole rows");
    isa.run(Distances { distance, query, rows, out });
}

struct Distances<'a> {
    distance: Distance,
    query: &'a [f32],
    rows: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Distances<'_> {
    #[inline(always)]
    fn run<S: Tier>(self, _: S) {
        let Self { distance, query, rows, out } = self;
        let d = query.len();
        for (r, out) in out.iter_mut().enumerate() {
            let row = &rows[r * d..(r + 1) * d];
            *out = match distance {
                Distance::Euclidean => -sum_of_pairs(query, row, |a, b| (a - b) * (a - b)).sqrt(),
                Distance::Manhattan => -sum_of_pairs(query, row, |a, b| (a - b).abs()),
            };
        }
    }
}

/// `Σ f(aᵢ, bᵢ)` in the order of [`sum`](super::lanes::sum); `f(0, 0)` is 0.
#[inline(always)]
fn sum_of_pairs(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0; LANES];
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks(), b.as_chunks());
    let mut see = |a: Lanes, b: Lanes| {
        let terms = zip(a, b, &f);
        sums = zip(sums, terms, |sum, term| sum + term);
    };
    a.iter().zip(b).for_each(|(&a, &b)| see(a, b));
    if !a_tail.is_empty() {
        see(filled_up(a_tail, 0.0), filled_up(b_tail, 0.0));
    }
    fold(sums, |a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{assert_close, reference};

    #[test]
    fn every_isa_agrees_with_f64() {
        for d in [0, 1, 15, 16, 17, 768] {
            let query: Vec<f32> = (0..d).map(|i| (i as f32 * 0.3).cos()).collect();
            let rows: Vec<f32> = (0..2 * d).map(|i| (i as f32 * 0.7).sin()).collect();
            let want = |distance| {
                [0, 1].map(|r| -reference::distance(distance, &query, &rows[r * d..(r + 1) * d]))
            };
            for &isa in Isa::available() {
                let mut out = [0.0; 2];
                // 52 roundings of partial sums that are at most the sum: 52 · ε/2 of it, 39 and
                // 1000.
                negative_distances(isa, Distance::Euclidean, &query, &rows, &mut out);
                assert_close(&out, &want(Distance::Euclidean), 1.3e-4);
                negative_distances(isa, Distance::Manhattan, &query, &rows, &mut out);
                assert_close(&out, &want(Distance::Manhattan), 3.2e-3);
            }
        }
    }
}
