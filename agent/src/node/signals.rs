//! SIGTERM and SIGINT, as something to await.

use std::io;
use std::os::unix::net::UnixStream;

use async_io::Async;
use futures_lite::AsyncReadExt;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// The signals that end the agent.
pub struct Signals {
    bytes: Async<UnixStream>,
}

impl Signals {
    /// Takes the signals over from the kernel's default, which is to die at once.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn take() -> io::Result<Signals> {
        let (read, write) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT] {
            pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Signals { bytes: Async::new(read)? })
    }

    /// Waits for the next of them.
    pub async fn next(&mut self) {
        let mut byte = [0];
        if self.bytes.read_exact(&mut byte).await.is_err() {
            // The writing end lives in the signal handler and is never closed.
            futures_lite::future::pending::<()>().await;
        }
    }
}
