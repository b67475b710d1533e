//! Does what probes and hooks say: a request by HTTP, a connection, a call by gRPC, a second instance of the module.
//! Nothing is kept open from one to the next.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::or;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use super::clock::Clock;
use super::lock;
use super::workshop::{Ending, Running};
use crate::error_chain;
use crate::outgoing::{self, Stream};
use crate::pod::backoff::go_duration;
use crate::pod::handlers::{Get, Handler};
use crate::runtime::{Exit, Output, Stdio};

/// Bytes of an answer or of a command's output that are kept (`pkg/probe`: maxRespBodyLength, maxReadLength).
const MAX_OUTPUT: usize = 10 * 1024;
/// Redirects that are followed.
const MAX_REDIRECTS: usize = 10;
/// What a probe and a hook call themselves.
const PROBE: &str = concat!("kube-probe/", "1.37");
const LIFECYCLE: &str = concat!("kube-lifecycle/", "1.37");

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Success,
    /// Well, and something about it is odd.
    Warning(String),
    /// Not well, and why.
    Failure(String),
}

/// With what a handler is done.
pub struct Means<'m> {
    /// The pod's own address.
    pub own: Option<String>,
    /// The container's run.
    pub run: &'m dyn Running,
    /// Tells the time.
    pub clock: &'m dyn Clock,
}

/// Does what a probe says, within this time. An error says that it could not be tried.
///
/// # Errors
/// Why.
pub async fn probe(handler: &Handler, timeout: Duration, means: &Means<'_>) -> Result<Outcome, String> {
    let late = async {
        means.clock.until(means.clock.now().mono.saturating_add(timeout)).await;
        None
    };
    let done = async { Some(perform(handler, means, PROBE).await) };
    match or(done, late).await {
        Some(outcome) => outcome,
        None => Ok(Outcome::Failure(too_late(handler, timeout, means))),
    }
}

fn too_late(handler: &Handler, timeout: Duration, means: &Means<'_>) -> String {
    let own = || means.own.clone().unwrap_or_default();
    let timeout = go_duration(timeout);
    match handler {
        Handler::Get(get) => format!(
            "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            Target::of(get, &own()).url()
        ),
        Handler::Connect { host, port } => {
            format!("dial tcp {}: i/o timeout", authority(&host.clone().unwrap_or_else(own), *port))
        }
        Handler::Grpc { port, .. } => format!(
            "timeout: failed to connect service \"{}\" within {timeout}: context deadline exceeded",
            authority(&own(), *port)
        ),
        Handler::Exec(command) => format!("command {command:?} timed out: it was ended after {timeout}"),
        Handler::Sleep(_) => "it did not sleep long enough".to_owned(),
    }
}

/// Does what a hook says. Of a request, any answer will do; of a command, the exit code 0.
///
/// # Errors
/// Why it could not be done.
pub async fn hook(handler: &Handler, means: &Means<'_>) -> Result<(), String> {
    let outcome = match handler {
        Handler::Get(get) => {
            let own = means.own.clone().ok_or("the pod's address is not known")?;
            return request(&Target::of(get, &own), get, LIFECYCLE).await.map(drop);
        }
        handler => perform(handler, means, LIFECYCLE).await?,
    };
    match outcome {
        Outcome::Success | Outcome::Warning(_) => Ok(()),
        Outcome::Failure(text) => Err(text),
    }
}

async fn perform(handler: &Handler, means: &Means<'_>, agent: &str) -> Result<Outcome, String> {
    let own = || means.own.clone().ok_or_else(|| "the pod's address is not known".to_owned());
    Ok(match handler {
        Handler::Sleep(time) => {
            means.clock.until(means.clock.now().mono.saturating_add(*time)).await;
            Outcome::Success
        }
        Handler::Get(get) => by_http(get, &own()?, agent).await,
        Handler::Connect { host, port } => {
            let host = match host {
                Some(host) => host.clone(),
                None => own()?,
            };
            match outgoing::connect(&host, *port).await {
                Ok(_) => Outcome::Success,
                Err(error) => Outcome::Failure(dial(&host, *port, &error)),
            }
        }
        Handler::Grpc { port, service, secure } => {
            let host = own()?;
            match Box::pin(by_grpc(&host, *port, service, *secure)).await {
                Ok(outcome) => outcome,
                Err(text) => Outcome::Failure(text),
            }
        }
        Handler::Exec(command) => {
            let (exit, said) = exec(means.run, command).await?;
            match exit {
                Exit::Code(0) => Outcome::Success,
                Exit::Code(code) if said.is_empty() => Outcome::Failure(format!("exit code {code}")),
                Exit::Code(_) => Outcome::Failure(said),
                Exit::Trap(text) | Exit::Panic(text) => Outcome::Failure(format!("{said}{text}")),
                Exit::OutOfMemory => Outcome::Failure(format!("{said}it ran out of memory")),
                Exit::Killed => Outcome::Failure(format!("{said}it was ended")),
            }
        }
    })
}

/// Where a request goes.
struct Target {
    secure: bool,
    host: String,
    port: u16,
    path: String,
}

impl Target {
    fn of(get: &Get, own: &str) -> Target {
        Target {
            secure: get.secure,
            host: get.host.clone().unwrap_or_else(|| own.to_owned()),
            port: get.port,
            path: get.path.clone(),
        }
    }

    fn scheme(&self) -> &'static str {
        if self.secure {
            "https"
        } else {
            "http"
        }
    }

    fn url(&self) -> String {
        format!("{}://{}{}", self.scheme(), authority(&self.host, self.port), self.path)
    }

    /// Where a redirect leads: elsewhere on the same host, or to another host (none).
    fn follow(&self, location: &str) -> Option<Target> {
        let uri: Uri = location.parse().ok()?;
        let host = uri.host().map(|host| host.trim_matches(['[', ']']));
        if host.is_some_and(|host| host != self.host) {
            return None;
        }
        let secure = uri.scheme_str().map_or(self.secure, |scheme| scheme == "https");
        let port = match (uri.port_u16(), host) {
            (Some(port), _) => port,
            (None, Some(_)) if secure => 443,
            (None, Some(_)) => 80,
            (None, None) => self.port,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{folder}/{path}")
        };
        Some(Target { secure, host: self.host.clone(), port, path })
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn dial(host: &str, port: u16, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {}: {why}", authority(host, port))
}

async fn by_http(get: &Get, own: &str, agent: &str) -> Outcome {
    let mut target = Target::of(get, own);
    for _ in 0..MAX_REDIRECTS {
        let answer = match Box::pin(request(&target, get, agent)).await {
            Ok(answer) => answer,
            Err(text) => return Outcome::Failure(format!("Get \"{}\": {text}", target.url())),
        };
        match (answer.status, answer.location) {
            (301 | 302 | 303 | 307 | 308, Some(location)) => match target.follow(&location) {
                Some(next) => target = next,
                None => {
                    return Outcome::Warning(format!(
                        "Probe terminated redirects, Response body: {}",
                        answer.body
                    ))
                }
            },
            (200..=299, _) => return Outcome::Success,
            (300..=399, _) => {
                return Outcome::Warning(format!(
                    "Probe terminated redirects, Response body: {}",
                    answer.body
                ))
            }
            (status, _) => return Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
        }
    }
    Outcome::Failure(format!("Get \"{}\": stopped after {MAX_REDIRECTS} redirects", target.url()))
}

struct Answer {
    status: u16,
    location: Option<String>,
    body: String,
}

async fn request(target: &Target, get: &Get, agent: &str) -> Result<Answer, String> {
    let tcp = outgoing::connect(&target.host, target.port).await;
    let tcp = tcp.map_err(|error| dial(&target.host, target.port, &error))?;
    let stream = if target.secure {
        let stream = outgoing::unverified(tcp, &target.host, &[b"http/1.1"]).await;
        stream.map_err(|error| format!("TLS: {error}"))?
    } else {
        Stream::new(tcp)
    };
    let said = |error: hyper::Error| error_chain(&error);
    let mut sender = outgoing::http1(stream).await.map_err(said)?;
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.method_mut() = Method::GET;
    *request.uri_mut() =
        target.path.parse().map_err(|error| format!("the path {:?}: {error}", target.path))?;
    *request.headers_mut() = headers(target, get, agent);
    let response = sender.send_request(request).await.map_err(said)?;
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let (status, location) = (response.status().as_u16(), location.map(str::to_owned));
    let (body, _) = read(response.into_body()).await.map_err(said)?;
    Ok(Answer { status, location, body: String::from_utf8_lossy(&body).into_owned() })
}

fn headers(target: &Target, get: &Get, agent: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &get.headers {
        // What is none has refused the pod.
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    let defaults = [
        (header::HOST, authority(&target.host, target.port)),
        (header::USER_AGENT, agent.to_owned()),
        (header::ACCEPT, "*/*".to_owned()),
        (header::CONNECTION, "close".to_owned()),
    ];
    for (name, value) in defaults {
        if let (false, Ok(value)) = (headers.contains_key(&name), HeaderValue::from_str(&value)) {
            headers.insert(name, value);
        }
    }
    headers
}

/// The beginning of a body, and its trailers.
async fn read(mut body: Incoming) -> hyper::Result<(Vec<u8>, HeaderMap)> {
    let (mut bytes, mut trailers) = (Vec::new(), HeaderMap::new());
    while bytes.len() < MAX_OUTPUT {
        match body.frame().await.transpose()? {
            None => break,
            Some(frame) => match frame.into_data() {
                Ok(data) => {
                    let room = MAX_OUTPUT.saturating_sub(bytes.len()).min(data.len());
                    bytes.extend_from_slice(data.get(..room).unwrap_or_default());
                }
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            },
        }
    }
    Ok((bytes, trailers))
}

/// `grpc.health.v1.Health/Check` (the GRPC Health Checking Protocol).
async fn by_grpc(host: &str, port: u16, service: &str, secure: bool) -> Result<Outcome, String> {
    let place = authority(host, port);
    let unreached = |text: String| format!("error: failed to connect service at \"{place}\": {text}");
    let tcp = outgoing::connect(host, port).await.map_err(|error| unreached(dial(host, port, &error)))?;
    let stream = if secure {
        let stream = outgoing::unverified(tcp, host, &[b"h2"]).await;
        stream.map_err(|error| unreached(format!("TLS: {error}")))?
    } else {
        Stream::new(tcp)
    };
    let broken = |error: hyper::Error| format!("error: health rpc probe failed: {}", error_chain(&error));
    let mut sender = outgoing::http2(stream, None).await.map_err(broken)?;
    let scheme = if secure { "https" } else { "http" };
    let uri = format!("{scheme}://{place}/grpc.health.v1.Health/Check");
    let mut request = Request::new(Full::new(Bytes::from(check_request(service))));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.parse().map_err(|error| unreached(format!("{error}")))?;
    for (name, value) in
        [(header::CONTENT_TYPE, "application/grpc"), (header::USER_AGENT, PROBE), (header::TE, "trailers")]
    {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let response = sender.send_request(request).await.map_err(broken)?;
    let (head, body) = response.into_parts();
    let (message, trailers) = read(body).await.map_err(broken)?;
    let field = |name: &str| {
        let value = trailers.get(name).or_else(|| head.headers.get(name));
        value.and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let why = field("grpc-message").unwrap_or_default();
    match field("grpc-status").as_deref() {
        Some("0") => {}
        Some("12") => {
            return Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {why}"
        ))
        }
        Some(code) => {
            return Err(format!("error: health rpc probe failed: rpc error: code = {code} desc = {why}"))
        }
        None => return Err(format!("error: health rpc probe failed: HTTP status {}", head.status)),
    }
    Ok(match check_response(&message) {
        Some(1) => Outcome::Success,
        status => {
            let name = match status {
                Some(2) => "NOT_SERVING",
                Some(3) => "SERVICE_UNKNOWN",
                _ => "UNKNOWN",
            };
            Outcome::Failure(format!("service unhealthy (responded with \"{name}\")"))
        }
    })
}

/// A length-prefixed `HealthCheckRequest`: its field 1 is the service.
fn check_request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).unwrap_or(0));
        message.extend_from_slice(service.as_bytes());
    }
    let mut bytes = vec![0];
    bytes.extend_from_slice(&u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    bytes.extend_from_slice(&message);
    bytes
}

/// The status of a length-prefixed `HealthCheckResponse`: its field 1; 0 where it is left out.
fn check_response(bytes: &[u8]) -> Option<u8> {
    match bytes.get(5..)? {
        [] => Some(0),
        [0x08, status, ..] => Some(*status),
        _ => None,
    }
}

/// What a command prints, as far as it is kept.
#[derive(Default)]
struct Said(Mutex<Vec<u8>>);

impl Output for Said {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut said = lock(&self.0);
        let room = MAX_OUTPUT.saturating_sub(said.len()).min(bytes.len());
        said.extend_from_slice(bytes.get(..room).unwrap_or_default());
        Ok(())
    }
}

/// Runs a second instance of the container's module to its end; how it ended, and what it printed.
async fn exec(run: &dyn Running, command: &[String]) -> Result<(Exit, String), String> {
    let said = Arc::new(Said::default());
    let instance = Ending(run.exec(command.to_vec(), Stdio::into_one(said.clone()))?);
    let exit = instance.0.wait().await;
    let text = String::from_utf8_lossy(&lock(&said.0)).into_owned();
    Ok((exit, text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
#[path = "handlers_tests.rs"]
mod tests;
