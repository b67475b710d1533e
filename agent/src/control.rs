//! The control thread: its executor, and the way to the blocking threads.
//!
//! One executor runs the API client, heartbeats, pod lifecycles and the HTTP server. Nothing on it
//! may block: what does goes through [`blocking`], which lets at most [`MAX_BLOCKING`] calls run at
//! a time, so that the `blocking` crate never has more threads than that.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use async_executor::Executor;
use async_lock::Semaphore;
pub use async_task::Task;
use rustix::process::setpriority_process;
use rustix::thread::gettid;

/// Threads that may block at one time (design: cores + 4 in all).
pub const MAX_BLOCKING: usize = 2;

/// Where the `blocking` crate finds how many threads it may have.
const BLOCKING_THREADS: &str = "BLOCKING_MAX_THREADS";
/// How much nicer a blocking thread is than the control thread: as nice as the interpreter threads, so that a large
/// module that is compiled takes a turn like any guest, and no heartbeat waits for it. (A thread that is nice
/// once stays so: without privilege there is no way back.)
const BLOCKING_NICE: i32 = crate::runtime::NICE;

static EXECUTOR: Executor<'static> = Executor::new();
static BLOCKING: Semaphore = Semaphore::new(MAX_BLOCKING);

/// Starts a task on the control thread. Dropping the returned [`Task`] cancels it; `detach` lets it run on.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Task<()> {
    // Boxed, so that the executor's own code is there once and not once for every kind of task.
    let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(future);
    EXECUTOR.spawn(future)
}

/// Runs `work`, which may block, on a blocking thread, waiting for a free one first.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let slot = Arc::new(Mutex::new(None));
    let filled = Arc::clone(&slot);
    perform(Box::new(move || {
        let value = work();
        *filled.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
    }))
    .await;
    let value = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    match value {
        Some(value) => value,
        // There is one: a panic of the work's has been passed on by then.
        None => std::future::pending().await,
    }
}

/// [`blocking`] for all kinds of work and results: its code is there once.
async fn perform(work: Box<dyn FnOnce() + Send>) {
    let permit = BLOCKING.acquire().await;
    // Held by the work, not by the waiter: whoever stops waiting does not free the thread.
    blocking::unblock(move || {
        let _permit = permit;
        if let Err(error) = setpriority_process(Some(gettid()), BLOCKING_NICE) {
            log::debug!("a blocking thread keeps the priority of the control thread: {error}");
        }
        work();
    })
    .await;
}

/// Runs `work`, which may block, on a thread of its own: for the very end of the agent, when nothing else that may
/// hold the blocking threads is waited for any more. False: there is no thread to be had.
pub async fn at_the_end(work: impl FnOnce() + Send + 'static) -> bool {
    let (done, wait) = async_channel::bounded::<()>(1);
    let thread = std::thread::Builder::new().name("the-end".into()).spawn(move || {
        work();
        drop(done);
    });
    // Closed, with nothing ever sent.
    let _closed = wait.recv().await;
    thread.is_ok()
}

/// Makes the calling thread the control thread until `main` is done.
pub fn run<T>(main: impl Future<Output = T>) -> T {
    // A permit is given back a moment before its thread is free: the `blocking` crate would start a third one then.
    // It reads this once, when it is first used; no other thread runs yet that might read the environment.
    if std::env::var_os(BLOCKING_THREADS).is_none() {
        std::env::set_var(BLOCKING_THREADS, MAX_BLOCKING.to_string());
    }
    // Boxed: a future is moved by copying it, and the way to the executor has many steps.
    async_io::block_on(EXECUTOR.run(Box::pin(main)))
}

/// An executor handle for hyper, which spawns its connection tasks through it.
#[derive(Clone, Copy, Debug)]
pub struct HyperExecutor;

impl<F> hyper::rt::Executor<F> for HyperExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        spawn(async { drop(future.await) }).detach();
    }
}
