//! The fields of `config.json` that only heads read: labels, what the head was trained for, and
//! what a cross-encoder's logits go through.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, FileProblem, Result, TensorProblem};
use crate::files::parse_json;

/// What a sequence classification head was trained for: `problem_type` in `config.json`.
///
/// ```
/// use mpnet::heads::ProblemType;
///
/// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("sequence_classification");
/// # let model = mpnet::heads::SequenceClassification::from_pretrained(files)?;
/// assert_eq!(model.problem_type(), Some(ProblemType::SingleLabelClassification));
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemType {
    /// Numbers: logits are the answer.
    Regression,
    /// One label of several: softmax over the logits.
    SingleLabelClassification,
    /// Any number of labels: a sigmoid of each logit.
    MultiLabelClassification,
}

/// The labels' names and the head's settings.
#[derive(Debug)]
pub(super) struct HeadConfig {
    file: String,
    id2label: Option<Vec<String>>,
    num_labels: usize,
    pub(super) problem_type: Option<ProblemType>,
    pub(super) activation: Option<SavedActivation>,
}

/// What sentence-transformers has noted as a cross-encoder's activation, and where.
#[derive(Debug, Clone)]
pub(super) struct SavedActivation {
    pub(super) file: String,
    pub(super) field: &'static str,
    /// The Python class.
    pub(super) class: String,
}

#[derive(Deserialize)]
struct Raw {
    id2label: Option<BTreeMap<String, Value>>,
    num_labels: Option<usize>,
    problem_type: Option<String>,
    sentence_transformers: Option<SentenceTransformers>,
    sbert_ce_default_activation_function: Option<String>,
}

/// What sentence-transformers said of a cross-encoder in `config.json`, before version 6.
#[derive(Deserialize)]
struct SentenceTransformers {
    activation_fn: Option<String>,
}

impl HeadConfig {
    pub(super) fn from_json(json: impl AsRef<[u8]>, file: &str) -> Result<Self> {
        let raw: Raw = parse_json(json.as_ref(), file)?;
        let wrong = |field: &str, problem| Error::Field {
            file: file.to_owned(),
            field: field.to_owned(),
            problem,
        };
        let id2label =
            raw.id2label.map(names).transpose().map_err(|problem| wrong("id2label", problem))?;
        let problem_type = match raw.problem_type.as_deref() {
            None => None,
            Some("regression") => Some(ProblemType::Regression),
            Some("single_label_classification") => Some(ProblemType::SingleLabelClassification),
            Some("multi_label_classification") => Some(ProblemType::MultiLabelClassification),
            Some(other) => {
                let problem = format!(
                    "`{other}` is not known; regression, single_label_classification and \
                     multi_label_classification are"
                );
                return Err(wrong("problem_type", problem));
            }
        };
        let saved = raw.sentence_transformers.and_then(|saved| saved.activation_fn);
        let saved = saved.map(|class| ("sentence_transformers.activation_fn", class));
        let older = raw.sbert_ce_default_activation_function;
        let older = older.map(|class| ("sbert_ce_default_activation_function", class));
        let activation = saved.or(older).map(|(field, class)| SavedActivation {
            file: file.to_owned(),
            field,
            class,
        });
        // The reference lets the names decide, and has two labels if nothing is said.
        let num_labels = id2label.as_ref().map_or(raw.num_labels.unwrap_or(2), Vec::len);
        if problem_type == Some(ProblemType::SingleLabelClassification) && num_labels == 1 {
            let problem = "single_label_classification needs more than one label".to_owned();
            return Err(wrong("problem_type", problem));
        }
        Ok(Self { file: file.to_owned(), activation, num_labels, id2label, problem_type })
    }

    /// With the activation `class` that `config_sentence_transformers.json` names, which counts
    /// before `config.json`.
    pub(super) fn with_activation(mut self, class: String, file: String) -> Self {
        self.activation = Some(SavedActivation { file, field: "activation_fn", class });
        self
    }

    /// What `load` reads for that number of labels, and their names. Weights that are right but for
    /// the number of their rows are an [`FileProblem::Labels`](crate::FileProblem::Labels).
    pub(super) fn labelled<T>(
        &self,
        load: impl FnOnce(usize) -> Result<T>,
    ) -> Result<(T, Vec<String>)> {
        let loaded = load(self.num_labels).map_err(|error| match error {
            Error::Tensor {
                name, problem: TensorProblem::Shape { found, expected, .. }, ..
            } if found.len() == expected.len() && found.get(1..) == expected.get(1..) => {
                Error::File {
                    file: self.file.clone(),
                    problem: FileProblem::Labels {
                        labels: self.num_labels,
                        tensor: name,
                        outputs: found.first().copied().unwrap_or(0),
                    },
                }
            }
            other => other,
        })?;
        // Only now is the number known to be no larger than the file.
        let default = || (0..self.num_labels).map(|id| format!("LABEL_{id}")).collect();
        Ok((loaded, self.id2label.clone().unwrap_or_else(default)))
    }
}

/// The names in the order of their ids, which must be 0, 1, 2, …
fn names(id2label: BTreeMap<String, Value>) -> Result<Vec<String>, String> {
    if id2label.is_empty() {
        return Err("has no labels".to_owned());
    }
    let mut names = vec![None; id2label.len()];
    for (id, name) in id2label {
        let name = match name {
            Value::String(name) => name,
            Value::Number(number) => number.to_string(),
            other => return Err(format!("`{id}` is {other}, must be a name")),
        };
        let slot = id.parse().ok().and_then(|id: usize| names.get_mut(id));
        match slot {
            Some(slot @ None) => *slot = Some(name),
            _ => return Err(format!("`{id}` is not one of the ids 0, 1, 2, …, each once")),
        }
    }
    Ok(names.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Result<HeadConfig> {
        HeadConfig::from_json(json, "config.json")
    }

    fn labels(json: &str) -> Vec<String> {
        config(json).unwrap().labelled(Ok).unwrap().1
    }

    #[test]
    fn names_decide_over_numbers_and_two_is_the_default() {
        assert_eq!(labels("{}"), ["LABEL_0", "LABEL_1"]);
        assert_eq!(labels(r#"{"num_labels": 1}"#), ["LABEL_0"]);
        assert_eq!(
            labels(r#"{"id2label": {"1": "b", "0": "a", "2": 5}, "num_labels": 7}"#),
            ["a", "b", "5"]
        );
    }

    #[test]
    fn labels_that_make_no_sense_are_refused() {
        for (json, field) in [
            (r#"{"id2label": {}}"#, "id2label"),
            (r#"{"id2label": {"1": "b"}}"#, "id2label"),
            (r#"{"id2label": {"0": "a", "00": "b"}}"#, "id2label"),
            (r#"{"id2label": {"-1": "a"}}"#, "id2label"),
            (r#"{"id2label": {"0": null}}"#, "id2label"),
            (r#"{"problem_type": "ranking"}"#, "problem_type"),
            (r#"{"problem_type": "single_label_classification", "num_labels": 1}"#, "problem_type"),
        ] {
            let error = config(json).unwrap_err();
            assert!(matches!(&error, Error::Field { field: f, .. } if f == field), "{error:?}");
        }
        assert!(matches!(
            config(r#"{"id2label": [1]}"#),
            Err(Error::File { problem: FileProblem::Json { .. }, .. })
        ));
    }
}
