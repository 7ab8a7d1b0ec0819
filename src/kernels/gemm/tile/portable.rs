//! A tile in plain Rust: the smallest example of a tier with tiles, for tests of what they share.
//! Its sizes are unlike those of any other.

use super::{BlockA, KC, Prefetch, Tile, check};
use crate::kernels::gemm::format::{Encode, Format};
use crate::kernels::simd::Simd;

/// Plain Rust, with tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::kernels) struct Portable;

impl Simd for Portable {
    const NAME: &str = "portable";

    fn detect() -> Option<Self> {
        Some(Self)
    }

    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
}

impl Encode for Portable {}

impl Tile for Portable {
    type State = ();

    const MR: usize = 4;
    const NR: usize = 12;
    const M_STEP: usize = 2;
    const PACKED_WORDS: usize = 8 << 10;
    const WHOLE_K: bool = true;
    const NC_WORDS: usize = 8 << 10;

    fn has_tile(self, format: Format) -> bool {
        format == Format::F32
    }

    fn state(self) {}

    fn multiply(
        self,
        format: Format,
        a: BlockA,
        b: &[u32],
        c: &mut [u32],
        accumulate: bool,
        _: Prefetch,
    ) {
        check(self, format, a, b, c);
        if !accumulate {
            c.fill(0);
        }
        for (chunk, b) in b.chunks(KC * Self::NR).enumerate() {
            for (a, c) in a.chunk(chunk).iter().zip(c.chunks_exact_mut(Self::NR)) {
                for (&a, b) in a.iter().zip(b.chunks_exact(Self::NR)) {
                    for (c, &b) in c.iter_mut().zip(b) {
                        let product = f32::from_bits(a) * f32::from_bits(b);
                        *c = (f32::from_bits(*c) + product).to_bits();
                    }
                }
            }
        }
    }
}
