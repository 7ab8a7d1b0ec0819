//! [`Batch`]: many texts as one flat row of tokens, each text knowing its place. Nothing is padded.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use ndarray::{Array2, ArrayRef2};

use crate::config::{Config, PADDING_ID};
use crate::error::{Error, Result, TextProblem};

/// Tokens computed at once. The largest intermediate array, `[N, F]`, then is 24 MiB for the base
/// model, and the products are tall enough that packing the weights costs little.
pub(crate) const TOKENS_PER_BATCH: usize = 2048;

/// A ragged batch: the ids of `B` texts one after another, `N` in all.
///
/// A `Batch` is only made of ids and lengths that its [`Config`] allows, so that the model's
/// forward pass cannot fail.
///
/// ```
/// # let config = mpnet::Config::from_json(
/// #     r#"{"model_type": "mpnet", "vocab_size": 100, "hidden_size": 8, "num_hidden_layers": 1,
/// #         "num_attention_heads": 2, "intermediate_size": 8, "layer_norm_eps": 1e-5,
/// #         "max_position_embeddings": 34}"#, "config.json")?;
/// use mpnet::Batch;
///
/// let batch = Batch::new(&[vec![0, 5, 2], vec![0, 2]], &config)?;
/// assert_eq!(batch.ids(), [0, 5, 2, 0, 2]);
/// assert_eq!(batch.range(1), 3..5);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    ids: Vec<u32>,
    /// The row of the position table for each token.
    positions: Vec<u32>,
    /// Text `b` is tokens `offsets[b]..offsets[b + 1]`.
    offsets: Vec<usize>,
    /// Where each text stood in the caller's input.
    texts: Vec<usize>,
}

impl Batch {
    /// A batch of the given texts, each a sequence of ids, in their order.
    ///
    /// ```
    /// use mpnet::Batch;
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let config = encoder.model().config();
    /// let batch = Batch::new(&[vec![0, 7, 2], vec![0, 7, 8, 2]], config)?;
    /// assert_eq!(batch.ids(), [0, 7, 2, 0, 7, 8, 2]); // one text after another, nothing between
    /// assert!(Batch::new(&[vec![999_999]], config).is_err());
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TextProblem::TokenId`](crate::TextProblem::TokenId) if an id is beyond the vocabulary,
    /// [`TextProblem::TooLong`](crate::TextProblem::TooLong) if a text has more tokens than
    /// [`Config::max_tokens`], [`TextProblem::NoTokens`](crate::TextProblem::NoTokens) if it has
    /// none.
    pub fn new<I: AsRef<[u32]>>(texts: &[I], config: &Config) -> Result<Self> {
        let order = 0..texts.len();
        Self::gather(order.map(|text| (text, texts[text].as_ref())), config)
    }

    /// All texts, in batches of texts of similar length and at most `budget` tokens each (a longer
    /// text is a batch of its own), the longest first. [`Batch::scatter`] puts results back into
    /// the caller's order.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// use mpnet::Batch;
    ///
    /// let texts = [vec![0, 2], vec![0, 7, 8, 2], vec![0, 7, 2]];
    /// let batches = Batch::by_length(&texts, encoder.model().config(), 7)?;
    /// assert_eq!(batches.len(), 2);
    /// assert_eq!(batches[0].texts(), [1, 2]); // seven tokens
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Batch::new`].
    pub fn by_length<I: AsRef<[u32]>>(
        texts: &[I],
        config: &Config,
        budget: usize,
    ) -> Result<Vec<Self>> {
        let ids = |text: usize| texts[text].as_ref();
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&text| Reverse(ids(text).len()));
        let mut batches = Vec::new();
        let mut rest = order.as_slice();
        while !rest.is_empty() {
            let mut size = 0;
            let fits = |&&text: &&usize| {
                size += ids(text).len();
                size <= budget
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (now, later) = rest.split_at(count);
            batches.push(Self::gather(now.iter().map(|&text| (text, ids(text))), config)?);
            rest = later;
        }
        Ok(batches)
    }

    /// All texts, in `step` batches or a multiple of that, as nearly even in tokens as can be, and
    /// of at most `limit` tokens each (a longer text is a batch of its own).
    ///
    /// # Errors
    ///
    /// As [`Batch::new`].
    pub(crate) fn even<I: AsRef<[u32]>>(
        texts: &[I],
        config: &Config,
        step: usize,
        limit: usize,
    ) -> Result<Vec<Self>> {
        let ids = |text: usize| texts[text].as_ref();
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&text| Reverse(ids(text).len()));
        let total: usize = order.iter().map(|&text| ids(text).len()).sum();
        let mut count = step * total.div_ceil(step * limit);
        // The longest text that is left goes to the batch that has least: within a third of the
        // best there is (Graham 1969).
        let batches = loop {
            let mut least: BinaryHeap<_> = (0..count).map(|batch| Reverse((0, batch))).collect();
            let mut batches = vec![Vec::new(); count];
            let mut fits = true;
            for &text in &order {
                let Some(Reverse((tokens, batch))) = least.pop() else { break };
                let with_text = tokens + ids(text).len();
                fits &= tokens == 0 || with_text <= limit;
                batches[batch].push(text);
                least.push(Reverse((with_text, batch)));
            }
            if fits {
                break batches;
            }
            count += step;
        };
        let batches = batches.into_iter().filter(|texts| !texts.is_empty());
        batches
            .map(|texts| Self::gather(texts.into_iter().map(|text| (text, ids(text))), config))
            .collect()
    }

    fn gather<'t>(
        texts: impl Iterator<Item = (usize, &'t [u32])>,
        config: &Config,
    ) -> Result<Self> {
        let mut batch = Self::empty();
        for (text, ids) in texts {
            batch.push(text, ids, config)?;
        }
        Ok(batch)
    }

    /// Fails if the model cannot take `ids`, those of text number `text`.
    pub(crate) fn check(text: usize, ids: &[u32], config: &Config) -> Result<()> {
        let (vocab_size, limit) = (config.vocab_size, config.max_tokens());
        if ids.is_empty() {
            return Err(Error::Text { text, problem: TextProblem::NoTokens });
        }
        if ids.len() > limit {
            return Err(Error::Text {
                text,
                problem: TextProblem::TooLong { tokens: ids.len(), limit },
            });
        }
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(Error::Text { text, problem: TextProblem::TokenId { id, vocab_size } });
        }
        Ok(())
    }

    /// These of its texts, by their places in it, as a batch of their own, whose
    /// [`texts`](Self::texts) are these places.
    pub(crate) fn select(&self, texts: &[usize]) -> Self {
        let mut batch = Self::empty();
        texts.iter().for_each(|&text| batch.append(text, &self.ids[self.range(text)]));
        batch
    }

    fn empty() -> Self {
        Self { ids: Vec::new(), positions: Vec::new(), offsets: vec![0], texts: Vec::new() }
    }

    fn push(&mut self, text: usize, ids: &[u32], config: &Config) -> Result<()> {
        Self::check(text, ids, config)?;
        self.append(text, ids);
        Ok(())
    }

    /// Adds `ids` that have been checked.
    fn append(&mut self, text: usize, ids: &[u32]) {
        self.ids.extend_from_slice(ids);
        self.positions.extend(positions(ids));
        self.offsets.push(self.ids.len());
        self.texts.push(text);
    }

    /// Number of texts, `B`.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let batch = mpnet::Batch::new(&[[0, 7, 2], [0, 8, 2]], encoder.model().config())?;
    /// assert_eq!((batch.len(), batch.ids().len()), (2, 6));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are no texts.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let batch = mpnet::Batch::new::<Vec<u32>>(&[], encoder.model().config())?;
    /// assert!(batch.is_empty());
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The ids of all texts, `[N]`.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let batch = mpnet::Batch::new(&[[0, 7, 2], [0, 8, 2]], encoder.model().config())?;
    /// assert_eq!(batch.ids(), [0, 7, 2, 0, 8, 2]);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// For each token its row in the position table, `[N]`: counted from 2 in every text, skipping
    /// `<pad>`, which has row 1.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let batch = mpnet::Batch::new(&[vec![0, 7, 2], vec![0, 2]], encoder.model().config())?;
    /// assert_eq!(batch.positions(), [2, 3, 4, 2, 3]);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// The tokens of text `b`.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let batch = mpnet::Batch::new(&[vec![0, 7, 2], vec![0, 2]], encoder.model().config())?;
    /// assert_eq!(&batch.ids()[batch.range(1)], [0, 2]);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If `b` is not below [`Batch::len`].
    #[must_use]
    pub fn range(&self, b: usize) -> Range<usize> {
        self.offsets[b]..self.offsets[b + 1]
    }

    /// The tokens of each text, in order.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let batch = mpnet::Batch::new(&[vec![0, 7, 2], vec![0, 2]], encoder.model().config())?;
    /// assert!(batch.ranges().eq([0..3, 3..5]));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.offsets.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// Where each text stood in the input that the batch was made of, `[B]`.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let texts = [vec![0, 2], vec![0, 7, 2]];
    /// let batches = mpnet::Batch::by_length(&texts, encoder.model().config(), 100)?;
    /// assert_eq!(batches[0].texts(), [1, 0]); // the longest first
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn texts(&self) -> &[usize] {
        &self.texts
    }

    /// Writes row `b` of `rows` `[B, D]` to the row of `out` where text `b` stood in the input.
    ///
    /// ```
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// use mpnet::{Batch, ndarray::{Array2, arr2}};
    ///
    /// let texts = [vec![0, 2], vec![0, 7, 2]];
    /// let mut out = Array2::zeros((2, 1));
    /// for batch in Batch::by_length(&texts, encoder.model().config(), 100)? {
    ///     let lengths: Vec<f32> = batch.ranges().map(|tokens| tokens.len() as f32).collect();
    ///     let rows = Array2::from_shape_vec((batch.len(), 1), lengths).expect("a row for each text");
    ///     batch.scatter(&rows, &mut out);
    /// }
    /// assert_eq!(out, arr2(&[[2.0], [3.0]]));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If `rows` has not `B` rows, or `out` no row for one of the texts.
    pub fn scatter(&self, rows: &ArrayRef2<f32>, out: &mut Array2<f32>) {
        assert_eq!(rows.nrows(), self.len(), "one row a text");
        for (row, &text) in rows.rows().into_iter().zip(&self.texts) {
            out.row_mut(text).assign(&row);
        }
    }
}

/// The rows of the position table for one text: 2, 3, … for tokens that are not `<pad>`, and 1 for
/// `<pad>`, which does not advance the count. From the ids alone, as the reference does it.
fn positions(ids: &[u32]) -> impl Iterator<Item = u32> + '_ {
    ids.iter().scan(PADDING_ID, |last, &id| {
        if id == PADDING_ID {
            return Some(PADDING_ID);
        }
        *last += 1;
        Some(*last)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Tokens;

    fn config() -> Config {
        Config::from_json(
            r#"{"model_type": "mpnet", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1,
                "num_attention_heads": 2, "intermediate_size": 8, "layer_norm_eps": 1e-5,
                "max_position_embeddings": 8}"#,
            "config.json",
        )
        .unwrap()
    }

    fn tokens(lengths: &[usize]) -> Vec<Tokens> {
        lengths.iter().map(|&n| Tokens { ids: vec![3; n], dropped: 0 }).collect()
    }

    #[test]
    fn positions_skip_padding_inside_a_text() {
        let batch = Batch::new(&[[0, 5, 1, 7, 2], [0, 6, 7, 8, 2]], &config()).unwrap();
        assert_eq!(batch.positions(), [2, 3, 1, 4, 5, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn batches_keep_to_the_budget_and_every_text_is_there_once() {
        let all = tokens(&[2, 6, 3, 3, 6, 1]);
        let batches = Batch::by_length(&all, &config(), 7).unwrap();
        let texts: Vec<&[usize]> = batches.iter().map(Batch::texts).collect();
        assert_eq!(texts, [&[1_usize][..], &[4], &[2, 3], &[0, 5]]);
        // A text that is longer than the budget still goes somewhere.
        assert_eq!(Batch::by_length(&all, &config(), 1).unwrap().len(), 6);
        assert!(Batch::by_length(&tokens(&[]), &config(), 7).unwrap().is_empty());
    }

    #[test]
    fn scatter_restores_the_order() {
        let batches = Batch::by_length(&tokens(&[1, 3, 2]), &config(), 100).unwrap();
        let mut out = Array2::zeros((3, 1));
        let rows = Array2::from_shape_vec((3, 1), vec![30.0, 20.0, 10.0]).unwrap();
        batches[0].scatter(&rows, &mut out);
        assert_eq!(out.into_raw_vec_and_offset().0, [10.0, 30.0, 20.0]);
    }

    #[test]
    fn what_the_model_cannot_take_is_refused() {
        let config = config();
        let error = |ids: &[&[u32]]| Batch::new(ids, &config).unwrap_err();
        assert!(matches!(
            error(&[&[0], &[0, 10]]),
            Error::Text { text: 1, problem: TextProblem::TokenId { id: 10, vocab_size: 10 } }
        ));
        assert!(matches!(
            error(&[&[0; 7]]),
            Error::Text { text: 0, problem: TextProblem::TooLong { tokens: 7, limit: 6 } }
        ));
        assert!(matches!(
            error(&[&[0], &[]]),
            Error::Text { text: 1, problem: TextProblem::NoTokens }
        ));
        assert!(Batch::new(&[[0; 6]], &config).is_ok());
    }
}
