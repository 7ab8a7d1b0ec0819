//! Tokens that know where in their text, or pair of texts, they stand; of a text that is too long in several [`cut`]s.

use std::ops::Range;

use tokenizers::Decoder as _;
use tokenizers::models::ModelWrapper;
use tokenizers::tokenizer::{Encoding, PostProcessor};

use super::Tokenizer;
use super::windows::cut;
use crate::error::{Error, Result};

/// The ids of a text or pair, or of one window over it, special tokens included.
#[derive(Debug)]
pub(crate) struct Located {
    /// `[T]`
    pub(crate) ids: Vec<u32>,
    /// `[T]`; `None` for the special tokens put around the text. Empty if places were not asked for.
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

/// The pieces of a text, or some of them, as the post-processor takes them.
#[derive(Debug, Clone)]
pub(super) struct Pieces<'c> {
    pub(super) encoding: Encoding,
    /// Those of the text, if places are asked for; then offsets count characters, as in the reference, and not bytes: the
    /// post-processor takes off them how many characters of white space a token has at its ends.
    pub(super) characters: Option<&'c Characters>,
}

impl Pieces<'_> {
    pub(super) fn len(&self) -> usize {
        self.encoding.len()
    }
}

/// Where the characters of a text begin, in bytes, and where the last one ends.
#[derive(Debug)]
pub(super) struct Characters(Vec<usize>);

impl Characters {
    pub(super) fn new(text: &str) -> Self {
        Self(text.char_indices().map(|(byte, _)| byte).chain([text.len()]).collect())
    }

    /// The bytes of the characters `start..end`, as far as there are so many.
    fn bytes(&self, (start, end): (usize, usize)) -> Range<usize> {
        let byte = |character: usize| self.0[character.min(self.0.len() - 1)];
        byte(start)..byte(end.max(start))
    }
}

impl Tokenizer {
    /// The pieces of `text`, to be located if its `characters` are given.
    pub(super) fn pieces_of<'c>(
        &self,
        text: &str,
        characters: Option<&'c Characters>,
    ) -> tokenizers::Result<Pieces<'c>> {
        let encoding = match characters {
            None => self.pieces(text),
            // Characters are bytes here, and the table with an entry for each byte is saved that is made where they are not.
            Some(_) if text.is_ascii() => self.guarded(|| self.inner.encode(text, false)),
            Some(_) => self.guarded(|| self.inner.encode_char_offsets(text, false)),
        };
        Ok(Pieces { encoding: encoding?, characters })
    }

    /// `first`, and perhaps `second`, with the special tokens around them.
    pub(super) fn surround(
        &self,
        first: Encoding,
        second: Option<Encoding>,
    ) -> tokenizers::Result<Encoding> {
        match &self.processor {
            Some(processor) => {
                self.guarded(|| processor.process(first, second, self.adds_special_tokens))
            }
            None => Ok(Encoding::merge(std::iter::once(first).chain(second), false)),
        }
    }

    /// `first`, and perhaps `second`, with the special tokens around them, and where each token stands.
    pub(super) fn locate<'c>(
        &self,
        mut first: Pieces<'c>,
        mut second: Option<Pieces<'c>>,
    ) -> tokenizers::Result<Located> {
        if first.characters.is_none() {
            let encoding = self.surround(first.encoding, second.map(|second| second.encoding))?;
            return Ok(Located { ids: encoding.get_ids().to_vec(), places: Vec::new() });
        }
        // Which piece a token is, its word tells: each piece has a number there on its way through the post-processor. Special
        // tokens have no word, and of the ranges of the two texts not every post-processor keeps account.
        let mut pieces = Vec::new();
        for (sequence, part) in std::iter::once(&mut first).chain(&mut second).enumerate() {
            for word in part.encoding.get_word_ids_mut() {
                let number = pieces.len() as u32;
                pieces.push((sequence, part.characters, word.replace(number)));
            }
        }
        let encoding = self.surround(first.encoding, second.map(|second| second.encoding))?;
        let tokens = encoding.get_word_ids().iter().zip(encoding.get_offsets());
        let places = tokens.map(|(number, &offsets)| {
            let &(sequence, characters, word) = pieces.get((*number)? as usize)?;
            Some(Place { sequence, range: characters?.bytes(offsets), word })
        });
        Ok(Located { places: places.collect(), ids: encoding.get_ids().to_vec() })
    }

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
        let (fixed, last) = match second {
            Some(second) => (Some(first), second),
            None => (None, first),
        };
        let characters = (fixed.map(Characters::new), Characters::new(last));
        let fixed = fixed.map(|fixed| self.pieces_of(fixed, characters.0.as_ref()));
        let fixed = fixed.transpose().map_err(failed)?;
        let last = self.pieces_of(last, Some(&characters.1)).map_err(failed)?;
        let taken = self.special_tokens(fixed.is_some()) + fixed.as_ref().map_or(0, Pieces::len);
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
        let locate = |last| match fixed.clone() {
            Some(fixed) => self.locate(fixed, Some(last)),
            None => self.locate(last, None),
        };
        parts.into_iter().map(|part| locate(part).map_err(failed)).collect()
    }

    /// The id of the token `token`, if the vocabulary has it.
    pub(crate) fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether a piece that goes on with a word looks like one, as `##ing` does.
    pub(crate) fn marks_subwords(&self) -> bool {
        let prefix = match self.inner.get_model() {
            ModelWrapper::WordPiece(model) => Some(&model.continuing_subword_prefix),
            ModelWrapper::BPE(model) => model.continuing_subword_prefix.as_ref(),
            ModelWrapper::WordLevel(_) | ModelWrapper::Unigram(_) => None,
        };
        prefix.is_some_and(|prefix| !prefix.is_empty())
    }

    /// The text that `ids` stand for, by the tokenizer's own decoder and nothing after it.
    pub(crate) fn decode_plain(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        self.guarded(|| self.inner.decode(ids, skip_special_tokens))
            .map_err(|error| Error::Tokenize { text: 0, problem: error.to_string() })
    }

    /// `tokens` as one string, pieces of a word joined: `convert_tokens_to_string` of transformers.
    pub(crate) fn join(&self, tokens: Vec<String>) -> Result<String> {
        match self.inner.get_decoder() {
            Some(decoder) => self
                .guarded(|| decoder.decode(tokens))
                .map_err(|error| Error::Tokenize { text: 0, problem: error.to_string() }),
            None => Ok(tokens.join(" ")),
        }
    }
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
