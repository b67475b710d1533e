//! One conversation with one registry about one repository (OCI distribution-spec): authentication,
//! redirects, and the requests that pulls and pushes are made of.

use ureq::http::header::{ACCEPT, CONTENT_TYPE, LOCATION, RANGE};
use ureq::http::{HeaderName, Method};

use super::auth::{self, Challenge, TokenRequest};
use super::credentials::Credential;
use super::digest::Digest;
use super::error::RegistryError;
use super::http::{read_limited, Ask, Client, Payload, Reply};
use super::location::Location;
use super::manifest;
use super::reference::Reference;
use super::Registries;

/// Largest error body read, and how much of its message is shown.
const MAX_ERROR_BODY: usize = 16 << 10;
const MESSAGE_SHOWN: usize = 256;
/// A shorter secret would blot out too much of a message.
const SHORTEST_SECRET: usize = 4;

/// What is to be done in the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Pull,
    Push,
}

/// The conversation.
pub(super) struct Session {
    client: Client,
    base: Location,
    /// Whether the registry may yet turn out to speak plain http (Docker: insecure registries are
    /// asked by https first, and by http when that fails).
    scheme_open: bool,
    repository: String,
    access: Access,
    credential: Option<Credential>,
    /// The value that the registry, and nobody else, is sent.
    authorization: Option<String>,
    /// What no message may hold.
    secrets: Vec<String>,
}

impl Session {
    pub(super) fn open(
        registries: &Registries,
        reference: &Reference,
        access: Access,
    ) -> Result<Session, RegistryError> {
        let base = Location::new(true, reference.api_host(), "/").map_err(|why| {
            RegistryError::Protocol(format!("the registry {} cannot be asked: {why}", reference.registry()))
        })?;
        let client = Client::new(&registries.insecure, registries.certs_dir.clone());
        let scheme_open = client.is_insecure(&base);
        Ok(Session {
            client,
            base,
            scheme_open,
            repository: reference.repository().to_owned(),
            access,
            credential: None,
            authorization: None,
            secrets: Vec::new(),
        })
    }

    /// From here on speaks for another holder, or for nobody.
    pub(super) fn log_in(&mut self, credential: Option<Credential>) {
        self.authorization = None;
        for secret in credential.iter().flat_map(Credential::secrets) {
            self.hide(secret);
        }
        self.credential = credential;
    }

    /// Blots secrets out of a text, should a registry have echoed one.
    pub(super) fn blot(&self, text: String) -> String {
        self.secrets.iter().fold(text, |text, secret| text.replace(secret.as_str(), "[redacted]"))
    }

    /// A manifest or index by tag or digest.
    pub(super) fn manifest(&mut self, target: &str) -> Result<Reply, RegistryError> {
        let accept =
            [manifest::OCI_MANIFEST, manifest::OCI_INDEX, manifest::DOCKER_MANIFEST, manifest::DOCKER_INDEX]
                .join(", ");
        self.get(&format!("manifests/{target}"), vec![(ACCEPT, accept)])
    }

    /// A blob, from an offset on if the registry can.
    pub(super) fn blob(&mut self, digest: &Digest, offset: u64) -> Result<Reply, RegistryError> {
        let range = (offset > 0).then(|| (RANGE, format!("bytes={offset}-")));
        self.get(&format!("blobs/{digest}"), range.into_iter().collect())
    }

    /// Whether a blob is there already.
    pub(super) fn has_blob(&mut self, digest: &Digest) -> Result<bool, RegistryError> {
        let ask = Ask { method: Method::HEAD, headers: Vec::new(), payload: Payload::None };
        let (reply, at) = self.exchange(&ask, &format!("blobs/{digest}"))?;
        match reply.status().as_u16() {
            200..=299 => Ok(true),
            404 => Ok(false),
            _ => Err(refusal(reply, &ask.method, &at, self.access)),
        }
    }

    /// Stores a blob in one piece (distribution-spec, "POST then PUT").
    pub(super) fn put_blob(&mut self, digest: &Digest, payload: Payload<'_>) -> Result<(), RegistryError> {
        let ask = Ask { method: Method::POST, headers: Vec::new(), payload: Payload::Bytes(&[]) };
        let (reply, at) = self.exchange(&ask, "blobs/uploads/")?;
        if reply.status() != 202 {
            return Err(refusal(reply, &ask.method, &at, self.access));
        }
        let target = reply.headers().get(LOCATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let target = at.follow(target).map_err(|why| {
            RegistryError::Protocol(format!("the registry's upload address cannot be used: {why}"))
        })?;
        let target = target.with_query("digest", &auth::escape(&digest.to_string()));
        let headers = vec![(CONTENT_TYPE, "application/octet-stream".to_owned())];
        let ask = Ask { method: Method::PUT, headers, payload };
        let (reply, at) = self.exchange_at(&ask, &target)?;
        match reply.status().as_u16() {
            201 | 204 => Ok(()),
            _ => Err(refusal(reply, &ask.method, &at, self.access)),
        }
    }

    /// Stores a manifest under a tag or its digest.
    pub(super) fn put_manifest(
        &mut self,
        target: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Reply, RegistryError> {
        let headers = vec![(CONTENT_TYPE, media_type.to_owned())];
        let ask = Ask { method: Method::PUT, headers, payload: Payload::Bytes(bytes) };
        let (reply, at) = self.exchange(&ask, &format!("manifests/{target}"))?;
        match reply.status().as_u16() {
            201 | 204 => Ok(reply),
            _ => Err(refusal(reply, &ask.method, &at, self.access)),
        }
    }

    fn get(&mut self, path: &str, headers: Vec<(HeaderName, String)>) -> Result<Reply, RegistryError> {
        let ask = Ask::get(headers);
        let (reply, at) = self.exchange(&ask, path)?;
        match reply.status().as_u16() {
            200 | 206 => Ok(reply),
            _ => Err(refusal(reply, &ask.method, &at, self.access)),
        }
    }

    fn exchange(&mut self, ask: &Ask<'_>, path: &str) -> Result<(Reply, Location), RegistryError> {
        let path = format!("/v2/{}/{path}", self.repository);
        if self.scheme_open {
            self.settle_scheme()?;
        }
        self.exchange_at(ask, &self.base.with_path(&path))
    }

    /// Sends a request, logging in when the registry demands it.
    fn exchange_at(&mut self, ask: &Ask<'_>, to: &Location) -> Result<(Reply, Location), RegistryError> {
        let mut logged_in = false;
        loop {
            let authorization = self.authorization.clone().filter(|_| to.same_origin(&self.base));
            let authorization = authorization.as_deref();
            let (reply, at) = match ask.method {
                Method::GET | Method::HEAD => self.client.follow(ask, to, authorization)?,
                _ => {
                    let reply = self.client.send(ask, to, authorization);
                    (reply.map_err(|e| e.explain(&ask.method, to))?, to.clone())
                }
            };
            if reply.status() != 401 || logged_in || !at.same_origin(&self.base) {
                return Ok((reply, at));
            }
            let before = self.authorization.clone();
            self.authorize(&reply)?;
            if self.authorization == before {
                return Ok((reply, at));
            }
            logged_in = true;
        }
    }

    /// Finds out whether an insecure registry speaks https, asking as Docker does for `/v2/`.
    fn settle_scheme(&mut self) -> Result<(), RegistryError> {
        let ask = Ask::get(Vec::new());
        let to = self.base.with_path("/v2/");
        match self.client.send(&ask, &to, None) {
            Ok(_) => {}
            Err(error) if error.may_be_plain() => {
                let plain = self.base.plain();
                log::debug!(
                    "{} does not answer by https ({error}); trying plain http",
                    self.base.authority()
                );
                self.client
                    .send(&ask, &plain.with_path("/v2/"), None)
                    .map_err(|e| e.explain(&ask.method, &plain.with_path("/v2/")))?;
                self.base = plain;
            }
            Err(error) => return Err(error.explain(&ask.method, &to)),
        }
        self.scheme_open = false;
        Ok(())
    }

    /// Answers a challenge with what the current credential can give.
    fn authorize(&mut self, reply: &Reply) -> Result<(), RegistryError> {
        if let Some(Credential::Registry { token }) = &self.credential {
            self.authorization = Some(format!("Bearer {token}"));
            return Ok(());
        }
        let challenges = auth::challenges(reply);
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service, scope } => Some((realm, service, scope)),
            Challenge::Basic => None,
        });
        if let Some((realm, service, scope)) = bearer {
            let realm = self.realm(realm)?;
            let scopes = self.scopes(scope);
            let request =
                TokenRequest { realm: &realm, service, scopes, credential: self.credential.as_ref() };
            let token = auth::token(&mut self.client, &request)?;
            self.hide(token.clone());
            self.authorization = Some(format!("Bearer {token}"));
        } else if challenges.contains(&Challenge::Basic) {
            if let Some(basic) = self.credential.as_ref().and_then(Credential::basic) {
                self.authorization = Some(basic);
            }
        }
        Ok(())
    }

    /// The token service that a challenge names. It is given credentials, so it must be as safe as
    /// the registry: no plain http for a registry that speaks https, unless the operator said so.
    fn realm(&self, realm: &str) -> Result<Location, RegistryError> {
        let unusable = |why: String| {
            RegistryError::Protocol(format!(
                "failed to authorize: the token service it names cannot be used: {why}"
            ))
        };
        let location = Location::parse(realm).map_err(|why| unusable(why.to_string()))?;
        let to_itself = location.is_loopback() && !self.base.is_loopback();
        if !location.tls && self.client.is_insecure(&location) && !to_itself {
            return Ok(location);
        }
        self.base.follow(realm).map_err(|why| unusable(why.to_string()))
    }

    /// What a token is asked for: what the challenge says (a registry's scopes need not be
    /// repositories), and at least the right to do here what is to be done.
    fn scopes(&self, challenged: &str) -> Vec<String> {
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let own = format!("repository:{}:", self.repository);
        let others = challenged.split(' ').filter(|scope| !scope.is_empty());
        match self.access {
            Access::Pull if !challenged.trim().is_empty() => others.map(str::to_owned).collect(),
            _ => std::iter::once(format!("{own}{actions}"))
                .chain(others.filter(|scope| !scope.starts_with(&own)).map(str::to_owned))
                .collect(),
        }
    }

    fn hide(&mut self, secret: String) {
        if secret.len() >= SHORTEST_SECRET && !self.secrets.contains(&secret) {
            self.secrets.push(secret);
        }
    }
}

/// The error that a status stands for, with the registry's own words (distribution-spec, "Error codes").
fn refusal(reply: Reply, method: &Method, at: &Location, access: Access) -> RegistryError {
    let status = reply.status();
    let message = message(reply);
    let said = if message.is_empty() { String::new() } else { format!(": server message: {message}") };
    match status.as_u16() {
        404 => RegistryError::NotFound(format!("not found{said}")),
        401 | 403 => {
            let access = match access {
                Access::Pull => "pull",
                Access::Push => "push",
            };
            RegistryError::Denied(format!(
                "{access} access denied, repository does not exist or may require authorization{said}"
            ))
        }
        code => {
            let text = format!("unexpected status from {method} request to {at}: {status}{said}");
            if code == 429 || code >= 500 {
                RegistryError::Unavailable(text)
            } else {
                RegistryError::Protocol(text)
            }
        }
    }
}

/// `code: message` of the errors in a body; nothing when it is not a registry's.
fn message(reply: Reply) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Item>,
    }
    #[derive(serde::Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let body = read_limited(reply, MAX_ERROR_BODY).unwrap_or_default();
    let Ok(Errors { errors }) = serde_json::from_slice(&body) else { return String::new() };
    let texts: Vec<String> =
        errors.iter().take(3).map(|item| format!("{}: {}", item.code.to_lowercase(), item.message)).collect();
    texts.join("; ").chars().filter(|c| !c.is_control()).take(MESSAGE_SHOWN).collect()
}
