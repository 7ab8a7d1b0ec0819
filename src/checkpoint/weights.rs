//! [`Weights`]: a place among the names of a source.

use ndarray::{Array1, Array2, ArrayView2, CowArray, Ix2};

use super::source::{Source, Tensor};
use crate::error::{Error, Result, TensorProblem};

/// A place among a checkpoint's names: `weights.at("encoder").at("layer.3")` is where the names
/// that begin with `encoder.layer.3.` are.
///
/// ```
/// # let checkpoint = mpnet::Checkpoint::open("tests/data/tiny")?;
/// let layer = checkpoint.encoder()?.at("encoder.layer.2");
/// let expand = layer.at("intermediate.dense").matrix("weight", 64, 32)?; // [F, D]
/// # assert_eq!(expand.dim(), (64, 32));
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Weights<'s> {
    source: &'s dyn Source,
    prefix: String,
    /// Whether the word embeddings may be those that the decoder of a masked language model is
    /// tied to.
    tied: bool,
}

impl<'s> Weights<'s> {
    /// The root of all names.
    pub(crate) fn root(source: &'s dyn Source) -> Self {
        Self { source, prefix: String::new(), tied: true }
    }

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
        self.below(&format!("{name}."))
    }

    /// The place whose names begin with `prefix`, after this one's.
    pub(crate) fn below(&self, prefix: &str) -> Self {
        Self { prefix: format!("{}{prefix}", self.prefix), ..*self }
    }

    /// The same place; `tie_word_embeddings` of config.json says whether a decoder may serve as the
    /// word embeddings.
    pub(crate) fn tied(mut self, tied: bool) -> Self {
        self.tied = tied;
        self
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
    /// [`TensorProblem::Missing`](crate::TensorProblem::Missing),
    /// [`TensorProblem::Shape`](crate::TensorProblem::Shape) or
    /// [`TensorProblem::Dtype`](crate::TensorProblem::Dtype), with its full name.
    pub fn vector(&self, name: &str, len: usize) -> Result<Array1<f32>> {
        self.find(name, &[len])?.to_f32().map(Array1::from)
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
        let tensor = self.find(name, &[rows, columns])?;
        // A tensor without elements may have a length that no array can have.
        Array2::from_shape_vec((rows, columns), tensor.to_f32()?).map_err(|_| Error::Tensor {
            name: self.full(name),
            file: "the checkpoint".to_owned(),
            problem: TensorProblem::Shape { found: vec![rows, columns], expected: vec![0, 0] },
        })
    }

    /// The tensor `name`, `[rows, columns]`, borrowed from where it lies if it is aligned `f32`s.
    ///
    /// # Errors
    ///
    /// As [`Weights::vector`].
    pub(crate) fn borrow(
        &self,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<CowArray<'s, f32, Ix2>> {
        let there = self.find(name, &[rows, columns])?.as_f32();
        match there.and_then(|values| ArrayView2::from_shape((rows, columns), values).ok()) {
            Some(view) => Ok(view.into()),
            None => self.matrix(name, rows, columns).map(CowArray::from),
        }
    }

    /// The tensor `name`, where it is stored.
    ///
    /// # Errors
    ///
    /// [`TensorProblem::Missing`](crate::TensorProblem::Missing) or
    /// [`TensorProblem::Shape`](crate::TensorProblem::Shape), with its full name.
    pub(crate) fn find(&self, name: &str, expected: &[usize]) -> Result<Tensor<'s>> {
        let full = self.full(name);
        self.source.find(self.stored(name).unwrap_or(&full), expected)
    }

    /// Says that the tensor `name` has been prepared and need not stay in memory.
    pub(crate) fn give_back(&self, name: &str) {
        if let Some(stored) = self.stored(name) {
            self.source.give_back(stored);
        }
    }

    /// The tensor's name from the root.
    pub(crate) fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The name under which the tensor `name` of this place is stored.
    pub(super) fn stored(&self, name: &str) -> Option<&'s str> {
        self.source.locate(&self.full(name), self.tied)
    }

    /// What all names of this place begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }
}
