//! Every way in which files and options can be wrong, provoked from outside: an error that names
//! the culprit, never a panic.

mod common;

use common::{Damaged, error_of, json, tiny};
use mpnet::{Batch, Error, FileProblem, Isa, Pooling, SentenceEncoder, TensorProblem, TextProblem};
use proptest::prelude::*;
use serde_json::json;

macro_rules! assert_variant {
    ($error:expr, $pattern:pat) => {{
        let error = $error;
        assert!(matches!(error, $pattern), "{error:?}");
    }};
}

#[test]
fn missing_files() {
    let error = SentenceEncoder::from_pretrained("no/such/model").unwrap_err();
    assert!(error.to_string().contains("no/such/model"));
    assert_variant!(error, Error::Io { .. });
    let file = tiny().join("config.json");
    assert_variant!(SentenceEncoder::from_pretrained(file).unwrap_err(), Error::Io { .. });
    for name in ["config.json", "1_Pooling/config.json"] {
        assert_variant!(
            error_of(
                |m| {
                    m.remove(name);
                },
                &[name]
            ),
            Error::Io { .. }
        );
    }
    let no_tokenizer = |m: &Damaged| {
        m.remove("tokenizer.json").remove("vocab.txt");
    };
    assert_variant!(error_of(no_tokenizer, &["tokenizer.json"]), Error::Io { .. });
    let no_weights = |m: &Damaged| {
        m.remove("model.safetensors");
    };
    assert_variant!(
        error_of(no_weights, &["model.safetensors"]),
        Error::File { problem: FileProblem::NoWeights { .. }, .. }
    );
    let pickle = |m: &Damaged| {
        m.remove("model.safetensors").write("pytorch_model.bin", "x");
    };
    assert_variant!(
        error_of(pickle, &["pytorch_model.bin", "pickle"]),
        Error::File { problem: FileProblem::NoWeights { .. }, .. }
    );
    let bytes = SentenceEncoder::from_bytes([], "{", "{}").unwrap_err();
    assert_variant!(bytes, Error::File { problem: FileProblem::Json { .. }, .. });
}

#[test]
fn broken_json_anywhere() {
    for name in [
        "config.json",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
    ] {
        for contents in ["", "{", "[1, 2", "\"text\"", "{\"a\": 1}}", "\u{0}\u{1}"] {
            let model = Damaged::copy();
            let error = model.write(name, contents).load().unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            assert_variant!(error, Error::File { problem: FileProblem::Json { .. }, .. });
        }
        let deep = "[".repeat(100_000);
        assert_variant!(
            error_of(
                |m| {
                    m.write(name, deep);
                },
                &[name]
            ),
            Error::File { problem: FileProblem::Json { .. }, .. }
        );
    }
    for contents in ["", "{", "[]", "{\"version\": \"1.0\"}"] {
        let error = error_of(
            |m| {
                m.write("tokenizer.json", contents);
            },
            &["tokenizer.json"],
        );
        assert_variant!(error, Error::File { problem: FileProblem::Tokenizer { .. }, .. });
    }
}

#[test]
fn configurations_that_make_no_sense() {
    for (field, value) in [
        ("num_attention_heads", json!(0)),
        ("num_attention_heads", json!(5)),
        ("hidden_size", json!(0)),
        ("hidden_act", json!("quick_gelu")),
        ("layer_norm_eps", json!(-1.0)),
        ("max_position_embeddings", json!(2)),
        ("relative_attention_num_buckets", json!(64)),
    ] {
        let error = error_of(
            |m| {
                m.set("config.json", field, value);
            },
            &["config.json"],
        );
        assert_variant!(error, Error::Field { .. });
    }
    for (field, value) in [
        ("vocab_size", json!(-1)),
        ("hidden_size", json!("wide")),
        ("vocab_size", json!(1e300)),
        ("intermediate_size", json!(1.5)),
    ] {
        let error = error_of(
            |m| {
                m.set("config.json", field, value);
            },
            &["config.json"],
        );
        assert_variant!(error, Error::File { problem: FileProblem::Json { .. }, .. });
    }
}

#[test]
fn sizes_that_the_weights_do_not_have() {
    let huge = 100_000_000_000_u64;
    let sized = |field: &'static str, value: u64| {
        move |m: &Damaged| {
            m.set("config.json", field, value.into());
        }
    };
    for (field, value, tensor) in [
        ("vocab_size", huge, "embeddings.word_embeddings.weight"),
        ("vocab_size", 604, "embeddings.word_embeddings.weight"),
        ("max_position_embeddings", huge, "embeddings.position_embeddings.weight"),
        ("max_position_embeddings", u64::MAX, "embeddings.position_embeddings.weight"),
        ("num_attention_heads", 8, "encoder.relative_attention_bias.weight"),
        ("intermediate_size", huge, "encoder.layer.0.intermediate.dense.weight"),
    ] {
        let error = error_of(sized(field, value), &[tensor, "model.safetensors", "expected ["]);
        assert_variant!(error, Error::Tensor { problem: TensorProblem::Shape { .. }, .. });
    }
    for layers in [4, huge] {
        let error = error_of(sized("num_hidden_layers", layers), &["encoder.layer.3.", "missing"]);
        assert_variant!(error, Error::Tensor { problem: TensorProblem::Missing { .. }, .. });
    }
    // A layer that is there but not asked for is not an error, as in the reference.
    let model = Damaged::copy();
    model.set("config.json", "num_hidden_layers", 2.into());
    assert!(model.load().is_ok());
}

#[test]
fn other_architectures_are_named() {
    let xlm = |m: &Damaged| {
        m.set("config.json", "model_type", "xlm-roberta".into());
    };
    let error = error_of(xlm, &["xlm-roberta", "paraphrase-multilingual-mpnet-base-v2"]);
    assert_variant!(error, Error::File { problem: FileProblem::Architecture { .. }, .. });
    let bert = |m: &Damaged| {
        m.set("config.json", "model_type", "bert".into());
    };
    assert_variant!(
        error_of(bert, &["`bert`"]),
        Error::File { problem: FileProblem::Architecture { .. }, .. }
    );
    // Even if the configuration of that architecture lacks what MPNet's must have.
    let bare = |m: &Damaged| {
        m.write("config.json", r#"{"model_type": "xlm-roberta"}"#);
    };
    assert_variant!(
        error_of(bare, &["xlm-roberta"]),
        Error::File { problem: FileProblem::Architecture { .. }, .. }
    );
}

#[test]
fn damaged_weight_files() {
    let weights = std::fs::read(tiny().join("model.safetensors")).unwrap();
    let with_length = |length: u64| [&length.to_le_bytes(), &weights[8..]].concat();
    let mut cases = vec![
        Vec::new(),
        vec![1, 2, 3],
        with_length(1 << 63),
        with_length(u64::MAX),
        with_length(weights.len() as u64),
        with_length(0),
        [&2_u64.to_le_bytes(), b"{}".as_slice(), b"trailing"].concat(),
    ];
    for cut in [9, 100, weights.len() / 2, weights.len() - 1] {
        cases.push(weights[..cut].to_vec());
    }
    for header in [
        r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4000]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [9223372036854775807, 9], "data_offsets": [0, 4]}}"#,
        r#"{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}"#,
        r#"{"a": 1}"#,
    ] {
        let length = (header.len() as u64).to_le_bytes();
        cases.push([&length, header.as_bytes(), &[0; 4]].concat());
    }
    for (i, case) in cases.into_iter().enumerate() {
        let model = Damaged::copy();
        let error = model.write("model.safetensors", case).load().unwrap_err();
        assert!(error.to_string().contains("model.safetensors"), "case {i}: {error}");
        assert!(
            matches!(error, Error::File { problem: FileProblem::Safetensors { .. }, .. }),
            "case {i}: {error:?}"
        );
    }
    // A sound file without any of the tensors.
    let empty = [&2_u64.to_le_bytes(), b"{}".as_slice()].concat();
    let error = error_of(
        |m| {
            m.write("model.safetensors", empty);
        },
        &["word_embeddings"],
    );
    assert_variant!(error, Error::Tensor { problem: TensorProblem::Missing { .. }, .. });
}

#[test]
fn weights_that_are_not_floats() {
    let weights = std::fs::read(tiny().join("model.safetensors")).unwrap();
    let length = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&weights[8..8 + length]).unwrap();
    // Four bytes an element too.
    let header = header.replace(r#""dtype":"F32""#, r#""dtype":"I32""#);
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &weights[8 + length..]];
    let error = error_of(
        |m| {
            m.write("model.safetensors", file.concat());
        },
        &["embeddings.word_embeddings.weight", "I32"],
    );
    assert_variant!(error, Error::Tensor { problem: TensorProblem::Dtype { .. }, .. });
}

#[test]
fn shards_that_are_not_what_the_index_says() {
    let index = |file: &str, tensor: &str| {
        let weight_map = json!({ tensor: file });
        let index = json!({ "weight_map": weight_map }).to_string();
        let weights = std::fs::read(tiny().join("model.safetensors")).unwrap();
        move |m: &Damaged| {
            m.write("model-1.safetensors", weights)
                .remove("model.safetensors")
                .write("model.safetensors.index.json", index);
        }
    };
    let tensor = "embeddings.word_embeddings.weight";
    for file in ["../model-1.safetensors", "a/b", "/etc/passwd", "..", "", "a\\b", "c:x"] {
        let error = error_of(index(file, tensor), &["index.json", file]);
        assert_variant!(error, Error::File { problem: FileProblem::Shard { .. }, .. });
    }
    let error = error_of(index("model-2.safetensors", tensor), &["model-2.safetensors"]);
    assert_variant!(error, Error::File { problem: FileProblem::Shard { .. }, .. });
    // The index tells which files there are; which tensors, they tell themselves, as in the
    // reference.
    for listed in [tensor, "no.such"] {
        let model = Damaged::copy();
        index("model-1.safetensors", listed)(&model);
        assert!(model.load().is_ok());
    }
    let broken = |m: &Damaged| {
        m.remove("model.safetensors").write("model.safetensors.index.json", r#"{"weight_map": 3}"#);
    };
    assert_variant!(
        error_of(broken, &["index.json"]),
        Error::File { problem: FileProblem::Json { .. }, .. }
    );
}

#[test]
fn modules_that_are_not_supported() {
    let modules = |modules: serde_json::Value| {
        move |m: &Damaged| {
            m.write("modules.json", modules.to_string());
        }
    };
    let module =
        |kind: &str, path: &str| json!({"idx": 0, "name": "0", "path": path, "type": kind});
    let transformer = module("sentence_transformers.models.Transformer", "");
    let pooling = module("sentence_transformers.models.Pooling", "1_Pooling");
    for (list, names) in [
        (json!([]), &["Transformer"][..]),
        (json!([pooling]), &["Transformer"]),
        (json!([transformer]), &["Pooling"]),
        (
            json!([
                transformer,
                pooling,
                module("sentence_transformers.models.Router", "2_Router")
            ]),
            &["models.Router"],
        ),
        (
            json!([transformer, module("sentence_transformers.models.Pooling", "../1_Pooling")]),
            &["../1_Pooling"],
        ),
        (json!([transformer, module("sentence_transformers.models.Pooling", "/etc")]), &["/etc"]),
    ] {
        assert_variant!(
            error_of(modules(list), names),
            Error::File { problem: FileProblem::Module { .. }, .. }
        );
    }

    let dense = |change: fn(&mut serde_json::Value)| {
        let mut config: serde_json::Value = json("tiny_dense/2_Dense_tanh/config.json");
        change(&mut config);
        let list =
            json!([transformer, pooling, module("sentence_transformers.models.Dense", "2_Dense")]);
        move |m: &Damaged| {
            m.write("modules.json", list.to_string())
                .write("2_Dense/config.json", config.to_string())
                .write(
                    "2_Dense/model.safetensors",
                    common::read("tiny_dense/2_Dense_tanh/model.safetensors"),
                );
        }
    };
    let error = error_of(dense(|c| c["in_features"] = 64.into()), &["2_Dense", "in_features"]);
    assert_variant!(error, Error::Field { .. });
    let class = "torch.nn.modules.activation.Softplus";
    let error = error_of(
        dense(|c| c["activation_function"] = "torch.nn.modules.activation.Softplus".into()),
        &[class],
    );
    assert_variant!(error, Error::Field { .. });
    let error = error_of(
        dense(|c| c["module_input_name"] = "token_embeddings".into()),
        &["token_embeddings"],
    );
    assert_variant!(error, Error::Field { .. });
    let error = error_of(dense(|c| c["out_features"] = 8.into()), &["linear.weight", "2_Dense"]);
    assert_variant!(error, Error::Tensor { problem: TensorProblem::Shape { .. }, .. });

    let width = |m: &Damaged| {
        m.set("1_Pooling/config.json", "word_embedding_dimension", 768.into());
    };
    assert_variant!(error_of(width, &["word_embedding_dimension", "768"]), Error::Field { .. });
}

#[test]
fn settings_that_contradict_the_model() {
    let file = "config_sentence_transformers.json";
    for (field, value) in [
        ("default_prompt_name", json!("passage")),
        ("similarity_fn_name", json!("jaccard")),
        ("truncate_dim", json!(0)),
        ("truncate_dim", json!(64)),
        ("model_type", json!("CrossEncoder")),
    ] {
        let error = error_of(
            |m| {
                m.set(file, field, value);
            },
            &[file, field],
        );
        assert_variant!(error, Error::Field { .. });
    }
}

#[test]
fn a_tokenizer_of_another_model() {
    let mut tokenizer: serde_json::Value = json("tiny/tokenizer.json");
    tokenizer["model"]["vocab"]["beyond"] = 605.into();
    let error = error_of(
        |m| {
            m.write("tokenizer.json", tokenizer.to_string());
        },
        &["tokenizer.json", "beyond", "605"],
    );
    assert_variant!(error, Error::File { problem: FileProblem::Vocabulary { .. }, .. });
    // The ids put around a text are the post-processor's own, where that of the file counts.
    let as_saved = json!("PreTrainedTokenizerFast");
    let mut tokenizer: serde_json::Value = json("tiny/tokenizer.json");
    tokenizer["post_processor"]["sep"][1] = 70_000.into();
    let error = error_of(
        |m| {
            m.set("tokenizer_config.json", "tokenizer_class", as_saved.clone());
            m.write("tokenizer.json", tokenizer.to_string());
        },
        &["70000"],
    );
    assert_variant!(error, Error::File { problem: FileProblem::Vocabulary { .. }, .. });
    // Without a post-processor an empty text has no tokens.
    let mut tokenizer: serde_json::Value = json("tiny/tokenizer.json");
    tokenizer["post_processor"] = json!(null);
    let model = Damaged::copy();
    model.set("tokenizer_config.json", "tokenizer_class", as_saved);
    model.write("tokenizer.json", tokenizer.to_string());
    let error = model.load().unwrap().encode(&["the", ""]).unwrap_err();
    assert_variant!(error, Error::Text { text: 1, problem: TextProblem::NoTokens });
}

#[test]
fn options_out_of_range() {
    let option = |error: Error, name: &str| {
        assert!(matches!(&error, Error::Option { option, .. } if *option == name), "{error:?}");
    };
    let builder = || SentenceEncoder::builder(tiny());
    option(builder().max_seq_length(129).build().unwrap_err(), "max_seq_length");
    option(builder().max_seq_length(1).build().unwrap_err(), "max_seq_length");
    option(builder().max_seq_length(usize::MAX).build().unwrap_err(), "max_seq_length");
    option(builder().tokens_per_batch(0).build().unwrap_err(), "tokens_per_batch");
    option("sse9".parse::<Isa>().unwrap_err(), "isa");
    option("f8".parse::<mpnet::Precision>().unwrap_err(), "precision");
    option("jaccard".parse::<mpnet::Similarity>().unwrap_err(), "similarity");
    let model = Damaged::copy();
    let modules = json!([
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Dense_tanh", "type": "sentence_transformers.models.Dense"},
    ]);
    model.write("modules.json", modules.to_string());
    for file in ["config.json", "model.safetensors"] {
        model.write(
            &format!("2_Dense_tanh/{file}"),
            common::read(&format!("tiny_dense/2_Dense_tanh/{file}")),
        );
    }
    let pooling = SentenceEncoder::builder(model.path()).pooling(Pooling::default());
    option(pooling.build().unwrap_err(), "pooling");
}

/// A length in a file that makes no sense is that file's fault, not an option's.
#[test]
fn lengths_in_files() {
    let short = |m: &Damaged| {
        m.set("sentence_bert_config.json", "max_seq_length", 1.into());
    };
    assert_variant!(error_of(short, &["max_seq_length"]), Error::Field { .. });
}

#[test]
fn ids_and_lengths_beyond_the_model() {
    let encoder = SentenceEncoder::from_pretrained(tiny()).unwrap();
    let config = encoder.model().config();
    let error = Batch::new(&[vec![0, 605, 2]], config).unwrap_err();
    assert_variant!(
        error,
        Error::Text { text: 0, problem: TextProblem::TokenId { id: 605, vocab_size: 605 } }
    );
    let error = Batch::new(&[vec![0], vec![5; 129]], config).unwrap_err();
    assert_variant!(
        error,
        Error::Text { text: 1, problem: TextProblem::TooLong { tokens: 129, limit: 128 } }
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// A weight file with some of its header's bytes changed: loads or fails, but does not panic.
    #[test]
    fn any_damage_to_the_header_is_an_error_or_harmless(
        changes in prop::collection::vec((0_usize..6000, any::<u8>()), 1..4),
        cut in prop::option::of(0_usize..200_000),
    ) {
        let read = |name: &str| std::fs::read(tiny().join(name)).unwrap();
        let mut weights = read("model.safetensors");
        for (at, byte) in changes {
            weights[at] = byte;
        }
        weights.truncate(cut.unwrap_or(usize::MAX));
        let loaded = SentenceEncoder::from_bytes(weights, read("config.json"), read("tokenizer.json"));
        if let Ok(encoder) = loaded {
            let _ = encoder.encode(&["the man"]);
        }
    }
}
