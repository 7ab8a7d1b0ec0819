//! The AMX tiles: 16 or 32 rows × 2 tile registers of 16 columns.
//!
//! A tile register is 16 rows of 64 bytes. `tdpbf16ps` and `tdpbusd` take one with 16 rows of `A`,
//! one with 16 steps of `B` and one with 16 × 16 sums, and keep the multipliers busy for 16 cycles;
//! loading a register takes 8. With 2 × 2 sums each register that is loaded serves two products.

use std::arch::asm;
use std::ops::Range;

use super::prefetch::{Prefetch, PrefetchSteps};
use super::{BlockA, KC, Tile, avx2_expand, check, sse_transpose};
use crate::kernels::amx::permission;
use crate::kernels::gemm::format::{Encode, Format, PAIRS, Scaling};
use crate::kernels::x86::Amx;

/// Rows of a tile register, and words of a row of it.
const SIDE: usize = 16;
const NR: usize = 2 * SIDE;

/// As without tile registers.
impl Encode for Amx {
    #[inline(always)]
    fn round_rows(
        self,
        values: &[f32],
        stride: usize,
        rows: &mut [&mut [half::bf16]],
        place: Range<usize>,
    ) {
        self.avx512().round_rows(values, stride, rows, place);
    }

    #[inline(always)]
    fn encode_first(
        self,
        format: Format,
        scaling: Scaling,
        values: &[f32],
        words: &mut [u32],
    ) -> usize {
        self.avx512().encode_first(format, scaling, values, words)
    }

    #[inline(always)]
    fn encode_first_pairs(self, even: &[f32], odd: &[f32], words: &mut [u32]) -> usize {
        self.avx512().encode_first_pairs(even, odd, words)
    }

    #[inline(always)]
    fn transpose<const WORDS: usize>(self, rows: &[[u32; WORDS]], panel: &mut [u32]) {
        sse_transpose::transpose(rows, panel);
    }
}

impl Tile for Amx {
    const MR: usize = 2 * SIDE;
    const NR: usize = NR;
    /// 1.5 MiB of a second-level cache of 2.
    const PACKED_WORDS: usize = 384 << 10;
    const WHOLE_K: bool = false;
    const NC_WORDS: usize = 0;
    const M_STEP: usize = SIDE;
    const K_STEP: usize = SIDE;

    type State = Configured;

    #[inline(always)]
    fn state(self) -> Configured {
        Configured::new(self)
    }

    /// All formats that matrices are kept in: `f32` by the tile of AVX-512.
    #[inline(always)]
    fn has_tile(self, format: Format) -> bool {
        format != Format::Int16
    }

    #[inline(always)]
    #[allow(unsafe_code, reason = "calls functions that read and write by pointer: see the block")]
    fn multiply(
        self,
        format: Format,
        a: BlockA,
        b: &[u32],
        c: &mut [u32],
        accumulate: bool,
        ahead: Prefetch,
    ) {
        check(self, format, a, b, c);
        if format == Format::F32 {
            return self.avx512().multiply(format, a, b, c, accumulate, ahead);
        }
        let words = b.len() / NR;
        let block = if format == Format::Bf16Pairs { PAIRS } else { SIDE };
        assert!(words.is_multiple_of(block), "tile: {words} words in blocks of {block}");
        let blocks = words / block;
        if blocks == 0 {
            if !accumulate {
                c.fill(0);
            }
            return;
        }
        let a = a.chunk(0);
        let count = a.len().div_ceil(2 * SIDE);
        let tiles = a.chunks(2 * SIDE).zip(c.chunks_mut(2 * SIDE * NR));
        for (i, (a, c)) in tiles.enumerate() {
            let ahead = ahead.part(i, count).over(blocks);
            let (a, b, c, two) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr(), a.len() == 2 * SIDE);
            // SAFETY: an `Amx` exists only where the instructions were detected and permitted. By
            // `check`, `a` is 16 or 32 rows of KC words, `b` has at most KC steps of NR words, of
            // which `blocks` times `block` are there, and `c` has as many rows of NR words as `a`
            // has rows. A prefetch may be given any address.
            unsafe {
                match (format, two) {
                    (Format::Bf16, true) => bf16_two(a.cast(), b, c, blocks, accumulate, ahead),
                    (Format::Bf16, false) => bf16_one(a.cast(), b, c, blocks, accumulate, ahead),
                    (Format::Int8, true) => int8_two(a.cast(), b, c, blocks, accumulate, ahead),
                    (Format::Int8, false) => int8_one(a.cast(), b, c, blocks, accumulate, ahead),
                    (_, true) => pairs_two(a.cast(), b, c, blocks, accumulate, ahead),
                    (_, false) => pairs_one(a.cast(), b, c, blocks, accumulate, ahead),
                }
            }
        }
    }

    #[inline(always)]
    #[allow(unsafe_code, reason = "calls a function that needs AVX2: see the block")]
    fn expand(self, to: Format, format: Format, words: &[u32], rest: &[u32], out: &mut [u32]) {
        // SAFETY: a value of `Amx` exists only where AVX2 was detected.
        unsafe { avx2_expand::expand(to, format, words, rest, NR, out) }
    }
}

/// While this exists, the tile registers of the thread that made it are all 16 rows of 64 bytes.
///
/// It does not outlive a product, so that other users of AMX in the same thread are not disturbed
/// and the operating system has nothing to save in between.
pub(crate) struct Configured(std::marker::PhantomData<*const ()>);

impl Configured {
    /// Asks for permission if nobody has yet.
    ///
    /// # Panics
    ///
    /// If the operating system refused it.
    #[inline(always)]
    #[allow(unsafe_code, reason = "is one instruction: see the block")]
    fn new(_proof: Amx) -> Self {
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
        // SAFETY: an `Amx` exists only where the instruction does, and it is permitted, as
        // asserted; it reads the 64 bytes.
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

/// Defines the product of 32 rows (`$two`) and of 16 (`$one`) with a panel, one instruction for
/// each pair of registers.
///
/// Each takes pointers to `[rows][KC]` words of `a`, to `[16 · blocks][NR]` of `b` and to
/// `[rows][NR]` of `c`; `blocks` is at least 1. Sums are in registers 0 to 3, `a` in 4 and 5, `b`
/// in 6 and 7. With each block its share of the words after `b` is prefetched.
macro_rules! define_products {
    ($two:ident, $one:ident, $dot:literal) => {
        #[allow(unsafe_code, reason = "is assembly")]
        unsafe fn $two(
            a: *const u32,
            b: *const u32,
            c: *mut u32,
            blocks: usize,
            accumulate: bool,
            ahead: PrefetchSteps,
        ) {
            // SAFETY: reads and writes what the caller says is there: rows of `a` are 4 · KC bytes
            // apart, those of `b` and `c` 128; each block is 64 bytes of a row of `a` and 16 rows
            // of `b`. No stack, no flags kept.
            unsafe {
                asm!(
                    "test {accumulate:e}, {accumulate:e}",
                    "jz 2f",
                    "tileloadd tmm0, [{c} + {wide}*1]",
                    "tileloadd tmm1, [{c} + {wide}*1 + 64]",
                    "tileloadd tmm2, [{c} + {wide}*1 + 2048]",
                    "tileloadd tmm3, [{c} + {wide}*1 + 2112]",
                    "jmp 3f",
                    "2:",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "3:",
                    "tileloadd tmm4, [{a} + {deep}*1]",
                    "tileloadd tmm6, [{b} + {wide}*1]",
                    concat!($dot, " tmm0, tmm4, tmm6"),
                    "tileloadd tmm7, [{b} + {wide}*1 + 64]",
                    concat!($dot, " tmm1, tmm4, tmm7"),
                    "tileloadd tmm5, [{a} + {deep}*1 + 16*{KC}*4]",
                    concat!($dot, " tmm2, tmm5, tmm6"),
                    concat!($dot, " tmm3, tmm5, tmm7"),
                    "add {a}, 64",
                    "add {b}, 2048",
                    "mov {line}, {lines}",
                    "4:",
                    "prefetcht1 [{ahead}]",
                    "add {ahead}, 64",
                    "dec {line}",
                    "jnz 4b",
                    "dec {blocks}",
                    "jnz 3b",
                    "tilestored [{c} + {wide}*1], tmm0",
                    "tilestored [{c} + {wide}*1 + 64], tmm1",
                    "tilestored [{c} + {wide}*1 + 2048], tmm2",
                    "tilestored [{c} + {wide}*1 + 2112], tmm3",
                    a = inout(reg) a => _,
                    b = inout(reg) b => _,
                    c = in(reg) c,
                    blocks = inout(reg) blocks => _,
                    accumulate = in(reg) u32::from(accumulate),
                    ahead = inout(reg) ahead.at => _,
                    lines = in(reg) ahead.lines(),
                    line = out(reg) _,
                    wide = in(reg) 4 * NR,
                    deep = in(reg) 4 * KC,
                    KC = const KC,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }

        #[allow(unsafe_code, reason = "is assembly")]
        unsafe fn $one(
            a: *const u32,
            b: *const u32,
            c: *mut u32,
            blocks: usize,
            accumulate: bool,
            ahead: PrefetchSteps,
        ) {
            // SAFETY: as for 32 rows.
            unsafe {
                asm!(
                    "test {accumulate:e}, {accumulate:e}",
                    "jz 2f",
                    "tileloadd tmm0, [{c} + {wide}*1]",
                    "tileloadd tmm1, [{c} + {wide}*1 + 64]",
                    "jmp 3f",
                    "2:",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "3:",
                    "tileloadd tmm4, [{a} + {deep}*1]",
                    "tileloadd tmm6, [{b} + {wide}*1]",
                    concat!($dot, " tmm0, tmm4, tmm6"),
                    "tileloadd tmm7, [{b} + {wide}*1 + 64]",
                    concat!($dot, " tmm1, tmm4, tmm7"),
                    "add {a}, 64",
                    "add {b}, 2048",
                    "mov {line}, {lines}",
                    "4:",
                    "prefetcht1 [{ahead}]",
                    "add {ahead}, 64",
                    "dec {line}",
                    "jnz 4b",
                    "dec {blocks}",
                    "jnz 3b",
                    "tilestored [{c} + {wide}*1], tmm0",
                    "tilestored [{c} + {wide}*1 + 64], tmm1",
                    a = inout(reg) a => _,
                    b = inout(reg) b => _,
                    c = in(reg) c,
                    blocks = inout(reg) blocks => _,
                    accumulate = in(reg) u32::from(accumulate),
                    ahead = inout(reg) ahead.at => _,
                    lines = in(reg) ahead.lines(),
                    line = out(reg) _,
                    wide = in(reg) 4 * NR,
                    deep = in(reg) 4 * KC,
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

define_products!(bf16_two, bf16_one, "tdpbf16ps");
// Unsigned bytes of `a`, signed ones of `b`: exact in 32 bits for K up to `DEEPEST_INT8`, beyond
// which the driver does not come here.
define_products!(int8_two, int8_one, "tdpbusd");

/// 32 rows of pairs: upper · lower, upper · upper and lower · upper halves; lower · lower is
/// omitted, which is as small as the error of the pairs.
///
/// `b` is `[32 · blocks][NR]`, of each block first the upper halves, and so are the rows of `a`.
#[allow(unsafe_code, reason = "is assembly")]
unsafe fn pairs_two(
    a: *const u32,
    b: *const u32,
    c: *mut u32,
    blocks: usize,
    accumulate: bool,
    ahead: PrefetchSteps,
) {
    // SAFETY: as in `define_products`, with blocks of 128 bytes of a row of `a` and 32 rows of `b`.
    unsafe {
        asm!(
            "test {accumulate:e}, {accumulate:e}",
            "jz 2f",
            "tileloadd tmm0, [{c} + {wide}*1]",
            "tileloadd tmm1, [{c} + {wide}*1 + 64]",
            "tileloadd tmm2, [{c} + {wide}*1 + 2048]",
            "tileloadd tmm3, [{c} + {wide}*1 + 2112]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "3:",
            "tileloadd tmm4, [{a} + {deep}*1]",
            "tileloadd tmm6, [{b} + {wide}*1 + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {wide}*1 + 2112]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {deep}*1 + 16*{KC}*4]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm6, [{b} + {wide}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {wide}*1 + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm4, [{a} + {deep}*1 + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {deep}*1 + 16*{KC}*4 + 64]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 128",
            "add {b}, 4096",
            "mov {line}, {lines}",
            "4:",
            "prefetcht1 [{ahead}]",
            "add {ahead}, 64",
            "dec {line}",
            "jnz 4b",
            "dec {blocks}",
            "jnz 3b",
            "tilestored [{c} + {wide}*1], tmm0",
            "tilestored [{c} + {wide}*1 + 64], tmm1",
            "tilestored [{c} + {wide}*1 + 2048], tmm2",
            "tilestored [{c} + {wide}*1 + 2112], tmm3",
            a = inout(reg) a => _,
            b = inout(reg) b => _,
            c = in(reg) c,
            blocks = inout(reg) blocks => _,
            accumulate = in(reg) u32::from(accumulate),
            ahead = inout(reg) ahead.at => _,
            lines = in(reg) ahead.lines(),
            line = out(reg) _,
            wide = in(reg) 4 * NR,
            deep = in(reg) 4 * KC,
            KC = const KC,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// 16 rows of pairs.
#[allow(unsafe_code, reason = "is assembly")]
unsafe fn pairs_one(
    a: *const u32,
    b: *const u32,
    c: *mut u32,
    blocks: usize,
    accumulate: bool,
    ahead: PrefetchSteps,
) {
    // SAFETY: as for 32 rows.
    unsafe {
        asm!(
            "test {accumulate:e}, {accumulate:e}",
            "jz 2f",
            "tileloadd tmm0, [{c} + {wide}*1]",
            "tileloadd tmm1, [{c} + {wide}*1 + 64]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "3:",
            "tileloadd tmm4, [{a} + {deep}*1]",
            "tileloadd tmm6, [{b} + {wide}*1 + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {wide}*1 + 2112]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm6, [{b} + {wide}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {wide}*1 + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {deep}*1 + 64]",
            "tdpbf16ps tmm0, tmm5, tmm6",
            "tdpbf16ps tmm1, tmm5, tmm7",
            "add {a}, 128",
            "add {b}, 4096",
            "mov {line}, {lines}",
            "4:",
            "prefetcht1 [{ahead}]",
            "add {ahead}, 64",
            "dec {line}",
            "jnz 4b",
            "dec {blocks}",
            "jnz 3b",
            "tilestored [{c} + {wide}*1], tmm0",
            "tilestored [{c} + {wide}*1 + 64], tmm1",
            a = inout(reg) a => _,
            b = inout(reg) b => _,
            c = in(reg) c,
            blocks = inout(reg) blocks => _,
            accumulate = in(reg) u32::from(accumulate),
            ahead = inout(reg) ahead.at => _,
            lines = in(reg) ahead.lines(),
            line = out(reg) _,
            wide = in(reg) 4 * NR,
            deep = in(reg) 4 * KC,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
