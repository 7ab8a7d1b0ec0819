//! [`Isa`]: which instruction set the kernels use.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use super::simd::{EveryIsa, Scalar};
#[cfg(target_arch = "x86_64")]
use super::{
    amx,
    simd::{Amx, Avx2, Avx512, Kernel},
};
use crate::error::{Error, Result};

/// An instruction set that the kernels can run on: one that this machine has.
///
/// ```
/// use mpnet::Isa;
///
/// let scalar: Isa = "scalar".parse()?; // every machine has it
/// assert!(Isa::available().contains(&scalar));
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Isa {
    /// `scalar`: plain Rust over the `matrixmultiply` crate, on every machine. (That crate has vector kernels of its own,
    /// which it chooses when it runs.)
    Scalar(Scalar),
    /// `avx2`: AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// `avx512`: AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// `amx`: AVX-512, and AMX for matrix products of bf16 and 8-bit integers. Products of `f32` are taken apart into three of
    /// bf16, which keeps 16 bits of each factor; `avx512` has them whole.
    #[cfg(target_arch = "x86_64")]
    Amx(Amx),
}

/// The environment variable that forces an instruction set.
pub const VARIABLE: &str = "MPNET_ISA";

impl Isa {
    /// Every instruction set that this build has and this machine can run, the fastest last.
    ///
    /// AMX is among them where the processor and the operating system have it. The permission that a process needs to use it
    /// is asked for when something is loaded for it; if that is refused, AMX is not available from then on.
    ///
    /// ```
    /// for isa in mpnet::Isa::available() {
    ///     println!("{isa}");
    /// }
    /// ```
    #[must_use]
    pub fn available() -> &'static [Self] {
        static AVAILABLE: OnceLock<Vec<Isa>> = OnceLock::new();
        let all = AVAILABLE.get_or_init(|| {
            #[allow(unused_mut, reason = "nothing is added on other architectures")]
            let mut available = vec![Self::Scalar(Scalar)];
            #[cfg(target_arch = "x86_64")]
            {
                available.extend(Avx2::detect().map(Self::Avx2));
                available.extend(Avx512::detect().map(Self::Avx512));
                available.extend(Amx::detect().map(Self::Amx));
            }
            available
        });
        #[cfg(target_arch = "x86_64")]
        if amx::is_refused() {
            return without_amx(all);
        }
        all
    }

    /// The fastest of [`available`](Self::available).
    ///
    /// ```
    /// assert_eq!(mpnet::Isa::available().last(), Some(&mpnet::Isa::best()));
    /// ```
    #[must_use]
    pub fn best() -> Self {
        Self::available().last().copied().unwrap_or(Self::Scalar(Scalar))
    }

    /// The instruction set that `MPNET_ISA` forces, or the fastest available one if the variable is not set.
    ///
    /// ```
    /// println!("{} is used", mpnet::Isa::detect()?);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the variable names an instruction set that does not exist or is not available.
    pub fn detect() -> Result<Self> {
        forced().map(|forced| forced.unwrap_or_else(Self::best))
    }

    /// The instruction set to load a model for: the one `asked` for, else that of `MPNET_ISA`, else the fastest that the
    /// operating system permits.
    ///
    /// # Errors
    ///
    /// As [`detect`](Self::detect); [`Error::Option`] if the operating system refuses the one that was asked for.
    pub(crate) fn choose(asked: Option<Self>) -> Result<Self> {
        let asked = asked.map_or_else(forced, |isa| Ok(Some(isa)))?;
        choose(asked, Self::best, Self::permitted)
    }

    /// The same, if the operating system permits its use. This asks for the permission.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if it does not.
    pub(crate) fn permitted(self) -> Result<Self> {
        #[cfg(target_arch = "x86_64")]
        if let Self::Amx(_) = self
            && let Err(refusal) = amx::permission()
        {
            return Err(refused(refusal));
        }
        Ok(self)
    }

    /// As [`detect`](Self::detect), looked up once, for functions that cannot fail: a wrong `MPNET_ISA`, which loading a
    /// model reports, counts as none.
    pub(crate) fn current() -> Self {
        static CURRENT: OnceLock<Isa> = OnceLock::new();
        *CURRENT.get_or_init(|| Self::detect().unwrap_or_else(|_| Self::best()))
    }

    /// As [`current`](Self::current), but one that multiplies whole `f32`s: for arrays of the caller's, on which no precision was
    /// asked for. With pairs of bf16 the cosine of a row with itself can miss 1 by 10⁻⁵, and that of two rows depends on which of
    /// them comes first.
    pub(crate) fn exact() -> Self {
        match Self::current() {
            #[cfg(target_arch = "x86_64")]
            Self::Amx(simd) => Self::Avx512(simd.avx512()),
            isa => isa,
        }
    }

    /// Its name, as `MPNET_ISA` and `--isa` take it.
    ///
    /// ```
    /// assert_eq!(mpnet::Isa::available()[0].name(), "scalar");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) => "amx",
        }
    }

    /// Runs `kernel` compiled for this instruction set.
    #[inline]
    #[allow(unsafe_code, reason = "calls functions that need the instructions: see the blocks")]
    pub(crate) fn run<K: EveryIsa>(self, kernel: K) {
        match self {
            Self::Scalar(simd) => kernel.run(simd),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => {
                #[target_feature(enable = "avx2,fma")]
                fn with_avx2<K: Kernel<Avx2>>(kernel: K, simd: Avx2) {
                    kernel.run(simd)
                }
                // SAFETY: an `Avx2` exists only where both features were detected (`Avx2::detect`).
                unsafe { with_avx2(kernel, simd) }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn with_avx512<K: Kernel<Avx512>>(kernel: K, simd: Avx512) {
                    kernel.run(simd)
                }
                // SAFETY: an `Avx512` exists only where all of these were detected (`Avx512::detect`).
                unsafe { with_avx512(kernel, simd) }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Amx(simd) => {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn with_amx<K: Kernel<Amx>>(kernel: K, simd: Amx) {
                    kernel.run(simd)
                }
                // SAFETY: an `Amx` exists only where there is an `Avx512`.
                unsafe { with_amx(kernel, simd) }
            }
        }
    }
}

impl FromStr for Isa {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        parse(name, "isa")
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The instruction set that `MPNET_ISA` names.
fn forced() -> Result<Option<Isa>> {
    match std::env::var_os(VARIABLE).filter(|name| !name.is_empty()) {
        None => Ok(None),
        Some(name) => parse(&name.to_string_lossy(), VARIABLE).map(Some),
    }
}

/// [`Isa::choose`], of an operating system that answers as `permitted` does. After a refusal `best` is another one.
fn choose(
    asked: Option<Isa>,
    best: impl Fn() -> Isa,
    permitted: impl Fn(Isa) -> Result<Isa>,
) -> Result<Isa> {
    match asked {
        Some(isa) => permitted(isa),
        None => permitted(best()).or_else(|error| {
            tracing::warn!("{error}; the next best instruction set is used");
            permitted(best())
        }),
    }
}

#[cfg(target_arch = "x86_64")]
fn without_amx(available: &[Isa]) -> &[Isa] {
    match available {
        [rest @ .., Isa::Amx(_)] => rest,
        all => all,
    }
}

#[cfg(target_arch = "x86_64")]
fn refused(refusal: amx::Refusal) -> Error {
    let problem = format!(
        "the machine has `amx`, but the operating system does not let this process use it \
         (arch_prctl, ARCH_REQ_XCOMP_PERM: {refusal}); `avx512` needs no permission"
    );
    Error::Option { option: "isa", problem }
}

fn parse(name: &str, option: &'static str) -> Result<Isa> {
    let available = Isa::available();
    available.iter().find(|isa| isa.name() == name).copied().ok_or_else(|| {
        let names: Vec<&str> = available.iter().map(|isa| isa.name()).collect();
        let problem = format!("`{name}` is not available on this machine; {} is", names.join(", "));
        Error::Option { option, problem }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_the_caller_s_are_multiplied_whole() {
        assert!(!Isa::exact().splits_f32());
    }

    /// An operating system that refuses AMX, on a machine that has it.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_refused_amx_is_an_error_if_it_was_asked_for_and_passed_over_if_not() {
        use std::cell::RefCell;

        let Some(simd) = Amx::to_pack() else {
            println!("not run: no AVX-512 with bf16 and VNNI, which AMX comes with");
            return;
        };
        let (amx, avx512) = (Isa::Amx(simd), Isa::Avx512(simd.avx512()));
        let all = [Isa::Scalar(Scalar), avx512, amx];
        let asked_for = RefCell::new(Vec::new());
        let permitted = |isa: Isa| {
            asked_for.borrow_mut().push(isa);
            match isa {
                Isa::Amx(_) => Err(refused(amx::permission_refused_with(28))),
                other => Ok(other),
            }
        };
        let available = || match asked_for.borrow().contains(&amx) {
            true => without_amx(&all),
            false => &all[..],
        };
        let best = || *available().last().unwrap();

        assert_eq!(choose(Some(avx512), best, permitted).unwrap(), avx512);
        assert_eq!((best(), &**asked_for.borrow()), (amx, &[avx512][..]), "AMX was not asked for");
        let error = choose(Some(amx), best, permitted).unwrap_err().to_string();
        assert!(error.contains("amx") && error.contains("avx512"), "{error}");
        asked_for.borrow_mut().clear();
        assert_eq!(choose(None, best, permitted).unwrap(), avx512);
        assert_eq!(available(), &all[..2]);
    }

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for &isa in Isa::available() {
            println!("available: {isa}");
            assert_eq!(isa.to_string().parse::<Isa>().unwrap(), isa);
        }
        let error = "sse9".parse::<Isa>().unwrap_err().to_string();
        assert!(error.contains("sse9") && error.contains("scalar"), "{error}");
    }
}
