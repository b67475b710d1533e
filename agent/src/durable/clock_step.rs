//! Waiting for the wall clock, which on a board without a battery starts in 1970 and is set later.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use async_io::{Async, Timer};
use jiff::Timestamp;
use rustix::time::{
    timerfd_create, timerfd_settime, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
};

/// Between two looks at the clock where the kernel has no timerfd.
const LOOK: Duration = Duration::from_secs(10);

/// 2038-01-19T03:14:07Z
const LAST_OF_32_BITS: i64 = 0x7fff_ffff;

/// A wait for the wall clock to come to a time, or to be set to any: the kernel wakes the agent at that
/// moment, and not before.
pub struct ClockStep {
    timer: Option<Async<OwnedFd>>,
    /// What to do without a timer: look again after this long, or never.
    look: Option<Duration>,
}

impl ClockStep {
    /// Watches from now on. Look at the clock after this, and what happens in between is not missed.
    #[must_use]
    pub fn until(at: Timestamp) -> ClockStep {
        ClockStep { timer: armed(at), look: Some(LOOK) }
    }

    /// Watches for the clock being set, whenever that is.
    #[must_use]
    pub fn any() -> ClockStep {
        // 32-bit kernels before 5.1 have no later time than that of 2038; after it, it would come at once.
        let last = Timestamp::from_second(LAST_OF_32_BITS).unwrap_or(Timestamp::MAX);
        let earlier = || (Timestamp::now() < last).then(|| armed(last)).flatten();
        ClockStep { timer: armed(Timestamp::MAX).or_else(earlier), look: None }
    }

    /// Waits. What the clock says then is the caller's to see.
    pub async fn wait(&self) {
        let Some(timer) = &self.timer else {
            match self.look {
                Some(look) => Timer::after(look).await,
                None => Timer::never().await,
            };
            return;
        };
        // Either outcome is what was waited for: it has come (8 bytes), or the clock was set (ECANCELED).
        let mut count = [0; 8];
        let _ = timer.read_with(|timer| Ok(rustix::io::read(timer, &mut count)?)).await;
    }
}

fn armed(at: Timestamp) -> Option<Async<OwnedFd>> {
    let arm = || -> io::Result<Async<OwnedFd>> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // At least a nanosecond after the epoch: zero would mean "never".
        let value = Timespec { tv_sec: at.max(Timestamp::UNIX_EPOCH).as_second(), tv_nsec: 1 };
        let interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(&timer, flags, &Itimerspec { it_interval: interval, it_value: value })?;
        Async::new(timer)
    };
    // Some kernels for tiny machines are built without timerfd.
    arm().inspect_err(|error| log::debug!("no timer on the wall clock: {error}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_time_that_comes_or_has_been_ends_the_wait() {
        let took = |at: Timestamp| {
            let began = Instant::now();
            let step = ClockStep::until(at);
            async_io::block_on(step.wait());
            began.elapsed()
        };
        assert!(took(Timestamp::UNIX_EPOCH) < Duration::from_secs(1));
        assert!(took(Timestamp::MIN) < Duration::from_secs(1));
        // To the second, rounded down: between none and one whole second is left.
        let soon = Timestamp::now() + Duration::from_secs(2);
        let waited = took(soon);
        assert!(waited >= Duration::from_millis(900) && waited < Duration::from_secs(20), "{waited:?}");
    }

    #[test]
    fn a_time_that_does_not_come_does_not_end_it() {
        let waited = async_io::block_on(futures_lite::future::or(
            async {
                let hour = ClockStep::until(Timestamp::now() + Duration::from_secs(3600));
                let any = ClockStep::any();
                assert!(hour.timer.is_some() && any.timer.is_some(), "the kernel has taken both times");
                futures_lite::future::or(hour.wait(), any.wait()).await;
                false
            },
            async {
                Timer::after(Duration::from_millis(300)).await;
                true
            },
        ));
        assert!(waited);
    }
}
