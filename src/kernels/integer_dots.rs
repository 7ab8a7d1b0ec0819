//! Dot products of short integers: one row against many.

use super::isa::Isa;
use super::simd::{Kernel, Simd};

/// `Σ aᵢ · bᵢ` of each of `rows`, `[out.len()][query.len()]`, with `query`: `out[r]`, exact.
///
/// # Panics
///
/// If the lengths do not fit.
pub fn integer_dots(isa: Isa, query: &[i16], rows: &[i16], out: &mut [i32]) {
    assert_eq!(rows.len(), out.len() * query.len(), "integer_dots: whole rows");
    isa.run(IntegerDots { query, rows, out });
}

struct IntegerDots<'a> {
    query: &'a [i16],
    rows: &'a [i16],
    out: &'a mut [i32],
}

impl<S: Simd> Kernel<S> for IntegerDots<'_> {
    #[inline(always)]
    fn run(self, _: S) {
        if self.query.is_empty() {
            self.out.fill(0);
            return;
        }
        for (row, out) in self.rows.chunks_exact(self.query.len()).zip(self.out) {
            // Wrapping: the caller keeps the sums in range, and a check for each would cost the vector instructions.
            *out = row
                .iter()
                .zip(self.query)
                .fold(0_i32, |sum, (&a, &b)| sum.wrapping_add(i32::from(a) * i32::from(b)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_isa_is_exact() {
        for d in [0, 1, 31, 32, 33, 768] {
            let query: Vec<i16> = (0..d).map(|i| (i * 7 % 256) as i16 - 128).collect();
            let rows: Vec<i16> = (0..3 * d).map(|i| (i * 13 % 256) as i16).collect();
            for &isa in Isa::available() {
                let mut out = [1; 3];
                integer_dots(isa, &query, &rows, &mut out);
                for (r, &got) in out.iter().enumerate() {
                    let row = &rows[r * d..(r + 1) * d];
                    let want: i64 =
                        row.iter().zip(&query).map(|(&a, &b)| i64::from(a) * i64::from(b)).sum();
                    assert_eq!(i64::from(got), want, "{isa}, {d}");
                }
            }
        }
    }
}
