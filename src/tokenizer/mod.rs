//! [`Tokenizer`]: text or pair → [`Tokens`].
//!
//! MPNet's tokenizer is BERT's uncased WordPiece with RoBERTa's special tokens: `<s> text </s>`,
//! and `<s> first </s> </s> second </s>` for a pair. The algorithm is that of the `tokenizers`
//! crate; here is what surrounds it: which file it is built from, how much of a text is kept, and
//! how much was not.

mod build;
mod located;
mod settings;
mod special;
mod steps;
mod windows;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rayon::prelude::*;
use serde_json::Value;
use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Sequence};
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::tokenizer::{
    Encoding, PostProcessor, TruncationDirection, TruncationParams, TruncationStrategy,
    truncate_encodings,
};

use crate::error::{Error, FileProblem, Result, TextProblem};
use crate::files::ModelFiles;

pub(crate) use located::{Located, Place, WindowOptions};
pub(crate) use settings::TokenizerSettings;
pub(crate) use special::{SpecialTokens, model_max_length};
pub(crate) use windows::{Excess, Fit, Window, Windows};

pub(crate) const TOKENIZER: &str = "tokenizer.json";
pub(crate) const VOCABULARY: &str = "vocab.txt";
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub(crate) const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
pub(crate) const ADDED_TOKENS: &str = "added_tokens.json";

/// The token ids of one text, or of a pair of texts, special tokens included.
///
/// ```
/// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
/// let tokens = &encoder.tokenizer().encode(&["how are you"], 4)?[0];
/// println!("{:?}, and {} more that did not fit", tokens.ids, tokens.dropped);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// `[T]`
    pub ids: Vec<u32>,
    /// How many tokens of the text were cut off to fit the limit; 0 if the whole text is here.
    pub dropped: usize,
}

impl AsRef<[u32]> for Tokens {
    fn as_ref(&self) -> &[u32] {
        &self.ids
    }
}

/// Turns texts into token ids.
///
/// The lengths baked into a `tokenizer.json` (the published one of all-mpnet-base-v2 truncates and
/// pads to 128) are ignored, as sentence-transformers ignores them: the limit is the caller's, and
/// nothing is padded.
///
/// ```
/// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
/// let tokenizer = encoder.tokenizer(); // or `Tokenizer::open(directory)`
/// let tokens = tokenizer.encode(&["how are you"], encoder.max_seq_length())?;
/// assert_eq!(tokens[0].ids.len(), 5);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug)]
pub struct Tokenizer {
    /// Makes pieces of a text, and nothing more: it has no post-processor.
    inner: tokenizers::Tokenizer,
    /// Puts special tokens around pieces, and takes the white space off their offsets. Apart from
    /// `inner`, which would run it on a text's pieces before they are cut, and so a second time
    /// where it runs once.
    processor: Option<PostProcessorWrapper>,
    file: String,
    /// The end at which a text that is too long is cut.
    truncation: TruncationDirection,
    /// The ids of all special tokens that the files name.
    special_ids: Vec<u32>,
    /// Those among them that only have an id because every special token gets one. The model need
    /// not have embeddings for them.
    spare_ids: Vec<u32>,
    /// Whether texts get special tokens around them.
    adds_special_tokens: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json` in `directory`; if there is none, builds the tokenizer from
    /// `vocab.txt` and `tokenizer_config.json`.
    ///
    /// ```
    /// use mpnet::Tokenizer;
    ///
    /// # let directory = "tests/data/tiny";
    /// let tokenizer = Tokenizer::open(directory)?;
    /// assert_eq!(tokenizer.token(0).as_deref(), Some("<s>"));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if there is neither, [`FileProblem::Tokenizer`](crate::FileProblem::Tokenizer)
    /// if the file is not a tokenizer.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let files = ModelFiles::from(directory.as_ref());
        files.check()?;
        Self::from_files(&files, "")
    }

    /// Reads the text of a `tokenizer.json`; `file` names it in errors.
    ///
    /// ```
    /// use mpnet::Tokenizer;
    ///
    /// # let json = std::fs::read("tests/data/tiny/tokenizer.json").unwrap();
    /// let tokenizer = Tokenizer::from_json(json, "tokenizer.json")?;
    /// assert_eq!(tokenizer.encode(&[""], 8)?[0].ids, [0, 2]);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`FileProblem::Tokenizer`](crate::FileProblem::Tokenizer) if it is not a tokenizer.
    pub fn from_json(json: impl AsRef<[u8]>, file: &str) -> Result<Self> {
        let wrong = |problem: String| Error::File {
            file: file.to_owned(),
            problem: FileProblem::Tokenizer { problem },
        };
        let value: Value =
            serde_json::from_slice(json.as_ref()).map_err(|error| wrong(error.to_string()))?;
        check_components(&value).map_err(wrong)?;
        let inner = guard(|| tokenizers::Tokenizer::from_bytes(json.as_ref())).map_err(wrong)?;
        Self::new(inner, file.to_owned())
    }

    /// What all ways of making a tokenizer share: nothing is padded, and cutting is up to the
    /// caller.
    fn new(mut inner: tokenizers::Tokenizer, file: String) -> Result<Self> {
        let truncation = inner.get_truncation().map(|saved| saved.direction).unwrap_or_default();
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| Error::File {
            file: file.clone(),
            problem: FileProblem::Tokenizer { problem: error.to_string() },
        })?;
        let processor = inner.get_post_processor().cloned();
        inner.with_post_processor(None::<PostProcessorWrapper>);
        let (special_ids, spare_ids) = Default::default();
        let adds_special_tokens = true;
        Ok(Self { inner, processor, file, truncation, special_ids, spare_ids, adds_special_tokens })
    }

    /// Lower-cases every text before anything else is done to it (`do_lower_case` of
    /// `sentence_bert_config.json`). By a normalizer, as the reference does it, so that special
    /// tokens and offsets stay those of the text as it was.
    pub(crate) fn lowercase(mut self, on: bool) -> Result<Self> {
        let mut steps = match self.inner.get_normalizer() {
            Some(NormalizerWrapper::Sequence(steps)) => steps.as_ref().to_vec(),
            step => step.cloned().into_iter().collect(),
        };
        let already = |step: &NormalizerWrapper| matches!(step, NormalizerWrapper::Lowercase(_));
        if on && !steps.iter().any(already) {
            steps.insert(0, Lowercase.into());
            self.inner.with_normalizer(Some(Sequence::new(steps))).map_err(|error| {
                Error::File {
                    file: self.file.clone(),
                    problem: FileProblem::Tokenizer { problem: error.to_string() },
                }
            })?;
        }
        Ok(self)
    }

    /// Called as the transformer module's settings say: with or without special tokens around a
    /// text, those in a text taken as tokens or split.
    pub(crate) fn called_with(mut self, adds_special_tokens: bool, splits: Option<bool>) -> Self {
        self.adds_special_tokens = adds_special_tokens;
        if let Some(splits) = splits {
            self.inner.set_encode_special_tokens(splits);
        }
        self
    }

    /// `ids` without the special token at their end, if there is one.
    pub(crate) fn without_end<'i>(&self, ids: &'i [u32]) -> &'i [u32] {
        match ids {
            [all @ .., last] if self.special_ids.contains(last) => all,
            _ => ids,
        }
    }

    /// Fails unless every id that can be produced has a row among `vocab_size`.
    pub(crate) fn check_vocabulary(&self, vocab_size: usize) -> Result<()> {
        let used = |id: &u32| !self.spare_ids.contains(id);
        let vocabulary = self.inner.get_vocab(true).into_iter();
        let largest = vocabulary.filter(|(_, id)| used(id)).max_by_key(|&(_, id)| id);
        // A post-processor holds ids of its own, which need not be those of the vocabulary.
        let of_pair = self.ids(0, "", Some(""), usize::MAX)?.ids.into_iter().max();
        let special = of_pair.map(|id| ("added around a text".to_owned(), id));
        match largest.into_iter().chain(special).max_by_key(|&(_, id)| id) {
            Some((token, id)) if id as usize >= vocab_size => Err(Error::File {
                file: self.file.clone(),
                problem: FileProblem::Vocabulary { token, id, vocab_size },
            }),
            _ => Ok(()),
        }
    }

    /// The ids of each text, `<s> text </s>`, at most `max_tokens` of them: what is too long is cut
    /// at its end, or at its beginning if the tokenizer's files say so (`truncation_side`).
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let tokens = encoder.tokenizer().encode(&["how are you", ""], 4)?;
    /// assert_eq!((tokens[0].ids.len(), tokens[0].dropped), (4, 1));
    /// assert_eq!(tokens[1].ids, [0, 2]); // <s> </s>
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if `max_tokens` leaves no room for the special tokens,
    /// [`TextProblem::Tokenizer`](crate::TextProblem::Tokenizer) if the tokenizer fails, as one
    /// does whose vocabulary lacks its token for unknown words.
    pub fn encode<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        max_tokens: usize,
    ) -> Result<Vec<Tokens>> {
        texts
            .par_iter()
            .enumerate()
            .map(|(text, content)| self.ids(text, content.as_ref(), None, max_tokens))
            .collect()
    }

    /// The ids of each pair, `<s> first </s> </s> second </s>`, at most `max_tokens` of them: the
    /// longer text is cut first, until both are equally long.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let pairs = encoder.tokenizer().encode_pairs(&[("how are you", "fine")], 48)?;
    /// let strings: Vec<_> = pairs[0].ids.iter().filter_map(|&id| encoder.tokenizer().token(id)).collect();
    /// assert_eq!((&*strings[0], &*strings[4], &*strings[5]), ("<s>", "</s>", "</s>"));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn encode_pairs<A: AsRef<str> + Sync, B: AsRef<str> + Sync>(
        &self,
        pairs: &[(A, B)],
        max_tokens: usize,
    ) -> Result<Vec<Tokens>> {
        pairs
            .par_iter()
            .enumerate()
            .map(|(pair, (a, b))| self.ids(pair, a.as_ref(), Some(b.as_ref()), max_tokens))
            .collect()
    }

    /// The string of a token, or `None` if there is no such id.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// assert_eq!(encoder.tokenizer().token(2).as_deref(), Some("</s>"));
    /// assert_eq!(encoder.tokenizer().token(999_999), None);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The text that `ids` stand for, as far as it can be had back: lower-cased, without accents,
    /// with the spaces before punctuation and inside contractions taken out as `transformers` does
    /// it.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let tokenizer = encoder.tokenizer();
    /// let ids = &tokenizer.encode(&["How are you?"], 48)?[0].ids;
    /// assert_eq!(tokenizer.decode(ids, true)?, "how are you?");
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TextProblem::Tokenizer`](crate::TextProblem::Tokenizer) if the decoder refuses them.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        self.guarded(|| self.inner.decode(ids, skip_special_tokens))
            .map(|text| clean_up(&text))
            .map_err(|error| Error::Text {
                text: 0,
                problem: TextProblem::Tokenizer { problem: error.to_string() },
            })
    }

    /// How many special tokens are put around a text, or around a pair.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let tokenizer = encoder.tokenizer();
    /// assert_eq!((tokenizer.special_tokens(false), tokenizer.special_tokens(true)), (2, 4));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn special_tokens(&self, pair: bool) -> usize {
        let processor = self.processor.as_ref().filter(|_| self.adds_special_tokens);
        processor.map_or(0, |processor| processor.added_tokens(pair))
    }

    /// `first`, and perhaps `second`, as ids; `text` is the place in the input, for errors.
    fn ids(
        &self,
        text: usize,
        first: &str,
        second: Option<&str>,
        max_tokens: usize,
    ) -> Result<Tokens> {
        let room = self.room(max_tokens, second.is_some())?;
        let failed = |error: tokenizers::Error| Error::Text {
            text,
            problem: TextProblem::Tokenizer { problem: error.to_string() },
        };
        let (first, second) = (self.pieces(first), second.map(|second| self.pieces(second)));
        let (first, second) = (first.map_err(failed)?, second.transpose().map_err(failed)?);
        let content = first.len() + second.as_ref().map_or(0, Encoding::len);
        let (mut first, mut second) = truncate_encodings(
            first,
            second,
            &TruncationParams {
                max_length: room,
                strategy: TruncationStrategy::LongestFirst,
                direction: self.truncation,
                stride: 0,
            },
        )
        .map_err(failed)?;
        // What was cut off is kept in pieces, which the post-processor would combine, each of one
        // text with each of the other.
        first.take_overflowing();
        second.as_mut().map(Encoding::take_overflowing);
        let encoding = self.surround(first, second).map_err(failed)?;
        Ok(Tokens { ids: encoding.get_ids().to_vec(), dropped: content.saturating_sub(room) })
    }

    /// What `max_tokens` leave for a text, or a pair, beside the special tokens.
    fn room(&self, max_tokens: usize, pair: bool) -> Result<usize> {
        let special = self.special_tokens(pair);
        max_tokens.checked_sub(special).ok_or_else(|| Error::Option {
            option: "max_tokens",
            problem: format!("is {max_tokens}, but {special} special tokens must fit"),
        })
    }

    /// Runs `work` of the tokenizers crate, which panics at some files when it comes to a text.
    fn guarded<T>(&self, work: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
        catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|panic| Err(format!("`{}`: {}", self.file, told(&*panic)).into()))
    }

    /// The word pieces of a text, without special tokens around them.
    fn pieces(&self, text: &str) -> tokenizers::Result<Encoding> {
        self.guarded(|| self.inner.encode_fast(text, false))
    }
}

/// Refuses, anywhere in a `tokenizer.json`, what the `tokenizers` crate takes and then panics at.
fn check_components(value: &Value) -> Result<(), String> {
    match value.get("type").and_then(Value::as_str) {
        Some("FixedLength") if value["length"] == 0 => {
            return Err("a FixedLength pre-tokenizer of length 0".to_owned());
        }
        Some("TemplateProcessing") => {
            let pieces = ["single", "pair"].into_iter().filter_map(|part| value[part].as_array());
            // A single text is sequence A; of a second one there is nothing to put in.
            let mut of_single = value["single"].as_array().into_iter().flatten();
            if of_single.any(|piece| piece["Sequence"]["id"] == "B") {
                return Err("its template for a single text names a second text".to_owned());
            }
            for piece in pieces.flatten() {
                if let Some(id) = piece["SpecialToken"]["id"].as_str()
                    && value["special_tokens"].get(id).is_none()
                {
                    return Err(format!("its template names `{id}`, which is no special token"));
                }
            }
        }
        _ => {}
    }
    // The vocabulary is large and has no components in it.
    let parts = value.as_object().into_iter().flatten().filter(|(name, _)| *name != "model");
    let list = value.as_array().into_iter().flatten();
    parts.map(|(_, part)| part).chain(list).try_for_each(check_components)
}

/// `clean_up_tokenization` of `transformers`: the decoder of `tokenizers` does the same token by
/// token, and so does not see a contraction, which is three tokens.
fn clean_up(text: &str) -> String {
    [" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"]
        .iter()
        .fold(text.to_owned(), |text, spaced| text.replace(spaced, spaced.trim()))
}

/// Runs `work` that reads a tokenizer file, which panics at some of them.
fn guard<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|panic| told(&*panic))?
        .map_err(|error| error.to_string())
}

/// What the tokenizers crate said when it panicked.
fn told(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the tokenizers crate panicked at it: {}", text.unwrap_or("no reason given"))
}
