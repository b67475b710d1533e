//! `sock_*`: no descriptor of a guest is a socket yet.

use super::{Args, Errno, Host, Memory, Wasi};

/// Every socket call on what is none: ENOTSOCK, or EBADF where nothing is open.
pub fn no_socket(_memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    host.descriptors.get(args.u32(0))?;
    Err(Errno::Notsock.into())
}
