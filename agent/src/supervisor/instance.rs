//! Instances of modules: a container's own run, its standard streams, and what is started beside it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, Weak};

use async_io::Async;
use async_lock::OnceCell;

use super::api::BoxFuture;
use super::lock;
use super::ports::Held;
use super::program;
use super::workshop::{Running, Streams, Terminal};
use crate::control::Task;
use crate::log::{Stream, Writer};
use crate::runtime::destinations::Destination;
use crate::runtime::stdio::{connected, Ends, Wanted};
use crate::runtime::{
    Exit, FileMount, Guest, GuestSpec, Module, Outlet, Output, Preopen, Runtime, Stdio, Usage,
};
use crate::{control, error_chain};

/// Clients that are attached to one container at a time.
const MAX_ATTACHED: usize = 16;
/// Bytes that are read from a terminal at a time.
const PIECE: usize = 4096;

/// What instances of a container's module are made of. Most of it is shared with the guest itself.
#[derive(Clone)]
pub struct Kit {
    pub runtime: Runtime,
    pub module: Module,
    /// What the module is called: the container's first argument.
    pub program: Arc<str>,
    pub env: Arc<[String]>,
    pub preopens: Arc<[Preopen]>,
    pub files: Arc<[FileMount]>,
    pub destinations: Arc<[Destination]>,
    pub memory: Option<u64>,
    pub cpu_request: u32,
    pub cpu_limit: Option<u32>,
}

impl Kit {
    /// A guest with these arguments and streams.
    pub fn guest(&self, args: Vec<String>, stdio: Stdio) -> GuestSpec {
        GuestSpec {
            name: String::new(),
            args,
            env: self.env.clone(),
            preopens: self.preopens.clone(),
            files: self.files.clone(),
            listeners: Vec::new(),
            destinations: self.destinations.to_vec(),
            stdio,
            memory: self.memory,
            cpu_request: self.cpu_request,
            cpu_limit: self.cpu_limit,
            fuel: None,
        }
    }
}

/// The run of a container.
pub struct ContainerRun {
    guest: Guest,
    kit: Kit,
    writer: Arc<Writer>,
    streams: OwnStreams,
    /// Its ports, which are its own as long as it runs.
    _held: Held,
    /// Instances beside it: what they use, the container uses.
    beside: Arc<Mutex<Beside>>,
}

impl ContainerRun {
    /// A container that has just begun.
    pub fn new(guest: Guest, kit: Kit, writer: Arc<Writer>, streams: OwnStreams, held: Held) -> ContainerRun {
        ContainerRun { guest, kit, writer, streams, _held: held, beside: Arc::default() }
    }

    fn beside(&self, module: &Module, args: Vec<String>, stdio: Stdio) -> Result<Box<dyn Running>, String> {
        let guest = self.kit.runtime.spawn(module, self.kit.guest(args, stdio));
        let guest = guest.map_err(|error| error_chain(&error))?;
        lock(&self.beside).add(guest.clone());
        if self.guest.ended() {
            guest.kill();
        }
        Ok(Box::new(SecondRun(guest)))
    }
}

impl Running for ContainerRun {
    fn kill(&self) {
        self.guest.kill();
    }

    fn wait(&self) -> BoxFuture<'_, Exit> {
        Box::pin(async move {
            let exit = self.guest.wait().await;
            lock(&self.beside).kill();
            if let Some(terminal) = &self.streams.terminal {
                terminal.drained.wait().await;
            }
            let writer = self.writer.clone();
            control::blocking(move || writer.close()).await;
            exit
        })
    }

    fn usage(&self) -> Usage {
        self.guest.usage().plus(lock(&self.beside).usage())
    }

    fn exec(&self, args: Vec<String>, stdio: Stdio) -> Result<Box<dyn Running>, String> {
        self.beside(&self.kit.module, args, stdio)
    }

    fn command(&self, args: Vec<String>, stdio: Stdio) -> BoxFuture<'_, Result<Box<dyn Running>, String>> {
        Box::pin(async move {
            let module = program::find(&self.kit, args.first().map_or("", String::as_str)).await?;
            self.beside(&module, args, stdio)
        })
    }

    fn attach(&self, wanted: Wanted) -> io::Result<Ends> {
        self.streams.attach(wanted)
    }
}

#[derive(Default)]
struct Beside {
    /// What those have used that ended.
    ended: Usage,
    running: Vec<Guest>,
}

impl Beside {
    fn usage(&self) -> Usage {
        self.running.iter().map(Guest::usage).fold(self.ended, Usage::plus)
    }

    fn add(&mut self, guest: Guest) {
        for guest in self.running.extract_if(.., |guest| guest.ended()) {
            self.ended = self.ended.plus(guest.usage());
        }
        self.running.push(guest);
    }

    fn kill(&self) {
        self.running.iter().for_each(Guest::kill);
    }
}

/// What runs beside a container.
struct SecondRun(Guest);

impl Running for SecondRun {
    fn kill(&self) {
        self.0.kill();
    }

    fn wait(&self) -> BoxFuture<'_, Exit> {
        Box::pin(self.0.wait())
    }

    fn usage(&self) -> Usage {
        self.0.usage()
    }

    fn exec(&self, _: Vec<String>, _: Stdio) -> Result<Box<dyn Running>, String> {
        Err("nothing runs beside what runs beside a container".to_owned())
    }

    fn command(&self, args: Vec<String>, stdio: Stdio) -> BoxFuture<'_, Result<Box<dyn Running>, String>> {
        Box::pin(async move { self.exec(args, stdio) })
    }

    fn attach(&self, _: Wanted) -> io::Result<Ends> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A container's standard streams, as the agent holds them.
pub struct OwnStreams {
    /// Who reads along; with the guest's own end they go.
    attached: Weak<Attached>,
    /// Writes to its standard input, and whether that ends with the first client.
    stdin: Option<(Mutex<Option<OwnedFd>>, bool)>,
    terminal: Option<OwnTerminal>,
}

struct OwnTerminal {
    master: crate::runtime::stdio::Terminal,
    /// Everything that was written to it is in the log.
    drained: Arc<OnceCell<()>>,
    _reading: Task<()>,
}

impl OwnStreams {
    /// Makes them as the container wants them; `stdin` is its standard input if it waits for no clients.
    pub fn open(
        writer: &Arc<Writer>,
        copied: Option<&Terminal>,
        stdin: Option<OwnedFd>,
        wanted: Streams,
    ) -> io::Result<(Stdio, OwnStreams)> {
        let attached = Arc::new(Attached::default());
        let output = |stream| -> Arc<dyn Output> {
            let copied = copied.map(|copied| match stream {
                Stream::Stdout => copied.stdout.clone(),
                Stream::Stderr => copied.stderr.clone(),
            });
            Arc::new(LogOutput {
                writer: writer.clone(),
                stream,
                terminal: copied,
                attached: attached.clone(),
            })
        };
        let mut own = OwnStreams { attached: Arc::downgrade(&attached), stdin: None, terminal: None };
        let ends = Wanted { stdin: wanted.stdin, tty: wanted.tty, ..Wanted::default() };
        let (mut stdio, ends) = connected(ends)?;
        if let Some(end) = ends.stdin {
            own.stdin = Some((Mutex::new(Some(end)), wanted.stdin_once));
        }
        if !wanted.stdin {
            stdio.stdin = stdin;
        }
        match (ends.terminal, ends.stdout) {
            (Some(master), Some(screen)) => {
                let (screen, drained) = (Async::new_nonblocking(screen)?, Arc::new(OnceCell::new()));
                let (output, done) = (output(Stream::Stdout), drained.clone());
                let reading = control::spawn(async move {
                    read_terminal(&screen, &*output).await;
                    done.get_or_init(async || ()).await;
                });
                own.terminal = Some(OwnTerminal { master, drained, _reading: reading });
            }
            _ => {
                stdio.stdout = Outlet::Taken(output(Stream::Stdout));
                stdio.stderr = Outlet::Taken(output(Stream::Stderr));
            }
        }
        Ok((stdio, own))
    }

    fn attach(&self, wanted: Wanted) -> io::Result<Ends> {
        let outputs = Wanted { stdin: false, tty: false, ..wanted };
        let (theirs, mut ends) = connected(outputs)?;
        if let Some(attached) = self.attached.upgrade() {
            let mut clients = lock(&attached.0);
            if clients.len() >= MAX_ATTACHED {
                let text = format!("{MAX_ATTACHED} clients are attached to this container already");
                return Err(io::Error::other(text));
            }
            clients.push(theirs);
        }
        if let Some((end, once)) = self.stdin.as_ref().filter(|_| wanted.stdin) {
            let mut end = lock(end);
            ends.stdin = if *once { end.take() } else { end.as_ref().map(OwnedFd::try_clone).transpose()? };
        }
        ends.terminal = self.terminal.as_ref().map(|terminal| terminal.master.again()).transpose()?;
        Ok(ends)
    }
}

async fn read_terminal(screen: &Async<OwnedFd>, output: &dyn Output) {
    let mut piece = [0; PIECE];
    // EIO: the guest has closed it, or has ended.
    while let Ok(read) = screen.read_with(|fd| Ok(rustix::io::read(fd, &mut piece)?)).await {
        let Some(piece) = piece.get(..read).filter(|piece| !piece.is_empty()) else { break };
        if let Err(error) = output.write(piece) {
            log::debug!("what a container printed to its terminal is lost: {error}");
        }
    }
}

/// Clients who read a container's output along.
#[derive(Default)]
struct Attached(Mutex<Vec<Stdio>>);

impl Attached {
    /// A client who does not keep up has to go: no guest waits for one, and no memory is kept for it.
    fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut clients = lock(&self.0);
        clients.retain(|client| {
            let outlet = match stream {
                Stream::Stdout => &client.stdout,
                Stream::Stderr => &client.stderr,
            };
            match outlet {
                Outlet::Open(fd) => rustix::io::write(fd, bytes).is_ok_and(|written| written == bytes.len()),
                Outlet::Taken(_) => true,
            }
        });
    }
}

/// A guest's stream, into its log and perhaps a terminal.
struct LogOutput {
    writer: Arc<Writer>,
    stream: Stream,
    terminal: Option<Arc<dyn Output>>,
    attached: Arc<Attached>,
}

impl Output for LogOutput {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        if let Some(terminal) = &self.terminal {
            // A terminal that went away is no reason to stop a guest.
            let _ = terminal.write(bytes);
        }
        self.attached.write(self.stream, bytes);
        self.writer.write(self.stream, bytes)
    }
}
