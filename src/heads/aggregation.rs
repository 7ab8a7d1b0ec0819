//! From a label for each token to stretches of text with a label each: the aggregation strategies
//! of transformers' token-classification pipeline.

use std::ops::Range;

use super::probability::argmax;
use crate::error::Result;

/// How tokens become entities: `aggregation_strategy` of transformers' token-classification
/// pipeline.
///
/// All but [`None`](Self::None) join neighbours of the same tag, which is the label without `B-` or
/// `I-`; a label with `B-` begins an entity. An entity's score is the mean of those that were
/// joined. As in the pipeline, a token begins a word if it has as many characters as the text under
/// it, or is the unknown token; with a tokenizer that does not mark the pieces within a word
/// (`##ing`), if there is a space at its beginning or before it.
///
/// ```
/// use mpnet::heads::{AggregationStrategy, TokenClassificationOptions};
///
/// let options = TokenClassificationOptions::default().aggregation(AggregationStrategy::First);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AggregationStrategy {
    /// Every token is an entity.
    #[default]
    None,
    /// Tokens are joined, also in the middle of a word.
    Simple,
    /// Words are joined; a word has the label of its first token.
    First,
    /// Words are joined; a word has the label of its most certain token.
    Max,
    /// Words are joined; the scores of a word's tokens are averaged.
    Average,
}

/// A token and the probabilities of its labels.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) word: String,
    /// `[C]`
    pub(super) scores: Vec<f64>,
    pub(super) range: Range<usize>,
    /// The token's place in its text or window.
    pub(super) index: usize,
    /// Whether it goes on with the word of the token before it.
    pub(super) is_subword: bool,
}

/// A stretch of text with a label.
#[derive(Debug, Clone)]
pub(super) struct Tagged {
    pub(super) label: String,
    pub(super) score: f64,
    pub(super) word: String,
    pub(super) range: Range<usize>,
    /// Of a single token only.
    pub(super) index: Option<usize>,
}

/// Gives pieces their labels, and joins them as `strategy` says. `labels`: `[C]`; `join` makes one
/// string of tokens.
pub(super) fn aggregate(
    pieces: &[Piece],
    strategy: AggregationStrategy,
    labels: &[String],
    join: impl Fn(Vec<String>) -> Result<String>,
) -> Result<Vec<Tagged>> {
    let tag = |scores: &[f64]| {
        let label = argmax(scores);
        (labels[label].clone(), scores[label])
    };
    let token = |piece: &Piece| {
        let (label, score) = tag(&piece.scores);
        let (word, range) = (piece.word.clone(), piece.range.clone());
        Tagged { label, score, word, range, index: Some(piece.index) }
    };
    let tagged: Vec<Tagged> = match strategy {
        AggregationStrategy::None => return Ok(pieces.iter().map(token).collect()),
        AggregationStrategy::Simple => pieces.iter().map(token).collect(),
        _ => pieces
            .chunk_by(|_, next| next.is_subword)
            .map(|word| {
                let (label, score) = tag(&word_scores(word, strategy));
                Ok(Tagged {
                    label,
                    score,
                    word: join(word.iter().map(|piece| piece.word.clone()).collect())?,
                    range: span(&word[0].range, &word[word.len() - 1].range),
                    index: None,
                })
            })
            .collect::<Result<_>>()?,
    };
    tagged
        .chunk_by(|a, b| continues(&a.label, &b.label))
        .map(|group| entity(group, &join))
        .collect()
}

/// The scores that decide for a whole word.
fn word_scores(word: &[Piece], strategy: AggregationStrategy) -> Vec<f64> {
    let highest = |piece: &Piece| piece.scores[argmax(&piece.scores)];
    match strategy {
        AggregationStrategy::Max => {
            let of_pieces: Vec<f64> = word.iter().map(highest).collect();
            word[argmax(&of_pieces)].scores.clone()
        }
        AggregationStrategy::Average => {
            let mean = |label| {
                word.iter().map(|piece| piece.scores[label]).sum::<f64>() / word.len() as f64
            };
            (0..word[0].scores.len()).map(mean).collect()
        }
        _ => word[0].scores.clone(),
    }
}

/// Whether `label` goes on with the entity of the `last` one: the same tag, and not the beginning
/// (`B-`) of another.
fn continues(last: &str, label: &str) -> bool {
    let tag = |label: &str| -> String {
        label.strip_prefix("B-").or(label.strip_prefix("I-")).unwrap_or(label).to_owned()
    };
    !label.starts_with("B-") && tag(last) == tag(label)
}

/// One entity of tokens or words that belong together.
fn entity(group: &[Tagged], join: impl Fn(Vec<String>) -> Result<String>) -> Result<Tagged> {
    let label = &group[0].label;
    Ok(Tagged {
        // The reference leaves out everything up to the first hyphen, `B` or not.
        label: label.split_once('-').map_or(label.as_str(), |(_, name)| name).to_owned(),
        score: group.iter().map(|part| part.score).sum::<f64>() / group.len() as f64,
        word: join(group.iter().map(|part| part.word.clone()).collect())?,
        range: span(&group[0].range, &group[group.len() - 1].range),
        index: None,
    })
}

/// From `first` to `last`; empty if the last ends before the first begins, as two tokens of one
/// character may.
fn span(first: &Range<usize>, last: &Range<usize>) -> Range<usize> {
    first.start..last.end.max(first.start)
}

/// Of entities of `text` that overlap, as those of overlapping windows do, the longest, in
/// characters, and of equally long ones the likeliest. The reference has the first one twice if it
/// is empty.
pub(super) fn without_overlaps(text: &str, mut entities: Vec<Tagged>) -> Vec<Tagged> {
    let length = |entity: &Tagged| text[entity.range.clone()].chars().count();
    entities.sort_by_key(|entity| entity.range.start);
    let mut kept: Vec<Tagged> = Vec::new();
    for entity in entities {
        match kept.last_mut() {
            Some(last) if entity.range.start < last.range.end => {
                let longer = length(&entity).cmp(&length(last));
                if longer.then(entity.score.total_cmp(&last.score)).is_gt() {
                    *last = entity;
                }
            }
            _ => kept.push(entity),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(range: Range<usize>, score: f64) -> Tagged {
        Tagged { label: "A".into(), score, word: String::new(), range, index: None }
    }

    #[test]
    fn an_entity_ends_where_another_begins() {
        assert!(continues("B-PER", "I-PER"));
        assert!(continues("I-PER", "I-PER"));
        assert!(continues("PER", "PER"));
        assert!(continues("PER", "I-PER"));
        assert!(!continues("I-PER", "B-PER"));
        assert!(!continues("I-PER", "I-ORG"));
        assert!(!continues("I-PER", "O"));
    }

    #[test]
    fn of_overlapping_entities_the_longest_is_kept() {
        let entities =
            vec![tagged(5..9, 0.9), tagged(0..4, 0.5), tagged(2..7, 0.1), tagged(9..11, 0.3)];
        let text = "many people";
        let kept = without_overlaps(text, entities).into_iter().map(|e| e.range);
        assert_eq!(kept.collect::<Vec<_>>(), [2..7, 9..11]);
        let equal = vec![tagged(0..4, 0.5), tagged(2..6, 0.6), tagged(2..6, 0.4)];
        let kept = without_overlaps(text, equal);
        assert_eq!((kept.len(), kept[0].score), (1, 0.6));
        // "東京" has more bytes than "x.y.", and fewer characters.
        let kept = without_overlaps("x.y.東京", vec![tagged(0..4, 0.1), tagged(3..10, 0.9)]);
        assert_eq!(kept[0].range, 0..4);
        assert!(without_overlaps("", Vec::new()).is_empty());
    }
}
