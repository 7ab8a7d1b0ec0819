//! The Avx512 tiles: 12 rows × 2 registers of 16 lanes.

use std::arch::x86_64::*;

use super::Tile;
use crate::kernels::precision::Precision;
use crate::kernels::simd::Avx512;

const LANES: usize = 16;
/// Registers a row.
const WIDTH: usize = 2;
const COLUMNS: usize = WIDTH * LANES;

impl Tile for Avx512 {
    /// 24 sums, 2 registers of `b` and one of `a`, of the 32 there are; 24 independent sums hide the latency of 2 × 4.
    const ROWS: usize = 12;
    const COLUMNS: usize = COLUMNS;

    #[inline(always)]
    fn has_tile(self, precision: Precision) -> bool {
        match precision {
            Precision::F32 => true,
            Precision::Bf16 => self.has_bf16(),
            Precision::Int8 => self.has_vnni(),
        }
    }

    #[inline(always)]
    #[allow(unsafe_code, reason = "calls functions that need the instructions: see the blocks")]
    fn tile<const M: usize>(
        self,
        precision: Precision,
        a: &[u32],
        b: &[u32],
        c: &mut [u32],
        accumulate: bool,
    ) {
        assert!(
            a.len() * COLUMNS == b.len() * M
                && b.len().is_multiple_of(COLUMNS)
                && c.len() == M * COLUMNS,
            "tile: {} and {} words into {} by {COLUMNS}",
            a.len(),
            b.len(),
            c.len()
        );
        assert!(self.has_tile(precision), "there is no {precision} tile on this machine");
        // SAFETY: an `Avx512` exists only where its features were detected; those of the last two were, by the assertion.
        match precision {
            Precision::F32 => unsafe { tile_f32::<M>(a, b, c, accumulate) },
            Precision::Bf16 => unsafe { tile_bf16::<M>(a, b, c, accumulate) },
            Precision::Int8 => unsafe { tile_int8::<M>(a, b, c, accumulate) },
        }
    }

    #[inline(always)]
    #[allow(unsafe_code, reason = "calls a function that needs the instructions: see the block")]
    fn multiply_adds(self, steps: usize) -> usize {
        // SAFETY: as in `tile`.
        std::hint::black_box(unsafe { multiply_adds(steps) });
        2 * LANES * CHAINS * steps
    }
}

/// Defines a tile: what type its sums have, how a word of `a` becomes a register, and the instruction.
macro_rules! define_tile {
    ($name:ident, $features:literal, $zero:expr, $load:expr, $store:expr, $broadcast:expr, $load_b:expr, $fma:expr) => {
        #[target_feature(enable = $features)]
        #[allow(unsafe_code, reason = "loads and stores by pointer: see the blocks")]
        fn $name<const M: usize>(a: &[u32], b: &[u32], c: &mut [u32], accumulate: bool) {
            let (c, _) = c.as_chunks_mut::<COLUMNS>();
            let mut sums = [[$zero; WIDTH]; M];
            if accumulate {
                for (sums, c) in sums.iter_mut().zip(c.iter()) {
                    for (w, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: `c` has WIDTH · LANES words, of which these are LANES from w · LANES on.
                        *sum = unsafe { $load(c.as_ptr().add(w * LANES).cast()) };
                    }
                }
            }
            let (a, _) = a.as_chunks::<M>();
            let (b, _) = b.as_chunks::<COLUMNS>();
            for (a, b) in a.iter().zip(b) {
                // SAFETY: as above, for `b`.
                let b: [_; WIDTH] =
                    std::array::from_fn(|w| unsafe { $load_b(b.as_ptr().add(w * LANES).cast()) });
                for (sums, &a) in sums.iter_mut().zip(a) {
                    let a = $broadcast(a);
                    for (sum, &b) in sums.iter_mut().zip(&b) {
                        *sum = $fma(*sum, a, b);
                    }
                }
            }
            for (c, sums) in c.iter_mut().zip(&sums) {
                for (w, &sum) in sums.iter().enumerate() {
                    // SAFETY: as above; nothing else refers to `c` while it is borrowed.
                    unsafe { $store(c.as_mut_ptr().add(w * LANES).cast(), sum) };
                }
            }
        }
    };
}

define_tile!(
    tile_f32,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma",
    _mm512_setzero_ps(),
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    |word| _mm512_set1_ps(f32::from_bits(word)),
    _mm512_loadu_ps,
    |sum, a, b| _mm512_fmadd_ps(a, b, sum)
);

// Each word is two bf16: `sum += a₀·b₀ + a₁·b₁`. All vectors of 512 bits have one layout, which is what the transmutes rest
// on: `__m512bh` has no intrinsic of its own to load it or to fill it with one value.
define_tile!(
    tile_bf16,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16",
    _mm512_setzero_ps(),
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    |word: u32| _mm512_set1_epi32(word as i32),
    _mm512_loadu_si512,
    // SAFETY: `__m512i` and `__m512bh` have the same size, and any bits are valid in both.
    |sum, a: __m512i, b: __m512i| unsafe {
        _mm512_dpbf16_ps(
            sum,
            std::mem::transmute::<__m512i, __m512bh>(a),
            std::mem::transmute::<__m512i, __m512bh>(b),
        )
    }
);

// Each word is four unsigned bytes of `a` and four signed ones of `b`: `sum += Σ aᵢ·bᵢ`, exact in 32 bits as long as
// 255 · 127 · K is below 2³¹, that is for K up to 66 000.
define_tile!(
    tile_int8,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512vnni",
    _mm512_setzero_si512(),
    _mm512_loadu_si512,
    _mm512_storeu_si512,
    |word: u32| _mm512_set1_epi32(word as i32),
    _mm512_loadu_si512,
    |sum, a, b| _mm512_dpbusd_epi32(sum, a, b)
);

/// Sums that do not wait for each other, as many as the tile has.
const CHAINS: usize = 24;

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn multiply_adds(steps: usize) -> f32 {
    let (factor, term) = (_mm512_set1_ps(0.999), _mm512_set1_ps(0.001));
    let mut sums = [_mm512_set1_ps(0.5); CHAINS];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, factor, term);
        }
    }
    let total = sums.into_iter().fold(term, |total, sum| _mm512_add_ps(total, sum));
    _mm512_reduce_add_ps(total)
}
