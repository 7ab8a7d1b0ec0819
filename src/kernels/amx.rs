//! The permission to use AMX.
//!
//! Linux gives the tile registers to a process that asks for them, for good: from then on it
//! refuses alternate signal stacks that are too small for their contents. So detection asks nothing
//! (`cpuid.rs`); loading a model for AMX does ([`permission`]).
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18; for
//! the permission, the Linux kernel's `Documentation/arch/x86/xstate.rst`.

use std::arch::asm;
use std::io;
use std::sync::OnceLock;

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

/// The operating system's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) i32);

impl Refusal {
    /// What was refused, and what to do.
    pub(super) fn explained(self) -> String {
        format!(
            "the machine has `amx`, but the operating system does not let this process use it \
             (arch_prctl, ARCH_REQ_XCOMP_PERM: {self}); `avx512` needs no permission"
        )
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
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
    // SAFETY: this call takes two numbers and touches no memory of the process; the instruction
    // itself overwrites RCX and R11. A kernel that does not know it returns an error.
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
        if !crate::kernels::cpuid::has_amx() {
            assert!(permission().is_err());
        }
    }
}
