//! What kind of model a directory holds, looked at before the rest is read.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::modules::{MODULES, SETTINGS};
use crate::checkpoint::refuse_adapter;
use crate::error::{Error, Result};
use crate::files::ModelFiles;

/// `config.json`; what does not fit is for others to complain about.
#[derive(Deserialize)]
struct Architectures {
    architectures: Vec<String>,
}

/// Fails if `files` are those of an adapter, or of a model that sentence-transformers has another
/// class for. Warns if they are not those of sentence-transformers at all.
pub(super) fn refuse_other_models(files: &ModelFiles) -> Result<()> {
    refuse_adapter(files, "")?;
    let settings: Map<String, Value> = files.json(SETTINGS)?.unwrap_or_default();
    let kind = settings.get("model_type").unwrap_or(&Value::Null);
    // One that is null is another kind to sentence-transformers, too, which takes the mean of the
    // hidden states then.
    let is_null = kind.is_null() && settings.contains_key("model_type") && files.has(MODULES);
    if is_null || !(kind.is_null() || kind == "SentenceTransformer") {
        let advice = match kind.as_str() {
            Some("CrossEncoder") => "load it with mpnet::heads::SequenceClassification",
            Some(_) => "this crate does not have that kind",
            None => "leave the field out",
        };
        return Err(Error::Field {
            file: files.label(SETTINGS),
            field: "model_type".to_owned(),
            problem: format!(
                "{kind} is another kind of model, not a SentenceTransformer; {advice}"
            ),
        });
    }
    if !files.has(MODULES) {
        warn_of_defaults(files);
    }
    Ok(())
}

/// Says what stands in for the missing `modules.json`, as sentence-transformers does.
fn warn_of_defaults(files: &ModelFiles) {
    let directory = files.label("");
    let config: Option<Architectures> = files.json("config.json").unwrap_or_default();
    let architectures = config.map(|config| config.architectures).unwrap_or_default();
    let head = |name: &&String| {
        let (_, head) = name.split_once("For").unwrap_or_default();
        !head.is_empty() && !matches!(head, "MaskedLM" | "PreTraining")
    };
    match architectures.iter().find(head) {
        Some(architecture) => tracing::warn!(
            directory,
            architecture,
            "there is no modules.json, and the model was trained for another task: its head is left out, and the mean of \
             its hidden states taken as the embedding; mpnet::heads loads it with its head"
        ),
        None => tracing::warn!(
            directory,
            "there is no modules.json: the mean of the hidden states is taken as the embedding, and not normalised"
        ),
    }
}
