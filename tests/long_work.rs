//! Many texts, long texts, and work that is watched and stopped.

mod common;

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{bits, pool, texts, tiny};
use mpnet::{
    CancellationToken, EncodeOptions, Error, Overflow, Progress, SentenceEncoder, TextProblem,
    split,
};
use proptest::prelude::*;

fn encoder() -> SentenceEncoder {
    SentenceEncoder::from_pretrained(tiny()).unwrap()
}

fn strings() -> Vec<String> {
    texts().into_iter().map(|text| text.text).collect()
}

#[test]
fn an_iterator_yields_what_encode_does_and_takes_no_more_than_it_needs() {
    let encoder = encoder();
    let texts: Vec<String> = strings().into_iter().cycle().take(200).collect();
    let want = encoder.encode(&texts).unwrap();
    for tokens_per_batch in [1, 4, 2048] {
        let options = EncodeOptions::default().tokens_per_batch(tokens_per_batch);
        let taken = Cell::new(0);
        let counted = texts.iter().inspect(|_| taken.set(taken.get() + 1));
        let mut given = 0;
        for (text, want) in encoder.encode_iter(counted, &options).unwrap().zip(want.rows()) {
            let text = text.unwrap();
            assert_eq!(bits(text.embedding.view()), bits(want));
            assert!(text.report.tokens >= 2);
            // A text counts for 64 bytes at least, a token of the batch for 256; the last text goes
            // over.
            let most = tokens_per_batch * 256 / 64 + 1;
            assert!(taken.get() - given <= most, "{} taken, {given} given", taken.get());
            given += 1;
        }
        assert_eq!(given, texts.len());
    }
}

#[test]
fn an_iterator_without_end_is_no_problem() {
    let encoder = encoder();
    let options = EncodeOptions::default().tokens_per_batch(8);
    let texts = (0..).map(|i| format!("the man {i}"));
    let mut first = encoder.encode_iter(texts, &options).unwrap().take(50);
    let seventh = first.nth(7).unwrap().unwrap();
    assert_eq!(seventh.embedding, encoder.encode_one("the man 7").unwrap());
    assert_eq!(first.count(), 42);
}

#[test]
fn errors_stay_in_their_place() {
    let encoder = encoder();
    let long = "the man ".repeat(100);
    let mut texts = vec!["the man"; 40];
    texts[3] = &long;
    texts[33] = &long;
    // Several texts at a time, and all of them at once.
    for tokens_per_batch in [1, 2048] {
        let options =
            EncodeOptions::default().overflow(Overflow::Error).tokens_per_batch(tokens_per_batch);
        let all: Vec<_> = encoder.encode_iter(&texts, &options).unwrap().collect();
        assert_eq!(all.len(), 40);
        for (i, item) in all.into_iter().enumerate() {
            match item {
                Ok(_) => assert!(i != 3 && i != 33),
                Err(Error::Text {
                    text,
                    problem: TextProblem::TooLong { tokens: 202, limit: 48 },
                }) => assert_eq!(text, i),
                Err(other) => panic!("{other}"),
            }
        }
        // A list has one answer, with the place of the first; and nothing is computed for it.
        let computed = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&computed);
        let options = options.progress(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        texts[3] = "the man";
        let error = encoder.encode_with(&texts, &options).unwrap_err();
        assert!(
            matches!(error, Error::Text { text: 33, problem: TextProblem::TooLong { .. } }),
            "{error}"
        );
        let error = encoder.encode_tokens(&texts, &options).unwrap_err();
        assert!(
            matches!(error, Error::Text { text: 33, problem: TextProblem::TooLong { .. } }),
            "{error}"
        );
        assert_eq!(computed.load(Ordering::Relaxed), 0);
        texts[3] = &long;
    }
}

#[test]
fn progress_counts_every_text_and_token_once() {
    let encoder = encoder();
    let mut texts = strings();
    texts.push("the man ".repeat(200));
    let seen = Arc::new(Mutex::new(Vec::<Progress>::new()));
    let log = Arc::clone(&seen);
    let options = EncodeOptions::default()
        .overflow(Overflow::Window { stride: 5 })
        .tokens_per_batch(60)
        .progress(move |progress| log.lock().unwrap().push(progress));
    let report = encoder.encode_with(&texts, &options).unwrap();
    let steps = std::mem::take(&mut *seen.lock().unwrap());
    assert!(steps.len() > 5);
    assert!(steps.is_sorted_by_key(|step| (step.texts, step.tokens)));
    let last = steps.last().unwrap();
    assert_eq!((last.texts, last.total, last.tokens), (10, Some(10), report.tokens()));

    let count = encoder.encode_iter(&texts, &options).unwrap().count();
    let steps = std::mem::take(&mut *seen.lock().unwrap());
    let last = steps.last().unwrap();
    assert_eq!((last.texts, last.total, last.tokens), (count, None, report.tokens()));
}

#[test]
fn cancelled_within_a_batch() {
    let encoder = encoder();
    let texts = vec!["the man"; 100];
    for (threads, stop_after) in [(1, 1), (2, 3)] {
        let token = CancellationToken::new();
        let batches = Arc::new(AtomicUsize::new(0));
        let (watched, count) = (token.clone(), Arc::clone(&batches));
        let options = EncodeOptions::default()
            .tokens_per_batch(8)
            .cancellation(&token)
            .thread_pool(Arc::new(pool(threads)))
            .progress(move |_| {
                if count.fetch_add(1, Ordering::Relaxed) + 1 == stop_after {
                    watched.cancel();
                }
            });
        assert!(matches!(encoder.encode_with(&texts, &options), Err(Error::Cancelled)));
        assert_eq!(batches.load(Ordering::Relaxed), stop_after, "no batch after it");
        // For good, and in every call.
        assert!(token.is_cancelled());
        assert!(matches!(encoder.encode_with(&["x"], &options), Err(Error::Cancelled)));
        assert!(matches!(encoder.encode_tokens(&["x"], &options), Err(Error::Cancelled)));
        let chunks = encoder.encode_chunks("x", &[0..1, 0..1], &options);
        assert!(matches!(chunks, Err(Error::Cancelled)));
        let mut items = encoder.encode_iter(&texts, &options).unwrap();
        assert!(matches!(items.next(), Some(Err(Error::Cancelled))));
        assert!(items.next().is_none(), "it is the last item");
    }
}

#[test]
fn the_caller_s_threads_are_used() {
    let encoder = encoder();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let names = Arc::clone(&seen);
    let named = rayon::ThreadPoolBuilder::new().num_threads(2).thread_name(|i| format!("mine {i}"));
    let options = EncodeOptions::default().thread_pool(Arc::new(named.build().unwrap())).progress(
        move |_| {
            names.lock().unwrap().push(std::thread::current().name().map(str::to_owned));
        },
    );
    let texts = strings();
    let report = encoder.encode_with(&texts, &options).unwrap();
    assert_eq!(report.embeddings, encoder.encode(&texts).unwrap());
    assert_eq!(encoder.encode_iter(&texts, &options).unwrap().count(), texts.len());
    encoder.encode_tokens(&texts, &options).unwrap();
    encoder.encode_chunks(&texts[1], &[0..3, 0..3], &options).unwrap();
    let names = seen.lock().unwrap();
    assert!(names.len() >= 4);
    for name in names.iter() {
        assert!(name.as_ref().is_some_and(|name| name.starts_with("mine")), "{name:?}");
    }
}

#[test]
fn windows_do_not_change_a_text_that_fits() {
    let encoder = encoder();
    let texts = strings();
    let whole = encoder.encode_with(&texts, &EncodeOptions::default()).unwrap();
    let options = EncodeOptions::default().overflow(Overflow::Window { stride: 9 });
    let windows = encoder.encode_with(&texts, &options).unwrap();
    for (i, text) in whole.texts.iter().enumerate() {
        let same = bits(whole.embeddings.row(i)) == bits(windows.embeddings.row(i));
        assert_eq!(same, text.dropped == 0, "text {i}");
        assert_eq!(windows.texts[i].dropped, 0);
        assert_eq!(windows.texts[i].windows == 1, text.dropped == 0);
    }
    assert!(whole.truncated().count() > 0);
    // Alone, in order and on other threads: the same bits.
    for (text, row) in texts.iter().zip(windows.embeddings.rows()) {
        let alone = pool(3).install(|| encoder.encode_with(&[text], &options).unwrap());
        assert_eq!(bits(alone.embeddings.row(0)), bits(row));
    }
}

#[test]
fn options_that_make_no_sense() {
    let encoder = encoder();
    let is = |error: Error, name: &str| {
        assert!(matches!(&error, Error::Option { option, .. } if *option == name), "{error}");
    };
    let with = |options: &EncodeOptions| encoder.encode_with(&["x"], options).unwrap_err();
    let window = |stride| EncodeOptions::default().overflow(Overflow::Window { stride });
    // 48 tokens, of which 2 are special: windows of 46.
    is(with(&window(46)), "stride");
    is(with(&window(usize::MAX)), "stride");
    assert!(encoder.encode_with(&["x"], &window(45)).is_ok());
    let prompt = encoder.tokenizer().encode(&["query: "], 48).unwrap()[0].ids.len() - 2;
    is(with(&window(46 - prompt).prompt("query: ")), "stride");
    assert!(encoder.encode_with(&["x"], &window(45 - prompt).prompt("query: ")).is_ok());
    is(with(&window(0).prompt("the ".repeat(50))), "stride");
    is(with(&EncodeOptions::default().tokens_per_batch(0)), "tokens_per_batch");
    let zero = EncodeOptions::default().tokens_per_batch(0);
    is(encoder.encode_iter(["x"], &zero).map(drop).unwrap_err(), "tokens_per_batch");
    for (options, name) in [
        (EncodeOptions::default().normalize(true), "normalize"),
        (EncodeOptions::default().truncate_dim(3), "truncate_dim"),
    ] {
        is(encoder.encode_tokens(&["x"], &options).unwrap_err(), name);
    }
}

#[test]
fn chunks_that_are_none() {
    let encoder = encoder();
    let options = EncodeOptions::default();
    let text = "the mán   of";
    let backwards = std::ops::Range { start: 5, end: 3 };
    for bad in [0..99, 0..6, backwards, 8..10, 3..3] {
        let chunks = [0..3, bad.clone()];
        let error = encoder.encode_chunks(text, &chunks, &options).unwrap_err();
        assert!(matches!(error, Error::Chunk { chunk: 1, .. }), "{bad:?}: {error}");
    }
    let long = "the man ".repeat(100);
    let error = encoder.encode_chunks(&long, &[700..720, 0..9], &options).unwrap_err();
    assert!(error.to_string().contains("Overflow::Window"), "{error}");
    let cls = mpnet::Pooling::new([mpnet::PoolingMode::Cls]);
    let cls = SentenceEncoder::builder(tiny()).pooling(cls).build().unwrap();
    let error = cls.encode_chunks(text, &[0..3, 0..3], &options).unwrap_err();
    assert!(matches!(error, Error::Option { option: "pooling", .. }), "{error}");
}

/// A chunk over the end of what the model reads has an embedding, of its first half alone: that
/// shows.
#[test]
fn chunks_that_are_cut_in_half_say_so() {
    let encoder = encoder();
    let long = "the man ".repeat(100);
    let (start, end) = (20 * 4, 40 * 8);
    let chunks = [0..start, start..end, 0..long.len()];
    let prompt = "query: ";
    let options = EncodeOptions::default().prompt(prompt);
    let got = encoder.encode_chunks(&long, &chunks, &options).unwrap();
    let whole =
        encoder.encode_chunks(&long, &chunks, &options.overflow(Overflow::Window { stride: 4 }));
    let whole = whole.unwrap();
    assert_eq!(got.chunks[0], whole.chunks[0], "all of it was read");
    for (cut, whole) in got.chunks.iter().zip(&whole.chunks) {
        assert_eq!((cut.tokens + cut.dropped, whole.dropped), (whole.tokens, 0));
    }
    assert!(got.chunks[1].tokens > 0 && got.chunks[1].dropped > 0);
    assert_eq!(got.chunks[2].dropped, got.report.dropped);
    assert_eq!(whole.report.dropped, 0);
}

#[test]
fn chunks_say_where_they_are() {
    let encoder = encoder();
    let text = "Naïve café. The man of 東京!";
    let options = EncodeOptions::default().prompt_name("query");
    let got = encoder.encode_chunks(text, &split::sentences(text), &options).unwrap();
    assert_eq!(got.chunks.len(), 2);
    assert_eq!(
        (&text[got.chunks[0].bytes.clone()], got.chunks[0].chars.clone()),
        ("Naïve café.", 0..11)
    );
    assert_eq!(got.chunks[1].chars, 12..26);
    // Every token of the text is in one of them; the special ones and those of the prompt are not.
    let tokens: usize = got.chunks.iter().map(|chunk| chunk.tokens).sum();
    let others = encoder.tokenizer().encode(&["query: "], 48).unwrap()[0].ids.len();
    assert_eq!(tokens + others, got.report.tokens);
    // Scaled and cut like any embedding.
    let options = options.truncate_dim(7).normalize(true);
    let short = encoder.encode_chunks(text, &split::sentences(text), &options).unwrap();
    assert_eq!(short.embeddings.dim(), (2, 7));
    for row in short.embeddings.rows() {
        assert!((row.dot(&row) - 1.0).abs() < 1e-6);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    /// Whatever the text, prompt and stride: no panic, offsets that are ranges of it, chunks for
    /// whatever the splitter makes.
    #[test]
    fn any_text_in_windows(words in prop::collection::vec(any::<String>(), 0..12), prompt in ".{0,9}", stride in 0..30_usize) {
        thread_local!(static ENCODER: SentenceEncoder = encoder());
        let text = words.join(" ");
        ENCODER.with(|encoder| {
            let options =
                EncodeOptions::default().prompt(prompt).overflow(Overflow::Window { stride });
            let tokens = encoder.encode_tokens(&[&text], &options).unwrap().swap_remove(0);
            prop_assert_eq!(tokens.embeddings.nrows(), tokens.ids.len());
            prop_assert_eq!(tokens.offsets.len(), tokens.ids.len());
            prop_assert!(tokens.offsets.iter().flatten().is_sorted_by_key(|bytes| bytes.start));
            for bytes in tokens.offsets.iter().flatten() {
                prop_assert!(text.get(bytes.clone()).is_some());
            }
            let report = encoder.encode_with(&[&text], &options).unwrap();
            prop_assert_eq!(report.texts[0], tokens.report);
            match encoder.encode_chunks(&text, &split::by_chars(&text, 40).unwrap(), &options) {
                Ok(got) => prop_assert!(got.chunks.iter().all(|chunk| chunk.tokens > 0)),
                Err(error) => prop_assert!(matches!(error, Error::Chunk { .. }), "{}", error),
            }
            Ok(())
        })?;
    }
}
