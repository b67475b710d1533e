//! `clock_*`: the four clocks of preview 1.

use std::time::Duration;

use rustix::time::{clock_getres, clock_gettime, ClockId, Timespec};

use super::{Args, Errno, Host, Memory, Wasi};

/// `clockid`: wall clock.
pub const REALTIME: u32 = 0;
/// `clockid`: monotonic clock.
pub const MONOTONIC: u32 = 1;
/// `clockid`: the guest's CPU time.
const PROCESS_CPU: u32 = 2;
/// `clockid`: the CPU time of the guest's only thread, so the same.
const THREAD_CPU: u32 = 3;

/// `clock_res_get(id, resolution)`, in nanoseconds.
pub fn clock_res_get(memory: &mut Memory<'_>, _host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let clock = match args.u32(0) {
        REALTIME => ClockId::Realtime,
        MONOTONIC => ClockId::Monotonic,
        PROCESS_CPU | THREAD_CPU => ClockId::ThreadCPUTime,
        _ => return Err(Errno::Inval.into()),
    };
    memory.write_u64(args.u32(1), nanoseconds(clock_getres(clock)).max(1))
}

/// `clock_time_get(id, precision, time)`, in nanoseconds. The precision is a hint, and not needed.
pub fn clock_time_get(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let time = match args.u32(0) {
        PROCESS_CPU | THREAD_CPU => u64::try_from(host.shared.cpu().as_nanos()).unwrap_or(u64::MAX),
        id => now(id).ok_or(Errno::Inval)?,
    };
    memory.write_u64(args.u32(2), time)
}

/// What the wall clock or the monotonic clock shows, in nanoseconds; none for any other clock.
pub fn now(id: u32) -> Option<u64> {
    match id {
        REALTIME => Some(nanoseconds(clock_gettime(ClockId::Realtime))),
        MONOTONIC => Some(nanoseconds(clock_gettime(ClockId::Monotonic))),
        _ => None,
    }
}

/// CPU time that the calling thread has used.
pub fn thread_cpu() -> Duration {
    Duration::from_nanos(nanoseconds(clock_gettime(ClockId::ThreadCPUTime)))
}

fn nanoseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}
