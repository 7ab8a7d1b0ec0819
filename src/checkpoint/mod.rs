//! Names → arrays. [`Checkpoint`] holds the weight files; [`Weights`] is a place among the names of
//! a [`Source`], which a checkpoint is, and parameters in memory are too.
//!
//! A checkpoint is `model.safetensors`, or the shards that `model.safetensors.index.json` lists, in
//! any of the four floating-point types, aligned or not, under any of the names that transformers
//! knows. Every array is asked for with its shape, so that a file which does not fit its
//! configuration fails here, with the name of the tensor.

mod convert;
mod names;
mod save;
mod shards;
mod source;
mod weights;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use safetensors::SafeTensors;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::error::{Error, FileProblem, Result, TensorProblem};
use crate::files::{self, Bytes, ModelFiles};

pub use save::WeightDtype;
pub(crate) use save::save;
pub(crate) use shards::refuse_adapter;
#[cfg(feature = "hub")]
pub(crate) use shards::{ADAPTER, shard_names};
pub(crate) use source::{Elements, Source, Tensor};
pub use weights::Weights;

pub(crate) const WEIGHTS: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// The weight files of a model, mapped and their headers checked.
///
/// ```
/// use mpnet::{Checkpoint, Config, model::Mpnet};
///
/// # let directory = std::path::Path::new("tests/data/tiny");
/// let config = Config::from_json(std::fs::read(directory.join("config.json"))?, "config.json")?;
/// let checkpoint = Checkpoint::open(directory)?;
/// let model = Mpnet::load(&checkpoint.encoder()?, &config)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint<'a> {
    /// What errors call the whole: the file, or the index.
    label: String,
    shards: Vec<Shard<'a>>,
    tensors: HashMap<String, Entry>,
    /// Names that stand for one of `tensors`: safetensors' `save_model` stores tensors that share
    /// their memory once, and notes their other names in the header.
    aliases: HashMap<String, String>,
}

#[derive(Debug)]
struct Shard<'a> {
    file: String,
    bytes: Bytes<'a>,
    /// Where the tensors' data begins: after the header.
    data_start: usize,
    metadata: Metadata,
}

/// Where a tensor is, and whether anybody has asked for it.
#[derive(Debug)]
struct Entry {
    shard: usize,
    used: AtomicBool,
}

impl Entry {
    fn in_shard(shard: usize) -> Self {
        Self { shard, used: AtomicBool::new(false) }
    }
}

impl<'a> Checkpoint<'a> {
    /// Opens the weights in `directory`: `model.safetensors`, else the shards of
    /// `model.safetensors.index.json`.
    ///
    /// The files are mapped, not read: nobody may change them until the model is loaded.
    ///
    /// ```
    /// # let directory = "tests/data/tiny";
    /// let checkpoint = mpnet::Checkpoint::open(directory)?;
    /// println!("{} tensors", checkpoint.names().len());
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`FileProblem::NoWeights`](crate::FileProblem::NoWeights) if there is neither,
    /// [`FileProblem::Adapter`](crate::FileProblem::Adapter) if there is an adapter,
    /// [`FileProblem::GitLfsPointer`](crate::FileProblem::GitLfsPointer) if a file has not been
    /// fetched, [`FileProblem::Safetensors`](crate::FileProblem::Safetensors) or
    /// [`FileProblem::Json`](crate::FileProblem::Json) if a header or the index is damaged,
    /// [`FileProblem::Shard`](crate::FileProblem::Shard) if the index names a file that is outside
    /// the directory or not there.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let files = ModelFiles::from(directory.as_ref());
        files.check()?;
        Self::from_files(&files, "")
    }

    /// Reads the weights from the bytes of one safetensors file.
    ///
    /// ```
    /// # let read = || std::fs::read("tests/data/tiny/model.safetensors").unwrap();
    /// let bytes: Vec<u8> = read(); // from an archive, a store, `include_bytes!`
    /// let checkpoint = mpnet::Checkpoint::from_bytes(&bytes)?;
    /// assert!(!checkpoint.names().is_empty());
    /// assert!(mpnet::Checkpoint::from_bytes(b"not tensors").is_err());
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`FileProblem::Safetensors`](crate::FileProblem::Safetensors) if its header is damaged.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self> {
        Self::from_files(&ModelFiles::in_memory([(WEIGHTS, bytes)]), "")
    }

    /// Opens the weights in `folder` (`""` or ending in `/`) of `files`.
    pub(crate) fn from_files(files: &ModelFiles<'a>, folder: &str) -> Result<Self> {
        let names = shards::weight_files(files, folder)?;
        let opened = names.iter().map(|name| Shard::open(files, folder, name));
        let shards: Vec<Shard> = opened.collect::<Result<_>>()?;
        let (mut tensors, mut aliases) = (HashMap::new(), HashMap::new());
        for (number, shard) in shards.iter().enumerate() {
            let stored = shard.metadata.offset_keys().into_iter();
            tensors.extend(stored.map(|name| (name, Entry::in_shard(number))));
            aliases.extend(
                shard
                    .metadata
                    .metadata()
                    .iter()
                    .flatten()
                    .map(|(name, other)| (name.clone(), other.clone())),
            );
        }
        let label = match names.as_slice() {
            [single] if single.ends_with(WEIGHTS) => files.label(single),
            _ => files.label(&format!("{folder}{INDEX}")),
        };
        Ok(Self { label, shards, tensors, aliases })
    }

    /// The names of all tensors, sorted.
    ///
    /// ```
    /// # let checkpoint = mpnet::Checkpoint::open("tests/data/tiny")?;
    /// for name in checkpoint.names() {
    ///     println!("{name}");
    /// }
    /// # assert!(checkpoint.names().contains(&"embeddings.word_embeddings.weight"));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// What errors call the whole.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// The root of all names.
    ///
    /// ```
    /// # let checkpoint = mpnet::Checkpoint::open("tests/data/tiny")?;
    /// assert_eq!(checkpoint.root().vector("pooler.dense.bias", 32)?.len(), 32);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn root(&self) -> Weights<'_> {
        Weights::root(self)
    }

    /// The place of the MPNet encoder among the names. It is found by looking for the word
    /// embeddings under each prefix in use (none, `mpnet.`, …): `architectures` in config.json does
    /// not tell.
    ///
    /// ```
    /// # let checkpoint = mpnet::Checkpoint::open("tests/data/tiny")?;
    /// let encoder = checkpoint.encoder()?;
    /// assert!(encoder.has("embeddings.word_embeddings.weight"));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TensorProblem::Missing`](crate::TensorProblem::Missing) if there are none.
    pub fn encoder(&self) -> Result<Weights<'_>> {
        let prefix = names::encoder_prefix(|name| self.tensors.contains_key(name))
            .ok_or_else(|| self.missing(names::WORDS))?;
        Ok(self.root().below(prefix))
    }

    /// A fingerprint of all weight files.
    pub(crate) fn digest(&self) -> String {
        let of_shard = |shard: &Shard| {
            let digest = files::digest(&shard.bytes, |range| shard.bytes.give_back(range));
            format!("{digest:032x}")
        };
        self.shards.iter().map(of_shard).collect::<Vec<_>>().join("-")
    }

    /// Warns, once, of tensors that nobody asked for: a sign of a layer too many. Buffers and the
    /// heads that an encoder does not use are expected.
    pub(crate) fn warn_of_unused(&self) {
        let expected = |name: &str| {
            name.ends_with("position_ids")
                || name.contains("pooler.")
                || ["lm_head.", "classifier.", "qa_outputs."].iter().any(|p| name.starts_with(p))
        };
        let mut unused: Vec<&str> = self
            .tensors
            .iter()
            .filter(|(name, tensor)| !tensor.used.load(Ordering::Relaxed) && !expected(name))
            .map(|(name, _)| name.as_str())
            .collect();
        if !unused.is_empty() {
            unused.sort_unstable();
            let (count, some) = (unused.len(), &unused[..unused.len().min(5)]);
            tracing::warn!(file = %self.label, count, "tensors that the model does not use: {some:?} …");
        }
    }

    fn missing(&self, name: &str) -> Error {
        let names = self.names();
        let found = names.iter().take(3).map(|name| format!("`{name}`")).collect();
        Error::Tensor {
            name: name.to_owned(),
            file: format!("`{}`", self.label),
            problem: TensorProblem::Missing { found },
        }
    }
}

impl Source for Checkpoint<'_> {
    fn locate(&self, name: &str, tied: bool) -> Option<&str> {
        let stored = |name: &str| self.tensors.get_key_value(name).map(|(name, _)| name.as_str());
        let spellings = names::spellings(name);
        let own = || spellings.iter().find_map(|name| stored(name));
        let alias = || spellings.iter().find_map(|name| stored(self.aliases.get(name)?));
        let other = || names::spellings(names::tied_to(name)?).iter().find_map(|name| stored(name));
        own().or_else(alias).or_else(|| if tied { other() } else { None })
    }

    fn find(&self, name: &str, expected: &[usize]) -> Result<Tensor<'_>> {
        let (name, tensor) = self.tensors.get_key_value(name).ok_or_else(|| self.missing(name))?;
        tensor.used.store(true, Ordering::Relaxed);
        let shard = &self.shards[tensor.shard];
        let info = shard.metadata.info(name).ok_or_else(|| self.missing(name))?;
        let elements = Elements::Bytes(info.dtype, shard.data(info));
        Tensor::new(name, &shard.file, elements).checked(&info.shape, expected)
    }

    fn give_back(&self, name: &str) {
        let Some(tensor) = self.tensors.get(name) else { return };
        let shard = &self.shards[tensor.shard];
        if let Some(info) = shard.metadata.info(name) {
            let (start, end) = info.data_offsets;
            shard.bytes.give_back(shard.data_start + start..shard.data_start + end);
        }
    }
}

impl<'a> Shard<'a> {
    fn open(files: &ModelFiles<'a>, folder: &str, name: &str) -> Result<Self> {
        let file = files.label(name);
        let bytes = files.map(name)?;
        // Checks the whole header: its length, and that the tensors' offsets and sizes tile the
        // data exactly.
        match SafeTensors::read_metadata(&bytes) {
            Ok((header, metadata)) => {
                Ok(Self { file, data_start: size_of::<u64>() + header, metadata, bytes })
            }
            Err(source) => Err(match shards::what_it_is(&bytes) {
                Some(kind) => Error::File {
                    file: files.label(folder),
                    problem: FileProblem::NoWeights { problem: format!("`{name}` is {kind}") },
                },
                None => Error::File {
                    file,
                    problem: FileProblem::Safetensors { source: source.into() },
                },
            }),
        }
    }

    fn data(&self, info: &TensorInfo) -> &[u8] {
        let (start, end) = info.data_offsets;
        &self.bytes[self.data_start + start..self.data_start + end]
    }
}
