//! [`Source`]: where named arrays come from.

use std::fmt::Debug;

use safetensors::Dtype;

use super::convert;
use crate::error::{Error, Result, TensorProblem};

/// Named arrays: a checkpoint's, or parameters in memory.
pub(crate) trait Source: Debug + Sync {
    /// The name under which the tensor `name` is stored. With `tied`, the word embeddings may be
    /// those of the decoder.
    fn locate(&self, name: &str, tied: bool) -> Option<&str>;

    /// The stored tensor `name`.
    ///
    /// # Errors
    ///
    /// [`TensorProblem::Missing`](crate::TensorProblem::Missing) if it is not there,
    /// [`TensorProblem::Shape`](crate::TensorProblem::Shape) if its shape is not `expected`.
    fn find(&self, name: &str, expected: &[usize]) -> Result<Tensor<'_>>;

    /// Says that the stored tensor `name` has been prepared and need not stay in memory.
    fn give_back(&self, _name: &str) {}
}

/// A tensor where it is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tensor<'s> {
    name: &'s str,
    file: &'s str,
    pub(crate) elements: Elements<'s>,
}

/// The elements of a tensor, row-major.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Elements<'s> {
    Floats(&'s [f32]),
    /// Little-endian, not aligned.
    Bytes(Dtype, &'s [u8]),
}

impl<'s> Tensor<'s> {
    /// The tensor `name` of `file`.
    pub(crate) fn new(name: &'s str, file: &'s str, elements: Elements<'s>) -> Self {
        Self { name, file, elements }
    }

    /// The same, if its shape, `found`, is `expected`.
    pub(crate) fn checked(self, found: &[usize], expected: &[usize]) -> Result<Self> {
        if found == expected {
            return Ok(self);
        }
        Err(Error::Tensor {
            name: self.name.to_owned(),
            file: format!("`{}`", self.file),
            problem: TensorProblem::Shape {
                found: found.to_owned(),
                expected: expected.to_owned(),
            },
        })
    }

    /// The elements as they lie in memory, if they are aligned `f32`s.
    pub(crate) fn as_f32(&self) -> Option<&'s [f32]> {
        match self.elements {
            Elements::Floats(values) => Some(values),
            Elements::Bytes(dtype, bytes) => convert::as_f32(dtype, bytes),
        }
    }

    /// How many elements there are.
    ///
    /// # Errors
    ///
    /// [`TensorProblem::Dtype`](crate::TensorProblem::Dtype) if they are not of a floating-point
    /// type that can be read.
    pub(crate) fn len(&self) -> Result<usize> {
        match self.elements {
            Elements::Floats(values) => Ok(values.len()),
            Elements::Bytes(dtype, bytes) => {
                convert::elements(dtype, bytes).ok_or_else(|| Error::Tensor {
                    name: self.name.to_owned(),
                    file: format!("`{}`", self.file),
                    problem: TensorProblem::Dtype { found: format!("{dtype:?}") },
                })
            }
        }
    }

    /// Writes the elements to `out`, which has [`len`](Self::len) elements.
    pub(crate) fn copy_to(&self, out: &mut [f32]) {
        match self.elements {
            Elements::Floats(values) => out.copy_from_slice(values),
            Elements::Bytes(dtype, bytes) => convert::convert(dtype, bytes, out),
        }
    }

    /// The elements as `f32`.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub(crate) fn to_f32(self) -> Result<Vec<f32>> {
        let mut out = vec![0.0; self.len()?];
        self.copy_to(&mut out);
        Ok(out)
    }
}
