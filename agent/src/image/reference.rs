//! Image references: the grammar of the Distribution project (`reference.md`) and Docker's normalisation of short names.

use std::fmt;
use std::str::FromStr;

use super::digest::{Digest, DigestError};

/// Longest `registry/repository` (Distribution: `RepositoryNameTotalLengthMax`).
const MAX_NAME: usize = 255;
/// Longest tag (Distribution: `[\w][\w.-]{0,127}`).
const MAX_TAG: usize = 128;
/// Longest text looked at: a name, a tag and the longest digest fit.
const MAX_TEXT: usize = MAX_NAME + 1 + MAX_TAG + 1 + 7 + 128;

/// The registry of names without one.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Where docker.io's API lives.
const DEFAULT_REGISTRY_API: &str = "registry-1.docker.io";

/// An image reference, normalised as Docker does (`docker.io/library/…`, tag `latest`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no image reference (waiting reason `InvalidImageName`).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReferenceError {
    /// Nothing, or only a tag or a digest.
    #[error("couldn't parse image name: no name is given")]
    Empty,
    /// Past the lengths that registries accept.
    #[error("couldn't parse image name: longer than {MAX_NAME} characters of name and {MAX_TAG} of tag")]
    TooLong,
    /// An upper-case letter in the repository.
    #[error("couldn't parse image name {0:?}: the repository name must be lower case")]
    UpperCase(String),
    /// Any other character that is not allowed where it stands.
    #[error("couldn't parse image name {0:?}: invalid reference format ({1})")]
    Format(String, &'static str),
    /// The part after `@` is not a digest.
    #[error("couldn't parse image name {0:?}: {1}")]
    Digest(String, #[source] DigestError),
}

impl Reference {
    /// `host[:port]` of the registry, as it was written (`docker.io` for short names).
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// `host[:port]` that serves the registry's API.
    pub(super) fn api_host(&self) -> &str {
        if self.registry == DEFAULT_REGISTRY {
            DEFAULT_REGISTRY_API
        } else {
            &self.registry
        }
    }

    /// The repository's path within the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `registry/repository`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The tag, which a digest beside it overrules.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest, where one is given.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest, else the tag.
    pub(super) fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The same repository, at a digest.
    pub(super) fn at(&self, digest: &Digest) -> Reference {
        Reference { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }

    /// The name that the store files an image under: `name@digest`, else `name:tag`.
    pub(super) fn key(&self) -> String {
        let separator = if self.digest.is_some() { '@' } else { ':' };
        format!("{}{separator}{}", self.name(), self.target())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        if text.len() > MAX_TEXT {
            return Err(ReferenceError::TooLong);
        }
        let format = |why| ReferenceError::Format(text.to_owned(), why);
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|e| ReferenceError::Digest(text.to_owned(), e))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash begins a tag; before it, a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if name.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (registry, repository) = split_registry(name);
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        if registry.len() + 1 + repository.len() > MAX_NAME || tag.is_some_and(|t| t.len() > MAX_TAG) {
            return Err(ReferenceError::TooLong);
        }
        if !is_registry(registry) {
            return Err(format("the registry is not a host name with an optional port"));
        }
        if repository.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ReferenceError::UpperCase(text.to_owned()));
        }
        if !repository.split('/').all(is_path_component) {
            return Err(format("the repository is not made of [a-z0-9] with single . _ or - between"));
        }
        if !tag.is_none_or(is_tag) {
            return Err(format("a tag is made of letters, digits, _ . and -"));
        }
        if digest.is_none() && is_bare_identifier(name) {
            return Err(format("64 hexadecimal digits are an identifier, not a name"));
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
    }
}

/// Docker's rule: the first component is a registry if it has a dot, a colon or an upper-case letter, or is `localhost`.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            let registry = if first == "index.docker.io" { DEFAULT_REGISTRY } else { first };
            (registry, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, rest)) => {
                if address.parse::<std::net::Ipv6Addr>().is_err() {
                    return false;
                }
                match rest.strip_prefix(':') {
                    Some(port) => (None, Some(port)),
                    None if rest.is_empty() => (None, None),
                    None => return false,
                }
            }
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    host.is_none_or(|host| host.split('.').all(is_host_label)) && port.is_none_or(is_port)
}

fn is_host_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let mut separator = String::new();
    let mut before = false;
    for byte in component.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => {
                let joins = matches!(separator.as_str(), "" | "." | "_" | "__")
                    || separator.bytes().all(|b| b == b'-');
                if !joins || (!before && !separator.is_empty()) {
                    return false;
                }
                separator.clear();
                before = true;
            }
            b'.' | b'_' | b'-' => separator.push(char::from(byte)),
            _ => return false,
        }
    }
    before && separator.is_empty()
}

fn is_tag(tag: &str) -> bool {
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    tag.as_bytes().first().is_some_and(word) && tag.bytes().all(|b| word(&b) || b == b'.' || b == b'-')
}

fn is_bare_identifier(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed_as_docker_does() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, whole) in [
            ("hello", "docker.io/library/hello:latest".to_owned()),
            ("hello:1", "docker.io/library/hello:1".into()),
            ("me/hello", "docker.io/me/hello:latest".into()),
            ("docker.io/hello", "docker.io/library/hello:latest".into()),
            ("index.docker.io/me/hello", "docker.io/me/hello:latest".into()),
            ("localhost/hello", "localhost/hello:latest".into()),
            ("localhost:5000/hello:v1.2-a_b", "localhost:5000/hello:v1.2-a_b".into()),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest".into()),
            ("[::1]:5000/a", "[::1]:5000/a:latest".into()),
            ("[fd00::1]/a", "[fd00::1]/a:latest".into()),
            ("REGISTRY/a", "REGISTRY/a:latest".into()),
            ("ghcr.io/a.b/c__d/e--f", "ghcr.io/a.b/c__d/e--f:latest".into()),
            ("a/b-c_d.e", "docker.io/a/b-c_d.e:latest".into()),
            (&format!("hello@{digest}"), format!("docker.io/library/hello@{digest}")),
            (&format!("r.io/a:1@{digest}"), format!("r.io/a:1@{digest}")),
        ] {
            let parsed: Reference = text.parse().unwrap_or_else(|e| panic_with(text, &e));
            assert_eq!(parsed.to_string(), whole, "{text}");
            assert_eq!(whole.parse::<Reference>().unwrap(), parsed, "{text}");
        }
    }

    #[allow(clippy::panic)]
    fn panic_with(text: &str, error: &ReferenceError) -> Reference {
        panic!("{text}: {error}")
    }

    #[test]
    fn what_no_registry_could_hold_is_refused() {
        let long = format!("r.io/{}", "a".repeat(251));
        let longest = format!("r.io/{}", "a".repeat(250));
        assert!(longest.parse::<Reference>().is_ok());
        for text in [
            "",
            ":latest",
            "@sha256:00",
            "hello:",
            "hello@",
            "hello@sha256:abc",
            "hello@md5:d41d8cd98f00b204e9800998ecf8427e",
            "Hello",
            "me/Hello",
            "/hello",
            "hello/",
            "a//b",
            "a/./b",
            "a/../b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "a b",
            "a\n",
            "é",
            "https://r.io/a",
            "r.io:/a",
            "r.io:0/a",
            "r.io:65536/a",
            "r.io:80x/a",
            "-r.io/a",
            "r_x.io/a",
            "r..io/a",
            "[::1/a",
            "[::g]:1/a",
            "[::1]x/a",
            "a:.tag",
            "a:-tag",
            "a:ta/g",
            "a:t g",
            "user@host/a",
            &long,
            &format!("a:{}", "t".repeat(129)),
            &"a".repeat(5000),
            &"0123456789abcdef".repeat(4),
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text} was taken");
        }
        assert!(matches!("me/Hello".parse::<Reference>(), Err(ReferenceError::UpperCase(_))));
    }

    #[test]
    fn a_digest_overrules_the_tag_beside_it() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let both: Reference = format!("r.io/a:1@{digest}").parse().unwrap();
        assert_eq!(both.target(), digest);
        assert_eq!(both.key(), format!("r.io/a@{digest}"));
        assert_eq!((both.registry(), both.repository(), both.tag()), ("r.io", "a", Some("1")));
    }

    #[test]
    fn docker_io_is_asked_at_its_api_host() {
        assert_eq!("a".parse::<Reference>().unwrap().api_host(), "registry-1.docker.io");
        assert_eq!("r.io/a".parse::<Reference>().unwrap().api_host(), "r.io");
    }
}
