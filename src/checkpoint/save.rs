//! Weights → a safetensors file in another type, one tensor at a time.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::str::FromStr;

use half::{bf16, f16};
use safetensors::tensor::View;
use safetensors::{Dtype, SafeTensorError};

use super::source::{Elements, Source, Tensor};
use super::{Checkpoint, names};
use crate::error::{Error, FileProblem, Result};

/// The type in which weights are stored in a file.
///
/// ```
/// use mpnet::WeightDtype;
///
/// assert_eq!("bf16".parse::<WeightDtype>()?, WeightDtype::Bf16);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum WeightDtype {
    /// 32 bits: `float32`.
    #[default]
    F32,
    /// 16 bits, 11 of them precise; the largest number is 65504: `float16`.
    F16,
    /// 16 bits, 8 of them precise, with the range of `f32`: `bfloat16`.
    Bf16,
}

impl FromStr for WeightDtype {
    type Err = Error;

    /// From `f32`, `f16`, `bf16`, or the names that torch gives them.
    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "f32" | "float32" => Self::F32,
            "f16" | "float16" => Self::F16,
            "bf16" | "bfloat16" => Self::Bf16,
            _ => {
                let problem = format!("`{name}` is not known; f32, f16 and bf16 are");
                return Err(Error::Option { option: "dtype", problem });
            }
        })
    }
}

impl WeightDtype {
    /// What torch and `config.json` call it.
    pub(crate) fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    fn stored(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
        }
    }

    /// `x`, rounded to nearest, ties to even, and back.
    fn round(self, x: f32) -> f32 {
        match self {
            Self::F32 => x,
            Self::F16 => f16::from_f32(x).to_f32(),
            Self::Bf16 => bf16::from_f32(x).to_f32(),
        }
    }

    fn bytes(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        }
    }
}

impl Checkpoint<'_> {
    /// Writes the tensors of the MPNet encoder as the model alone has them, without prefix, heads
    /// and buffers. `tied`: `tie_word_embeddings` of config.json.
    pub(crate) fn save_encoder(&self, path: &Path, dtype: WeightDtype, tied: bool) -> Result<()> {
        let encoder = self.encoder()?.tied(tied);
        let stored = self.tensors.keys().chain(self.aliases.keys());
        let names: BTreeSet<String> = stored
            .filter_map(|name| names::in_encoder(name, encoder.prefix()))
            .chain([names::WORDS.to_owned()])
            .collect();
        let place = |name: String| match encoder.stored(&name) {
            Some(stored) => Ok((stored, name)),
            None => Err(self.missing(&encoder.full(&name))),
        };
        let tensors: Result<Vec<_>> = names.into_iter().map(place).collect();
        self.write(path, dtype, tensors?)
    }

    /// Writes the tensors as they are.
    pub(crate) fn save(&self, path: &Path, dtype: WeightDtype) -> Result<()> {
        let tensors = self.names().into_iter().map(|name| (name, name.to_owned()));
        self.write(path, dtype, tensors.collect())
    }

    /// Writes tensors, each by the name it is stored under and the name it is to have.
    fn write(&self, path: &Path, dtype: WeightDtype, names: Vec<(&str, String)>) -> Result<()> {
        let mut tensors = Vec::new();
        for (name, new) in names {
            let info =
                self.tensors.get(name).and_then(|t| self.shards[t.shard].metadata.info(name));
            let shape = &info.ok_or_else(|| self.missing(name))?.shape;
            tensors.push((new, &shape[..], self.find(name, shape)?));
        }
        save(path, dtype, tensors)
    }
}

/// Writes tensors, each with its name and shape, to a safetensors file, one at a time. The file
/// gets its name when it is complete.
pub(crate) fn save(
    path: &Path,
    dtype: WeightDtype,
    tensors: Vec<(String, &[usize], Tensor)>,
) -> Result<()> {
    for (name, _, tensor) in &tensors {
        check(name, *tensor, dtype)?;
    }
    let converted = |(name, shape, tensor)| (name, Converted { tensor, shape, dtype });
    let tensors = tensors.into_iter().map(converted);
    // What transformers looks for before it loads a file.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let written = safetensors::serialize_to_file(tensors, Some(metadata), partial.as_ref());
    let written = written.map_err(|error| match error {
        SafeTensorError::IoError(source) => failed(source),
        source => Error::File {
            file: path.display().to_string(),
            problem: FileProblem::Safetensors { source: source.into() },
        },
    });
    let moved = written.and_then(|()| fs::rename(&partial, path).map_err(failed));
    if moved.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&partial);
    }
    moved
}

/// Fails if the tensor does not consist of numbers, or one of them would become infinite.
fn check(name: &str, tensor: Tensor, dtype: WeightDtype) -> Result<()> {
    let same = match tensor.elements {
        Elements::Floats(_) => dtype == WeightDtype::F32,
        Elements::Bytes(stored, _) => stored == dtype.stored(),
    };
    if same {
        return Ok(());
    }
    match tensor.to_f32()?.iter().find(|x| x.is_finite() && !dtype.round(**x).is_finite()) {
        Some(x) => Err(Error::Option {
            option: "dtype",
            problem: format!("{} cannot hold {x}, which is in `{name}`", dtype.torch_name()),
        }),
        None => Ok(()),
    }
}

/// A tensor that is converted when it is written, and then forgotten.
struct Converted<'c> {
    tensor: Tensor<'c>,
    shape: &'c [usize],
    dtype: WeightDtype,
}

impl View for Converted<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype.stored()
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self.tensor.elements {
            Elements::Bytes(dtype, bytes) if dtype == self.dtype() => Cow::Borrowed(bytes),
            // Checked before: it is a type that converts.
            _ => Cow::Owned(self.dtype.bytes(&self.tensor.to_f32().unwrap_or_default())),
        }
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.stored().bitsize() / 8
    }
}
