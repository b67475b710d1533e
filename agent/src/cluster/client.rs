//! Requests to the API server, over one connection that is opened when needed.
//!
//! Every answer has a limit of size and of time. kube-client's own helpers have neither, and need a
//! tokio runtime; what they add over hyper is in this file and in [`super::watch`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::ApiError;
use super::transport::{connect, within, Sender, Server};
use crate::api::Status;
use crate::config::VERSION;

/// An ordinary request gets this long.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A heartbeat gets this long (the kubelet's own figure).
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of one object as JSON: etcd takes 1.5 MiB of it as protobuf.
pub const MAX_OBJECT: usize = 4 * 1024 * 1024;
/// Bytes of a list: the pods of one node. A hundred pods are about one MiB.
pub const MAX_LIST: usize = 32 * 1024 * 1024;
/// Bytes of an error's body that are read.
const MAX_STATUS: usize = 64 * 1024;

const JSON: &str = "application/json";

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
}

/// The shared HTTP/2 sender, numbered so that only a connection known to be bad is dropped.
mod http2_sender {
    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::client::conn::http2::SendRequest;

    #[derive(Clone)]
    pub struct Shared {
        pub sender: SendRequest<Full<Bytes>>,
        pub number: u64,
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
        self.accept = "application/vnd.kubernetes.protobuf";
        self
    }

    /// A heartbeat: brief, and given little time.
    #[must_use]
    pub fn heartbeat(mut self) -> Call {
        self.timeout = HEARTBEAT_TIMEOUT;
        self.brief()
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
        }))
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.0.server
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
        serde_json::from_slice(&body).map_err(|error| ApiError::Unusable { what, problem: error.to_string() })
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn send(&self, call: Call) -> Result<Bytes, ApiError> {
        let (limit, timeout, what) = (call.limit, call.timeout, call.what());
        let whole = async {
            let (answer, number) = self.start(call).await?;
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
                self.discard_any().await;
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
        match within(timeout, Box::pin(self.start(call))).await {
            Ok(result) => result.map(|(answer, _)| answer.into_body()),
            Err(error) => {
                self.discard_any().await;
                Err(ApiError::Broken { what, problem: error.to_string() })
            }
        }
    }

    /// Sends; back when the headers of a successful answer are there.
    async fn start(&self, call: Call) -> Result<(Response<Incoming>, u64), ApiError> {
        let what = call.what();
        let broken = |error: hyper::Error| ApiError::Broken {
            what: what.clone(),
            problem: crate::error_chain(&error),
        };
        let mut tries = 0;
        let (answer, number) = loop {
            tries += 1;
            let (mut sender, number) = self.sender().await?;
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
                    self.discard(number).await;
                    // Never sent: the connection had ended before, unseen. Once more on a new one.
                    if tries < 2 && (error.is_canceled() || error.is_closed()) {
                        continue;
                    }
                    return Err(broken(error));
                }
            }
        };
        if answer.status().is_success() {
            return Ok((answer, number));
        }
        let code = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_STATUS).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let mut status: Status = serde_json::from_slice(&body).unwrap_or_default();
        if status.message.is_empty() {
            status.message = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
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
    async fn sender(&self) -> Result<(Sender, u64), ApiError> {
        // Held while connecting: one handshake at a time, and all who wait get its result.
        let mut shared = self.0.connection.lock().await;
        if let Some(live) = shared.as_ref().filter(|live| !live.sender.is_closed()) {
            return Ok((Sender::Many(live.sender.clone()), live.number));
        }
        *shared = None;
        // Boxed, as below: connecting is rare, and its future large.
        match Box::pin(connect(&self.0.server, self.credentials().tls)).await? {
            Sender::Many(sender) => {
                let number = fastrand::u64(1..);
                *shared = Some(http2_sender::Shared { sender: sender.clone(), number });
                Ok((Sender::Many(sender), number))
            }
            one @ Sender::One(_) => Ok((one, 0)),
        }
    }

    async fn discard(&self, number: u64) {
        let mut shared = self.0.connection.lock().await;
        if shared.as_ref().is_some_and(|live| live.number == number) {
            *shared = None;
        }
    }

    async fn discard_any(&self) {
        // Somebody who is connecting holds the lock: then there is nothing to discard.
        if let Some(mut shared) = self.0.connection.try_lock() {
            *shared = None;
        }
    }
}
