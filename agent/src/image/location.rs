//! Where a request goes: an absolute http or https URL, its origin, and the redirects that may be followed from it.

use std::fmt;
use std::net::IpAddr;

use ureq::http::Uri;

/// Longest URL that a registry may name; signed URLs of object stores have some 2000 characters.
const MAX_URL: usize = 8 << 10;

/// An absolute URL, without user information or fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// https.
    pub(super) tls: bool,
    /// Lower case; an IPv6 address in brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Begins with a slash.
    path_and_query: String,
}

/// Why a URL that a registry named is not used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum LocationError {
    #[error("it is longer than {MAX_URL} characters")]
    Long,
    #[error("it is not an http or https URL")]
    Format,
    #[error("it carries a user name or a password")]
    UserInfo,
    #[error("it leads from https to plain http")]
    Downgrade,
    #[error("it leads to an address of this machine or of its link")]
    Local,
}

impl Location {
    /// A path on a host that is written as `host` or `host:port`.
    pub(super) fn new(tls: bool, authority: &str, path: &str) -> Result<Location, LocationError> {
        let scheme = if tls { "https" } else { "http" };
        Location::parse(&format!("{scheme}://{authority}{path}"))
    }

    pub(super) fn parse(text: &str) -> Result<Location, LocationError> {
        if text.len() > MAX_URL {
            return Err(LocationError::Long);
        }
        let uri: Uri = text.parse().map_err(|_| LocationError::Format)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(LocationError::Format),
        };
        let authority = uri.authority().ok_or(LocationError::Format)?;
        if authority.as_str().contains('@') {
            return Err(LocationError::UserInfo);
        }
        let port = match authority.port() {
            Some(port) => Some(port.as_u16()).filter(|p| *p > 0).ok_or(LocationError::Format)?,
            None if authority.as_str().ends_with(':') => return Err(LocationError::Format),
            None if tls => 443,
            None => 80,
        };
        let path_and_query = uri.path_and_query().map_or("/", |p| p.as_str());
        let slash = if path_and_query.starts_with('/') { "" } else { "/" };
        Ok(Location {
            tls,
            host: authority.host().to_ascii_lowercase(),
            port,
            path_and_query: format!("{slash}{path_and_query}"),
        })
    }

    /// The same origin over plain http, on port 80 where https had its default.
    pub(super) fn plain(&self) -> Location {
        let port = if self.tls && self.port == 443 { 80 } else { self.port };
        Location { tls: false, port, ..self.clone() }
    }

    /// Another path of the same origin.
    pub(super) fn with_path(&self, path: &str) -> Location {
        Location { path_and_query: path.to_owned(), ..self.clone() }
    }

    /// With one more query parameter; the value must need no escapes.
    pub(super) fn with_query(&self, name: &str, value: &str) -> Location {
        let separator = if self.path_and_query.contains('?') { '&' } else { '?' };
        self.with_path(&format!("{}{separator}{name}={value}", self.path_and_query))
    }

    pub(super) fn same_origin(&self, other: &Location) -> bool {
        (self.tls, &self.host, self.port) == (other.tls, &other.host, other.port)
    }

    /// Where a `Location` header of an answer from here leads: absolute, or relative as RFC 3986 5.2.
    pub(super) fn follow(&self, header: &str) -> Result<Location, LocationError> {
        let target = if header.contains("://") {
            Location::parse(header)?
        } else if let Some(rest) = header.strip_prefix("//") {
            Location::parse(&format!("{}://{rest}", self.scheme()))?
        } else {
            let path = self.path();
            let base = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let relative = match header.as_bytes().first() {
                Some(b'/') => header.to_owned(),
                Some(b'?') => format!("{path}{header}"),
                _ => format!("{base}/{header}"),
            };
            Location::parse(&format!("{}://{}{relative}", self.scheme(), self.authority()))?
        };
        if self.tls && !target.tls {
            return Err(LocationError::Downgrade);
        }
        // A stranger's registry must not make this node ask its own loopback or metadata services.
        if target.is_local() && !self.is_local() {
            return Err(LocationError::Local);
        }
        Ok(target)
    }

    /// `host:port` or, where the port is the scheme's own, `host`.
    pub(super) fn authority(&self) -> String {
        if self.port == if self.tls { 443 } else { 80 } {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// What a request line needs; holds the query, so it is not for messages.
    pub(super) fn url(&self) -> String {
        format!("{}://{}{}", self.scheme(), self.authority(), self.path_and_query)
    }

    /// This machine by name or address: Docker speaks plain http there without being told.
    pub(super) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.address().is_some_and(|a| a.is_loopback())
    }

    fn is_local(&self) -> bool {
        let link = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_unspecified(),
            IpAddr::V6(v6) => {
                v6.is_unspecified()
                    || v6.is_unicast_link_local()
                    || v6.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback() || v4.is_link_local())
            }
        };
        self.is_loopback() || self.host.ends_with(".localhost") || self.address().is_some_and(link)
    }

    fn address(&self) -> Option<IpAddr> {
        self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    fn scheme(&self) -> &'static str {
        if self.tls {
            "https"
        } else {
            "http"
        }
    }

    fn path(&self) -> &str {
        self.path_and_query.split('?').next().unwrap_or_default()
    }
}

/// For messages: without the query, which may be signed.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority(), self.path())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(text: &str) -> Location {
        Location::parse(text).unwrap()
    }

    #[test]
    fn redirects_are_resolved_and_only_upwards() {
        let from = at("https://r.io/v2/a/blobs/x?y=1");
        for (header, to) in [
            ("https://CDN.io/b?sig=1", Ok("https://cdn.io/b?sig=1")),
            ("//cdn.io/b", Ok("https://cdn.io/b")),
            ("/v2/b", Ok("https://r.io/v2/b")),
            ("z", Ok("https://r.io/v2/a/blobs/z")),
            ("?z=1", Ok("https://r.io/v2/a/blobs/x?z=1")),
            ("https://r.io:443/b", Ok("https://r.io/b")),
            ("https://r.io:8443/b", Ok("https://r.io:8443/b")),
            ("http://r.io/b", Err(LocationError::Downgrade)),
            ("https://u:p@r.io/b", Err(LocationError::UserInfo)),
            ("ftp://r.io/b", Err(LocationError::Format)),
            ("https://", Err(LocationError::Format)),
            ("https://r.io:0/b", Err(LocationError::Format)),
            ("https://127.0.0.1/b", Err(LocationError::Local)),
            ("https://localhost/b", Err(LocationError::Local)),
            ("https://169.254.169.254/b", Err(LocationError::Local)),
            ("https://[::1]/b", Err(LocationError::Local)),
            ("https://[::ffff:127.0.0.1]/b", Err(LocationError::Local)),
            ("https://[fe80::1]/b", Err(LocationError::Local)),
            ("https://0.0.0.0/b", Err(LocationError::Local)),
        ] {
            assert_eq!(from.follow(header).map(|l| l.url()), to.map(str::to_owned), "{header}");
        }
        assert_eq!(from.follow(&format!("/{}", "a".repeat(MAX_URL))), Err(LocationError::Long));
        assert!(at("http://127.0.0.1:5000/").follow("http://127.0.0.1:5001/b").is_ok());
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let base = at("https://r.io/a");
        assert!(base.same_origin(&at("https://R.io:443/b?c")));
        for other in ["http://r.io/a", "https://r.io:444/a", "https://s.io/a"] {
            assert!(!base.same_origin(&at(other)), "{other}");
        }
    }

    #[test]
    fn what_is_printed_has_no_query() {
        assert_eq!(at("https://r.io:5000/a?token=secret").to_string(), "https://r.io:5000/a");
        assert_eq!(at("http://r.io?token=secret").to_string(), "http://r.io/");
    }

    #[test]
    fn plain_http_keeps_a_port_that_was_given() {
        assert_eq!(at("https://r.io/a").plain().url(), "http://r.io/a");
        assert_eq!(at("https://r.io:5000/a").plain().url(), "http://r.io:5000/a");
    }
}
