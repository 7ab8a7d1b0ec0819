//! [`MaskedLM`]: which token stands where the mask is?

use ndarray::{Array2, ArrayRef2, Axis};

use super::backbone::{Backbone, Kind, Source};
use super::probability::{best, softmax};
use crate::batch::Batch;
use crate::error::{Error, InputProblem, Result, at_least_one};
use crate::kernels::activation::Activation;
use crate::nn::{LayerNorm, Linear};

/// The encoder with the head it was pre-trained with: `MPNetForMaskedLM`.
///
/// ```text
/// logits = LayerNorm(gelu(hidden · Wᵀ + b)) · Eᵀ + bias
/// ```
///
/// `E` is the table of word embeddings, unless the checkpoint has a `lm_head.decoder.weight` of its
/// own, as it must if `config.json` sets `tie_word_embeddings` to false. If it is true, a
/// checkpoint need only hold one of the two, and one of `lm_head.bias` and `lm_head.decoder.bias`.
/// The activation is the exact GELU, whatever `hidden_act` says. The table is packed for the
/// product, so it is in memory twice (95 MB more for the base model in `f32`).
///
/// Of the published checkpoints `microsoft/mpnet-base` has this head; those of
/// sentence-transformers do not.
///
/// ```
/// use mpnet::heads::MaskedLM;
///
/// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("masked_lm");
/// let model = MaskedLM::from_pretrained(files)?; // a directory, say "models/mpnet-base"
/// for fill in model.fill_mask("The capital of France is <mask>.", 5)? {
///     println!("{:.3} {}", fill.score, fill.sequence);
/// }
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug)]
pub struct MaskedLM {
    pub(super) backbone: Backbone,
    dense: Linear,
    norm: LayerNorm,
    decoder: Linear,
    mask_id: u32,
}

/// A token that may stand where a mask is.
///
/// ```
/// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("masked_lm");
/// # let model = mpnet::heads::MaskedLM::from_pretrained(files)?;
/// for fill in model.fill_mask("The <mask> was in the old house.", 3)? {
///     println!("{:.3} {:?}: {}", fill.score, fill.token_str, fill.sequence);
/// }
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MaskFill {
    /// The probability of the token, from 0 to 1; those of all tokens add up to 1.
    pub score: f32,
    /// The token's id.
    pub token: u32,
    /// The token, decoded.
    pub token_str: String,
    /// The whole text with the token where the mask was, decoded: as far as the tokenizer gives it
    /// back, so lower-cased and without accents. If the text has several masks the others are still
    /// there, and so are `<s>` and `</s>`.
    pub sequence: String,
}

super::pretrained!(MaskedLM, "masked_lm");

impl MaskedLM {
    pub(super) fn load(source: &Source) -> Result<Self> {
        source.expect(Kind::MaskedLM)?;
        let (d, v, eps) =
            (source.config.hidden_size, source.config.vocab_size, source.config.layer_norm_eps);
        let w = source.head().at("lm_head");
        // Of two tied tensors a checkpoint need only hold one; if it holds both, the decoder's own
        // is the one that counts.
        let (own, tied) = (w.at("decoder"), source.config.tie_word_embeddings);
        let bias = if tied && !own.has("bias") { &w } else { &own }.vector("bias", v)?;
        let words = source.encoder()?.at("embeddings.word_embeddings");
        let table = if tied && !own.has("weight") { &words } else { &own };
        let (at, isa) = (&source.at, source.at.isa());
        let dense = Linear::prepare(&w.at("dense"), (d, d), at)?;
        let norm = LayerNorm::prepare(&w.at("layer_norm"), d, eps, isa)?;
        let decoder = Linear::with_bias(table, d, bias, at)?;
        let backbone = source.backbone()?;
        let mask = &backbone.special.mask;
        let mask_id = backbone.tokenizer.token_id(mask).filter(|&id| (id as usize) < v);
        let mask_id = mask_id.ok_or_else(|| Error::Field {
            file: "tokenizer_config.json".to_owned(),
            field: "mask_token".to_owned(),
            problem: format!("`{mask}` is not in the vocabulary"),
        })?;
        Ok(Self { backbone, dense, norm, decoder, mask_id })
    }

    /// The logits of every token of a batch, `[N, V]`.
    ///
    /// ```
    /// use mpnet::Batch;
    ///
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("masked_lm");
    /// # let model = mpnet::heads::MaskedLM::from_pretrained(files)?;
    /// let tokens = model.tokenizer().encode(&["the old <mask>"], 128)?;
    /// let logits = model.forward(&Batch::new(&tokens, model.model().config())?)?;
    /// assert_eq!(logits.dim(), (5, 605));
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
    /// [`Mpnet::forward`](crate::model::Mpnet::forward), → `[N, V]`.
    ///
    /// ```
    /// use mpnet::Batch;
    ///
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("masked_lm");
    /// # let model = mpnet::heads::MaskedLM::from_pretrained(files)?;
    /// let batch = Batch::new(&[[0, 604, 2]], model.model().config())?;
    /// let hidden = model.model().forward(&batch);
    /// let of_mask = model.logits(&hidden.slice(mpnet::ndarray::s![1..2, ..]))?;
    /// assert_eq!(of_mask.dim(), (1, 605));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the width is not the model's.
    pub fn logits(&self, hidden: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        self.backbone.check_hidden(hidden, None)?;
        let x = self.norm.forward(self.dense.forward(hidden.view(), Activation::Gelu));
        Ok(self.decoder.forward(x.view(), Activation::Identity))
    }

    /// The mask as it is written in a text: `<mask>` in all published models.
    ///
    /// ```
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("masked_lm");
    /// # let model = mpnet::heads::MaskedLM::from_pretrained(files)?;
    /// let text = format!("The {} was in the old house.", model.mask_token());
    /// assert_eq!(text, "The <mask> was in the old house.");
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn mask_token(&self) -> &str {
        &self.backbone.special.mask
    }

    /// The `top_k` most likely tokens for the one mask in `text`, the likeliest first; all of the
    /// vocabulary if it has fewer. transformers' fill-mask pipeline.
    ///
    /// ```
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("masked_lm");
    /// # let model = mpnet::heads::MaskedLM::from_pretrained(files)?;
    /// let fills = model.fill_mask("The <mask> was in the old house.", 3)?;
    /// assert_eq!(fills.len(), 3);
    /// assert!(fills[0].score >= fills[1].score);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InputProblem::Masks`](crate::InputProblem::Masks) if the text has no mask, or several (see
    /// [`fill_masks`](Self::fill_masks)); [`Error::Option`] if `top_k` is 0;
    /// [`TextProblem::TooLong`](crate::TextProblem::TooLong) if the text has more tokens than the
    /// model has positions.
    pub fn fill_mask(&self, text: &str, top_k: usize) -> Result<Vec<MaskFill>> {
        at_least_one("top_k", top_k)?;
        let (ids, masks) = self.find_masks(text)?;
        match &masks[..] {
            [_] => Ok(self.fill(&ids, &masks, top_k)?.swap_remove(0)),
            _ => Err(self.wrong_masks(masks.len(), "once; `fill_masks` takes any number")),
        }
    }

    /// The `top_k` most likely tokens for each mask in `text`, in the order of the masks. Each is
    /// found with the others left as they are: the scores are not those of filling all of them
    /// together.
    ///
    /// ```
    /// # let files = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/head_files.rs"))("masked_lm");
    /// # let model = mpnet::heads::MaskedLM::from_pretrained(files)?;
    /// let fills = model.fill_masks("The <mask> was in the <mask> house.", 2)?;
    /// assert_eq!((fills.len(), fills[0].len()), (2, 2));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`fill_mask`](Self::fill_mask), but several masks are right.
    pub fn fill_masks(&self, text: &str, top_k: usize) -> Result<Vec<Vec<MaskFill>>> {
        at_least_one("top_k", top_k)?;
        let (ids, masks) = self.find_masks(text)?;
        if masks.is_empty() {
            return Err(self.wrong_masks(0, "at least once"));
        }
        self.fill(&ids, &masks, top_k)
    }

    fn wrong_masks(&self, found: usize, expected: &'static str) -> Error {
        Error::Input {
            input: "text",
            problem: InputProblem::Masks { mask: self.mask_token().to_owned(), found, expected },
        }
    }

    /// The ids of a text, and which of them are masks.
    fn find_masks(&self, text: &str) -> Result<(Vec<u32>, Vec<usize>)> {
        let ids = self.backbone.encode(&[text])?.swap_remove(0).ids;
        let is_mask = |&place: &usize| ids[place] == self.mask_id;
        let masks = (0..ids.len()).filter(is_mask).collect();
        Ok((ids, masks))
    }

    fn fill(&self, ids: &[u32], masks: &[usize], top_k: usize) -> Result<Vec<Vec<MaskFill>>> {
        let batch = Batch::new(&[ids], self.backbone.model.config())?;
        let hidden = self.backbone.model.forward(&batch).select(Axis(0), masks);
        let logits = self.logits(&hidden)?;
        let pad = self.backbone.tokenizer.token_id(&self.backbone.special.pad);
        // With several masks, leaving out special tokens would leave out the other masks.
        let skip_special_tokens = masks.len() == 1;
        let fill = |mask: usize, token: usize, score: f64| {
            let token = token as u32;
            let mut sequence = ids.to_vec();
            sequence[mask] = token;
            sequence.retain(|&id| Some(id) != pad);
            Ok(MaskFill {
                score: score as f32,
                token,
                token_str: self.backbone.decode(&[token], false)?,
                sequence: self.backbone.decode(&sequence, skip_special_tokens)?,
            })
        };
        let of_mask = |(&mask, logits)| {
            let scores = softmax(logits);
            best(&scores, top_k).into_iter().map(|token| fill(mask, token, scores[token])).collect()
        };
        masks.iter().zip(logits.rows()).map(of_mask).collect()
    }
}
