//! What a caller of long work can see and do while it runs: [`Progress`], [`CancellationToken`].

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::tokenizer::Windows;

/// Stops work from another thread. Clones are cheap and stand for the same token.
///
/// ```
/// use mpnet::{CancellationToken, EncodeOptions};
///
/// let token = CancellationToken::new();
/// let options = EncodeOptions::default().cancellation(&token);
/// // Elsewhere, in a signal handler or where a request is dropped:
/// token.cancel();
/// assert!(token.is_cancelled());
/// ```
#[derive(Debug, Clone, Default)]
pub struct CancellationToken(Arc<AtomicBool>);

impl CancellationToken {
    /// A token that nobody has used yet.
    ///
    /// ```
    /// use mpnet::{CancellationToken, EncodeOptions};
    ///
    /// let token = CancellationToken::new();
    /// let (first, second) = (
    ///     EncodeOptions::default().cancellation(&token), // one token for several calls
    ///     EncodeOptions::default().cancellation(&token),
    /// );
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks all work that has this token to stop, for good: a token cannot be used again.
    ///
    /// ```
    /// let token = mpnet::CancellationToken::new();
    /// let elsewhere = token.clone();
    /// std::thread::spawn(move || elsewhere.cancel()).join().unwrap();
    /// assert!(token.is_cancelled());
    /// ```
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`cancel`](Self::cancel) was called.
    ///
    /// ```
    /// assert!(!mpnet::CancellationToken::new().is_cancelled());
    /// ```
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// How far a call has come.
///
/// ```
/// use mpnet::EncodeOptions;
///
/// let options = EncodeOptions::default().progress(|done| match done.total {
///     Some(total) => println!("{} of {total} texts", done.texts),
///     None => println!("{} texts", done.texts), // `encode_iter` does not know
/// });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Texts that are done: all of their windows computed.
    pub texts: usize,
    /// Texts that there are in all; unknown where they come from an iterator.
    pub total: Option<usize>,
    /// Tokens computed.
    pub tokens: usize,
}

/// What the caller wants to be told.
#[derive(Clone)]
pub(super) struct Callback(Arc<dyn Fn(Progress) + Send + Sync>);

impl Callback {
    pub(super) fn new(callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self(Arc::new(callback))
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

/// Counts what is done, and tells the caller.
#[derive(Debug)]
pub(super) struct Meter {
    done: Progress,
    callback: Option<Callback>,
}

impl Meter {
    pub(super) fn new(total: Option<usize>, callback: Option<Callback>) -> Self {
        Self { done: Progress { texts: 0, total, tokens: 0 }, callback }
    }

    /// To count the windows of `texts`, in whatever order they are computed.
    pub(super) fn part(&mut self, texts: &[Windows]) -> PartMeter<'_> {
        let left = texts.iter().map(|text| text.windows.len()).collect();
        let of = |(text, windows): (usize, &Windows)| vec![text; windows.windows.len()];
        PartMeter {
            text_of: texts.iter().enumerate().flat_map(of).collect(),
            counts: Mutex::new(Counts { left, told: self.done.tokens, done: &mut self.done }),
            callback: self.callback.as_ref(),
        }
    }
}

/// A [`Meter`] for a part of the texts. Any thread counts; the one that drives the call tells what
/// was counted.
pub(super) struct PartMeter<'m> {
    /// The text of each window.
    text_of: Vec<usize>,
    counts: Mutex<Counts<'m>>,
    callback: Option<&'m Callback>,
}

struct Counts<'m> {
    /// How many windows of each text are to be computed still.
    left: Vec<usize>,
    /// The tokens that the caller has been told of.
    told: usize,
    done: &'m mut Progress,
}

impl PartMeter<'_> {
    /// Counts a batch of windows as done.
    pub(super) fn count(&self, batch: &Batch) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for &window in batch.texts() {
            let left = &mut counts.left[self.text_of[window]];
            *left -= 1;
            let is_done = *left == 0;
            counts.done.texts += usize::from(is_done);
        }
        counts.done.tokens += batch.ids().len();
    }

    /// Calls the callback, with no lock held, if there is something that it has not been told.
    pub(super) fn tell(&self) {
        let Some(callback) = self.callback else { return };
        if let Some(done) = self.untold() {
            (callback.0)(done);
        }
    }

    fn untold(&self) -> Option<Progress> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let done = *counts.done;
        (std::mem::replace(&mut counts.told, done.tokens) < done.tokens).then_some(done)
    }
}
