//! The error numbers of WASI preview 1 (`errno` in the witx), and the host's errors as such.

use std::io;

use rustix::io::Errno as HostErrno;

macro_rules! errnos {
    ($($name:ident = $value:literal => $host:ident),* ; $($only:ident = $own:literal),* $(,)?) => {
        /// What a call answers. The names are POSIX's without their E; the numbers are the witx's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Errno {
            $(#[doc = stringify!($host)] $name = $value,)*
            $(#[doc = stringify!($only)] $only = $own,)*
        }

        impl From<HostErrno> for Errno {
            fn from(error: HostErrno) -> Errno {
                match error {
                    $(HostErrno::$host => Errno::$name,)*
                    // What has no number here is still an answer, never a trap.
                    _ => Errno::Io,
                }
            }
        }
    };
}

errnos! {
    Toobig = 1 => TOOBIG, Acces = 2 => ACCESS, Addrinuse = 3 => ADDRINUSE,
    Addrnotavail = 4 => ADDRNOTAVAIL, Afnosupport = 5 => AFNOSUPPORT, Again = 6 => AGAIN,
    Already = 7 => ALREADY, Badf = 8 => BADF, Busy = 10 => BUSY, Canceled = 11 => CANCELED,
    Child = 12 => CHILD, Connaborted = 13 => CONNABORTED, Connrefused = 14 => CONNREFUSED,
    Connreset = 15 => CONNRESET, Deadlk = 16 => DEADLK, Destaddrreq = 17 => DESTADDRREQ,
    Dom = 18 => DOM, Dquot = 19 => DQUOT, Exist = 20 => EXIST, Fault = 21 => FAULT,
    Fbig = 22 => FBIG, Hostunreach = 23 => HOSTUNREACH, Ilseq = 25 => ILSEQ,
    Inprogress = 26 => INPROGRESS, Intr = 27 => INTR, Inval = 28 => INVAL, Io = 29 => IO,
    Isconn = 30 => ISCONN, Isdir = 31 => ISDIR, Loop = 32 => LOOP, Mfile = 33 => MFILE,
    Mlink = 34 => MLINK, Msgsize = 35 => MSGSIZE, Nametoolong = 37 => NAMETOOLONG,
    Netdown = 38 => NETDOWN, Netreset = 39 => NETRESET, Netunreach = 40 => NETUNREACH,
    Nfile = 41 => NFILE, Nobufs = 42 => NOBUFS, Nodev = 43 => NODEV, Noent = 44 => NOENT,
    Nolck = 46 => NOLCK, Nomem = 48 => NOMEM, Noprotoopt = 50 => NOPROTOOPT, Nospc = 51 => NOSPC,
    Nosys = 52 => NOSYS, Notconn = 53 => NOTCONN, Notdir = 54 => NOTDIR, Notempty = 55 => NOTEMPTY,
    Notsock = 57 => NOTSOCK, Notsup = 58 => NOTSUP, Notty = 59 => NOTTY, Nxio = 60 => NXIO,
    Overflow = 61 => OVERFLOW, Perm = 63 => PERM, Pipe = 64 => PIPE, Range = 68 => RANGE,
    Rofs = 69 => ROFS, Spipe = 70 => SPIPE, Srch = 71 => SRCH, Stale = 72 => STALE,
    Timedout = 73 => TIMEDOUT, Txtbsy = 74 => TXTBSY, Xdev = 75 => XDEV;
    Success = 0, Notcapable = 76,
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Errno {
        HostErrno::from_io_error(&error).map_or(Errno::Io, Errno::from)
    }
}
