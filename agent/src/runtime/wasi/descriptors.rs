//! The table of a guest's open descriptors, their rights, and the calls about them:
//! `fd_close`, `fd_renumber`, `fd_fdstat_*`, `fd_prestat_*`.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::files::File;
use super::folder::{Folder, Unlaid};
use super::sockets::Socket;
use super::{filestat, Args, Errno, Host, Memory, Wasi};
use crate::runtime::{Outlet, Output, Stdio};

/// Descriptors that one guest may have open: as many as a process has by default on Linux
/// (`RLIMIT_NOFILE`'s soft value), so that one guest cannot take all of the agent's own.
pub const MAX_DESCRIPTORS: usize = 1024;

/// `rights` of the witx.
pub mod rights {
    /// `fd_datasync`
    pub const FD_DATASYNC: u64 = 1 << 0;
    /// `fd_read`
    pub const FD_READ: u64 = 1 << 1;
    /// `fd_seek`
    pub const FD_SEEK: u64 = 1 << 2;
    /// `fd_fdstat_set_flags`
    pub const FD_FDSTAT_SET_FLAGS: u64 = 1 << 3;
    /// `fd_sync`
    pub const FD_SYNC: u64 = 1 << 4;
    /// `fd_tell`
    pub const FD_TELL: u64 = 1 << 5;
    /// `fd_write`
    pub const FD_WRITE: u64 = 1 << 6;
    /// `fd_advise`
    pub const FD_ADVISE: u64 = 1 << 7;
    /// `fd_allocate`
    pub const FD_ALLOCATE: u64 = 1 << 8;
    /// `path_create_directory`
    pub const PATH_CREATE_DIRECTORY: u64 = 1 << 9;
    /// `path_create_file`
    pub const PATH_CREATE_FILE: u64 = 1 << 10;
    /// `path_link_source`
    pub const PATH_LINK_SOURCE: u64 = 1 << 11;
    /// `path_link_target`
    pub const PATH_LINK_TARGET: u64 = 1 << 12;
    /// `path_open`
    pub const PATH_OPEN: u64 = 1 << 13;
    /// `fd_readdir`
    pub const FD_READDIR: u64 = 1 << 14;
    /// `path_readlink`
    pub const PATH_READLINK: u64 = 1 << 15;
    /// `path_rename_source`
    pub const PATH_RENAME_SOURCE: u64 = 1 << 16;
    /// `path_rename_target`
    pub const PATH_RENAME_TARGET: u64 = 1 << 17;
    /// `path_filestat_get`
    pub const PATH_FILESTAT_GET: u64 = 1 << 18;
    /// `path_filestat_set_size`
    pub const PATH_FILESTAT_SET_SIZE: u64 = 1 << 19;
    /// `path_filestat_set_times`
    pub const PATH_FILESTAT_SET_TIMES: u64 = 1 << 20;
    /// `fd_filestat_get`
    pub const FD_FILESTAT_GET: u64 = 1 << 21;
    /// `fd_filestat_set_size`
    pub const FD_FILESTAT_SET_SIZE: u64 = 1 << 22;
    /// `fd_filestat_set_times`
    pub const FD_FILESTAT_SET_TIMES: u64 = 1 << 23;
    /// `path_symlink`
    pub const PATH_SYMLINK: u64 = 1 << 24;
    /// `path_remove_directory`
    pub const PATH_REMOVE_DIRECTORY: u64 = 1 << 25;
    /// `path_unlink_file`
    pub const PATH_UNLINK_FILE: u64 = 1 << 26;
    /// `poll_fd_readwrite`
    pub const POLL_FD_READWRITE: u64 = 1 << 27;
    /// `sock_shutdown`
    pub const SOCK_SHUTDOWN: u64 = 1 << 28;
    /// `sock_accept`
    pub const SOCK_ACCEPT: u64 = 1 << 29;
    /// All thirty.
    pub const ALL: u64 = (1 << 30) - 1;
    /// What a file is opened for reading for.
    pub const READING: u64 = FD_READ | FD_READDIR;
    /// What a file is opened for writing for.
    pub const WRITING: u64 = FD_WRITE | FD_ALLOCATE | FD_FILESTAT_SET_SIZE;
    /// What a folder has no use for.
    const OF_FILES: u64 =
        FD_READ | FD_SEEK | FD_TELL | FD_WRITE | FD_ADVISE | FD_ALLOCATE | FD_FILESTAT_SET_SIZE;
    /// What can be done with a folder.
    pub const FOLDER: u64 = ALL & !OF_FILES;
    /// What can be done with a file.
    pub const FILE: u64 = OF_FILES
        | FD_DATASYNC
        | FD_SYNC
        | FD_FDSTAT_SET_FLAGS
        | FD_FILESTAT_GET
        | FD_FILESTAT_SET_TIMES
        | POLL_FD_READWRITE;
}

/// `fdflags` of the witx.
pub mod flags {
    /// Every write goes to the end.
    pub const APPEND: u16 = 1;
    /// Every write is on the disk when it returns.
    pub const DSYNC: u16 = 2;
    /// What would wait answers EAGAIN.
    pub const NONBLOCK: u16 = 4;
    /// As [`DSYNC`], with the file's times.
    pub const SYNC: u16 = 16;
    /// Not a guest's to see or set: a listener that its guest has asked nothing of yet. Go looks whether it is
    /// non-blocking, and needs it to be, or its one thread waits in `sock_accept` for ever; a program in C or Rust
    /// that just accepts means to wait, and never looks. So it is non-blocking from the first look on.
    pub const UNSEEN: u16 = 1 << 15;
    /// All of them (8: reads wait for writes to be on the disk, which no Linux does).
    pub const ALL: u16 = 31;
}

/// What a descriptor stands for.
#[derive(Clone)]
pub enum Object {
    /// Standard input, at its end.
    Stdin,
    /// Standard output or error.
    Output(Arc<dyn Output>),
    /// A folder of a volume.
    Folder(Arc<Folder>),
    /// A folder that is made when it is first looked into.
    Later(Arc<Unlaid>),
    /// A file of a volume.
    File(Arc<File>),
    /// A listener or a connection.
    Socket(Arc<Socket>),
}

impl Object {
    /// `filetype`
    pub fn file_type(&self) -> u8 {
        match self {
            // As a pipe, which has no number: a character device would be taken for a terminal.
            Object::Stdin | Object::Output(_) => filestat::UNKNOWN,
            Object::Folder(_) | Object::Later(_) => filestat::DIRECTORY,
            Object::File(file) => file.file_type,
            Object::Socket(_) => filestat::SOCKET_STREAM,
        }
    }
}

/// One open descriptor.
pub struct Descriptor {
    /// What it stands for.
    pub object: Object,
    /// `fs_rights_base`
    pub rights: u64,
    /// `fs_rights_inheriting`
    pub inheriting: u64,
    /// `fs_flags`
    pub flags: u16,
}

/// The three descriptors that every guest has.
///
/// # Errors
/// What the system says of one that is open.
pub fn standard(stdio: Stdio) -> rustix::io::Result<Descriptors> {
    let Stdio { stdin, stdout, stderr } = stdio;
    let stdin = match stdin {
        Some(fd) => open(fd, rights::FD_READ)?,
        None => stream(Object::Stdin, rights::FD_READ),
    };
    let outlet = |outlet| match outlet {
        Outlet::Taken(output) => Ok(stream(Object::Output(output), rights::FD_WRITE)),
        Outlet::Open(fd) => open(fd, rights::FD_WRITE),
    };
    Ok(Descriptors { open: vec![Some(stdin), Some(outlet(stdout)?), Some(outlet(stderr)?)] })
}

fn open(fd: OwnedFd, right: u64) -> rustix::io::Result<Descriptor> {
    let file = File::stream(fd, right == rights::FD_READ)?;
    // What has no position is no file to its guest; a terminal is known by that.
    let seeks = if file.waits() { 0 } else { rights::FD_SEEK | rights::FD_TELL };
    Ok(stream(Object::File(Arc::new(file)), right | seeks))
}

fn stream(object: Object, right: u64) -> Descriptor {
    let stdio = rights::POLL_FD_READWRITE | rights::FD_FILESTAT_GET | rights::FD_FDSTAT_SET_FLAGS;
    Descriptor { object, rights: right | stdio, inheriting: 0, flags: 0 }
}

/// A guest's descriptors, by number.
pub struct Descriptors {
    open: Vec<Option<Descriptor>>,
}

impl Descriptors {
    /// Adds a preopened folder, under the next number.
    pub fn preopen(&mut self, object: Object) -> Result<u32, Errno> {
        self.open.reserve_exact(1);
        self.add(Descriptor { object, rights: rights::FOLDER, inheriting: rights::ALL, flags: 0 })
    }

    /// The descriptor `fd`; EBADF where none is open.
    pub fn get(&self, fd: u32) -> Result<&Descriptor, Errno> {
        let index = usize::try_from(fd).map_err(|_| Errno::Badf)?;
        self.open.get(index).and_then(Option::as_ref).ok_or(Errno::Badf)
    }

    /// The descriptor `fd`, to change it.
    pub fn get_mut(&mut self, fd: u32) -> Result<&mut Descriptor, Errno> {
        let index = usize::try_from(fd).map_err(|_| Errno::Badf)?;
        self.open.get_mut(index).and_then(Option::as_mut).ok_or(Errno::Badf)
    }

    /// The descriptor `fd`, if it has all of `rights`; ENOTCAPABLE where it lacks one.
    pub fn with(&self, fd: u32, rights: u64) -> Result<&Descriptor, Errno> {
        let descriptor = self.get(fd)?;
        if descriptor.rights & rights == rights {
            Ok(descriptor)
        } else {
            Err(Errno::Notcapable)
        }
    }

    /// The lowest free number; EMFILE past [`MAX_DESCRIPTORS`].
    pub fn room(&self) -> Result<usize, Errno> {
        let free = self.open.iter().position(Option::is_none).unwrap_or(self.open.len());
        if free >= MAX_DESCRIPTORS {
            return Err(Errno::Mfile);
        }
        Ok(free)
    }

    /// Opens `descriptor` under the lowest free number; EMFILE past [`MAX_DESCRIPTORS`].
    pub fn add(&mut self, descriptor: Descriptor) -> Result<u32, Errno> {
        let free = self.room()?;
        match self.open.get_mut(free) {
            Some(slot) => *slot = Some(descriptor),
            None => self.open.push(Some(descriptor)),
        }
        u32::try_from(free).map_err(|_| Errno::Mfile)
    }

    fn take(&mut self, fd: u32) -> Result<Descriptor, Errno> {
        let index = usize::try_from(fd).map_err(|_| Errno::Badf)?;
        self.open.get_mut(index).and_then(Option::take).ok_or(Errno::Badf)
    }
}

/// `fd_close(fd)`
pub fn fd_close(_memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    host.descriptors.take(args.u32(0))?;
    Ok(())
}

/// `fd_renumber(from, to)`: both must be open; what was `to` is closed.
pub fn fd_renumber(_memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let (from, to) = (args.u32(0), args.u32(1));
    host.descriptors.get(from)?;
    host.descriptors.get(to)?;
    if from != to {
        let moved = host.descriptors.take(from)?;
        *host.descriptors.get_mut(to)? = moved;
    }
    Ok(())
}

/// `fd_fdstat_get(fd, fdstat)`
pub fn fd_fdstat_get(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let descriptor = host.descriptors.get_mut(args.u32(0))?;
    let at = args.u32(1);
    memory.bytes_mut(at, 24)?.fill(0);
    if descriptor.flags == flags::UNSEEN {
        descriptor.flags = flags::NONBLOCK;
    }
    memory.write(at, &[descriptor.object.file_type()])?;
    memory.write(at.saturating_add(2), &descriptor.flags.to_le_bytes())?;
    memory.write_u64(at.saturating_add(8), descriptor.rights)?;
    memory.write_u64(at.saturating_add(16), descriptor.inheriting)
}

/// `fd_fdstat_set_flags(fd, flags)`. They are kept here and given to the kernel with each write.
pub fn fd_fdstat_set_flags(_memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    host.descriptors.with(args.u32(0), rights::FD_FDSTAT_SET_FLAGS)?;
    let flags = u16::try_from(args.u32(1)).map_err(|_| Errno::Inval)?;
    if flags > flags::ALL {
        return Err(Errno::Inval.into());
    }
    host.descriptors.get_mut(args.u32(0))?.flags = flags;
    Ok(())
}

/// `fd_fdstat_set_rights(fd, base, inheriting)`: drops rights; asking for one that is not there is
/// ENOTCAPABLE.
pub fn fd_fdstat_set_rights(_memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let (base, inheriting) = (args.u64(1), args.u64(2));
    let descriptor = host.descriptors.get_mut(args.u32(0))?;
    if base & !descriptor.rights != 0 || inheriting & !descriptor.inheriting != 0 {
        return Err(Errno::Notcapable.into());
    }
    descriptor.rights = base;
    descriptor.inheriting = inheriting;
    Ok(())
}

fn preopen(host: &Host, fd: u32) -> Result<&str, Errno> {
    match &host.descriptors.get(fd)?.object {
        Object::Folder(folder) => folder.name.as_deref().ok_or(Errno::Badf),
        Object::Later(unlaid) => unlaid.guest().ok_or(Errno::Badf),
        _ => Err(Errno::Badf),
    }
}

/// `fd_prestat_get(fd, prestat)`: EBADF for what is no preopened folder, where guests stop looking.
pub fn fd_prestat_get(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let len = preopen(host, args.u32(0))?.len();
    // The only tag, 0: a folder.
    memory.write_u32(args.u32(1), 0)?;
    memory.write_size(args.u32(1).saturating_add(4), len)
}

/// `fd_prestat_dir_name(fd, path, len)`
pub fn fd_prestat_dir_name(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let name = preopen(host, args.u32(0))?;
    let room = usize::try_from(args.u32(2)).unwrap_or(usize::MAX);
    if name.len() > room {
        return Err(Errno::Nametoolong.into());
    }
    memory.write(args.u32(1), name.as_bytes())
}
