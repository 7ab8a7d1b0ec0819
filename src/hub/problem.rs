//! [`HubProblem`]: why the hub, or the cache, did not give a file.

/// Why the hub, or its cache, did not give a file: the `source` of
/// [`Error::Hub`](crate::Error::Hub), which names the model, revision and file.
///
/// ```
/// use mpnet::{Error, HubModel, HubProblem};
///
/// let model = HubModel::new("all-mpnet-base-v2").cache_dir("/nowhere").local_files_only(true);
/// let Err(Error::Hub { repo, source, .. }) = model.fetch() else { unreachable!() };
/// assert_eq!(repo, "sentence-transformers/all-mpnet-base-v2");
/// assert!(matches!(source.downcast_ref(), Some(HubProblem::Offline { .. })));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubProblem {
    /// Nothing may be asked of the hub, and the cache does not have the file, or does not know that
    /// there is none.
    #[error(
        "it is not in the cache `{cache}`, and the hub is not asked (`local_files_only`, or HF_HUB_OFFLINE or \
         TRANSFORMERS_OFFLINE is set): {advice}"
    )]
    Offline {
        /// The directory of the cache.
        cache: String,
        /// What is known of the file, and what to do.
        advice: String,
    },

    /// The repository does not exist, or only a token opens it.
    #[error(
        "the repository does not exist, or it is private or gated and needs a token that opens it"
    )]
    RepositoryNotFound,

    /// The repository has no such branch, tag or commit.
    #[error("the repository has no such revision")]
    RevisionNotFound,

    /// The repository has no such file.
    #[error("the repository has no such file")]
    FileNotFound,

    /// Access is granted by the model's owner, and this token does not have it.
    #[error(
        "the model is gated: ask for access on its page, and give the token of who has it{}",
        said(message)
    )]
    Gated {
        /// What the hub says of it; empty if nothing.
        message: String,
    },

    /// The hub does not accept the token, or gives no access without one.
    #[error("the hub refuses access (status {status}){}", said(message))]
    Refused {
        /// The status of HTTP, 401 or 403.
        status: u16,
        /// What the hub says of it; empty if nothing.
        message: String,
    },

    /// The hub answers with another status than success.
    #[error("the hub answers with status {status}{}", said(message))]
    Status {
        /// The status of HTTP.
        status: u16,
        /// What the hub says of it; empty if nothing.
        message: String,
    },

    /// No answer, or one that breaks off again and again.
    #[error("`{url}` cannot be read: {problem}")]
    Unreachable {
        /// The address, without what stands after `?`, which may be secret; that of the proxy, if
        /// there is one.
        url: String,
        /// What went wrong: resolving, connecting, TLS, HTTP.
        problem: String,
    },

    /// The proxy that the environment names for the address cannot be used, or refuses.
    #[error("the proxy {proxy} {problem}")]
    Proxy {
        /// Its address, without name and password, and the variable that says it.
        proxy: String,
        /// Why.
        problem: String,
    },

    /// The hub redirects too often, or to where it must not.
    #[error("`{url}` redirects {problem}")]
    Redirect {
        /// The address, without what stands after `?`.
        url: String,
        /// To where, or how often.
        problem: String,
    },

    /// The answer is not that of a hub.
    #[error("the answer is not that of a hub: {problem}")]
    Answer {
        /// What is wrong with it.
        problem: String,
    },

    /// TLS is not possible on this machine, or not as it is set up.
    #[error("no TLS: {problem}")]
    Tls {
        /// What is wrong.
        problem: String,
    },

    /// What came has another length than the hub said.
    #[error("it has {found} bytes or more, not the {expected} that the hub says")]
    Size {
        /// Bytes by the hub's word.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },

    /// What came is not what the hub says it is.
    #[error("its sha256 is {found}, not {expected} as the hub says")]
    Checksum {
        /// By the hub's word, in hexadecimal digits.
        expected: String,
        /// What came.
        found: String,
    },
}

impl HubProblem {
    /// Whether the same request may well succeed in a moment.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => is_transient(*status),
            _ => false,
        }
    }
}

/// Whether an answer with such a status may well be another in a moment.
pub(super) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
