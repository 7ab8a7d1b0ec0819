//! Lengths of rows.

use super::isa::Isa;
use super::lanes::sum;
use super::simd::{Kernel, Tier};

/// `out[i] = 1 / max(‖rowᵢ‖, smallest)` for the rows of length `d` that follow each other in
/// `rows`, `[out.len() · d]`.
///
/// # Panics
///
/// If the lengths do not fit.
pub fn inverse_norms(isa: Isa, rows: &[f32], smallest: f32, out: &mut [f32]) {
    assert!(rows.len().is_multiple_of(out.len().max(1)), "inverse_norms: whole rows");
    isa.run(InverseNorms { rows, smallest, out });
}

struct InverseNorms<'a> {
    rows: &'a [f32],
    smallest: f32,
    out: &'a mut [f32],
}

impl Kernel for InverseNorms<'_> {
    #[inline(always)]
    fn run<S: Tier>(self, _: S) {
        let d = self.rows.len() / self.out.len().max(1);
        for (i, out) in self.out.iter_mut().enumerate() {
            let squares = sum(&self.rows[i * d..(i + 1) * d], 0.0, |x| x * x);
            *out = 1.0 / squares.sqrt().max(self.smallest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::reference;

    #[test]
    fn every_isa_agrees_with_f64() {
        for d in [0, 1, 15, 16, 17, 768] {
            let rows: Vec<f32> = (0..3 * d).map(|i| (i as f32 * 0.7).sin()).collect();
            for &isa in Isa::available() {
                let mut out = [0.0; 3];
                inverse_norms(isa, &rows, 1e-12, &mut out);
                for (i, &got) in out.iter().enumerate() {
                    let want = reference::inverse_norm(&rows[i * d..(i + 1) * d], 1e-12);
                    // 48 roundings of partial sums, half of that after the root.
                    assert!((f64::from(got) / want - 1.0).abs() < 3e-6, "{isa}, {d}: {got} {want}");
                }
            }
        }
    }
}
