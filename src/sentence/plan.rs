//! [`Plan`]: what a call's options mean for an encoder, checked before anything is computed.

use std::ops::Range;

use super::SentenceEncoder;
use super::options::{EncodeOptions, Overflow, Prompt, Task};
use crate::error::{Error, Result, at_least_one};
use crate::tokenizer::{Excess, Fit};

/// Bytes of text that are taken up at a time, for each token of a batch: enough for dozens of
/// batches of ordinary text, so that the last one of them, which may be small, does not matter.
const BYTES_PER_TOKEN: usize = 256;

/// What a text counts for at least, so that very short ones do not become too many rows.
const LEAST_BYTES: usize = 64;

/// The options of a call.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) prompt: String,
    /// Tokens at the beginning of each text, or window, that the pooling leaves out.
    pub(super) skip: usize,
    pub(super) fit: Fit,
    pub(super) overflow: Overflow,
    /// Width of the result.
    pub(super) dim: usize,
    pub(super) tokens_per_batch: usize,
}

impl Plan {
    pub(super) fn new(encoder: &SentenceEncoder, options: &EncodeOptions) -> Result<Self> {
        let tokens_per_batch = options.tokens_per_batch.unwrap_or(encoder.tokens_per_batch);
        at_least_one("tokens_per_batch", tokens_per_batch)?;
        let dim = encoder.truncated_dim(options)?;
        let prompt = encoder.prompt(&options.prompt)?;
        let max_tokens = encoder.longest(options.task)?;
        let excess = match options.overflow {
            Overflow::Truncate | Overflow::Error => Excess::Cut,
            Overflow::Window { stride } => Excess::Windows {
                stride,
                prompt: encoder.window_prompt(prompt, max_tokens, stride)?,
            },
        };
        Ok(Self {
            skip: encoder.skipped(prompt)?,
            prompt: prompt.to_owned(),
            fit: Fit { max_tokens, excess, offsets: false },
            overflow: options.overflow,
            dim,
            tokens_per_batch,
        })
    }

    /// The same, to find out where tokens stand in their texts.
    pub(super) fn with_offsets(mut self) -> Self {
        self.fit.offsets = true;
        self
    }

    /// How much text is taken up before it is computed, in the measure of [`cost`].
    pub(super) fn bytes_at_a_time(&self) -> usize {
        self.tokens_per_batch.saturating_mul(BYTES_PER_TOKEN)
    }

    /// `texts` in the parts that are taken up one after another.
    pub(super) fn parts<S: AsRef<str>>(&self, texts: &[S]) -> Vec<Range<usize>> {
        let (mut parts, mut start, mut size) = (Vec::new(), 0, 0);
        for (i, text) in texts.iter().enumerate() {
            size += cost(text.as_ref());
            if size >= self.bytes_at_a_time() || i + 1 == texts.len() {
                parts.push(start..i + 1);
                (start, size) = (i + 1, 0);
            }
        }
        parts
    }
}

/// What a text counts for in a part.
pub(super) fn cost(text: &str) -> usize {
    text.len().max(LEAST_BYTES)
}

impl SentenceEncoder {
    fn truncated_dim(&self, options: &EncodeOptions) -> Result<usize> {
        match options.truncate_dim {
            None => Ok(self.dim()),
            Some(k) if (1..=self.dim).contains(&k) => Ok(k),
            Some(k) => Err(Error::Option {
                option: "truncate_dim",
                problem: format!("is {k}, must be from 1 to {}", self.dim),
            }),
        }
    }

    /// The text of the prompt that is asked for; `""` for none.
    fn prompt<'a>(&'a self, prompt: &'a Prompt) -> Result<&'a str> {
        let name = match prompt {
            Prompt::Text(text) => return Ok(text),
            Prompt::Named(name) => name,
            Prompt::Default => match &self.settings.default_prompt_name {
                Some(name) => name,
                None => return Ok(""),
            },
        };
        self.settings.prompts.get(name).map(String::as_str).ok_or_else(|| {
            let names: Vec<&str> = self.settings.prompts.keys().map(String::as_str).collect();
            let problem = format!("the model has no prompt `{name}`; it has {names:?}");
            Error::Option { option: "prompt_name", problem }
        })
    }

    /// The longest text of a task in tokens, special tokens included.
    fn longest(&self, task: Task) -> Result<usize> {
        let transformer = &self.transformer;
        let (field, own) = match task {
            // What is said of every call counts before the limit of a task.
            _ if transformer.text.decides_length() => return Ok(self.max_seq_length),
            Task::Any => return Ok(self.max_seq_length),
            Task::Query => ("query_length", transformer.query_length),
            Task::Document => ("document_length", transformer.document_length),
        };
        let Some(length) = own else { return Ok(self.max_seq_length) };
        let least = self.tokenizer.special_tokens(false).max(1);
        if length < least {
            let problem = format!("of the model is {length}, must be at least {least}");
            return Err(Error::Option { option: field, problem });
        }
        Ok(length.min(self.model.config().max_tokens()))
    }

    /// How many tokens of each text the pooling leaves out: if it must not see the prompt, those of
    /// the prompt alone without the special token at its end.
    fn skipped(&self, prompt: &str) -> Result<usize> {
        if prompt.is_empty() || !self.pooling.excludes_prompt() {
            return Ok(0);
        }
        let tokens = self.tokenizer.encode(&[prompt], self.max_seq_length)?;
        Ok(tokens.first().map_or(0, |tokens| self.tokenizer.without_end(&tokens.ids).len()))
    }

    /// How many word pieces of the prompt each window of `max_tokens` repeats, if that leaves room
    /// for windows.
    fn window_prompt(&self, prompt: &str, max_tokens: usize, stride: usize) -> Result<usize> {
        let pieces = if prompt.is_empty() { 0 } else { self.tokenizer.count(prompt)? };
        let around = self.tokenizer.special_tokens(false) + pieces;
        let room = max_tokens.saturating_sub(around);
        if stride < room {
            return Ok(pieces);
        }
        let problem = format!(
            "is {stride}, must be less than the {room} tokens of text in a window: of {}, {around} are special tokens and \
             prompt",
            max_tokens
        );
        Err(Error::Option { option: "stride", problem })
    }
}
