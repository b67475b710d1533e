//! The table of a guest's open descriptors, their rights, and the calls about them:
//! `fd_close`, `fd_renumber`, `fd_fdstat_*`, `fd_prestat_*`.

use std::sync::Arc;

use super::{Args, Errno, Host, Memory, Wasi};
use crate::runtime::Output;

/// Descriptors that one guest may have open: as many as a process has by default on Linux
/// (`RLIMIT_NOFILE`'s soft value), so that one guest cannot take all of the agent's own.
pub const MAX_DESCRIPTORS: usize = 1024;

/// `rights` of the witx.
pub mod rights {
    /// `fd_read`
    pub const FD_READ: u64 = 1 << 1;
    /// `fd_fdstat_set_flags`
    pub const FD_FDSTAT_SET_FLAGS: u64 = 1 << 3;
    /// `fd_write`
    pub const FD_WRITE: u64 = 1 << 6;
    /// `fd_filestat_get`
    pub const FD_FILESTAT_GET: u64 = 1 << 21;
    /// `poll_fd_readwrite`
    pub const POLL_FD_READWRITE: u64 = 1 << 27;
}

/// `filetype` of the witx: what a pipe is, too.
const FILETYPE_UNKNOWN: u8 = 0;

/// What a descriptor stands for.
#[derive(Clone)]
pub enum Object {
    /// Standard input, at its end.
    Stdin,
    /// Standard output or error.
    Output(Arc<dyn Output>),
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

/// A guest's descriptors, by number.
pub struct Descriptors {
    open: Vec<Option<Descriptor>>,
}

impl Descriptors {
    /// The three that every guest has.
    pub fn new(stdout: Arc<dyn Output>, stderr: Arc<dyn Output>) -> Descriptors {
        let stdio = rights::POLL_FD_READWRITE | rights::FD_FILESTAT_GET | rights::FD_FDSTAT_SET_FLAGS;
        let stream =
            |object, rights| Some(Descriptor { object, rights: rights | stdio, inheriting: 0, flags: 0 });
        Descriptors {
            open: vec![
                stream(Object::Stdin, rights::FD_READ),
                stream(Object::Output(stdout), rights::FD_WRITE),
                stream(Object::Output(stderr), rights::FD_WRITE),
            ],
        }
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

    /// Opens `descriptor` under the lowest free number; ENFILE past [`MAX_DESCRIPTORS`].
    pub fn add(&mut self, descriptor: Descriptor) -> Result<u32, Errno> {
        let free = self.open.iter().position(Option::is_none).unwrap_or(self.open.len());
        if free >= MAX_DESCRIPTORS {
            return Err(Errno::Mfile);
        }
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
    let descriptor = host.descriptors.get(args.u32(0))?;
    let at = args.u32(1);
    memory.bytes_mut(at, 24)?.fill(0);
    memory.write(at, &[FILETYPE_UNKNOWN])?;
    memory.write(at.saturating_add(2), &descriptor.flags.to_le_bytes())?;
    memory.write_u64(at.saturating_add(8), descriptor.rights)?;
    memory.write_u64(at.saturating_add(16), descriptor.inheriting)
}

/// `fd_fdstat_set_flags(fd, flags)`. The flags of a stream change nothing that it does.
pub fn fd_fdstat_set_flags(_memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    host.descriptors.with(args.u32(0), rights::FD_FDSTAT_SET_FLAGS)?;
    let flags = u16::try_from(args.u32(1)).map_err(|_| Errno::Inval)?;
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

/// `fd_filestat_get(fd, filestat)`
pub fn fd_filestat_get(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    host.descriptors.with(args.u32(0), rights::FD_FILESTAT_GET)?;
    memory.bytes_mut(args.u32(1), 64)?.fill(0);
    memory.write(args.u32(1).saturating_add(16), &[FILETYPE_UNKNOWN])
}

/// `fd_prestat_get(fd, prestat)`
pub fn fd_prestat_get(_memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    host.descriptors.get(args.u32(0))?;
    Err(Errno::Badf.into())
}

/// `fd_prestat_dir_name(fd, path, len)`
pub fn fd_prestat_dir_name(_memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    host.descriptors.get(args.u32(0))?;
    Err(Errno::Badf.into())
}
