//! How is a model loaded by its name on the Hugging Face hub?
//!
//! ```text
//! cargo run --release --features hub --example from_hub [-- --model NAME] [--revision R] [--offline] [--text TEXT]
//! ```

mod common;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use common::Result;
use common::cli::{self, Flags};
use indicatif::{ProgressBar, ProgressStyle};
use mpnet::{DownloadProgress, HubModel, SentenceEncoder};

const HELP: &str = "\
usage: from_hub [--model NAME] [--revision R] [--cache DIR] [--offline] [--text TEXT]

Fetches a model from the Hugging Face hub, unless it is in the cache (the one that Python uses),
prints the directory of its files, and embeds a text.

  --model NAME  organisation/name (default: sentence-transformers/all-mpnet-base-v2, 439 MB)
  --revision R  a branch, a tag, or the hash of a commit (default: main)
  --cache DIR   the cache (default: $HF_HUB_CACHE, $HF_HOME/hub, ~/.cache/huggingface/hub)
  --offline     use what is in the cache
  --text TEXT   the text
  --help        print this

It heeds HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and SSL_CERT_FILE, as Python does.";

fn main() -> ExitCode {
    cli::run(from_hub)
}

fn from_hub() -> Result<()> {
    let mut model = HubModel::new("sentence-transformers/all-mpnet-base-v2");
    let (mut revision, mut cache, mut offline) = (None::<String>, None, false);
    let mut text = "The weather is lovely today.".to_owned();
    let mut flags = Flags::from_env(HELP);
    while let Some(flag) = flags.next_flag()? {
        match flag.as_str() {
            "--model" => model = HubModel::new(flags.value::<String>()?),
            "--revision" => revision = Some(flags.value()?),
            "--cache" => cache = Some(flags.path()?),
            "--offline" => offline = true,
            "--text" => text = flags.value()?,
            _ => return Err(flags.unknown()),
        }
    }
    if let Some(revision) = revision {
        model = model.revision(revision);
    }
    if let Some(cache) = cache {
        model = model.cache_dir(cache);
    }
    let bar = progress_bar();
    let directory =
        model.local_files_only(offline).progress(move |progress| show(&bar, progress)).fetch()?;
    let encoder = SentenceEncoder::from_pretrained(&directory)?;
    let embedding = encoder.encode_one(&text)?;
    let first: Vec<String> = embedding.iter().take(4).map(|x| format!("{x:.4}")).collect();
    let mut out = io::stdout();
    writeln!(out, "{}", directory.display())?;
    writeln!(out, "{text}: [{}, …], {} components", first.join(", "), embedding.len())?;
    Ok(())
}

fn progress_bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{msg} {wide_bar} {decimal_bytes} {decimal_bytes_per_sec}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(bar: &ProgressBar, progress: &DownloadProgress) {
    bar.set_message(progress.file.clone());
    bar.set_length(progress.total.unwrap_or(progress.bytes));
    bar.set_position(progress.bytes);
}
