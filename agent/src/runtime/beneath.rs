//! Opening what a path names beneath a folder, and nothing outside of it.
//!
//! The kernel resolves, by `openat2` with `RESOLVE_BENEATH` (Linux 5.6): `..` above the folder, absolute
//! paths, symbolic links that lead out, and renames that race with any of these, all fail with EXDEV. Where the kernel
//! is older, `walk` does the same name by name.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{mkdirat, open, openat2, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

use super::walk;

/// Times that a lookup is begun again when a rename elsewhere disturbed it (openat2(2), EAGAIN).
const RETRIES: usize = 64;

/// A folder that paths are resolved beneath.
#[derive(Debug)]
pub struct Beneath {
    /// The folder.
    pub fd: OwnedFd,
    /// Whether paths are resolved by `walk`: the kernel has no `openat2`.
    pub walks: bool,
}

impl Beneath {
    /// Resolves paths beneath `fd` from now on.
    ///
    /// # Errors
    /// What the file system says.
    pub fn new(fd: OwnedFd) -> io::Result<Beneath> {
        let beneath = Beneath { fd, walks: false };
        match beneath.open(".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty(), false) {
            Ok(_) => Ok(beneath),
            // No openat2, or a sandbox around the agent that does not know it.
            Err(Errno::NOSYS | Errno::PERM) => Ok(Beneath { walks: true, ..beneath }),
            Err(error) => Err(error.into()),
        }
    }

    /// The folder `path` of the host.
    ///
    /// # Errors
    /// What the file system says.
    pub fn of(path: &Path) -> io::Result<Beneath> {
        Beneath::new(open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Opens `path`; `cached`: only by what the kernel has in memory, EAGAIN where that is not enough.
    pub fn open(&self, path: &str, flags: OFlags, mode: Mode, cached: bool) -> Result<OwnedFd> {
        if self.walks {
            return if cached { Err(Errno::AGAIN) } else { walk::open(self.fd.as_fd(), path, flags, mode) };
        }
        let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        if cached {
            resolve |= ResolveFlags::CACHED;
        }
        let mut last = Errno::AGAIN;
        for _ in 0..RETRIES {
            match openat2(&self.fd, path, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(error @ (Errno::AGAIN | Errno::INTR)) if !cached => last = error,
                other => return other,
            }
        }
        Err(last)
    }

    /// A handle (`O_PATH`) of what `path` names, links followed.
    ///
    /// # Errors
    /// What the file system says.
    pub fn handle(&self, path: &str) -> Result<OwnedFd> {
        self.open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), false)
    }

    /// Makes the folder `path` and its parents, where they are not there, with this mode.
    ///
    /// # Errors
    /// What the file system says.
    pub fn make_folders(&self, path: &str, mode: Mode) -> Result<()> {
        let mut at = String::new();
        let mut parent: Option<OwnedFd> = None;
        for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
            at.push_str(name);
            let made = mkdirat(parent.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd), name, mode);
            match made {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            parent = Some(self.open(&at, OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), false)?);
            at.push('/');
        }
        Ok(())
    }
}

impl AsFd for Beneath {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
