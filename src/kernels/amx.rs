//! AMX, as far as it is not a product: whether it is there and permitted, and the configuration of a thread's tile registers.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18; for the permission, the Linux
//! kernel's `Documentation/arch/x86/xstate.rst`.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

use super::simd::Amx;

/// Whether the processor has AMX with bf16 and 8-bit products and the shape of tile registers that the kernels are written
/// for, and the operating system lets this process use it.
pub(super) fn is_available() -> bool {
    has_instructions() && is_enabled() && is_permitted()
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
fn is_permitted() -> bool {
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
    result == 0
}

/// Other systems are not supported.
#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// While this exists, the tile registers of the thread that made it are all 16 rows of 64 bytes.
///
/// It does not outlive a product, so that other users of AMX in the same thread are not disturbed and the operating system
/// has nothing to save in between.
pub(super) struct Configured(std::marker::PhantomData<*const ()>);

impl Configured {
    #[inline(always)]
    #[allow(unsafe_code, reason = "is one instruction: see the block")]
    pub(super) fn new(_proof: Amx) -> Self {
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
        // SAFETY: an `Amx` exists only where this is available; it reads the 64 bytes.
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
