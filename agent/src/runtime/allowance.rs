//! What a guest may use of the processor in each period: `limits.cpu`, as the kernel's bandwidth control
//! (`Documentation/scheduler/sched-bwc.rst`) holds it for processes.

use std::time::{Duration, Instant};

use super::turns::WHOLE;

/// The period of all limits (a kubelet's `cpuCFSQuotaPeriod`).
pub const PERIOD: Duration = Duration::from_millis(100);

/// A limit of CPU time. What a slice uses beyond it is owed by the next periods; what is not used is gone.
#[derive(Debug)]
pub struct Allowance {
    /// CPU time of one period.
    quota: Duration,
    /// When this period ends.
    end: Instant,
    /// CPU time that counts in this period.
    spent: Duration,
    /// CPU time of the guest in all when it was looked at last.
    seen: Duration,
}

impl Allowance {
    /// `limit` thousandths of a processor, from `now` on. None where the limit binds nobody: a guest has one
    /// thread.
    pub fn new(limit: u32, now: Instant) -> Option<Allowance> {
        // A kubelet takes no limit for less than a hundredth; the kernel's least quota is 1 ms.
        let quota = PERIOD.saturating_mul(limit.max(WHOLE / 100)) / WHOLE;
        (limit < WHOLE).then(|| Allowance {
            quota,
            end: now.checked_add(PERIOD).unwrap_or(now),
            spent: Duration::ZERO,
            seen: Duration::ZERO,
        })
    }

    /// The guest has used `used` in all. What it may use until the next look; or when it may go on.
    pub fn settle(&mut self, used: Duration, now: Instant) -> Result<Duration, Instant> {
        self.spent = self.spent.saturating_add(used.saturating_sub(self.seen));
        self.seen = used;
        if let Some(late) = now.checked_duration_since(self.end) {
            let periods = whole_periods(late).saturating_add(1);
            self.spent = self.spent.saturating_sub(self.quota.saturating_mul(periods));
            self.end = self.end.checked_add(PERIOD.saturating_mul(periods)).unwrap_or(now);
        }
        match self.quota.checked_sub(self.spent) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => {
                // What is owed beyond this period's quota takes whole further periods.
                let debts = self.spent.as_nanos() / self.quota.as_nanos().max(1);
                let more = u32::try_from(debts).unwrap_or(u32::MAX).saturating_sub(1);
                Err(self.end.checked_add(PERIOD.saturating_mul(more)).unwrap_or(self.end))
            }
        }
    }
}

fn whole_periods(time: Duration) -> u32 {
    u32::try_from(time.as_nanos() / PERIOD.as_nanos().max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_period_at_a_time() {
        let start = Instant::now();
        let at = |ms: u32| start + MS * ms;
        let mut half = Allowance::new(500, start).unwrap();
        assert_eq!(half.settle(Duration::ZERO, at(0)), Ok(MS * 50));
        assert_eq!(half.settle(MS * 30, at(30)), Ok(MS * 20));
        assert_eq!(half.settle(MS * 50, at(50)), Err(at(100)));
        assert_eq!(half.settle(MS * 50, at(100)), Ok(MS * 50));
        // 120 ms in one go: 70 are owed, which are the next period's 50 and 20 of the one after it.
        assert_eq!(half.settle(MS * 170, at(220)), Err(at(300)));
        assert_eq!(half.settle(MS * 170, at(300)), Ok(MS * 30));
        assert_eq!(half.settle(MS * 300, at(350)), Err(at(600)));
        assert_eq!(half.settle(MS * 300, at(600)), Ok(MS * 50));
        // What was not used is gone.
        assert_eq!(half.settle(MS * 300, at(10_050)), Ok(MS * 50));
        assert_eq!(half.settle(MS * 349, at(10_099)), Ok(MS));
    }

    #[test]
    fn limits_that_bind_nobody_and_very_small_ones() {
        let now = Instant::now();
        assert!(Allowance::new(1000, now).is_none());
        assert!(Allowance::new(4000, now).is_none());
        for limit in [0, 1, 10] {
            assert_eq!(Allowance::new(limit, now).unwrap().settle(Duration::ZERO, now), Ok(MS), "{limit}");
        }
        assert_eq!(
            Allowance::new(999, now).unwrap().settle(Duration::ZERO, now),
            Ok(Duration::from_micros(99_900))
        );
    }
}
