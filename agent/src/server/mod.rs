//! The kubelet API: what the API server asks a node for, on behalf of `kubectl logs` and others.
//!
//! A connection is any byte stream ([`Connection`]), so that a tunnel can bring one as well as a port
//! ([`listen`]). On it comes TLS ([`tls`]), then HTTP/1.1, and each request is answered in this order:
//!
//! 1. who asks ([`authn`]): a client certificate or a bearer token, or 401;
//! 2. whether they may ([`authz`]): the API server decides ([`Reviewer`]), or 403;
//! 3. the answer ([`routes`]), one file a route; 404 for what there is not. exec, attach and port-forward end HTTP on
//!    their connection, and go on as [`streams`].
//!
//! What the routes tell comes from [`PodsView`] and from the logs. Nobody gets past 1 and 2: a failure
//! there is a refusal. Every connection, buffer, cache and wait has its limit where it is used.

pub mod answer;
mod authn;
mod authz;
mod cache;
mod connection;
pub mod http1;
pub mod listen;
pub mod request;
mod review;
pub mod routes;
pub mod self_signed;
mod strangers;
mod streams;
mod tls;
mod view;

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_io::Timer;
use async_lock::Semaphore;
use futures_lite::{future, AsyncRead, AsyncWrite, Stream, StreamExt};
use futures_util::stream::FuturesUnordered;

use crate::control;
use crate::log::Logs;
use crate::metrics::Rates;

pub use review::{Attributes, ReviewError, Reviewer, User};
pub use tls::{Tls, TlsError};
pub use view::{LogRefusal, LogTarget, NotThere, PodName, PodsView, Session, Start};

/// Connections at one time. An API server pools its own; followers of logs hold one each.
const MAX_CONNECTIONS: usize = 128;
/// The wait after a connection could not be accepted (no file descriptor left), before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A stream of bytes to a client, TLS not yet begun.
pub type Connection = Box<dyn ByteStream>;

/// Connections as they come.
pub type Connections = Pin<Box<dyn Stream<Item = io::Result<Connection>> + Send>>;

/// What a connection can be made of.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// What the server needs of the rest of the agent.
pub struct ServerContext {
    /// The node's name, which authorization is asked for.
    pub node_name: String,
    /// The certificates, served and trusted; both can be changed while the server runs.
    pub tls: Tls,
    /// Who asks the API server about tokens and rights.
    pub reviewer: Arc<dyn Reviewer>,
    /// The pods as the node knows them.
    pub pods: Arc<dyn PodsView>,
    /// The containers' logs.
    pub logs: Logs,
    /// The folder of the machine's own logs; none: nobody gets them.
    pub system_logs: Option<PathBuf>,
    /// The answer of `/configz`: `{"kubeletconfig":{…}}`.
    pub configz: serde_json::Value,
}

struct Server {
    context: ServerContext,
    authenticator: authn::Authenticator,
    authorizer: authz::Authorizer,
    log_streams: Arc<Semaphore>,
    sessions: Arc<Semaphore>,
    rates: Rates,
}

/// Serves each connection that comes until there are no more, on the control thread's executor.
/// Dropping the future ends every connection.
pub async fn serve(connections: Connections, context: ServerContext) {
    let server = Arc::new(Server {
        authenticator: authn::Authenticator::new(context.tls.client_ca(), context.reviewer.clone()),
        authorizer: authz::Authorizer::new(context.node_name.clone(), context.reviewer.clone()),
        log_streams: Arc::new(Semaphore::new(routes::MAX_LOG_STREAMS)),
        sessions: Arc::new(Semaphore::new(streams::MAX_SESSIONS)),
        rates: Rates::default(),
        context,
    });
    let mut strangers = strangers::Strangers::default();
    let handle =
        move |connection| control::spawn(connection::handle(server.clone(), connection, strangers.admit()));
    each(connections, MAX_CONNECTIONS, "the kubelet API", Box::new(handle)).await;
}

/// Gives each connection to `handle`, which serves it; at most so many at a time.
pub async fn each(
    mut connections: Connections,
    most: usize,
    what: &str,
    mut handle: Box<dyn FnMut(Connection) -> control::Task<()> + Send>,
) {
    let mut tasks = FuturesUnordered::new();
    let mut failing = false;
    loop {
        while tasks.len() >= most {
            tasks.next().await;
        }
        let ended = async {
            while tasks.next().await.is_some() {}
            future::pending().await
        };
        match future::or(connections.next(), ended).await {
            Some(Ok(connection)) => {
                failing = false;
                tasks.push(handle(connection));
            }
            Some(Err(error)) => {
                if !std::mem::replace(&mut failing, true) {
                    log::warn!("{what} cannot accept a connection: {error}; it goes on trying");
                }
                Timer::after(ACCEPT_PAUSE).await;
            }
            None => break,
        }
    }
    while tasks.next().await.is_some() {}
}

#[cfg(test)]
mod tests;
