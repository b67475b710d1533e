//! WebSocket (RFC 6455), a server's side: the handshake's answer, frames in both directions, pings, the close.

use std::io;
use std::sync::Arc;

use base64::prelude::{Engine, BASE64_STANDARD};
use futures_lite::AsyncReadExt;
use ring::digest::{digest, SHA1_FOR_LEGACY_USE_ONLY};

use super::link::{wrong, Plain, Sink};

/// What a key is hashed with (section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of a message that are held at a time.
const PIECE: usize = 8 * 1024;
/// Bytes of a control frame (section 5.5).
const MAX_CONTROL: u64 = 125;

/// Opcodes (section 5.2).
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The last frame of a message.
const FIN: u8 = 0x80;
/// Of the reserved bits, which no extension of ours has a use for.
const RESERVED: u8 = 0x70;
/// The payload is masked, as a client's is always.
const MASKED: u8 = 0x80;

/// Status codes of a close (section 7.4.1).
const NORMAL: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;

/// The answer to a client's `Sec-WebSocket-Key`.
pub fn accept(key: &str) -> String {
    let keyed = format!("{key}{GUID}");
    BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, keyed.as_bytes()))
}

/// A binary message, in one frame.
pub async fn send(sink: &Sink, head: &[u8], bytes: &[u8]) -> io::Result<()> {
    sink.write(&frame(BINARY, head, bytes)).await
}

/// A question whether the client is there.
pub async fn ping(sink: &Sink) -> io::Result<()> {
    sink.write(&frame(PING, &[], &[])).await
}

/// The close that says that all went as it should.
pub async fn close(sink: &Sink) -> io::Result<()> {
    sink.write(&frame(CLOSE, &NORMAL.to_be_bytes(), &[])).await
}

fn frame(opcode: u8, head: &[u8], bytes: &[u8]) -> Vec<u8> {
    let len = head.len().saturating_add(bytes.len());
    let mut frame = Vec::with_capacity(len.saturating_add(10));
    frame.push(FIN | opcode);
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short @ 0..=125), _) => frame.push(short),
        (_, Ok(medium)) => {
            frame.push(126);
            frame.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&u64::try_from(len).unwrap_or(u64::MAX).to_be_bytes());
        }
    }
    frame.extend_from_slice(head);
    frame.extend_from_slice(bytes);
    frame
}

/// A part of a message.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'p> {
    /// With it the message begins.
    pub first: bool,
    /// What is in it; may be nothing.
    pub bytes: &'p [u8],
}

/// Reads a client's messages, piece by piece, whatever size they say they have.
pub struct Reader {
    source: Plain,
    sink: Arc<Sink>,
    buffer: Box<[u8]>,
    /// Of the frame that is being read.
    left: u64,
    mask: [u8; 4],
    /// Another frame of the same message is to come after this one.
    goes_on: bool,
    /// Nothing of the message was given yet.
    begins: bool,
    /// The first byte of the message.
    channel: Option<u8>,
    /// What a tunnel has read and not yet given.
    tunnelled: (usize, usize),
}

impl Reader {
    /// Reads what comes after the handshake; pings are answered at `sink`.
    pub fn new(source: Plain, sink: Arc<Sink>) -> Reader {
        let buffer = vec![0; PIECE].into_boxed_slice();
        Reader {
            source,
            sink,
            buffer,
            left: 0,
            mask: [0; 4],
            goes_on: false,
            begins: false,
            channel: None,
            tunnelled: (0, 0),
        }
    }

    /// The next piece of a message; none: the client has closed.
    pub async fn next(&mut self) -> io::Result<Option<Piece<'_>>> {
        let first = match self.left {
            0 => match self.frame().await {
                Ok(true) => self.begins,
                Ok(false) => return Ok(None),
                Err(error) => {
                    if error.kind() == io::ErrorKind::InvalidData {
                        let _ = self.sink.write(&frame(CLOSE, &PROTOCOL_ERROR.to_be_bytes(), &[])).await;
                    }
                    return Err(error);
                }
            },
            _ => false,
        };
        let count = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
        let room = self.buffer.get_mut(..count).unwrap_or_default();
        let read = match count {
            0 => 0,
            _ => self.source.read(room).await?,
        };
        if read == 0 && count > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let bytes = self.buffer.get_mut(..read).unwrap_or_default();
        unmask(bytes, self.mask);
        self.mask.rotate_left(read % 4);
        self.left = self.left.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
        Ok(Some(Piece { first, bytes }))
    }

    /// Reads up to the next frame of a message, and what its head says. False: the client has closed.
    async fn frame(&mut self) -> io::Result<bool> {
        loop {
            let mut head = [0; 2];
            self.source.read_exact(&mut head).await?;
            let [first, second] = head;
            let opcode = first & 0x0f;
            if first & RESERVED != 0 || second & MASKED == 0 {
                return Err(wrong("a frame with reserved bits, or without a mask"));
            }
            let len = match second & !MASKED {
                126 => {
                    let mut len = [0; 2];
                    self.source.read_exact(&mut len).await?;
                    u64::from(u16::from_be_bytes(len))
                }
                127 => {
                    let mut len = [0; 8];
                    self.source.read_exact(&mut len).await?;
                    u64::from_be_bytes(len)
                }
                short => u64::from(short),
            };
            let mut mask = [0; 4];
            self.source.read_exact(&mut mask).await?;
            match opcode {
                CONTINUATION | TEXT | BINARY => {
                    if (opcode == CONTINUATION) != self.goes_on || len >> 63 != 0 {
                        return Err(wrong("a frame out of its order, or longer than there are bytes"));
                    }
                    self.goes_on = first & FIN == 0;
                    self.begins = opcode != CONTINUATION;
                    (self.left, self.mask) = (len, mask);
                    return Ok(true);
                }
                CLOSE | PING | PONG => {
                    if len > MAX_CONTROL || first & FIN == 0 {
                        return Err(wrong("a control frame that is too long, or in parts"));
                    }
                    let mut payload = vec![0; usize::try_from(len).unwrap_or(0)];
                    self.source.read_exact(&mut payload).await?;
                    unmask(&mut payload, mask);
                    match opcode {
                        PING => self.sink.write(&frame(PONG, &payload, &[])).await?,
                        CLOSE => {
                            payload.truncate(2);
                            self.sink.write(&frame(CLOSE, &payload, &[])).await?;
                            return Ok(false);
                        }
                        _ => {}
                    }
                }
                _ => return Err(wrong("a frame of an unknown kind")),
            }
        }
    }

    /// The next piece of a message whose first byte is a channel: that, and what follows it (`channel.k8s.io`).
    /// Of an empty message there is no channel.
    pub async fn on_channel(&mut self) -> io::Result<Option<(Option<u8>, &[u8])>> {
        let known = self.channel;
        let Some(Piece { first, bytes }) = self.next().await? else { return Ok(None) };
        let count = bytes.len();
        let known = known.filter(|_| !first);
        let at = usize::from(known.is_none() && count > 0);
        let channel = known.or_else(|| self.buffer.first().copied().filter(|_| count > 0));
        self.channel = channel;
        Ok(Some((channel, self.buffer.get(at..count).unwrap_or_default())))
    }

    /// What is in the messages, as a stream of bytes.
    pub async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.tunnelled.0 >= self.tunnelled.1 {
            let count = match self.next().await? {
                None => return Ok(0),
                Some(piece) => piece.bytes.len(),
            };
            self.tunnelled = (0, count);
        }
        let (from, to) = self.tunnelled;
        let bytes = self.buffer.get(from..to).unwrap_or_default();
        let count = bytes.len().min(into.len());
        if let (Some(into), Some(bytes)) = (into.get_mut(..count), bytes.get(..count)) {
            into.copy_from_slice(bytes);
        }
        self.tunnelled.0 = from.saturating_add(count);
        Ok(count)
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    for (byte, mask) in bytes.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}
