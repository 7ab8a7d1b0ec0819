//! [`MpnetParameters`]: the tensors of a checkpoint as a tree of arrays.

use std::path::Path;

use crate::checkpoint::{self, WeightDtype, Weights};
use crate::config::{Config, NUM_BUCKETS};
use crate::error::Result;
use crate::nn::{
    EmbeddingParameters, LayerNormParameters, LinearParameters, NamedParameters, fill, parameters,
};

parameters! {
    /// All parameters of an MPNet encoder, named as in the checkpoint.
    ///
    /// ```
    /// use mpnet::model::MpnetParameters;
    ///
    /// # let directory = std::path::Path::new("tests/data/tiny");
    /// # let config = mpnet::Config::from_json(std::fs::read(directory.join("config.json"))?, "config.json")?;
    /// let checkpoint = mpnet::Checkpoint::open(directory)?;
    /// let parameters = MpnetParameters::load(&checkpoint.encoder()?, &config)?;
    /// assert_eq!(parameters.encoder.layer[2].intermediate.dense.weight.dim(), (64, 32)); // [F, D]
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub struct MpnetParameters {
        /// The word and position embeddings.
        embeddings: EmbeddingsParameters = "embeddings",
        /// The layers and the position bias.
        encoder: EncoderParameters = "encoder",
        /// The pooler, if the checkpoint has one.
        pooler: Option<PoolerParameters> = "pooler",
    }
}

parameters! {
    /// The parameters of the embeddings.
    pub struct EmbeddingsParameters {
        /// `[V, D]`
        word_embeddings: EmbeddingParameters = "word_embeddings",
        /// `[max_position_embeddings, D]`
        position_embeddings: EmbeddingParameters = "position_embeddings",
        /// `[D]`
        layer_norm: LayerNormParameters = "LayerNorm",
    }
}

parameters! {
    /// The parameters of the stack of layers.
    pub struct EncoderParameters {
        /// The position bias, `[32, H]`, which all layers share.
        relative_attention_bias: EmbeddingParameters = "relative_attention_bias",
        /// The layers, from the input up.
        layer: Vec<LayerParameters> = "layer",
    }
}

parameters! {
    /// The parameters of one layer.
    pub struct LayerParameters {
        /// Self-attention.
        attention: AttentionParameters = "attention",
        /// The expanding half of the feed-forward network, `D` → `F`.
        intermediate: DenseParameters = "intermediate",
        /// The contracting half, `F` → `D`, and the LayerNorm after it.
        output: OutputParameters = "output",
    }
}

parameters! {
    /// The parameters of self-attention.
    pub struct AttentionParameters {
        /// The projections.
        attn: ProjectionParameters = "attn",
        /// The LayerNorm after them, `[D]`.
        layer_norm: LayerNormParameters = "LayerNorm",
    }
}

parameters! {
    /// The projections of self-attention, `D` → `D` each.
    pub struct ProjectionParameters {
        /// Queries.
        q: LinearParameters = "q",
        /// Keys.
        k: LinearParameters = "k",
        /// Values.
        v: LinearParameters = "v",
        /// The output.
        o: LinearParameters = "o",
    }
}

parameters! {
    /// A linear layer.
    pub struct DenseParameters {
        /// The layer.
        dense: LinearParameters = "dense",
    }
}

parameters! {
    /// A linear layer, and the LayerNorm after its residual connection.
    pub struct OutputParameters {
        /// The layer.
        dense: LinearParameters = "dense",
        /// The LayerNorm, `[D]`.
        layer_norm: LayerNormParameters = "LayerNorm",
    }
}

/// The parameters of the pooler, `D` → `D`.
pub type PoolerParameters = DenseParameters;

impl MpnetParameters {
    /// Reads the parameters at `w`, which [`Checkpoint::encoder`](crate::Checkpoint::encoder)
    /// finds.
    ///
    /// # Errors
    ///
    /// [`TensorProblem::Missing`](crate::TensorProblem::Missing),
    /// [`TensorProblem::Shape`](crate::TensorProblem::Shape) or
    /// [`TensorProblem::Dtype`](crate::TensorProblem::Dtype), with the name of the tensor.
    pub fn load(w: &Weights, config: &Config) -> Result<Self> {
        let w = &w.clone().tied(config.tie_word_embeddings);
        let (v, p, d) = (config.vocab_size, config.max_position_embeddings, config.hidden_size);
        let heads = config.num_attention_heads;
        // Memory is taken only for tensors that are there: the sizes in the file may be anything.
        let embeddings = w.at("embeddings");
        embeddings.find("word_embeddings.weight", &[v, d])?;
        embeddings.find("position_embeddings.weight", &[p, d])?;
        let has_pooler = w.has("pooler.dense.weight");
        if has_pooler {
            w.find("pooler.dense.weight", &[d, d])?;
        }
        let mut parameters = Self {
            embeddings: EmbeddingsParameters {
                word_embeddings: EmbeddingParameters::zeros(v, d),
                position_embeddings: EmbeddingParameters::zeros(p, d),
                layer_norm: LayerNormParameters::zeros(d),
            },
            encoder: EncoderParameters {
                relative_attention_bias: EmbeddingParameters::zeros(NUM_BUCKETS, heads),
                layer: Vec::new(),
            },
            pooler: has_pooler.then(|| DenseParameters { dense: LinearParameters::zeros(d, d) }),
        };
        fill(&mut parameters, w)?;
        for n in 0..config.num_hidden_layers {
            let w = w.at("encoder.layer").at(&n.to_string());
            w.find("intermediate.dense.weight", &[config.intermediate_size, d])?;
            let mut layer = LayerParameters::zeros(d, config.intermediate_size);
            fill(&mut layer, &w)?;
            parameters.encoder.layer.push(layer);
        }
        Ok(parameters)
    }

    /// Writes the parameters to the safetensors file `path` as `dtype`, for this crate and for
    /// transformers to load. A file of that name is replaced, once the new one is complete.
    ///
    /// ```
    /// use mpnet::{Checkpoint, WeightDtype, model::MpnetParameters};
    ///
    /// # let (models, directory) = (tempfile::tempdir()?, std::path::Path::new("tests/data/tiny"));
    /// # let config = mpnet::Config::from_json(std::fs::read(directory.join("config.json"))?, "config.json")?;
    /// let parameters = MpnetParameters::load(&Checkpoint::open(directory)?.encoder()?, &config)?;
    /// parameters.save(models.path().join("model.safetensors"), WeightDtype::F32)?;
    /// let saved = Checkpoint::open(models.path())?;
    /// assert_eq!(MpnetParameters::load(&saved.encoder()?, &config)?, parameters);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) if the file cannot be written,
    /// [`Error::Option`](crate::Error::Option) if a parameter is too large for `dtype`.
    pub fn save(&self, path: impl AsRef<Path>, dtype: WeightDtype) -> Result<()> {
        checkpoint::save(path.as_ref(), dtype, NamedParameters::new(self).tensors())
    }
}

impl LayerParameters {
    fn zeros(d: usize, f: usize) -> Self {
        let square = || LinearParameters::zeros(d, d);
        Self {
            attention: AttentionParameters {
                attn: ProjectionParameters { q: square(), k: square(), v: square(), o: square() },
                layer_norm: LayerNormParameters::zeros(d),
            },
            intermediate: DenseParameters { dense: LinearParameters::zeros(d, f) },
            output: OutputParameters {
                dense: LinearParameters::zeros(f, d),
                layer_norm: LayerNormParameters::zeros(d),
            },
        }
    }
}
