//! The console: how the node is, for the person in front of it and for programs on it. Read-only, in plain HTTP.
//!
//! It is always there as a socket in the data folder, for those who may read that ([`client`], which the commands
//! `copepod status`, `pods` and `logs` are); and on a port of loopback where `--console` asks for it, for whoever holds
//! the token. [`status`] is what it tells, [`page`] the same for a browser.

pub mod client;
mod page;
mod status;
pub mod token;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use async_io::Async;
use async_lock::Semaphore;
use futures_lite::stream;
use http::header::{
    HeaderName, HeaderValue, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, HOST, LOCATION,
    REFERRER_POLICY, SET_COOKIE,
};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use self::status::Status;
use self::token::Token;
use crate::cluster::contact::{Contact, Standing};
use crate::control::{self, Task};
use crate::log::Logs;
use crate::server::answer::{self, Body};
use crate::server::http1::{serve, Handler};
use crate::server::request::{self, Query};
use crate::server::routes::{self, container_logs};
use crate::server::{each, listen, Connection, Connections, PodsView};

/// The port that `--console` means without one: where a kubelet answers `/healthz`.
pub const PORT: u16 = 10248;
/// Connections at one time, of the socket and of the port each.
const MAX_CONNECTIONS: usize = 16;
/// Logs being read at one time.
const MAX_LOG_STREAMS: usize = 8;
/// Where the token is kept by a browser.
const COOKIE_NAME: &str = "copepod-console";

/// What the console tells of.
pub struct Context {
    /// Node and pods.
    pub pods: Arc<dyn PodsView>,
    /// The containers' logs.
    pub logs: Logs,
    /// How the node stands to its cluster.
    pub contact: Arc<Contact>,
}

struct Console {
    context: Context,
    log_streams: Arc<Semaphore>,
}

/// Who is at the other end.
#[derive(Clone)]
enum Visitor {
    /// Whoever may open the socket.
    Own,
    /// Whoever is on this machine, or comes through a tunnel to it: asked for this token.
    Anybody(Arc<Token>),
}

/// Serves the socket in `data_dir`, and the port if there is one. What cannot be opened is said, and left: a node
/// runs without.
#[must_use]
pub fn start(data_dir: &Path, port: Option<u16>, context: Context) -> Vec<Task<()>> {
    let console = Arc::new(Console { context, log_streams: Arc::new(Semaphore::new(MAX_LOG_STREAMS)) });
    let mut tasks = Vec::new();
    match client::bind(data_dir) {
        Ok(listener) => tasks.push(spawn(console.clone(), socket_connections(listener), Visitor::Own)),
        Err(error) => log::warn!("copepod status, pods and logs do not work: {error}"),
    }
    let opened = port.map(|port| {
        let token = Token::of(data_dir)?;
        let listener = listen::bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))?;
        Ok::<_, io::Error>((token, listener))
    });
    match opened {
        None => {}
        Some(Ok((token, listener))) => {
            let visitor = Visitor::Anybody(Arc::new(token));
            tasks.push(spawn(console, listen::connections(listener), visitor));
            log::info!("the console is there; copepod console prints its address");
        }
        Some(Err(error)) => log::error!("the console is not there: {error}; see --console"),
    }
    tasks
}

fn socket_connections(listener: Async<UnixListener>) -> Connections {
    Box::pin(stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| Box::new(stream) as Connection);
        Some((accepted, listener))
    }))
}

fn spawn(console: Arc<Console>, connections: Connections, visitor: Visitor) -> Task<()> {
    let handler: Handler = Arc::new(move |request| {
        let (console, visitor) = (console.clone(), visitor.clone());
        Box::pin(async move { console.answer(&request, &visitor).await })
    });
    control::spawn(async move {
        let serve = move |connection| {
            let handler = handler.clone();
            control::spawn(async move {
                if let Err(error) = serve(connection, handler).await {
                    log::debug!("a connection to the console broke: {error}");
                }
            })
        };
        each(connections, MAX_CONNECTIONS, "the console", Box::new(serve)).await;
    })
}

impl Console {
    async fn answer(&self, request: &Request<Incoming>, visitor: &Visitor) -> Response<Body> {
        let query = request.uri().query().unwrap_or_default();
        let (Some(path), Some(asked)) = (request::path(request.uri().path()), Query::parse(query)) else {
            return answer::text(StatusCode::BAD_REQUEST, "400: it is not percent-encoded UTF-8");
        };
        if request.method() != Method::GET {
            return answer::method_not_allowed("GET");
        }
        if let Visitor::Anybody(token) = visitor {
            // A page of somewhere else, whose name leads here, is none of ours.
            if !request.headers().get(HOST).and_then(|host| host.to_str().ok()).is_some_and(is_local) {
                return answer::text(StatusCode::FORBIDDEN, "403: the console is asked as localhost only");
            }
            match path.as_ref() {
                "/healthz" | "/readyz" => {}
                // The token goes from the address into a cookie, and is not seen again.
                "/" if asked.get("token").is_some_and(|given| token.is(given)) => {
                    return welcome(asked.get("token").unwrap_or_default());
                }
                _ if shows(request, token) => {}
                _ => {
                    let text = "401: this console needs its token: copepod console, on the device, prints its address";
                    return answer::text(StatusCode::UNAUTHORIZED, text);
                }
            }
        }
        let pods = self.context.pods.as_ref();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let as_text = asked.get("format") == Some("text");
        match segments.as_slice() {
            [""] => self.page().await,
            ["healthz"] => answer::text(StatusCode::OK, "ok"),
            ["readyz"] => self.ready(),
            ["metrics"] => answer::typed(
                StatusCode::OK,
                crate::metrics::CONTENT_TYPE,
                crate::metrics::agent(&pods.figures()),
            ),
            ["status"] if as_text => answer::text(StatusCode::OK, self.status().text()),
            ["status"] => answer::json(&self.status().json()),
            // A pod's spec may hold what is nobody's to see but its owner's.
            ["pods"] if matches!(visitor, Visitor::Anybody(_)) => answer::not_found(),
            ["pods"] if as_text => answer::text(StatusCode::OK, self.status().pods()),
            ["pods"] => routes::pods::get(pods),
            ["logs", namespace, pod, container] => {
                let logs = &self.context.logs;
                let sources = container_logs::Sources { pods, logs, turns: &self.log_streams };
                container_logs::get(sources, namespace, pod, container, query).await
            }
            _ => answer::not_found(),
        }
    }

    fn status(&self) -> Status {
        let (standing, since) = self.context.contact.get();
        let pods = self.context.pods.as_ref();
        Status { figures: pods.figures(), standing, since, pods: pods.pods() }
    }

    /// In a cluster, or meant to be in none.
    fn ready(&self) -> Response<Body> {
        match self.context.contact.get().0 {
            Standing::Connected | Standing::Alone => answer::text(StatusCode::OK, "ok"),
            Standing::Joining => {
                answer::text(StatusCode::SERVICE_UNAVAILABLE, "it has not joined its cluster yet")
            }
            Standing::Away(_) => answer::text(StatusCode::SERVICE_UNAVAILABLE, "its cluster does not answer"),
        }
    }

    async fn page(&self) -> Response<Body> {
        let html = page::render(&self.status(), self.context.pods.as_ref(), &self.context.logs).await;
        let mut response = answer::typed(StatusCode::OK, "text/html; charset=utf-8", html);
        let headers: [(HeaderName, &str); 3] = [
            (
                CONTENT_SECURITY_POLICY,
                "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
            ),
            (CACHE_CONTROL, "no-store"),
            (REFERRER_POLICY, "no-referrer"),
        ];
        for (name, value) in headers {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Does a Host header name this machine's loopback, at whatever port a tunnel has?
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

/// Does a request show the token: `Authorization: Bearer`, or the cookie?
fn shows(request: &Request<Incoming>, token: &Token) -> bool {
    let text = |name| request.headers().get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    let bearer = text(AUTHORIZATION).filter_map(|value| value.strip_prefix("Bearer "));
    let cookies = text(COOKIE).flat_map(|cookies| cookies.split(';'));
    let cookies = cookies.filter_map(|cookie| cookie.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('='));
    bearer.chain(cookies).any(|given| token.is(given))
}

fn welcome(token: &str) -> Response<Body> {
    let mut response = answer::text(StatusCode::SEE_OTHER, "");
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
    let cookie = format!("{COOKIE_NAME}={token}; HttpOnly; SameSite=Strict; Path=/");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests;
