//! The two requests that are made: what is this file (`HEAD`), and give it (`GET`).

use std::time::Duration;

use ureq::http::Response;
use ureq::http::header::HeaderMap;
use ureq::{Agent, Body};

use super::address::{Address, escape};
use super::cache::is_commit;
use super::problem::HubProblem;
use super::settings::{Settings, Token};
use super::tls;
use crate::error::Result;

const MAX_REDIRECTS: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For each piece of an answer, not for all of it.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// What the hub says of a file of a revision.
#[derive(Debug)]
pub(super) enum Head {
    File(Metadata),
    /// There is none; the commit, if the hub says it.
    Missing(Option<String>),
}

#[derive(Debug)]
pub(super) struct Metadata {
    pub(super) commit: String,
    /// The name of the contents: the sha256 of a file in large-file storage, the hash of Git for another.
    pub(super) etag: String,
    pub(super) size: Option<u64>,
}

/// A client of one hub.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    has_tls: bool,
    endpoint: String,
    repo: String,
    token: Token,
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let config = Agent::config_builder()
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .user_agent(concat!("mpnet/", env!("CARGO_PKG_VERSION")))
            // Redirects are followed here: the token must not go to other addresses, and the hub's headers are in the
            // answers on the way.
            .max_redirects(0)
            .http_status_as_error(false);
        let provider = tls::provider();
        let has_tls = provider.is_some();
        let config = match provider {
            Some(provider) => {
                config.tls_config(tls::config(provider, settings.trusted.as_deref())?)
            }
            None => config,
        };
        Ok(Self {
            agent: config.build().new_agent(),
            has_tls,
            endpoint: settings.endpoint.clone(),
            repo: settings.repo.clone(),
            token: settings.token.clone(),
        })
    }

    /// Asks what `file` is at `revision`.
    ///
    /// Source: huggingface_hub's `get_hf_file_metadata`. A file in large-file storage is a redirect to elsewhere; what the hub says
    /// of it is in that answer.
    pub(super) fn head(&self, revision: &str, file: &str) -> Result<Head, HubProblem> {
        let mut said = Said::default();
        let response = self.follow(Method::Head, revision, file, |hub, headers, redirect| {
            said.read(headers, redirect);
            // To the storage nothing needs to be asked, and its own tag is not the hub's.
            !hub && said.commit.is_some() && (said.linked_etag.is_some() || said.etag.is_some())
        })?;
        let status = response.status();
        if !status.is_success() && !status.is_redirection() {
            return match refusal(&response) {
                HubProblem::FileNotFound => Ok(Head::Missing(said.commit.filter(|c| is_commit(c)))),
                problem => Err(problem),
            };
        }
        said.metadata().map(Head::File)
    }

    /// Asks for the bytes of `file` from `start` on. The answer is one of success (200: all of it; 206: a part), or 416.
    pub(super) fn get(
        &self,
        commit: &str,
        file: &str,
        start: u64,
    ) -> Result<Response<Body>, HubProblem> {
        let response = self.follow(Method::Get { start }, commit, file, |_, _, _| false)?;
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            416 if start > 0 => Ok(response),
            _ => Err(refusal(&response)),
        }
    }

    /// Follows redirects until `stop`, which sees whether the redirect stays at the hub, or an answer that is none.
    fn follow(
        &self,
        method: Method,
        revision: &str,
        file: &str,
        mut stop: impl FnMut(bool, &HeaderMap, bool) -> bool,
    ) -> Result<Response<Body>, HubProblem> {
        let (endpoint, repo) = (&self.endpoint, &self.repo);
        let (revision, file) = (escape(revision, false), escape(file, true));
        let url = format!("{endpoint}/{repo}/resolve/{revision}/{file}");
        let hub = Address::parse(&url)
            .ok_or_else(|| HubProblem::Answer { problem: format!("`{url}` is not an address") })?;
        let mut address = hub.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(method, &address, &hub)?;
            let redirect = response.status().is_redirection() && response.status() != 304;
            let next = if redirect { Some(target(&address, &response)?) } else { None };
            let stays = next.as_ref().is_none_or(|next| next.same_origin(&hub));
            if stop(stays, response.headers(), redirect) {
                return Ok(response);
            }
            match next {
                Some(next) => address = next,
                None => return Ok(response),
            }
        }
        let problem = format!("more than {MAX_REDIRECTS} times");
        Err(HubProblem::Redirect { url: hub.shown(), problem })
    }

    fn send(
        &self,
        method: Method,
        address: &Address,
        hub: &Address,
    ) -> Result<Response<Body>, HubProblem> {
        if address.is_encrypted() && !self.has_tls {
            let problem = "this processor lacks the instructions of the built-in provider, and no other is \
                           installed (`rustls::crypto::CryptoProvider::install_default`)";
            return Err(HubProblem::Tls { problem: problem.to_owned() });
        }
        let mut request = match method {
            Method::Head => self.agent.head(address.uri()),
            Method::Get { .. } => self.agent.get(address.uri()),
        };
        // Compressed, a file would have another length, and no parts.
        request = request.header("Accept-Encoding", "identity");
        if let Method::Get { start: start @ 1.. } = method {
            request = request.header("Range", format!("bytes={start}-"));
        }
        if let Token::Given(token) = &self.token
            && address.same_origin(hub)
        {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request.call().map_err(|error| unreachable_because(address, &error))
    }
}

#[derive(Debug, Clone, Copy)]
enum Method {
    Head,
    Get { start: u64 },
}

fn unreachable_because(address: &Address, error: &ureq::Error) -> HubProblem {
    let (url, problem) = (address.shown(), error.to_string());
    if is_of_tls(error) {
        HubProblem::Tls { problem: format!("{url}: {problem}") }
    } else {
        HubProblem::Unreachable { url, problem }
    }
}

/// Whether it is about certificates or the like, which will be the same in a moment.
fn is_of_tls(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_) => true,
        ureq::Error::Io(error) => error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()),
        _ => false,
    }
}

/// Where a redirect leads.
fn target(from: &Address, response: &Response<Body>) -> Result<Address, HubProblem> {
    let wrong = |problem: String| HubProblem::Redirect { url: from.shown(), problem };
    let Some(location) = text(response.headers(), "Location") else {
        return Err(wrong("without saying to where".to_owned()));
    };
    match from.join(location) {
        None => Err(wrong("to what is not an address of http or https".to_owned())),
        Some(to) if from.is_encrypted() && !to.is_encrypted() => {
            Err(wrong(format!("to `{}`, which is not encrypted", to.shown())))
        }
        Some(to) => Ok(to),
    }
}

/// What the answers to one question said, the later ones in the place of the earlier.
#[derive(Debug, Default)]
struct Said {
    commit: Option<String>,
    linked_etag: Option<String>,
    etag: Option<String>,
    linked_size: Option<String>,
    size: Option<String>,
}

impl Said {
    fn read(&mut self, headers: &HeaderMap, redirect: bool) {
        let own = |name: &str| text(headers, name).map(str::to_owned);
        let keep = |to: &mut Option<String>, name: &str| *to = own(name).or(to.take());
        keep(&mut self.commit, "X-Repo-Commit");
        keep(&mut self.linked_etag, "X-Linked-Etag");
        keep(&mut self.linked_size, "X-Linked-Size");
        keep(&mut self.etag, "ETag");
        if !redirect {
            keep(&mut self.size, "Content-Length"); // that of a redirect is its own
        }
    }

    fn metadata(self) -> Result<Metadata, HubProblem> {
        let wrong = |problem: String| HubProblem::Answer { problem };
        let commit = self.commit.ok_or_else(|| wrong("it has no X-Repo-Commit".to_owned()))?;
        if !is_commit(&commit) {
            return Err(wrong(format!("X-Repo-Commit `{commit}` is not the hash of a commit")));
        }
        let etag = self.linked_etag.or(self.etag).unwrap_or_default();
        let etag = etag.strip_prefix("W/").unwrap_or(&etag).trim_matches('"');
        // It becomes the name of a file.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !(1..=128).contains(&etag.len()) || etag.starts_with('.') || !etag.chars().all(plain) {
            return Err(wrong(format!("ETag `{etag}` is not the hash of a file")));
        }
        let size = self.linked_size.or(self.size);
        let size = size.map(|size| {
            size.parse().map_err(|_| wrong(format!("the length `{size}` is not a number")))
        });
        Ok(Metadata { commit, etag: etag.to_owned(), size: size.transpose()? })
    }
}

/// Why there is no success. Source: huggingface_hub's `hf_raise_for_status`.
fn refusal(response: &Response<Body>) -> HubProblem {
    let status = response.status().as_u16();
    let said = |name| text(response.headers(), name).unwrap_or_default();
    let message = || said("X-Error-Message").chars().take(300).collect::<String>();
    match (status, said("X-Error-Code")) {
        (_, "RevisionNotFound") => HubProblem::RevisionNotFound,
        (_, "EntryNotFound") => HubProblem::FileNotFound,
        (_, "GatedRepo") => HubProblem::Gated { message: message() },
        (_, "RepoNotFound") => HubProblem::RepositoryNotFound,
        (401, _) if message() != "Invalid credentials in Authorization header" => {
            HubProblem::RepositoryNotFound
        }
        (401 | 403, _) => HubProblem::Refused { status, message: message() },
        (404, _) => HubProblem::FileNotFound,
        _ => HubProblem::Status { status, message: message() },
    }
}

/// A header; to be a text it must be of visible ASCII characters, so that it can be shown.
fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim).filter(|text| !text.is_empty())
}
