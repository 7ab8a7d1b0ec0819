//! What the evaluators ask of their input, and how they make embeddings of texts.

use std::collections::HashMap;

use ndarray::{Array2, ArrayRef2, Axis};

use crate::error::{Error, InputProblem, Result};
use crate::rows::{same_width, usable};
use crate::sentence::{EncodeOptions, SentenceEncoder};
use crate::similarity::Similarity;

pub(super) fn wrong(input: &'static str, problem: String) -> Error {
    Error::Input { input, problem: InputProblem::Invalid(problem) }
}

pub(super) fn same_length(
    (input, found): (&'static str, usize),
    (other, want): (&str, usize),
) -> Result<()> {
    match found == want {
        true => Ok(()),
        false => Err(wrong(input, format!("has {found} elements, `{other}` has {want}"))),
    }
}

pub(super) fn not_empty(input: &'static str, length: usize) -> Result<()> {
    match length {
        0 => Err(Error::Input { input, problem: InputProblem::Empty }),
        _ => Ok(()),
    }
}

pub(super) fn finite(input: &'static str, values: &[f64]) -> Result<()> {
    match values.iter().enumerate().find(|(_, x)| !x.is_finite()) {
        None => Ok(()),
        Some((i, x)) => Err(wrong(input, format!("element {i} is {x}"))),
    }
}

/// The similarity of row `i` of `a` and row `i` of `b`.
pub(super) fn pairwise(
    similarity: Similarity,
    (a_name, a): (&'static str, &ArrayRef2<f32>),
    (b_name, b): (&'static str, &ArrayRef2<f32>),
) -> Result<Vec<f64>> {
    same_length((b_name, b.nrows()), (a_name, a.nrows()))?;
    same_width(b_name, b.ncols(), a.ncols())?;
    usable(a_name, a)?;
    usable(b_name, b)?;
    Ok(similarity.pairwise(a, b)?.iter().map(|&score| f64::from(score)).collect())
}

/// Those asked for, or the only one of `default`.
pub(super) fn or_default(asked: &[Similarity], default: Similarity) -> Vec<Similarity> {
    if asked.is_empty() { vec![default] } else { asked.to_vec() }
}

/// What a text is to its model, which may have a prompt for it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    /// One of its kind.
    Sentence,
    Query,
    Document,
}

/// How the texts of one argument are encoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Texts<'a> {
    pub(super) encoder: &'a SentenceEncoder,
    pub(super) role: Role,
    pub(super) prompt: Option<&'a str>,
    pub(super) truncate_dim: Option<usize>,
}

impl<'a> Texts<'a> {
    pub(super) fn new(encoder: &'a SentenceEncoder, truncate_dim: Option<usize>) -> Self {
        Self { encoder, role: Role::Sentence, prompt: None, truncate_dim }
    }

    pub(super) fn role(self, role: Role) -> Self {
        Self { role, ..self }
    }

    pub(super) fn prompt(self, prompt: Option<&'a str>) -> Self {
        Self { prompt, ..self }
    }

    /// The embedding of each text, `[B, D]`. A text that occurs again is encoded once.
    pub(super) fn encode<S: AsRef<str>>(self, texts: &[S]) -> Result<Array2<f32>> {
        let mut different = Vec::new();
        let mut seen = HashMap::new();
        let rows: Vec<usize> = texts
            .iter()
            .map(AsRef::as_ref)
            .map(|text| {
                *seen.entry(text).or_insert_with(|| {
                    different.push(text);
                    different.len() - 1
                })
            })
            .collect();
        let mut options = EncodeOptions::default();
        if let Some(prompt) = self.prompt {
            options = options.prompt(prompt);
        }
        if let Some(k) = self.truncate_dim {
            options = options.truncate_dim(k);
        }
        let encoder = self.encoder;
        let report = match self.role {
            Role::Sentence => encoder.encode_with(&different, &options),
            Role::Query => encoder.encode_query_with(&different, &options),
            Role::Document => encoder.encode_document_with(&different, &options),
        };
        let embeddings = encoder.warn_if_cut(report?);
        if different.len() == texts.len() {
            return Ok(embeddings);
        }
        Ok(embeddings.select(Axis(0), &rows))
    }
}
