//! From logits to scores. In `f64`: a row of logits is short beside what made it, and the sum over
//! a vocabulary is long.

use ndarray::ArrayView1;

/// `exp(xᵢ) / Σ exp(xⱼ)`
pub(super) fn softmax(logits: ArrayView1<f32>) -> Vec<f64> {
    let logits: Vec<f64> = logits.iter().map(|&x| f64::from(x)).collect();
    softmax_f64(&logits)
}

/// As [`softmax`].
pub(super) fn softmax_f64(logits: &[f64]) -> Vec<f64> {
    // Without its largest element no exponential overflows, and one of them is 1.
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> = logits.iter().map(|x| (x - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.into_iter().map(|x| x / sum).collect()
}

/// `1 / (1 + exp(−x))`
pub(super) fn sigmoid(x: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(x)).exp())
}

/// The places of the `k` largest scores, the largest first; of equal ones the first.
pub(super) fn best(scores: &[f64], k: usize) -> Vec<usize> {
    let order = |&a: &usize, &b: &usize| scores[b].total_cmp(&scores[a]).then(a.cmp(&b));
    let mut places: Vec<usize> = (0..scores.len()).collect();
    if k < places.len() {
        places.select_nth_unstable_by(k, order);
        places.truncate(k);
    }
    places.sort_unstable_by(order);
    places
}

/// The place of the largest score, the first of equal ones; 0 if there are none.
pub(super) fn argmax(scores: &[f64]) -> usize {
    best(scores, 1).first().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_ties_go_to_the_earlier() {
        let scores = [0.1, 0.5, 0.3, 0.5, 0.2];
        assert_eq!(best(&scores, 3), [1, 3, 2]);
        assert_eq!(best(&scores, 99), [1, 3, 2, 4, 0]);
        assert_eq!(best(&[], 3), [0; 0]);
        assert_eq!(argmax(&scores), 1);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let scores = softmax(ndarray::aview1(&[3e38, 3e38, -3e38]));
        assert_eq!(scores, [0.5, 0.5, 0.0]);
        assert_eq!((sigmoid(-3e38), sigmoid(3e38), sigmoid(0.0)), (0.0, 1.0, 0.5));
    }
}
