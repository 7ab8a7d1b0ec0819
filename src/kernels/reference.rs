//! Every kernel again, as a plain loop in `f64`: what the fast ones are tested against.
//!
//! Inputs are the `f32`s that a kernel sees. Where a kernel stores an intermediate value as `f32`,
//! so does its reference; everything after that is `f64`.

use half::bf16;
use ndarray::{Array2, ArrayView2};

use super::Distance;
use super::activation::Activation;
use super::gemm::Epilogue;

/// `epilogue(a · bᵀ)`. `a`: `[M, K]`, `b`: `[N, K]`, result: `[M, N]`.
pub(crate) fn matmul(a: ArrayView2<f32>, b: ArrayView2<f32>, epilogue: Epilogue) -> Array2<f64> {
    Array2::from_shape_fn((a.nrows(), b.nrows()), |(i, j)| {
        let products = a.row(i).into_iter().zip(b.row(j));
        let sum: f64 = products.map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
        match epilogue {
            Epilogue::None => sum,
            Epilogue::Bias(bias, function) => activation(function, sum + f64::from(bias[j])),
        }
    })
}

/// Every element rounded to bf16.
pub(crate) fn to_bf16(x: ArrayView2<f32>) -> Array2<f32> {
    x.mapv(|x| bf16::from_f32(x).to_f32())
}

/// `softmax(scale · row + bias)`; the scores `scale · row + bias` are rounded to `f32`.
pub(crate) fn softmax(row: &[f32], scale: f32, bias: &[f32]) -> Vec<f64> {
    let scores: Vec<f64> = row.iter().zip(bias).map(|(x, b)| f64::from(scale * x + b)).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let total: f64 = powers.iter().sum();
    powers.iter().map(|power| power / total).collect()
}

/// `(row − mean) / √(variance + eps) · gain + bias`.
pub(crate) fn layer_norm(row: &[f32], gain: &[f32], bias: &[f32], eps: f32) -> Vec<f64> {
    let d = row.len() as f64;
    let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / d;
    let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / d;
    let root = (variance + f64::from(eps)).sqrt();
    let affine = gain.iter().zip(bias).map(|(&gain, &bias)| (f64::from(gain), f64::from(bias)));
    row.iter().zip(affine).map(|(&x, (g, b))| (f64::from(x) - mean) / root * g + b).collect()
}

/// [`layer_norm`] of `row + residual`; the sum is rounded to `f32`.
pub(crate) fn add_layer_norm(
    row: &[f32],
    residual: &[f32],
    gain: &[f32],
    bias: &[f32],
    eps: f32,
) -> Vec<f64> {
    let sum: Vec<f32> = row.iter().zip(residual).map(|(x, r)| x + r).collect();
    layer_norm(&sum, gain, bias, eps)
}

/// The activation function of one number.
pub(crate) fn activation(activation: Activation, x: f64) -> f64 {
    use std::f64::consts::{FRAC_1_SQRT_2, PI};
    match activation {
        Activation::Identity => x,
        Activation::Gelu => 0.5 * x * (1.0 + libm::erf(x * FRAC_1_SQRT_2)),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::LeakyRelu if x > 0.0 => x,
        Activation::LeakyRelu => 0.01 * x,
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
    }
}

/// `1 / max(‖row‖, smallest)`.
pub(crate) fn inverse_norm(row: &[f32], smallest: f32) -> f64 {
    let squares: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    1.0 / squares.sqrt().max(f64::from(smallest))
}

/// The distance between two rows.
pub(crate) fn distance(distance: Distance, a: &[f32], b: &[f32]) -> f64 {
    let differences = a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b));
    match distance {
        Distance::Euclidean => differences.map(|x| x * x).sum::<f64>().sqrt(),
        Distance::Manhattan => differences.map(f64::abs).sum(),
    }
}

/// The number of bits in which two rows differ.
pub(crate) fn hamming(a: impl Iterator<Item = u64>, b: &[u64]) -> u32 {
    a.zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

/// `Σ aᵢ · bᵢ`.
pub(crate) fn integer_dot(a: &[i16], b: &[i16]) -> i64 {
    a.iter().zip(b).map(|(&a, &b)| i64::from(a) * i64::from(b)).sum()
}
