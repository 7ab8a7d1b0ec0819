//! Names → arrays: [`Checkpoint`] holds the weight files, [`Weights`] is a place among their names.
//!
//! Reads `model.safetensors`, or the shards that `model.safetensors.index.json` lists, in any of the four
//! floating-point types, aligned or not, under any of the names that transformers knows. Every array is asked for with its shape, so a file that does not fit its
//! configuration fails here, by tensor name.

mod convert;
mod names;
mod packed;
mod save;
mod shards;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::{Array1, Array2, ArrayView2, Axis, CowArray, Ix2};
use rayon::prelude::*;
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};

use crate::error::{Error, Result};
use crate::files::{self, Bytes, ModelFiles};
use crate::kernels::Precision;
use crate::kernels::gemm::PackedMatrix;
use crate::kernels::isa::Isa;
use crate::kernels::memory::{Arena, Words};

use packed::PackedFile;
pub use save::WeightDtype;
pub(crate) use shards::refuse_adapter;
#[cfg(feature = "hub")]
pub(crate) use shards::{ADAPTER, shard_names};

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
    tensors: HashMap<String, Tensor>,
    /// Names that stand for one of `tensors`: safetensors' `save_model` stores tensors that share their memory once, and
    /// notes their other names in the header.
    aliases: HashMap<String, String>,
    /// Where weights go that stay with the model.
    arena: Arena,
    /// Where they come from, or are to go for the next time.
    packed: Option<PackedFile>,
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

impl<'a> Checkpoint<'a> {
    /// Opens the weights in `directory`: `model.safetensors`, else the shards of `model.safetensors.index.json`.
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
    /// [`Error::NoWeights`] if there is neither, [`Error::Adapter`] if there is an adapter, [`Error::GitLfsPointer`] if a
    /// file has not been fetched, [`Error::Safetensors`] or [`Error::Json`] if a header or the index is damaged,
    /// [`Error::Shard`] if the index names a file that is outside the directory or not there.
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
    /// [`Error::Safetensors`] if its header is damaged.
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
            tensors.extend(stored.map(|name| (name, Tensor::in_shard(number))));
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
        let (arena, packed) = (Arena::default(), None);
        Ok(Self { label, shards, tensors, aliases, arena, packed })
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
        Weights {
            checkpoint: self,
            prefix: String::new(),
            isa: Isa::current(),
            precision: Precision::F32,
            tied: true,
            keeps_rest: false,
        }
    }

    /// The place of the MPNet encoder among the names. It is found by looking for the word embeddings under each
    /// prefix in use (none, `mpnet.`, …): `architectures` in config.json does not tell.
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
    /// [`Error::MissingTensor`] if they are nowhere, [`Error::Option`] if `MPNET_ISA` names no instruction set of this
    /// machine.
    pub fn encoder(&self) -> Result<Weights<'_>> {
        let prefix = names::encoder_prefix(|name| self.tensors.contains_key(name))
            .ok_or_else(|| self.missing(names::WORDS))?;
        Ok(Weights { prefix: prefix.to_owned(), isa: Isa::detect()?, ..self.root() })
    }

    /// The same weights, packed ones from the file at `path` if it has them. After loading, [`save_packed`](Self::save_packed)
    /// writes it if it had not.
    pub(crate) fn with_packed_file(
        mut self,
        path: &Path,
        isa: Isa,
        precision: Precision,
    ) -> Result<Self> {
        let key = || packed::Key::new(isa, precision, self.digest());
        self.packed = Some(PackedFile::open(path, isa, key)?);
        Ok(self)
    }

    /// Writes the file of packed weights, if there is to be one that was not there.
    pub(crate) fn save_packed(&self) -> Result<()> {
        self.packed.as_ref().map_or(Ok(()), PackedFile::save)
    }

    /// A fingerprint of all weight files.
    fn digest(&self) -> String {
        let of_shard = |shard: &Shard| {
            let digest = files::digest(&shard.bytes, |range| shard.bytes.give_back(range));
            format!("{digest:032x}")
        };
        self.shards.iter().map(of_shard).collect::<Vec<_>>().join("-")
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

    /// The name under which the tensor `name` is stored. With `tied`, the word embeddings may be those of the decoder.
    fn locate(&self, name: &str, tied: bool) -> Option<&str> {
        let stored = |name: &str| self.tensors.get_key_value(name).map(|(name, _)| name.as_str());
        let spellings = names::spellings(name);
        let own = || spellings.iter().find_map(|name| stored(name));
        let alias = || spellings.iter().find_map(|name| stored(self.aliases.get(name)?));
        let other = || names::spellings(names::tied_to(name)?).iter().find_map(|name| stored(name));
        own().or_else(alias).or_else(|| if tied { other() } else { None })
    }

    /// The stored tensor `name`, its type and its bytes, if its shape is `expected`.
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

    /// Tells that the stored tensor `name` has been made into what stays with the model.
    fn give_back(&self, name: &str) {
        let Some(tensor) = self.tensors.get(name) else { return };
        let shard = &self.shards[tensor.shard];
        if let Some(info) = shard.metadata.info(name) {
            let (start, end) = info.data_offsets;
            shard.bytes.give_back(shard.data_start + start..shard.data_start + end);
        }
    }

    /// The stored tensor `name` as `f32`, row-major, if its shape is `expected`.
    fn read(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let Found { file, dtype, bytes } = self.find(name, expected)?;
        convert::to_f32(dtype, bytes).ok_or_else(|| wrong_dtype(name, file, dtype))
    }
}

fn wrong_dtype(name: &str, file: &str, found: Dtype) -> Error {
    Error::TensorDtype {
        name: name.to_owned(),
        file: format!("`{file}`"),
        found: format!("{found:?}"),
    }
}

/// A tensor in its file.
struct Found<'c> {
    file: &'c str,
    dtype: Dtype,
    bytes: &'c [u8],
}

impl<'a> Shard<'a> {
    fn open(files: &ModelFiles<'a>, folder: &str, name: &str) -> Result<Self> {
        let file = files.label(name);
        let bytes = files.map(name)?;
        // Checks the whole header: its length, and that the tensors' offsets and sizes tile the data exactly.
        match SafeTensors::read_metadata(&bytes) {
            Ok((header, metadata)) => {
                Ok(Self { file, data_start: size_of::<u64>() + header, metadata, bytes })
            }
            Err(source) => Err(match shards::what_it_is(&bytes) {
                Some(kind) => Error::NoWeights {
                    directory: files.label(folder),
                    problem: format!("`{name}` is {kind}"),
                },
                None => Error::Safetensors { file, source },
            }),
        }
    }

    fn data(&self, info: &TensorInfo) -> &[u8] {
        let (start, end) = info.data_offsets;
        &self.bytes[self.data_start + start..self.data_start + end]
    }
}

/// A place among a checkpoint's names: `weights.at("encoder").at("layer.3")` is where the names that begin with
/// `encoder.layer.3.` are.
///
/// ```
/// # let checkpoint = mpnet::Checkpoint::open("tests/data/tiny")?;
/// let layer = checkpoint.encoder()?.at("encoder.layer.2");
/// let expand = layer.at("intermediate.dense").matrix("weight", 64, 32)?; // [F, D]
/// # assert_eq!(expand.dim(), (64, 32));
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Weights<'c> {
    checkpoint: &'c Checkpoint<'c>,
    prefix: String,
    isa: Isa,
    precision: Precision,
    /// Whether the word embeddings may be those that the decoder of a masked language model is tied to.
    tied: bool,
    /// Whether what rounding to integers leaves of weights is kept too.
    keeps_rest: bool,
}

impl<'c> Weights<'c> {
    /// The place `name` below this one.
    ///
    /// ```
    /// # let checkpoint = mpnet::Checkpoint::open("tests/data/tiny")?;
    /// let layer = checkpoint.encoder()?.at("encoder.layer").at("0");
    /// assert!(layer.has("attention.attn.q.weight"));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn at(&self, name: &str) -> Self {
        Self { prefix: format!("{}{name}.", self.prefix), ..*self }
    }

    /// The same place, its weights to be packed for `isa` instead of what [`Isa::detect`] finds.
    ///
    /// ```
    /// use mpnet::Isa;
    ///
    /// # let checkpoint = mpnet::Checkpoint::open("tests/data/tiny")?;
    /// let weights = checkpoint.encoder()?.on(Isa::best());
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn on(mut self, isa: Isa) -> Self {
        self.isa = isa;
        self
    }

    /// The instruction set that what is loaded from here runs on.
    ///
    /// ```
    /// use mpnet::Isa;
    ///
    /// # let checkpoint = mpnet::Checkpoint::open("tests/data/tiny")?;
    /// assert_eq!(checkpoint.root().on(Isa::available()[0]).isa(), Isa::available()[0]);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// What the factors of a product are rounded to that is not with weights, and numbers that only go from one product into
    /// another: nothing is won by rounding where bf16 is no faster.
    pub(crate) fn between(&self) -> Precision {
        match self.precision {
            Precision::Bf16 | Precision::Int8 if self.isa.multiplies_bf16() => Precision::Bf16,
            _ => Precision::F32,
        }
    }

    /// The same place, the weights of its linear layers to be rounded to `precision` instead of kept as `f32`.
    ///
    /// ```
    /// use mpnet::{Config, Precision, model::Mpnet};
    ///
    /// # let checkpoint = mpnet::Checkpoint::open("tests/data/tiny")?;
    /// # let config = Config::from_json(std::fs::read("tests/data/tiny/config.json").unwrap(), "config.json")?;
    /// let model = Mpnet::load(&checkpoint.encoder()?.precision(Precision::Int8), &config)?;
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The same place; `tie_word_embeddings` of config.json says whether a decoder may serve as the word embeddings.
    pub(crate) fn tied(mut self, tied: bool) -> Self {
        self.tied = tied;
        self
    }

    /// The same place; whether what rounding to integers leaves of its weights is to be kept too, for products
    /// [in full](PackedMatrix::in_full).
    pub(crate) fn keeping_rest(mut self, keeps: bool) -> Self {
        self.keeps_rest = keeps;
        self
    }

    pub(crate) fn keeps_rest(&self) -> bool {
        self.keeps_rest
    }

    /// The right-hand side of a product, packed as this place asks for it. `weight`: `[N, K]`.
    pub(crate) fn pack(&self, weight: ArrayView2<f32>) -> PackedMatrix {
        let arena = &self.checkpoint.arena;
        PackedMatrix::weights(self.isa, self.precision, &[weight], None, self.keeps_rest, arena)
    }

    /// The tensor `name`, `[rows, columns]`, as the right-hand side of a product.
    ///
    /// # Errors
    ///
    /// As [`Weights::vector`].
    pub(crate) fn packed(&self, name: &str, rows: usize, columns: usize) -> Result<PackedMatrix> {
        Self::stacked(&[self], name, rows, columns, None)
    }

    /// The tensors `name` of several places, `[rows, columns]` each, one below the other as the right-hand side of one
    /// product. `magnitudes` `[columns]`: see [`PackedMatrix::weights`].
    ///
    /// # Errors
    ///
    /// As [`Weights::vector`].
    ///
    /// # Panics
    ///
    /// If there are no places.
    pub(crate) fn stacked(
        places: &[&Self],
        name: &str,
        rows: usize,
        columns: usize,
        magnitudes: Option<&[f32]>,
    ) -> Result<PackedMatrix> {
        let &Self { checkpoint, isa, precision, keeps_rest, .. } = places[0];
        for place in places {
            place.find(name, &[rows, columns])?;
        }
        let pack = || {
            let parts: Result<Vec<_>> =
                places.iter().map(|place| place.borrow(name, rows, columns)).collect();
            let parts = parts?;
            let parts: Vec<_> = parts.iter().map(|part| part.view()).collect();
            let arena = &checkpoint.arena;
            let packed =
                PackedMatrix::weights(isa, precision, &parts, magnitudes, keeps_rest, arena);
            places.iter().for_each(|place| place.give_back(name));
            Ok(packed)
        };
        let shape = (rows * places.len(), columns);
        match &checkpoint.packed {
            Some(file) => file.matrix(&places[0].full(name), shape, precision, pack),
            None => pack(),
        }
    }

    /// The tensor `name`, `[rows, columns]`, row by row: a table that rows are looked up in.
    ///
    /// # Errors
    ///
    /// As [`Weights::vector`].
    pub(crate) fn table(&self, name: &str, rows: usize, columns: usize) -> Result<Words> {
        let full = self.full(name);
        let found = self.find(name, &[rows, columns])?;
        let read = || {
            let Found { file, dtype, bytes } = found;
            let words = convert::to_words(dtype, bytes, &self.checkpoint.arena)
                .ok_or_else(|| wrong_dtype(&full, file, dtype))?;
            self.give_back(name);
            Ok(words)
        };
        match &self.checkpoint.packed {
            Some(file) => file.plain(&full, (rows, columns), read),
            None => read(),
        }
    }

    /// The tensor `name`, `[rows, columns]`, each row made into `width` words by `round`.
    ///
    /// # Errors
    ///
    /// As [`Weights::vector`].
    pub(crate) fn rounded_table(
        &self,
        name: &str,
        (rows, columns): (usize, usize),
        width: usize,
        round: impl Fn(&[f32], &mut [u32]) + Sync,
    ) -> Result<Words> {
        self.find(name, &[rows, columns])?;
        let read = || {
            let table = self.borrow(name, rows, columns)?;
            let words = self.checkpoint.arena.words(rows.saturating_mul(width), |words| {
                let rows = table.axis_iter(Axis(0)).into_par_iter();
                rows.zip(words.par_chunks_mut(width)).for_each(|(row, words)| {
                    round(row.to_slice().expect("rows of a tensor are contiguous"), words);
                });
            });
            self.give_back(name);
            Ok(words)
        };
        match &self.checkpoint.packed {
            Some(file) => file.plain(&self.full(name), (rows, width), read),
            None => read(),
        }
    }

    /// What the weights of linear layers are rounded to.
    pub(crate) fn precision_asked(&self) -> Precision {
        self.precision
    }

    /// Whether there is a tensor `name` here.
    ///
    /// ```
    /// # let checkpoint = mpnet::Checkpoint::open("tests/data/tiny")?;
    /// assert!(checkpoint.root().has("embeddings.LayerNorm.weight"));
    /// assert!(!checkpoint.root().has("lm_head.dense.weight"));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.stored(name).is_some()
    }

    /// The tensor `name`, `[len]`.
    ///
    /// ```
    /// # let checkpoint = mpnet::Checkpoint::open("tests/data/tiny")?;
    /// let bias = checkpoint.encoder()?.vector("pooler.dense.bias", 32)?;
    /// assert_eq!(bias.len(), 32);
    /// assert!(checkpoint.encoder()?.vector("pooler.dense.bias", 31).is_err());
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::MissingTensor`], [`Error::TensorShape`] or [`Error::TensorDtype`], with its full name.
    pub fn vector(&self, name: &str, len: usize) -> Result<Array1<f32>> {
        self.read(name, &[len]).map(Array1::from)
    }

    /// The tensor `name`, `[rows, columns]`.
    ///
    /// ```
    /// # let checkpoint = mpnet::Checkpoint::open("tests/data/tiny")?;
    /// let table = checkpoint.encoder()?.matrix("embeddings.word_embeddings.weight", 605, 32)?;
    /// assert_eq!(table.dim(), (605, 32));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Weights::vector`].
    pub fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Array2<f32>> {
        let values = self.read(name, &[rows, columns])?;
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
        let found = self.find(name, &[rows, columns])?;
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

    /// The name under which the tensor `name` of this place is stored.
    fn stored(&self, name: &str) -> Option<&'c str> {
        self.checkpoint.locate(&self.full(name), self.tied)
    }

    fn find(&self, name: &str, expected: &[usize]) -> Result<Found<'c>> {
        let full = self.full(name);
        self.checkpoint.find(self.stored(name).unwrap_or(&full), expected)
    }

    fn read(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let full = self.full(name);
        self.checkpoint.read(self.stored(name).unwrap_or(&full), expected)
    }

    fn give_back(&self, name: &str) {
        if let Some(stored) = self.stored(name) {
            self.checkpoint.give_back(stored);
        }
    }
}
