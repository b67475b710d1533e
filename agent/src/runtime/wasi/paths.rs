//! The `path_*` calls. All but an open and a stat of what the kernel has in memory go to a blocking thread.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{
    linkat, mkdirat, readlinkat, renameat, symlinkat, unlinkat, utimensat, AtFlags, FileType, Mode, OFlags,
};

use super::descriptors::{rights, Descriptor, Object};
use super::files::{off_thread, File};
use super::folder::{Folder, How, Terms};
use super::{filestat, Args, Errno, Host, Memory, Stop, Wasi};
use crate::runtime::beneath::Beneath;
use crate::runtime::quota::Held;

/// `lookupflags`
const FOLLOW: u32 = 1;

/// `oflags`
const CREATE: u32 = 1;
const DIRECTORY: u32 = 2;
const EXCLUSIVE: u32 = 4;
const TRUNCATE: u32 = 8;

fn folder(host: &Host, fd: u32, rights: u64) -> Wasi<Arc<Folder>> {
    match &host.descriptors.get(fd)?.object {
        Object::Folder(folder) => {
            host.descriptors.with(fd, rights)?;
            Ok(Arc::clone(folder))
        }
        Object::Later(_) => Err(Stop::Lay(fd)),
        _ => Err(Errno::Notdir.into()),
    }
}

fn path(memory: &Memory<'_>, args: Args<'_>, at: usize) -> Wasi<String> {
    Ok(memory.path(args.u32(at), args.u32(at.saturating_add(1)))?.to_owned())
}

fn ends_with_slash(path: &str) -> bool {
    path.ends_with('/')
}

/// `path_create_directory(fd, path)`
pub fn path_create_directory(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let folder = folder(host, args.u32(0), rights::PATH_CREATE_DIRECTORY)?;
    let path = path(memory, args, 1)?;
    folder.writable()?;
    let work = move || {
        let (parent, name) = folder.parent(&path, Errno::Exist)?;
        folder.making(&parent, name, || Ok(mkdirat(&parent, name, Mode::from_raw_mode(0o777))?))
    };
    off_thread(work, |(), _, _| Ok(()))
}

/// `path_remove_directory(fd, path)`
pub fn path_remove_directory(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let folder = folder(host, args.u32(0), rights::PATH_REMOVE_DIRECTORY)?;
    let path = path(memory, args, 1)?;
    folder.writable()?;
    let work = move || {
        let (parent, name) = folder.parent(&path, Errno::Inval)?;
        folder.removing(&parent, name, || Ok(unlinkat(&parent, name, AtFlags::REMOVEDIR)?))
    };
    off_thread(work, |(), _, _| Ok(()))
}

/// `path_unlink_file(fd, path)`
pub fn path_unlink_file(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let folder = folder(host, args.u32(0), rights::PATH_UNLINK_FILE)?;
    let path = path(memory, args, 1)?;
    folder.writable()?;
    let work = move || {
        let (parent, name) = folder.parent(&path, Errno::Isdir)?;
        folder.removing(&parent, name, || Ok(unlinkat(&parent, name, AtFlags::empty())?))
    };
    off_thread(work, |(), _, _| Ok(()))
}

/// `path_filestat_get(fd, flags, path, filestat)`
pub fn path_filestat_get(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let folder = folder(host, args.u32(0), rights::PATH_FILESTAT_GET)?;
    let path = path(memory, args, 2)?;
    let (follow, at) = (args.u32(1) & FOLLOW != 0, args.u32(4));
    match folder.handle(&path, follow, true) {
        Ok(handle) => filestat::write(memory, at, &filestat::of(handle)?),
        Err(Errno::Again) => off_thread(
            move || filestat::of(folder.handle(&path, follow, false)?),
            move |stat, memory, _| filestat::write(memory, at, &stat),
        ),
        Err(errno) => Err(errno.into()),
    }
}

/// `path_filestat_set_times(fd, flags, path, accessed, modified, which)`
pub fn path_filestat_set_times(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let folder = folder(host, args.u32(0), rights::PATH_FILESTAT_SET_TIMES)?;
    let path = path(memory, args, 2)?;
    let times = filestat::times(args.u64(4), args.u64(5), args.u32(6))?;
    if folder.terms(&path).read_only {
        return Err(Errno::Rofs.into());
    }
    let follow = args.u32(1) & FOLLOW != 0 || ends_with_slash(&path);
    let work = move || {
        if follow {
            return filestat::set_times(folder.handle(&path, true, false)?, &times);
        }
        match folder.parent(&path, Errno::Inval) {
            Ok((parent, name)) => Ok(utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?),
            // The folder itself.
            Err(Errno::Inval) => filestat::set_times(folder.handle(&path, true, false)?, &times),
            Err(errno) => Err(errno),
        }
    };
    off_thread(work, |(), _, _| Ok(()))
}

/// `path_link(fd, flags, path, new fd, new path)`. A link to what a symbolic link names cannot be made
/// without leaving the kernel's resolution: EINVAL, as other hosts answer.
pub fn path_link(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let from = folder(host, args.u32(0), rights::PATH_LINK_SOURCE)?;
    let to = folder(host, args.u32(4), rights::PATH_LINK_TARGET)?;
    let (old, new) = (path(memory, args, 2)?, path(memory, args, 5)?);
    if args.u32(1) & FOLLOW != 0 {
        return Err(Errno::Inval.into());
    }
    between(&from, &to)?;
    let work = move || {
        let (old_parent, old) = from.parent(&old, Errno::Perm)?;
        let (new_parent, new) = to.parent(&new, Errno::Exist)?;
        if ends_with_slash(old) {
            // The kernel would follow a link; and a folder has no second name.
            return Err(Errno::Notdir);
        }
        to.making(&new_parent, new, || Ok(linkat(&old_parent, old, &new_parent, new, AtFlags::empty())?))
    };
    off_thread(work, |(), _, _| Ok(()))
}

/// EROFS and EXDEV of what works on two folders.
fn between(from: &Folder, to: &Folder) -> Result<(), Errno> {
    if from.volume != to.volume {
        return Err(Errno::Xdev);
    }
    from.writable()?;
    to.writable()
}

/// `path_rename(fd, path, new fd, new path)`
pub fn path_rename(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let from = folder(host, args.u32(0), rights::PATH_RENAME_SOURCE)?;
    let to = folder(host, args.u32(3), rights::PATH_RENAME_TARGET)?;
    let (old, new) = (path(memory, args, 1)?, path(memory, args, 4)?);
    between(&from, &to)?;
    let work = move || {
        let (old_parent, old) = from.parent(&old, Errno::Busy)?;
        let (new_parent, new) = to.parent(&new, Errno::Busy)?;
        let rename = || Ok(renameat(&old_parent, old, &new_parent, new)?);
        to.renaming((&old_parent, old), (&new_parent, new), rename)
    };
    off_thread(work, |(), _, _| Ok(()))
}

/// `path_symlink(target, fd, path)`. An absolute target is EPERM: no guest could follow it.
pub fn path_symlink(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let folder = folder(host, args.u32(2), rights::PATH_SYMLINK)?;
    let (target, path) = (path(memory, args, 0)?, path(memory, args, 3)?);
    folder.writable()?;
    if target.starts_with('/') {
        return Err(Errno::Perm.into());
    }
    let work = move || {
        let (parent, name) = folder.parent(&path, Errno::Exist)?;
        folder.making(&parent, name, || Ok(symlinkat(target, &parent, name)?))
    };
    off_thread(work, |(), _, _| Ok(()))
}

/// `path_readlink(fd, path, buffer, len, used)`: cut where the buffer ends, as readlink(2).
pub fn path_readlink(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let folder = folder(host, args.u32(0), rights::PATH_READLINK)?;
    let path = path(memory, args, 1)?;
    let (at, len, used) = (args.u32(3), args.u32(4), args.u32(5));
    memory.bytes(at, len)?;
    let work = move || {
        let (parent, name) = folder.parent(&path, Errno::Inval)?;
        if ends_with_slash(name) {
            // A folder, or nothing; the kernel would follow a link.
            folder.handle(&path, true, false)?;
            return Err(Errno::Inval);
        }
        Ok(readlinkat(parent, name, Vec::new())?)
    };
    off_thread(work, move |target, memory, _| {
        let len = target.as_bytes().len().min(usize::try_from(len).unwrap_or(usize::MAX));
        memory.write(at, target.as_bytes().get(..len).unwrap_or(&[]))?;
        memory.write_size(used, len)
    })
}

/// What `path_open` was asked for.
struct Opening {
    folder: Arc<Folder>,
    path: String,
    how: How,
    rights: u64,
    inheriting: u64,
    flags: u16,
    opened: u32,
    /// Only in a read-only volume: what does not exist would have been made.
    would_create: bool,
}

/// `path_open(fd, lookup flags, path, open flags, rights, inheriting, fd flags, opened)`
pub fn path_open(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let folder = folder(host, args.u32(0), rights::PATH_OPEN)?;
    let path = path(memory, args, 2)?;
    let allowed = host.descriptors.get(args.u32(0))?.inheriting;
    let (rights, inheriting) = (args.u64(5) & allowed, args.u64(6) & allowed);
    let flags = u16::try_from(args.u32(7)).map_err(|_| Errno::Inval)?;
    let open = args.u32(4);
    if open > 15 || flags > 31 {
        return Err(Errno::Inval.into());
    }
    if open & CREATE != 0 && open & DIRECTORY != 0 {
        return Err(Errno::Inval.into());
    }
    let needed = [(CREATE, rights::PATH_CREATE_FILE), (TRUNCATE, rights::PATH_FILESTAT_SET_SIZE)];
    for (_, right) in needed.iter().filter(|(flag, _)| open & flag != 0) {
        host.descriptors.with(args.u32(0), *right)?;
    }
    // A folder that is asked for as such, and for writing too, is EISDIR; its other rights mean nothing.
    let writing = if open & DIRECTORY == 0 { rights::WRITING } else { rights::FD_WRITE };
    let (write, read) = (rights & writing != 0, rights & rights::READING != 0);
    let mut how = match (read, write) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        _ => OFlags::RDONLY,
    };
    let mut add = |given: bool, flag| how |= if given { flag } else { OFlags::empty() };
    add(open & DIRECTORY != 0, OFlags::DIRECTORY);
    add(open & TRUNCATE != 0, OFlags::TRUNC);
    add(args.u32(1) & FOLLOW == 0, OFlags::NOFOLLOW);
    // FIFOs and devices never hold a thread; regular files do not care.
    add(true, OFlags::NONBLOCK);
    let create = open & CREATE != 0;
    let read_only = folder.terms(&path).read_only;
    if read_only {
        if how.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC) {
            return Err(Errno::Rofs.into());
        }
    } else {
        let mut add = |given: bool, flag| how |= if given { flag } else { OFlags::empty() };
        add(create, OFlags::CREATE);
        add(open & EXCLUSIVE != 0, OFlags::EXCL);
    }
    let opening = Opening {
        would_create: create && read_only,
        folder,
        path,
        how: How { flags: how, cached: true },
        rights,
        inheriting,
        flags,
        opened: args.u32(8),
    };
    begin(opening, memory, host)
}

fn begin(mut opening: Opening, memory: &mut Memory<'_>, host: &mut Host) -> Wasi<()> {
    match opening.open() {
        Err(Errno::Again) => {
            opening.how.cached = false;
            let work = move || Ok((opening.open()?, opening));
            off_thread(work, |(fd, opening), memory, host| opening.finish(fd, memory, host))
        }
        fd => opening.finish(fd?, memory, host),
    }
}

impl Opening {
    fn open(&self) -> Result<OwnedFd, Errno> {
        match self.folder.open(&self.path, self.how) {
            Err(Errno::Noent) if self.would_create => Err(Errno::Rofs),
            other => other,
        }
    }

    fn finish(self, fd: OwnedFd, memory: &mut Memory<'_>, host: &mut Host) -> Wasi<()> {
        let kind = filestat::kind(&filestat::of(&fd)?);
        let (object, mask) = if kind == FileType::Directory {
            let Folder { volume, read_only, .. } = *self.folder;
            let account = self.folder.account.clone();
            let files = self.folder.files.as_ref().and_then(|files| files.within(&self.path));
            let at = Beneath { fd, walks: self.folder.at.walks };
            let folder = Folder { at, volume, read_only, account, files, name: None };
            (Object::Folder(Arc::new(folder)), rights::FOLDER)
        } else {
            let file_type = filestat::file_type(kind);
            let Terms { read_only, account } = self.folder.terms(&self.path);
            let fd = Held::new(fd, account)?;
            (Object::File(Arc::new(File { fd, file_type, read_only })), rights::FILE)
        };
        let descriptor =
            Descriptor { object, rights: self.rights & mask, inheriting: self.inheriting, flags: self.flags };
        let fd = host.descriptors.add(descriptor)?;
        memory.write_u32(self.opened, fd)
    }
}
