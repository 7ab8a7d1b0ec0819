//! What are the embeddings of these texts?
//!
//! ```text
//! echo "A man is eating food." | cargo run --release --example encode -- --model DIR
//! ```

mod common;

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use common::cli::{self, Flags};
use common::{Result, input};
use mpnet::ndarray::Array2;
use mpnet::{Isa, Precision, SentenceEncoder};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

const HELP: &str = "\
usage: encode [--model DIR] [--precision P] [--isa NAME] [--threads N] [--input FILE] [--output FILE]

Writes the embedding of each text.

  --model DIR      a sentence-transformers directory with an MPNet model (default: $MPNET_MODEL_DIR,
                   else the cache that fetch_model fills)
  --precision P    f32 (default), bf16 or int8
  --isa NAME       the instruction set (default: the fastest available)
  --threads N      how many threads (default: one a core)
  --input FILE     one text a line, or a JSON string a line if it is a .jsonl file (default:
                   standard input, one text a line)
  --output FILE    a safetensors file, in which `embeddings` is [B, D] f32 (default: standard
                   output, a JSON array a line)
  --help           print this";

#[derive(Default)]
struct Options {
    model: Option<PathBuf>,
    precision: Precision,
    isa: Option<Isa>,
    threads: Option<usize>,
    input: Option<PathBuf>,
    output: Option<PathBuf>,
}

fn main() -> ExitCode {
    cli::run(|| {
        let options = read_flags()?;
        cli::with_threads(options.threads, || encode(&options))
    })
}

fn read_flags() -> Result<Options> {
    let mut options = Options::default();
    let mut flags = Flags::from_env(HELP);
    while let Some(flag) = flags.next_flag()? {
        match flag.as_str() {
            "--model" => options.model = Some(flags.path()?),
            "--precision" => options.precision = flags.value()?,
            "--isa" => options.isa = Some(flags.value()?),
            "--threads" => options.threads = Some(flags.value()?),
            "--input" => options.input = Some(flags.path()?),
            "--output" => options.output = Some(flags.path()?),
            _ => return Err(flags.unknown()),
        }
    }
    Ok(options)
}

fn encode(options: &Options) -> Result<()> {
    let directory = cli::require_model(options.model.clone())?;
    let mut builder = SentenceEncoder::builder(&directory).precision(options.precision);
    if let Some(isa) = options.isa {
        builder = builder.isa(isa);
    }
    let encoder = builder.build()?;
    let texts = input::texts(options.input.as_deref())?;
    let embeddings = input::encode(&encoder, &texts)?;
    match &options.output {
        Some(file) => write_safetensors(&embeddings, file),
        None => write_json(&embeddings),
    }
}

fn write_safetensors(embeddings: &Array2<f32>, file: &Path) -> Result<()> {
    let bytes: Vec<u8> = embeddings.iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, embeddings.shape().to_vec(), &bytes)?;
    let contents = safetensors::serialize([("embeddings", view)], None)?;
    fs::write(file, contents)
        .map_err(|error| format!("cannot write `{}`: {error}", file.display()).into())
}

fn write_json(embeddings: &Array2<f32>) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for row in embeddings.rows() {
        serde_json::to_writer(&mut out, &row.to_vec()).map_err(io::Error::from)?;
        writeln!(out)?;
    }
    out.flush()?;
    Ok(())
}
