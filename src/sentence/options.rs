//! What a caller can ask of [`SentenceEncoder::encode_with`](super::SentenceEncoder::encode_with), and what it reports.

use ndarray::Array2;

/// What happens to a text that has more tokens than [`max_seq_length`](super::SentenceEncoder::max_seq_length).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// Its end is cut off, and the report says how much. What sentence-transformers does, which does not say.
    #[default]
    Truncate,
    /// The call fails with [`Error::TooLong`](crate::Error::TooLong), before anything is computed.
    Error,
}

/// Options of one call. The default is what sentence-transformers' `encode` does without arguments.
///
/// ```
/// use mpnet::{EncodeOptions, Overflow};
///
/// let options = EncodeOptions::default().prompt("query: ").overflow(Overflow::Error);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct EncodeOptions {
    pub(super) overflow: Overflow,
    pub(super) prompt: Prompt,
    pub(super) truncate_dim: Option<usize>,
    pub(super) normalize: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Prompt {
    /// The model's default prompt, if it has one.
    #[default]
    Default,
    Named(String),
    Text(String),
}

impl EncodeOptions {
    /// What to do with texts that are too long.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Put before every text, with nothing between; `""` for none, even if the model has a default prompt.
    pub fn prompt(mut self, prompt: impl Into<String>) -> Self {
        self.prompt = Prompt::Text(prompt.into());
        self
    }

    /// Use the model's prompt of this name (`config_sentence_transformers.json`).
    pub fn prompt_name(mut self, name: impl Into<String>) -> Self {
        self.prompt = Prompt::Named(name.into());
        self
    }

    /// Keep only the first `k` components (of a model trained for it). This comes after the model's own normalisation, so
    /// that the result is shorter than 1; see [`EncodeOptions::normalize`].
    pub fn truncate_dim(mut self, k: usize) -> Self {
        self.truncate_dim = Some(k);
        self
    }

    /// Scale each embedding to length 1, after everything else.
    pub fn normalize(mut self, normalize: bool) -> Self {
        self.normalize = normalize;
        self
    }
}

/// The embeddings, and what became of each text.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EncodeReport {
    /// `[B, D]`, in the order of the texts.
    pub embeddings: Array2<f32>,
    /// `[B]`
    pub texts: Vec<TextReport>,
}

/// What became of one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TextReport {
    /// Tokens that the embedding was computed from, special tokens and prompt included.
    pub tokens: usize,
    /// Tokens of the text that were cut off.
    pub dropped: usize,
}

impl EncodeReport {
    /// The texts that were cut, by their place in the input.
    pub fn truncated(&self) -> impl Iterator<Item = usize> + '_ {
        self.texts.iter().enumerate().filter(|(_, text)| text.dropped > 0).map(|(index, _)| index)
    }

    /// Tokens of all texts together.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.texts.iter().map(|text| text.tokens).sum()
    }
}

/// Embeddings in the shapes that other crates take.
///
/// ```
/// use mpnet::{Embeddings, ndarray::arr2};
///
/// let embeddings = arr2(&[[0.6_f32, 0.8], [1.0, 0.0]]);
/// assert_eq!(embeddings.to_vecs(), [[0.6, 0.8], [1.0, 0.0]]);
/// assert_eq!(embeddings.into_flat_vec(), [0.6, 0.8, 1.0, 0.0]);
/// ```
pub trait Embeddings {
    /// A vector for each text.
    fn to_vecs(&self) -> Vec<Vec<f32>>;

    /// All rows one after another, `B · D` numbers; nothing is copied.
    fn into_flat_vec(self) -> Vec<f32>;
}

impl Embeddings for Array2<f32> {
    fn to_vecs(&self) -> Vec<Vec<f32>> {
        self.rows().into_iter().map(|row| row.to_vec()).collect()
    }

    fn into_flat_vec(self) -> Vec<f32> {
        if self.is_standard_layout() {
            let (d, rows) = (self.ncols(), self.nrows());
            let (mut values, offset) = self.into_raw_vec_and_offset();
            // A slice of a larger array may own more than its own elements.
            values.drain(..offset.unwrap_or(0));
            values.truncate(rows * d);
            values
        } else {
            self.iter().copied().collect()
        }
    }
}
