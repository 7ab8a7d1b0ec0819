//! Names → arrays: [`Checkpoint`] holds the weight files, [`Weights`] is a place among their names.
//!
//! Reads `model.safetensors`, or the shards that `model.safetensors.index.json` lists, in any of the four
//! floating-point types, aligned or not. Every array is asked for with its shape, so a file that does not fit its
//! configuration fails here, by tensor name.

mod convert;
mod save;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::{Array1, Array2, ArrayView2, CowArray, Ix2};
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::files::{Bytes, ModelFiles};
use crate::kernels::Precision;
use crate::kernels::gemm::PackedMatrix;
use crate::kernels::isa::Isa;

pub use save::WeightDtype;

pub(crate) const WEIGHTS: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// The tensor that every MPNet encoder has; what stands before it is the prefix of all names.
const PROBE: &str = "embeddings.word_embeddings.weight";

/// Prefixes seen in the wild: none (an encoder saved alone), `mpnet.` (saved with a head), a whole
/// sentence-transformers module list in one file, and the wrappers of training frameworks.
const PREFIXES: [&str; 6] = ["", "mpnet.", "0.auto_model.", "0.model.", "model.", "module."];

/// The weight files of a model, mapped and their headers checked.
///
/// ```no_run
/// use mpnet::{Checkpoint, Config, model::Mpnet};
///
/// let config = Config::from_json(std::fs::read("models/mpnet-base/config.json")?, "config.json")?;
/// let checkpoint = Checkpoint::open("models/mpnet-base")?;
/// let model = Mpnet::load(&checkpoint.encoder()?, &config)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint<'a> {
    /// What errors call the whole: the file, or the index.
    label: String,
    shards: Vec<Shard<'a>>,
    tensors: HashMap<String, Tensor>,
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
struct Tensor {
    shard: usize,
    used: AtomicBool,
}

impl Tensor {
    fn in_shard(shard: usize) -> Self {
        Self { shard, used: AtomicBool::new(false) }
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl<'a> Checkpoint<'a> {
    /// Opens the weights in `directory`: `model.safetensors`, else the shards of `model.safetensors.index.json`.
    ///
    /// The files are mapped, not read: nobody may change them until the model is loaded.
    ///
    /// # Errors
    ///
    /// [`Error::NoWeights`] if there is neither, [`Error::Safetensors`] or [`Error::Json`] if a header or the index
    /// is damaged, [`Error::Shard`] if the index names a file outside the directory or a shard lacks a tensor.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let files = ModelFiles::from(directory.as_ref());
        files.check()?;
        Self::from_files(&files, "")
    }

    /// Reads the weights from the bytes of one safetensors file.
    ///
    /// # Errors
    ///
    /// [`Error::Safetensors`] if its header is damaged.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self> {
        Self::from_files(&ModelFiles::in_memory([(WEIGHTS, bytes)]), "")
    }

    /// Opens the weights in `folder` (`""` or ending in `/`) of `files`.
    pub(crate) fn from_files(files: &ModelFiles<'a>, folder: &str) -> Result<Self> {
        let single = format!("{folder}{WEIGHTS}");
        let index = format!("{folder}{INDEX}");
        if files.has(&single) {
            Self::single(files, &single)
        } else if files.has(&index) {
            Self::sharded(files, folder, &index)
        } else {
            let problem = if files.has(&format!("{folder}pytorch_model.bin")) {
                "pytorch_model.bin is a Python pickle, which can run code; save it as safetensors \
                 (in Python: model.save_pretrained(path))"
                    .to_owned()
            } else {
                format!("neither {WEIGHTS} nor {INDEX} is there")
            };
            Err(Error::NoWeights { directory: files.label(folder), problem })
        }
    }

    fn single(files: &ModelFiles<'a>, name: &str) -> Result<Self> {
        let shard = Shard::open(files, name)?;
        let tensors = shard.metadata.offset_keys();
        Ok(Self {
            label: shard.file.clone(),
            tensors: tensors.into_iter().map(|name| (name, Tensor::in_shard(0))).collect(),
            shards: vec![shard],
        })
    }

    fn sharded(files: &ModelFiles<'a>, folder: &str, index: &str) -> Result<Self> {
        let label = files.label(index);
        let Index { weight_map } = files.json(index)?.ok_or_else(|| Error::NoWeights {
            directory: files.label(folder),
            problem: format!("{INDEX} has gone"),
        })?;
        let wrong = |shard: &str, problem: String| Error::Shard {
            file: label.clone(),
            shard: shard.to_owned(),
            problem,
        };
        let mut shards: Vec<Shard> = Vec::new();
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut tensors = HashMap::new();
        for (tensor, file) in &weight_map {
            let number = match numbers.get(file.as_str()) {
                Some(&number) => number,
                None => {
                    if !is_plain_file_name(file) {
                        return Err(wrong(file, NOT_PLAIN.to_owned()));
                    }
                    let name = format!("{folder}{file}");
                    if !files.has(&name) {
                        return Err(wrong(file, "is not there".to_owned()));
                    }
                    shards.push(Shard::open(files, &name)?);
                    numbers.insert(file, shards.len() - 1);
                    shards.len() - 1
                }
            };
            if shards[number].metadata.info(tensor).is_none() {
                return Err(wrong(
                    file,
                    format!("has no tensor `{tensor}`, which the index puts there"),
                ));
            }
            tensors.insert(tensor.clone(), Tensor::in_shard(number));
        }
        Ok(Self { label, shards, tensors })
    }

    /// The names of all tensors, sorted.
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
    #[must_use]
    pub fn root(&self) -> Weights<'_> {
        Weights {
            checkpoint: self,
            prefix: String::new(),
            isa: Isa::current(),
            precision: Precision::F32,
        }
    }

    /// The place of the MPNet encoder among the names. It is found by looking for the word embeddings under each
    /// prefix in use (none, `mpnet.`, …): `architectures` in config.json does not tell.
    ///
    /// # Errors
    ///
    /// [`Error::MissingTensor`] if they are nowhere, [`Error::Option`] if `MPNET_ISA` names no instruction set of this
    /// machine.
    pub fn encoder(&self) -> Result<Weights<'_>> {
        let found = PREFIXES.iter().find(|p| self.tensors.contains_key(&format!("{p}{PROBE}")));
        match found {
            Some(prefix) => {
                Ok(Weights { prefix: (*prefix).to_owned(), isa: Isa::detect()?, ..self.root() })
            }
            None => Err(self.missing(PROBE)),
        }
    }

    /// Warns, once, of tensors that nobody asked for: a sign of a layer too many. Buffers and the heads that an
    /// encoder does not use are expected.
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
        Error::MissingTensor { name: name.to_owned(), file: format!("`{}`", self.label), found }
    }

    /// The tensor `name`, its type and its bytes, if its shape is `expected`.
    fn find(&self, name: &str, expected: &[usize]) -> Result<Found<'_>> {
        let tensor = self.tensors.get(name).ok_or_else(|| self.missing(name))?;
        tensor.used.store(true, Ordering::Relaxed);
        let shard = &self.shards[tensor.shard];
        let info = shard.metadata.info(name).ok_or_else(|| self.missing(name))?;
        if info.shape != expected {
            return Err(Error::TensorShape {
                name: name.to_owned(),
                file: format!("`{}`", shard.file),
                found: info.shape.clone(),
                expected: expected.to_owned(),
            });
        }
        Ok(Found { file: &shard.file, dtype: info.dtype, bytes: shard.data(info) })
    }

    /// The tensor `name` as `f32`, row-major, if its shape is `expected`.
    fn read(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let Found { file, dtype, bytes } = self.find(name, expected)?;
        convert::to_f32(dtype, bytes).ok_or_else(|| Error::TensorDtype {
            name: name.to_owned(),
            file: format!("`{file}`"),
            found: format!("{dtype:?}"),
        })
    }
}

/// A tensor in its file.
struct Found<'c> {
    file: &'c str,
    dtype: Dtype,
    bytes: &'c [u8],
}

impl<'a> Shard<'a> {
    fn open(files: &ModelFiles<'a>, name: &str) -> Result<Self> {
        let file = files.label(name);
        let bytes = files.map(name)?;
        // Checks the whole header: its length, and that the tensors' offsets and sizes tile the data exactly.
        match SafeTensors::read_metadata(&bytes) {
            Ok((header, metadata)) => {
                Ok(Self { file, data_start: size_of::<u64>() + header, metadata, bytes })
            }
            Err(source) => Err(Error::Safetensors { file, source }),
        }
    }

    fn data(&self, info: &TensorInfo) -> &[u8] {
        let (start, end) = info.data_offsets;
        &self.bytes[self.data_start + start..self.data_start + end]
    }
}

/// The files that the index in `folder` of `files` lists.
#[cfg(feature = "hub")]
pub(crate) fn shard_names(
    files: &ModelFiles,
    folder: &str,
) -> Result<std::collections::BTreeSet<String>> {
    let name = format!("{folder}{INDEX}");
    let index: Option<Index> = files.json(&name)?;
    let shards = index.into_iter().flat_map(|index| index.weight_map.into_values()).collect();
    for shard in &shards {
        let shard: &String = shard;
        if !is_plain_file_name(shard) {
            return Err(Error::Shard {
                file: files.label(&name),
                shard: shard.clone(),
                problem: NOT_PLAIN.to_owned(),
            });
        }
    }
    Ok(shards)
}

const NOT_PLAIN: &str = "must be a file name, without folders";

/// A name that stays inside its directory on every operating system.
fn is_plain_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', ':', '\0'])
}

/// A place among a checkpoint's names: `weights.at("encoder").at("layer.3")` is where the names that begin with
/// `encoder.layer.3.` are.
#[derive(Debug, Clone)]
pub struct Weights<'c> {
    checkpoint: &'c Checkpoint<'c>,
    prefix: String,
    isa: Isa,
    precision: Precision,
}

impl<'c> Weights<'c> {
    /// The place `name` below this one.
    #[must_use]
    pub fn at(&self, name: &str) -> Self {
        Self { prefix: format!("{}{name}.", self.prefix), ..*self }
    }

    /// The same place, its weights to be packed for `isa` instead of what [`Isa::detect`] finds.
    #[must_use]
    pub fn on(mut self, isa: Isa) -> Self {
        self.isa = isa;
        self
    }

    /// The instruction set that what is loaded from here runs on.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// What the weights of linear layers are rounded to.
    pub(crate) fn rounds_to(&self) -> Precision {
        self.precision
    }

    /// The same place, the weights of its linear layers to be rounded to `precision` instead of kept as `f32`.
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The right-hand side of a product, packed as this place asks for it. `weight`: `[N, K]`.
    pub(crate) fn pack(&self, weight: ArrayView2<f32>) -> PackedMatrix {
        PackedMatrix::new(self.isa, self.precision, weight)
    }

    /// As [`Weights::pack`], for factors whose columns are as large as `magnitudes` `[K]` say.
    pub(crate) fn pack_balanced(
        &self,
        weight: ArrayView2<f32>,
        magnitudes: &[f32],
    ) -> PackedMatrix {
        PackedMatrix::balanced(self.isa, self.precision, weight, magnitudes)
    }

    /// Whether there is a tensor `name` here.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.checkpoint.tensors.contains_key(&self.full(name))
    }

    /// The tensor `name`, `[len]`.
    ///
    /// # Errors
    ///
    /// [`Error::MissingTensor`], [`Error::TensorShape`] or [`Error::TensorDtype`], with its full name.
    pub fn vector(&self, name: &str, len: usize) -> Result<Array1<f32>> {
        self.checkpoint.read(&self.full(name), &[len]).map(Array1::from)
    }

    /// The tensor `name`, `[rows, columns]`.
    ///
    /// # Errors
    ///
    /// As [`Weights::vector`].
    pub fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Array2<f32>> {
        let values = self.checkpoint.read(&self.full(name), &[rows, columns])?;
        // A tensor without elements may have a length that no array can have.
        Array2::from_shape_vec((rows, columns), values).map_err(|_| Error::TensorShape {
            name: self.full(name),
            file: format!("`{}`", self.checkpoint.label),
            found: vec![rows, columns],
            expected: vec![0, 0],
        })
    }

    /// The tensor `name`, `[rows, columns]`, where it is if it can be read there.
    ///
    /// # Errors
    ///
    /// As [`Weights::vector`].
    pub(crate) fn borrow(
        &self,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<CowArray<'c, f32, Ix2>> {
        let found = self.checkpoint.find(&self.full(name), &[rows, columns])?;
        let there = convert::as_f32(found.dtype, found.bytes)
            .and_then(|values| ArrayView2::from_shape((rows, columns), values).ok());
        match there {
            Some(view) => Ok(view.into()),
            None => self.matrix(name, rows, columns).map(CowArray::from),
        }
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}
