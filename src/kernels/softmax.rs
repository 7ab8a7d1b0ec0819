//! Softmax of one row of attention scores, with the position bias added on the way.

use super::isa::Isa;
use super::lanes::{LANES, fold, map, update, update_with, zip};
use super::simd::{Kernel, Simd, Tier};

/// Replaces the scores in `row` by `softmax(scale · row + bias)`:
///
/// ```text
/// row[j] ← exp(x[j] − m) / Σ exp(x[j] − m),    x = scale · row + bias,    m = max x[j]
/// ```
///
/// `row`, `bias`: `[T]`. Within 4·10⁻⁷ of the exact probabilities for the same `f32` scores. A
/// score of −∞ has the probability 0; NaN, +∞, or a row of nothing but −∞ makes the whole row NaN.
///
/// # Panics
///
/// If the lengths differ.
pub fn softmax(isa: Isa, row: &mut [f32], scale: f32, bias: &[f32]) {
    assert_eq!(row.len(), bias.len(), "softmax: one bias for each score");
    isa.run(Softmax { row, scale, bias });
}

struct Softmax<'a> {
    row: &'a mut [f32],
    scale: f32,
    bias: &'a [f32],
}

impl Kernel for Softmax<'_> {
    #[inline(always)]
    fn run<S: Tier>(self, simd: S) {
        let Self { row, scale, bias } = self;
        const LEAST: f32 = f32::NEG_INFINITY;
        let mut max = [LEAST; LANES];
        update_with(row, bias, (0.0, LEAST), |x, bias| {
            let x = zip(x, bias, |x, bias| simd.mul_add(scale, x, bias));
            max = zip(max, x, larger);
            x
        });
        let max = fold(max, larger);

        let mut total = [0.0; LANES];
        update(row, LEAST, |x| {
            let x = map(x, |x| exp(simd, x - max));
            total = zip(total, x, |total, x| total + x);
            x
        });
        // At least the largest score contributes exp(0) = 1, so this never divides by 0.
        let scale = 1.0 / fold(total, |a, b| a + b);
        for x in row {
            *x *= scale;
        }
    }
}

/// The larger of two numbers: one instruction, unlike `f32::max`, which handles NaN.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// `eˣ` for `x ≤ 0`, within 1.5 units in the last place of the exact value down to `x = −87`; 0
/// below that.
///
/// `eˣ = 2ⁿ · eʳ` with `n = round(x / ln 2)` and `|r| ≤ ½ ln 2`, where `eʳ` is its Taylor
/// polynomial of degree 7 (the next term is below 6·10⁻⁹). Free of branches, so that a loop over it
/// is vectorised.
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, x: f32) -> f32 {
    /// Adding and subtracting 1.5 · 2²³ rounds to the nearest integer, which then is in the low
    /// bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts: the first has so few bits that n times it is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Below this the result is not a normal number.
    const SMALLEST: f32 = -87.0;

    // As in `larger`; NaN stays NaN.
    let clamped = if x < SMALLEST { SMALLEST } else { x };
    let shifted = simd.mul_add(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = simd.mul_add(-n, LN_2_LOW, simd.mul_add(-n, LN_2_HIGH, clamped));
    let mut p = 1.0 / 5040.0;
    p = simd.mul_add(p, r, 1.0 / 720.0);
    p = simd.mul_add(p, r, 1.0 / 120.0);
    p = simd.mul_add(p, r, 1.0 / 24.0);
    p = simd.mul_add(p, r, 1.0 / 6.0);
    p = simd.mul_add(p, r, 0.5);
    // 1 + r + r²·p, the largest term last.
    let power = simd.mul_add(r * r, p, r) + 1.0;
    // n + 127 becomes the exponent: the shift drops the upper bits of ROUND.
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < SMALLEST { 0.0 } else { power * scale }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{assert_close, assert_same_class, reference};

    /// `exp` as a kernel, over a row.
    struct Exp<'a>(&'a mut [f32]);

    impl Kernel for Exp<'_> {
        #[inline(always)]
        fn run<S: Tier>(self, simd: S) {
            for x in self.0 {
                *x = exp(simd, *x);
            }
        }
    }

    #[test]
    fn exp_over_its_whole_range() {
        // Every 61st float from 0 down to −87.
        let bits = (0.0_f32).to_bits()..=(87.0_f32).to_bits();
        let points: Vec<f32> = bits.step_by(61).map(|bits| -f32::from_bits(bits)).collect();
        for &isa in Isa::available() {
            let mut got = points.clone();
            isa.run(Exp(&mut got));
            for (got, &x) in got.iter().zip(&points) {
                let want = f64::from(x).exp();
                let ulp = f64::from(f32::EPSILON) * 2.0_f64.powi(want.log2().floor() as i32);
                let error = (f64::from(*got) - want).abs() / ulp;
                assert!(error <= 1.5, "{isa}: exp({x}) is off by {error} ulp");
            }
            let mut ends = [0.0, -87.1, f32::MIN, f32::NEG_INFINITY];
            isa.run(Exp(&mut ends));
            assert_eq!(ends, [1.0, 0.0, 0.0, 0.0], "{isa}");
        }
    }

    #[test]
    fn every_isa_agrees_with_f64_for_every_length_around_the_lanes() {
        for t in [1, 2, 15, 16, 17, 31, 32, 33, 384, 512] {
            let scores: Vec<f32> = (0..t).map(|j| 36.0 * (j as f32 * 0.7).sin()).collect();
            let bias: Vec<f32> = (0..t).map(|j| 3.0 * (j as f32 * 1.3).cos()).collect();
            let want = reference::softmax(&scores, 0.25, &bias);
            for &isa in Isa::available() {
                let mut row = scores.clone();
                softmax(isa, &mut row, 0.25, &bias);
                assert_close(&row, &want, 4e-7);
            }
        }
    }

    #[test]
    fn a_far_lower_score_counts_nothing() {
        for &isa in Isa::available() {
            let mut row = [0.0, -1e30, f32::MIN];
            softmax(isa, &mut row, 1.0, &[0.0; 3]);
            assert_eq!(row, [1.0, 0.0, 0.0]);
        }
    }

    #[test]
    fn nan_and_infinite_scores_come_out_as_in_the_reference() {
        const INF: f32 = f32::INFINITY;
        for t in [1, 2, 15, 16, 17, 33] {
            let finite: Vec<f32> = (0..t).map(|j| (j as f32 * 0.7).sin()).collect();
            for (x, at) in [f32::NAN, INF, -INF].into_iter().flat_map(|x| [(x, 0), (x, t - 1)]) {
                let mut special = finite.clone();
                special[at] = x;
                let lowest = vec![-INF; t];
                for (row, bias) in [
                    (&special, &finite),
                    (&finite, &special),
                    (&special, &lowest),
                    (&lowest, &finite),
                ] {
                    let want = reference::softmax(row, 0.5, bias);
                    for &isa in Isa::available() {
                        let mut got = row.clone();
                        softmax(isa, &mut got, 0.5, bias);
                        assert_same_class(&got, &want, format_args!("{isa}, {x} at {at} of {t}"));
                        if want.iter().all(|x| x.is_finite()) {
                            assert_close(&got, &want, 4e-7);
                        }
                    }
                }
            }
        }
    }
}
