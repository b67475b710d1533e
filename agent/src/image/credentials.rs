//! Login data for registries: the forms in which Docker's configuration holds it, and kubelet's rules
//! for which entries fit an image (k8s.io/kubernetes pkg/credentialprovider/keyring.go).

use std::collections::BTreeMap;
use std::fmt;

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::digest::Digest;

/// Largest configuration read: a Secret holds at most 1 MiB (k8s.io/api core/v1 `MaxSecretSize`).
const MAX_CONFIG: usize = 1 << 20;
/// Entries kept, of all secrets of a pod together.
const MAX_ENTRIES: usize = 1000;
/// Entries tried for one image; each costs the registry a request or two.
pub(super) const MAX_TRIED: usize = 16;
/// The key that stands for docker.io where no entry fits by name.
const DEFAULT_REGISTRY_KEY: &str = "index.docker.io";

/// Base64 with or without padding, as kubelet takes it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One way to log in. Never printed: it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// User name and password: Basic, or traded for a token.
    Password { username: String, password: String },
    /// An OAuth2 refresh token, traded for an access token (Azure, Docker's `credsStore` as `<token>`).
    Identity { username: String, token: String },
    /// A bearer token for the registry itself.
    Registry { token: String },
}

impl Credential {
    /// The value of `Authorization: Basic`, where this credential has one.
    pub(super) fn basic(&self) -> Option<String> {
        let (username, password) = match self {
            Credential::Password { username, password } => (username, password),
            Credential::Identity { username, token } => (username, token),
            Credential::Registry { .. } => return None,
        };
        Some(format!("Basic {}", BASE64.encode(format!("{username}:{password}"))))
    }

    /// SHA-256 of all that it is made of, in hex: by this it is known again without being kept.
    pub(super) fn digest(&self) -> String {
        let parts = match self {
            Credential::Password { username, password } => ["password", username, password],
            Credential::Identity { username, token } => ["identity", username, token],
            Credential::Registry { token } => ["registry", "", token],
        };
        let mut whole = Vec::new();
        for part in parts {
            // With its length, so that no part runs into the next.
            whole.extend_from_slice(&(part.len() as u64).to_be_bytes());
            whole.extend_from_slice(part.as_bytes());
        }
        Digest::of(&whole).hex().to_owned()
    }

    /// Texts that no message may hold.
    pub(super) fn secrets(&self) -> Vec<String> {
        let secret = match self {
            Credential::Password { password, .. } => password,
            Credential::Identity { token, .. } | Credential::Registry { token } => token,
        };
        let basic = self.basic().and_then(|value| value.strip_prefix("Basic ").map(str::to_owned));
        std::iter::once(secret.clone()).chain(basic).collect()
    }
}

/// Login data for registries, from imagePullSecrets and files, in the order to be tried.
#[derive(Clone, Default)]
pub struct Keyring {
    entries: Vec<(Key, Credential)>,
}

/// Which images an entry is for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    /// `host[:port][/path]`, by which entries are ordered.
    text: String,
    /// Domain labels; each may be a glob.
    labels: Vec<String>,
    port: String,
    path: String,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: Option<BTreeMap<String, Option<Entry>>>,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
    #[serde(default)]
    registrytoken: Option<String>,
}

impl Keyring {
    /// Adds the content of a `.dockerconfigjson` (`{"auths":…}`).
    ///
    /// # Errors
    /// What is wrong with it, without any secret in the text; entries that are right are added all the same.
    pub fn add_docker_config_json(&mut self, json: &[u8]) -> Result<(), String> {
        let config: DockerConfig = read(json)?;
        self.add(config.auths.unwrap_or_default())
    }

    /// Adds the content of a legacy `.dockercfg` (the bare map).
    ///
    /// # Errors
    /// As above.
    pub fn add_dockercfg(&mut self, json: &[u8]) -> Result<(), String> {
        self.add(read(json)?)
    }

    /// Adds one credential for a server, as credential helpers give it.
    pub(super) fn add_credential(&mut self, server: &str, credential: Credential) -> Result<(), String> {
        if self.entries.len() >= MAX_ENTRIES {
            return Err(format!("more than {MAX_ENTRIES} registry logins"));
        }
        self.entries.push((Key::new(server), credential));
        Ok(())
    }

    fn add(&mut self, auths: BTreeMap<String, Option<Entry>>) -> Result<(), String> {
        let mut wrong = Vec::new();
        for (server, entry) in auths {
            match entry.unwrap_or_default().credential() {
                Ok(Some(credential)) => self.add_credential(&server, credential)?,
                // Docker leaves an empty entry for what a credential store holds.
                Ok(None) => {}
                Err(why) => wrong.push(format!("{}: {why}", Key::new(&server).shown())),
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("; "))
        }
    }

    /// Whether one of these digests is of a credential for an image (`registry/repository`).
    pub(super) fn holds(&self, image: &str, logins: &[String]) -> bool {
        !logins.is_empty() && self.lookup(image).iter().any(|own| logins.contains(&own.digest()))
    }

    /// The credentials for an image (`registry/repository`), the most specific entry first.
    pub(super) fn lookup(&self, image: &str) -> Vec<Credential> {
        let target = Key::new(image);
        let mut found: Vec<&(Key, Credential)> =
            self.entries.iter().filter(|(key, _)| key.fits(&target)).collect();
        if found.is_empty() && target.text.starts_with("docker.io/") {
            found = self.entries.iter().filter(|(key, _)| key.text == DEFAULT_REGISTRY_KEY).collect();
        }
        found.sort_by(|(a, _), (b, _)| b.text.cmp(&a.text));
        let mut credentials: Vec<Credential> = Vec::new();
        for (_, credential) in found {
            if !credentials.contains(credential) {
                credentials.push(credential.clone());
            }
        }
        credentials.truncate(MAX_TRIED);
        credentials
    }
}

/// How many entries there are, and nothing of what they hold.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} entries)", self.entries.len())
    }
}

/// serde_json's own text may quote a value where a type is wrong, so only the place is given.
fn read<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T, String> {
    if json.len() > MAX_CONFIG {
        return Err(format!("longer than {MAX_CONFIG} bytes"));
    }
    serde_json::from_slice(json).map_err(|error| {
        format!("not the JSON of a Docker configuration (line {}, column {})", error.line(), error.column())
    })
}

impl Entry {
    fn credential(self) -> Result<Option<Credential>, &'static str> {
        let given = |text: Option<String>| text.filter(|t| !t.is_empty());
        let (username, password) = match given(self.auth) {
            Some(auth) => decode_auth(&auth)?,
            None => (self.username.unwrap_or_default(), self.password.unwrap_or_default()),
        };
        if let Some(token) = given(self.registrytoken) {
            return Ok(Some(Credential::Registry { token }));
        }
        if let Some(token) = given(self.identitytoken) {
            return Ok(Some(Credential::Identity { username, token }));
        }
        if username.is_empty() && password.is_empty() {
            return Ok(None);
        }
        Ok(Some(Credential::Password { username, password }))
    }
}

/// `auth` is base64 of `username:password`.
fn decode_auth(auth: &str) -> Result<(String, String), &'static str> {
    let decoded = BASE64.decode(auth.trim()).map_err(|_| "its auth is not base64")?;
    let text = String::from_utf8(decoded).map_err(|_| "its auth is not text")?;
    let (username, password) =
        text.split_once(':').ok_or("its auth is not the base64 of username:password")?;
    // The docker command line pads with zero bytes.
    Ok((username.to_owned(), password.trim_matches('\0').to_owned()))
}

impl Key {
    fn new(text: &str) -> Key {
        let text =
            text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text).trim();
        let text = text.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = text.find('/').map_or((text, ""), |slash| text.split_at(slash));
        // Docker takes /v1/ and /v2/ for the host alone.
        let path = match path.get(..3) {
            Some("/v1" | "/v2") if matches!(path.as_bytes().get(3), None | Some(b'/')) => {
                path.get(3..).unwrap_or_default()
            }
            _ => path,
        };
        let path = if path == "/" { "" } else { path };
        let (host, port) = match authority.rsplit_once(':') {
            // The colons of a bare IPv6 address are no port's.
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (authority, ""),
        };
        Key {
            text: format!("{authority}{path}"),
            labels: host.split('.').map(str::to_owned).collect(),
            port: port.to_owned(),
            path: path.to_owned(),
        }
    }

    /// As many labels, each fitting its glob; the same port; the path a prefix of the image's.
    fn fits(&self, image: &Key) -> bool {
        self.port == image.port
            && self.labels.len() == image.labels.len()
            && image.path.starts_with(&self.path)
            && self
                .labels
                .iter()
                .zip(&image.labels)
                .all(|(glob, label)| glob == label || glob_fits(glob, label))
    }

    /// The key as it may be printed.
    fn shown(&self) -> String {
        self.text.chars().filter(|c| c.is_ascii_graphic()).take(100).collect()
    }
}

/// Go's `filepath.Match` for one label: `*`, `[a-z]`, `[^a-z]`, `\x`. A malformed glob fits nothing.
fn glob_fits(glob: &str, label: &str) -> bool {
    let glob: Vec<char> = glob.chars().collect();
    let label: Vec<char> = label.chars().collect();
    let (mut g, mut l) = (0, 0);
    // Where to take up again after the last star, with one character more in it.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match (glob.get(g), label.get(l)) {
            (None, None) => return true,
            (Some('*'), _) => {
                star = Some((g + 1, l));
                g += 1;
                continue;
            }
            (Some(_), Some(character)) => one_fits(glob.get(g..).unwrap_or_default(), *character),
            _ => None,
        };
        match (step, star) {
            (Some(length), _) => {
                g += length;
                l += 1;
            }
            (None, Some((after, taken))) if taken < label.len() => {
                star = Some((after, taken + 1));
                g = after;
                l = taken + 1;
            }
            _ => return false,
        }
    }
}

/// Length of the pattern's first element, if `character` fits it.
fn one_fits(glob: &[char], character: char) -> Option<usize> {
    match glob {
        ['\\', literal, ..] => (*literal == character).then_some(2),
        ['[', class @ ..] => {
            let (negated, mut at) = if class.first() == Some(&'^') { (true, 1) } else { (false, 0) };
            let mut fits = false;
            let first = at;
            while class.get(at) != Some(&']') || at == first {
                let low = *class.get(at)?;
                let high = if class.get(at + 1) == Some(&'-') { *class.get(at + 2)? } else { low };
                fits |= (low..=high).contains(&character);
                at += if class.get(at + 1) == Some(&'-') { 3 } else { 1 };
            }
            (fits != negated).then_some(at + 2)
        }
        [literal, ..] => (*literal == character).then_some(1),
        [] => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn password(username: &str, password: &str) -> Credential {
        Credential::Password { username: username.into(), password: password.into() }
    }

    fn auth(username: &str, password: &str) -> String {
        BASE64.encode(format!("{username}:{password}"))
    }

    fn keyring(json: &str) -> Keyring {
        let mut keyring = Keyring::default();
        keyring.add_docker_config_json(json.as_bytes()).unwrap();
        keyring
    }

    #[test]
    fn every_form_of_an_entry_is_read() {
        for (entry, expected) in [
            (format!(r#"{{"auth":"{}"}}"#, auth("u", "p:q")), Some(password("u", "p:q"))),
            (format!(r#"{{"auth":"{}"}}"#, auth("u", "pp").trim_end_matches('=')), Some(password("u", "pp"))),
            (r#"{"username":"u","password":"p","email":"e"}"#.into(), Some(password("u", "p"))),
            (
                format!(r#"{{"auth":"{}","username":"x","password":"y"}}"#, auth("u", "p")),
                Some(password("u", "p")),
            ),
            (
                format!(r#"{{"auth":"{}","identitytoken":"t"}}"#, auth("00000000", "")),
                Some(Credential::Identity { username: "00000000".into(), token: "t".into() }),
            ),
            (
                r#"{"identitytoken":"t"}"#.into(),
                Some(Credential::Identity { username: String::new(), token: "t".into() }),
            ),
            (r#"{"registrytoken":"t"}"#.into(), Some(Credential::Registry { token: "t".into() })),
            (
                format!(r#"{{"auth":"{}"}}"#, auth("_json_key", r#"{"type":"service_account"}"#)),
                Some(password("_json_key", r#"{"type":"service_account"}"#)),
            ),
            (format!(r#"{{"auth":"{}"}}"#, auth("robot$name", "p")), Some(password("robot$name", "p"))),
            ("{}".into(), None),
            ("null".into(), None),
            (r#"{"auth":"","username":null}"#.into(), None),
        ] {
            let found = keyring(&format!(r#"{{"auths":{{"r.io":{entry}}}}}"#)).lookup("r.io/a");
            assert!(found.into_iter().next() == expected, "{entry}");
        }
    }

    #[test]
    fn the_legacy_form_is_the_bare_map() {
        let mut keyring = Keyring::default();
        keyring
            .add_dockercfg(format!(r#"{{"https://r.io/v1/":{{"auth":"{}"}}}}"#, auth("u", "p")).as_bytes())
            .unwrap();
        assert!(keyring.lookup("r.io/a") == [password("u", "p")]);
    }

    #[test]
    fn entries_fit_images_by_kubelets_rules() {
        for (key, image, fits) in [
            ("r.io", "r.io/a", true),
            ("r.io/", "r.io/a", true),
            ("https://r.io", "r.io/a", true),
            ("http://r.io/v1/", "r.io/a", true),
            ("https://r.io/v2/", "r.io/a", true),
            ("https://r.io/v2", "r.io/a", true),
            ("r.io/v2x", "r.io/a", false),
            ("r.io/a", "r.io/a/b", true),
            ("r.io/a", "r.io/ab", true),
            ("r.io/b", "r.io/a", false),
            ("r.io/v2/a", "r.io/a/b", true),
            ("r.io:443", "r.io/a", false),
            ("r.io", "r.io:5000/a", false),
            ("r.io:5000", "r.io:5000/a", true),
            ("*.r.io", "x.r.io/a", true),
            ("*.r.io", "r.io/a", false),
            ("*.r.io", "x.y.r.io/a", false),
            ("*.*.r.io", "x.y.r.io/a", true),
            ("x*z.r.io", "xyyz.r.io/a", true),
            ("*-docker.pkg.dev", "europe-docker.pkg.dev/a", true),
            ("x[a-c].r.io", "xb.r.io/a", true),
            ("x[^a-c].r.io", "xb.r.io/a", false),
            // A question mark begins a query before it is ever a glob.
            ("?.r.io", "b.r.io/a", false),
            ("x[a.r.io", "xa.r.io/a", false),
            ("*", "localhost/a", true),
            ("*", "r.io/a", false),
            ("https://index.docker.io/v1/", "docker.io/library/a", true),
            ("index.docker.io", "docker.io/me/a", true),
            ("docker.io", "docker.io/me/a", true),
            ("https://index.docker.io/v1/", "r.io/a", false),
            ("[::1]:5000", "[::1]:5000/a", true),
            ("evil.io/r.io", "r.io/a", false),
            ("", "r.io/a", false),
        ] {
            let mut keyring = Keyring::default();
            keyring.add_credential(key, password("u", "p")).unwrap();
            assert_eq!(!keyring.lookup(image).is_empty(), fits, "{key} for {image}");
        }
    }

    #[test]
    fn the_most_specific_entry_is_tried_first_and_each_once() {
        let mut keyring = keyring(&format!(
            r#"{{"auths":{{"r.io":{{"auth":"{0}"}},"r.io/a":{{"auth":"{1}"}},"https://r.io":{{"auth":"{0}"}}}}}}"#,
            auth("u", "host"),
            auth("u", "path")
        ));
        keyring
            .add_dockercfg(format!(r#"{{"r.io/a":{{"auth":"{}"}}}}"#, auth("u", "later")).as_bytes())
            .unwrap();
        let found = keyring.lookup("r.io/a/b");
        assert!(found == [password("u", "path"), password("u", "later"), password("u", "host")]);
    }

    #[test]
    fn the_default_entry_serves_docker_io_only_where_no_other_fits() {
        let keyring = keyring(
            r#"{"auths":{"https://index.docker.io/v1/":{"username":"a","password":"1"},
                         "docker.io/me":{"username":"b","password":"2"}}}"#,
        );
        assert!(keyring.lookup("docker.io/me/x") == [password("b", "2")]);
        assert!(keyring.lookup("docker.io/library/x") == [password("a", "1")]);
    }

    #[test]
    fn a_bad_entry_is_named_without_its_secret_and_spoils_no_other() {
        let mut keyring = Keyring::default();
        let error = keyring
            .add_docker_config_json(
                br#"{"auths":{"bad.io":{"auth":"c2VjcmV0"},"r.io":{"username":"u","password":"p"}}}"#,
            )
            .unwrap_err();
        assert!(
            error.starts_with("bad.io: ") && !error.contains("secret") && !error.contains("c2Vj"),
            "{error}"
        );
        assert_eq!(keyring.lookup("r.io/a").len(), 1);
        for bad in [&br#"{"auths":{"r.io":{"password":["hunter2"]}}}"#[..], b"hunter2", b""] {
            let error = keyring.add_docker_config_json(bad).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(keyring.add_docker_config_json(&vec![b' '; MAX_CONFIG + 1]).is_err());
        assert_eq!(format!("{keyring:?}"), "Keyring(1 entries)");
    }

    #[test]
    fn no_more_credentials_are_tried_than_the_limit() {
        let mut keyring = Keyring::default();
        for number in 0..MAX_TRIED + 5 {
            keyring.add_credential("r.io", password("u", &number.to_string())).unwrap();
        }
        assert_eq!(keyring.lookup("r.io/a").len(), MAX_TRIED);
        for number in keyring.entries.len()..MAX_ENTRIES {
            keyring.add_credential("r.io", password("u", &number.to_string())).unwrap();
        }
        assert!(keyring.add_credential("r.io", password("u", "p")).is_err());
    }

    #[test]
    fn a_star_needs_no_exponential_time() {
        assert!(!glob_fits(&"*a".repeat(100), &"a".repeat(99)));
        assert!(glob_fits(&"*a".repeat(100), &"a".repeat(100)));
    }
}
