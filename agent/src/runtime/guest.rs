//! One guest as others see it, and the boundary around its run: a kill, a panic and its CPU time.

use std::future::Future;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_lock::OnceCell;
use futures_util::task::AtomicWaker;

use super::engine::panic_text;
use super::wasi::clocks::thread_cpu;
use super::{Exit, Usage};

/// What the handles of a guest and its run share.
#[derive(Default)]
pub struct Shared {
    state: Mutex<State>,
    exit: OnceCell<Exit>,
    waker: AtomicWaker,
}

#[derive(Default)]
struct State {
    killed: bool,
    running: bool,
    /// The CPU clock of the thread that runs it, when that began to.
    began: Duration,
    usage: Usage,
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`super::Guest::kill`]. A guest that is not in a slice has ended when this returns: it never
    /// runs again, and what it holds goes when its turn comes.
    pub fn kill(&self) {
        let mut state = self.state();
        state.killed = true;
        let running = state.running;
        drop(state);
        if !running {
            self.finish(Exit::Killed);
        }
        self.waker.wake();
    }

    /// See [`super::Guest::wait`].
    pub async fn wait(&self) -> Exit {
        self.exit.wait().await.clone()
    }

    /// See [`super::Guest::usage`].
    pub fn usage(&self) -> Usage {
        self.state().usage
    }

    /// Whether it has ended.
    pub fn ended(&self) -> bool {
        self.exit.is_initialized()
    }

    /// CPU time until now. To be asked by the thread that runs the guest: each has a clock of its own.
    pub fn cpu(&self) -> Duration {
        let state = self.state();
        state.usage.cpu.saturating_add(thread_cpu().saturating_sub(state.began))
    }

    /// CPU time was used.
    pub fn charge(&self, cpu: Duration) {
        let mut state = self.state();
        state.usage.cpu = state.usage.cpu.saturating_add(cpu);
    }

    /// Bytes went over its connections.
    pub fn count_traffic(&self, received: usize, sent: usize) {
        let bytes = |count: usize| u64::try_from(count).unwrap_or(0);
        let usage = &mut self.state().usage;
        usage.received = usage.received.saturating_add(bytes(received));
        usage.sent = usage.sent.saturating_add(bytes(sent));
    }

    /// Notes the size of linear memory.
    pub fn set_memory(&self, bytes: u64) {
        self.state().usage.memory = bytes;
    }

    /// The first end is the end.
    fn finish(&self, exit: Exit) {
        self.state().usage.memory = 0;
        let _ended_before = self.exit.set_blocking(exit);
    }

    fn begin(&self, now: Duration) -> bool {
        let mut state = self.state();
        state.began = now;
        state.running = !state.killed;
        state.running
    }

    fn end(&self, cpu: Duration) -> bool {
        self.charge(cpu);
        let mut state = self.state();
        state.running = false;
        !state.killed
    }
}

/// The run of a guest, as the interpreter threads poll it.
pub struct Run<F> {
    inner: Option<Pin<Box<F>>>,
    shared: Arc<Shared>,
}

impl<F: Future<Output = Exit>> Run<F> {
    /// A run that will tell `shared` how it ended.
    pub fn new(inner: F, shared: Arc<Shared>) -> Run<F> {
        Run { inner: Some(Box::pin(inner)), shared }
    }

    /// Frees what the guest holds, then tells of its end.
    fn finish(&mut self, exit: Exit) -> Poll<()> {
        let inner = self.inner.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(inner))) {
            log::error!("a guest's memory was not freed: {}", panic_text(&*panic));
        }
        self.shared.finish(exit);
        Poll::Ready(())
    }
}

impl<F: Future<Output = Exit>> Future for Run<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let run = &mut *self;
        run.shared.waker.register(context.waker());
        let before = thread_cpu();
        let Some(inner) = run.inner.as_mut().filter(|_| run.shared.begin(before)) else {
            return run.finish(Exit::Killed);
        };
        // Whatever state a panic leaves, nobody but `finish` sees it: the guest is dropped whole.
        let polled = catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll(context)));
        let alive = run.shared.end(thread_cpu().saturating_sub(before));
        match polled {
            Ok(Poll::Ready(exit)) => run.finish(exit),
            Ok(Poll::Pending) if alive => Poll::Pending,
            Ok(Poll::Pending) => run.finish(Exit::Killed),
            Err(panic) => run.finish(Exit::Panic(panic_text(&*panic))),
        }
    }
}

impl<F> Drop for Run<F> {
    /// A run that is dropped before its end (the runtime goes) has been killed.
    fn drop(&mut self) {
        self.shared.finish(Exit::Killed);
    }
}
