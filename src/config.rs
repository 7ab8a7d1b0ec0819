//! [`Config`]: the model's `config.json`, validated when it is read.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Error, FileProblem, Result};
use crate::files::parse_json;
use crate::kernels::activation::Activation;

/// Buckets of the relative-position table. The reference always sorts distances into 32 buckets,
/// whatever `relative_attention_num_buckets` says, and no published model has another number.
pub(crate) const NUM_BUCKETS: usize = 32;

/// The id whose position is the padding row. The reference fixes it, whatever `pad_token_id` says.
pub(crate) const PADDING_ID: u32 = 1;

/// The sizes of an MPNet encoder: `config.json`.
///
/// Fields have the names of the file; one that is missing has the default of transformers'
/// `MPNetConfig`. Fields that do not change what the model computes are ignored, as are those that
/// only matter in training. Those that would change it, and are not supported, are an error.
///
/// ```
/// let config = mpnet::Config::from_json(
///     r#"{"model_type": "mpnet", "vocab_size": 30527, "hidden_size": 768, "num_hidden_layers": 12,
///         "num_attention_heads": 12, "intermediate_size": 3072, "layer_norm_eps": 1e-5,
///         "max_position_embeddings": 514}"#,
///     "config.json",
/// )?;
/// assert_eq!(config.head_size(), 64);
/// assert_eq!(config.max_tokens(), 512);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Rows of the word-embedding table, `V`.
    pub vocab_size: usize,
    /// Width of the hidden states, `D`.
    pub hidden_size: usize,
    /// Number of encoder layers, `L`.
    pub num_hidden_layers: usize,
    /// Number of attention heads, `H`; divides `D`.
    pub num_attention_heads: usize,
    /// Width of the feed-forward network, `F`.
    pub intermediate_size: usize,
    /// Activation of the feed-forward network.
    pub hidden_act: Activation,
    /// Added to the variance in every LayerNorm.
    pub layer_norm_eps: f32,
    /// Rows of the position table; two more than the longest text (see [`Config::max_tokens`]).
    pub max_position_embeddings: usize,
    /// Whether the decoder of a masked language model and the word embeddings are one tensor, which
    /// a checkpoint may hold under either name.
    pub tie_word_embeddings: bool,
}

impl Activation {
    /// The activation that `config.json` calls `name`. The names of `GeluTanh` are those of several
    /// ways to compute the same function.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "gelu" | "gelu_python" => Self::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_accurate"
            | "gelu_python_tanh" => Self::GeluTanh,
            "relu" => Self::Relu,
            "leaky_relu" => Self::LeakyRelu,
            "silu" | "swish" => Self::Silu,
            "sigmoid" => Self::Sigmoid,
            "tanh" => Self::Tanh,
            "linear" => Self::Identity,
            _ => return None,
        })
    }

    /// The activation of a torch class, by the last part of its dotted name.
    pub(crate) fn from_torch_class(name: &str) -> Option<Self> {
        Some(match name.rsplit('.').next()? {
            "Identity" => Self::Identity,
            "GELU" => Self::Gelu,
            "ReLU" => Self::Relu,
            "LeakyReLU" => Self::LeakyRelu,
            "SiLU" => Self::Silu,
            "Sigmoid" => Self::Sigmoid,
            "Tanh" => Self::Tanh,
            _ => return None,
        })
    }
}

/// `config.json` as it is written.
#[derive(Deserialize)]
#[serde(default)]
struct RawConfig {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
    max_position_embeddings: Option<usize>,
    relative_attention_num_buckets: Option<usize>,
    tie_word_embeddings: Option<bool>,
}

impl Default for RawConfig {
    /// Those of the base model, as the reference has them.
    fn default() -> Self {
        Self {
            vocab_size: 30_527,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: None,
            layer_norm_eps: None,
            max_position_embeddings: None,
            relative_attention_num_buckets: None,
            tie_word_embeddings: None,
        }
    }
}

/// Fields that change what transformers loads or computes, and why they are not followed.
const REFUSED: [(&str, &str); 6] = [
    (
        "quantization_config",
        "quantised weights are not supported; save the model without quantisation",
    ),
    (
        "transformers_weights",
        "weights are read from model.safetensors or its index; give the file that name",
    ),
    (
        "configuration_files",
        "only config.json is read; put the configuration that transformers takes in its place",
    ),
    ("per_layer_config", "all layers must have the same configuration"),
    ("fusion_config", "fused modules are not supported"),
    ("attribute_map", "fields must have their own names"),
];

/// Fails if one of [`REFUSED`] is set. Empty ones are not.
fn refuse_fields(fields: &Map<String, Value>, file: &str) -> Result<()> {
    let is_set = |value: &Value| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    };
    let set = |(field, _): &&(&str, &str)| fields.get(*field).is_some_and(is_set);
    match REFUSED.iter().find(set) {
        Some((field, problem)) => Err(Error::Field {
            file: file.to_owned(),
            field: (*field).to_owned(),
            problem: (*problem).to_owned(),
        }),
        None => Ok(()),
    }
}

/// Warns if Python would load the weights in half precision, and so give coarser numbers.
pub(crate) fn warn_of_precision(fields: &Map<String, Value>, file: &str) {
    let dtype = ["dtype", "torch_dtype"].iter().find_map(|field| fields.get(*field)?.as_str());
    if let Some(dtype) = dtype.filter(|dtype| !matches!(*dtype, "float32" | "float64")) {
        tracing::warn!(
            file,
            dtype,
            "Python computes in this type; here the same weights are computed with in f32"
        );
    }
}

impl Config {
    /// Reads and validates the text of a `config.json`; `file` names it in errors.
    ///
    /// ```
    /// use mpnet::{Config, Error};
    ///
    /// let error = Config::from_json(r#"{"model_type": "bert"}"#, "config.json").unwrap_err();
    /// assert!(matches!(error, Error::File { problem: mpnet::FileProblem::Architecture { .. }, .. } | Error::Field { .. } | Error::File { problem: mpnet::FileProblem::Json { .. }, .. }));
    /// ```
    ///
    /// # Errors
    ///
    /// [`FileProblem::Json`](crate::FileProblem::Json) if it is not JSON, a field has the wrong
    /// type, or `model_type` is missing;
    /// [`FileProblem::Architecture`](crate::FileProblem::Architecture) if that is not `mpnet`,
    /// [`Error::Field`] if a value makes no sense or is not supported.
    pub fn from_json(json: impl AsRef<[u8]>, file: &str) -> Result<Self> {
        let json = json.as_ref();
        // Before the rest, so that another architecture is named as such and not by a field that it
        // has otherwise.
        let ModelType { model_type } = parse_json(json, file)?;
        if model_type != "mpnet" {
            return Err(Error::File {
                file: file.to_owned(),
                problem: FileProblem::Architecture { found: model_type },
            });
        }
        let fields: Map<String, Value> = parse_json(json, file)?;
        refuse_fields(&fields, file)?;
        warn_of_precision(&fields, file);
        parse_json::<RawConfig>(json, file)?.validate(file)
    }

    /// Width of one attention head, `K = D / H`.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let config = encoder.model().config();
    /// assert_eq!(config.head_size() * config.num_attention_heads, config.hidden_size);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads.max(1)
    }

    /// The longest text that the position table can number, special tokens included: the first
    /// token has position 2, so two rows of the table are never reached.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let config = encoder.model().config();
    /// assert_eq!(config.max_tokens(), config.max_position_embeddings - 2);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.max_position_embeddings.saturating_sub(2)
    }
}

/// Larger than any size of a model that fits into memory; a few times as much is a number still.
const LARGEST: usize = usize::MAX >> 8;

impl RawConfig {
    fn validate(self, file: &str) -> Result<Config> {
        let wrong = |field: &str, problem: String| {
            Err(Error::Field { file: file.to_owned(), field: field.to_owned(), problem })
        };
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
        ];
        for (field, value) in sizes {
            if value == 0 || value > LARGEST {
                return wrong(field, format!("is {value}, must be from 1 to {LARGEST}"));
            }
        }
        let layers = self.num_hidden_layers;
        if layers > LARGEST {
            return wrong("num_hidden_layers", format!("is {layers}, must be at most {LARGEST}"));
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return wrong(
                "num_attention_heads",
                format!(
                    "{} does not divide hidden_size {}",
                    self.num_attention_heads, self.hidden_size
                ),
            );
        }
        let name = self.hidden_act.as_deref().unwrap_or("gelu");
        let Some(hidden_act) = Activation::from_name(name) else {
            return wrong(
                "hidden_act",
                format!(
                    "`{name}` is not supported; gelu, gelu_new, relu, leaky_relu, silu, sigmoid, tanh and linear are"
                ),
            );
        };
        let layer_norm_eps = self.layer_norm_eps.unwrap_or_else(|| {
            tracing::warn!(file, "layer_norm_eps is missing, taking the library's 1e-12");
            1e-12
        });
        // `as f32` may round a positive number to zero, which is what must not be.
        if !(layer_norm_eps as f32 > 0.0 && layer_norm_eps < 1.0) {
            return wrong(
                "layer_norm_eps",
                format!("is {layer_norm_eps}, must be between 0 and 1"),
            );
        }
        let max_position_embeddings = self.max_position_embeddings.unwrap_or_else(|| {
            tracing::warn!(file, "max_position_embeddings is missing, taking the library's 512");
            512
        });
        if max_position_embeddings < 4 {
            return wrong(
                "max_position_embeddings",
                format!(
                    "is {max_position_embeddings}, must be at least 4: positions begin at 2 and the \
                     shortest text has two tokens"
                ),
            );
        }
        let buckets = self.relative_attention_num_buckets.unwrap_or(NUM_BUCKETS);
        if buckets != NUM_BUCKETS {
            return wrong(
                "relative_attention_num_buckets",
                format!("is {buckets}, only {NUM_BUCKETS} is supported"),
            );
        }
        Ok(Config {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            hidden_act,
            layer_norm_eps: layer_norm_eps as f32,
            max_position_embeddings,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(true),
        })
    }
}

/// What must be there whatever the architecture.
#[derive(Deserialize)]
struct ModelType {
    model_type: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(field: &str, value: serde_json::Value) -> Result<Config> {
        let mut json = serde_json::json!({
            "model_type": "mpnet", "vocab_size": 100, "hidden_size": 12, "num_hidden_layers": 2,
            "num_attention_heads": 3, "intermediate_size": 24, "layer_norm_eps": 1e-5,
            "max_position_embeddings": 66, "an_unknown_key": {"is": "ignored"}
        });
        json[field] = value;
        Config::from_json(json.to_string(), "config.json")
    }

    #[test]
    fn optional_fields_have_the_reference_defaults() {
        let config = with("hidden_act", serde_json::Value::Null).unwrap();
        assert_eq!(config.hidden_act, Activation::Gelu);
        assert_eq!(config.head_size(), 4);
        assert_eq!(config.max_tokens(), 64);
        let config = with("layer_norm_eps", serde_json::Value::Null).unwrap();
        assert_eq!(config.layer_norm_eps, 1e-12);
        let config = with("max_position_embeddings", serde_json::Value::Null).unwrap();
        assert_eq!(config.max_position_embeddings, 512);
    }

    /// The defaults of `MPNetConfig` in transformers 5.23.
    #[test]
    fn a_missing_field_is_that_of_the_base_model() {
        let config = Config::from_json(r#"{"model_type": "mpnet"}"#, "config.json").unwrap();
        let want = Config {
            vocab_size: 30_527,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            max_position_embeddings: 512,
            tie_word_embeddings: true,
        };
        assert_eq!(config, want);
    }

    #[test]
    fn every_spelling_of_an_activation_is_known() {
        for (name, want) in [
            ("gelu", Activation::Gelu),
            ("gelu_python", Activation::Gelu),
            ("gelu_new", Activation::GeluTanh),
            ("gelu_pytorch_tanh", Activation::GeluTanh),
            ("gelu_fast", Activation::GeluTanh),
            ("gelu_accurate", Activation::GeluTanh),
            ("gelu_python_tanh", Activation::GeluTanh),
            ("leaky_relu", Activation::LeakyRelu),
            ("sigmoid", Activation::Sigmoid),
            ("linear", Activation::Identity),
            ("relu", Activation::Relu),
            ("silu", Activation::Silu),
            ("swish", Activation::Silu),
            ("tanh", Activation::Tanh),
        ] {
            assert_eq!(with("hidden_act", name.into()).unwrap().hidden_act, want, "{name}");
        }
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        for (field, value) in [
            ("num_attention_heads", 0.into()),
            ("num_attention_heads", 5.into()),
            ("hidden_size", 0.into()),
            ("vocab_size", 0.into()),
            ("intermediate_size", 0.into()),
            ("hidden_act", "quick_gelu".into()),
            ("layer_norm_eps", 0.0.into()),
            ("layer_norm_eps", (-1e-5).into()),
            ("layer_norm_eps", 1e-60.into()),
            ("max_position_embeddings", 3.into()),
            ("relative_attention_num_buckets", 64.into()),
        ] as [(&str, serde_json::Value); 11]
        {
            let error = with(field, value.clone()).unwrap_err();
            assert!(
                matches!(&error, Error::Field { field: named, .. } if named == field),
                "{field} = {value}: {error}"
            );
        }
        for field in REFUSED.map(|(field, _)| field) {
            let value = serde_json::json!({"0": {"hidden_act": "relu"}});
            let error = with(field, value).unwrap_err();
            assert!(
                matches!(&error, Error::Field { field: named, .. } if named == field),
                "{error}"
            );
            assert!(with(field, serde_json::json!({})).is_ok() && with(field, Value::Null).is_ok());
        }
        assert!(matches!(
            with("vocab_size", (-1).into()),
            Err(Error::File { problem: FileProblem::Json { .. }, .. })
        ));
        assert!(matches!(
            with("vocab_size", Value::Null),
            Err(Error::File { problem: FileProblem::Json { .. }, .. })
        ));
        assert!(matches!(
            with("vocab_size", 100.0.into()),
            Err(Error::File { problem: FileProblem::Json { .. }, .. })
        ));
        assert!(matches!(
            with("vocab_size", "many".into()),
            Err(Error::File { problem: FileProblem::Json { .. }, .. })
        ));
    }

    #[test]
    fn look_alikes_are_named() {
        let error = with("model_type", "xlm-roberta".into()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("xlm-roberta") && text.contains("misleads"), "{text}");
        let error = with("model_type", "bert".into()).unwrap_err();
        assert!(error.to_string().contains("`bert`, not `mpnet`;"), "{error}");
    }
}
