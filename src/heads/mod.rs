//! Heads: what stands on top of the hidden states and answers a question about the text.
//!
//! | head | tensors | [`Batch`](crate::Batch) in, logits out | text in, answer out |
//! |---|---|---|---|
//! | [`MaskedLM`] | `lm_head.*` | `[N, V]` | [`fill_mask`](MaskedLM::fill_mask): which words fit the mask? |
//! | [`SequenceClassification`] | `classifier.dense.*`, `classifier.out_proj.*` | `[B, C]` | [`classify`](SequenceClassification::classify): which label fits the text? |
//! | [`TokenClassification`] | `classifier.*` | `[N, C]` | [`classify`](TokenClassification::classify): which stretches of the text are what? |
//! | [`QuestionAnswering`] | `qa_outputs.*` | `[N, 2]` | [`answer`](QuestionAnswering::answer): where in the context is the answer? |
//! | [`MultipleChoice`] | `classifier.*`, `pooler.*` | `[B, K]` | [`choose`](MultipleChoice::choose): which of the choices fits? |
//!
//! `C` is the number of labels and, here alone, `K` the number of choices; the other letters are
//! those of the [crate](crate#shapes).
//!
//! Each is loaded from the directory that transformers' `save_pretrained` writes: `config.json`
//! (with `id2label` and `problem_type`), `tokenizer.json` and `model.safetensors`. The tensor
//! functions are those of transformers' `MPNetFor…` classes, the text functions those of its
//! pipelines, with these differences: a text that is too long is an error, unless it is cut into
//! windows by request; offsets are bytes of the `&str` (below); and where a pipeline returns one
//! value or a list of them, by what it was given, there are two functions here.
//!
//! # Offsets
//!
//! A `range` is in bytes and cuts the text that was given: `&text[entity.range.clone()]`. Python
//! counts characters; its numbers are `text[..range.start].chars().count()` and
//! `text[..range.end].chars().count()`.

mod aggregation;
mod backbone;
mod cross_encoder;
mod head_config;
mod masked_lm;
mod multiple_choice;
mod probability;
mod question_answering;
mod sequence_classification;
mod spans;
mod token_classification;

pub use aggregation::AggregationStrategy;
pub use backbone::HeadOptions;
pub use head_config::ProblemType;
pub use masked_lm::{MaskFill, MaskedLM};
pub use multiple_choice::MultipleChoice;
pub use question_answering::{Answer, AnswerOptions, QuestionAnswering};
pub use sequence_classification::{ClassificationFunction, LabelScore, SequenceClassification};
pub use token_classification::{Entity, TokenClassification, TokenClassificationOptions};

/// What all heads have: loading, and the parts below them. `$file`: the one of tests/data/heads for
/// the examples.
macro_rules! pretrained {
    ($head:ident, $file:literal) => {
        impl $head {
            /// Loads the model in a directory as transformers' `save_pretrained` writes it, in
            /// `f32`, on the fastest instruction set of the machine.
            ///
            /// Weight files are mapped while they are read: nobody may change them until this
            /// returns.
            ///
            /// ```
            #[doc = concat!("# let files = include!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/tests/common/head_files.rs\"))(\"", $file, "\");")]
            #[doc = concat!("use mpnet::heads::", stringify!($head), ";")]
            ///
            #[doc = concat!("let model = ", stringify!($head), "::from_pretrained(files)?; // a directory, say \"models/a-model\"")]
            /// # Ok::<(), mpnet::Error>(())
            /// ```
            ///
            /// # Errors
            ///
            /// An [`Error`](crate::Error) that names the file, field or tensor, if one is missing, damaged or not
            /// supported; among them [`FileProblem::Head`](crate::FileProblem::Head) if the checkpoint has another head or none, and
            /// [`FileProblem::Labels`](crate::FileProblem::Labels) if the labels of `config.json` do not fit the weights.
            pub fn from_pretrained<'a>(
                files: impl Into<crate::ModelFiles<'a>>,
            ) -> crate::Result<Self> {
                Self::from_pretrained_with(files, &super::HeadOptions::default())
            }

            /// As `from_pretrained`, with options.
            ///
            /// ```
            #[doc = concat!("# let files = include!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/tests/common/head_files.rs\"))(\"", $file, "\");")]
            #[doc = concat!("use mpnet::{Precision, heads::{HeadOptions, ", stringify!($head), "}};")]
            ///
            /// let options = HeadOptions::default().precision(Precision::Bf16);
            #[doc = concat!("let model = ", stringify!($head), "::from_pretrained_with(files, &options)?;")]
            /// # Ok::<(), mpnet::Error>(())
            /// ```
            ///
            /// # Errors
            ///
            /// As `from_pretrained`.
            pub fn from_pretrained_with<'a>(
                files: impl Into<crate::ModelFiles<'a>>,
                options: &super::HeadOptions,
            ) -> crate::Result<Self> {
                Self::load(&super::backbone::Source::open(&files.into(), options)?)
            }

            /// The encoder under the head.
            ///
            /// ```
            #[doc = concat!("# let files = include!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/tests/common/head_files.rs\"))(\"", $file, "\");")]
            #[doc = concat!("let model = mpnet::heads::", stringify!($head), "::from_pretrained(files)?;")]
            /// println!("{} layers", model.model().config().num_hidden_layers);
            /// # Ok::<(), mpnet::Error>(())
            /// ```
            #[must_use]
            pub fn model(&self) -> &crate::model::Mpnet {
                &self.backbone.model
            }

            /// The tokenizer.
            ///
            /// ```
            #[doc = concat!("# let files = include!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/tests/common/head_files.rs\"))(\"", $file, "\");")]
            #[doc = concat!("let model = mpnet::heads::", stringify!($head), "::from_pretrained(files)?;")]
            /// println!("{:?}", model.tokenizer().encode(&["a text"], 128)?);
            /// # Ok::<(), mpnet::Error>(())
            /// ```
            #[must_use]
            pub fn tokenizer(&self) -> &crate::Tokenizer {
                &self.backbone.tokenizer
            }
        }
    };
}
use pretrained;
