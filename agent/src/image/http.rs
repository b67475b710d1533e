//! Requests, one at a time: an agent for each origin with the authorities, proxy and limits that it
//! needs, redirects by hand, and errors in plain words. Knows nothing of registries.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::CertificateError;
use ureq::config::Config;
use ureq::http::header::{HeaderName, AUTHORIZATION, LOCATION};
use ureq::http::{HeaderValue, Method, Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy, SendBody};

use super::error::RegistryError;
use super::location::Location;
use super::tls::{self, Places};

/// TCP and TLS together, all addresses of a name (containerd: 30 s).
const CONNECT: Duration = Duration::from_secs(20);
/// From the last byte sent to the end of the headers; registries hash a pushed blob in that time.
const ANSWER: Duration = Duration::from_secs(60);
/// A connection on which nothing moves for so long is given up.
const IDLE: Duration = Duration::from_secs(60);
/// A document (manifest, config, token, error), whole.
const DOCUMENT: Duration = Duration::from_secs(120);
/// Headers of one answer (Go's clients allow 1 MiB, nginx sends 32 KiB at most).
const MAX_HEADERS: usize = 32 << 10;
/// Buffers of a connection, each way; a TLS record is 16 KiB.
const BUFFER: usize = 32 << 10;
/// Redirects followed for one request (Go's http client: 10).
const MAX_REDIRECTS: usize = 10;
/// Agents kept: registry, token service and object store make three.
const MAX_AGENTS: usize = 8;

/// An answer, whatever its status.
pub(super) type Reply = Response<Body>;

/// The body of a request; it can be sent again.
pub(super) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// A file from its start, its length, and who is told of each chunk sent.
    File(&'a File, u64, &'a dyn Fn(usize)),
}

/// A request without its destination.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) payload: Payload<'a>,
}

impl Ask<'_> {
    pub(super) fn get(headers: Vec<(HeaderName, String)>) -> Ask<'static> {
        Ask { method: Method::GET, headers, payload: Payload::None }
    }
}

/// The agents, and what to make them from.
pub(super) struct Client {
    insecure: Vec<String>,
    certs_dir: PathBuf,
    places: Places,
    /// Loaded when the first origin needs them.
    authorities: Option<Vec<Certificate<'static>>>,
    agents: Vec<(Location, Agent)>,
}

impl Client {
    pub(super) fn new(insecure: &[String], certs_dir: PathBuf) -> Client {
        Client {
            insecure: insecure.to_vec(),
            certs_dir,
            places: Places::from_env(),
            authorities: None,
            agents: Vec::new(),
        }
    }

    /// Whether plain http or an unknown certificate will do, as Docker has it: loopback, and what
    /// the operator listed as `host` or `host:port`.
    pub(super) fn is_insecure(&self, location: &Location) -> bool {
        let with_port = format!("{}:{}", location.host, location.port);
        location.is_loopback()
            || self.insecure.iter().any(|listed| {
                listed.eq_ignore_ascii_case(&with_port) || listed.eq_ignore_ascii_case(&location.authority())
            })
    }

    /// Sends one request, follows nothing.
    pub(super) fn send(
        &mut self,
        ask: &Ask<'_>,
        to: &Location,
        authorization: Option<&str>,
    ) -> Result<Reply, SendError> {
        let mut request = Request::builder().method(ask.method.clone()).uri(to.url());
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if let Some(value) = authorization {
            // A token with a line break or the like cannot be sent; its text stays out of the error.
            let mut value = HeaderValue::from_str(value).map_err(|_| SendError::Authorization)?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let agent = self.agent(to)?;
        let reply = match &ask.payload {
            Payload::None => {
                let request = request.body(()).map_err(ureq::Error::Http)?;
                agent.run(request)?
            }
            Payload::Bytes(bytes) => {
                let request = request.body(*bytes).map_err(ureq::Error::Http)?;
                agent.run(request)?
            }
            Payload::File(file, length, told) => {
                let mut file = *file;
                file.rewind().map_err(ureq::Error::Io)?;
                let mut body = Told { reader: file.take(*length), told };
                let request = request.header("content-length", *length);
                let request = request.body(SendBody::from_reader(&mut body)).map_err(ureq::Error::Http)?;
                agent.run(request)?
            }
        };
        Ok(reply)
    }

    /// Sends a request without a body and follows redirects. `authorization` goes to the first
    /// origin only: it is dropped for good at the first step to another one.
    pub(super) fn follow(
        &mut self,
        ask: &Ask<'_>,
        to: &Location,
        authorization: Option<&str>,
    ) -> Result<(Reply, Location), RegistryError> {
        let mut at = to.clone();
        let mut authorization = authorization;
        for _ in 0..=MAX_REDIRECTS {
            let reply = self.send(ask, &at, authorization).map_err(|e| e.explain(&ask.method, &at))?;
            if !matches!(reply.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok((reply, at));
            }
            let target = reply.headers().get(LOCATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
            let next = at.follow(target).map_err(|why| {
                RegistryError::Protocol(format!("{at} redirects to where nobody is asked: {why}"))
            })?;
            if !next.same_origin(&at) {
                authorization = None;
            }
            at = next;
        }
        Err(RegistryError::Protocol(format!("{to} redirects more than {MAX_REDIRECTS} times")))
    }

    fn agent(&mut self, to: &Location) -> Result<&Agent, SendError> {
        let known = self.agents.iter().position(|(origin, _)| origin.same_origin(to));
        let index = match known {
            Some(index) => index,
            None => {
                let agent = self.new_agent(to)?;
                if self.agents.len() >= MAX_AGENTS {
                    self.agents.remove(0);
                }
                self.agents.push((to.clone(), agent));
                self.agents.len().saturating_sub(1)
            }
        };
        self.agents.get(index).map(|(_, agent)| agent).ok_or(SendError::Http(ureq::Error::ConnectionFailed))
    }

    fn new_agent(&mut self, to: &Location) -> Result<Agent, SendError> {
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let tls = if !to.tls {
            tls.root_certs(RootCerts::new_with_certs(&[]))
        } else if self.is_insecure(to) {
            tls.root_certs(RootCerts::new_with_certs(&[])).disable_verification(true)
        } else {
            let mut trusted = tls::of_registry(&self.certs_dir, &to.authority());
            let places = &self.places;
            trusted.extend_from_slice(self.authorities.get_or_insert_with(|| places.load()));
            if trusted.is_empty() {
                return Err(SendError::NoAuthorities);
            }
            tls.root_certs(RootCerts::new_with_certs(&trusted))
        };
        let proxy = if to.is_loopback() { None } else { Proxy::try_from_env() };
        let config = Config::builder()
            .tls_config(tls.build())
            .proxy(proxy)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("copepod/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            .timeout_send_request(Some(IDLE))
            .timeout_recv_response(Some(ANSWER))
            .timeout_per_read(Some(IDLE))
            .timeout_per_write(Some(IDLE))
            .max_response_header_size(MAX_HEADERS)
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .build();
        Ok(Agent::new_with_config(config))
    }
}

/// Reads a file and tells of each chunk.
struct Told<'a, R> {
    reader: R,
    told: &'a dyn Fn(usize),
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        (self.told)(read);
        Ok(read)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("{0}")]
    Http(#[from] ureq::Error),
    #[error("the credential or token cannot be sent in a header")]
    Authorization,
    #[error("no trusted CA certificates are installed")]
    NoAuthorities,
}

impl SendError {
    /// Whether the server may be one that speaks plain http.
    pub(super) fn may_be_plain(&self) -> bool {
        match self {
            SendError::Http(error) => !matches!(error, ureq::Error::HostNotFound | ureq::Error::Http(_)),
            _ => false,
        }
    }

    /// The error for people: what was asked, why it failed, what can be done.
    pub(super) fn explain(self, method: &Method, to: &Location) -> RegistryError {
        let said = |why: String| format!("failed to do request: {method} {to}: {why}");
        let error = match self {
            SendError::Http(error) => error,
            SendError::Authorization => return RegistryError::Denied(said(self.to_string())),
            SendError::NoAuthorities => {
                return RegistryError::Untrusted(said(format!("{self}: {}", how_to_trust(to))))
            }
        };
        if let Some(tls) = rustls_error(&error) {
            return match tls {
                rustls::Error::InvalidCertificate(why) => {
                    RegistryError::Untrusted(said(format!("{tls}: {}", advice(why, to))))
                }
                // What a server that knows no TLS answers is no TLS record.
                rustls::Error::InvalidMessage(_) => RegistryError::Untrusted(said(format!(
                    "it does not speak TLS ({tls}): if it is meant to be asked by plain http, list {} among the insecure registries",
                    to.authority()
                ))),
                other => RegistryError::Unavailable(said(format!("TLS: {other}"))),
            };
        }
        match error {
            ureq::Error::Protocol(_) | ureq::Error::Http(_) | ureq::Error::BadUri(_) => {
                RegistryError::Protocol(said(error.to_string()))
            }
            error => RegistryError::Unavailable(said(error.to_string())),
        }
    }
}

fn rustls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

fn advice(error: &CertificateError, to: &Location) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired, or this machine's clock is wrong".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet, or this machine's clock is wrong".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name".to_owned()
        }
        _ => how_to_trust(to),
    }
}

fn how_to_trust(to: &Location) -> String {
    format!(
        "put its CA certificate into {}/ca.crt of the certificate folder, install it on the system, or name it in SSL_CERT_FILE",
        to.authority()
    )
}

/// Reads a document of at most `limit` bytes.
pub(super) fn read_limited(reply: Reply, limit: usize) -> Result<Vec<u8>, io::Error> {
    let deadline = Instant::now() + DOCUMENT;
    let mut body = Vec::new();
    let mut reader = reply.into_body().into_with_config().limit(u64::MAX).reader();
    let mut chunk = [0; 4096];
    loop {
        let read = match reader.read(&mut chunk) {
            Ok(0) => return Ok(body),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if body.len().saturating_add(read) > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes")));
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("not read after {DOCUMENT:?}")));
        }
        body.extend_from_slice(chunk.get(..read).unwrap_or_default());
    }
}
