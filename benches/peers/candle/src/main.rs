//! The peer `candle-f32` of `../compare.py`; it answers as `../peer.py` does.
//!
//! ```text
//! RAYON_NUM_THREADS=N peer-candle MODEL_DIR TEXTS_JSON
//! ```

mod model;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;
use std::{env, fs, io};

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use model::{Mpnet, PAD};
use tokenizers::{PaddingParams, Tokenizer, TruncationParams};

const BATCH: usize = 32;
const MAX_TOKENS: usize = 384;

type Vectors = Vec<Vec<f32>>;

struct Encoder {
    tokenizer: Tokenizer,
    model: Mpnet,
}

impl Encoder {
    fn open(directory: &Path) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let mut tokenizer = Tokenizer::from_file(directory.join("tokenizer.json"))?;
        let truncation = TruncationParams { max_length: MAX_TOKENS, ..Default::default() };
        tokenizer.with_truncation(Some(truncation))?;
        let padding =
            PaddingParams { pad_id: PAD, pad_token: "<pad>".to_owned(), ..Default::default() };
        tokenizer.with_padding(Some(padding));
        let file = directory.join("model.safetensors");
        // SAFETY: nobody changes the file while this runs.
        let weights =
            unsafe { VarBuilder::from_mmaped_safetensors(&[file], DType::F32, &Device::Cpu)? };
        Ok(Self { tokenizer, model: Mpnet::load(&weights)? })
    }

    /// Texts of similar length together, 32 at a time, padded; the vectors in the caller's order.
    fn encode(&self, texts: &[String]) -> Result<Vectors, Box<dyn Error + Send + Sync>> {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| Reverse(texts[i].chars().count()));
        let mut vectors = vec![Vec::new(); texts.len()];
        for chunk in order.chunks(BATCH) {
            let batch: Vec<&str> = chunk.iter().map(|&i| texts[i].as_str()).collect();
            let encodings = self.tokenizer.encode_batch(batch, true)?;
            let ids: Vec<&[u32]> = encodings.iter().map(|e| e.get_ids()).collect();
            let mask: Vec<&[u32]> = encodings.iter().map(|e| e.get_attention_mask()).collect();
            let rows = self.model.embed(&ids, &mask)?.to_vec2()?;
            for (&i, row) in chunk.iter().zip(rows) {
                vectors[i] = row;
            }
        }
        Ok(vectors)
    }
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [directory, texts] = arguments.as_slice() else {
        return Err("usage: peer-candle MODEL_DIR TEXTS_JSON".into());
    };
    let cases: HashMap<String, Vec<String>> = serde_json::from_slice(&fs::read(texts)?)?;
    let encoder = Encoder::open(Path::new(directory))?;
    println!("ready");
    for line in io::stdin().lines() {
        let line = line?;
        let (vectors, name) = match line.strip_prefix("vectors ") {
            Some(name) => (true, name),
            None => (false, line.as_str()),
        };
        let texts = cases.get(name).ok_or_else(|| format!("there is no case `{name}`"))?;
        let start = Instant::now();
        let embeddings = encoder.encode(texts)?;
        match vectors {
            true => println!("{}", serde_json::to_string(&embeddings)?),
            false => println!("{}", start.elapsed().as_secs_f64()),
        }
    }
    Ok(())
}
