//! [`Embedding`]: a vector for each number.

use ndarray::Array2;
use zerocopy::{FromBytes, IntoBytes};

use super::{Placement, parameters};
use crate::checkpoint::Weights;
use crate::error::Result;
use crate::kernels::gemm::nearest;
use crate::kernels::memory::Words;

parameters! {
    /// The parameters of an embedding.
    pub struct EmbeddingParameters {
        /// `[count, width]`
        weight: Array2<f32> = "weight",
    }
}

impl EmbeddingParameters {
    pub(crate) fn zeros(count: usize, width: usize) -> Self {
        Self { weight: Array2::zeros((count, width)) }
    }
}

/// What the vectors of an embedding are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableFormat {
    /// 32 bits a number.
    F32,
    /// 16-bit integers with a scale for each vector. They are half the size, and their error, at
    /// most 1/65534 of a vector's largest component, is far below that of 8-bit layers.
    Int16,
}

/// A table of `count` vectors of `width`.
#[derive(Debug, Clone)]
pub(crate) struct Embedding {
    table: Table,
    width: usize,
}

#[derive(Debug, Clone)]
enum Table {
    /// `f32`s, `[count, width]`.
    Floats(Words),
    /// For each vector its scale, an `f32`, then 16-bit integers two a word: `scale · q`,
    /// `[count, 1 + width / 2]`.
    Integers(Words),
}

/// The largest integer of a vector.
const STEPS: f32 = i16::MAX as f32;

impl Embedding {
    /// Prepares the table `weight` `[count, width]` at `w`.
    pub(crate) fn prepare(
        w: &Weights,
        (count, width): (usize, usize),
        format: TableFormat,
        at: &Placement,
    ) -> Result<Self> {
        let table = match format {
            TableFormat::F32 => Table::Floats(at.table(w, (count, width))?),
            TableFormat::Int16 => {
                Table::Integers(at.rounded_table(w, (count, width), words_of(width), round)?)
            }
        };
        Ok(Self { table, width })
    }

    /// Adds the vector of `index` to `out`, `[width]`.
    pub(crate) fn add_to(&self, index: usize, out: &mut [f32]) {
        match &self.table {
            Table::Floats(words) => {
                let row = &words.as_floats()[index * self.width..][..self.width];
                out.iter_mut().zip(row).for_each(|(x, y)| *x += y);
            }
            Table::Integers(words) => {
                let words = &words[index * words_of(self.width)..][..words_of(self.width)];
                let Some((&scale, words)) = words.split_first() else { return };
                let (scale, integers) = (f32::from_bits(scale), integers(words));
                out.iter_mut().zip(integers).for_each(|(x, &q)| *x += scale * f32::from(q));
            }
        }
    }
}

/// Words of a vector of 16-bit integers.
fn words_of(width: usize) -> usize {
    1 + width.div_ceil(2)
}

fn integers(words: &[u32]) -> &[i16] {
    <[i16]>::ref_from_bytes(words.as_bytes()).expect("two a word")
}

/// A vector as its scale and integers. One that is not finite stays that.
fn round(row: &[f32], words: &mut [u32]) {
    let Some((first, words)) = words.split_first_mut() else { return };
    // Of magnitudes the order is that of their bits; what is not a number is above all of them.
    let peak = row.iter().map(|x| x.abs().to_bits()).max().map_or(0.0, f32::from_bits);
    let scale = if peak == 0.0 { 1.0 } else { peak / STEPS };
    *first = scale.to_bits();
    let integers = <[i16]>::mut_from_bytes(words.as_mut_bytes()).expect("two a word");
    let inverse = 1.0 / scale;
    integers.iter_mut().zip(row).for_each(|(q, x)| *q = nearest(x * inverse) as i16);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rounded_vector_is_near() {
        for width in [1, 2, 7, 768] {
            let row: Vec<f32> = (0..width).map(|i| (i as f32 * 0.7 + 0.3).sin() * 0.2).collect();
            let peak = row.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
            let mut words = vec![0; words_of(width)];
            round(&row, &mut words);
            let scale = f32::from_bits(words[0]);
            for (x, &q) in row.iter().zip(integers(&words[1..])) {
                assert!((scale * f32::from(q) - x).abs() <= peak / 65_000.0, "{width}: {x}");
            }
        }
    }

    #[test]
    fn zeros_subnormal_and_not_finite() {
        let mut words = [0; 2];
        let of = |words: &[u32]| f32::from_bits(words[0]) * f32::from(integers(&words[1..])[0]);
        for x in [0.0, -0.0, 1e-45, f32::MIN_POSITIVE] {
            round(&[x, x], &mut words);
            assert!(of(&words).abs() <= f32::MIN_POSITIVE, "{x}: {}", of(&words));
        }
        round(&[f32::MAX / 4.0, 1.0], &mut words);
        assert!((of(&words) / (f32::MAX / 4.0) - 1.0).abs() < 1e-4);
        for x in [f32::NAN, f32::INFINITY] {
            round(&[1.0, x], &mut words);
            assert!(!of(&words).is_finite(), "{x}");
        }
    }
}
