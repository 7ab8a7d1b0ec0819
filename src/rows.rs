//! What functions on embeddings ask of them: rows that have columns, one width, and numbers.

use ndarray::ArrayRef2;

use crate::error::{Error, InputProblem, Result};

/// Fails with the first row that has a value that is infinite or not a number.
pub(crate) fn finite(what: &'static str, embeddings: &ArrayRef2<f32>) -> Result<()> {
    let rows = embeddings.as_standard_layout();
    let flat = rows.as_slice().expect("a standard layout is contiguous");
    match first_not_finite(flat, embeddings.ncols()) {
        Some(row) => Err(Error::Input { input: what, problem: InputProblem::NotFinite { row } }),
        None => Ok(()),
    }
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

/// Fails if there are rows, but nothing in them. `columns` says whose: "columns of the corpus".
pub(crate) fn has_columns(columns: &'static str, (rows, width): (usize, usize)) -> Result<()> {
    match (rows, width) {
        (1.., 0) => Err(Error::Input { input: columns, problem: InputProblem::Empty }),
        _ => Ok(()),
    }
}

/// Fails if the rows of `what` are not as wide as those that they meet.
pub(crate) fn same_width(what: &'static str, found: usize, expected: usize) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => {
            Err(Error::Input { input: what, problem: InputProblem::Width { found, expected } })
        }
    }
}
