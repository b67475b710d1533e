//! `sock_accept`, `sock_recv`, `sock_send`, `sock_shutdown`, and reads and writes of sockets: TCP listeners that
//! a guest is given, and their connections. Every socket is non-blocking here; who is to wait, waits suspended.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_io::Async;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno as HostErrno;
use rustix::net::{sockopt, RecvFlags, SendFlags, Shutdown, SocketFlags};

use super::abi::{part, Iovec, CHUNK};
use super::descriptors::{flags, rights, Descriptor, Object};
use super::{Args, Errno, Host, Interest, Memory, Stop, Then, Wait, Wasi};

/// `riflags`
const PEEK: u32 = 1;
const WAITALL: u32 = 2;

/// `sdflags`
const SHUT_READ: u32 = 1;
const SHUT_WRITE: u32 = 2;

/// A socket of a guest's.
pub enum Socket {
    /// Listens, at one address or more.
    Listener(Vec<Async<OwnedFd>>),
    /// A connection.
    Stream(Async<OwnedFd>),
}

/// How a socket is, now.
pub struct Readiness {
    /// Bytes that can be read; 1 for connections that can be accepted.
    pub bytes: u64,
    /// Whether its other end is closed, or it is broken.
    pub hangup: bool,
}

impl Socket {
    /// One guest's listener on all of `sockets`, which listen already.
    pub fn listener(sockets: Vec<OwnedFd>) -> io::Result<Socket> {
        Ok(Socket::Listener(sockets.into_iter().map(Async::new).collect::<io::Result<_>>()?))
    }

    /// All of its sockets.
    pub fn all(&self) -> &[Async<OwnedFd>] {
        match self {
            Socket::Listener(sockets) => sockets,
            Socket::Stream(socket) => std::slice::from_ref(socket),
        }
    }

    /// A connection's; ENOTCONN of a listener.
    pub fn stream(&self) -> Result<&OwnedFd, Errno> {
        match self {
            Socket::Stream(socket) => Ok(socket.get_ref()),
            Socket::Listener(_) => Err(Errno::Notconn),
        }
    }

    /// What can be done with it.
    fn rights(&self) -> u64 {
        let each = rights::POLL_FD_READWRITE | rights::FD_FILESTAT_GET | rights::FD_FDSTAT_SET_FLAGS;
        match self {
            Socket::Listener(_) => each | rights::SOCK_ACCEPT,
            Socket::Stream(_) => each | rights::FD_READ | rights::FD_WRITE | rights::SOCK_SHUTDOWN,
        }
    }

    /// The descriptor that it is open under.
    pub fn opened(self, flags: u16) -> Descriptor {
        let rights = self.rights();
        // What a connection may do, a listener passes on.
        let inheriting = if matches!(self, Socket::Listener(_)) { rights::ALL } else { 0 };
        Descriptor { object: Object::Socket(Arc::new(self)), rights, inheriting, flags }
    }

    /// Whether it can be read from (accepted from) or written to now, without waiting.
    pub fn ready(&self, interest: Interest) -> Result<Option<Readiness>, Errno> {
        let wanted = if interest == Interest::Read { PollFlags::IN } else { PollFlags::OUT };
        let mut polled: Vec<PollFd<'_>> =
            self.all().iter().map(|socket| PollFd::new(socket.get_ref(), wanted)).collect();
        if rustix::event::poll(&mut polled, Some(&Timespec::default()))? == 0 {
            return Ok(None);
        }
        let found = polled.iter().fold(PollFlags::empty(), |all, one| all | one.revents());
        let bytes = match (self, interest) {
            (Socket::Stream(socket), Interest::Read) => rustix::io::ioctl_fionread(socket.get_ref())?,
            (Socket::Listener(_), Interest::Read) => 1,
            (_, Interest::Write) => 0,
        };
        Ok(Some(Readiness { bytes, hangup: found.intersects(PollFlags::HUP | PollFlags::ERR) }))
    }

    /// Ready once it can be read from or written to.
    pub fn poll_ready(&self, interest: Interest, context: &mut Context<'_>) -> Poll<()> {
        let mut state = Poll::Pending;
        // Each is asked, so that each wakes the guest.
        for socket in self.all() {
            let one = match interest {
                Interest::Read => socket.poll_readable(context),
                Interest::Write => socket.poll_writable(context),
            };
            if one.is_ready() {
                state = Poll::Ready(());
            }
        }
        state
    }

    /// The first connection that waits at any of its addresses; EAGAIN: none does.
    fn accept(&self) -> Result<OwnedFd, HostErrno> {
        let Socket::Listener(sockets) = self else { return Err(HostErrno::INVAL) };
        for socket in sockets {
            let how = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::accept_with(socket.get_ref(), how) {
                Err(HostErrno::AGAIN | HostErrno::INTR) => {}
                other => return other,
            }
        }
        Err(HostErrno::AGAIN)
    }
}

/// The socket `fd` with `rights`: EBADF, ENOTSOCK, ENOTCAPABLE else.
pub fn socket(host: &Host, fd: u32, rights: u64) -> Result<(Arc<Socket>, u16), Errno> {
    let descriptor = host.descriptors.get(fd)?;
    let Object::Socket(socket) = &descriptor.object else { return Err(Errno::Notsock) };
    if let Socket::Listener(_) = **socket {
        // Before its rights: it has none for this because it is no connection.
        if rights & (rights::FD_READ | rights::FD_WRITE | rights::SOCK_SHUTDOWN) != 0 {
            return Err(Errno::Notconn);
        }
    } else if rights & rights::SOCK_ACCEPT != 0 {
        return Err(Errno::Inval);
    }
    host.descriptors.with(fd, rights)?;
    Ok((Arc::clone(socket), descriptor.flags))
}

/// Goes on with `then` once `socket` is ready; a descriptor that is not to wait answers EAGAIN.
fn when(socket: Arc<Socket>, flags: u16, interest: Interest, then: Then) -> Wasi<()> {
    if flags & flags::NONBLOCK != 0 {
        return Err(Errno::Again.into());
    }
    let waited = vec![(super::Waited::Socket(socket), interest)];
    Err(Stop::Wait(Wait::Until { deadline: None, waited, then }))
}

/// `sock_accept(fd, flags, accepted)`
pub fn sock_accept(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    accept(memory, host, args.u32(0), args.u32(1), args.u32(2))
}

/// Accepts a connection of the listener `fd`, which gets these `fdflags`.
pub fn accept(memory: &mut Memory<'_>, host: &mut Host, fd: u32, flags: u32, accepted: u32) -> Wasi<()> {
    // Of the fdflags, a socket has only this one.
    let flags =
        u16::try_from(flags).ok().filter(|given| given & !flags::NONBLOCK == 0).ok_or(Errno::Inval)?;
    let (listener, own) = socket(host, fd, rights::SOCK_ACCEPT)?;
    Accepting { listener, own, flags, accepted }.go_on(memory, host)
}

/// Sets what preview 1 has no call for: small answers go at once, and a peer that is gone is noticed in the end.
pub fn prepare(connection: &OwnedFd) {
    let _ = sockopt::set_tcp_nodelay(connection, true);
    let _ = sockopt::set_socket_keepalive(connection, true);
}

struct Accepting {
    listener: Arc<Socket>,
    /// Flags of the listener.
    own: u16,
    /// Flags that the connection gets.
    flags: u16,
    accepted: u32,
}

impl Accepting {
    fn go_on(self, memory: &mut Memory<'_>, host: &mut Host) -> Wasi<()> {
        // Before a connection is taken that could not be kept.
        host.descriptors.room()?;
        memory.bytes(self.accepted, 4)?;
        match self.listener.accept() {
            Ok(connection) => {
                prepare(&connection);
                let connection = Async::new(connection).map_err(Errno::from)?;
                let fd = host.descriptors.add(Socket::Stream(connection).opened(self.flags))?;
                memory.write_u32(self.accepted, fd)
            }
            Err(HostErrno::AGAIN) => {
                let (listener, own) = (Arc::clone(&self.listener), self.own);
                when(listener, own, Interest::Read, Box::new(move |memory, host| self.go_on(memory, host)))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A receive or send, begun again after each wait.
struct Transfer {
    socket: Arc<Socket>,
    flags: u16,
    /// The guest's buffers, whole.
    buffers: Vec<Iovec>,
    /// Bytes of them that are done.
    done: usize,
    /// Where the count goes.
    count: u32,
    /// To all of its buffers, unless the connection ends.
    whole: bool,
    peek: bool,
}

type Step = fn(Transfer, &mut Memory<'_>, &mut Host) -> Wasi<()>;

/// `sock_recv(fd, buffers, count, flags, received, flags out)`
pub fn sock_recv(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let how = args.u32(3);
    if how & !(PEEK | WAITALL) != 0 {
        return Err(Errno::Inval.into());
    }
    let (socket, flags) = socket(host, args.u32(0), rights::FD_READ)?;
    let buffers = memory.buffers(args.u32(1), args.u32(2))?;
    // Truncation, the one flag that comes back, is of datagrams.
    memory.write(args.u32(5), &[0, 0])?;
    let peek = how & PEEK != 0;
    let whole = how & WAITALL != 0 && !peek;
    Transfer { socket, flags, buffers, done: 0, count: args.u32(4), whole, peek }.receive(memory, host)
}

/// `sock_send(fd, buffers, count, flags, sent)`
pub fn sock_send(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    if args.u32(3) != 0 {
        return Err(Errno::Inval.into());
    }
    send(memory, host, args, 4)
}

/// `fd_read` of a socket.
pub fn read(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let (socket, flags) = socket(host, args.u32(0), rights::FD_READ)?;
    let buffers = memory.buffers(args.u32(1), args.u32(2))?;
    Transfer { socket, flags, buffers, done: 0, count: args.u32(3), whole: false, peek: false }
        .receive(memory, host)
}

/// `fd_write` of a socket.
pub fn write(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    send(memory, host, args, 3)
}

/// As send(2): one that may wait sends all of its bytes.
fn send(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>, count: usize) -> Wasi<()> {
    let (socket, flags) = socket(host, args.u32(0), rights::FD_WRITE)?;
    let buffers = memory.buffers(args.u32(1), args.u32(2))?;
    let whole = flags & flags::NONBLOCK == 0;
    Transfer { socket, flags, buffers, done: 0, count: args.u32(count), whole, peek: false }
        .send(memory, host)
}

impl Transfer {
    fn receive(mut self, memory: &mut Memory<'_>, host: &mut Host) -> Wasi<()> {
        let buffers = part(&self.buffers, self.done, CHUNK);
        let how = if self.peek { RecvFlags::PEEK } else { RecvFlags::empty() };
        let socket = self.socket.stream()?;
        let received = match buffers[..] {
            [] => return memory.write_size(self.count, self.done),
            [only] => {
                rustix::net::recv(socket, memory.bytes_mut(only.at, only.len)?, how).map(|(got, _)| got)
            }
            _ => {
                let mut bytes = vec![0; CHUNK.min(total(&buffers))];
                let received = rustix::net::recv(socket, &mut bytes[..], how).map(|(got, _)| got);
                if let Ok(received) = received {
                    memory.scatter(&buffers, bytes.get(..received).unwrap_or(&[]))?;
                }
                received
            }
        };
        match received {
            Ok(received) => {
                self.done = self.done.saturating_add(received);
                if !self.peek {
                    host.shared.count_traffic(received, 0);
                }
                if self.whole && received > 0 {
                    return self.go_on(Transfer::receive);
                }
                memory.write_size(self.count, self.done)
            }
            Err(error) => self.stopped(error, Interest::Read, memory, Transfer::receive),
        }
    }

    fn send(mut self, memory: &mut Memory<'_>, host: &mut Host) -> Wasi<()> {
        let buffers = part(&self.buffers, self.done, CHUNK);
        if buffers.is_empty() {
            return memory.write_size(self.count, self.done);
        }
        let bytes = memory.gather(&buffers)?;
        let sent = rustix::net::send(self.socket.stream()?, &bytes, SendFlags::NOSIGNAL);
        drop(bytes);
        match sent {
            Ok(sent) => {
                self.done = self.done.saturating_add(sent);
                host.shared.count_traffic(0, sent);
                if self.whole && sent > 0 && self.done < total(&self.buffers) {
                    return self.go_on(Transfer::send);
                }
                memory.write_size(self.count, self.done)
            }
            Err(error) => self.stopped(error, Interest::Write, memory, Transfer::send),
        }
    }

    /// The next chunk comes after the others' turn.
    fn go_on(self, step: Step) -> Wasi<()> {
        Err(Stop::Wait(Wait::Turn(Box::new(move |memory, host| step(self, memory, host)))))
    }

    /// The kernel took or gave nothing: waits, or answers what there is.
    fn stopped(self, error: HostErrno, interest: Interest, memory: &mut Memory<'_>, step: Step) -> Wasi<()> {
        if error == HostErrno::AGAIN || error == HostErrno::INTR {
            if self.done > 0 && self.flags & flags::NONBLOCK != 0 {
                return memory.write_size(self.count, self.done);
            }
            let (socket, flags) = (Arc::clone(&self.socket), self.flags);
            return when(socket, flags, interest, Box::new(move |memory, host| step(self, memory, host)));
        }
        // What is done is told first; the error comes again.
        if self.done > 0 {
            return memory.write_size(self.count, self.done);
        }
        Err(error.into())
    }
}

fn total(buffers: &[Iovec]) -> usize {
    buffers.iter().map(|buffer| usize::try_from(buffer.len).unwrap_or(0)).fold(0, usize::saturating_add)
}

/// `sock_shutdown(fd, how)`
pub fn sock_shutdown(_memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let (socket, _) = socket(host, args.u32(0), rights::SOCK_SHUTDOWN)?;
    const BOTH: u32 = SHUT_READ | SHUT_WRITE;
    let how = match args.u32(1) {
        SHUT_READ => Shutdown::Read,
        SHUT_WRITE => Shutdown::Write,
        BOTH => Shutdown::Both,
        _ => return Err(Errno::Inval.into()),
    };
    Ok(rustix::net::shutdown(socket.stream()?, how)?)
}
