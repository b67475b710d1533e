//! `fd_read`, `fd_write`: bytes between a guest's buffers and what a descriptor stands for.

use super::descriptors::{rights, Object};
use super::{Args, Errno, Host, Memory, Wasi};

/// `fd_read(fd, iovecs, count, read)`
pub fn fd_read(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let descriptor = host.descriptors.with(args.u32(0), rights::FD_READ)?;
    let _buffers = memory.iovecs(args.u32(1), args.u32(2))?;
    match &descriptor.object {
        // At its end.
        Object::Stdin => memory.write_size(args.u32(3), 0),
        Object::Output(_) => Err(Errno::Badf.into()),
    }
}

/// `fd_write(fd, iovecs, count, written)`
pub fn fd_write(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let descriptor = host.descriptors.with(args.u32(0), rights::FD_WRITE)?;
    let buffers = memory.iovecs(args.u32(1), args.u32(2))?;
    match &descriptor.object {
        Object::Stdin => Err(Errno::Badf.into()),
        Object::Output(output) => {
            let bytes = memory.gather(&buffers)?;
            let written = bytes.len();
            if written > 0 {
                output.write(&bytes).map_err(Errno::from)?;
            }
            drop(bytes);
            memory.write_size(args.u32(3), written)
        }
    }
}
