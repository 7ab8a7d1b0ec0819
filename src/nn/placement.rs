//! [`Placement`]: how the operands of a model are prepared from its parameters.

use std::path::Path;

use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::packed_file::{Key, PackedFile};
use crate::checkpoint::Weights;
use crate::error::Result;
use crate::kernels::Precision;
use crate::kernels::gemm::PackedMatrix;
use crate::kernels::isa::Isa;
use crate::kernels::memory::{Arena, Words};

/// For which instructions, in which precision and into which memory operands are prepared.
///
/// ```
/// use mpnet::model::{Mpnet, Placement};
/// use mpnet::{Checkpoint, Config, Precision};
///
/// # let directory = std::path::Path::new("tests/data/tiny");
/// let config = Config::from_json(std::fs::read(directory.join("config.json"))?, "config.json")?;
/// let checkpoint = Checkpoint::open(directory)?;
/// let at = Placement::detect()?.precision(Precision::Int8);
/// let model = Mpnet::prepare(&checkpoint.encoder()?, &config, &at)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Placement {
    isa: Isa,
    precision: Precision,
    /// The memory of operands that stay with the model.
    arena: Arena,
    /// The file that operands are mapped from, or written to for the next time.
    file: Option<PackedFile>,
}

impl Placement {
    /// In `f32`, for the instruction set that `MPNET_ISA` names, else the fastest of this machine.
    ///
    /// ```
    /// let at = mpnet::model::Placement::detect()?;
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Option`](crate::Error::Option) if `MPNET_ISA` names no instruction set of this
    /// machine.
    pub fn detect() -> Result<Self> {
        Isa::detect().map(Self::on)
    }

    /// In `f32`, for `isa`.
    ///
    /// ```
    /// let at = mpnet::model::Placement::on(mpnet::Isa::best());
    /// ```
    #[must_use]
    pub fn on(isa: Isa) -> Self {
        let (precision, arena) = (Precision::F32, Arena::default());
        Self { isa, precision, arena, file: None }
    }

    /// The same, with the weights of linear layers rounded to `precision`.
    ///
    /// ```
    /// use mpnet::{Isa, Precision, model::Placement};
    ///
    /// let at = Placement::on(Isa::best()).precision(Precision::Bf16);
    /// ```
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The same, with operands mapped from the file at `path` as far as it has them. `digest` is a
    /// fingerprint of the parameters. [`save`](Self::save) writes the file if it was incomplete.
    ///
    /// # Errors
    ///
    /// As [`PackedFile::open`].
    pub(crate) fn with_file(
        mut self,
        path: &Path,
        digest: impl FnOnce() -> String,
    ) -> Result<Self> {
        let key = || Key::new(self.isa, self.precision, digest());
        self.file = Some(PackedFile::open(path, self.isa, key)?);
        Ok(self)
    }

    /// Writes the file of operands, if there is to be one that was incomplete.
    pub(crate) fn save(&self) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), PackedFile::save)
    }

    /// The instruction set.
    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    /// The precision of the weights of linear layers.
    pub(crate) fn linear(&self) -> Precision {
        self.precision
    }

    /// The tensors `weight` of several places, `[rows, columns]` each, one below the other as the
    /// right-hand side of one product. `magnitudes` `[columns]` and `keeps_rest`: see
    /// [`PackedMatrix::weights`].
    ///
    /// # Errors
    ///
    /// As [`Weights::vector`].
    ///
    /// # Panics
    ///
    /// If there are no places.
    pub(super) fn matrix(
        &self,
        places: &[&Weights],
        (rows, columns): (usize, usize),
        magnitudes: Option<&[f32]>,
        keeps_rest: bool,
    ) -> Result<PackedMatrix> {
        for place in places {
            place.find(WEIGHT, &[rows, columns])?;
        }
        let pack = || {
            let parts = places.iter().map(|place| place.borrow(WEIGHT, rows, columns));
            let parts = parts.collect::<Result<Vec<_>>>()?;
            let parts: Vec<_> = parts.iter().map(|part| part.view()).collect();
            let packed = self.pack(&parts, magnitudes, keeps_rest);
            places.iter().for_each(|place| place.give_back(WEIGHT));
            Ok(packed)
        };
        match &self.file {
            Some(file) => {
                let shape = (rows * places.len(), columns);
                file.matrix(&places[0].full(WEIGHT), shape, self.precision, pack)
            }
            None => pack(),
        }
    }

    /// `parts`, `[Nᵢ, K]`, one below the other as the right-hand side of one product.
    pub(super) fn pack(
        &self,
        parts: &[ArrayView2<f32>],
        magnitudes: Option<&[f32]>,
        keeps_rest: bool,
    ) -> PackedMatrix {
        let Self { isa, precision, arena, .. } = self;
        PackedMatrix::weights(*isa, *precision, parts, magnitudes, keeps_rest, arena)
    }

    /// The tensor `weight` of `w`, `[rows, columns]`, as `f32`: a table that rows are looked up in.
    ///
    /// # Errors
    ///
    /// As [`Weights::vector`].
    pub(super) fn table(&self, w: &Weights, (rows, columns): (usize, usize)) -> Result<Words> {
        let tensor = w.find(WEIGHT, &[rows, columns])?;
        self.kept(w, (rows, columns), || {
            let fill = |words: &mut [u32]| {
                let floats = <[f32]>::mut_from_bytes(words.as_mut_bytes());
                tensor.copy_to(floats.expect("of the same size and alignment"));
            };
            Ok(self.arena.words(tensor.len()?, fill))
        })
    }

    /// The tensor `weight` of `w`, `[rows, columns]`, each row rounded to `width` words by `round`.
    ///
    /// # Errors
    ///
    /// As [`Weights::vector`].
    pub(super) fn rounded_table(
        &self,
        w: &Weights,
        (rows, columns): (usize, usize),
        width: usize,
        round: impl Fn(&[f32], &mut [u32]) + Sync,
    ) -> Result<Words> {
        w.find(WEIGHT, &[rows, columns])?;
        self.kept(w, (rows, width), || {
            let table = w.borrow(WEIGHT, rows, columns)?;
            Ok(self.arena.words(rows.saturating_mul(width), |words| {
                let rows = table.axis_iter(Axis(0)).into_par_iter();
                rows.zip(words.par_chunks_mut(width)).for_each(|(row, words)| {
                    round(row.to_slice().expect("rows of a tensor are contiguous"), words);
                });
            }))
        })
    }

    /// The table that `make` makes of the tensor `weight` of `w`, or that of the file.
    fn kept(
        &self,
        w: &Weights,
        shape: (usize, usize),
        make: impl FnOnce() -> Result<Words>,
    ) -> Result<Words> {
        let make = || {
            let words = make()?;
            w.give_back(WEIGHT);
            Ok(words)
        };
        match &self.file {
            Some(file) => file.plain(&w.full(WEIGHT), shape, make),
            None => make(),
        }
    }
}

/// The tensor of a linear layer or an embedding.
const WEIGHT: &str = "weight";
