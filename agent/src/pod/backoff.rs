//! Waits that double, as a kubelet's (`client-go/util/flowcontrol/backoff.go`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// First wait of a container restart and of an image pull (`kubelet.go`: `backOffPeriod`, `imageBackOffPeriod`).
pub const FIRST: Duration = Duration::from_secs(10);

/// Longest wait (`MaxContainerBackOff`, `MaxImageBackOff`).
pub const CAP: Duration = Duration::from_secs(300);

/// After this long without a step the next wait is the first again (2 × [`CAP`]).
pub const RESET: Duration = Duration::from_secs(600);

/// A doubling wait. Times are on the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// The wait now; zero before the first step.
    delay: Duration,
    /// When the last step was.
    updated: Duration,
}

impl Backoff {
    /// Until when something that happened at `event` must be waited for; none: go at once.
    #[must_use]
    pub fn until(&self, event: Duration) -> Option<Duration> {
        (!self.expired(event)).then(|| event.saturating_add(self.delay))
    }

    /// How long the wait before restart number `restarts` + 1 is, when all before it followed at once.
    #[must_use]
    pub fn delay_of(restarts: u32) -> Duration {
        let doublings = restarts.saturating_sub(1).min(u32::BITS - 1);
        FIRST.saturating_mul(1 << doublings).min(CAP)
    }

    /// As it is after a wait of `delay` that ended, or ends, at `restart`.
    #[must_use]
    pub fn after(delay: Duration, restart: Duration) -> Backoff {
        Backoff { delay: delay.saturating_mul(2).min(CAP), updated: restart }
    }

    /// The same wait by another clock.
    #[must_use]
    pub fn translated(self, time: impl Fn(Duration) -> Duration) -> Backoff {
        Backoff { updated: time(self.updated), ..self }
    }

    /// The wait as it stands.
    #[must_use]
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Takes a step at `now` because of something that happened at `event`: doubles the wait, or begins anew.
    pub fn step(&mut self, event: Duration, now: Duration) {
        self.delay = if self.expired(event) { FIRST } else { self.delay.saturating_mul(2).min(CAP) };
        self.updated = now;
    }

    fn expired(&self, event: Duration) -> bool {
        self.delay.is_zero() || event.saturating_sub(self.updated) > RESET
    }
}

/// A duration as Go prints it (`10s`, `1m20s`, `523ms`, `1.5s`), cut to milliseconds.
#[must_use]
pub fn go_duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    if seconds == 0 && millis > 0 {
        return format!("{millis}ms");
    }
    let fraction = match millis {
        0 => String::new(),
        _ => format!(".{}", format!("{millis:03}").trim_end_matches('0')),
    };
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}{fraction}s"),
        (0, _) => format!("{minutes}m{}{fraction}s", seconds % 60),
        _ => format!("{hours}h{minutes}m{}{fraction}s", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn waits_double_to_the_cap() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.until(secs(5)), None, "the first restart is immediate");
        let mut now = secs(5);
        for wait in [10, 20, 40, 80, 160, 300, 300] {
            backoff.step(now, now);
            assert_eq!(backoff.delay(), secs(wait));
            assert_eq!(backoff.until(now), Some(now + secs(wait)));
            now += secs(wait);
        }
    }

    #[test]
    fn a_run_longer_than_the_reset_begins_anew() {
        let mut backoff = Backoff::default();
        backoff.step(secs(0), secs(0));
        backoff.step(secs(0), secs(10));
        assert_eq!(backoff.until(secs(10) + RESET), Some(secs(10) + RESET + secs(20)), "not longer yet");
        let late = secs(11) + RESET;
        assert_eq!(backoff.until(late), None);
        backoff.step(late, late);
        assert_eq!(backoff.delay(), FIRST);
    }

    #[test]
    fn durations_print_as_in_go() {
        for (millis, text) in [
            (0, "0s"),
            (523, "523ms"),
            (1_000, "1s"),
            (1_500, "1.5s"),
            (1_050, "1.05s"),
            (10_000, "10s"),
            (80_000, "1m20s"),
            (160_000, "2m40s"),
            (300_000, "5m0s"),
            (62_500, "1m2.5s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }
}
