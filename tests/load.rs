//! One model in every form that a checkpoint comes in: names with a prefix, shards, other storage
//! types, data at odd addresses. All must give the bits of the plain file.

mod common;

use std::collections::BTreeMap;

use common::{Damaged, tiny};
use mpnet::{Checkpoint, SentenceEncoder};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// A tensor to be written: type, shape, bytes.
type Tensor = (Dtype, Vec<usize>, Vec<u8>);

fn tensors() -> BTreeMap<String, Tensor> {
    let bytes = std::fs::read(tiny().join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, view)| {
            (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        })
        .collect()
}

fn serialize(tensors: &BTreeMap<String, Tensor>) -> Vec<u8> {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// Loads the tiny model with other weight files and holds its embeddings against those of the plain
/// file.
#[track_caller]
fn same_embeddings(change: impl FnOnce(&Damaged)) {
    let model = Damaged::copy();
    change(&model);
    let texts = ["the man is here", "", "2 + 2"];
    let want = SentenceEncoder::from_pretrained(tiny()).unwrap().encode(&texts).unwrap();
    assert_eq!(model.load().unwrap().encode(&texts).unwrap(), want);
}

#[test]
fn names_with_a_prefix_and_tensors_that_are_not_weights() {
    for prefix in ["mpnet.", "0.auto_model.", "model."] {
        same_embeddings(|model| {
            let mut prefixed: BTreeMap<String, Tensor> = tensors()
                .into_iter()
                .map(|(name, tensor)| (format!("{prefix}{name}"), tensor))
                .collect();
            let ids: Vec<u8> = (0..130_i64).flat_map(i64::to_le_bytes).collect();
            let position_ids = (Dtype::I64, vec![1, 130], ids);
            prefixed.insert(format!("{prefix}embeddings.position_ids"), position_ids);
            prefixed.insert("lm_head.bias".into(), (Dtype::F32, vec![605], vec![0; 605 * 4]));
            model.write("model.safetensors", serialize(&prefixed));
        });
    }
}

#[test]
fn layer_norms_with_the_names_of_tensorflow() {
    same_embeddings(|model| {
        let renamed = tensors()
            .into_iter()
            .map(|(name, tensor)| {
                let name = name
                    .replace("LayerNorm.weight", "LayerNorm.gamma")
                    .replace("LayerNorm.bias", "LayerNorm.beta");
                (name, tensor)
            })
            .collect();
        model.write("model.safetensors", serialize(&renamed));
    });
}

#[test]
fn float64() {
    same_embeddings(|model| {
        let mut wide = tensors();
        for (dtype, _, bytes) in wide.values_mut() {
            let (values, _) = bytes.as_chunks();
            let doubles =
                values.iter().flat_map(|&b| f64::from(f32::from_le_bytes(b)).to_le_bytes());
            *bytes = doubles.collect();
            *dtype = Dtype::F64;
        }
        model.write("model.safetensors", serialize(&wide));
    });
}

#[test]
fn shards() {
    same_embeddings(|model| {
        let (mut first, mut second) = (BTreeMap::new(), BTreeMap::new());
        let mut map = serde_json::Map::new();
        for (i, (name, tensor)) in tensors().into_iter().enumerate() {
            let (shard, file) = match i % 2 {
                0 => (&mut first, "model-00001-of-00002.safetensors"),
                _ => (&mut second, "model-00002-of-00002.safetensors"),
            };
            map.insert(name.clone(), file.into());
            shard.insert(name, tensor);
        }
        let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
        model
            .remove("model.safetensors")
            .write("model-00001-of-00002.safetensors", serialize(&first))
            .write("model-00002-of-00002.safetensors", serialize(&second))
            .write("model.safetensors.index.json", index.to_string());
    });
}

/// Nothing says that the data begins at a multiple of four: the header may have any length.
#[test]
fn data_at_odd_addresses() {
    let plain = serialize(&tensors());
    let length = u64::from_le_bytes(plain[..8].try_into().unwrap()) as usize;
    let (header, data) = plain[8..].split_at(length);
    let header = std::str::from_utf8(header).unwrap().trim_end();
    for padding in 0..4 {
        same_embeddings(|model| {
            let header = format!("{header}{}", " ".repeat(padding));
            let mut file = (header.len() as u64).to_le_bytes().to_vec();
            file.extend(header.as_bytes());
            file.extend(data);
            model.write("model.safetensors", file);
        });
    }
}

#[test]
fn a_transformer_in_a_folder_of_its_own() {
    same_embeddings(|model| {
        for file in
            ["config.json", "model.safetensors", "tokenizer.json", "sentence_bert_config.json"]
        {
            let contents = std::fs::read(model.path().join(file)).unwrap();
            model.write(&format!("0_Transformer/{file}"), contents).remove(file);
        }
        let modules = std::fs::read_to_string(model.path().join("modules.json")).unwrap();
        let mut modules: serde_json::Value = serde_json::from_str(&modules).unwrap();
        modules[0]["path"] = "0_Transformer".into();
        model.write("modules.json", modules.to_string());
    });
}

#[test]
fn names_can_be_listed_and_tensors_read() {
    let checkpoint = Checkpoint::open(tiny()).unwrap();
    assert_eq!(checkpoint.names().len(), 5 + 3 * 16 + 2);
    let encoder = checkpoint.encoder().unwrap();
    let layer = encoder.at("encoder").at("layer.2");
    assert!(layer.has("output.dense.weight"));
    assert_eq!(layer.matrix("output.dense.weight", 32, 64).unwrap().dim(), (32, 64));
    assert_eq!(layer.vector("output.dense.bias", 32).unwrap().len(), 32);
}

/// Zero elements, but a length that no array can have.
#[test]
fn a_tensor_of_nothing_is_no_panic() {
    let header =
        br#"{"a": {"dtype": "F32", "shape": [18446744073709551615, 0], "data_offsets": [0, 0]}}"#;
    let file = [&(header.len() as u64).to_le_bytes(), header.as_slice()].concat();
    let checkpoint = Checkpoint::from_bytes(&file).unwrap();
    assert!(checkpoint.root().matrix("a", usize::MAX, 0).is_err());
}
