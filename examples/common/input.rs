//! Texts from a file or standard input, and their embeddings with a progress bar.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use mpnet::ndarray::{Array2, Axis, concatenate};
use mpnet::{EncodeOptions, SentenceEncoder};

use super::Result;

/// Texts encoded between two steps of the progress bar.
const CHUNK: usize = 256;

/// The texts of `file`, or of standard input: one a line, empty lines included. In a `.jsonl` file
/// each line is a JSON string, so that a text can have line breaks in it.
pub fn texts(file: Option<&Path>) -> Result<Vec<String>> {
    let (name, reader): (String, Box<dyn BufRead>) = match file {
        None => ("standard input".to_owned(), Box::new(io::stdin().lock())),
        Some(path) => {
            let name = path.display().to_string();
            let file =
                File::open(path).map_err(|error| format!("cannot read `{name}`: {error}"))?;
            (name, Box::new(BufReader::new(file)))
        }
    };
    let json = file.is_some_and(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    let mut texts = Vec::new();
    for (number, line) in (1..).zip(reader.lines()) {
        let line = line.map_err(|error| format!("{name}, line {number}: {error}"))?;
        texts.push(match json {
            false => line,
            true => serde_json::from_str(&line)
                .map_err(|error| format!("{name}, line {number}: not a JSON string: {error}"))?,
        });
    }
    Ok(texts)
}

/// The embeddings of `texts`, `[B, D]`, with a progress bar on a terminal; says on standard error
/// how many texts were too long.
pub fn encode(encoder: &SentenceEncoder, texts: &[String]) -> Result<Array2<f32>> {
    let style = "{elapsed_precise} {wide_bar} {pos}/{len} texts, {per_sec}, {eta} left";
    let bar = ProgressBar::new(texts.len() as u64).with_style(ProgressStyle::with_template(style)?);
    let mut chunks = vec![Array2::zeros((0, encoder.dim()))];
    let mut truncated = 0;
    for chunk in texts.chunks(CHUNK) {
        let report = encoder.encode_with(chunk, &EncodeOptions::default())?;
        truncated += report.truncated().count();
        chunks.push(report.embeddings);
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    if truncated > 0 {
        let (all, limit) = (texts.len(), encoder.max_seq_length());
        eprintln!("warning: {truncated} of {all} texts had more than {limit} tokens and were cut");
    }
    let views: Vec<_> = chunks.iter().map(|chunk| chunk.view()).collect();
    Ok(concatenate(Axis(0), &views)?)
}
