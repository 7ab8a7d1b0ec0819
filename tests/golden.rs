//! The tiny model against the reference in float64: every stage, layer, pooling mode, activation
//! and storage type.
//!
//! Tolerances are a few times what torch's own `float32` differs from these goldens
//! (`docs/numerics.md`): 2.7e-7 in embeddings, 2.2e-6 in hidden states, 6.5e-7 in attention
//! probabilities.

mod common;

use std::collections::BTreeMap;

use common::{Damaged, Goldens, Text, allowed, assert_close, assert_near, data, json, texts, tiny};
use mpnet::ndarray::{Array2, ArrayD, ArrayView, Axis, Ix2, Ix3, Ix4};
use mpnet::{
    Batch, Checkpoint, Config, Isa, Pooling, PoolingMode, Precision, SentenceEncoder, model::Mpnet,
};

const EMBEDDING: f64 = 1e-6;
const HIDDEN: f64 = 8e-6;
const ATTENTION: f64 = 2e-6;
const MODULE: f64 = 1e-5;

fn encoder() -> SentenceEncoder {
    SentenceEncoder::from_pretrained(tiny()).unwrap()
}

fn strings(texts: &[Text]) -> Vec<&str> {
    texts.iter().map(|text| text.text.as_str()).collect()
}

#[test]
fn token_ids_of_every_text() {
    let encoder = encoder();
    let texts = texts();
    let tokens = encoder.tokenizer().encode(&strings(&texts), encoder.max_seq_length()).unwrap();
    for (tokens, text) in tokens.iter().zip(&texts) {
        assert_eq!(tokens.ids, text.ids, "{:?}", text.text);
    }
}

#[test]
fn embeddings_of_every_text() {
    let (goldens, texts) = (Goldens::open(), texts());
    let embeddings = encoder().encode(&strings(&texts)).unwrap();
    for (i, embedding) in embeddings.rows().into_iter().enumerate() {
        let want = goldens.get(&format!("texts/{i}/embedding"));
        assert_near(&format!("text {i}"), embedding.into_dyn(), want.view(), EMBEDDING);
    }
}

/// The same goldens on every instruction set and in every precision, which is looser the shorter
/// its numbers are.
#[test]
fn embeddings_on_every_instruction_set_and_in_every_precision() {
    let (goldens, texts) = (Goldens::open(), texts());
    for &isa in Isa::available() {
        for precision in Precision::ALL {
            let encoder =
                SentenceEncoder::builder(tiny()).isa(isa).precision(precision).build().unwrap();
            let embeddings = encoder.encode(&strings(&texts)).unwrap();
            for (i, embedding) in embeddings.rows().into_iter().enumerate() {
                let want = goldens.get(&format!("texts/{i}/embedding"));
                let cosine: f64 =
                    embedding.iter().zip(&want).map(|(&got, want)| f64::from(got) * want).sum();
                let what = format!("{isa}, {precision}, text {i}: cosine {cosine}");
                match precision {
                    Precision::F32 => {
                        let tolerance = allowed(isa, EMBEDDING);
                        assert_close(&what, embedding.into_dyn(), want.view(), tolerance);
                    }
                    // Weights that are only stored as bf16 move these embeddings by up to 3.7e-3 a
                    // component, which is a cosine of 1 − 2e-4; here the other factor is rounded
                    // too.
                    Precision::Bf16 => assert!(cosine > 0.9995, "{what}"),
                    _ => assert!(cosine > 0.99, "{what}"),
                }
            }
        }
    }
}

#[test]
fn a_text_of_every_position() {
    #[derive(serde::Deserialize)]
    struct File {
        full_length: FullLength,
    }
    #[derive(serde::Deserialize)]
    struct FullLength {
        max_seq_length: usize,
        text: String,
        ids: Vec<u32>,
    }
    let full = json::<File>("goldens.json").full_length;
    let encoder =
        SentenceEncoder::builder(tiny()).max_seq_length(full.max_seq_length).build().unwrap();
    let tokens = encoder.tokenizer().encode(&[&full.text], full.max_seq_length).unwrap();
    assert_eq!(tokens[0].ids, full.ids);
    let want = Goldens::open().get("full_length/embedding");
    let got = encoder.encode_one(&full.text).unwrap();
    assert_near("full length", got.view().into_dyn(), want.view(), EMBEDDING);
}

#[test]
fn every_stage_of_one_text() {
    #[derive(serde::Deserialize)]
    struct File {
        stages: Stages,
    }
    #[derive(serde::Deserialize)]
    struct Stages {
        text: usize,
    }
    let goldens = Goldens::open();
    let text = json::<File>("goldens.json").stages.text;
    let encoder = encoder();
    let model = encoder.model();
    // Not alone, so that a wrong range would show.
    let all = texts();
    let ids = [all[5].ids.as_slice(), &all[text].ids, &all[0].ids];
    let batch = Batch::new(&ids, model.config()).unwrap();
    let range = batch.range(1);

    let states = model.hidden_states(&batch);
    let want = goldens.get("stages/hidden_states");
    assert_eq!(states.len(), want.shape()[0]);
    for (layer, (state, want)) in states.iter().zip(want.axis_iter(Axis(0))).enumerate() {
        let got = state.slice_axis(Axis(0), range.clone().into());
        assert_near(&format!("hidden state {layer}"), got.into_dyn(), want, HIDDEN);
    }
    assert_eq!(states.last().unwrap(), &model.forward(&batch));

    let attentions = model.attentions(&batch);
    let want = goldens.get("stages/attentions").into_dimensionality::<Ix4>().unwrap();
    for (layer, want) in want.axis_iter(Axis(0)).enumerate() {
        let got = attentions[layer][1].view().into_dyn();
        assert_near(&format!("attention {layer}"), got, want.into_dyn(), ATTENTION);
    }

    let bias = model.position_bias(range.len());
    let want = goldens.get("stages/position_bias");
    assert_near("position bias", bias.view().into_dyn(), want.view(), 0.0);

    let pooled = model.pooler_output(states.last().unwrap(), &batch).unwrap();
    let want = goldens.get("stages/pooler_output");
    assert_near("pooler", pooled.row(1).into_dyn(), want.view(), HIDDEN);
}

#[test]
fn every_pooling_mode() {
    use PoolingMode::*;
    #[derive(serde::Deserialize)]
    struct File {
        pooling: Cases,
    }
    #[derive(serde::Deserialize)]
    struct Cases {
        texts: Vec<usize>,
        prompt_length: usize,
        modes: Vec<String>,
    }
    let goldens = Goldens::open();
    let cases = json::<File>("goldens.json").pooling;
    let all = texts();
    let config = encoder().model().config().clone();
    let ids: Vec<&[u32]> = cases.texts.iter().map(|&text| all[text].ids.as_slice()).collect();
    let batch = Batch::new(&ids, &config).unwrap();
    let hidden: Vec<_> =
        cases.texts.iter().map(|text| goldens.get(&format!("pooling/{text}/hidden"))).collect();
    let views: Vec<ArrayView<f64, Ix2>> =
        hidden.iter().map(|h| h.view().into_dimensionality().unwrap()).collect();
    let hidden = mpnet::ndarray::concatenate(Axis(0), &views).unwrap().mapv(|x| x as f32);

    let mode = |name: &str| match name {
        "cls" => Cls,
        "max" => Max,
        "mean" => Mean,
        "mean_sqrt_len_tokens" => MeanSqrtLen,
        "weightedmean" => WeightedMean,
        "lasttoken" => LastToken,
        other => panic!("a mode that has no name here: {other}"),
    };
    assert_eq!(cases.modes.len(), 8);
    // Up to 48 additions, each rounding by at most ε/2 of the sum so far, which is no larger than
    // what comes out times a few: 16 ε of the largest component.
    let tolerance = |want: &ArrayD<f64>| {
        16.0 * f64::from(f32::EPSILON) * want.iter().fold(1.0_f64, |max, x| max.max(x.abs()))
    };
    for name in &cases.modes {
        let pooling = Pooling::new(name.split('+').map(mode));
        let with = pooling.apply(&hidden, &batch, cases.prompt_length);
        let without = pooling.include_prompt(false).apply(&hidden, &batch, cases.prompt_length);
        for (b, text) in cases.texts.iter().enumerate() {
            let want = goldens.get(&format!("pooling/{text}/{name}"));
            assert_near(name, with.row(b).into_dyn(), want.view(), tolerance(&want));
            let want = goldens.get(&format!("pooling/{text}/{name}/no_prompt"));
            assert_near(name, without.row(b).into_dyn(), want.view(), tolerance(&want));
        }
    }
}

#[test]
fn prompts_by_name() {
    #[derive(serde::Deserialize)]
    struct File {
        prompts: std::collections::BTreeMap<String, Case>,
    }
    #[derive(serde::Deserialize)]
    struct Case {
        prompt: String,
        text: usize,
    }
    let (goldens, all, encoder) = (Goldens::open(), texts(), encoder());
    let prompts = json::<File>("goldens.json").prompts;
    assert_eq!(prompts.len(), 2);
    for (name, case) in prompts {
        assert_eq!(encoder.prompts()[&name], case.prompt);
        let text = &[&all[case.text].text];
        let want = goldens.get(&format!("prompts/{name}/embedding"));
        for options in [
            mpnet::EncodeOptions::default().prompt_name(&name),
            mpnet::EncodeOptions::default().prompt(&case.prompt),
        ] {
            let got = encoder.encode_with(text, &options).unwrap().embeddings;
            assert_near(&name, got.row(0).into_dyn(), want.view(), EMBEDDING);
        }
    }
}

#[test]
fn weights_stored_as_f16_and_bf16() {
    let all = texts();
    for dtype in ["f16", "bf16"] {
        let model = Damaged::copy();
        model.write("model.safetensors", common::read(&format!("variants/{dtype}.safetensors")));
        let got = model.load().unwrap().encode(&strings(&all)).unwrap();
        let want = Goldens::open().get(&format!("dtypes/{dtype}/embeddings"));
        assert_near(dtype, got.view().into_dyn(), want.view(), EMBEDDING);
    }
}

#[test]
fn other_activations() {
    let all = texts();
    for name in ["gelu_new", "relu", "silu"] {
        let model = Damaged::copy();
        model.set("config.json", "hidden_act", name.into());
        let got = model.load().unwrap().encode(&strings(&all)).unwrap();
        let want = Goldens::open().get(&format!("activations/{name}/embeddings"));
        assert_near(name, got.view().into_dyn(), want.view(), EMBEDDING);
    }
}

#[test]
fn a_dense_module_after_the_pooling() {
    let all = texts();
    for name in ["tanh", "identity", "relu", "gelu"] {
        let model = Damaged::copy();
        for file in ["config.json", "model.safetensors"] {
            let contents = common::read(&format!("tiny_dense/2_Dense_{name}/{file}"));
            model.write(&format!("2_Dense/{file}"), contents);
        }
        // The class paths of sentence-transformers 5.4 and later.
        let modules = serde_json::json!([
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling",
             "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.base.modules.dense.Dense"},
            {"idx": 3, "name": "3", "path": "3_Normalize",
             "type": "sentence_transformers.base.modules.normalize.Normalize"},
        ]);
        model.write("modules.json", modules.to_string());
        let encoder = model.load().unwrap();
        assert_eq!(encoder.dim(), 16);
        let got = encoder.encode(&strings(&all)).unwrap();
        let want = Goldens::open().get(&format!("dense/{name}/embeddings"));
        assert_near(name, got.view().into_dyn(), want.view(), EMBEDDING);
    }
}

/// Every activation of `Dense`, its residual paths, `LayerNorm` and `Dropout`, one by one and in a
/// row, as sentence-transformers saves and computes them (`make_module_goldens.py`). Values are up
/// to 7.6; torch's `float32` is off by up to 2.7e-6.
#[test]
fn every_module_behind_the_pooling() {
    #[derive(serde::Deserialize)]
    struct Module {
        name: String,
        class: String,
    }
    #[derive(serde::Deserialize)]
    struct File {
        pipelines: BTreeMap<String, Vec<Module>>,
    }
    let (all, goldens) = (texts(), Goldens::named("modules.safetensors"));
    let pipelines = json::<File>("modules.json").pipelines;
    assert_eq!(pipelines.len(), 11);
    for (pipeline, modules) in pipelines {
        let model = Damaged::copy();
        let mut entries: Vec<serde_json::Value> = json("tiny/modules.json");
        entries.truncate(2);
        for (module, idx) in modules.iter().zip(2..) {
            let path = format!("{idx}_{}", module.name);
            for file in std::fs::read_dir(data("modules").join(&module.name)).unwrap() {
                let file = file.unwrap();
                let contents = std::fs::read(file.path()).unwrap();
                model.write(&format!("{path}/{}", file.file_name().to_str().unwrap()), contents);
            }
            entries.push(serde_json::json!({
                "idx": idx, "name": idx.to_string(), "path": path, "type": module.class,
            }));
        }
        model.write("modules.json", serde_json::Value::from(entries).to_string());
        let encoder = model.load().unwrap();
        let got = encoder.encode(&strings(&all)).unwrap();
        let want = goldens.get(&pipeline);
        assert_eq!(encoder.dim(), want.shape()[1]);
        let worst = assert_near(&pipeline, got.view().into_dyn(), want.view(), MODULE);
        println!("{pipeline}: within {worst:.1e}");
    }
}

/// A model of width 8 whose every weight is a sine of its index, so that the whole of it is written
/// down in a formula and no file is read. The reference's hidden states of two texts, one of them
/// with padding behind it, which a ragged batch does not have.
#[test]
fn a_model_that_is_a_formula() {
    #[derive(serde::Deserialize)]
    struct File {
        config: serde_json::Value,
        parameters: Vec<String>,
        alone: Vec<Alone>,
    }
    #[derive(serde::Deserialize)]
    struct Alone {
        input_ids: Vec<Vec<u32>>,
        hidden_states: Vec<Vec<Vec<Vec<f64>>>>,
        attentions: Vec<Vec<Vec<Vec<Vec<f64>>>>>,
        mean_pooled: Vec<Vec<f64>>,
    }
    let file: File = json("synthetic.json");
    let mut config = file.config;
    config["model_type"] = "mpnet".into();
    let config = Config::from_json(config.to_string(), "config.json").unwrap();
    let weights = formula(&file.parameters, &config);
    let checkpoint = Checkpoint::from_bytes(&weights).unwrap();
    let model = Mpnet::load(&checkpoint.encoder().unwrap(), &config).unwrap();

    let ids: Vec<&[u32]> = file.alone.iter().map(|case| case.input_ids[0].as_slice()).collect();
    let batch = Batch::new(&ids, &config).unwrap();
    let states = model.hidden_states(&batch);
    let attentions = model.attentions(&batch);
    let pooled = Pooling::default().apply(states.last().unwrap(), &batch, 0);
    for (b, case) in file.alone.iter().enumerate() {
        for (layer, want) in case.hidden_states[0].iter().enumerate() {
            let want = Array2::from_shape_fn((want.len(), want[0].len()), |(i, j)| want[i][j]);
            let got = states[layer].slice_axis(Axis(0), batch.range(b).into());
            assert_near("hidden state", got.into_dyn(), want.view().into_dyn(), HIDDEN);
        }
        for (layer, heads) in case.attentions[0].iter().enumerate() {
            let shape = (heads.len(), heads[0].len(), heads[0][0].len());
            let want =
                mpnet::ndarray::Array::<_, Ix3>::from_shape_fn(shape, |(h, i, j)| heads[h][i][j]);
            let got = attentions[layer][b].view().into_dyn();
            assert_near("attention", got, want.view().into_dyn(), ATTENTION);
        }
        let want = ArrayView::from(&case.mean_pooled[0]);
        assert_near("mean", pooled.row(b).into_dyn(), want.into_dyn(), HIDDEN);
    }
}

/// The parameters of the formula model as a safetensors file: for parameter number `t` and flat
/// index `i`, `s = sin(0.7 t + 0.13 i (1 + t mod 5))`, and `1 + s/10` for LayerNorm weights, `s/10`
/// for biases, `s/2` for the rest.
fn formula(names: &[String], config: &Config) -> Vec<u8> {
    let (v, d, f) = (config.vocab_size, config.hidden_size, config.intermediate_size);
    let shape = |name: &str| -> Vec<usize> {
        match name {
            _ if name.contains("word_embeddings") || name.contains("decoder") => vec![v, d],
            _ if name.contains("position_embeddings") => vec![config.max_position_embeddings, d],
            _ if name.contains("relative_attention_bias") => vec![32, config.num_attention_heads],
            "lm_head.bias" => vec![v],
            _ if name.ends_with("intermediate.dense.weight") => vec![f, d],
            _ if name.ends_with("intermediate.dense.bias") => vec![f],
            _ if name.contains("LayerNorm") || name.contains("layer_norm") => vec![d],
            _ if name.contains("output.dense.weight") => vec![d, f],
            _ if name.ends_with("bias") => vec![d],
            _ => vec![d, d],
        }
    };
    let tensor = |(t, name): (usize, &String)| {
        let shape = shape(name);
        let value = |i: usize| {
            let s = (0.7 * t as f64 + 0.13 * (i * (1 + t % 5)) as f64).sin();
            let norm = name.contains("LayerNorm") || name.contains("layer_norm");
            match name {
                _ if norm && name.ends_with("weight") => 1.0 + 0.1 * s,
                _ if name.ends_with(".bias") => 0.1 * s,
                _ => 0.5 * s,
            }
        };
        let bytes: Vec<u8> =
            (0..shape.iter().product()).flat_map(|i| value(i).to_le_bytes()).collect();
        (name.clone(), shape, bytes)
    };
    let tensors: Vec<_> = names.iter().enumerate().map(tensor).collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let dtype = safetensors::Dtype::F64;
        let view = safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes).unwrap();
        (name.as_str(), view)
    });
    safetensors::serialize(views, None).unwrap()
}
