//! What does this person want?
//!
//! ```text
//! cargo run --release --example intent_classification [-- --model DIR] [--query TEXT]
//! ```
//!
//! Learns the 77 intents of Banking77 from a few questions of each, then says what other questions
//! are about.

mod common;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use common::cli::{self, Flags};
use common::{Result, banking77, input};
use mpnet::SentenceEncoder;
use mpnet::evaluation::LogisticRegression;

const HELP: &str = "\
usage: intent_classification [--model DIR] [--query TEXT]... [--samples N] [--top K]

Learns intents from labelled questions to a bank and classifies other questions.

  --model DIR   a sentence-transformers directory with an MPNet model (default: $MPNET_MODEL_DIR,
                else the cache that fetch_model fills)
  --query TEXT  a question to classify; may be given several times (default: five of our own)
  --samples N   questions of each intent to learn from (default: 10)
  --top K       how many intents are shown of each question (default: 3)
  --help        print this";

const QUERIES: [&str; 5] = [
    "My wallet was stolen on the train and all my cards were in it!",
    "I was in Prague last week and the rate you used for my koruna looks bad",
    "the machine kept my card, what now?",
    "How old must my daughter be to have her own account?",
    "I typed the wrong PIN three times",
];

fn main() -> ExitCode {
    cli::run(classify)
}

fn classify() -> Result<()> {
    let (mut model, mut queries, mut samples, mut top) = (None, Vec::new(), 10_usize, 3_usize);
    let mut flags = Flags::from_env(HELP);
    while let Some(flag) = flags.next_flag()? {
        match flag.as_str() {
            "--model" => model = Some(flags.path()?),
            "--query" => queries.push(flags.value::<String>()?),
            "--samples" => samples = flags.value()?,
            "--top" => top = flags.value()?,
            _ => return Err(flags.unknown()),
        }
    }
    if queries.is_empty() {
        queries = QUERIES.map(str::to_owned).to_vec();
    }
    let encoder = SentenceEncoder::from_pretrained(&cli::require_model(model)?)?;

    let (texts, labels) =
        first_of_each(banking77::read(&banking77::shipped("train.csv"))?, samples);
    let embeddings = input::encode(&encoder, &texts)?;
    // Few samples of many intents need a weaker penalty than 1 to be sure of anything.
    let options = LogisticRegression { c: 20.0, ..Default::default() };
    let classifier = options.fit(&embeddings.view(), &labels)?;
    let probabilities = classifier.predict_proba(&input::encode(&encoder, &queries)?.view())?;

    let mut out = io::stdout().lock();
    let (n, intents) = (texts.len(), classifier.classes.len());
    writeln!(out, "learnt {intents} intents from {n} questions")?;
    for (query, row) in queries.iter().zip(probabilities.rows()) {
        writeln!(out, "\n{query}")?;
        let mut ranked: Vec<(f64, &String)> =
            row.iter().copied().zip(&classifier.classes).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (probability, intent) in ranked.into_iter().take(top) {
            writeln!(out, "  {:4.1} %  {}", 100.0 * probability, intent.replace('_', " "))?;
        }
    }
    Ok(())
}

/// The first `samples` questions of each intent.
fn first_of_each(all: banking77::Labelled, samples: usize) -> (Vec<String>, Vec<String>) {
    let mut taken = BTreeMap::new();
    let take = |(_, label): &(String, String)| {
        let taken = taken.entry(label.clone()).or_insert(0);
        *taken += 1;
        *taken <= samples
    };
    all.texts.into_iter().zip(all.labels).filter(take).unzip()
}
