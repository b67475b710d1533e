//! The request that ends HTTP on its connection: what the client can speak, and the answer.

use futures_util::future::BoxFuture;
use http::header::{HeaderName, HeaderValue, CONNECTION, UPGRADE};
use http::{HeaderMap, Response, StatusCode};
use smol_hyper::rt::FuturesIo;

use super::link::{halves, Plain, Sink};
use super::websocket;
use crate::server::answer::{self, Body};
use crate::server::connection::Asking;
use crate::server::Connection;

const SPDY: &str = "SPDY/3.1";
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const SOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const SOCKET_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");
const SOCKET_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const SOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// What the connection is to become.
pub(in crate::server) type Session = Box<dyn FnOnce(Plain, Sink) -> BoxFuture<'static, ()> + Send>;

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::server) enum Asked {
    /// SPDY, and the versions of its streams' protocol, the best first.
    Spdy(Vec<String>),
    /// A WebSocket, and its protocols, the best first.
    WebSocket {
        /// `Sec-WebSocket-Key`
        key: String,
        /// `Sec-WebSocket-Protocol`
        protocols: Vec<String>,
    },
}

impl Asked {
    /// Reads the headers of a request.
    ///
    /// # Errors
    /// What is wrong with one that asks for neither.
    pub fn of(headers: &HeaderMap) -> Result<Asked, &'static str> {
        let upgrades = list(headers, &UPGRADE);
        let asks = list(headers, &CONNECTION).iter().any(|token| token.eq_ignore_ascii_case("upgrade"));
        let wants = |name: &str| asks && upgrades.iter().any(|token| token.eq_ignore_ascii_case(name));
        if wants("websocket") {
            let key = headers.get(SOCKET_KEY).and_then(|key| key.to_str().ok());
            let version = headers.get(SOCKET_VERSION).is_some_and(|version| version == "13");
            let Some(key) = key.filter(|_| version) else {
                return Err("the WebSocket has no key, or another version than 13");
            };
            return Ok(Asked::WebSocket { key: key.to_owned(), protocols: list(headers, &SOCKET_PROTOCOL) });
        }
        if wants(SPDY) {
            return Ok(Asked::Spdy(list(headers, &STREAM_PROTOCOL)));
        }
        Err("Upgrade request required: SPDY/3.1 or websocket")
    }
}

/// The values of a header, on whichever lines, split at commas.
fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let values = values.flat_map(|value| value.split(',')).map(str::trim);
    values.filter(|value| !value.is_empty()).map(str::to_owned).collect()
}

/// Agrees on one of the protocols that `known` has a session for, and makes the connection that once this answer is
/// sent. `known` is asked for the name of none ("") where a WebSocket's client names none.
pub(in crate::server) fn upgrade(
    asking: &mut Asking<'_>,
    asked: &Asked,
    known: impl Fn(&str) -> Option<Session>,
    names: &'static str,
) -> Response<Body> {
    let named = |protocols: &[String]| {
        protocols.iter().find_map(|protocol| Some((protocol.clone(), known(protocol)?)))
    };
    let mut response = answer::text(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let mut say = |name: HeaderName, value: &str| {
        // What came as a header is one.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    let session = match asked {
        Asked::Spdy(versions) => {
            let Some((version, session)) = named(versions) else {
                let status =
                    if versions.is_empty() { StatusCode::BAD_REQUEST } else { StatusCode::FORBIDDEN };
                let text = format!("the versions asked for are {versions:?}; there are {names}");
                let mut refusal = answer::text(status, text);
                refusal.headers_mut().insert(ACCEPTED_PROTOCOLS, HeaderValue::from_static(names));
                return refusal;
            };
            say(UPGRADE, SPDY);
            say(STREAM_PROTOCOL, &version);
            session
        }
        Asked::WebSocket { key, protocols } => {
            let agreed = if protocols.is_empty() {
                known("").map(|session| (String::new(), session))
            } else {
                named(protocols)
            };
            let Some((protocol, session)) = agreed else {
                let text = format!("of the protocols {protocols:?} none is spoken here; there are {names}");
                return answer::text(StatusCode::FORBIDDEN, text);
            };
            say(UPGRADE, "websocket");
            say(SOCKET_ACCEPT, &websocket::accept(key));
            if !protocol.is_empty() {
                say(SOCKET_PROTOCOL, &protocol);
            }
            session
        }
    };
    let upgrading = hyper::upgrade::on(&mut *asking.request);
    asking.then(Box::pin(async move {
        let Ok(upgraded) = upgrading.await else { return };
        let Ok(parts) = upgraded.downcast::<FuturesIo<Connection>>() else { return };
        let (source, sink) = halves(parts.io.into_inner(), parts.read_buf);
        session(source, sink).await;
    }));
    response
}
