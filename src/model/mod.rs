//! MPNet, a file for each box of the figure:
//!
//! ```text
//! Batch ─▶ embeddings ─▶ encoder: L × layer ───────────────────▶ hidden [N, D] ─▶ pooler [B, D]
//!                                  ├ attention ◀─ position_bias
//!                                  └ feed-forward
//! ```
//!
//! The heads, which turn hidden states into answers about a text, are in [`heads`](crate::heads).
//!
//! BERT's post-norm encoder, with one addition: a learned bias on every attention score that
//! depends on the distance between the two tokens, from one small table shared by all layers.
//!
//! Source: Song et al. 2020, <https://arxiv.org/abs/2004.09297>; relative positions as in Raffel et
//! al. 2020, section 2.1,
//! <https://arxiv.org/abs/1910.10683>.

mod attention;
mod buffers;
mod embeddings;
mod encoder;
mod layer;
mod monotony;
mod parameters;
mod pass;
mod plan;
mod pooler;
mod position_bias;

use ndarray::{Array2, Array3, ArrayRef2, ArrayView2, s};

use crate::batch::Batch;
use crate::checkpoint::Weights;
use crate::config::Config;
use crate::error::Result;
use crate::kernels::Team;
use crate::nn::Arithmetic;

pub use crate::nn::{
    EmbeddingParameters, LayerNormParameters, LinearParameters, NamedParameters, Parameters,
    Placement,
};
pub(crate) use buffers::Buffers;
use embeddings::Embeddings;
use encoder::Encoder;
pub use parameters::{
    AttentionParameters, DenseParameters, EmbeddingsParameters, EncoderParameters, LayerParameters,
    MpnetParameters, OutputParameters, PoolerParameters, ProjectionParameters,
};
use pass::Pass;
pub use plan::Plan;
use pooler::Pooler;
use position_bias::PositionBias;

/// The MPNet encoder: token ids → hidden states.
///
/// Shapes: `N` tokens in the batch, `D` [`hidden_size`](Config::hidden_size), `H` heads, `T` tokens
/// of one text.
///
/// ```
/// use mpnet::Batch;
///
/// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
/// let tokens = encoder.tokenizer().encode(&["a man is eating food"], 128)?;
/// let batch = Batch::new(&tokens, encoder.model().config())?;
/// let hidden = encoder.model().forward(&batch); // [N, D]
/// assert_eq!(hidden.dim(), (tokens[0].ids.len(), 32));
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug)]
pub struct Mpnet {
    config: Config,
    plan: Plan,
    embeddings: Embeddings,
    position_bias: PositionBias,
    encoder: Encoder,
    pooler: Option<Pooler>,
}

impl Mpnet {
    /// Prepares the model at `w`, which [`Checkpoint::encoder`](crate::Checkpoint::encoder) finds,
    /// in `f32`, for the instruction set that `MPNET_ISA` names, else the fastest of this machine.
    ///
    /// ```
    /// use mpnet::{Checkpoint, Config, model::Mpnet};
    ///
    /// # let read = |name: &str| std::fs::read(format!("tests/data/tiny/{name}")).unwrap();
    /// # let (weights, json) = (read("model.safetensors"), read("config.json"));
    /// let config = Config::from_json(json, "config.json")?;
    /// let model = Mpnet::load(&Checkpoint::from_bytes(&weights)?.encoder()?, &config)?;
    /// assert_eq!(model.config(), &config);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Placement::detect`] and [`prepare`](Self::prepare).
    pub fn load(w: &Weights, config: &Config) -> Result<Self> {
        Self::prepare(w, config, &Placement::detect()?)
    }

    /// Prepares the model from the parameters at `w`, a checkpoint's or
    /// [those in memory](NamedParameters::root): the same parameters give the same bits.
    ///
    /// ```
    /// use mpnet::model::{Mpnet, Placement};
    /// use mpnet::{Checkpoint, Config, Precision};
    ///
    /// # let read = |name: &str| std::fs::read(format!("tests/data/tiny/{name}")).unwrap();
    /// # let (weights, json) = (read("model.safetensors"), read("config.json"));
    /// let config = Config::from_json(json, "config.json")?;
    /// let at = Placement::detect()?.precision(Precision::Int8);
    /// let model = Mpnet::prepare(&Checkpoint::from_bytes(&weights)?.encoder()?, &config, &at)?;
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TensorProblem::Missing`](crate::TensorProblem::Missing),
    /// [`TensorProblem::Shape`](crate::TensorProblem::Shape) or
    /// [`TensorProblem::Dtype`](crate::TensorProblem::Dtype), with the tensor's name;
    /// [`Error::Option`](crate::Error::Option) if the operating system refuses the instruction set.
    pub fn prepare(w: &Weights, config: &Config, at: &Placement) -> Result<Self> {
        Self::prepare_by(w, config, Plan::new(config, at, false), at)
    }

    /// As [`prepare`](Self::prepare). In 8 bits the first layers keep the residuals of their
    /// weights, with which monotonous texts are computed.
    pub(crate) fn prepare_with_residuals(
        w: &Weights,
        config: &Config,
        at: &Placement,
    ) -> Result<Self> {
        Self::prepare_by(w, config, Plan::new(config, at, true), at)
    }

    fn prepare_by(w: &Weights, config: &Config, plan: Plan, at: &Placement) -> Result<Self> {
        at.isa().permitted()?;
        let w = &w.clone().tied(config.tie_word_embeddings);
        let embeddings = Embeddings::prepare(&w.at("embeddings"), config, &plan, at)?;
        let input = embeddings.smoothing();
        Ok(Self {
            position_bias: PositionBias::prepare(&w.at("encoder.relative_attention_bias"), config)?,
            encoder: Encoder::prepare(&w.at("encoder"), config, &plan, at, input)?,
            embeddings,
            pooler: Pooler::prepare(&w.at("pooler"), config, at)?,
            config: config.clone(),
            plan,
        })
    }

    /// The arithmetic of the model: the precision of each kind of product, and what is done about
    /// rounding.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// println!("{:#?}", encoder.model().plan());
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The sizes that the model was loaded with.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// assert_eq!(encoder.model().config().num_hidden_layers, 3);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The hidden states after the last layer, `[N, D]`.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let batch = mpnet::Batch::new(&[vec![0, 7, 2], vec![0, 2]], encoder.model().config())?;
    /// let hidden = encoder.model().forward(&batch);
    /// let of_second = hidden.slice(mpnet::ndarray::s![batch.range(1), ..]);
    /// assert_eq!(of_second.dim(), (2, 32));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If `batch` was made for another [`Config`] and has ids or lengths that this one does not
    /// allow.
    #[must_use]
    pub fn forward(&self, batch: &Batch) -> Array2<f32> {
        let mut buffers = Buffers::default();
        self.forward_in(&Team::gather(), batch, &mut buffers).to_owned()
    }

    /// As [`Mpnet::forward`], by the threads of `team` and in memory that is there: a view of it,
    /// `[N, D]`.
    pub(crate) fn forward_in<'b>(
        &self,
        team: &Team,
        batch: &Batch,
        buffers: &'b mut Buffers,
    ) -> ArrayView2<'b, f32> {
        let (n, d) = (batch.ids().len(), self.config.hidden_size);
        match self.parts(batch).as_slice() {
            [] => self.run(team, Arithmetic::Reduced, batch, buffers, |_| {}),
            [(arithmetic, part)] => self.run(team, *arithmetic, part, buffers, |_| {}),
            parts => {
                let mut hidden = Array2::zeros((n, d));
                for (arithmetic, part) in parts {
                    self.run(team, *arithmetic, part, buffers, |_| {});
                    scatter_tokens(part, buffers.hidden.view(part.ids().len()), batch, &mut hidden);
                }
                buffers.hidden.resized(n, d).assign(&hidden);
            }
        }
        buffers.hidden.view(n)
    }

    /// The texts of `batch` by how they are computed; nothing if no text is computed in full.
    fn parts(&self, batch: &Batch) -> Vec<(Arithmetic, Batch)> {
        if self.encoder.computes_in_full() { monotony::parts(batch) } else { Vec::new() }
    }

    /// Puts the hidden states of all of `batch`, `[N, D]`, into `buffers`, and shows them to
    /// `visit` before the first and after each layer.
    fn run(
        &self,
        team: &Team,
        arithmetic: Arithmetic,
        batch: &Batch,
        buffers: &mut Buffers,
        mut visit: impl FnMut(ArrayView2<f32>),
    ) {
        let (n, d) = (batch.ids().len(), self.config.hidden_size);
        let mut hidden = buffers.hidden.resized(n, d);
        self.embeddings.forward(team, batch, hidden.view_mut());
        visit(hidden.view());
        let pass = Pass { team, batch, bias: &self.position_bias, arithmetic };
        self.encoder.forward(pass, hidden, &mut buffers.layer, visit);
    }

    /// The embeddings and the hidden states after each layer, `L + 1` arrays `[N, D]`.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let batch = mpnet::Batch::new(&[[0, 7, 2]], encoder.model().config())?;
    /// let states = encoder.model().hidden_states(&batch);
    /// assert_eq!(states.len(), 1 + encoder.model().config().num_hidden_layers);
    /// assert_eq!(states[3], encoder.model().forward(&batch));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// As [`Mpnet::forward`].
    #[must_use]
    pub fn hidden_states(&self, batch: &Batch) -> Vec<Array2<f32>> {
        let (team, mut buffers) = (Team::gather(), Buffers::default());
        let shape = (batch.ids().len(), self.config.hidden_size);
        let mut states = vec![Array2::zeros(shape); 1 + self.config.num_hidden_layers];
        for (arithmetic, part) in self.all_parts(batch) {
            let mut layers = states.iter_mut();
            self.run(&team, arithmetic, &part, &mut buffers, |hidden| {
                let state = layers.next().expect("one for each layer and the embeddings");
                scatter_tokens(&part, hidden, batch, state);
            });
        }
        states
    }

    /// The attention probabilities, for each layer and each text an array `[H, T, T]`: head, query,
    /// key.
    ///
    /// They are computed here anew: the forward pass never holds more than a few rows of them.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let batch = mpnet::Batch::new(&[[0, 7, 2]], encoder.model().config())?;
    /// let attentions = encoder.model().attentions(&batch);
    /// let first = &attentions[0][0]; // layer 0, text 0
    /// assert_eq!(first.dim(), (4, 3, 3));
    /// assert!((first.sum() - 12.0).abs() < 1e-5); // each query's probabilities add up to 1
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// As [`Mpnet::forward`].
    #[must_use]
    pub fn attentions(&self, batch: &Batch) -> Vec<Vec<Array3<f32>>> {
        let (team, mut buffers) = (Team::gather(), Buffers::default());
        let none = || vec![Array3::default((0, 0, 0)); batch.len()];
        let mut all = vec![none(); self.config.num_hidden_layers];
        for (arithmetic, part) in self.all_parts(batch) {
            let mut states = Vec::new();
            self.run(&team, arithmetic, &part, &mut buffers, |hidden| {
                states.push(hidden.to_owned());
            });
            let bias = &self.position_bias;
            let pass = Pass { team: &team, batch: &part, bias, arithmetic };
            let of_part = self.encoder.attentions(pass, &states);
            for (all, of_part) in all.iter_mut().zip(of_part) {
                part.texts().iter().zip(of_part).for_each(|(&text, scores)| all[text] = scores);
            }
        }
        all
    }

    /// As [`parts`](Self::parts), the only one too.
    fn all_parts(&self, batch: &Batch) -> Vec<(Arithmetic, Batch)> {
        let parts = self.parts(batch);
        let all: Vec<usize> = (0..batch.len()).collect();
        if parts.is_empty() { vec![(Arithmetic::Reduced, batch.select(&all))] } else { parts }
    }

    /// The position bias of a text of `t` tokens, `[H, T, T]`: what is added to the scaled
    /// attention scores in every layer.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let bias = encoder.model().position_bias(5);
    /// assert_eq!(bias.dim(), (4, 5, 5));
    /// assert_eq!(bias[[0, 0, 1]], bias[[0, 3, 4]]); // of the distance alone
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If `t` is more than [`Config::max_tokens`].
    #[must_use]
    pub fn position_bias(&self, t: usize) -> Array3<f32> {
        let bias = |(head, i, j): (usize, usize, usize)| self.position_bias.row(head, i, t)[j];
        Array3::from_shape_fn((self.config.num_attention_heads, t, t), bias)
    }

    /// The pooler's output for each text, `[B, D]`: `tanh` of a linear layer over the first token.
    /// `None` if the checkpoint has no pooler. Sentence embeddings do not use it.
    ///
    /// `hidden`: `[N, D]`, of [`Mpnet::forward`].
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let batch = mpnet::Batch::new(&[[0, 7, 2]], encoder.model().config())?;
    /// let hidden = encoder.model().forward(&batch);
    /// if let Some(pooled) = encoder.model().pooler_output(&hidden, &batch) {
    ///     assert_eq!(pooled.dim(), (1, 32));
    /// }
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If `hidden` has fewer rows than `batch` has tokens.
    #[must_use]
    pub fn pooler_output(&self, hidden: &ArrayRef2<f32>, batch: &Batch) -> Option<Array2<f32>> {
        self.pooler.as_ref().map(|pooler| pooler.forward(hidden.view(), batch))
    }
}

/// Puts the tokens of `part`, `[n, D]`, where they are in the `[N, D]` of all of `batch`, of which
/// it is a part.
fn scatter_tokens(part: &Batch, rows: ArrayView2<f32>, batch: &Batch, out: &mut Array2<f32>) {
    for (tokens, &text) in part.ranges().zip(part.texts()) {
        out.slice_mut(s![batch.range(text), ..]).assign(&rows.slice(s![tokens, ..]));
    }
}
