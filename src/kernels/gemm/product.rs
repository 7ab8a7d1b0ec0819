//! One rectangle of a product on one thread, by tiles: the loops over blocks of packed `A` and
//! panels of packed `B`. `docs/kernels.md` has the figure.

use std::cell::RefCell;
use std::ops::Range;

use ndarray::ArrayViewMut2;

use super::Epilogue;
use super::element::Element;
use super::epilogue::ApplyEpilogue;
use super::format::Format;
use super::pack_a::PackedA;
use super::packed::Factor;
use super::tile::{BlockA, KC, Prefetch, Tile, prefetch_all, tiles};
use crate::kernels::memory::Lines;
use crate::kernels::simd::{Kernel, Tier};

/// Rows that go together through a group of panels where they are few, or where panels have to be
/// expanded for them: the partial results of the group, 128 KiB for AVX-512, stay in a second-level
/// cache.
const MC: usize = 256;

/// Rows so few that what counts is how panels come from memory: they are then visited in pieces,
/// each by all rows, while the next one is fetched.
const FEW_ROWS: usize = 48;

/// Panels between two visits to the result at most: a row of it is then written 512 bytes at a
/// time, and not 128 in each of as many pages as there are rows.
const NC: usize = 4;

/// A rectangle of a product: where it begins, and its elements.
pub(crate) struct Rectangle<'a, C> {
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) out: ArrayViewMut2<'a, C>,
}

/// Multiplies rows that are packed, those of the rectangle, with `b`.
pub(crate) struct Multiply<'a, 'b, C> {
    pub(super) b: Factor<'a>,
    pub(super) epilogue: Epilogue<'a>,
    pub(super) blocks: PackedBlocks<'b>,
    pub(super) rectangle: Rectangle<'b, C>,
}

/// Packed rows, as many in each block but perhaps the last.
#[derive(Clone, Copy)]
pub(crate) struct PackedBlocks<'a> {
    pub(super) blocks: &'a [PackedA],
    pub(super) height: usize,
}

/// Scratch memory of a product, which a thread keeps for its next one.
#[derive(Default)]
pub(crate) struct Workspace {
    /// A part of a panel of `B`, where it has to be expanded.
    pub(super) expanded: Lines,
    pub(super) accumulators: Lines,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

impl<C: Element> Kernel for Multiply<'_, '_, C> {
    #[inline(always)]
    fn run<S: Tier>(self, simd: S) {
        // Taken out of its place and put back: a closure would be compiled without the
        // instructions.
        let mut workspace = WORKSPACE.take();
        simd.product(self, &mut workspace);
        WORKSPACE.set(workspace);
    }
}

#[inline(always)]
pub(super) fn by_tiles<S: Tile, C: Element>(
    product: Multiply<C>,
    simd: S,
    workspace: &mut Workspace,
) {
    let Multiply { b, epilogue, blocks, rectangle } = product;
    let Rectangle { column: first_column, mut out, .. } = rectangle;
    let (m, n) = out.dim();
    let mut out = contiguous(&mut out);
    let loops = Loops::new(simd, b, m);
    let mc_blocks = || mc_blocks::<S>(m, blocks.height, loops.mc);
    let count = mc_blocks().count();
    let Workspace { expanded, accumulators } = workspace;
    let _state = simd.state();
    for column in (0..n).step_by(loops.nc * S::NR) {
        let first = (first_column + column) / S::NR;
        let panels = first..first + loops.nc.min((n - column).div_ceil(S::NR));
        for (i, block) in mc_blocks().enumerate() {
            let packed = &blocks.blocks[block.packed];
            let size = block.rows() * S::NR;
            let out = &mut out[block.first + block.top..(block.first + block.end).min(m)];
            let place = |p: usize| column + p * S::NR..(column + (p + 1) * S::NR).min(n);
            accumulators.resize(panels.len() * size);
            if loops.panel == 0 {
                accumulators.fill(0);
            }
            for start in (0..loops.panel).step_by(loops.kc.max(1)) {
                let a = block.a::<S>(
                    packed,
                    start / loops.kc_words,
                    blocks.height.min(m - block.first),
                );
                for (p, c) in accumulators.chunks_exact_mut(size).enumerate() {
                    if start + loops.kc >= loops.panel {
                        // The result will be written when the sums are complete; fetched first, its
                        // lines need not be waited for one by one.
                        out.iter().for_each(|row| prefetch_all(&row[place(p)]));
                    }
                    let words = loops.words(panels.start + p, start);
                    let next = loops.next(&panels, p, start);
                    let next = b.values.get(next..).unwrap_or_default();
                    let next = &next[..words.len().min(next.len())];
                    let prefetch = Prefetch::of(next).part(i, count);
                    let panel = loops.multiplied(simd, b, words, expanded);
                    simd.multiply(loops.tile, a, panel, c, start > 0, prefetch);
                }
            }
            let quantization = packed.quantization.get(block.top..).unwrap_or_default();
            let format = loops.tile;
            let finish = ApplyEpilogue { b, epilogue, format, column: first_column, quantization };
            for (p, c) in accumulators.chunks_exact_mut(size).enumerate() {
                finish.panel(simd, c, S::NR, out, place(p));
            }
        }
    }
}

/// The sizes of the loops of one product.
struct Loops {
    /// The format of the tile.
    tile: Format,
    /// Words of a panel, in the format that it is kept in.
    panel: usize,
    /// Words of a panel that meet KC words of each row of `A`.
    kc_words: usize,
    /// Words of a panel between two visits to the accumulators.
    kc: usize,
    /// Rows of a block.
    mc: usize,
    /// Panels that all blocks go through together.
    nc: usize,
}

impl Loops {
    #[inline(always)]
    fn new<S: Tile>(simd: S, b: Factor, m: usize) -> Self {
        let tile = b.multiplied_as(simd);
        let panel = b.words() * S::NR;
        let kc_words = KC * tile.values_per_word() / b.format.values_per_word() * S::NR;
        // Blocks of one tile keep their accumulators in registers all along K; the panels of a
        // group then stay in cache for all blocks.
        let (mc, kc, nc) = match S::WHOLE_K && tile == b.format && m > FEW_ROWS {
            true => (S::MR, panel, (S::NC_WORDS / panel.max(1)).clamp(1, NC)),
            false => (MC, kc_words, NC),
        };
        Self { tile, panel, kc_words, kc, mc, nc }
    }

    /// The words of panel `panel` that are multiplied at one visit, from `start` on.
    #[inline(always)]
    fn words(&self, panel: usize, start: usize) -> Range<usize> {
        let first = panel * self.panel;
        first + start..first + (start + self.kc).min(self.panel)
    }

    /// Where the words begin that are read after those of panel `p` of the group from `start` on.
    #[inline(always)]
    fn next(&self, panels: &Range<usize>, p: usize, start: usize) -> usize {
        let (panel, start) = match () {
            () if self.kc == self.panel => (p + self.nc, 0),
            () if p + 1 < panels.len() => (p + 1, start),
            () if start + self.kc < self.panel => (0, start + self.kc),
            () => (panels.len(), 0),
        };
        (panels.start + panel) * self.panel + start
    }

    /// The words at `place` in the format of the tile: as they are, or expanded.
    #[inline(always)]
    fn multiplied<'a, S: Tile>(
        &self,
        simd: S,
        b: Factor<'a>,
        place: Range<usize>,
        expanded: &'a mut Lines,
    ) -> &'a [u32] {
        let (words, rest) = b.words_in(place);
        if self.tile == b.format {
            return words;
        }
        expanded.resize(words.len() * b.format.values_per_word() / self.tile.values_per_word());
        simd.expand(self.tile, b.format, words, rest, expanded);
        expanded
    }
}

/// Rows of packed `A` that go through a group of panels together.
struct McBlock {
    /// The number of the packed rows that it is part of.
    packed: usize,
    /// The first of those rows.
    first: usize,
    /// The first row of the block, and the one after its last, in the packed rows.
    top: usize,
    end: usize,
}

impl McBlock {
    fn rows(&self) -> usize {
        self.end - self.top
    }

    /// Its rows from a chunk of `K` on; `packed` are `height` rows and padding.
    #[inline(always)]
    fn a<'a, S: Tile>(&self, packed: &'a PackedA, chunk: usize, height: usize) -> BlockA<'a> {
        let height = height.next_multiple_of(S::M_STEP);
        let (words, _) = packed.words.as_chunks::<KC>();
        BlockA { words: &words[chunk * height + self.top..], height, rows: self.rows() }
    }
}

/// Cuts `m` rows, packed `height` at a time, into blocks of at most `mc`, as even as possible and
/// padded as the tiles of `S` ask for.
#[inline(always)]
fn mc_blocks<S: Tile>(m: usize, height: usize, mc: usize) -> impl Iterator<Item = McBlock> {
    (0..m).step_by(height.max(1)).enumerate().flat_map(move |(packed, first)| {
        let steps = height.min(m - first).div_ceil(S::M_STEP);
        tiles(steps, mc / S::M_STEP).map(move |(top, end)| McBlock {
            packed,
            first,
            top: top * S::M_STEP,
            end: end * S::M_STEP,
        })
    })
}

pub(super) fn contiguous<'a, C>(out: &'a mut ArrayViewMut2<C>) -> Vec<&'a mut [C]> {
    let rows = out.rows_mut().into_iter();
    rows.map(|row| row.into_slice().expect("the rows of `out` are contiguous")).collect()
}
