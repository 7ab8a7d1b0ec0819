//! Tokens that know where in their text, or pair of texts, they stand; of a text that is too long in several [`cut`]s.

use std::ops::Range;

use tokenizers::Decoder as _;
use tokenizers::tokenizer::{Encoding, PostProcessor};

use super::Tokenizer;
use super::windows::cut;
use crate::error::{Error, Result};

/// The ids of a text or pair, or of one window over it, special tokens included.
#[derive(Debug)]
pub(crate) struct Located {
    /// `[T]`
    pub(crate) ids: Vec<u32>,
    /// `[T]`; `None` for the special tokens put around the text.
    pub(crate) places: Vec<Option<Place>>,
}

/// Where a token stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// 0 for the first text of a pair, 1 for the second.
    pub(crate) sequence: usize,
    /// The bytes of that text; both ends are between two characters.
    pub(crate) range: Range<usize>,
    /// Which word of that text it is a piece of.
    pub(crate) word: Option<u32>,
}

impl Tokenizer {
    /// The tokens of `<s> text </s>` if `second` is `None`, else of `<s> first </s> </s> second </s>`. If there are more
    /// than `max_tokens`, the last text is cut into windows of as many of its tokens as there is room for; each has the
    /// last tokens of the one before it again (see [`WindowOptions`]), and the first text and all special tokens too. `text` is the
    /// place in the input, for errors.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] named by `window` if nothing of the last text fits beside the rest, or if the overlap is not smaller
    /// than the room for it; [`Error::Tokenize`] if the tokenizer fails.
    pub(crate) fn located_windows(
        &self,
        text: usize,
        first: &str,
        second: Option<&str>,
        max_tokens: usize,
        window: &WindowOptions,
    ) -> Result<Vec<Located>> {
        let failed =
            |error: tokenizers::Error| Error::Tokenize { text, problem: error.to_string() };
        let texts = [Some(first), second];
        let pieces = |text: &str| self.inner.encode(text, false).map_err(failed);
        let (first, second) = (pieces(first)?, second.map(pieces).transpose()?);
        let (fixed, last) = match second {
            Some(second) => (Some(first), second),
            None => (None, first),
        };
        let taken = self.special_tokens(fixed.is_some()) + fixed.as_ref().map_or(0, Encoding::len);
        let room = max_tokens.saturating_sub(taken);
        let parts = if last.len() <= room {
            vec![last]
        } else {
            if room == 0 {
                return Err(Error::Option {
                    option: window.limit,
                    problem: format!(
                        "is {max_tokens} tokens, but {taken} stand beside the text that is cut \
                         into windows"
                    ),
                });
            }
            let default = window.default_overlap;
            let default = if default < room { default } else { room / 2 };
            let overlap = window.overlap.unwrap_or(default);
            if overlap >= room {
                return Err(Error::Option {
                    option: window.stride,
                    problem: format!(
                        "is {overlap}, but a window has room for only {room} tokens of the text"
                    ),
                });
            }
            cut(&last, 0, room, overlap).map(|(_, part)| part).collect()
        };
        parts
            .into_iter()
            .map(|part| self.locate(texts, fixed.clone(), part).map_err(failed))
            .collect()
    }

    /// `first` and `last`, pieces of `texts`, with the special tokens around them.
    fn locate(
        &self,
        texts: [Option<&str>; 2],
        first: Option<Encoding>,
        last: Encoding,
    ) -> tokenizers::Result<Located> {
        let mut parts: Vec<Encoding> = first.into_iter().chain([last]).collect();
        for (sequence, part) in parts.iter_mut().enumerate() {
            part.set_sequence_id(sequence);
        }
        let encoding = match self.inner.get_post_processor() {
            Some(processor) => {
                let mut parts = parts.into_iter();
                let first = parts.next().unwrap_or_default();
                processor.process(first, parts.next(), true)?
            }
            None => Encoding::merge(parts, false),
        };
        let places = encoding.get_sequence_ids().into_iter().zip(encoding.get_offsets());
        let places =
            places.zip(encoding.get_word_ids()).map(|((sequence, &(start, end)), &word)| {
                let text = texts.get(sequence?).copied().flatten()?;
                Some(Place { sequence: sequence?, range: whole_characters(text, start, end), word })
            });
        Ok(Located { places: places.collect(), ids: encoding.get_ids().to_vec() })
    }

    /// The id of the token `token`, if the vocabulary has it.
    pub(crate) fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The text that `ids` stand for, by the tokenizer's own decoder and nothing after it.
    pub(crate) fn decode_plain(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        self.inner
            .decode(ids, skip_special_tokens)
            .map_err(|error| Error::Tokenize { text: 0, problem: error.to_string() })
    }

    /// `tokens` as one string, pieces of a word joined: `convert_tokens_to_string` of transformers.
    pub(crate) fn join(&self, tokens: Vec<String>) -> Result<String> {
        match self.inner.get_decoder() {
            Some(decoder) => decoder
                .decode(tokens)
                .map_err(|error| Error::Tokenize { text: 0, problem: error.to_string() }),
            None => Ok(tokens.join(" ")),
        }
    }
}

/// `start..end`, widened to whole characters: a byte-level tokenizer may cut inside of one.
fn whole_characters(text: &str, start: usize, end: usize) -> Range<usize> {
    let start = (0..=start.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    let end = (end..text.len()).find(|&i| text.is_char_boundary(i)).unwrap_or(text.len());
    start..end.max(start)
}

/// How [`Tokenizer::located_windows`] cuts, and the names that the caller's options have in errors.
#[derive(Debug)]
pub(crate) struct WindowOptions {
    /// The name of the option that limits the tokens.
    pub(crate) limit: &'static str,
    /// The name of the option for the overlap.
    pub(crate) stride: &'static str,
    /// Tokens that two neighbouring windows share, if the caller says.
    pub(crate) overlap: Option<usize>,
    /// What they share otherwise, or half the room if that is more than there is.
    pub(crate) default_overlap: usize,
}
