//! The two requests that are made: what is this file (`HEAD`), and give it (`GET`).

use std::time::Duration;

use ureq::http::Response;
use ureq::http::header::HeaderMap;
use ureq::{Agent, Body};

use super::address::{Address, escape};
use super::cache::is_commit;
use super::forward;
use super::problem::HubProblem;
use super::proxies::{Proxies, Proxy};
use super::settings::{Settings, Token};
use super::tls;
use crate::error::Result;

const MAX_REDIRECTS: usize = 10;
const USER_AGENT: &str = concat!("mpnet/", env!("CARGO_PKG_VERSION"));
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
    /// The name of the contents: the sha256 of a file in large-file storage, the hash of Git for
    /// another.
    pub(super) etag: String,
    pub(super) size: Option<u64>,
}

/// A client of one hub.
#[derive(Debug)]
pub(super) struct Client<'s> {
    agent: Agent,
    has_tls: bool,
    proxies: &'s Proxies,
    /// Of `HEAD` and of `GET`, if the environment says them.
    timeouts: (Option<Duration>, Option<Duration>),
    endpoint: String,
    repo: String,
    token: Token,
}

impl<'s> Client<'s> {
    pub(super) fn new(settings: &'s Settings) -> Result<Self> {
        let config = Agent::config_builder()
            // They are chosen here, for each address: ureq takes one for all.
            .proxy(None)
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .user_agent(USER_AGENT)
            // Redirects are followed here: the token must not go to other addresses, and the hub's
            // headers are in the answers on the way.
            .max_redirects(0)
            .http_status_as_error(false);
        let provider = tls::provider();
        let has_tls = provider.is_some();
        let config = match provider {
            Some(provider) => config.tls_config(tls::config(provider, settings.trusted.as_ref())?),
            None => config,
        };
        Ok(Self {
            agent: config.build().new_agent(),
            has_tls,
            proxies: &settings.proxies,
            timeouts: settings.timeouts,
            endpoint: settings.endpoint.clone(),
            repo: settings.repo.clone(),
            token: settings.token.clone(),
        })
    }

    /// Asks what `file` is at `revision`.
    ///
    /// Source: huggingface_hub's `get_hf_file_metadata`. A file in large-file storage is a redirect
    /// to elsewhere; what the hub says of it is in that answer.
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

    /// Asks for the bytes of `file` from `start` on. The answer is one of success (200: all of it;
    /// 206: a part), or 416.
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

    /// Follows redirects until `stop`, which sees whether the redirect stays at the hub, or an
    /// answer that is none.
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
        // Compressed, a file would have another length, and no parts.
        let mut headers = vec![("Accept-Encoding", "identity".to_owned())];
        if let Method::Get { start: start @ 1.. } = method {
            headers.push(("Range", format!("bytes={start}-")));
        }
        if let Token::Given(token) = &self.token
            && address.same_origin(hub)
        {
            headers.push(("Authorization", format!("Bearer {token}")));
        }
        match self.proxies.of_address(address) {
            None => self
                .request(method, address, headers, None)
                .map_err(|error| unreachable_because(address, &error)),
            Some(proxy) => self.send_by(proxy, method, address, headers),
        }
    }

    fn request(
        &self,
        method: Method,
        address: &Address,
        headers: Vec<(&str, String)>,
        proxy: Option<ureq::Proxy>,
    ) -> Result<Response<Body>, ureq::Error> {
        let mut request = match method {
            Method::Head => self.agent.head(address.uri()),
            Method::Get { .. } => self.agent.get(address.uri()),
        };
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut config = request.config().proxy(proxy);
        if let Some(patience) = self.patience(method) {
            config = config
                .timeout_resolve(Some(patience))
                .timeout_connect(Some(patience))
                .timeout_recv_response(Some(patience))
                .timeout_per_read(Some(patience));
        }
        config.build().call()
    }

    /// What the environment says of how long to wait.
    fn patience(&self, method: Method) -> Option<Duration> {
        match method {
            Method::Head => self.timeouts.0,
            Method::Get { .. } => self.timeouts.1,
        }
    }

    /// Through a tunnel to an `https` address; an `http` address the proxy asks itself.
    fn send_by(
        &self,
        proxy: &Proxy,
        method: Method,
        address: &Address,
        mut headers: Vec<(&str, String)>,
    ) -> Result<Response<Body>, HubProblem> {
        let usable = proxy.usable()?;
        if address.is_encrypted() {
            let response = self.request(method, address, headers, Some(usable.clone()));
            return response.map_err(|error| no_tunnel_because(proxy, address, &error));
        }
        if usable.protocol() != ureq::ProxyProtocol::Http {
            return Err(
                proxy.refuses("is of `https://`, which is not supported for an `http://` address")
            );
        }
        headers.push(("User-Agent", USER_AGENT.to_owned()));
        if let Some(credentials) = address.credentials()
            && !headers.iter().any(|(name, _)| *name == "Authorization")
        {
            let basic = forward::base64(credentials.as_bytes());
            headers.push(("Authorization", format!("Basic {basic}")));
        }
        let patience = self.patience(method);
        let timeouts = (patience.unwrap_or(CONNECT_TIMEOUT), patience.unwrap_or(READ_TIMEOUT));
        let name = match method {
            Method::Head => "HEAD",
            Method::Get { .. } => "GET",
        };
        let response = forward::send(usable, name, address, &headers, timeouts)
            .map_err(|error| proxy.fails(error))?;
        let status = response.status().as_u16();
        let is_of_hub = ["X-Error-Code", "X-Error-Message"]
            .iter()
            .any(|it| response.headers().contains_key(*it));
        match status {
            403 | 407 | 502..=504 if !is_of_hub => {
                let problem = format!(
                    "answers with status {status}, or what it asked does: {}",
                    address.origin()
                );
                Err(proxy.answers(status, &problem))
            }
            _ => Ok(response),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Method {
    Head,
    Get { start: u64 },
}

/// Behind the tunnel only the hub can be at fault for what concerns certificates.
fn no_tunnel_because(proxy: &Proxy, address: &Address, error: &ureq::Error) -> HubProblem {
    let hub = address.origin();
    match error {
        _ if is_of_tls(error) => unreachable_because(address, error),
        ureq::Error::ConnectProxyFailed(reason) => {
            // ureq has the status in its message alone.
            let status = reason.strip_prefix("proxy server responded ");
            match status.and_then(|it| it.split('/').next()?.parse().ok()) {
                Some(status) => {
                    let problem = format!("opens no way to {hub}: it answers with status {status}");
                    proxy.answers(status, &problem)
                }
                None => proxy.fails(format!("opens no way to {hub}: {reason}")),
            }
        }
        _ => proxy.fails(error),
    }
}

fn unreachable_because(address: &Address, error: &ureq::Error) -> HubProblem {
    let (url, problem) = (address.shown(), error.to_string());
    if is_of_tls(error) {
        let advice = match problem.contains("UnknownIssuer") {
            true => {
                " (a file of certificates to trust instead of the built-in ones goes into SSL_CERT_FILE)"
            }
            false => "",
        };
        HubProblem::Tls { problem: format!("{url}: {problem}{advice}") }
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
