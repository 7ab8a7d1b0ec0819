//! The instruction sets of x86-64.

use super::amx;
use super::lanes;
use super::simd::Simd;

/// AVX2 and FMA: 256-bit registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Avx2(());

impl Simd for Avx2 {
    const NAME: &str = "avx2";

    fn detect() -> Option<Self> {
        let there = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        there.then_some(Self(()))
    }

    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

/// AVX-512 F, BW, DQ and VL: 512-bit registers, 32 of them; and products of shorter formats on some
/// machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Avx512 {
    bf16: bool,
    vnni: bool,
    vpopcntdq: bool,
}

impl Avx512 {
    /// Whether it has AVX-512 BF16: products of bf16.
    pub(super) fn has_bf16(self) -> bool {
        self.bf16
    }

    /// Whether it has AVX-512 VNNI: products of 8-bit integers.
    pub(super) fn has_vnni(self) -> bool {
        self.vnni
    }
}

impl Simd for Avx512 {
    const NAME: &str = "avx512";

    fn detect() -> Option<Self> {
        let there = Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        there.then(|| Self {
            bf16: is_x86_feature_detected!("avx512bf16"),
            vnni: is_x86_feature_detected!("avx512vnni"),
            vpopcntdq: is_x86_feature_detected!("avx512vpopcntdq"),
        })
    }

    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    #[allow(unsafe_code, reason = "calls a function that needs the instruction: see the block")]
    fn negative_differing_bits(self, query: &[u64], rows: &[u64], out: &mut [f32]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq")]
        fn with_popcount(query: &[u64], rows: &[u64], out: &mut [f32]) {
            lanes::negative_differing_bits(query, rows, out);
        }
        match self.vpopcntdq {
            // SAFETY: the other features were detected with the value, and this one too.
            true => unsafe { with_popcount(query, rows, out) },
            false => lanes::negative_differing_bits(query, rows, out),
        }
    }
}

/// AMX with bf16 and 8-bit products, and all that [`Avx512`] can have: tile registers for matrix
/// products, 512-bit registers for the rest. Holding one proves that the machine has it; the tile
/// registers also need the permission of the operating system, which is asked for when they are
/// first used (`kernels::amx`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Amx(Avx512);

impl Amx {
    /// The instruction sets that the kernels use beside the tile registers.
    fn beside_tiles() -> Option<Self> {
        Avx512::detect().filter(|avx512| avx512.bf16 && avx512.vnni).map(Self)
    }

    /// Also without tile registers, which packing does not use.
    #[cfg(test)]
    pub(super) fn to_pack() -> Option<Self> {
        Self::beside_tiles()
    }

    /// The instruction set without the tile registers.
    pub(super) fn avx512(self) -> Avx512 {
        self.0
    }
}

impl Simd for Amx {
    const NAME: &str = "amx";

    fn detect() -> Option<Self> {
        Self::beside_tiles().filter(|_| super::cpuid::has_amx())
    }

    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        self.0.mul_add(a, b, c)
    }

    #[inline(always)]
    fn negative_differing_bits(self, query: &[u64], rows: &[u64], out: &mut [f32]) {
        self.0.negative_differing_bits(query, rows, out);
    }

    fn permitted(self) -> Result<(), String> {
        amx::permission().map_err(amx::Refusal::explained)
    }

    fn is_refused(self) -> bool {
        amx::is_refused()
    }
}
