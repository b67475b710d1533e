//! Resolution of a guest's paths: nothing outside the folder that they start from can be reached.
//!
//! The kernel resolves, by `openat2` with `RESOLVE_BENEATH` (Linux 5.6): `..` above the folder, absolute
//! paths, symbolic links that lead out, and renames that race with any of these, all fail. Calls that the
//! kernel has no such form of work on the last name within its parent folder, resolved in that way; a last
//! name that ends with a slash would have a link followed, and is therefore resolved whole. Where the kernel
//! is older, `walk` does the same name by name.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{openat, openat2, Mode, OFlags, ResolveFlags};
use rustix::io::Errno as HostErrno;

use super::{walk, Errno};
use crate::runtime::quota::Account;
use crate::runtime::Preopen;

/// Times that a lookup is begun again when a rename elsewhere disturbed it (openat2(2), EAGAIN).
const RETRIES: usize = 64;

/// A folder of the host that a guest has open.
#[derive(Debug)]
pub struct Folder {
    /// The folder.
    pub fd: OwnedFd,
    /// Which of the guest's volumes it lies in: no file can be renamed or linked from one to another.
    pub volume: usize,
    /// Whether every write answers EROFS.
    pub read_only: bool,
    /// Whether paths are resolved by `walk`: the kernel has no `openat2`.
    pub walks: bool,
    /// What counts the files of its volume; none: nobody does.
    pub account: Option<Arc<Account>>,
    /// The guest's path of a preopened folder; none for one that the guest has opened.
    pub name: Option<String>,
}

/// How a path is opened.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Flags of open(2).
    pub flags: OFlags,
    /// Whether only what the kernel has in memory may be used: EAGAIN where that is not enough.
    pub cached: bool,
}

impl Folder {
    /// Opens a folder of the host as the guest's volume number `volume`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn preopen(preopen: &Preopen, volume: usize) -> io::Result<Folder> {
        let Preopen { guest, host, read_only, account } = preopen;
        let fd = OwnedFd::from(File::open(host)?);
        let mut folder = Folder {
            fd,
            volume,
            read_only: *read_only,
            walks: false,
            account: account.clone(),
            name: Some(guest.clone()),
        };
        let how = How { flags: OFlags::RDONLY | OFlags::DIRECTORY, cached: false };
        match folder.open_at(".", how) {
            Ok(_) => {}
            // No openat2, or a sandbox around the agent that does not know it.
            Err(HostErrno::NOSYS | HostErrno::PERM) => folder.walks = true,
            Err(error) => return Err(error.into()),
        }
        Ok(folder)
    }

    /// EROFS in a read-only volume.
    pub fn writable(&self) -> Result<(), Errno> {
        if self.read_only {
            Err(Errno::Rofs)
        } else {
            Ok(())
        }
    }

    /// Opens `path` beneath this folder.
    pub fn open(&self, path: &str, how: How) -> Result<OwnedFd, Errno> {
        let open = || self.open_at(path, how).map_err(outside);
        match &self.account {
            // Neither makes anything nor cuts it (openat2(2), RESOLVE_CACHED).
            Some(account) if !how.cached => {
                let follow = !how.flags.contains(OFlags::NOFOLLOW);
                account.opening(how.flags, || self.handle(path, follow, false), open)
            }
            _ => open(),
        }
    }

    /// `make` makes the name `name` in `parent`.
    pub fn making<T>(
        &self,
        parent: &OwnedFd,
        name: &str,
        make: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match &self.account {
            Some(account) => account.making(|| named(parent, name), make),
            None => make(),
        }
    }

    /// `remove` takes the name `name` in `parent` away.
    pub fn removing<T>(
        &self,
        parent: &OwnedFd,
        name: &str,
        remove: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match &self.account {
            Some(account) => account.removing(|| named(parent, name), remove),
            None => remove(),
        }
    }

    /// `rename` gives what is called `old` the name `new`; each is in a parent.
    pub fn renaming<T>(
        &self,
        old: (&OwnedFd, &str),
        new: (&OwnedFd, &str),
        rename: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match &self.account {
            Some(account) => account.renaming(|| named(old.0, old.1), || named(new.0, new.1), rename),
            None => rename(),
        }
    }

    fn open_at(&self, path: &str, how: How) -> rustix::io::Result<OwnedFd> {
        // A handle takes no other flags than these (openat2(2), EINVAL).
        let terminal = if how.flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NOCTTY };
        let flags = how.flags | OFlags::CLOEXEC | terminal;
        let creates = flags.intersects(OFlags::CREATE);
        let mode = if creates { Mode::from_raw_mode(0o666) } else { Mode::empty() };
        if self.walks {
            return if how.cached {
                Err(HostErrno::AGAIN)
            } else {
                walk::open(self.fd.as_fd(), path, flags, mode)
            };
        }
        let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        if how.cached {
            resolve |= ResolveFlags::CACHED;
        }
        let mut last = HostErrno::AGAIN;
        for _ in 0..RETRIES {
            match openat2(&self.fd, path, flags, mode, resolve) {
                Err(error @ (HostErrno::AGAIN | HostErrno::INTR)) if !how.cached => last = error,
                other => return other,
            }
        }
        Err(last)
    }

    /// A handle (`O_PATH`) of what `path` names, following a last symbolic link or not.
    pub fn handle(&self, path: &str, follow: bool, cached: bool) -> Result<OwnedFd, Errno> {
        let nofollow = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        self.open(path, How { flags: OFlags::PATH | nofollow, cached })
    }

    /// The folder that the last name of `path` is in, and that name, which may end with slashes.
    /// `.` and `..` are not names: `refused` is what they answer.
    pub fn parent<'a>(&self, path: &'a str, refused: Errno) -> Result<(OwnedFd, &'a str), Errno> {
        let stem = path.trim_end_matches('/');
        let at = stem.rfind('/').map_or(0, |slash| slash.saturating_add(1));
        let (folder, name) = path.split_at_checked(at).unwrap_or(("", path));
        let bare = name.trim_end_matches('/');
        if path.is_empty() {
            return Err(Errno::Noent);
        }
        if bare.is_empty() {
            // Only slashes: an absolute path.
            return Err(Errno::Perm);
        }
        let folder = if folder.is_empty() { "." } else { folder };
        let how = How { flags: OFlags::PATH | OFlags::DIRECTORY, cached: false };
        let parent = self.open(folder, how)?;
        if bare == "." || bare == ".." {
            // Whether it may be reached at all comes first.
            self.open(path, how)?;
            return Err(refused);
        }
        Ok((parent, name))
    }
}

/// A handle of what is called `name` in `parent`: of a symbolic link itself.
fn named(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, name.trim_end_matches('/'), flags, Mode::empty())?)
}

/// A path that leads outside is EPERM, whatever is there.
fn outside(error: HostErrno) -> Errno {
    match error {
        HostErrno::XDEV => Errno::Perm,
        error => error.into(),
    }
}
