//! The real all-mpnet-base-v2 against float64 and against numbers that others have published.
//!
//! The weights are 438 MB and not part of the repository, so these tests are ignored unless asked
//! for:
//!
//! ```text
//! cargo run --release --example fetch_model
//! cargo test --release --test full_model -- --ignored --nocapture
//! ```
//!
//! The model is looked for in `MPNET_MODEL_DIR`, then in the cache that `fetch_model` fills; a
//! missing model is a failure, not a pass.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use common::{allowed, assert_close, assert_near, bits, json, pool};
use mpnet::evaluation::EmbeddingSimilarityEvaluator;
use mpnet::ndarray::{Array1, ArrayView, ArrayView1, Axis, s};
use mpnet::quantization::{EmbeddingPrecision, Ranges};
use mpnet::search::{Hit, Rescore, RescoreOptions, semantic_search, semantic_search_rescored};
use mpnet::similarity::{cos_sim, pairwise_cos_sim};
use mpnet::{Batch, Embeddings, EncodeOptions, Isa, Precision, SentenceEncoder, Similarity};

/// What `Precision::F32` promises for each component of a normalised embedding.
const PROMISE: f64 = 1e-5;

static ENCODER: LazyLock<SentenceEncoder> = LazyLock::new(|| {
    let directory = model_directory();
    SentenceEncoder::from_pretrained(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}; run fetch_model first", directory.display()))
});

fn model_directory() -> PathBuf {
    let variable =
        |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("MPNET_MODEL_DIR").unwrap_or_else(|| {
        let cache = variable("XDG_CACHE_HOME")
            .filter(|directory| directory.is_absolute())
            .or_else(|| Some(variable("HOME")?.join(".cache")))
            .expect("MPNET_MODEL_DIR, XDG_CACHE_HOME or HOME must be set");
        cache.join("mpnet/all-mpnet-base-v2")
    })
}

#[derive(serde::Deserialize)]
struct Goldens {
    cases: Vec<Case>,
    layers_hello_world: Layers,
    ids_of_transformers_integration_test: Integration,
}

#[derive(serde::Deserialize)]
struct Case {
    text: String,
    input_ids: Vec<u32>,
    embedding: Vec<f64>,
    mean_pool_norm_before_normalize: f64,
    cls_hidden_first8: Vec<f64>,
}

#[derive(serde::Deserialize)]
struct Layers {
    input_ids: Vec<u32>,
    hidden_states: Vec<Layer>,
    pooler_output_first8: Vec<f64>,
}

#[derive(serde::Deserialize)]
struct Layer {
    first8_per_token: Vec<Vec<f64>>,
    sum_per_token: Vec<f64>,
}

#[derive(serde::Deserialize)]
struct Integration {
    input_ids: Vec<u32>,
    last_hidden_state_first3x3: Vec<Vec<f64>>,
}

fn goldens() -> Goldens {
    json("all-mpnet-base-v2/golden_fp64.json")
}

#[test]
#[ignore = "needs the real weights: run the example fetch_model"]
fn every_golden_text_within_the_promise_of_float64() {
    let cases = goldens().cases;
    assert_eq!(cases.len(), 24);
    let texts: Vec<&str> = cases.iter().map(|case| case.text.as_str()).collect();
    let tokens = ENCODER.tokenizer().encode(&texts, ENCODER.max_seq_length()).unwrap();
    for (case, tokens) in cases.iter().zip(&tokens) {
        assert_eq!(tokens.ids, case.input_ids, "{:?}", case.text);
    }
    for &isa in Isa::available() {
        let encoder = SentenceEncoder::builder(model_directory()).isa(isa).build().unwrap();
        let embeddings = encoder.encode(&texts).unwrap();
        let mut worst = 0.0_f64;
        for (case, embedding) in cases.iter().zip(embeddings.rows()) {
            let want = ArrayView::from(&case.embedding).into_dyn();
            worst = worst.max(assert_close(&case.text, embedding.into_dyn(), want, PROMISE));
        }
        let texts = cases.len();
        println!("f32 ({isa}): max |difference| from float64 over {texts} texts: {worst:.2e}");
    }
}

/// Texts of tokens that are alike, as in tables, logs and scanned pages: errors of rounding do not
/// average out over them. `n` of them, by a generator with a seed (SplitMix64).
fn monotonous_texts(seed: u64, n: usize) -> Vec<String> {
    /// Repeated often, these are what the model is least stable on.
    const LONG: [&str; 40] = [
        "work", "click", "mother", "love", "free", "very", "test", "buy", "seven", "river",
        "green", "yes", "thanks", "dog", "city", "game", "water", "he", "she", "it", "time",
        "world", "child", "hello", "news", "music", "table", "one", "zero", "car", "is", "not",
        "by", "from", "up", "old", "new", "red", "sun", "sea",
    ];
    const WORDS: [&str; 40] = [
        "and",
        "of",
        "no",
        "stop",
        "data",
        "error",
        "null",
        "page",
        "total",
        "row",
        "house",
        "music",
        "apple",
        "quantum",
        "unfortunately",
        "lorem",
        "1",
        "7",
        "42",
        "2024",
        "3.14",
        "00",
        "50%",
        "a",
        "e",
        "x",
        "ing",
        "un",
        "##er",
        "um",
        "wow",
        "free",
        "click",
        "please",
        "日本",
        "привет",
        "☃",
        "😀",
        "naïve",
        "ß",
    ];
    const MARKS: [&str; 16] =
        [".", "_", "=", "*", "#", "~", "|", "/", "+", ":", "...", "--", "->", "•", "—", "[]"];
    const SPECIAL: [&str; 5] = ["<pad>", "<mask>", "<s>", "</s>", "[UNK]"];
    let mut state = seed;
    let mut below = |limit: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % limit as u64) as usize
    };
    let rows = |line: &mut dyn FnMut(usize) -> String, n: usize| {
        (0..n).map(line).collect::<Vec<_>>().join("\n")
    };
    let text = |i: usize| {
        let n = 2 + below(9) * below(9);
        let separator = ["", " ", " ", ", "][below(4)];
        match i % 14 {
            12 => {
                let words = [WORDS, LONG][below(2)];
                vec![words[below(words.len())]; 40 + below(60) * below(8)].join(" ")
            }
            13 => {
                let (word, special) = (LONG[below(LONG.len())], SPECIAL[below(SPECIAL.len())]);
                [word, special].repeat(n).join(" ")
            }
            0 | 1 => vec![WORDS[below(WORDS.len())]; n].join(separator),
            2 => vec![MARKS[below(MARKS.len())]; n].join(separator),
            3 => [WORDS[below(WORDS.len())], MARKS[below(MARKS.len())]].repeat(n).join(" "),
            4 => vec![SPECIAL[below(SPECIAL.len())]; 1 + n / 2].join(" "),
            5 => (0..n).map(|_| below(10).to_string()).collect::<Vec<_>>().join(" "),
            6 => (0..n).map(|_| format!("{:02x}", below(256))).collect::<Vec<_>>().join(separator),
            7 => {
                let word = WORDS[below(WORDS.len())];
                rows(&mut |j| format!("2024-05-17 12:00:{j:02} INFO {word} {j}"), 2 + n / 8)
            }
            8 => rows(&mut |_| format!("| --- | {} | --- |", below(3)), 1 + n / 6),
            9 => {
                let letters = || char::from(b'a' + below(26) as u8).to_string();
                std::iter::repeat_with(letters).take(n).collect::<Vec<_>>().join(" ")
            }
            10 => format!("{} {} {}", WORDS[below(WORDS.len())], ".".repeat(n), below(99)),
            _ => vec!["The page is left blank."; 1 + n / 6].join(" "),
        }
    };
    (0..n).map(text).collect()
}

#[test]
#[ignore = "needs the real weights: run the example fetch_model"]
fn int8_keeps_its_promise_on_monotonous_texts() {
    let mut texts = monotonous_texts(13, 280);
    // Longer than the model takes, too.
    texts.extend(["no", "and", "...", "0", "work", "data"].map(|word| vec![word; 500].join(" ")));
    let want = ENCODER.encode(&texts).unwrap();
    for &isa in Isa::available() {
        let builder = SentenceEncoder::builder(model_directory()).precision(Precision::Int8);
        let encoder = builder.isa(isa).build().unwrap();
        let cosines = pairwise_cos_sim(&encoder.encode(&texts).unwrap().view(), &want.view());
        let lowest = cosines.iter().zip(&texts).min_by(|a, b| a.0.total_cmp(b.0)).unwrap();
        let (cosine, text) = (lowest.0, lowest.1.chars().take(60).collect::<String>());
        println!(
            "int8 ({isa}): lowest cosine over {} monotonous texts {cosine:.6}: {text:?}",
            texts.len()
        );
        assert!(*cosine >= 0.985, "{isa}: {cosine} {text:?}");
    }
}

#[test]
#[ignore = "needs the real weights: run the example fetch_model"]
fn hidden_states_of_every_layer() {
    let goldens = goldens();
    let model = ENCODER.model();
    let layers = goldens.layers_hello_world;
    let batch = Batch::new(&[&layers.input_ids], model.config()).unwrap();
    let states = model.hidden_states(&batch);
    assert_eq!(states.len(), layers.hidden_states.len());
    let mut worst = 0.0_f64;
    for (layer, (state, want)) in states.iter().zip(&layers.hidden_states).enumerate() {
        for (token, (first, sum)) in
            want.first8_per_token.iter().zip(&want.sum_per_token).enumerate()
        {
            let what = format!("layer {layer}, token {token}");
            let got = state.slice(s![token, ..8]);
            let first = ArrayView::from(first);
            worst = worst.max(assert_near(&what, got.into_dyn(), first.into_dyn(), 1e-5));
            // A sum of 768 numbers, each as far off as the ones above.
            let got: f64 = state.row(token).iter().map(|&x| f64::from(x)).sum();
            assert!(
                (got - sum).abs() < allowed(ENCODER.isa(), 1e-4),
                "{what}: sum {got}, want {sum}"
            );
        }
    }
    println!("max |difference| of hidden states: {worst:.2e}");
    let pooled = model.pooler_output(&states[12], &batch).unwrap();
    let want = ArrayView::from(&layers.pooler_output_first8);
    assert_near("pooler", pooled.slice(s![0, ..8]).into_dyn(), want.into_dyn(), 1e-5);

    let integration = goldens.ids_of_transformers_integration_test;
    let batch = Batch::new(&[&integration.input_ids], model.config()).unwrap();
    let hidden = model.forward(&batch);
    for (token, want) in integration.last_hidden_state_first3x3.iter().enumerate() {
        let got = hidden.slice(s![token, ..3]);
        assert_near("integration", got.into_dyn(), ArrayView::from(want).into_dyn(), 1e-5);
    }
}

#[test]
#[ignore = "needs the real weights: run the example fetch_model"]
fn before_and_without_normalisation() {
    let plain = SentenceEncoder::builder(model_directory()).normalize(false).build().unwrap();
    for case in goldens().cases {
        let pooled = plain.encode_one(&case.text).unwrap();
        let norm = f64::from(pooled.dot(&pooled).sqrt());
        let want = case.mean_pool_norm_before_normalize;
        assert!(
            (norm - want).abs() < allowed(plain.isa(), 1e-5),
            "{:?}: norm {norm}, want {want}",
            case.text
        );
        let batch = Batch::new(&[&case.input_ids], plain.model().config()).unwrap();
        let cls = plain.model().forward(&batch).slice(s![0, ..8]).to_owned();
        let want = ArrayView::from(&case.cls_hidden_first8);
        assert_near("cls", cls.view().into_dyn(), want.into_dyn(), 1e-5);
    }
}

/// A production server printed these of its own MPNet on a GPU, which has the `tanh` form of GELU;
/// four digits.
#[test]
#[ignore = "needs the real weights: run the example fetch_model"]
fn with_the_other_gelu() {
    let directory = with_config("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"gelu_new\"");
    let server = SentenceEncoder::builder(directory.path()).normalize(false).build().unwrap();
    let pooled = server.encode_one("What is Deep Learning?").unwrap();
    let published = [-0.07253, -0.00683, -0.13467, -0.01596, -0.03342, 0.10011, 0.02072];
    let got = pooled.slice(s![..7]);
    assert_close("server", got.into_dyn(), ArrayView::from(&published).into_dyn(), 3e-4);
    assert!((pooled.dot(&pooled).sqrt() - 3.0522).abs() < 3e-4);
}

#[test]
#[ignore = "needs the real weights: run the example fetch_model"]
fn numbers_that_others_have_published() {
    // The sums of fastembed-rs' own test of this model.
    let texts = [
        "Hello, World!",
        "This is an example passage.",
        "fastembed-rs is licensed under Apache-2.0",
        "Some other short text here blah blah blah",
    ];
    let sums = [-0.212_535_41, -0.050_802_127, 0.140_724_42, -0.290_818_8];
    for (row, want) in ENCODER.encode(&texts).unwrap().rows().into_iter().zip(sums) {
        let (sum, tolerance) = (f64::from(row.sum()), allowed(ENCODER.isa(), 1e-5));
        assert!((sum - want).abs() < tolerance, "{sum} {want}");
    }
    // torch's values, as the tests of two other libraries and the model's documentation quote them.
    let hello = ENCODER.encode_one("Hello world").unwrap();
    let want = [0.026_249_7, 0.013_395_6, -0.004_533_2, -0.021_791_4, 0.054_551_9];
    let got = hello.slice(s![..5]);
    assert_near("Hello world", got.into_dyn(), ArrayView::from(&want).into_dyn(), 1e-6);

    let words = ENCODER.encode(&["dog", "puppy", "cat", "car", "quantum physics"]).unwrap();
    let cosines = cos_sim(&words.slice(s![..1, ..]), &words.view());
    let want = [1.0, 0.778_325, 0.608_123, 0.390_584, 0.250_900];
    let got = cosines.row(0);
    assert_close("word pairs", got.into_dyn(), ArrayView::from(&want).into_dyn(), 1e-5);

    let weather = ENCODER
        .encode(&[
            "The weather is lovely today.",
            "It's so sunny outside!",
            "He drove to the stadium.",
        ])
        .unwrap();
    let cosines = cos_sim(&weather.view(), &weather.view());
    for (got, want) in
        [(cosines[[0, 1]], 0.6817), (cosines[[0, 2]], 0.0492), (cosines[[1, 2]], 0.0421)]
    {
        assert!((got - want).abs() < 1e-4, "{got} {want}");
    }
}

/// What each precision promises for every text.
#[test]
#[ignore = "needs the real weights: run the example fetch_model"]
fn cosines_to_float64_in_reduced_precision() {
    let cases = goldens().cases;
    let texts: Vec<&str> = cases.iter().map(|case| case.text.as_str()).collect();
    for (precision, promise) in [(Precision::Bf16, 0.9995), (Precision::Int8, 0.985)] {
        let encoder =
            SentenceEncoder::builder(model_directory()).precision(precision).build().unwrap();
        let embeddings = encoder.encode(&texts).unwrap();
        let cosine = |(row, case): (ArrayView1<f32>, &Case)| -> f64 {
            row.iter().zip(&case.embedding).map(|(&got, want)| f64::from(got) * want).sum()
        };
        let cosines = embeddings.rows().into_iter().zip(&cases).map(cosine);
        let (lowest, text) =
            cosines.zip(&texts).min_by(|a, b| a.0.total_cmp(&b.0)).expect("there are texts");
        let text: String = text.chars().take(40).collect();
        println!(
            "{precision} ({}): lowest cosine to float64: {lowest:.6}, of {text:?}",
            encoder.isa()
        );
        assert!(lowest >= promise, "{precision}: {lowest}");
    }
}

/// The pairs of the STS Benchmark: gold score, texts, torch's cosine.
struct Pairs {
    gold: Vec<f64>,
    first: Vec<String>,
    second: Vec<String>,
    torch: Vec<f64>,
}

fn sts_pairs() -> Pairs {
    let table = include_str!("../examples/data/stsb-ccbysa-subset.tsv");
    let rows: Vec<Vec<&str>> =
        table.lines().skip(1).map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.len(), 750);
    let strings = |column: usize| rows.iter().map(|row| row[column].to_owned()).collect();
    let numbers = |column: usize| rows.iter().map(|row| row[column].parse().unwrap()).collect();
    Pairs { gold: numbers(4), first: strings(5), second: strings(6), torch: numbers(7) }
}

fn cosines(encoder: &SentenceEncoder, pairs: &Pairs) -> Array1<f32> {
    let first = encoder.encode(&pairs.first).unwrap();
    let second = encoder.encode(&pairs.second).unwrap();
    pairwise_cos_sim(&first.view(), &second.view())
}

#[test]
#[ignore = "needs the real weights: run the example fetch_model"]
fn cosines_of_the_sts_benchmark_pairs() {
    let pairs = sts_pairs();
    let got = cosines(&ENCODER, &pairs);
    let want = ArrayView::from(&pairs.torch);
    let worst = assert_close("pair", got.view().into_dyn(), want.into_dyn(), 1e-5);
    println!("max |difference| of {} cosines from torch's: {worst:.2e}", pairs.torch.len());

    let in_full = spearman(&pairs.torch, &pairs.gold);
    for (precision, points) in [(Precision::Bf16, 0.1), (Precision::Int8, 0.5)] {
        let encoder =
            SentenceEncoder::builder(model_directory()).precision(precision).build().unwrap();
        let scores: Vec<f64> = cosines(&encoder, &pairs).iter().map(|&x| f64::from(x)).collect();
        let lost = 100.0 * (in_full - spearman(&scores, &pairs.gold));
        println!("{precision}: Spearman {lost:+.3} points below f32's {:.2}", 100.0 * in_full);
        assert!(lost.abs() <= points, "{precision}: {lost} points");
    }
}

/// The evaluator from texts to Spearman, against the same of torch's cosines by plain counting.
#[test]
#[ignore = "needs the real weights: run the example fetch_model"]
fn spearman_of_the_sts_benchmark_pairs_by_the_evaluator() {
    let pairs = sts_pairs();
    let evaluator = EmbeddingSimilarityEvaluator::default();
    let results = evaluator.evaluate(&ENCODER, &pairs.first, &pairs.second, &pairs.gold).unwrap();
    let &[(similarity, metrics)] = &results[..] else { panic!("{results:?}") };
    assert_eq!(similarity, Similarity::Cosine);
    let want = spearman(&pairs.torch, &pairs.gold);
    let got = metrics.spearman;
    println!("Spearman on {} STS pairs: {got:.6}, by torch's cosines {want:.6}", pairs.gold.len());
    assert!((got - want).abs() < 1e-4, "{got} {want}");
}

#[derive(serde::Deserialize)]
struct StsGoldens {
    spearman: HashMap<String, f64>,
}

/// What output precisions cost: Spearman against what sentence-transformers gives of torch's
/// embeddings (`make_sts_goldens.py`), and which part of the ten nearest sentences is still found.
///
/// Of a million components a dozen are within 1e-6 of zero or of a bucket's edge and may fall to
/// the other side. One bit moves one of 1428 cosines by 1/384 at most, and a Spearman of 750 pairs
/// by less than 1e-5.
#[test]
#[ignore = "needs the real weights: run the example fetch_model"]
fn sts_and_search_in_every_output_precision() {
    let pairs = sts_pairs();
    let mut texts: Vec<&String> = pairs.first.iter().chain(&pairs.second).collect();
    texts.sort_unstable();
    texts.dedup();
    let all = ENCODER.encode(&texts).unwrap();
    let rows_of = |side: &[String]| {
        let rows: Vec<usize> = side.iter().map(|t| texts.binary_search(&t).unwrap()).collect();
        all.select(Axis(0), &rows)
    };
    let (first, second) = (rows_of(&pairs.first), rows_of(&pairs.second));
    let want = json::<StsGoldens>("sts_goldens.json").spearman;
    for precision in EmbeddingPrecision::ALL {
        let want = want[precision.name()];
        let evaluator =
            EmbeddingSimilarityEvaluator { precision: Some(precision), ..Default::default() };
        let got = evaluator.score_embeddings(&first.view(), &second.view(), &pairs.gold).unwrap();
        let got = got[0].1.spearman;
        println!("{precision}: Spearman on {} STS pairs: {got:.4}", pairs.gold.len());
        assert!((got - want).abs() < 1e-4, "{precision}: {got}, want {want}");
    }

    let exact = semantic_search(&all.view(), &all.view(), 10);
    let found = |hits: &[Vec<Hit>]| {
        let common = |(exact, hits): (&Vec<Hit>, &Vec<Hit>)| {
            let found = |hit: &&Hit| hits.iter().any(|other| other.corpus_id == hit.corpus_id);
            exact.iter().filter(found).count()
        };
        let common: usize = exact.iter().zip(hits).map(common).sum();
        100.0 * common as f64 / (10.0 * exact.len() as f64)
    };
    let ranges = Ranges::calibrate(&all.view()).unwrap();
    for precision in [EmbeddingPrecision::Int8, EmbeddingPrecision::Ubinary] {
        let corpus = all.quantize(precision, Some(&ranges)).unwrap();
        for (name, multiplier, rescore) in [
            ("the codes alone", 1, Rescore::None),
            ("2 candidates a hit, rescored by the codes", 2, Rescore::Corpus),
            ("2 candidates a hit, rescored by f32", 2, Rescore::Float32(all.view())),
            ("4 candidates a hit, rescored by f32", 4, Rescore::Float32(all.view())),
        ] {
            let options = RescoreOptions::default().rescore_multiplier(multiplier).rescore(rescore);
            let options = options.ranges(&ranges);
            let hits = semantic_search_rescored(&all.view(), &corpus.view(), &options).unwrap();
            let found = found(&hits);
            println!("{precision}, {name}: {found:.1} % of the ten nearest found");
            assert!(found > 50.0, "{precision}, {name}: {found}");
        }
    }
}

/// Pearson's correlation of the ranks, equal values sharing the mean of theirs.
fn spearman(x: &[f64], y: &[f64]) -> f64 {
    let ranks = |values: &[f64]| -> Vec<f64> {
        let below = |x: f64| values.iter().filter(|&&y| y < x).count() as f64;
        let equal = |x: f64| values.iter().filter(|&&y| y == x).count() as f64;
        values.iter().map(|&x| below(x) + (equal(x) + 1.0) / 2.0).collect()
    };
    let (x, y) = (ranks(x), ranks(y));
    let mean = (x.len() as f64 + 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum()
    };
    product(&x, &y) / (product(&x, &x) * product(&y, &y)).sqrt()
}

#[test]
#[ignore = "needs the real weights: run the example fetch_model"]
fn the_same_bits_alone_in_a_batch_and_on_any_number_of_threads() {
    let cases = goldens().cases;
    let texts: Vec<&str> = cases.iter().map(|case| case.text.as_str()).collect();
    let alone: Vec<Vec<u32>> =
        texts.iter().map(|text| bits(ENCODER.encode_one(text).unwrap().view())).collect();
    for threads in [1, 2, 3, 8] {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.rotate_left(threads * 2);
        let shuffled: Vec<&str> = order.iter().map(|&i| texts[i]).collect();
        let rows = pool(threads).install(|| ENCODER.encode(&shuffled).unwrap());
        for (row, i) in rows.rows().into_iter().zip(order) {
            assert_eq!(bits(row), alone[i], "{threads} threads, {:?}", texts[i]);
        }
    }
}

/// `make_golden_512.py` has the reference's embedding of one text that fills every position.
#[test]
#[ignore = "needs the real weights: run the example fetch_model"]
fn a_text_of_512_tokens() {
    #[derive(serde::Deserialize)]
    struct Golden {
        text: String,
        dropped: usize,
        embedding: Vec<f64>,
    }
    let golden: Golden = json("golden_512.json");
    let encoder = SentenceEncoder::builder(model_directory()).max_seq_length(512).build().unwrap();
    let report = encoder.encode_with(&[&golden.text], &EncodeOptions::default()).unwrap();
    assert_eq!((report.texts[0].tokens, report.texts[0].dropped), (512, golden.dropped));
    let want = ArrayView::from(&golden.embedding).into_dyn();
    let worst = assert_close("512", report.embeddings.row(0).into_dyn(), want, PROMISE);
    println!("512 tokens: max |difference| from float64: {worst:.2e}");
}

#[test]
#[ignore = "needs the real weights: run the example fetch_model"]
fn a_question_finds_its_answer() {
    let corpus = [
        "a man is eating food",
        "the girl is carrying a baby",
        "a man is riding a horse",
        "a woman is playing violin",
    ];
    let corpus_embeddings = ENCODER.encode(&corpus).unwrap();
    let query = ENCODER.encode(&["a man is sitting at a table, what is he doing?"]).unwrap();
    let hits = semantic_search(&query.view(), &corpus_embeddings.view(), 4);
    assert_eq!(corpus[hits[0][0].corpus_id], "a man is eating food");
}

#[test]
#[ignore = "needs the real weights: run the example fetch_model"]
fn a_layer_too_many_is_named() {
    let directory = with_config("\"num_hidden_layers\": 12", "\"num_hidden_layers\": 13");
    let error = SentenceEncoder::from_pretrained(directory.path()).unwrap_err().to_string();
    assert!(error.contains("encoder.layer.12.attention.attn.q.weight"), "{error}");
}

/// The model's directory once more, with one change to its `config.json`.
fn with_config(from: &str, to: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    link_all(&model_directory(), directory.path());
    let config = directory.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains(from));
    // Not written through the link, which would change the original.
    std::fs::remove_file(&config).unwrap();
    std::fs::write(&config, text.replace(from, to)).unwrap();
    directory
}

/// Hard links (or copies, across file systems) of the files of a directory, and of its folders.
fn link_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            link_all(&entry.path(), &target);
        } else if std::fs::hard_link(entry.path(), &target).is_err() {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}
