//! One connection to the API server: name, TCP, TLS, HTTP/2 (or HTTP/1.1 where ALPN offers no other).

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use async_io::Async;
use bytes::Bytes;
use futures_rustls::TlsConnector;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use rustls::pki_types::ServerName;
use rustls::ClientConfig;

use super::error::ApiError;
use crate::outgoing::{self, within, Stream};

/// One address gets this long to accept; a name may have several.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// TLS gets this long; a Pi Zero needs a fifth of a second.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that was silent this long is pinged (client-go's `ReadIdleTimeout`)…
const PING_AFTER: Duration = Duration::from_secs(30);
/// …and given up when no answer comes in this time (client-go's `PingTimeout`).
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// TCP's own probes, for HTTP/1.1, which has no pings: after a silence of this length, at this interval,
/// so often.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(5), 3);

/// Where the API server is and how it proves itself.
#[derive(Clone, Debug)]
pub struct Server {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path before `/api` (behind a proxy such as Rancher's), without a slash at its end.
    pub base: String,
    /// The name that the certificate must carry.
    pub tls_name: ServerName<'static>,
}

impl Server {
    /// `host:port`, as requests name it.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn unreachable(&self, problem: String) -> ApiError {
        ApiError::Unreachable { server: self.authority(), problem }
    }

    /// The addresses of the server.
    ///
    /// # Errors
    /// [`ApiError::Unreachable`]
    pub async fn addresses(&self) -> Result<Vec<SocketAddr>, ApiError> {
        let found = outgoing::addresses(&self.host, self.port)
            .await
            .map_err(|error| self.unreachable(format!("looking up the name: {error}")))?;
        if found.is_empty() {
            return Err(self.unreachable("the name has no address".into()));
        }
        Ok(found)
    }
}

/// The sending side of a connection.
#[derive(Debug)]
pub enum Sender {
    /// HTTP/2: carries any number of requests at a time.
    Many(http2::SendRequest<Full<Bytes>>),
    /// HTTP/1.1: carries one.
    One(http1::SendRequest<Full<Bytes>>),
}

/// Opens a connection; also tells this machine's address on it.
///
/// # Errors
/// [`ApiError::Unreachable`], saying which step failed.
pub async fn connect(server: &Server, tls: Arc<ClientConfig>) -> Result<(Sender, Option<IpAddr>), ApiError> {
    let stream = open_stream(server).await?;
    let own = stream.get_ref().local_addr().ok().map(|address| address.ip());
    let handshake = TlsConnector::from(tls).connect(server.tls_name.clone(), stream);
    let stream = within(HANDSHAKE_TIMEOUT, handshake)
        .await
        .and_then(|done| done)
        .map_err(|error| server.unreachable(explain_tls(&error)))?;
    let speaks_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = Stream::new(stream);
    let broken = |error: hyper::Error| server.unreachable(format!("starting HTTP: {error}"));
    if speaks_http2 {
        let sender = outgoing::http2(stream, Some((PING_AFTER, PING_TIMEOUT))).await;
        Ok((Sender::Many(sender.map_err(broken)?), own))
    } else {
        Ok((Sender::One(outgoing::http1(stream).await.map_err(broken)?), own))
    }
}

async fn open_stream(server: &Server) -> Result<Async<TcpStream>, ApiError> {
    let mut problem = String::new();
    for address in server.addresses().await? {
        match within(CONNECT_TIMEOUT, Async::<TcpStream>::connect(address)).await.and_then(|done| done) {
            Ok(stream) => {
                if let Err(error) = tune(stream.get_ref()) {
                    log::debug!("the connection goes on without its socket options: {error}");
                }
                return Ok(stream);
            }
            Err(error) => problem = format!("connecting to {address}: {error}"),
        }
    }
    Err(server.unreachable(problem))
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE.0)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE.1)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE.2)?;
    Ok(())
}

fn explain_tls(error: &io::Error) -> String {
    let text = error.to_string();
    let advice = if text.contains("UnknownIssuer") {
        "; its certificate is not signed by the authority in the kubeconfig"
    } else if text.contains("NotValidForName") {
        "; its certificate names other hosts than the one in the kubeconfig (see tls-server-name)"
    } else if text.contains("NotValidYet") || text.contains("Expired") {
        "; is this machine's clock right?"
    } else {
        ""
    };
    format!("TLS: {text}{advice}")
}
