//! MPNet on candle's operations: BERT without token types, and a relative position bias that all
//! layers share.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{
    Embedding, LayerNorm, Linear, Module, VarBuilder, embedding, layer_norm, linear, ops,
};

/// The sizes of all-mpnet-base-v2's `config.json`.
const VOCABULARY: usize = 30527;
const POSITIONS: usize = 514;
const WIDTH: usize = 768;
const WIDE: usize = 3072;
const LAYERS: usize = 12;
const HEADS: usize = 12;
const BUCKETS: usize = 32;
const EPS: f64 = 1e-5;

pub const PAD: u32 = 1;

/// The shortest distance of each of a direction's 16 buckets.
const BUCKET_STARTS: [usize; BUCKETS / 2] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91];

struct Layer {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    attention_norm: LayerNorm,
    expand: Linear,
    contract: Linear,
    norm: LayerNorm,
}

impl Layer {
    fn load(weights: &VarBuilder) -> Result<Self> {
        let attention = weights.pp("attention");
        let projection = |name| linear(WIDTH, WIDTH, attention.pp("attn").pp(name));
        Ok(Self {
            q: projection("q")?,
            k: projection("k")?,
            v: projection("v")?,
            o: projection("o")?,
            attention_norm: layer_norm(WIDTH, EPS, attention.pp("LayerNorm"))?,
            expand: linear(WIDTH, WIDE, weights.pp("intermediate.dense"))?,
            contract: linear(WIDE, WIDTH, weights.pp("output.dense"))?,
            norm: layer_norm(WIDTH, EPS, weights.pp("output.LayerNorm"))?,
        })
    }

    /// `x`: `[B, T, D]`; `bias`: `[B, H, T, T]`, the position bias with the mask.
    fn forward(&self, x: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let heads = |linear: &Linear| {
            let x = linear.forward(x)?.reshape((b, t, HEADS, WIDTH / HEADS))?;
            x.transpose(1, 2)?.contiguous()
        };
        let q = (heads(&self.q)? * (1.0 / ((WIDTH / HEADS) as f64).sqrt()))?;
        let scores = (q.matmul(&heads(&self.k)?.t()?)? + bias)?;
        let attended = ops::softmax_last_dim(&scores)?.matmul(&heads(&self.v)?)?;
        let attended = attended.transpose(1, 2)?.contiguous()?.reshape((b, t, WIDTH))?;
        let x = self.attention_norm.forward(&(self.o.forward(&attended)? + x)?)?;
        let wide = self.expand.forward(&x)?.gelu_erf()?;
        self.norm.forward(&(self.contract.forward(&wide)? + x)?)
    }
}

pub struct Mpnet {
    words: Embedding,
    positions: Embedding,
    norm: LayerNorm,
    position_bias: Tensor,
    layers: Vec<Layer>,
    device: Device,
}

impl Mpnet {
    pub fn load(weights: &VarBuilder) -> Result<Self> {
        let (embeddings, encoder) = (weights.pp("embeddings"), weights.pp("encoder"));
        let layer = |n| Layer::load(&encoder.pp(format!("layer.{n}")));
        Ok(Self {
            words: embedding(VOCABULARY, WIDTH, embeddings.pp("word_embeddings"))?,
            positions: embedding(POSITIONS, WIDTH, embeddings.pp("position_embeddings"))?,
            norm: layer_norm(WIDTH, EPS, embeddings.pp("LayerNorm"))?,
            position_bias: encoder.get((BUCKETS, HEADS), "relative_attention_bias.weight")?,
            layers: (0..LAYERS).map(layer).collect::<Result<_>>()?,
            device: weights.device().clone(),
        })
    }

    /// The embeddings of a padded batch, `[B, D]`: mean pooling over the mask, unit length. `ids`
    /// and `mask` hold a row of the same length for each text.
    pub fn embed(&self, ids: &[&[u32]], mask: &[&[u32]]) -> Result<Tensor> {
        let shape = (ids.len(), ids[0].len());
        let positions = ids.iter().flat_map(|row| positions(row)).collect();
        let positions = Tensor::from_vec(positions, shape, &self.device)?;
        let mask = Tensor::from_vec(mask.concat(), shape, &self.device)?.to_dtype(DType::F32)?;
        let ids = Tensor::from_vec(ids.concat(), shape, &self.device)?;

        // Far enough below every score for its exponential to be 0.
        let closed = ((1.0 - &mask)? * -1e9)?.unsqueeze(1)?.unsqueeze(1)?; // [B, 1, 1, T]
        let bias = self.bias(shape.1)?.broadcast_add(&closed)?;
        let x = (self.words.forward(&ids)? + self.positions.forward(&positions)?)?;
        let mut x = self.norm.forward(&x)?;
        for layer in &self.layers {
            x = layer.forward(&x, &bias)?;
        }
        let mask = mask.unsqueeze(2)?;
        let pooled = x.broadcast_mul(&mask)?.sum(1)?.broadcast_div(&mask.sum(1)?)?;
        pooled.broadcast_div(&pooled.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)
    }

    /// What attention adds to the score of a query and a key for their distance, `[1, H, T, T]`.
    fn bias(&self, t: usize) -> Result<Tensor> {
        let bucket = |query: usize, key: usize| {
            let class = BUCKET_STARTS.partition_point(|&start| start <= query.abs_diff(key)) - 1;
            (if key > query { class + BUCKETS / 2 } else { class }) as u32
        };
        let buckets =
            (0..t).flat_map(|query| (0..t).map(move |key| bucket(query, key))).collect::<Vec<_>>();
        let buckets = Tensor::from_vec(buckets, t * t, &self.device)?;
        let bias = self.position_bias.index_select(&buckets, 0)?.reshape((t, t, HEADS))?;
        bias.permute((2, 0, 1))?.contiguous()?.unsqueeze(0)
    }
}

/// Counted from 2 over the tokens that are not padding, which has position 1.
fn positions(ids: &[u32]) -> Vec<u32> {
    let mut next = PAD;
    let position = |&id: &u32| match id {
        PAD => PAD,
        _ => {
            next += 1;
            next
        }
    };
    ids.iter().map(position).collect()
}
