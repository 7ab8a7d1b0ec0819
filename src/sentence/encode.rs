//! The steps of encoding: texts → windows → pooled vectors → embeddings.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use ndarray::{Array2, Axis, Slice};

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

impl SentenceEncoder {
    /// The tokens of each text, its prompt before it, or what is wrong with it.
    pub(super) fn tokens<S: AsRef<str>>(
        &self,
        team: &Team,
        texts: &[S],
        plan: &Plan,
        options: &EncodeOptions,
    ) -> Result<Vec<Result<Windows>>> {
        let of = |i: usize, text: &str| {
            // A single text can be long enough for this to matter.
            options.cancellation.check()?;
            let text = match plan.prompt.as_str() {
                "" => Cow::Borrowed(text),
                prompt => Cow::Owned(format!("{prompt}{text}")),
            };
            let tokens = self.tokenizer.windows(i, &text, &plan.fit)?;
            if plan.overflow == Overflow::Error && tokens.dropped > 0 {
                let (all, limit) = (tokens.tokens() + tokens.dropped, plan.fit.max_tokens);
                return Err(Error::Text {
                    text: i,
                    problem: TextProblem::TooLong { tokens: all, limit },
                });
            }
            for window in &tokens.windows {
                Batch::check(i, &window.ids, self.model.config())?;
            }
            Ok(tokens)
        };
        // `as_ref` is the caller's code: it runs on the caller's thread, outside the team's work.
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let mut tokens: Vec<_> = texts.iter().map(|_| None).collect();
        let pieces = tokens.iter_mut().zip(texts).enumerate().collect();
        team.for_each(pieces, |(i, (out, text)): (usize, (&mut Option<_>, &str))| {
            *out = Some(of(i, text));
        });
        options.cancellation.check()?;
        Ok(tokens.into_iter().flatten().collect())
    }

    /// Fails with the first text that is too long, before any is computed.
    pub(super) fn check_lengths<S: AsRef<str>>(
        &self,
        team: &Team,
        texts: &[S],
        parts: &[Range<usize>],
        plan: &Plan,
        options: &EncodeOptions,
    ) -> Result<()> {
        for part in parts {
            for tokens in self.tokens(team, &texts[part.clone()], plan, options)? {
                tokens.map_err(|error| error.moved(part.start))?;
            }
        }
        Ok(())
    }

    /// The embedding of each text, `[B, dim]`.
    pub(super) fn embed(
        &self,
        team: &Team,
        texts: &[Windows],
        plan: &Plan,
        options: &EncodeOptions,
        meter: &mut Meter,
    ) -> Result<Array2<f32>> {
        let windows: Vec<&Window> = texts.iter().flat_map(|text| &text.windows).collect();
        let mut pooled = Array2::zeros((windows.len(), self.pooling.dim(self.hidden_size())));
        let meter = meter.part(texts);
        let batches = Batches::new(&windows, self.model.config(), plan.tokens_per_batch)?;
        let results = Mutex::new(&mut pooled);
        let work = |team: &Team, batch: &Batch, buffers: &mut Buffers| {
            options.cancellation.check()?;
            let hidden = self.model.forward_in(team, batch, buffers); // [N, D]
            let rows = self.pooling.apply_by(team, hidden, batch, plan.skip); // [B, D]
            let mut pooled = results.lock().unwrap_or_else(PoisonError::into_inner);
            batch.scatter(&rows, *pooled);
            meter.count(batch);
            Ok(())
        };
        batches.for_each(team, work, || meter.tell())?;
        let pooled = if windows.len() == texts.len() {
            pooled
        } else {
            mean_of_windows(&pooled, texts, plan.skip)
        };
        Ok(self.finish(pooled, plan.dim, options.normalize))
    }

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

/// The mean of each text's windows by their number of pooled tokens: `pooled: [windows, D]` → `[B, D]`. The first `skip`
/// tokens of a window were not pooled.
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
