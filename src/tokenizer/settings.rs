//! [`TokenizerSettings`]: `tokenizer_config.json` and the small files beside it, combined as
//! transformers combines them.
//!
//! Source: `PreTrainedTokenizerBase._from_pretrained` and `TokenizersBackend.__init__` of
//! transformers 5.23.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tokenizers::tokenizer::{AddedToken, TruncationDirection};

use super::{ADDED_TOKENS, SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG};
use crate::error::{Error, Result};
use crate::files::{ModelFiles, is_true};

/// The rules that turn the files into a tokenizer: `tokenizer_class`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Only the vocabulary is the file's; everything else comes from the settings.
    Mpnet,
    /// As `Mpnet`, with BERT's special tokens and template.
    Bert,
    /// `tokenizer.json` as it is; the special tokens of the settings are added to it.
    AsSaved,
}

/// The roles of special tokens, in the order in which transformers adds them to a vocabulary.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

const EXTRA: &str = "extra_special_tokens";
/// Marks a token of `special_tokens_map.json`.
const OF_MAP: &str = "__of_map";
/// The name of [`EXTRA`] before transformers 5.
const ADDITIONAL: &str = "additional_special_tokens";

/// Arguments of the tokenizer that would take its files from elsewhere, or put other tokens around
/// a text.
const ELSEWHERE: [&str; 9] = [
    "add_bos_token",
    "add_eos_token",
    "config",
    "gguf_file",
    "merges_file",
    "mistral_format",
    "tokenizer_file",
    "tokenizer_type",
    "vocab_file",
];

impl Class {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name.strip_suffix("Fast").unwrap_or(name) {
            "MPNetTokenizer" => Self::Mpnet,
            "BertTokenizer" => Self::Bert,
            "PreTrainedTokenizer" | "TokenizersBackend" => Self::AsSaved,
            _ => return None,
        })
    }

    /// The content of a role's token if no file names one.
    fn default_token(self, role: &str) -> Option<&'static str> {
        Some(match (self, role) {
            (Self::Mpnet, "bos_token" | "cls_token") => "<s>",
            (Self::Mpnet, "eos_token" | "sep_token") => "</s>",
            (Self::Mpnet | Self::Bert, "unk_token") => "[UNK]",
            (Self::Mpnet, "pad_token") => "<pad>",
            (Self::Mpnet, "mask_token") => "<mask>",
            (Self::Bert, "sep_token") => "[SEP]",
            (Self::Bert, "pad_token") => "[PAD]",
            (Self::Bert, "cls_token") => "[CLS]",
            (Self::Bert, "mask_token") => "[MASK]",
            _ => return None,
        })
    }
}

/// A token that is found in a text before the text is split into words.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    /// Whether it is looked for in the normalised text; a special token is not unless this says so.
    normalized: Option<bool>,
    special: bool,
}

impl Token {
    fn special(content: &str) -> Self {
        Self {
            content: content.to_owned(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: None,
            special: true,
        }
    }

    /// Reads the object that any of the files has for a token; the error says what is wrong with
    /// it.
    fn read(fields: &Map<String, Value>) -> Result<Self, String> {
        let flag = |name: &str| match fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(on)) => Ok(Some(*on)),
            Some(other) => Err(format!("has `{name}` {other}, must be true or false")),
        };
        let content = fields.get("content").and_then(Value::as_str);
        Ok(Self {
            content: content.ok_or("must have a `content` that is a string")?.to_owned(),
            single_word: flag("single_word")?.unwrap_or(false),
            lstrip: flag("lstrip")?.unwrap_or(false),
            rstrip: flag("rstrip")?.unwrap_or(false),
            normalized: flag("normalized")?,
            special: flag("special")?.unwrap_or(false),
        })
    }

    /// Reads a token as a field has it: a string, or an object marked as a token.
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(content) => Ok(Self::special(content)),
            Value::Object(fields) if value["__type"] == "AddedToken" => Self::read(fields),
            _ => Err(format!(
                "is {value}, must be a string, or an object with `\"__type\": \"AddedToken\"`"
            )),
        }
    }

    fn into_added(self) -> AddedToken {
        AddedToken::from(self.content, self.special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .normalized(self.normalized.unwrap_or(!self.special))
    }
}

/// What `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` say together.
#[derive(Debug, Clone)]
pub(crate) struct TokenizerSettings {
    /// What errors call `tokenizer_config.json`.
    file: String,
    fields: Map<String, Value>,
    /// The fields that come from another file, and what errors call it.
    overridden: BTreeMap<String, String>,
    pub(super) class: Class,
    /// The token of each role: [`ROLES`], then those that only this model has.
    named: Vec<(String, Option<Token>)>,
    /// Special tokens without a role.
    extra: Vec<Token>,
    /// Tokens that were added to the vocabulary, by id.
    added: BTreeMap<u64, Token>,
    /// Whether `tokenizer_config.json` lists the added tokens. Then no other file's list counts.
    lists_added: bool,
    /// Tokens that `added_tokens.json` takes for special ones.
    taken_for_special: Vec<String>,
}

impl TokenizerSettings {
    /// Reads the files in `folder` (`""` or ending in `/`). `arguments` are those that
    /// `sentence_bert_config.json` has for the tokenizer; they count before the files.
    pub(crate) fn read(
        files: &ModelFiles,
        folder: &str,
        arguments: &Map<String, Value>,
    ) -> Result<Self> {
        let name = format!("{folder}{TOKENIZER_CONFIG}");
        let mut fields: Map<String, Value> = files.json(&name)?.unwrap_or_default();
        let file = files.label(&name);
        let class = read_class(files, folder, &file, &fields)?;
        fields.extend(arguments.clone());
        let settings = files.label(&format!("{folder}sentence_bert_config.json"));
        let overridden = arguments.keys().map(|field| (field.clone(), settings.clone())).collect();
        let lists_added = fields.contains_key("added_tokens_decoder");
        let (named, extra, added, taken_for_special) = Default::default();
        let mut settings = Self {
            file,
            fields,
            overridden,
            class,
            named,
            extra,
            added,
            lists_added,
            taken_for_special,
        };
        settings.refuse_other_files(arguments)?;
        if !is_true(settings.fields.get(EXTRA)) {
            settings.rename(ADDITIONAL, EXTRA);
        }
        let specific = settings.take_specific();
        if lists_added {
            settings.added = settings.read_added_tokens_decoder()?;
        } else {
            settings.merge_special_tokens_map(files, folder, arguments)?;
        }
        settings.taken_for_special = settings.written_out();
        settings.name_tokens(specific)?;
        if !lists_added {
            settings.read_added_tokens_file(files, folder)?;
        }
        Ok(settings)
    }

    fn wrong(&self, field: &str, problem: impl Into<String>) -> Error {
        let file = self.overridden.get(field).unwrap_or(&self.file).clone();
        Error::Field { file, field: field.to_owned(), problem: problem.into() }
    }

    fn refuse_other_files(&self, arguments: &Map<String, Value>) -> Result<()> {
        let is_set = |name: &&str| arguments.get(*name).is_some_and(|value| !value.is_null());
        if let Some(name) = ELSEWHERE.into_iter().find(is_set) {
            let problem = "as an argument of the tokenizer is not supported; write it into \
                           tokenizer_config.json, or save the tokenizer with the model";
            return Err(self.wrong(name, problem));
        }
        let versions = self.fields.get("fast_tokenizer_files").and_then(Value::as_array);
        let is_other = |name: &&Value| name.as_str() != Some(super::TOKENIZER);
        match versions.and_then(|names| names.iter().find(is_other)) {
            None => Ok(()),
            Some(name) => Err(self.wrong(
                "fast_tokenizer_files",
                format!(
                    "lists {name}; only `tokenizer.json` is read: rename the file that is meant"
                ),
            )),
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        if let Some(value) = self.fields.remove(from) {
            self.fields.insert(to.to_owned(), value);
        }
    }

    /// Takes out the tokens with roles that only this model has.
    fn take_specific(&mut self) -> Vec<(String, Value)> {
        let is_token = |value: &Value| value.is_string() || value["__type"] == "AddedToken";
        let names = self.fields.iter().filter(|(name, value)| {
            name.ends_with("_token") && !ROLES.contains(&name.as_str()) && is_token(value)
        });
        let names: Vec<String> = names.map(|(name, _)| name.clone()).collect();
        let mut taken: Vec<_> =
            names.into_iter().filter_map(|name| self.fields.remove_entry(&name)).collect();
        self.take_extra_object(&mut taken);
        taken
    }

    /// Takes out [`EXTRA`] if it is an object, which gives each token a role.
    fn take_extra_object(&mut self, taken: &mut Vec<(String, Value)>) {
        if self.fields.get(EXTRA).is_some_and(Value::is_object)
            && let Some(Value::Object(tokens)) = self.fields.remove(EXTRA)
        {
            taken.extend(tokens);
        }
    }

    fn read_added_tokens_decoder(&self) -> Result<BTreeMap<u64, Token>> {
        let field = "added_tokens_decoder";
        let Some(Value::Object(tokens)) = self.fields.get(field) else {
            return Err(self.wrong(field, "must be an object of tokens by id"));
        };
        let read = |(id, token): (&String, &Value)| {
            let fields = token.as_object().ok_or("must be an object".to_owned());
            let token = fields.and_then(Token::read);
            let token = token.map_err(|problem| self.wrong(field, format!("`{id}`: {problem}")))?;
            let id = id.trim().parse().map_err(|_| {
                self.wrong(field, format!("`{id}` is not an id, a number from 0 on"))
            })?;
            Ok((id, token))
        };
        tokens.iter().map(read).collect()
    }

    /// Fields of `special_tokens_map.json` take the place of those of `tokenizer_config.json`.
    fn merge_special_tokens_map(
        &mut self,
        files: &ModelFiles,
        folder: &str,
        arguments: &Map<String, Value>,
    ) -> Result<()> {
        let name = format!("{folder}{SPECIAL_TOKENS_MAP}");
        let map: Map<String, Value> = files.json(&name)?.unwrap_or_default();
        // An object here is a token, a special one, without being marked as such.
        let mark = |value: &mut Value| {
            if let Value::Object(token) = value {
                token.insert("__type".to_owned(), json!("AddedToken"));
                token.insert("special".to_owned(), json!(true));
                token.insert(OF_MAP.to_owned(), json!(true));
            }
        };
        for (field, mut value) in map {
            if is_true(arguments.get(&field)) {
                continue;
            }
            match (&mut value, field == EXTRA) {
                (Value::Array(tokens), true) => {
                    tokens.iter_mut().for_each(mark);
                    if let Some(Value::Array(before)) = self.fields.get(EXTRA) {
                        tokens.splice(..0, before.iter().cloned());
                    }
                }
                (value, false) => mark(value),
                _ => {}
            }
            self.overridden.insert(field.clone(), files.label(&name));
            self.fields.insert(field, value);
        }
        Ok(())
    }

    /// The special tokens as far as transformers knows them when it reads `added_tokens.json`:
    /// objects of `tokenizer_config.json` are not tokens yet then.
    fn written_out(&self) -> Vec<String> {
        let content = |value: &Value| match value {
            Value::String(content) => Some(content.clone()),
            _ if value[OF_MAP] == true => value["content"].as_str().map(str::to_owned),
            _ => None,
        };
        let named = ROLES.iter().filter_map(|role| self.fields.get(*role));
        let extra = self.fields.get(EXTRA).and_then(Value::as_array).into_iter().flatten();
        named.chain(extra).filter_map(content).collect()
    }

    /// Finds the token of each role and those without one. `specific`: the roles that only this
    /// model has, as far as `tokenizer_config.json` names them.
    fn name_tokens(&mut self, mut specific: Vec<(String, Value)>) -> Result<()> {
        let mut later = self.take_specific();
        later.append(&mut specific);
        if !self.fields.contains_key(EXTRA) {
            self.rename(ADDITIONAL, EXTRA);
        }
        for role in ROLES {
            let token = match self.fields.get(role) {
                Some(Value::Null) => None,
                Some(value) => Some(self.token(role, value)?),
                None => self.class.default_token(role).map(|content| self.plain(role, content)),
            };
            self.named.push((role.to_owned(), token));
        }
        for (role, value) in later {
            let token = self.token(&role, &value)?;
            self.named.push((role, Some(token)));
        }
        self.extra = match self.fields.get(EXTRA) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(tokens)) => {
                tokens.iter().map(|token| self.token(EXTRA, token)).collect::<Result<_>>()?
            }
            Some(other) => {
                return Err(self.wrong(EXTRA, format!("is {other}, must be a list of tokens")));
            }
        };
        Ok(())
    }

    fn token(&self, field: &str, value: &Value) -> Result<Token> {
        match value {
            Value::String(content) => Ok(self.plain(field, content)),
            _ => Token::from_value(value).map_err(|problem| self.wrong(field, problem)),
        }
    }

    /// A token that is written as a string. MPNet's mask takes the white space before it.
    fn plain(&self, role: &str, content: &str) -> Token {
        let lstrip = self.class == Class::Mpnet && role == "mask_token";
        Token { lstrip, ..Token::special(content) }
    }

    /// `added_tokens.json`, which transformers before 4.34 wrote.
    fn read_added_tokens_file(&mut self, files: &ModelFiles, folder: &str) -> Result<()> {
        let name = format!("{folder}{ADDED_TOKENS}");
        let ids: BTreeMap<String, u64> = files.json(&name)?.unwrap_or_default();
        let tokens = ids.into_iter().map(|(content, id)| {
            let special = self.taken_for_special.contains(&content);
            (id, Token { special, normalized: Some(!special), ..Token::special(&content) })
        });
        self.added = tokens.collect();
        Ok(())
    }

    /// The tokens to add to a vocabulary, in the order in which they get their ids. `saved` are the
    /// added tokens of `tokenizer.json`.
    pub(super) fn added_tokens(&self, saved: &[Value]) -> Result<Vec<AddedToken>, String> {
        let mut added = self.added.clone();
        if !self.lists_added {
            for token in saved {
                let id = token["id"].as_u64().ok_or("an added token has no id")?;
                let fields = token.as_object().ok_or("an added token is not an object")?;
                let problem = |problem| format!("added token {id} {problem}");
                added.insert(id, Token::read(fields).map_err(problem)?);
            }
        }
        let with_role = |content: &str| {
            self.named.iter().any(|(_, token)| token.as_ref().is_some_and(|t| t.content == content))
        };
        let mut tokens: Vec<Token> = added.into_values().collect();
        let known: Vec<String> = tokens.iter().map(|token| token.content.clone()).collect();
        let kept = |content: &str| {
            known.iter().any(|known| known == content)
                || self.class == Class::AsSaved
                    && saved.iter().any(|token| token["content"].as_str() == Some(content))
        };
        for token in self.named.iter().filter_map(|(_, token)| token.as_ref()).chain(&self.extra) {
            if !kept(&token.content) && !tokens.contains(token) {
                tokens.push(token.clone());
            }
        }
        for token in &mut tokens {
            token.special |= with_role(&token.content);
        }
        Ok(tokens.into_iter().map(Token::into_added).collect())
    }

    /// The token of a role, as it is written in a text.
    pub(crate) fn named(&self, role: &str) -> Option<&str> {
        let (_, token) = self.named.iter().find(|(name, _)| name == role)?;
        token.as_ref().map(|token| token.content.as_str())
    }

    /// The special tokens that no list of added tokens has, `saved` being that of `tokenizer.json`.
    pub(super) fn unlisted<'s>(&'s self, saved: &'s [Value]) -> impl Iterator<Item = &'s str> {
        let in_saved = |token: &str| saved.iter().any(|saved| saved["content"] == token);
        let in_list = |token: &str| self.added.values().any(|added| added.content == token);
        self.all_special().filter(move |token| !in_saved(token) && !in_list(token))
    }

    /// The tokens that count as special when a prompt's length is measured.
    pub(super) fn all_special(&self) -> impl Iterator<Item = &str> {
        let named = self.named.iter().filter_map(|(_, token)| token.as_ref());
        named.chain(&self.extra).map(|token| token.content.as_str())
    }

    /// A field that must be true, false or absent.
    pub(super) fn flag(&self, field: &str, default: bool) -> Result<bool> {
        self.optional_flag(field).and_then(|value| match value {
            Some(on) => Ok(on),
            None if self.fields.contains_key(field) => {
                Err(self.wrong(field, "is null, must be true or false"))
            }
            None => Ok(default),
        })
    }

    /// A field that may be null, too.
    pub(super) fn optional_flag(&self, field: &str) -> Result<Option<bool>> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(on)) => Ok(Some(*on)),
            Some(other) => Err(self.wrong(field, format!("is {other}, must be true or false"))),
        }
    }

    /// Whether special tokens in a text are split like any other part of it.
    pub(super) fn splits_special_tokens(&self) -> Result<bool> {
        self.flag("split_special_tokens", false)
    }

    /// Whether there is a template for chats, in this file or beside it in `folder` of `files`.
    pub(crate) fn has_chat_template(&self, files: &ModelFiles, folder: &str) -> bool {
        is_true(self.fields.get("chat_template"))
            || files.has(&format!("{folder}chat_template.jinja"))
            || !files.list(&format!("{folder}additional_chat_templates/")).is_empty()
    }

    /// `clean_up_tokenization_spaces`: whether decoded text loses the spaces before punctuation and
    /// in contractions.
    pub(crate) fn cleans_up(&self) -> bool {
        is_true(self.fields.get("clean_up_tokenization_spaces"))
    }

    /// The token for padding of a `tokenizer.json`, `saved`, if no other is named: it counts as
    /// special.
    pub(super) fn with_saved_padding(&mut self, saved: &Value) {
        let token = saved["padding"]["pad_token"].as_str();
        if let Some(content) = token.filter(|_| !self.fields.contains_key("pad_token"))
            && let Some((_, token)) = self.named.iter_mut().find(|(role, _)| role == "pad_token")
        {
            *token = Some(Token::special(content));
        }
    }

    /// The end at which a text that is too long is cut. `saved` is that of `tokenizer.json`.
    pub(super) fn truncation_side(
        &self,
        saved: TruncationDirection,
    ) -> Result<TruncationDirection> {
        match self.fields.get("truncation_side").map(|side| side.as_str().unwrap_or_default()) {
            None => Ok(saved),
            Some("right") => Ok(TruncationDirection::Right),
            Some("left") => Ok(TruncationDirection::Left),
            Some(_) => Err(self.wrong("truncation_side", "must be `right` or `left`")),
        }
    }

    /// The longest input in tokens; `None` if it is unlimited, which may be written as 10³⁰.
    ///
    /// # Errors
    ///
    /// [`Error::Field`] if it is not a number.
    pub(crate) fn model_max_length(&self) -> Result<Option<usize>> {
        /// From here on transformers takes a length for unlimited.
        const UNLIMITED: f64 = 1e20;
        let field = if self.fields.contains_key("model_max_length") {
            "model_max_length"
        } else {
            "max_len"
        };
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(length) if length > UNLIMITED => Ok(None),
                Some(length) if length >= 0.0 && length.fract() == 0.0 => Ok(Some(length as usize)),
                _ => Err(self.wrong(field, format!("is {value}, must be a number of tokens"))),
            },
        }
    }
}

/// The class that `tokenizer_config.json` names, else `config.json`; MPNet's own if neither does.
fn read_class(
    files: &ModelFiles,
    folder: &str,
    file: &str,
    fields: &Map<String, Value>,
) -> Result<Class> {
    const FIELD: &str = "tokenizer_class";
    let config = format!("{folder}config.json");
    let (file, name) = match fields.get(FIELD) {
        Some(Value::Null) | None => {
            let config_fields: Map<String, Value> = files.json(&config)?.unwrap_or_default();
            (files.label(&config), config_fields.get(FIELD).cloned().unwrap_or_default())
        }
        Some(name) => (file.to_owned(), name.clone()),
    };
    if name.is_null() {
        return Ok(Class::Mpnet);
    }
    name.as_str().and_then(Class::from_name).ok_or_else(|| Error::Field {
        file,
        field: FIELD.to_owned(),
        problem: format!(
            "is {name}; MPNetTokenizer and BertTokenizer are supported, and PreTrainedTokenizerFast, \
             which takes tokenizer.json as it is"
        ),
    })
}
