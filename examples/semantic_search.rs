//! Which of these texts answers the question?
//!
//! ```text
//! cargo run --release --example semantic_search [-- --model DIR] [--corpus FILE] [--query TEXT]
//! ```
//!
//! Without a model it first fetches the real all-mpnet-base-v2 (about 439 MB) into the cache.

mod common;

use std::io::{self, Write};
use std::process::ExitCode;

use common::cli::{self, Flags};
use common::{Result, fetch, input};
use mpnet::SentenceEncoder;
use mpnet::search::{SearchOptions, semantic_search_with};

const HELP: &str = "\
usage: semantic_search [--model DIR] [--corpus FILE] [--query TEXT] [--top K]

Ranks the texts of a corpus by how well they match a query.

  --model DIR    a sentence-transformers directory with an MPNet model (default: $MPNET_MODEL_DIR,
                 else the cache, which is filled with all-mpnet-base-v2 if it is empty)
  --corpus FILE  one text a line, or a JSON string a line if it is a .jsonl file (default: a small
                 corpus that is built in)
  --query TEXT   what to look for (default: a question about the built-in corpus)
  --top K        how many answers (default: 5)
  --help         print this";

const QUERY: &str = "a man is sitting at a table, what is he doing?";

const CORPUS: [&str; 12] = [
    "a man is eating food",
    "a girl is holding a baby",
    "a man is riding a horse",
    "a woman is playing the violin",
    "two men pushed carts through the woods",
    "a monkey is playing drums",
    "a cheetah is running behind its prey",
    "the new movie is awesome",
    "she locked the door and turned off the lights",
    "photosynthesis turns light into chemical energy",
    "the central bank has raised its interest rate",
    "a train from Berlin to Prague takes about four hours",
];

fn main() -> ExitCode {
    cli::run(search)
}

fn search() -> Result<()> {
    let (mut model, mut corpus, mut query, mut top) = (None, None, None, 5);
    let mut flags = Flags::from_env(HELP);
    while let Some(flag) = flags.next_flag()? {
        match flag.as_str() {
            "--model" => model = Some(flags.path()?),
            "--corpus" => corpus = Some(flags.path()?),
            "--query" => query = Some(flags.value::<String>()?),
            "--top" => top = flags.value()?,
            _ => return Err(flags.unknown()),
        }
    }
    if corpus.is_some() && query.is_none() {
        return Err("--corpus needs a --query to look for".into());
    }
    let query = query.unwrap_or_else(|| QUERY.to_owned());
    let corpus = match corpus {
        Some(file) => input::texts(Some(&file))?,
        None => CORPUS.map(str::to_owned).to_vec(),
    };
    let directory = match cli::find_model(model)? {
        Some(directory) => directory,
        None => {
            let directory = cli::cache_dir()?;
            fetch::fetch(&directory, false)?;
            directory
        }
    };

    let encoder = SentenceEncoder::from_pretrained(&directory)?;
    let corpus_embeddings = input::encode(&encoder, &corpus)?;
    let query_embedding = encoder.encode(&[&query])?;
    let (query_embedding, corpus_embeddings) = (query_embedding.view(), corpus_embeddings.view());
    let options = SearchOptions::default().similarity(encoder.similarity_fn()).top_k(top);
    let hits = semantic_search_with(&query_embedding, &corpus_embeddings, &options)?;

    let mut out = io::stdout().lock();
    writeln!(out, "{query}")?;
    for hit in &hits[0] {
        writeln!(out, "  {:.4}  {}", hit.score, corpus[hit.corpus_id])?;
    }
    Ok(())
}
