//! Requests to the API server, over one connection that is opened when needed.
//!
//! Every answer has a limit of size and of time. kube-client's own helpers have neither, and need a
//! tokio runtime; what they add over hyper is in this file and in [`super::watch`].

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use rustls::ClientConfig;
use serde::de::{Deserialize, DeserializeOwned};
use serde_json::Value;

use super::error::ApiError;
use super::transport::{connect, Sender, Server};
use crate::api::Status;
use crate::config::VERSION;
use crate::outgoing::within;

/// An ordinary request gets this long.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A heartbeat gets this long (the kubelet's own figure).
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of one object as JSON: etcd takes 1.5 MiB of it as protobuf.
pub const MAX_OBJECT: usize = 4 * 1024 * 1024;
/// Bytes of a list: the pods of one node. A hundred pods are about one MiB.
pub const MAX_LIST: usize = 32 * 1024 * 1024;
/// Characters of an error's message that are kept.
const MAX_MESSAGE: usize = 1024;
/// Kinds of answers that are counted: a hostile server may have as many as there are status codes.
const MAX_COUNTED: usize = 64;
/// Bytes of an error's body that are read.
const MAX_STATUS: usize = 64 * 1024;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// `PartialObjectMetadata`, as protobuf where it can be had.
const PROTOBUF_METADATA: &str =
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, \
                                 application/vnd.kubernetes.protobuf";

/// `PartialObjectMetadata`, of the objects of a watch or of a list, as JSON where it can be had.
const METADATA_EVENTS: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json";
const METADATA_LIST: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/json";

/// How a patch is to be understood.
#[derive(Clone, Copy, Debug)]
pub enum Patch {
    /// RFC 7386.
    Merge,
    /// Kubernetes' own: lists merge by key.
    Strategic,
}

impl Patch {
    fn content_type(self) -> &'static str {
        match self {
            Patch::Merge => "application/merge-patch+json",
            Patch::Strategic => "application/strategic-merge-patch+json",
        }
    }
}

/// With what this agent proves who it is.
#[derive(Clone)]
pub struct Credentials {
    /// TLS, with a client certificate or without one.
    pub tls: Arc<ClientConfig>,
    /// `Authorization: Bearer …`
    pub bearer: Option<HeaderValue>,
}

/// The API client. Cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    server: Server,
    credentials: Mutex<Credentials>,
    connection: async_lock::Mutex<Option<http2_sender::Shared>>,
    answered: Mutex<Vec<(&'static str, u16, u64)>>,
    own_address: Mutex<Option<IpAddr>>,
}

/// The shared HTTP/2 sender, numbered so that only a connection known to be bad is dropped.
mod http2_sender {
    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::client::conn::http2::SendRequest;

    #[derive(Clone)]
    pub struct Shared {
        pub sender: SendRequest<Full<Bytes>>,
        pub number: usize,
    }
}

/// A request about to be sent.
#[derive(Clone)]
pub struct Call {
    method: Method,
    path: String,
    body: Option<(&'static str, Bytes)>,
    accept: &'static str,
    timeout: Duration,
    limit: usize,
}

impl Call {
    /// A request without a body; `path` begins with `/api` and carries its query.
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Call {
        Call {
            method,
            path: path.into(),
            body: None,
            accept: JSON,
            timeout: REQUEST_TIMEOUT,
            limit: MAX_OBJECT,
        }
    }

    /// With a JSON body.
    #[must_use]
    pub fn json(mut self, body: &Value) -> Call {
        self.body = Some((JSON, Bytes::from(body.to_string())));
        self
    }

    /// With a JSON body that is written already.
    #[must_use]
    pub fn written(mut self, body: Vec<u8>) -> Call {
        self.body = Some((JSON, Bytes::from(body)));
        self
    }

    /// A patch.
    #[must_use]
    pub fn patch(path: impl Into<String>, kind: Patch, body: &Value) -> Call {
        let mut call = Call::new(Method::PATCH, path);
        call.body = Some((kind.content_type(), Bytes::from(body.to_string())));
        call
    }

    /// With an answer as short as the API server has one; nobody parses it.
    #[must_use]
    pub fn brief(mut self) -> Call {
        self.accept = PROTOBUF;
        self
    }

    /// Given little time, as a heartbeat is.
    #[must_use]
    pub fn hasty(mut self) -> Call {
        self.timeout = HEARTBEAT_TIMEOUT;
        self
    }

    /// Answered with the object's metadata alone: for what changes a large object, as a node is. (A lease is
    /// smaller than what this adds: measured, 785 bytes a renewal in place of 603.)
    #[must_use]
    pub fn metadata_only(mut self) -> Call {
        self.accept = PROTOBUF_METADATA;
        self
    }

    /// Answered with the metadata of objects alone: of a list, or of the events of a watch.
    #[must_use]
    pub fn of_metadata(mut self, list: bool) -> Call {
        self.accept = if list { METADATA_LIST } else { METADATA_EVENTS };
        self
    }

    /// With another limit for the answer's size.
    #[must_use]
    pub fn limit(mut self, bytes: usize) -> Call {
        self.limit = bytes;
        self
    }

    /// Method and path, for messages.
    #[must_use]
    pub fn what(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        format!("{} {path}", self.method)
    }
}

impl Client {
    /// A client; nothing is connected yet.
    #[must_use]
    pub fn new(server: Server, credentials: Credentials) -> Client {
        Client(Arc::new(Inner {
            server,
            credentials: Mutex::new(credentials),
            connection: async_lock::Mutex::new(None),
            answered: Mutex::default(),
            own_address: Mutex::default(),
        }))
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.0.server
    }

    /// How often requests of each method were answered with which status code; 0: there was no answer.
    #[must_use]
    pub fn answered(&self) -> Vec<(&'static str, u16, u64)> {
        self.0.answered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// This machine's address on the latest connection.
    #[must_use]
    pub fn own_address(&self) -> Option<IpAddr> {
        *self.0.own_address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, method: &Method, code: u16) {
        let method = match *method {
            Method::GET => "GET",
            Method::POST => "POST",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            _ => "other",
        };
        let mut answered = self.0.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let known = answered.iter_mut().find(|(known, answer, _)| (*known, *answer) == (method, code));
        if let Some((_, _, count)) = known {
            *count = count.saturating_add(1);
        } else if answered.len() < MAX_COUNTED {
            answered.push((method, code, 1));
        }
    }

    /// Goes on with other credentials. The connection that used the old ones is closed as soon as what
    /// is under way on it has ended.
    pub async fn replace_credentials(&self, credentials: Credentials) {
        *self.0.credentials.lock().unwrap_or_else(PoisonError::into_inner) = credentials;
        *self.0.connection.lock().await = None;
    }

    /// Sends a request and reads the whole answer as `T`.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn read<T: DeserializeOwned>(&self, call: Call) -> Result<T, ApiError> {
        let what = call.what();
        let body = self.send(call).await?;
        read_json(&body).map_err(|problem| ApiError::Unusable { what, problem })
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn send(&self, call: Call) -> Result<Bytes, ApiError> {
        let (limit, timeout, what) = (call.limit, call.timeout, call.what());
        let used = AtomicUsize::new(0);
        let whole = async {
            let (answer, number) = self.start(call, &used).await?;
            match Limited::new(answer.into_body(), limit).collect().await {
                Ok(body) => Ok(body.to_bytes()),
                Err(error) => {
                    self.discard(number).await;
                    Err(ApiError::Broken { what: what.clone(), problem: error.to_string() })
                }
            }
        };
        match within(timeout, Box::pin(whole)).await {
            Ok(result) => result,
            Err(error) => {
                // A connection that lets requests wait this long may be dead without knowing it.
                self.discard(used.load(Ordering::Relaxed)).await;
                Err(ApiError::Broken { what, problem: error.to_string() })
            }
        }
    }

    /// Sends a request whose answer is read as it comes (a watch): back as soon as the headers are there.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn stream(&self, call: Call) -> Result<Incoming, ApiError> {
        let (timeout, what) = (call.timeout, call.what());
        let used = AtomicUsize::new(0);
        match within(timeout, Box::pin(self.start(call, &used))).await {
            Ok(result) => result.map(|(answer, _)| answer.into_body()),
            Err(error) => {
                self.discard(used.load(Ordering::Relaxed)).await;
                Err(ApiError::Broken { what, problem: error.to_string() })
            }
        }
    }

    /// Sends; back when the headers of a successful answer are there.
    /// `used` is told at once which connection it goes over.
    async fn start(&self, call: Call, used: &AtomicUsize) -> Result<(Response<Incoming>, usize), ApiError> {
        let what = call.what();
        let broken = |error: hyper::Error| ApiError::Broken {
            what: what.clone(),
            problem: crate::error_chain(&error),
        };
        let mut tries = 0;
        let (answer, number) = loop {
            tries += 1;
            let (mut sender, number) = self.sender().await?;
            used.store(number, Ordering::Relaxed);
            let request = self.request(&call, &sender)?;
            let sent = match &mut sender {
                Sender::Many(sender) => match sender.ready().await {
                    Ok(()) => sender.send_request(request).await,
                    Err(error) => Err(error),
                },
                Sender::One(sender) => match sender.ready().await {
                    Ok(()) => sender.send_request(request).await,
                    Err(error) => Err(error),
                },
            };
            match sent {
                Ok(answer) => break (answer, number),
                Err(error) => {
                    self.count(&call.method, 0);
                    self.discard(number).await;
                    // Never sent: the connection had ended before, unseen. Once more on a new one.
                    if tries < 2 && (error.is_canceled() || error.is_closed()) {
                        continue;
                    }
                    return Err(broken(error));
                }
            }
        };
        self.count(&call.method, answer.status().as_u16());
        if answer.status().is_success() {
            return Ok((answer, number));
        }
        let code = answer.status().as_u16();
        let retry_after = answer.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = Limited::new(answer.into_body(), MAX_STATUS).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let mut status = read_status(&body);
        if status.message.is_empty() {
            status.message = String::from_utf8_lossy(&body).into_owned();
        }
        status.message = one_line(&status.message);
        if let Some(seconds) = retry_after {
            status.details.get_or_insert_default().retry_after_seconds = seconds;
        }
        status.code = code;
        Err(ApiError::Refused { what, status: Box::new(status) })
    }

    fn request(&self, call: &Call, sender: &Sender) -> Result<Request<Full<Bytes>>, ApiError> {
        let server = &self.0.server;
        let target = format!("{}{}", server.base, call.path);
        let uri = match sender {
            Sender::Many(_) => format!("https://{}{target}", server.authority()),
            Sender::One(_) => target,
        };
        let mut builder = Request::builder()
            .method(call.method.clone())
            .uri(uri)
            .header(header::ACCEPT, call.accept)
            .header(header::USER_AGENT, format!("copepod/{VERSION}"));
        if let Sender::One(_) = sender {
            builder = builder.header(header::HOST, server.authority());
        }
        let credentials = self.credentials();
        if let Some(bearer) = &credentials.bearer {
            builder = builder.header(header::AUTHORIZATION, bearer);
        }
        let body = match &call.body {
            Some((content_type, body)) => {
                builder = builder.header(header::CONTENT_TYPE, *content_type);
                body.clone()
            }
            None => Bytes::new(),
        };
        builder
            .body(Full::new(body))
            .map_err(|error| ApiError::Broken { what: call.what(), problem: error.to_string() })
    }

    fn credentials(&self) -> Credentials {
        self.0.credentials.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A sender on the shared connection, opened if there is none.
    async fn sender(&self) -> Result<(Sender, usize), ApiError> {
        // Held while connecting: one handshake at a time.
        let mut shared = self.0.connection.lock().await;
        if let Some(live) = shared.as_ref().filter(|live| !live.sender.is_closed()) {
            return Ok((Sender::Many(live.sender.clone()), live.number));
        }
        *shared = None;
        // Boxed, as below: connecting is rare, and its future large.
        let (sender, own) = Box::pin(connect(&self.0.server, self.credentials().tls)).await?;
        if own.is_some() {
            *self.0.own_address.lock().unwrap_or_else(PoisonError::into_inner) = own;
        }
        match sender {
            Sender::Many(sender) => {
                let number = fastrand::usize(1..);
                *shared = Some(http2_sender::Shared { sender: sender.clone(), number });
                Ok((Sender::Many(sender), number))
            }
            one @ Sender::One(_) => Ok((one, 0)),
        }
    }

    async fn discard(&self, number: usize) {
        let mut shared = self.0.connection.lock().await;
        if shared.as_ref().is_some_and(|live| live.number == number) {
            *shared = None;
        }
    }
}

/// Reads JSON. Everything goes through the one deserializer of `&str`: each further kind would be paid
/// for in the binary with every type once more.
pub(super) fn read_json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// The API server's Status, as JSON or, where the answer was asked for brief, as protobuf.
fn read_status(body: &[u8]) -> Status {
    match body.strip_prefix(protobuf::MAGIC) {
        Some(envelope) => protobuf::status(envelope),
        None => read_json(body).unwrap_or_default(),
    }
}

/// Text of another machine, as part of a line of ours.
fn one_line(text: &str) -> String {
    let text = text.trim();
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(clean).take(MAX_MESSAGE).collect()
}

/// Just enough of protobuf to tell why a brief request was refused.
mod protobuf {
    use crate::api::Status;

    /// What every protobuf answer of the API begins with (`k8s.io/apimachinery` protobuf serializer).
    pub const MAGIC: &[u8] = b"k8s\0";

    /// `runtime.Unknown`: field 2 holds the object. `meta/v1 Status`: 3 is the message, 4 the reason.
    pub fn status(envelope: &[u8]) -> Status {
        let object = field(envelope, 2).unwrap_or_default();
        let text = |number| String::from_utf8_lossy(field(object, number).unwrap_or_default()).into_owned();
        Status { message: text(3), reason: text(4), ..Status::default() }
    }

    /// The first length-delimited field of this number.
    fn field(mut message: &[u8], wanted: u64) -> Option<&[u8]> {
        while !message.is_empty() {
            let (tag, rest) = varint(message)?;
            let (skip, body) = match tag & 7 {
                0 => (0, varint(rest)?.1),
                1 => (8, rest),
                2 => {
                    let (length, body) = varint(rest)?;
                    (usize::try_from(length).ok()?, body)
                }
                5 => (4, rest),
                _ => return None,
            };
            let value = body.get(..skip)?;
            if tag >> 3 == wanted && tag & 7 == 2 {
                return Some(value);
            }
            message = body.get(skip..)?;
        }
        None
    }

    fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
        let mut value = 0u64;
        for (at, byte) in bytes.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(at).ok()?.saturating_mul(7))?;
            if byte & 0x80 == 0 {
                return Some((value, bytes.get(at.saturating_add(1)..)?));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_in_both_of_its_forms() {
        let json = br#"{"kind":"Status","message":"no such node","reason":"NotFound","code":404}"#;
        // Unknown{raw: Status{metadata, status, message, reason}}, as an API server writes it.
        let mut status = b"\x0a\x00\x12\x07Failure\x1a\x0cno such node\x22\x08NotFound".to_vec();
        status.extend(b"\x30\x94\x03");
        let mut protobuf = b"k8s\0\x0a\x0c\x0a\x02v1\x12\x06Status\x12".to_vec();
        protobuf.push(u8::try_from(status.len()).unwrap_or(0));
        protobuf.extend(&status);
        for body in [json.as_slice(), &protobuf] {
            let read = read_status(body);
            assert_eq!((read.message.as_str(), read.reason.as_str()), ("no such node", "NotFound"));
        }
        for cut in 0..protobuf.len() {
            read_status(protobuf.get(..cut).unwrap_or_default());
        }
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        assert_eq!(one_line(" a\nb\x1b[2J\n"), "a b [2J");
        assert_eq!(one_line(&"x".repeat(5000)).len(), MAX_MESSAGE);
    }
}
