//! The ports that containers of this node hold: opened before a run starts, and who has which.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::{bind, ipproto, listen, socket_with, sockopt, AddressFamily, SocketFlags, SocketType};

use super::lock;
use crate::pod::lifecycle::StartFailure;
use crate::pod::ports::{covers, Port};
use crate::runtime::Listener;

/// Connections that wait to be accepted, of one port.
const BACKLOG: i32 = 128;

/// A guest that has ended may hold its ports until its turn comes. This long a port is waited for that none of the
/// node's containers holds any more.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Which container holds which address.
#[derive(Clone, Debug, Default)]
pub struct Ports {
    held: Arc<Mutex<BTreeMap<SocketAddr, String>>>,
}

/// The addresses of one container, its own until this is dropped.
#[derive(Debug, Default)]
pub struct Held {
    ports: Ports,
    addresses: Vec<SocketAddr>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = lock(&self.ports.held);
        for address in &self.addresses {
            held.remove(address);
        }
    }
}

/// Why a port was not opened.
#[derive(Debug)]
pub enum Refused {
    /// No container of this node holds it, yet somebody does.
    ByStranger(StartFailure),
    /// For good, until somebody changes something.
    Refused(StartFailure),
}

impl From<Refused> for StartFailure {
    fn from(refused: Refused) -> StartFailure {
        match refused {
            Refused::ByStranger(failure) | Refused::Refused(failure) => failure,
        }
    }
}

impl Ports {
    /// Opens all of `ports` for `holder`, or none.
    ///
    /// # Errors
    /// [`Refused`], with the words for the container's status.
    pub fn open(&self, holder: &str, ports: &[Port]) -> Result<(Vec<Listener>, Held), Refused> {
        let mut held = Held { ports: self.clone(), addresses: Vec::new() };
        let mut listeners = Vec::new();
        for port in ports {
            let mut sockets = Vec::new();
            for address in &port.addresses {
                sockets.push(socket(*address).map_err(|error| self.refusal(port, address, &error))?);
                lock(&self.held).insert(*address, holder.to_owned());
                held.addresses.push(*address);
            }
            listeners.push(Listener { name: port.name.clone(), sockets });
        }
        Ok((listeners, held))
    }

    fn refusal(&self, port: &Port, address: &SocketAddr, error: &io::Error) -> Refused {
        let cannot = format!("port {} cannot be opened at {address}", port.name);
        let create = |text: String| StartFailure::Create(text);
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                let held = lock(&self.held);
                let mut taken =
                    held.iter().filter(|(other, _)| covers(other, address) || covers(address, other));
                match taken.next() {
                    Some((_, holder)) => Refused::Refused(create(format!("{cannot}: {holder} holds it"))),
                    None => Refused::ByStranger(create(format!(
                        "{cannot}: another program on this machine holds it"
                    ))),
                }
            }
            io::ErrorKind::PermissionDenied => Refused::Refused(create(format!(
                "{cannot}: ports below 1024 need CAP_NET_BIND_SERVICE, which this agent was not given"
            ))),
            io::ErrorKind::AddrNotAvailable => {
                Refused::Refused(create(format!("{cannot}: this machine does not have that address")))
            }
            _ => Refused::Refused(create(format!("{cannot}: {error}"))),
        }
    }
}

fn socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // A port is free again while connections of its last holder still fade away.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn port(address: SocketAddr) -> Port {
        Port { name: "http".into(), addresses: vec![address] }
    }

    fn said(refused: Refused) -> String {
        match StartFailure::from(refused) {
            StartFailure::Create(text) => text,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn who_holds_a_port_is_named_until_it_is_given_back() {
        let ports = Ports::default();
        let (free, spare) = {
            let bound = |()| TcpListener::bind("127.0.0.1:0").unwrap();
            let (a, b) = (bound(()), bound(()));
            (a.local_addr().unwrap(), b.local_addr().unwrap())
        };
        let (listeners, held) = ports.open("container \"a\" of pod n/p", &[port(free)]).unwrap();
        TcpStream::connect(free).unwrap();
        // All or none: the spare one, opened first, is closed again.
        let both = [port(spare), port(free)];
        let refused = ports.open("container \"b\" of pod n/q", &both).unwrap_err();
        assert!(matches!(refused, Refused::Refused(_)));
        let wanted = format!("port http cannot be opened at {free}: container \"a\" of pod n/p holds it");
        assert_eq!(said(refused), wanted);
        assert!(TcpListener::bind(spare).is_ok());
        // Everywhere is there too.
        let everywhere = port(SocketAddr::new([0, 0, 0, 0].into(), free.port()));
        assert!(said(ports.open("c", &[everywhere]).unwrap_err()).ends_with("n/p holds it"));
        drop((listeners, held));
        assert!(ports.open("c", &[port(free)]).is_ok());
    }

    #[test]
    fn another_program_is_told_from_a_container() {
        let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = stranger.local_addr().unwrap();
        let refused = Ports::default().open("c", &[port(address)]).unwrap_err();
        assert!(matches!(refused, Refused::ByStranger(_)));
        assert!(said(refused).contains("another program"));
        let elsewhere = "192.0.2.1:8080".parse().unwrap();
        let refused = Ports::default().open("c", &[port(elsewhere)]).unwrap_err();
        assert!(said(refused).contains("does not have that address"));
    }
}
