//! One connection: the handshake, then HTTP/1.1 requests, each within its limits.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_io::Timer;
use futures_lite::future;
use futures_rustls::server::TlsStream;
use futures_rustls::TlsAcceptor;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use rustls::pki_types::CertificateDer;

use super::answer::{self, Body};
use super::authz::Refused;
use super::http1::{self, Handler};
use super::strangers::Stranger;
use super::{request, routes, Connection, Server};

/// How long a TLS handshake may take: Go's net/http default for a client's side.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may exist before its first request has been authenticated. A stranger who
/// sends a byte a minute is gone then.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes that TLS holds back for a slow reader.
const MAX_TLS_BUFFER: usize = 16 * 1024;

/// A request, and what its connection becomes after it.
pub(super) struct Asking<'r> {
    /// The request.
    pub request: &'r mut Request<Incoming>,
    after: &'r After,
}

/// What a connection is once it is no longer HTTP.
type After = Mutex<Option<BoxFuture<'static, ()>>>;

impl Asking<'_> {
    /// The connection's task goes on with this once HTTP is over.
    pub fn then(&self, session: BoxFuture<'static, ()>) {
        *self.after.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
    }
}

/// Serves one connection to its end.
pub(super) async fn handle(server: Arc<Server>, connection: Connection, stranger: Stranger) {
    let left = stranger.left();
    future::or(serve(server, connection, stranger.known.clone()), async {
        left.await;
        log::debug!("a client of the kubelet API that did not say who it is had to make room for another");
    })
    .await;
}

async fn serve(server: Arc<Server>, connection: Connection, known: Arc<AtomicBool>) {
    let acceptor = TlsAcceptor::from(server.context.tls.config());
    let handshake = acceptor.accept_with(connection, |tls| tls.set_buffer_limit(Some(MAX_TLS_BUFFER)));
    let late = async {
        Timer::after(HANDSHAKE_TIMEOUT).await;
        Err(std::io::ErrorKind::TimedOut.into())
    };
    match future::or(handshake, late).await {
        Ok(stream) => requests(server, stream, known).await,
        Err(error) => log::debug!("a TLS handshake with a client of the kubelet API failed: {error}"),
    }
}

async fn requests(server: Arc<Server>, stream: TlsStream<Connection>, known: Arc<AtomicBool>) {
    let (_, tls) = stream.get_ref();
    let chain: Arc<[CertificateDer<'static>]> = tls.peer_certificates().unwrap_or_default().into();
    let stranger = {
        let known = known.clone();
        async move {
            Timer::after(STRANGER_TIMEOUT).await;
            if known.load(Ordering::Relaxed) {
                future::pending::<()>().await;
            }
            Ok(())
        }
    };
    let after: Arc<After> = Arc::default();
    let becomes = after.clone();
    let handler: Handler = Arc::new(move |mut request| {
        let (server, chain, known) = (server.clone(), chain.clone(), known.clone());
        let after = becomes.clone();
        Box::pin(async move {
            let mut asking = Asking { request: &mut request, after: &after };
            server.answer(&mut asking, &chain, &known).await
        })
    });
    if let Err(error) = future::or(http1::serve(Box::new(stream), handler), stranger).await {
        log::debug!("a connection to the kubelet API broke: {error}");
    }
    let session = after.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(session) = session {
        session.await;
    }
}

impl Server {
    async fn answer(
        &self,
        asking: &mut Asking<'_>,
        chain: &[CertificateDer<'_>],
        known: &AtomicBool,
    ) -> Response<Body> {
        let Some(path) = request::path(asking.request.uri().path()).map(Cow::into_owned) else {
            return answer::text(StatusCode::BAD_REQUEST, "400: the path is not percent-encoded UTF-8");
        };
        let Some(user) = self.authenticator.authenticate(chain, asking.request.headers()).await else {
            return answer::unauthorized();
        };
        known.store(true, Ordering::Relaxed);
        match self.authorizer.authorize(&user, asking.request.method(), &path).await {
            Ok(()) => routes::answer(self, asking, &path).await,
            Err(Refused::Forbidden(text)) => answer::text(StatusCode::FORBIDDEN, text),
            Err(Refused::Unknown(text)) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, text),
        }
    }
}
