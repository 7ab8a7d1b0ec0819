//! [`Ranges`]: between which values each dimension is cut into buckets.

use std::path::{Path, PathBuf};

use ndarray::{Array2, ArrayRef2, ArrayView2, Axis};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::error::{Error, FileProblem, InputProblem, Result, TensorProblem};
use crate::files::ModelFiles;
use crate::rows::finite;

/// The smallest and the largest value of each dimension, `[2, D]`, as the reference's `ranges`.
///
/// Kept in a safetensors file they can be read in Python too: `load_file(path)["ranges"]`.
///
/// ```
/// use mpnet::{ndarray::arr2, quantization::Ranges};
///
/// let ranges = Ranges::calibrate(&arr2(&[[0.1_f32, 3.0], [0.4, -1.0]]).view())?;
/// assert_eq!(ranges.as_array(), arr2(&[[0.1, -1.0], [0.4, 3.0]]));
/// let path = std::env::temp_dir().join("mpnet-doctest-ranges.safetensors");
/// ranges.save(&path)?;
/// assert_eq!(Ranges::load(&path)?, ranges);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Ranges(Array2<f32>);

/// The tensor's name in a file of ranges.
const TENSOR: &str = "ranges";

impl Ranges {
    /// Of `ranges` `[2, D]`: the smallest values, then the largest.
    ///
    /// ```
    /// use mpnet::{ndarray::arr2, quantization::Ranges};
    ///
    /// let ranges = Ranges::new(arr2(&[[-1.0_f32, -0.5], [1.0, 0.5]]))?;
    /// assert_eq!(ranges.width(), 2);
    /// assert!(Ranges::new(arr2(&[[1.0], [-1.0]])).is_err()); // begins above its end
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if there are not two rows, a smallest value is above its largest, or the
    /// difference of the two is too large for an `f32`;
    /// [`InputProblem::NotFinite`](crate::InputProblem::NotFinite) for a row with a value that is
    /// infinite or not a number.
    pub fn new(ranges: Array2<f32>) -> Result<Self> {
        let wrong = |problem| Err(Error::Option { option: TENSOR, problem });
        if ranges.nrows() != 2 {
            return wrong(format!("{} rows, not the smallest and the largest", ranges.nrows()));
        }
        finite("ranges", &ranges.view())?;
        let pairs = ranges.row(0).into_iter().zip(ranges.row(1));
        if let Some((k, (low, high))) = pairs.enumerate().find(|(_, (low, high))| low > high) {
            return wrong(format!("of dimension {k} begin at {low}, above their end at {high}"));
        }
        let pairs = ranges.row(0).into_iter().zip(ranges.row(1));
        let beyond = |low: f32, high: f32| !(255.0 * step(low, high) + low).is_finite();
        if let Some((k, (low, high))) =
            pairs.enumerate().find(|&(_, (&low, &high))| beyond(low, high))
        {
            return wrong(format!(
                "of dimension {k} reach from {low:e} to {high:e}, which is wider than an f32 can say"
            ));
        }
        Ok(Self(ranges))
    }

    /// The ranges of `embeddings` `[B, D]`, of which there should be a hundred or more that are
    /// like those to be quantised.
    ///
    /// ```
    /// use mpnet::{Error, ndarray::arr2, quantization::Ranges};
    ///
    /// let ranges = Ranges::calibrate(&arr2(&[[0.1_f32, 3.0], [0.4, -1.0]]).view())?;
    /// assert_eq!(ranges.as_array(), arr2(&[[0.1, -1.0], [0.4, 3.0]]));
    /// let none = Ranges::calibrate(&arr2(&[[0.0_f32; 2]; 0]).view());
    /// assert!(matches!(none, Err(Error::Input { problem: mpnet::InputProblem::Empty, .. })));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InputProblem::Empty`](crate::InputProblem::Empty) if there are none, [`Error::Option`] for
    /// a single one, of which every range would be empty, and for values of one dimension whose
    /// difference is too large for an `f32`,
    /// [`InputProblem::NotFinite`](crate::InputProblem::NotFinite) for one with a value that is
    /// infinite or not a number.
    pub fn calibrate(embeddings: &ArrayRef2<f32>) -> Result<Self> {
        match embeddings.nrows() {
            0 => {
                return Err(Error::Input { input: "embeddings", problem: InputProblem::Empty });
            }
            1 => {
                let problem = "ranges cannot be had from a single embedding".to_owned();
                return Err(Error::Option { option: "calibration_embeddings", problem });
            }
            _ => finite("embeddings", embeddings)?,
        }
        let mut ranges = Array2::zeros((2, embeddings.ncols()));
        ranges.row_mut(0).fill(f32::INFINITY);
        ranges.row_mut(1).fill(f32::NEG_INFINITY);
        let (mut low, mut high) = ranges.view_mut().split_at(Axis(0), 1);
        for row in embeddings.rows() {
            low.row_mut(0).zip_mut_with(&row, |low, &x| *low = low.min(x));
            high.row_mut(0).zip_mut_with(&row, |high, &x| *high = high.max(x));
        }
        Self::new(ranges)
    }

    /// `D`
    ///
    /// ```
    /// use mpnet::{ndarray::Array2, quantization::Ranges};
    ///
    /// assert_eq!(Ranges::new(Array2::zeros((2, 768)))?.width(), 768);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn width(&self) -> usize {
        self.0.ncols()
    }

    /// `[2, D]`: the smallest values, then the largest.
    ///
    /// ```
    /// use mpnet::{ndarray::arr2, quantization::Ranges};
    ///
    /// let ranges = Ranges::new(arr2(&[[-1.0_f32, 0.0], [1.0, 2.0]]))?;
    /// assert_eq!(ranges.as_array().row(1).to_vec(), [1.0, 2.0]); // the largest values
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn as_array(&self) -> ArrayView2<'_, f32> {
        self.0.view()
    }

    /// Writes them to a safetensors file, as the tensor `ranges`.
    ///
    /// ```
    /// # let embeddings = mpnet::ndarray::Array2::<f32>::zeros((1000, 768));
    /// # let corpus = tempfile::tempdir().unwrap();
    /// let ranges = mpnet::quantization::Ranges::calibrate(&embeddings.view())?;
    /// ranges.save(corpus.path().join("ranges.safetensors"))?;
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes: Vec<u8> = self.0.iter().flat_map(|x| x.to_le_bytes()).collect();
        let damaged = |source: safetensors::SafeTensorError| Error::File {
            file: path.display().to_string(),
            problem: FileProblem::Safetensors { source: source.into() },
        };
        let tensor = TensorView::new(Dtype::F32, vec![2, self.width()], &bytes).map_err(damaged)?;
        let file = safetensors::serialize([(TENSOR, tensor)], None).map_err(damaged)?;
        std::fs::write(path, file).map_err(|source| Error::Io { path: path.to_owned(), source })
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// ```
    /// use mpnet::quantization::Ranges;
    ///
    /// # let corpus = tempfile::tempdir().unwrap();
    /// # let file = corpus.path().join("ranges.safetensors");
    /// # Ranges::new(mpnet::ndarray::Array2::zeros((2, 768)))?.save(&file)?;
    /// let ranges = Ranges::load(&file)?;
    /// assert_eq!(ranges.width(), 768); // for embeddings of this width
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`FileProblem::Safetensors`](crate::FileProblem::Safetensors),
    /// [`TensorProblem::Missing`](crate::TensorProblem::Missing),
    /// [`TensorProblem::Shape`](crate::TensorProblem::Shape) or
    /// [`TensorProblem::Dtype`](crate::TensorProblem::Dtype) if the file is not one of ranges, and
    /// what [`new`](Self::new) says.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            let source = std::io::Error::other("not a file");
            return Err(Error::Io { path: path.to_owned(), source });
        };
        let name = name.to_string_lossy();
        let bytes = match ModelFiles::directory(directory).read(&name)? {
            Some(bytes) => bytes,
            None => {
                let (path, source) = (PathBuf::from(path), std::io::ErrorKind::NotFound.into());
                return Err(Error::Io { path, source });
            }
        };
        let file = path.display().to_string();
        let found = SafeTensors::deserialize(&bytes).map_err(|source| Error::File {
            file: file.clone(),
            problem: FileProblem::Safetensors { source: source.into() },
        })?;
        let Ok(tensor) = found.tensor(TENSOR) else {
            let found = found.names().into_iter().take(5).map(String::from).collect();
            return Err(Error::Tensor {
                name: TENSOR.to_owned(),
                file,
                problem: TensorProblem::Missing { found },
            });
        };
        if tensor.dtype() != Dtype::F32 {
            let found = format!("{:?}", tensor.dtype());
            return Err(Error::Tensor {
                name: TENSOR.to_owned(),
                file,
                problem: TensorProblem::Dtype { found },
            });
        }
        let &[2, width] = tensor.shape() else {
            let (found, expected) =
                (tensor.shape().to_vec(), vec![2, tensor.shape().last().copied().unwrap_or(1)]);
            return Err(Error::Tensor {
                name: TENSOR.to_owned(),
                file,
                problem: TensorProblem::Shape { found, expected },
            });
        };
        let (values, _) = tensor.data().as_chunks();
        let values = values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        // The reader has compared the shape with the number of bytes.
        Self::new(Array2::from_shape_vec((2, width), values).expect("2 · D values"))
    }

    /// Fails if `embeddings` of `width` have other ranges than these.
    pub(super) fn fit(&self, width: usize) -> Result<()> {
        if width == self.width() {
            return Ok(());
        }
        Err(Error::Input {
            input: "ranges",
            problem: InputProblem::Width { found: self.width(), expected: width },
        })
    }

    /// The width of a bucket of each dimension; 1 where all values are the same.
    pub(super) fn steps(&self) -> Vec<f32> {
        let pairs = self.0.row(0).into_iter().zip(self.0.row(1));
        pairs.map(|(&low, &high)| step(low, high)).collect()
    }

    /// Where the buckets of each dimension begin.
    pub(super) fn starts(&self) -> Vec<f32> {
        self.0.row(0).to_vec()
    }
}

/// The width of a bucket, of which there are 256 from `low` to `high`; 1 if these are the same.
fn step(low: f32, high: f32) -> f32 {
    match (high - low) / 255.0 {
        0.0 => 1.0,
        step => step,
    }
}
