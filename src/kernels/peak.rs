//! What the machine could do at most: the yardsticks of the benchmarks.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::gemm::register_multiply_adds;
use super::isa::Isa;
use super::memory::Arena;
use super::precision::Precision;
use super::simd::{Kernel, Simd};

/// Operations a second of one thread that does nothing but multiply-adds in registers, as many to an instruction as products of
/// `precision` get: the best of a few short runs. Where an instruction set has no product of a precision, its weights are expanded
/// and multiplied in a wider format, and this is the peak of that one. `None` where there is no instruction to measure, as for the
/// scalar tier.
#[must_use]
pub fn multiply_add_peak(isa: Isa, precision: Precision) -> Option<f64> {
    let rate = |_| {
        let start = Instant::now();
        let steps = black_box(100_000);
        let operations = register_multiply_adds(isa, precision, steps)?;
        Some(operations as f64 / start.elapsed().as_secs_f64())
    };
    (0..50).map(rate).fold(None, |best, rate| match (best, rate) {
        (Some(best), Some(rate)) => Some(f64::max(best, rate)),
        (best, rate) => best.or(rate),
    })
}

/// [`multiply_add_peak`] of all threads of the current rayon pool together, each measured while the others run.
#[must_use]
pub fn shared_multiply_add_peak(isa: Isa, precision: Precision) -> Option<f64> {
    rayon::broadcast(|_| multiply_add_peak(isa, precision)).into_iter().sum()
}

/// Bytes a second that all threads of the current rayon pool together read from memory in order: the best of a second's
/// passes over 512 MiB, in pages as large as those that weights are in.
#[must_use]
pub fn read_bandwidth(isa: Isa) -> f64 {
    const WORDS: usize = 128 << 20;
    let words = Arena::default().words(WORDS, |words| {
        // Only memory that was written to is there to be read.
        words.par_chunks_mut(1 << 20).for_each(|chunk| chunk.fill(1));
    });
    let pass = || {
        let start = Instant::now();
        rayon::broadcast(|context| {
            let edge = |i: usize| i * WORDS / context.num_threads();
            let mut sum = 0;
            let words = &words[edge(context.index())..edge(context.index() + 1)];
            isa.run(Sum { words, sum: &mut sum });
            black_box(sum);
        });
        size_of::<u32>() as f64 * words.len() as f64 / start.elapsed().as_secs_f64()
    };
    let (begin, mut best) = (Instant::now(), 0.0);
    while begin.elapsed() < Duration::from_secs(1) {
        best = f64::max(best, pass());
    }
    best
}

/// Reads words, and adds them so that they have to be.
struct Sum<'a> {
    words: &'a [u32],
    sum: &'a mut u32,
}

impl<S: Simd> Kernel<S> for Sum<'_> {
    #[inline(always)]
    fn run(self, _: S) {
        // Four of the widest registers, so that additions do not wait for each other.
        let mut lanes = [0_u32; 64];
        let (chunks, _) = self.words.as_chunks::<64>();
        for chunk in chunks {
            for (lane, &word) in lanes.iter_mut().zip(chunk) {
                *lane = lane.wrapping_add(word);
            }
        }
        *self.sum = lanes.into_iter().fold(0, u32::wrapping_add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_can_be_multiplied_has_a_peak() {
        for &isa in Isa::available() {
            let peaks = Precision::ALL.map(|precision| multiply_add_peak(isa, precision));
            println!("{isa}: {peaks:?}");
            assert!(
                peaks.iter().all(|peak| peak.is_some_and(|peak| peak > 1e8))
                    || isa.name() == "scalar"
            );
        }
    }
}
