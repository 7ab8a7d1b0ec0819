//! How fast is it here?
//!
//! ```text
//! cargo run --release --example throughput -- --model DIR [--threads N] [--texts FILE]
//! ```
//!
//! One JSON object a line: for each case the median time of repeated calls, and tokens per second,
//! special tokens included and no padding counted, since there is none.

mod common;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use common::cli::{self, Flags};
use common::{Result, input};
use mpnet::{EncodeOptions, Isa, Precision, SentenceEncoder, Tokenizer};
use serde_json::json;

const HELP: &str = "\
usage: throughput [--model DIR] [--precision P] [--isa NAME] [--threads N] [--texts FILE] [--case NAME]

Measures the encoder; prints one JSON object a line.

  --model DIR      a sentence-transformers directory with an MPNet model (default: $MPNET_MODEL_DIR,
                   else the cache that fetch_model fills)
  --precision P    f32 (default), bf16 or int8
  --isa NAME       the instruction set (default: the fastest available)
  --threads N      how many threads (default: one a core)
  --texts FILE     the texts of the case `mixed512`, one a line (default: 512 texts of 8 to 384
                   tokens, put together from sentences that are built in)
  --packed-cache FILE
                   keep the packed weights in this file, and map it the next time: for the case `load`
  --case NAME      only this one of: query, short128, long384, batch32x128, mixed512, load, memory
  --print-texts    print the texts of the cases instead, as a JSON object
  --serve          read names of cases from standard input, and for each make one call and print
                   its seconds: how benches/peers measures this and other runtimes in turn
  --help           print this";

/// Each case is repeated for this long, and this often at least.
const ENOUGH: Duration = Duration::from_secs(5);
const REPEATS: usize = 3;

const QUERY: &str = "how do i change the address of my bank account?";

#[derive(Default)]
struct Options {
    model: Option<PathBuf>,
    precision: Precision,
    isa: Option<Isa>,
    threads: Option<usize>,
    texts: Option<PathBuf>,
    case: Option<String>,
    packed_cache: Option<PathBuf>,
    /// Only load the model and embed one text: what the case `load` runs as a process of its own.
    first_embedding: bool,
    print_texts: bool,
    serve: bool,
}

fn main() -> ExitCode {
    cli::run(|| {
        let options = read_flags()?;
        cli::with_threads(options.threads, || measure(&options))
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
            "--texts" => options.texts = Some(flags.path()?),
            "--packed-cache" => options.packed_cache = Some(flags.path()?),
            "--case" => options.case = Some(flags.value()?),
            "--first-embedding" => options.first_embedding = true,
            "--print-texts" => options.print_texts = true,
            "--serve" => options.serve = true,
            _ => return Err(flags.unknown()),
        }
    }
    Ok(options)
}

fn measure(options: &Options) -> Result<()> {
    let directory = cli::require_model(options.model.clone())?;
    if options.first_embedding {
        build(options, &directory)?.encode_one(QUERY)?;
        return Ok(());
    }
    if options.print_texts {
        let cases = cases(options, &Tokenizer::open(&directory)?)?;
        let cases: serde_json::Map<_, _> =
            cases.into_iter().map(|(name, texts)| (name.to_owned(), texts.into())).collect();
        writeln!(io::stdout(), "{}", serde_json::Value::from(cases))?;
        return Ok(());
    }
    let wanted = |name: &str| options.case.as_deref().is_none_or(|case| case == name);
    let mut known = false;
    let encoder = build(options, &directory)?;
    if options.serve {
        return serve(&encoder, &cases(options, encoder.tokenizer())?);
    }
    for (name, texts) in cases(options, encoder.tokenizer())? {
        if wanted(name) {
            known = true;
            report(name, &encoder, &texts)?;
        }
    }
    if wanted("memory") {
        known = true;
        report_memory(&encoder)?;
    }
    if wanted("load") {
        known = true;
        // Its memory would stand in the way of the other process's page cache.
        drop(encoder);
        report_load(options, &directory)?;
    }
    if known { Ok(()) } else { Err("--case: there is no such case; see --help".into()) }
}

fn build(options: &Options, directory: &Path) -> Result<SentenceEncoder> {
    let mut builder = SentenceEncoder::builder(directory).precision(options.precision);
    if let Some(isa) = options.isa {
        builder = builder.isa(isa);
    }
    if let Some(file) = &options.packed_cache {
        builder = builder.packed_cache(file);
    }
    Ok(builder.build()?)
}

fn cases(options: &Options, tokenizer: &Tokenizer) -> Result<Vec<(&'static str, Vec<String>)>> {
    let source = Source::new(tokenizer)?;
    let mixed = match &options.texts {
        Some(file) => input::texts(Some(file))?,
        None => source.mixed()?,
    };
    Ok(vec![
        ("query", vec![QUERY.to_owned()]),
        ("short128", vec![source.text_of(128, 0)]),
        ("long384", vec![source.text_of(384, 0)]),
        ("batch32x128", (0..32).map(|i| source.text_of(128, i * 131)).collect()),
        ("mixed512", mixed),
    ])
}

/// Texts of a given length, made of the built-in sentences.
struct Source<'t> {
    tokenizer: &'t Tokenizer,
    sentences: Vec<&'static str>,
    /// The words of the sentences that are one token each, in order.
    words: Vec<&'static str>,
}

impl<'t> Source<'t> {
    fn new(tokenizer: &'t Tokenizer) -> Result<Self> {
        let sentences: Vec<&str> = include_str!("data/sentences.txt").lines().collect();
        let words: Vec<&str> =
            sentences.iter().flat_map(|sentence| sentence.split_whitespace()).collect();
        let tokens = tokenizer.encode(&words, usize::MAX)?;
        let special = tokenizer.special_tokens(false);
        let single =
            words.iter().zip(&tokens).filter(|(_, tokens)| tokens.ids.len() == special + 1);
        let words: Vec<&str> = single.map(|(word, _)| *word).collect();
        if words.is_empty() {
            return Err("the model's tokenizer splits every English word".into());
        }
        Ok(Self { tokenizer, sentences, words })
    }

    /// A text of exactly that many tokens, the words from number `start` on.
    fn text_of(&self, tokens: usize, start: usize) -> String {
        let words = self.words.iter().cycle().skip(start % self.words.len());
        let content = tokens - self.tokenizer.special_tokens(false);
        words.take(content).copied().collect::<Vec<_>>().join(" ")
    }

    /// 512 texts of whole sentences whose lengths run from 8 to 384 tokens, evenly on a logarithmic
    /// scale, so that half of them are shorter than 56, in an order that is not sorted.
    fn mixed(&self) -> Result<Vec<String>> {
        let lengths = self.tokenizer.encode(&self.sentences, usize::MAX)?;
        let special = self.tokenizer.special_tokens(false);
        let mut sentences = self.sentences.iter().zip(&lengths).cycle();
        let text = |i: usize| {
            let wanted = 8.0 * 48.0_f64.powf((i * 197 % 512) as f64 / 511.0);
            let (mut text, mut tokens) = (String::new(), special);
            for (sentence, ids) in sentences.by_ref() {
                let more = ids.ids.len() - special;
                if !text.is_empty() && (tokens + more) as f64 > wanted {
                    break;
                }
                text = format!("{text}{}{sentence}", if text.is_empty() { "" } else { " " });
                tokens += more;
            }
            text
        };
        Ok((0..512).map(text).collect())
    }
}

fn serve(encoder: &SentenceEncoder, cases: &[(&str, Vec<String>)]) -> Result<()> {
    for line in io::stdin().lines() {
        let line = line?;
        let case = cases.iter().find(|(name, _)| *name == line.trim());
        let (_, texts) = case.ok_or_else(|| format!("there is no case `{line}`"))?;
        let start = Instant::now();
        encoder.encode(texts)?;
        writeln!(io::stdout(), "{}", start.elapsed().as_secs_f64())?;
    }
    Ok(())
}

fn report(name: &str, encoder: &SentenceEncoder, texts: &[String]) -> Result<()> {
    let options = EncodeOptions::default();
    // Warms up the caches and the thread pool.
    let tokens = encoder.encode_with(texts, &options)?.tokens();
    let mut failed = None;
    let seconds = repeat(|| failed = encoder.encode_with(texts, &options).err());
    if let Some(error) = failed {
        return Err(error.into());
    }
    let [min, median, max] = min_median_max(seconds);
    print(json!({
        "case": name,
        "texts": texts.len(),
        "tokens": tokens,
        "seconds_median": median,
        "seconds_min": min,
        "seconds_max": max,
        "tokens_per_second": tokens as f64 / median,
        "texts_per_second": texts.len() as f64 / median,
        "precision": encoder.precision().to_string(),
        "isa": encoder.isa().name(),
        "threads": rayon::current_num_threads(),
    }))
}

/// From the start of a process to its first embedding, the files in the page cache.
fn report_load(options: &Options, directory: &Path) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--first-embedding").arg("--model").arg(directory);
    command.args(["--precision", &options.precision.to_string()]);
    if let Some(isa) = options.isa {
        command.args(["--isa", isa.name()]);
    }
    if let Some(file) = &options.packed_cache {
        command.arg("--packed-cache").arg(file);
    }
    if let Some(threads) = options.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    let mut failed = false;
    let seconds = repeat(|| failed |= !command.status().is_ok_and(|status| status.success()));
    if failed {
        return Err("the process of the case `load` failed".into());
    }
    let [min, median, max] = min_median_max(seconds);
    print(json!({
        "case": "load",
        "texts": 1,
        "seconds_median": median,
        "seconds_min": min,
        "seconds_max": max,
        "precision": options.precision.to_string(),
    }))
}

/// The largest resident size of this process so far, as the kernel counts it (Linux only).
fn report_memory(encoder: &SentenceEncoder) -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    print(json!({
        "case": "memory",
        "peak_bytes": kilobytes.map(|k| k * 1024),
        "precision": encoder.precision().to_string(),
    }))
}

fn repeat(mut call: impl FnMut()) -> Vec<f64> {
    let begin = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < REPEATS || (begin.elapsed() < ENOUGH && seconds.len() < 1000) {
        let start = Instant::now();
        call();
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds
}

fn min_median_max(mut seconds: Vec<f64>) -> [f64; 3] {
    seconds.sort_by(f64::total_cmp);
    [seconds[0], seconds[seconds.len() / 2], seconds[seconds.len() - 1]]
}

fn print(line: serde_json::Value) -> Result<()> {
    writeln!(io::stdout(), "{line}")?;
    Ok(())
}
