//! A folder of a guest's volumes, and its paths: nothing outside of it can be reached ([`beneath`]).
//!
//! Calls that the kernel has no such form of work on the last name within its parent folder, resolved in that way; a
//! last name that ends with a slash would have a link followed, and is therefore resolved whole.
//!
//! [`beneath`]: crate::runtime::beneath

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{openat, Mode, OFlags};
use rustix::io::Errno as HostErrno;

use super::mounted::{self, Mounted};
use super::Errno;
use crate::control;
use crate::runtime::beneath::Beneath;
use crate::runtime::quota::Account;
use crate::runtime::{FileMount, Place, Preopen};

/// A folder of the host that a guest has open.
#[derive(Debug)]
pub struct Folder {
    /// The folder.
    pub at: Beneath,
    /// Which of the guest's volumes it lies in: no file can be renamed or linked from one to another.
    pub volume: usize,
    /// Whether every write answers EROFS.
    pub read_only: bool,
    /// What counts the files of its volume; none: nobody does.
    pub account: Option<Arc<Account>>,
    /// Files that have paths of their own in it.
    pub files: Option<Arc<Mounted>>,
    /// The guest's path of a preopened folder; none for one that the guest has opened.
    pub name: Option<String>,
}

/// A preopened folder that is made when its guest first looks into it.
pub struct Unlaid {
    /// The folders that the guest is given, of which it is one.
    pub preopens: Arc<[Preopen]>,
    /// Which of them: as in [`Folder`].
    pub volume: usize,
    /// As in [`Folder`].
    pub files: Option<Arc<Mounted>>,
}

impl Unlaid {
    /// Its path for the guest.
    pub fn guest(&self) -> Option<&str> {
        self.preopens.get(self.volume).map(|preopen| preopen.guest.as_str())
    }

    /// Makes the folder.
    ///
    /// # Errors
    /// What the file system says, or whoever knows what is in it.
    pub async fn lay(self: Arc<Self>) -> io::Result<Folder> {
        let Some(preopen @ Preopen { place: Place::Later(lay), .. }) = self.preopens.get(self.volume) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let (fd, account) = lay().await?;
        let account = account.or_else(|| preopen.account.clone());
        let preopen = Preopen { place: Place::Open(Arc::new(fd)), account, ..preopen.clone() };
        control::blocking(move || Folder::preopen(&preopen, self.volume, self.files.clone())).await
    }
}

/// Opens the file that `path` names, for reading, as a guest would that has these folders and files.
///
/// # Errors
/// What it would be told.
pub async fn open_as_guest(
    preopens: &Arc<[Preopen]>,
    files: &[FileMount],
    path: &str,
) -> io::Result<OwnedFd> {
    let plain = mounted::plain(path).ok_or(io::ErrorKind::NotFound)?;
    let folders = preopens.iter().enumerate().filter_map(|(index, folder)| {
        let at = mounted::plain(&folder.guest)?;
        mounted::below(&plain, &at).map(|rest| (at.len(), index, folder, rest))
    });
    let innermost = folders.max_by_key(|(len, ..)| *len);
    let (_, volume, preopen, rest) = innermost.ok_or(io::ErrorKind::NotFound)?;
    let files = Mounted::under(preopens, files).remove(&volume);
    let folder = if let Place::Later(_) = &preopen.place {
        Arc::new(Unlaid { preopens: preopens.clone(), volume, files }).lay().await?
    } else {
        let preopen = preopen.clone();
        control::blocking(move || Folder::preopen(&preopen, volume, files)).await?
    };
    let (rest, how) = (rest.to_owned(), How { flags: OFlags::RDONLY | OFlags::NONBLOCK, cached: false });
    let opened = control::blocking(move || folder.open(&rest, how)).await;
    opened.map_err(|errno| match errno {
        Errno::Noent | Errno::Notdir => io::ErrorKind::NotFound.into(),
        Errno::Perm | Errno::Acces => io::ErrorKind::PermissionDenied.into(),
        errno => io::Error::other(format!("{errno:?}")),
    })
}

/// What holds for what a path names.
pub struct Terms<'f> {
    /// Whether every write answers EROFS.
    pub read_only: bool,
    /// What counts what is written.
    pub account: Option<&'f Arc<Account>>,
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
    pub fn preopen(preopen: &Preopen, volume: usize, files: Option<Arc<Mounted>>) -> io::Result<Folder> {
        let Preopen { guest, place, read_only, account } = preopen;
        let at = match place {
            Place::Folder(host) => Beneath::of(host)?,
            // Opened anew: each guest has a position of its own in it.
            Place::Open(fd) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                Beneath::new(openat(fd, ".", flags, Mode::empty())?)?
            }
            Place::Later(_) => return Err(io::ErrorKind::NotFound.into()),
        };
        let (account, name) = (account.clone(), Some(guest.clone()));
        Ok(Folder { at, volume, read_only: *read_only, account, files, name })
    }

    /// EROFS in a read-only volume.
    pub fn writable(&self) -> Result<(), Errno> {
        if self.read_only {
            Err(Errno::Rofs)
        } else {
            Ok(())
        }
    }

    /// The file that has the path `path` of its own.
    fn file(&self, path: &str) -> Option<&FileMount> {
        self.files.as_ref()?.find(path)
    }

    /// What holds for what `path` names.
    pub fn terms(&self, path: &str) -> Terms<'_> {
        match self.file(path) {
            Some(file) => Terms { read_only: file.read_only, account: file.account.as_ref() },
            None => Terms { read_only: self.read_only, account: self.account.as_ref() },
        }
    }

    /// Opens `path` beneath this folder.
    pub fn open(&self, path: &str, how: How) -> Result<OwnedFd, Errno> {
        if let Some(file) = self.file(path) {
            return file.open(path, how);
        }
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
        self.at.open(path, flags, mode, how.cached)
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
        if self.file(path).is_some() {
            // As what is mounted over another.
            return Err(Errno::Busy);
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

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.at.as_fd()
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
