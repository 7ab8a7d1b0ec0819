//! [`Proxies`]: by which proxy an address is asked.
//!
//! Source: Python's `urllib.request.getproxies_environment`; httpx2 2.16.2,
//! `get_environment_proxies` and `URLPattern`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;

use super::address::Address;
use super::environment::Env;
use super::problem::{HubProblem, is_transient};

/// The proxies that an environment names, and the addresses that are asked without one.
#[derive(Debug)]
pub(super) struct Proxies {
    /// Each is of a host, a network or a port.
    exceptions: Vec<Pattern>,
    /// By `http`, `https`, or `all`; `None` for those that `NO_PROXY` excepts as a whole.
    by_scheme: BTreeMap<String, Option<Proxy>>,
}

/// A proxy, as a variable names it.
#[derive(Debug)]
pub(super) struct Proxy {
    /// Without name and password.
    address: Option<String>,
    variable: String,
    /// Or why it cannot be used.
    usable: Result<ureq::Proxy, String>,
}

impl Proxies {
    pub(super) fn of(env: &Env) -> Self {
        let mut named = named(env);
        let exceptions = named.remove("no").map(|(_, hosts)| hosts).unwrap_or_default();
        let exceptions: Vec<&str> = exceptions.split(',').map(str::trim).collect();
        let mut this = Self { exceptions: Vec::new(), by_scheme: BTreeMap::new() };
        if exceptions.contains(&"*") {
            return this;
        }
        for scheme in ["http", "https", "all"] {
            if let Some((variable, value)) = named.remove(scheme) {
                this.by_scheme.insert(scheme.to_owned(), Some(Proxy::new(variable, value)));
            }
        }
        for host in exceptions {
            this.except(host);
        }
        this
    }

    /// Heeds an entry of `NO_PROXY`; one that means nothing is passed over.
    fn except(&mut self, host: &str) {
        let Some(text) = pattern_of(host) else { return };
        match Pattern::parse(&text) {
            None => {}
            Some(Pattern { scheme, host: Host::Any, port: None }) => {
                if text.ends_with("://") {
                    self.by_scheme.insert(scheme, None);
                } else {
                    self.by_scheme.entry(scheme).or_insert(None);
                }
            }
            Some(pattern) => self.exceptions.push(pattern),
        }
    }

    /// The proxy by which `address` is asked, if there is one.
    pub(super) fn of_address(&self, address: &Address) -> Option<&Proxy> {
        if self.exceptions.iter().any(|pattern| pattern.matches(address)) {
            return None;
        }
        let by_scheme = self.by_scheme.get(address.scheme());
        by_scheme.or_else(|| self.by_scheme.get("all"))?.as_ref()
    }
}

/// What variables such as `HTTPS_PROXY` say, by what stands before `_PROXY`, in small letters: the
/// variable and its value.
///
/// Those whose name ends in small letters win, also when they are empty.
fn named(env: &Env) -> BTreeMap<String, (&str, &str)> {
    let mut named = BTreeMap::new();
    let is_cgi = env.iter().any(|(name, _)| name == "REQUEST_METHOD");
    for lower_case in [false, true] {
        for (variable, value) in env.iter() {
            let name = variable.to_lowercase();
            let Some(scheme) = name.strip_suffix("_proxy") else { continue };
            if lower_case && !variable.ends_with("_proxy") {
                continue;
            }
            if !value.is_empty() {
                named.insert(scheme.to_owned(), (variable, value));
            } else if lower_case {
                named.remove(scheme);
            }
        }
        // For a CGI script HTTP_PROXY may be the header `Proxy` of who asked it (CVE-2016-1000110).
        if is_cgi && !lower_case {
            named.remove("http");
        }
    }
    named
}

impl Proxy {
    fn new(variable: &str, value: &str) -> Self {
        let url = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
        let scheme = url.split("://").next().unwrap_or_default().to_lowercase();
        let address = Address::parse(&url);
        let origin = address.as_ref().map(Address::origin);
        let usable = match (scheme.as_str(), address) {
            ("http" | "https", Some(_)) => {
                ureq::Proxy::new(&url).map_err(|error| format!("cannot be used: {error}"))
            }
            ("http" | "https", None) => {
                Err("has no address such as `http://proxy.example:3128`".to_owned())
            }
            (other, _) => Err(format!(
                "is of the kind `{other}://`, which is not supported: name one of `http://` or `https://`, or except the \
                 hub by NO_PROXY"
            )),
        };
        Self { address: origin, variable: variable.to_owned(), usable }
    }

    /// The proxy, if it can be used.
    pub(super) fn usable(&self) -> Result<&ureq::Proxy, HubProblem> {
        self.usable.as_ref().map_err(|problem| self.refuses(problem))
    }

    /// It will not do what it is asked.
    pub(super) fn refuses(&self, problem: &str) -> HubProblem {
        let proxy = match &self.address {
            Some(address) => format!("`{address}` ({})", self.variable),
            None => format!("of {}", self.variable), // it is not shown: there may be a password in it
        };
        HubProblem::Proxy { proxy, problem: problem.to_owned() }
    }

    /// It does not do what it is asked, but may in a moment.
    pub(super) fn fails(&self, problem: impl Display) -> HubProblem {
        let url = self.address.clone().unwrap_or_default();
        let problem = format!("it is the proxy that {} names; {problem}", self.variable);
        HubProblem::Unreachable { url, problem }
    }

    /// It answers with `status` instead of the hub, or hands on such an answer.
    pub(super) fn answers(&self, status: u16, problem: &str) -> HubProblem {
        match status {
            407 => self.refuses("asks for a name and a password, which belong in that variable"),
            _ if is_transient(status) => self.fails(problem),
            _ => self.refuses(problem),
        }
    }
}

/// An entry of `NO_PROXY` in the form of an address. `example.com` is meant with what is below it,
/// `.example.com` without it.
fn pattern_of(host: &str) -> Option<String> {
    let (before, _) = host.split_once('/').unwrap_or((host, ""));
    let is_v6 = before.parse::<std::net::Ipv6Addr>().is_ok();
    match host {
        "" => None,
        _ if host.contains("://") => Some(host.to_owned()),
        _ if is_v6 => Some(format!("all://[{before}]{}", &host[before.len()..])),
        _ if before.parse::<std::net::Ipv4Addr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || host.starts_with('[') =>
        {
            Some(format!("all://{host}"))
        }
        _ if host.contains('/') => None,
        _ if host.starts_with("*.") => Some(format!("all://{host}")),
        _ => Some(format!("all://*{host}")),
    }
}

/// Addresses of a scheme, a host and a port.
#[derive(Debug)]
struct Pattern {
    /// `all` for each.
    scheme: String,
    host: Host,
    port: Option<u16>,
}

#[derive(Debug)]
enum Host {
    Any,
    Same(String),
    Below(String),
    SameOrBelow(String),
    /// The addresses that begin with so many bits of this one.
    Network(IpAddr, u32),
}

impl Pattern {
    /// `None` if `text` is not a pattern.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_lowercase();
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let authority = authority.rsplit('@').next()?;
        let end_of_host = match authority.starts_with('[') {
            true => authority.find(']')? + 1,
            false => authority.find(':').unwrap_or(authority.len()),
        };
        let (host, port) = authority.split_at(end_of_host);
        let port = match port.strip_prefix(':').unwrap_or(port) {
            "" => None,
            port => Some(port.parse().ok()?),
        };
        let default = match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let host = Host::parse(&host.trim_matches(['[', ']']).to_lowercase(), path)?;
        Some(Self { scheme, host, port: port.filter(|_| port != default) })
    }

    fn matches(&self, address: &Address) -> bool {
        (self.scheme == "all" || self.scheme == address.scheme())
            && self.host.matches(&address.host())
            && (self.port.is_none() || self.port == address.unusual_port())
    }
}

impl Host {
    fn parse(host: &str, path: &str) -> Option<Self> {
        let path = path.strip_prefix('/').unwrap_or(path);
        if let Ok(network) = host.parse::<IpAddr>()
            && !path.is_empty()
        {
            let bits = path.parse().ok().filter(|_| path.bytes().all(|b| b.is_ascii_digit()))?;
            let most = if network.is_ipv4() { 32 } else { 128 };
            return (bits <= most).then_some(Self::Network(network, bits));
        }
        Some(match host {
            "" | "*" => Self::Any,
            _ => match (host.strip_prefix("*."), host.strip_prefix('*')) {
                (Some(domain), _) => Self::Below(domain.to_owned()),
                (None, Some(domain)) => Self::SameOrBelow(domain.to_owned()),
                (None, None) => Self::Same(host.to_owned()),
            },
        })
    }

    fn matches(&self, host: &str) -> bool {
        let is_below = |domain: &str| {
            host.strip_suffix(domain).is_some_and(|it| it.len() > 1 && it.ends_with('.'))
        };
        match self {
            Self::Any => true,
            Self::Same(other) => host == other,
            Self::Below(domain) => is_below(domain),
            Self::SameOrBelow(domain) => host == domain || is_below(domain),
            Self::Network(network, bits) => {
                host.parse().is_ok_and(|host| have_equal_bits(*network, host, *bits))
            }
        }
    }
}

/// Whether two addresses are of the same kind and have the same first bits.
fn have_equal_bits(a: IpAddr, b: IpAddr, bits: u32) -> bool {
    let differing = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return false,
    };
    differing >= bits
}

#[cfg(test)]
mod tests {
    use super::super::environment::tests::{env, env_of, golden};
    use super::*;

    use serde_json::Value;

    /// The proxy as tests/data/hub/environment.py writes it.
    fn written(proxy: &Proxy) -> Value {
        let Ok(proxy) = &proxy.usable else { return "refused".into() };
        let scheme = proxy.uri().scheme_str().unwrap();
        let port = proxy.uri().port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        let mut written = format!("{scheme}://{}{port}", proxy.host());
        if let Some(user) = proxy.username() {
            written += &format!(" {user}:{}", proxy.password().unwrap_or_default());
        }
        written.into()
    }

    #[test]
    fn proxies_are_those_of_the_reference() {
        let golden = golden();
        for case in golden["proxies"].as_array().unwrap() {
            let proxies = Proxies::of(&env_of(case, "@"));
            let found = golden["urls"].as_array().unwrap().iter().map(|url| {
                let address = Address::parse(url.as_str().unwrap()).unwrap();
                proxies.of_address(&address).map_or(Value::Null, written)
            });
            let found: Vec<Value> = found.collect();
            let want = case["proxies"].as_array().unwrap().iter().map(|want| match want.as_str() {
                Some(socks) if socks.starts_with("socks") => "refused".into(),
                _ => want.clone(),
            });
            assert_eq!(found, want.collect::<Vec<_>>(), "{}", case["variables"]);
        }
    }

    #[test]
    fn what_cannot_be_used_is_said_without_its_password() {
        for value in [
            "socks5://me:secret@proxy:1080",
            "ftp://me:secret@proxy",
            "http://me:secret@",
            "http://me:se cret@proxy",
        ] {
            let proxies = Proxies::of(&env(&[("ALL_PROXY", value)]));
            let proxy =
                proxies.of_address(&Address::parse("https://hub.example").unwrap()).unwrap();
            let problem = proxy.usable().unwrap_err().to_string();
            assert!(
                problem.starts_with("the proxy ") && problem.contains("ALL_PROXY"),
                "{problem}"
            );
            assert!(!format!("{proxy:?} {problem}").contains("secret"), "{proxy:?} {problem}");
        }
        let proxies = Proxies::of(&env(&[("https_proxy", "http://me:secret@proxy:3128/")]));
        let proxy = proxies.of_address(&Address::parse("https://hub.example").unwrap()).unwrap();
        let problem = proxy.fails("refused").to_string();
        assert_eq!(
            problem,
            "`http://proxy:3128` cannot be read: it is the proxy that https_proxy names; refused"
        );
        assert!(!format!("{proxies:?}").contains("secret"), "{proxies:?}");
    }
}
