//! The special tokens that a model's heads ask about.

use serde_json::Map;

use super::TokenizerSettings;
use crate::error::Result;
use crate::files::ModelFiles;

/// Names of special tokens, and how decoded text is finished.
#[derive(Debug)]
pub(crate) struct SpecialTokens {
    pub(crate) cls: String,
    pub(crate) mask: String,
    pub(crate) pad: String,
    pub(crate) unk: String,
    /// `clean_up_tokenization_spaces`: whether decoded text loses the spaces before punctuation and
    /// in contractions.
    pub(crate) clean_up: bool,
}

impl SpecialTokens {
    /// What the tokenizer's files in `folder` (`""` or ending in `/`) of `files` say. A role that
    /// has no token has the empty string, which no vocabulary holds.
    pub(crate) fn read(files: &ModelFiles, folder: &str) -> Result<Self> {
        let settings = TokenizerSettings::read(files, folder, &Map::new())?;
        let named = |role| settings.named(role).unwrap_or_default().to_owned();
        Ok(Self {
            cls: named("cls_token"),
            mask: named("mask_token"),
            pad: named("pad_token"),
            unk: named("unk_token"),
            clean_up: settings.cleans_up(),
        })
    }
}

/// The longest input that the tokenizer's files allow; `None` if it is unlimited.
pub(crate) fn model_max_length(files: &ModelFiles, folder: &str) -> Result<Option<usize>> {
    TokenizerSettings::read(files, folder, &Map::new())?.model_max_length()
}
