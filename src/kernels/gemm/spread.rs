//! [`Spread`]: rescaling and repeating columns before the factors of a product become 8-bit
//! integers.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rayon::prelude::*;

use super::element::{Element, to_floats};
use super::format::WEIGHT_STEPS;
use crate::kernels::isa::Isa;
use crate::kernels::lanes::{LANES, Lanes, filled_up, fold, zip};
use crate::kernels::simd::{Kernel, Tier};

/// Rescales and repeats columns of the two factors, `A` `[M, K]` and `B` `[N, K]`, before they
/// become 8-bit integers. The product stays the same, and its factors are rounded in finer steps.
#[derive(Debug, Clone, Default)]
pub(super) struct Spread {
    /// Columns of `A` are multiplied by these, and those of `B` divided by them, `[K]`; empty for
    /// nothing.
    ///
    /// Source: Xiao et al. 2023 (SmoothQuant), <https://arxiv.org/abs/2211.10438>.
    pub(super) balance: Vec<f32>,
    /// Columns of `A` that are appended to the others, once for each time they are listed. The
    /// weights of such a column are sums of two integers or more, so that one large weight does not
    /// make the steps of its whole row coarse.
    ///
    /// Source: Zhao et al. 2019 (outlier channel splitting), <https://arxiv.org/abs/1901.09504>.
    pub(super) repeated: Vec<u32>,
}

impl Spread {
    /// How many columns are repeated: 2 % of them, a multiple of the longest step of any tile. For
    /// a small `K` that is none, and the weights of such layers do not need it.
    fn repeats(k: usize) -> usize {
        k / 48 / 64 * 64
    }

    /// The columns to rescale and to repeat for these rows of weights, and the largest magnitude in
    /// each row, `[N]`. `magnitudes` `[K]` are those of `A`'s columns, where they are known.
    pub(super) fn of(isa: Isa, rows: &[&[f32]], magnitudes: Option<&[f32]>) -> (Self, Vec<f32>) {
        let factors = magnitudes.map_or_else(Vec::new, |magnitudes| factors(isa, magnitudes, rows));
        let mut peaks = vec![0.0; rows.len()];
        let (pieces, factors) = (rows.par_chunks(ROWS).zip(peaks.par_chunks_mut(ROWS)), &factors);
        pieces.for_each(|(rows, peaks)| isa.run(Peaks { rows, factors, peaks }));
        let repeated = repeated(isa, rows, factors, &peaks);
        let balance = factors.iter().map(|factor| 1.0 / factor).collect();
        (Self { balance, repeated }, peaks)
    }

    /// A row of `A` as it is quantised: itself, or `own` filled with it.
    #[inline(always)]
    pub(super) fn of_a<'a, E: Element>(&self, row: &'a [E], own: &'a mut Vec<f32>) -> &'a [f32] {
        let Self { balance, repeated } = self;
        if balance.is_empty() && repeated.is_empty() {
            return to_floats(row, own);
        }
        own.resize(row.len() + repeated.len(), 0.0);
        let (values, behind) = own.split_at_mut(row.len());
        if balance.is_empty() {
            values.iter_mut().zip(row).for_each(|(y, x)| *y = x.to_f32());
        } else {
            let row = row.iter().zip(balance);
            values.iter_mut().zip(row).for_each(|(y, (x, factor))| *y = x.to_f32() * factor);
        }
        behind.iter_mut().zip(repeated).for_each(|(y, &column)| *y = values[column as usize]);
        own
    }

    /// Rows of `B` as they are quantised, one after another, and the scale of each; nothing if
    /// nothing is done to them.
    #[inline(always)]
    pub(super) fn of_b<'b, E: Element>(
        &self,
        rows: usize,
        row: impl Fn(usize) -> &'b [E],
        scales: &mut [f32],
    ) -> Vec<f32> {
        let Self { balance, repeated } = self;
        if balance.is_empty() && repeated.is_empty() {
            return Vec::new();
        }
        let k = row(0).len();
        let mut factors = vec![1.0; k];
        factors.iter_mut().zip(balance).for_each(|(factor, x)| *factor = 1.0 / x);
        let mut times = vec![1.0; k];
        repeated.iter().for_each(|&column| times[column as usize] += 1.0);
        let shares: Vec<f32> = times.iter().map(|times| 1.0 / times).collect();

        let depth = k + repeated.len();
        let mut own = vec![0.0; rows * depth];
        for (j, (own, scale)) in own.chunks_exact_mut(depth).zip(scales).enumerate() {
            let (values, behind) = own.split_at_mut(k);
            let weights = row(j).iter().zip(&factors);
            values.iter_mut().zip(weights).for_each(|(y, (x, factor))| *y = x.to_f32() * factor);
            let peak = peak(values, &shares);
            *scale = if peak > 0.0 { peak / WEIGHT_STEPS } else { 1.0 };
            // Each takes as much as an integer can hold, the column itself the remainder.
            let most = *scale * WEIGHT_STEPS;
            for (part, &column) in behind.iter_mut().zip(repeated) {
                let value = &mut values[column as usize];
                *part = value.clamp(-most, most);
                *value -= *part;
            }
        }
        own
    }
}

/// The factors for the columns of `B`: `√(magnitude of A's column / that of B's)`, the paper's eq.
/// 4 with α = ½.
fn factors(isa: Isa, magnitudes: &[f32], rows: &[&[f32]]) -> Vec<f32> {
    /// Keeps a column of zeros from a division by zero.
    const LEAST: f32 = 1e-5;
    let larger = |mut largest: Vec<f32>, rows: &[&[f32]]| {
        isa.run(LargerColumns { rows, largest: &mut largest });
        largest
    };
    let none = || vec![0.0_f32; magnitudes.len()];
    let largest = rows
        .par_chunks(ROWS)
        .map(|rows| larger(none(), rows))
        .reduce(none, |a, b| larger(a, &[&b]));
    let factor = |(&of_a, &of_b): (&f32, &f32)| (of_a.max(LEAST) / of_b.max(LEAST)).sqrt();
    magnitudes.iter().zip(&largest).map(factor).collect()
}

/// The columns to repeat: time and again that of the weight which gives a row the coarsest steps of
/// all rows.
fn repeated(isa: Isa, rows: &[&[f32]], factors: &[f32], peaks: &[f32]) -> Vec<u32> {
    let k = rows.first().map_or(0, |row| row.len());
    let count = Spread::repeats(k);
    let mut shares = if factors.is_empty() { vec![1.0; k] } else { factors.to_vec() };
    let whole = shares.clone();
    let mut times = vec![1.0_f32; k];
    let rows_by_peak = peaks.iter().enumerate().map(|(row, &peak)| Coarse { peak, row });
    let mut coarsest: BinaryHeap<Coarse> = rows_by_peak.collect();
    let mut repeated = Vec::with_capacity(count);
    while repeated.len() < count {
        let Some(Coarse { peak: before, row }) = coarsest.pop() else { break };
        let mut largest = (0, 0.0);
        isa.run(Largest { row: rows[row], shares: &shares, largest: &mut largest });
        let (column, peak) = largest;
        if peak <= 0.0 {
            break;
        }
        coarsest.push(Coarse { peak, row });
        // A column repeated for another row may have made this row's steps finer: then it waits for
        // its turn.
        if peak >= before || coarsest.peek().is_some_and(|first| first.row == row) {
            times[column] += 1.0;
            shares[column] = whole[column] / times[column];
            repeated.push(column as u32);
        }
    }
    repeated
}

/// A row, ordered by its largest weight when that was last looked for; it can only have become
/// smaller.
struct Coarse {
    peak: f32,
    row: usize,
}

impl Ord for Coarse {
    fn cmp(&self, other: &Self) -> Ordering {
        self.peak.total_cmp(&other.peak).then(other.row.cmp(&self.row))
    }
}

impl PartialOrd for Coarse {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Coarse {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Coarse {}

/// Rows that one task looks through.
const ROWS: usize = 64;

/// The largest magnitude in each of some rows: see [`peak`].
struct Peaks<'a> {
    rows: &'a [&'a [f32]],
    factors: &'a [f32],
    peaks: &'a mut [f32],
}

impl Kernel for Peaks<'_> {
    #[inline(always)]
    fn run<S: Tier>(self, _: S) {
        let Self { rows, factors, peaks } = self;
        peaks.iter_mut().zip(rows).for_each(|(max, row)| *max = peak(row, factors));
    }
}

/// Finds the last column of the largest magnitude in a row whose values are multiplied by `shares`,
/// and that magnitude.
struct Largest<'a> {
    row: &'a [f32],
    shares: &'a [f32],
    largest: &'a mut (usize, f32),
}

impl Kernel for Largest<'_> {
    #[inline(always)]
    fn run<S: Tier>(self, _: S) {
        let Self { row, shares, largest } = self;
        let peak = peak(row, shares);
        *largest = (0, peak);
        for (column, (x, share)) in row.iter().zip(shares).enumerate().rev() {
            if (x * share).abs() == peak {
                largest.0 = column;
                break;
            }
        }
    }
}

/// Raises the largest magnitude of each column to that of some rows.
struct LargerColumns<'a> {
    rows: &'a [&'a [f32]],
    largest: &'a mut [f32],
}

impl Kernel for LargerColumns<'_> {
    #[inline(always)]
    fn run<S: Tier>(self, _: S) {
        let Self { rows, largest } = self;
        for row in rows {
            // A closure given to `for_each` would be compiled without the instructions.
            for (max, x) in largest.iter_mut().zip(*row) {
                *max = if x.abs() > *max { x.abs() } else { *max };
            }
        }
    }
}

/// The largest magnitude in a row whose values are multiplied by `factors`; empty for nothing.
#[inline(always)]
fn peak(row: &[f32], factors: &[f32]) -> f32 {
    // The comparison ignores NaN and is one instruction, unlike `f32::max`.
    let larger = |a: f32, b: f32| if b.abs() > a { b.abs() } else { a };
    let mut peaks: Lanes = [0.0; LANES];
    let (chunks, tail) = row.as_chunks();
    let (others, last) = factors.as_chunks();
    if factors.is_empty() {
        for &x in chunks {
            peaks = zip(peaks, x, larger);
        }
        peaks = zip(peaks, filled_up(tail, 0.0), larger);
    } else {
        for (&x, &factor) in chunks.iter().zip(others) {
            peaks = zip(peaks, zip(x, factor, |x, factor| x * factor), larger);
        }
        let rest = zip(filled_up(tail, 0.0), filled_up(last, 0.0), |x, factor| x * factor);
        peaks = zip(peaks, rest, larger);
    }
    fold(peaks, larger)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_the_largest_weights_are_repeated() {
        const K: usize = 3072;
        let mut rows = [[0.0; K], [0.25; K], [0.0; K]];
        (rows[0][7], rows[1][8]) = (-9.0, 7.0);
        let rows = rows.each_ref().map(|row| row.as_slice());
        let (spread, peaks) = Spread::of(Isa::best(), &rows, None);
        assert_eq!(peaks, [9.0, 7.0, 0.0]);
        // 9 and 7, then 4.5 and 3.5, then 3.
        assert_eq!(spread.repeated[..5], [7, 8, 7, 8, 7]);
        let mut scales = [0.0; 3];
        let own = spread.of_b(3, |j| rows[j], &mut scales);
        for (j, row) in own.chunks(K + 64).enumerate() {
            let most = scales[j] * 127.001;
            assert!(row.iter().all(|x| x.abs() <= most), "row {j}: more than {most}");
            for column in [7, 8] {
                let parts = row[K..].iter().zip(&spread.repeated);
                let parts = parts.filter(|&(_, &of)| of == column as u32).map(|(x, _)| x);
                let weight = row[column] + parts.sum::<f32>();
                assert!((weight - rows[j][column]).abs() < 1e-5, "row {j}: {weight}");
            }
        }
        let times = spread.repeated.iter().filter(|&&column| column == 7).count() as f32;
        assert!((scales[0] * 127.0 * (1.0 + times) - 9.0).abs() < 1e-4, "{scales:?}, {times}");
        assert_eq!(spread.repeated.len(), 64);
        let a: Vec<f32> = (0..K).map(|i| i as f32).collect();
        let mut row = Vec::new();
        assert_eq!(spread.of_a(&a, &mut row)[K - 1..K + 3], [3071.0, 7.0, 8.0, 7.0]);
    }

    #[test]
    fn what_one_factor_is_multiplied_by_the_other_is_divided_by() {
        let rows: [&[f32]; 2] = [&[1.0, 0.25, 0.0], &[-0.5, 0.125, 0.0]];
        let (spread, peaks) = Spread::of(Isa::best(), &rows, Some(&[1.0, 4.0, 0.0]));
        assert_eq!(spread.balance[..2], [1.0, 0.25]);
        assert!(spread.balance[2].is_finite());
        assert_eq!(peaks, [1.0, 0.5]);
    }

    #[test]
    fn rows_without_a_number_in_them() {
        for x in [f32::NAN, f32::INFINITY, 0.0] {
            let mut rows = [[x; 4000], [1.0; 4000]];
            rows[1][3] = x;
            let rows = rows.each_ref().map(|row| row.as_slice());
            let (spread, _) = Spread::of(Isa::best(), &rows, Some(&[1.0; 4000]));
            let own = spread.of_b(2, |j| rows[j], &mut [0.0; 2]);
            assert_eq!(own.len(), 2 * (4000 + spread.repeated.len()));
        }
        let (spread, peaks) = Spread::of(Isa::best(), &[], None);
        assert!(spread.repeated.is_empty() && peaks.is_empty());
    }
}
