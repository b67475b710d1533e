//! The interpreter threads and their queue of guests that are ready to run.
//!
//! An executor of their own, of a page: the `async-executor` crate runs two hundred tasks before it lets
//! go, and knows no shares. Here the next guest is the one that [`super::turns`] says.

use std::future::Future;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use async_task::{Builder, Runnable, ScheduleInfo, WithInfo};
use rustix::process::setpriority_process;
use rustix::thread::gettid;

use super::turns::{Ready, Turn};

/// How much nicer the interpreter threads are than the control thread. 10 is a tenth of its share.
pub const NICE: i32 = 10;
/// Stack of an interpreter thread: address space, of which only what is touched costs memory. Guests' frames
/// are on the heap; wasmi's handlers need 19 KiB (64-bit) or 9 KiB (32-bit) however long a guest runs, a host
/// call some KiB, a panic's message and unwinding some 30 KiB. The rest is for the two handlers that keep a
/// frame until the slice ends ([`super::operators::MAX_GROWS`]): at most 8 times 10,000 of 176 bytes (half of
/// that on 32 bits), or in a loop what [`super::slices`]' largest slice pays for, 31,000.
const STACK: usize = if cfg!(target_pointer_width = "64") { 24 << 20 } else { 12 << 20 };

/// What runs a guest.
type Run = Runnable<Arc<Turn>>;

/// Guests that are ready to run.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    available: Condvar,
}

#[derive(Default)]
struct State {
    ready: Ready<Run>,
    closed: bool,
}

impl Queue {
    /// Runs `guest` on the interpreter threads until it is done, when it is its `turn`.
    pub fn spawn(self: &Arc<Queue>, turn: Turn, guest: impl Future<Output = ()> + Send + 'static) {
        let queue = Arc::clone(self);
        let schedule = move |run: Run, info: ScheduleInfo| queue.push(run, info.woken_while_running);
        let (run, task) = Builder::new().metadata(Arc::new(turn)).spawn(|_| guest, WithInfo(schedule));
        task.detach();
        run.schedule();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, run: Run, yielded: bool) {
        let turn = Arc::clone(run.metadata());
        let mut state = self.state();
        if state.closed {
            drop(state);
            // Drops the guest with it.
            drop(run);
            return;
        }
        state.ready.push(run, &turn, yielded);
        drop(state);
        self.available.notify_one();
    }

    fn run(&self) {
        let mut state = self.state();
        while !state.closed {
            match state.ready.pop() {
                Some(run) => {
                    drop(state);
                    run.run();
                    state = self.state();
                }
                None => state = self.available.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Ends the threads, each after the slice that it runs, and every guest that is ready.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let left = std::mem::take(&mut state.ready);
        drop(state);
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
