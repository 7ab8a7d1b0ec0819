//! From the logits of a window to the likeliest spans.

use ndarray::ArrayView2;

use super::probability::{best, softmax_f64};

/// Tokens `first` to `last`, both of them in it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Span {
    pub(super) first: usize,
    pub(super) last: usize,
    pub(super) score: f64,
}

/// Which spans of a window can be an answer, and how many are wanted.
pub(super) struct Candidates<'w> {
    /// `[T]`: the tokens of the context.
    pub(super) context: &'w [bool],
    /// `[T]`: the tokens that share in the probability: those of the context, and `<s>`, which
    /// stands for "no answer".
    pub(super) considered: &'w [bool],
    /// The longest answer, in tokens.
    pub(super) max_answer_len: usize,
    /// How many spans at most.
    pub(super) count: usize,
}

impl Candidates<'_> {
    /// The likeliest spans, the first the likeliest, and the probability that there is no answer.
    /// `logits`: `[T, 2]`, for the beginning and the end.
    ///
    /// The probability of a span is that of its beginning times that of its end.
    pub(super) fn best(&self, logits: ArrayView2<f32>) -> (Vec<Span>, f64) {
        let start = self.probabilities(logits, 0);
        let end = self.probabilities(logits, 1);
        let tokens = start.len();
        let mut spans = Vec::new();
        for first in (0..tokens).filter(|&first| self.context[first]) {
            let limit = first.saturating_add(self.max_answer_len).min(tokens);
            for last in (first..limit).filter(|&last| self.context[last]) {
                spans.push(Span { first, last, score: start[first] * end[last] });
            }
        }
        let scores: Vec<f64> = spans.iter().map(|span| span.score).collect();
        let places = best(&scores, self.count);
        let none = start.first().zip(end.first()).map_or(0.0, |(start, end)| start * end);
        (places.into_iter().map(|place| spans[place].clone()).collect(), none)
    }

    /// Softmax of one column over the tokens that are considered; 0 for the others.
    fn probabilities(&self, logits: ArrayView2<f32>, column: usize) -> Vec<f64> {
        let masked = logits
            .column(column)
            .into_iter()
            .zip(self.considered)
            .map(|(&x, &considered)| if considered { f64::from(x) } else { f64::NEG_INFINITY });
        softmax_f64(&masked.collect::<Vec<f64>>())
    }
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    #[test]
    fn spans_stay_in_the_context_and_below_the_length() {
        // `<s>`, question, three tokens of context, a separator that scores highest of all.
        let context = [false, false, true, true, true, false];
        let considered = [true, false, true, true, true, false];
        let ln = |x: f32| x.ln();
        let logits = arr2(&[
            [ln(1.0), ln(2.0)],
            [9.0, 9.0],
            [ln(4.0), ln(1.0)],
            [ln(2.0), ln(3.0)],
            [ln(1.0), ln(2.0)],
            [99.0, 99.0],
        ]);
        let candidates = |max_answer_len, count| Candidates {
            context: &context,
            considered: &considered,
            max_answer_len,
            count,
        };
        let (spans, none) = candidates(2, 9).best(logits.view());
        let found: Vec<_> = spans.iter().map(|span| (span.first, span.last)).collect();
        // 4·3, 2·3, 4·1 and 2·2 (the earlier first), 1·2; the three-token span, 4·2, is too long.
        assert_eq!(found, [(2, 3), (3, 3), (2, 2), (3, 4), (4, 4)]);
        assert!((spans[0].score - 12.0 / 64.0).abs() < 1e-6 && (none - 2.0 / 64.0).abs() < 1e-6);
        assert_eq!(candidates(usize::MAX, 2).best(logits.view()).0[1].last, 4);
    }
}
