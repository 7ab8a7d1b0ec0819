//! What are the main points of this document?
//!
//! ```text
//! cargo run --release --example extractive_summary [-- --model DIR] [--document FILE] [--sentences N]
//! ```
//!
//! Chooses a few sentences of a document that stand for all of it, and prints them as they follow
//! one another there. A sentence is central if its embedding is near the mean of all: for
//! embeddings of length 1 that is the sentence with the largest sum of cosines to all others, at
//! which LexRank's random walk arrives more often than at any other (Erkan and Radev 2004,
//! <https://arxiv.org/abs/1109.2128>). Maximal marginal relevance then keeps the second sentence from saying what the first
//! has said.

mod common;

use std::io::{self, Write};
use std::process::ExitCode;

use common::cli::{self, Flags};
use common::document::Document;
use common::{Result, input};
use mpnet::mining::mmr;
use mpnet::ndarray::Axis;
use mpnet::{SentenceEncoder, split};

const HELP: &str = "\
usage: extractive_summary [--model DIR] [--document FILE] [--sentences N] [--lambda L]

Sums up a document in sentences of its own.

  --model DIR      a sentence-transformers directory with an MPNet model (default: $MPNET_MODEL_DIR,
                   else the cache that fetch_model fills)
  --document FILE  prose, an empty line between paragraphs (default: an article on honey bees,
                   examples/data/honey_bees.txt)
  --sentences N    how many sentences (default: 6)
  --lambda L       from 0 to 1: 1 for the most central sentences, less for different ones (default: 0.6)
  --help           print this";

fn main() -> ExitCode {
    cli::run(sum_up)
}

fn sum_up() -> Result<()> {
    let (mut model, mut file, mut wanted, mut lambda) = (None, None, 6, 0.6);
    let mut flags = Flags::from_env(HELP);
    while let Some(flag) = flags.next_flag()? {
        match flag.as_str() {
            "--model" => model = Some(flags.path()?),
            "--document" => file = Some(flags.path()?),
            "--sentences" => wanted = flags.value()?,
            "--lambda" => lambda = flags.value()?,
            _ => return Err(flags.unknown()),
        }
    }
    let document = Document::open(file)?;
    let encoder = SentenceEncoder::from_pretrained(cli::require_model(model)?)?;

    let ranges = split::sentences(&document.text);
    let sentences: Vec<String> =
        ranges.iter().map(|bytes| document.text[bytes.clone()].to_owned()).collect();
    let embeddings = input::encode(&encoder, &sentences)?;
    let centre = embeddings.mean_axis(Axis(0)).ok_or("the document has no sentences")?;
    let mut chosen = mmr(&centre.view(), &embeddings.view(), wanted, lambda)?;
    chosen.sort_by_key(|hit| hit.corpus_id);

    let mut out = io::stdout().lock();
    writeln!(out, "{} of {} sentences, and how central each is", chosen.len(), sentences.len())?;
    for hit in chosen {
        let lines = document.lines(&ranges[hit.corpus_id]);
        writeln!(
            out,
            "  {:.4}  line {:3}  {}",
            hit.score,
            lines.start(),
            sentences[hit.corpus_id]
        )?;
    }
    Ok(())
}
