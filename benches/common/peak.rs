//! The limits of the machine: the yardsticks of the benchmarks.

#![allow(dead_code, unreachable_pub, reason = "each benchmark uses a part of this module")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use mpnet::kernels::memory::Arena;
use mpnet::{Isa, Precision};
use rayon::prelude::*;

/// Operations a second of one thread that executes nothing but multiply-adds in registers, with the
/// instruction that products of `precision` use: the best of a few short runs. Where an instruction
/// set has no product of a precision, its weights are expanded and multiplied in a wider format,
/// and this is the peak of that format. `None` where there is no instruction to measure, as for the
/// scalar tier.
#[must_use]
pub fn multiply_add_peak(isa: Isa, precision: Precision) -> Option<f64> {
    let rate = |_| {
        let start = Instant::now();
        let steps = black_box(100_000);
        let operations = multiply_adds(isa, precision, steps)?;
        Some(operations as f64 / start.elapsed().as_secs_f64())
    };
    (0..50).map(rate).fold(None, |best, rate| match (best, rate) {
        (Some(best), Some(rate)) => Some(f64::max(best, rate)),
        (best, rate) => best.or(rate),
    })
}

/// [`multiply_add_peak`] of all threads of the current rayon pool together, each measured while the
/// others run.
#[must_use]
pub fn shared_multiply_add_peak(isa: Isa, precision: Precision) -> Option<f64> {
    rayon::broadcast(|_| multiply_add_peak(isa, precision)).into_iter().sum()
}

/// Bytes a second that all threads of the current rayon pool together read from memory in order:
/// the best of a second's passes over 512 MiB, in pages as large as those that weights are in.
#[must_use]
pub fn read_bandwidth() -> f64 {
    const WORDS: usize = 128 << 20;
    let words = Arena::default().words(WORDS, |words| {
        // Pages exist only once they have been written.
        words.par_chunks_mut(1 << 20).for_each(|chunk| chunk.fill(1));
    });
    let pass = || {
        let start = Instant::now();
        rayon::broadcast(|context| {
            let edge = |i: usize| i * WORDS / context.num_threads();
            let words = &words[edge(context.index())..edge(context.index() + 1)];
            black_box(sum(words));
        });
        size_of::<u32>() as f64 * words.len() as f64 / start.elapsed().as_secs_f64()
    };
    let (begin, mut best) = (Instant::now(), 0.0);
    while begin.elapsed() < Duration::from_secs(1) {
        best = f64::max(best, pass());
    }
    best
}

/// Adds words, so that they have to be read.
#[inline(always)]
fn sum_of(words: &[u32]) -> u32 {
    // Four of the widest registers, so that additions do not wait for each other.
    let mut lanes = [0_u32; 64];
    let (chunks, _) = words.as_chunks::<64>();
    for chunk in chunks {
        for (lane, &word) in lanes.iter_mut().zip(chunk) {
            *lane = lane.wrapping_add(word);
        }
    }
    lanes.into_iter().fold(0, u32::wrapping_add)
}

#[cfg(target_arch = "x86_64")]
use x86::{multiply_adds, sum};

#[cfg(not(target_arch = "x86_64"))]
use sum_of as sum;

#[cfg(not(target_arch = "x86_64"))]
fn multiply_adds(_: Isa, _: Precision, _: usize) -> Option<usize> {
    None
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "calls functions that need instructions: see the blocks")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;

    use mpnet::kernels::gemm::{PackedMatrix, matmul};
    use mpnet::ndarray::Array2;
    use mpnet::{Isa, Precision};

    /// Defines a function that does one multiply-add on each of `$chains` accumulators, `steps`
    /// times: as many as a tile has, so that they do not wait for each other.
    macro_rules! define_multiply_adds {
        ($name:ident, $features:literal, $chains:literal, $start:expr, $add:expr) => {
            #[target_feature(enable = $features)]
            fn $name(steps: usize) -> usize {
                let mut accumulators = [$start; $chains];
                for _ in 0..steps {
                    for accumulator in &mut accumulators {
                        *accumulator = $add(*accumulator);
                    }
                }
                std::hint::black_box(accumulators);
                $chains * steps
            }
        };
    }

    define_multiply_adds!(avx2_f32, "avx2,fma", 12, _mm256_set1_ps(0.5), |sum| _mm256_fmadd_ps(
        sum,
        _mm256_set1_ps(0.999),
        _mm256_set1_ps(0.001)
    ));
    // The product must depend on the sum, or it would be computed once for all.
    define_multiply_adds!(avx2_int16, "avx2,fma", 12, _mm256_set1_epi32(1), |sum| {
        _mm256_add_epi32(sum, _mm256_madd_epi16(sum, _mm256_set1_epi16(3)))
    });
    define_multiply_adds!(avx512_f32, "avx512f", 24, _mm512_set1_ps(0.5), |sum| {
        _mm512_fmadd_ps(sum, _mm512_set1_ps(0.999), _mm512_set1_ps(0.001))
    });
    define_multiply_adds!(avx512_bf16, "avx512f,avx512bf16", 24, _mm512_set1_ps(0.5), |sum| {
        let (x, y) = (_mm512_set1_ps(0.5), _mm512_set1_ps(-0.5));
        _mm512_dpbf16_ps(sum, _mm512_cvtne2ps_pbh(x, y), _mm512_cvtne2ps_pbh(y, y))
    });
    define_multiply_adds!(avx512_int8, "avx512f,avx512vnni", 24, _mm512_set1_epi32(1), |sum| {
        _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(3), _mm512_set1_epi8(5))
    });

    /// Does `steps` rounds of multiply-adds, and returns the number of operations.
    pub(super) fn multiply_adds(isa: Isa, precision: Precision, steps: usize) -> Option<usize> {
        let bf16 = is_x86_feature_detected!("avx512bf16");
        let vnni = is_x86_feature_detected!("avx512vnni");
        // SAFETY: `isa` exists only where its instructions were detected; those of the shorter
        // formats have just been asked for, and come with AMX.
        let (instructions, operations) = unsafe {
            match (isa.name(), precision) {
                ("avx2", Precision::Int8) => (avx2_int16(steps), 2 * 16),
                ("avx2", _) => (avx2_f32(steps), 2 * 8),
                ("avx512", Precision::Bf16) if bf16 => (avx512_bf16(steps), 2 * 32),
                ("avx512", Precision::Int8) if vnni => (avx512_int8(steps), 2 * 64),
                ("avx512", _) => (avx512_f32(steps), 2 * 16),
                ("amx", precision) => amx(isa, precision, steps),
                _ => return None,
            }
        };
        Some(instructions * operations)
    }

    /// Defines four products on tile registers of zeros, `steps` times, at least once.
    macro_rules! define_tile_products {
        ($name:ident, $dot:literal) => {
            /// # Safety
            ///
            /// The machine must have the instruction, and the tile registers must be configured.
            unsafe fn $name(steps: usize) {
                // SAFETY: touches registers only.
                unsafe {
                    asm!(
                        "tilezero tmm0",
                        "tilezero tmm1",
                        "tilezero tmm2",
                        "tilezero tmm3",
                        "tilezero tmm4",
                        "tilezero tmm5",
                        "tilezero tmm6",
                        "tilezero tmm7",
                        "2:",
                        concat!($dot, " tmm0, tmm4, tmm6"),
                        concat!($dot, " tmm1, tmm4, tmm7"),
                        concat!($dot, " tmm2, tmm5, tmm6"),
                        concat!($dot, " tmm3, tmm5, tmm7"),
                        "dec {steps}",
                        "jnz 2b",
                        steps = inout(reg) steps.max(1) => _,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack, nomem),
                    );
                }
            }
        };
    }
    define_tile_products!(tile_bf16, "tdpbf16ps");
    define_tile_products!(tile_int8, "tdpbusd");

    /// # Safety
    ///
    /// The machine must have AMX.
    unsafe fn amx(isa: Isa, precision: Precision, steps: usize) -> (usize, usize) {
        #[repr(align(64))]
        struct Configuration([u8; 64]);
        // A product asks the operating system for the permission.
        let one = Array2::<f32>::ones((1, 1));
        let packed = PackedMatrix::new(isa, Precision::Bf16, one.view());
        matmul(one.view(), &packed, &mut Array2::<f32>::zeros((1, 1)).view_mut());
        // Palette 1; eight registers of 16 rows of 64 bytes.
        let mut configuration = Configuration([0; 64]);
        configuration.0[0] = 1;
        for register in 0..8 {
            configuration.0[16 + 2 * register] = 64;
            configuration.0[48 + register] = 16;
        }
        // SAFETY: AMX was detected, by the caller's promise, and permitted, or the product would
        // have panicked; the instruction reads the 64 bytes.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &configuration.0, options(nostack, readonly));
            match precision {
                Precision::Int8 => tile_int8(steps),
                _ => tile_bf16(steps),
            }
            asm!("tilerelease", options(nostack, nomem));
        }
        // Four products of 16 × 16 × 16 words.
        let multiply_adds = 4 * 16 * 16 * 16 * steps;
        match precision {
            Precision::Int8 => (multiply_adds, 2 * 4),
            Precision::Bf16 => (multiply_adds, 2 * 2),
            // Three products of bf16 for one of `f32`.
            _ => (multiply_adds / 3, 2 * 2),
        }
    }

    /// [`sum_of`](super::sum_of) by vectors.
    pub(super) fn sum(words: &[u32]) -> u32 {
        #[target_feature(enable = "avx2")]
        fn with_avx2(words: &[u32]) -> u32 {
            super::sum_of(words)
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: it has just been detected.
            unsafe { with_avx2(words) }
        } else {
            super::sum_of(words)
        }
    }
}
