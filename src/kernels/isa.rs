//! [`Isa`]: which instruction set the kernels use.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

#[cfg(test)]
use super::gemm::Portable;
use super::gemm::{Factor, Format, RowSizes, Tier};
use super::simd::{Kernel, Scalar, Simd};
#[cfg(target_arch = "x86_64")]
use super::x86::{Amx, Avx2, Avx512};
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
///
/// - `scalar`: plain Rust over the `matrixmultiply` crate, on every machine. (That crate has vector
///   kernels of its own, which it chooses at run time.)
/// - `avx2`: AVX2 and FMA.
/// - `avx512`: AVX-512 F, BW, DQ and VL.
/// - `amx`: AVX-512, and AMX for matrix products of bf16 and 8-bit integers. A product of `f32` is
///   split into three of bf16, which keeps 16 bits of each factor; `avx512` multiplies `f32`
///   itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Isa(Set);

/// The instruction sets of this architecture, the fastest last.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Set {
    Scalar(Scalar),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Amx(Amx),
    #[cfg(test)]
    Portable(Portable),
}

/// Evaluates an expression with the value that the instruction set holds.
macro_rules! dispatch {
    ($isa:expr, $simd:ident => $result:expr) => {
        match $isa.0 {
            Set::Scalar($simd) => $result,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2($simd) => $result,
            #[cfg(target_arch = "x86_64")]
            Set::Avx512($simd) => $result,
            #[cfg(target_arch = "x86_64")]
            Set::Amx($simd) => $result,
            #[cfg(test)]
            Set::Portable($simd) => $result,
        }
    };
}

/// Runs a kernel inside a function that enables the features that come with a type.
#[cfg(target_arch = "x86_64")]
macro_rules! run_with {
    ($features:literal, $type:ty, $kernel:expr, $simd:expr) => {{
        #[target_feature(enable = $features)]
        fn run<K: Kernel>(kernel: K, simd: $type) {
            kernel.run(simd)
        }
        // SAFETY: a value of the type exists only where these features were detected
        // (`Simd::detect`).
        unsafe { run($kernel, $simd) }
    }};
}

/// The environment variable that forces an instruction set.
pub const VARIABLE: &str = "MPNET_ISA";

impl Isa {
    /// Every instruction set that this build has and this machine can run, the fastest last.
    ///
    /// AMX is among them where the processor and the operating system have it. The permission that
    /// a process needs to use it is asked for when something is loaded for it; if that is refused,
    /// AMX is not available from then on.
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
            let detected = [
                Some(Set::Scalar(Scalar)),
                #[cfg(target_arch = "x86_64")]
                Avx2::detect().map(Set::Avx2),
                #[cfg(target_arch = "x86_64")]
                Avx512::detect().map(Set::Avx512),
                #[cfg(target_arch = "x86_64")]
                Amx::detect().map(Set::Amx),
            ];
            detected.into_iter().flatten().map(Self).collect()
        });
        usable(all, |isa| dispatch!(isa, simd => simd.is_refused()))
    }

    /// The fastest of [`available`](Self::available).
    ///
    /// ```
    /// assert_eq!(mpnet::Isa::available().last(), Some(&mpnet::Isa::best()));
    /// ```
    #[must_use]
    pub fn best() -> Self {
        Self::available().last().copied().unwrap_or(Self(Set::Scalar(Scalar)))
    }

    /// The instruction set that `MPNET_ISA` forces, or the fastest available one if the variable is
    /// not set.
    ///
    /// ```
    /// println!("{} is used", mpnet::Isa::detect()?);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the variable names an instruction set that does not exist or is not
    /// available.
    pub fn detect() -> Result<Self> {
        forced().map(|forced| forced.unwrap_or_else(Self::best))
    }

    /// The instruction set to load a model for: the one `asked` for, else that of `MPNET_ISA`, else
    /// the fastest that the operating system permits.
    ///
    /// # Errors
    ///
    /// As [`detect`](Self::detect); [`Error::Option`] if the operating system refuses the one that
    /// was asked for.
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
        match dispatch!(self, simd => simd.permitted()) {
            Ok(()) => Ok(self),
            Err(problem) => Err(Error::Option { option: "isa", problem }),
        }
    }

    /// As [`detect`](Self::detect), looked up once, for functions that cannot fail: a wrong
    /// `MPNET_ISA`, which loading a model reports, counts as none.
    pub(crate) fn current() -> Self {
        static CURRENT: OnceLock<Isa> = OnceLock::new();
        *CURRENT.get_or_init(|| Self::detect().unwrap_or_else(|_| Self::best()))
    }

    /// As [`current`](Self::current), but the fastest that multiplies `f32` itself: for arrays of
    /// the caller, for which no precision was asked. With pairs of bf16 the cosine of a row with
    /// itself can miss 1 by 10⁻⁵, and that of two rows depends on their order.
    pub(crate) fn exact() -> Self {
        let current = Self::current();
        let whole = || Self::available().iter().rfind(|isa| !isa.splits_f32()).copied();
        if current.splits_f32() { whole().unwrap_or(current) } else { current }
    }

    /// NR: columns of a panel. A product is cut at multiples of it.
    pub(super) fn nr(self) -> usize {
        dispatch!(self, simd => simd.nr())
    }

    /// The number of words of a row along `K` is a multiple of this.
    pub(super) fn k_step(self) -> usize {
        dispatch!(self, simd => simd.k_step())
    }

    /// How rows are packed that are to be multiplied with `b`; `None` where any number is as good.
    pub(super) fn row_sizes(self, b: Factor) -> Option<RowSizes> {
        dispatch!(self, simd => simd.row_sizes(b))
    }

    /// Whether a matrix of `f32` is kept as pairs of bf16.
    pub(super) fn splits_f32(self) -> bool {
        dispatch!(self, simd => simd.multiplies(Format::Bf16Pairs))
    }

    /// Whether products of bf16 are faster than those of `f32`.
    pub(crate) fn multiplies_bf16(self) -> bool {
        dispatch!(self, simd => simd.multiplies(Format::Bf16))
    }

    /// Its name, as `MPNET_ISA` and `--isa` take it.
    ///
    /// ```
    /// assert_eq!(mpnet::Isa::available()[0].name(), "scalar");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        fn name<S: Simd>(_: S) -> &'static str {
            S::NAME
        }
        dispatch!(self, simd => name(simd))
    }

    /// Runs `kernel` compiled for this instruction set.
    #[inline]
    #[allow(unsafe_code, reason = "calls functions that need the instructions: see `run_with`")]
    pub(crate) fn run<K: Kernel>(self, kernel: K) {
        match self.0 {
            Set::Scalar(simd) => kernel.run(simd),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(simd) => run_with!("avx2,fma", Avx2, kernel, simd),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(simd) => {
                run_with!("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", Avx512, kernel, simd)
            }
            #[cfg(target_arch = "x86_64")]
            Set::Amx(simd) => {
                run_with!("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", Amx, kernel, simd)
            }
            #[cfg(test)]
            Set::Portable(simd) => kernel.run(simd),
        }
    }

    /// A tier of plain Rust with tiles, for tests of what all tiers with tiles share.
    #[cfg(test)]
    pub(super) fn portable() -> Self {
        Self(Set::Portable(Portable))
    }

    /// AMX where the machine can pack for it, with or without tile registers.
    #[cfg(all(test, target_arch = "x86_64"))]
    pub(super) fn amx_to_pack() -> Option<Self> {
        Amx::to_pack().map(|simd| Self(Set::Amx(simd)))
    }
}

impl FromStr for Isa {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        parse(name, "isa")
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Isa({})", self.name())
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

/// [`Isa::choose`], of an operating system that answers as `permitted` does. After a refusal `best`
/// is another one.
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

/// All but the last if that was refused.
fn usable(all: &[Isa], refused: impl Fn(Isa) -> bool) -> &[Isa] {
    match all {
        [rest @ .., last] if refused(*last) => rest,
        all => all,
    }
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
    fn exact_does_not_split_f32() {
        assert!(!Isa::exact().splits_f32());
    }

    /// An operating system that refuses AMX, on a machine that has it.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_refused_amx_is_an_error_if_it_was_asked_for_and_passed_over_if_not() {
        use std::cell::RefCell;

        let Some(amx) = Isa::amx_to_pack() else {
            println!("not run: no AVX-512 with bf16 and VNNI, which AMX comes with");
            return;
        };
        let avx512 = Isa(Set::Avx512(Avx512::detect().unwrap()));
        let all = [Isa(Set::Scalar(Scalar)), avx512, amx];
        let asked_for = RefCell::new(Vec::new());
        let permitted = |isa: Isa| {
            asked_for.borrow_mut().push(isa);
            match isa == amx {
                true => {
                    let problem = crate::kernels::amx::Refusal(28).explained();
                    Err(Error::Option { option: "isa", problem })
                }
                false => Ok(isa),
            }
        };
        let available = || usable(&all, |isa| asked_for.borrow().contains(&isa) && isa == amx);
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
