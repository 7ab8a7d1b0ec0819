//! Activations, each over a row in place. Free of branches, so that the loops are vectorised.

use super::isa::Isa;
use super::simd::{Kernel, Simd, Tier};
use super::softmax::exp;

/// An activation function: the feed-forward network's (`hidden_act` in `config.json`) or a Dense
/// module's.
///
/// ```
/// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
/// assert_eq!(encoder.model().config().hidden_act, mpnet::Activation::Gelu);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// `x`: torch's `Identity`.
    Identity,
    /// `x · ½ (1 + erf(x / √2))`: `gelu`, `gelu_python`.
    Gelu,
    /// `½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))`: `gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`.
    GeluTanh,
    /// `max(x, 0)`: `relu`.
    Relu,
    /// `x` where positive, else `0.01 x`: torch's `LeakyReLU`.
    LeakyRelu,
    /// `x / (1 + e⁻ˣ)`: `silu`, `swish`.
    Silu,
    /// `1 / (1 + e⁻ˣ)`: torch's `Sigmoid`.
    Sigmoid,
    /// `tanh(x)`: `tanh`.
    Tanh,
}

/// Replaces each `x` of `row` by `activation(x)`.
///
/// [`Gelu`](Activation::Gelu) is within 10⁻⁶ of the exact value for `|x| ≤ 8`, the others as near
/// or nearer.
pub fn apply(isa: Isa, activation: Activation, row: &mut [f32]) {
    isa.run(Apply { activation, row });
}

struct Apply<'a> {
    activation: Activation,
    row: &'a mut [f32],
}

impl Kernel for Apply<'_> {
    #[inline(always)]
    fn run<S: Tier>(self, simd: S) {
        activate(simd, self.activation, self.row);
    }
}

/// [`apply`] inside another kernel.
#[inline(always)]
pub(super) fn activate<S: Simd>(simd: S, activation: Activation, row: &mut [f32]) {
    match activation {
        Activation::Identity => {}
        Activation::Gelu => map(row, |x| gelu(simd, x)),
        Activation::GeluTanh => map(row, |x| gelu_tanh(simd, x)),
        Activation::Relu => map(row, |x| x.max(0.0)),
        Activation::LeakyRelu => map(row, |x| x.max(0.01 * x)),
        Activation::Silu => map(row, |x| x * logistic(simd, x)),
        Activation::Sigmoid => map(row, |x| logistic(simd, x)),
        Activation::Tanh => map(row, |x| tanh(simd, x)),
    }
}

#[inline(always)]
fn map(row: &mut [f32], f: impl Fn(f32) -> f32) {
    for x in row {
        *x = f(*x);
    }
}

/// `x · Φ(x) = ½ x + ½ x · erf(x / √2)`.
///
/// Source: Hendrycks and Gimpel 2016, <https://arxiv.org/abs/1606.08415>.
#[inline(always)]
fn gelu<S: Simd>(simd: S, x: f32) -> f32 {
    let half = 0.5 * x;
    simd.mul_add(half, erf_of_root_half(simd, x), half)
}

#[inline(always)]
fn gelu_tanh<S: Simd>(simd: S, x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    0.5 * x * (1.0 + tanh(simd, SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x)))
}

/// `erf(x / √2)`: `x` times a polynomial in `x²`, fitted on `|x| ≤ 5.3` so that `½ x erf(x / √2)`
/// is off by 5·10⁻⁸ at most; beyond, `erf` is ±1 to that accuracy. The polynomial is written in `2
/// x² / 5.3² − 1`, from −1 to 1, in which its coefficients are small. There is no division in it,
/// for which the widest registers take 16 cycles.
#[inline(always)]
fn erf_of_root_half<S: Simd>(simd: S, x: f32) -> f32 {
    const END: f32 = 5.3;
    const FIRST: f32 = 4.594_322e-4;
    // From the highest remaining power down.
    const COEFFICIENTS: [f32; 14] = [
        -1.436_116_9e-3,
        1.777_096_1e-3,
        -2.453_785_4e-3,
        5.920_415_3e-3,
        -0.011_418_74,
        0.017_844_813,
        -0.026_513_08,
        0.037_801_255,
        -0.050_562_136,
        0.064_165_17,
        -0.079_181_37,
        0.098_528_065,
        -0.133_036_91,
        0.266_785_12,
    ];
    let s = simd.mul_add(x * x, 2.0 / (END * END), -1.0);
    let p = COEFFICIENTS.into_iter().fold(FIRST, |p, c| simd.mul_add(p, s, c));
    // Exactly ±1 at the ends, or gelu of a large negative number would not be 0.
    if x.abs() < END { x * p } else { 1.0_f32.copysign(x) }
}

/// `1 / (1 + e⁻ˣ)`, by the exponential of `−|x|`, which cannot overflow.
#[inline(always)]
fn logistic<S: Simd>(simd: S, x: f32) -> f32 {
    let e = exp(simd, -x.abs());
    let positive = 1.0 / (1.0 + e);
    if x < 0.0 { e * positive } else { positive }
}

/// `tanh(x) = (1 − e) / (1 + e)` with `e = exp(−2|x|)`, and the sign of `x`. For small `x` the
/// difference would cancel: there its own series, `x − x³/3 + 2x⁵/15 − 17x⁷/315`.
#[inline(always)]
fn tanh<S: Simd>(simd: S, x: f32) -> f32 {
    let e = exp(simd, -2.0 * x.abs());
    let large = ((1.0 - e) / (1.0 + e)).copysign(x);
    let t = x * x;
    let small = x * (1.0 + t * (-1.0 / 3.0 + t * (2.0 / 15.0 - t * (17.0 / 315.0))));
    if t < 0.04 { small } else { large }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{assert_close, reference};

    /// −30 … 30, dense near 0, and the ends of the number line.
    fn points() -> Vec<f32> {
        let grid = (-80_000..=80_000).map(|i| i as f32 * 1e-4);
        let far = (-300..=300).map(|i| i as f32 * 0.1);
        grid.chain(far).chain([1e-30, -1e-30, 0.0]).collect()
    }

    #[test]
    fn every_isa_agrees_with_f64() {
        let points = points();
        for (activation, tolerance) in [
            (Activation::Identity, 0.0),
            // Rounding alone is worth half a unit in the last place of the result: 9.5e-7 at 30.
            (Activation::Gelu, 1e-6),
            (Activation::GeluTanh, 1.3e-6),
            (Activation::Relu, 0.0),
            (Activation::Silu, 2e-6),
            (Activation::Sigmoid, 2e-7),
            (Activation::LeakyRelu, 5e-8),
            (Activation::Tanh, 3e-7),
        ] {
            let exact = |&x: &f32| reference::activation(activation, f64::from(x));
            let want: Vec<f64> = points.iter().map(exact).collect();
            for &isa in Isa::available() {
                let mut got = points.clone();
                apply(isa, activation, &mut got);
                assert_close(&got, &want, tolerance);
            }
        }
    }

    #[test]
    fn the_ends_of_the_number_line() {
        for &isa in Isa::available() {
            let ends = |activation, mut row: [f32; 4]| {
                apply(isa, activation, &mut row);
                row
            };
            let row = [f32::MAX, f32::MIN, 1e4, -1e4];
            assert_eq!(ends(Activation::Gelu, row), [f32::MAX, 0.0, 1e4, 0.0]);
            assert_eq!(ends(Activation::Tanh, row), [1.0, -1.0, 1.0, -1.0]);
            assert_eq!(ends(Activation::Sigmoid, row), [1.0, 0.0, 1.0, 0.0]);
        }
    }
}
