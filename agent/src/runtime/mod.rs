//! Runs WASI modules as guests, in slices of fuel, on the interpreter threads. Knows no Kubernetes type.
//!
//! [`Runtime::compile`] reads a module's [`sections`] and [`operators`] against the limits and has wasmi
//! translate it ([`engine`]). [`Runtime::spawn`] makes a [`wasi::Host`] of what the guest is given and queues its run on
//! the interpreter threads ([`interpreter`]). There the run is polled within a boundary that times it,
//! catches panics and ends it when it is to be killed ([`guest`]); inside, [`slices`] gives it fuel for a few
//! milliseconds at a time, and awaits what its calls wait for. [`turns`] says who runs next of those that want to,
//! [`allowance`] how much of the processor a guest may use, [`limits`] how far memory and tables may grow,
//! [`quota`] what its files may take of the disk;
//! [`pages`] gives back what holds only zeros, and of a guest that sleeps what its module can write again ([`initial`]).

mod allowance;
pub mod beneath;
pub mod destinations;
mod engine;
mod guest;
mod initial;
mod interpreter;
mod limits;
mod operators;
mod pages;
pub mod quota;
mod sections;
mod slices;
pub mod stdio;
#[cfg(test)]
mod tests;
mod turns;
mod walk;
mod wasi;

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::destinations::{Destination, Destinations};
use self::engine::{Cache, Compiled};
use self::guest::{Run, Shared};
use self::interpreter::Queue;
pub use self::interpreter::NICE;
use self::limits::{Ledger, Limiter};
use self::quota::Account;
use self::slices::{Compute, Pace};
pub use self::stdio::{Outlet, Output, Stdio};
use self::turns::Turn;
use self::wasi::descriptors::{flags, Descriptors, Object};
pub use self::wasi::folder::open_as_guest;
use self::wasi::folder::{Folder, Unlaid};
use self::wasi::mounted::Mounted;
use self::wasi::sockets::Socket;
use self::wasi::Host;

/// A built-in module that prints `hello 0`, `hello 1`, … once a second: `hello.wat`.
pub const HELLO: &[u8] = include_bytes!("hello.wasm");

/// Bytes of arguments and environment together: Linux's own limit for one string of them (128 KiB), times two.
pub const MAX_ARGUMENTS: usize = 256 * 1024;

/// The first descriptor that is no standard stream.
const FIRST_PREOPEN: usize = 3;

/// Why a guest gets no more of what it is given.
const FULL: &str = "more folders and ports than one guest may have open";

/// How the runtime is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Interpreter threads; 0 means one a core.
    pub threads: usize,
    /// Linear-memory limit, in bytes, of a guest that names none.
    pub default_memory: u64,
    /// Ceiling of the linear memory of all guests together, in bytes.
    pub guest_memory: u64,
}

/// The engine and its interpreter threads. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Arc<Queue>,
    cache: Cache,
    ledger: Arc<Ledger>,
    pace: Arc<Pace>,
    default_memory: u64,
}

impl Drop for Inner {
    /// The interpreter threads end with the last handle of the runtime, and every guest with them.
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// A compiled module, shared by every guest that runs it.
#[derive(Clone)]
pub struct Module {
    compiled: Arc<Compiled>,
}

/// Why bytes are not a module that can run here.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// By its magic bytes.
    #[error("not a WebAssembly module: the file does not start with \\0asm and version 1")]
    NotWasm,
    /// WASI 0.2 and later.
    #[error(
        "a WebAssembly component (WASI 0.2 or later), which this node does not run: build a core module \
         for wasm32-wasip1 instead (Rust: --target wasm32-wasip1; Go: GOOS=wasip1 GOARCH=wasm; \
         C: clang --target=wasm32-wasi)"
    )]
    Component,
    /// In bytes.
    #[error(
        "the module has {size} bytes, and this node takes {limit} at most: strip it, or build it smaller"
    )]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// Of some declaration.
    #[error("the module declares {count} {what}, and this node takes {limit} at most")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        count: u32,
        /// The limit.
        limit: u32,
    },
    /// What the parser, the validator or the translator says.
    #[error("not a valid module for this node: {0}")]
    Invalid(String),
    /// A defect of the interpreter, caught.
    #[error("the interpreter failed on this module (a defect of its own): {0}")]
    Panic(String),
}

/// Why a guest could not be started.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StartError {
    /// An import that this host does not offer.
    #[error(
        "the module imports {module}.{name}, which this node does not offer: it offers \
         wasi_snapshot_preview1 only (build for wasm32-wasip1)"
    )]
    MissingImport {
        /// The import's module.
        module: String,
        /// The import's name.
        name: String,
    },
    /// An import with another signature.
    #[error("the module imports {module}.{name} with a type that is not the one that it has")]
    ImportType {
        /// The import's module.
        module: String,
        /// The import's name.
        name: String,
    },
    /// A library.
    #[error("the module exports no function _start: it is a library, not a program (build a binary, or export one)")]
    NoStart,
    /// An export of that name which is something else.
    #[error("the module's export _start is not a function without parameters and results")]
    StartType,
    /// More memory than allowed from the first.
    #[error(
        "the module starts with {needs} bytes of memory, arguments and environment included, and its limit is \
         {limit}: raise the limit"
    )]
    Memory {
        /// What it declares.
        needs: u64,
        /// What it may have.
        limit: u64,
    },
    /// Too much of them.
    #[error("arguments and environment have {size} bytes together, and {limit} are allowed")]
    TooManyArguments {
        /// Bytes, NULs counted.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// A folder that cannot be opened.
    #[error("the folder {place:?} cannot be opened for the guest's {guest}: {error}")]
    Preopen {
        /// Path in the guest.
        guest: String,
        /// Path on the host.
        place: Place,
        /// What the file system says.
        error: String,
    },
    /// A port that cannot be given to the guest.
    #[error("the port {name} cannot be opened for the guest: {error}")]
    Listener {
        /// Its name.
        name: String,
        /// What the system says.
        error: String,
    },
    /// A standard stream that cannot be used.
    #[error("its standard streams cannot be given to the guest: {0}")]
    Stdio(String),
    /// A NUL byte.
    #[error("{0} cannot be passed to a program: it has a NUL byte in it")]
    Argument(String),
}

/// A folder of the host that a guest sees under a path of its own.
#[derive(Clone, Debug)]
pub struct Preopen {
    /// Absolute path inside the guest.
    pub guest: String,
    /// Where it is.
    pub place: Place,
    /// Writes answer EROFS.
    pub read_only: bool,
    /// What counts its files; none: a guest may fill the disk with them.
    pub account: Option<Arc<Account>>,
}

/// Where a folder of a guest's is.
#[derive(Clone)]
pub enum Place {
    /// A folder of the host by its path.
    Folder(PathBuf),
    /// A folder that is open.
    Open(Arc<OwnedFd>),
    /// It is made when the guest looks into it for the first time: most never look. May be asked more than once.
    Later(Arc<dyn Fn() -> Laying + Send + Sync>),
}

/// A folder that is being made, and what counts its files.
pub type Laying = Pin<Box<dyn Future<Output = io::Result<(OwnedFd, Option<Arc<Account>>)>> + Send>>;

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Folder(path) => path.fmt(f),
            Place::Open(fd) => fd.fmt(f),
            Place::Later(_) => f.write_str("later"),
        }
    }
}

/// A file of the host that a guest sees under a path of its own, whatever else is there.
#[derive(Clone, Debug)]
pub struct FileMount {
    /// Absolute path inside the guest.
    pub guest: String,
    /// A handle (`O_PATH`) of the file.
    pub handle: Arc<OwnedFd>,
    /// Writes answer EROFS.
    pub read_only: bool,
    /// What counts what is written to it.
    pub account: Option<Arc<Account>>,
}

/// A port that a guest finds open: one descriptor, on which it accepts.
#[derive(Debug)]
pub struct Listener {
    /// What `LISTEN_FDNAMES` calls it.
    pub name: String,
    /// Sockets that listen, one for each of its addresses.
    pub sockets: Vec<OwnedFd>,
}

/// What a guest is given.
///
/// Folders come first, from descriptor 3 up, since guests stop looking for them at the first that is none; its
/// listeners follow. A module that opens no file (it imports no `path_open`) has them the other way round: it
/// expects its listeners from 3 up. The environment says where they are, in the manner of systemd
/// (sd_listen_fds(3)): `LISTEN_FDS` of them, from `LISTEN_FDS_START` up, with the names `LISTEN_FDNAMES`.
pub struct GuestSpec {
    /// For messages: `namespace/pod/container`.
    pub name: String,
    /// argv, `args[0]` being the program.
    pub args: Vec<String>,
    /// Environment, as `NAME=value`, in order.
    pub env: Arc<[String]>,
    /// Folders, in the order of their descriptors.
    pub preopens: Arc<[Preopen]>,
    /// Files in them.
    pub files: Arc<[FileMount]>,
    /// Ports, in the order of their descriptors.
    pub listeners: Vec<Listener>,
    /// Where it may connect to; nothing: it cannot connect at all.
    pub destinations: Vec<Destination>,
    /// Its standard streams.
    pub stdio: Stdio,
    /// Limit in bytes of linear memory, tables, arguments and environment together; none: the runtime's default.
    pub memory: Option<u64>,
    /// Thousandths of a processor that it asks for: its weight, when more want to run than can.
    pub cpu_request: u32,
    /// Thousandths of a processor that it may use in each period of 100 ms; none: all that there is.
    pub cpu_limit: Option<u32>,
    /// Fuel for the whole run, about one unit an instruction; none: no end. A guest that has used it up traps.
    pub fuel: Option<u64>,
}

/// A running (or ended) guest. Cheap to clone; dropping it ends nothing.
#[derive(Clone)]
pub struct Guest {
    shared: Arc<Shared>,
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// `_start` returned (0) or `proc_exit` was called.
    Code(u32),
    /// A trap; its text.
    Trap(String),
    /// Memory or a table would have passed the limit, and the guest ended because of it.
    OutOfMemory,
    /// [`Guest::kill`] ended it.
    Killed,
    /// A panic of the interpreter or the host, caught; its text.
    Panic(String),
}

/// What a guest has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time on interpreter threads.
    pub cpu: Duration,
    /// Linear memory now, in bytes.
    pub memory: u64,
    /// Bytes that it received over connections.
    pub received: u64,
    /// Bytes that it sent over them.
    pub sent: u64,
}

impl Usage {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_add(other.cpu),
            memory: self.memory.saturating_add(other.memory),
            received: self.received.saturating_add(other.received),
            sent: self.sent.saturating_add(other.sent),
        }
    }
}

impl Runtime {
    /// Starts the interpreter threads.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(config: Config) -> io::Result<Runtime> {
        let inner = Inner {
            queue: interpreter::start(config.threads)?,
            cache: Cache::default(),
            ledger: Arc::new(Ledger::new(config.guest_memory)),
            pace: Arc::default(),
            default_memory: config.default_memory,
        };
        Ok(Runtime { inner: Arc::new(inner) })
    }

    /// Compiles (or finds, when some guest still uses it) the module with this digest. Blocks: call it on a blocking thread.
    ///
    /// # Errors
    /// When the bytes are not a core module that this engine accepts.
    pub fn compile(&self, digest: &str, bytes: &[u8]) -> Result<Module, ModuleError> {
        Ok(Module { compiled: self.inner.cache.get(digest, bytes)? })
    }

    /// The module with this digest, if some guest still uses it. Waits while it is being compiled: call it
    /// on a blocking thread.
    #[must_use]
    pub fn compiled(&self, digest: &str) -> Option<Module> {
        // No module has no bytes: what is not there is refused before anything is translated.
        self.inner.cache.get(digest, &[]).ok().map(|compiled| Module { compiled })
    }

    /// Starts a guest, whose folders are opened here: where a disk may be slow, call it on a blocking
    /// thread. It is instantiated on an interpreter thread: data segments that do not fit, and
    /// tables past their limit, end it with a trap.
    ///
    /// # Errors
    /// When the module cannot be linked or has no `_start`, or what it is given cannot be passed to it.
    pub fn spawn(&self, module: &Module, mut spec: GuestSpec) -> Result<Guest, StartError> {
        let compiled = &module.compiled;
        compiled.linkable()?;
        let limit = spec.memory.unwrap_or(self.inner.default_memory);
        let listeners_at = if compiled.opens_files { spec.preopens.len() } else { 0 };
        announce(&mut spec, listeners_at);
        let given = arguments(&spec)?;
        let needs = compiled.initial_memory.saturating_add(given);
        if needs > limit {
            return Err(StartError::Memory { needs, limit });
        }
        let shared = Arc::new(Shared::default());
        let streams = wasi::descriptors::standard(spec.stdio);
        let streams = streams.map_err(|error| StartError::Stdio(error.to_string()))?;
        let descriptors = descriptors(streams, &spec.preopens, &spec.files, spec.listeners, listeners_at)?;
        let host = Host {
            env: spec.env,
            descriptors,
            destinations: Arc::new(Destinations::new(spec.destinations)),
            args: spec.args,
            limiter: Limiter::new(limit, given, Arc::clone(&self.inner.ledger)),
            memory: None,
            pending: None,
            slice_end: Instant::now(),
            fuel_taken: 0,
            slice_cpu: Duration::ZERO,
            shared: Arc::clone(&shared),
        };
        let compute = Compute { cpu_limit: spec.cpu_limit, fuel: spec.fuel };
        let run = slices::run(Arc::clone(compiled), host, Arc::clone(&self.inner.pace), compute);
        let turn = Turn::new(spec.cpu_request, Arc::clone(&shared));
        self.inner.queue.spawn(turn, Run::new(run, Arc::clone(&shared)));
        Ok(Guest { shared })
    }

    /// Linear memory of all guests together, in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.inner.ledger.used()
    }

    /// What they may have together, in bytes.
    #[must_use]
    pub fn memory_limit(&self) -> u64 {
        self.inner.ledger.ceiling()
    }
}

/// Standard streams; from 3 up, folders and listeners: these after `listeners_at` others.
fn descriptors(
    mut descriptors: Descriptors,
    preopens: &Arc<[Preopen]>,
    files: &[FileMount],
    listeners: Vec<Listener>,
    listeners_at: usize,
) -> Result<Descriptors, StartError> {
    let listen = |descriptors: &mut Descriptors| {
        for Listener { name, sockets } in listeners {
            let failed = |error: String| StartError::Listener { name: name.clone(), error };
            let socket = Socket::listener(sockets).map_err(|error| failed(error.to_string()))?;
            descriptors.add(socket.opened(flags::UNSEEN)).map_err(|_| failed(FULL.to_owned()))?;
        }
        Ok(())
    };
    let mut mounted = Mounted::under(preopens, files);
    let mut folders = |descriptors: &mut Descriptors| {
        for (volume, preopen) in preopens.iter().enumerate() {
            let Preopen { guest, place, .. } = preopen;
            let failed =
                |error: String| StartError::Preopen { guest: guest.clone(), place: place.clone(), error };
            let files = mounted.remove(&volume);
            let object = match place {
                Place::Later(_) => {
                    let preopens = Arc::clone(preopens);
                    Object::Later(Arc::new(Unlaid { preopens, volume, files }))
                }
                _ => {
                    let folder = Folder::preopen(preopen, volume, files);
                    Object::Folder(Arc::new(folder.map_err(|error| failed(error.to_string()))?))
                }
            };
            descriptors.preopen(object).map_err(|_| failed(FULL.to_owned()))?;
        }
        Ok(())
    };
    if listeners_at == 0 {
        listen(&mut descriptors)?;
        folders(&mut descriptors)?;
    } else {
        folders(&mut descriptors)?;
        listen(&mut descriptors)?;
    }
    Ok(descriptors)
}

/// Says in the environment where the listeners are: in place of what the pod says there, which knows less.
fn announce(spec: &mut GuestSpec, listeners_at: usize) {
    if spec.listeners.is_empty() {
        return;
    }
    let names: Vec<&str> = spec.listeners.iter().map(|listener| listener.name.as_str()).collect();
    let own = [
        format!("LISTEN_FDS={}", names.len()),
        format!("LISTEN_FDNAMES={}", names.join(":")),
        format!("LISTEN_FDS_START={}", listeners_at.saturating_add(FIRST_PREOPEN)),
    ];
    let name = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
    let others = spec.env.iter().filter(|text| own.iter().all(|own| name(own) != name(text))).cloned();
    spec.env = others.chain(own.iter().cloned()).collect();
}

/// The bytes of environment and arguments, once they have been checked.
fn arguments(spec: &GuestSpec) -> Result<u64, StartError> {
    let all = || spec.env.iter().chain(&spec.args);
    let size = all().map(|text| text.len().saturating_add(1)).fold(0, usize::saturating_add);
    if size > MAX_ARGUMENTS {
        return Err(StartError::TooManyArguments { size, limit: MAX_ARGUMENTS });
    }
    match all().find(|text| text.contains('\0')) {
        Some(text) => Err(StartError::Argument(format!("{text:?}"))),
        None => Ok(u64::try_from(size).unwrap_or(u64::MAX)),
    }
}

impl Guest {
    /// Ends the guest at its next slice or suspension. Idempotent.
    pub fn kill(&self) {
        self.shared.kill();
    }
    /// Waits for the end.
    pub async fn wait(&self) -> Exit {
        self.shared.wait().await
    }
    /// What it has used.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.shared.usage()
    }
    /// Whether it has ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.shared.ended()
    }
}
