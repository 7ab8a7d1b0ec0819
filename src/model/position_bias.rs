//! The relative-position bias: one number for each head and each distance between two tokens.

use ndarray::{Array2, s};

use crate::checkpoint::Weights;
use crate::config::{Config, NUM_BUCKETS};
use crate::error::Result;

/// Where the 16 classes of distances begin: one class a distance up to 7, then `8 · 2^(k/2)`,
/// rounded up. The last class has no end.
///
/// The reference finds the class by a logarithm in `f32`; these are the integers at which its
/// result changes, which no rounding of a logarithm can shift.
const CLASS_STARTS: [usize; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91];

/// The bias of every head for every distance that can occur.
///
/// The bias of query `i` and key `j` depends on `j − i` alone, so what is kept is not a `[H, T, T]`
/// table but, for each head, the diagonals: `2 · max_tokens − 1` numbers, computed once at load. A
/// row of the `[T, T]` table is a slice of them.
#[derive(Debug)]
pub(super) struct PositionBias {
    /// `[H, 2 · max_tokens − 1]`, by `j − i + max_tokens − 1`.
    diagonals: Array2<f32>,
    max_tokens: usize,
}

impl PositionBias {
    pub(super) fn prepare(w: &Weights, config: &Config) -> Result<Self> {
        let heads = config.num_attention_heads;
        let table = w.matrix("weight", NUM_BUCKETS, heads)?; // [32, H]
        let max_tokens = config.max_tokens();
        let diagonals = Array2::from_shape_fn((heads, 2 * max_tokens - 1), |(head, index)| {
            table[[bucket(index as isize - (max_tokens - 1) as isize), head]]
        });
        Ok(Self { diagonals, max_tokens })
    }

    /// What is added to the scores of query `i` of a text of `t` tokens: `[T]`, by key.
    pub(super) fn row(&self, head: usize, i: usize, t: usize) -> &[f32] {
        let start = self.max_tokens - 1 - i;
        let row = self.diagonals.slice(s![head, start..start + t]);
        row.to_slice().expect("a row of an owned array is contiguous")
    }
}

/// The row of the bias table for a key that stands `distance` tokens to the right of the query.
/// Keys to the left, and the query itself, have the first 16 rows; keys to the right the last 16
/// (of which the first is never reached).
fn bucket(distance: isize) -> usize {
    let class = CLASS_STARTS.partition_point(|&start| start <= distance.unsigned_abs()) - 1;
    if distance > 0 { class + NUM_BUCKETS / 2 } else { class }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference's own expression, in its order and precision:
    /// `8 + trunc(ln(a / 8) / ln(128 / 8) · 8)`, at most 15, for distances from 8.
    fn by_logarithm(distance: i32) -> usize {
        let a = distance.abs();
        let class = if a < 8 {
            a
        } else {
            let large = (a as f32 / 8.0).ln() / (128.0_f64 / 8.0).ln() as f32 * 8.0;
            (8 + large as i32).min(15)
        };
        class as usize + if distance > 0 { 16 } else { 0 }
    }

    #[test]
    fn integer_classes_are_those_of_the_reference_logarithm() {
        for distance in -1100..=1100 {
            assert_eq!(bucket(distance as isize), by_logarithm(distance), "distance {distance}");
        }
    }

    #[test]
    fn a_small_table() {
        let row = |i: isize| (0..6).map(|j| bucket(j - i)).collect::<Vec<_>>();
        assert_eq!(row(0), [0, 17, 18, 19, 20, 21]);
        assert_eq!(row(3), [3, 2, 1, 0, 17, 18]);
        assert_eq!(row(5), [5, 4, 3, 2, 1, 0]);
        assert_eq!([bucket(-90), bucket(-91), bucket(90), bucket(91)], [14, 15, 30, 31]);
    }
}
