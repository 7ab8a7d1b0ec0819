//! Checks of embeddings: rows with columns, of one width, without infinite values or NaN.

use ndarray::{ArrayRef2, ArrayView1};

use crate::error::{Error, InputProblem, Result};

/// Fails with the first row that has a value that is infinite or not a number.
pub(crate) fn finite(input: &'static str, embeddings: &ArrayRef2<f32>) -> Result<()> {
    let rows = embeddings.as_standard_layout();
    let flat = rows.as_slice().expect("a standard layout is contiguous");
    match first_not_finite(flat, embeddings.ncols()) {
        Some(row) => Err(not_finite(input, row, embeddings.row(row))),
        None => Ok(()),
    }
}

/// Fails for rows that have no columns, or a value that is infinite or not a number.
pub(crate) fn usable(input: &'static str, rows: &ArrayRef2<f32>) -> Result<()> {
    has_columns(input, rows.dim())?;
    finite(input, rows)
}

/// The error for row `row` of `input`, in whose `values` one is not finite.
pub(crate) fn not_finite(input: &'static str, row: usize, values: ArrayView1<f32>) -> Error {
    let value = values.iter().copied().find(|x| !x.is_finite()).unwrap_or(f32::NAN);
    Error::Input { input, problem: InputProblem::NotFinite { row, value } }
}

/// The first row of `rows`, each `d` long, with a value that is infinite or not a number.
pub(crate) fn first_not_finite(rows: &[f32], d: usize) -> Option<usize> {
    const EXPONENT: u32 = 0x7F80_0000;
    // Without a way out of the loop, so that it is done by vectors.
    let any =
        |row: &[f32]| row.iter().fold(false, |any, x| any | (x.to_bits() & EXPONENT == EXPONENT));
    if !any(rows) {
        return None;
    }
    rows.chunks_exact(d).position(any)
}

/// Fails if there are rows, but no columns.
pub(crate) fn has_columns(input: &'static str, (rows, width): (usize, usize)) -> Result<()> {
    match (rows, width) {
        (1.., 0) => Err(Error::Input { input, problem: InputProblem::NoColumns }),
        _ => Ok(()),
    }
}

/// Fails if the rows of `input` are not as wide as `expected`.
pub(crate) fn same_width(input: &'static str, found: usize, expected: usize) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(Error::Input { input, problem: InputProblem::Width { found, expected } }),
    }
}
