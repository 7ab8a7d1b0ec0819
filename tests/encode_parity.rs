//! Prompts, poolings, outputs, token embeddings, windows and late chunking against
//! sentence-transformers in float64.
//!
//! Tolerances are those of `docs/numerics.md` for the tiny model: of a normalised embedding, and of
//! a hidden state. What is pooled without normalisation is as large as a hidden state, times the
//! root of the length in one of the modes.

mod common;

use std::collections::BTreeMap;

use common::{Damaged, Goldens, allowed, assert_near, json, tiny};
use mpnet::ndarray::{ArrayD, Axis};
use mpnet::quantization::{EmbeddingPrecision, QuantizedEmbeddings};
use mpnet::{
    Embeddings, EncodeOptions, Error, Isa, Overflow, Pooling, SentenceEncoder, Similarity,
    TokenEmbeddings,
};
use serde::Deserialize;

const EMBEDDING: f64 = 1e-6;
const HIDDEN: f64 = 8e-6;

fn ask<T: serde::de::DeserializeOwned>(field: &str) -> T {
    let mut file: BTreeMap<String, serde_json::Value> = json("encode_goldens.json");
    serde_json::from_value(file.remove(field).unwrap()).unwrap()
}

fn want(name: &str) -> ArrayD<f64> {
    Goldens::named("encode_goldens.safetensors").get(name)
}

/// The arguments of a call of `encode`.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Arguments {
    prompt: Option<String>,
    prompt_name: Option<String>,
    truncate_dim: Option<usize>,
    normalize_embeddings: bool,
}

impl Arguments {
    fn options(self) -> EncodeOptions {
        let mut options = EncodeOptions::default().normalize(self.normalize_embeddings);
        if let Some(prompt) = self.prompt {
            options = options.prompt(prompt);
        }
        if let Some(name) = self.prompt_name {
            options = options.prompt_name(name);
        }
        match self.truncate_dim {
            Some(k) => options.truncate_dim(k),
            None => options,
        }
    }
}

#[test]
fn every_prompt_rule() {
    #[derive(Deserialize)]
    struct Prompts {
        text: String,
        settings: Vec<BTreeMap<String, serde_json::Value>>,
        calls: Vec<Call>,
    }
    #[derive(Deserialize)]
    struct Call {
        settings: usize,
        method: String,
        arguments: Arguments,
        #[serde(default)]
        refused: bool,
    }
    let prompts: Prompts = ask("prompts");
    let load = |settings: &BTreeMap<String, serde_json::Value>| {
        let model = Damaged::copy();
        for (field, value) in settings {
            model.set("config_sentence_transformers.json", field, value.clone());
        }
        model.load().unwrap()
    };
    let encoders: Vec<SentenceEncoder> = prompts.settings.iter().map(load).collect();
    for (n, call) in prompts.calls.into_iter().enumerate() {
        let (encoder, texts) = (&encoders[call.settings], [&prompts.text]);
        let options = call.arguments.options();
        let report = match call.method.as_str() {
            "encode" => encoder.encode_with(&texts, &options),
            "encode_query" => encoder.encode_query_with(&texts, &options),
            "encode_document" => encoder.encode_document_with(&texts, &options),
            other => panic!("{other}"),
        };
        if call.refused {
            assert!(matches!(report, Err(Error::Option { option: "prompt_name", .. })), "{n}");
            continue;
        }
        let got = report.unwrap().embeddings;
        let what = format!("call {n}: {}", call.method);
        assert_near(&what, got.row(0).into_dyn(), want(&format!("prompts/{n}")).view(), EMBEDDING);
    }
    let encoder = &encoders[1];
    let (query, document) = (encoder.encode_query(&["x"]), encoder.encode_document(&["x"]));
    assert_eq!(
        query.unwrap(),
        encoder
            .encode_with(&["x"], &EncodeOptions::default().prompt("query: "))
            .unwrap()
            .embeddings
    );
    assert_eq!(document.unwrap(), encoder.encode(&["x"]).unwrap(), "the default prompt here");
}

#[test]
fn truncated_and_normalised() {
    #[derive(Deserialize)]
    struct Outputs {
        texts: Vec<String>,
        calls: Vec<Call>,
    }
    #[derive(Deserialize)]
    struct Call {
        model_truncate_dim: Option<usize>,
        arguments: Arguments,
    }
    let outputs: Outputs = ask("outputs");
    for (n, call) in outputs.calls.into_iter().enumerate() {
        let model = Damaged::copy();
        model.set(
            "config_sentence_transformers.json",
            "truncate_dim",
            call.model_truncate_dim.into(),
        );
        let encoder = model.load().unwrap();
        let got =
            encoder.encode_with(&outputs.texts, &call.arguments.options()).unwrap().embeddings;
        // Scaling five or eight of 32 components to length 1 scales their errors too, here by less
        // than 4.
        let tolerance = 4.0 * EMBEDDING;
        assert_near(
            &format!("call {n}"),
            got.view().into_dyn(),
            want(&format!("outputs/{n}")).view(),
            tolerance,
        );
    }
}

/// Byte for byte, except where an embedding stands so near the edge between two buckets, or a bit's
/// zero, that its own tolerance reaches the other side; the goldens have the embeddings that their
/// bytes were made of.
#[test]
fn every_output_precision() {
    #[derive(Deserialize)]
    struct Precisions {
        texts: Vec<String>,
        calls: Vec<Call>,
    }
    #[derive(Deserialize)]
    struct Call {
        method: String,
        arguments: Arguments,
        rows: BTreeMap<String, Vec<Vec<i16>>>,
    }
    let precisions: Precisions = ask("precisions");
    let (encoder, texts) = (SentenceEncoder::from_pretrained(tiny()).unwrap(), &precisions.texts);
    let (mut bytes, mut at_an_edge) = (0, 0);
    for (n, call) in precisions.calls.into_iter().enumerate() {
        // As for other truncated embeddings.
        let tolerance = if call.arguments.normalize_embeddings { 4.0 } else { 1.0 } * EMBEDDING;
        let tolerance = allowed(Isa::detect().unwrap(), tolerance);
        let options = call.arguments.options();
        let embeddings = match call.method.as_str() {
            "encode" => encoder.encode_with(texts, &options),
            "encode_query" => encoder.encode_query_with(texts, &options),
            other => panic!("{other}"),
        };
        let embeddings = embeddings.unwrap().embeddings;
        let reference = want(&format!("precisions/{n}"));
        for (name, rows) in call.rows {
            let got = embeddings.quantize(name.parse().unwrap(), None).unwrap();
            let (got, signed) = match got {
                QuantizedEmbeddings::Int8(a) => (a.mapv(i16::from), 128),
                QuantizedEmbeddings::Binary(a) => (a.mapv(i16::from), 128),
                QuantizedEmbeddings::Uint8(a) | QuantizedEmbeddings::Ubinary(a) => {
                    (a.mapv(i16::from), 0)
                }
                QuantizedEmbeddings::Float32(_) => panic!("{name}"),
            };
            assert_eq!((got.nrows(), got.ncols()), (rows.len(), rows[0].len()), "{n}, {name}");
            for ((i, k), &got) in got.indexed_iter() {
                let want = rows[i][k];
                bytes += 1;
                if got == want {
                    continue;
                }
                at_an_edge += 1;
                let place = format!("call {n}, {name}, row {i}, {k}: got {got}, want {want}");
                if name.ends_with("binary") {
                    let differ = (got + signed) ^ (want + signed);
                    for bit in (0..8).filter(|bit| differ & (0x80 >> bit) != 0) {
                        assert!(reference[[i, 8 * k + bit]].abs() <= tolerance, "{place}");
                    }
                    continue;
                }
                let column = reference.index_axis(Axis(1), k);
                let low = column.fold(f64::INFINITY, |a, &x| a.min(x));
                let high = column.fold(f64::NEG_INFINITY, |a, &x| a.max(x));
                let step = (high - low) / 255.0;
                // The value, the lower end and both ends of 255 steps are off by the tolerance at
                // most, and the division by a few units in the last place of 255.
                let allowed = 4.0 * tolerance / step + 255.0 * 4.0 * f64::from(f32::EPSILON);
                let position = (reference[[i, k]] - low) / step;
                let edge = f64::from(got.max(want) + signed);
                assert!((got - want).abs() == 1 && (position - edge).abs() <= allowed, "{place}");
            }
        }
    }
    // The largest value of a column stands at an edge by definition; apart from those, edges are
    // rare.
    assert!(bytes > 1500 && at_an_edge * 20 < bytes, "{at_an_edge} of {bytes}");

    let one = encoder.encode(&texts[..1]).unwrap();
    let error = one.quantize(EmbeddingPrecision::Int8, None).unwrap_err();
    assert!(matches!(error, Error::Option { option: "calibration_embeddings", .. }), "{error}");
}

/// tiny with another pooling, and normalised or not.
fn with_pooling(config: &serde_json::Value, normalize: bool) -> SentenceEncoder {
    let pooling = Pooling::from_json(config.to_string(), 32, "test").unwrap();
    SentenceEncoder::builder(tiny()).pooling(pooling).normalize(normalize).build().unwrap()
}

#[test]
fn every_pooling_with_and_without_the_prompt() {
    #[derive(Deserialize)]
    struct Poolings {
        texts: Vec<String>,
        prompt: String,
        configs: Vec<serde_json::Value>,
    }
    let poolings: Poolings = ask("poolings");
    let options = EncodeOptions::default().prompt(poolings.prompt);
    for (n, config) in poolings.configs.iter().enumerate() {
        let got = with_pooling(config, false).encode_with(&poolings.texts, &options).unwrap();
        // mean_sqrt_len multiplies a mean by the root of 48 tokens.
        let tolerance = if config.to_string().contains("sqrt") { 7.0 * HIDDEN } else { HIDDEN };
        let want = want(&format!("poolings/{n}"));
        assert_near(&config.to_string(), got.embeddings.view().into_dyn(), want.view(), tolerance);
    }
}

#[test]
fn token_embeddings_and_where_they_stand() {
    #[derive(Deserialize)]
    struct Call {
        text: String,
        prompt: String,
        ids: Vec<u32>,
        char_offsets: Vec<Option<(usize, usize)>>,
    }
    let encoder = SentenceEncoder::from_pretrained(tiny()).unwrap();
    for (n, call) in ask::<Vec<Call>>("tokens").into_iter().enumerate() {
        let options = EncodeOptions::default().prompt(&call.prompt);
        // Not alone, so that a wrong place would show.
        let all = encoder.encode_tokens(&["a", &call.text, "the man"], &options).unwrap();
        let got = &all[1];
        assert_eq!(got.ids, call.ids, "{n}");
        let offsets: Vec<_> = call.char_offsets.into_iter().map(|o| o.map(|(a, b)| a..b)).collect();
        assert_eq!(got.char_offsets(&call.text), offsets, "{:?}", call.text);
        for bytes in got.offsets.iter().flatten() {
            assert!(call.text.get(bytes.clone()).is_some(), "{bytes:?}");
        }
        let what = format!("text {n}");
        assert_near(
            &what,
            got.embeddings.view().into_dyn(),
            want(&format!("tokens/{n}")).view(),
            HIDDEN,
        );
    }
}

#[test]
fn the_model_s_similarity() {
    let single = |name: &str| {
        want(name).mapv(|x| x as f32).into_dimensionality::<mpnet::ndarray::Ix2>().unwrap()
    };
    let (a, b) = (single("similarity/a"), single("similarity/b"));
    for name in ask::<Vec<String>>("similarity") {
        let model = Damaged::copy();
        model.set("config_sentence_transformers.json", "similarity_fn_name", name.clone().into());
        let encoder = model.load().unwrap();
        assert_eq!(encoder.similarity_fn(), name.parse::<Similarity>().unwrap());
        // Sums of 32 terms of up to 10, in f32.
        let tolerance = 1e-5;
        let got = encoder.similarity(&a.view(), &b.view()).unwrap();
        assert_near(
            &name,
            got.view().into_dyn(),
            want(&format!("similarity/{name}")).view(),
            tolerance,
        );
        let three = b.slice_axis(Axis(0), (..3).into());
        let got = encoder.similarity_pairwise(&a.view(), &three).unwrap();
        let want = want(&format!("similarity_pairwise/{name}"));
        assert_near(&name, got.view().into_dyn(), want.view(), tolerance);
        let error = encoder.similarity_pairwise(&a.view(), &b.view()).unwrap_err();
        assert!(matches!(error, Error::Input { input: "b", .. }), "{error}");
    }
}

#[test]
fn windows_over_long_texts() {
    #[derive(Deserialize)]
    struct Call {
        text: String,
        prompt: String,
        stride: usize,
        pooling: serde_json::Value,
        ids: Vec<Vec<u32>>,
        tokens: bool,
    }
    for (n, call) in ask::<Vec<Call>>("windows").into_iter().enumerate() {
        let encoder = with_pooling(&call.pooling, true);
        let overflow = Overflow::Window { stride: call.stride };
        let options = EncodeOptions::default().prompt(&call.prompt).overflow(overflow);
        // In company, and in batches of several sizes.
        for tokens_per_batch in [1, 100, 2048] {
            let options = options.clone().tokens_per_batch(tokens_per_batch);
            let report = encoder.encode_with(&["a", &call.text, ""], &options).unwrap();
            let what = format!("windows {n}");
            let got = report.embeddings.row(1).into_dyn();
            assert_near(&what, got, want(&format!("windows/{n}")).view(), EMBEDDING);
            let text = report.texts[1];
            let tokens = call.ids.iter().map(Vec::len).sum::<usize>();
            assert_eq!((text.windows, text.tokens, text.dropped), (call.ids.len(), tokens, 0));
        }
        if call.tokens {
            let options = EncodeOptions::default().prompt(&call.prompt).overflow(overflow);
            let TokenEmbeddings { embeddings, ids, offsets, .. } =
                encoder.encode_tokens(&["a", &call.text], &options).unwrap().swap_remove(1);
            let want = want(&format!("window_tokens/{n}"));
            assert_near(&format!("tokens {n}"), embeddings.view().into_dyn(), want.view(), HIDDEN);
            let whole =
                encoder.tokenizer().encode(&[format!("{}{}", call.prompt, call.text)], 1000);
            assert_eq!(ids, whole.unwrap()[0].ids, "each token once");
            assert!(offsets.iter().flatten().is_sorted_by_key(|bytes| bytes.start));
        }
    }
}

#[test]
fn late_chunks() {
    #[derive(Deserialize)]
    struct Call {
        text: String,
        stride: Option<usize>,
        char_ranges: Vec<(usize, usize)>,
        tokens: Vec<usize>,
    }
    let encoder = SentenceEncoder::from_pretrained(tiny()).unwrap();
    // The first is longer than `max_seq_length`, but not than the model.
    let roomy = SentenceEncoder::builder(tiny()).max_seq_length(128).build().unwrap();
    for (n, call) in ask::<Vec<Call>>("chunks").into_iter().enumerate() {
        assert!(call.text.is_ascii(), "bytes are characters");
        let ranges: Vec<_> = call.char_ranges.iter().map(|&(a, b)| a..b).collect();
        let (encoder, overflow) = match call.stride {
            Some(stride) => (&encoder, Overflow::Window { stride }),
            None => (&roomy, Overflow::Error),
        };
        let options = EncodeOptions::default().overflow(overflow);
        let got = encoder.encode_chunks(&call.text, &ranges, &options).unwrap();
        let tokens: Vec<usize> = got.chunks.iter().map(|chunk| chunk.tokens).collect();
        assert_eq!(tokens, call.tokens);
        assert_near(
            &format!("chunks {n}"),
            got.embeddings.view().into_dyn(),
            want(&format!("chunks/{n}")).view(),
            EMBEDDING,
        );
    }
}

#[test]
fn an_empty_call_is_an_empty_answer() {
    let encoder = SentenceEncoder::from_pretrained(tiny()).unwrap();
    let none: [&str; 0] = [];
    let options = EncodeOptions::default().overflow(Overflow::Window { stride: 3 });
    assert_eq!(encoder.encode_with(&none, &options).unwrap().embeddings.dim(), (0, 32));
    assert!(encoder.encode_tokens(&none, &options).unwrap().is_empty());
    assert_eq!(encoder.encode_chunks("text", &[], &options).unwrap().embeddings.dim(), (0, 32));
    assert_eq!(encoder.encode_iter(none, &options).unwrap().count(), 0);
}
