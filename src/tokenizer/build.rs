//! The files of a directory → [`Tokenizer`], as transformers makes it of them.
//!
//! With MPNet's own class, `tokenizer.json` gives the vocabulary and the added tokens; how text is
//! normalised and which special tokens there are is up to `tokenizer_config.json` and the files
//! beside it.
//!
//! Source: `MPNetTokenizer`, `BertTokenizer` and `TokenizersBackend.convert_to_native_format` of
//! transformers 5.23.

use serde_json::{Map, Value};
use tokenizers::Model as _;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;

use super::settings::{Class, TokenizerSettings};
use super::{TOKENIZER, Tokenizer, VOCABULARY, guard};
use crate::error::{Error, FileProblem, Result};
use crate::files::ModelFiles;

impl Tokenizer {
    /// The tokenizer in `folder` (`""` or ending in `/`) of `files`.
    pub(crate) fn from_files(files: &ModelFiles, folder: &str) -> Result<Self> {
        let settings = TokenizerSettings::read(files, folder, &Map::new())?;
        Self::from_settings(files, folder, &settings)
    }

    /// As [`Tokenizer::from_files`], the small files having been read.
    pub(crate) fn from_settings(
        files: &ModelFiles,
        folder: &str,
        settings: &TokenizerSettings,
    ) -> Result<Self> {
        let name = format!("{folder}{TOKENIZER}");
        match (files.read(&name)?, settings.class) {
            (Some(json), Class::AsSaved) => {
                let file = files.label(&name);
                let saved = saved(&json, &file)?;
                let tokenizer = Self::from_json(json, &file)?;
                let mut settings = settings.clone();
                settings.with_saved_padding(&saved);
                tokenizer.with_settings(&settings, added_tokens(&saved))
            }
            (Some(json), _) => {
                let file = files.label(&name);
                let mut saved = saved(&json, &file)?;
                let vocabulary = take_vocabulary(&mut saved).map_err(|problem| Error::File {
                    file: file.clone(),
                    problem: FileProblem::Tokenizer { problem },
                })?;
                // Nothing of the rest is used but its truncation; transformers reads it all the
                // same.
                let rest = Self::from_json(saved.to_string(), &file)?;
                let mut tokenizer = Self::of_words(vocabulary, settings, file)?;
                tokenizer.truncation = rest.truncation;
                tokenizer.with_settings(settings, added_tokens(&saved))
            }
            (None, class) => {
                let name = format!("{folder}{VOCABULARY}");
                let text = files.read(&name)?.filter(|_| class != Class::AsSaved);
                let Some(text) = text else {
                    // Name the file that should have been there, not the one that may replace it.
                    return Err(files.absent(&format!("{folder}{TOKENIZER}")));
                };
                let file = files.label(&name);
                let vocabulary = WordPiece::read_bytes(&text).map_err(|error| Error::File {
                    file: file.clone(),
                    problem: FileProblem::Tokenizer { problem: error.to_string() },
                })?;
                let vocabulary = vocabulary.into_iter().collect();
                Self::of_words(vocabulary, settings, file)?.with_settings(settings, &[])
            }
        }
    }

    /// A WordPiece tokenizer by the rules of `settings`, without any added tokens yet.
    fn of_words(
        vocabulary: Vec<(String, u32)>,
        settings: &TokenizerSettings,
        file: String,
    ) -> Result<Self> {
        let wrong = |error: tokenizers::Error| Error::File {
            file: file.clone(),
            problem: FileProblem::Tokenizer { problem: error.to_string() },
        };
        let mut vocab = WordPiece::read_bytes(b"").map_err(wrong)?;
        vocab.extend(vocabulary);
        // A tokenizer without a token for unknown words fails at the first one, as in Python.
        let unk = settings.named("unk_token").unwrap_or("None");
        let words = WordPiece::builder().vocab(vocab).unk_token(unk.to_owned()).build();
        let mut inner = tokenizers::Tokenizer::new(words.map_err(wrong)?);
        let normalizer = BertNormalizer::new(
            true,
            settings.flag("tokenize_chinese_chars", true)?,
            settings.optional_flag("strip_accents")?,
            settings.flag("do_lower_case", true)?,
        );
        inner.with_normalizer(Some(normalizer)).map_err(wrong)?;
        inner.with_pre_tokenizer(Some(BertPreTokenizer));
        inner.with_decoder(Some(WordPieceDecoder::default()));
        Self::new(inner, file)
    }

    /// With the tokens and switches of `settings`; `saved` are the added tokens of
    /// `tokenizer.json`.
    fn with_settings(mut self, settings: &TokenizerSettings, saved: &[Value]) -> Result<Self> {
        let wrong = |problem: String| Error::File {
            file: self.file.clone(),
            problem: FileProblem::Tokenizer { problem },
        };
        let tokens = settings.added_tokens(saved).map_err(wrong)?;
        guard(|| self.inner.add_tokens(tokens)).map_err(wrong)?;
        // The ids that transformers takes where there is no such token.
        let token = |role: &str, id: u32| match settings.named(role) {
            Some(token) => (token.to_owned(), self.inner.token_to_id(token).unwrap_or(id)),
            None => ("None".to_owned(), id),
        };
        match settings.class {
            Class::Mpnet => {
                let (sep, cls) = (token("sep_token", 2), token("cls_token", 0));
                let processor = RobertaProcessing::new(sep, cls).add_prefix_space(false);
                self.processor = Some(processor.into());
            }
            Class::Bert => {
                let (sep, cls) = (token("sep_token", 3), token("cls_token", 2));
                self.processor = Some(BertProcessing::new(sep, cls).into());
            }
            Class::AsSaved => {}
        }
        self.inner.set_encode_special_tokens(settings.splits_special_tokens()?);
        self.truncation = settings.truncation_side(self.truncation)?;
        let ids = |token: &str| self.inner.token_to_id(token);
        self.special_ids = settings.all_special().filter_map(ids).collect();
        let in_vocabulary = |token: &&str| self.inner.get_model().token_to_id(token).is_some();
        let spare = settings.unlisted(saved).filter(|token| !in_vocabulary(token));
        self.spare_ids = spare.filter_map(ids).collect();
        Ok(self)
    }
}

fn saved(json: &[u8], file: &str) -> Result<Value> {
    let wrong = |problem: String| Error::File {
        file: file.to_owned(),
        problem: FileProblem::Tokenizer { problem },
    };
    serde_json::from_slice(json).map_err(|error| wrong(error.to_string()))
}

/// The added tokens of a `tokenizer.json`.
fn added_tokens(saved: &Value) -> &[Value] {
    saved["added_tokens"].as_array().map_or(&[], Vec::as_slice)
}

/// Takes the vocabulary out of a `tokenizer.json`; the error says what it has instead of one.
fn take_vocabulary(saved: &mut Value) -> Result<Vec<(String, u32)>, String> {
    let model = saved.get_mut("model").and_then(Value::as_object_mut).ok_or("it has no model")?;
    let kind = model.get("type").and_then(Value::as_str).unwrap_or("WordPiece");
    if kind != "WordPiece" {
        return Err(format!(
            "its model is {kind}, but MPNetTokenizer and BertTokenizer are WordPiece; with \
             `\"tokenizer_class\": \"PreTrainedTokenizerFast\"` in tokenizer_config.json it is taken \
             as it is"
        ));
    }
    let entry = |(token, id): (String, Value)| {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| format!("the id of `{token}` is not a number below 2³²"))?;
        Ok((token, id))
    };
    match model.insert("vocab".to_owned(), Value::Object(Map::new())) {
        Some(Value::Object(vocabulary)) => vocabulary.into_iter().map(entry).collect(),
        _ => Err("its model has no vocabulary".to_owned()),
    }
}
