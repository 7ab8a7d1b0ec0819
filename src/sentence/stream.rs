//! [`EncodeIter`]: embeddings of texts that come from an iterator, in bounded memory.

use std::collections::VecDeque;
use std::iter::FusedIterator;

use ndarray::Array1;

use super::SentenceEncoder;
use super::encode::Call;
use super::options::{EncodeOptions, TextReport};
use super::plan::{Plan, cost};
use super::progress::Meter;
use crate::error::{Error, Result};
use crate::tokenizer::Windows;

/// An embedding, and what became of its text.
///
/// ```
/// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
/// for text in encoder.encode_iter(["one", "two"], &Default::default())? {
///     let text = text?;
///     println!("{} numbers of {} tokens", text.embedding.len(), text.report.tokens);
/// }
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EncodedText {
    /// `[D]`
    pub embedding: Array1<f32>,
    /// Tokens used and dropped.
    pub report: TextReport,
}

/// The iterator of [`SentenceEncoder::encode_iter`].
///
/// ```
/// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
/// let texts = (1..=1000).map(|n| format!("text {n}"));
/// let encoded = encoder.encode_iter(texts, &Default::default())?;
/// assert_eq!(encoded.size_hint().1, Some(1000));
/// assert_eq!(encoded.filter_map(Result::ok).count(), 1000);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug)]
pub struct EncodeIter<'e, I> {
    encoder: &'e SentenceEncoder,
    texts: I,
    plan: Plan,
    options: EncodeOptions,
    meter: Meter,
    /// Texts taken so far.
    taken: usize,
    ready: VecDeque<Result<EncodedText>>,
    ended: bool,
}

impl SentenceEncoder {
    /// Encodes the texts of an iterator, as many as there may be, and yields their embeddings in
    /// order.
    ///
    /// A part of the texts is taken, on the thread that calls `next`, when its first embedding is
    /// asked for; [`EncodeOptions::tokens_per_batch`] says how much that is. Nothing else is held.
    /// A text with an error has it in its place, and those after it go on; only
    /// [`Error::Cancelled`] is the last item. The iterator also ends where `texts` or the progress
    /// callback panics.
    ///
    /// ```
    /// use std::io::BufRead;
    /// use mpnet::EncodeOptions;
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// # let file = std::io::Cursor::new("how are you\nan old train");
    /// let lines = file.lines().map_while(Result::ok); // of a file that is read as texts are needed
    /// for text in encoder.encode_iter(lines, &EncodeOptions::default())? {
    ///     println!("{}", text?.embedding);
    /// }
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Option`], as [`encode_with`](Self::encode_with); each item has those of its text.
    pub fn encode_iter<I>(
        &self,
        texts: I,
        options: &EncodeOptions,
    ) -> Result<EncodeIter<'_, I::IntoIter>>
    where
        I: IntoIterator,
        I::Item: AsRef<str> + Sync,
    {
        Ok(EncodeIter {
            encoder: self,
            texts: texts.into_iter(),
            plan: Plan::new(self, options)?,
            options: options.clone(),
            meter: Meter::new(None, options.progress.clone()),
            taken: 0,
            ready: VecDeque::new(),
            ended: false,
        })
    }
}

impl<I> EncodeIter<'_, I>
where
    I: Iterator,
    I::Item: AsRef<str> + Sync,
{
    /// The next texts, and whether there may be more.
    fn take(&mut self) -> (Vec<I::Item>, bool) {
        let (mut part, mut size) = (Vec::new(), 0);
        while size < self.plan.bytes_at_a_time() {
            let Some(text) = self.texts.next() else { return (part, false) };
            size += cost(text.as_ref());
            part.push(text);
        }
        (part, true)
    }

    /// Takes and encodes the next part; whether there may be more.
    fn advance(&mut self) -> Result<bool> {
        self.options.cancellation.check()?;
        let (part, more) = self.take();
        let (plan, options, meter) = (&self.plan, &self.options, &mut self.meter);
        let (first, count) = (self.taken, part.len());
        let (outcomes, rows) = options.in_pool(|| {
            let (call, mut good) = (Call::new(self.encoder, plan, options), Vec::new());
            let outcomes: Vec<Result<TextReport>> = call
                .tokens(&part, first)?
                .into_iter()
                .map(|text| text.map(|text| keep(text, &mut good)))
                .collect();
            Ok::<_, Error>((outcomes, call.embed(&good, meter)?))
        })?;
        // `rows`: `[good, dim]`, of the texts without an error.
        let mut rows = rows.rows().into_iter();
        self.ready.extend(outcomes.into_iter().filter_map(|outcome| match outcome {
            Ok(report) => {
                rows.next().map(|row| Ok(EncodedText { embedding: row.to_owned(), report }))
            }
            Err(error) => Some(Err(error)),
        }));
        self.taken += count;
        Ok(more)
    }
}

fn keep(text: Windows, good: &mut Vec<Windows>) -> TextReport {
    let report = TextReport::new(&text);
    good.push(text);
    report
}

impl<I> Iterator for EncodeIter<'_, I>
where
    I: Iterator,
    I::Item: AsRef<str> + Sync,
{
    type Item = Result<EncodedText>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && !self.ended {
            // Stays so if this fails, or panics in the texts' iterator or the callback: what was
            // taken would be missing.
            self.ended = true;
            match self.advance() {
                Ok(more) => self.ended = !more,
                Err(error) => return Some(Err(error)),
            }
        }
        self.ready.pop_front()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let ready = self.ready.len();
        let (_, most) = if self.ended { (0, Some(0)) } else { self.texts.size_hint() };
        (ready, most.and_then(|most| most.checked_add(ready)))
    }
}

impl<I> FusedIterator for EncodeIter<'_, I>
where
    I: Iterator,
    I::Item: AsRef<str> + Sync,
{
}
