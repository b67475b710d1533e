//! Connections from a TCP port.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use async_io::Async;
use futures_lite::stream;

use super::{Connection, Connections};

/// A client that is silent this long is asked whether it is still there, then each
/// [`KEEPALIVE_INTERVAL`], and is given up after [`KEEPALIVE_PROBES`] without an answer: a follower of a
/// quiet pod whose machine has died would else hold its place for ever. Go's servers ask after 15 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

/// Binds a port. Port 0 lets the kernel choose; `get_ref().local_addr()` tells which.
///
/// # Errors
/// What the kernel says (address in use, not an address of this machine), with the address.
pub fn bind(address: SocketAddr) -> io::Result<Async<TcpListener>> {
    Async::<TcpListener>::bind(address)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

/// The connections that come to a port.
pub fn connections(listener: Async<TcpListener>) -> Connections {
    Box::pin(stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| {
            if let Err(error) = tune(stream.get_ref()) {
                log::debug!("a connection goes on without its socket options: {error}");
            }
            Box::new(stream) as Connection
        });
        Some((accepted, listener))
    }))
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    rustix::net::sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    rustix::net::sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    Ok(())
}
