//! The supervisor's clock, so that tests need not wait.

use std::time::Duration;

use super::api::BoxFuture;
use crate::durable::clock::Now;

/// Tells the time and waits.
pub trait Clock: Send + Sync {
    /// Both clocks.
    fn now(&self) -> Now;
    /// Is done when the monotonic clock shows this or more.
    fn until(&self, mono: Duration) -> BoxFuture<'static, ()>;
}

/// The real one.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now::read()
    }

    fn until(&self, mono: Duration) -> BoxFuture<'static, ()> {
        let left = mono.saturating_sub(Now::read().mono);
        Box::pin(async move {
            async_io::Timer::after(left).await;
        })
    }
}
