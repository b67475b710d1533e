//! A guest's standard streams, and their other ends for a client who is connected to them.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::pipe::{pipe_with, PipeFlags};
use rustix::pty::{grantpt, ioctl_tiocgptpeer, openpt, unlockpt, OpenptFlags};
use rustix::termios::{tcsetwinsize, Winsize};

/// Where a guest's stdout or stderr goes. Called on an interpreter thread: must not block for long.
pub trait Output: Send + Sync {
    /// Takes all of `bytes`.
    ///
    /// # Errors
    /// What the guest's `fd_write` should answer (EIO, ENOSPC).
    fn write(&self, bytes: &[u8]) -> io::Result<()>;
}

/// Where a guest's stdout or stderr goes.
pub enum Outlet {
    /// To somebody who takes all of it.
    Taken(Arc<dyn Output>),
    /// Into a pipe or a terminal, opened non-blocking: the guest waits while it is full.
    Open(OwnedFd),
}

/// A guest's standard streams.
pub struct Stdio {
    /// Standard input: a file, or a pipe or a terminal opened non-blocking; none: at its end.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Outlet,
    /// Standard error.
    pub stderr: Outlet,
}

/// Takes everything, and keeps nothing.
struct Nowhere;

impl Output for Nowhere {
    fn write(&self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

impl Stdio {
    /// No input, and all output to one.
    #[must_use]
    pub fn into_one(output: Arc<dyn Output>) -> Stdio {
        Stdio { stdin: None, stdout: Outlet::Taken(output.clone()), stderr: Outlet::Taken(output) }
    }
}

/// Which of a guest's streams a client is connected to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error. With a terminal there is none of its own.
    pub stderr: bool,
    /// All three are a terminal.
    pub tty: bool,
}

/// The other ends of a guest's streams, all non-blocking.
#[derive(Debug, Default)]
pub struct Ends {
    /// Writes to its standard input.
    pub stdin: Option<OwnedFd>,
    /// Reads its standard output.
    pub stdout: Option<OwnedFd>,
    /// Reads its standard error.
    pub stderr: Option<OwnedFd>,
    /// The terminal, if they are one.
    pub terminal: Option<Terminal>,
}

/// The master side of a pseudo-terminal.
#[derive(Debug)]
pub struct Terminal(OwnedFd);

impl Terminal {
    /// Another handle of it.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn again(&self) -> io::Result<Terminal> {
        self.0.try_clone().map(Terminal)
    }

    /// Sets its size, in characters.
    ///
    /// # Errors
    /// What the system says.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(&self.0, size)?)
    }
}

/// Makes streams for a guest and their other ends: pipes, or one terminal. What is not wanted is at its end, or
/// goes nowhere.
///
/// # Errors
/// When there are no more descriptors, or no terminals.
pub fn connected(wanted: Wanted) -> io::Result<(Stdio, Ends)> {
    if wanted.tty {
        return terminal(wanted);
    }
    let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
    let mut ends = Ends::default();
    let mut stdin = None;
    if wanted.stdin {
        let (read, write) = pipe_with(flags)?;
        (stdin, ends.stdin) = (Some(read), Some(write));
    }
    let outlet = |wanted: bool, end: &mut Option<OwnedFd>| -> io::Result<Outlet> {
        if !wanted {
            return Ok(Outlet::Taken(Arc::new(Nowhere)));
        }
        let (read, write) = pipe_with(flags)?;
        *end = Some(read);
        Ok(Outlet::Open(write))
    };
    let stdout = outlet(wanted.stdout, &mut ends.stdout)?;
    let stderr = outlet(wanted.stderr, &mut ends.stderr)?;
    Ok((Stdio { stdin, stdout, stderr }, ends))
}

/// A terminal as it is when it is new: it echoes, and gives a guest whole lines.
fn terminal(wanted: Wanted) -> io::Result<(Stdio, Ends)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags | OpenptFlags::from_bits_retain(OFlags::NONBLOCK.bits()))?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, flags | OpenptFlags::from_bits_retain(OFlags::NONBLOCK.bits()))?;
    let stdio = Stdio {
        stdin: wanted.stdin.then(|| slave.try_clone()).transpose()?,
        stdout: Outlet::Open(slave.try_clone()?),
        stderr: Outlet::Open(slave),
    };
    let ends = Ends {
        stdin: wanted.stdin.then(|| master.try_clone()).transpose()?,
        // Read, wanted or not: it must not fill up.
        stdout: Some(master.try_clone()?),
        stderr: None,
        terminal: Some(Terminal(master)),
    };
    Ok((stdio, ends))
}
