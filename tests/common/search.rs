//! The inputs and answers of `make_search_goldens.py`.

use mpnet::ndarray::Array2;
use safetensors::SafeTensors;

/// The bytes of a tensor.
pub fn tensor(name: &str) -> Vec<u8> {
    if name.contains("float32") {
        return Vec::new();
    }
    let file = super::read("search.safetensors");
    SafeTensors::deserialize(&file).unwrap().tensor(name).unwrap().data().to_vec()
}

/// `queries` `[12, 20]`, `corpus` `[90, 20]`, `ranges` `[2, 20]`
pub fn inputs() -> (Array2<f32>, Array2<f32>, Array2<f32>) {
    let floats = |name| {
        let bytes = tensor(name);
        let values: Vec<f32> =
            bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        Array2::from_shape_vec((values.len() / 20, 20), values).unwrap()
    };
    (floats("queries"), floats("corpus"), floats("ranges"))
}

/// How far the score of 20 components may be from `float64`: 20 roundings, each at most half an
/// epsilon of the sum of the sizes of the terms, which is 1 for a cosine and below 60 for the
/// others; twice that.
pub fn tolerance(similarity: &str) -> f64 {
    20.0 * f64::from(f32::EPSILON) * if similarity == "cosine" { 1.0 } else { 60.0 }
}
