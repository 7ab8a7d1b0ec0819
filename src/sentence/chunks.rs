//! Late chunking: a text is computed as a whole, and each of its chunks gets a vector of what its
//! tokens have become.

use std::ops::Range;

use ndarray::{Array2, Axis};

use super::SentenceEncoder;
use super::encode::Call;
use super::options::{EncodeOptions, TextReport};
use super::plan::Plan;
use super::progress::Meter;
use super::tokens::{Chars, in_text};
use crate::error::{Error, Result};
use crate::pooling::PoolingMode;

/// The embedding of each chunk of a text.
///
/// ```
/// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
/// let text = "It rains. Who has an umbrella?";
/// let chunks = encoder.encode_chunks(text, &mpnet::split::sentences(text), &Default::default())?;
/// for (chunk, embedding) in chunks.chunks.iter().zip(chunks.embeddings.rows()) {
///     println!("{:?}: {embedding}", &text[chunk.bytes.clone()]);
/// }
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ChunkEmbeddings {
    /// `[chunks, D]`, in the order in which the chunks were given.
    pub embeddings: Array2<f32>,
    /// `[chunks]`
    pub chunks: Vec<Chunk>,
    /// What became of the text.
    pub report: TextReport,
}

/// A stretch of a text.
///
/// ```
/// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
/// let text = "It's raining – oh!";
/// let chunks = encoder.encode_chunks(text, &[0..text.len()], &Default::default())?;
/// let chunk = &chunks.chunks[0];
/// assert_eq!((chunk.bytes.len(), chunk.chars.len()), (20, 18));
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Chunk {
    /// Its bytes: `&text[chunk.bytes]`.
    pub bytes: Range<usize>,
    /// The same in characters, as Python counts them.
    pub chars: Range<usize>,
    /// Tokens that its embedding is made of.
    pub tokens: usize,
    /// Tokens of it that were cut off with the end of the text, under
    /// [`Overflow::Truncate`](super::Overflow::Truncate): above 0, its embedding is that of its
    /// beginning.
    pub dropped: usize,
}

impl SentenceEncoder {
    /// A vector for each chunk of `text`, which is computed as a whole first: so that a chunk that
    /// says "the city" knows of which city its document speaks.
    ///
    /// `chunks` are ranges of bytes, of the caller's own making or from [`split`](crate::split);
    /// they may overlap, and need not cover the text. A token belongs to the chunks that its first
    /// byte is in. The model's pooling is applied to the hidden states of a chunk's tokens, without
    /// special tokens and prompt, then the modules after it, as to a text. A text that is longer
    /// than the model needs [`Overflow::Window`](super::Overflow::Window); its tokens are then
    /// those of [`encode_tokens`](Self::encode_tokens).
    ///
    /// Source: Günther et al. 2024, "Late Chunking", <https://arxiv.org/abs/2409.04701>.
    ///
    /// ```
    /// use mpnet::{EncodeOptions, Overflow, split};
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let text = "Berlin is the capital of Germany. The city has 3.8 million inhabitants.";
    /// let options = EncodeOptions::default().overflow(Overflow::Window { stride: 16 });
    /// let chunks = encoder.encode_chunks(text, &split::sentences(text), &options)?;
    /// assert_eq!(chunks.embeddings.dim(), (2, encoder.dim()));
    /// assert!(chunks.chunks.iter().all(|chunk| chunk.dropped == 0)); // under `Truncate` it may be more
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`encode_with`](Self::encode_with); [`Error::Chunk`] if a chunk is not a range of `text`,
    /// or no token of it was kept (of one that was cut in half, [`Chunk::dropped`] tells);
    /// [`Error::Option`] if the model pools by the first or the last token, which leaves nothing to
    /// chunk.
    pub fn encode_chunks(
        &self,
        text: &str,
        chunks: &[Range<usize>],
        options: &EncodeOptions,
    ) -> Result<ChunkEmbeddings> {
        let single =
            |mode: &&PoolingMode| matches!(mode, PoolingMode::Cls | PoolingMode::LastToken);
        if let Some(mode) = self.pooling.modes().iter().find(single) {
            let problem = format!("is {mode:?}, by which a chunk would be one token of it");
            return Err(Error::Option { option: "pooling", problem });
        }
        for (chunk, bytes) in chunks.iter().enumerate() {
            if text.get(bytes.clone()).is_none() {
                let problem = format!(
                    "{bytes:?} is not a range of whole characters of a text of {} bytes",
                    text.len()
                );
                return Err(Error::Chunk { chunk, problem });
            }
        }
        let plan = Plan::new(self, options)?.with_offsets();
        options.in_pool(|| Call::new(self, &plan, options).pool_chunks(text, chunks))
    }
}

impl Call<'_> {
    /// Computes `text` as a whole, then pools each of its chunks.
    fn pool_chunks(&self, text: &str, chunks: &[Range<usize>]) -> Result<ChunkEmbeddings> {
        let Self { encoder, plan, options, .. } = self;
        let windows = self.tokens(&[text], 0)?.into_iter().collect::<Result<Vec<_>>>()?;
        let mut meter = Meter::new(Some(1), options.progress.clone());
        let hidden = self.hidden_states(&windows, &mut meter)?.swap_remove(0);
        // In bytes of the text, as chunks are.
        let dropped_at = windows.iter().flat_map(|text| &text.dropped_at);
        let dropped_at = dropped_at.filter_map(|bytes| in_text(bytes, plan.prompt.len()));
        let dropped_at = in_order(dropped_at.map(|bytes| (bytes.start, ())));
        // Where the tokens of the text begin, as (byte, row).
        let tokens = hidden.offsets.iter().enumerate();
        let starts = in_order(tokens.filter_map(|(row, bytes)| Some((bytes.as_ref()?.start, row))));
        let chars = Chars::new(text);
        let mut pooled = Array2::zeros((chunks.len(), encoder.pooling.dim(encoder.hidden_size())));
        let mut described = Vec::with_capacity(chunks.len());
        for (chunk, (bytes, mut out)) in
            chunks.iter().zip(pooled.axis_iter_mut(Axis(0))).enumerate()
        {
            let first = starts.partition_point(|&(byte, _)| byte < bytes.start);
            let end = starts.partition_point(|&(byte, _)| byte < bytes.end);
            let (Some(tokens @ [(_, from), ..]), Some(chars)) =
                (starts.get(first..end), chars.range(bytes))
            else {
                let problem = match hidden.report.dropped {
                    0 => format!("{bytes:?} has no tokens"),
                    _ => format!(
                        "no token of {bytes:?} was kept: the text is longer than the model, and \
                         the overflow policy is to cut it; `Overflow::Window` is not"
                    ),
                };
                return Err(Error::Chunk { chunk, problem });
            };
            encoder.pooling.pool(
                hidden.embeddings.view(),
                *from..from + tokens.len(),
                out.view_mut(),
            );
            let before = |end: usize| dropped_at.partition_point(|&(byte, ())| byte < end);
            let dropped = before(bytes.end) - before(bytes.start);
            described.push(Chunk { bytes: bytes.clone(), chars, tokens: tokens.len(), dropped });
        }
        Ok(ChunkEmbeddings {
            embeddings: encoder.finish(pooled, plan.dim, options.normalize),
            chunks: described,
            report: hidden.report,
        })
    }
}

/// Where tokens begin, none after the next one. Two of one character may be out of order: where a
/// normalizer makes a space and an accent of `¨`, the post-processor takes the space off, and the
/// first of them, left with nothing, begins at the character's end. It goes with the other.
fn in_order<T>(starts: impl Iterator<Item = (usize, T)>) -> Vec<(usize, T)> {
    let mut starts: Vec<(usize, T)> = starts.collect();
    let mut next = usize::MAX;
    for (byte, _) in starts.iter_mut().rev() {
        next = next.min(*byte);
        *byte = next;
    }
    starts
}
