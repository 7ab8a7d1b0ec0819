//! The arithmetic: slices and views in and out, knowing nothing of models.
//!
//! [`isa::Isa`] says which instruction set; every kernel takes one. The row kernels ([`softmax()`],
//! [`layer_norm()`], [`activation`]) are loops over a fixed number of lanes, written once and
//! compiled for each instruction set (`simd.rs`). Matrix products ([`gemm`]) differ more, so there
//! each instruction set has a *tile* of its own.
//!
//! Every sum runs in an order that depends on its length alone, never on where a row stands, how
//! many rows there are or how many threads work: the same text gives the same bits in any batch.

pub mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod cpuid;
mod distance;
pub mod gemm;
mod hamming;
mod integer_dots;
pub mod isa;
mod lanes;
mod layer_norm;
pub mod memory;
mod norms;
mod precision;
#[cfg(test)]
mod reference;
mod simd;
mod softmax;
pub mod team;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use distance::{Distance, negative_distances};
pub use hamming::{ROWS as HAMMING_ROWS, negative_hamming};
pub use integer_dots::{WIDEST as WIDEST_INTEGER_DOTS, integer_dots};
pub use layer_norm::{add_layer_norm, layer_norm};
pub use norms::inverse_norms;
pub use precision::Precision;
pub use softmax::softmax;
pub use team::Team;

/// Worst distance of an `f32` result from an `f64` one, for tests: where, got, wanted, how far.
#[cfg(test)]
#[track_caller]
fn assert_close(got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    let worst = got
        .iter()
        .zip(want)
        .map(|(&got, &want)| (f64::from(got) - want).abs())
        .enumerate()
        // A NaN is the worst of all.
        .max_by(|a, b| a.1.total_cmp(&b.1));
    if let Some((at, error)) = worst {
        assert!(
            error <= tolerance,
            "element {at}: got {}, want {}, off by {error:e}, allowed {tolerance:e}",
            got[at],
            want[at]
        );
    }
}

/// Asserts that each `f32` result is NaN, +∞, −∞ or finite exactly where the `f64` one is, for
/// tests.
#[cfg(test)]
#[track_caller]
fn assert_same_class(got: &[f32], want: &[f64], what: std::fmt::Arguments) {
    assert_eq!(got.len(), want.len());
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let same = match want.is_finite() {
            true => got.is_finite(),
            false => f64::from(got) == want || got.is_nan() && want.is_nan(),
        };
        assert!(same, "{what}, element {i}: got {got}, want {want}");
    }
}
