//! AMX, as far as it is not a product: whether it is there and permitted, and the configuration of a thread's tile registers.
//!
//! Linux gives the tile registers to a process that asks for them, for good: from then on it refuses alternate signal stacks
//! that are too small for their contents. So looking for AMX asks nothing ([`is_there`]); the first product that is to
//! use it does ([`permission`]).
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18; for the permission, the Linux
//! kernel's `Documentation/arch/x86/xstate.rst`.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::io;
use std::sync::OnceLock;

use super::simd::Amx;

/// Whether the processor has AMX with bf16 and 8-bit products and the shape of tile registers that the kernels are written
/// for, and the operating system saves them. Only Linux is known to give them to a process. Nothing is asked of it.
pub(super) fn is_there() -> bool {
    cfg!(target_os = "linux") && has_instructions() && is_enabled()
}

/// Asks for the permission to use the tile registers, once for the life of the process.
///
/// # Errors
///
/// The number of the operating system's error, the first time and every time after it.
pub(super) fn permission() -> Result<(), Refusal> {
    PERMISSION.get(request)
}

/// Whether permission was asked for and refused.
pub(super) fn is_refused() -> bool {
    PERMISSION.is_refused()
}

static PERMISSION: Permission = Permission(OnceLock::new());

/// The answer to a question that is asked once.
struct Permission(OnceLock<Result<(), Refusal>>);

impl Permission {
    fn get(&self, ask: impl FnOnce() -> Result<(), Refusal>) -> Result<(), Refusal> {
        *self.0.get_or_init(ask)
    }

    fn is_refused(&self) -> bool {
        matches!(self.0.get(), Some(Err(_)))
    }
}

/// A refusal for tests elsewhere.
#[cfg(test)]
pub(super) fn permission_refused_with(error: i32) -> Refusal {
    Refusal(error)
}

/// The operating system's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal(i32);

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

#[allow(unused_unsafe, reason = "reading CPUID is safe from Rust 1.94 on")]
#[allow(unsafe_code, reason = "reads CPUID: see the blocks")]
fn has_instructions() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    // SAFETY: every x86-64 processor has CPUID.
    let (leaves, features) = unsafe { (__cpuid(0).eax, __cpuid_count(7, 0).edx) };
    if leaves < 0x1D || features & (BF16 | TILE | INT8) != (BF16 | TILE | INT8) {
        return false;
    }
    // SAFETY: as above. Leaf 1D describes the shapes, palette 1 the only one there is so far.
    let (palettes, shape) = unsafe { (__cpuid_count(0x1D, 0).eax, __cpuid_count(0x1D, 1)) };
    let (bytes_per_row, registers, rows) =
        (shape.ebx & 0xFFFF, shape.ebx >> 16, shape.ecx & 0xFFFF);
    palettes >= 1 && bytes_per_row == 64 && registers == 8 && rows == 16
}

/// Whether the operating system saves the tile registers when it switches threads.
#[allow(unused_unsafe, reason = "reading CPUID is safe from Rust 1.94 on")]
#[allow(unsafe_code, reason = "reads CPUID and XCR0: see the blocks")]
fn is_enabled() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const TILE_CONFIGURATION_AND_DATA: u64 = 0b11 << 17;
    #[target_feature(enable = "xsave")]
    fn xcr0() -> u64 {
        // SAFETY: `_xgetbv` asks for the feature, which is enabled here; register 0 is always there.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: every x86-64 processor has CPUID; XGETBV is there where OSXSAVE is set.
    unsafe {
        __cpuid(1).ecx & OSXSAVE != 0
            && xcr0() & TILE_CONFIGURATION_AND_DATA == TILE_CONFIGURATION_AND_DATA
    }
}

/// Asks Linux to let this process, all its threads, use the tile registers.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "makes a system call: see the block")]
fn request() -> Result<(), Refusal> {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let result: isize;
    // SAFETY: this call takes two numbers and touches no memory of the process; the instruction itself overwrites RCX and
    // R11. A kernel that does not know it returns an error.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    match result {
        0 => Ok(()),
        negative => Err(Refusal(i32::try_from(-negative).unwrap_or(i32::MAX))),
    }
}

/// Other systems are not supported.
#[cfg(not(target_os = "linux"))]
fn request() -> Result<(), Refusal> {
    Err(Refusal(0))
}

/// While this exists, the tile registers of the thread that made it are all 16 rows of 64 bytes.
///
/// It does not outlive a product, so that other users of AMX in the same thread are not disturbed and the operating system
/// has nothing to save in between.
pub(super) struct Configured(std::marker::PhantomData<*const ()>);

impl Configured {
    /// Asks for permission if nobody has yet.
    ///
    /// # Panics
    ///
    /// If the operating system refused it.
    #[inline(always)]
    #[allow(unsafe_code, reason = "is one instruction: see the block")]
    pub(super) fn new(_proof: Amx) -> Self {
        // A model is refused when it is loaded; this is for matrices that were packed without one.
        assert!(permission().is_ok(), "the operating system refused the tile registers of AMX");
        /// Palette 1; bytes a row from byte 16, two for each register; rows from byte 48.
        #[repr(align(64))]
        struct Configuration([u8; 64]);
        static CONFIGURATION: Configuration = {
            let mut bytes = [0; 64];
            bytes[0] = 1;
            let mut register = 0;
            while register < 8 {
                bytes[16 + 2 * register] = 64;
                bytes[48 + register] = 16;
                register += 1;
            }
            Configuration(bytes)
        };
        // SAFETY: an `Amx` exists only where the instruction does, and it is permitted, as asserted; it reads the 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIGURATION.0, options(nostack, readonly)) };
        Self(std::marker::PhantomData)
    }
}

impl Drop for Configured {
    #[inline(always)]
    #[allow(unsafe_code, reason = "is one instruction: see the block")]
    fn drop(&mut self) {
        // SAFETY: as in `new`; nothing reads the registers from here on.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn permission_is_asked_for_once_and_a_refusal_is_remembered() {
        for answer in [Ok(()), Err(Refusal(28))] {
            let (permission, asked) = (Permission(OnceLock::new()), Cell::new(0));
            assert!(!permission.is_refused(), "nobody has asked");
            let ask = || {
                asked.set(asked.get() + 1);
                answer
            };
            assert_eq!((permission.get(ask), permission.get(ask)), (answer, answer));
            assert_eq!((asked.get(), permission.is_refused()), (1, answer.is_err()));
        }
    }

    #[test]
    fn without_amx_linux_refuses() {
        if !is_there() {
            assert!(permission().is_err());
        }
    }
}
