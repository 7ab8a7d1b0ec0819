//! [`TokenClassification`]: which stretches of the text are names, places, …?

use std::ops::Range;

use ndarray::{Array2, ArrayRef2, ArrayView2};

use super::aggregation::{AggregationStrategy, Piece, Tagged, aggregate, without_overlaps};
use super::backbone::{Backbone, Kind, Source};
use super::probability::softmax;
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::kernels::activation::Activation;
use crate::nn::Linear;
use crate::tokenizer::{Located, Tokens, WindowOptions};

/// A label for each token, as in named-entity recognition: `MPNetForTokenClassification`.
///
/// ```text
/// logits = hidden · Wᵀ + b
/// ```
///
/// ```
/// use mpnet::heads::{AggregationStrategy, TokenClassification, TokenClassificationOptions};
///
/// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("token_classification");
/// let model = TokenClassification::from_pretrained(files)?; // a directory, say "models/mpnet-ner"
/// let text = "Angela Merkel lived in Berlin.";
/// let options = TokenClassificationOptions::default().aggregation(AggregationStrategy::First);
/// for entity in &model.classify_with(&[text], &options)?[0] {
///     println!("{} {:?}", entity.label, &text[entity.range.clone()]);
/// }
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug)]
pub struct TokenClassification {
    pub(super) backbone: Backbone,
    classifier: Linear,
    labels: Vec<String>,
}

/// Options of [`TokenClassification::classify_with`].
///
/// ```
/// use mpnet::heads::{AggregationStrategy, TokenClassificationOptions};
///
/// let options = TokenClassificationOptions::default()
///     .aggregation(AggregationStrategy::Average)
///     .ignore_labels(["O", "MISC"])
///     .stride(32);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct TokenClassificationOptions {
    aggregation: AggregationStrategy,
    ignore_labels: Vec<String>,
    stride: Option<usize>,
}

impl Default for TokenClassificationOptions {
    fn default() -> Self {
        let aggregation = AggregationStrategy::default();
        Self { aggregation, ignore_labels: vec!["O".to_owned()], stride: None }
    }
}

impl TokenClassificationOptions {
    /// How tokens become entities.
    ///
    /// ```
    /// use mpnet::heads::{AggregationStrategy, TokenClassificationOptions};
    ///
    /// let options = TokenClassificationOptions::default().aggregation(AggregationStrategy::Max);
    /// ```
    pub fn aggregation(mut self, strategy: AggregationStrategy) -> Self {
        self.aggregation = strategy;
        self
    }

    /// Labels that are left out of the result, `["O"]` unless set. Of entities, without `B-` and
    /// `I-`.
    ///
    /// ```
    /// use mpnet::heads::TokenClassificationOptions;
    ///
    /// let every_token = TokenClassificationOptions::default().ignore_labels::<String>([]);
    /// ```
    pub fn ignore_labels<S: Into<String>>(mut self, labels: impl IntoIterator<Item = S>) -> Self {
        self.ignore_labels = labels.into_iter().map(Into::into).collect();
        self
    }

    /// Cuts a text that is too long into windows that have `stride` tokens in common; of entities
    /// that overlap, the longest is kept. Without it such a text is an error. It needs an
    /// [`aggregation`](Self::aggregation).
    ///
    /// ```
    /// use mpnet::heads::{AggregationStrategy, TokenClassificationOptions};
    ///
    /// let options = TokenClassificationOptions::default()
    ///     .aggregation(AggregationStrategy::Simple)
    ///     .stride(16);
    /// ```
    pub fn stride(mut self, stride: usize) -> Self {
        self.stride = Some(stride);
        self
    }
}

/// A stretch of text with a label.
///
/// ```
/// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("token_classification");
/// # let model = mpnet::heads::TokenClassification::from_pretrained(files)?;
/// let text = "He was in the old house.";
/// for entity in model.classify(&[text])?.concat() {
///     assert!(text.get(entity.range.clone()).is_some());
/// }
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Entity {
    /// The label of a single token; of several that were joined, without `B-` and `I-`.
    pub label: String,
    /// How sure the model is, from 0 to 1.
    pub score: f32,
    /// The tokens, decoded; of a single token, as the vocabulary has it (`##ing`).
    pub word: String,
    /// The bytes of the text: `&text[range]` is the stretch as it was written.
    pub range: Range<usize>,
    /// Of a single token its place among those of the text, of which `<s>` is number 0.
    pub index: Option<usize>,
}

super::pretrained!(TokenClassification, "token_classification");

impl TokenClassification {
    pub(super) fn load(source: &Source) -> Result<Self> {
        source.expect(Kind::TokenClassification)?;
        let (d, w) = (source.config.hidden_size, source.head().at("classifier"));
        let (classifier, labels) =
            source.head_config.labelled(|c| Linear::prepare(&w, (d, c), &source.at))?;
        Ok(Self { classifier, labels, backbone: source.backbone()? })
    }

    /// The labels' names, `[C]`: `id2label`, or `LABEL_0`, `LABEL_1`, ….
    ///
    /// ```
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("token_classification");
    /// # let model = mpnet::heads::TokenClassification::from_pretrained(files)?;
    /// assert_eq!(model.labels(), ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The logits of each token of a batch, `[N, C]`.
    ///
    /// ```
    /// use mpnet::Batch;
    ///
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("token_classification");
    /// # let model = mpnet::heads::TokenClassification::from_pretrained(files)?;
    /// let tokens = model.tokenizer().encode(&["the old house"], 128)?;
    /// let logits = model.forward(&Batch::new(&tokens, model.model().config())?)?;
    /// assert_eq!(logits.dim(), (5, model.labels().len()));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TextProblem::TokenId`](crate::TextProblem::TokenId) or
    /// [`TextProblem::TooLong`](crate::TextProblem::TooLong) if the batch was made for another
    /// model.
    pub fn forward(&self, batch: &Batch) -> Result<Array2<f32>> {
        self.logits(&self.backbone.hidden(batch)?)
    }

    /// The logits of some tokens. `hidden`: `[N, D]`, any rows of
    /// [`Mpnet::forward`](crate::model::Mpnet::forward), → `[N, C]`.
    ///
    /// ```
    /// use mpnet::Batch;
    ///
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("token_classification");
    /// # let model = mpnet::heads::TokenClassification::from_pretrained(files)?;
    /// let batch = Batch::new(&[[0, 7, 2]], model.model().config())?;
    /// let hidden = model.model().forward(&batch);
    /// assert_eq!(model.logits(&hidden)?, model.forward(&batch)?);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the width is not the model's.
    pub fn logits(&self, hidden: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        self.backbone.check_hidden(hidden, None)?;
        Ok(self.classifier.forward(hidden.view(), Activation::Identity))
    }

    /// The tokens of each text whose label is not `O`. For entities see
    /// [`classify_with`](Self::classify_with).
    ///
    /// ```
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("token_classification");
    /// # let model = mpnet::heads::TokenClassification::from_pretrained(files)?;
    /// let text = "He was in the old house.";
    /// for entity in &model.classify(&[text])?[0] {
    ///     println!("{} {:.3} {:?}", entity.label, entity.score, &text[entity.range.clone()]);
    /// }
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`classify_with`](Self::classify_with).
    pub fn classify<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Vec<Entity>>> {
        self.classify_with(texts, &TokenClassificationOptions::default())
    }

    /// The entities of each text, in the order in which they stand there. transformers'
    /// token-classification pipeline.
    ///
    /// ```
    /// use mpnet::heads::{AggregationStrategy, TokenClassificationOptions};
    ///
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("token_classification");
    /// # let model = mpnet::heads::TokenClassification::from_pretrained(files)?;
    /// let options = TokenClassificationOptions::default()
    ///     .aggregation(AggregationStrategy::First)
    ///     .stride(32); // a text of any length
    /// let entities = model.classify_with(&["many people ".repeat(200)], &options)?;
    /// assert_eq!(entities.len(), 1);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TextProblem::TooLong`](crate::TextProblem::TooLong) if a text has more tokens than the
    /// model has positions, and no stride is set; [`Error::Option`] if the stride leaves no room
    /// for new tokens in a window, or if there is one without an aggregation.
    pub fn classify_with<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: &TokenClassificationOptions,
    ) -> Result<Vec<Vec<Entity>>> {
        if options.stride.is_some() && options.aggregation == AggregationStrategy::None {
            let problem = "needs an aggregation: the tokens of two windows would be there twice";
            return Err(Error::Option { option: "stride", problem: problem.to_owned() });
        }
        let windows = texts
            .iter()
            .enumerate()
            .map(|(text, content)| self.windows(text, content.as_ref(), options.stride))
            .collect::<Result<Vec<_>>>()?;
        let tokens: Vec<Tokens> = windows
            .iter()
            .flatten()
            .map(|window| Tokens { ids: window.ids.clone(), dropped: 0 })
            .collect();
        let logits = self
            .backbone
            .per_token(&tokens, |hidden| self.classifier.forward(hidden, Activation::Identity))?;
        let mut logits = logits.into_iter();
        let mut out = Vec::with_capacity(texts.len());
        for (text, windows) in texts.iter().zip(&windows) {
            let mut entities = Vec::new();
            for (window, logits) in windows.iter().zip(logits.by_ref()) {
                let pieces = self.pieces(text.as_ref(), window, logits.view());
                let join = |tokens| self.backbone.tokenizer.join(tokens);
                let found = aggregate(&pieces, options.aggregation, &self.labels, join)?;
                let wanted = |entity: &Tagged| !options.ignore_labels.contains(&entity.label);
                entities.extend(found.into_iter().filter(wanted));
            }
            if windows.len() > 1 {
                entities = without_overlaps(text.as_ref(), entities);
            }
            out.push(entities.into_iter().map(Entity::from).collect());
        }
        Ok(out)
    }

    fn windows(&self, text: usize, content: &str, stride: Option<usize>) -> Result<Vec<Located>> {
        let window = WindowOptions {
            limit: "model_max_length",
            stride: "stride",
            overlap: stride,
            default_overlap: 0,
        };
        let limit = stride.map_or(usize::MAX, |_| self.backbone.model_max_length);
        self.backbone.tokenizer.located_windows(text, content, None, limit, &window)
    }

    /// The tokens of a window but for the special ones around it. `logits`: `[T, C]`.
    fn pieces(&self, text: &str, window: &Located, logits: ArrayView2<f32>) -> Vec<Piece> {
        let tokenizer = &self.backbone.tokenizer;
        let unknown = tokenizer.token_id(&self.backbone.special.unk);
        let marks_subwords = tokenizer.marks_subwords();
        let tokens = window.ids.iter().zip(&window.places).zip(logits.rows()).enumerate();
        tokens
            .filter_map(|(index, ((&id, place), logits))| {
                let range = place.as_ref()?.range.clone();
                let under = &text[range.clone()];
                let token = tokenizer.token(id).unwrap_or_default();
                let is_unknown = Some(id) == unknown;
                let within_word = match marks_subwords {
                    true => token.chars().count() != under.chars().count(),
                    false => no_space_at(text, range.start),
                };
                Some(Piece {
                    is_subword: !is_unknown && within_word,
                    word: if is_unknown { under.to_owned() } else { token },
                    scores: softmax(logits),
                    range,
                    index,
                })
            })
            .collect()
    }
}

/// Whether `byte` of `text` has a character before it, and no space stands on either side.
fn no_space_at(text: &str, byte: usize) -> bool {
    let (before, after) = text.split_at(byte);
    byte > 0 && !before.ends_with(' ') && !after.starts_with(' ')
}

impl From<Tagged> for Entity {
    fn from(entity: Tagged) -> Self {
        let Tagged { label, score, word, range, index } = entity;
        Self { label, score: score as f32, word, range, index }
    }
}
