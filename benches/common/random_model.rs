//! A model of any size with random weights: as much work as a trained one.

#![allow(dead_code, unreachable_pub, reason = "each benchmark or test uses a part of this module")]

use std::fs;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::json;

/// English words that are one token each, here and in the vocabulary of all-mpnet-base-v2.
#[rustfmt::skip]
pub const WORDS: [&str; 64] = [
    "the", "river", "market", "garden", "winter", "letter", "music", "bridge", "of", "morning", "horse", "paper", "island",
    "doctor", "kitchen", "summer", "and", "forest", "window", "story", "engine", "village", "mother", "ocean", "in", "school",
    "picture", "weather", "father", "road", "bread", "mountain", "to", "number", "church", "dinner", "evening", "glass", "stone",
    "train", "with", "answer", "corner", "money", "night", "people", "water", "house", "for", "animal", "battle", "circle", "door",
    "earth", "flower", "green", "from", "heart", "iron", "king", "light", "moon", "north", "queen",
];

/// The sizes of a model.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub vocabulary: usize,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub intermediate: usize,
}

impl Sizes {
    /// Those of all-mpnet-base-v2.
    pub const BASE: Self =
        Self { vocabulary: 30527, hidden: 768, layers: 12, heads: 12, intermediate: 3072 };
}

const POSITIONS: usize = 514;
const BUCKETS: usize = 32;

/// Fills `directory`, which is there, with a model of these sizes in the layout of
/// sentence-transformers: mean pooling, normalised, 384 tokens at most.
pub fn write(directory: &Path, sizes: Sizes) -> std::io::Result<()> {
    let Sizes { vocabulary, hidden, layers, heads, intermediate } = sizes;
    let write = |name: &str, contents: String| fs::write(directory.join(name), contents);
    let config = json!({
        "model_type": "mpnet", "vocab_size": vocabulary, "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "intermediate_size": intermediate, "hidden_act": "gelu", "layer_norm_eps": 1e-5,
        "max_position_embeddings": POSITIONS, "relative_attention_num_buckets": BUCKETS,
    });
    write("config.json", config.to_string())?;
    write("sentence_bert_config.json", json!({ "max_seq_length": 384 }).to_string())?;
    let modules = ["Transformer", "Pooling", "Normalize"].iter().enumerate().map(|(i, name)| {
        let path = if i == 0 { String::new() } else { format!("{i}_{name}") };
        json!({ "idx": i, "name": i.to_string(), "path": path, "type": format!("sentence_transformers.models.{name}") })
    });
    write("modules.json", serde_json::Value::from_iter(modules).to_string())?;
    fs::create_dir_all(directory.join("1_Pooling"))?;
    let pooling = json!({ "word_embedding_dimension": hidden, "pooling_mode_mean_tokens": true });
    write("1_Pooling/config.json", pooling.to_string())?;
    let special = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"];
    assert!(special.len() + WORDS.len() <= vocabulary, "a vocabulary of {vocabulary}");
    let unused = (special.len() + WORDS.len()..vocabulary).map(|i| format!("[unused{i}]"));
    let named = special.iter().chain(&WORDS).map(|&token| token.to_owned());
    write("vocab.txt", named.chain(unused).collect::<Vec<_>>().join("\n"))?;
    write_weights(&directory.join("model.safetensors"), sizes)
}

fn write_weights(file: &Path, sizes: Sizes) -> std::io::Result<()> {
    let Sizes { vocabulary: v, hidden: d, layers, heads, intermediate: f } = sizes;
    let mut shapes = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![v, d]),
        ("embeddings.position_embeddings.weight".to_owned(), vec![POSITIONS, d]),
        ("embeddings.LayerNorm.weight".to_owned(), vec![d]),
        ("embeddings.LayerNorm.bias".to_owned(), vec![d]),
        ("encoder.relative_attention_bias.weight".to_owned(), vec![BUCKETS, heads]),
    ];
    for layer in 0..layers {
        for (name, inputs, outputs) in [
            ("attention.attn.q", d, d),
            ("attention.attn.k", d, d),
            ("attention.attn.v", d, d),
            ("attention.attn.o", d, d),
            ("intermediate.dense", d, f),
            ("output.dense", f, d),
        ] {
            let name = format!("encoder.layer.{layer}.{name}");
            shapes.push((format!("{name}.weight"), vec![outputs, inputs]));
            shapes.push((format!("{name}.bias"), vec![outputs]));
        }
        for name in ["attention.LayerNorm", "output.LayerNorm"] {
            let name = format!("encoder.layer.{layer}.{name}");
            shapes.push((format!("{name}.weight"), vec![d]));
            shapes.push((format!("{name}.bias"), vec![d]));
        }
    }
    // One sequence of random numbers for all, of which each tensor takes another stretch.
    let largest = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).max();
    let mut random = 1_u64;
    let values: Vec<u8> = (0..largest.unwrap_or(0) + SHIFT * shapes.len())
        .flat_map(|_| uniform(&mut random).to_le_bytes())
        .collect();
    let ones: Vec<u8> = (0..d).flat_map(|_| 1_f32.to_le_bytes()).collect();
    let views = shapes.into_iter().enumerate().map(|(i, (name, shape))| {
        let start = 4 * SHIFT * i;
        let bytes = match name.ends_with("LayerNorm.weight") {
            true => &ones[..],
            false => &values[start..start + 4 * shape.iter().product::<usize>()],
        };
        let view =
            TensorView::new(Dtype::F32, shape, bytes).expect("as many bytes as the shape has");
        (name, view)
    });
    serialize_to_file(views, None, file).map_err(std::io::Error::other)
}

/// From where one tensor begins to where the next does, in numbers.
const SHIFT: usize = 997;

/// Between −0.04 and 0.04, about as trained weights are; SplitMix64.
fn uniform(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32 * 0.08 - 0.04
}
