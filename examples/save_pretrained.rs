//! How is a model saved, in half the size or with other settings?
//!
//! ```text
//! cargo run --release --example save_pretrained -- --model DIR --output NEW_DIR --dtype f16
//! ```

mod common;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use common::Result;
use common::cli::{self, Flags};
use mpnet::{SentenceEncoder, WeightDtype};

const HELP: &str = "\
usage: save_pretrained --output DIR [--model DIR] [--dtype T] [--max-seq-length N] [--prompt NAME=TEXT]...

Writes a model in the layout of sentence-transformers.

  --output DIR         where; it must not exist yet, or be empty
  --model DIR          a sentence-transformers directory with an MPNet model (default: $MPNET_MODEL_DIR,
                       else the cache that fetch_model fills)
  --dtype T            the type of the weights: f32 (default), f16 or bf16
  --max-seq-length N   another limit for the length of a text
  --prompt NAME=TEXT   a prompt to save with the model
  --help               print this";

#[derive(Default)]
struct Options {
    model: Option<PathBuf>,
    output: Option<PathBuf>,
    dtype: WeightDtype,
    max_seq_length: Option<usize>,
    prompts: Vec<(String, String)>,
}

fn main() -> ExitCode {
    cli::run(|| save(&read_flags()?))
}

fn read_flags() -> Result<Options> {
    let mut options = Options::default();
    let mut flags = Flags::from_env(HELP);
    while let Some(flag) = flags.next_flag()? {
        match flag.as_str() {
            "--model" => options.model = Some(flags.path()?),
            "--output" => options.output = Some(flags.path()?),
            "--dtype" => options.dtype = flags.value()?,
            "--max-seq-length" => options.max_seq_length = Some(flags.value()?),
            "--prompt" => {
                let prompt: String = flags.value()?;
                let (name, text) = prompt.split_once('=').ok_or("--prompt: must be NAME=TEXT")?;
                options.prompts.push((name.to_owned(), text.to_owned()));
            }
            _ => return Err(flags.unknown()),
        }
    }
    Ok(options)
}

fn save(options: &Options) -> Result<()> {
    let output = options.output.as_ref().ok_or("--output is missing")?;
    let mut builder = SentenceEncoder::builder(cli::require_model(options.model.clone())?);
    if let Some(length) = options.max_seq_length {
        builder = builder.max_seq_length(length);
    }
    for (name, text) in &options.prompts {
        builder = builder.prompt(name, text);
    }
    builder.build()?.save_pretrained(output, options.dtype)?;
    writeln!(io::stdout(), "saved to {}", output.display())?;
    Ok(())
}
