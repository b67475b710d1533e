//! SPDY/3.1, a server's side, as far as `kubectl` and API servers speak it: they open streams, data flows both ways,
//! pings are answered. There is no flow control: neither they nor a kubelet look at WINDOW_UPDATE.

use std::io;
use std::sync::Arc;

use super::header_block::{HeaderBlocks, Headers, MAX_BLOCK};
use super::link::{wrong, Sink, Source};
use super::websocket;

/// Bytes of data that are held at a time.
const PIECE: usize = 8 * 1024;
/// Bytes of a control frame; a block of headers compressed is no longer than it is when it is read.
const MAX_CONTROL: usize = MAX_BLOCK;

/// Version 3 of a control frame.
const VERSION: u16 = 0x8003;
/// Types of control frames.
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;
/// The sender's side of the stream ends.
const FIN: u8 = 1;
/// The number of a ping of ours, which a server's are even of.
const OWN_PING: u32 = 2;
/// Status of a stream that is ended before its time.
const CANCEL: u32 = 5;

/// An empty block of headers, uncompressed, as the first and as a later one of its connection. The zlib stream has
/// a head that names the dictionary; each block is a stored one and an empty one, which is the flush.
const EMPTY_FIRST: [u8; 20] = [
    0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2, 0x00, 0x04, 0x00, 0xfb, 0xff, 0, 0, 0, 0, 0x00, 0x00, 0x00, 0xff,
    0xff,
];

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'f> {
    /// It opens a stream.
    Open {
        /// Its number.
        id: u32,
        /// What it is for.
        headers: Headers,
        /// Nothing will come on it.
        fin: bool,
    },
    /// A piece of data.
    Data {
        /// On this stream.
        id: u32,
        /// The piece; may be nothing.
        bytes: &'f [u8],
        /// It was the last.
        fin: bool,
    },
    /// It ends a stream before its time.
    Reset {
        /// The stream.
        id: u32,
    },
}

/// Reads a client's frames.
pub struct Reader {
    source: Source,
    writer: Arc<Writer>,
    blocks: Box<HeaderBlocks>,
    buffer: Box<[u8]>,
    /// Of the data frame that is being read: its stream, what is left of it, whether it is the last.
    data: Option<(u32, usize, bool)>,
    /// The highest number that a stream had.
    last_id: u32,
}

/// Writes frames to a client.
pub struct Writer {
    sink: Arc<Sink>,
    /// In messages of a WebSocket.
    tunnel: bool,
    /// A block of headers was sent: the zlib stream has begun.
    replied: std::sync::atomic::AtomicBool,
}

impl Reader {
    /// Reads from `source`; what must be answered at once is answered by `writer`.
    pub fn new(source: Source, writer: Arc<Writer>) -> Reader {
        let buffer = vec![0; PIECE].into_boxed_slice();
        Reader { source, writer, blocks: Box::default(), buffer, data: None, last_id: 0 }
    }

    /// The next frame; none: the client has closed the connection.
    pub async fn next(&mut self) -> io::Result<Option<Frame<'_>>> {
        loop {
            if let Some((id, left, fin)) = self.data.take() {
                return self.piece(id, left, fin).await.map(Some);
            }
            let mut head = [0; 8];
            let read = self.source.read(&mut head).await?;
            if read == 0 {
                return Ok(None);
            }
            self.source.read_exact(head.get_mut(read..).unwrap_or_default()).await?;
            let [a, b, c, d, flags, len @ ..] = head;
            let [e, f, g] = len;
            let len = usize::try_from(u32::from_be_bytes([0, e, f, g])).unwrap_or(usize::MAX);
            if a & 0x80 == 0 {
                self.data = Some((u32::from_be_bytes([a, b, c, d]), len, flags & FIN != 0));
                continue;
            }
            if u16::from_be_bytes([a, b]) != VERSION {
                return Err(wrong("a frame of another version than SPDY/3"));
            }
            if len > MAX_CONTROL {
                return Err(wrong("a control frame that is too long"));
            }
            let mut payload = vec![0; len];
            self.source.read_exact(&mut payload).await?;
            if let Some(frame) = self.control(u16::from_be_bytes([c, d]), flags, &payload).await? {
                return Ok(Some(frame));
            }
        }
    }

    async fn piece(&mut self, id: u32, left: usize, fin: bool) -> io::Result<Frame<'_>> {
        let room = self.buffer.get_mut(..left.min(PIECE)).unwrap_or_default();
        let read = match left {
            0 => 0,
            _ => self.source.read(room).await?,
        };
        if read == 0 && left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let rest = left.saturating_sub(read);
        if rest > 0 {
            self.data = Some((id, rest, fin));
        }
        Ok(Frame::Data { id, bytes: self.buffer.get(..read).unwrap_or_default(), fin: fin && rest == 0 })
    }

    async fn control(&mut self, kind: u16, flags: u8, payload: &[u8]) -> io::Result<Option<Frame<'static>>> {
        let short = || wrong("a control frame that is too short");
        let id = || payload.first_chunk().map(|id| u32::from_be_bytes(*id) & 0x7fff_ffff).ok_or_else(short);
        match kind {
            SYN_STREAM => {
                let id = id()?;
                let headers = self.blocks.read(payload.get(10..).ok_or_else(short)?)?;
                if id % 2 == 0 || id <= self.last_id {
                    return Err(wrong("a stream whose number is not a client's next"));
                }
                self.last_id = id;
                Ok(Some(Frame::Open { id, headers, fin: flags & FIN != 0 }))
            }
            // Nothing of ours asks for one, but all blocks are one compressed stream.
            SYN_REPLY | HEADERS => {
                self.blocks.read(payload.get(4..).ok_or_else(short)?)?;
                Ok(None)
            }
            RST_STREAM => Ok(Some(Frame::Reset { id: id()? })),
            PING => {
                // Clients' pings have odd numbers; the others answer ours.
                if id()? % 2 == 1 {
                    self.writer.control(PING, payload).await?;
                }
                Ok(None)
            }
            SETTINGS | GOAWAY | WINDOW_UPDATE => Ok(None),
            _ => Err(wrong("a control frame of an unknown kind")),
        }
    }
}

impl Writer {
    /// Writes to `sink`, in messages of a WebSocket or as it is.
    pub fn new(sink: Arc<Sink>, tunnel: bool) -> Writer {
        Writer { sink, tunnel, replied: std::sync::atomic::AtomicBool::new(false) }
    }

    async fn write(&self, frame: &[u8]) -> io::Result<()> {
        if self.tunnel {
            websocket::send(&self.sink, &[], frame).await
        } else {
            self.sink.write(frame).await
        }
    }

    async fn control(&self, kind: u16, payload: &[u8]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(payload.len().saturating_add(8));
        frame.extend_from_slice(&VERSION.to_be_bytes());
        frame.extend_from_slice(&kind.to_be_bytes());
        // No flags; a length is three bytes.
        frame.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(0).to_be_bytes());
        frame.extend_from_slice(payload);
        self.write(&frame).await
    }

    /// Takes a stream that the client has opened. One at a time.
    pub async fn reply(&self, id: u32) -> io::Result<()> {
        let begun = self.replied.swap(true, std::sync::atomic::Ordering::Relaxed);
        let block = if begun { EMPTY_FIRST.get(6..) } else { EMPTY_FIRST.get(..) };
        let payload = [&id.to_be_bytes(), block.unwrap_or_default()].concat();
        self.control(SYN_REPLY, &payload).await
    }

    /// Data; `fin`: the last.
    pub async fn data(&self, id: u32, bytes: &[u8], fin: bool) -> io::Result<()> {
        let mut frame = Vec::with_capacity(bytes.len().saturating_add(8));
        frame.extend_from_slice(&id.to_be_bytes());
        let len = u32::try_from(bytes.len()).unwrap_or(0) & 0x00ff_ffff;
        frame.extend_from_slice(&(u32::from(u8::from(fin) * FIN) << 24 | len).to_be_bytes());
        frame.extend_from_slice(bytes);
        self.write(&frame).await
    }

    /// Asks the client for a sign of life.
    pub async fn ping(&self) -> io::Result<()> {
        self.control(PING, &OWN_PING.to_be_bytes()).await
    }

    /// Ends a stream.
    pub async fn reset(&self, id: u32) -> io::Result<()> {
        self.control(RST_STREAM, &[id.to_be_bytes(), CANCEL.to_be_bytes()].concat()).await
    }

    /// Says that the connection ends, all having gone well.
    pub async fn go_away(&self, last: u32) -> io::Result<()> {
        self.control(GOAWAY, &[last.to_be_bytes(), [0; 4]].concat()).await?;
        if self.tunnel {
            websocket::close(&self.sink).await?;
        }
        Ok(())
    }
}
