//! Which words fit into this gap?
//!
//! ```text
//! cargo run --release --example fill_mask -- --model DIR [--text TEXT] [--top K]
//! ```
//!
//! Needs a checkpoint with the head of MPNet's pre-training (`lm_head.*`), as
//! `microsoft/mpnet-base` has; those of sentence-transformers, all-mpnet-base-v2 among them, do
//! not.

mod common;

use std::io::{self, Write};
use std::process::ExitCode;

use common::Result;
use common::cli::{self, Flags};
use mpnet::heads::MaskedLM;

const HELP: &str = "\
usage: fill_mask --model DIR [--text TEXT] [--top K]

Ranks the words that fit where a text has <mask>.

  --model DIR  a directory with config.json, tokenizer.json and model.safetensors of an MPNet masked
               language model, such as microsoft/mpnet-base (default: $MPNET_MODEL_DIR); models of
               sentence-transformers do not have the head that this needs
  --text TEXT  a text with one <mask> or several (default: The capital of France is <mask>.)
  --top K      how many words for each <mask> (default: 5)
  --help       print this";

const TEXT: &str = "The capital of France is <mask>.";

fn main() -> ExitCode {
    cli::run(fill)
}

fn fill() -> Result<()> {
    let (mut model, mut text, mut top) = (None, TEXT.to_owned(), 5);
    let mut flags = Flags::from_env(HELP);
    while let Some(flag) = flags.next_flag()? {
        match flag.as_str() {
            "--model" => model = Some(flags.path()?),
            "--text" => text = flags.value()?,
            "--top" => top = flags.value()?,
            _ => return Err(flags.unknown()),
        }
    }
    let model = MaskedLM::from_pretrained(cli::require_model(model)?)?;
    let masks = model.fill_masks(&text, top)?;

    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    for (number, fills) in (1..).zip(&masks) {
        if masks.len() > 1 {
            writeln!(out, "  mask {number}")?;
        }
        for fill in fills {
            writeln!(out, "  {:.4}  {:<12}  {}", fill.score, fill.token_str, fill.sequence)?;
        }
    }
    Ok(())
}
