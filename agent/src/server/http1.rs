//! HTTP/1.1 over any connection, each request within its limits. The kubelet API and the console are both served by
//! this: its code is there once.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use smol_hyper::rt::{FuturesIo, SmolTimer};

use super::answer::Body;
use super::Connection;

/// How long a connection may wait for the next request, and that request's header take: the kubelet's
/// IdleTimeout, which is that of Go's client as well.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Bytes of a request's line and headers. The command of an exec is in its line.
const MAX_HEADER: usize = 32 * 1024;
/// Headers of a request.
const MAX_HEADERS: usize = 64;
/// Bytes that a connection buffers on each side of HTTP.
const MAX_BUFFER: usize = 32 * 1024;

/// What answers requests.
pub type Handler = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

struct Handled(Handler);

impl Service<Request<Incoming>> for Handled {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let answer = (self.0)(request);
        Box::pin(async move { Ok(answer.await) })
    }
}

/// Serves requests until the client, or one of them, ends it.
///
/// # Errors
/// When the client breaks the protocol, or a limit.
pub async fn serve(connection: Connection, handler: Handler) -> hyper::Result<()> {
    http1::Builder::new()
        .timer(SmolTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_header_size(MAX_HEADER)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(FuturesIo::new(connection), Handled(handler))
        .with_upgrades()
        .await
}
