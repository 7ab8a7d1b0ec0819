//! Every way in which a caller's files, texts or options can be wrong.

use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
///
/// ```
/// fn dimension(model: &str) -> mpnet::Result<usize> {
///     Ok(mpnet::SentenceEncoder::from_pretrained(model)?.dim())
/// }
/// # assert_eq!(dimension("tests/data/tiny").unwrap(), 32);
/// # Ok::<(), mpnet::Error>(())
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What was wrong, and where. The message names the file, tensor, field or text; a wrapped cause is in
/// [`source`](std::error::Error::source).
///
/// ```
/// use mpnet::{Error, SentenceEncoder};
///
/// match SentenceEncoder::from_pretrained("no/such/model") {
///     Err(Error::Io { path, .. }) => println!("{} is not there", path.display()),
///     Err(other) => println!("{other}"),
///     Ok(_) => unreachable!(),
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that the model needs is not there, or could not be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },

    /// A file is not JSON, or a field in it is missing or has the wrong type.
    #[error("`{file}` is not valid")]
    Json {
        /// The file.
        file: String,
        /// Line, column and what was expected.
        source: serde_json::Error,
    },

    /// A field of a JSON file holds a value that makes no sense, or that this crate does not support.
    #[error("`{file}`: field `{field}`: {problem}")]
    Field {
        /// The file.
        file: String,
        /// The field, as written in the file.
        field: String,
        /// The value found and what would be right.
        problem: String,
    },

    /// The directory holds another architecture than MPNet.
    #[error(
        "`{file}`: model_type is `{found}`, not `mpnet`{}; this crate loads MPNet checkpoints \
         (all-mpnet-base-v2, all-mpnet-base-v1, multi-qa-mpnet-base-*, paraphrase-mpnet-base-v2, mpnet-base)",
        look_alike(found)
    )]
    Architecture {
        /// The file that says so.
        file: String,
        /// The `model_type` found.
        found: String,
    },

    /// A module of the sentence-transformers pipeline, or its place in it, is not supported.
    #[error("`{file}`: module `{module}`: {problem}")]
    Module {
        /// `modules.json` or the module's own configuration.
        file: String,
        /// The module's type or folder.
        module: String,
        /// What is wrong with it.
        problem: String,
    },

    /// A weight file is damaged: the header, an offset or a size is wrong.
    #[error("`{file}` is not a valid safetensors file")]
    Safetensors {
        /// The file.
        file: String,
        /// What the reader found.
        source: safetensors::SafeTensorError,
    },

    /// The directory has no weights that can be read.
    #[error("no weights in `{directory}`: {problem}")]
    NoWeights {
        /// The directory.
        directory: String,
        /// What was looked for, and what is there instead.
        problem: String,
    },

    /// The directory holds an adapter, which has to be merged into the model that it belongs to.
    #[error(
        "`{file}`: a PEFT adapter is not applied here, and the weights without it are another model; in Python, merge it \
         (model.merge_and_unload()), save the result with save_pretrained and load that"
    )]
    Adapter {
        /// The adapter's configuration.
        file: String,
    },

    /// In the place of a file stands what git-lfs leaves there if it has not fetched the file.
    #[error(
        "`{file}` is a git-lfs pointer to a file of {size} bytes, not the file itself; run `git lfs pull` where it was cloned"
    )]
    GitLfsPointer {
        /// The file.
        file: String,
        /// The size of what should be there.
        size: u64,
    },

    /// `model.safetensors.index.json` lists a shard that cannot be right.
    #[error("`{file}`: shard `{shard}`: {problem}")]
    Shard {
        /// The index file.
        file: String,
        /// The shard's file name, as the index has it.
        shard: String,
        /// What is wrong with it.
        problem: String,
    },

    /// A tensor that the configuration asks for is not in the checkpoint.
    #[error("tensor `{name}` is missing from {file}{}", nearby(found))]
    MissingTensor {
        /// The tensor's full name.
        name: String,
        /// Where it was looked for.
        file: String,
        /// A few names that are there.
        found: Vec<String>,
    },

    /// A tensor does not have the shape that the configuration asks for.
    #[error("tensor `{name}` in {file} has shape {found:?}, expected {expected:?}")]
    TensorShape {
        /// The tensor's full name.
        name: String,
        /// The file that holds it.
        file: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
    },

    /// A tensor's elements are not of a floating-point type that can be read.
    #[error("tensor `{name}` in {file} has dtype {found}, expected F32, F16, BF16 or F64")]
    TensorDtype {
        /// The tensor's full name.
        name: String,
        /// The file that holds it.
        file: String,
        /// The dtype, as the file writes it.
        found: String,
    },

    /// The tokenizer could not be built from its file.
    #[error("`{file}`: not a usable tokenizer: {problem}")]
    Tokenizer {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },

    /// A text could not be tokenised.
    #[error("text {text}: cannot be tokenised: {problem}")]
    Tokenize {
        /// Its place in the input, from 0.
        text: usize,
        /// What the tokenizer said.
        problem: String,
    },

    /// The tokenizer yields ids for which the model has no embedding.
    #[error(
        "`{file}`: token `{token}` has id {id}, but the model's embedding table has {vocab_size} rows: \
         the tokenizer belongs to another model"
    )]
    Vocabulary {
        /// The tokenizer's file.
        file: String,
        /// The token with the largest id.
        token: String,
        /// That id.
        id: u32,
        /// Rows of the embedding table, `V`.
        vocab_size: usize,
    },

    /// A token id is beyond the embedding table.
    #[error("text {text}: token id {id} is beyond the vocabulary of {vocab_size}")]
    TokenId {
        /// The text's place in the input, from 0.
        text: usize,
        /// The id.
        id: u32,
        /// Rows of the embedding table, `V`.
        vocab_size: usize,
    },

    /// A text has more tokens than the model has positions, or than the caller allows.
    #[error("text {text} has {tokens} tokens, the limit is {limit}")]
    TooLong {
        /// The text's place in the input, from 0.
        text: usize,
        /// Its length in tokens, special tokens included.
        tokens: usize,
        /// The largest length allowed.
        limit: usize,
    },

    /// A text has no tokens at all, not even special ones.
    #[error("text {text} has no tokens")]
    NoTokens {
        /// The text's place in the input, from 0.
        text: usize,
    },

    /// The checkpoint does not have the head that it was to be loaded with.
    #[error("{file} has no {expected} head (`{tensor}`): {found}")]
    Head {
        /// The weight file.
        file: String,
        /// The kind of head that was asked for.
        expected: &'static str,
        /// A tensor that such a head has.
        tensor: &'static str,
        /// The heads that are there, or that there is none.
        found: String,
    },

    /// `config.json` names another number of labels than the head has outputs.
    #[error("`{file}` has {labels} labels, but the head's tensor `{tensor}` has {outputs} outputs")]
    Labels {
        /// The configuration file.
        file: String,
        /// Labels it names (`id2label`, else `num_labels`, else 2).
        labels: usize,
        /// The tensor's full name.
        tensor: String,
        /// Its rows.
        outputs: usize,
    },

    /// A text has no mask to fill, or more than one where one is asked for.
    #[error("the text has `{mask}` {found} times, must have it {expected}")]
    Masks {
        /// The mask token.
        mask: String,
        /// How often the text has it.
        found: usize,
        /// How often it must have it, in words.
        expected: &'static str,
    },

    /// A chunk of a text is not a range of it, or has no tokens.
    #[error("chunk {chunk} of the text: {problem}")]
    Chunk {
        /// Its place in the list of chunks, from 0.
        chunk: usize,
        /// What is wrong with it.
        problem: String,
    },

    /// The caller's [`CancellationToken`](crate::CancellationToken) was used.
    #[error("cancelled")]
    Cancelled,

    /// A model cannot be saved there, or not in this form.
    #[error("cannot save to `{}`: {problem}", path.display())]
    Save {
        /// The directory or file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },

    /// Embeddings do not have the width of what they meet: other embeddings, or ranges of calibration.
    #[error("{what} have width {found}, expected {expected}")]
    Width {
        /// What has the wrong width.
        what: &'static str,
        /// Its width.
        found: usize,
        /// The width that would fit.
        expected: usize,
    },

    /// An embedding has a component that is infinite or not a number.
    #[error("{what}: row {row} has a value that is infinite or not a number")]
    NotFinite {
        /// Which embeddings.
        what: &'static str,
        /// The first such row, from 0.
        row: usize,
    },

    /// There is nothing to work on.
    #[error("{what}: there are none")]
    Empty {
        /// What is missing.
        what: &'static str,
    },

    /// An option given by the caller is out of range or contradicts the model.
    #[error("option `{option}`: {problem}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What is wrong with the value.
        problem: String,
    },

    /// The Hugging Face hub, or what is kept of it, did not give a file.
    #[error("cannot get `{file}` of `{repo}` at revision `{revision}`")]
    Hub {
        /// The repository, `organisation/name`.
        repo: String,
        /// The branch, tag or commit that was asked for.
        revision: String,
        /// The file.
        file: String,
        /// Why not: with the feature `hub` a `HubProblem`, which `downcast_ref` finds.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// Embeddings, scores or labels given by the caller do not fit together, or hold what cannot be used.
    #[error("`{input}`: {problem}")]
    Input {
        /// The argument.
        input: &'static str,
        /// What is wrong with it, and where.
        problem: String,
    },
}

impl Error {
    /// The same, its text being number `by` more: for work that is done a part of the input at a time.
    pub(crate) fn moved(mut self, by: usize) -> Self {
        if let Self::Tokenize { text, .. }
        | Self::TokenId { text, .. }
        | Self::TooLong { text, .. }
        | Self::NoTokens { text } = &mut self
        {
            *text += by;
        }
        self
    }
}

/// Fails if an option is 0 that must not be.
pub(crate) fn at_least_one(option: &'static str, value: usize) -> Result<()> {
    match value {
        0 => Err(Error::Option { option, problem: "is 0, must be at least 1".to_owned() }),
        _ => Ok(()),
    }
}

fn look_alike(model_type: &str) -> &'static str {
    match model_type {
        "xlm-roberta" => {
            " (the architecture is XLM-RoBERTa: `paraphrase-multilingual-mpnet-base-v2` was distilled \
             from MPNet into it, its name misleads)"
        }
        _ => "",
    }
}

fn nearby(found: &[String]) -> String {
    match found {
        [] => String::new(),
        names => format!(", which has {}", names.join(", ")),
    }
}
