//! Multi-head self-attention with a relative-position bias.

use std::cell::RefCell;
use std::ops::Range;

use half::bf16;
use ndarray::{Array2, Array3, ArrayView2, ArrayViewMut2, Axis, s};

use super::buffers::Buffer;
use super::pass::Pass;
use super::plan::Plan;
use super::position_bias::PositionBias;
use crate::batch::Batch;
use crate::checkpoint::Weights;
use crate::config::Config;
use crate::error::Result;
use crate::kernels::activation::Activation;
use crate::kernels::gemm::{Element, PackedMatrix, matmul};
use crate::kernels::isa::Isa;
use crate::kernels::{Precision, softmax};
use crate::nn::{Arithmetic, LayerNorm, Linear, Placement, Rounding, Smoothing};

/// Queries whose scores are held at once: 64 rows of 512 scores are 128 KiB, well inside a core's
/// second-level cache.
const QUERIES: usize = 64;

/// Every token looks at every token of its own text; the result is added back and normalised:
///
/// ```text
/// LN(x + O · concat_h(softmax(Q_h K_hᵀ / √K + bias_h) V_h))
/// ```
#[derive(Debug)]
pub(super) struct SelfAttention {
    /// The projections to queries, keys and values as one product, `[D]` → `[3 D]`.
    query_key_value: Linear,
    output: Linear,
    norm: LayerNorm,
    heads: usize,
    isa: Isa,
    /// The precision of products with keys and values, and of activations between two products.
    precision: Precision,
}

/// One head's queries, keys and values of one text, `[T, K]` each.
#[derive(Clone, Copy)]
struct Head<'a, E> {
    index: usize,
    q: ArrayView2<'a, E>,
    k: ArrayView2<'a, E>,
    v: ArrayView2<'a, E>,
}

impl SelfAttention {
    /// `input` tells how large the columns of the layer's input are.
    pub(super) fn prepare(
        w: &Weights,
        config: &Config,
        plan: &Plan,
        at: &Placement,
        input: Smoothing,
        keeps_rest: bool,
    ) -> Result<Self> {
        let d = config.hidden_size;
        let [q, k, v] = plan.fused.map(|name| w.at(name));
        let smoothed = plan.fused.iter().all(|name| plan.smoothed.contains(name));
        let rounding = Rounding { smoothing: smoothed.then_some(input), keeps_rest };
        let output = Rounding { smoothing: None, keeps_rest };
        Ok(Self {
            query_key_value: Linear::fused(&[&q, &k, &v], (d, d), at, rounding)?,
            output: Linear::fused(&[&w.at("attn.o")], (d, d), at, output)?,
            norm: LayerNorm::prepare(&w.at("LayerNorm"), d, config.layer_norm_eps, at.isa())?,
            heads: config.num_attention_heads,
            isa: at.isa(),
            precision: plan.attention,
        })
    }

    /// The LayerNorm of the result.
    pub(super) fn norm(&self) -> &LayerNorm {
        &self.norm
    }

    /// `x: [N, D]` → `out: [N, D]`
    pub(super) fn forward(
        &self,
        pass: Pass,
        x: ArrayView2<f32>,
        out: ArrayViewMut2<f32>,
        qkv: &mut Buffer,
        context: &mut Buffer,
    ) {
        let (n, d) = x.dim();
        match self.precision(pass.arithmetic) {
            Precision::Bf16 => {
                let (qkv, context) = (qkv.resized::<bf16>(n, 3 * d), context.resized(n, d));
                self.forward_in(pass, x, out, qkv, context);
            }
            _ => {
                let (qkv, context) = (qkv.resized::<f32>(n, 3 * d), context.resized(n, d));
                self.forward_in(pass, x, out, qkv, context);
            }
        }
    }

    /// The precision of its products of queries with keys and of probabilities with values.
    fn precision(&self, arithmetic: Arithmetic) -> Precision {
        match arithmetic {
            Arithmetic::Reduced => self.precision,
            Arithmetic::Full => Precision::F32,
        }
    }

    /// As [`forward`](Self::forward), with `qkv: [N, 3 D]` and `context: [N, D]`.
    fn forward_in<E: Element>(
        &self,
        Pass { team, batch, bias, arithmetic }: Pass,
        x: ArrayView2<f32>,
        mut out: ArrayViewMut2<f32>,
        mut qkv: ArrayViewMut2<E>,
        mut context: ArrayViewMut2<E>,
    ) {
        let none = Activation::Identity;
        self.query_key_value.forward_into(team, arithmetic, x, none, qkv.view_mut());
        let qkv = qkv.view();
        team.for_each(self.pieces(&mut context, batch), |(tokens, head, out)| {
            let mut scratch = Scratch::take(self.isa, self.precision(arithmetic));
            scratch.attend(self.head(qkv, tokens, head), bias, out);
            SCRATCH.set(Some(scratch));
        });
        self.output.forward_into(team, arithmetic, context.view(), none, out.view_mut());
        self.norm.add_and_normalise(team, out, x);
    }

    /// The attention probabilities of each text, `[H, T, T]`, for the input `x: [N, D]`.
    pub(super) fn probabilities(
        &self,
        Pass { team, batch, bias, arithmetic }: Pass,
        x: ArrayView2<f32>,
    ) -> Vec<Array3<f32>> {
        let mut qkv = Array2::<f32>::zeros((x.nrows(), self.query_key_value.outputs()));
        let none = Activation::Identity;
        self.query_key_value.forward_into(team, arithmetic, x, none, qkv.view_mut());
        let qkv = qkv.view();
        let of_text = |tokens: Range<usize>| {
            let mut scores = Array3::zeros((self.heads, tokens.len(), tokens.len()));
            for (head, mut scores) in scores.axis_iter_mut(Axis(0)).enumerate() {
                let head = self.head(qkv, tokens.clone(), head);
                let keys = PackedMatrix::new(self.isa, self.precision(arithmetic), head.k);
                probabilities(self.isa, head, &keys, 0, bias, &mut scores);
            }
            scores
        };
        batch.ranges().map(of_text).collect()
    }

    /// Cuts `context` into the pieces that are computed apart: the tokens of one text × the columns
    /// of one head.
    fn pieces<'a, E>(
        &self,
        context: &'a mut ArrayViewMut2<E>,
        batch: &Batch,
    ) -> Vec<(Range<usize>, usize, ArrayViewMut2<'a, E>)> {
        let width = context.ncols() / self.heads;
        let mut rest = context.view_mut();
        let mut pieces = Vec::with_capacity(batch.len() * self.heads);
        for tokens in batch.ranges() {
            let (mut text, below) = rest.split_at(Axis(0), tokens.len());
            rest = below;
            for head in 0..self.heads {
                let (piece, right) = text.split_at(Axis(1), width);
                text = right;
                pieces.push((tokens.clone(), head, piece));
            }
        }
        pieces
    }

    fn head<'a, E>(
        &self,
        qkv: ArrayView2<'a, E>,
        tokens: Range<usize>,
        index: usize,
    ) -> Head<'a, E> {
        let d = qkv.ncols() / 3;
        let width = d / self.heads;
        let part = |part: usize| {
            let start = part * d + index * width;
            qkv.slice_move(s![tokens.clone(), start..start + width])
        };
        Head { index, q: part(0), k: part(1), v: part(2) }
    }
}

/// What a thread needs to attend with, used again for each text and head.
struct Scratch {
    isa: Isa,
    precision: Precision,
    /// `[T, K]`
    keys: PackedMatrix,
    /// `[K, T]`
    values: PackedMatrix,
    /// `[QUERIES, T]`
    scores: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

impl Scratch {
    /// The thread's own, if it was last used in the same way.
    fn take(isa: Isa, precision: Precision) -> Self {
        let empty = || PackedMatrix::empty(isa, precision);
        SCRATCH.take().filter(|own| (own.isa, own.precision) == (isa, precision)).unwrap_or_else(
            || Self { isa, precision, keys: empty(), values: empty(), scores: Vec::new() },
        )
    }

    /// `out = softmax(q · kᵀ / √K + bias) · v`, `[T, K]`, some queries at a time, so that the
    /// scores stay in cache.
    fn attend<E: Element>(
        &mut self,
        head: Head<E>,
        bias: &PositionBias,
        mut out: ArrayViewMut2<E>,
    ) {
        let t = head.q.nrows();
        self.keys.repack(head.k);
        self.values.repack_transposed(head.v);
        self.scores.resize(QUERIES * t, 0.0);
        for first in (0..t).step_by(QUERIES) {
            let rows = QUERIES.min(t - first);
            let scores = &mut self.scores[..rows * t];
            let mut scores =
                ArrayViewMut2::from_shape((rows, t), scores).expect("as long as it is wide");
            probabilities(self.isa, head, &self.keys, first, bias, &mut scores);
            let mut out = out.slice_mut(s![first..first + rows, ..]);
            matmul(scores.view(), &self.values, &mut out);
        }
    }
}

/// The attention probabilities of as many queries as `out` has rows, beginning with query `first`;
/// `out: [_, T]`.
fn probabilities<E: Element>(
    isa: Isa,
    head: Head<E>,
    keys: &PackedMatrix,
    first: usize,
    bias: &PositionBias,
    out: &mut ArrayViewMut2<f32>,
) {
    let (rows, t) = out.dim();
    let scale = 1.0 / (head.q.ncols() as f32).sqrt();
    matmul(head.q.slice(s![first..first + rows, ..]), keys, out);
    for (i, row) in out.rows_mut().into_iter().enumerate() {
        let row = row.into_slice().expect("rows of the scores are contiguous");
        softmax(isa, row, scale, bias.row(head.index, first + i, t));
    }
}
