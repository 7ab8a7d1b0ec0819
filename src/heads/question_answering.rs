//! [`QuestionAnswering`]: where in the context is the answer?

use std::collections::HashMap;
use std::ops::Range;

use ndarray::{Array2, ArrayRef2, ArrayView2};

use super::backbone::{Backbone, Kind, Source};
use super::spans::Candidates;
use crate::batch::Batch;
use crate::error::{Error, Result, at_least_one};
use crate::kernels::activation::Activation;
use crate::nn::Linear;
use crate::tokenizer::{Located, Place, Tokens, WindowOptions};

/// The longest window that transformers' pipeline makes unless it is told otherwise.
const MAX_SEQ_LEN: usize = 384;

/// What two windows have in common in that pipeline, unless windows are shorter than twice that.
const DOC_STRIDE: usize = 128;

/// Finds the answer to a question in a text: `MPNetForQuestionAnswering`.
///
/// ```text
/// [start, end] = hidden · Wᵀ + b
/// ```
///
/// ```
/// use mpnet::heads::QuestionAnswering;
///
/// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("question_answering");
/// let model = QuestionAnswering::from_pretrained(files)?; // a directory, say "models/mpnet-squad2"
/// let context = "The Spree flows through Berlin.";
/// let answer = model.answer("Which river flows through Berlin?", context)?;
/// println!("{} ({:.3}), bytes {:?}", answer.text, answer.score, answer.range);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug)]
pub struct QuestionAnswering {
    pub(super) backbone: Backbone,
    qa_outputs: Linear,
}

/// Options of [`QuestionAnswering::answer_with`], with the names and defaults of transformers'
/// question-answering pipeline.
///
/// ```
/// use mpnet::heads::AnswerOptions;
///
/// let options = AnswerOptions::default().top_k(3).handle_impossible_answer(true);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct AnswerOptions {
    top_k: usize,
    max_answer_len: usize,
    max_seq_len: Option<usize>,
    doc_stride: Option<usize>,
    handle_impossible_answer: bool,
    align_to_words: bool,
}

impl Default for AnswerOptions {
    fn default() -> Self {
        Self {
            top_k: 1,
            max_answer_len: 15,
            max_seq_len: None,
            doc_stride: None,
            handle_impossible_answer: false,
            align_to_words: true,
        }
    }
}

impl AnswerOptions {
    /// How many answers, 1 unless set. There may be fewer.
    ///
    /// ```
    /// let options = mpnet::heads::AnswerOptions::default().top_k(5);
    /// ```
    pub fn top_k(mut self, top_k: usize) -> Self {
        self.top_k = top_k;
        self
    }

    /// The longest answer in tokens, 15 unless set.
    ///
    /// ```
    /// let options = mpnet::heads::AnswerOptions::default().max_answer_len(30);
    /// ```
    pub fn max_answer_len(mut self, tokens: usize) -> Self {
        self.max_answer_len = tokens;
        self
    }

    /// The longest window in tokens, with the question and all special tokens; 384 unless set, or
    /// less if the model allows less. A longer context is cut into windows, each with the whole
    /// question.
    ///
    /// ```
    /// let options = mpnet::heads::AnswerOptions::default().max_seq_len(256);
    /// ```
    pub fn max_seq_len(mut self, tokens: usize) -> Self {
        self.max_seq_len = Some(tokens);
        self
    }

    /// How many tokens of the context two neighbouring windows have in common. Unless set it is
    /// 128, but no more than half of `max_seq_len`; and half of what the question leaves for the
    /// context, if that is too little for it.
    ///
    /// ```
    /// let options = mpnet::heads::AnswerOptions::default().max_seq_len(128).doc_stride(32);
    /// ```
    pub fn doc_stride(mut self, tokens: usize) -> Self {
        self.doc_stride = Some(tokens);
        self
    }

    /// Whether "there is no answer" is an answer too, for models trained for it (SQuAD 2): one
    /// without text, whose score is the lowest that any window gives it.
    ///
    /// ```
    /// use mpnet::heads::AnswerOptions;
    ///
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("question_answering");
    /// # let model = mpnet::heads::QuestionAnswering::from_pretrained(files)?;
    /// let options = AnswerOptions::default().handle_impossible_answer(true).top_k(20);
    /// let answers = model.answer_with("Where?", "In the old house.", &options)?;
    /// assert!(answers.iter().any(|answer| answer.is_impossible()));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn handle_impossible_answer(mut self, handle: bool) -> Self {
        self.handle_impossible_answer = handle;
        self
    }

    /// Whether answers are widened to whole words, as they are unless set.
    ///
    /// ```
    /// let options = mpnet::heads::AnswerOptions::default().align_to_words(false);
    /// ```
    pub fn align_to_words(mut self, align: bool) -> Self {
        self.align_to_words = align;
        self
    }
}

/// A stretch of the context.
///
/// ```
/// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("question_answering");
/// # let model = mpnet::heads::QuestionAnswering::from_pretrained(files)?;
/// let answer = model.answer("Where were they?", "The people were in the old house.")?;
/// println!("{:.3} {:?}, bytes {:?}", answer.score, answer.text, answer.range);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// The probability of its beginning times that of its end. Spans of the same text, letter case
    /// aside, are one answer, the first of them, and their scores are added up; with overlapping
    /// windows the sum may be more than 1.
    pub score: f32,
    /// The bytes of the context; empty if there is no answer.
    pub range: Range<usize>,
    /// `&context[range]`
    pub text: String,
}

impl Answer {
    /// Whether this says that the context has no answer.
    ///
    /// ```
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("question_answering");
    /// # let model = mpnet::heads::QuestionAnswering::from_pretrained(files)?;
    /// let answer = model.answer("Where?", "In the old house.")?;
    /// assert!(!answer.is_impossible()); // nobody asked for that: see `handle_impossible_answer`
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn is_impossible(&self) -> bool {
        self.range.is_empty()
    }
}

super::pretrained!(QuestionAnswering, "question_answering");

impl QuestionAnswering {
    pub(super) fn load(source: &Source) -> Result<Self> {
        source.expect(Kind::QuestionAnswering)?;
        let w = source.head().at("qa_outputs");
        let qa_outputs = Linear::prepare(&w, (source.config.hidden_size, 2), &source.at)?;
        Ok(Self { qa_outputs, backbone: source.backbone()? })
    }

    /// The logits of each token of a batch, `[N, 2]`: that the answer begins there, and that it
    /// ends there.
    ///
    /// ```
    /// use mpnet::Batch;
    ///
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("question_answering");
    /// # let model = mpnet::heads::QuestionAnswering::from_pretrained(files)?;
    /// let pairs = [("Where were they?", "The people were in the old house.")];
    /// let tokens = model.tokenizer().encode_pairs(&pairs, 128)?;
    /// let logits = model.forward(&Batch::new(&tokens, model.model().config())?)?;
    /// assert_eq!(logits.dim(), (tokens[0].ids.len(), 2)); // start, end
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
    /// [`Mpnet::forward`](crate::model::Mpnet::forward), → `[N, 2]`.
    ///
    /// ```
    /// use mpnet::Batch;
    ///
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("question_answering");
    /// # let model = mpnet::heads::QuestionAnswering::from_pretrained(files)?;
    /// let batch = Batch::new(&[[0, 7, 2]], model.model().config())?;
    /// let hidden = model.model().forward(&batch);
    /// assert_eq!(model.logits(&hidden)?.dim(), (3, 2));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the width is not the model's.
    pub fn logits(&self, hidden: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        self.backbone.check_hidden(hidden, None)?;
        Ok(self.qa_outputs.forward(hidden.view(), Activation::Identity))
    }

    /// The likeliest answer to `question` in `context`.
    ///
    /// ```
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("question_answering");
    /// # let model = mpnet::heads::QuestionAnswering::from_pretrained(files)?;
    /// let context = "The people were in the old house.";
    /// let answer = model.answer("Where were they?", context)?;
    /// assert_eq!(answer.text, context[answer.range.clone()]);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`answer_with`](Self::answer_with).
    pub fn answer(&self, question: &str, context: &str) -> Result<Answer> {
        let mut answers = self.answer_with(question, context, &AnswerOptions::default())?;
        Ok(answers.swap_remove(0))
    }

    /// The likeliest answers to `question` in `context`, the likeliest first; at least one.
    ///
    /// The semantics are those of the question-answering pipeline of transformers 4.57, the last
    /// with one. Only spans that lie in the context are answers; the pipeline fills up with others,
    /// of score 0, where there are fewer than asked for.
    ///
    /// ```
    /// use mpnet::heads::AnswerOptions;
    ///
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("question_answering");
    /// # let model = mpnet::heads::QuestionAnswering::from_pretrained(files)?;
    /// let options = AnswerOptions::default().top_k(3).max_answer_len(5);
    /// let answers = model.answer_with("Where were they?", "The people were in the old house.", &options)?;
    /// assert!(answers.len() <= 3);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Option`], with the argument's name, if the question is empty, if the context has no
    /// tokens, or if an option is 0 or contradicts the model or another one: a `max_seq_len` beyond
    /// its positions or with no room beside the question, a `doc_stride` that leaves no room for
    /// new tokens.
    pub fn answer_with(
        &self,
        question: &str,
        context: &str,
        options: &AnswerOptions,
    ) -> Result<Vec<Answer>> {
        at_least_one("top_k", options.top_k)?;
        let windows = self.windows(question, context, options)?;
        let tokens: Vec<Tokens> =
            windows.iter().map(|window| Tokens { ids: window.ids.clone(), dropped: 0 }).collect();
        let logits = self.backbone.per_token(&tokens, |hidden| {
            self.qa_outputs.forward(hidden.view(), Activation::Identity)
        })?;
        let mut answers = Answers::default();
        let mut impossible = f64::INFINITY;
        let cls = self.backbone.tokenizer.token_id(&self.backbone.special.cls);
        for (window, logits) in windows.iter().zip(&logits) {
            let none = collect(window, cls, logits.view(), context, options, &mut answers);
            impossible = impossible.min(none);
        }
        if options.handle_impossible_answer {
            answers.found.push((impossible, 0..0));
        }
        let mut answers = answers.found;
        answers.sort_by(|a, b| b.0.total_cmp(&a.0));
        answers.truncate(options.top_k);
        let answer = |(score, range): (f64, Range<usize>)| Answer {
            score: score as f32,
            text: context[range.clone()].to_owned(),
            range,
        };
        Ok(answers.into_iter().map(answer).collect())
    }

    fn windows(
        &self,
        question: &str,
        context: &str,
        options: &AnswerOptions,
    ) -> Result<Vec<Located>> {
        let wrong = |option, problem: String| Err(Error::Option { option, problem });
        if question.is_empty() {
            return wrong("question", "is empty".to_owned());
        }
        at_least_one("max_answer_len", options.max_answer_len)?;
        let limit = self.backbone.model.config().max_tokens();
        let max_seq_len = match options.max_seq_len {
            Some(tokens) if tokens > limit => {
                let problem =
                    format!("is {tokens}, but the model has positions for {limit} tokens");
                return wrong("max_seq_len", problem);
            }
            Some(tokens) => tokens,
            None => self.backbone.model_max_length.min(MAX_SEQ_LEN),
        };
        if let Some(tokens) = options.doc_stride.filter(|&tokens| tokens >= max_seq_len) {
            let problem = format!("is {tokens}, must be less than max_seq_len, {max_seq_len}");
            return wrong("doc_stride", problem);
        }
        let window = WindowOptions {
            limit: "max_seq_len",
            stride: "doc_stride",
            overlap: options.doc_stride,
            default_overlap: (max_seq_len / 2).min(DOC_STRIDE),
        };
        let tokenizer = &self.backbone.tokenizer;
        let windows =
            tokenizer.located_windows(0, question, Some(context), max_seq_len, &window)?;
        if !windows.iter().flat_map(|window| &window.places).any(in_context) {
            return wrong("context", "is empty: there is nothing to find an answer in".to_owned());
        }
        Ok(windows)
    }
}

fn in_context(place: &Option<Place>) -> bool {
    place.as_ref().is_some_and(|place| place.sequence == 1)
}

/// Answers in the making.
#[derive(Default)]
struct Answers {
    /// Score and bytes of the context.
    found: Vec<(f64, Range<usize>)>,
    /// Which of them has a text, in lower case.
    by_text: HashMap<String, usize>,
}

impl Answers {
    fn add(&mut self, text: &str, range: Range<usize>, score: f64) {
        let next = self.found.len();
        let place = *self.by_text.entry(text.to_lowercase()).or_insert(next);
        match self.found.get_mut(place) {
            Some((sum, _)) => *sum += score,
            None => self.found.push((score, range)),
        }
    }
}

/// Adds the likeliest spans of a window to `answers`; returns the probability that it has none.
/// `logits`: `[T, 2]`.
fn collect(
    window: &Located,
    cls: Option<u32>,
    logits: ArrayView2<f32>,
    context: &str,
    options: &AnswerOptions,
    answers: &mut Answers,
) -> f64 {
    let in_context: Vec<bool> = window.places.iter().map(in_context).collect();
    // `<s>` is considered wherever it stands, as in the reference: also as a part of the question.
    let tokens = window.ids.iter().zip(&in_context);
    let considered: Vec<bool> = tokens.map(|(&id, &inside)| inside || Some(id) == cls).collect();
    let candidates = Candidates {
        context: &in_context,
        considered: &considered,
        max_answer_len: options.max_answer_len,
        // Of those that are aligned to words several may be the same.
        count: match options.align_to_words {
            true => options.top_k.saturating_mul(2).saturating_add(10),
            false => options.top_k,
        },
    };
    let (spans, none) = candidates.best(logits);
    for span in spans {
        let range = bytes(window, span.first, span.last, options.align_to_words);
        answers.add(&context[range.clone()], range, span.score);
    }
    none
}

/// The bytes of the context from token `first` to token `last`, widened to the whole of their
/// words, as far as these are in the window.
fn bytes(window: &Located, first: usize, last: usize, align_to_words: bool) -> Range<usize> {
    let same_word = |place: &&Option<Place>, of: &Place| {
        align_to_words
            && of.word.is_some()
            && place.as_ref().is_some_and(|p| (p.sequence, p.word) == (of.sequence, of.word))
    };
    let (before, after) = (&window.places[..first], &window.places[last + 1..]);
    let ends = window.places[first].as_ref().zip(window.places[last].as_ref());
    let Some((from, to)) = ends else {
        return 0..0;
    };
    let start = before.iter().rev().take_while(|place| same_word(place, from)).last();
    let end = after.iter().take_while(|place| same_word(place, to)).last();
    let edge = |place: Option<&Option<Place>>, own: &Place| {
        place.and_then(Option::as_ref).unwrap_or(own).range.clone()
    };
    let start = edge(start, from).start;
    start..edge(end, to).end.max(start)
}
