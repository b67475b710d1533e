//! The entries that wait in memory: how many there may be, and when they are written out.
//!
//! With `log-flush-interval` a log's entries are not handed to the kernel one by one. Each hand-over
//! dirties a page and an inode, and a journalling file system (ext4) commits such an inode within five
//! seconds: a pod that prints a line a second costs a card a journal commit each five seconds and a page
//! each thirty. Handed over once in a while, and those of all containers at one moment, they share both.
//!
//! There is one deadline for all writers. It begins with the first entry that waits, and nothing runs
//! while none does.
//!
//! What a power cut loses: what waited, at most the interval; and what the kernel had not written yet,
//! `vm.dirty_expire_centisecs` and a `vm.dirty_writeback_centisecs` (30 s and 5 s unless set otherwise),
//! which holds without an interval as well. Nothing is synced: a sync would write at once what the kernel
//! gathers, and take the journal with it. An agent that is killed, rather than told to end, loses what
//! waited.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_io::Timer;

use super::lock;
use super::writer::Live;
use crate::control;

/// Bytes that one container's entries take while they wait: four pages.
pub(super) const LOG_BUFFER: usize = 16 * 1024;
/// Bytes that those of all containers take together. Beyond it they go to the kernel as they come: a
/// board with many pods has memory for less than [`LOG_BUFFER`] each.
pub(super) const ALL_BUFFERS: usize = 256 * 1024;

/// What all writers of one [`super::Logs`] share.
pub(super) struct Waiting {
    interval: Duration,
    held: AtomicUsize,
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    writers: Vec<Weak<Live>>,
    /// A task waits for the deadline.
    has_deadline: bool,
}

impl Waiting {
    /// An interval of zero: nothing waits.
    pub fn new(interval: Duration) -> Waiting {
        Waiting { interval, held: AtomicUsize::new(0), list: Mutex::default() }
    }

    /// Takes room for so many bytes; false when there is none.
    pub fn reserve(&self, bytes: usize) -> bool {
        let more = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= ALL_BUFFERS);
        !self.interval.is_zero() && self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Gives room back.
    pub fn release(&self, bytes: usize) {
        let _ = self
            .held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| Some(held.saturating_sub(bytes)));
    }

    /// Has the writer written out at the deadline, which is set now if there is none.
    pub fn list(self: &Arc<Self>, writer: Weak<Live>) {
        let mut list = lock(&self.list);
        list.writers.push(writer);
        if !std::mem::replace(&mut list.has_deadline, true) {
            control::spawn(self.clone().until_nothing_waits()).detach();
        }
    }

    /// Forgets a writer that is closed: a container that ends again and again would leave one each time.
    pub fn unlist(&self, writer: *const Live) {
        lock(&self.list).writers.retain(|listed| !std::ptr::eq(listed.as_ptr(), writer));
    }

    async fn until_nothing_waits(self: Arc<Self>) {
        loop {
            Timer::after(self.interval).await;
            let all = self.clone();
            if control::blocking(move || all.pass_deadline()).await {
                break;
            }
        }
    }

    /// Writes everything out; true when there is nothing left that needs a deadline. Blocks.
    fn pass_deadline(&self) -> bool {
        self.write_out();
        let mut list = lock(&self.list);
        list.has_deadline = !list.writers.is_empty();
        !list.has_deadline
    }

    /// Writes everything out. What cannot be written stays, and stays listed. Blocks.
    pub fn write_out(&self) {
        let writers = std::mem::take(&mut lock(&self.list).writers);
        for writer in writers {
            if let Some(live) = writer.upgrade() {
                if !live.write_out_listed() {
                    lock(&self.list).writers.push(writer);
                }
            }
        }
    }
}

#[cfg(test)]
impl Waiting {
    /// Bytes that wait, writers that are listed, and whether a deadline is set.
    pub fn state(&self) -> (usize, usize, bool) {
        let list = lock(&self.list);
        (self.held.load(Ordering::Relaxed), list.writers.len(), list.has_deadline)
    }
}
