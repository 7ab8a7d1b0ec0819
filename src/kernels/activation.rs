//! Activations, each over a row in place. Free of branches, so that the loops are vectorised.

use super::softmax::exp;

/// `x ← x · ½ (1 + erf(x / √2))`, the exact form, within 1.3·10⁻⁶ absolute for `|x| ≤ 8`.
///
/// Source: Hendrycks and Gimpel 2016, <https://arxiv.org/abs/1606.08415>.
pub fn gelu(row: &mut [f32]) {
    for x in row {
        *x = 0.5 * *x * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2));
    }
}

/// `x ← ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))`, the approximation that `gelu_new` and `gelu_pytorch_tanh` name.
pub fn gelu_tanh(row: &mut [f32]) {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    for x in row {
        *x = 0.5 * *x * (1.0 + tanh(SQRT_2_OVER_PI * (*x + 0.044_715 * *x * *x * *x)));
    }
}

/// `x ← max(x, 0)`
pub fn relu(row: &mut [f32]) {
    for x in row {
        *x = x.max(0.0);
    }
}

/// `x ← x / (1 + e⁻ˣ)`
pub fn silu(row: &mut [f32]) {
    for x in row {
        *x *= logistic(*x);
    }
}

/// `x ← 1 / (1 + e⁻ˣ)`
pub fn sigmoid(row: &mut [f32]) {
    for x in row {
        *x = logistic(*x);
    }
}

/// `x ← x` where positive, `0.01 x` elsewhere.
pub fn leaky_relu(row: &mut [f32]) {
    for x in row {
        *x = x.max(0.01 * *x);
    }
}

/// `x ← tanh(x)`
pub fn tanh_all(row: &mut [f32]) {
    for x in row {
        *x = tanh(*x);
    }
}

/// `erf(x)` within 4·10⁻⁷ absolute: an odd rational function, its coefficients fitted on `|x| ≤ 3.925`, beyond which
/// `erf` is ±1 in `f32`.
#[inline(always)]
fn erf(x: f32) -> f32 {
    const END: f32 = 3.925;
    let y = x.clamp(-END, END);
    let t = y * y;
    let mut p = 2.030_848_7e-6;
    p = p * t + 2.874_904_3e-4;
    p = p * t + 3.876_323e-3;
    p = p * t + 5.308_434_7e-2;
    p = p * t + 1.929_726_6e-1;
    p = p * t + std::f32::consts::FRAC_2_SQRT_PI;
    let mut q = 3.803_114e-5;
    q = q * t + 1.189_745_7e-3;
    q = q * t + 1.518_835_5e-2;
    q = q * t + 1.151_674_8e-1;
    q = q * t + 5.043_492_3e-1;
    q = q * t + 1.0;
    // Exactly ±1 at the ends, or gelu of a large negative number would not be 0.
    let inside = (y * p / q).clamp(-1.0, 1.0);
    if x.abs() < END { inside } else { 1.0_f32.copysign(x) }
}

/// `1 / (1 + e⁻ˣ)`, by the exponential of `−|x|`, which cannot overflow.
#[inline(always)]
fn logistic(x: f32) -> f32 {
    let e = exp(-x.abs());
    let positive = 1.0 / (1.0 + e);
    if x < 0.0 { e * positive } else { positive }
}

/// `tanh(x) = (1 − e) / (1 + e)` with `e = exp(−2|x|)`, and the sign of `x`. For small `x` the difference would cancel:
/// there its own series, `x − x³/3 + 2x⁵/15 − 17x⁷/315`.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let e = exp(-2.0 * x.abs());
    let large = ((1.0 - e) / (1.0 + e)).copysign(x);
    let t = x * x;
    let small = x * (1.0 + t * (-1.0 / 3.0 + t * (2.0 / 15.0 - t * (17.0 / 315.0))));
    if t < 0.04 { small } else { large }
}

#[cfg(test)]
mod tests {
    use super::super::assert_close;
    use super::*;

    /// −30 … 30, dense near 0, and the ends of the number line.
    fn points() -> Vec<f32> {
        let grid = (-80_000..=80_000).map(|i| i as f32 * 1e-4);
        let far = (-300..=300).map(|i| i as f32 * 0.1);
        grid.chain(far).chain([1e-30, -1e-30, 0.0]).collect()
    }

    fn check(kernel: fn(&mut [f32]), exact: fn(f64) -> f64, tolerance: f64) {
        let mut got = points();
        let want: Vec<f64> = got.iter().map(|&x| exact(f64::from(x))).collect();
        kernel(&mut got);
        assert_close(&got, &want, tolerance);
    }

    #[test]
    fn each_agrees_with_f64() {
        use std::f64::consts::{FRAC_1_SQRT_2, PI};
        // Rounding alone is worth half a unit in the last place of the result: 9.5e-7 at 30.
        check(gelu, |x| 0.5 * x * (1.0 + libm::erf(x * FRAC_1_SQRT_2)), 1.3e-6);
        let gelu_tanh_f64 =
            |x: f64| 0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
        check(gelu_tanh, gelu_tanh_f64, 1.3e-6);
        check(relu, |x| x.max(0.0), 0.0);
        check(silu, |x| x / (1.0 + (-x).exp()), 2e-6);
        check(sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 2e-7);
        check(leaky_relu, |x| if x > 0.0 { x } else { 0.01 * x }, 5e-8);
        check(tanh_all, f64::tanh, 3e-7);
    }

    #[test]
    fn the_ends_of_the_number_line() {
        let mut row = [f32::MAX, f32::MIN, 1e4, -1e4];
        gelu(&mut row);
        assert_eq!(row, [f32::MAX, 0.0, 1e4, 0.0]);
        let mut row = [f32::MAX, f32::MIN];
        tanh_all(&mut row);
        assert_eq!(row, [1.0, -1.0]);
        let mut row = [f32::MAX, f32::MIN];
        sigmoid(&mut row);
        assert_eq!(row, [1.0, 0.0]);
    }
}
