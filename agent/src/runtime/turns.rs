//! Whose turn it is: guests that are ready to run, in the order of what each has had of the processor for its weight.
//!
//! Start-time fair queueing: a guest has a virtual time, its CPU time divided by its weight, and the one that
//! is furthest behind comes next. One that comes back from a wait takes up the time of those that run now, a
//! moment before it: it comes next, but has saved up nothing.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::guest::Shared;

/// A processor is this many (Kubernetes' "milli").
pub const WHOLE: u32 = 1000;
/// The weight of a guest that asks for nothing, or for less: it goes on, slowly, beside those that ask.
/// (A kubelet gives 2, of a group of processes that the kernel lets run somewhat longer at a time.)
const LEAST_WEIGHT: u32 = 10;

/// A guest's place among those that want to run.
pub struct Turn {
    weight: u32,
    guest: Arc<Shared>,
    account: Mutex<Account>,
}

#[derive(Default)]
struct Account {
    /// Virtual time in nanoseconds of a guest with the weight [`WHOLE`].
    time: u64,
    /// CPU time that is in it.
    charged: Duration,
}

impl Turn {
    /// The place of `guest`, which asks for `request` thousandths of a processor.
    pub fn new(request: u32, guest: Arc<Shared>) -> Turn {
        Turn { weight: request.max(LEAST_WEIGHT), guest, account: Mutex::default() }
    }

    /// The virtual time of the guest, now that it wants to run; not less than `least`.
    fn time(&self, least: u64) -> u64 {
        let used = self.guest.usage().cpu;
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        let new = used.saturating_sub(account.charged).saturating_mul(WHOLE) / self.weight;
        account.charged = used;
        let time = account.time.saturating_add(u64::try_from(new.as_nanos()).unwrap_or(u64::MAX));
        account.time = time.max(least);
        account.time
    }
}

/// Guests that want to run, each with what runs it.
pub struct Ready<R> {
    waiting: BinaryHeap<Waiting<R>>,
    /// The virtual time of the guest that came last: no other that waits is behind it.
    now: u64,
    /// How many have come in: of equals, the first goes first.
    count: u64,
}

impl<R> Default for Ready<R> {
    fn default() -> Ready<R> {
        Ready { waiting: BinaryHeap::new(), now: 0, count: 0 }
    }
}

impl<R> Ready<R> {
    /// `run` wants to run: for another slice where it has `yielded`, otherwise after a wait.
    pub fn push(&mut self, run: R, turn: &Turn, yielded: bool) {
        let time = turn.time(if yielded { 0 } else { self.now.saturating_sub(1) });
        self.count = self.count.wrapping_add(1);
        self.waiting.push(Waiting { time, number: self.count, run });
    }

    /// The one whose turn it is.
    pub fn pop(&mut self) -> Option<R> {
        let next = self.waiting.pop()?;
        self.now = self.now.max(next.time);
        Some(next.run)
    }
}

struct Waiting<R> {
    time: u64,
    number: u64,
    run: R,
}

impl<R> Ord for Waiting<R> {
    /// The greatest is the next: the one with the least virtual time.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.time, other.number).cmp(&(self.time, self.number))
    }
}
impl<R> PartialOrd for Waiting<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<R> PartialEq for Waiting<R> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<R> Eq for Waiting<R> {}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// Guests that take a slice of a millisecond each turn, and the turns that each had of `turns`.
    fn shares(requests: &[u32], turns: usize) -> Vec<usize> {
        let guests: Vec<(Arc<Shared>, Turn)> = requests
            .iter()
            .map(|request| {
                let guest = Arc::new(Shared::default());
                (Arc::clone(&guest), Turn::new(*request, guest))
            })
            .collect();
        let mut ready = Ready::default();
        for (index, (_, turn)) in guests.iter().enumerate() {
            ready.push(index, turn, false);
        }
        let mut had = vec![0; requests.len()];
        for _ in 0..turns {
            let index = ready.pop().unwrap();
            had[index] += 1;
            guests[index].0.charge(Duration::from_millis(1));
            ready.push(index, &guests[index].1, true);
        }
        had
    }

    #[test]
    fn who_asks_for_more_has_more() {
        assert_eq!(shares(&[0, 0, 0, 0], 400), [100, 100, 100, 100]);
        assert_eq!(shares(&[100, 200, 700], 1000), [100, 200, 700]);
        let with_none = shares(&[0, 990], 1000);
        assert_eq!(with_none, [10, 990], "who asks for nothing goes on all the same");
    }

    #[test]
    fn a_guest_that_has_waited_comes_next_and_has_saved_nothing() {
        let (sleeper, spinner) = (Arc::new(Shared::default()), Arc::new(Shared::default()));
        let (asleep, awake) = (Turn::new(100, Arc::clone(&sleeper)), Turn::new(100, Arc::clone(&spinner)));
        let mut ready = Ready::default();
        ready.push("spinner", &awake, false);
        for _ in 0..1000 {
            assert_eq!(ready.pop(), Some("spinner"));
            spinner.charge(Duration::from_millis(1));
            ready.push("spinner", &awake, true);
        }
        ready.push("sleeper", &asleep, false);
        let mut had = Vec::new();
        for _ in 0..20 {
            let next = ready.pop().unwrap();
            had.push(next);
            let (guest, turn) = if next == "sleeper" { (&sleeper, &asleep) } else { (&spinner, &awake) };
            guest.charge(Duration::from_millis(1));
            ready.push(next, turn, true);
        }
        assert_eq!(had[0], "sleeper");
        let of_sleeper = had.iter().filter(|name| **name == "sleeper").count();
        assert!((10..=11).contains(&of_sleeper), "{had:?}");
    }

    #[test]
    fn waiting_for_no_time_at_all_is_no_way_to_have_more() {
        // One yields after its slice, the other waits for nothing and comes back at once.
        let (one, other) = (Arc::new(Shared::default()), Arc::new(Shared::default()));
        let turns = [Turn::new(100, Arc::clone(&one)), Turn::new(100, Arc::clone(&other))];
        let mut ready = Ready::default();
        ready.push(0, &turns[0], false);
        ready.push(1, &turns[1], false);
        let mut had = [0, 0];
        for _ in 0..1000 {
            let next = ready.pop().unwrap();
            had[next] += 1;
            [&one, &other][next].charge(Duration::from_millis(1));
            ready.push(next, &turns[next], next == 0);
        }
        assert!(had[1] <= 501, "{had:?}");
    }
}
