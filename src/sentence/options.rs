//! What a caller can ask of [`SentenceEncoder::encode_with`](super::SentenceEncoder::encode_with),
//! and what it reports.

use std::sync::Arc;

use ndarray::Array2;
use rayon::ThreadPool;

use super::progress::{Callback, CancellationToken, Progress};
use crate::error::Result;
use crate::quantization::{EmbeddingPrecision, QuantizedEmbeddings, Ranges, quantize_embeddings};
use crate::tokenizer::Windows;

/// What happens to a text that has more tokens than
/// [`max_seq_length`](super::SentenceEncoder::max_seq_length).
///
/// ```
/// use mpnet::{EncodeOptions, Overflow};
///
/// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
/// let long = ["many words ".repeat(100)];
/// let with = |overflow| encoder.encode_with(&long, &EncodeOptions::default().overflow(overflow));
/// assert!(with(Overflow::Truncate)?.texts[0].dropped > 0);
/// assert!(with(Overflow::Error).is_err());
/// assert!(with(Overflow::Window { stride: 8 })?.texts[0].windows > 1);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// Its end is cut off (its beginning where the tokenizer's `truncation_side` is `left`), and
    /// the report says how much. What sentence-transformers does, which does not say.
    #[default]
    Truncate,
    /// The call fails with [`TextProblem::TooLong`](crate::TextProblem::TooLong), before anything
    /// is computed.
    Error,
    /// A text of any length is covered by overlapping windows, and no token is dropped.
    ///
    /// Let `C` be `max_seq_length` less the special tokens and the prompt's. A text of more than
    /// `C` tokens is computed as windows of `C` tokens, of which each begins `stride` tokens before
    /// the end of the one before it and the last ends with the text: the windows of Hugging Face
    /// tokenizers with `return_overflowing_tokens`, whose word `stride` this is. Each window has
    /// the special tokens and the prompt around it. With `pₖ` the pooled vector of window `k` and
    /// `nₖ` its pooled tokens, special ones included, the text's pooled vector is `Σ nₖ pₖ / Σ nₖ`;
    /// under mean pooling, that is the mean over the tokens of all windows. Dense, Normalize and
    /// what else follows the pooling is applied to it once. A text that fits has one window, and
    /// the same bits as under the other policies.
    ///
    /// `stride` must be less than `C`.
    Window {
        /// Tokens that two neighbouring windows share.
        stride: usize,
    },
}

/// Options of one call. The default is what sentence-transformers' `encode` does without arguments.
///
/// ```
/// use mpnet::{EncodeOptions, Overflow};
///
/// let options = EncodeOptions::default().prompt("query: ").overflow(Overflow::Error);
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct EncodeOptions {
    pub(super) overflow: Overflow,
    pub(super) prompt: Prompt,
    pub(super) task: Task,
    pub(super) truncate_dim: Option<usize>,
    pub(super) normalize: bool,
    pub(super) tokens_per_batch: Option<usize>,
    pub(super) thread_pool: Option<Arc<ThreadPool>>,
    pub(super) cancellation: CancellationToken,
    pub(super) progress: Option<Callback>,
}

/// What a text is for. A model may have a prompt and a longest text for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Task {
    #[default]
    Any,
    Query,
    Document,
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
    ///
    /// ```
    /// use mpnet::{EncodeOptions, Overflow};
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let options = EncodeOptions::default().overflow(Overflow::Window { stride: 8 });
    /// let report = encoder.encode_with(&["many words ".repeat(100)], &options)?;
    /// assert_eq!(report.texts[0].dropped, 0);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Put before every text, with nothing between; `""` for none, even if the model has a default
    /// prompt.
    ///
    /// ```
    /// use mpnet::EncodeOptions;
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let options = EncodeOptions::default().prompt("query: ");
    /// let embeddings = encoder.encode_with(&["a river"], &options)?.embeddings;
    /// assert_eq!(embeddings, encoder.encode(&["query: a river"])?);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn prompt(mut self, prompt: impl Into<String>) -> Self {
        self.prompt = Prompt::Text(prompt.into());
        self
    }

    /// Use the model's prompt of this name (`config_sentence_transformers.json`).
    ///
    /// ```
    /// use mpnet::{EncodeOptions, Error};
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let unknown = EncodeOptions::default().prompt_name("qurey");
    /// let error = encoder.encode_with(&["a river"], &unknown).unwrap_err();
    /// assert!(matches!(error, Error::Option { option: "prompt_name", .. }));
    /// println!("{error}"); // it has ["document", "query"]
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn prompt_name(mut self, name: impl Into<String>) -> Self {
        self.prompt = Prompt::Named(name.into());
        self
    }

    /// Keep only the first `k` components (of a model trained for it). This comes after the model's
    /// own normalisation, so that the result is shorter than 1; see [`EncodeOptions::normalize`].
    ///
    /// ```
    /// use mpnet::EncodeOptions;
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let options = EncodeOptions::default().truncate_dim(8);
    /// assert_eq!(encoder.encode_with(&["how are you"], &options)?.embeddings.dim(), (1, 8));
    /// assert!(encoder.encode_with(&["how are you"], &options.truncate_dim(33)).is_err());
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn truncate_dim(mut self, k: usize) -> Self {
        self.truncate_dim = Some(k);
        self
    }

    /// Scale each embedding to length 1, after everything else.
    ///
    /// ```
    /// use mpnet::EncodeOptions;
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let options = EncodeOptions::default().truncate_dim(8).normalize(true);
    /// let embedding = encoder.encode_with(&["how are you"], &options)?.embeddings.row(0).to_owned();
    /// assert!((embedding.dot(&embedding) - 1.0).abs() < 1e-6);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn normalize(mut self, normalize: bool) -> Self {
        self.normalize = normalize;
        self
    }

    /// How many tokens are computed at once in this call, instead of [the encoder's own
    /// setting](super::SentenceEncoderBuilder::tokens_per_batch); a longer text is computed alone.
    /// It also bounds what is held at a time beside the result: some 256 bytes of text for each of
    /// these tokens (or one text that is longer), its tokens, and the intermediate arrays of one
    /// batch. The embeddings do not change by a bit.
    ///
    /// ```
    /// use mpnet::EncodeOptions;
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let small = EncodeOptions::default().tokens_per_batch(64);
    /// let texts = ["how are you", "fine, thanks"];
    /// assert_eq!(encoder.encode_with(&texts, &small)?.embeddings, encoder.encode(&texts)?);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn tokens_per_batch(mut self, tokens: usize) -> Self {
        self.tokens_per_batch = Some(tokens);
        self
    }

    /// The threads to compute on, instead of those of the rayon pool that the caller is in.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use mpnet::EncodeOptions;
    ///
    /// let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    /// let options = EncodeOptions::default().thread_pool(Arc::new(pool));
    /// ```
    pub fn thread_pool(mut self, pool: Arc<ThreadPool>) -> Self {
        self.thread_pool = Some(pool);
        self
    }

    /// A token by which another thread can stop the call, which then fails with
    /// [`Error::Cancelled`](crate::Error::Cancelled) after the batch in work.
    ///
    /// ```
    /// use mpnet::{CancellationToken, EncodeOptions, Error};
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let token = CancellationToken::new();
    /// let options = EncodeOptions::default().cancellation(&token);
    /// token.cancel(); // on another thread, usually
    /// assert!(matches!(encoder.encode_with(&["a text"], &options), Err(Error::Cancelled)));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn cancellation(mut self, token: &CancellationToken) -> Self {
        self.cancellation = token.clone();
        self
    }

    /// Called with what has been done so far: after each batch that the calling thread took part
    /// in, and once all are done. Where each thread has batches of its own, one call tells of those
    /// that other threads finished meanwhile too.
    ///
    /// The callback always runs on the thread that calls the encoder (with
    /// [`thread_pool`](Self::thread_pool), on the one thread of that pool that the call runs on),
    /// one call after another; the counts never decrease. No lock is held and nothing waits for it
    /// except this call, so it may use rayon and encode. While it runs, the other threads go on
    /// with the batches that are left. If it panics, the remaining batches are left out, and the
    /// panic reaches the caller.
    ///
    /// ```
    /// use mpnet::EncodeOptions;
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let options = EncodeOptions::default()
    ///     .progress(|done| println!("{} of {:?}, {} tokens", done.texts, done.total, done.tokens));
    /// encoder.encode_with(&["one", "two"], &options)?;
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn progress(mut self, callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Callback::new(callback));
        self
    }

    /// The same for texts of a `task`, with the prompt that the model has for it unless the options
    /// name one.
    pub(super) fn for_task(&self, task: Task) -> Self {
        let options = Self { task, ..self.clone() };
        match (&self.prompt, task) {
            (Prompt::Default, Task::Query) => options.prompt_name("query"),
            (Prompt::Default, Task::Document) => options.prompt_name("document"),
            _ => options,
        }
    }

    /// Runs `work` in the caller's pool, if there is one.
    pub(super) fn in_pool<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.thread_pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}

/// The embeddings, and what became of each text.
///
/// ```
/// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
/// let report = encoder.encode_with(&["how are you"], &Default::default())?;
/// assert_eq!((report.embeddings.nrows(), report.texts.len()), (1, 1));
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EncodeReport {
    /// `[B, D]`, in the order of the texts.
    pub embeddings: Array2<f32>,
    /// `[B]`
    pub texts: Vec<TextReport>,
}

/// What became of one text.
///
/// ```
/// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
/// let report = encoder.encode_with(&["how are you"], &Default::default())?;
/// let text = report.texts[0];
/// assert_eq!((text.tokens, text.dropped, text.windows), (5, 0, 1));
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TextReport {
    /// Tokens that the embedding was computed from, special tokens and prompt included; those of
    /// every window, so that a token in two of them counts twice.
    pub tokens: usize,
    /// Tokens of the text that were cut off.
    pub dropped: usize,
    /// Windows that the text was computed in: 1 unless it was too long, under [`Overflow::Window`].
    pub windows: usize,
}

impl TextReport {
    pub(super) fn new(text: &Windows) -> Self {
        Self { tokens: text.tokens(), dropped: text.dropped, windows: text.windows.len() }
    }
}

impl EncodeReport {
    /// The texts that were cut, by their place in the input.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let texts = ["how are you", &"many words ".repeat(100)];
    /// let report = encoder.encode_with(&texts, &Default::default())?;
    /// for text in report.truncated() {
    ///     println!("{} tokens of text {text} were cut off", report.texts[text].dropped);
    /// }
    /// # assert!(report.truncated().eq([1]));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn truncated(&self) -> impl Iterator<Item = usize> + '_ {
        self.texts.iter().enumerate().filter(|(_, text)| text.dropped > 0).map(|(index, _)| index)
    }

    /// Tokens of all texts together.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let report = encoder.encode_with(&["how are you", ""], &Default::default())?;
    /// assert_eq!(report.tokens(), 5 + 2);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.texts.iter().map(|text| text.tokens).sum()
    }
}

/// Embeddings in the shapes that other crates take, and in fewer bits.
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
    ///
    /// ```
    /// use mpnet::{Embeddings, ndarray::arr2};
    ///
    /// assert_eq!(arr2(&[[1.0_f32, 2.0], [3.0, 4.0]]).to_vecs(), [[1.0, 2.0], [3.0, 4.0]]);
    /// ```
    fn to_vecs(&self) -> Vec<Vec<f32>>;

    /// All rows one after another, `B · D` numbers; nothing is copied.
    ///
    /// ```
    /// use mpnet::{Embeddings, ndarray::arr2};
    ///
    /// assert_eq!(arr2(&[[1.0_f32, 2.0], [3.0, 4.0]]).into_flat_vec(), [1.0, 2.0, 3.0, 4.0]);
    /// ```
    fn into_flat_vec(self) -> Vec<f32>;

    /// The embeddings in another number format: what `encode(…, precision="…")` returns in
    /// sentence-transformers. `int8` and `uint8` need `ranges` that the other embeddings they are
    /// compared with have too; without, the ranges are those of these embeddings themselves, with a
    /// warning by `tracing` if there are fewer than 100. Other formats have no use for them.
    ///
    /// ```
    /// use mpnet::Embeddings;
    /// use mpnet::quantization::{EmbeddingPrecision, Ranges};
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."];
    /// let embeddings = encoder.encode_document(&texts)?;
    /// let bits = embeddings.quantize(EmbeddingPrecision::Ubinary, None)?;
    /// assert_eq!(bits.view().dim(), (3, encoder.dim() / 8));
    ///
    /// let ranges = Ranges::calibrate(&embeddings.view())?; // better of a few thousand; `save` keeps them
    /// let corpus = embeddings.quantize(EmbeddingPrecision::Int8, Some(&ranges))?;
    /// let query = encoder.encode_query(&["Is it warm?"])?;
    /// let query = query.quantize(EmbeddingPrecision::Int8, Some(&ranges))?;
    /// let hits = mpnet::search::semantic_search_quantized(&query.view(), &corpus.view(), 1)?;
    /// # assert_eq!(hits[0].len(), 1);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`quantize_embeddings`].
    fn quantize(
        &self,
        precision: EmbeddingPrecision,
        ranges: Option<&Ranges>,
    ) -> Result<QuantizedEmbeddings>;
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

    fn quantize(
        &self,
        precision: EmbeddingPrecision,
        ranges: Option<&Ranges>,
    ) -> Result<QuantizedEmbeddings> {
        quantize_embeddings(&self.view(), precision, ranges)
    }
}
