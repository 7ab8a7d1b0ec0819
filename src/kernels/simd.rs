//! [`Simd`] and [`Kernel`]: one body for every instruction set.
//!
//! A kernel is a plain loop over 16 lanes. `Isa::run` compiles it once for each instruction set,
//! inside a function that enables those instructions, where the compiler keeps the lanes in
//! registers.

pub(super) use super::gemm::Tier;
use super::lanes;

/// A detected instruction set. A value exists only where the machine has the instructions, so
/// holding one is the proof.
pub trait Simd: Copy + Send + Sync {
    /// The name that `MPNET_ISA` takes.
    const NAME: &str;

    /// A value if this machine has the instructions.
    fn detect() -> Option<Self>;

    /// Asks the operating system for the permission to use them, where that is needed.
    ///
    /// # Errors
    ///
    /// A message that says what was refused and what to do.
    fn permitted(self) -> Result<(), String> {
        Ok(())
    }

    /// Whether the operating system has refused that permission.
    fn is_refused(self) -> bool {
        false
    }

    /// `a · b + c`, rounded once where the instruction set has a fused multiply-add, twice
    /// elsewhere.
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32;

    /// [`lanes::negative_differing_bits`], with an instruction that counts bits where there is one.
    #[inline(always)]
    fn negative_differing_bits(self, query: &[u64], rows: &[u64], out: &mut [f32]) {
        lanes::negative_differing_bits(query, rows, out);
    }
}

/// A computation that is written once for every instruction set.
pub(crate) trait Kernel {
    /// Mark it `#[inline(always)]`, and all that it calls: the body must be compiled inside the
    /// function of `Isa::run` that enables the instructions.
    fn run<S: Tier>(self, simd: S);
}

/// Plain Rust, on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Scalar;

impl Simd for Scalar {
    const NAME: &str = "scalar";

    fn detect() -> Option<Self> {
        Some(Self)
    }

    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        // Not `f32::mul_add`, which calls the C library where there is no such instruction.
        a * b + c
    }
}
