//! What the benchmarks of whole models share: a model of the base model's size, and texts of a
//! given number of tokens.

#![allow(dead_code, unreachable_pub, reason = "each benchmark uses a part of this module")]

#[path = "../../examples/common/mod.rs"]
mod examples;
pub mod random_model;

use std::path::{Path, PathBuf};

use mpnet::{EncodeOptions, Precision, SentenceEncoder};
use tempfile::TempDir;

use random_model::{Sizes, WORDS};

/// The directory of a model.
pub struct Model {
    directory: PathBuf,
    _temporary: Option<TempDir>,
}

impl Model {
    /// The real weights, where the examples find them; if they are not there, a model of the same
    /// sizes with random ones, in a directory that lives as long as this.
    pub fn find() -> Self {
        let real = examples::cli::find_model(None).expect("MPNET_MODEL_DIR names a directory");
        if let Some(directory) = real {
            return Self { directory, _temporary: None };
        }
        eprintln!("no model is there: measuring random weights of the same sizes");
        let temporary = tempfile::tempdir().expect("a temporary directory");
        random_model::write(temporary.path(), Sizes::BASE).expect("room for 440 MB");
        Self { directory: temporary.path().to_owned(), _temporary: Some(temporary) }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn encoder(&self, precision: Precision) -> SentenceEncoder {
        let builder = SentenceEncoder::builder(&self.directory).precision(precision);
        builder.build().expect("the model loads")
    }
}

/// Texts that are encoded in one call.
pub struct Case {
    pub name: &'static str,
    pub texts: Vec<String>,
    /// Tokens of each text.
    pub tokens: usize,
}

impl Case {
    pub fn all() -> [Self; 4] {
        [("query", 1, 13), ("short128", 1, 128), ("long384", 1, 384), ("batch32x128", 32, 128)].map(
            |(name, texts, tokens)| Self {
                name,
                texts: (0..texts).map(|i| text(tokens, i)).collect(),
                tokens,
            },
        )
    }

    /// Those of all texts.
    pub fn all_tokens(&self) -> usize {
        self.tokens * self.texts.len()
    }

    /// Fails unless the texts have as many tokens as they should, for `encoder`; and has it warm
    /// afterwards.
    pub fn check(&self, encoder: &SentenceEncoder) {
        let report = encoder.encode_with(&self.texts, &EncodeOptions::default());
        let tokens = report.expect("the texts can be encoded").tokens();
        assert_eq!(tokens, self.all_tokens(), "{}: tokens", self.name);
    }
}

/// Text number `i` of so many tokens, of which two are not words but stand around them.
pub fn text(tokens: usize, i: usize) -> String {
    let words = WORDS.iter().cycle().skip(i % WORDS.len()).take(tokens - 2);
    words.copied().collect::<Vec<_>>().join(" ")
}
