//! Pearson's and Spearman's correlation.

use super::input::{finite, same_length, wrong};
use crate::error::Result;

/// Pearson's correlation of `x` and `y`, from −1 to 1:
/// `Σ(x − x̄)(y − ȳ) / √(Σ(x − x̄)² · Σ(y − ȳ)²)`. NaN if either is constant, for which it is not
/// defined; as scipy's `pearsonr`.
///
/// ```
/// let r = mpnet::evaluation::pearson(&[1.0, 2.0, 3.0], &[2.0, 4.0, 7.0])?;
/// assert!((r - 0.993399).abs() < 1e-6);
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Input`](crate::Error::Input) if the lengths differ or are below 2, or an element is not
/// finite.
pub fn pearson(x: &[f64], y: &[f64]) -> Result<f64> {
    check(x, y)?;
    Ok(correlation(x, y))
}

/// Spearman's correlation of `x` and `y`: [`pearson`] of their ranks, where equal values share the
/// mean of theirs. NaN if either is constant; as scipy's `spearmanr`.
///
/// ```
/// let rho = mpnet::evaluation::spearman(&[0.1, 0.2, 9.0], &[1.0, 2.0, 3.0])?;
/// assert!((rho - 1.0).abs() < 1e-12);
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// As [`pearson`].
pub fn spearman(x: &[f64], y: &[f64]) -> Result<f64> {
    check(x, y)?;
    Ok(correlation(&ranks(x), &ranks(y)))
}

fn check(x: &[f64], y: &[f64]) -> Result<()> {
    same_length(("y", y.len()), ("x", x.len()))?;
    if x.len() < 2 {
        return Err(wrong("x", format!("{} elements have no correlation", x.len())));
    }
    finite("x", x)?;
    finite("y", y)
}

fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let (x, y) = (centred(x), centred(y));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    // 0 / 0 where either is constant.
    let r = product(&x, &y) / (product(&x, &x).sqrt() * product(&y, &y).sqrt());
    r.clamp(-1.0, 1.0)
}

/// Without the mean; exactly 0 for a constant, whose mean need not be exact.
fn centred(x: &[f64]) -> Vec<f64> {
    if x.iter().all(|value| *value == x[0]) {
        return vec![0.0; x.len()];
    }
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    x.iter().map(|value| value - mean).collect()
}

/// The rank of each value, from 1; equal values share the mean of their places.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (equal.len() as f64 + 1.0) / 2.0;
        equal.iter().for_each(|&i| ranks[i] = rank);
        before += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_a_rank() {
        // −0 and 0 are equal, though `total_cmp` tells them apart.
        assert_eq!(ranks(&[3.0, 0.0, 3.0, -0.0, 1.0]), [4.5, 1.5, 4.5, 1.5, 3.0]);
    }

    /// scipy's values.
    #[test]
    fn of_a_small_example() {
        let (x, y) = ([0.1, 0.4, 0.35, 0.8, 0.8, 0.2], [1.0, 2.0, 2.0, 5.0, 3.0, 0.0]);
        assert!((pearson(&x, &y).unwrap() - 0.881_894_421_819).abs() < 1e-12);
        assert!((spearman(&x, &y).unwrap() - 0.911_764_705_882).abs() < 1e-12);
    }

    #[test]
    fn a_constant_has_none() {
        let constant = [0.1; 7];
        let rising: Vec<f64> = (0..7).map(f64::from).collect();
        assert!(pearson(&constant, &rising).unwrap().is_nan());
        assert!(spearman(&rising, &constant).unwrap().is_nan());
    }

    #[test]
    fn wrong_input_is_named() {
        let message = |x: &[f64], y: &[f64]| spearman(x, y).unwrap_err().to_string();
        assert_eq!(message(&[1.0], &[]), "`y`: has 0 elements, `x` has 1");
        assert_eq!(message(&[1.0], &[1.0]), "`x`: 1 elements have no correlation");
        assert_eq!(message(&[1.0, f64::NAN], &[1.0, 2.0]), "`x`: element 1 is NaN");
        assert_eq!(message(&[1.0, 2.0], &[1.0, f64::INFINITY]), "`y`: element 1 is inf");
    }
}
