//! Every way in which a caller's files, texts or options can be wrong.

use std::fmt::{self, Display, Formatter};
use std::io;
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

/// The cause of an error, of a type of the crate that found it.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What was wrong, and where. The message names the file, tensor, field or text; a wrapped cause is
/// in [`source`](std::error::Error::source).
///
/// ```
/// use mpnet::{Error, FileProblem, SentenceEncoder};
///
/// match SentenceEncoder::from_pretrained("no/such/model") {
///     Err(Error::Io { path, .. }) => println!("{} is not there", path.display()),
///     Err(Error::File { file, problem: FileProblem::Adapter }) => println!("merge {file}"),
///     Err(other) => println!("{other}"),
///     Ok(_) => unreachable!(),
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A file that the model needs is not there, or could not be read or written.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },

    /// A file is damaged, or is not what is needed in its place.
    File {
        /// The file, or the directory that it should be in.
        file: String,
        /// What is wrong with it.
        problem: FileProblem,
    },

    /// A field of a JSON file holds a value that makes no sense, or that this crate does not
    /// support.
    Field {
        /// The file.
        file: String,
        /// The field, as written in the file.
        field: String,
        /// The value found and what would be right.
        problem: String,
    },

    /// A tensor is missing, or is not what the configuration asks for.
    Tensor {
        /// The tensor's full name.
        name: String,
        /// The file, or parameters in memory.
        file: String,
        /// What is wrong with it.
        problem: TensorProblem,
    },

    /// A text cannot be made into tokens for the model.
    Text {
        /// The text's place in the input, from 0.
        text: usize,
        /// What is wrong with it.
        problem: TextProblem,
    },

    /// A chunk of a text is not a range of it, or has no tokens.
    Chunk {
        /// Its place in the list of chunks, from 0.
        chunk: usize,
        /// What is wrong with it.
        problem: String,
    },

    /// Embeddings, scores, labels or a text given by the caller cannot be used, or do not fit
    /// together.
    Input {
        /// The argument.
        input: &'static str,
        /// What is wrong with it.
        problem: InputProblem,
    },

    /// An option given by the caller is out of range or contradicts the model.
    Option {
        /// The option's name.
        option: &'static str,
        /// What is wrong with the value.
        problem: String,
    },

    /// A model cannot be saved there, or not in this form.
    Save {
        /// The directory or file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },

    /// The Hugging Face hub, or its cache, did not give a file.
    Hub {
        /// The repository, `organisation/name`.
        repo: String,
        /// The branch, tag or commit that was asked for.
        revision: String,
        /// The file.
        file: String,
        /// Why not: a `HubProblem`, which `downcast_ref` finds.
        source: Cause,
    },

    /// The caller's [`CancellationToken`](crate::CancellationToken) was used.
    Cancelled,
}

/// What is wrong with a file of a model: the `problem` of [`Error::File`].
#[derive(Debug)]
#[non_exhaustive]
pub enum FileProblem {
    /// It is not JSON, or a field in it is missing or has the wrong type.
    Json {
        /// Line, column and what was expected.
        source: Cause,
    },
    /// A weight file is damaged: the header, an offset or a size is wrong.
    Safetensors {
        /// What the reader found.
        source: Cause,
    },
    /// The directory has no weights that can be read.
    NoWeights {
        /// What was looked for, and what is there instead.
        problem: String,
    },
    /// `model.safetensors.index.json` lists a shard that cannot be right.
    Shard {
        /// The shard's file name, as the index has it.
        shard: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The directory holds an adapter, which has to be merged into the model that it belongs to.
    Adapter,
    /// git-lfs has left its pointer in the place of the file, which it has not fetched.
    GitLfsPointer {
        /// The size of the file itself.
        size: u64,
    },
    /// The directory holds another architecture than MPNet.
    Architecture {
        /// The `model_type` found.
        found: String,
    },
    /// A module of the sentence-transformers pipeline, or its place in it, is not supported.
    Module {
        /// The module's type or folder.
        module: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The tokenizer cannot be built from the file.
    Tokenizer {
        /// What is wrong with it.
        problem: String,
    },
    /// The tokenizer yields ids for which the model has no embedding.
    Vocabulary {
        /// The token with the largest id.
        token: String,
        /// That id.
        id: u32,
        /// Rows of the embedding table, `V`.
        vocab_size: usize,
    },
    /// The checkpoint does not have the head that it was to be loaded with.
    Head {
        /// The kind of head that was asked for.
        expected: &'static str,
        /// A tensor that such a head has.
        tensor: &'static str,
        /// The heads that are there, or that there is none.
        found: String,
    },
    /// `config.json` names another number of labels than the head has outputs.
    Labels {
        /// Labels it names (`id2label`, else `num_labels`, else 2).
        labels: usize,
        /// The tensor's full name.
        tensor: String,
        /// Its rows.
        outputs: usize,
    },
}

/// What is wrong with a tensor: the `problem` of [`Error::Tensor`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorProblem {
    /// It is not there.
    Missing {
        /// A few names that are there.
        found: Vec<String>,
    },
    /// It does not have the shape that the configuration asks for.
    Shape {
        /// Its shape.
        found: Vec<usize>,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
    },
    /// Its elements are not of a floating-point type that can be read.
    Dtype {
        /// The dtype, as the file writes it.
        found: String,
    },
}

/// What is wrong with a text: the `problem` of [`Error::Text`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextProblem {
    /// The tokenizer failed.
    Tokenizer {
        /// The tokenizer's message.
        problem: String,
    },
    /// A token id is beyond the embedding table.
    TokenId {
        /// The id.
        id: u32,
        /// Rows of the embedding table, `V`.
        vocab_size: usize,
    },
    /// It has more tokens than the model has positions, or than the caller allows.
    TooLong {
        /// Its length in tokens, special tokens included.
        tokens: usize,
        /// The largest length allowed.
        limit: usize,
    },
    /// It has no tokens at all, not even special ones.
    NoTokens,
}

/// What is wrong with an argument: the `problem` of [`Error::Input`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum InputProblem {
    /// Embeddings do not have the width of what they are compared with.
    Width {
        /// Their width.
        found: usize,
        /// The width that would fit.
        expected: usize,
    },
    /// An embedding has a component that is infinite or not a number.
    NotFinite {
        /// The first such row, from 0.
        row: usize,
        /// The first such value in it.
        value: f32,
    },
    /// There are rows, but they have no columns.
    NoColumns,
    /// There are no rows or elements.
    Empty,
    /// A text has no mask to fill, or more than one where one is asked for.
    Masks {
        /// The mask token.
        mask: String,
        /// How often the text has it.
        found: usize,
        /// How often it must have it, in words.
        expected: &'static str,
    },
    /// Anything else, in words.
    Invalid(String),
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, .. } => write!(f, "cannot read `{}`", path.display()),
            Self::File { file, problem } => problem.describe(file, f),
            Self::Field { file, field, problem } => {
                write!(f, "`{file}`: field `{field}`: {problem}")
            }
            Self::Tensor { name, file, problem } => problem.describe(name, file, f),
            Self::Text { text, problem } => problem.describe(*text, f),
            Self::Chunk { chunk, problem } => write!(f, "chunk {chunk} of the text: {problem}"),
            Self::Input { input, problem } => problem.describe(input, f),
            Self::Option { option, problem } => write!(f, "option `{option}`: {problem}"),
            Self::Save { path, problem } => {
                write!(f, "cannot save to `{}`: {problem}", path.display())
            }
            Self::Hub { repo, revision, file, .. } => {
                write!(f, "cannot get `{file}` of `{repo}` at revision `{revision}`")
            }
            Self::Cancelled => write!(f, "cancelled"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::File {
                problem: FileProblem::Json { source } | FileProblem::Safetensors { source },
                ..
            }
            | Self::Hub { source, .. } => Some(&**source),
            _ => None,
        }
    }
}

impl FileProblem {
    fn describe(&self, file: &str, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json { .. } => write!(f, "`{file}` is not valid"),
            Self::Safetensors { .. } => write!(f, "`{file}` is not a valid safetensors file"),
            Self::NoWeights { problem } => write!(f, "no weights in `{file}`: {problem}"),
            Self::Shard { shard, problem } => write!(f, "`{file}`: shard `{shard}`: {problem}"),
            Self::Adapter => write!(
                f,
                "`{file}`: a PEFT adapter is not applied here, and the weights without it are \
                 another model; in Python, merge it (model.merge_and_unload()), save the result \
                 with save_pretrained and load that"
            ),
            Self::GitLfsPointer { size } => write!(
                f,
                "`{file}` is a git-lfs pointer to a file of {size} bytes, not the file itself; \
                 run `git lfs pull` where it was cloned"
            ),
            Self::Architecture { found } => write!(
                f,
                "`{file}`: model_type is `{found}`, not `mpnet`{}; this crate loads MPNet \
                 checkpoints (all-mpnet-base-v2, all-mpnet-base-v1, multi-qa-mpnet-base-*, \
                 paraphrase-mpnet-base-v2, mpnet-base)",
                look_alike(found)
            ),
            Self::Module { module, problem } => {
                write!(f, "`{file}`: module `{module}`: {problem}")
            }
            Self::Tokenizer { problem } => {
                write!(f, "`{file}`: not a usable tokenizer: {problem}")
            }
            Self::Vocabulary { token, id, vocab_size } => write!(
                f,
                "`{file}`: token `{token}` has id {id}, but the model's embedding table has \
                 {vocab_size} rows: the tokenizer belongs to another model"
            ),
            Self::Head { expected, tensor, found } => {
                write!(f, "{file} has no {expected} head (`{tensor}`): {found}")
            }
            Self::Labels { labels, tensor, outputs } => write!(
                f,
                "`{file}` has {labels} labels, but the head's tensor `{tensor}` has {outputs} \
                 outputs"
            ),
        }
    }
}

impl TensorProblem {
    fn describe(&self, name: &str, file: &str, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { found } if found.is_empty() => {
                write!(f, "tensor `{name}` is missing from {file}")
            }
            Self::Missing { found } => {
                write!(f, "tensor `{name}` is missing from {file}, which has {}", found.join(", "))
            }
            Self::Shape { found, expected } => {
                write!(f, "tensor `{name}` in {file} has shape {found:?}, expected {expected:?}")
            }
            Self::Dtype { found } => write!(
                f,
                "tensor `{name}` in {file} has dtype {found}, expected F32, F16, BF16 or F64"
            ),
        }
    }
}

impl TextProblem {
    fn describe(&self, text: usize, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokenizer { problem } => {
                write!(f, "text {text}: cannot be tokenised: {problem}")
            }
            Self::TokenId { id, vocab_size } => {
                write!(f, "text {text}: token id {id} is beyond the vocabulary of {vocab_size}")
            }
            Self::TooLong { tokens, limit } => {
                write!(f, "text {text} has {tokens} tokens, the limit is {limit}")
            }
            Self::NoTokens => write!(f, "text {text} has no tokens"),
        }
    }
}

impl InputProblem {
    fn describe(&self, input: &str, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Width { found, expected } => {
                write!(f, "`{input}`: has width {found}, expected {expected}")
            }
            Self::NotFinite { row, value } => write!(f, "`{input}`: row {row} has {value}"),
            Self::NoColumns => write!(f, "`{input}`: its rows have no columns"),
            Self::Empty => write!(f, "`{input}`: is empty"),
            Self::Masks { mask, found, expected } => {
                write!(f, "the {input} has `{mask}` {found} times, must have it {expected}")
            }
            Self::Invalid(problem) => write!(f, "`{input}`: {problem}"),
        }
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
