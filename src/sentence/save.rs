//! An encoder → a directory in the layout of sentence-transformers.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::SentenceEncoder;
use super::modules::{MODULES, Module, SETTINGS};
use crate::checkpoint::{Checkpoint, WeightDtype};
use crate::error::{Error, Result};
use crate::files::{ModelFiles, Staging};

/// Files of the transformer module that are copied as they are.
const COPIED: [&str; 4] =
    ["tokenizer.json", "vocab.txt", "special_tokens_map.json", "added_tokens.json"];

impl SentenceEncoder {
    /// Saves the model to `directory`, its weights as `dtype`, for this crate and for Python's
    /// sentence-transformers of any version to load.
    ///
    /// The weights are those of the directory that the encoder was loaded from, read again and
    /// converted one by one: an encoder holds them in the order in which it multiplies, and perhaps
    /// rounded ([`Precision`](crate::Precision) does not matter here). That directory must still be
    /// there, unchanged. All else is written as the encoder has it: what was set on the
    /// [builder](super::SentenceEncoderBuilder) (`max_seq_length`, prompts, similarity,
    /// `truncate_dim`, pooling, normalisation) is part of the saved model. Left out is what an
    /// encoder does not use: task heads, and Dropout modules, which act in training only.
    ///
    /// `directory` appears when it is complete, or not at all. It must not be there before, or be
    /// empty.
    ///
    /// ```
    /// use mpnet::{SentenceEncoder, WeightDtype};
    ///
    /// # let (models, directory) = (tempfile::tempdir().unwrap(), "tests/data/tiny");
    /// let encoder = SentenceEncoder::builder(directory).max_seq_length(32).build()?;
    /// let saved = models.path().join("half-the-size");
    /// encoder.save_pretrained(&saved, WeightDtype::F16)?;
    /// assert_eq!(SentenceEncoder::from_pretrained(&saved)?.max_seq_length(), 32);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Save`] if `directory` is not empty, or the encoder was loaded from memory or its
    /// files have changed; [`Error::Io`] if a file cannot be read or written; [`Error::Option`] if
    /// a weight is too large for `dtype`.
    pub fn save_pretrained(&self, directory: impl AsRef<Path>, dtype: WeightDtype) -> Result<()> {
        match &self.files {
            Some(files) => self.save_pretrained_from(files.clone(), directory, dtype),
            None => Err(Error::Save {
                path: directory.as_ref().to_owned(),
                problem:
                    "the encoder was loaded from memory, which it has not kept: give the files to \
                          `save_pretrained_from`"
                        .to_owned(),
            }),
        }
    }

    /// As [`save_pretrained`](Self::save_pretrained), for an encoder that was loaded from files in
    /// memory: with `files`, the same again.
    ///
    /// ```
    /// use mpnet::{ModelFiles, SentenceEncoder, WeightDtype};
    ///
    /// # let models = tempfile::tempdir().unwrap();
    /// # let read = |name: &str| std::fs::read(std::path::Path::new("tests/data/tiny").join(name)).unwrap();
    /// # let (weights, config, tokenizer) = (read("model.safetensors"), read("config.json"), read("tokenizer.json"));
    /// // `weights`, `config`, `tokenizer`: bytes, from somewhere
    /// let files = ModelFiles::in_memory([
    ///     ("model.safetensors", &*weights),
    ///     ("config.json", &*config),
    ///     ("tokenizer.json", &*tokenizer),
    /// ]);
    /// let encoder = SentenceEncoder::from_pretrained(files.clone())?;
    /// encoder.save_pretrained_from(files, models.path().join("saved"), WeightDtype::F16)?;
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`save_pretrained`](Self::save_pretrained).
    pub fn save_pretrained_from<'a>(
        &self,
        files: impl Into<ModelFiles<'a>>,
        directory: impl AsRef<Path>,
        dtype: WeightDtype,
    ) -> Result<()> {
        let (files, directory) = (files.into(), directory.as_ref());
        if !self.saves_files {
            let problem = "the encoder was made from parameters in memory, which it has not kept: \
                           save those with MpnetParameters::save";
            let problem = problem.to_owned();
            return Err(Error::Save { path: directory.to_owned(), problem });
        }
        if self.transformer.read_config(&files, &self.folder)? != *self.model.config() {
            let problem = "the files are not those that the encoder was loaded from".to_owned();
            return Err(Error::Save { path: directory.to_owned(), problem });
        }
        let staging = Staging::new(directory)?;
        self.save_transformer(&files, &staging, dtype)?;
        let mut modules = vec![
            module(0, "Transformer", String::new()),
            module(1, "Pooling", "1_Pooling".to_owned()),
        ];
        staging.write("1_Pooling/config.json", text(&self.pooling.to_json(self.hidden_size())))?;
        for (i, after) in (2..).zip(&*self.modules) {
            let folder = format!("{i}_{}", after.class());
            save_module(after, &files, &staging, &folder, dtype)?;
            modules.push(module(i, after.class(), folder));
        }
        staging.write("modules.json", text(&modules.into()))?;
        self.save_settings(&files, &staging)?;
        copy(&files, "README.md", &staging, "README.md")?;
        staging.commit()
    }

    fn save_transformer(
        &self,
        files: &ModelFiles,
        staging: &Staging,
        dtype: WeightDtype,
    ) -> Result<()> {
        let folder = &self.folder;
        let checkpoint = Checkpoint::from_files(files, folder)?;
        let tied = self.model.config().tie_word_embeddings;
        checkpoint.save_encoder(&staging.place("model.safetensors")?, dtype, tied)?;
        for name in COPIED {
            copy(files, &format!("{folder}{name}"), staging, name)?;
        }
        let mut config = self.transformer.config_fields(files, folder)?;
        config.insert("num_hidden_layers".to_owned(), self.model.config().num_hidden_layers.into());
        // Transformers before 5 know only the longer name, later ones both; two that differ would
        // be a riddle.
        config.remove("dtype");
        config.insert("torch_dtype".to_owned(), dtype.torch_name().into());
        config.insert("architectures".to_owned(), json!(["MPNetModel"]));
        staging.write("config.json", text(&config.into()))?;
        // Old versions read the length from the one file, new ones from the other.
        let mut tokenizer = object(files, &format!("{folder}tokenizer_config.json"))?;
        tokenizer.insert("model_max_length".to_owned(), self.max_seq_length.into());
        staging.write("tokenizer_config.json", text(&tokenizer.into()))?;
        let settings = self.transformer.to_json(self.max_seq_length);
        staging.write("sentence_bert_config.json", text(&settings))
    }

    fn save_settings(&self, files: &ModelFiles, staging: &Staging) -> Result<()> {
        let mut settings = match files.has(MODULES) {
            true => object(files, SETTINGS)?,
            // Nor was it read.
            false => Map::new(),
        };
        settings.insert("model_type".to_owned(), "SentenceTransformer".into());
        settings.insert("prompts".to_owned(), json!(self.settings.prompts));
        let default = json!(self.settings.default_prompt_name);
        settings.insert("default_prompt_name".to_owned(), default);
        settings.insert("similarity_fn_name".to_owned(), self.settings.similarity.name().into());
        match self.settings.truncate_dim {
            Some(k) => settings.insert("truncate_dim".to_owned(), k.into()),
            None => settings.remove("truncate_dim"),
        };
        staging.write(SETTINGS, text(&settings.into()))
    }
}

fn save_module(
    module: &Module,
    files: &ModelFiles,
    staging: &Staging,
    folder: &str,
    dtype: WeightDtype,
) -> Result<()> {
    let config = format!("{folder}/config.json");
    let weights = |from: &str| {
        let path = staging.place(&format!("{folder}/model.safetensors"))?;
        Checkpoint::from_files(files, from)?.save(&path, dtype)
    };
    match module {
        Module::Normalize => staging.write(&config, "{}\n"),
        Module::Dense { folder: from, .. } => {
            let mut fields = object(files, &format!("{from}config.json"))?;
            // Sentence-transformers before 5.4 does not load a Dense with a field that it has not
            // heard of. The two names can only be what is meant without them.
            fields.retain(|field, value| match field.as_str() {
                "module_input_name" | "module_output_name" => false,
                "use_residual" => value == true,
                _ => true,
            });
            staging.write(&config, text(&fields.into()))?;
            weights(from)
        }
        Module::LayerNorm { norm, folder: from } => {
            staging.write(&config, text(&json!({"dimension": norm.width()})))?;
            weights(from)
        }
    }
}

/// An entry of `modules.json`, with the class names that every version of sentence-transformers
/// knows.
fn module(idx: usize, class: &str, path: String) -> Value {
    json!({
        "idx": idx, "name": idx.to_string(), "path": path,
        "type": format!("sentence_transformers.models.{class}"),
    })
}

/// Copies a file, if there is one.
fn copy(files: &ModelFiles, from: &str, staging: &Staging, to: &str) -> Result<()> {
    match files.read(from)? {
        Some(bytes) => staging.write(to, bytes),
        None => Ok(()),
    }
}

/// A JSON file whose other fields are to be kept; an empty object if there is none.
fn object(files: &ModelFiles, name: &str) -> Result<Map<String, Value>> {
    Ok(files.json(name)?.unwrap_or_default())
}

fn text(value: &Value) -> String {
    format!("{value:#}\n")
}
