//! The `fd_*` calls about open files and folders of a volume.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{
    fadvise, fallocate, fdatasync, fstat, fsync, ftruncate, futimens, seek, Advice, FallocateFlags, FileType,
    RawDir, SeekFrom,
};

use super::descriptors::{rights, Object};
use super::folder::Folder;
use super::{filestat, Args, Errno, Host, Memory, Stop, Then, Wait, Wasi};
use crate::runtime::quota::{End, Held};

/// Largest buffer of one `fd_readdir`. A call that fills less than its buffer says that the folder ends, so
/// it cannot be cut to a chunk; real programs use 4 to 64 KiB.
const MAX_READDIR: u32 = 1 << 20;
/// Bytes of a `dirent` before its name.
const DIRENT: usize = 24;

/// A file of a volume that a guest has open.
#[derive(Debug)]
pub struct File {
    /// The file. Without O_APPEND: appending is a flag of each write.
    pub fd: Held,
    /// `filetype`
    pub file_type: u8,
    /// Whether its volume is read-only.
    pub read_only: bool,
}

impl File {
    /// A standard stream, open elsewhere: non-blocking if it is one that waits.
    pub fn stream(fd: OwnedFd, read_only: bool) -> rustix::io::Result<File> {
        let file_type = filestat::file_type(FileType::from_raw_mode(fstat(&fd)?.st_mode));
        let fd = Held::uncounted(fd);
        Ok(File { fd, file_type, read_only })
    }

    /// Whether it is neither a regular file nor a block device: a FIFO, a terminal, a device, opened non-blocking.
    pub fn waits(&self) -> bool {
        self.file_type != filestat::REGULAR && self.file_type != 1
    }
}

/// Does `work` on a blocking thread, then `then` with what came of it.
pub fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Errno> + Send + 'static,
    then: impl FnOnce(T, &mut Memory<'_>, &mut Host) -> Wasi<()> + Send + 'static,
) -> Wasi<()> {
    Err(Stop::Wait(Wait::blocking(move || {
        let done = work();
        let then: Then = Box::new(move |memory, host| then(done?, memory, host));
        then
    })))
}

fn file(host: &Host, fd: u32, rights: u64) -> Result<Arc<File>, Errno> {
    match &host.descriptors.with(fd, rights)?.object {
        Object::File(file) => Ok(Arc::clone(file)),
        Object::Folder(_) | Object::Later(_) => Err(Errno::Isdir),
        Object::Stdin | Object::Output(_) | Object::Socket(_) => Err(Errno::Inval),
    }
}

fn writable(host: &Host, fd: u32, rights: u64) -> Result<Arc<File>, Errno> {
    let file = file(host, fd, rights)?;
    if file.read_only {
        return Err(Errno::Rofs);
    }
    Ok(file)
}

/// `fd_advise(fd, offset, len, advice)`
pub fn fd_advise(_memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let file = file(host, args.u32(0), rights::FD_ADVISE)?;
    let (offset, len) = (args.u64(1), args.u64(2));
    let advice = match args.u32(3) {
        0 => Advice::Normal,
        1 => Advice::Sequential,
        2 => Advice::Random,
        3 => Advice::WillNeed,
        4 => Advice::DontNeed,
        5 => Advice::NoReuse,
        _ => return Err(Errno::Inval.into()),
    };
    if i64::try_from(offset).is_err() || i64::try_from(len).is_err() {
        return Err(Errno::Inval.into());
    }
    let work = move || Ok(fadvise(&file.fd, offset, std::num::NonZero::new(len), advice)?);
    off_thread(work, |(), _, _| Ok(()))
}

/// `fd_allocate(fd, offset, len)`
pub fn fd_allocate(_memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let file = writable(host, args.u32(0), rights::FD_ALLOCATE)?;
    let (offset, len) = (args.u64(1), args.u64(2));
    let end = offset.checked_add(len).ok_or(Errno::Fbig)?;
    off_thread(
        move || resize(&file, end, |fd| fallocate(fd, FallocateFlags::empty(), offset, len)),
        |(), _, _| Ok(()),
    )
}

/// Does what may let `file` end at `end`, or elsewhere.
fn resize(file: &File, end: u64, work: impl FnOnce(&Held) -> rustix::io::Result<()>) -> Result<(), Errno> {
    file.fd.reserve(End::At(end))?;
    let done = work(&file.fd);
    file.fd.resized();
    Ok(done?)
}

/// `fd_datasync(fd)`
pub fn fd_datasync(_memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let fd = args.u32(0);
    match &host.descriptors.with(fd, rights::FD_DATASYNC)?.object {
        Object::Folder(folder) => sync_folder(folder),
        // Nobody has put anything there.
        Object::Later(_) => Ok(()),
        Object::File(file) => {
            let file = Arc::clone(file);
            off_thread(move || Ok(fdatasync(&file.fd)?), |(), _, _| Ok(()))
        }
        Object::Stdin | Object::Output(_) => Ok(()),
        Object::Socket(_) => Err(Errno::Inval.into()),
    }
}

/// `fd_sync(fd)`
pub fn fd_sync(_memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    match &host.descriptors.with(args.u32(0), rights::FD_SYNC)?.object {
        Object::Folder(folder) => sync_folder(folder),
        // Nobody has put anything there.
        Object::Later(_) => Ok(()),
        Object::File(file) => {
            let file = Arc::clone(file);
            off_thread(move || Ok(fsync(&file.fd)?), |(), _, _| Ok(()))
        }
        Object::Stdin | Object::Output(_) => Ok(()),
        Object::Socket(_) => Err(Errno::Inval.into()),
    }
}

fn sync_folder(folder: &Arc<Folder>) -> Wasi<()> {
    let folder = Arc::clone(folder);
    off_thread(move || Ok(fsync(&*folder)?), |(), _, _| Ok(()))
}

/// `fd_filestat_get(fd, filestat)`
pub fn fd_filestat_get(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let stat = match &host.descriptors.with(args.u32(0), rights::FD_FILESTAT_GET)?.object {
        Object::File(file) => filestat::of(&file.fd)?,
        Object::Folder(folder) => filestat::of(&**folder)?,
        Object::Later(_) => return Err(Stop::Lay(args.u32(0))),
        object @ (Object::Stdin | Object::Output(_) | Object::Socket(_)) => {
            let file_type = object.file_type();
            memory.bytes_mut(args.u32(1), 64)?.fill(0);
            return memory.write(args.u32(1).saturating_add(16), &[file_type]);
        }
    };
    filestat::write(memory, args.u32(1), &stat)
}

/// `fd_filestat_set_size(fd, size)`
pub fn fd_filestat_set_size(_memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let file = writable(host, args.u32(0), rights::FD_FILESTAT_SET_SIZE)?;
    let size = args.u64(1);
    off_thread(move || resize(&file, size, |fd| ftruncate(fd, size)), |(), _, _| Ok(()))
}

/// `fd_filestat_set_times(fd, accessed, modified, flags)`
pub fn fd_filestat_set_times(_memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let times = filestat::times(args.u64(1), args.u64(2), args.u32(3))?;
    match &host.descriptors.with(args.u32(0), rights::FD_FILESTAT_SET_TIMES)?.object {
        Object::File(_) => {
            let file = writable(host, args.u32(0), rights::FD_FILESTAT_SET_TIMES)?;
            off_thread(move || Ok(futimens(&file.fd, &times)?), |(), _, _| Ok(()))
        }
        Object::Later(_) => Err(Stop::Lay(args.u32(0))),
        Object::Folder(folder) => {
            folder.writable()?;
            let folder = Arc::clone(folder);
            off_thread(move || Ok(futimens(&*folder, &times)?), |(), _, _| Ok(()))
        }
        Object::Stdin | Object::Output(_) | Object::Socket(_) => Err(Errno::Inval.into()),
    }
}

/// `fd_seek(fd, offset, whence, position)`
pub fn fd_seek(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let (offset, whence) = (args.i64(1), args.u32(2));
    let needed = if offset == 0 && whence == 1 { rights::FD_TELL } else { rights::FD_SEEK };
    let file = seekable(host, args.u32(0), needed)?;
    let to = match whence {
        0 => SeekFrom::Start(u64::try_from(offset).map_err(|_| Errno::Inval)?),
        1 => SeekFrom::Current(offset),
        2 => SeekFrom::End(offset),
        _ => return Err(Errno::Inval.into()),
    };
    memory.write_u64(args.u32(3), seek(&file.fd, to)?)
}

/// `fd_tell(fd, position)`
pub fn fd_tell(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let file = seekable(host, args.u32(0), rights::FD_TELL)?;
    memory.write_u64(args.u32(1), seek(&file.fd, SeekFrom::Current(0))?)
}

fn seekable(host: &Host, fd: u32, rights: u64) -> Result<Arc<File>, Errno> {
    match &host.descriptors.get(fd)?.object {
        Object::Stdin | Object::Output(_) | Object::Socket(_) => Err(Errno::Spipe),
        // A folder has no position that preview 1 could name.
        Object::Folder(_) | Object::Later(_) => Err(Errno::Badf),
        Object::File(_) => file(host, fd, rights),
    }
}

/// `fd_readdir(fd, buffer, len, cookie, used)`. The cookie is the kernel's own offset of an entry.
pub fn fd_readdir(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let (at, len, cookie, used) = (args.u32(1), args.u32(2), args.u64(3), args.u32(4));
    let folder = match &host.descriptors.get(args.u32(0))?.object {
        Object::Folder(folder) => Arc::clone(folder),
        Object::Later(_) => return Err(Stop::Lay(args.u32(0))),
        _ => return Err(Errno::Notdir.into()),
    };
    host.descriptors.with(args.u32(0), rights::FD_READDIR)?;
    memory.bytes(at, len)?;
    if len > MAX_READDIR {
        return Err(Errno::Inval.into());
    }
    let room = usize::try_from(len).unwrap_or(usize::MAX);
    off_thread(
        move || entries(&folder, cookie, room),
        move |bytes, memory, _| {
            memory.write(at, &bytes)?;
            memory.write_size(used, bytes.len())
        },
    )
}

/// `dirent`s of `folder` from `cookie` on, cut at `room` bytes.
fn entries(folder: &Folder, cookie: u64, room: usize) -> Result<Vec<u8>, Errno> {
    i64::try_from(cookie).map_err(|_| Errno::Inval)?;
    seek(folder, SeekFrom::Start(cookie))?;
    let mut buffer = vec![MaybeUninit::uninit(); room.clamp(2048, 32 * 1024)];
    let mut listing = RawDir::new(folder, &mut buffer);
    let mut bytes = Vec::with_capacity(room.min(4096));
    while bytes.len() < room {
        let Some(entry) = listing.next() else { break };
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let mut head = [0; DIRENT];
        let fields = [&entry.next_entry_cookie().to_le_bytes()[..], &entry.ino().to_le_bytes()[..]].concat();
        let len = u32::try_from(name.len()).unwrap_or(u32::MAX);
        let file_type = filestat::file_type(entry.file_type());
        let all = fields.iter().copied().chain(len.to_le_bytes()).chain([file_type]);
        head.iter_mut().zip(all).for_each(|(to, from)| *to = from);
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(name);
    }
    bytes.truncate(room);
    Ok(bytes)
}
