//! The flow of every call: texts → tokens → batches → hidden states → pooled → embeddings.
//!
//! [`Call::embed`] is the whole of it for a part of the texts. Token embeddings and late chunking
//! take the hidden states from the same [`Call::for_each_batch`].
//!
//! Three numbers point into a call: a *text* is a place in what the caller gave; a *window* is one
//! of the pieces that a text is computed in, counted over all texts of a part; a *row* is a token
//! of a batch.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use ndarray::{Array2, ArrayView2, Axis, Slice};

use super::SentenceEncoder;
use super::batches::Batches;
use super::modules;
use super::options::{EncodeOptions, EncodeReport, Overflow};
use super::plan::Plan;
use super::progress::Meter;
use crate::batch::Batch;
use crate::error::{Error, Result, TextProblem};
use crate::kernels::Team;
use crate::model::Buffers;
use crate::tokenizer::{Window, Windows};

/// One call of an encoder: its options, and the threads that compute it.
pub(super) struct Call<'c> {
    pub(super) encoder: &'c SentenceEncoder,
    pub(super) plan: &'c Plan,
    pub(super) options: &'c EncodeOptions,
    team: Team,
}

impl<'c> Call<'c> {
    /// A call in the thread pool that the caller is in.
    pub(super) fn new(
        encoder: &'c SentenceEncoder,
        plan: &'c Plan,
        options: &'c EncodeOptions,
    ) -> Self {
        Self { encoder, plan, options, team: Team::gather() }
    }

    /// Calls `each` with the texts of one part after another, and with their tokens.
    pub(super) fn for_each_part<S: AsRef<str>>(
        &self,
        texts: &[S],
        mut each: impl FnMut(Range<usize>, &[Windows]) -> Result<()>,
    ) -> Result<()> {
        let parts = self.plan.parts(texts);
        let tokens = |part: &Range<usize>| -> Result<Vec<Windows>> {
            self.tokens(&texts[part.clone()], part.start)?.into_iter().collect()
        };
        // Under this policy every text has to fit before any is computed. The tokens of one that
        // fits take less memory than its embedding, so they are kept.
        let mut known = match self.plan.overflow {
            Overflow::Error => parts.iter().map(tokens).collect::<Result<VecDeque<_>>>()?,
            _ => VecDeque::new(),
        };
        for part in parts {
            let tokens = known.pop_front().map_or_else(|| tokens(&part), Ok)?;
            each(part, &tokens)?;
        }
        Ok(())
    }

    /// The tokens of each text, with its prompt before it, or its error. `first` is the number of
    /// the first text.
    pub(super) fn tokens<S: AsRef<str>>(
        &self,
        texts: &[S],
        first: usize,
    ) -> Result<Vec<Result<Windows>>> {
        let Self { encoder, plan, options, team } = self;
        let tokenise = |i: usize, text: &str| {
            // A single text can be long enough for this to matter.
            options.cancellation.check()?;
            let text = match plan.prompt.as_str() {
                "" => Cow::Borrowed(text),
                prompt => Cow::Owned(format!("{prompt}{text}")),
            };
            let tokens = encoder.tokenizer.windows(i, &text, &plan.fit)?;
            if plan.overflow == Overflow::Error && tokens.dropped > 0 {
                let (all, limit) = (tokens.tokens() + tokens.dropped, plan.fit.max_tokens);
                let problem = TextProblem::TooLong { tokens: all, limit };
                return Err(Error::Text { text: i, problem });
            }
            for window in &tokens.windows {
                Batch::check(i, &window.ids, encoder.model.config())?;
            }
            Ok(tokens)
        };
        // `as_ref` is the caller's code: it runs on the caller's thread, outside the team's work.
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let mut tokens: Vec<_> = texts.iter().map(|_| None).collect();
        let pieces = (first..).zip(tokens.iter_mut().zip(texts)).collect();
        team.for_each(pieces, |(i, (out, text)): (usize, (&mut Option<_>, &str))| {
            *out = Some(tokenise(i, text));
        });
        options.cancellation.check()?;
        Ok(tokens.into_iter().flatten().collect())
    }

    /// Computes the windows of `texts` in batches, and calls `each` with the hidden states of each
    /// batch, `[N, D]`, on the threads that compute them.
    pub(super) fn for_each_batch(
        &self,
        texts: &[Windows],
        meter: &mut Meter,
        each: impl Fn(&Team, ArrayView2<f32>, &Batch) + Sync,
    ) -> Result<()> {
        let Self { encoder, plan, options, team } = self;
        let windows: Vec<&Window> = texts.iter().flat_map(|text| &text.windows).collect();
        let batches = Batches::new(&windows, encoder.model.config(), plan.tokens_per_batch)?;
        let meter = meter.part(texts);
        let work = |team: &Team, batch: &Batch, buffers: &mut Buffers| {
            options.cancellation.check()?;
            let hidden = encoder.model.forward_in(team, batch, buffers); // [N, D]
            each(team, hidden, batch);
            meter.count(batch);
            Ok(())
        };
        batches.for_each(team, work, || meter.tell())
    }

    /// The embedding of each text, `[B, dim]`.
    pub(super) fn embed(&self, texts: &[Windows], meter: &mut Meter) -> Result<Array2<f32>> {
        let Self { encoder, plan, options, .. } = self;
        let windows = texts.iter().map(|text| text.windows.len()).sum();
        let width = encoder.pooling.dim(encoder.hidden_size());
        let pooled = Mutex::new(Array2::zeros((windows, width)));
        self.for_each_batch(texts, meter, |team, hidden, batch| {
            let rows = encoder.pooling.apply_by(team, hidden, batch, plan.skip); // [B, D]
            batch.scatter(&rows, &mut pooled.lock().unwrap_or_else(PoisonError::into_inner));
        })?;
        let pooled = pooled.into_inner().unwrap_or_else(PoisonError::into_inner);
        let pooled = match windows == texts.len() {
            true => pooled,
            false => mean_of_windows(&pooled, texts, plan.skip),
        };
        Ok(encoder.finish(pooled, plan.dim, options.normalize))
    }
}

impl SentenceEncoder {
    /// Everything after the pooling: `pooled: [B, D]` → `[B, dim]`.
    pub(super) fn finish(&self, pooled: Array2<f32>, dim: usize, normalize: bool) -> Array2<f32> {
        let mut x = self.modules.iter().fold(pooled, |x, module| module.forward(x));
        if dim < x.ncols() {
            x = x.slice_axis(Axis(1), Slice::from(..dim)).to_owned();
        }
        if normalize {
            modules::normalize(&mut x);
        }
        x
    }

    /// Width of the hidden states, `D`.
    pub(super) fn hidden_size(&self) -> usize {
        self.model.config().hidden_size
    }

    /// For callers who did not ask for the report.
    pub(crate) fn warn_if_cut(&self, report: EncodeReport) -> Array2<f32> {
        let truncated = report.truncated().count();
        if truncated > 0 {
            let limit = self.max_seq_length;
            tracing::warn!(truncated, limit, "texts were longer than max_seq_length and were cut");
        }
        report.embeddings
    }
}

/// The mean of each text's windows by their number of pooled tokens: `pooled: [windows, D]` →
/// `[B, D]`. The first `skip` tokens of a window were not pooled.
fn mean_of_windows(pooled: &Array2<f32>, texts: &[Windows], skip: usize) -> Array2<f32> {
    let mut means = Array2::zeros((texts.len(), pooled.ncols()));
    let mut rows = pooled.rows().into_iter();
    for (text, mut mean) in texts.iter().zip(means.rows_mut()) {
        // A mean of one would not have the same bits.
        if text.windows.len() == 1 {
            rows.by_ref().take(1).for_each(|row| mean.assign(&row));
            continue;
        }
        let mut total = 0.0;
        for (window, row) in text.windows.iter().zip(rows.by_ref()) {
            let tokens = window.ids.len().saturating_sub(skip) as f32;
            mean.scaled_add(tokens, &row);
            total += tokens;
        }
        mean /= total.max(1.0);
    }
    means
}
