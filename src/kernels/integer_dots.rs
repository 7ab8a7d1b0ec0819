//! Dot products of short integers: one row against many.

use super::isa::Isa;
use super::simd::{Kernel, Tier};

/// The largest absolute value of bytes, signed or not.
const LARGEST: u16 = u8::MAX as u16;

/// The widest rows of bytes, signed or not, whose dot products are sure to be an `i32`.
pub const WIDEST: usize = i32::MAX as usize / (LARGEST as usize * LARGEST as usize);

/// `Σ aᵢ · bᵢ` of each of `rows`, `[out.len()][query.len()]`, with `query`: `out[r]`, exact.
///
/// The values are those of bytes, from −255 to 255. They are not checked in a release build, where
/// a sum of larger ones may wrap around.
///
/// # Panics
///
/// If the lengths do not fit, or rows are longer than [`WIDEST`].
pub fn integer_dots(isa: Isa, query: &[i16], rows: &[i16], out: &mut [i32]) {
    assert_eq!(rows.len(), out.len() * query.len(), "integer_dots: whole rows");
    let d = query.len();
    assert!(d <= WIDEST, "integer_dots: rows of {d} may overflow, {WIDEST} is the most");
    debug_assert!(
        query.iter().chain(rows).all(|x| x.unsigned_abs() <= LARGEST),
        "integer_dots: values of bytes"
    );
    isa.run(IntegerDots { query, rows, out });
}

struct IntegerDots<'a> {
    query: &'a [i16],
    rows: &'a [i16],
    out: &'a mut [i32],
}

impl Kernel for IntegerDots<'_> {
    #[inline(always)]
    fn run<S: Tier>(self, _: S) {
        if self.query.is_empty() {
            self.out.fill(0);
            return;
        }
        for (row, out) in self.rows.chunks_exact(self.query.len()).zip(self.out) {
            // Wrapping: lengths and values keep the sums in range, and a check for each would cost
            // the vector instructions.
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
    use crate::kernels::reference;

    #[test]
    fn the_widest_rows_of_the_largest_values_are_exact_and_wider_ones_are_refused() {
        for (query, value) in [(255, 255), (-128, -128), (255, -255)] {
            let (query, row) = (vec![query; WIDEST], vec![value; WIDEST]);
            for &isa in Isa::available() {
                let mut out = [0];
                integer_dots(isa, &query, &row, &mut out);
                assert_eq!(i64::from(out[0]), reference::integer_dot(&query, &row), "{isa}");
            }
        }
        let wider = vec![0; WIDEST + 1];
        let refused =
            std::panic::catch_unwind(|| integer_dots(Isa::best(), &wider, &wider, &mut [0]));
        assert!(refused.is_err());
    }

    #[test]
    fn every_isa_is_exact() {
        for d in [0, 1, 31, 32, 33, 768] {
            let query: Vec<i16> = (0..d).map(|i| (i * 7 % 256) as i16 - 128).collect();
            let rows: Vec<i16> = (0..3 * d).map(|i| (i * 13 % 256) as i16).collect();
            for &isa in Isa::available() {
                let mut out = [1; 3];
                integer_dots(isa, &query, &rows, &mut out);
                for (r, &got) in out.iter().enumerate() {
                    let want = reference::integer_dot(&rows[r * d..(r + 1) * d], &query);
                    assert_eq!(i64::from(got), want, "{isa}, {d}");
                }
            }
        }
    }
}
