//! `random_get`: the kernel's random bytes.

use rustix::rand::{getrandom, GetRandomFlags};

use super::abi::CHUNK;
use super::{Args, Errno, Host, Memory, Stop, Wait, Wasi};

/// `random_get(buffer, len)`. More than a chunk is filled in several turns.
pub fn random_get(memory: &mut Memory<'_>, _host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let (at, len) = (args.u32(0), args.u32(1));
    memory.bytes(at, len)?;
    fill(memory, at, len)
}

fn fill(memory: &mut Memory<'_>, at: u32, len: u32) -> Wasi<()> {
    let now = len.min(u32::try_from(CHUNK).unwrap_or(u32::MAX));
    let done = match getrandom(&mut *memory.bytes_mut(at, now)?, GetRandomFlags::NONBLOCK) {
        Ok(done) => u32::try_from(done).unwrap_or(now),
        Err(rustix::io::Errno::INTR) => 0,
        // A board that has just started has gathered too little: wait on a blocking thread.
        Err(rustix::io::Errno::AGAIN) => {
            return Err(Stop::Wait(Wait::blocking(move || {
                let seeded = getrandom(&mut [0; 1][..], GetRandomFlags::empty()).map_err(Errno::from);
                Box::new(move |memory, _| {
                    seeded?;
                    fill(memory, at, len)
                })
            })))
        }
        Err(error) => return Err(Errno::from(error).into()),
    };
    let rest = len.saturating_sub(done);
    if rest == 0 {
        return Ok(());
    }
    let next = at.saturating_add(done);
    Err(Stop::Wait(Wait::Turn(Box::new(move |memory, _| fill(memory, next, rest)))))
}
