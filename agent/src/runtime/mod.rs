//! Runs WASI modules as guests, in slices of fuel, on the interpreter threads. Knows no Kubernetes type.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How the runtime is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Interpreter threads; 0 means one a core.
    pub threads: usize,
    /// Linear-memory limit, in bytes, of a guest that names none.
    pub default_memory: u64,
}

/// The engine and its interpreter threads. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {}

/// A compiled module, shared by every guest that runs it.
#[derive(Clone)]
pub struct Module {}

/// Why bytes are not a module that can run here.
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct ModuleError;

/// Why a guest could not be started (an import that this host does not offer, …).
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct StartError;

/// Where a guest's stdout or stderr goes. Called on an interpreter thread: must not block for long.
pub trait Output: Send + Sync {
    /// Takes all of `bytes`.
    ///
    /// # Errors
    /// What the guest's `fd_write` should answer (EIO, ENOSPC).
    fn write(&self, bytes: &[u8]) -> io::Result<()>;
}

/// A folder of the host that a guest sees under a path of its own.
#[derive(Clone, Debug)]
pub struct Preopen {
    /// Absolute path inside the guest.
    pub guest: String,
    /// Folder on the host.
    pub host: PathBuf,
    /// Writes answer EROFS.
    pub read_only: bool,
}

/// What a guest is given.
pub struct GuestSpec {
    /// For messages: `namespace/pod/container`.
    pub name: String,
    /// argv, `args[0]` being the program.
    pub args: Vec<String>,
    /// Environment, in order.
    pub env: Vec<(String, String)>,
    /// Folders, in the order of their file descriptors, from 3 up.
    pub preopens: Vec<Preopen>,
    /// Where stdout goes.
    pub stdout: Arc<dyn Output>,
    /// Where stderr goes.
    pub stderr: Arc<dyn Output>,
    /// Limit of linear memory in bytes; none: the runtime's default.
    pub memory: Option<u64>,
}

/// A running (or ended) guest. Cheap to clone; dropping it ends nothing.
#[derive(Clone)]
pub struct Guest {}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// `_start` returned (0) or `proc_exit` was called.
    Code(u32),
    /// A trap; its text.
    Trap(String),
    /// Linear memory would have passed its limit and the guest ended because of it.
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
}

impl Runtime {
    /// Starts the interpreter threads.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(_config: Config) -> io::Result<Runtime> {
        Ok(Runtime {})
    }

    /// Compiles (or finds, when some guest still uses it) the module with this digest. Blocks: call it on a blocking thread.
    ///
    /// # Errors
    /// When the bytes are not a core module that this engine accepts.
    pub fn compile(&self, _digest: &str, _bytes: &[u8]) -> Result<Module, ModuleError> {
        Ok(Module {})
    }

    /// Starts a guest.
    ///
    /// # Errors
    /// When the module cannot be linked or has no `_start`.
    pub fn spawn(&self, _module: &Module, _spec: GuestSpec) -> Result<Guest, StartError> {
        Ok(Guest {})
    }
}

impl Guest {
    /// Ends the guest at its next slice or suspension. Idempotent.
    pub fn kill(&self) {}
    /// Waits for the end.
    pub async fn wait(&self) -> Exit {
        Exit::Killed
    }
    /// What it has used.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage::default()
    }
}
