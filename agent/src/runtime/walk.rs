//! Resolution of a guest's paths where the kernel has no `openat2` (before Linux 5.6, some emulators): name
//! by name, following no link that has not been read.
//!
//! Each folder on the way is held open, and `..` is the folder that was come from, so that no rename
//! elsewhere can lead out.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{openat, readlinkat, Mode, OFlags};
use rustix::io::{Errno, Result};

/// Symbolic links in one path (Linux: 40, path_resolution(7)).
const MAX_LINKS: u32 = 40;
/// Names in one path with all that its links add: links of 4096 bytes each could be many.
const MAX_NAMES: usize = 8192;

/// A walk from `root`.
struct Walk<'a> {
    root: BorrowedFd<'a>,
    /// Folders from `root` down to where it stands.
    inside: Vec<OwnedFd>,
    /// Names still to come.
    names: VecDeque<String>,
    links: u32,
}

/// As `openat2` with `RESOLVE_BENEATH`: EXDEV for what leads outside of `root`.
pub fn open(root: BorrowedFd<'_>, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    if path.is_empty() {
        return Err(Errno::NOENT);
    }
    let mut walk = Walk { root, inside: Vec::new(), names: VecDeque::new(), links: 0 };
    walk.push(path)?;
    if path.ends_with('/') && flags.contains(OFlags::CREATE) {
        return Err(Errno::ISDIR);
    }
    while let Some(name) = walk.names.pop_front() {
        match name.as_str() {
            "." => {}
            ".." => {
                walk.inside.pop().ok_or(Errno::XDEV)?;
            }
            name if walk.names.is_empty() => {
                if let Some(found) = walk.last(name, flags, mode)? {
                    return Ok(found);
                }
            }
            name => walk.enter(name)?,
        }
    }
    // It ends with a folder.
    if flags.contains(OFlags::CREATE) {
        return Err(if flags.contains(OFlags::EXCL) { Errno::EXIST } else { Errno::ISDIR });
    }
    openat(walk.at(), ".", flags.difference(OFlags::NOFOLLOW), Mode::empty())
}

impl Walk<'_> {
    fn at(&self) -> BorrowedFd<'_> {
        self.inside.last().map_or(self.root, AsFd::as_fd)
    }

    /// Puts the names of `path` before those still to come. A slash at its end is a last name `.`.
    fn push(&mut self, path: &str) -> Result<()> {
        if path.starts_with('/') {
            return Err(Errno::XDEV);
        }
        let slash = path.ends_with('/').then_some(".");
        let names = path.split('/').filter(|name| !name.is_empty()).chain(slash);
        for (index, name) in names.enumerate() {
            if self.names.len() >= MAX_NAMES {
                return Err(Errno::NAMETOOLONG);
            }
            self.names.insert(index, name.to_owned());
        }
        Ok(())
    }

    /// The link `name`, if it is one, is read, and its names come next; if not, `error` it is.
    fn follow(&mut self, name: &str, error: Errno) -> Result<()> {
        let target = readlinkat(self.at(), name, Vec::new()).map_err(|_| error)?;
        self.links = self.links.saturating_add(1);
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        self.push(target.to_str().map_err(|_| Errno::ILSEQ)?)
    }

    fn enter(&mut self, name: &str) -> Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(self.at(), name, flags, Mode::empty()) {
            Ok(folder) => self.inside.push(folder),
            Err(error @ (Errno::LOOP | Errno::NOTDIR)) => self.follow(name, error)?,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Opens the last name; none: it was a link, which is followed.
    fn last(&mut self, name: &str, flags: OFlags, mode: Mode) -> Result<Option<OwnedFd>> {
        let follows = !flags.contains(OFlags::NOFOLLOW) && !flags.contains(OFlags::CREATE | OFlags::EXCL);
        // A handle of a link is got without an error: see first whether it is one.
        if follows && flags.contains(OFlags::PATH) && readlinkat(self.at(), name, Vec::new()).is_ok() {
            self.follow(name, Errno::LOOP)?;
            return Ok(None);
        }
        match openat(self.at(), name, flags | OFlags::NOFOLLOW, mode) {
            Ok(found) => Ok(Some(found)),
            Err(error @ (Errno::LOOP | Errno::NOTDIR)) if follows => self.follow(name, error).map(|()| None),
            Err(error) => Err(error),
        }
    }
}
