//! Connections that a guest makes: the calls beside preview 1 that WasmEdge's toolchains import from the same
//! module (`wasmedge_wasi_socket`, the names without `_v2`). Preview 1 itself has none.
//!
//! A guest connects by TCP, to what its [`Destinations`](crate::runtime::destinations::Destinations) allow.
//! Everything else (datagrams, listening on ports of its own choice) is ENOTSUP.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_io::Async;
use rustix::io::Errno as HostErrno;
use rustix::net::{ipproto, socket_with, sockopt, AddressFamily, SocketFlags, SocketType};

use super::descriptors::{flags, rights, Object};
use super::files::off_thread;
use super::sockets::{self, Socket};
use super::{Args, Errno, Host, Interest, Memory, Stop, Then, Wait, Waited, Wasi};
use crate::runtime::destinations::Destinations;

/// `address_family` of the extension.
const INET4: u32 = 1;
const INET6: u32 = 2;
/// `socket_type` of the extension.
const ANY: u8 = 0;
const STREAM: u8 = 2;
/// `protocol` of the extension.
const TCP: u8 = 1;
/// Options of level 0.
const SO_REUSEADDR: u32 = 0;
const SO_TYPE: u32 = 1;
const SO_ERROR: u32 = 2;
const SO_KEEPALIVE: u32 = 7;
const SO_ACCEPTCONN: u32 = 13;

/// Size of an `addrinfo` of the extension, and of its `sockaddr`'s data: port, flow, address, scope.
const SOCKADDR_DATA: u32 = 26;
/// Addresses of one name that are told.
const MAX_ADDRESSES: u32 = 64;
/// Longest name and service that are taken, their NUL included.
const MAX_NAME: u32 = 256;
/// How often a guest looks whether its turn to ask for a name has come.
const RESOLVER_PAUSE: Duration = Duration::from_millis(50);

/// A name is being asked for. One at a time on this node: a resolver that does not answer holds its blocking
/// thread for seconds.
static RESOLVING: AtomicBool = AtomicBool::new(false);

/// `sock_accept(fd, accepted)`, the extension's own: preview 1's without flags.
pub fn sock_accept(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    sockets::accept(memory, host, args.u32(0), 0, args.u32(1))
}

/// Never offered.
pub fn not_offered(_memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    host.descriptors.get(args.u32(0))?;
    Err(Errno::Notsup.into())
}

/// `sock_open(family, type, opened)`: EACCES in a guest that may connect nowhere.
pub fn sock_open(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let (kind, opened) = (args.u32(1), args.u32(2));
    if !host.destinations.any() {
        return Err(Errno::Acces.into());
    }
    let family = match args.u32(0) {
        INET4 => AddressFamily::INET,
        INET6 => AddressFamily::INET6,
        _ => return Err(Errno::Afnosupport.into()),
    };
    if kind != u32::from(STREAM) {
        return Err(Errno::Notsup.into());
    }
    memory.bytes(opened, 4)?;
    host.descriptors.room()?;
    let how = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, how, Some(ipproto::TCP))?;
    sockets::prepare(&socket);
    let socket = Async::new(socket).map_err(Errno::from)?;
    let fd = host.descriptors.add(Socket::Stream(socket).opened(0))?;
    memory.write_u32(opened, fd)
}

/// The connection `fd`.
fn stream(host: &Host, fd: u32) -> Result<(Arc<Socket>, u16), Errno> {
    sockets::socket(host, fd, rights::FD_WRITE)
}

/// An address of the guest's: a buffer and its size, which tells the family.
fn address(memory: &Memory<'_>, at: u32, port: u32) -> Wasi<SocketAddr> {
    let (bytes, size) = (memory.u32(at)?, memory.u32(at.saturating_add(4))?);
    let bytes = memory.bytes(bytes, size.min(16))?;
    let ip = match size {
        4 => <[u8; 4]>::try_from(bytes).map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).map(IpAddr::from),
        _ => return Err(Errno::Inval.into()),
    };
    let port = u16::try_from(port).map_err(|_| Errno::Inval)?;
    Ok(SocketAddr::new(ip.map_err(|_| Errno::Inval)?, port))
}

/// `sock_connect(fd, address, port)`
pub fn sock_connect(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let (socket, flags) = stream(host, args.u32(0))?;
    let address = address(memory, args.u32(1), args.u32(2))?;
    if !host.destinations.allows(&address) {
        return Err(Errno::Acces.into());
    }
    match rustix::net::connect(socket.stream()?, &address) {
        Ok(()) => Ok(()),
        Err(HostErrno::INPROGRESS) if flags & flags::NONBLOCK == 0 => connected(socket),
        Err(error) => Err(error.into()),
    }
}

/// Waits until a connection is made, or is not.
fn connected(socket: Arc<Socket>) -> Wasi<()> {
    let waited = vec![(Waited::Socket(Arc::clone(&socket)), Interest::Write)];
    let then: Then = Box::new(move |_, _| {
        if socket.ready(Interest::Write)?.is_none() {
            return connected(socket);
        }
        Ok(sockopt::socket_error(socket.stream()?)??)
    });
    Err(Stop::Wait(Wait::Until { deadline: None, waited, then }))
}

/// `sock_getpeeraddr(fd, address, type, port)`
pub fn sock_getpeeraddr(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let (socket, _) = stream(host, args.u32(0))?;
    let peer = rustix::net::getpeername(socket.stream()?)?;
    let peer = peer.ok_or(Errno::Notconn)?.try_into().map_err(|_| Errno::Afnosupport)?;
    write_address(memory, args, peer)
}

/// `sock_getlocaladdr(fd, address, type, port)`
pub fn sock_getlocaladdr(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let Object::Socket(socket) = &host.descriptors.get(args.u32(0))?.object else {
        return Err(Errno::Notsock.into());
    };
    let own = rustix::net::getsockname(socket.any().ok_or(Errno::Inval)?)?;
    write_address(memory, args, own.try_into().map_err(|_| Errno::Afnosupport)?)
}

fn write_address(memory: &mut Memory<'_>, args: Args<'_>, address: SocketAddr) -> Wasi<()> {
    let (bytes, size) = (memory.u32(args.u32(1))?, memory.u32(args.u32(1).saturating_add(4))?);
    let needed = if address.is_ipv4() { 4 } else { 16 };
    if size < needed {
        return Err(Errno::Inval.into());
    }
    match address.ip() {
        IpAddr::V4(ip) => memory.write(bytes, &ip.octets())?,
        IpAddr::V6(ip) => memory.write(bytes, &ip.octets())?,
    }
    memory.write_u32(args.u32(2), if address.is_ipv4() { 4 } else { 6 })?;
    memory.write_u32(args.u32(3), address.port().into())
}

/// `sock_getsockopt(fd, level, name, value, size)`: what has one answer here, ENOPROTOOPT else.
pub fn sock_getsockopt(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let Object::Socket(socket) = &host.descriptors.get(args.u32(0))?.object else {
        return Err(Errno::Notsock.into());
    };
    let (value_at, size_at) = (args.u32(3), args.u32(4));
    if args.u32(1) != 0 {
        return Err(Errno::Noprotoopt.into());
    }
    if memory.u32(size_at)? < 4 {
        return Err(Errno::Inval.into());
    }
    let value = match args.u32(2) {
        SO_TYPE => STREAM.into(),
        SO_ERROR => match sockopt::socket_error(socket.any().ok_or(Errno::Inval)?)? {
            Ok(()) => 0,
            Err(error) => Errno::from(error) as u32,
        },
        SO_REUSEADDR | SO_KEEPALIVE => 1,
        SO_ACCEPTCONN => u32::from(matches!(**socket, Socket::Listener(_))),
        _ => return Err(Errno::Noprotoopt.into()),
    };
    memory.write_u32(size_at, 4)?;
    memory.write_u32(value_at, value)
}

/// `sock_setsockopt(fd, level, name, value, size)`: what is so already is taken, ENOPROTOOPT else.
pub fn sock_setsockopt(_memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let Object::Socket(_) = host.descriptors.get(args.u32(0))?.object else {
        return Err(Errno::Notsock.into());
    };
    match (args.u32(1), args.u32(2)) {
        (0, SO_REUSEADDR | SO_KEEPALIVE) => Ok(()),
        _ => Err(Errno::Noprotoopt.into()),
    }
}

/// What `sock_getaddrinfo` was asked for.
struct Question {
    name: String,
    port: u16,
    destinations: Arc<Destinations>,
    /// The families that are wanted.
    family: u8,
    /// The first of a chain of `addrinfo`s.
    first: u32,
    most: u32,
    found: u32,
}

/// `sock_getaddrinfo(node, len, service, len, hint, result, most, found)`: the addresses of a name that the guest
/// may connect to, or an address as a text.
pub fn sock_getaddrinfo(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let name = text(memory, args.u32(0), args.u32(1))?;
    let service = text(memory, args.u32(2), args.u32(3))?;
    let port = if service.is_empty() { 0 } else { service.parse().map_err(|_| Errno::Notsup)? };
    let hint = args.u32(4);
    let (family, kind) = (memory.u8(hint.saturating_add(2))?, memory.u8(hint.saturating_add(3))?);
    if kind != ANY && kind != STREAM {
        return Err(Errno::Notsup.into());
    }
    let (first, most, found) = (memory.u32(args.u32(5))?, args.u32(6).min(MAX_ADDRESSES), args.u32(7));
    let question =
        Question { destinations: Arc::clone(&host.destinations), name, port, family, first, most, found };
    if let Ok(ip) = question.name.parse() {
        return question.answer(&[ip], memory);
    }
    if !host.destinations.allows_name(&question.name) {
        return Err(Errno::Acces.into());
    }
    question.ask()
}

/// A text of the guest's, up to its NUL.
fn text(memory: &Memory<'_>, at: u32, len: u32) -> Wasi<String> {
    if len > MAX_NAME {
        return Err(Errno::Nametoolong.into());
    }
    let bytes = memory.bytes(at, len)?;
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or(&[]);
    Ok(std::str::from_utf8(bytes).map_err(|_| Errno::Ilseq)?.to_owned())
}

/// Ends the one question that is asked, when its work ends, whoever waits for it.
struct Asking;

impl Drop for Asking {
    fn drop(&mut self) {
        RESOLVING.store(false, Ordering::Release);
    }
}

impl Question {
    fn ask(self) -> Wasi<()> {
        if RESOLVING.swap(true, Ordering::Acquire) {
            let deadline = Instant::now().checked_add(RESOLVER_PAUSE);
            let then: Then = Box::new(move |_, _| self.ask());
            return Err(Stop::Wait(Wait::Until { deadline, waited: Vec::new(), then }));
        }
        let asking = Asking;
        let work = move || {
            let _asking = asking;
            let found = (self.name.as_str(), 0).to_socket_addrs().map_err(Errno::from)?;
            let found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            Ok((self, found))
        };
        off_thread(work, |(question, found), memory, _| {
            for ip in &found {
                question.destinations.resolved(&question.name, *ip);
            }
            question.answer(&found, memory)
        })
    }

    /// Fills the guest's chain, as long as it is.
    fn answer(&self, found: &[IpAddr], memory: &mut Memory<'_>) -> Wasi<()> {
        let wanted = |ip: &&IpAddr| match u32::from(self.family) {
            INET4 => ip.is_ipv4(),
            INET6 => ip.is_ipv6(),
            _ => true,
        };
        let (mut told, mut at) = (0_u32, self.first);
        for ip in found.iter().filter(wanted) {
            if told == self.most || at == 0 {
                break;
            }
            self.write(memory, at, *ip)?;
            told = told.saturating_add(1);
            at = memory.u32(at.saturating_add(24))?;
        }
        if told == 0 && self.most > 0 {
            return Err(Errno::Noent.into());
        }
        memory.write_u32(self.found, told)
    }

    fn write(&self, memory: &mut Memory<'_>, at: u32, ip: IpAddr) -> Wasi<()> {
        let family: u8 = if ip.is_ipv4() { 1 } else { 2 };
        let sockaddr = memory.u32(at.saturating_add(12))?;
        memory.write(at.saturating_add(2), &[family, STREAM, TCP])?;
        memory.write_u32(at.saturating_add(8), SOCKADDR_DATA)?;
        let data = memory.u32(sockaddr.saturating_add(8))?;
        memory.write(sockaddr, &[family])?;
        let port = self.port.to_be_bytes();
        let bytes = match ip {
            IpAddr::V4(ip) => [&port[..], &ip.octets()].concat(),
            // Its flow is 0, and so is its scope: an address of a link is never reached.
            IpAddr::V6(ip) => [&port[..], &[0; 4], &ip.octets(), &[0; 4]].concat(),
        };
        memory.write(data, &bytes)?;
        memory.write_u32(sockaddr.saturating_add(4), u32::try_from(bytes.len()).unwrap_or(0))
    }
}

/// A socket as its calls need it.
impl Socket {
    /// Its descriptor, or its first.
    pub fn any(&self) -> Option<&OwnedFd> {
        self.all().first().map(Async::get_ref)
    }
}
