//! Connections on which nothing moves any more.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_io::Timer;

/// How long nothing may move: the kubelet's `streamingConnectionIdleTimeout`.
pub const TIMEOUT: Duration = Duration::from_secs(4 * 60 * 60);

/// When something last moved.
pub struct Busy(Mutex<Instant>);

impl Default for Busy {
    fn default() -> Busy {
        Busy(Mutex::new(Instant::now()))
    }
}

impl Busy {
    /// Something moves.
    pub fn touch(&self) {
        *self.last() = Instant::now();
    }

    /// Waits until nothing has moved for [`TIMEOUT`].
    pub async fn idle(&self) {
        loop {
            let quiet = self.last().elapsed();
            match TIMEOUT.checked_sub(quiet) {
                Some(left) if !left.is_zero() => Timer::after(left).await,
                _ => return,
            };
        }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
