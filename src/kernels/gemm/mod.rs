//! Matrix products, all of them. `docs/kernels.md` explains the loops and the panels.
//!
//! `C = A · Bᵀ`, since checkpoints store a linear layer as `[out, in]`. `B` is packed once
//! ([`PackedMatrix`]), in a [`Precision`](super::Precision), into the order in which the
//! instruction set's tile reads it. `A` is rounded to the same precision when its rows are packed.
//! Where an instruction set has no tile for a precision, weights are expanded to a wider format a
//! panel at a time. [`matmul`] is one product on the calling thread; [`par_matmul`] shares a
//! product among the caller's rayon threads by cutting `C` into rectangles, and applies an
//! [`Epilogue`] to each finished block while it is in cache.
//!
//! How `C` is cut depends on the number of threads; the sum behind each of its elements does not.
//! Every tile adds along `K` from front to back, in blocks of a fixed length (`matrixmultiply` in
//! blocks of its own), whatever the other sizes are and however many rows the tile has. The tests
//! hold it to that.

mod element;
mod epilogue;
mod format;
mod pack_a;
mod pack_b;
mod packed;
mod product;
mod scalar;
mod spread;
#[cfg(test)]
mod tests;
mod tier;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "no tier with tiles yet"))]
mod tile;

use std::cell::RefCell;

use ndarray::{ArrayView2, ArrayViewMut2, Axis};

use super::activation::Activation;
use super::team::Team;
pub use element::Element;
pub(super) use format::Format;
pub(crate) use format::nearest;
pub(super) use pack_a::RowSizes;
use pack_a::{PackA, PackedA};
pub(crate) use packed::LAYOUT;
pub use packed::{Factor, PackedMatrix};
use product::{Multiply, PackedBlocks, Rectangle};
pub(super) use tier::Tier;
#[cfg(test)]
pub(super) use tile::Portable;

/// Multiply-adds below which a product is not worth sharing among threads (some 5 µs of work).
const SMALL: usize = 1 << 19;

/// Rows for each thread from which on a product is cut between rows only.
const MANY: usize = 512;

/// Rectangles for each thread where a product is cut across: more balance the load, fewer save
/// overhead.
const PIECES: usize = 4;

/// Applied to each finished block of a product while it is in cache.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// Nothing.
    None,
    /// `activation(row + bias)`, `bias`: `[N]`.
    Bias(&'a [f32], Activation),
}

/// `out = a · bᵀ` on this thread.
///
/// `a`: `[M, K]`, `b`: `[N, K]`, `out`: `[M, N]`, its rows contiguous.
///
/// # Panics
///
/// If the shapes do not fit together, or the rows of `out` are not contiguous.
pub fn matmul<A: Element, C: Element>(
    a: ArrayView2<A>,
    b: &PackedMatrix,
    out: &mut ArrayViewMut2<C>,
) {
    let b = Factor::from(b);
    check(a.dim(), b, out.dim());
    multiply(a, b, Epilogue::None, Rectangle { row: 0, column: 0, out: out.view_mut() });
}

thread_local! {
    /// Rows that a thread packs for its own products.
    static ROWS: RefCell<PackedA> = RefCell::default();
}

/// A rectangle of `a · bᵀ` on this thread, as many rows at a time as should be packed at once.
fn multiply<A: Element, C: Element>(
    a: ArrayView2<A>,
    b: Factor,
    epilogue: Epilogue,
    rectangle: Rectangle<C>,
) {
    let Rectangle { row, column, mut out } = rectangle;
    let most = b.isa.row_sizes(b).map_or(usize::MAX, |row_sizes| row_sizes.most);
    let height = most.min(out.nrows()).max(1);
    let mut rows = ROWS.take();
    let mut first = row;
    for out in out.axis_chunks_iter_mut(Axis(0), height) {
        let count = out.nrows();
        b.isa.run(PackA { a, b, first, count, rows: &mut rows });
        let blocks = PackedBlocks { blocks: std::slice::from_ref(&rows), height: count };
        let rectangle = Rectangle { row: first, column, out };
        b.isa.run(Multiply { b, epilogue, blocks, rectangle });
        first += count;
    }
    ROWS.set(rows);
}

/// `out = a · bᵀ`, then the epilogue, shared among the threads of `team`.
///
/// `a`: `[M, K]`, `b`: `[N, K]`, `out`: `[M, N]`, its rows contiguous.
///
/// # Panics
///
/// If the shapes do not fit together, the rows of `out` are not contiguous, or a bias is shorter
/// than `N`.
pub fn par_matmul<'b, A: Element, C: Element>(
    team: &Team,
    a: ArrayView2<A>,
    b: impl Into<Factor<'b>>,
    out: ArrayViewMut2<C>,
    epilogue: Epilogue,
) {
    let b = b.into();
    check(a.dim(), b, out.dim());
    if let Epilogue::Bias(bias, _) = epilogue {
        assert!(bias.len() >= b.n, "matmul: a bias of {} for {} columns", bias.len(), b.n);
    }
    let cuts = Cuts::new(b, a.nrows(), team.threads());
    let isa = b.isa;
    if !cuts.shares_rows {
        let rectangles = cuts.rectangles(out, isa.nr());
        team.for_each(rectangles, |rectangle| multiply(a, b, epilogue, rectangle));
        return;
    }
    // Few rows are multiplied by many threads, each with columns of its own: the rows are packed
    // once for all of them.
    thread_local! {
        static PACKED: RefCell<Vec<PackedA>> = RefCell::default();
    }
    let mut packed = PACKED.take();
    packed.resize_with(cuts.blocks(), PackedA::default);
    let blocks = packed.iter_mut().enumerate().map(|(i, rows)| (cuts.block(i), rows)).collect();
    let pack = |(at, rows): (std::ops::Range<usize>, &mut PackedA)| {
        isa.run(PackA { a, b, first: at.start, count: at.len(), rows });
    };
    if a.len() < SMALL / 16 {
        Team::alone().for_each(blocks, pack)
    } else {
        team.for_each(blocks, pack)
    }
    team.for_each(cuts.rectangles(out, isa.nr()), |rectangle| {
        let blocks =
            PackedBlocks { blocks: &packed[rectangle.row / cuts.height..], height: cuts.height };
        isa.run(Multiply { b, epilogue, blocks, rectangle });
    });
    PACKED.set(packed);
}

fn check(a: (usize, usize), b: Factor, out: (usize, usize)) {
    assert!(
        a.1 == b.k && out == (a.0, b.n),
        "matmul: {a:?} times {:?} transposed into {out:?}",
        (b.n, b.k)
    );
}

/// Into how many pieces the `m` rows and the columns of a product are cut.
///
/// A vector tier wants as many rows as fit the cache when they are packed, and then all columns:
/// each row is packed once, each panel read once for many rows. Where that gives too few pieces for
/// the threads, as for a single text, they are cut across too, so that every thread reads its share
/// of the weights; the rows are then packed first, in blocks, by all threads. The scalar tier packs
/// rows and columns anew for each piece: of all cuts with enough pieces it takes the one that packs
/// least.
struct Cuts {
    m: usize,
    down: usize,
    across: usize,
    /// Rows of a block. All cuts between rows are at multiples of this.
    height: usize,
    /// Whether several pieces are made from the same rows, which are then packed once.
    shares_rows: bool,
}

impl Cuts {
    fn new(b: Factor, m: usize, threads: usize) -> Self {
        let (n, k) = (b.n, b.k);
        let work = m.saturating_mul(n).saturating_mul(k);
        let wanted = match threads {
            _ if work < SMALL => 1,
            1 => 1,
            _ => (PIECES * threads).min(work / SMALL + 1),
        };
        let panels = n.div_ceil(b.isa.nr()).max(1);
        let Some(RowSizes { step, tile, least, most }) = b.isa.row_sizes(b) else {
            let packed = |down: usize| wanted.div_ceil(down).clamp(1, panels) * m + down * n;
            let down = (1..=wanted.min(m)).min_by_key(|&down| packed(down)).unwrap_or(1);
            let across = wanted.div_ceil(down).clamp(1, panels);
            let height = m.div_ceil(down).max(1);
            return Self { m, down: m.div_ceil(height).max(1), across, height, shares_rows: false };
        };
        if wanted == 1 || m >= threads * MANY {
            // Rows enough to give each thread its share.
            let down = if wanted == 1 { 1 } else { m.div_ceil(most).next_multiple_of(threads) };
            let height = m.div_ceil(down).next_multiple_of(step).max(1);
            return Self {
                m,
                down: m.div_ceil(height).max(1),
                across: 1,
                height,
                shares_rows: false,
            };
        }
        let across = wanted.min(panels);
        let blocks = m.div_ceil(most).max((2 * threads).min(m / least)).max(1);
        let height = m.div_ceil(blocks).next_multiple_of(tile);
        let down = wanted.div_ceil(across).min(m.div_ceil(height));
        Self { m, down, across, height, shares_rows: true }
    }

    /// Blocks of rows.
    fn blocks(&self) -> usize {
        self.m.div_ceil(self.height)
    }

    /// The rows of block `i`.
    fn block(&self, i: usize) -> std::ops::Range<usize> {
        (i * self.height).min(self.m)..((i + 1) * self.height).min(self.m)
    }

    /// Cuts `out` into the pieces, row by row of pieces; across at multiples of `panel`.
    fn rectangles<'a, C>(
        &self,
        mut out: ArrayViewMut2<'a, C>,
        panel: usize,
    ) -> Vec<Rectangle<'a, C>> {
        let n = out.ncols();
        let (panels, blocks) = (n.div_ceil(panel), self.blocks());
        let mut pieces = Vec::with_capacity(self.down * self.across);
        for i in 0..self.down {
            let edge = |i: usize| (i * blocks / self.down * self.height).min(self.m);
            let (row, end) = (edge(i), edge(i + 1));
            let (mut rows, below) = out.split_at(Axis(0), end - row);
            out = below;
            for j in 0..self.across {
                let edge = |j: usize| (j * panels / self.across * panel).min(n);
                let (column, end) = (edge(j), edge(j + 1));
                let (piece, right) = rows.split_at(Axis(1), end - column);
                rows = right;
                pieces.push(Rectangle { row, column, out: piece });
            }
        }
        pieces
    }
}
