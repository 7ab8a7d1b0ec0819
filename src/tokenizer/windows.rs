//! A text of any length → [`Windows`], each short enough for the model.

use std::ops::Range;

use tokenizers::tokenizer::TruncationDirection;

use super::Tokenizer;
use super::located::{Characters, Located, Pieces, Place};
use super::steps::steps;
use crate::error::{Error, Result, TextProblem};

/// How texts are made to fit a model.
#[derive(Debug, Clone)]
pub(crate) struct Fit {
    /// The longest window, special tokens included.
    pub(crate) max_tokens: usize,
    /// Whether a longer text is cut at its end or covered by several windows.
    pub(crate) excess: Excess,
    /// Whether to find out where in the text each token stands, which costs time.
    pub(crate) offsets: bool,
}

/// What becomes of the pieces for which there is no room.
#[derive(Debug, Clone)]
pub(crate) enum Excess {
    Cut,
    Windows {
        /// Pieces that two neighbouring windows share.
        stride: usize,
        /// Pieces at the beginning that every window repeats.
        prompt: usize,
    },
}

/// The tokens of one text, in one window unless it was too long.
#[derive(Debug)]
pub(crate) struct Windows {
    /// At least one, in the order of the text.
    pub(crate) windows: Vec<Window>,
    /// Pieces of the text that are in no window.
    pub(crate) dropped: usize,
    /// `[dropped]`: the bytes that each of them stands for. Empty if offsets were not asked for.
    pub(crate) dropped_at: Vec<Range<usize>>,
}

/// A stretch of a text with special tokens, and the prompt, around it.
#[derive(Debug)]
pub(crate) struct Window {
    /// `[T]`
    pub(crate) ids: Vec<u32>,
    /// `[T]`: the bytes of the text that each token stands for, none for special tokens. Empty if
    /// not asked for.
    pub(crate) offsets: Vec<Option<Range<usize>>>,
    /// Which of the text's pieces are in this window, the repeated prompt aside.
    pub(crate) pieces: Range<usize>,
    /// The token that the first of them is. 0 if offsets were not asked for.
    pub(crate) start: usize,
}

impl AsRef<[u32]> for Window {
    fn as_ref(&self) -> &[u32] {
        &self.ids
    }
}

impl Windows {
    /// Tokens of all windows.
    pub(crate) fn tokens(&self) -> usize {
        self.windows.iter().map(|window| window.ids.len()).sum()
    }

    /// For each window the tokens to take if every token is wanted once. Where two windows overlap,
    /// the first half is taken from the earlier and the rest from the later, so that no token
    /// stands at the edge of what it could see; special tokens and prompt are those at the two ends
    /// of the text.
    pub(crate) fn kept(&self) -> Vec<Range<usize>> {
        let of = |w: usize| &self.windows[w];
        // The piece from which on the window after `w` is taken.
        let cut = |w: usize| {
            let (shared, end) = (of(w + 1).pieces.start, of(w).pieces.end);
            shared + (end - shared) / 2
        };
        let token = |w: usize, piece: usize| {
            // A template may leave the text out.
            (of(w).start + piece - of(w).pieces.start).min(of(w).ids.len())
        };
        let last = self.windows.len() - 1;
        (0..=last)
            .map(|w| {
                let from = if w == 0 { 0 } else { token(w, cut(w - 1)) };
                let to = if w == last { of(w).ids.len() } else { token(w, cut(w)) };
                from..to
            })
            .collect()
    }
}

impl Tokenizer {
    /// `content` as windows that `fit`; `text` is its place in the input, for errors.
    pub(crate) fn windows(&self, text: usize, content: &str, fit: &Fit) -> Result<Windows> {
        let room = self.room(fit.max_tokens, false)?;
        let failed = |error: tokenizers::Error| Error::Text {
            text,
            problem: TextProblem::Tokenizer { problem: error.to_string() },
        };
        let characters = fit.offsets.then(|| Characters::new(content));
        let pieces = self.pieces_of(content, characters.as_ref()).map_err(failed)?;
        let total = pieces.len();
        if total <= room {
            let window = self.window(pieces, 0, 0..total, None).map_err(failed)?;
            return Ok(Windows { windows: vec![window], dropped: 0, dropped_at: Vec::new() });
        }
        let ranges = fit.offsets.then(|| self.ranges(pieces.clone())).transpose();
        let ranges = ranges.map_err(failed)?;
        let window = |prompt: usize, range: Range<usize>| {
            let part = pieces.part(prompt, range.clone());
            self.window(part, prompt, range, ranges.as_deref())
        };
        let (windows, dropped): (Vec<_>, _) = match fit.excess {
            Excess::Cut => match self.truncation {
                TruncationDirection::Right => (vec![window(0, 0..room)], room..total),
                TruncationDirection::Left => {
                    let dropped = total - room;
                    (vec![window(0, dropped..total)], 0..dropped)
                }
            },
            Excess::Windows { stride, prompt } => {
                let windows = steps(prompt..total, room.saturating_sub(prompt), stride);
                (windows.map(|range| window(prompt, range)).collect(), 0..0)
            }
        };
        let windows: Result<Vec<Window>, _> = windows.into_iter().collect();
        let dropped_at = ranges.iter().flat_map(|ranges| &ranges[dropped.clone()]).cloned();
        Ok(Windows {
            windows: windows.map_err(failed)?,
            dropped: dropped.len(),
            dropped_at: dropped_at.collect(),
        })
    }

    /// The bytes that each of the pieces of a text stands for.
    fn ranges(&self, pieces: Pieces<'_>) -> tokenizers::Result<Vec<Range<usize>>> {
        let mut ranges = vec![0..0; pieces.len()];
        for place in self.locate(pieces, None)?.places.into_iter().flatten() {
            ranges[place.piece] = place.range;
        }
        Ok(ranges)
    }

    /// How many pieces `content` has.
    pub(crate) fn count(&self, content: &str) -> Result<usize> {
        match self.pieces(content) {
            Ok(pieces) => Ok(pieces.len()),
            Err(error) => Err(Error::Text {
                text: 0,
                problem: TextProblem::Tokenizer { problem: error.to_string() },
            }),
        }
    }

    /// Puts the special tokens around `part`: `prompt` pieces that every window has, then the
    /// `pieces` of the text. `ranges` are those of all pieces of the text: a post-processor may
    /// treat the first one of a window differently.
    fn window(
        &self,
        part: Pieces<'_>,
        prompt: usize,
        pieces: Range<usize>,
        ranges: Option<&[Range<usize>]>,
    ) -> tokenizers::Result<Window> {
        let Located { ids, places } = self.locate(part, None)?;
        let first = places.iter().position(Option::is_some).unwrap_or(places.len());
        let of_text = |piece| if piece < prompt { piece } else { pieces.start + piece - prompt };
        let range = |place: Place| match ranges {
            Some(ranges) => ranges[of_text(place.piece)].clone(),
            None => place.range,
        };
        let offsets = places.into_iter().map(|place| place.map(range)).collect();
        Ok(Window { ids, offsets, pieces, start: first + prompt })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_kept_once() {
        for stride in 0..6 {
            let window = |pieces: Range<usize>| Window {
                ids: vec![0; pieces.len() + 3],
                offsets: Vec::new(),
                start: 2,
                pieces,
            };
            let windows = steps(1..40, 6, stride).map(window).collect();
            let windows = Windows { windows, dropped: 0, dropped_at: Vec::new() };
            let mut pieces = Vec::new();
            let all = windows.windows.iter().zip(windows.kept());
            for (window, kept) in all {
                let piece = |token: usize| {
                    let piece = (token + window.pieces.start).checked_sub(window.start);
                    piece.filter(|piece| window.pieces.contains(piece))
                };
                pieces.extend(kept.filter_map(piece));
            }
            assert_eq!(pieces, (1..40).collect::<Vec<_>>(), "stride {stride}");
            let ends = windows.kept();
            assert_eq!(ends[0].start, 0);
            assert_eq!(ends[ends.len() - 1].end, windows.windows[ends.len() - 1].ids.len());
        }
    }
}
