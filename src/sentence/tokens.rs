//! Token embeddings: the hidden states of each text, with the place in the text that each token
//! stands for.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use ndarray::{Array2, s};

use super::SentenceEncoder;
use super::encode::Call;
use super::options::{EncodeOptions, TextReport};
use super::plan::Plan;
use super::progress::Meter;
use crate::error::{Error, Result};
use crate::tokenizer::Windows;

/// The hidden states of one text after the last layer, a row for each token.
///
/// ```
/// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
/// let tokens = &encoder.encode_tokens(&["how are you"], &Default::default())?[0];
/// assert_eq!(tokens.embeddings.dim(), (5, 32));
/// assert_eq!(tokens.offsets, [None, Some(0..3), Some(4..7), Some(8..11), None]);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TokenEmbeddings {
    /// `[T, D]`: special tokens and prompt included, not normalised.
    pub embeddings: Array2<f32>,
    /// `[T]`
    pub ids: Vec<u32>,
    /// `[T]`: the bytes of the text that each token stands for, `&text[range]`; none for special
    /// tokens and those of the prompt. A token that begins in the prompt and ends in the text
    /// stands for what it has of the text.
    pub offsets: Vec<Option<Range<usize>>>,
    /// What became of the text.
    pub report: TextReport,
}

impl TokenEmbeddings {
    /// [`offsets`](Self::offsets) in characters, as Python counts them, of the same `text`.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let text = "– how are you";
    /// let tokens = &encoder.encode_tokens(&[text], &Default::default())?[0];
    /// assert_eq!(tokens.offsets[2], Some(4..7)); // "how": <s> is token 0, and the dash is three bytes
    /// assert_eq!(tokens.char_offsets(text)[2], Some(2..5));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn char_offsets(&self, text: &str) -> Vec<Option<Range<usize>>> {
        let chars = Chars::new(text);
        self.offsets.iter().map(|bytes| chars.range(bytes.as_ref()?)).collect()
    }
}

/// Bytes of a text → characters.
pub(super) struct Chars<'t> {
    text: &'t [u8],
    /// Characters before byte 0, [`STEP`](Self::STEP), 2 · `STEP`, …
    before: Vec<usize>,
}

impl<'t> Chars<'t> {
    /// Bytes between two places whose characters are counted in advance: a byte of memory for eight
    /// of the text.
    const STEP: usize = 64;

    pub(super) fn new(text: &'t str) -> Self {
        let text = text.as_bytes();
        let counts = text.chunks(Self::STEP).scan(0, |chars, chunk| {
            *chars += beginnings(chunk);
            Some(*chars)
        });
        Self { text, before: [0].into_iter().chain(counts).collect() }
    }

    /// `bytes` in characters; `None` if the text is shorter.
    pub(super) fn range(&self, bytes: &Range<usize>) -> Option<Range<usize>> {
        Some(self.before(bytes.start)?..self.before(bytes.end)?)
    }

    /// Characters that begin before `byte`.
    fn before(&self, byte: usize) -> Option<usize> {
        let step = byte / Self::STEP;
        let rest = self.text.get(step * Self::STEP..byte)?;
        Some(self.before[step] + beginnings(rest))
    }
}

/// How many characters begin in these bytes of UTF-8.
fn beginnings(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte & 0xC0 != 0x80).count()
}

impl SentenceEncoder {
    /// The hidden states of each text, a row for each token, with the bytes of the text that it
    /// stands for: what pooling makes an embedding of.
    ///
    /// Under [`Overflow::Window`](super::Overflow::Window) a text that is too long has each of its
    /// tokens once: where two windows overlap, the first half comes from the earlier one and the
    /// rest from the later, so that each has been seen with what is around it.
    ///
    /// Source: `encode(output_value="token_embeddings")`; the offsets are those of a Hugging Face
    /// fast tokenizer.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let text = "how are you";
    /// let tokens = &encoder.encode_tokens(&[text], &Default::default())?[0];
    /// for (bytes, state) in tokens.offsets.iter().zip(tokens.embeddings.rows()) {
    ///     println!("{:?}: {state}", bytes.clone().map(|bytes| &text[bytes]));
    /// }
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`encode_with`](Self::encode_with); [`Error::Option`] if `truncate_dim` or `normalize` is
    /// set, which are for the embeddings of texts.
    pub fn encode_tokens<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: &EncodeOptions,
    ) -> Result<Vec<TokenEmbeddings>> {
        let of_texts = |option| Error::Option {
            option,
            problem: "is for embeddings of texts, not of tokens".to_owned(),
        };
        if options.truncate_dim.is_some() {
            return Err(of_texts("truncate_dim"));
        }
        if options.normalize {
            return Err(of_texts("normalize"));
        }
        let plan = Plan::new(self, options)?.with_offsets();
        options.in_pool(|| {
            let call = Call::new(self, &plan, options);
            let mut meter = Meter::new(Some(texts.len()), options.progress.clone());
            let mut all = Vec::with_capacity(texts.len());
            call.for_each_part(texts, |_, tokens| {
                all.extend(call.hidden_states(tokens, &mut meter)?);
                Ok(())
            })?;
            Ok(all)
        })
    }
}

impl Call<'_> {
    /// The hidden states of each text, its windows put together.
    pub(super) fn hidden_states(
        &self,
        texts: &[Windows],
        meter: &mut Meter,
    ) -> Result<Vec<TokenEmbeddings>> {
        let (prompt, d) = (self.plan.prompt.len(), self.encoder.hidden_size());
        // For each window: its text, which of its rows are kept, and the rows of the text they
        // become.
        let mut places = Vec::new();
        let mut out = Vec::with_capacity(texts.len());
        for (text, windows) in texts.iter().enumerate() {
            let (kept, mut row) = (windows.kept(), 0);
            out.push(put_together(windows, &kept, prompt, d));
            for kept in kept {
                let next = row + kept.len();
                places.push((text, kept, row..next));
                row = next;
            }
        }
        let out = Mutex::new(out);
        self.for_each_batch(texts, meter, |_, hidden, batch| {
            let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
            for (range, &window) in batch.ranges().zip(batch.texts()) {
                let (text, kept, to) = places[window].clone();
                let rows = hidden.slice(s![range, ..]);
                out[text].embeddings.slice_mut(s![to, ..]).assign(&rows.slice(s![kept, ..]));
            }
        })?;
        Ok(out.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// `bytes` of a prompt with a text after it as bytes of the text, which begins after `prompt` of
/// them; `None` if none of them is the text's.
pub(super) fn in_text(bytes: &Range<usize>, prompt: usize) -> Option<Range<usize>> {
    let within = bytes.start >= prompt || bytes.end > prompt;
    within.then(|| bytes.start.saturating_sub(prompt)..bytes.end.saturating_sub(prompt))
}

/// The `kept` tokens of each window as one text, its embeddings still zero. The first `prompt`
/// bytes are not the text's.
fn put_together(text: &Windows, kept: &[Range<usize>], prompt: usize, d: usize) -> TokenEmbeddings {
    let windows = || text.windows.iter().zip(kept);
    let ids = windows().flat_map(|(window, kept)| &window.ids[kept.clone()]).copied();
    let offsets = windows().flat_map(|(window, kept)| &window.offsets[kept.clone()]);
    let offsets = offsets.map(|bytes| in_text(bytes.as_ref()?, prompt));
    let ids: Vec<u32> = ids.collect();
    TokenEmbeddings {
        embeddings: Array2::zeros((ids.len(), d)),
        ids,
        offsets: offsets.collect(),
        report: TextReport::new(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_those_of_the_text_wherever_its_counts_begin() {
        for piece in ["a", "é", "日", "𝄞", "aé日𝄞"] {
            let text = piece.repeat(200);
            let chars = Chars::new(&text);
            let places = text.char_indices().map(|(byte, _)| byte).chain([text.len()]);
            for (number, byte) in places.enumerate() {
                assert_eq!(chars.range(&(0..byte)), Some(0..number), "{piece}, byte {byte}");
                assert_eq!(chars.range(&(byte..byte)), Some(number..number));
            }
            assert_eq!(chars.range(&(0..text.len() + 1)), None);
            assert_eq!(chars.range(&(text.len() + 500..text.len() + 501)), None);
        }
        assert_eq!(Chars::new("").range(&(0..0)), Some(0..0));
    }
}
