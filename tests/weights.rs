//! Weight files and `config.json` written in other ways than ours: what transformers reads, with
//! the same result, and what is refused by name.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::error::Error as _;

use common::{Damaged, assert_near, error_of, json, tiny};
use mpnet::heads::MaskedLM;
use mpnet::model::Mpnet;
use mpnet::ndarray::{ArrayD, s};
use mpnet::{
    Batch, Checkpoint, Config, Error, FileProblem, ModelFiles, SentenceEncoder, TensorProblem,
    WeightDtype,
};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::{Value, json};

/// Embeddings and logits of this model in `f32` are this near to those in `f64`; see numerics.md.
const EMBEDDING: f64 = 2e-6;
const LOGIT: f64 = 4.4e-5;
const SHARD: &str = "model-00001-of-00001.safetensors";
const WORDS: &str = "embeddings.word_embeddings.weight";
const DECODER: &str = "lm_head.decoder.weight";

/// A tensor of `f32`: shape and values.
type Tensor = (Vec<usize>, Vec<f32>);
type Tensors = BTreeMap<String, Tensor>;

#[derive(Deserialize)]
struct Goldens {
    texts: Vec<String>,
    ids: Vec<u32>,
    encoder: Vec<Case>,
    masked_lm: Vec<Case>,
    save_model: SaveModel,
}

#[derive(Deserialize)]
struct Case {
    layout: String,
    files: BTreeMap<String, String>,
    embeddings: Option<Vec<Vec<f64>>>,
    logits: Option<Vec<Vec<f64>>>,
}

#[derive(Deserialize)]
struct SaveModel {
    names: Vec<String>,
    metadata: HashMap<String, String>,
}

fn goldens() -> Goldens {
    json("weights.json")
}

fn rows(rows: &[Vec<f64>]) -> ArrayD<f64> {
    ArrayD::from_shape_vec(vec![rows.len(), rows[0].len()], rows.concat()).unwrap()
}

fn tensors(name: &str) -> Tensors {
    let bytes = common::read(name);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |view: &TensorView| {
        let (values, _) = view.data().as_chunks();
        (view.shape().to_vec(), values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    };
    file.iter().map(|(name, view)| (name.to_owned(), tensor(&view))).collect()
}

fn encoder() -> Tensors {
    tensors("tiny/model.safetensors")
}

/// The masked language model as transformers saves it.
fn masked_lm() -> Tensors {
    let body = encoder().into_iter().filter(|(name, _)| !name.starts_with("pooler."));
    prefixed(body.collect()).into_iter().chain(tensors("heads/masked_lm.safetensors")).collect()
}

fn renamed(tensors: Tensors, name: impl Fn(&str) -> String) -> Tensors {
    tensors.into_iter().map(|(old, tensor)| (name(&old), tensor)).collect()
}

fn prefixed(tensors: Tensors) -> Tensors {
    renamed(tensors, |name| format!("mpnet.{name}"))
}

fn mapped(tensors: Tensors, f: impl Fn(f32) -> f32) -> Tensors {
    let tensor = |(shape, values): Tensor| (shape, values.into_iter().map(&f).collect());
    tensors.into_iter().map(|(name, values)| (name, tensor(values))).collect()
}

fn shifted(tensors: Tensors) -> Tensors {
    mapped(tensors, |x| x + 0.125)
}

fn gamma(name: &str) -> String {
    name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
}

/// The tensors of every weight file of a layout of make_weight_goldens.py.
fn layout(name: &str) -> Vec<(&'static str, Tensors)> {
    let single = |tensors| vec![("model.safetensors", tensors)];
    let both = |mut first: Tensors, second: Tensors| {
        first.extend(second);
        single(first)
    };
    let moved = |from: &str, to: &str| {
        let mut tensors = masked_lm();
        let tensor = tensors.remove(from).unwrap();
        tensors.insert(to.to_owned(), tensor);
        single(tensors)
    };
    let words = format!("mpnet.{WORDS}");
    let other = || {
        let (weight, bias) = (encoder()[WORDS].clone(), masked_lm()["lm_head.bias"].clone());
        let mut other = mapped(BTreeMap::from([(DECODER.to_owned(), weight)]), |x| 2.0 * x);
        let bias = BTreeMap::from([("lm_head.decoder.bias".to_owned(), bias)]);
        other.extend(mapped(bias, |x| x + 1.0));
        other
    };
    match name {
        "plain" => single(encoder()),
        "every_second_name_prefixed" => {
            let names = encoder().into_iter().enumerate();
            let prefix = |i| if i % 2 == 0 { "mpnet." } else { "" };
            single(
                names.map(|(i, (name, tensor))| (format!("{}{name}", prefix(i)), tensor)).collect(),
            )
        }
        "both_names_plain_shifted" => both(prefixed(encoder()), shifted(encoder())),
        "both_names_prefixed_shifted" => both(encoder(), prefixed(shifted(encoder()))),
        "gamma_and_weight" => {
            let norms = encoder().into_iter().filter(|(name, _)| name.contains("LayerNorm"));
            both(encoder(), renamed(shifted(norms.collect()), gamma))
        }
        "gamma_and_bias" => {
            single(renamed(encoder(), |name| name.replace("LayerNorm.weight", "LayerNorm.gamma")))
        }
        "shard" => vec![(SHARD, encoder())],
        "shard_in_folder" => vec![("part/model-00001-of-00001.safetensors", encoder())],
        "earlier_shard_shifted" => vec![(SHARD, encoder()), ("a.safetensors", shifted(encoder()))],
        "later_shard_shifted" => vec![(SHARD, encoder()), ("z.safetensors", shifted(encoder()))],
        "both_tied" => single(masked_lm()),
        "decoder_only" => moved(&words, DECODER),
        "decoder_bias_only" => moved("lm_head.bias", "lm_head.decoder.bias"),
        "other_bias" => {
            let mut other = other();
            other.remove(DECODER);
            both(masked_lm(), other)
        }
        "other_decoder" => both(masked_lm(), other()),
        "prefixed_head" => single(renamed(masked_lm(), |name| {
            format!("mpnet.{}", name.strip_prefix("mpnet.").unwrap_or(name))
        })),
        "plain_encoder" => single(renamed(masked_lm(), |name| {
            name.strip_prefix("mpnet.").unwrap_or(name).to_owned()
        })),
        other => panic!("no layout {other}"),
    }
}

fn write(
    model: &Damaged,
    file: &str,
    tensors: &Tensors,
    metadata: Option<HashMap<String, String>>,
) {
    let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, (shape, values))| (name, shape.clone(), bytes(values)))
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    model.write(file, safetensors::serialize(views, metadata).unwrap());
}

fn directory(case: &Case) -> Damaged {
    let model = Damaged::copy();
    model.remove("model.safetensors");
    for (file, tensors) in layout(&case.layout) {
        write(&model, file, &tensors, None);
    }
    for (file, text) in &case.files {
        model.write(file, text);
    }
    model
}

/// The masked language model in a directory with what safetensors' `save_model` writes.
fn saved_by_safetensors() -> Damaged {
    let SaveModel { names, metadata } = goldens().save_model;
    let all = masked_lm();
    let stored = names.into_iter().map(|name| {
        let words = all[&format!("mpnet.{WORDS}")].clone();
        let tensor = if name == DECODER { words } else { all[&name].clone() };
        (name, tensor)
    });
    let model = Damaged::copy();
    write(&model, "model.safetensors", &stored.collect(), Some(metadata));
    model
}

#[test]
fn names_shards_and_fields_as_transformers_reads_them() {
    let goldens = goldens();
    for (i, case) in goldens.encoder.iter().enumerate() {
        let what = format!("case {i}, {} {:?}", case.layout, case.files.keys());
        let model = directory(case).load().unwrap_or_else(|error| panic!("{what}: {error}"));
        let got = model.encode(&goldens.texts).unwrap();
        let want = rows(case.embeddings.as_ref().unwrap());
        assert_near(&what, got.view().into_dyn(), want.view(), EMBEDDING);
    }
}

fn assert_logits(what: &str, model: &Damaged, want: &[Vec<f64>]) {
    let head = MaskedLM::from_pretrained(model.path());
    let head = head.unwrap_or_else(|error| panic!("{what}: {error}"));
    let batch = Batch::new(&[goldens().ids], head.model().config()).unwrap();
    let got = head.forward(&batch).unwrap();
    let want = rows(want);
    assert_near(what, got.slice(s![.., ..;101]).into_dyn(), want.view(), LOGIT);
}

#[test]
fn tied_tensors_under_either_name() {
    for case in goldens().masked_lm {
        let what = format!("{} {:?}", case.layout, case.files.keys());
        assert_logits(&what, &directory(&case), case.logits.as_ref().unwrap());
    }
    let want = &goldens().masked_lm[0];
    assert_eq!(want.layout, "both_tied");
    assert_logits("save_model", &saved_by_safetensors(), want.logits.as_ref().unwrap());
}

/// The encoder of a masked language model, whose word embeddings are under the name of the decoder.
/// transformers' own encoder finds none there and makes some up; they are those of its masked
/// language model.
#[test]
fn an_encoder_whose_words_are_the_decoder() {
    let goldens = goldens();
    let want = rows(goldens.encoder[0].embeddings.as_ref().unwrap());
    let decoder_only = goldens.masked_lm.into_iter().find(|case| case.layout == "decoder_only");
    let decoder_only = decoder_only.unwrap();
    for model in [saved_by_safetensors(), directory(&decoder_only)] {
        let encoder = model.load().unwrap();
        let got = encoder.encode(&goldens.texts).unwrap();
        assert_near("encoder", got.view().into_dyn(), want.view(), EMBEDDING);

        let config = std::fs::read(model.path().join("config.json")).unwrap();
        let config = Config::from_json(config, "config.json").unwrap();
        let checkpoint = Checkpoint::open(model.path()).unwrap();
        let plain = Mpnet::load(&checkpoint.encoder().unwrap(), &config).unwrap();
        let batch = Batch::new(&[&goldens.ids], &config).unwrap();
        assert_eq!(plain.forward(&batch), encoder.model().forward(&batch));

        let saved = tempfile::tempdir().unwrap();
        encoder.save_pretrained(saved.path().join("model"), WeightDtype::F32).unwrap();
        let again = SentenceEncoder::from_pretrained(saved.path().join("model")).unwrap();
        assert_eq!(again.encode(&goldens.texts).unwrap(), got);
        let names = Checkpoint::open(saved.path().join("model")).unwrap();
        assert!(names.names().contains(&WORDS) && !names.names().contains(&DECODER));
    }
    // If they are not tied, they are not there.
    let untied = directory(&decoder_only);
    untied.set("config.json", "tie_word_embeddings", false.into());
    for error in [untied.load().unwrap_err(), MaskedLM::from_pretrained(untied.path()).unwrap_err()]
    {
        assert!(
            matches!(error, Error::Tensor { problem: TensorProblem::Missing { .. }, .. }),
            "{error}"
        );
    }
}

/// A checkpoint that has been saved again has each tensor once, under its present name.
#[test]
fn saving_keeps_the_tensors_that_were_read() {
    let goldens = goldens();
    for name in ["every_second_name_prefixed", "both_names_plain_shifted", "gamma_and_weight"] {
        let case = goldens.encoder.iter().find(|case| case.layout == name).unwrap();
        let model = directory(case);
        let saved = model.path().join("saved");
        model.load().unwrap().save_pretrained(&saved, WeightDtype::F32).unwrap();
        let names = Checkpoint::open(&saved).unwrap().names().len();
        assert_eq!(names, encoder().len());
        let got = SentenceEncoder::from_pretrained(&saved).unwrap().encode(&goldens.texts).unwrap();
        let want = rows(case.embeddings.as_ref().unwrap());
        assert_near(name, got.view().into_dyn(), want.view(), EMBEDDING);
    }
}

#[test]
fn shards_outside_the_directory_or_not_there() {
    let index = |file: &'static str| {
        move |model: &Damaged| {
            let index = json!({"metadata": {}, "weight_map": {WORDS: SHARD, "other": file}});
            write(model, SHARD, &encoder(), None);
            model
                .remove("model.safetensors")
                .write("model.safetensors.index.json", index.to_string());
        }
    };
    for file in [
        "../x.safetensors",
        "a/../../x",
        "/x.safetensors",
        "c:x",
        "a\\x",
        "",
        ".",
        "gone.safetensors",
    ] {
        let error = error_of(index(file), &["model.safetensors.index.json", &format!("`{file}`")]);
        assert!(
            matches!(error, Error::File { problem: FileProblem::Shard { .. }, .. }),
            "{error:?}"
        );
    }
    // A tensor that is needed and nowhere is named, whatever the index says of it.
    let lacking = |model: &Damaged| {
        let mut tensors = encoder();
        tensors.remove("encoder.layer.1.output.dense.bias");
        write(model, SHARD, &tensors, None);
        let index = json!({"weight_map": {"encoder.layer.1.output.dense.bias": SHARD}});
        model.remove("model.safetensors").write("model.safetensors.index.json", index.to_string());
    };
    let error = error_of(lacking, &["encoder.layer.1.output.dense.bias", "index.json"]);
    assert!(
        matches!(error, Error::Tensor { problem: TensorProblem::Missing { .. }, .. }),
        "{error:?}"
    );
    // The single file wins, as in the reference.
    let model = Damaged::copy();
    model.write("model.safetensors.index.json", r#"{"weight_map": {"a": "gone"}}"#);
    assert!(model.load().is_ok());
}

#[test]
fn pointers_of_git_lfs() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:78c0\nsize 437971872\n";
    for file in [
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "tokenizer_config.json",
    ] {
        // Only asked for without a length of its own.
        let change = |model: &Damaged| {
            model
                .set("sentence_bert_config.json", "max_seq_length", Value::Null)
                .write(file, pointer);
        };
        let error = error_of(change, &[file, "git-lfs pointer", "437971872 bytes", "git lfs pull"]);
        assert!(
            matches!(
                error,
                Error::File { problem: FileProblem::GitLfsPointer { size: 437_971_872, .. }, .. }
            ),
            "{error:?}"
        );
    }
    let vocabulary = |model: &Damaged| {
        model.remove("tokenizer.json").write("vocab.txt", pointer);
    };
    assert!(matches!(
        error_of(vocabulary, &["vocab.txt"]),
        Error::File { problem: FileProblem::GitLfsPointer { .. }, .. }
    ));
    let sharded = |model: &Damaged| {
        let index = json!({"weight_map": {WORDS: SHARD}}).to_string();
        model
            .remove("model.safetensors")
            .write("model.safetensors.index.json", index)
            .write(SHARD, pointer);
    };
    assert!(matches!(
        error_of(sharded, &[SHARD]),
        Error::File { problem: FileProblem::GitLfsPointer { .. }, .. }
    ));
    let files = ["config.json", "model.safetensors"].map(|name| (name, pointer.as_bytes()));
    let error = SentenceEncoder::from_pretrained(ModelFiles::in_memory(files)).unwrap_err();
    assert!(
        matches!(error, Error::File { problem: FileProblem::GitLfsPointer { .. }, .. }),
        "{error:?}"
    );
    let model = Damaged::copy();
    model.write("model.safetensors", pointer);
    let error = MaskedLM::from_pretrained(model.path()).unwrap_err();
    assert!(
        matches!(error, Error::File { problem: FileProblem::GitLfsPointer { .. }, .. }),
        "{error:?}"
    );
}

#[test]
fn adapters_are_not_passed_over() {
    let beside = |model: &Damaged| {
        model.write("adapter_config.json", r#"{"peft_type": "LORA"}"#);
    };
    let alone = |model: &Damaged| {
        let weights = std::fs::read(model.path().join("model.safetensors")).unwrap();
        model.write("adapter_config.json", "{}").write("adapter_model.safetensors", weights);
        model.remove("config.json").remove("model.safetensors");
    };
    for error in [
        error_of(beside, &["adapter_config.json", "merge_and_unload", "save_pretrained"]),
        error_of(alone, &["adapter_config.json", "merge_and_unload"]),
    ] {
        assert!(matches!(error, Error::File { problem: FileProblem::Adapter, .. }), "{error:?}");
    }
    for change in [&beside as &dyn Fn(&Damaged), &alone] {
        let model = Damaged::copy();
        change(&model);
        let error = MaskedLM::from_pretrained(model.path()).unwrap_err();
        assert!(matches!(error, Error::File { problem: FileProblem::Adapter, .. }), "{error:?}");
        let error = Checkpoint::open(model.path()).unwrap_err();
        assert!(matches!(error, Error::File { problem: FileProblem::Adapter, .. }), "{error:?}");
    }
}

#[test]
fn an_adapter_in_the_folder_of_the_transformer() {
    let change = |model: &Damaged| {
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            let contents = std::fs::read(model.path().join(file)).unwrap();
            model.write(&format!("0_Transformer/{file}"), contents).remove(file);
        }
        let mut modules: Value = json("tiny/modules.json");
        modules[0]["path"] = "0_Transformer".into();
        model.write("modules.json", modules.to_string());
        model.write("0_Transformer/adapter_config.json", "{}");
    };
    assert!(matches!(
        error_of(change, &["0_Transformer", "adapter_config"]),
        Error::File { problem: FileProblem::Adapter, .. }
    ));
}

#[test]
fn weights_of_another_kind_are_named() {
    for (file, names) in [
        ("pytorch_model.bin", ["pytorch_model.bin", "pickle"]),
        ("pytorch_model.bin.index.json", ["pytorch_model.bin.index.json", "pickle"]),
        ("tf_model.h5", ["tf_model.h5", "TensorFlow"]),
        ("flax_model.msgpack", ["flax_model.msgpack", "Flax"]),
        ("onnx/model.onnx", ["onnx/model.onnx", "ONNX"]),
        ("openvino/openvino_model.xml", ["openvino_model.xml", "OpenVINO"]),
        ("mpnet-q8_0.gguf", ["mpnet-q8_0.gguf", "llama.cpp"]),
        ("model.fp16.safetensors", ["model.fp16.safetensors", "variant"]),
    ] {
        let change = |model: &Damaged| {
            model.remove("model.safetensors").write(file, "x");
        };
        let error = error_of(change, &[names[0], names[1], "model.safetensors"]);
        assert!(
            matches!(error, Error::File { problem: FileProblem::NoWeights { .. }, .. }),
            "{error:?}"
        );
    }
    for (contents, name) in [
        (b"PK\x03\x04 and so on".as_slice(), "pickle"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"GGUF\x03\0\0\0\0\0\0\0", "GGUF"),
        (b"\x89HDF\r\n\x1a\n\0\0", "HDF5"),
    ] {
        let change = |model: &Damaged| {
            model.write("model.safetensors", contents);
        };
        let error = error_of(change, &["model.safetensors", name]);
        assert!(
            matches!(error, Error::File { problem: FileProblem::NoWeights { .. }, .. }),
            "{error:?}"
        );
    }
    let distributed = |model: &Damaged| {
        model.write("shard-00001-model-00001-of-00001.safetensors", "x");
    };
    assert!(matches!(
        error_of(distributed, &["shard-00001"]),
        Error::File { problem: FileProblem::NoWeights { .. }, .. }
    ));
}

/// A type that is no type of weights.
#[test]
fn quantised_weights_are_refused() {
    for dtype in ["F8_E4M3", "I8", "U8"] {
        let change = |model: &Damaged| {
            let header =
                json!({WORDS: {"dtype": dtype, "shape": [605, 32], "data_offsets": [0, 605 * 32]}});
            let header = header.to_string();
            let length = (header.len() as u64).to_le_bytes();
            model.write("model.safetensors", [&length, header.as_bytes(), &[0; 605 * 32]].concat());
        };
        let error = error_of(change, &[WORDS, dtype]);
        assert!(
            matches!(error, Error::Tensor { problem: TensorProblem::Dtype { .. }, .. }),
            "{error:?}"
        );
    }
}

#[test]
fn a_directory_that_is_no_model() {
    let change = |model: &Damaged| {
        model.remove("config.json").remove("modules.json").write("notes.txt", "");
    };
    let names = ["config.json", "not there", "notes.txt", "save_pretrained", "tokenizer.json"];
    let error = error_of(change, &names);
    assert!(
        matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    );
    let error = SentenceEncoder::from_pretrained(ModelFiles::in_memory::<&str>([])).unwrap_err();
    assert!(error.source().unwrap().to_string().contains("no files"), "{error:?}");
}

/// What Python refuses as well, or follows and this crate does not.
#[test]
fn fields_that_are_refused() {
    let with = |field: &'static str, value: Value| {
        move |model: &Damaged| {
            model.set("config.json", field, value);
        }
    };
    for (field, value) in [
        ("quantization_config", json!({"quant_method": "bitsandbytes", "load_in_8bit": true})),
        ("transformers_weights", json!("other.safetensors")),
        ("configuration_files", json!(["config.4.0.0.json"])),
        ("per_layer_config", json!({"0": {"hidden_act": "relu"}})),
        ("fusion_config", json!({"a": true})),
        ("attribute_map", json!({"hidden_act": "other"})),
        ("hidden_act", json!("GELU")),
        ("hidden_act", json!("gelu_10")),
        ("layer_norm_eps", json!(0)),
    ] {
        let error = error_of(with(field, value), &["config.json", field]);
        assert!(matches!(error, Error::Field { .. }), "{error:?}");
    }
    for (field, value) in [
        ("hidden_size", json!(32.0)),
        ("num_hidden_layers", json!(true)),
        ("layer_norm_eps", json!("1e-5")),
        ("model_type", json!(7)),
    ] {
        let error = error_of(with(field, value), &["config.json"]);
        assert!(
            matches!(error, Error::File { problem: FileProblem::Json { .. }, .. }),
            "{error:?}"
        );
    }
    let text = std::fs::read_to_string(tiny().join("config.json")).unwrap();
    for (from, to) in
        [("1e-05", "NaN"), ("\"hidden_size\": 32", "\"hidden_size\": null"), ("{", "\u{feff}{")]
    {
        let change = |model: &Damaged| {
            model.write("config.json", text.replacen(from, to, 1));
        };
        assert!(matches!(
            error_of(change, &["config.json"]),
            Error::File { problem: FileProblem::Json { .. }, .. }
        ));
    }
    // A field that is missing has the default of the base model, which these weights are not.
    for (field, tensor) in [("intermediate_size", "intermediate.dense"), ("vocab_size", "30527")] {
        let error = error_of(with(field, Value::Null), &[tensor]);
        assert!(
            matches!(error, Error::Tensor { problem: TensorProblem::Shape { .. }, .. }),
            "{error:?}"
        );
    }
    let error = error_of(with("num_hidden_layers", Value::Null), &["encoder.layer.3."]);
    assert!(
        matches!(error, Error::Tensor { problem: TensorProblem::Missing { .. }, .. }),
        "{error:?}"
    );
}
