//! [`PackedMatrix`]: the right-hand side of a product, in the order in which a tile reads it.

use ndarray::{Array1, ArrayView2, Axis, CowArray, Ix2};
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::tile::transpose;
use super::words::{
    Format, PAIRS, Scaling, channel_scale, channel_scaling, encode, encode_pair_of_rows,
};
use crate::kernels::isa::Isa;
use crate::kernels::precision::Precision;
use crate::kernels::simd::{Kernel, Simd};

/// The right-hand side of a product, `B` `[N, K]`, in the format and the order of one instruction set.
#[derive(Debug, Clone)]
pub struct PackedMatrix {
    pub(super) isa: Isa,
    pub(super) format: Format,
    pub(super) n: usize,
    pub(super) k: usize,
    /// Panels, each `[words][columns]`, the last one filled up with zeros. Of the scalar tier a panel is one column.
    pub(super) values: Vec<u32>,
    /// Of integers what is needed to have their product back, else empty: weights are `scale · q`, and a sum is `Σ q`.
    /// `[N]` each.
    pub(super) scales: Vec<f32>,
    pub(super) sums: Vec<f32>,
    /// What `A`'s columns are multiplied by before they are quantised, `[K]`; empty for nothing.
    pub(super) balance: Vec<f32>,
}

/// Columns of the widest panel.
const WIDEST: usize = 32;

impl PackedMatrix {
    /// Packs `b` `[N, K]` for `isa`, in parallel if it is large.
    #[must_use]
    pub fn new(isa: Isa, precision: Precision, b: ArrayView2<f32>) -> Self {
        let mut packed = Self::empty(isa, precision);
        let b = rows_contiguous(b);
        packed.resize(b.dim());
        packed.panels(b.view()).into_par_iter().for_each(|panel| isa.run(panel));
        packed
    }

    /// As [`PackedMatrix::new`], for an `A` whose columns are of very different size, `magnitudes` `[K]`: before integers are
    /// made of them, columns of `A` are divided by what those of `b` are multiplied by, so that large values move from the
    /// one, where they cost all others their precision, to the other.
    ///
    /// Source: Xiao et al. 2023 (SmoothQuant), eq. 4 with α = ½, <https://arxiv.org/abs/2211.10438>; but the magnitudes need no
    /// calibration where the columns come from a LayerNorm, whose gain and bias tell them.
    #[must_use]
    pub fn balanced(
        isa: Isa,
        precision: Precision,
        b: ArrayView2<f32>,
        magnitudes: &[f32],
    ) -> Self {
        if precision != Precision::Int8 {
            return Self::new(isa, precision, b);
        }
        /// Keeps a column of zeros from a division by zero.
        const LEAST: f32 = 1e-5;
        let largest = b.fold_axis(Axis(0), 0.0_f32, |max, x| max.max(x.abs()));
        let factor = |(&of_a, &of_b): (&f32, &f32)| (of_a.max(LEAST) / of_b.max(LEAST)).sqrt();
        let factors: Array1<f32> = magnitudes.iter().zip(&largest).map(factor).collect();
        let mut packed = Self::new(isa, precision, (&b * &factors).view());
        packed.balance = factors.iter().map(|factor| 1.0 / factor).collect();
        packed
    }

    /// An empty matrix for `isa`, to be packed into again and again.
    #[must_use]
    pub fn empty(isa: Isa, precision: Precision) -> Self {
        let format = Format::of(isa, precision);
        let (values, scales, sums) = (Vec::new(), Vec::new(), Vec::new());
        Self { isa, format, n: 0, k: 0, values, scales, sums, balance: Vec::new() }
    }

    /// Packs `b` `[N, K]` on this thread, into the memory that is there.
    pub fn repack(&mut self, b: ArrayView2<f32>) {
        let b = rows_contiguous(b);
        self.resize(b.dim());
        let isa = self.isa;
        for panel in self.panels(b.view()) {
            isa.run(panel);
        }
    }

    /// As [`repack`](Self::repack), of a `b` that is given as its transpose, `[K, N]`.
    pub fn repack_transposed(&mut self, b: ArrayView2<f32>) {
        if self.format == Format::Int8 {
            // Its scales are those of columns of what is given: not worth a path of its own.
            return self.repack(b.t());
        }
        let b = rows_contiguous(b);
        let (k, n) = b.dim();
        self.resize((n, k));
        let (format, columns, values) = (self.format, self.isa.columns(), &mut self.values);
        self.isa.run(PackTransposed { format, columns, b: b.view(), values });
    }

    /// `N`: columns of a product with this matrix.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.n
    }

    /// Words along `K`.
    pub(super) fn words(&self) -> usize {
        self.format.words(self.k, self.isa.step())
    }

    fn resize(&mut self, (n, k): (usize, usize)) {
        (self.n, self.k) = (n, k);
        let columns = self.isa.columns();
        self.values.resize(n.div_ceil(columns) * columns * self.words(), 0);
        if self.format == Format::Int8 {
            self.scales.resize(n, 1.0);
            self.sums.resize(n, 0.0);
        }
    }

    /// What is to be done for each panel of `b`.
    fn panels<'a>(&'a mut self, b: ArrayView2<'a, f32>) -> Vec<PackPanel<'a>> {
        let (columns, panel) = (self.isa.columns(), self.isa.columns() * self.words());
        if panel == 0 {
            return Vec::new();
        }
        let (mut scales, mut sums) =
            (self.scales.chunks_mut(columns), self.sums.chunks_mut(columns));
        let mut rest = b;
        let of_panel = |values| {
            let (rows, below) = rest.split_at(Axis(0), columns.min(rest.nrows()));
            rest = below;
            let (scales, sums) =
                (scales.next().unwrap_or_default(), sums.next().unwrap_or_default());
            PackPanel { format: self.format, columns, rows, values, scales, sums }
        };
        self.values.chunks_exact_mut(panel).map(of_panel).collect()
    }
}

fn rows_contiguous<'a>(b: ArrayView2<'a, f32>) -> CowArray<'a, f32, Ix2> {
    if b.ncols() <= 1 || b.strides()[1] == 1 {
        CowArray::from(b)
    } else {
        CowArray::from(b.as_standard_layout().into_owned())
    }
}

/// One panel, from the rows of `B` that are its columns.
struct PackPanel<'a> {
    format: Format,
    columns: usize,
    rows: ArrayView2<'a, f32>,
    values: &'a mut [u32],
    scales: &'a mut [f32],
    sums: &'a mut [f32],
}

impl<S: Simd> Kernel<S> for PackPanel<'_> {
    #[inline(always)]
    fn run(self, _: S) {
        let Self { format, columns, rows, values, scales, sums } = self;
        let integers = format == Format::Int8;
        let row = |j: usize| rows.row(j).to_slice().expect("made contiguous");
        let mut scalings = [Scaling::by(1.0); WIDEST];
        if integers {
            for (j, (scale, scaling)) in scales.iter_mut().zip(&mut scalings).enumerate() {
                *scale = channel_scale(row(j));
                *scaling = channel_scaling(*scale);
            }
        }
        // A piece of each row is made into words where it stands, then all of them are written across: reads and writes
        // both go through memory from front to back.
        let mut staged = [[0_u32; PAIRS]; WIDEST];
        let mut totals = [0_i32; WIDEST];
        let step = PAIRS * format.values_per_word();
        for (piece, out) in values.chunks_mut(PAIRS * columns).enumerate() {
            let words = out.len() / columns;
            for (j, (staged, &scaling)) in
                staged.iter_mut().zip(&scalings).enumerate().take(rows.nrows())
            {
                let row = row(j);
                let (start, end) = (piece * step, ((piece + 1) * step).min(row.len()));
                encode(format, scaling, &row[start..end], &mut staged[..words]);
                if integers {
                    let bytes = staged[..words].iter().flat_map(|word| word.to_le_bytes());
                    totals[j] += bytes.map(|byte| i32::from(byte as i8)).sum::<i32>();
                }
            }
            transpose(&staged[..columns], out);
        }
        for (sum, &total) in sums.iter_mut().zip(&totals) {
            *sum = total as f32;
        }
    }
}

/// All panels, from the transpose of `B`, of which a row is part of a step of every panel.
struct PackTransposed<'a> {
    format: Format,
    columns: usize,
    /// `[K, N]`
    b: ArrayView2<'a, f32>,
    values: &'a mut [u32],
}

impl<S: Simd> Kernel<S> for PackTransposed<'_> {
    #[inline(always)]
    fn run(self, _: S) {
        let Self { format, columns, b, values } = self;
        let (k, n) = b.dim();
        let panel = match n.div_ceil(columns) {
            0 => return,
            panels => values.len() / panels,
        };
        for (index, values) in values.chunks_exact_mut(panel.max(1)).enumerate() {
            let (start, end) = (index * columns, ((index + 1) * columns).min(n));
            let row = |p: usize| match p < k {
                true => &b.row(p).to_slice().expect("made contiguous")[start..end],
                false => &[],
            };
            for (w, words) in values.chunks_exact_mut(columns).enumerate() {
                match format {
                    Format::F32 => encode(format, Scaling::by(1.0), row(w), words),
                    _ => encode_pair_of_rows(format, w, row, words),
                }
            }
        }
    }
}

/// `panel[i][j] = rows[j][i]`.
#[cfg(not(target_arch = "x86_64"))]
fn transpose<const WORDS: usize>(rows: &[[u32; WORDS]], panel: &mut [u32]) {
    for (i, out) in panel.chunks_exact_mut(rows.len()).enumerate() {
        for (out, row) in out.iter_mut().zip(rows) {
            *out = row[i];
        }
    }
}
