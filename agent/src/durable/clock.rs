//! Time as decisions see it: what a person reads, and what has passed.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use rustix::time::{clock_gettime, ClockId};
use serde::{Deserialize, Serialize};

/// 2025-01-01T00:00:00Z: older than the first of these agents. A clock before it is not set.
pub const NOT_SET_BEFORE: i64 = 1_735_689_600;

/// What `mono` shows when the machine starts: ten years, so that what was before can be reckoned with, too.
const AT_BOOT: Duration = Duration::from_secs(10 * 365 * 86400);

/// One reading of both clocks. Deadlines and back-offs are reckoned on `mono`, which a step of the
/// wall clock (a board that starts in 1970 and then hears from NTP) does not touch; `wall` is only
/// for what people and the API server read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock, whole seconds being what the API shows.
    pub wall: Timestamp,
    /// Time since some ten years before the machine started; the same for all processes.
    pub mono: Duration,
}

impl Now {
    /// Reads both clocks.
    #[must_use]
    pub fn read() -> Now {
        let time = clock_gettime(ClockId::Monotonic);
        let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0));
        let rest = Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0));
        let up = seconds.saturating_add(rest);
        Now { wall: wall(), mono: AT_BOOT.saturating_add(up) }
    }
}

fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::try_from(SystemTime::UNIX_EPOCH + since).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A reading of both clocks that is written down, for a later life of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The machine's life (`/proc/sys/kernel/random/boot_id`).
    boot: String,
    /// In seconds since 1970.
    wall: i64,
    mono: Duration,
}

impl Reading {
    /// This reading, in this life of the machine.
    #[must_use]
    pub fn of(now: Now) -> Reading {
        static BOOT: OnceLock<String> = OnceLock::new();
        let boot = BOOT.get_or_init(|| {
            let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
            id.trim().to_owned()
        });
        Reading { boot: boot.clone(), wall: now.wall.as_second(), mono: now.mono }
    }

    /// Times of the monotonic clock of those days as times of the one that shows `now`.
    ///
    /// In the same life of the machine they are the same. Else the wall clocks tell how long it was down, if both
    /// were set and neither was set back meanwhile; what they do not tell has not passed: nothing ends early.
    pub fn translate(&self, now: Now) -> impl Fn(Duration) -> Duration {
        let down = match self.wall >= NOT_SET_BEFORE {
            true => now.wall.as_second().saturating_sub(self.wall),
            false => 0,
        };
        let down = Duration::from_secs(u64::try_from(down).unwrap_or(0));
        let same = self.boot == Reading::of(now).boot;
        let then = self.mono;
        let that_moment = now.mono.saturating_sub(down);
        move |time| match time {
            _ if same => time,
            // Not ever is not ever.
            Duration::MAX => time,
            time if time >= then => that_moment.saturating_add(time.saturating_sub(then)),
            time => that_moment.saturating_sub(then.saturating_sub(time)),
        }
    }

    /// As a machine that started again since would find it.
    #[cfg(test)]
    pub fn of_another_boot(mut self) -> Reading {
        self.boot = "another".to_owned();
        self
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        fs::File,
        time::{Duration, UNIX_EPOCH},
    };

    use rustix::fs::{memfd_create, MemfdFlags};

    use super::{Now, Reading};

    fn at(wall: i64, mono: u64) -> Now {
        Now { wall: jiff::Timestamp::from_second(wall).unwrap(), mono: Duration::from_secs(mono) }
    }

    #[test]
    fn times_are_found_again_after_a_restart_and_after_a_reboot() {
        let (set, hour) = (1_767_225_600, 3600);
        let seconds = |moment: &Reading, now: Now, time: u64| {
            moment.translate(now)(Duration::from_secs(time)).as_secs()
        };
        let saved = Reading::of(at(set, 10_000));
        assert_eq!(seconds(&saved, at(set + hour, 13_600), 9_000), 9_000, "the same clock");
        let rebooted = saved.of_another_boot();
        for (wall, time, expected) in [
            // Down for an hour: what was due in 1000 s has been for 2600.
            (set + hour, 11_000, 50_000 - 2600),
            (set + hour, 9_000, 50_000 - 4600),
            // The clock is not set, or was set back: no time has passed.
            (20, 11_000, 51_000),
            (set - hour, 11_000, 51_000),
            (set, 10_000, 50_000),
        ] {
            assert_eq!(seconds(&rebooted, at(wall, 50_000), time), expected, "{wall} {time}");
        }
        assert_eq!(rebooted.translate(at(set, 50_000))(Duration::MAX), Duration::MAX);
        // Written down in 1970: a year of 2026 says nothing of how long that was ago.
        let unset = Reading::of(at(20, 10_000)).of_another_boot();
        assert_eq!(seconds(&unset, at(set, 50_000), 11_000), 51_000);
    }

    #[test]
    fn the_monotonic_clock_goes_on_and_is_every_processs() {
        let first = Now::read().mono;
        assert!(first > super::AT_BOOT && Now::read().mono >= first);
    }

    /// With a 32-bit `time_t` in the C library, the standard library's clock panics from 2038 on, and
    /// on every board whose clock starts beyond it.
    #[test]
    fn the_c_library_knows_times_past_2038() {
        let in_2040 = UNIX_EPOCH + Duration::from_secs(2_208_988_800);
        let file = File::from(memfd_create("2040", MemfdFlags::CLOEXEC).unwrap());
        file.set_modified(in_2040).unwrap();
        assert_eq!(file.metadata().unwrap().modified().unwrap(), in_2040);
    }
}
