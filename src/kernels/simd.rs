//! [`Simd`]: one body for every instruction set.
//!
//! A kernel is a plain loop over 16 lanes. `Isa::run` compiles it once for each
//! instruction set, inside a function that enables those instructions, where the compiler turns the lanes into registers.

/// An instruction set at hand. A value can only be had by detection, so holding one is the proof that the machine has it.
pub trait Simd: Copy + Send + Sync {
    /// `a · b + c`, rounded once where the instruction set has a fused multiply-add, twice elsewhere.
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32;
}

/// A computation for the instruction set `S`: for any [`Simd`] where one body serves all, or for each by itself.
pub trait Kernel<S> {
    /// Mark it `#[inline(always)]`, and all that it calls: the body must be compiled inside the function of
    /// `Isa::run` that enables the instructions.
    fn run(self, simd: S);
}

/// A kernel for every instruction set of this architecture.
#[cfg(target_arch = "x86_64")]
pub trait EveryIsa: Kernel<Scalar> + Kernel<Avx2> + Kernel<Avx512> + Kernel<Amx> {}
#[cfg(target_arch = "x86_64")]
impl<K: Kernel<Scalar> + Kernel<Avx2> + Kernel<Avx512> + Kernel<Amx>> EveryIsa for K {}

/// A kernel for every instruction set of this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub trait EveryIsa: Kernel<Scalar> {}
#[cfg(not(target_arch = "x86_64"))]
impl<K: Kernel<Scalar>> EveryIsa for K {}

/// Plain Rust, on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scalar;

impl Simd for Scalar {
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        // Not `f32::mul_add`, which is a call into the C library where there is no such instruction.
        a * b + c
    }
}

/// AVX2 and FMA: 256-bit registers.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// If this machine has it.
    #[must_use]
    pub fn detect() -> Option<Self> {
        let there = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        there.then_some(Self(()))
    }
}

#[cfg(target_arch = "x86_64")]
impl Simd for Avx2 {
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

/// AVX-512 F, BW, DQ and VL: 512-bit registers, 32 of them; and perhaps products of shorter numbers.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Avx512 {
    bf16: bool,
    vnni: bool,
    vpopcntdq: bool,
}

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    /// If this machine has it.
    #[must_use]
    pub fn detect() -> Option<Self> {
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

    /// Whether it has AVX-512 BF16: products of bf16.
    #[must_use]
    pub fn has_bf16(self) -> bool {
        self.bf16
    }

    /// Whether it has AVX-512 VNNI: products of 8-bit integers.
    #[must_use]
    pub fn has_vnni(self) -> bool {
        self.vnni
    }

    /// Whether it has AVX-512 VPOPCNTDQ: counts of bits.
    #[must_use]
    pub fn has_vpopcntdq(self) -> bool {
        self.vpopcntdq
    }
}

#[cfg(target_arch = "x86_64")]
impl Simd for Avx512 {
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

/// AMX with bf16 and 8-bit products, and all that [`Avx512`] can have: tile registers for matrix products, 512-bit registers
/// for the rest. Holding one proves that the machine has it; the tile registers also need the permission of the operating
/// system, which is asked for when they are first used (`kernels::amx`).
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Amx(Avx512);

#[cfg(target_arch = "x86_64")]
impl Amx {
    /// If this machine has it, and its operating system saves the tile registers. Nothing is asked of the system.
    #[must_use]
    pub fn detect() -> Option<Self> {
        Self::beside_tiles().filter(|_| super::cpuid::has_amx())
    }

    /// The instruction sets that the kernels use beside the tile registers.
    fn beside_tiles() -> Option<Self> {
        Avx512::detect().filter(|avx512| avx512.bf16 && avx512.vnni).map(Self)
    }

    /// Also without tile registers, which packing does not use.
    #[cfg(test)]
    pub(crate) fn to_pack() -> Option<Self> {
        Self::beside_tiles()
    }

    /// The instruction set without the tile registers.
    #[must_use]
    pub fn avx512(self) -> Avx512 {
        self.0
    }
}

#[cfg(target_arch = "x86_64")]
impl Simd for Amx {
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        self.0.mul_add(a, b, c)
    }
}
