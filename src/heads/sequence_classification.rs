//! [`SequenceClassification`]: which label fits the text, or the pair of texts?

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayRef2, ArrayView1, ArrayView2};

use super::backbone::{Backbone, Kind, Source, first_tokens};
use super::head_config::{ProblemType, SavedActivation};
use super::probability::{best, sigmoid, softmax};
use crate::batch::Batch;
use crate::error::{Error, Result, TextProblem, at_least_one};
use crate::kernels::activation::Activation;
use crate::nn::Linear;
use crate::tokenizer::Tokens;

/// A classifier of whole texts, or a cross-encoder of pairs: `MPNetForSequenceClassification`.
///
/// ```text
/// logits = tanh(hidden[<s>] · Wᵀ + b) · Oᵀ + o
/// ```
///
/// ```
/// use mpnet::heads::SequenceClassification;
///
/// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("sequence_classification");
/// let model = SequenceClassification::from_pretrained(files)?; // a directory, say "models/mpnet-sentiment"
/// for best in model.classify(&["What a film!", "I want my two hours back."])? {
///     println!("{} {:.3}", best.label, best.score);
/// }
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug)]
pub struct SequenceClassification {
    pub(super) backbone: Backbone,
    dense: Linear,
    out_proj: Linear,
    labels: Vec<String>,
    problem_type: Option<ProblemType>,
    function: ClassificationFunction,
    prompts: BTreeMap<String, String>,
    /// What is put before the first text of each pair.
    prompt: String,
    /// The longest pair in tokens; `CrossEncoder` would cut a longer one.
    max_pair_length: usize,
}

/// What turns logits into scores: `function_to_apply` of transformers' text-classification
/// pipeline.
///
/// ```
/// use mpnet::heads::ClassificationFunction;
///
/// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("sequence_classification");
/// # let model = mpnet::heads::SequenceClassification::from_pretrained(files)?;
/// let model = model.function_to_apply(ClassificationFunction::Sigmoid);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassificationFunction {
    /// Each score by itself from 0 to 1.
    Sigmoid,
    /// Scores from 0 to 1 that add up to 1.
    Softmax,
    /// The logits as they are.
    None,
}

impl ClassificationFunction {
    /// By the name of its class in Python.
    fn saved(saved: &SavedActivation) -> Result<Self> {
        let SavedActivation { file, field, class } = saved;
        Ok(match class.as_str() {
            "torch.nn.modules.activation.Sigmoid" | "torch.nn.Sigmoid" => Self::Sigmoid,
            "torch.nn.modules.linear.Identity" | "torch.nn.Identity" => Self::None,
            _ => {
                let problem = format!(
                    "`{class}` is not known; torch.nn.modules.activation.Sigmoid and \
                     torch.nn.modules.linear.Identity are"
                );
                return Err(Error::Field {
                    file: file.clone(),
                    field: (*field).to_owned(),
                    problem,
                });
            }
        })
    }
}

/// A label and how well it fits.
///
/// ```
/// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("sequence_classification");
/// # let model = mpnet::heads::SequenceClassification::from_pretrained(files)?;
/// let best = &model.classify(&["What a day!"])?[0];
/// assert_eq!(best.label, model.labels()[best.id]);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LabelScore {
    /// The label's place in [`SequenceClassification::labels`].
    pub id: usize,
    /// Its name.
    pub label: String,
    /// Its score, by the head's [`ClassificationFunction`].
    pub score: f32,
}

super::pretrained!(SequenceClassification, "sequence_classification");

impl SequenceClassification {
    pub(super) fn load(source: &Source) -> Result<Self> {
        source.expect(Kind::SequenceClassification)?;
        let (d, w) = (source.config.hidden_size, source.head().at("classifier"));
        let dense = Linear::prepare(&w.at("dense"), (d, d), &source.at)?;
        let (out_proj, labels) = source
            .head_config
            .labelled(|c| Linear::prepare(&w.at("out_proj"), (d, c), &source.at))?;
        let problem_type = source.head_config.problem_type;
        let saved = source.head_config.activation.as_ref();
        let function = match (saved, problem_type) {
            (Some(saved), _) => ClassificationFunction::saved(saved)?,
            (_, Some(ProblemType::Regression)) => ClassificationFunction::None,
            (_, Some(ProblemType::MultiLabelClassification)) => ClassificationFunction::Sigmoid,
            _ if labels.len() == 1 => ClassificationFunction::Sigmoid,
            _ => ClassificationFunction::Softmax,
        };
        let backbone = source.backbone()?;
        let (mut prompts, mut prompt) = (BTreeMap::new(), String::new());
        let mut max_pair_length = backbone.model_max_length;
        if let Some(saved) = &source.cross_encoder {
            prompts.clone_from(&saved.prompts);
            let default = saved.default_prompt_name.as_ref().and_then(|name| prompts.get(name));
            prompt = default.cloned().unwrap_or_default();
            let positions = source.config.max_tokens();
            max_pair_length = saved.max_seq_length.unwrap_or(max_pair_length).min(positions);
        }
        Ok(Self {
            backbone,
            dense,
            out_proj,
            labels,
            problem_type,
            function,
            prompts,
            prompt,
            max_pair_length,
        })
    }

    /// The same head with another function than the one that follows from its files: the activation
    /// that sentence-transformers has saved with a cross-encoder (`activation_fn` in
    /// `config_sentence_transformers.json`, or in `config.json` where earlier versions put it);
    /// without one none for a regression, a sigmoid if there is one label or each is for itself
    /// (`multi_label_classification`), softmax otherwise.
    ///
    /// ```
    /// use mpnet::heads::ClassificationFunction;
    ///
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("sequence_classification");
    /// # let model = mpnet::heads::SequenceClassification::from_pretrained(files)?;
    /// let model = model.function_to_apply(ClassificationFunction::None);
    /// println!("a logit: {}", model.classify(&["What a day!"])?[0].score);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn function_to_apply(mut self, function: ClassificationFunction) -> Self {
        self.function = function;
        self
    }

    /// The prompts by name that sentence-transformers has saved with a cross-encoder; none of other
    /// models.
    ///
    /// The one that was saved as the default, if any, is put before the first text of each pair, as
    /// `CrossEncoder.predict` does. [`classify`](Self::classify) uses no prompt, like transformers'
    /// pipeline.
    ///
    /// ```
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("sequence_classification");
    /// # let model = mpnet::heads::SequenceClassification::from_pretrained(files)?;
    /// assert!(model.prompts().is_empty());
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn prompts(&self) -> &BTreeMap<String, String> {
        &self.prompts
    }

    /// The same head with this prompt for pairs instead of the default one; `""` for none.
    ///
    /// ```
    /// # let files = || include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("sequence_classification");
    /// # let load = || mpnet::heads::SequenceClassification::from_pretrained(files());
    /// let (plain, prompted) = (load()?, load()?.prompt("the man: "));
    /// let scores = prompted.classify_pairs(&[("was here", "who is there")])?;
    /// assert_eq!(scores, plain.classify_pairs(&[("the man: was here", "who is there")])?);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn prompt(mut self, prompt: impl Into<String>) -> Self {
        self.prompt = prompt.into();
        self
    }

    /// The same head with the prompt of this name for pairs instead of the default one.
    ///
    /// ```
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("sequence_classification");
    /// # let model = mpnet::heads::SequenceClassification::from_pretrained(files)?;
    /// assert!(model.prompt_name("query").is_err()); // this model has no prompts
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if there is none of that name.
    pub fn prompt_name(self, name: &str) -> Result<Self> {
        let prompt = self.prompts.get(name).cloned().ok_or_else(|| Error::Option {
            option: "prompt_name",
            problem: format!("the model has no prompt `{name}`"),
        })?;
        Ok(self.prompt(prompt))
    }

    /// The labels' names, `[C]`: `id2label`, or `LABEL_0`, `LABEL_1`, ….
    ///
    /// ```
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("sequence_classification");
    /// # let model = mpnet::heads::SequenceClassification::from_pretrained(files)?;
    /// assert_eq!(model.labels(), ["negative", "neutral", "positive"]);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What `config.json` says that the head was trained for.
    ///
    /// ```
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("sequence_classification");
    /// # let model = mpnet::heads::SequenceClassification::from_pretrained(files)?;
    /// println!("{:?}", model.problem_type());
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn problem_type(&self) -> Option<ProblemType> {
        self.problem_type
    }

    /// The logits of each text of a batch, `[B, C]`.
    ///
    /// ```
    /// use mpnet::Batch;
    ///
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("sequence_classification");
    /// # let model = mpnet::heads::SequenceClassification::from_pretrained(files)?;
    /// let tokens = model.tokenizer().encode(&["What a day!"], 128)?;
    /// let logits = model.forward(&Batch::new(&tokens, model.model().config())?)?;
    /// assert_eq!(logits.dim(), (1, 3));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TextProblem::TokenId`](crate::TextProblem::TokenId) or
    /// [`TextProblem::TooLong`](crate::TextProblem::TooLong) if the batch was made for another
    /// model.
    pub fn forward(&self, batch: &Batch) -> Result<Array2<f32>> {
        self.logits(&self.backbone.hidden(batch)?, batch)
    }

    /// The logits of each text. `hidden`: `[N, D]`, of
    /// [`Mpnet::forward`](crate::model::Mpnet::forward), → `[B, C]`.
    ///
    /// ```
    /// use mpnet::Batch;
    ///
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("sequence_classification");
    /// # let model = mpnet::heads::SequenceClassification::from_pretrained(files)?;
    /// let batch = Batch::new(&[[0, 7, 2]], model.model().config())?;
    /// let hidden = model.model().forward(&batch);
    /// assert_eq!(model.logits(&hidden, &batch)?, model.forward(&batch)?);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Option`](crate::Error::Option) if `hidden` has not the model's width, or not a row
    /// for each token.
    pub fn logits(&self, hidden: &ArrayRef2<f32>, batch: &Batch) -> Result<Array2<f32>> {
        self.backbone.check_hidden(hidden, Some(batch))?;
        Ok(self.project(hidden.view(), batch))
    }

    /// The label that fits each text best.
    ///
    /// transformers' text-classification pipeline; the text may have as many tokens as the model
    /// has positions.
    ///
    /// ```
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("sequence_classification");
    /// # let model = mpnet::heads::SequenceClassification::from_pretrained(files)?;
    /// let labels = model.classify(&["What a day!", "I was in the house."])?;
    /// assert_eq!(labels.len(), 2);
    /// println!("{} {:.3}", labels[0].label, labels[0].score);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TextProblem::TooLong`](crate::TextProblem::TooLong) if a text has more,
    /// [`TextProblem::Tokenizer`](crate::TextProblem::Tokenizer) if the tokenizer fails.
    pub fn classify<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<LabelScore>> {
        Ok(self.classify_top_k(texts, 1)?.into_iter().flatten().collect())
    }

    /// For each text the `top_k` labels that fit best, the best first; all if there are fewer.
    ///
    /// ```
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("sequence_classification");
    /// # let model = mpnet::heads::SequenceClassification::from_pretrained(files)?;
    /// let labels = model.classify_top_k(&["What a day!"], 3)?;
    /// let sum: f32 = labels[0].iter().map(|label| label.score).sum();
    /// assert!((sum - 1.0).abs() < 1e-6);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`classify`](Self::classify), and [`Error::Option`](crate::Error::Option) if `top_k` is
    /// 0.
    pub fn classify_top_k<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        top_k: usize,
    ) -> Result<Vec<Vec<LabelScore>>> {
        at_least_one("top_k", top_k)?;
        self.rank(&self.backbone.encode(texts)?, top_k)
    }

    /// The label that fits each pair of texts best. If the head has a single label, as those of
    /// rerankers have, this is the score of the pair. A pair with an empty text is a pair too.
    ///
    /// sentence-transformers' `CrossEncoder.predict`, with the [prompt](Self::prompts) that it puts
    /// before the first text. A pair may be as long as that class allows (`max_seq_length`, else
    /// `model_max_length`, at most the model's positions); a longer one is an error, where that
    /// class cuts it.
    ///
    /// ```
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("sequence_classification");
    /// # let model = mpnet::heads::SequenceClassification::from_pretrained(files)?;
    /// let labels = model.classify_pairs(&[("who was there?", "no one was there")])?;
    /// assert_eq!(labels.len(), 1);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`classify`](Self::classify).
    pub fn classify_pairs<A: AsRef<str> + Sync, B: AsRef<str> + Sync>(
        &self,
        pairs: &[(A, B)],
    ) -> Result<Vec<LabelScore>> {
        Ok(self.classify_pairs_top_k(pairs, 1)?.into_iter().flatten().collect())
    }

    /// For each pair the `top_k` labels that fit best, the best first; all if there are fewer.
    ///
    /// ```
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("sequence_classification");
    /// # let model = mpnet::heads::SequenceClassification::from_pretrained(files)?;
    /// let labels = model.classify_pairs_top_k(&[("who was there?", "no one was there")], 2)?;
    /// assert!(labels[0][0].score >= labels[0][1].score);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`classify_top_k`](Self::classify_top_k).
    pub fn classify_pairs_top_k<A: AsRef<str> + Sync, B: AsRef<str> + Sync>(
        &self,
        pairs: &[(A, B)],
        top_k: usize,
    ) -> Result<Vec<Vec<LabelScore>>> {
        at_least_one("top_k", top_k)?;
        let tokens = if self.prompt.is_empty() {
            self.backbone.encode_pairs(pairs)?
        } else {
            let prompted = |(first, second): &(A, B)| {
                (format!("{}{}", self.prompt, first.as_ref()), second.as_ref().to_owned())
            };
            self.backbone.encode_pairs(&pairs.iter().map(prompted).collect::<Vec<_>>())?
        };
        let limit = self.max_pair_length;
        let long = |tokens: &Tokens| tokens.ids.len() > limit;
        match tokens.iter().position(long) {
            Some(text) => Err(Error::Text {
                text,
                problem: TextProblem::TooLong { tokens: tokens[text].ids.len(), limit },
            }),
            None => self.rank(&tokens, top_k),
        }
    }

    /// `hidden: [N, D]` → `[B, C]`
    fn project(&self, hidden: ArrayView2<f32>, batch: &Batch) -> Array2<f32> {
        let first = first_tokens(hidden, batch); // [B, D]
        let x = self.dense.forward(first.view(), Activation::Tanh); // [B, D]
        self.out_proj.forward(x.view(), Activation::Identity)
    }

    fn rank(&self, tokens: &[Tokens], top_k: usize) -> Result<Vec<Vec<LabelScore>>> {
        let project = |hidden: ArrayView2<f32>, batch: &Batch| self.project(hidden, batch);
        let logits = self.backbone.per_text(tokens, self.labels.len(), project)?;
        let of_text = |logits: ArrayView1<f32>| {
            let scores = self.scores(logits);
            let label =
                |id| LabelScore { id, label: self.labels[id].clone(), score: scores[id] as f32 };
            best(&scores, top_k).into_iter().map(label).collect()
        };
        Ok(logits.rows().into_iter().map(of_text).collect())
    }

    fn scores(&self, logits: ArrayView1<f32>) -> Vec<f64> {
        match self.function {
            ClassificationFunction::Sigmoid => logits.iter().map(|&x| sigmoid(x)).collect(),
            ClassificationFunction::Softmax => softmax(logits),
            ClassificationFunction::None => logits.iter().map(|&x| f64::from(x)).collect(),
        }
    }
}
