//! `filestat` and `filetype` of the witx, from what the kernel says of a file.

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{
    statx, utimensat, AtFlags, FileType, Statx, StatxFlags, StatxTimestamp, Timespec, Timestamps, CWD,
    UTIME_NOW, UTIME_OMIT,
};
use rustix::io::Errno as HostErrno;

use super::{Errno, Memory, Wasi};

/// `filetype`
pub const UNKNOWN: u8 = 0;
/// `filetype`
pub const DIRECTORY: u8 = 3;
/// `filetype`
pub const REGULAR: u8 = 4;
/// `filetype`
pub const SOCKET_STREAM: u8 = 6;

/// `fstflags`
const ATIM: u32 = 1;
const ATIM_NOW: u32 = 2;
const MTIM: u32 = 4;
const MTIM_NOW: u32 = 8;

/// What the kernel says of the file that `fd` is open on.
pub fn of(fd: impl AsFd) -> Result<Statx, Errno> {
    named(fd, "", AtFlags::EMPTY_PATH)
}

/// What the kernel says of the file `name` in `folder`.
pub fn named(folder: impl AsFd, name: &str, flags: AtFlags) -> Result<Statx, Errno> {
    Ok(statx(folder, name, flags, StatxFlags::BASIC_STATS)?)
}

/// A kind of file as `filetype`. FIFOs have no number of their own.
pub fn file_type(kind: FileType) -> u8 {
    match kind {
        FileType::BlockDevice => 1,
        FileType::CharacterDevice => 2,
        FileType::Directory => DIRECTORY,
        FileType::RegularFile => REGULAR,
        FileType::Socket => SOCKET_STREAM,
        FileType::Symlink => 7,
        _ => UNKNOWN,
    }
}

/// The kind of a file.
pub fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// Writes the `filestat` of `stat` to `at`.
pub fn write(memory: &mut Memory<'_>, at: u32, stat: &Statx) -> Wasi<()> {
    memory.bytes_mut(at, 64)?.fill(0);
    let field = |offset: u32| at.saturating_add(offset);
    memory.write_u64(at, (u64::from(stat.stx_dev_major) << 32) | u64::from(stat.stx_dev_minor))?;
    memory.write_u64(field(8), stat.stx_ino)?;
    memory.write(field(16), &[file_type(kind(stat))])?;
    memory.write_u64(field(24), stat.stx_nlink.into())?;
    memory.write_u64(field(32), stat.stx_size)?;
    memory.write_u64(field(40), nanoseconds(&stat.stx_atime))?;
    memory.write_u64(field(48), nanoseconds(&stat.stx_mtime))?;
    memory.write_u64(field(56), nanoseconds(&stat.stx_ctime))
}

/// Times before 1970 have no number in preview 1.
fn nanoseconds(time: &StatxTimestamp) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.into())
}

/// The times that `filestat_set_times` is to set.
pub fn times(accessed: u64, modified: u64, flags: u32) -> Result<Timestamps, Errno> {
    let both = |one, other| flags & one != 0 && flags & other != 0;
    if flags > 15 || both(ATIM, ATIM_NOW) || both(MTIM, MTIM_NOW) {
        return Err(Errno::Inval);
    }
    Ok(Timestamps {
        last_access: time(accessed, flags & ATIM != 0, flags & ATIM_NOW != 0),
        last_modification: time(modified, flags & MTIM != 0, flags & MTIM_NOW != 0),
    })
}

fn time(nanoseconds: u64, given: bool, now: bool) -> Timespec {
    let second = 1_000_000_000;
    let special = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    match (given, now) {
        (true, _) => Timespec {
            tv_sec: i64::try_from(nanoseconds / second).unwrap_or(i64::MAX),
            tv_nsec: i32::try_from(nanoseconds % second).unwrap_or(0).into(),
        },
        (false, true) => special(UTIME_NOW),
        (false, false) => special(UTIME_OMIT),
    }
}

/// Sets the times of the file that `fd` is open on, be it a handle only.
pub fn set_times(fd: impl AsFd, times: &Timestamps) -> Result<(), Errno> {
    let fd = fd.as_fd();
    match utimensat(fd, "", times, AtFlags::EMPTY_PATH) {
        // Before Linux 5.8: by the name that the kernel gives to an open file.
        Err(HostErrno::INVAL | HostErrno::NOENT) => {
            let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
            Ok(utimensat(CWD, name, times, AtFlags::empty())?)
        }
        done => Ok(done?),
    }
}
