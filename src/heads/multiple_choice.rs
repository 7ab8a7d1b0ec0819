//! [`MultipleChoice`]: which of the choices fits the question?

use ndarray::{Array2, ArrayRef2, ArrayView2};

use super::backbone::{Backbone, Kind, Source};
use super::probability::softmax;
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::kernels::activation::Activation;
use crate::nn::Linear;

/// A score for each pair of question and choice: `MPNetForMultipleChoice`.
///
/// ```text
/// logit = tanh(hidden[<s>] · Wᵀ + b) · o + c        (the pooler, then one number)
/// ```
///
/// ```
/// use mpnet::heads::MultipleChoice;
///
/// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("multiple_choice");
/// let model = MultipleChoice::from_pretrained(files)?; // a directory, say "models/mpnet-swag"
/// let scores = model.choose("She opened the door and", &["went in.", "ate it."])?;
/// println!("{scores:?}");
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug)]
pub struct MultipleChoice {
    pub(super) backbone: Backbone,
    classifier: Linear,
}

super::pretrained!(MultipleChoice, "multiple_choice");

impl MultipleChoice {
    pub(super) fn load(source: &Source) -> Result<Self> {
        source.expect(Kind::MultipleChoice)?;
        let classifier = Linear::prepare(
            &source.head().at("classifier"),
            (source.config.hidden_size, 1),
            &source.at,
        )?;
        Ok(Self { classifier, backbone: source.backbone()? })
    }

    /// The logits of `num_choices` choices for each question, `[B / K, K]`. `batch` has `B` pairs
    /// of a question and a choice: all choices of the first question, then all of the second, ….
    ///
    /// ```
    /// use mpnet::Batch;
    ///
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("multiple_choice");
    /// # let model = mpnet::heads::MultipleChoice::from_pretrained(files)?;
    /// let question = "The people were";
    /// let pairs = [(question, "at home"), (question, "in the river")];
    /// let tokens = model.tokenizer().encode_pairs(&pairs, 128)?;
    /// let logits = model.forward(&Batch::new(&tokens, model.model().config())?, 2)?;
    /// assert_eq!(logits.dim(), (1, 2));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if `num_choices` is 0 or does not divide `B`;
    /// [`TextProblem::TokenId`](crate::TextProblem::TokenId) or
    /// [`TextProblem::TooLong`](crate::TextProblem::TooLong) if the batch was made for another
    /// model.
    pub fn forward(&self, batch: &Batch, num_choices: usize) -> Result<Array2<f32>> {
        self.logits(&self.backbone.hidden(batch)?, batch, num_choices)
    }

    /// As [`forward`](Self::forward), for `hidden` `[N, D]` of
    /// [`Mpnet::forward`](crate::model::Mpnet::forward).
    ///
    /// ```
    /// use mpnet::Batch;
    ///
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("multiple_choice");
    /// # let model = mpnet::heads::MultipleChoice::from_pretrained(files)?;
    /// let batch = Batch::new(&[[0, 7, 2, 2, 8, 2], [0, 7, 2, 2, 9, 2]], model.model().config())?;
    /// let hidden = model.model().forward(&batch);
    /// assert_eq!(model.logits(&hidden, &batch, 2)?, model.forward(&batch, 2)?);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if `num_choices` is 0 or does not divide `B`, or if `hidden` has not the
    /// model's width, or not a row for each token.
    pub fn logits(
        &self,
        hidden: &ArrayRef2<f32>,
        batch: &Batch,
        num_choices: usize,
    ) -> Result<Array2<f32>> {
        self.backbone.check_hidden(hidden, Some(batch))?;
        let pairs = batch.len();
        if num_choices == 0 || !pairs.is_multiple_of(num_choices) {
            return Err(Error::Option {
                option: "num_choices",
                problem: format!("is {num_choices}, must divide the batch's {pairs} pairs"),
            });
        }
        let logits = self.project(hidden.view(), batch).into_raw_vec_and_offset().0;
        let shape = (pairs / num_choices, num_choices);
        Ok(Array2::from_shape_vec(shape, logits).expect("one logit a pair"))
    }

    /// How well each choice fits the question, from 0 to 1, adding up to 1, in the order of the
    /// choices: softmax over the logits of the pairs `(question, choice)`.
    ///
    /// ```
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("multiple_choice");
    /// # let model = mpnet::heads::MultipleChoice::from_pretrained(files)?;
    /// let scores = model.choose("The people were", &["at home", "in the river"])?;
    /// assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if there are no choices;
    /// [`TextProblem::TooLong`](crate::TextProblem::TooLong) if question and choice number `text`
    /// together have more tokens than the model has positions.
    pub fn choose<S: AsRef<str> + Sync>(&self, question: &str, choices: &[S]) -> Result<Vec<f32>> {
        if choices.is_empty() {
            let problem = "there are none to choose from".to_owned();
            return Err(Error::Option { option: "choices", problem });
        }
        let pairs: Vec<(&str, &str)> =
            choices.iter().map(|choice| (question, choice.as_ref())).collect();
        let tokens = self.backbone.encode_pairs(&pairs)?;
        let project = |hidden: ArrayView2<f32>, batch: &Batch| self.project(hidden, batch);
        let logits = self.backbone.per_text(&tokens, 1, project)?;
        Ok(softmax(logits.column(0)).into_iter().map(|score| score as f32).collect())
    }

    /// `hidden: [N, D]` → `[B, 1]`
    fn project(&self, hidden: ArrayView2<f32>, batch: &Batch) -> Array2<f32> {
        let pooled = self.backbone.model.pooler_output(&hidden, batch);
        self.classifier
            .forward(pooled.expect("`load` asks for a pooler").view(), Activation::Identity)
    }
}
