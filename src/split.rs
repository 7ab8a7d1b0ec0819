//! A text → ranges of it, to be embedded one by one or by [late
//! chunking](crate::SentenceEncoder::encode_chunks): sentences, or runs of sentences up to a size.
//!
//! Ranges are of bytes, at character boundaries, in order, without the white space and invisible
//! characters around them; where there is nothing else, there is no range.
//!
//! ```
//! use mpnet::split;
//!
//! # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
//! let text = "It rains. Does it? I would not have thought so.";
//! let ranges = split::by_chars(text, 20)?;
//! let chunks: Vec<&str> = ranges.iter().map(|range| &text[range.clone()]).collect();
//! let alone = encoder.encode(&chunks)?; // each chunk by itself
//! let in_context = encoder.encode_chunks(text, &ranges, &Default::default())?; // late chunking
//! assert_eq!(alone.dim(), in_context.embeddings.dim());
//! # Ok::<(), mpnet::Error>(())
//! ```

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use crate::error::{Result, at_least_one};

/// The sentences of `text`, by the rules of Unicode: after `.`, `?`, `!` and their like in other
/// scripts, and at the end of a line. Abbreviations are not known: "Dr. Who" is two sentences.
///
/// Source: Unicode Standard Annex #29, section 5, <https://www.unicode.org/reports/tr29/>.
///
/// ```
/// let text = "It rains. Does it?\nYes.";
/// let sentences: Vec<&str> = mpnet::split::sentences(text).into_iter().map(|r| &text[r]).collect();
/// assert_eq!(sentences, ["It rains.", "Does it?", "Yes."]);
/// ```
#[must_use]
pub fn sentences(text: &str) -> Vec<Range<usize>> {
    let thin = Thin::new(text);
    let pieces = thin.text.split_sentence_bound_indices();
    pieces
        .filter_map(|(start, piece)| {
            let bytes = thin.place(start)..thin.place(start + piece.len());
            visible(&text[bytes.clone()], bytes.start)
        })
        .collect()
}

/// `text` in chunks of whole sentences, as many as fit into `max_chars` characters each. A longer
/// sentence is cut between words, a longer word between characters.
///
/// ```
/// let text = "It rains. Does it? I would not have thought so.";
/// let chunks = mpnet::split::by_chars(text, 20)?;
/// let chunks: Vec<&str> = chunks.into_iter().map(|range| &text[range]).collect();
/// assert_eq!(chunks, ["It rains. Does it?", "I would not have", "thought so."]);
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Option`](crate::Error::Option) if `max_chars` is 0.
pub fn by_chars(text: &str, max_chars: usize) -> Result<Vec<Range<usize>>> {
    at_least_one("max_chars", max_chars)?;
    let mut pieces = Vec::new();
    for sentence in sentences(text) {
        if text[sentence.clone()].chars().nth(max_chars).is_none() {
            pieces.push(sentence);
        } else {
            let words = words(text, sentence);
            let words = words.into_iter().flat_map(|word| cut(text, word, max_chars));
            pieces.extend(pack(text, words, max_chars));
        }
    }
    Ok(pack(text, pieces, max_chars))
}

/// Neighbouring `pieces` joined, as many as have `max_chars` characters together with what
/// separates them. Every character is counted once or twice, however many pieces a chunk has.
fn pack(
    text: &str,
    pieces: impl IntoIterator<Item = Range<usize>>,
    max_chars: usize,
) -> Vec<Range<usize>> {
    let count = |range: Range<usize>| text[range].chars().count();
    let mut packed: Vec<Range<usize>> = Vec::new();
    let mut chars = 0; // of the last chunk
    for piece in pieces {
        if let Some(last) = packed.last_mut() {
            let joined = chars + count(last.end..piece.end);
            if joined <= max_chars {
                (last.end, chars) = (piece.end, joined);
                continue;
            }
        }
        chars = count(piece.clone());
        packed.push(piece);
    }
    packed
}

/// What stands between white space in `range`.
fn words(text: &str, range: Range<usize>) -> Vec<Range<usize>> {
    let spaced = text[range.clone()].split_inclusive(char::is_whitespace);
    let mut start = range.start;
    spaced
        .filter_map(|word| {
            let at = start;
            start += word.len();
            visible(word, at)
        })
        .collect()
}

/// `range` in pieces of at most `max_chars` characters.
fn cut(text: &str, range: Range<usize>, max_chars: usize) -> Vec<Range<usize>> {
    let starts =
        text[range.clone()].char_indices().step_by(max_chars).map(|(at, _)| range.start + at);
    let starts: Vec<usize> = starts.collect();
    let ends = starts.iter().skip(1).copied().chain([range.end]);
    starts.iter().zip(ends).map(|(&start, end)| start..end).collect()
}

/// The range of `piece`, which begins at `start`, without what cannot be seen around it; `None` if
/// that is all.
fn visible(piece: &str, start: usize) -> Option<Range<usize>> {
    let hidden = |c| !is_visible(c);
    let trimmed = piece.trim_matches(hidden);
    let start = start + piece.len() - piece.trim_start_matches(hidden).len();
    (!trimmed.is_empty()).then_some(start..start + trimmed.len())
}

/// Characters that a tokenizer drops are those that nobody sees: white space, control characters,
/// and marks of direction, joining and byte order.
fn is_visible(c: char) -> bool {
    let mark = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !(c.is_whitespace() || c.is_control() || mark)
}

/// The characters of Unicode's class ATerm, which end a sentence unless a lower-case letter
/// follows.
const FULL_STOPS: [char; 4] = ['.', '\u{2024}', '\u{fe52}', '\u{ff0e}'];

/// A text without the characters that only prolong the end of a sentence.
///
/// For each closing mark and each space after a full stop, the segmenter looks ahead to the next
/// letter (rule SB8), so its time grows with the square of their number. No rule asks for the
/// number, and none puts a boundary between them (SB5, SB9, SB10): the first closing mark and the
/// first space stand for all.
struct Thin<'a> {
    text: Cow<'a, str>,
    /// (bytes of the thin text, bytes of the original that have been left out before that place).
    gaps: Vec<(usize, usize)>,
}

impl<'a> Thin<'a> {
    fn new(text: &'a str) -> Self {
        let mut classes = HashMap::new();
        let mut class = |c| *classes.entry(c).or_insert_with(|| Class::of(c));
        let (mut thin, mut gaps, mut left_out, mut copied) = (String::new(), Vec::new(), 0, 0);
        // The class of the last character, while a sentence may be at its end.
        let mut last = None;
        for (at, c) in text.char_indices() {
            let next = match last {
                _ if FULL_STOPS.contains(&c) => Some(Class::FullStop),
                Some(last) => Some(class(c)).filter(|&class| class.follows(last)),
                None => None,
            };
            let prolongs = matches!(
                (last, next),
                (Some(Class::Close), Some(Class::Close | Class::Ignored))
                    | (Some(Class::Space), Some(Class::Space | Class::Ignored))
            );
            if prolongs {
                thin.push_str(&text[copied..at]);
                copied = at + c.len_utf8();
                left_out += c.len_utf8();
                gaps.push((thin.len(), left_out));
            } else if next != Some(Class::Ignored) {
                last = next;
            }
        }
        if gaps.is_empty() {
            return Self { text: Cow::Borrowed(text), gaps };
        }
        thin.push_str(&text[copied..]);
        Self { text: Cow::Owned(thin), gaps }
    }

    /// The byte of the original that is at byte `at` of the thin text. What was left out there
    /// comes before it.
    fn place(&self, at: usize) -> usize {
        let gaps = self.gaps.partition_point(|&(thin, _)| thin <= at);
        at + gaps.checked_sub(1).map_or(0, |last| self.gaps[last].1)
    }
}

/// What a character is to a sentence that may be at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    FullStop,
    Close,
    Space,
    /// Combining marks and the like, which the rules pass over.
    Ignored,
    /// Everything else: the sentence has ended before it, or goes on.
    Other,
}

impl Class {
    /// The segmenter keeps its table of classes to itself, so it is asked by texts whose boundaries
    /// depend on the class of `c`.
    fn of(c: char) -> Self {
        // Whether the last byte is a sentence, and all before it another.
        let splits_at_end = |text: &str| {
            let starts = text.split_sentence_bound_indices().map(|(start, _)| start);
            starts.eq([0, text.len() - 1])
        };
        if splits_at_end(&format!("1{c}B")) {
            Self::Other // ends a sentence or a paragraph by itself
        } else if splits_at_end(&format!(". {c}B")) {
            if c.is_whitespace() { Self::Space } else { Self::Ignored }
        } else if splits_at_end(&format!(".{c} B")) {
            Self::Close
        } else {
            Self::Other
        }
    }

    /// Whether a sentence that may be at its end after `last` may still be after this.
    fn follows(self, last: Self) -> bool {
        match self {
            Self::Close => last != Self::Space,
            Self::Space | Self::Ignored => true,
            Self::FullStop | Self::Other => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Error;

    fn shown(text: &str, ranges: Vec<Range<usize>>) -> Vec<&str> {
        ranges.into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn sentences_of_several_scripts() {
        let text = " \u{200b}\n“Why?” she said. 3.5 km!\r\n\r\n東京です。はい。 \u{feff}\n";
        assert_eq!(
            shown(text, sentences(text)),
            ["“Why?”", "she said.", "3.5 km!", "東京です。", "はい。"]
        );
        assert!(sentences(" \n").is_empty());
    }

    #[test]
    fn chunks_of_a_size() {
        let text = "Aa bb. Cc. ddddddddd eé. F.";
        let chunks = |max| shown(text, by_chars(text, max).unwrap());
        assert_eq!(chunks(100), [text]);
        assert_eq!(chunks(10), ["Aa bb. Cc.", "ddddddddd", "eé. F."]);
        assert_eq!(chunks(4), ["Aa", "bb.", "Cc.", "dddd", "dddd", "d", "eé.", "F."]);
        assert!(matches!(by_chars(text, 0), Err(Error::Option { option: "max_chars", .. })));
    }

    #[test]
    fn full_stops_are_what_the_segmenter_takes_for_them() {
        let sentences = |text: String| text.split_sentence_bounds().count();
        let is_full_stop =
            |&c: &char| sentences(format!("1{c} B")) == 2 && sentences(format!("1{c} b")) == 1;
        let found: Vec<char> = ('\0'..=char::MAX).filter(is_full_stop).collect();
        assert_eq!(found, FULL_STOPS);
    }

    #[test]
    fn time_is_linear_in_the_text() {
        // Characters of the short text: enough to measure, and few enough for a failure to be
        // reported soon.
        const N: usize = 1_000;
        let repeat = |piece: &str, n: usize| piece.repeat(n / piece.chars().count());
        type Text<'a> = (&'a str, usize, &'a dyn Fn(usize) -> String);
        let texts: [Text; 12] = [
            ("sentences", 100 * N, &|n| repeat("It rains today in the town. ", n)),
            ("one word", N, &|n| repeat("a", n)),
            ("words without an end", 100 * N, &|n| repeat("word ", n)),
            ("lines", N, &|n| repeat("\n", n)),
            ("spaces", N, &|n| repeat(" ", n)),
            ("full stops", N, &|n| repeat(".", n)),
            ("spaces after a full stop", N, &|n| format!("End.{}", repeat(" \u{a0}", n))),
            ("marks after a full stop", N, &|n| format!("End.{}", repeat("()\u{201d}", n))),
            ("accents after a full stop", N, &|n| format!("End. {}", repeat(" \u{301}\u{93e}", n))),
            ("joiners after a full stop", N, &|n| format!("End.{}", repeat(")\u{200d}", n))),
            ("numbers after full stops", N, &|n| format!("{} a", repeat("1. ", n))),
            ("no letter", N, &|n| repeat(". 1 2 3 ) ", n)),
        ];
        // The best of a few, since the machine may have other work.
        let seconds = |text: &str, max_chars: usize, runs: usize| {
            let run = |_| {
                let start = std::time::Instant::now();
                std::hint::black_box(by_chars(text, max_chars).unwrap());
                start.elapsed().as_secs_f64()
            };
            (0..runs).map(run).fold(f64::MAX, f64::min)
        };
        for (name, n, text) in texts {
            let (short, long) = (text(n), text(32 * n));
            for max_chars in [1, 1000, usize::MAX] {
                // Where time is linear it is 32 times as long, up to 100 times where only the short
                // text fits the caches; where it is quadratic, 1000 times.
                let ratio = || seconds(&long, max_chars, 1) / seconds(&short, max_chars, 5);
                let ratios: Vec<f64> = (0..3).map(|_| ratio()).take_while(|&r| r > 250.0).collect();
                assert!(ratios.len() < 3, "{name}, chunks of {max_chars}: {ratios:.0?} for 32");
            }
        }
    }

    proptest! {
        #[test]
        fn sentences_are_those_of_unicode(
            text in "[.\u{ff0e}!?。 \u{a0}\u{3000}\t\n\r\u{85}()\"\u{201c}\u{201d},:;aA1é日の\u{301}\u{93e}\u{200d}\u{ad}@]{0,40}"
        ) {
            let plain = text.split_sentence_bound_indices();
            let plain: Vec<_> = plain.filter_map(|(at, piece)| visible(piece, at)).collect();
            prop_assert_eq!(sentences(&text), plain);
        }

        #[test]
        fn any_text_is_covered_in_order(text: String, max_chars in 1..9_usize) {
            let ranges = by_chars(&text, max_chars).unwrap();
            let mut end = 0;
            for range in &ranges {
                prop_assert!(end <= range.start && range.start < range.end);
                prop_assert!(text[range.clone()].chars().count() <= max_chars);
                prop_assert!(!text[end..range.start].contains(is_visible));
                end = range.end;
            }
            prop_assert!(!text[end..].contains(is_visible));
        }
    }
}
