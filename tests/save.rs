//! `save_pretrained`: what is saved loads as the same model, here and in Python
//! (`save_pretrained.py`).

mod common;

use std::fs;
use std::path::Path;

use common::{Damaged, bits, data, read, texts, tiny};
use mpnet::{
    EncodeOptions, Error, FileProblem, ModelFiles, Pooling, PoolingMode, SentenceEncoder,
    Similarity, WeightDtype,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

fn strings() -> Vec<String> {
    texts().into_iter().map(|text| text.text).collect()
}

fn same_embeddings(a: &SentenceEncoder, b: &SentenceEncoder) {
    let texts = strings();
    let (a, b) = (a.encode(&texts).unwrap(), b.encode(&texts).unwrap());
    for (a, b) in a.rows().into_iter().zip(b.rows()) {
        assert_eq!(bits(a), bits(b));
    }
}

fn json_of(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// `encoder`, saved in a directory of its own.
fn saved(encoder: &SentenceEncoder, dtype: WeightDtype) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    encoder.save_pretrained(directory.path(), dtype).unwrap();
    directory
}

#[test]
fn saved_and_loaded_is_the_same_model() {
    let encoder = SentenceEncoder::from_pretrained(tiny()).unwrap();
    let directory = saved(&encoder, WeightDtype::F32);
    let again = SentenceEncoder::from_pretrained(directory.path()).unwrap();
    same_embeddings(&encoder, &again);
    assert_eq!(again.max_seq_length(), 48);
    assert_eq!(again.prompts(), encoder.prompts());
    // And a copy of a copy is the copy, in every file.
    let copy = saved(&again, WeightDtype::F32);
    for name in [
        "modules.json",
        "config.json",
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
        "model.safetensors",
        "1_Pooling/config.json",
        "2_Normalize/config.json",
    ] {
        let file = |directory: &Path| fs::read(directory.join(name)).unwrap();
        assert!(file(directory.path()) == file(copy.path()), "{name}");
    }
    let modules = json_of(directory.path().join("modules.json"));
    assert_eq!(modules, json_of(data("tiny/modules.json")), "in the classic form");
    assert_eq!(
        json_of(directory.path().join("1_Pooling/config.json"))["pooling_mode_mean_tokens"],
        true
    );
}

/// The reference rounded tiny's weights to both types: the same bytes must come out.
#[test]
fn rounded_as_torch_rounds() {
    let encoder = SentenceEncoder::from_pretrained(tiny()).unwrap();
    for (dtype, stored, name, torch) in [
        (WeightDtype::F16, Dtype::F16, "f16", "float16"),
        (WeightDtype::Bf16, Dtype::BF16, "bf16", "bfloat16"),
    ] {
        let directory = saved(&encoder, dtype);
        let got = fs::read(directory.path().join("model.safetensors")).unwrap();
        let got = SafeTensors::deserialize(&got).unwrap();
        let want = read(&format!("variants/{name}.safetensors"));
        let want = SafeTensors::deserialize(&want).unwrap();
        assert_eq!(got.len(), want.len());
        for (tensor, want) in want.tensors() {
            let got = got.tensor(&tensor).unwrap();
            assert_eq!((got.dtype(), got.shape()), (stored, want.shape()), "{tensor}");
            assert!(got.data() == want.data(), "{tensor}");
        }
        assert_eq!(json_of(directory.path().join("config.json"))["torch_dtype"], torch);
        // Widening is exact: f32 of f16 holds what f16 held.
        let half = SentenceEncoder::from_pretrained(directory.path()).unwrap();
        let wide = saved(&half, WeightDtype::F32);
        same_embeddings(&half, &SentenceEncoder::from_pretrained(wide.path()).unwrap());
        assert_eq!(dtype, torch.parse().unwrap());
        assert_eq!(dtype, name.parse().unwrap());
    }
    assert!(matches!("int8".parse::<WeightDtype>(), Err(Error::Option { option: "dtype", .. })));
}

#[test]
fn what_was_set_on_the_builder_is_saved() {
    let pooling = Pooling::new([PoolingMode::LastToken, PoolingMode::Cls]).include_prompt(false);
    let encoder = SentenceEncoder::builder(tiny())
        .max_seq_length(20)
        .prompt("query", "ask: ")
        .prompt("sts", "same: ")
        .default_prompt_name("sts")
        .similarity_fn(Similarity::Dot)
        .truncate_dim(40)
        .pooling(pooling)
        .normalize(false)
        .build()
        .unwrap();
    let directory = saved(&encoder, WeightDtype::F32);
    let again = SentenceEncoder::from_pretrained(directory.path()).unwrap();
    same_embeddings(&encoder, &again);
    assert_eq!((again.max_seq_length(), again.dim()), (20, 40));
    assert_eq!(again.prompts()["query"], "ask: ");
    assert_eq!(again.prompts()["document"], "passage: ", "the model's own stay");
    assert_eq!(again.similarity_fn(), Similarity::Dot);
    let texts = ["the man"];
    assert_eq!(
        again.encode(&texts).unwrap(),
        encoder.encode_with(&texts, &EncodeOptions::default().prompt("same: ")).unwrap().embeddings
    );
    // The length is in both files, as old and new versions read it.
    let file = |name: &str| json_of(directory.path().join(name));
    assert_eq!(file("tokenizer_config.json")["model_max_length"], 20);
    assert_eq!(
        file("sentence_bert_config.json"),
        json!({"max_seq_length": 20, "do_lower_case": false})
    );
    // Booleans would say cls before lasttoken.
    assert_eq!(file("1_Pooling/config.json")["pooling_mode"], json!(["lasttoken", "cls"]));
    assert!(!directory.path().join("2_Normalize").exists());
    // What other programs have put into the files stays.
    assert_eq!(file("config_sentence_transformers.json")["__version__"]["pytorch"], "1.8.1");
}

#[test]
fn options_of_the_builder_that_contradict_the_model() {
    let builder = || SentenceEncoder::builder(tiny());
    for (builder, name) in [
        (builder().default_prompt_name("sts"), "default_prompt_name"),
        (builder().truncate_dim(33), "truncate_dim"),
        (builder().truncate_dim(0), "truncate_dim"),
    ] {
        let error = builder.build().unwrap_err();
        assert!(matches!(&error, Error::Option { option, .. } if *option == name), "{error}");
    }
}

/// A model in a folder of its own, with a prefix, a head, a buffer, old names, Dense, LayerNorm and
/// Normalize.
#[test]
fn unusual_models_become_usual_ones() {
    let model = Damaged::copy();
    let weights = read("tiny/model.safetensors");
    let tensors = SafeTensors::deserialize(&weights).unwrap();
    let mut views: Vec<(String, TensorView)> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let name = name.replace("LayerNorm.weight", "LayerNorm.gamma");
            (format!("mpnet.{}", name.replace("LayerNorm.bias", "LayerNorm.beta")), view)
        })
        .collect();
    let zeros = vec![0; 130 * 8];
    let ids = TensorView::new(Dtype::I64, vec![1, 130], &zeros).unwrap();
    views.push(("mpnet.embeddings.position_ids".to_owned(), ids));
    let bias = TensorView::new(Dtype::F32, vec![26], &zeros[..104]).unwrap();
    views.push(("lm_head.bias".to_owned(), bias));
    fs::remove_file(model.path().join("model.safetensors")).unwrap();
    model.write("0_Transformer/model.safetensors", safetensors::serialize(views, None).unwrap());
    for name in ["config.json", "tokenizer.json", "sentence_bert_config.json"] {
        model.write(&format!("0_Transformer/{name}"), read(&format!("tiny/{name}")));
        model.remove(name);
    }
    for name in ["config.json", "model.safetensors"] {
        model.write(&format!("2_Dense/{name}"), read(&format!("tiny_dense/2_Dense_gelu/{name}")));
    }
    let ones: Vec<u8> = (0..16).flat_map(|i| (1.0 + i as f32).to_le_bytes()).collect();
    let norm = ["norm.weight", "norm.bias"]
        .map(|name| (name, TensorView::new(Dtype::F32, vec![16], &ones).unwrap()));
    model.write("3_LayerNorm/model.safetensors", safetensors::serialize(norm, None).unwrap());
    let modules: Vec<Value> = ["0_Transformer", "1_Pooling", "2_Dense", "3_LayerNorm", "4_Dropout", "5_Normalize"]
        .iter()
        .enumerate()
        .map(|(idx, path)| json!({"idx": idx, "name": idx.to_string(), "path": path, "type": format!("sentence_transformers.models.{}", &path[2..])}))
        .collect();
    model.write("modules.json", Value::from(modules).to_string());
    model.write("README.md", "a model");

    let encoder = model.load().unwrap();
    let directory = saved(&encoder, WeightDtype::F32);
    same_embeddings(&encoder, &SentenceEncoder::from_pretrained(directory.path()).unwrap());
    let got = fs::read(directory.path().join("model.safetensors")).unwrap();
    let got = SafeTensors::deserialize(&got).unwrap();
    let (mut got, mut want) = (got.names(), tensors.names());
    got.sort_unstable();
    want.sort_unstable();
    assert_eq!(got, want, "the names of an encoder alone");
    let paths: Vec<Value> = json_of(directory.path().join("modules.json"))
        .as_array()
        .unwrap()
        .iter()
        .map(|module| module["path"].clone())
        .collect();
    assert_eq!(paths, ["", "1_Pooling", "2_Dense", "3_LayerNorm", "4_Normalize"]);
    // What sentence-transformers of any version can read: those before 5.4 refuse a field that they
    // do not know.
    assert_eq!(
        json_of(directory.path().join("2_Dense/config.json")),
        json!({
            "in_features": 32, "out_features": 16, "bias": true,
            "activation_function": "torch.nn.modules.activation.GELU",
        })
    );
    assert_eq!(json_of(directory.path().join("3_LayerNorm/config.json")), json!({"dimension": 16}));
    assert_eq!(
        json_of(directory.path().join("config.json"))["architectures"],
        json!(["MPNetModel"])
    );
    assert_eq!(fs::read(directory.path().join("README.md")).unwrap(), b"a model");
}

#[test]
fn whole_or_not_at_all() {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("deep/model");
    let encoder = SentenceEncoder::from_pretrained(tiny()).unwrap();
    encoder.save_pretrained(&target, WeightDtype::F16).unwrap();
    // A directory that is in use is not touched, the model's own least of all.
    let error = encoder.save_pretrained(&target, WeightDtype::F16).unwrap_err();
    assert!(matches!(&error, Error::Save { path, .. } if *path == target), "{error}");
    let error = encoder.save_pretrained(tiny(), WeightDtype::F16).unwrap_err();
    assert!(matches!(error, Error::Save { .. }), "{error}");
    let file = target.join("config.json");
    assert!(matches!(encoder.save_pretrained(&file, WeightDtype::F16), Err(Error::Io { .. })));
    assert!(matches!(encoder.save_pretrained("/", WeightDtype::F16), Err(Error::Save { .. })));

    // Weights that a type cannot hold: nothing is left, neither the directory nor a part of it.
    let model = Damaged::copy();
    let mut weights = read("tiny/model.safetensors");
    let end = weights.len();
    weights[end - 4..].copy_from_slice(&70_000_f32.to_le_bytes());
    model.write("model.safetensors", weights);
    let large = model.load().unwrap();
    let target = parent.path().join("deep/other");
    let error = large.save_pretrained(&target, WeightDtype::F16).unwrap_err();
    assert!(matches!(error, Error::Option { option: "dtype", .. }), "{error}");
    assert!(error.to_string().contains("70000"), "{error}");
    let left: Vec<_> = fs::read_dir(parent.path().join("deep")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    large.save_pretrained(&target, WeightDtype::Bf16).unwrap();

    // The files have become another model's.
    model.set("config.json", "layer_norm_eps", 1e-6.into());
    let error = large.save_pretrained(parent.path().join("third"), WeightDtype::F32).unwrap_err();
    assert!(matches!(error, Error::Save { .. }), "{error}");
    model.remove("model.safetensors");
    model.set("config.json", "layer_norm_eps", 1e-5.into());
    let error = large.save_pretrained(parent.path().join("third"), WeightDtype::F32).unwrap_err();
    assert!(matches!(error, Error::File { problem: FileProblem::NoWeights { .. }, .. }), "{error}");
}

#[test]
fn a_model_from_memory_is_saved_from_memory() {
    let names = ["model.safetensors", "config.json", "tokenizer.json"];
    let files = names.map(|name| (name, read(&format!("tiny/{name}"))));
    let files = ModelFiles::in_memory(files.iter().map(|(name, bytes)| (*name, bytes.as_slice())));
    let encoder = SentenceEncoder::from_pretrained(files.clone()).unwrap();
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("model");
    let error = encoder.save_pretrained(&target, WeightDtype::F32).unwrap_err();
    assert!(matches!(error, Error::Save { .. }), "{error}");
    encoder.save_pretrained_from(files, &target, WeightDtype::F32).unwrap();
    same_embeddings(&encoder, &SentenceEncoder::from_pretrained(target).unwrap());
}
