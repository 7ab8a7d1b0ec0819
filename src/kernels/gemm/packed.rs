//! [`PackedMatrix`]: the right-hand side of a product, in the order in which a tile reads it.

use std::ops::{Deref, Range};

use ndarray::{ArrayView2, CowArray, Ix2};
use rayon::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::element::Element;
use super::format::Format;
use super::pack_b::{Layout, PackB, PackBTransposed};
use super::spread::Spread;
use super::tile::Tile;
use crate::kernels::isa::Isa;
use crate::kernels::memory::{Arena, Lines, Words};
use crate::kernels::precision::Precision;

/// The right-hand side of a product, `B` `[N, K]`, in the format and the order of one instruction
/// set.
#[derive(Debug, Clone)]
pub struct PackedMatrix {
    pub(super) isa: Isa,
    pub(super) format: Format,
    pub(super) n: usize,
    pub(super) k: usize,
    /// Panels, each `[words][columns]`, the last one padded with zeros. In the scalar tier a panel
    /// is one column.
    pub(super) values: Values,
    /// For integers: a weight is `scale · q`, and a sum is `Σ q` over a row of `B`. `[N]` each,
    /// else empty.
    pub(super) scales: Vec<f32>,
    pub(super) sums: Vec<f32>,
    /// How columns are rescaled and repeated before they become integers.
    pub(super) spread: Box<Spread>,
    /// For weights that became integers: the largest magnitude in each row, `[N]`, else empty.
    pub(super) peaks: Vec<f32>,
    /// The rounding errors of integers that can be multiplied [in full](Self::in_full): a weight is
    /// `scale · (q + r / REST_STEPS)`, in the same order as `values`. Else empty.
    pub(super) rest: Values,
}

/// The deepest product whose 8-bit terms, each up to 255 · 127, are sure to add up to less than
/// 2³¹.
const DEEPEST_INT8: usize = i32::MAX as usize / (255 * 127);

/// A [`PackedMatrix`], and how it is multiplied.
#[derive(Debug, Clone, Copy)]
pub struct Factor<'a> {
    pub(super) matrix: &'a PackedMatrix,
    /// Whether integers are multiplied as `f32`s, with their rounding errors added, by an `A` that
    /// is not rounded.
    pub(super) in_full: bool,
}

impl<'a> From<&'a PackedMatrix> for Factor<'a> {
    fn from(matrix: &'a PackedMatrix) -> Self {
        Self { matrix, in_full: false }
    }
}

impl<'a> Factor<'a> {
    /// The words at `place`, and their rounding errors if the matrix is multiplied in full, else
    /// nothing.
    pub(super) fn words_in(self, place: Range<usize>) -> (&'a [u32], &'a [u32]) {
        (&self.matrix.values[place.clone()], self.rest_in(place))
    }

    fn rest_in(self, place: Range<usize>) -> &'a [u32] {
        if self.in_full { &self.matrix.rest[place] } else { &[] }
    }

    /// The format in which the tiles of `simd` multiply: its own, or a wider one that its words are
    /// expanded to.
    #[inline(always)]
    pub(super) fn multiplied_as<S: Tile>(self, simd: S) -> Format {
        match self.format {
            Format::Int8 if self.in_full || self.depth() > DEEPEST_INT8 => Format::F32,
            format => simd.tile_for(format),
        }
    }

    /// The format that rows of `A` are rounded to.
    pub(super) fn rows_as(self) -> Format {
        if self.in_full { Format::F32 } else { self.format }
    }
}

impl Deref for Factor<'_> {
    type Target = PackedMatrix;

    fn deref(&self) -> &PackedMatrix {
        self.matrix
    }
}

/// The version of what this file makes of a matrix: the order of packed values, and how they are
/// rounded and scaled. Packed weights that were kept on disk under another version are made anew.
/// Raise it with every such change, whichever instruction set or precision it is for; a test
/// detects changes of the packed words.
pub(crate) const LAYOUT: u32 = 3;

/// The memory of packed words.
#[derive(Debug, Clone)]
pub(super) enum Values {
    /// Memory that can be packed into again.
    Own(Lines),
    /// Packed once, read-only from then on.
    Kept(Words),
}

impl Deref for Values {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match self {
            Self::Own(words) => words,
            Self::Kept(words) => words,
        }
    }
}

impl PackedMatrix {
    /// Packs `b` `[N, K]` for `isa`, in parallel if it is large.
    #[must_use]
    pub fn new(isa: Isa, precision: Precision, b: ArrayView2<f32>) -> Self {
        let mut packed = Self::empty(isa, precision);
        let b = rows_contiguous(b);
        let layout = packed.resize(b.dim());
        let Values::Own(values) = &mut packed.values else { unreachable!("made empty") };
        let panels = layout.panels(values, &mut [], &mut packed.scales, &mut packed.sums);
        let row = |j| row_of(&b, j);
        let spread = &packed.spread;
        panels.into_par_iter().for_each(|panel| isa.run(PackB { panel, row, spread }));
        packed
    }

    /// Packs weights for the lifetime of a model, into `arena` and in parallel: `parts` `[Nᵢ, K]`
    /// are stacked.
    ///
    /// `magnitudes` `[K]` are for an `A` whose columns differ much in size: before quantising,
    /// columns of `A` are divided and those of `b` multiplied by the same factors, so that large
    /// values move from `A`, where they make the steps of all others coarse, to `b`. See
    /// [`Spread`].
    ///
    /// With `rest`, integers can be multiplied [in full](Self::in_full); they then take twice the
    /// memory.
    #[must_use]
    pub fn weights(
        isa: Isa,
        precision: Precision,
        parts: &[ArrayView2<f32>],
        magnitudes: Option<&[f32]>,
        rest: bool,
        arena: &Arena,
    ) -> Self {
        let parts: Vec<_> = parts.iter().map(|part| rows_contiguous(part.view())).collect();
        let rows: Vec<&[f32]> =
            parts.iter().flat_map(|part| (0..part.nrows()).map(|j| row_of(part, j))).collect();
        let mut packed = Self::empty(isa, precision);
        let k = parts.first().map_or(0, |part| part.ncols());
        if precision == Precision::Int8 {
            (*packed.spread, packed.peaks) = Spread::of(isa, &rows, magnitudes);
        }
        let layout = packed.reshape((rows.len(), k));
        let (scales, sums) = (&mut packed.scales, &mut packed.sums);
        let (row, spread) = (|j| rows[j], &packed.spread);
        let mut pack = |values: &mut [u32], rest: &mut [u32]| {
            let panels = layout.panels(values, rest, scales, sums);
            panels.into_par_iter().for_each(|panel| isa.run(PackB { panel, row, spread }));
        };
        if rest && packed.format == Format::Int8 {
            let mut values = None;
            let rest = arena.words(layout.len, |rest| {
                values = Some(arena.words(layout.len, |values| pack(values, rest)));
            });
            packed.rest = Values::Kept(rest);
            packed.values = Values::Kept(values.expect("made with the rest"));
        } else {
            packed.values = Values::Kept(arena.words(layout.len, |values| pack(values, &mut [])));
        }
        packed
    }

    /// Whether rounding errors were kept.
    #[must_use]
    pub fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// The same matrix, to be multiplied as `f32`s with 8 more bits if [rounding errors were
    /// kept](Self::has_rest), else as usual.
    #[must_use]
    pub fn in_full(&self) -> Factor<'_> {
        Factor { matrix: self, in_full: self.has_rest() }
    }

    /// An empty matrix for `isa`, to be packed into again and again.
    #[must_use]
    pub fn empty(isa: Isa, precision: Precision) -> Self {
        let format = Format::of(isa, precision);
        let (values, scales, sums) = (Values::Own(Lines::default()), Vec::new(), Vec::new());
        let (spread, peaks, rest) = (Box::default(), Vec::new(), Values::Own(Lines::default()));
        Self { isa, format, n: 0, k: 0, values, scales, sums, spread, peaks, rest }
    }

    /// Packs `b` `[N, K]` on this thread, into the memory that the matrix already has.
    pub fn repack<E: Element>(&mut self, b: ArrayView2<E>) {
        let b = rows_contiguous(b);
        let layout = self.resize(b.dim());
        let Values::Own(values) = &mut self.values else { unreachable!("has been resized") };
        let (isa, row, spread) = (self.isa, |j| row_of(&b, j), &self.spread);
        for panel in layout.panels(values, &mut [], &mut self.scales, &mut self.sums) {
            isa.run(PackB { panel, row, spread });
        }
    }

    /// As [`repack`](Self::repack), of a `b` that is given as its transpose, `[K, N]`.
    pub fn repack_transposed<E: Element>(&mut self, b: ArrayView2<E>) {
        if self.format == Format::Int8 || (E::FORMAT != Format::F32 && E::FORMAT != self.format) {
            // The scales of integers would be those of columns of `b`: not worth a path of its own.
            // Nor are wider numbers.
            return self.repack(b.t());
        }
        let b = rows_contiguous(b);
        let (k, n) = b.dim();
        let Layout { format, columns, .. } = self.resize((n, k));
        let Values::Own(values) = &mut self.values else { unreachable!("has been resized") };
        self.isa.run(PackBTransposed { format, columns, b: b.view(), values });
    }

    /// `N`: columns of a product with this matrix.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.n
    }

    /// `[N, K]`
    #[must_use]
    pub fn shape(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    /// How many [`parts`](Self::parts) there are.
    pub const PARTS: usize = 7;

    /// All that the matrix is made of, for [`from_parts`](Self::from_parts): packed values, then
    /// scales, sums, peaks, balance, repeated columns and rounding errors; empty where there are
    /// none.
    #[must_use]
    pub fn parts(&self) -> [&[u32]; Self::PARTS] {
        let Self { values, scales, sums, peaks, spread, rest, .. } = self;
        let Spread { balance, repeated } = &**spread;
        [values, bits(scales), bits(sums), bits(peaks), bits(balance), repeated, rest]
    }

    /// The matrix `[N, K]` of these parts; `None` if they are not as long as those of such a
    /// matrix.
    #[must_use]
    pub fn from_parts(
        isa: Isa,
        precision: Precision,
        shape: (usize, usize),
        [values, scales, sums, peaks, balance, repeated, rest]: [Words; Self::PARTS],
    ) -> Option<Self> {
        let mut packed = Self::empty(isa, precision);
        let per_channel = if packed.format == Format::Int8 { shape.0 } else { 0 };
        let fits = [&scales, &sums, &peaks].iter().all(|part| part.len() == per_channel)
            && (balance.is_empty() || balance.len() == shape.1)
            && repeated.iter().all(|&column| (column as usize) < shape.1)
            && (rest.is_empty() || per_channel > 0 && rest.len() == values.len());
        *packed.spread =
            Spread { balance: balance.as_floats().to_vec(), repeated: repeated.to_vec() };
        if !fits || packed.reshape(shape).len != values.len() {
            return None;
        }
        packed.scales.copy_from_slice(scales.as_floats());
        packed.sums.copy_from_slice(sums.as_floats());
        packed.peaks = peaks.as_floats().to_vec();
        packed.values = Values::Kept(values);
        packed.rest = Values::Kept(rest);
        Some(packed)
    }

    /// Words along `K`.
    pub(super) fn words(&self) -> usize {
        self.format.words(self.depth(), self.isa.k_step())
    }

    /// Columns that are multiplied: `K`, and those that are repeated.
    pub(super) fn depth(&self) -> usize {
        self.k + self.spread.repeated.len()
    }

    /// The largest magnitude in each row of weights that became integers, `[N]`, else empty.
    #[must_use]
    pub fn peaks(&self) -> &[f32] {
        &self.peaks
    }

    /// Makes it a matrix `[n, k]`, with memory of its own.
    fn resize(&mut self, shape: (usize, usize)) -> Layout {
        (*self.spread, self.peaks) = (Spread::default(), Vec::new());
        self.rest = Values::Own(Lines::default());
        let layout = self.reshape(shape);
        if let Values::Kept(_) = self.values {
            self.values = Values::Own(Lines::default());
        }
        if let Values::Own(values) = &mut self.values {
            values.resize(layout.len);
        }
        layout
    }

    /// Makes it a matrix `[n, k]`, all but the values.
    fn reshape(&mut self, (n, k): (usize, usize)) -> Layout {
        (self.n, self.k) = (n, k);
        if self.format == Format::Int8 {
            self.scales.resize(n, 1.0);
            self.sums.resize(n, 0.0);
        }
        let columns = self.isa.nr();
        let panel = columns * self.words();
        Layout { format: self.format, columns, n, panel, len: n.div_ceil(columns) * panel }
    }
}

/// The words that are the bits of `floats`.
fn bits(floats: &[f32]) -> &[u32] {
    <[u32]>::ref_from_bytes(floats.as_bytes()).expect("of the same size and alignment")
}

fn rows_contiguous<'a, E: Element>(b: ArrayView2<'a, E>) -> CowArray<'a, E, Ix2> {
    if b.ncols() <= 1 || b.strides()[1] == 1 {
        CowArray::from(b)
    } else {
        CowArray::from(b.as_standard_layout().into_owned())
    }
}

/// Row `j` of what [`rows_contiguous`] returned.
fn row_of<'a, E: Element>(b: &'a CowArray<E, Ix2>, j: usize) -> &'a [E] {
    b.row(j).to_slice().expect("made contiguous")
}
