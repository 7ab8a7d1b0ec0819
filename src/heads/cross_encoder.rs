//! What sentence-transformers saves around the transformer of a cross-encoder: prompts, an
//! activation, lengths.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Error, FileProblem, Result};
use crate::files::{ModelFiles, TRANSFORMER_SETTINGS, is_true};

/// sentence-transformers' own configuration.
pub(super) const SETTINGS: &str = "config_sentence_transformers.json";
const MODULES: &str = "modules.json";

/// A directory that `CrossEncoder.save_pretrained` has written, version 6 or later. Before, it was
/// a directory of transformers.
#[derive(Debug)]
pub(super) struct CrossEncoder {
    /// Where the transformer's files are: `""`, or a folder ending in `/`.
    pub(super) folder: String,
    pub(super) prompts: BTreeMap<String, String>,
    pub(super) default_prompt_name: Option<String>,
    /// The Python class.
    pub(super) activation_fn: Option<String>,
    /// The longest pair in tokens, if it is not for the tokenizer to say.
    pub(super) max_seq_length: Option<usize>,
    pub(super) do_lower_case: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawSettings {
    model_type: Option<String>,
    prompts: Option<BTreeMap<String, Option<String>>>,
    default_prompt_name: Option<String>,
    activation_fn: Option<String>,
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct Entry {
    path: String,
    #[serde(rename = "type")]
    class: String,
}

impl CrossEncoder {
    /// What is saved in `files`, if they are those of a cross-encoder. `CrossEncoder` itself looks
    /// at its settings only if there is a `modules.json` beside them, and they name its class.
    pub(super) fn read(files: &ModelFiles) -> Result<Option<Self>> {
        let settings: RawSettings = files.json(SETTINGS)?.unwrap_or_default();
        let Some(entries) = files.json::<Vec<Entry>>(MODULES)? else { return Ok(None) };
        if settings.model_type.as_deref() != Some("CrossEncoder") {
            return Ok(None);
        }
        let folder = transformer_folder(&entries, &files.label(MODULES))?;
        let transformer = TransformerSettings::read(files, &folder)?;
        let prompts = settings.prompts.unwrap_or_default().into_iter();
        let prompts: BTreeMap<_, _> =
            prompts.map(|(name, prompt)| (name, prompt.unwrap_or_default())).collect();
        let default = settings.default_prompt_name;
        if let Some(name) = default.as_deref().filter(|name| !prompts.contains_key(*name)) {
            return Err(Error::Field {
                file: files.label(SETTINGS),
                field: "default_prompt_name".to_owned(),
                problem: format!("there is no prompt `{name}`"),
            });
        }
        Ok(Some(Self {
            folder,
            prompts,
            default_prompt_name: default,
            activation_fn: settings.activation_fn,
            max_seq_length: transformer.max_seq_length,
            do_lower_case: transformer.do_lower_case,
        }))
    }
}

/// The folder of the one module that an MPNet cross-encoder has.
fn transformer_folder(entries: &[Entry], file: &str) -> Result<String> {
    let wrong = |module: &str, problem: &str| Error::File {
        file: file.to_owned(),
        problem: FileProblem::Module { module: module.to_owned(), problem: problem.to_owned() },
    };
    let own = |entry: &Entry| {
        let mut parts = entry.class.split('.');
        (parts.next(), parts.next_back()) == (Some("sentence_transformers"), Some("Transformer"))
    };
    let [entry] = entries else {
        let module = entries.iter().find(|entry| !own(entry)).map_or(MODULES, |entry| &entry.class);
        return Err(wrong(module, "a cross-encoder is supported that is a Transformer alone"));
    };
    if !own(entry) {
        return Err(wrong(
            &entry.class,
            "only sentence-transformers' own Transformer is supported",
        ));
    }
    let absolute = entry.path.starts_with('/') || entry.path.contains(['\\', ':', '\0']);
    let parts: Vec<&str> =
        entry.path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if absolute || parts.contains(&"..") {
        return Err(wrong(&entry.path, "must be a folder of the model's directory"));
    }
    Ok(parts.iter().map(|part| format!("{part}/")).collect())
}

/// `sentence_bert_config.json` and its siblings, as far as a cross-encoder depends on them.
#[derive(Default)]
struct TransformerSettings {
    max_seq_length: Option<usize>,
    do_lower_case: bool,
}

/// A field, and what is wrong with it.
type Problem = (String, String);

impl TransformerSettings {
    /// Reads the first of the files that has anything in it.
    fn read(files: &ModelFiles, folder: &str) -> Result<Self> {
        for name in TRANSFORMER_SETTINGS {
            let name = format!("{folder}{name}");
            match files.json::<Map<String, Value>>(&name)? {
                Some(fields) if !fields.is_empty() => {
                    return Self::of(&fields).map_err(|(field, problem)| Error::Field {
                        file: files.label(&name),
                        field,
                        problem,
                    });
                }
                _ => {}
            }
        }
        Ok(Self::default())
    }

    /// Every field is either followed here, known not to change a score, or refused.
    fn of(fields: &Map<String, Value>) -> std::result::Result<Self, Problem> {
        let (mut settings, mut processor_length, mut call_length) = (Self::default(), None, None);
        for (name, value) in fields {
            let wrong = |problem: &str| Err((name.clone(), format!("is {value}; {problem}")));
            match name.as_str() {
                _ if value.is_null() => {}
                "max_seq_length" => settings.max_seq_length = Some(length(name, value)?),
                "do_lower_case" => settings.do_lower_case = is_true(Some(value)),
                "transformer_task" if value != "sequence-classification" => {
                    return wrong("only sequence-classification is supported");
                }
                "module_output_name" if value != "scores" => return wrong("must be scores"),
                "modality_config" if !is_plain_text(value) => {
                    return wrong("only texts are supported, of which forward gives logits");
                }
                "processor_kwargs" | "tokenizer_args" => {
                    // Sides matter where a text is cut or padded, which none is here.
                    let ignored =
                        ["padding_side", "truncation_side", "trust_remote_code", "use_fast"];
                    processor_length = only_length(name, value, "model_max_length", &ignored)?;
                }
                "processing_kwargs" => call_length = processing_length(name, value)?,
                "model_kwargs" | "model_args" => {
                    let ignored =
                        ["attn_implementation", "dtype", "torch_dtype", "trust_remote_code"];
                    only_length(name, value, "", &ignored)?;
                }
                "config_kwargs" | "config_args" => {
                    only_length(name, value, "", &["trust_remote_code"])?;
                }
                "transformer_task" | "module_output_name" | "modality_config" => {}
                // For encoding queries and documents apart, or for other machines.
                "query_length" | "document_length" | "query_expansion" | "unpad_inputs" => {}
                _ => return wrong("this field is not supported"),
            }
        }
        settings.max_seq_length = call_length.or(processor_length).or(settings.max_seq_length);
        Ok(settings)
    }
}

fn length(name: &str, value: &Value) -> std::result::Result<usize, Problem> {
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| (name.to_owned(), format!("is {value}, must be a number of tokens")))
}

/// The number `known` of an object whose other fields must be among `ignored`.
fn only_length(
    name: &str,
    value: &Value,
    known: &str,
    ignored: &[&str],
) -> std::result::Result<Option<usize>, Problem> {
    let fields = value.as_object();
    let fields =
        fields.ok_or_else(|| (name.to_owned(), format!("is {value}, must be an object")))?;
    let mut found = None;
    for (field, value) in fields {
        let full = format!("{name}.{field}");
        match field.as_str() {
            _ if value.is_null() || ignored.contains(&field.as_str()) => {}
            _ if field == known => found = Some(length(&full, value)?),
            _ => return Err((full, format!("is {value}; this field is not supported"))),
        }
    }
    Ok(found)
}

/// The `max_length` of `processing_kwargs`.
fn processing_length(name: &str, value: &Value) -> std::result::Result<Option<usize>, Problem> {
    let mut value = value.clone();
    let mut found = None;
    // Texts are cut at the longer one first, as if nothing were said; other modalities are not
    // read.
    let normal = |value: &Value| *value == true || value == "longest_first";
    if let Some(Value::Object(mut text)) = value.as_object_mut().and_then(|all| all.remove("text"))
    {
        if text.get("truncation").is_some_and(normal) {
            text.remove("truncation");
        }
        found = only_length(&format!("{name}.text"), &text.into(), "max_length", &["padding"])?;
    }
    only_length(name, &value, "", &["audio", "image", "video"])?;
    Ok(found)
}

/// Whether texts go through the model's `forward`, whose logits are the result.
fn is_plain_text(value: &Value) -> bool {
    let output = &value["text"]["method_output_name"];
    let logits = output == "logits" || *output == serde_json::json!(["logits"]);
    value["text"]["method"] == "forward" && logits && value.get("message").is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(json: Value) -> std::result::Result<TransformerSettings, Problem> {
        TransformerSettings::of(json.as_object().unwrap())
    }

    #[test]
    fn lengths_in_the_order_of_the_reference() {
        let length = |json| settings(json).unwrap().max_seq_length;
        assert_eq!(length(json!({"do_lower_case": true, "query_length": 5})), None);
        assert_eq!(
            length(json!({"max_seq_length": 48, "model_args": {"dtype": "float32"}})),
            Some(48)
        );
        let processor = json!({"max_seq_length": 48, "tokenizer_args": {"model_max_length": 12}});
        assert_eq!(length(processor), Some(12));
        let call = json!({"text": {"max_length": 9, "truncation": true, "padding": true}});
        assert_eq!(length(json!({"max_seq_length": 48, "processing_kwargs": call})), Some(9));
    }

    #[test]
    fn what_would_change_a_score_is_refused_by_name() {
        for (json, name) in [
            (json!({"max_seq_length": "48"}), "max_seq_length"),
            (json!({"transformer_task": "text-generation"}), "transformer_task"),
            (json!({"module_output_name": "causal_logits"}), "module_output_name"),
            (json!({"modality_config": {"message": {}}}), "modality_config"),
            (
                json!({"processor_kwargs": {"do_lower_case": false}}),
                "processor_kwargs.do_lower_case",
            ),
            (
                json!({"processing_kwargs": {"text": {"add_special_tokens": false}}}),
                "processing_kwargs.text.add_special_tokens",
            ),
            (
                json!({"processing_kwargs": {"text": {"truncation": "only_first"}}}),
                "processing_kwargs.text.truncation",
            ),
            (json!({"processing_kwargs": {"common": {"stride": 2}}}), "processing_kwargs.common"),
            (json!({"config_args": {"hidden_act": "relu"}}), "config_args.hidden_act"),
            (
                json!({"model_kwargs": {"quantization_config": {}}}),
                "model_kwargs.quantization_config",
            ),
            (json!({"config_kwargs": []}), "config_kwargs"),
            (json!({"tokenizer_name_or_path": "other"}), "tokenizer_name_or_path"),
            (json!({"something": 1}), "something"),
        ] {
            let Err((field, _)) = settings(json.clone()) else { panic!("{json}") };
            assert_eq!(field, name);
        }
    }
}
