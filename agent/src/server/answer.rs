//! Responses.

use std::io;

use bytes::Bytes;
use futures_lite::{Stream, StreamExt};
use http::header::{HeaderValue, ALLOW, CONNECTION, CONTENT_TYPE, LOCATION};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde::Serialize;

/// What is sent of any answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Plain text.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    typed(status, PLAIN, text)
}

/// Text of another kind than plain.
pub fn typed(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(text.into()).map_err(|never| match never {});
    with(status, HeaderValue::from_static(kind), body.boxed_unsync())
}

/// JSON.
pub fn json(value: &impl Serialize) -> Response<Body> {
    let Ok(json) = serde_json::to_vec(value) else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "500: the answer cannot be written as JSON");
    };
    let body = Full::new(Bytes::from(json)).map_err(|never| match never {});
    with(StatusCode::OK, JSON, body.boxed_unsync())
}

/// Text whose length is not known: chunked, each piece sent as it comes.
pub fn stream(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Response<Body> {
    let frames = pieces.map(|piece| piece.map(http_body::Frame::data));
    with(StatusCode::OK, HeaderValue::from_static(PLAIN), StreamBody::new(frames).boxed_unsync())
}

/// 401, and the end of the connection: a stranger does not keep one.
pub fn unauthorized() -> Response<Body> {
    let mut response = text(StatusCode::UNAUTHORIZED, "Unauthorized");
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// 301, to a place relative to this one.
pub fn moved(to: &str) -> Response<Body> {
    let mut response = text(StatusCode::MOVED_PERMANENTLY, "");
    match HeaderValue::try_from(to) {
        Ok(to) => drop(response.headers_mut().insert(LOCATION, to)),
        Err(_) => return not_found(),
    }
    response
}

/// 404.
pub fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404: Page Not Found")
}

/// 405, and what is allowed.
pub fn method_not_allowed(allowed: &'static str) -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn with(status: StatusCode, kind: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
