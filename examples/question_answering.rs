//! Where in this document is the answer?
//!
//! ```text
//! cargo run --release --example question_answering [-- --model DIR] [--document FILE] [--question TEXT]
//! ```
//!
//! The retrieval half of RAG: cuts a document of any length into passages of whole sentences and
//! shows for each question the passages that come nearest, with their place. A language model would
//! be given these to answer from.
//!
//! Each passage is embedded by itself, or, with `--late`, by late chunking: the document is
//! computed as a whole, so that a passage that says "it" knows what of. That is for models that
//! were trained on long texts; all-mpnet-base-v2, which saw up to 128 tokens at a time, is the
//! better for passages that stand alone.

mod common;

use std::io::{self, Write};
use std::ops::Range;
use std::process::ExitCode;

use common::Result;
use common::cli::{self, Flags};
use common::document::Document;
use mpnet::search::{SearchOptions, semantic_search_with};
use mpnet::{EncodeOptions, Overflow, SentenceEncoder, split};

const HELP: &str = "\
usage: question_answering [--model DIR] [--document FILE] [--question TEXT]... [--passage-chars N] [--top K] [--late] [--stride N]

Finds the passages of a document that answer a question.

  --model DIR        a sentence-transformers directory with an MPNet model (default: $MPNET_MODEL_DIR,
                     else the cache that fetch_model fills)
  --document FILE    prose, an empty line between paragraphs (default: an article on honey bees,
                     examples/data/honey_bees.txt)
  --question TEXT    may be given several times (default: four about the default document)
  --passage-chars N  the length of a passage at most, in characters (default: 400)
  --top K            how many passages for each question (default: 2)
  --late             late chunking: compute the document as a whole, then pool each passage
  --stride N         tokens that two windows share where a text is longer than the model (default: a
                     third of the model's max_seq_length, so that no token stands at the edge of both)
  --help             print this";

const QUESTIONS: [&str; 4] = [
    "What does the dance of a bee say?",
    "Why does a beekeeper use smoke?",
    "What happens to the males at the end of summer?",
    "How do bees keep warm in winter?",
];

fn main() -> ExitCode {
    cli::run(answer)
}

fn answer() -> Result<()> {
    let (mut model, mut file, mut questions) = (None, None, Vec::new());
    let (mut passage_chars, mut top, mut late, mut stride) = (400, 2, false, None);
    let mut flags = Flags::from_env(HELP);
    while let Some(flag) = flags.next_flag()? {
        match flag.as_str() {
            "--model" => model = Some(flags.path()?),
            "--document" => file = Some(flags.path()?),
            "--question" => questions.push(flags.value::<String>()?),
            "--passage-chars" => passage_chars = flags.value()?,
            "--top" => top = flags.value()?,
            "--late" => late = true,
            "--stride" => stride = Some(flags.value()?),
            _ => return Err(flags.unknown()),
        }
    }
    if questions.is_empty() {
        questions = QUESTIONS.map(str::to_owned).to_vec();
    }
    let document = Document::open(file)?;
    let encoder = SentenceEncoder::from_pretrained(cli::require_model(model)?)?;

    let passages = passages(&document, passage_chars)?;
    let stride = stride.unwrap_or(encoder.max_seq_length() / 3);
    let options = EncodeOptions::default().overflow(Overflow::Window { stride });
    let embeddings = if late {
        encoder.encode_chunks(&document.text, &passages, &options).map(|chunks| chunks.embeddings)
    } else {
        let texts: Vec<&str> = passages.iter().map(|bytes| &document.text[bytes.clone()]).collect();
        encoder.encode_document_with(&texts, &options).map(|report| report.embeddings)
    };
    let embeddings = embeddings.map_err(by_flag)?;
    let queries = encoder.encode_query(&questions)?;
    let options = SearchOptions::default().similarity(encoder.similarity_fn()).top_k(top);
    let hits = semantic_search_with(&queries.view(), &embeddings.view(), &options)?;

    let mut out = io::stdout().lock();
    writeln!(out, "{} passages", passages.len())?;
    for (question, hits) in questions.iter().zip(hits) {
        writeln!(out, "\n{question}")?;
        for hit in hits {
            let bytes = &passages[hit.corpus_id];
            let (lines, characters) = (document.lines(bytes), document.characters(bytes));
            let place = format!("lines {}-{}", lines.start(), lines.end());
            writeln!(out, "  {:.4}  {place}, characters {characters:?}", hit.score)?;
            writeln!(out, "          {}", &document.text[bytes.clone()])?;
        }
    }
    Ok(())
}

/// The bytes of each passage: as many sentences of one paragraph as fit.
fn passages(document: &Document, chars: usize) -> Result<Vec<Range<usize>>> {
    let mut passages = Vec::new();
    for Range { start, end } in document.paragraphs() {
        let inside = split::by_chars(&document.text[start..end], chars)?;
        passages.extend(inside.into_iter().map(|bytes| start + bytes.start..start + bytes.end));
    }
    Ok(passages)
}

/// The library's error, which names its own option, by the name of the flag that sets it.
fn by_flag(error: mpnet::Error) -> common::Error {
    match error {
        mpnet::Error::Option { option: "stride", problem } => format!("--stride: {problem}").into(),
        other => other.into(),
    }
}
