//! The special tokens that a model's heads ask about, as `tokenizer_config.json` names them.

use super::{TOKENIZER_CONFIG, TokenizerConfig};
use crate::error::Result;
use crate::files::ModelFiles;

/// Names of special tokens, and how decoded text is finished.
#[derive(Debug)]
pub(crate) struct SpecialTokens {
    pub(crate) cls: String,
    pub(crate) mask: String,
    pub(crate) pad: String,
    pub(crate) unk: String,
    /// `clean_up_tokenization_spaces`: whether decoded text loses the spaces before punctuation and in contractions.
    pub(crate) clean_up: bool,
}

impl SpecialTokens {
    /// What `folder` (`""` or ending in `/`) of `files` says; MPNet's own names where it says nothing.
    pub(crate) fn read(files: &ModelFiles, folder: &str) -> Result<Self> {
        let name = format!("{folder}{TOKENIZER_CONFIG}");
        let config: TokenizerConfig = files.json(&name)?.unwrap_or_default();
        Ok(Self {
            cls: config.cls_token.content("<s>").to_owned(),
            mask: config.mask_token.content("<mask>").to_owned(),
            pad: config.pad_token.content("<pad>").to_owned(),
            unk: config.unk_token.content("[UNK]").to_owned(),
            clean_up: config.clean_up_tokenization_spaces.unwrap_or(false),
        })
    }
}
