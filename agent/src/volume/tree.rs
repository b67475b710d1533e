//! Counting and removing what guests have left in a folder, as deep as they like, and following no link of theirs:
//! one open folder at a time, and back by `..`. Nobody else may move folders in it meanwhile.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{fstat, open, openat, statat, unlinkat, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::runtime::quota::{bytes_of, Amount, NAME};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What is done on the way.
trait Visit {
    /// Comes to a name that is no folder.
    fn file(&mut self, parent: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno>;
    /// Has been through the folder of this name.
    fn folder(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno>;
}

/// What a folder takes, itself left out; nothing where there is none.
pub fn measure(root: &Path) -> io::Result<Amount> {
    struct Count {
        sum: Amount,
        /// Inodes of more than one name, seen already.
        linked: BTreeSet<u64>,
    }
    impl Visit for Count {
        fn file(&mut self, _: BorrowedFd<'_>, _: &CStr, stat: &Stat) -> Result<(), Errno> {
            let first = stat.st_nlink == 1 || self.linked.insert(stat.st_ino);
            let bytes = if first { bytes_of(stat) } else { 0 };
            self.sum = self.sum.plus(Amount { bytes, ..NAME });
            Ok(())
        }
        fn folder(&mut self, _: BorrowedFd<'_>, _: &CStr) -> Result<(), Errno> {
            self.sum = self.sum.plus(NAME);
            Ok(())
        }
    }
    let mut count = Count { sum: Amount::default(), linked: BTreeSet::new() };
    walk(root, &mut count)?;
    Ok(count.sum)
}

/// Removes a folder with all that is in it.
pub fn remove(root: &Path) -> io::Result<()> {
    struct Remove;
    impl Visit for Remove {
        fn file(&mut self, parent: BorrowedFd<'_>, name: &CStr, _: &Stat) -> Result<(), Errno> {
            gone(unlinkat(parent, name, AtFlags::empty()))
        }
        fn folder(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
            gone(unlinkat(parent, name, AtFlags::REMOVEDIR))
        }
    }
    walk(root, &mut Remove)?;
    Ok(gone(rustix::fs::rmdir(root))?)
}

/// What is gone already was to be removed.
fn gone(done: Result<(), Errno>) -> Result<(), Errno> {
    match done {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

/// A folder on the way down.
struct Level {
    name: CString,
    /// The inode of the folder that it is in.
    parent: u64,
    /// Folders in it that are still to come.
    folders: Vec<CString>,
}

fn walk(root: &Path, visit: &mut impl Visit) -> Result<(), Errno> {
    let mut at = match open(root, FOLDER, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    let mut levels: Vec<Level> = Vec::new();
    let mut folders = list(&at, visit)?;
    loop {
        if let Some(name) = folders.pop() {
            let parent = fstat(&at)?.st_ino;
            at = match openat(&at, &name, FOLDER, Mode::empty()) {
                Err(Errno::NOENT) => continue,
                opened => opened?,
            };
            levels.push(Level { name, parent, folders });
            folders = list(&at, visit)?;
            continue;
        }
        let Some(level) = levels.pop() else { return Ok(()) };
        at = openat(&at, c"..", FOLDER, Mode::empty())?;
        if fstat(&at)?.st_ino != level.parent {
            // It was moved, and `..` leads elsewhere.
            return Err(Errno::STALE);
        }
        visit.folder(at.as_fd(), &level.name)?;
        folders = level.folders;
    }
}

/// The folders in `at`; everything else is visited.
fn list(at: &OwnedFd, visit: &mut impl Visit) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(at)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    let mut folders = Vec::new();
    for name in names {
        let stat = match statat(at, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            folders.push(name);
        } else {
            visit.file(at.as_fd(), &name, &stat)?;
        }
    }
    Ok(folders)
}
