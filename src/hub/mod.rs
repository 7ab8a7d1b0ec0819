//! [`HubModel`]: a model's name on the Hugging Face hub → a directory with its files.
//!
//! ```text
//!  name, revision ─▶ commit ─▶ files: what the loader reads ─▶ cache ─▶ directory of that commit
//!                    client.rs        files.rs                 cache.rs
//!                                     download.rs
//! ```
//!
//! The cache is the one of Python's huggingface_hub, so what it has downloaded is found here, and
//! the other way round.

mod address;
mod cache;
mod client;
mod download;
mod environment;
mod expand;
mod files;
mod forward;
mod problem;
mod proxies;
mod settings;
mod snapshot;
mod tls;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
use crate::sentence::{CancellationToken, SentenceEncoder};

pub use problem::HubProblem;

use environment::Env;
use settings::{Settings, Token};
use snapshot::Revision;

/// A model on the Hugging Face hub, or on a mirror of it: where it is, and how it is fetched.
///
/// ```no_run
/// use mpnet::{HubModel, Precision, SentenceEncoder};
///
/// let directory = HubModel::new("sentence-transformers/all-mpnet-base-v2")
///     .revision("9a3225965996d404b775526de6dbfe85d3368642")
///     .cache_dir("/var/cache/models")
///     .fetch()?;
/// let encoder = SentenceEncoder::builder(directory).precision(Precision::Bf16).build()?;
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # What is fetched
///
/// What loading reads, and nothing else: `modules.json` and the files of the modules that it names,
/// which are configuration, tokenizer, and weights as safetensors, in one file or in shards. Files
/// come from one commit, even if the branch moves meanwhile. Those that are in the cache are not
/// fetched again: for a branch the hub is asked for its commit, for a commit that is complete it is
/// not asked at all. If the hub cannot be asked for a branch, or does not answer with its commit,
/// what was fetched last is used, with a warning by `tracing`.
///
/// A transfer that breaks is taken up where it stopped, now or by a later call. Sizes are compared
/// with what the hub says, and the sha256 of files that it keeps in large-file storage, as it does
/// weights. A file gets its name in the cache when it is whole and right. Several threads or
/// processes may fetch into one cache.
///
/// # Without a network
///
/// A cache that is complete is enough, with [`local_files_only`](Self::local_files_only) or when
/// the hub cannot be asked. That it is complete is known if this crate filled it, or a recent
/// huggingface_hub, which keeps a listing of the repository's files. An older one leaves no trace
/// of the optional files that a repository does not have; they count as absent, as they do in
/// Python, unless that could change the embeddings unseen: if `modules.json` is not there though
/// other files of sentence-transformers are, or though the repository was not downloaded as a whole
/// (transformers leaves such a cache), or if a download was interrupted. Then the error names the
/// file, and the folder to load by [`from_pretrained`](SentenceEncoder::from_pretrained) if that is
/// all there is.
///
/// # Environment
///
/// As for Python's huggingface_hub 2.4 and sentence-transformers 6.2; what is set on the `HubModel`
/// has precedence. An empty variable counts as unset. In paths, `~`, `~user`, `$NAME` and `${NAME}`
/// are replaced (on Windows `%NAME%`, too), and names that are not set stay; in
/// `SENTENCE_TRANSFORMERS_HOME` and [`cache_dir`](Self::cache_dir) only `~` and `~user` are.
///
/// | variable | meaning |
/// |---|---|
/// | `SENTENCE_TRANSFORMERS_HOME`, `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME` (`$HF_HOME/hub`), `XDG_CACHE_HOME` (`…/huggingface/hub`) | the cache, the first that is set; else `~/.cache/huggingface/hub` |
/// | `HF_ENDPOINT` | the hub; else `https://huggingface.co` |
/// | `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, `HF_TOKEN_PATH` | the token, or the file that holds it; else `$HF_HOME/token` |
/// | `HF_HUB_DISABLE_IMPLICIT_TOKEN` | `1`: send only a token that was set by [`token`](Self::token) |
/// | `HF_OIDC_RESOURCE` | refused: tokens are not exchanged |
/// | `HF_HUB_OFFLINE`, or else `TRANSFORMERS_OFFLINE` | `1`: as [`local_files_only`](Self::local_files_only) |
/// | `HF_HUB_ETAG_TIMEOUT`, `HF_HUB_DOWNLOAD_TIMEOUT` | seconds to wait for an answer, and for each piece of a file; else 10 to connect and 30 to read |
/// | `SSL_CERT_FILE`, or else `SSL_CERT_DIR` | certificates (PEM) to trust instead of Mozilla's, which are built in: a file, or folders as OpenSSL has them |
/// | `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` | the proxy for addresses of that scheme, else the last, as `http://name:password@host:port`; names in small letters have precedence. SOCKS is refused |
/// | `NO_PROXY` | what is asked without a proxy, by commas: `example.com` with all below it, `.example.com`, addresses, networks (`10.0.0.0/8`), each with a port or not, or `*` |
///
/// `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`, `TRANSFORMERS_CACHE` and the proxies of the system's
/// settings are not read: the first three not by that Python, either.
///
/// # TLS
///
/// By rustls, without C: its cryptography is that of `rustls-graviola`, in Rust and verified
/// assembly. That needs x86-64 with AES, AVX2, BMI, ADX and PCLMULQDQ (most since 2014) or arm64
/// with AES, PMULL and SHA-2 (not a Raspberry Pi 4). Elsewhere a program can install another
/// provider by `rustls::crypto::CryptoProvider::install_default`; whichever is installed is used.
/// Without one, an `https` address is an error, [`HubProblem::Tls`].
#[derive(Debug, Clone)]
#[must_use]
pub struct HubModel {
    repo: String,
    revision: String,
    cache_dir: Option<PathBuf>,
    endpoint: Option<String>,
    token: Token,
    local_files_only: bool,
    progress: Option<Callback>,
    cancellation: CancellationToken,
}

impl HubModel {
    /// The model `repo`: `organisation/name`, or a name alone for one of sentence-transformers.
    ///
    /// ```
    /// let model = mpnet::HubModel::new("sentence-transformers/all-mpnet-base-v2");
    /// let the_same = mpnet::HubModel::new("all-mpnet-base-v2");
    /// ```
    pub fn new(repo: impl Into<String>) -> Self {
        Self {
            repo: repo.into(),
            revision: "main".to_owned(),
            cache_dir: None,
            endpoint: None,
            token: Token::Implicit,
            local_files_only: false,
            progress: None,
            cancellation: CancellationToken::new(),
        }
    }

    /// A branch, a tag, or the hash of a commit; `main` unless set.
    ///
    /// ```
    /// let model = mpnet::HubModel::new("all-mpnet-base-v2");
    /// let model = model.revision("9a3225965996d404b775526de6dbfe85d3368642");
    /// ```
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = revision.into();
        self
    }

    /// The cache, instead of what the environment says: the directory in which
    /// `models--organisation--name` is.
    ///
    /// `~` and `~user` at its beginning are home directories, as for `cache_folder` in Python;
    /// write `./~` for a folder of that name. Nothing else is replaced.
    ///
    /// ```
    /// # let cache = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/hub_cache.rs"));
    /// let model = mpnet::HubModel::new("example/tiny").local_files_only(true).cache_dir(cache.path());
    /// assert!(model.fetch()?.starts_with(cache.path()));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn cache_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(directory.into());
        self
    }

    /// The hub, instead of what the environment says: `https://` or `http://`, a host, and perhaps
    /// a path.
    ///
    /// ```
    /// let mirror = mpnet::HubModel::new("all-mpnet-base-v2").endpoint("https://hub.example.org/mirror");
    /// ```
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// The token for private and gated models, instead of what the environment says. It is sent to
    /// the hub's own address only, never to one that the hub redirects to.
    ///
    /// ```
    /// let token = std::env::var("MY_HUB_TOKEN").unwrap_or_default();
    /// let model = mpnet::HubModel::new("my-organisation/my-model").token(token);
    /// ```
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Token::Given(token.into());
        self
    }

    /// Sends no token, whatever the environment says.
    ///
    /// ```
    /// let model = mpnet::HubModel::new("all-mpnet-base-v2").no_token();
    /// ```
    pub fn no_token(mut self) -> Self {
        self.token = Token::None;
        self
    }

    /// Whether only the cache is used, and nothing is asked of the hub.
    ///
    /// ```
    /// # let cache = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/hub_cache.rs"));
    /// use mpnet::{Error, HubModel};
    ///
    /// let local = |repo| HubModel::new(repo).cache_dir(cache.path()).local_files_only(true);
    /// assert!(local("example/tiny").fetch().is_ok());
    /// assert!(matches!(local("example/other").fetch(), Err(Error::Hub { .. }))); // never fetched
    /// ```
    pub fn local_files_only(mut self, only: bool) -> Self {
        self.local_files_only = only;
        self
    }

    /// Calls `callback` now and then while a file is being fetched, at its beginning, and when it
    /// is there.
    ///
    /// ```
    /// let model = mpnet::HubModel::new("all-mpnet-base-v2").progress(|done| match done.total {
    ///     Some(total) => eprintln!("{}: {} of {total} bytes", done.file, done.bytes),
    ///     None => eprintln!("{}: {} bytes", done.file, done.bytes),
    /// });
    /// ```
    pub fn progress(
        mut self,
        callback: impl Fn(&DownloadProgress) + Send + Sync + 'static,
    ) -> Self {
        self.progress = Some(Callback(Arc::new(callback)));
        self
    }

    /// Stops with [`Error::Cancelled`](crate::Error::Cancelled) when `token` is used; what was
    /// fetched is kept for a later call.
    ///
    /// ```
    /// use mpnet::{CancellationToken, HubModel};
    ///
    /// let token = CancellationToken::new();
    /// let model = HubModel::new("all-mpnet-base-v2").cancellation(&token);
    /// token.cancel(); // from any thread, while another is in `model.fetch()`
    /// ```
    pub fn cancellation(mut self, token: &CancellationToken) -> Self {
        self.cancellation = token.clone();
        self
    }

    /// Fetches what the cache lacks, and returns the directory with the model's files, to load them
    /// from.
    ///
    /// The files are the cache's own: nobody may change them.
    ///
    /// ```
    /// # let cache = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/hub_cache.rs"));
    /// use mpnet::{HubModel, SentenceEncoder};
    ///
    /// let model = HubModel::new("example/tiny").cache_dir(cache.path()).local_files_only(true);
    /// let encoder = SentenceEncoder::from_pretrained(model.fetch()?)?;
    /// assert_eq!(encoder.dim(), 32);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Hub`](crate::Error::Hub) if the hub, or the cache if that is to do, does not have a
    /// file, or the wrong one; [`Error::Option`](crate::Error::Option) if a name, revision, address
    /// or token cannot be one; [`Error::Io`](crate::Error::Io) if a file cannot be written; the
    /// errors of `modules.json` and of an index of shards, such as names that lead out of the
    /// model's directory; [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn fetch(&self) -> Result<PathBuf> {
        let settings = Settings::resolve(self, &Env::of_process())?;
        Revision::new(self, settings).fetch()
    }
}

/// How far the transfer of a file has come.
///
/// ```
/// use mpnet::{DownloadProgress, HubModel};
///
/// fn percent(done: &DownloadProgress) -> Option<u64> {
///     Some(100 * done.bytes / done.total?.max(1))
/// }
/// let model = HubModel::new("all-mpnet-base-v2").progress(|done| eprintln!("{} {:?} %", done.file, percent(done)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DownloadProgress {
    /// Its name, with the folder in the model's directory.
    pub file: String,
    /// Bytes that are there.
    pub bytes: u64,
    /// Bytes that it has; unknown if the hub does not say.
    pub total: Option<u64>,
}

#[derive(Clone)]
struct Callback(Arc<dyn Fn(&DownloadProgress) + Send + Sync>);

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

impl SentenceEncoder {
    /// Fetches the model `repo` from the Hugging Face hub, unless it is in the cache, and loads it.
    /// [`HubModel`] has the options, and says what the environment sets.
    ///
    /// ```no_run
    /// use mpnet::SentenceEncoder;
    ///
    /// let encoder = SentenceEncoder::from_hub("sentence-transformers/all-mpnet-base-v2")?;
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// Source: `SentenceTransformer(repo)`.
    ///
    /// # Errors
    ///
    /// As [`HubModel::fetch`] and [`from_pretrained`](Self::from_pretrained).
    #[cfg_attr(docsrs, doc(cfg(feature = "hub")))]
    pub fn from_hub(repo: impl Into<String>) -> Result<Self> {
        Self::from_pretrained(HubModel::new(repo).fetch()?)
    }
}
