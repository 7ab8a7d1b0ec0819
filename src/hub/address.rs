//! Addresses on the web: made of names, followed from one to the next, compared.

use ureq::http::Uri;
use ureq::http::uri::Scheme;

/// An absolute `http` or `https` address.
#[derive(Debug, Clone)]
pub(super) struct Address(Uri);

impl Address {
    /// `None` unless it is absolute, and of `http` or `https`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let web = uri.scheme() == Some(&Scheme::HTTP) || uri.scheme() == Some(&Scheme::HTTPS);
        (web && uri.host().is_some_and(|host| !host.is_empty())).then_some(Self(uri))
    }

    /// What the header `Location` of an answer from here means; RFC 3986, section 5.2, as far as
    /// servers use it.
    pub(super) fn join(&self, location: &str) -> Option<Self> {
        let location = location.split('#').next().unwrap_or_default();
        if let Some(absolute) = Self::parse(location).filter(|_| location.contains("://")) {
            return Some(absolute);
        }
        let (scheme, authority) = (self.0.scheme_str()?, self.0.authority()?);
        let path = self.0.path();
        match location {
            "" => None,
            _ if location.starts_with("//") => Self::parse(&format!("{scheme}:{location}")),
            _ if location.starts_with('/') => {
                Self::parse(&format!("{scheme}://{authority}{location}"))
            }
            _ if location.starts_with('?') => {
                Self::parse(&format!("{scheme}://{authority}{path}{location}"))
            }
            // Another scheme, such as `ftp:`, has its colon before any slash or query.
            _ if location.split(['/', '?']).next()?.contains(':') => None,
            _ => {
                let folder = &path[..=path.rfind('/')?];
                Self::parse(&format!("{scheme}://{authority}{folder}{location}"))
            }
        }
    }

    /// Whether requests to both go to the same server by the same way: scheme, host and port are
    /// equal.
    pub(super) fn same_origin(&self, other: &Self) -> bool {
        let origin = |Self(uri): &Self| {
            let port = uri.port_u16().unwrap_or(if is_https(uri) { 443 } else { 80 });
            (is_https(uri), uri.host().map(str::to_ascii_lowercase), port)
        };
        origin(self) == origin(other)
    }

    pub(super) fn is_encrypted(&self) -> bool {
        is_https(&self.0)
    }

    pub(super) fn scheme(&self) -> &str {
        self.0.scheme_str().unwrap_or_default()
    }

    /// In small letters, an IPv6 address without its brackets.
    pub(super) fn host(&self) -> String {
        self.0.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase()
    }

    /// The port, unless it is that of the scheme.
    pub(super) fn unusual_port(&self) -> Option<u16> {
        self.0.port_u16().filter(|&port| port != if self.is_encrypted() { 443 } else { 80 })
    }

    /// For the header `Host`.
    pub(super) fn host_and_port(&self) -> String {
        let port = self.unusual_port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}{port}", self.0.host().unwrap_or_default())
    }

    /// Name and password, `name:password`.
    pub(super) fn credentials(&self) -> Option<&str> {
        Some(self.0.authority()?.as_str().rsplit_once('@')?.0)
    }

    /// For a proxy: all but name and password.
    pub(super) fn absolute(&self) -> String {
        let path = self.0.path_and_query().map_or("/", |path| path.as_str());
        format!("{}://{}{path}", self.scheme(), self.host_and_port())
    }

    /// For errors: scheme, host and port.
    pub(super) fn origin(&self) -> String {
        let port = self.0.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}", self.scheme(), self.0.host().unwrap_or_default())
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }

    /// For errors: without a name and password, and without the query, which may hold the key to a
    /// download.
    pub(super) fn shown(&self) -> String {
        format!("{}{}", self.origin(), self.0.path())
    }
}

fn is_https(uri: &Uri) -> bool {
    uri.scheme() == Some(&Scheme::HTTPS)
}

/// `text` as a part of a path, its slashes kept or not: all but letters, digits and `-._~` as `%XX`
/// (RFC 3986, section 2.1).
pub(super) fn escape(text: &str, keep_slashes: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            b'/' if keep_slashes => escaped.push('/'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_read_as_a_browser_does() {
        let base =
            Address::parse("https://hub.example:8443/org/name/resolve/main/a.json?x=1").unwrap();
        let cases = [
            ("https://cdn.example/blob?sig=1#part", "https://cdn.example/blob?sig=1"),
            ("//cdn.example/blob", "https://cdn.example/blob"),
            ("/new/name?y", "https://hub.example:8443/new/name?y"),
            ("?z=2", "https://hub.example:8443/org/name/resolve/main/a.json?z=2"),
            ("b.json?t=1:2", "https://hub.example:8443/org/name/resolve/main/b.json?t=1:2"),
        ];
        for (location, want) in cases {
            assert_eq!(base.join(location).unwrap().0.to_string(), want, "{location}");
        }
        for location in ["", "ftp://cdn.example/blob", "file:///etc/passwd", "#top", "https://"] {
            assert!(base.join(location).is_none(), "{location}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same =
            |a: &str, b: &str| Address::parse(a).unwrap().same_origin(&Address::parse(b).unwrap());
        assert!(same("https://Hub.example/a", "https://hub.example:443/b?c"));
        assert!(!same("https://hub.example/", "http://hub.example/"));
        assert!(!same("http://hub.example:1/", "http://hub.example:2/"));
        assert!(!same("https://hub.example/", "https://hub.example.evil.example/"));
        assert!(!same("https://hub.example/", "https://hub.example@evil.example/"));
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escape("refs/pr/1 ü?", false), "refs%2Fpr%2F1%20%C3%BC%3F");
        assert_eq!(escape("1_Pooling/config.json", true), "1_Pooling/config.json");
    }

    #[test]
    fn errors_show_no_secrets() {
        let address =
            Address::parse("https://me:secret@cdn.example:1/blob?Signature=secret").unwrap();
        assert_eq!(address.shown(), "https://cdn.example:1/blob");
    }
}
