//! Packing `B`: rows of a matrix become the columns of panels.

use ndarray::ArrayView2;
use zerocopy::IntoBytes;

use super::element::{Element, copy_words, floats, is_packed, pair_rows, to_floats};
use super::format::{
    Format, PAIRS, REST_STEPS, Scaling, channel_scale, channel_scaling, encode, encode_pair_of_rows,
};
use super::spread::Spread;
use crate::kernels::simd::{Kernel, Tier};

/// Columns of the widest panel.
const WIDEST: usize = 32;

/// How a matrix is cut into panels.
pub(super) struct Layout {
    pub(super) format: Format,
    pub(super) columns: usize,
    /// Columns of the matrix.
    pub(super) n: usize,
    /// Words of a panel.
    pub(super) panel: usize,
    /// Words of all panels.
    pub(super) len: usize,
}

impl Layout {
    /// The panels of a matrix, from memory for all of it.
    pub(super) fn panels<'a>(
        &self,
        values: &'a mut [u32],
        rest: &'a mut [u32],
        scales: &'a mut [f32],
        sums: &'a mut [f32],
    ) -> Vec<Panel<'a>> {
        let &Self { format, columns, n, .. } = self;
        let mut rest = rest.chunks_exact_mut(self.panel.max(1));
        let (mut scales, mut sums) = (scales.chunks_mut(columns), sums.chunks_mut(columns));
        let panel = |(index, values)| Panel {
            format,
            columns,
            first: index * columns,
            rows: columns.min(n - index * columns),
            values,
            rest: rest.next().unwrap_or_default(),
            scales: scales.next().unwrap_or_default(),
            sums: sums.next().unwrap_or_default(),
        };
        values.chunks_exact_mut(self.panel.max(1)).enumerate().map(panel).collect()
    }
}

/// The memory of one panel.
pub(super) struct Panel<'a> {
    format: Format,
    columns: usize,
    /// The row of `B` that is its first column.
    first: usize,
    /// How many of its columns there are: the last panel may have more.
    rows: usize,
    values: &'a mut [u32],
    /// The rounding errors of `values`, in as many words; empty if they are not kept.
    rest: &'a mut [u32],
    scales: &'a mut [f32],
    sums: &'a mut [f32],
}

/// One panel, from the rows of `B` that are its columns.
pub(super) struct PackB<'a, R> {
    pub(super) panel: Panel<'a>,
    /// Row `j` of `B`.
    pub(super) row: R,
    /// Applied to the rows first.
    pub(super) spread: &'a Spread,
}

impl<'b, E: Element, R: Fn(usize) -> &'b [E]> Kernel for PackB<'_, R> {
    #[inline(always)]
    fn run<S: Tier>(self, simd: S) {
        let Self { panel, row, spread } = self;
        let Panel { format, columns, first, rows, values, rest, scales, sums } = panel;
        let integers = format == Format::Int8;
        let keeps_rest = integers && !rest.is_empty();
        let own_rows = spread.of_b(rows, |j| row(first + j), scales);
        let depth = own_rows.len() / rows;
        let (mut scalings, mut own) = ([Scaling::NONE; WIDEST], Vec::new());
        if integers {
            for (j, (scale, scaling)) in scales.iter_mut().zip(&mut scalings).enumerate() {
                if depth == 0 {
                    *scale = channel_scale(to_floats(row(first + j), &mut own));
                }
                *scaling = channel_scaling(*scale);
            }
        }
        // A piece of each row is encoded, then all pieces are transposed into the panel: reads and
        // writes both go through memory from front to back.
        let mut staged = [[0_u32; PAIRS]; WIDEST];
        let mut staged_rest = staged;
        let mut rests = rest.chunks_mut(PAIRS * columns);
        let mut totals = [0_i32; WIDEST];
        let step = PAIRS * format.values_per_word();
        for (piece, out) in values.chunks_mut(PAIRS * columns).enumerate() {
            let words = out.len() / columns;
            for (j, (staged, &scaling)) in staged.iter_mut().zip(&scalings).enumerate().take(rows) {
                let (row, words) = (row(first + j), &mut staged[..words]);
                let length = if depth == 0 { row.len() } else { depth };
                let (start, end) = (piece * step, ((piece + 1) * step).min(length));
                if is_packed::<E>(format) && depth == 0 {
                    copy_words(&row[start..end], words);
                    continue;
                }
                let row = match depth {
                    0 => to_floats(&row[start..end], &mut own),
                    _ => &own_rows[j * depth..][start..end],
                };
                encode(simd, format, scaling, row, words);
                if integers {
                    let bytes = words.iter().flat_map(|word| word.to_le_bytes());
                    totals[j] += bytes.map(|byte| i32::from(byte as i8)).sum::<i32>();
                }
                if keeps_rest {
                    let left = rest_of(row, words, scales[j]);
                    let words = &mut staged_rest[j][..words.len()];
                    encode(
                        simd,
                        format,
                        channel_scaling(scales[j] / REST_STEPS),
                        &left[..row.len()],
                        words,
                    );
                }
            }
            simd.transpose(&staged[..columns], out);
            if let Some(out) = rests.next() {
                simd.transpose(&staged_rest[..columns], out);
            }
        }
        for (sum, &total) in sums.iter_mut().zip(&totals) {
            *sum = total as f32;
        }
    }
}

/// The error of rounding `row` to the integers in `words`, times `scale`.
#[inline(always)]
fn rest_of(row: &[f32], words: &[u32], scale: f32) -> [f32; 4 * PAIRS] {
    let mut integers = [0_u32; PAIRS];
    integers.iter_mut().zip(words).for_each(|(to, word)| *to = word.to_le());
    let mut left = [0.0; 4 * PAIRS];
    for ((left, x), &q) in left.iter_mut().zip(row).zip(integers.as_bytes()) {
        *left = x - scale * f32::from(q as i8);
    }
    left
}

/// All panels, from the transpose of `B`, of which a row is part of a step of every panel: of
/// `f32`s, or of bf16 that stay so.
pub(super) struct PackBTransposed<'a, E> {
    pub(super) format: Format,
    pub(super) columns: usize,
    /// `[K, N]`
    pub(super) b: ArrayView2<'a, E>,
    pub(super) values: &'a mut [u32],
}

impl<E: Element> Kernel for PackBTransposed<'_, E> {
    #[inline(always)]
    fn run<S: Tier>(self, simd: S) {
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
                if format == Format::F32 {
                    copy_words(row(w), words);
                } else if E::FORMAT == Format::Bf16 {
                    pair_rows(row(2 * w), row(2 * w + 1), words);
                } else {
                    let row = |p: usize| floats(row(p)).expect("not bf16");
                    encode_pair_of_rows(simd, format, w, row, words);
                }
            }
        }
    }
}
