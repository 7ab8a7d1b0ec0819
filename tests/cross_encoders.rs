//! Cross-encoders as sentence-transformers saves them: prompts, activations, lengths; and models
//! that are given to the wrong class.

mod common;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex};

use common::{Damaged, assert_near, json, read};
use mpnet::heads::{MaskedLM, SequenceClassification};
use mpnet::ndarray::aview1;
use mpnet::{Error, FileProblem, SentenceEncoder, TextProblem};
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::{Value, json};

/// Half of what logits may differ by, and the rounding of `predict`'s `float32`.
const SCORE: f64 = 2.2e-5;
const LOGIT: f64 = 4.4e-5;
const SETTINGS: &str = "config_sentence_transformers.json";
const TRANSFORMER: &str = "sentence_transformers.base.modules.transformer.Transformer";

#[derive(Deserialize)]
struct Goldens {
    pairs: Vec<(String, String)>,
    cross_encoder: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    files: BTreeMap<String, String>,
    folder: Option<String>,
    prompt: Option<String>,
    prompt_name: Option<String>,
    prompts: BTreeMap<String, String>,
    scores: Vec<f64>,
    limit: usize,
}

fn goldens() -> Goldens {
    json("weights.json")
}

/// The tiny model with the head `reranker`, as transformers saves it.
fn directory() -> Damaged {
    let model = Damaged::copy();
    for file in ["modules.json", SETTINGS, "sentence_bert_config.json", "vocab.txt"] {
        model.remove(file);
    }
    let (body, head) = (read("tiny/model.safetensors"), read("heads/reranker.safetensors"));
    let (body, head) =
        (SafeTensors::deserialize(&body).unwrap(), SafeTensors::deserialize(&head).unwrap());
    let body = body.iter().filter(|(name, _)| !name.starts_with("pooler."));
    let tensors = body.map(|(name, view)| (format!("mpnet.{name}"), view));
    let tensors = tensors.chain(head.iter().map(|(name, view)| (name.to_owned(), view)));
    model.write("model.safetensors", safetensors::serialize(tensors, None).unwrap());
    model.set("config.json", "id2label", json!({"0": "LABEL_0"}));
    model.set("config.json", "architectures", json!(["MPNetForSequenceClassification"]));
    model
}

/// The same as sentence-transformers 6 saves it.
fn saved(settings: Value) -> Damaged {
    let model = directory();
    let modules = json!([{"idx": 0, "name": "0", "path": "", "type": TRANSFORMER}]);
    model.write("modules.json", modules.to_string()).write(SETTINGS, settings.to_string());
    model
}

fn load(model: &Damaged) -> mpnet::Result<SequenceClassification> {
    SequenceClassification::from_pretrained(model.path())
}

#[test]
fn scores_as_the_reference_predicts_them() {
    let Goldens { pairs, cross_encoder } = goldens();
    for (i, case) in cross_encoder.iter().enumerate() {
        let model = directory();
        for (file, text) in &case.files {
            model.write(file, text);
        }
        if let Some(folder) = &case.folder {
            for file in [
                "config.json",
                "model.safetensors",
                "tokenizer.json",
                "tokenizer_config.json",
                "sentence_bert_config.json",
            ] {
                let contents = std::fs::read(model.path().join(file)).unwrap();
                model.write(&format!("{folder}/{file}"), contents).remove(file);
            }
        }
        let mut head = load(&model).unwrap_or_else(|error| panic!("case {i}: {error}"));
        assert_eq!(head.prompts(), &case.prompts, "case {i}");
        if let Some(prompt) = &case.prompt {
            head = head.prompt(prompt);
        }
        if let Some(name) = &case.prompt_name {
            head = head.prompt_name(name).unwrap();
        }
        let got: Vec<f32> =
            head.classify_pairs(&pairs).unwrap().iter().map(|label| label.score).collect();
        let is_logit = case.scores.iter().any(|score| *score < 0.0);
        let tolerance = if is_logit { LOGIT } else { SCORE };
        let want = aview1(&case.scores).into_dyn();
        assert_near(&format!("case {i}"), aview1(&got).into_dyn(), want, tolerance);

        // `predict` cuts a longer pair; here it is an error.
        let head = head.prompt("");
        let words = |n: usize| vec!["the"; n].join(" ");
        // <s> a </s> </s> b </s>
        let longest = [("the".to_owned(), words(case.limit - 5))];
        assert_eq!(head.classify_pairs(&longest).unwrap().len(), 1, "case {i}");
        let too_long = [longest[0].clone(), ("the".to_owned(), words(case.limit - 4))];
        let error = head.classify_pairs(&too_long).unwrap_err();
        assert!(
            matches!(error, Error::Text { text: 1, problem: TextProblem::TooLong { tokens, limit } } if limit == case.limit && tokens == limit + 1),
            "case {i}: {error}"
        );
    }
}

/// transformers' pipeline, which knows nothing of prompts.
#[test]
fn single_texts_have_no_prompt() {
    let prompts = json!({"model_type": "CrossEncoder", "prompts": {"q": "the university: "}, "default_prompt_name": "q"});
    let (plain, prompted) = (load(&directory()).unwrap(), load(&saved(prompts)).unwrap());
    let texts = ["the man is here"];
    assert_eq!(plain.classify(&texts).unwrap(), prompted.classify(&texts).unwrap());
    let pairs = [("the man is here", "who is there")];
    assert_ne!(plain.classify_pairs(&pairs).unwrap(), prompted.classify_pairs(&pairs).unwrap());
    // A prompt counts as a part of the pair.
    let long = vec!["the"; 122].join(" ");
    assert!(plain.classify_pairs(&[("the", &long)]).is_ok());
    let error = prompted.classify_pairs(&[("the", &long)]).unwrap_err();
    assert!(
        matches!(error, Error::Text { text: 0, problem: TextProblem::TooLong { limit: 128, .. } }),
        "{error}"
    );
}

#[test]
fn settings_that_are_refused_by_name() {
    let kind = || json!({"model_type": "CrossEncoder"});
    let mut settings = kind();
    settings["default_prompt_name"] = "q".into();
    let error = load(&saved(settings)).unwrap_err();
    assert!(
        matches!(&error, Error::Field { field, .. } if field == "default_prompt_name"),
        "{error}"
    );
    let error = load(&saved(kind())).unwrap().prompt_name("q").unwrap_err();
    assert!(matches!(&error, Error::Option { option: "prompt_name", .. }), "{error}");

    for (field, value) in [
        ("config_args", json!({"num_hidden_layers": 2})),
        ("processing_kwargs", json!({"text": {"add_special_tokens": false}})),
        ("transformer_task", json!("text-generation")),
        ("unheard_of", json!(1)),
    ] {
        let model = saved(kind());
        model.write("sentence_bert_config.json", json!({field: value}).to_string());
        let error = load(&model).unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
        assert!(error.to_string().contains("sentence_bert_config.json"), "{error}");
    }
    for modules in [
        json!([]),
        json!([{"path": "", "type": TRANSFORMER}, {"path": "1_LogitScore", "type": "sentence_transformers.cross_encoder.modules.LogitScore"}]),
        json!([{"path": "", "type": "custom_st.Transformer"}]),
        json!([{"path": "../other", "type": TRANSFORMER}]),
    ] {
        let model = saved(kind());
        model.write("modules.json", modules.to_string());
        let error = load(&model).unwrap_err();
        assert!(
            matches!(error, Error::File { problem: FileProblem::Module { .. }, .. }),
            "{modules}: {error}"
        );
    }
}

/// Each model in the hands of a class that is not its own.
#[test]
fn the_wrong_class_for_a_model() {
    for kind in ["CrossEncoder", "SparseEncoder"] {
        // Whatever its modules are: they are looked at afterwards.
        let model = saved(json!({"model_type": kind}));
        let error = SentenceEncoder::from_pretrained(model.path()).unwrap_err();
        assert!(matches!(&error, Error::Field { field, .. } if field == "model_type"), "{error}");
        assert!(error.to_string().contains(kind), "{error}");
        assert_eq!(error.to_string().contains("SequenceClassification"), kind == "CrossEncoder");
    }
    let model = Damaged::copy();
    model.write(SETTINGS, r#"{"model_type": null}"#);
    let error = SentenceEncoder::from_pretrained(model.path()).unwrap_err();
    assert!(matches!(&error, Error::Field { field, .. } if field == "model_type"), "{error}");
    let error = load(&Damaged::copy()).unwrap_err();
    assert!(matches!(&error, Error::File { problem: FileProblem::Head { .. }, .. }), "{error}");
    assert!(error.to_string().contains("SentenceEncoder"), "{error}");
    let error = MaskedLM::from_pretrained(directory().path()).unwrap_err();
    assert!(error.to_string().contains("sequence classification"), "{error}");
    let model = Damaged::copy();
    model.remove("config.json");
    let error = load(&model).unwrap_err();
    assert!(error.source().unwrap().to_string().contains("modules.json"), "{error:?}");
}

/// What is warned of while `f` runs.
fn warnings(f: impl FnOnce()) -> Vec<String> {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<String>>>);

    impl tracing::field::Visit for Log {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            self.0.lock().unwrap().push(format!("{field} = {value:?}"));
        }
    }

    impl tracing::Subscriber for Log {
        fn enabled(&self, metadata: &tracing::Metadata) -> bool {
            *metadata.level() == tracing::Level::WARN
        }
        fn new_span(&self, _: &tracing::span::Attributes) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event) {
            event.record(&mut self.clone());
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), f);
    let lines = log.0.lock().unwrap();
    lines.clone()
}

/// An older cross-encoder, or any model of transformers: Python takes the mean of its hidden
/// states, and says so.
#[test]
fn a_directory_without_modules_is_pooled_with_a_warning() {
    let load = |model: &Damaged| {
        let path = model.path().to_owned();
        warnings(|| drop(SentenceEncoder::from_pretrained(path).unwrap())).join("\n")
    };
    let text = load(&directory());
    for name in ["modules.json", "mean", "MPNetForSequenceClassification", "another task"] {
        assert!(text.contains(name), "{name}: {text}");
    }
    let model = Damaged::copy();
    model.remove("modules.json");
    let text = load(&model);
    assert!(text.contains("modules.json") && text.contains("mean"), "{text}");
    assert!(!text.contains("another task"), "{text}");
    assert_eq!(load(&Damaged::copy()), "");
    // Weights in half precision are computed with in f32, where Python would not.
    let model = Damaged::copy();
    model.set("config.json", "torch_dtype", "float16".into());
    assert!(load(&model).contains("float16"));
}
