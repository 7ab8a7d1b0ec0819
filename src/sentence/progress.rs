//! What a caller of long work can see and do while it runs: [`Progress`], [`CancellationToken`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// Counts what is done, and tells.
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
        PartMeter { left, text_of: texts.iter().enumerate().flat_map(of).collect(), meter: self }
    }
}

/// A [`Meter`] for a part of the texts.
pub(super) struct PartMeter<'m> {
    meter: &'m mut Meter,
    /// The text of each window.
    text_of: Vec<usize>,
    /// How many windows of each text are to be computed still.
    left: Vec<usize>,
}

impl PartMeter<'_> {
    /// A batch of these `windows` is done.
    pub(super) fn batch(&mut self, windows: &[usize], tokens: usize) {
        for &window in windows {
            let left = &mut self.left[self.text_of[window]];
            *left -= 1;
            self.meter.done.texts += usize::from(*left == 0);
        }
        self.meter.done.tokens += tokens;
        if let Some(callback) = &self.meter.callback {
            (callback.0)(self.meter.done);
        }
    }
}
