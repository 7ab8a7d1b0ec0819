//! A text → ranges of it, to be embedded one by one or by
//! [late chunking](crate::SentenceEncoder::encode_chunks): sentences, or runs of sentences up to a size.
//!
//! Ranges are of bytes, at character boundaries, in order, without the white space and invisible characters around
//! them; where there is nothing else, there is no range.
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

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use crate::error::{Result, at_least_one};

/// The sentences of `text`, by the rules of Unicode: after `.`, `?`, `!` and their like in other scripts, and at the end
/// of a line. Abbreviations are not known: "Dr. Who" is two sentences.
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
    let pieces = text.split_sentence_bound_indices();
    pieces.filter_map(|(start, piece)| visible(piece, start)).collect()
}

/// `text` in chunks of whole sentences, as many as fit into `max_chars` characters each. A longer sentence is cut
/// between words, a longer word between characters.
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
    let fits = |range: &Range<usize>| text[range.clone()].chars().nth(max_chars).is_none();
    let pack = |pieces: Vec<Range<usize>>| {
        let mut packed: Vec<Range<usize>> = Vec::new();
        for piece in pieces {
            match packed.last_mut() {
                Some(last) if fits(&(last.start..piece.end)) => last.end = piece.end,
                _ => packed.push(piece),
            }
        }
        packed
    };
    let mut pieces = Vec::new();
    for sentence in sentences(text) {
        if fits(&sentence) {
            pieces.push(sentence);
        } else {
            let words = words(text, sentence);
            pieces.extend(pack(
                words.into_iter().flat_map(|word| cut(text, word, max_chars)).collect(),
            ));
        }
    }
    Ok(pack(pieces))
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

/// The range of `piece`, which begins at `start`, without what cannot be seen around it; `None` if that is all.
fn visible(piece: &str, start: usize) -> Option<Range<usize>> {
    let hidden = |c| !is_visible(c);
    let trimmed = piece.trim_matches(hidden);
    let start = start + piece.len() - piece.trim_start_matches(hidden).len();
    (!trimmed.is_empty()).then_some(start..start + trimmed.len())
}

/// Characters that a tokenizer drops are those that nobody sees: white space, control characters, and marks of direction,
/// joining and byte order.
fn is_visible(c: char) -> bool {
    let mark = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !(c.is_whitespace() || c.is_control() || mark)
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

    proptest! {
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
