//! What every head is loaded from, and the encoder and tokenizer that it stands on.

use ndarray::{Array2, ArrayRef2, ArrayView2, Axis};

use super::cross_encoder::{CrossEncoder, SETTINGS};
use super::head_config::HeadConfig;
use crate::batch::{Batch, TOKENS_PER_BATCH};
use crate::checkpoint::{Checkpoint, Weights, refuse_adapter};
use crate::config::Config;
use crate::error::{Error, FileProblem, Result};
use crate::files::ModelFiles;
use crate::kernels::Precision;
use crate::kernels::isa::Isa;
use crate::model::{Mpnet, Placement};
use crate::tokenizer::{SpecialTokens, Tokenizer, Tokens, model_max_length};

/// How a head and the encoder under it are loaded.
///
/// ```
/// use mpnet::{Precision, heads::HeadOptions};
///
/// let options = HeadOptions::default().precision(Precision::Bf16);
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct HeadOptions {
    precision: Precision,
    isa: Option<Isa>,
}

impl HeadOptions {
    /// The precision of weights and products, the head's too; [`Precision::F32`] unless set.
    ///
    /// ```
    /// use mpnet::{Precision, heads::HeadOptions};
    ///
    /// let options = HeadOptions::default().precision(Precision::Int8);
    /// ```
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The instruction set; unless set, the one that `MPNET_ISA` names, or the fastest that the
    /// machine has.
    ///
    /// ```
    /// use mpnet::{Isa, heads::HeadOptions};
    ///
    /// let options = HeadOptions::default().isa(Isa::best());
    /// ```
    pub fn isa(mut self, isa: Isa) -> Self {
        self.isa = Some(isa);
        self
    }
}

/// The five heads, as a checkpoint tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    MaskedLM,
    SequenceClassification,
    TokenClassification,
    QuestionAnswering,
    MultipleChoice,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::MaskedLM,
        Self::SequenceClassification,
        Self::TokenClassification,
        Self::QuestionAnswering,
        Self::MultipleChoice,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::MaskedLM => "masked language model",
            Self::SequenceClassification => "sequence classification",
            Self::TokenClassification => "token classification",
            Self::QuestionAnswering => "question answering",
            Self::MultipleChoice => "multiple choice",
        }
    }

    /// A tensor that such a head has.
    fn tensor(self) -> &'static str {
        match self {
            Self::MaskedLM => "lm_head.dense.weight",
            Self::SequenceClassification => "classifier.out_proj.weight",
            Self::TokenClassification | Self::MultipleChoice => "classifier.weight",
            Self::QuestionAnswering => "qa_outputs.weight",
        }
    }
}

/// An opened model directory.
pub(super) struct Source<'s, 'a> {
    files: &'s ModelFiles<'a>,
    /// What sentence-transformers has saved around it.
    pub(super) cross_encoder: Option<CrossEncoder>,
    pub(super) config: Config,
    pub(super) head_config: HeadConfig,
    checkpoint: Checkpoint<'a>,
    pub(super) at: Placement,
}

impl<'s, 'a> Source<'s, 'a> {
    pub(super) fn open(files: &'s ModelFiles<'a>, options: &HeadOptions) -> Result<Self> {
        files.check()?;
        let isa = Isa::choose(options.isa)?;
        let cross_encoder = CrossEncoder::read(files)?;
        let folder = folder(cross_encoder.as_ref());
        refuse_adapter(files, folder)?;
        let name = format!("{folder}config.json");
        let json = files.require(&name)?;
        let config = Config::from_json(&json, &files.label(&name))?;
        let mut head_config = HeadConfig::from_json(&json, &files.label(&name))?;
        if let Some(class) = cross_encoder.as_ref().and_then(|saved| saved.activation_fn.clone()) {
            head_config = head_config.with_activation(class, files.label(SETTINGS));
        }
        let checkpoint = Checkpoint::from_files(files, folder)?;
        let at = Placement::on(isa).precision(options.precision);
        Ok(Self { files, cross_encoder, config, head_config, checkpoint, at })
    }

    /// Where the heads' tensors are: their names have no prefix, whatever those of the encoder
    /// have.
    pub(super) fn head(&self) -> Weights<'_> {
        self.checkpoint.root()
    }

    /// Where the encoder's tensors are.
    pub(super) fn encoder(&self) -> Result<Weights<'_>> {
        let tied = self.config.tie_word_embeddings;
        Ok(self.checkpoint.encoder()?.tied(tied))
    }

    /// Fails unless the checkpoint has this head. A multiple-choice head and one for tokens have
    /// the same names; what tells them apart is the pooler.
    pub(super) fn expect(&self, kind: Kind) -> Result<()> {
        let root = self.checkpoint.root();
        let pooler = self.encoder()?.has("pooler.dense.weight");
        let has = |kind: Kind| root.has(kind.tensor()) && (kind != Kind::MultipleChoice || pooler);
        if has(kind) {
            return Ok(());
        }
        let others = Kind::ALL.into_iter().filter(|&other| has(other));
        let others: Vec<&str> = others.map(Kind::name).collect();
        Err(Error::File {
            file: format!("`{}`", self.checkpoint.label()),
            problem: FileProblem::Head {
                expected: kind.name(),
                tensor: if root.has(kind.tensor()) { "pooler.dense.weight" } else { kind.tensor() },
                found: match &others[..] {
                    [] if self.files.has("modules.json") => "it is an encoder without a head; \
                    SentenceEncoder loads a directory with a modules.json"
                        .to_owned(),
                    [] => "it is an encoder without a head".to_owned(),
                    names => format!("what it has is one for {}", names.join(" or ")),
                },
            },
        })
    }

    /// The encoder and the tokenizer.
    pub(super) fn backbone(&self) -> Result<Backbone> {
        let folder = folder(self.cross_encoder.as_ref());
        let do_lower_case = self.cross_encoder.as_ref().is_some_and(|saved| saved.do_lower_case);
        let (tokenizer, model) = rayon::join(
            || {
                let tokenizer = Tokenizer::from_files(self.files, folder)?;
                tokenizer.check_vocabulary(self.config.vocab_size)?;
                tokenizer.lowercase(do_lower_case)
            },
            || Mpnet::prepare(&self.encoder()?, &self.config, &self.at),
        );
        let (model, tokenizer) = (model?, tokenizer?);
        self.checkpoint.warn_of_unused();
        let limit = self.config.max_tokens();
        Ok(Backbone {
            tokenizer,
            model,
            special: SpecialTokens::read(self.files, folder)?,
            model_max_length: model_max_length(self.files, folder)?.unwrap_or(limit).min(limit),
        })
    }
}

/// Where the files of transformers are: `""`, or a folder ending in `/`.
fn folder(cross_encoder: Option<&CrossEncoder>) -> &str {
    cross_encoder.map_or("", |saved| &saved.folder)
}

/// Text → hidden states.
#[derive(Debug)]
pub(super) struct Backbone {
    pub(super) tokenizer: Tokenizer,
    pub(super) model: Mpnet,
    pub(super) special: SpecialTokens,
    /// The longest window: what the tokenizer and the position table allow.
    pub(super) model_max_length: usize,
}

impl Backbone {
    /// The hidden states of a batch, `[N, D]`, which may have been made for another model.
    pub(super) fn hidden(&self, batch: &Batch) -> Result<Array2<f32>> {
        let config = self.model.config();
        let ids: Vec<&[u32]> = batch.ranges().map(|range| &batch.ids()[range]).collect();
        // A batch is only ever made of what its configuration allows; the same test against this
        // one.
        Batch::new(&ids, config)?;
        Ok(self.model.forward(batch))
    }

    /// Fails unless `hidden` is `[N, D]` and finite; with a batch, `N` must be the number of its
    /// tokens.
    pub(super) fn check_hidden(
        &self,
        hidden: &ArrayRef2<f32>,
        batch: Option<&Batch>,
    ) -> Result<()> {
        let (rows, d) = hidden.dim();
        let want = self.model.config().hidden_size;
        let problem = match batch.map(|batch| batch.ids().len()) {
            _ if d != want => format!("has width {d}, the model's is {want}"),
            Some(n) if n != rows => format!("has {rows} rows, the batch has {n} tokens"),
            _ => match hidden.indexed_iter().find(|(_, x)| !x.is_finite()) {
                Some((at, x)) => format!("has {x} at {at:?}"),
                None => return Ok(()),
            },
        };
        Err(Error::Option { option: "hidden", problem })
    }

    /// The ids of texts, whatever their length; a batch refuses those that are too long.
    pub(super) fn encode<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Tokens>> {
        self.tokenizer.encode(texts, usize::MAX)
    }

    /// The ids of pairs.
    pub(super) fn encode_pairs<A: AsRef<str> + Sync, B: AsRef<str> + Sync>(
        &self,
        pairs: &[(A, B)],
    ) -> Result<Vec<Tokens>> {
        self.tokenizer.encode_pairs(pairs, usize::MAX)
    }

    /// What `head` makes of each text, `[B, width]`, in the order of `tokens`.
    pub(super) fn per_text(
        &self,
        tokens: &[Tokens],
        width: usize,
        head: impl Fn(ArrayView2<f32>, &Batch) -> Array2<f32>,
    ) -> Result<Array2<f32>> {
        let mut out = Array2::zeros((tokens.len(), width));
        for batch in Batch::by_length(tokens, self.model.config(), TOKENS_PER_BATCH)? {
            let hidden = self.model.forward(&batch);
            batch.scatter(&head(hidden.view(), &batch), &mut out);
        }
        Ok(out)
    }

    /// What `head` makes of each token, for each text `[T, width]`, in the order of `tokens`.
    pub(super) fn per_token(
        &self,
        tokens: &[Tokens],
        head: impl Fn(ArrayView2<f32>) -> Array2<f32>,
    ) -> Result<Vec<Array2<f32>>> {
        let mut out = vec![Array2::default((0, 0)); tokens.len()];
        for batch in Batch::by_length(tokens, self.model.config(), TOKENS_PER_BATCH)? {
            let rows = head(self.model.forward(&batch).view());
            for (range, &text) in batch.ranges().zip(batch.texts()) {
                out[text] = rows.slice_axis(Axis(0), range.into()).to_owned();
            }
        }
        Ok(out)
    }

    /// The text that `ids` stand for, finished as `tokenizer_config.json` asks for.
    pub(super) fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        if self.special.clean_up {
            self.tokenizer.decode(ids, skip_special_tokens)
        } else {
            self.tokenizer.decode_plain(ids, skip_special_tokens)
        }
    }
}

/// The first token of each text: `hidden: [N, D]` → `[B, D]`.
pub(super) fn first_tokens(hidden: ArrayView2<f32>, batch: &Batch) -> Array2<f32> {
    let first: Vec<usize> = batch.ranges().map(|tokens| tokens.start).collect();
    hidden.select(Axis(0), &first)
}
