//! The host's side of WASI preview 1: all 46 calls of `wasi_snapshot_preview1`, and [`connections`] beside them.
//!
//! A call is a plain function over the guest's memory, its [`Host`] and its arguments. It answers at
//! once with an [`Errno`], ends the guest ([`Stop::Trap`], [`Stop::Exit`]), or says what it must wait
//! for ([`Stop::Wait`]): then the guest is suspended, the interpreter thread runs others, and what is
//! to follow runs when the wait is over (see `slices`). No call blocks an interpreter thread, and
//! none moves more than [`abi::CHUNK`] bytes at a time.

pub mod abi;
mod args;
pub mod clocks;
mod connections;
pub mod descriptors;
mod errno;
pub mod files;
mod filestat;
pub mod folder;
pub mod mounted;
mod paths;
mod poll;
mod process;
mod random;
pub mod sockets;
mod transfer;

use std::future::Future;
use std::os::fd::OwnedFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_io::Async;
use wasmi::errors::HostError;
use wasmi::{Caller, Error, FuncType, Linker, Val, ValType};

pub use self::abi::Memory;
use self::descriptors::{Descriptors, Object};
pub use self::errno::Errno;
use self::files::File;
use self::sockets::Socket;
use super::destinations::Destinations;
use super::engine::panic_text;
use super::guest::Shared;
use super::limits::Limiter;

/// The import module of preview 1.
pub const MODULE: &str = "wasi_snapshot_preview1";

/// What a call answers: nothing more to say (errno 0), or why the guest does not go on as before.
pub type Wasi<T> = Result<T, Stop>;

/// What follows a wait.
pub type Then = Box<dyn FnOnce(&mut Memory<'_>, &mut Host) -> Wasi<()> + Send>;

/// Why a call does not answer success at once.
pub enum Stop {
    /// The call answers this.
    Errno(Errno),
    /// The guest ends with a trap of this text.
    Trap(String),
    /// `proc_exit`: the guest ends with this code.
    Exit(u32),
    /// The guest waits.
    Wait(Wait),
    /// The folder of this descriptor is not there yet: it is made, and then the call is made again.
    Lay(u32),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Stop {
        Stop::Errno(errno)
    }
}

impl From<rustix::io::Errno> for Stop {
    fn from(error: rustix::io::Errno) -> Stop {
        Stop::Errno(error.into())
    }
}

/// What a guest waits for.
pub enum Wait {
    /// For every other guest to have had its turn.
    Turn(Then),
    /// For work that may block, done on a blocking thread.
    Blocking(Box<dyn FnOnce() -> Then + Send>),
    /// For work of the agent's.
    Work(Pin<Box<dyn Future<Output = Then> + Send>>),
    /// For a time, or for one of some descriptors of the host, whichever comes first.
    Until {
        /// The time; none: never.
        deadline: Option<Instant>,
        /// Each to become readable or writable.
        waited: Vec<(Waited, Interest)>,
        /// What follows.
        then: Then,
    },
}

impl Wait {
    /// Work for a blocking thread.
    pub fn blocking(work: impl FnOnce() -> Then + Send + 'static) -> Wait {
        Wait::Blocking(Box::new(work))
    }
}

/// What can be waited for.
pub enum Waited {
    /// A copy of a FIFO's, a terminal's or a device's descriptor.
    File(Async<OwnedFd>),
    /// A socket.
    Socket(Arc<Socket>),
}

impl Waited {
    /// A file; none where the kernel cannot tell of it, which then is always ready.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn file(file: &File) -> Result<Option<Waited>, Errno> {
        let copy = rustix::io::fcntl_dupfd_cloexec(&file.fd, 0)?;
        Ok(Async::new_nonblocking(copy).ok().map(Waited::File))
    }

    /// Ready once it can be read from or written to.
    pub fn poll_ready(&self, interest: Interest, context: &mut Context<'_>) -> Poll<()> {
        match (self, interest) {
            (Waited::File(file), Interest::Read) => file.poll_readable(context).map(drop),
            (Waited::File(file), Interest::Write) => file.poll_writable(context).map(drop),
            (Waited::Socket(socket), interest) => socket.poll_ready(interest, context),
        }
    }
}

/// What a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Readable, or at its end.
    Read,
    /// Writable, or closed at its other end.
    Write,
}

/// Everything that one guest's calls work on: the data of its store.
pub struct Host {
    /// argv
    pub args: Vec<String>,
    /// `NAME=value`
    pub env: Arc<[String]>,
    /// Open descriptors.
    pub descriptors: Descriptors,
    /// Where it may connect to.
    pub destinations: Arc<Destinations>,
    /// What bounds memory and tables.
    pub limiter: Limiter,
    /// The exported `memory`; none before instantiation, and in a guest that exports none.
    pub memory: Option<wasmi::Memory>,
    /// What the suspended guest waits for.
    pub pending: Option<Wait>,
    /// When the slice that runs now should end. A host call that returns later takes the fuel that is left.
    pub slice_end: Instant,
    /// Fuel that was taken so.
    pub fuel_taken: u64,
    /// CPU clock of the thread when the slice that runs now began.
    pub slice_cpu: Duration,
    /// The guest as others see it.
    pub shared: Arc<Shared>,
}

/// The arguments of one call, which the linker has checked against its signature.
#[derive(Clone, Copy)]
pub struct Args<'a>(&'a [Val]);

impl Args<'_> {
    /// The 32-bit argument at `index`.
    fn u32(self, index: usize) -> u32 {
        match self.0.get(index) {
            Some(Val::I32(value)) => u32::from_ne_bytes(value.to_ne_bytes()),
            _ => 0,
        }
    }
    /// The 64-bit argument at `index`.
    fn u64(self, index: usize) -> u64 {
        u64::from_ne_bytes(self.i64(index).to_ne_bytes())
    }
    /// The signed 64-bit argument at `index`.
    fn i64(self, index: usize) -> i64 {
        match self.0.get(index) {
            Some(Val::I64(value)) => *value,
            _ => 0,
        }
    }
}

type Call = fn(&mut Memory<'_>, &mut Host, Args<'_>) -> Wasi<()>;

/// Every call: its name, its parameters (`i` 32 bits, `I` 64 bits) and what answers it. All but
/// `proc_exit` return an errno.
const CALLS: [(&str, &str, Call); 46] = [
    ("args_get", "ii", args::args_get),
    ("args_sizes_get", "ii", args::args_sizes_get),
    ("clock_res_get", "ii", clocks::clock_res_get),
    ("clock_time_get", "iIi", clocks::clock_time_get),
    ("environ_get", "ii", args::environ_get),
    ("environ_sizes_get", "ii", args::environ_sizes_get),
    ("fd_advise", "iIIi", files::fd_advise),
    ("fd_allocate", "iII", files::fd_allocate),
    ("fd_close", "i", descriptors::fd_close),
    ("fd_datasync", "i", files::fd_datasync),
    ("fd_fdstat_get", "ii", descriptors::fd_fdstat_get),
    ("fd_fdstat_set_flags", "ii", descriptors::fd_fdstat_set_flags),
    ("fd_fdstat_set_rights", "iII", descriptors::fd_fdstat_set_rights),
    ("fd_filestat_get", "ii", files::fd_filestat_get),
    ("fd_filestat_set_size", "iI", files::fd_filestat_set_size),
    ("fd_filestat_set_times", "iIIi", files::fd_filestat_set_times),
    ("fd_pread", "iiiIi", transfer::fd_pread),
    ("fd_prestat_dir_name", "iii", descriptors::fd_prestat_dir_name),
    ("fd_prestat_get", "ii", descriptors::fd_prestat_get),
    ("fd_pwrite", "iiiIi", transfer::fd_pwrite),
    ("fd_read", "iiii", transfer::fd_read),
    ("fd_readdir", "iiiIi", files::fd_readdir),
    ("fd_renumber", "ii", descriptors::fd_renumber),
    ("fd_seek", "iIii", files::fd_seek),
    ("fd_sync", "i", files::fd_sync),
    ("fd_tell", "ii", files::fd_tell),
    ("fd_write", "iiii", transfer::fd_write),
    ("path_create_directory", "iii", paths::path_create_directory),
    ("path_filestat_get", "iiiii", paths::path_filestat_get),
    ("path_filestat_set_times", "iiiiIIi", paths::path_filestat_set_times),
    ("path_link", "iiiiiii", paths::path_link),
    ("path_open", "iiiiiIIii", paths::path_open),
    ("path_readlink", "iiiiii", paths::path_readlink),
    ("path_remove_directory", "iii", paths::path_remove_directory),
    ("path_rename", "iiiiii", paths::path_rename),
    ("path_symlink", "iiiii", paths::path_symlink),
    ("path_unlink_file", "iii", paths::path_unlink_file),
    ("poll_oneoff", "iiii", poll::poll_oneoff),
    ("proc_exit", "i", process::proc_exit),
    ("proc_raise", "i", process::proc_raise),
    ("random_get", "ii", random::random_get),
    ("sched_yield", "", process::sched_yield),
    ("sock_accept", "iii", sockets::sock_accept),
    ("sock_recv", "iiiiii", sockets::sock_recv),
    ("sock_send", "iiiii", sockets::sock_send),
    ("sock_shutdown", "ii", sockets::sock_shutdown),
];

/// The calls of WasmEdge's extension, from the same import module (see [`connections`]).
const EXTENSION: [(&str, &str, Call); 12] = [
    ("sock_open", "iii", connections::sock_open),
    ("sock_connect", "iii", connections::sock_connect),
    ("sock_getaddrinfo", "iiiiiiii", connections::sock_getaddrinfo),
    ("sock_getpeeraddr", "iiii", connections::sock_getpeeraddr),
    ("sock_getlocaladdr", "iiii", connections::sock_getlocaladdr),
    ("sock_getsockopt", "iiiii", connections::sock_getsockopt),
    ("sock_setsockopt", "iiiii", connections::sock_setsockopt),
    // A listener that it was given, or could open elsewhere.
    ("sock_accept", "ii", connections::sock_accept),
    ("sock_bind", "iii", connections::not_offered),
    ("sock_listen", "ii", connections::not_offered),
    ("sock_recv_from", "iiiiiiii", connections::not_offered),
    ("sock_send_to", "iiiiiii", connections::not_offered),
];

/// Every call that a module can import.
fn calls() -> impl Iterator<Item = (&'static str, &'static str, Call)> {
    CALLS.into_iter().chain(EXTENSION)
}

/// Whether there is a call of this name.
#[must_use]
pub fn offers(name: &str) -> bool {
    calls().any(|(known, ..)| known == name)
}

fn func_type(name: &str, params: &str) -> FuncType {
    let params = params.chars().map(|param| if param == 'I' { ValType::I64 } else { ValType::I32 });
    let results: &[ValType] = if name == "proc_exit" { &[] } else { &[ValType::I32] };
    FuncType::new(params.collect::<Vec<_>>(), results.iter().copied())
}

/// Adds the call named `name` with the type `wanted` to `linker`. False: there is none of that type.
///
/// # Errors
/// When one of its name is there already.
pub fn link(linker: &mut Linker<Host>, name: &str, wanted: &FuncType) -> Result<bool, Error> {
    let found = calls().find(|(known, params, _)| *known == name && func_type(known, params) == *wanted);
    let Some((name, params, call)) = found else { return Ok(false) };
    linker.func_new(MODULE, name, func_type(name, params), move |caller, params, results| {
        enter(caller, call, Args(params), results)
    })?;
    Ok(true)
}

/// The guest waits: it is resumed with an errno when the wait is over.
#[derive(Debug, thiserror::Error)]
#[error("suspended")]
pub struct Suspended;
impl HostError for Suspended {}

/// The guest has called `proc_exit` with this code.
#[derive(Debug, thiserror::Error)]
#[error("exited with code {0}")]
pub struct Exited(pub u32);
impl HostError for Exited {}

/// A call of the host's has panicked with this text. It is caught here because wasmi's handlers are
/// `extern "C"` functions: a panic that reached one would abort the process.
#[derive(Debug, thiserror::Error)]
#[error("panicked: {0}")]
pub struct Panicked(pub String);
impl HostError for Panicked {}

fn enter(mut caller: Caller<'_, Host>, call: Call, args: Args<'_>, results: &mut [Val]) -> Result<(), Error> {
    let answer = catch_unwind(AssertUnwindSafe(|| {
        with_memory(&mut caller, |memory, host| answer(memory, host, call, args))
    }))
    .map_err(|panic| Error::host(Panicked(panic_text(&*panic))))?;
    if Instant::now() >= caller.data().slice_end {
        let left = caller.get_fuel()?;
        let taken = &mut caller.data_mut().fuel_taken;
        *taken = taken.saturating_add(left);
        caller.set_fuel(0)?;
    }
    let errno = match answer {
        Ok(()) => Errno::Success,
        Err(Stop::Errno(errno)) => errno,
        Err(Stop::Trap(text)) => return Err(Error::new(text)),
        Err(Stop::Exit(code)) => return Err(Error::host(Exited(code))),
        Err(Stop::Wait(wait)) => {
            caller.data_mut().pending = Some(wait);
            return Err(Error::host(Suspended));
        }
        Err(Stop::Lay(_)) => Errno::Badf,
    };
    if let Some(result) = results.first_mut() {
        *result = errno_value(errno);
    }
    Ok(())
}

/// Makes a call, once the folders are there that it works on.
fn answer(memory: &mut Memory<'_>, host: &mut Host, call: Call, args: Args<'_>) -> Wasi<()> {
    let done = call(memory, host, args);
    let Err(Stop::Lay(fd)) = done else { return done };
    let Object::Later(unlaid) = &host.descriptors.get(fd)?.object else { return Err(Errno::Badf.into()) };
    let (unlaid, args) = (Arc::clone(unlaid), Box::<[Val]>::from(args.0));
    Err(Stop::Wait(Wait::Work(Box::pin(async move {
        let laid = unlaid.lay().await;
        let then: Then = Box::new(move |memory, host| {
            let folder = laid.map_err(Errno::from)?;
            host.descriptors.get_mut(fd)?.object = Object::Folder(Arc::new(folder));
            answer(memory, host, call, Args(&args))
        });
        then
    }))))
}

/// An errno as a call returns it.
#[must_use]
pub fn errno_value(errno: Errno) -> Val {
    Val::I32(i32::from(errno as u16))
}

/// Runs `work` on the guest's memory and its host. A guest that exports no `memory` has an empty one:
/// a pointer into it traps.
pub fn with_memory<T>(
    store: &mut impl wasmi::AsContextMut<Data = Host>,
    work: impl FnOnce(&mut Memory<'_>, &mut Host) -> T,
) -> T {
    let mut store = store.as_context_mut();
    match store.data().memory {
        Some(memory) => {
            let (bytes, host) = memory.data_and_store_mut(&mut store);
            work(&mut Memory::new(bytes), host)
        }
        None => work(&mut Memory::new(&mut []), store.data_mut()),
    }
}
