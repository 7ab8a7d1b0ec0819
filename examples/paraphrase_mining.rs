//! Which of these texts say the same?
//!
//! ```text
//! cargo run --release --example paraphrase_mining [-- --model DIR] [--input FILE]
//! ```
//!
//! Prints the most similar pairs of texts, and groups of texts that are all about the same thing:
//! what to look through when a collection is to be rid of near-duplicates.

mod common;

use std::io::{self, Write};
use std::process::ExitCode;

use common::cli::{self, Flags};
use common::{Result, input, shipped};
use mpnet::SentenceEncoder;
use mpnet::mining::{CommunityOptions, ParaphraseOptions, community_detection, paraphrase_mining};

const HELP: &str = "\
usage: paraphrase_mining [--model DIR] [--input FILE] [--pairs N] [--threshold T] [--min-size N] [--groups N] [--top N]

Finds pairs and groups of texts that say the same.

  --model DIR    a sentence-transformers directory with an MPNet model (default: $MPNET_MODEL_DIR,
                 else the cache that fetch_model fills)
  --input FILE   one text a line, or a JSON string a line if it is a .jsonl file (default: captions of
                 photographs, examples/data/sentences.txt)
  --pairs N      how many pairs are printed, the most similar ones (default: 15)
  --threshold T  groups: the least cosine of a text to the middle one of its group (default: 0.75)
  --min-size N   groups: how many texts are one (default: 5)
  --groups N     how many groups are printed, the largest ones (default: 5)
  --top N        how many texts of each group are printed (default: 4)
  --help         print this";

fn main() -> ExitCode {
    cli::run(mine)
}

fn mine() -> Result<()> {
    let (mut model, mut file) = (None, shipped("sentences.txt"));
    let mut paraphrases = ParaphraseOptions::default().max_pairs(15);
    let mut communities = CommunityOptions::default().min_community_size(5);
    let (mut groups, mut top) = (5, 4);
    let mut flags = Flags::from_env(HELP);
    while let Some(flag) = flags.next_flag()? {
        match flag.as_str() {
            "--model" => model = Some(flags.path()?),
            "--input" => file = flags.path()?,
            "--pairs" => paraphrases = paraphrases.max_pairs(flags.value()?),
            "--threshold" => communities = communities.threshold(flags.value()?),
            "--min-size" => communities = communities.min_community_size(flags.value()?),
            "--groups" => groups = flags.value()?,
            "--top" => top = flags.value()?,
            _ => return Err(flags.unknown()),
        }
    }
    let texts = input::texts(Some(&file))?;
    let encoder = SentenceEncoder::from_pretrained(cli::require_model(model)?)?;
    let embeddings = input::encode(&encoder, &texts)?;
    let pairs = paraphrase_mining(&embeddings.view(), &paraphrases)?;
    let found = community_detection(&embeddings.view(), &communities)?;

    let mut out = io::stdout().lock();
    writeln!(out, "the most similar pairs of {} texts", texts.len())?;
    for pair in pairs {
        writeln!(out, "  {:.4}  {}", pair.score, texts[pair.i])?;
        writeln!(out, "          {}", texts[pair.j])?;
    }
    let grouped: usize = found.iter().map(Vec::len).sum();
    writeln!(out, "\n{grouped} texts are in {} groups", found.len())?;
    for (number, members) in (1..).zip(found.iter().take(groups)) {
        writeln!(out, "\ngroup {number}: {} texts", members.len())?;
        for &text in members.iter().take(top) {
            writeln!(out, "  {}", texts[text])?;
        }
    }
    Ok(())
}
