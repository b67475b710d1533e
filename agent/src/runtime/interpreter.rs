//! The interpreter threads and their queue of guests that are ready to run.
//!
//! An executor of their own, of a page: the `async-executor` crate runs two hundred tasks before it lets
//! go and does not tell a guest that was woken from one that has used up its slice. Here a woken guest
//! (its sleep is over, it is to be killed) goes before those that spin, but not for ever.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use async_task::{Runnable, ScheduleInfo, WithInfo};
use rustix::process::setpriority_process;
use rustix::thread::gettid;

/// How much nicer the interpreter threads are than the control thread. 10 is a tenth of its share.
const NICE: i32 = 10;
/// Stack of an interpreter thread: address space, of which only what is touched costs memory. Guests' frames
/// are on the heap; wasmi's handlers need 19 KiB (64-bit) or 9 KiB (32-bit) however long a guest runs, a host
/// call some KiB, a panic's message and unwinding some 30 KiB. The rest is for the two handlers that keep a
/// frame until the slice ends ([`super::operators::MAX_GROWS`]): at most 8 times 10,000 of 176 bytes (half of
/// that on 32 bits), or in a loop what [`super::slices`]' largest slice pays for, 31,000.
const STACK: usize = if cfg!(target_pointer_width = "64") { 24 << 20 } else { 12 << 20 };
/// Woken guests that run one after the other while others wait for their next slice.
const WOKEN_IN_A_ROW: u32 = 8;

/// Guests that are ready to run.
#[derive(Default)]
pub struct Queue {
    ready: Mutex<Ready>,
    available: Condvar,
}

#[derive(Default)]
struct Ready {
    woken: VecDeque<Runnable>,
    yielded: VecDeque<Runnable>,
    in_a_row: u32,
    closed: bool,
}

impl Ready {
    fn take(&mut self) -> Option<Runnable> {
        if self.in_a_row < WOKEN_IN_A_ROW || self.yielded.is_empty() {
            if let Some(runnable) = self.woken.pop_front() {
                self.in_a_row = self.in_a_row.saturating_add(1);
                return Some(runnable);
            }
        }
        self.in_a_row = 0;
        self.yielded.pop_front()
    }
}

impl Queue {
    /// Runs `guest` on the interpreter threads until it is done.
    pub fn spawn(self: &Arc<Queue>, guest: impl Future<Output = ()> + Send + 'static) {
        let queue = Arc::clone(self);
        let schedule = move |runnable, info: ScheduleInfo| queue.push(runnable, info.woken_while_running);
        let (runnable, task) = async_task::spawn(guest, WithInfo(schedule));
        task.detach();
        runnable.schedule();
    }

    fn push(&self, runnable: Runnable, yielded: bool) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.closed {
            drop(ready);
            // Drops the guest with it.
            drop(runnable);
            return;
        }
        if yielded {
            ready.yielded.push_back(runnable);
        } else {
            ready.woken.push_back(runnable);
        }
        drop(ready);
        self.available.notify_one();
    }

    fn run(&self) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        while !ready.closed {
            match ready.take() {
                Some(runnable) => {
                    drop(ready);
                    runnable.run();
                    ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
                }
                None => ready = self.available.wait(ready).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Ends the threads, each after the slice that it runs, and every guest that is ready.
    pub fn close(&self) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.closed = true;
        let left = (std::mem::take(&mut ready.woken), std::mem::take(&mut ready.yielded));
        drop(ready);
        self.available.notify_all();
        drop(left);
    }
}

/// Starts `count` interpreter threads; 0 means one a core. Where one cannot be started, none is.
pub fn start(count: usize) -> io::Result<Arc<Queue>> {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let count = if count == 0 { cores() } else { count };
    let queue = Arc::new(Queue::default());
    for index in 0..count {
        thread(index, Arc::clone(&queue)).inspect_err(|_| queue.close())?;
    }
    Ok(queue)
}

fn thread(index: usize, queue: Arc<Queue>) -> io::Result<()> {
    let name = format!("interp-{index}");
    std::thread::Builder::new().name(name).stack_size(STACK).spawn(move || {
        if let Err(error) = setpriority_process(Some(gettid()), NICE) {
            log::debug!("interp-{index}: keeps the priority of the control thread: {error}");
        }
        queue.run();
    })?;
    Ok(())
}
