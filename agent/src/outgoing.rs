//! Connections that the agent opens, to the API server and to its own pods: bytes over TCP or TLS, HTTP over them.
//!
//! Whatever the bytes go over, it is one type: HTTP's own code is there once.

use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use async_io::{Async, Timer};
use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncWrite, FutureExt};
use futures_rustls::TlsConnector;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use smol_hyper::rt::{FuturesIo, SmolTimer};

use crate::control::{self, HyperExecutor};

/// The resolver gets this long (glibc's own default is 5 s a try, two tries).
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(12);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;
/// Bytes in flight a stream: what is buffered for a slow reader.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Bytes in flight a connection: a few streams that are not read must not stop the heartbeat's.
const CONNECTION_WINDOW: u32 = 4 * STREAM_WINDOW;

/// Bytes in both directions.
trait Both: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Both for T {}

/// A connection, whatever it goes over.
pub struct Stream(Pin<Box<dyn Both>>);

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a connection")
    }
}

impl Stream {
    /// A connection that is open.
    pub fn new(bytes: impl AsyncRead + AsyncWrite + Send + 'static) -> Stream {
        Stream(Box::pin(bytes))
    }
}

/// The addresses of a name, or of what is an address.
///
/// # Errors
/// What the resolver says.
pub async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let name = (host.to_owned(), port);
    let lookup = control::blocking(move || {
        name.to_socket_addrs().map(|found| found.take(MAX_ADDRESSES).collect::<Vec<_>>())
    });
    within(RESOLVE_TIMEOUT, lookup).await?
}

/// Connects by TCP.
///
/// # Errors
/// Of the last address of the name; when it has none.
pub async fn connect(host: &str, port: u16) -> io::Result<Async<TcpStream>> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses(host, port).await? {
        match Async::<TcpStream>::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Speaks TLS over a connection with whoever is at its other end, and offers these protocols.
///
/// # Errors
/// Of the handshake.
pub async fn unverified(stream: Async<TcpStream>, host: &str, protocols: &[&[u8]]) -> io::Result<Stream> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(Unverified));
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Ok(Stream::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}

/// Speaks HTTP/1.1 over a connection: one request at a time.
///
/// # Errors
/// Of the protocol.
pub async fn http1(stream: Stream) -> hyper::Result<http1::SendRequest<Full<Bytes>>> {
    let (sender, connection) = http1::handshake(FuturesIo::new(stream.0)).await?;
    control::spawn(async move {
        let _ = connection.await;
    })
    .detach();
    Ok(sender)
}

/// Speaks HTTP/2 over a connection: any number of requests at a time. `ping`: after so much silence, and how long is
/// waited for the answer.
///
/// # Errors
/// Of the protocol.
pub async fn http2(
    stream: Stream,
    ping: Option<(Duration, Duration)>,
) -> hyper::Result<http2::SendRequest<Full<Bytes>>> {
    let mut builder = http2::Builder::new(HyperExecutor);
    builder.timer(SmolTimer::new());
    if let Some((after, timeout)) = ping {
        builder.keep_alive_interval(after).keep_alive_timeout(timeout);
    }
    let (sender, connection) = builder
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(FuturesIo::new(stream.0))
        .await?;
    control::spawn(async move {
        if let Err(error) = connection.await {
            log::debug!("an HTTP/2 connection ended: {error}");
        }
    })
    .detach();
    Ok(sender)
}

/// Gives `future` this long.
///
/// # Errors
/// `TimedOut` when it is not done by then.
pub async fn within<T>(limit: Duration, future: impl std::future::Future<Output = T>) -> io::Result<T> {
    async { Ok(future.await) }
        .or(async {
            Timer::after(limit).await;
            let seconds = limit.as_secs();
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {seconds} s")))
        })
        .await
}

/// Takes whatever certificate it is shown: for `insecure-skip-tls-verify: true`, which a person wrote into a kubeconfig,
/// and for probes, which ask whether somebody answers and not who.
#[derive(Debug)]
pub struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
