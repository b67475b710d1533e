//! How much of a container's output its log takes: `log-rate`.
//!
//! What is counted is what the medium would get, headers included, and it is averaged over [`BURST`]:
//! a container may print that long's worth at once. Beyond it lines are dropped, whole ones, until half
//! of it is free again, so that what is missing is missing in one place, and told in one entry.

use std::time::Duration;

use super::Stream;

/// What the rate is averaged over: long enough for a stack trace or a start-up banner at a rate that
/// suits a card.
pub(super) const BURST: Duration = Duration::from_secs(10);
/// How far ahead of the rate a container may still be when its lines are taken again.
const RESUME: Duration = Duration::from_secs(5);

/// One container's account.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    /// Bytes a second, not 0.
    per_second: u64,
    /// When, at this rate, everything taken so far would have been written.
    paid_until: Duration,
    dropping: bool,
    stdout: Place,
    stderr: Place,
    dropped: Dropped,
}

/// Where in a line a stream is, for lines of several entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Start,
    /// A first part was taken.
    Taken,
    /// A first part was dropped, and so the others will be.
    Dropped,
}

/// What is missing from the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    /// Lines, those of which a part was taken included.
    pub lines: u64,
    /// Bytes of them as they were printed.
    pub bytes: u64,
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is taken; whether it begins a line.
    Take { begins: bool },
    /// It is dropped.
    Drop,
    /// It is dropped, and the line whose first part was taken ends before it.
    EndLine,
}

impl Rate {
    /// Nothing when there is no limit (0).
    pub fn new(per_second: u64) -> Option<Rate> {
        (per_second > 0).then(|| Rate {
            per_second,
            paid_until: Duration::ZERO,
            dropping: false,
            stdout: Place::Start,
            stderr: Place::Start,
            dropped: Dropped::default(),
        })
    }

    /// Decides about an entry with so many bytes of content, that takes up `size` in the file.
    pub fn judge(
        &mut self,
        now: Duration,
        stream: Stream,
        partial: bool,
        content: usize,
        size: usize,
    ) -> Verdict {
        let place = *self.place(stream);
        let taken = place != Place::Dropped && self.allows(now);
        *self.place(stream) = match (partial, taken) {
            (false, _) => Place::Start,
            (true, true) => Place::Taken,
            (true, false) => Place::Dropped,
        };
        if taken {
            self.charge(now, size);
            return Verdict::Take { begins: place == Place::Start };
        }
        let printed = (content as u64).saturating_add(u64::from(!partial));
        self.dropped.bytes = self.dropped.bytes.saturating_add(printed);
        // A line counts when its first part is dropped.
        let lines = u64::from(place != Place::Dropped);
        self.dropped.lines = self.dropped.lines.saturating_add(lines);
        if place == Place::Taken {
            Verdict::EndLine
        } else {
            Verdict::Drop
        }
    }

    /// Whether an entry may be written now. One that is longer than what is left is paid for later.
    pub fn allows(&mut self, now: Duration) -> bool {
        let ahead = self.paid_until.saturating_sub(now);
        self.dropping = if self.dropping { ahead > RESUME } else { ahead >= BURST };
        !self.dropping
    }

    /// Takes up `size` bytes of the rate.
    pub fn charge(&mut self, now: Duration, size: usize) {
        let nanoseconds = (size as u64).saturating_mul(1_000_000_000) / self.per_second.max(1);
        let from = self.paid_until.max(now);
        self.paid_until = from.saturating_add(Duration::from_nanos(nanoseconds));
    }

    /// What was dropped since this was last asked.
    pub fn take_dropped(&mut self) -> Option<Dropped> {
        Some(std::mem::take(&mut self.dropped)).filter(|dropped| *dropped != Dropped::default())
    }

    /// Bytes a second.
    pub fn per_second(&self) -> u64 {
        self.per_second
    }

    /// Whether the rest of this stream's line, so many bytes, is dropped.
    pub fn drops_rest(&mut self, stream: Stream, bytes: usize) -> bool {
        let drops = *self.place(stream) == Place::Dropped;
        if drops {
            self.dropped.bytes = self.dropped.bytes.saturating_add(bytes as u64);
        }
        drops
    }

    /// Whether an entry of the log's own on this stream would not come between two parts of a line.
    pub fn is_at_start(&self, stream: Stream) -> bool {
        let place = match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        };
        place != Place::Taken
    }

    /// The same of both streams.
    pub fn is_between_lines(&self) -> bool {
        self.is_at_start(Stream::Stdout) && self.is_at_start(Stream::Stderr)
    }

    fn place(&mut self, stream: Stream) -> &mut Place {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use Stream::{Stderr, Stdout};

    const TAKE: Verdict = Verdict::Take { begins: true };
    const GO_ON: Verdict = Verdict::Take { begins: false };

    #[test]
    fn a_burst_goes_through_and_then_lines_are_dropped_until_half_of_it_is_free() {
        let mut rate = Rate::new(100).unwrap();
        // Time in milliseconds, how often an entry of 100 bytes comes then, how many are taken.
        for (at, entries, taken) in [
            (0, 10, 10),
            (0, 5, 0),
            // 5.001 s are still to be paid then.
            (4_999, 1, 0),
            (5_000, 5, 5),
            (5_000, 1, 0),
            (9_999, 1, 0),
            // Long enough for a whole burst, and never for more.
            (1_000_000, 11, 10),
        ] {
            let now = Duration::from_millis(at);
            let count = (0..entries).filter(|_| rate.judge(now, Stdout, false, 59, 100) == TAKE).count();
            assert_eq!(count, taken, "at {at} ms");
        }
        assert_eq!(rate.take_dropped(), Some(Dropped { lines: 9, bytes: 540 }));
        assert_eq!(rate.take_dropped(), None);
    }

    #[test]
    fn the_average_holds_however_often_it_is_asked() {
        for (per_second, step) in [(1024_u64, 7), (1024, 100_003), (1, 999), (1 << 30, 10)] {
            let mut rate = Rate::new(per_second).unwrap();
            let mut taken = 0_u64;
            let mut now = Duration::ZERO;
            for _ in 0..200_000 {
                now += Duration::from_micros(step);
                if rate.judge(now, Stdout, false, 10, 51) == TAKE {
                    taken += 51;
                }
            }
            // No more than the burst, the time since, and the entry that was paid for later.
            let seconds = (now + BURST).as_nanos();
            let most = u64::try_from(seconds * u128::from(per_second) / 1_000_000_000).unwrap() + 51;
            assert!(taken <= most, "{taken} of {most} at {per_second} each {step} µs");
            let offered = 200_000 * 51;
            let least = (most - (BURST.as_secs() * per_second).min(most)).min(offered);
            assert!(taken >= least.saturating_sub(51), "{taken} of {least} at {per_second} each {step} µs");
        }
    }

    #[test]
    fn a_line_of_several_entries_is_dropped_from_where_the_rate_ends_it_to_its_end() {
        let mut rate = Rate::new(1000).unwrap();
        let start = Duration::ZERO;
        let later = Duration::from_secs(60);
        // An entry longer than the whole burst is taken, and paid for afterwards.
        for (now, stream, partial, size, verdict) in [
            (start, Stdout, true, 9_000, TAKE),
            (start, Stdout, true, 2_000, GO_ON),
            (start, Stdout, true, 2_000, Verdict::EndLine),
            (start, Stdout, true, 2_000, Verdict::Drop),
            (start, Stderr, false, 50, Verdict::Drop),
            // The rest of the line, though there is room again.
            (later, Stderr, false, 50, TAKE),
            (later, Stdout, true, 2_000, Verdict::Drop),
            (later, Stdout, false, 50, Verdict::Drop),
            (later, Stdout, false, 50, TAKE),
        ] {
            assert_eq!(rate.judge(now, stream, partial, size, size), verdict, "{stream:?} {size}");
        }
        let dropped = Dropped { lines: 2, bytes: 2_000 + 2_000 + 51 + 2_000 + 51 };
        assert_eq!(rate.take_dropped(), Some(dropped));
    }

    #[test]
    fn no_rate_is_no_account() {
        assert!(Rate::new(0).is_none());
    }
}
