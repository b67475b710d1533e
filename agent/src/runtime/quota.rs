//! What guests' files may take of a disk: bytes and files, counted before they are written.
//!
//! An [`Account`] knows what is in one volume, and counts it against [`Quota`]s: the volume's own, and that of
//! all volumes of a pod. What one of them refuses answers ENOSPC.
//!
//! A regular file counts as its size, holes included, in whole blocks; each name counts as a file, be it one of
//! several of one file, a folder's or a symbolic link's.
//! A write is counted before it is done, by where it is to end: two guests that append to one file at the same
//! moment can be a chunk ahead of what is counted, until the next write or the end of either. Whoever lets go
//! of a file last settles what it counts as: by then it has the size that it has, or no name any more and is
//! gone. So that this is always somebody, what may take a name away ([`Account::removing`]) holds the file like
//! one who has it open.
//!
//! Only guests write to a counted volume, and each of their calls comes by here.

use std::collections::btree_map::{BTreeMap, Entry};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{fstat, FileType, OFlags, Stat};

use super::wasi::Errno;

/// Bytes that a file grows by on a disk.
pub const BLOCK: u64 = 4096;

/// Bytes and files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Of regular files, in whole blocks.
    pub bytes: u64,
    /// Names: of files, folders, links.
    pub files: u64,
}

impl Amount {
    /// So many bytes of files.
    #[must_use]
    pub fn of_bytes(bytes: u64) -> Amount {
        Amount { bytes, files: 0 }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Amount) -> Amount {
        Amount {
            bytes: self.bytes.saturating_add(other.bytes),
            files: self.files.saturating_add(other.files),
        }
    }
}

/// One name.
pub const NAME: Amount = Amount { bytes: 0, files: 1 };

/// `size` in whole blocks.
fn blocks(size: u64) -> u64 {
    size.div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// The bytes that an inode counts as, whatever its names.
#[must_use]
pub fn bytes_of(stat: &Stat) -> u64 {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => blocks(size_of(stat)),
        _ => 0,
    }
}

fn size_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// What there was too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// Bytes.
    Bytes,
    /// Files, folders and links.
    Files,
}

/// A limit on what files take.
pub struct Quota {
    limit: Amount,
    used: Mutex<Amount>,
    refused: AtomicBool,
    told: Box<dyn Fn(Excess) + Send + Sync>,
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {:?}", self.used(), self.limit)
    }
}

impl Quota {
    /// A limit of which nothing is used. `told` is called when somebody is refused more for the first time, on the
    /// thread of whoever it is: it must not block.
    #[must_use]
    pub fn new(limit: Amount, told: impl Fn(Excess) + Send + Sync + 'static) -> Quota {
        Quota { limit, used: Mutex::default(), refused: AtomicBool::new(false), told: Box::new(told) }
    }

    /// What is used.
    #[must_use]
    pub fn used(&self) -> Amount {
        *lock(&self.used)
    }

    /// What may be used.
    #[must_use]
    pub fn limit(&self) -> Amount {
        self.limit
    }

    fn take(&self, more: Amount) -> bool {
        let mut used = lock(&self.used);
        let sum = used.plus(more);
        // What is over its limit already (a lower one than before) can still be made less.
        let excess = if more.bytes > 0 && sum.bytes > self.limit.bytes {
            Excess::Bytes
        } else if more.files > 0 && sum.files > self.limit.files {
            Excess::Files
        } else {
            *used = sum;
            return true;
        };
        drop(used);
        if !self.refused.swap(true, Ordering::Relaxed) {
            (self.told)(excess);
        }
        false
    }

    fn change(&self, from: Amount, to: Amount) {
        let mut used = lock(&self.used);
        let sum = used.plus(to);
        *used = Amount {
            bytes: sum.bytes.saturating_sub(from.bytes),
            files: sum.files.saturating_sub(from.files),
        };
    }
}

/// A lock that a panic has not made useless: what it guards is set whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What counts the files of one volume.
#[derive(Debug)]
pub struct Account {
    quotas: Vec<Arc<Quota>>,
    /// By inode, those that somebody holds.
    held: Mutex<BTreeMap<u64, Inode>>,
    /// Held while names are made and removed, on blocking threads only.
    names: Mutex<()>,
}

#[derive(Debug)]
struct Inode {
    holders: u32,
    /// What it is counted as.
    bytes: u64,
}

/// Where a write is to end.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// At this offset.
    At(u64),
    /// So many bytes after the end of the file.
    Append(u64),
}

impl Account {
    /// An account of a volume in which there is `used`, whatever the quotas say to that.
    #[must_use]
    pub fn new(quotas: Vec<Arc<Quota>>, used: Amount) -> Arc<Account> {
        let account = Account { quotas, held: Mutex::default(), names: Mutex::default() };
        account.change(Amount::default(), used);
        Arc::new(account)
    }

    /// Counts `more`.
    ///
    /// # Errors
    /// ENOSPC past a quota, and then nothing is counted.
    pub fn take(&self, more: Amount) -> Result<(), Errno> {
        for (at, quota) in self.quotas.iter().enumerate() {
            if !quota.take(more) {
                self.quotas.iter().take(at).for_each(|quota| quota.change(more, Amount::default()));
                return Err(Errno::Nospc);
            }
        }
        Ok(())
    }

    fn change(&self, from: Amount, to: Amount) {
        self.quotas.iter().for_each(|quota| quota.change(from, to));
    }

    fn recount(&self, from: u64, to: u64) {
        if from != to {
            self.change(Amount::of_bytes(from), Amount::of_bytes(to));
        }
    }

    /// `make` makes the name that `find` finds no handle of, or fails and makes nothing.
    pub fn making<T>(
        &self,
        find: impl FnOnce() -> Result<OwnedFd, Errno>,
        make: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let _names = lock(&self.names);
        match find() {
            Err(Errno::Noent) => self.make(make),
            // What is there already is what `make` will answer.
            _ => make(),
        }
    }

    fn make<T>(&self, make: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        self.take(NAME)?;
        make().inspect_err(|_| self.change(NAME, Amount::default()))
    }

    /// `remove` takes the name away that `find` opens a handle of.
    pub fn removing<T>(
        self: &Arc<Self>,
        find: impl FnOnce() -> Result<OwnedFd, Errno>,
        remove: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let _names = lock(&self.names);
        // What is not there is for `remove` to say.
        let _held = find().ok().map(|fd| Held::new(fd, Some(self))).transpose()?;
        remove().inspect(|_| self.change(NAME, Amount::default()))
    }

    /// `rename` gives the name that `new` opens a handle of, if it is there, to what `old` opens one of.
    pub fn renaming<T>(
        self: &Arc<Self>,
        old: impl FnOnce() -> Result<OwnedFd, Errno>,
        new: impl FnOnce() -> Result<OwnedFd, Errno>,
        rename: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let _names = lock(&self.names);
        let Ok(new) = new() else { return rename() };
        // Of two names of one file both stay (rename(2)).
        let same = fstat(old()?)?.st_ino == fstat(&new)?.st_ino;
        let _held = Held::new(new, Some(self))?;
        rename().inspect(|_| {
            if !same {
                self.change(NAME, Amount::default());
            }
        })
    }

    /// `open` opens what `find` opens a handle of; by its flags it may make that, or cut it.
    pub fn opening(
        self: &Arc<Self>,
        flags: OFlags,
        find: impl FnOnce() -> Result<OwnedFd, Errno>,
        open: impl FnOnce() -> Result<OwnedFd, Errno>,
    ) -> Result<OwnedFd, Errno> {
        if !flags.intersects(OFlags::CREATE | OFlags::TRUNC) {
            return open();
        }
        let _names = lock(&self.names);
        match find() {
            Ok(handle) if flags.contains(OFlags::TRUNC) => {
                let held = Held::new(handle, Some(self))?;
                open().inspect(|_| held.resized())
            }
            Err(Errno::Noent) if flags.contains(OFlags::CREATE) => self.make(open),
            _ => open(),
        }
    }

    fn hold(&self, fd: BorrowedFd<'_>) -> Result<u64, Errno> {
        let mut held = lock(&self.held);
        let stat = fstat(fd)?;
        match held.entry(stat.st_ino) {
            Entry::Occupied(mut inode) => {
                let inode = inode.get_mut();
                inode.holders = inode.holders.saturating_add(1);
            }
            Entry::Vacant(none) => {
                let bytes = bytes_of(&stat);
                if stat.st_nlink == 0 {
                    // It was settled that it is gone, and it is not yet.
                    self.recount(0, bytes);
                }
                none.insert(Inode { holders: 1, bytes });
            }
        }
        Ok(stat.st_ino)
    }

    fn let_go(&self, fd: BorrowedFd<'_>, inode: u64) {
        let mut held = lock(&self.held);
        let Entry::Occupied(mut entry) = held.entry(inode) else { return };
        let holders = entry.get().holders.saturating_sub(1);
        entry.get_mut().holders = holders;
        if holders > 0 {
            return;
        }
        let counted = entry.remove().bytes;
        // A file system that cannot say it: as before.
        let Ok(stat) = fstat(fd) else { return };
        self.recount(counted, if stat.st_nlink == 0 { 0 } else { bytes_of(&stat) });
    }

    fn reserve(&self, fd: BorrowedFd<'_>, inode: u64, end: End) -> Result<(), Errno> {
        let mut held = lock(&self.held);
        let Some(inode) = held.get_mut(&inode) else { return Ok(()) };
        let size = size_of(&fstat(fd)?);
        let end = match end {
            End::At(end) => end,
            End::Append(len) => size.checked_add(len).ok_or(Errno::Fbig)?,
        };
        let more = blocks(end.max(size)).saturating_sub(inode.bytes);
        if more > 0 {
            self.take(Amount::of_bytes(more))?;
            inode.bytes = inode.bytes.saturating_add(more);
        }
        Ok(())
    }

    fn resized(&self, fd: BorrowedFd<'_>, inode: u64) {
        let mut held = lock(&self.held);
        let (Some(inode), Ok(stat)) = (held.get_mut(&inode), fstat(fd)) else { return };
        let is = bytes_of(&stat);
        self.recount(inode.bytes, is);
        inode.bytes = is;
    }
}

/// An open file, or a handle of what has a name, which its account knows of.
#[derive(Debug)]
pub struct Held {
    fd: OwnedFd,
    account: Option<(Arc<Account>, u64)>,
}

impl Held {
    /// Nobody counts what becomes of it.
    #[must_use]
    pub fn uncounted(fd: OwnedFd) -> Held {
        Held { fd, account: None }
    }

    /// Tells `account`, if there is one, that `fd` is held.
    ///
    /// # Errors
    /// When the file system cannot say what it is.
    pub fn new(fd: OwnedFd, account: Option<&Arc<Account>>) -> Result<Held, Errno> {
        let account = match account {
            Some(account) => Some((Arc::clone(account), account.hold(fd.as_fd())?)),
            None => None,
        };
        Ok(Held { fd, account })
    }

    /// Whether anybody counts what is written.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.account.is_some()
    }

    /// Counts a write that is to be done.
    ///
    /// # Errors
    /// ENOSPC past a quota: it must not be done.
    pub fn reserve(&self, end: End) -> Result<(), Errno> {
        match &self.account {
            Some((account, inode)) => account.reserve(self.fd.as_fd(), *inode, end),
            None => Ok(()),
        }
    }

    /// The file may have been cut.
    pub fn resized(&self) {
        if let Some((account, inode)) = &self.account {
            account.resized(self.fd.as_fd(), *inode);
        }
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((account, inode)) = &self.account {
            account.let_go(self.fd.as_fd(), *inode);
        }
    }
}
