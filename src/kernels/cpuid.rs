//! Whether the machine has AMX, by CPUID and XCR0: the standard library cannot tell on stable Rust.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.

use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

/// Whether the processor has AMX with bf16 and 8-bit products and the shape of tile registers that
/// the kernels are written for, and the operating system saves them. Only Linux is known to give
/// them to a process. Nothing is asked of it.
pub(super) fn has_amx() -> bool {
    cfg!(target_os = "linux") && has_instructions() && is_enabled()
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
        // SAFETY: `_xgetbv` asks for the feature, which is enabled here; register 0 is always
        // there.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: every x86-64 processor has CPUID; XGETBV is there where OSXSAVE is set.
    unsafe {
        __cpuid(1).ecx & OSXSAVE != 0
            && xcr0() & TILE_CONFIGURATION_AND_DATA == TILE_CONFIGURATION_AND_DATA
    }
}
