//! A sentence-transformers directory as its files describe it: which modules, in which order, with
//! which settings.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::{Array2, Axis};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::dense::Dense;
use super::transformer::TransformerSettings;
use crate::checkpoint::{Checkpoint, refuse_adapter};
use crate::config::Config;
use crate::error::{Error, FileProblem, Result};
use crate::files::ModelFiles;
use crate::kernels::isa::Isa;
use crate::nn::LayerNorm;
use crate::pooling::Pooling;
use crate::similarity::Similarity;

pub(crate) const MODULES: &str = "modules.json";
pub(crate) const SETTINGS: &str = "config_sentence_transformers.json";

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
    pub(super) transformer: TransformerSettings,
    /// Whether there is a `modules.json`. Without one, sentence-transformers reads no file of its
    /// own.
    pub(super) is_saved: bool,
    pub(super) config: Config,
    pub(super) pooling: Pooling,
    pub(super) modules: Vec<Module>,
    /// Width of what the last module returns.
    pub(super) dim: usize,
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct Entry {
    name: Option<String>,
    path: String,
    #[serde(rename = "type")]
    class: String,
}

/// Where sentence-transformers of any version has its modules.
const MODULE_PATHS: [&str; 3] = [
    "sentence_transformers.models.",
    "sentence_transformers.base.modules.",
    "sentence_transformers.sentence_transformer.modules.",
];

/// The modules, each with the name of its file.
const MODULE_CLASSES: [(&str, &str); 6] = [
    ("Transformer", "transformer"),
    ("Pooling", "pooling"),
    ("Dense", "dense"),
    ("Normalize", "normalize"),
    ("LayerNorm", "layer_norm"),
    ("Dropout", "dropout"),
];

impl Entry {
    /// The module's class, if it is one of sentence-transformers' own; another package's class of
    /// the same name may do anything.
    fn kind(&self) -> Option<&'static str> {
        let rest = MODULE_PATHS.iter().find_map(|path| self.class.strip_prefix(path))?;
        let is = |(class, file): &&(&str, &str)| match rest.split_once('.') {
            None => rest == *class,
            Some((module, name)) => name == *class && (module == *class || module == *file),
        };
        MODULE_CLASSES.iter().find(is).map(|(class, _)| *class)
    }

    fn is_foreign(&self) -> bool {
        !self.class.starts_with("sentence_transformers.")
    }
}

impl Pipeline {
    pub(super) fn read(files: &ModelFiles, isa: Isa) -> Result<Self> {
        let Some(entries) = files.json::<Vec<Entry>>(MODULES)? else {
            return Self::plain(files);
        };
        let file = files.label(MODULES);
        let wrong = |module: &str, problem: &str| Error::File {
            file: file.clone(),
            problem: FileProblem::Module { module: module.to_owned(), problem: problem.to_owned() },
        };
        for entry in &entries {
            entry.folder(&file)?;
            if entry.is_foreign() {
                return Err(wrong(&entry.class, FOREIGN));
            }
        }
        let (names, mut entries) = (check_names(&entries), entries.iter());
        let Some(first) = entries.next().filter(|entry| entry.kind() == Some("Transformer")) else {
            return Err(wrong(MODULES, "the first module must be a Transformer"));
        };
        let folder = first.folder(&file)?;
        refuse_adapter(files, &folder)?;
        let transformer = TransformerSettings::read(files, &folder)?;
        let config = transformer.read_config(files, &folder)?;
        let Some(second) = entries.next().filter(|entry| entry.kind() == Some("Pooling")) else {
            return Err(wrong(MODULES, "the second module must be a Pooling"));
        };
        let name = format!("{}config.json", second.folder(&file)?);
        let fields: Map<String, Value> = files.json(&name)?.ok_or_else(|| files.absent(&name))?;
        let pooling = Pooling::from_fields(&fields, config.hidden_size, &files.label(&name))?;
        let mut dim = pooling.dim(config.hidden_size);
        let mut modules = Vec::new();
        for entry in entries {
            let folder = entry.folder(&file)?;
            match entry.kind() {
                Some("Normalize") => {
                    check_names_of_features(files, &folder)?;
                    modules.push(Module::Normalize);
                }
                Some("Dense") => {
                    let dense = Dense::load(files, &folder, dim, isa)?;
                    dim = dense.output();
                    modules.push(Module::Dense { dense: Box::new(dense), folder });
                }
                Some("LayerNorm") => {
                    check_dimension(files, &folder, dim)?;
                    let checkpoint = Checkpoint::from_files(files, &folder)?;
                    // torch's own default; the module's configuration has no field for it.
                    let norm = LayerNorm::prepare(&checkpoint.root().at("norm"), dim, 1e-5, isa)?;
                    modules.push(Module::LayerNorm { norm, folder });
                }
                // Only active in training.
                Some("Dropout") => {}
                _ => {
                    return Err(wrong(
                        &entry.class,
                        "is not supported here; Transformer, Pooling, Dense, Normalize, LayerNorm and \
                         Dropout are, in an order that begins with the first two",
                    ));
                }
            }
        }
        names.map_err(|name| wrong(name, "is the name of two modules"))?;
        Ok(Self { folder, transformer, is_saved: true, config, pooling, modules, dim })
    }

    /// A directory without `modules.json` is an encoder alone, which sentence-transformers pools by
    /// the mean and does not normalise.
    fn plain(files: &ModelFiles) -> Result<Self> {
        let transformer = TransformerSettings::new();
        let config = transformer.read_config(files, "")?;
        let pooling = Pooling::default();
        let dim = pooling.dim(config.hidden_size);
        let (folder, modules) = Default::default();
        Ok(Self { folder, transformer, is_saved: false, config, pooling, modules, dim })
    }
}

impl Entry {
    /// The module's folder, `""` or ending in `/`.
    fn folder(&self, file: &str) -> Result<String> {
        let path = &self.path;
        let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
        let inside = !path.starts_with('/') && !path.contains(['\\', ':', '\0']);
        if !inside || parts.clone().any(|part| part == "..") {
            return Err(Error::File {
                file: file.to_owned(),
                problem: FileProblem::Module {
                    module: self.path.clone(),
                    problem: "must be a folder of the model's directory".to_owned(),
                },
            });
        }
        Ok(parts.map(|part| format!("{part}/")).collect())
    }
}

const FOREIGN: &str = "is not part of sentence-transformers: it would have to run the model author's \
                       Python code, which this crate does not";

/// Two modules of one name would be one in Python; the error is the name.
fn check_names(entries: &[Entry]) -> Result<(), &str> {
    let mut seen = BTreeSet::new();
    let twice =
        entries.iter().filter_map(|entry| entry.name.as_deref()).find(|name| !seen.insert(*name));
    twice.map_or(Ok(()), Err)
}

/// The fields of a module's own `config.json`. Without a folder of its own it has no such file:
/// that of the directory is the transformer's.
fn module_fields(files: &ModelFiles, folder: &str) -> Result<Map<String, Value>> {
    match folder {
        "" => Ok(Map::new()),
        _ => Ok(files.json(&format!("{folder}config.json"))?.unwrap_or_default()),
    }
}

/// Fails unless a Normalize module is for embeddings.
fn check_names_of_features(files: &ModelFiles, folder: &str) -> Result<()> {
    const ONLY: &str = "sentence_embedding";
    let fields = module_fields(files, folder)?;
    for field in ["module_input_name", "module_output_name"] {
        if let Some(value) = fields.get(field).filter(|value| !value.is_null() && **value != ONLY) {
            return Err(Error::Field {
                file: files.label(&format!("{folder}config.json")),
                field: field.to_owned(),
                problem: format!("is {value}, only `{ONLY}` is supported"),
            });
        }
    }
    Ok(())
}

/// Fails unless a LayerNorm module is for embeddings of width `dim`.
fn check_dimension(files: &ModelFiles, folder: &str, dim: usize) -> Result<()> {
    for (field, value) in module_fields(files, folder)? {
        let problem = match field.as_str() {
            "dimension" if value == dim => continue,
            "dimension" => format!("is {value}, but the embeddings have width {dim}"),
            _ => "is not known".to_owned(),
        };
        let file = files.label(&format!("{folder}config.json"));
        return Err(Error::Field { file, field, problem });
    }
    Ok(())
}

/// The class and the folder (`""`, or ending in `/`) of each module; none without a `modules.json`.
#[cfg(feature = "hub")]
pub(crate) fn module_folders(files: &ModelFiles) -> Result<Vec<(String, String)>> {
    let entries: Vec<Entry> = files.json(MODULES)?.unwrap_or_default();
    let file = files.label(MODULES);
    let both =
        |entry: &Entry| Ok((entry.kind().unwrap_or_default().to_owned(), entry.folder(&file)?));
    entries.iter().map(both).collect()
}

#[cfg(feature = "hub")]
pub(crate) fn read_config(files: &ModelFiles, folder: &str) -> Result<Config> {
    let name = format!("{folder}config.json");
    Config::from_json(files.require(&name)?, &files.label(&name))
}

/// `config_sentence_transformers.json`.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    pub(super) prompts: BTreeMap<String, String>,
    pub(super) default_prompt_name: Option<String>,
    pub(super) similarity: Similarity,
    pub(super) truncate_dim: Option<usize>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawSettings {
    prompts: Option<BTreeMap<String, Option<String>>>,
    default_prompt_name: Option<String>,
    similarity_fn_name: Option<String>,
    truncate_dim: Option<usize>,
}

impl Settings {
    /// What holds for a model that has no such file.
    pub(super) fn new() -> Self {
        Self { prompts: with_usual_prompts(BTreeMap::new()), ..Self::default() }
    }

    /// `dim` is the width of the embeddings.
    pub(super) fn read(files: &ModelFiles, dim: usize) -> Result<Self> {
        let raw: RawSettings = files.json(SETTINGS)?.unwrap_or_default();
        let wrong = |field: &str, problem: String| Error::Field {
            file: files.label(SETTINGS),
            field: field.to_owned(),
            problem,
        };
        let prompts = raw.prompts.unwrap_or_default().into_iter();
        let prompts = prompts.map(|(name, prompt)| (name, prompt.unwrap_or_default())).collect();
        let prompts = with_usual_prompts(prompts);
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

/// The reference adds empty prompts of these two names.
fn with_usual_prompts(mut prompts: BTreeMap<String, String>) -> BTreeMap<String, String> {
    for name in ["query", "document"] {
        prompts.entry(name.to_owned()).or_default();
    }
    prompts
}
