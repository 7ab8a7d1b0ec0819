//! What the machine could do at most: the yardstick of the benchmarks.

use std::hint::black_box;
use std::time::Instant;

use super::gemm::register_multiply_adds;
use super::isa::Isa;
use super::precision::Precision;

/// Operations a second of one thread that does nothing but multiply-adds of `precision` in registers: the best of a few short
/// runs. `None` where there is no such instruction to measure, as for the scalar tier.
#[must_use]
pub fn multiply_add_peak(isa: Isa, precision: Precision) -> Option<f64> {
    let rate = |_| {
        let start = Instant::now();
        let operations = register_multiply_adds(isa, precision, black_box(100_000))?;
        Some(operations as f64 / start.elapsed().as_secs_f64())
    };
    (0..50).map(rate).fold(None, |best, rate| match (best, rate) {
        (Some(best), Some(rate)) => Some(f64::max(best, rate)),
        (best, rate) => best.or(rate),
    })
}
