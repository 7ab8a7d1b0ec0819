//! Which texts are computed in full by a model whose weights are rounded to integers.
//!
//! Of tokens that are alike the errors of rounding are alike too: they add up over the layers where
//! those of other texts average out. `docs/numerics.md` has figures.

use crate::batch::Batch;
use crate::config::PADDING_ID;
use crate::nn::Arithmetic;

/// `<s>`, `<pad>` and `</s>`, by the numbers that they have in every MPNet vocabulary. Elsewhere
/// than at the ends of a text the model has hardly seen them.
const SPECIAL: [u32; 3] = [0, PADDING_ID, 2];

/// Times that each token of a text stands in it, on average, from which on the text is monotonous.
const TIMES: usize = 8;

/// Whether each token occurs [`TIMES`] times or more on average, or one of [`SPECIAL`] is inside. A
/// function of the text alone, so that a batch changes nothing.
fn is_monotonous(ids: &[u32]) -> bool {
    let inside = ids.get(1..ids.len().saturating_sub(1)).unwrap_or_default();
    if inside.iter().any(|id| SPECIAL.contains(id)) {
        return true;
    }
    let most = ids.len() / TIMES;
    let mut distinct = Vec::with_capacity(most);
    for id in ids {
        if !distinct.contains(id) {
            if distinct.len() == most {
                return false;
            }
            distinct.push(*id);
        }
    }
    true
}

/// The texts of `batch` by how they are computed; [`Batch::texts`] of each are places in `batch`.
/// Nothing if none is monotonous.
pub(super) fn parts(batch: &Batch) -> Vec<(Arithmetic, Batch)> {
    let is_monotonous = |&text: &usize| is_monotonous(&batch.ids()[batch.range(text)]);
    let (full, reduced): (Vec<usize>, Vec<usize>) = (0..batch.len()).partition(is_monotonous);
    if full.is_empty() {
        return Vec::new();
    }
    [(Arithmetic::Reduced, reduced), (Arithmetic::Full, full)]
        .into_iter()
        .filter(|(_, texts)| !texts.is_empty())
        .map(|(arithmetic, texts)| (arithmetic, batch.select(&texts)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_monotonous() {
        let repeated = |words: &[u32], n: usize| {
            let inside = words.iter().copied().cycle().take(n);
            [0].into_iter().chain(inside).chain([2]).collect::<Vec<_>>()
        };
        // Three tokens in 24, four in 32; one less is not enough.
        assert!(is_monotonous(&repeated(&[7], 22)) && !is_monotonous(&repeated(&[7], 21)));
        assert!(is_monotonous(&repeated(&[7, 8], 30)) && !is_monotonous(&repeated(&[7, 8], 29)));
        let all: Vec<u32> = (3..503).collect();
        assert!(!is_monotonous(&repeated(&all, 500)));
        for special in SPECIAL {
            assert!(is_monotonous(&[0, 7, special, 8, 2]), "{special}");
        }
        for ordinary in [&[0, 7, 2][..], &[0, 2], &[0, 7, 7, 2], &[5], &[2, 0]] {
            assert!(!is_monotonous(ordinary), "{ordinary:?}");
        }
    }
}
