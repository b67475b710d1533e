//! `fd_read`, `fd_write`, `fd_pread`, `fd_pwrite`: bytes between a guest's buffers and what a descriptor
//! stands for. What the page cache can take or give at once (`RWF_NOWAIT`) is done at once, the rest on a
//! blocking thread; FIFOs and devices are waited for.

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

use rustix::io::{pread, preadv2, pwrite, pwritev2, read, write, Errno as HostErrno, ReadWriteFlags};

use super::abi::Iovec;
use super::descriptors::{flags, rights, Object};
use super::files::{off_thread, File};
use super::{sockets, Args, Errno, Host, Interest, Memory, Stop, Then, Wait, Waited, Wasi};
use crate::runtime::quota::End;

/// The file's own position (`preadv2`, -1).
const HERE: u64 = u64::MAX;

/// A read or write of a file, begun again after a wait.
struct Transfer {
    file: Arc<File>,
    buffers: Vec<Iovec>,
    offset: u64,
    flags: u16,
    count: u32,
}

/// `fd_read(fd, iovecs, count, read)`
pub fn fd_read(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let descriptor = host.descriptors.get(args.u32(0))?;
    match &descriptor.object {
        Object::Output(_) => return Err(Errno::Badf.into()),
        Object::Folder(_) | Object::Later(_) => return Err(Errno::Isdir.into()),
        Object::Socket(_) => return sockets::read(memory, host, args),
        Object::Stdin | Object::File(_) => {}
    }
    let descriptor = host.descriptors.with(args.u32(0), rights::FD_READ)?;
    let buffers = memory.iovecs(args.u32(1), args.u32(2))?;
    match &descriptor.object {
        Object::File(file) => {
            let (file, flags) = (Arc::clone(file), descriptor.flags);
            Transfer { file, buffers, offset: HERE, flags, count: args.u32(3) }.read(memory)
        }
        // At its end.
        _ => memory.write_size(args.u32(3), 0),
    }
}

/// `fd_write(fd, iovecs, count, written)`
pub fn fd_write(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let descriptor = host.descriptors.get(args.u32(0))?;
    match &descriptor.object {
        Object::Stdin | Object::Folder(_) | Object::Later(_) => return Err(Errno::Badf.into()),
        Object::Socket(_) => return sockets::write(memory, host, args),
        Object::Output(_) | Object::File(_) => {}
    }
    let descriptor = host.descriptors.with(args.u32(0), rights::FD_WRITE)?;
    let buffers = memory.iovecs(args.u32(1), args.u32(2))?;
    match &descriptor.object {
        Object::File(file) => {
            let (file, flags) = (Arc::clone(file), descriptor.flags);
            Transfer { file, buffers, offset: HERE, flags, count: args.u32(3) }.write(memory)
        }
        Object::Output(output) => {
            let bytes = memory.gather(&buffers)?;
            let written = bytes.len();
            if written > 0 {
                output.write(&bytes).map_err(Errno::from)?;
            }
            drop(bytes);
            memory.write_size(args.u32(3), written)
        }
        Object::Stdin | Object::Folder(_) | Object::Later(_) | Object::Socket(_) => Err(Errno::Badf.into()),
    }
}

/// `fd_pread(fd, iovecs, count, offset, read)`
pub fn fd_pread(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    positioned(memory, host, args, rights::FD_READ | rights::FD_SEEK)?.read(memory)
}

/// `fd_pwrite(fd, iovecs, count, offset, written)`. At its offset, whether the descriptor appends or not
/// (POSIX; Linux' own pwrite appends).
pub fn fd_pwrite(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let mut transfer = positioned(memory, host, args, rights::FD_WRITE | rights::FD_SEEK)?;
    transfer.flags &= !flags::APPEND;
    transfer.write(memory)
}

fn positioned(memory: &Memory<'_>, host: &Host, args: Args<'_>, rights: u64) -> Wasi<Transfer> {
    match &host.descriptors.get(args.u32(0))?.object {
        Object::Stdin | Object::Output(_) | Object::Socket(_) => return Err(Errno::Spipe.into()),
        Object::Folder(_) | Object::Later(_) => return Err(Errno::Isdir.into()),
        Object::File(_) => {}
    }
    let descriptor = host.descriptors.with(args.u32(0), rights)?;
    let Object::File(file) = &descriptor.object else { return Err(Errno::Badf.into()) };
    // An offset past the kernel's own is EINVAL; -1 would mean the file's position.
    let offset = i64::try_from(args.u64(3)).map_err(|_| Errno::Inval)?.unsigned_abs();
    let buffers = memory.iovecs(args.u32(1), args.u32(2))?;
    Ok(Transfer { file: Arc::clone(file), buffers, offset, flags: descriptor.flags, count: args.u32(4) })
}

/// Whether the kernel would have had to wait.
fn would_wait(error: HostErrno) -> bool {
    matches!(error, HostErrno::AGAIN | HostErrno::OPNOTSUPP | HostErrno::INTR | HostErrno::NOSYS)
}

impl Transfer {
    fn len(&self) -> usize {
        let sizes = self.buffers.iter().map(|buffer| usize::try_from(buffer.len).unwrap_or(0));
        sizes.fold(0, usize::saturating_add)
    }

    fn read(self, memory: &mut Memory<'_>) -> Wasi<()> {
        let at_once = if self.file.waits() { ReadWriteFlags::empty() } else { ReadWriteFlags::NOWAIT };
        let read = match self.buffers[..] {
            [only] => read_at(&self.file, memory.bytes_mut(only.at, only.len)?, self.offset, at_once),
            _ => {
                let mut bytes = vec![0; self.len()];
                let read = read_at(&self.file, &mut bytes, self.offset, at_once);
                if let Ok(read) = read {
                    memory.scatter(&self.buffers, bytes.get(..read).unwrap_or(&[]))?;
                }
                read
            }
        };
        match read {
            Ok(read) => memory.write_size(self.count, read),
            Err(error) if !would_wait(error) => Err(error.into()),
            Err(_) if self.file.waits() => self.when(Interest::Read),
            Err(_) => off_thread(
                move || {
                    let mut bytes = vec![0; self.len()];
                    let read = read_at(&self.file, &mut bytes, self.offset, ReadWriteFlags::empty())?;
                    bytes.truncate(read);
                    Ok((self, bytes))
                },
                |(transfer, bytes), memory, _| {
                    memory.scatter(&transfer.buffers, &bytes)?;
                    memory.write_size(transfer.count, bytes.len())
                },
            ),
        }
    }

    fn write(self, memory: &mut Memory<'_>) -> Wasi<()> {
        let bytes = memory.gather(&self.buffers)?;
        let mut how = ReadWriteFlags::empty();
        if self.flags & flags::APPEND != 0 && !self.file.waits() {
            how |= ReadWriteFlags::APPEND;
        }
        if self.file.fd.is_counted() {
            self.reserve(bytes.len(), how)?;
        }
        if self.flags & flags::SYNC != 0 {
            how |= ReadWriteFlags::SYNC;
        }
        if self.flags & flags::DSYNC != 0 {
            how |= ReadWriteFlags::DSYNC;
        }
        let synced = how.intersects(ReadWriteFlags::SYNC | ReadWriteFlags::DSYNC);
        let at_once = if self.file.waits() { how } else { how | ReadWriteFlags::NOWAIT };
        let written = match synced {
            true => Err(HostErrno::AGAIN),
            false => write_at(&self.file, &bytes, self.offset, at_once),
        };
        match written {
            Ok(written) => {
                drop(bytes);
                memory.write_size(self.count, written)
            }
            Err(error) if !would_wait(error) => Err(error.into()),
            Err(_) if self.file.waits() && !synced => self.when(Interest::Write),
            Err(_) => {
                let bytes = bytes.into_owned();
                let count = self.count;
                let work = move || Ok(write_at(&self.file, &bytes, self.offset, how)?);
                off_thread(work, move |written, memory, _| memory.write_size(count, written))
            }
        }
    }

    /// Counts `len` bytes that are to be written.
    fn reserve(&self, len: usize, how: ReadWriteFlags) -> Result<(), Errno> {
        let len = u64::try_from(len).map_err(|_| Errno::Fbig)?;
        let from = match self.offset {
            _ if how.contains(ReadWriteFlags::APPEND) => return self.file.fd.reserve(End::Append(len)),
            HERE => rustix::fs::seek(&self.file.fd, rustix::fs::SeekFrom::Current(0))?,
            offset => offset,
        };
        self.file.fd.reserve(End::At(from.checked_add(len).ok_or(Errno::Fbig)?))
    }

    /// Begins again once the file is ready; a descriptor that is not to wait answers EAGAIN.
    fn when(self, interest: Interest) -> Wasi<()> {
        if self.flags & flags::NONBLOCK != 0 {
            return Err(Errno::Again.into());
        }
        let waited = Waited::file(&self.file)?;
        let then: Then = Box::new(move |memory, _| match interest {
            Interest::Read => self.read(memory),
            Interest::Write => self.write(memory),
        });
        Err(Stop::Wait(match waited {
            Some(waited) => Wait::Until { deadline: None, waited: vec![(waited, interest)], then },
            None => Wait::Turn(then),
        }))
    }
}

fn read_at(file: &File, bytes: &mut [u8], offset: u64, how: ReadWriteFlags) -> Result<usize, HostErrno> {
    match preadv2(&file.fd, &mut [IoSliceMut::new(&mut *bytes)], offset, how) {
        // Before Linux 4.6, and some emulators.
        Err(HostErrno::NOSYS) if how.is_empty() && offset == HERE => read(&file.fd, bytes),
        Err(HostErrno::NOSYS) if how.is_empty() => pread(&file.fd, bytes, offset),
        done => done,
    }
}

fn write_at(file: &File, bytes: &[u8], offset: u64, how: ReadWriteFlags) -> Result<usize, HostErrno> {
    match pwritev2(&file.fd, &[IoSlice::new(bytes)], offset, how) {
        Err(error) if how.contains(ReadWriteFlags::NOWAIT) => Err(error),
        // Before Linux 4.16 an append is a seek and a write, and nothing is synced.
        Err(HostErrno::NOSYS | HostErrno::OPNOTSUPP) if offset == HERE => {
            if how.contains(ReadWriteFlags::APPEND) {
                rustix::fs::seek(&file.fd, rustix::fs::SeekFrom::End(0))?;
            }
            write(&file.fd, bytes)
        }
        Err(HostErrno::NOSYS) => pwrite(&file.fd, bytes, offset),
        done => done,
    }
}
