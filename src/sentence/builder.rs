//! [`SentenceEncoderBuilder`]: a directory and options → [`SentenceEncoder`].

use std::path::PathBuf;
use std::sync::Arc;

use super::SentenceEncoder;
use super::kind::refuse_other_models;
use super::modules::{Module, Pipeline, Settings};
use super::transformer::TransformerSettings;
use crate::batch::TOKENS_PER_BATCH;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::error::{Error, FileProblem, Result, at_least_one};
use crate::files::ModelFiles;
use crate::kernels::Precision;
use crate::kernels::isa::Isa;
use crate::model::{Mpnet, MpnetParameters, NamedParameters, Placement};
use crate::pooling::Pooling;
use crate::similarity::Similarity;
use crate::tokenizer::{Tokenizer, TokenizerSettings};

/// Options of a [`SentenceEncoder`], from [`SentenceEncoder::builder`].
///
/// ```
/// use mpnet::{Precision, SentenceEncoder};
///
/// # let directory = "tests/data/tiny";
/// let encoder = SentenceEncoder::builder(directory)
///     .precision(Precision::Bf16)
///     .max_seq_length(32)
///     .build()?;
/// assert_eq!(encoder.max_seq_length(), 32);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct SentenceEncoderBuilder<'a> {
    files: ModelFiles<'a>,
    precision: Precision,
    isa: Option<Isa>,
    max_seq_length: Option<usize>,
    tokens_per_batch: usize,
    pooling: Option<Pooling>,
    normalize: Option<bool>,
    prompts: Vec<(String, String)>,
    default_prompt_name: Option<String>,
    similarity_fn: Option<Similarity>,
    truncate_dim: Option<usize>,
    packed_cache: Option<PathBuf>,
    parameters: Option<&'a MpnetParameters>,
}

impl<'a> SentenceEncoderBuilder<'a> {
    pub(super) fn new(files: ModelFiles<'a>) -> Self {
        Self {
            files,
            precision: Precision::default(),
            isa: None,
            max_seq_length: None,
            tokens_per_batch: TOKENS_PER_BATCH,
            pooling: None,
            normalize: None,
            prompts: Vec::new(),
            default_prompt_name: None,
            similarity_fn: None,
            truncate_dim: None,
            packed_cache: None,
            parameters: None,
        }
    }

    /// The precision of weights and products; [`Precision::F32`] unless set.
    ///
    /// ```
    /// use mpnet::{Precision, SentenceEncoder};
    ///
    /// # let directory = "tests/data/tiny";
    /// let encoder = SentenceEncoder::builder(directory).precision(Precision::Int8).build()?;
    /// assert_eq!(encoder.precision(), Precision::Int8);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The instruction set; unless set, the one that `MPNET_ISA` names, or the fastest that the
    /// machine has.
    ///
    /// ```
    /// use mpnet::{Isa, SentenceEncoder};
    ///
    /// # let directory = "tests/data/tiny";
    /// for &isa in Isa::available() {
    ///     let encoder = SentenceEncoder::builder(directory).isa(isa).build()?;
    ///     assert_eq!(encoder.isa(), isa);
    /// }
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn isa(mut self, isa: Isa) -> Self {
        self.isa = Some(isa);
        self
    }

    /// The longest text in tokens, special tokens included, instead of the model's own setting.
    ///
    /// ```
    /// # let directory = "tests/data/tiny";
    /// let encoder = mpnet::SentenceEncoder::builder(directory).max_seq_length(4).build()?;
    /// let report = encoder.encode_with(&["how are you"], &Default::default())?;
    /// assert_eq!((report.texts[0].tokens, report.texts[0].dropped), (4, 1));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn max_seq_length(mut self, tokens: usize) -> Self {
        self.max_seq_length = Some(tokens);
        self
    }

    /// How many tokens are computed at once, 2048 unless set; a longer text is computed alone.
    /// Memory for intermediate results grows with it; the embeddings do not change by a bit.
    ///
    /// ```
    /// # let directory = "tests/data/tiny";
    /// let encoder = mpnet::SentenceEncoder::builder(directory).tokens_per_batch(512).build()?;
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn tokens_per_batch(mut self, tokens: usize) -> Self {
        self.tokens_per_batch = tokens;
        self
    }

    /// The pooling, instead of the model's own. Not for a model with a Dense module, which was
    /// trained for its own.
    ///
    /// ```
    /// use mpnet::{Pooling, PoolingMode, SentenceEncoder};
    ///
    /// # let directory = "tests/data/tiny";
    /// let pooling = Pooling::new([PoolingMode::Cls, PoolingMode::Mean]);
    /// let encoder = SentenceEncoder::builder(directory).pooling(pooling).build()?;
    /// assert_eq!(encoder.dim(), 2 * encoder.model().config().hidden_size);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn pooling(mut self, pooling: Pooling) -> Self {
        self.pooling = Some(pooling);
        self
    }

    /// Whether embeddings are scaled to length 1, instead of what the model's own modules say.
    ///
    /// ```
    /// # let directory = "tests/data/tiny";
    /// let encoder = mpnet::SentenceEncoder::builder(directory).normalize(false).build()?;
    /// let embedding = encoder.encode_one("how are you")?;
    /// assert!((embedding.dot(&embedding) - 1.0).abs() > 1e-3);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn normalize(mut self, normalize: bool) -> Self {
        self.normalize = Some(normalize);
        self
    }

    /// A prompt of the model, by this name: one more, or in the place of its own.
    ///
    /// ```
    /// use mpnet::{EncodeOptions, SentenceEncoder};
    ///
    /// # let directory = "tests/data/tiny";
    /// let encoder = SentenceEncoder::builder(directory).prompt("clustering", "Topic: ").build()?;
    /// let options = EncodeOptions::default().prompt_name("clustering");
    /// let embeddings = encoder.encode_with(&["a river"], &options)?.embeddings;
    /// assert_eq!(embeddings, encoder.encode(&["Topic: a river"])?);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn prompt(mut self, name: impl Into<String>, prompt: impl Into<String>) -> Self {
        self.prompts.push((name.into(), prompt.into()));
        self
    }

    /// The name of the prompt that [`encode`](SentenceEncoder::encode) puts before every text,
    /// instead of the model's own setting.
    ///
    /// ```
    /// use mpnet::SentenceEncoder;
    ///
    /// # let directory = "tests/data/tiny";
    /// let encoder = SentenceEncoder::builder(directory).default_prompt_name("query").build()?;
    /// assert_eq!(encoder.encode(&["a river"])?, encoder.encode_query(&["a river"])?);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn default_prompt_name(mut self, name: impl Into<String>) -> Self {
        self.default_prompt_name = Some(name.into());
        self
    }

    /// The similarity function, instead of the model's own.
    ///
    /// ```
    /// use mpnet::{SentenceEncoder, Similarity};
    ///
    /// # let directory = "tests/data/tiny";
    /// let encoder = SentenceEncoder::builder(directory).similarity_fn(Similarity::Dot).build()?;
    /// assert_eq!(encoder.similarity_fn(), Similarity::Dot);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn similarity_fn(mut self, similarity: Similarity) -> Self {
        self.similarity_fn = Some(similarity);
        self
    }

    /// Keep only the first `k` components of every embedding, instead of what the model's own
    /// setting says; see [`EncodeOptions::truncate_dim`](super::EncodeOptions::truncate_dim).
    ///
    /// ```
    /// # let directory = "tests/data/tiny";
    /// let encoder = mpnet::SentenceEncoder::builder(directory).truncate_dim(8).build()?;
    /// assert_eq!(encoder.encode_one("how are you")?.len(), 8);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn truncate_dim(mut self, k: usize) -> Self {
        self.truncate_dim = Some(k);
        self
    }

    /// A file to keep the packed weights in, by custom called `mpnet-packed.bin`: if it is there,
    /// it is mapped instead of packing the weights again, and if it is not, it is written. It takes
    /// the place of reading the checkpoint into memory, so that a start is faster and processes on
    /// one machine share the weights' memory.
    ///
    /// The file is for one checkpoint, instruction set, precision and version of this crate. Every
    /// load compares it with all bytes of the weight files and checks all of its own. A file of
    /// packed weights that is for something else, or damaged, is replaced, and so is an empty file.
    /// Any other file is left alone. A symbolic link is followed. The file stays mapped for as long
    /// as the encoder lives: nobody may change it in place meanwhile (to replace or delete it is
    /// fine).
    ///
    /// [`build`](Self::build) fails with [`Error::Save`] if the path is that of a file which does
    /// not hold packed weights, before anything is packed; with [`Error::Io`] if it is a directory
    /// or a device, or the file cannot be read or, when it has to be, written.
    ///
    /// ```
    /// use mpnet::SentenceEncoder;
    ///
    /// # let (directory, model) = (tempfile::tempdir().unwrap(), "tests/data/tiny");
    /// let file = directory.path().join("mpnet-packed.bin"); // where it can stay: /var/cache/…
    /// let encoder = SentenceEncoder::builder(model).packed_cache(&file).build()?;
    /// assert!(file.is_file());
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn packed_cache(mut self, file: impl Into<PathBuf>) -> Self {
        self.packed_cache = Some(file.into());
        self
    }

    /// Takes the parameters of the transformer from memory, and everything else from the files,
    /// whose weights are not read: for a model that is being trained.
    ///
    /// The encoder has the same bits as one that is loaded from these parameters after
    /// [`MpnetParameters::save`]. It keeps its own copy, prepared for products: later changes of
    /// the parameters do not reach it.
    ///
    /// ```
    /// use mpnet::{SentenceEncoder, model::MpnetParameters};
    ///
    /// # let directory = std::path::Path::new("tests/data/tiny");
    /// # let config = mpnet::Config::from_json(std::fs::read(directory.join("config.json")).unwrap(), "config.json")?;
    /// let checkpoint = mpnet::Checkpoint::open(directory)?;
    /// let mut parameters = MpnetParameters::load(&checkpoint.encoder()?, &config)?;
    /// parameters.encoder.layer[0].output.dense.bias += 0.1;
    /// let encoder = SentenceEncoder::builder(directory).parameters(&parameters).build()?;
    /// # assert_ne!(encoder.encode(&["a"])?, SentenceEncoder::from_pretrained(directory)?.encode(&["a"])?);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn parameters(mut self, parameters: &'a MpnetParameters) -> Self {
        self.parameters = Some(parameters);
        self
    }

    /// Loads the model.
    ///
    /// ```
    /// use mpnet::{Error, SentenceEncoder};
    ///
    /// let missing = SentenceEncoder::builder("no/such/model").build();
    /// assert!(matches!(missing, Err(Error::Io { .. })));
    /// ```
    ///
    /// # Errors
    ///
    /// An [`Error`] that names the file, field or tensor, if one is missing, damaged or not
    /// supported; [`Error::Option`] if an option contradicts the model.
    pub fn build(self) -> Result<SentenceEncoder> {
        let isa = Isa::choose(self.isa)?;
        if self.parameters.is_some() && self.packed_cache.is_some() {
            return Err(Error::Option {
                option: "packed_cache",
                problem: "is for weights of a file, not for parameters in memory".to_owned(),
            });
        }
        at_least_one("tokens_per_batch", self.tokens_per_batch)?;
        self.files.check()?;
        refuse_other_models(&self.files)?;
        let mut pipeline = Pipeline::read(&self.files, isa)?;
        self.override_modules(&mut pipeline)?;
        let mut settings = match pipeline.is_saved {
            true => Settings::read(&self.files, pipeline.dim)?,
            false => Settings::new(),
        };
        self.override_settings(&mut settings, pipeline.dim)?;
        let (folder, config) = (pipeline.folder.as_str(), &pipeline.config);
        let transformer = &pipeline.transformer;
        let words = TokenizerSettings::read(&self.files, folder, &transformer.tokenizer)?;
        if !pipeline.is_saved && words.has_chat_template(&self.files, folder) {
            return Err(Error::File { file: self.files.label(folder), problem: FileProblem::Module { module: "chat_template".to_owned(), problem: "without a modules.json, sentence-transformers takes each text for a message of a chat; that \
                          is not supported: save the model with sentence-transformers, or remove the template"
                    .to_owned() } });
        }
        let max_seq_length = self.resolve_length(config, transformer, &words)?;
        // The tokenizer takes as long to build as the weights to convert.
        let (tokenizer, model) = rayon::join(
            || {
                let tokenizer = Tokenizer::from_settings(&self.files, folder, &words)?;
                tokenizer.check_vocabulary(config.vocab_size)?;
                let text = &transformer.text;
                let tokenizer = tokenizer.lowercase(transformer.do_lower_case)?;
                Ok(tokenizer.called_with(text.adds_special_tokens, text.splits_special_tokens))
            },
            || {
                let mut at = Placement::on(isa).precision(self.precision);
                if let Some(parameters) = self.parameters {
                    let named = NamedParameters::new(parameters);
                    return Mpnet::prepare_with_residuals(&named.root(), config, &at);
                }
                let checkpoint = Checkpoint::from_files(&self.files, folder)?;
                if let Some(file) = &self.packed_cache {
                    at = at.with_file(file, || checkpoint.digest())?;
                }
                let model = Mpnet::prepare_with_residuals(&checkpoint.encoder()?, config, &at)?;
                checkpoint.warn_of_unused();
                at.save()?;
                Ok::<_, Error>(model)
            },
        );
        // Weights that do not fit config.json are the nearer cause than a tokenizer that does not.
        let (model, tokenizer) = (model?, tokenizer?);
        self.check_length(max_seq_length, folder, &tokenizer)?;
        Ok(SentenceEncoder {
            tokenizer: Arc::new(tokenizer),
            model: Arc::new(model),
            pooling: pipeline.pooling,
            modules: pipeline.modules.into(),
            dim: pipeline.dim,
            settings,
            saves_files: self.parameters.is_none(),
            files: self.files.kept(),
            folder: pipeline.folder,
            transformer: pipeline.transformer,
            max_seq_length,
            tokens_per_batch: self.tokens_per_batch,
            precision: self.precision,
            isa,
        })
    }

    fn override_modules(&self, pipeline: &mut Pipeline) -> Result<()> {
        if let Some(pooling) = &self.pooling {
            if pipeline.modules.iter().any(|module| !matches!(module, Module::Normalize)) {
                return Err(Error::Option {
                    option: "pooling",
                    problem: "the model has modules after its pooling that were trained for it"
                        .to_owned(),
                });
            }
            pipeline.pooling = pooling.clone();
            pipeline.dim = pooling.dim(pipeline.config.hidden_size);
        }
        if let Some(normalize) = self.normalize {
            pipeline.modules.retain(|module| !matches!(module, Module::Normalize));
            if normalize {
                pipeline.modules.push(Module::Normalize);
            }
        }
        Ok(())
    }

    fn override_settings(&self, settings: &mut Settings, dim: usize) -> Result<()> {
        settings.prompts.extend(self.prompts.iter().cloned());
        if let Some(name) = &self.default_prompt_name {
            if !settings.prompts.contains_key(name) {
                let problem = format!("the model has no prompt `{name}`");
                return Err(Error::Option { option: "default_prompt_name", problem });
            }
            settings.default_prompt_name = Some(name.clone());
        }
        if let Some(k) = self.truncate_dim {
            if !(1..=dim).contains(&k) {
                let problem = format!("is {k}, must be from 1 to {dim}");
                return Err(Error::Option { option: "truncate_dim", problem });
            }
            settings.truncate_dim = Some(k);
        }
        settings.similarity = self.similarity_fn.unwrap_or(settings.similarity);
        Ok(())
    }

    /// The caller's length if there is one, else the model's: that of the tokenizer's calls, of its
    /// arguments or of the transformer module, else the smaller of what the tokenizer's files and
    /// the position table allow.
    fn resolve_length(
        &self,
        config: &Config,
        transformer: &TransformerSettings,
        words: &TokenizerSettings,
    ) -> Result<usize> {
        let limit = config.max_tokens();
        if let Some(length) = self.max_seq_length {
            if length > limit {
                let problem =
                    format!("is {length}, but the model has positions for {limit} tokens");
                return Err(Error::Option { option: "max_seq_length", problem });
            }
            return Ok(length);
        }
        let own = match (transformer.text.truncates, transformer.text.max_length) {
            (false, _) => None,
            (true, Some(length)) => Some(length),
            (true, None) => match transformer.max_seq_length {
                Some(length) if !transformer.tokenizer.contains_key("model_max_length") => {
                    Some(length)
                }
                _ => words.model_max_length()?,
            },
        };
        let own = own.unwrap_or(limit);
        if own > limit {
            tracing::warn!(own, limit, "the model's max_seq_length is beyond its position table");
        }
        Ok(own.min(limit))
    }

    /// A length that leaves no room for the special tokens is refused now, not at the first text.
    fn check_length(&self, length: usize, folder: &str, tokenizer: &Tokenizer) -> Result<()> {
        let least = tokenizer.special_tokens(false).max(1);
        let problem = format!("is {length}, must be at least {least}");
        match self.max_seq_length {
            _ if length >= least => Ok(()),
            Some(_) => Err(Error::Option { option: "max_seq_length", problem }),
            None => Err(Error::Field {
                file: self.files.label(folder),
                field: "max_seq_length or model_max_length".to_owned(),
                problem,
            }),
        }
    }
}
