//! `proc_*` and `sched_yield`: a guest's own end, and its turn.

use super::{Args, Host, Memory, Stop, Wait, Wasi};

/// `proc_exit(code)`: any 32-bit code.
pub fn proc_exit(_memory: &mut Memory<'_>, _host: &mut Host, args: Args<'_>) -> Wasi<()> {
    Err(Stop::Exit(args.u32(0)))
}

/// Signals of preview 1 that do nothing unless handled, and a guest has no way to handle one:
/// none, chld, cont, urg, winch.
const IGNORED: [u32; 5] = [0, 16, 17, 22, 27];
/// The highest signal number: sys.
const LAST: u32 = 30;

/// `proc_raise(signal)`: ends the guest as a shell would tell it, 128 plus the signal, where the
/// signal's default action is to end a process.
pub fn proc_raise(_memory: &mut Memory<'_>, _host: &mut Host, args: Args<'_>) -> Wasi<()> {
    match args.u32(0) {
        signal if signal > LAST => Err(super::Errno::Inval.into()),
        signal if IGNORED.contains(&signal) => Ok(()),
        signal => Err(Stop::Exit(signal.saturating_add(128))),
    }
}

/// `sched_yield()`
pub fn sched_yield(_memory: &mut Memory<'_>, _host: &mut Host, _args: Args<'_>) -> Wasi<()> {
    Err(Stop::Wait(Wait::Turn(Box::new(|_, _| Ok(())))))
}
