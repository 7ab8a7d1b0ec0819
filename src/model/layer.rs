//! One layer of the encoder.

use half::bf16;
use ndarray::{Array3, ArrayView2, ArrayViewMut2};

use super::attention::SelfAttention;
use super::buffers::LayerBuffers;
use super::pass::Pass;
use super::plan::Plan;
use crate::checkpoint::Weights;
use crate::config::Config;
use crate::error::Result;
use crate::kernels::Precision;
use crate::kernels::activation::Activation;
use crate::kernels::gemm::Element;
use crate::nn::{Arithmetic, LayerNorm, Linear, Placement, Rounding, Smoothing};

/// Self-attention, then a feed-forward network. Each adds its input back and normalises the sum
/// ("post-norm", as in BERT).
#[derive(Debug)]
pub(super) struct EncoderLayer {
    attention: SelfAttention,
    expand: Linear,
    activation: Activation,
    contract: Linear,
    norm: LayerNorm,
    /// The precision of the activations between the two products of the feed-forward network.
    wide: Precision,
}

impl EncoderLayer {
    /// `input` tells how large the columns of the layer's input are.
    pub(super) fn prepare(
        w: &Weights,
        config: &Config,
        plan: &Plan,
        at: &Placement,
        input: Smoothing,
        keeps_rest: bool,
    ) -> Result<Self> {
        let (d, f) = (config.hidden_size, config.intermediate_size);
        let attention =
            SelfAttention::prepare(&w.at("attention"), config, plan, at, input, keeps_rest)?;
        // Attention adds to its input, whose large columns stay where they are.
        let attended = Smoothing { norm: attention.norm(), ..input };
        let smoothing = plan.smoothed.contains(&"intermediate.dense").then_some(attended);
        let expand = w.at("intermediate.dense");
        let expand = Linear::fused(&[&expand], (d, f), at, Rounding { smoothing, keeps_rest })?;
        let rounding = Rounding { smoothing: None, keeps_rest };
        Ok(Self {
            attention,
            expand,
            activation: config.hidden_act,
            contract: Linear::fused(&[&w.at("output.dense")], (f, d), at, rounding)?,
            norm: LayerNorm::prepare(
                &w.at("output.LayerNorm"),
                d,
                config.layer_norm_eps,
                at.isa(),
            )?,
            wide: plan.attention,
        })
    }

    /// Tells how large the columns of the layer's output are.
    pub(super) fn smoothing(&self) -> Smoothing<'_> {
        Smoothing { norm: &self.norm, peaks: self.contract.peaks() }
    }

    /// `hidden: [N, D]` → `hidden`, in place.
    pub(super) fn forward(
        &self,
        pass: Pass,
        mut hidden: ArrayViewMut2<f32>,
        buffers: &mut LayerBuffers,
    ) {
        let (n, d, f) = (hidden.nrows(), self.contract.outputs(), self.expand.outputs());
        let pass = self.within(pass);
        let LayerBuffers { qkv, context, attended, wide } = buffers;
        let mut attended = attended.resized(n, d);
        self.attention.forward(pass, hidden.view(), attended.view_mut(), qkv, context);
        let (x, out) = (attended.view(), hidden.view_mut());
        match self.wide {
            Precision::Bf16 if pass.arithmetic == Arithmetic::Reduced => {
                self.feed_forward(pass, x, wide.resized::<bf16>(n, f), out);
            }
            _ => self.feed_forward(pass, x, wide.resized::<f32>(n, f), out),
        }
        self.norm.add_and_normalise(pass.team, hidden, attended.view());
    }

    /// `out = contract(activation(expand(x)))`; `x, out: [N, D]`, `wide: [N, F]`.
    fn feed_forward<E: Element>(
        &self,
        Pass { team, arithmetic, .. }: Pass,
        x: ArrayView2<f32>,
        mut wide: ArrayViewMut2<E>,
        out: ArrayViewMut2<f32>,
    ) {
        self.expand.forward_into(team, arithmetic, x, self.activation, wide.view_mut());
        self.contract.forward_into(team, arithmetic, wide.view(), Activation::Identity, out);
    }

    /// The attention probabilities of each text, `[H, T, T]`, for the layer's input `x: [N, D]`.
    pub(super) fn attentions(&self, pass: Pass, x: ArrayView2<f32>) -> Vec<Array3<f32>> {
        self.attention.probabilities(self.within(pass), x)
    }

    /// Whether the layer can compute in full though its weights are rounded to integers.
    pub(super) fn computes_in_full(&self) -> bool {
        self.expand.has_rest()
    }

    /// The pass with an arithmetic that this layer can compute in.
    fn within<'a>(&self, pass: Pass<'a>) -> Pass<'a> {
        match self.computes_in_full() {
            true => pass,
            false => Pass { arithmetic: Arithmetic::Reduced, ..pass },
        }
    }
}
