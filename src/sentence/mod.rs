//! [`SentenceEncoder`]: texts in, embeddings out. Everything above the model in one place.

mod builder;
mod dense;
mod modules;
mod options;

use std::borrow::Cow;
use std::collections::BTreeMap;

use ndarray::{Array1, Array2, ArrayView2, Axis, s};

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::files::ModelFiles;
use crate::kernels::Precision;
use crate::kernels::isa::Isa;
use crate::model::Mpnet;
use crate::pooling::Pooling;
use crate::similarity::Similarity;
use crate::tokenizer::{Tokenizer, Tokens};

pub use builder::SentenceEncoderBuilder;
pub use options::{Embeddings, EncodeOptions, EncodeReport, Overflow, TextReport};

use modules::{Module, Settings};
use options::Prompt;

/// A sentence-transformers model: a tokenizer, the MPNet encoder, a pooling, and what comes after it.
///
/// All methods take `&self`; one encoder serves any number of threads. Work is shared among the threads of the rayon
/// pool that the caller is in (`pool.install(|| encoder.encode(&texts))`), the global one otherwise. A text's embedding
/// is the same to the last bit whatever else is in the call, in whatever order, on however many threads.
///
/// ```no_run
/// use mpnet::SentenceEncoder;
///
/// let encoder = SentenceEncoder::from_pretrained("models/all-mpnet-base-v2")?;
/// let embeddings = encoder.encode(&["A man is eating food.", "Someone has a meal."])?;
/// assert_eq!(embeddings.dim(), (2, 768));
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug)]
pub struct SentenceEncoder {
    tokenizer: Tokenizer,
    model: Mpnet,
    pooling: Pooling,
    modules: Vec<Module>,
    dim: usize,
    settings: Settings,
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
    /// Loads a sentence-transformers directory as its `modules.json` says; without one, an encoder with mean pooling.
    ///
    /// Weight files are mapped while they are read: nobody may change them until this returns.
    ///
    /// # Errors
    ///
    /// As [`SentenceEncoderBuilder::build`].
    pub fn from_pretrained<'a>(files: impl Into<ModelFiles<'a>>) -> Result<Self> {
        Self::builder(files).build()
    }

    /// Loads an encoder from the bytes of `model.safetensors`, `config.json` and `tokenizer.json`.
    ///
    /// As nothing says otherwise, embeddings are the mean of the hidden states, not normalised. For other modules, give
    /// their files too, by [`ModelFiles::in_memory`], or set them on the [`builder`](Self::builder).
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
    pub fn builder<'a>(files: impl Into<ModelFiles<'a>>) -> SentenceEncoderBuilder<'a> {
        SentenceEncoderBuilder::new(files.into())
    }

    /// The embedding of each text, `[B, D]`. Texts that are too long are truncated, with a warning by `tracing`; see
    /// [`encode_with`](Self::encode_with) for a report instead.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenize`] or [`Error::TokenId`] if the tokenizer fails, which a tokenizer that fits its model does not.
    pub fn encode<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Array2<f32>> {
        let report = self.encode_with(texts, &EncodeOptions::default())?;
        let truncated = report.truncated().count();
        if truncated > 0 {
            let limit = self.max_seq_length;
            tracing::warn!(truncated, limit, "texts were longer than max_seq_length and were cut");
        }
        Ok(report.embeddings)
    }

    /// The embedding of one text, `[D]`.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_one(&self, text: impl AsRef<str>) -> Result<Array1<f32>> {
        Ok(self.encode(&[text.as_ref()])?.index_axis_move(Axis(0), 0))
    }

    /// The embedding of each text, `[B, D]`, as `options` ask, with a report on each text.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode); [`Error::TooLong`] under [`Overflow::Error`]; [`Error::Option`] if the model has no
    /// prompt of the name asked for, or `truncate_dim` is not from 1 to the embedding's width.
    pub fn encode_with<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: &EncodeOptions,
    ) -> Result<EncodeReport> {
        let dim = self.truncated_dim(options)?;
        let prompt = self.prompt(&options.prompt)?;
        let tokens = self.tokens(texts, prompt)?;
        if options.overflow == Overflow::Error {
            self.refuse_overflow(&tokens)?;
        }
        let prompt_length = self.prompt_length(prompt)?;
        let mut embeddings = Array2::zeros((texts.len(), dim));
        for batch in Batch::by_length(&tokens, self.model.config(), self.tokens_per_batch)? {
            let hidden = self.model.forward(&batch); // [N, D]
            let pooled = self.pooling.apply(hidden.view(), &batch, prompt_length); // [B, D]
            let finished = self.modules.iter().fold(pooled, |x, module| module.forward(x));
            batch.scatter(finished.slice(s![.., ..dim]), &mut embeddings);
        }
        if options.normalize {
            modules::normalize(&mut embeddings);
        }
        let report = |t: &Tokens| TextReport { tokens: t.ids.len(), dropped: t.dropped };
        Ok(EncodeReport { embeddings, texts: tokens.iter().map(report).collect() })
    }

    /// The similarity of each row of `a` to each row of `b` by the model's own function (cosine unless its
    /// configuration says otherwise): `[A, D]`, `[B, D]` → `[A, B]`.
    ///
    /// # Panics
    ///
    /// If the widths differ.
    #[must_use]
    pub fn similarity(&self, a: &ArrayView2<f32>, b: &ArrayView2<f32>) -> Array2<f32> {
        self.settings.similarity.all(a, b)
    }

    /// Width of an embedding, `D`.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.settings.truncate_dim.unwrap_or(self.dim)
    }

    /// The longest text in tokens, special tokens included.
    #[must_use]
    pub fn max_seq_length(&self) -> usize {
        self.max_seq_length
    }

    /// The model's prompts by name, from `config_sentence_transformers.json`.
    #[must_use]
    pub fn prompts(&self) -> &BTreeMap<String, String> {
        &self.settings.prompts
    }

    /// The similarity function that the model was trained for.
    #[must_use]
    pub fn similarity_fn(&self) -> Similarity {
        self.settings.similarity
    }

    /// The precision that was asked for.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The instruction set in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The encoder under the pooling: for hidden states and attentions.
    #[must_use]
    pub fn model(&self) -> &Mpnet {
        &self.model
    }

    fn truncated_dim(&self, options: &EncodeOptions) -> Result<usize> {
        match options.truncate_dim {
            None => Ok(self.dim()),
            Some(k) if (1..=self.dim).contains(&k) => Ok(k),
            Some(k) => Err(Error::Option {
                option: "truncate_dim",
                problem: format!("is {k}, must be from 1 to {}", self.dim),
            }),
        }
    }

    /// The text of the prompt that is asked for; `""` for none.
    fn prompt<'a>(&'a self, prompt: &'a Prompt) -> Result<&'a str> {
        let name = match prompt {
            Prompt::Text(text) => return Ok(text),
            Prompt::Named(name) => name,
            Prompt::Default => match &self.settings.default_prompt_name {
                Some(name) => {
                    return Ok(self.settings.prompts.get(name).map_or("", String::as_str));
                }
                None => return Ok(""),
            },
        };
        self.settings.prompts.get(name).map(String::as_str).ok_or_else(|| {
            let names: Vec<&str> = self.settings.prompts.keys().map(String::as_str).collect();
            let problem = format!("the model has no prompt `{name}`; it has {names:?}");
            Error::Option { option: "prompt_name", problem }
        })
    }

    fn tokens<S: AsRef<str> + Sync>(&self, texts: &[S], prompt: &str) -> Result<Vec<Tokens>> {
        let texts: Vec<Cow<str>> = texts
            .iter()
            .map(|text| match prompt {
                "" => Cow::Borrowed(text.as_ref()),
                _ => Cow::Owned(format!("{prompt}{}", text.as_ref())),
            })
            .collect();
        self.tokenizer.encode(&texts, self.max_seq_length)
    }

    /// How many tokens of each text are the prompt's, if the pooling needs to know: those of the prompt alone, without
    /// the `</s>` at its end.
    fn prompt_length(&self, prompt: &str) -> Result<usize> {
        if prompt.is_empty() || !self.pooling.excludes_prompt() {
            return Ok(0);
        }
        let tokens = self.tokenizer.encode(&[prompt], self.max_seq_length)?;
        Ok(tokens.first().map_or(0, |tokens| tokens.ids.len().saturating_sub(1)))
    }

    fn refuse_overflow(&self, tokens: &[Tokens]) -> Result<()> {
        match tokens.iter().enumerate().find(|(_, tokens)| tokens.dropped > 0) {
            Some((text, cut)) => Err(Error::TooLong {
                text,
                tokens: cut.ids.len() + cut.dropped,
                limit: self.max_seq_length,
            }),
            None => Ok(()),
        }
    }
}
