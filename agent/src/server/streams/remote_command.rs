//! exec and attach: a client's streams, each a channel, connected to an instance's (`remotecommand`, protocols v1 to v5).

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use async_io::{Async, Timer};
use futures_lite::future;
use serde_json::{json, Value};

use super::link::{Plain, Sink, Source};
use super::{idle, spdy, websocket};
use crate::runtime::stdio::{Ends, Wanted};
use crate::runtime::Exit;
use crate::server::view::Session;

/// Channels by number, as a WebSocket has them; the types of SPDY streams.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const TYPES: [&str; 5] = ["stdin", "stdout", "stderr", "error", "resize"];
/// v5 of the WebSocket protocol: the channel that its one byte names ends.
const END: u8 = 255;

/// How long a client has to open its streams (`DefaultStreamCreationTimeout`).
const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client that has everything has to close.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take to read how it ended, after all that it has not read yet.
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an attached container whose output is at its end has to end itself.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a client is asked whether it is there, while its instance does not read what it has sent.
const PING_PAUSE: Duration = Duration::from_secs(10);
/// Bytes that are read of an instance's output at a time.
const PIECE: usize = 8 * 1024;
/// Bytes of one size of a terminal.
const MAX_RESIZE: usize = 256;
/// Streams that one client may open, those included that are none of ours.
const MAX_STREAMS: usize = 16;
/// What ends a program at a terminal: Ctrl-C and Ctrl-\, and with which code (128 and the signal).
const INTERRUPTS: [(u8, u8); 2] = [(0x03, 130), (0x1c, 131)];
/// What ends a line, and with an empty one the input of a terminal: Ctrl-D.
const END_OF_INPUT: u8 = 0x04;
/// Exit codes of a program that did not exit by itself: SIGABRT and SIGKILL.
const TRAPPED: u32 = 134;
const KILLED: u32 = 137;

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// SPDY streams, v4.
    Spdy,
    /// WebSocket messages.
    WebSocket {
        /// Errors are a Status as JSON (v4).
        status: bool,
    },
}

/// The streams of a SPDY client, by channel; 0 where it has not opened one.
type Streams = [u32; TYPES.len()];

/// How the client is heard.
enum Receiver {
    Spdy {
        reader: Box<spdy::Reader>,
        writer: Arc<spdy::Writer>,
        streams: Streams,
        /// This one ends, and that was not said yet.
        ended: Option<u8>,
    },
    WebSocket(Box<websocket::Reader>),
}

/// How the client is spoken to.
enum Sender {
    Spdy { writer: Arc<spdy::Writer>, streams: Streams },
    WebSocket { sink: Arc<Sink>, status: bool },
}

/// What a client says.
enum Said<'s> {
    Data(u8, &'s [u8]),
    End(u8),
    Nothing,
}

/// How an instance ended for its client.
enum Outcome {
    Exit(Exit),
    /// By what was typed.
    Interrupted(u8),
    /// It could not be started, or went wrong.
    Failed(String),
    /// There is no client any more.
    Gone,
}

/// Serves a client to its end: `start` connects it to an instance once its streams are there.
pub async fn serve(
    source: Plain,
    sink: Sink,
    protocol: Protocol,
    wanted: Wanted,
    start: impl Future<Output = Result<Session, String>>,
) {
    let sink = Arc::new(sink);
    if let Err(error) = connect(source, &sink, protocol, wanted, start).await {
        log::debug!("a client of exec or attach went away: {error}");
    }
}

async fn connect(
    source: Plain,
    sink: &Arc<Sink>,
    protocol: Protocol,
    wanted: Wanted,
    start: impl Future<Output = Result<Session, String>>,
) -> io::Result<()> {
    let late = async {
        Timer::after(STREAMS_TIMEOUT).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    let (mut receiver, sender) = future::or(open(source, sink, protocol, wanted), late).await?;
    let outcome = match start.await {
        Ok(session) => relay(&mut receiver, &sender, wanted, session).await,
        Err(text) => Outcome::Failed(text),
    };
    if matches!(outcome, Outcome::Gone) {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let late = async {
        Timer::after(END_TIMEOUT).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    future::or(sender.finish(&outcome, wanted), late).await?;
    sink.close().await;
    // What the client still sends is read: to close on it would take from it what it has not read yet.
    let read = async { while receiver.next().await.is_ok_and(|said| said.is_some()) {} };
    let late = async {
        Timer::after(LAST_WORDS_TIMEOUT).await;
    };
    future::or(read, late).await;
    Ok(())
}

/// Waits until the client has the streams that it wants.
async fn open(
    source: Plain,
    sink: &Arc<Sink>,
    protocol: Protocol,
    wanted: Wanted,
) -> io::Result<(Receiver, Sender)> {
    match protocol {
        Protocol::Spdy => {
            let writer = Arc::new(spdy::Writer::new(sink.clone(), false));
            let mut reader = Box::new(spdy::Reader::new(Source::Plain(source), writer.clone()));
            let streams = opened(&mut reader, &writer, wanted).await?;
            let receiver = Receiver::Spdy { reader, writer: writer.clone(), streams, ended: None };
            Ok((receiver, Sender::Spdy { writer, streams }))
        }
        Protocol::WebSocket { status } => {
            let first = match wanted {
                Wanted { stdout: true, .. } => STDOUT,
                Wanted { stderr: true, .. } => STDERR,
                _ => ERROR,
            };
            websocket::send(sink, &[first], &[]).await?;
            let reader = Box::new(websocket::Reader::new(source, sink.clone()));
            Ok((Receiver::WebSocket(reader), Sender::WebSocket { sink: sink.clone(), status }))
        }
    }
}

async fn opened(reader: &mut spdy::Reader, writer: &spdy::Writer, wanted: Wanted) -> io::Result<Streams> {
    let needed = [wanted.stdin, wanted.stdout, wanted.stderr && !wanted.tty, true, wanted.tty];
    let mut streams = Streams::default();
    let mut left = MAX_STREAMS;
    while streams.iter().zip(needed).any(|(id, needed)| needed && *id == 0) {
        let Some(frame) = reader.next().await? else { return Err(io::ErrorKind::ConnectionAborted.into()) };
        let spdy::Frame::Open { id, headers, .. } = frame else { continue };
        left = left.checked_sub(1).ok_or_else(|| io::Error::other("too many streams"))?;
        let kind = headers.iter().find(|(name, _)| name == "streamtype").map(|(_, value)| value.as_str());
        let channel = TYPES.iter().position(|known| Some(*known) == kind);
        match channel.and_then(|channel| streams.get_mut(channel)) {
            Some(stream) => {
                *stream = id;
                writer.reply(id).await?;
            }
            None => writer.reset(id).await?,
        }
    }
    Ok(streams)
}

/// Moves bytes both ways until one side ends.
async fn relay(receiver: &mut Receiver, sender: &Sender, wanted: Wanted, session: Session) -> Outcome {
    let Session { ends: Ends { stdin, stdout, stderr, terminal }, exit, kill, lasting } = session;
    let busy = idle::Busy::default();
    let output = async {
        let both = future::try_zip(
            pump(sender, STDOUT, stdout, wanted.stdout || wanted.tty, &busy),
            pump(sender, STDERR, stderr, wanted.stderr, &busy),
        );
        if both.await.is_err() {
            return Outcome::Gone;
        }
        let exit = async { Outcome::Exit(exit.await) };
        if !lasting {
            return exit.await;
        }
        // The container has closed its output, or it was taken from a client who did not read it.
        let late = async {
            Timer::after(EXIT_TIMEOUT).await;
            Outcome::Failed("the output has ended for this client, who did not keep up with it".to_owned())
        };
        future::or(exit, late).await
    };
    let input = async {
        let asynchronous = |fd: OwnedFd| Async::new_nonblocking(fd).ok();
        let mut stdin = stdin.and_then(asynchronous);
        let mut size = Vec::new();
        loop {
            let said = match receiver.next().await {
                Ok(Some(said)) => said,
                Ok(None) => return Outcome::Gone,
                Err(error) => {
                    log::debug!("what a client of exec or attach sends makes no sense: {error}");
                    return Outcome::Gone;
                }
            };
            busy.touch();
            match said {
                Said::Data(STDIN, bytes) => {
                    let typed = |(key, _): &&(u8, u8)| terminal.is_some() && bytes.contains(key);
                    if let Some((_, code)) = INTERRUPTS.iter().find(typed) {
                        kill();
                        return Outcome::Interrupted(*code);
                    }
                    if feed(&mut stdin, bytes, sender).await.is_err() {
                        return Outcome::Gone;
                    }
                }
                Said::End(STDIN) => {
                    let ended = match terminal.is_some() && !lasting {
                        true => feed(&mut stdin, &[END_OF_INPUT; 2], sender).await,
                        false => Ok(()),
                    };
                    if ended.is_err() {
                        return Outcome::Gone;
                    }
                    stdin = None;
                }
                Said::Data(RESIZE, bytes) => {
                    if let (Some((columns, rows)), Some(terminal)) = (resized(&mut size, bytes), &terminal) {
                        if let Err(error) = terminal.resize(columns, rows) {
                            log::debug!("a terminal keeps its size: {error}");
                        }
                    }
                }
                Said::Data(..) | Said::End(_) | Said::Nothing => {}
            }
        }
    };
    let idle = async {
        busy.idle().await;
        Outcome::Failed(format!("nothing moved for {} hours", idle::TIMEOUT.as_secs() / 3600))
    };
    future::or(future::or(output, input), idle).await
}

/// Writes to an instance's standard input; waits while it is full. An instance that has closed it gets no more.
///
/// # Errors
/// When the client has gone meanwhile. What it has sent is not read while its instance does not read, and so its end
/// is not seen there: it is asked.
async fn feed(stdin: &mut Option<Async<OwnedFd>>, mut bytes: &[u8], sender: &Sender) -> io::Result<()> {
    let written = async {
        while let (Some(open), false) = (&stdin, bytes.is_empty()) {
            match open.write_with(|fd| Ok(rustix::io::write(fd, bytes)?)).await {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(_) => *stdin = None,
            }
        }
        Ok(())
    };
    let gone = async {
        loop {
            Timer::after(PING_PAUSE).await;
            sender.ping().await?;
        }
    };
    future::or(written, gone).await
}

/// An instance's output, to its end; `wanted`: or it is read and dropped.
async fn pump(
    sender: &Sender,
    channel: u8,
    output: Option<OwnedFd>,
    wanted: bool,
    busy: &idle::Busy,
) -> io::Result<()> {
    let Some(output) = output else { return Ok(()) };
    let output = Async::new_nonblocking(output)?;
    let mut piece = vec![0; PIECE];
    // EIO is how a terminal ends.
    while let Ok(read) = output.read_with(|fd| Ok(rustix::io::read(fd, &mut piece)?)).await {
        let Some(piece) = piece.get(..read).filter(|piece| !piece.is_empty()) else { break };
        busy.touch();
        if wanted {
            sender.send(channel, piece).await?;
        }
    }
    Ok(())
}

/// A size, once it is whole: `{"Width":80,"Height":24}`, whatever pieces it comes in.
fn resized(kept: &mut Vec<u8>, bytes: &[u8]) -> Option<(u16, u16)> {
    let mut found = None;
    for byte in bytes {
        kept.push(*byte);
        if *byte == b'}' {
            let size: Option<Value> = serde_json::from_slice(kept).ok();
            let side = |name| size.as_ref()?.get(name)?.as_u64()?.try_into().ok();
            found = side("Width").zip(side("Height")).or(found);
            kept.clear();
        } else if kept.len() > MAX_RESIZE {
            kept.clear();
        }
    }
    found
}

impl Receiver {
    /// What the client says next; none: it has closed.
    async fn next(&mut self) -> io::Result<Option<Said<'_>>> {
        match self {
            Receiver::Spdy { ended: ended @ Some(_), .. } => Ok(ended.take().map(Said::End)),
            Receiver::Spdy { reader, writer, streams, ended } => {
                let channel = |id| {
                    let at = streams.iter().position(|stream| *stream == id && id != 0);
                    at.and_then(|at| u8::try_from(at).ok())
                };
                Ok(match reader.next().await? {
                    None => None,
                    Some(spdy::Frame::Data { id, bytes, fin }) => Some(match channel(id) {
                        Some(channel) => {
                            *ended = fin.then_some(channel);
                            Said::Data(channel, bytes)
                        }
                        None => Said::Nothing,
                    }),
                    Some(spdy::Frame::Reset { id }) => Some(channel(id).map_or(Said::Nothing, Said::End)),
                    // One that it has no use for here (a resize, where there is no terminal), and waits for.
                    Some(spdy::Frame::Open { id, .. }) => {
                        writer.reply(id).await?;
                        Some(Said::Nothing)
                    }
                })
            }
            Receiver::WebSocket(reader) => Ok(reader.on_channel().await?.map(|said| match said {
                (Some(END), [ended, ..]) => Said::End(*ended),
                (Some(channel), bytes) => Said::Data(channel, bytes),
                (None, _) => Said::Nothing,
            })),
        }
    }
}

/// The stream of a channel, if there is one.
fn stream(streams: &Streams, channel: u8) -> Option<u32> {
    streams.get(usize::from(channel)).copied().filter(|id| *id != 0)
}

impl Sender {
    /// Asks whether the client is there: a connection without one answers with its end.
    async fn ping(&self) -> io::Result<()> {
        match self {
            Sender::Spdy { writer, .. } => writer.ping().await,
            Sender::WebSocket { sink, .. } => websocket::ping(sink).await,
        }
    }

    async fn send(&self, channel: u8, bytes: &[u8]) -> io::Result<()> {
        match self {
            Sender::Spdy { writer, streams } => match stream(streams, channel) {
                Some(id) => writer.data(id, bytes, false).await,
                None => Ok(()),
            },
            Sender::WebSocket { sink, .. } => websocket::send(sink, &[channel], bytes).await,
        }
    }

    /// Says how it ended, and that this was all.
    async fn finish(&self, outcome: &Outcome, wanted: Wanted) -> io::Result<()> {
        let (status, said) = status(outcome);
        if let Some(text) = said {
            let channel = if wanted.stderr && !wanted.tty { STDERR } else { STDOUT };
            self.send(channel, text.as_bytes()).await?;
        }
        match self {
            Sender::Spdy { writer, streams } => {
                for channel in [STDOUT, STDERR] {
                    if let Some(id) = stream(streams, channel) {
                        writer.data(id, &[], true).await?;
                    }
                }
                if let Some(id) = stream(streams, ERROR) {
                    writer.data(id, status.to_string().as_bytes(), false).await?;
                    writer.data(id, &[], true).await?;
                }
                for id in streams.iter().filter(|id| **id != 0) {
                    writer.reset(*id).await?;
                }
                writer.go_away(streams.iter().copied().max().unwrap_or(0)).await
            }
            Sender::WebSocket { sink, status: true } => {
                websocket::send(sink, &[ERROR], status.to_string().as_bytes()).await?;
                websocket::close(sink).await
            }
            Sender::WebSocket { sink, status: false } => {
                if let Some(text) = status.get("message").and_then(Value::as_str) {
                    websocket::send(sink, &[ERROR], text.as_bytes()).await?;
                }
                websocket::close(sink).await
            }
        }
    }
}

/// The Status that says how it ended (apimachinery, `remotecommand.NonZeroExitCodeReason`), and what a person should
/// read beside it.
fn status(outcome: &Outcome) -> (Value, Option<String>) {
    let success = || (json!({"metadata": {}, "status": "Success"}), None);
    let exited = |code: u32, said: Option<String>| {
        // Codes are told in decimal; what a process has no room for is still no success.
        let status = json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        });
        (status, said)
    };
    match outcome {
        Outcome::Exit(Exit::Code(0)) | Outcome::Gone => success(),
        Outcome::Exit(Exit::Code(code)) => exited((*code).min(255), None),
        Outcome::Exit(Exit::Trap(text) | Exit::Panic(text)) => exited(TRAPPED, Some(format!("{text}\n"))),
        Outcome::Exit(Exit::OutOfMemory) => {
            exited(KILLED, Some("it has more memory than its container may have\n".to_owned()))
        }
        Outcome::Exit(Exit::Killed) => exited(KILLED, None),
        Outcome::Interrupted(code) => exited(u32::from(*code), None),
        Outcome::Failed(text) => {
            let message = format!("Internal error occurred: error executing command in container: {text}");
            let status = json!({
                "metadata": {},
                "status": "Failure",
                "message": message,
                "reason": "InternalError",
                "details": {"causes": [{"message": format!("error executing command in container: {text}")}]},
                "code": 500,
            });
            (status, None)
        }
    }
}
