//! [`Config`]: the model's `config.json`, validated when it is read.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::kernels::activation::Activation;

/// Buckets of the relative-position table. The reference always sorts distances into 32 buckets, whatever
/// `relative_attention_num_buckets` says, and no published model has another number.
pub(crate) const NUM_BUCKETS: usize = 32;

/// The id whose position is the padding row. The reference fixes it, whatever `pad_token_id` says.
pub(crate) const PADDING_ID: u32 = 1;

/// The sizes of an MPNet encoder: `config.json`.
///
/// Fields have the names of the file. Unknown fields of the file are ignored, as are those that only matter in
/// training.
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
}

impl Activation {
    /// The activation that `config.json` calls `name`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "gelu" | "gelu_python" => Self::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Self::GeluTanh,
            "relu" => Self::Relu,
            "silu" | "swish" => Self::Silu,
            "tanh" => Self::Tanh,
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

/// `config.json` as it is written; what may be missing is an `Option`.
#[derive(Deserialize)]
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
}

/// Read before the rest, so that another architecture is named as such and not by its first missing field.
#[derive(Deserialize)]
struct ModelType {
    model_type: String,
}

impl Config {
    /// Reads and validates the text of a `config.json`; `file` names it in errors.
    ///
    /// ```
    /// use mpnet::{Config, Error};
    ///
    /// let error = Config::from_json(r#"{"model_type": "bert"}"#, "config.json").unwrap_err();
    /// assert!(matches!(error, Error::Architecture { .. } | Error::Field { .. } | Error::Json { .. }));
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Json`] if it is not JSON or a required field is missing, [`Error::Architecture`] if `model_type`
    /// is not `mpnet`, [`Error::Field`] if a value makes no sense or is not supported.
    pub fn from_json(json: impl AsRef<[u8]>, file: &str) -> Result<Self> {
        let invalid = |source| Error::Json { file: file.to_owned(), source };
        let ModelType { model_type } = serde_json::from_slice(json.as_ref()).map_err(invalid)?;
        if model_type != "mpnet" {
            return Err(Error::Architecture { file: file.to_owned(), found: model_type });
        }
        let raw: RawConfig = serde_json::from_slice(json.as_ref()).map_err(invalid)?;
        raw.validate(file)
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

    /// The longest text that the position table can number, special tokens included: the first token has
    /// position 2, so two rows of the table are never reached.
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
            if value == 0 {
                return wrong(field, "is 0, must be at least 1".to_owned());
            }
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
                format!("`{name}` is not supported; gelu, gelu_new, relu, silu and tanh are"),
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
        })
    }
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

    #[test]
    fn every_spelling_of_an_activation_is_known() {
        for (name, want) in [
            ("gelu", Activation::Gelu),
            ("gelu_python", Activation::Gelu),
            ("gelu_new", Activation::GeluTanh),
            ("gelu_pytorch_tanh", Activation::GeluTanh),
            ("gelu_fast", Activation::GeluTanh),
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
        assert!(matches!(with("vocab_size", (-1).into()), Err(Error::Json { .. })));
        assert!(matches!(with("vocab_size", "many".into()), Err(Error::Json { .. })));
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
