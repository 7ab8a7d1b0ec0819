//! How good are this model's embeddings?
//!
//! ```text
//! cargo run --release --example evaluate [-- --model DIR] [--precision P]
//! ```
//!
//! Two of the questions that MTEB asks, on data that ships with the examples: does the model rank
//! pairs of sentences as people do (STS Benchmark, the 750 pairs whose licence allows a copy), and
//! can a classifier learn 77 intents from a few questions of each (Banking77, the whole test set)?
//! For all-mpnet-base-v2 MTEB has published 81.7 % for the latter.

mod common;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use common::cli::{self, Flags};
use common::{Result, banking77};
use mpnet::evaluation::{ClassificationEvaluator, EmbeddingSimilarityEvaluator};
use mpnet::{Precision, SentenceEncoder, Similarity};

const HELP: &str = "\
usage: evaluate [--model DIR] [--precision P] [--threads N] [--samples N] [--experiments N] [--task NAME]

Measures a model on a part of the STS Benchmark and on Banking77, as MTEB does.

  --model DIR      a sentence-transformers directory with an MPNet model (default: $MPNET_MODEL_DIR,
                   else the cache that fetch_model fills)
  --precision P    f32 (default), bf16 or int8
  --threads N      how many threads (default: one a core)
  --samples N      Banking77: questions of each intent to learn from (default: 8)
  --experiments N  Banking77: how often, each time from other questions (default: 10)
  --task NAME      sts or banking77 (default: both)
  --help           print this";

struct Options {
    model: Option<PathBuf>,
    precision: Precision,
    threads: Option<usize>,
    evaluator: ClassificationEvaluator,
    task: Option<String>,
}

fn main() -> ExitCode {
    cli::run(|| {
        let options = read_flags()?;
        cli::with_threads(options.threads, || evaluate(&options))
    })
}

fn read_flags() -> Result<Options> {
    let mut options = Options {
        model: None,
        precision: Precision::F32,
        threads: None,
        evaluator: ClassificationEvaluator::default(),
        task: None,
    };
    let mut flags = Flags::from_env(HELP);
    while let Some(flag) = flags.next_flag()? {
        match flag.as_str() {
            "--model" => options.model = Some(flags.path()?),
            "--precision" => options.precision = flags.value()?,
            "--threads" => options.threads = Some(flags.value()?),
            "--samples" => options.evaluator.samples_per_label = flags.value()?,
            "--experiments" => options.evaluator.n_experiments = flags.value()?,
            "--task" => options.task = Some(flags.value()?),
            _ => return Err(flags.unknown()),
        }
    }
    match options.task.as_deref() {
        None | Some("sts" | "banking77") => Ok(options),
        Some(task) => Err(format!("--task: `{task}` is not known; sts and banking77 are").into()),
    }
}

fn evaluate(options: &Options) -> Result<()> {
    let directory = cli::require_model(options.model.clone())?;
    let encoder = SentenceEncoder::builder(&directory).precision(options.precision).build()?;
    let asked = |task| options.task.as_deref().is_none_or(|asked| asked == task);
    if asked("sts") {
        similarity(&encoder)?;
    }
    if asked("banking77") {
        classification(&encoder, &options.evaluator)?;
    }
    Ok(())
}

fn similarity(encoder: &SentenceEncoder) -> Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/stsb-ccbysa-subset.tsv");
    let table = fs::read_to_string(&file)
        .map_err(|error| format!("cannot read `{}`: {error}", file.display()))?;
    let (mut first, mut second, mut scores) = (Vec::new(), Vec::new(), Vec::new());
    for row in table.lines().skip(1) {
        let fields: Vec<&str> = row.split('\t').collect();
        let &[_, _, _, _, score, a, b, ..] = &fields[..] else {
            return Err(format!("`{}`: too few columns: {row}", file.display()).into());
        };
        first.push(a);
        second.push(b);
        scores.push(score.parse()?);
    }
    let evaluator = EmbeddingSimilarityEvaluator {
        similarities: vec![Similarity::Cosine, Similarity::Euclidean, Similarity::Manhattan],
        ..Default::default()
    };
    let start = Instant::now();
    let results = evaluator.evaluate(encoder, &first, &second, &scores)?;
    let mut out = io::stdout().lock();
    let (pairs, seconds) = (scores.len(), start.elapsed().as_secs_f64());
    writeln!(out, "STS Benchmark, {pairs} pairs ({seconds:.0} s)")?;
    for (similarity, metrics) in results {
        let (spearman, pearson) = (100.0 * metrics.spearman, 100.0 * metrics.pearson);
        let name = format!("{similarity:?}").to_lowercase();
        writeln!(out, "  {name:9}  Spearman {spearman:.2}  Pearson {pearson:.2}")?;
    }
    Ok(())
}

fn classification(encoder: &SentenceEncoder, evaluator: &ClassificationEvaluator) -> Result<()> {
    let train = banking77::read(&banking77::shipped("train.csv"))?;
    let test = banking77::read(&banking77::shipped("test.csv"))?;
    let (samples, experiments) = (evaluator.samples_per_label, evaluator.n_experiments);
    eprintln!("encoding Banking77: some minutes");
    let start = Instant::now();
    let report =
        evaluator.evaluate(encoder, &train.texts, &train.labels, &test.texts, &test.labels)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "Banking77, {} questions, {samples} samples of each intent ({seconds:.0} s)",
        test.texts.len()
    )?;
    for (number, metrics) in (1..).zip(&report.experiments) {
        let (accuracy, f1) = (100.0 * metrics.accuracy, 100.0 * metrics.f1);
        writeln!(out, "  experiment {number:2}  accuracy {accuracy:.2}  macro F1 {f1:.2}")?;
    }
    let (accuracy, f1) = (100.0 * report.mean.accuracy, 100.0 * report.mean.f1);
    writeln!(out, "  mean of {experiments:2}     accuracy {accuracy:.2}  macro F1 {f1:.2}")?;
    Ok(())
}
