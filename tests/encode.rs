//! `SentenceEncoder` as a caller sees it.

mod common;

use common::{Damaged, bits, pool, texts, tiny};
use mpnet::model::{Mpnet, Placement};
use mpnet::ndarray::{Axis, s};
use mpnet::{
    Batch, Checkpoint, EncodeOptions, Error, Isa, ModelFiles, Overflow, Pooling, PoolingMode,
    Precision, SentenceEncoder, Similarity, TextProblem,
};
use proptest::prelude::*;

fn encoder() -> SentenceEncoder {
    SentenceEncoder::from_pretrained(tiny()).unwrap()
}

fn strings() -> Vec<String> {
    texts().into_iter().map(|text| text.text).collect()
}

#[test]
fn the_same_bits_alone_and_in_any_batch_order_and_thread_count() {
    let encoder = encoder();
    let texts: Vec<String> = strings().into_iter().cycle().take(60).collect();
    let alone: Vec<Vec<u32>> =
        texts.iter().map(|text| bits(encoder.encode_one(text).unwrap().view())).collect();
    let check = |order: &[usize], what: &str| {
        let texts: Vec<&String> = order.iter().map(|&i| &texts[i]).collect();
        let rows = encoder.encode(&texts).unwrap();
        for (row, &i) in rows.rows().into_iter().zip(order) {
            assert_eq!(bits(row), alone[i], "{what}: text {i}");
        }
    };
    let forwards: Vec<usize> = (0..texts.len()).collect();
    let backwards: Vec<usize> = forwards.iter().rev().copied().collect();
    let shuffled: Vec<usize> = forwards.iter().map(|i| i * 37 % texts.len()).collect();
    for threads in [1, 2, 3, 8] {
        pool(threads).install(|| {
            check(&forwards, &format!("{threads} threads, in order"));
            check(&backwards, &format!("{threads} threads, backwards"));
            check(&shuffled, &format!("{threads} threads, shuffled"));
        });
    }
    // Batches of another size.
    for budget in [1, 30, 100] {
        let other = SentenceEncoder::builder(tiny()).tokens_per_batch(budget).build().unwrap();
        let rows = other.encode(&texts).unwrap();
        for (row, alone) in rows.rows().into_iter().zip(&alone) {
            assert_eq!(&bits(row), alone, "{budget} tokens a batch");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Any text at all: no panic, a unit vector, and the same bits in company.
    #[test]
    fn any_text_has_an_embedding(texts in prop::collection::vec(any::<String>(), 1..5)) {
        thread_local!(static ENCODER: SentenceEncoder = encoder());
        ENCODER.with(|encoder| {
            let rows = encoder.encode(&texts).unwrap();
            for (row, text) in rows.rows().into_iter().zip(&texts) {
                prop_assert!((row.dot(&row) - 1.0).abs() < 1e-5);
                prop_assert_eq!(bits(row), bits(encoder.encode_one(text).unwrap().view()));
            }
            Ok(())
        })?;
    }
}

#[test]
fn the_same_bits_in_every_precision_and_on_every_instruction_set() {
    let mut texts = strings();
    // Monotonous ones too, which 8 bits compute otherwise, among the others.
    for (place, text) in
        ["no ".repeat(30), "a </s> b".to_owned(), "0 1 ".repeat(20)].into_iter().enumerate()
    {
        texts.insert(2 * place, text);
    }
    for &isa in Isa::available() {
        for precision in Precision::ALL {
            println!("{isa}, {precision}");
            let encoder =
                SentenceEncoder::builder(tiny()).isa(isa).precision(precision).build().unwrap();
            assert_eq!((encoder.isa(), encoder.precision()), (isa, precision));
            let alone: Vec<Vec<u32>> =
                texts.iter().map(|text| bits(encoder.encode_one(text).unwrap().view())).collect();
            for threads in [1, 2, 3, 8] {
                let rows = pool(threads).install(|| encoder.encode(&texts).unwrap());
                for (row, alone) in rows.rows().into_iter().zip(&alone) {
                    assert_eq!(&bits(row), alone, "{isa}, {precision}, {threads} threads");
                }
            }
        }
    }
}

/// All that a model says of a batch in which some texts are monotonous is what it says of each text
/// alone.
#[test]
fn a_monotonous_text_in_a_batch_of_others() {
    let texts = [
        vec![0, 7, 8, 2],
        [vec![0], vec![9; 30], vec![2]].concat(),
        vec![0, 7, 2, 8, 2],
        vec![0, 11, 2],
    ];
    for &isa in Isa::available() {
        let builder = SentenceEncoder::builder(tiny()).isa(isa).precision(Precision::Int8);
        let encoder = builder.build().unwrap();
        let (model, config) = (encoder.model(), encoder.model().config());
        let batch = Batch::new(&texts, config).unwrap();
        let (states, attentions) = (model.hidden_states(&batch), model.attentions(&batch));
        assert_eq!(states[config.num_hidden_layers], model.forward(&batch), "{isa}");
        for (i, text) in texts.iter().enumerate() {
            let alone = Batch::new(&[text], config).unwrap();
            for (all, own) in states.iter().zip(model.hidden_states(&alone)) {
                assert_eq!(all.slice(s![batch.range(i), ..]), own, "{isa}, text {i}");
            }
            for (all, own) in attentions.iter().zip(model.attentions(&alone)) {
                assert_eq!(all[i], own[0], "{isa}, text {i}");
            }
        }
        // In full where it matters: nearer to f32 than the same model without what rounding has
        // left.
        let full = SentenceEncoder::builder(tiny()).isa(isa).build().unwrap();
        let weights = Checkpoint::open(tiny()).unwrap();
        let at = Placement::on(isa).precision(Precision::Int8);
        let without = Mpnet::prepare(&weights.encoder().unwrap(), config, &at).unwrap();
        let distance = |model: &Mpnet, i: usize| {
            let batch = Batch::new(&[&texts[i]], config).unwrap();
            let difference =
                model.hidden_states(&batch)[1].clone() - &full.model().hidden_states(&batch)[1];
            difference.mapv(|x| x * x).sum().sqrt()
        };
        for i in [1, 2] {
            let (with, without) = (distance(model, i), distance(&without, i));
            assert!(with < without / 20.0, "{isa}, text {i}: {with}, without {without}");
        }
        assert_eq!(distance(model, 0), distance(&without, 0), "{isa}: an ordinary text");
    }
}

#[test]
fn a_clone_shares_the_weights_and_gives_the_same() {
    let encoder = encoder();
    let clone = encoder.clone();
    assert!(std::ptr::eq(encoder.model(), clone.model()), "the weights are copied");
    assert!(std::ptr::eq(encoder.tokenizer(), clone.tokenizer()), "the tokenizer is copied");
    let embeddings = encoder.encode(&["a man is eating food"]).unwrap();
    drop(encoder);
    assert_eq!(clone.encode(&["a man is eating food"]).unwrap(), embeddings);
}

#[test]
fn no_texts_and_empty_texts() {
    let encoder = encoder();
    assert_eq!(encoder.encode::<&str>(&[]).unwrap().dim(), (0, 32));
    let rows = encoder.encode(&["", "  ", "\n\t"]).unwrap();
    assert_eq!(rows.row(0), rows.row(1));
    assert_eq!(rows.row(0), rows.row(2));
    assert!((rows.row(0).dot(&rows.row(0)) - 1.0).abs() < 1e-5, "<s></s> has an embedding");
}

#[test]
fn truncation_is_reported_or_refused() {
    let encoder = encoder();
    let long = "the man ".repeat(100);
    let texts = ["the man", &long];
    let report = encoder.encode_with(&texts, &EncodeOptions::default()).unwrap();
    assert_eq!(report.truncated().collect::<Vec<_>>(), [1]);
    assert_eq!((report.texts[0].tokens, report.texts[0].dropped), (4, 0));
    assert_eq!((report.texts[1].tokens, report.texts[1].dropped), (48, 154));
    assert_eq!(report.tokens(), 52);
    assert_eq!(report.embeddings, encoder.encode(&texts).unwrap());

    let error = encoder
        .encode_with(&texts, &EncodeOptions::default().overflow(Overflow::Error))
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Text { text: 1, problem: TextProblem::TooLong { tokens: 202, limit: 48 } }
        ),
        "{error}"
    );

    // With room for all of it, nothing is dropped.
    let roomy = SentenceEncoder::builder(tiny()).max_seq_length(128).build().unwrap();
    assert_eq!(roomy.max_seq_length(), 128);
    let shorter = "the man ".repeat(60);
    let options = EncodeOptions::default().overflow(Overflow::Error);
    assert_eq!(roomy.encode_with(&[&shorter], &options).unwrap().texts[0].tokens, 122);
}

#[test]
fn truncated_dimensions_and_normalisation() {
    let encoder = encoder();
    let texts = ["the man", "a dog"];
    let whole = encoder.encode(&texts).unwrap();
    let cut = encoder.encode_with(&texts, &EncodeOptions::default().truncate_dim(8)).unwrap();
    assert_eq!(cut.embeddings, whole.slice(mpnet::ndarray::s![.., ..8]));
    let unit = EncodeOptions::default().truncate_dim(8).normalize(true);
    for row in encoder.encode_with(&texts, &unit).unwrap().embeddings.rows() {
        assert!((row.dot(&row) - 1.0).abs() < 1e-6);
    }
    for k in [0, 33] {
        let error =
            encoder.encode_with(&texts, &EncodeOptions::default().truncate_dim(k)).unwrap_err();
        assert!(matches!(error, Error::Option { option: "truncate_dim", .. }), "{error}");
    }
}

#[test]
fn prompts() {
    let encoder = encoder();
    let named = EncodeOptions::default().prompt_name("query");
    let row = encoder.encode_with(&["the man"], &named).unwrap().embeddings;
    assert_eq!(row.row(0), encoder.encode_one("query: the man").unwrap());
    let error = encoder
        .encode_with(&["the man"], &EncodeOptions::default().prompt_name("nothing"))
        .unwrap_err();
    assert!(error.to_string().contains("`nothing`"), "{error}");

    // A model with a default prompt puts it before every text, unless told not to.
    let model = Damaged::copy();
    model.set("config_sentence_transformers.json", "default_prompt_name", "query".into());
    let prompted = model.load().unwrap();
    assert_eq!(
        prompted.encode_one("the man").unwrap(),
        encoder.encode_one("query: the man").unwrap()
    );
    let bare = EncodeOptions::default().prompt("");
    let row = prompted.encode_with(&["the man"], &bare).unwrap().embeddings;
    assert_eq!(row.row(0), encoder.encode_one("the man").unwrap());
}

#[test]
fn a_prompt_can_be_left_out_of_the_pooling() {
    let model = Damaged::copy();
    model.set("1_Pooling/config.json", "include_prompt", false.into());
    let encoder = model.load().unwrap();
    let options = EncodeOptions::default().prompt_name("query");
    let got = encoder.encode_with(&["the man"], &options).unwrap().embeddings;

    let ids = encoder.tokenizer().encode(&["query: the man"], 48).unwrap();
    let prompt = encoder.tokenizer().encode(&["query: "], 48).unwrap()[0].ids.len() - 1;
    let batch = Batch::new(&[&ids[0].ids], encoder.model().config()).unwrap();
    let hidden = encoder.model().forward(&batch);
    let mean = hidden.slice(mpnet::ndarray::s![prompt.., ..]).mean_axis(Axis(0)).unwrap();
    let unit = &mean / mean.dot(&mean).sqrt();
    for (got, want) in got.row(0).iter().zip(&unit) {
        assert!((got - want).abs() < 1e-6);
    }
}

#[test]
fn the_pipeline_can_be_overridden() {
    let plain = SentenceEncoder::builder(tiny()).normalize(false).build().unwrap();
    let row = plain.encode_one("the man").unwrap();
    assert!((row.dot(&row) - 1.0).abs() > 0.1);
    let both = Pooling::new([PoolingMode::Cls, PoolingMode::Max]);
    let wide = SentenceEncoder::builder(tiny()).pooling(both).build().unwrap();
    assert_eq!(wide.dim(), 64);
    assert_eq!(wide.encode_one("the man").unwrap().len(), 64);
}

#[test]
fn the_same_model_from_memory() {
    let read = |name: &str| std::fs::read(tiny().join(name)).unwrap();
    let (weights, config) = (read("model.safetensors"), read("config.json"));
    let tokenizer = read("tokenizer.json");
    let want = encoder().encode(&["the man", ""]).unwrap();

    // Three files are an encoder with mean pooling, not normalised.
    let plain = SentenceEncoder::from_bytes(&weights, &config, &tokenizer).unwrap();
    assert_eq!(plain.max_seq_length(), 128);
    let unit = EncodeOptions::default().normalize(true);
    let got = plain.encode_with(&["the man", ""], &unit).unwrap().embeddings;
    assert_eq!(got, want);

    let names = [
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
    ];
    let files: Vec<(&str, Vec<u8>)> = names.iter().map(|&name| (name, read(name))).collect();
    let in_memory =
        ModelFiles::in_memory(files.iter().map(|(name, bytes)| (*name, bytes.as_slice())));
    let whole = SentenceEncoder::from_pretrained(in_memory).unwrap();
    assert_eq!(whole.max_seq_length(), 48);
    assert_eq!(whole.encode(&["the man", ""]).unwrap(), want);
}

#[test]
fn what_an_encoder_says_of_itself() {
    let encoder = encoder();
    assert_eq!((encoder.dim(), encoder.max_seq_length()), (32, 48));
    assert_eq!(encoder.precision(), Precision::F32);
    assert!(mpnet::Isa::available().contains(&encoder.isa()));
    assert_eq!(encoder.similarity_fn(), Similarity::Cosine);
    let rows = encoder.encode(&["the man", "the man"]).unwrap();
    let same = encoder.similarity(&rows.view(), &rows.view()).unwrap();
    assert!((same[[0, 1]] - 1.0).abs() < 1e-6);

    let model = Damaged::copy();
    model.set("config_sentence_transformers.json", "similarity_fn_name", "euclidean".into());
    let encoder = model.load().unwrap();
    assert_eq!(encoder.similarity_fn(), Similarity::Euclidean);
    assert_eq!(encoder.similarity(&rows.view(), &rows.view()).unwrap()[[0, 1]], 0.0);
    model.set("config_sentence_transformers.json", "truncate_dim", 8.into());
    assert_eq!(model.load().unwrap().encode_one("x").unwrap().len(), 8);
}

#[test]
fn lengths_come_from_the_model_s_files_in_their_order() {
    let model = Damaged::copy();
    model.remove("sentence_bert_config.json");
    assert_eq!(model.load().unwrap().max_seq_length(), 128, "tokenizer_config.json");
    model.set("tokenizer_config.json", "model_max_length", 20.into());
    assert_eq!(model.load().unwrap().max_seq_length(), 20);
    // "Unlimited": then the position table limits it, two rows of which no token reaches.
    model.set("tokenizer_config.json", "model_max_length", 1e30.into());
    assert_eq!(model.load().unwrap().max_seq_length(), 128);
    model.write("sentence_bert_config.json", r#"{"max_seq_length": 1000}"#);
    assert_eq!(model.load().unwrap().max_seq_length(), 128);
}

#[test]
fn without_modules_json_it_is_a_plain_encoder() {
    let model = Damaged::copy();
    model.remove("modules.json");
    let plain = model.load().unwrap();
    let options = EncodeOptions::default().normalize(true);
    let got = plain.encode_with(&["the man"], &options).unwrap().embeddings;
    assert_eq!(got.row(0), encoder().encode_one("the man").unwrap());
    let raw = plain.encode_one("the man").unwrap();
    assert!((raw.dot(&raw) - 1.0).abs() > 0.1, "not normalised");
}

#[test]
fn a_literal_pad_in_a_text_is_seen_but_not_numbered() {
    let encoder = encoder();
    let ids = &encoder.tokenizer().encode(&["a<pad>b"], 48).unwrap()[0].ids;
    assert_eq!((ids.len(), ids[2]), (5, 1));
    let batch = Batch::new(&[ids], encoder.model().config()).unwrap();
    assert_eq!(batch.positions(), [2, 3, 1, 4, 5]);
}
