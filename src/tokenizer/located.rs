//! Tokens that know where in their text, or pair of texts, they stand; of a text that is too long
//! in several [`steps`].

use std::ops::Range;

use tokenizers::Decoder as _;
use tokenizers::models::ModelWrapper;
use tokenizers::tokenizer::{Encoding, PostProcessor, TruncationDirection};

use super::Tokenizer;
use super::steps::{steps, steps_from_end};
use crate::error::{Error, Result, TextProblem};

/// The ids of a text or pair, or of one window over it, special tokens included.
#[derive(Debug)]
pub(crate) struct Located {
    /// `[T]`
    pub(crate) ids: Vec<u32>,
    /// `[T]`; `None` for the special tokens put around the text. Empty if places were not asked
    /// for.
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
    /// Which of the pieces it is that special tokens were put around.
    pub(super) piece: usize,
}

/// The pieces of a text, or some of them, as the post-processor takes them.
#[derive(Debug, Clone)]
pub(super) struct Pieces<'c> {
    pub(super) encoding: Encoding,
    /// Those of the text, if places are asked for; then offsets count characters, as in the
    /// reference, and not bytes: the post-processor takes off them how many characters of white
    /// space a token has at its ends.
    pub(super) characters: Option<&'c Characters>,
}

impl Pieces<'_> {
    /// The first `prompt` pieces, then those in `range`.
    pub(super) fn part(&self, prompt: usize, range: Range<usize>) -> Self {
        fn select<T: Clone>(of: &[T], prompt: usize, range: &Range<usize>) -> Vec<T> {
            [&of[..prompt], &of[range.clone()]].concat()
        }
        macro_rules! select {
            ($field:ident) => {
                select(self.encoding.$field(), prompt, &range)
            };
        }
        let encoding = Encoding::new(
            select!(get_ids),
            select!(get_type_ids),
            select!(get_tokens),
            select!(get_word_ids),
            select!(get_offsets),
            select!(get_special_tokens_mask),
            select!(get_attention_mask),
            Vec::new(),
            Default::default(),
        );
        Pieces { encoding, ..*self }
    }

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
            // Characters are bytes here, and the table with an entry for each byte is saved that is
            // made where they are not.
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

    /// `first`, and perhaps `second`, with the special tokens around them, and where each token
    /// stands.
    pub(super) fn locate<'c>(
        &self,
        mut first: Pieces<'c>,
        mut second: Option<Pieces<'c>>,
    ) -> tokenizers::Result<Located> {
        if first.characters.is_none() {
            let encoding = self.surround(first.encoding, second.map(|second| second.encoding))?;
            return Ok(Located { ids: encoding.get_ids().to_vec(), places: Vec::new() });
        }
        // Each piece goes through the post-processor with its number for a word. Special tokens
        // have no word, and not every post-processor keeps account of what it was given.
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
            let piece = (*number)? as usize;
            let &(sequence, characters, word) = pieces.get(piece)?;
            Some(Place { sequence, range: characters?.bytes(offsets), word, piece })
        });
        Ok(Located { places: places.collect(), ids: encoding.get_ids().to_vec() })
    }

    /// The tokens of `<s> text </s>` if `second` is `None`, else of
    /// `<s> first </s> </s> second </s>`. If there are more than `max_tokens`, the last text is cut
    /// into windows of as many of its tokens as there is room for; each has the last tokens of the
    /// one before it again (see [`WindowOptions`]), and the first text and all special tokens too.
    /// `text` is the place in the input, for errors.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] named by `window` if nothing of the last text fits beside the rest, or if
    /// the overlap is not smaller than the room for it;
    /// [`TextProblem::Tokenizer`](crate::TextProblem::Tokenizer) if the tokenizer fails.
    pub(crate) fn located_windows(
        &self,
        text: usize,
        first: &str,
        second: Option<&str>,
        max_tokens: usize,
        window: &WindowOptions,
    ) -> Result<Vec<Located>> {
        let failed = |error: tokenizers::Error| Error::Text {
            text,
            problem: TextProblem::Tokenizer { problem: error.to_string() },
        };
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
            let all = 0..last.len();
            let ranges: Vec<_> = match self.truncation {
                TruncationDirection::Right => steps(all, room, overlap).collect(),
                TruncationDirection::Left => steps_from_end(all, room, overlap),
            };
            ranges.into_iter().map(|range| last.part(0, range)).collect()
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
        self.guarded(|| self.inner.decode(ids, skip_special_tokens)).map_err(|error| Error::Text {
            text: 0,
            problem: TextProblem::Tokenizer { problem: error.to_string() },
        })
    }

    /// `tokens` as one string, pieces of a word joined: `convert_tokens_to_string` of transformers.
    pub(crate) fn join(&self, tokens: Vec<String>) -> Result<String> {
        match self.inner.get_decoder() {
            Some(decoder) => self.guarded(|| decoder.decode(tokens)).map_err(|error| Error::Text {
                text: 0,
                problem: TextProblem::Tokenizer { problem: error.to_string() },
            }),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::tokenizer::{Excess, Fit};

    /// The tokenizers of `offsets.json`, as text.
    fn variants() -> Vec<(String, String)> {
        let read = |name: &str| {
            let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
            serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap()
        };
        let fields: BTreeMap<String, BTreeMap<String, Value>> =
            serde_json::from_value(read("offsets.json")["variants"].take()).unwrap();
        let variant = |(name, fields): (String, BTreeMap<String, Value>)| {
            let mut json = read("tiny/tokenizer.json");
            (json["truncation"], json["padding"]) = (Value::Null, Value::Null);
            fields.into_iter().for_each(|(field, value)| json[field] = value);
            (name, json.to_string())
        };
        fields.into_iter().map(variant).collect()
    }

    fn text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            3 => prop::sample::select(vec!["<mask>", "<pad>", "</s>", "<s>", "[UNK]", "<unk>"]),
            3 => prop::sample::select(vec![" ", "  ", "\u{a0}", "\u{3000}", "\t", "\n", "\u{85}"]),
            2 => prop::sample::select(vec!["the", "house", "İst", "ﬁ", "¨", "e\u{301}", "東京", "\0"]),
        ];
        let any = prop_oneof![piece.prop_map(str::to_owned), "\\PC{0,3}"];
        prop::collection::vec(any, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// Ids and ranges as the `tokenizers` crate gives them for a whole text with its special
    /// tokens.
    fn whole(inner: &tokenizers::Tokenizer, text: &str) -> (Vec<u32>, Vec<Range<usize>>) {
        let encoding = inner.encode_char_offsets(text, true).unwrap();
        let bytes: Vec<usize> =
            text.char_indices().map(|(byte, _)| byte).chain([text.len()]).collect();
        let range = |&(start, end): &(usize, usize)| bytes[start]..bytes[end];
        (encoding.get_ids().to_vec(), encoding.get_offsets().iter().map(range).collect())
    }

    #[test]
    fn tokens_stand_where_they_do_in_the_whole_text() {
        for (name, json) in variants() {
            let inner = tokenizers::Tokenizer::from_bytes(&json).unwrap();
            let tokenizer = Tokenizer::from_json(&json, &name).unwrap();
            let options =
                WindowOptions { limit: "", stride: "", overlap: None, default_overlap: 0 };
            let fit = Fit { max_tokens: usize::MAX, excess: Excess::Cut, offsets: true };
            proptest!(ProptestConfig::with_cases(200), |(text in text(), question in text())| {
                let (ids, ranges) = whole(&inner, &text);
                let of_special = |range: Option<Range<usize>>| range.unwrap_or(0..0);
                let windows =
                    tokenizer.located_windows(0, &text, None, usize::MAX, &options).unwrap();
                let places = windows[0].places.iter().cloned();
                let places = places.map(|place| of_special(place.map(|place| place.range)));
                prop_assert_eq!(&windows[0].ids, &ids, "{}", &name);
                prop_assert_eq!(places.collect::<Vec<_>>(), ranges.clone(), "{}", &name);

                let windows = tokenizer.windows(0, &text, &fit).unwrap().windows;
                let offsets = windows[0].offsets.iter().cloned().map(of_special);
                prop_assert_eq!(&windows[0].ids, &ids, "{}", &name);
                prop_assert_eq!(offsets.collect::<Vec<_>>(), ranges.clone(), "{}", &name);

                // A text of a pair stands where it stands alone.
                let pair = (question.as_str(), Some(text.as_str()));
                let pair = tokenizer.located_windows(0, pair.0, pair.1, usize::MAX, &options);
                let pair = pair.unwrap();
                for (sequence, text) in [&question, &text].into_iter().enumerate() {
                    let alone =
                        tokenizer.located_windows(0, text, None, usize::MAX, &options).unwrap();
                    let alone = alone[0].places.iter().flatten().map(|place| &place.range);
                    let of_pair = pair[0].places.iter().flatten();
                    let of_pair = of_pair.filter(|place| place.sequence == sequence);
                    prop_assert!(of_pair.map(|place| &place.range).eq(alone), "{}", &name);
                }
                let ids = inner.encode((question.as_str(), text.as_str()), true).unwrap();
                prop_assert_eq!(&pair[0].ids, ids.get_ids());
            });
        }
    }
}
