//! The bytes of a connection that is no longer HTTP: the connection's own, or those in a WebSocket's messages.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_lock::Mutex;
use bytes::{Buf, Bytes};
use futures_lite::io::{ReadHalf, WriteHalf};
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::websocket;
use crate::server::Connection;

/// What comes from the client.
pub enum Source {
    /// As the connection brings it.
    Plain(Plain),
    /// In the binary messages of a WebSocket (`SPDY/3.1+portforward.k8s.io`).
    Tunnel(Box<websocket::Reader>),
}

/// What the connection brings.
pub struct Plain {
    io: ReadHalf<Connection>,
    /// Read along with the request, and to be read first.
    early: Bytes,
}

/// What goes to the client: one frame at a time, whole.
pub struct Sink(Mutex<WriteHalf<Connection>>);

/// Makes both of a connection.
pub fn halves(connection: Connection, early: Bytes) -> (Plain, Sink) {
    let (io, out) = futures_lite::io::split(connection);
    (Plain { io, early }, Sink(Mutex::new(out)))
}

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, into);
        }
        let count = into.len().min(self.early.len());
        if let Some(into) = into.get_mut(..count) {
            self.early.copy_to_slice(into);
        }
        Poll::Ready(Ok(count))
    }
}

impl Source {
    /// At least one byte, or none at the end.
    pub async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::Plain(plain) => plain.read(into).await,
            Source::Tunnel(messages) => messages.read(into).await,
        }
    }

    /// As many bytes as there is room for.
    pub async fn read_exact(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            let read = self.read(into).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            into = into.get_mut(read..).unwrap_or_default();
        }
        Ok(())
    }
}

impl Sink {
    /// Writes a frame and sees it out.
    pub async fn write(&self, frame: &[u8]) -> io::Result<()> {
        let mut out = self.0.lock().await;
        out.write_all(frame).await?;
        out.flush().await
    }

    /// Says that nothing more comes.
    pub async fn close(&self) {
        // A client that is gone needs not to be told.
        let _gone = self.0.lock().await.close().await;
    }
}

/// What a client has sent makes no sense.
pub fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
