//! [`TransformerSettings`]: the first module's own file, `sentence_bert_config.json`.
//!
//! Source: `Transformer.load` and `Transformer.preprocess` of sentence-transformers 6.2.

use serde_json::{Map, Value, json};

use crate::config::{Config, warn_of_precision};
use crate::error::{Error, Result};
use crate::files::{ModelFiles, TRANSFORMER_SETTINGS, is_true};

/// Arguments that say where files come from or how the reference computes, and change no number
/// here: the folder and the files are those of the module.
const HARMLESS_ARGUMENTS: [&str; 16] = [
    "attn_implementation",
    "cache_dir",
    "code_revision",
    "device_map",
    "dtype",
    "export",
    "force_download",
    "local_files_only",
    "low_cpu_mem_usage",
    "provider",
    "revision",
    "subfolder",
    "token",
    "torch_dtype",
    "trust_remote_code",
    "use_safetensors",
];

/// Arguments of a call of the tokenizer that do not change which tokens a text has.
const HARMLESS_CALL_ARGUMENTS: [&str; 10] = [
    "logits_to_keep",
    "pad_to_multiple_of",
    "padding",
    "padding_side",
    "return_attention_mask",
    "return_length",
    "return_special_tokens_mask",
    "return_tensors",
    "return_token_type_ids",
    "verbose",
];

/// The hidden states of the last layer, as Python counts.
const LAST: i64 = -1;

/// `sentence_bert_config.json` and its siblings.
#[derive(Debug, Clone)]
pub(super) struct TransformerSettings {
    pub(super) max_seq_length: Option<usize>,
    pub(super) do_lower_case: bool,
    /// Arguments of the tokenizer, which count before its files.
    pub(super) tokenizer: Map<String, Value>,
    /// Fields that count before those of `config.json`.
    config: Map<String, Value>,
    /// The hidden states that are pooled, as Python counts them: `-1` are those of the last layer.
    hidden_states: i64,
    pub(super) text: TextSettings,
    pub(super) query_length: Option<usize>,
    pub(super) document_length: Option<usize>,
}

/// How the tokenizer is called: `processing_kwargs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TextSettings {
    /// The longest text in tokens, instead of the tokenizer's own limit.
    pub(super) max_length: Option<usize>,
    /// Whether `max_length` is there, if only as null: then the limit of a task does not count.
    names_max_length: bool,
    pub(super) truncates: bool,
    pub(super) adds_special_tokens: bool,
    pub(super) splits_special_tokens: Option<bool>,
}

impl Default for TextSettings {
    fn default() -> Self {
        Self {
            max_length: None,
            names_max_length: false,
            truncates: true,
            adds_special_tokens: true,
            splits_special_tokens: None,
        }
    }
}

impl TransformerSettings {
    /// What holds for a model that has no such file.
    pub(super) fn new() -> Self {
        Self {
            max_seq_length: None,
            do_lower_case: false,
            tokenizer: Map::new(),
            config: Map::new(),
            hidden_states: LAST,
            text: TextSettings::default(),
            query_length: None,
            document_length: None,
        }
    }

    /// Reads the settings in `folder` (`""` or ending in `/`).
    pub(super) fn read(files: &ModelFiles, folder: &str) -> Result<Self> {
        for name in TRANSFORMER_SETTINGS {
            let name = format!("{folder}{name}");
            let fields: Map<String, Value> = files.json(&name)?.unwrap_or_default();
            if !fields.is_empty() {
                return Reader { file: files.label(&name), fields }.read();
            }
        }
        Ok(Self::new())
    }

    /// `config.json` in `folder`, with the fields that these settings have for it.
    pub(super) fn read_config(&self, files: &ModelFiles, folder: &str) -> Result<Config> {
        let file = files.label(&format!("{folder}config.json"));
        let fields = Value::Object(self.config_fields(files, folder)?);
        let mut config = Config::from_json(fields.to_string(), &file)?;
        config.num_hidden_layers = self.layers(config.num_hidden_layers)?;
        Ok(config)
    }

    /// The fields of that file, theirs among them.
    pub(super) fn config_fields(
        &self,
        files: &ModelFiles,
        folder: &str,
    ) -> Result<Map<String, Value>> {
        let name = format!("{folder}config.json");
        let mut fields: Map<String, Value> =
            files.json(&name)?.ok_or_else(|| files.absent(&name))?;
        fields.extend(self.config.clone());
        Ok(fields)
    }

    /// How many of `layers` layers are computed for the hidden states that are pooled.
    fn layers(&self, layers: usize) -> Result<usize> {
        let count = i64::try_from(layers).unwrap_or(i64::MAX).saturating_add(1);
        let index =
            if self.hidden_states < 0 { count + self.hidden_states } else { self.hidden_states };
        usize::try_from(index).ok().filter(|&index| index <= layers).ok_or_else(|| Error::Field {
            file: "sentence_bert_config.json".to_owned(),
            field: "modality_config".to_owned(),
            problem: format!(
                "asks for hidden states {}, but {layers} layers have those from 0 to {layers}",
                self.hidden_states
            ),
        })
    }

    /// The fields that say the same for this crate and for sentence-transformers, in its names of
    /// old where it has some, the longest text being `max_seq_length`.
    pub(super) fn to_json(&self, max_seq_length: usize) -> Value {
        let mut fields = Map::new();
        let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        set("max_seq_length", max_seq_length.into());
        set("do_lower_case", self.do_lower_case.into());
        let mut tokenizer = self.tokenizer.clone();
        tokenizer.remove("model_max_length");
        if !tokenizer.is_empty() {
            set("tokenizer_args", tokenizer.into());
        }
        let lengths =
            [("query_length", self.query_length), ("document_length", self.document_length)];
        for (name, length) in lengths {
            // The length of every call, which is `max_seq_length` now, came before those of a task.
            if let Some(length) = length.filter(|_| !self.text.decides_length()) {
                set(name, length.into());
            }
        }
        let mut text = Map::new();
        if !self.text.adds_special_tokens {
            text.insert("add_special_tokens".to_owned(), false.into());
        }
        if let Some(splits) = self.text.splits_special_tokens {
            text.insert("split_special_tokens".to_owned(), splits.into());
        }
        if !self.text.truncates {
            text.insert("truncation".to_owned(), false.into());
        }
        if !text.is_empty() {
            set("processing_kwargs", json!({"text": text}));
        }
        fields.into()
    }
}

/// One of the files, being read.
struct Reader {
    file: String,
    fields: Map<String, Value>,
}

impl Reader {
    fn read(mut self) -> Result<TransformerSettings> {
        let (config, tokenizer) =
            (self.take_arguments("config")?, self.take_arguments("tokenizer")?);
        let model = self.take_arguments("model")?;
        warn_of_precision(&model, &self.file);
        if let Some(name) = model.keys().find(|name| !HARMLESS_ARGUMENTS.contains(&name.as_str())) {
            let problem = format!("`{name}` is not supported as an argument of the model");
            return Err(self.wrong("model_kwargs", problem));
        }
        let hidden_states = self.take_hidden_states()?;
        let settings = TransformerSettings {
            max_seq_length: self.take_length("max_seq_length")?,
            do_lower_case: is_true(self.fields.remove("do_lower_case").as_ref()),
            tokenizer,
            config,
            hidden_states,
            text: self.take_text_settings()?,
            query_length: self.take_length("query_length")?,
            document_length: self.take_length("document_length")?,
        };
        // Padding is the reference's own affair; nothing is padded here.
        self.fields.remove("unpad_inputs");
        match self.fields.iter().find(|(_, value)| !value.is_null()) {
            None => Ok(settings),
            Some((field, _)) => {
                Err(self.wrong(field, "is not supported; it may change the embeddings"))
            }
        }
    }

    fn wrong(&self, field: &str, problem: impl Into<String>) -> Error {
        let (file, field) = (self.file.clone(), field.to_owned());
        Error::Field { file, field, problem: problem.into() }
    }

    /// The arguments of `config`, `tokenizer` or `model`, by whichever of their names they have.
    fn take_arguments(&mut self, what: &str) -> Result<Map<String, Value>> {
        let newer = if what == "tokenizer" { "processor" } else { what };
        let (newer, older) = (format!("{newer}_kwargs"), format!("{what}_args"));
        let new = self.fields.remove(&newer);
        // The older name counts if both are there.
        let (name, value) = match self.fields.remove(&older) {
            Some(value) => (older, Some(value)),
            None => (newer, new),
        };
        match value {
            None => Ok(Map::new()),
            Some(Value::Object(mut arguments)) => {
                if what != "model" {
                    warn_of_precision(&arguments, &self.file);
                    arguments.retain(|name, _| !HARMLESS_ARGUMENTS.contains(&name.as_str()));
                }
                Ok(arguments)
            }
            Some(other) => Err(self.wrong(&name, format!("is {other}, must be an object"))),
        }
    }

    fn take_length(&mut self, field: &str) -> Result<Option<usize>> {
        length(self.fields.remove(field).as_ref()).map_err(|problem| self.wrong(field, problem))
    }

    /// Which hidden states are the output: those of the last layer, unless `modality_config` says
    /// otherwise.
    fn take_hidden_states(&mut self) -> Result<i64> {
        let expected = [
            ("transformer_task", "feature-extraction"),
            ("module_output_name", "token_embeddings"),
        ];
        for (field, expected) in expected {
            if let Some(value) = self.fields.remove(field).filter(|value| value != expected) {
                return Err(
                    self.wrong(field, format!("is {value}, only `{expected}` is supported"))
                );
            }
        }
        let Some(modality) = self.fields.remove("modality_config") else { return Ok(LAST) };
        let fields = modality.as_object().into_iter().flatten();
        if let Some((other, _)) = fields.into_iter().find(|(kind, _)| *kind != "text") {
            return Err(self.wrong(
                "modality_config",
                format!("has `{other}`; models of text alone are supported"),
            ));
        }
        let text = &modality["text"];
        if text["method"] != "forward" {
            let problem = format!(
                "has {} as the method for text, only `forward` is supported",
                text["method"]
            );
            return Err(self.wrong("modality_config", problem));
        }
        let output = &text["method_output_name"];
        match (output.as_str(), output.as_array().map(Vec::as_slice)) {
            (Some("last_hidden_state"), _) => Ok(LAST),
            (_, Some([only])) if *only == "last_hidden_state" || *only == 0 => Ok(LAST),
            (_, Some([first, index])) if *first == "hidden_states" && index.is_i64() => {
                Ok(index.as_i64().unwrap_or(LAST))
            }
            _ => Err(self.wrong(
                "modality_config",
                format!(
                    "has {output} as the output for text; `last_hidden_state` and \
                     `[\"hidden_states\", n]` are supported"
                ),
            )),
        }
    }

    /// The arguments that the tokenizer is called with for text.
    fn take_text_settings(&mut self) -> Result<TextSettings> {
        const FIELD: &str = "processing_kwargs";
        let mut settings = TextSettings::default();
        let Some(arguments) = self.fields.remove(FIELD) else { return Ok(settings) };
        // Those for all kinds of input come last.
        let parts = ["text", "common"].map(|part| arguments[part].as_object());
        for (name, value) in parts.into_iter().flatten().flatten() {
            settings
                .set(name, value)
                .map_err(|problem| self.wrong(FIELD, format!("`{name}` {problem}")))?;
        }
        Ok(settings)
    }
}

impl TextSettings {
    /// Whether the longest text is the same for queries, documents and all others.
    pub(super) fn decides_length(&self) -> bool {
        self.names_max_length || !self.truncates
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<(), String> {
        let flag = || value.as_bool().ok_or(format!("is {value}, must be true or false"));
        match name {
            "max_length" => {
                (self.max_length, self.names_max_length) = (length(Some(value))?, true);
            }
            "add_special_tokens" => self.adds_special_tokens = flag()?,
            "split_special_tokens" => {
                self.splits_special_tokens = if value.is_null() { None } else { Some(flag()?) };
            }
            "truncation" => {
                self.truncates = match value.as_str() {
                    Some("longest_first" | "only_first") => true,
                    Some("do_not_truncate") => false,
                    Some(_) => return Err(format!("is {value}, which is not known")),
                    None => is_true(Some(value)),
                }
            }
            "stride" if value == 0 => {}
            "is_split_into_words" | "return_overflowing_tokens" | "return_offsets_mapping"
                if !is_true(Some(value)) => {}
            _ if HARMLESS_CALL_ARGUMENTS.contains(&name) => {}
            _ => return Err("is not supported".to_owned()),
        }
        Ok(())
    }
}

/// A number of tokens, or null for none.
fn length(value: Option<&Value>) -> Result<Option<usize>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().and_then(|length| usize::try_from(length).ok()) {
            Some(length) => Ok(Some(length)),
            None => Err(format!("is {value}, must be a number of tokens")),
        },
    }
}
