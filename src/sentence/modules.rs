//! A sentence-transformers directory as its files describe it: which modules, in which order, with which settings.

use std::collections::BTreeMap;

use ndarray::{Array2, Axis};
use serde::Deserialize;

use super::dense::Dense;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files::ModelFiles;
use crate::kernels::isa::Isa;
use crate::nn::LayerNorm;
use crate::pooling::Pooling;
use crate::similarity::Similarity;

pub(crate) const MODULES: &str = "modules.json";
pub(crate) const SETTINGS: &str = "config_sentence_transformers.json";

/// The names under which the transformer module's settings have been saved over the years.
pub(crate) const TRANSFORMER_SETTINGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// What stands after the pooling.
#[derive(Debug)]
pub(super) enum Module {
    Dense {
        dense: Box<Dense>,
        /// Where its files are, ending in `/`.
        folder: String,
    },
    LayerNorm {
        norm: LayerNorm,
        /// As above.
        folder: String,
    },
    Normalize,
}

impl Module {
    /// The name of its class in sentence-transformers.
    pub(super) fn class(&self) -> &'static str {
        match self {
            Self::Dense { .. } => "Dense",
            Self::LayerNorm { .. } => "LayerNorm",
            Self::Normalize => "Normalize",
        }
    }

    /// `x: [B, D]` → `[B, D']`
    pub(super) fn forward(&self, mut x: Array2<f32>) -> Array2<f32> {
        match self {
            Self::Dense { dense, .. } => dense.forward(x),
            Self::LayerNorm { norm, .. } => norm.forward(x),
            Self::Normalize => {
                normalize(&mut x);
                x
            }
        }
    }
}

/// Scales each row to length 1; a row of zeros stays one.
pub(super) fn normalize(x: &mut Array2<f32>) {
    for mut row in x.axis_iter_mut(Axis(0)) {
        let length = row.dot(&row).sqrt();
        row /= length.max(1e-12);
    }
}

/// `modules.json`, read.
pub(super) struct Pipeline {
    /// Where the transformer's files are: `""`, or a folder ending in `/`.
    pub(super) folder: String,
    pub(super) config: Config,
    pub(super) pooling: Pooling,
    pub(super) modules: Vec<Module>,
    /// Width of what the last module returns.
    pub(super) dim: usize,
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct Entry {
    path: String,
    #[serde(rename = "type")]
    class: String,
}

impl Entry {
    /// Both generations of class paths end in the same name.
    fn kind(&self) -> &str {
        self.class.rsplit('.').next().unwrap_or_default()
    }
}

impl Pipeline {
    pub(super) fn read(files: &ModelFiles, isa: Isa) -> Result<Self> {
        let Some(entries) = files.json::<Vec<Entry>>(MODULES)? else {
            return Self::plain(files);
        };
        let file = files.label(MODULES);
        let wrong = |module: &str, problem: &str| Error::Module {
            file: file.clone(),
            module: module.to_owned(),
            problem: problem.to_owned(),
        };
        let mut entries = entries.iter();
        let Some(first) = entries.next().filter(|entry| entry.kind() == "Transformer") else {
            return Err(wrong(MODULES, "the first module must be a Transformer"));
        };
        let folder = first.folder(&file)?;
        let config = read_config(files, &folder)?;
        let Some(second) = entries.next().filter(|entry| entry.kind() == "Pooling") else {
            return Err(wrong(MODULES, "the second module must be a Pooling"));
        };
        let name = format!("{}config.json", second.folder(&file)?);
        let pooling =
            Pooling::from_json(files.require(&name)?, config.hidden_size, &files.label(&name))?;
        let mut dim = pooling.dim(config.hidden_size);
        let mut modules = Vec::new();
        for entry in entries {
            let folder = entry.folder(&file)?;
            match entry.kind() {
                "Normalize" => modules.push(Module::Normalize),
                "Dense" => {
                    let dense = Dense::load(files, &folder, dim, isa)?;
                    dim = dense.output();
                    modules.push(Module::Dense { dense: Box::new(dense), folder });
                }
                "LayerNorm" => {
                    let checkpoint = Checkpoint::from_files(files, &folder)?;
                    // torch's own default; the module's configuration has no field for it.
                    let norm = LayerNorm::load(&checkpoint.root().on(isa).at("norm"), dim, 1e-5)?;
                    modules.push(Module::LayerNorm { norm, folder });
                }
                // Only active in training.
                "Dropout" => {}
                _ => {
                    return Err(wrong(
                        &entry.class,
                        "is not supported here; Transformer, Pooling, Dense, Normalize, LayerNorm and \
                         Dropout are, in an order that begins with the first two",
                    ));
                }
            }
        }
        Ok(Self { folder, config, pooling, modules, dim })
    }

    /// A directory without `modules.json` is an encoder alone, which sentence-transformers pools by the mean and does
    /// not normalise.
    fn plain(files: &ModelFiles) -> Result<Self> {
        let config = read_config(files, "")?;
        let pooling = Pooling::default();
        let dim = pooling.dim(config.hidden_size);
        Ok(Self { folder: String::new(), config, pooling, modules: Vec::new(), dim })
    }
}

impl Entry {
    /// The module's folder, `""` or ending in `/`.
    fn folder(&self, file: &str) -> Result<String> {
        let path = self.path.trim_end_matches('/');
        let inside = path.split('/').all(|part| !matches!(part, "." | ".."))
            && !path.starts_with('/')
            && !path.contains(['\\', ':', '\0']);
        match path {
            "" => Ok(String::new()),
            _ if inside => Ok(format!("{path}/")),
            _ => Err(Error::Module {
                file: file.to_owned(),
                module: self.path.clone(),
                problem: "must be a folder of the model's directory".to_owned(),
            }),
        }
    }
}

/// The class and the folder (`""`, or ending in `/`) of each module; none without a `modules.json`.
#[cfg(feature = "hub")]
pub(crate) fn module_folders(files: &ModelFiles) -> Result<Vec<(String, String)>> {
    let entries: Vec<Entry> = files.json(MODULES)?.unwrap_or_default();
    let file = files.label(MODULES);
    let both = |entry: &Entry| Ok((entry.kind().to_owned(), entry.folder(&file)?));
    entries.iter().map(both).collect()
}

pub(crate) fn read_config(files: &ModelFiles, folder: &str) -> Result<Config> {
    let name = format!("{folder}config.json");
    Config::from_json(files.require(&name)?, &files.label(&name))
}

/// `sentence_bert_config.json` and its siblings.
#[derive(Default, Deserialize)]
pub(super) struct TransformerSettings {
    pub(super) max_seq_length: Option<usize>,
    #[serde(default)]
    pub(super) do_lower_case: bool,
}

impl TransformerSettings {
    pub(super) fn read(files: &ModelFiles, folder: &str) -> Result<Self> {
        for name in TRANSFORMER_SETTINGS {
            if let Some(settings) = files.json(&format!("{folder}{name}"))? {
                return Ok(settings);
            }
        }
        Ok(Self::default())
    }
}

/// `config_sentence_transformers.json`.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) prompts: BTreeMap<String, String>,
    pub(super) default_prompt_name: Option<String>,
    pub(super) similarity: Similarity,
    pub(super) truncate_dim: Option<usize>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawSettings {
    model_type: Option<String>,
    prompts: Option<BTreeMap<String, Option<String>>>,
    default_prompt_name: Option<String>,
    similarity_fn_name: Option<String>,
    truncate_dim: Option<usize>,
}

impl Settings {
    /// `dim` is the width of the embeddings.
    pub(super) fn read(files: &ModelFiles, dim: usize) -> Result<Self> {
        let raw: RawSettings = files.json(SETTINGS)?.unwrap_or_default();
        let wrong = |field: &str, problem: String| Error::Field {
            file: files.label(SETTINGS),
            field: field.to_owned(),
            problem,
        };
        if let Some(kind) = raw.model_type.filter(|kind| kind != "SentenceTransformer") {
            let problem = format!("`{kind}` is another kind of model, not a SentenceTransformer");
            return Err(wrong("model_type", problem));
        }
        let mut prompts: BTreeMap<String, String> = raw
            .prompts
            .unwrap_or_default()
            .into_iter()
            .map(|(name, prompt)| (name, prompt.unwrap_or_default()))
            .collect();
        // The reference adds empty prompts of these two names.
        for name in ["query", "document"] {
            prompts.entry(name.to_owned()).or_default();
        }
        let known = |name: &&str| prompts.contains_key(*name);
        if let Some(name) = raw.default_prompt_name.as_deref().filter(|name| !known(name)) {
            let problem = format!("there is no prompt `{name}`");
            return Err(wrong("default_prompt_name", problem));
        }
        let similarity = match raw.similarity_fn_name {
            Some(name) => name
                .parse()
                .map_err(|_| wrong("similarity_fn_name", format!("`{name}` is not known")))?,
            None => Similarity::default(),
        };
        if let Some(k) = raw.truncate_dim.filter(|&k| k == 0 || k > dim) {
            let problem = format!("is {k}, must be from 1 to {dim}");
            return Err(wrong("truncate_dim", problem));
        }
        Ok(Self {
            prompts,
            default_prompt_name: raw.default_prompt_name,
            similarity,
            truncate_dim: raw.truncate_dim,
        })
    }
}
