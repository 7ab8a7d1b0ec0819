//! [`SentenceEncoder`]: texts in, embeddings out. Everything above the model in one place.

mod batches;
mod builder;
mod chunks;
mod dense;
mod encode;
mod kind;
mod modules;
mod options;
mod plan;
mod progress;
mod save;
mod stream;
mod tokens;
mod transformer;

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::{Array1, Array2, ArrayRef2, Axis, s};

use crate::error::Result;
use crate::files::ModelFiles;
use crate::kernels::Precision;
use crate::kernels::isa::Isa;
use crate::model::Mpnet;
use crate::pooling::Pooling;
use crate::similarity::Similarity;
use crate::tokenizer::Tokenizer;

pub use builder::SentenceEncoderBuilder;
pub use chunks::{Chunk, ChunkEmbeddings};
pub use options::{Embeddings, EncodeOptions, EncodeReport, Overflow, TextReport};
pub use progress::{CancellationToken, Progress};
pub use stream::{EncodeIter, EncodedText};
pub use tokens::TokenEmbeddings;

#[cfg(feature = "hub")]
pub(crate) use modules::{MODULES, SETTINGS, module_folders, read_config};

use encode::Call;
use modules::{Module, Settings};
use options::Task;
use plan::Plan;
use progress::Meter;
use transformer::TransformerSettings;

/// A sentence-transformers model: a tokenizer, the MPNet encoder, a pooling, and what comes after
/// it.
///
/// All methods take `&self`; one encoder serves any number of threads. Work is shared among the
/// threads of the rayon pool that the caller is in (`pool.install(|| encoder.encode(&texts))`), the
/// global one otherwise. The calling thread computes too, and the others help it as far as they are
/// free. A thread that helps takes up other jobs of the pool between two batches: a query beside a
/// long call waits for one batch, unless each thread of the pool has a call of its own. A text's
/// embedding is the same to the last bit whatever else is in the call, in whatever order, on
/// however many threads.
///
/// A clone shares the weights and the tokenizer: it takes a few hundred bytes.
///
/// ```
/// use mpnet::SentenceEncoder;
///
/// # let directory = "tests/data/tiny";
/// let encoder = SentenceEncoder::from_pretrained(directory)?; // "models/all-mpnet-base-v2", say
/// let embeddings = encoder.encode(&["A man is eating food.", "Someone has a meal."])?;
/// assert_eq!(embeddings.dim(), (2, encoder.dim()));
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SentenceEncoder {
    tokenizer: Arc<Tokenizer>,
    model: Arc<Mpnet>,
    pooling: Pooling,
    modules: Arc<[Module]>,
    dim: usize,
    settings: Settings,
    /// Whether its weights are those of the files, so that saving may read them again.
    saves_files: bool,
    /// Where it was loaded from, if that was a directory, and the transformer's folder there.
    files: Option<ModelFiles<'static>>,
    folder: String,
    transformer: TransformerSettings,
    max_seq_length: usize,
    tokens_per_batch: usize,
    precision: Precision,
    isa: Isa,
}

/// Held at compile time: an encoder can be shared between threads.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<SentenceEncoder>();
};

impl SentenceEncoder {
    /// Loads a sentence-transformers directory as its `modules.json` says; without one, an encoder
    /// with mean pooling.
    ///
    /// Weight files are mapped while they are read: nobody may change them until this returns.
    ///
    /// ```
    /// use mpnet::SentenceEncoder;
    ///
    /// # let directory = "tests/data/tiny";
    /// let encoder = SentenceEncoder::from_pretrained(directory)?;
    /// println!("{} numbers a text, up to {} tokens", encoder.dim(), encoder.max_seq_length());
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`SentenceEncoderBuilder::build`].
    pub fn from_pretrained<'a>(files: impl Into<ModelFiles<'a>>) -> Result<Self> {
        Self::builder(files).build()
    }

    /// Loads an encoder from the bytes of `model.safetensors`, `config.json` and `tokenizer.json`.
    ///
    /// As nothing says otherwise, embeddings are the mean of the hidden states, not normalised. For
    /// other modules, give their files too, by [`ModelFiles::in_memory`], or set them on the
    /// [`builder`](Self::builder).
    ///
    /// ```
    /// use mpnet::SentenceEncoder;
    ///
    /// # let read = |name: &str| std::fs::read(format!("tests/data/tiny/{name}")).unwrap();
    /// # let (weights, config, tokenizer) = (read("model.safetensors"), read("config.json"), read("tokenizer.json"));
    /// let encoder = SentenceEncoder::from_bytes(weights, config, tokenizer)?;
    /// # assert_eq!(encoder.dim(), 32);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`SentenceEncoderBuilder::build`].
    pub fn from_bytes(
        weights: impl AsRef<[u8]>,
        config: impl AsRef<[u8]>,
        tokenizer: impl AsRef<[u8]>,
    ) -> Result<Self> {
        Self::from_pretrained(ModelFiles::in_memory([
            ("model.safetensors", weights.as_ref()),
            ("config.json", config.as_ref()),
            ("tokenizer.json", tokenizer.as_ref()),
        ]))
    }

    /// Options for loading a directory, or [files in memory](ModelFiles::in_memory).
    ///
    /// ```
    /// use mpnet::{Precision, SentenceEncoder};
    ///
    /// # let directory = "tests/data/tiny";
    /// let encoder = SentenceEncoder::builder(directory).precision(Precision::Bf16).build()?;
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn builder<'a>(files: impl Into<ModelFiles<'a>>) -> SentenceEncoderBuilder<'a> {
        SentenceEncoderBuilder::new(files.into())
    }

    /// The embedding of each text, `[B, D]`. Texts that are too long are truncated, with a warning
    /// by `tracing`; see [`encode_with`](Self::encode_with) for a report instead.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let embeddings = encoder.encode(&["A man is eating food.", "Someone has a meal."])?;
    /// assert_eq!(embeddings.dim(), (2, encoder.dim()));
    /// let alone = encoder.encode(&["Someone has a meal."])?;
    /// assert_eq!(alone.row(0), embeddings.row(1)); // to the last bit
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TextProblem::Tokenizer`](crate::TextProblem::Tokenizer) or
    /// [`TextProblem::TokenId`](crate::TextProblem::TokenId) if the tokenizer fails, which a
    /// tokenizer that fits its model does not.
    pub fn encode<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Array2<f32>> {
        self.encode_with(texts, &EncodeOptions::default()).map(|report| self.warn_if_cut(report))
    }

    /// As [`encode`](Self::encode), with the model's prompt named `query` before every text, and
    /// not the default prompt: for the questions of a search.
    ///
    /// Source: `SentenceTransformer.encode_query`. Every model has that prompt; if its files do not
    /// name it, it is empty.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let queries = encoder.encode_query(&["what is he doing?"])?;
    /// let documents = encoder.encode_document(&["a man is eating food", "a man is riding a horse"])?;
    /// let hits = mpnet::search::semantic_search(&queries.view(), &documents.view(), 1);
    /// # assert_eq!(hits[0].len(), 1);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_query<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Array2<f32>> {
        self.encode_query_with(texts, &EncodeOptions::default())
            .map(|report| self.warn_if_cut(report))
    }

    /// As [`encode_query`](Self::encode_query), as `options` ask; a prompt in the options takes the
    /// place of the model's.
    ///
    /// ```
    /// use mpnet::{EncodeOptions, Overflow};
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let options = EncodeOptions::default().overflow(Overflow::Error);
    /// let queries = encoder.encode_query_with(&["what is he doing?"], &options)?.embeddings;
    /// assert_eq!(queries, encoder.encode_query(&["what is he doing?"])?);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_query_with<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: &EncodeOptions,
    ) -> Result<EncodeReport> {
        self.encode_with(texts, &options.for_task(Task::Query))
    }

    /// As [`encode`](Self::encode), with the model's prompt named `document` before every text, and
    /// not the default prompt: for the texts that are searched.
    ///
    /// Source: `SentenceTransformer.encode_document`. Every model has that prompt; if its files do
    /// not name it, it is empty. So a prompt named `passage` or `corpus`, for which the reference
    /// would look next, is used only if asked for by [`prompt_name`](EncodeOptions::prompt_name).
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let documents = encoder.encode_document(&["a man is eating food"])?;
    /// let prompt = &encoder.prompts()["document"];
    /// assert_eq!(documents, encoder.encode(&[format!("{prompt}a man is eating food")])?);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_document<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Array2<f32>> {
        self.encode_document_with(texts, &EncodeOptions::default())
            .map(|report| self.warn_if_cut(report))
    }

    /// As [`encode_document`](Self::encode_document), as `options` ask; a prompt in the options
    /// takes the place of the model's.
    ///
    /// ```
    /// use mpnet::EncodeOptions;
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let options = EncodeOptions::default().prompt("passage: ");
    /// let documents = encoder.encode_document_with(&["a man is eating food"], &options)?;
    /// println!("{} tokens", documents.tokens());
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_document_with<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: &EncodeOptions,
    ) -> Result<EncodeReport> {
        self.encode_with(texts, &options.for_task(Task::Document))
    }

    /// The embedding of one text, `[D]`.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let embedding = encoder.encode_one("A man is eating food.")?;
    /// assert_eq!(embedding.len(), encoder.dim());
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_one(&self, text: impl AsRef<str>) -> Result<Array1<f32>> {
        Ok(self.encode(&[text.as_ref()])?.index_axis_move(Axis(0), 0))
    }

    /// The embedding of each text, `[B, D]`, as `options` ask, with a report on each text.
    ///
    /// Texts are taken up a part at a time ([`EncodeOptions::tokens_per_batch`] says how much), so
    /// that any number of them needs little more memory than their embeddings.
    ///
    /// ```
    /// use mpnet::{EncodeOptions, Error, Overflow};
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let texts = ["how are you", &"many words ".repeat(100)];
    /// let report = encoder.encode_with(&texts, &EncodeOptions::default())?;
    /// assert!(report.truncated().eq([1]));
    /// println!("{} tokens of it were dropped", report.texts[1].dropped);
    ///
    /// let refused = encoder.encode_with(&texts, &EncodeOptions::default().overflow(Overflow::Error));
    /// assert!(matches!(refused, Err(Error::Text { text: 1, problem: mpnet::TextProblem::TooLong { .. } })));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode); [`TextProblem::TooLong`](crate::TextProblem::TooLong) under
    /// [`Overflow::Error`]; [`Error::Cancelled`](crate::Error::Cancelled);
    /// [`Error::Option`](crate::Error::Option) if the model has no prompt of the name asked for,
    /// `truncate_dim` is not from 1 to the embedding's width, `stride` leaves no room for another
    /// window, or `tokens_per_batch` is 0.
    pub fn encode_with<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: &EncodeOptions,
    ) -> Result<EncodeReport> {
        let plan = Plan::new(self, options)?;
        options.in_pool(|| {
            let call = Call::new(self, &plan, options);
            let mut meter = Meter::new(Some(texts.len()), options.progress.clone());
            let mut embeddings = Array2::zeros((texts.len(), plan.dim));
            let mut reports = Vec::with_capacity(texts.len());
            call.for_each_part(texts, |part, tokens| {
                let embedded = call.embed(tokens, &mut meter)?; // [part, dim]
                embeddings.slice_mut(s![part, ..]).assign(&embedded);
                reports.extend(tokens.iter().map(TextReport::new));
                Ok(())
            })?;
            Ok(EncodeReport { embeddings, texts: reports })
        })
    }

    /// The similarity of each row of `a` to each row of `b` by the model's own function (cosine
    /// unless its configuration says otherwise): `[A, D]`, `[B, D]` → `[A, B]`.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let embeddings = encoder.encode(&["a long day at home", "the day was long", "an old train"])?;
    /// let scores = encoder.similarity(&embeddings.view(), &embeddings.view())?;
    /// assert_eq!(scores.dim(), (3, 3));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Similarity::all`].
    pub fn similarity(&self, a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        self.settings.similarity.all(a, b)
    }

    /// The similarity of row `i` of `a` to row `i` of `b` by the model's own function: `[A, D]`,
    /// `[A, D]` → `[A]`.
    ///
    /// Source: `SentenceTransformer.similarity_pairwise`.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let first = encoder.encode(&["a long day", "an old train"])?;
    /// let second = encoder.encode(&["the day was long", "a new house"])?;
    /// let scores = encoder.similarity_pairwise(&first.view(), &second.view())?;
    /// assert_eq!(scores.len(), 2);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Similarity::pairwise`].
    pub fn similarity_pairwise(
        &self,
        a: &ArrayRef2<f32>,
        b: &ArrayRef2<f32>,
    ) -> Result<Array1<f32>> {
        self.settings.similarity.pairwise(a, b)
    }

    /// Width of an embedding, `D`.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// assert_eq!(encoder.encode(&["how are you"])?.ncols(), encoder.dim());
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn dim(&self) -> usize {
        self.settings.truncate_dim.unwrap_or(self.dim)
    }

    /// The longest text in tokens, special tokens included. A model may have another limit for the
    /// texts of [`encode_query`](Self::encode_query) or [`encode_document`](Self::encode_document).
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// assert_eq!(encoder.max_seq_length(), 48);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn max_seq_length(&self) -> usize {
        self.max_seq_length
    }

    /// The model's prompts by name, from `config_sentence_transformers.json`.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// assert_eq!(encoder.prompts()["query"], "query: ");
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn prompts(&self) -> &BTreeMap<String, String> {
        &self.settings.prompts
    }

    /// The similarity function that the model was trained for.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// assert_eq!(encoder.similarity_fn(), mpnet::Similarity::Cosine);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn similarity_fn(&self) -> Similarity {
        self.settings.similarity
    }

    /// The precision that was asked for.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// assert_eq!(encoder.precision(), mpnet::Precision::F32);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The instruction set in use.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// println!("{} on {}", encoder.precision(), encoder.isa()); // f32 on avx512
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The tokenizer.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let tokens = encoder.tokenizer().encode(&["how are you"], encoder.max_seq_length())?;
    /// println!("{} tokens", tokens[0].ids.len());
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The encoder under the pooling: for hidden states and attentions.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let config = encoder.model().config();
    /// println!("{} layers, {} heads", config.num_hidden_layers, config.num_attention_heads);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn model(&self) -> &Mpnet {
        &self.model
    }
}
