//! port-forward: connections of a client's, each a pair of SPDY streams, to what a pod listens on
//! (`portforward.k8s.io`); or, by a WebSocket of old, one connection for each port, each a pair of channels.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use async_io::{Async, Timer};
use futures_lite::{future, AsyncReadExt, AsyncWriteExt};

use super::idle::Busy;
use super::link::{Plain, Sink, Source};
use super::{spdy, websocket};
use crate::control::{self, Task};

/// Connections of one client at a time.
const MAX_CONNECTIONS: usize = 32;
/// How long a connection within this machine may take to be made.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a program may not read what is sent to it before its connection is given up: those beside it, which come
/// on the same connection of the client's, wait meanwhile.
const SLOW_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes that are read of a connection at a time.
const PIECE: usize = 8 * 1024;

/// Where a pod listens on a port, or why it does not.
pub type Find = Box<dyn Fn(u16) -> Result<SocketAddr, String> + Send + Sync>;

/// A connection: its streams, and the two ways of its bytes.
struct Forward {
    request: String,
    error: u32,
    data: u32,
    tcp: Option<Arc<Async<TcpStream>>>,
    reading: Option<Task<()>>,
}

/// Serves a client that opens streams, until it closes.
pub async fn serve_streams(source: Plain, sink: Sink, find: Find) {
    let sink = Arc::new(sink);
    streams(Source::Plain(source), &sink, false, find).await;
    sink.close().await;
}

/// As [`serve_streams`], in the messages of a WebSocket.
pub async fn serve_tunnel(source: Plain, sink: Sink, find: Find) {
    let sink = Arc::new(sink);
    let source = Source::Tunnel(Box::new(websocket::Reader::new(source, sink.clone())));
    streams(source, &sink, true, find).await;
    sink.close().await;
}

async fn streams(source: Source, sink: &Arc<Sink>, tunnel: bool, find: Find) {
    let writer = Arc::new(spdy::Writer::new(sink.clone(), tunnel));
    let mut client = Client {
        reader: spdy::Reader::new(source, writer.clone()),
        writer,
        find,
        forwards: Vec::new(),
        busy: Arc::default(),
    };
    let busy = client.busy.clone();
    let idle = async {
        busy.idle().await;
        Ok(())
    };
    if let Err(error) = future::or(client.serve(), idle).await {
        log::debug!("a client of port-forward went away: {error}");
    }
}

struct Client {
    reader: spdy::Reader,
    writer: Arc<spdy::Writer>,
    find: Find,
    forwards: Vec<Forward>,
    busy: Arc<Busy>,
}

impl Client {
    async fn serve(&mut self) -> io::Result<()> {
        while let Some(frame) = self.reader.next().await? {
            self.busy.touch();
            match frame {
                spdy::Frame::Open { id, headers, .. } => {
                    let header = |name: &str| {
                        headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
                    };
                    let port = header("port").and_then(|port| port.parse().ok()).filter(|port| *port != 0);
                    match (header("streamtype").as_deref(), port) {
                        (Some("error"), Some(_)) => {
                            let request = header("requestid").unwrap_or_else(|| id.to_string());
                            self.error_stream(id, request).await?;
                        }
                        (Some("data"), Some(port)) => {
                            // Clients of old do not number their requests: the data comes right after the error.
                            let before = || id.saturating_sub(2).to_string();
                            self.data_stream(id, header("requestid").unwrap_or_else(before), port).await?;
                        }
                        _ => self.writer.reset(id).await?,
                    }
                }
                spdy::Frame::Data { id, bytes, fin } => {
                    let Some(forward) = self.forwards.iter().find(|forward| forward.data == id) else {
                        continue;
                    };
                    let Some(tcp) = &forward.tcp else { continue };
                    if send(tcp, bytes).await.is_err() || fin {
                        shut(tcp);
                    }
                }
                spdy::Frame::Reset { id } => {
                    self.forwards.retain(|forward| forward.data != id && forward.error != id);
                }
            }
        }
        Ok(())
    }

    async fn error_stream(&mut self, id: u32, request: String) -> io::Result<()> {
        // Those that are over make room.
        let is_over = |forward: &Forward| forward.reading.as_ref().is_none_or(Task::is_finished);
        self.forwards.retain(|forward| forward.data == 0 || !is_over(forward));
        let known = self.forwards.iter().any(|forward| forward.request == request);
        if known || self.forwards.len() >= MAX_CONNECTIONS {
            return self.writer.reset(id).await;
        }
        self.forwards.push(Forward { request, error: id, data: 0, tcp: None, reading: None });
        self.writer.reply(id).await
    }

    async fn data_stream(&mut self, id: u32, request: String, port: u16) -> io::Result<()> {
        let wanted = |forward: &&mut Forward| forward.data == 0 && forward.request == request;
        let Some(forward) = self.forwards.iter_mut().find(wanted) else {
            return self.writer.reset(id).await;
        };
        forward.data = id;
        self.writer.reply(id).await?;
        match dial(&self.find, port).await {
            Ok(tcp) => {
                let tcp = Arc::new(tcp);
                let (writer, busy) = (self.writer.clone(), self.busy.clone());
                let (error, from) = (forward.error, tcp.clone());
                forward.tcp = Some(tcp);
                forward.reading = Some(control::spawn(async move {
                    // A client that is gone is noticed by who reads from it.
                    let _gone = receive(&from, &writer, error, id, &busy).await;
                }));
                Ok(())
            }
            Err(text) => {
                // The text ends the whole session at kubectl, as a kubelet's does.
                let error = forward.error;
                self.writer.data(error, text.as_bytes(), false).await?;
                self.writer.data(error, &[], true).await?;
                self.writer.data(id, &[], true).await
            }
        }
    }
}

/// The client sends nothing more.
fn shut(tcp: &Async<TcpStream>) {
    // One that is over needs it not.
    let _over = tcp.get_ref().shutdown(std::net::Shutdown::Write);
}

async fn send(mut tcp: &Async<TcpStream>, bytes: &[u8]) -> io::Result<()> {
    let late = async {
        Timer::after(SLOW_TIMEOUT).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    future::or(tcp.write_all(bytes), late).await
}

/// What the program sends, to its end; then both streams end.
async fn receive(
    tcp: &Async<TcpStream>,
    writer: &spdy::Writer,
    error: u32,
    data: u32,
    busy: &Busy,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut from: &Async<TcpStream> = tcp;
    while let Ok(read) = from.read(&mut piece).await {
        let Some(piece) = piece.get(..read).filter(|piece| !piece.is_empty()) else { break };
        busy.touch();
        writer.data(data, piece, false).await?;
    }
    writer.data(data, &[], true).await?;
    writer.data(error, &[], true).await
}

async fn dial(find: &Find, port: u16) -> Result<Async<TcpStream>, String> {
    let address = find(port)?;
    let late = async {
        Timer::after(DIAL_TIMEOUT).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    let dialled = future::or(Async::<TcpStream>::connect(address), late).await;
    dialled.map_err(|error| format!("failed to connect to port {port} at {address}: {error}"))
}

/// Serves a client that names its ports beforehand (`v4.channel.k8s.io`): a connection each, of which channel 2i has the
/// data and 2i + 1 the error; each begins with its port.
pub async fn serve_channels(source: Plain, sink: Sink, ports: Vec<u16>, find: Find) {
    let sink = Arc::new(sink);
    let busy = Busy::default();
    let idle = async {
        busy.idle().await;
        Ok(())
    };
    if let Err(error) = future::or(channels(source, &sink, &ports, find, &busy), idle).await {
        log::debug!("a client of port-forward went away: {error}");
    }
    sink.close().await;
}

async fn channels(source: Plain, sink: &Arc<Sink>, ports: &[u16], find: Find, busy: &Busy) -> io::Result<()> {
    let mut connections = Vec::new();
    for (data, port) in (0_u8..).step_by(2).zip(ports) {
        let error = data.saturating_add(1);
        websocket::send(sink, &[data], &port.to_le_bytes()).await?;
        websocket::send(sink, &[error], &port.to_le_bytes()).await?;
        match dial(&find, *port).await {
            Err(text) => websocket::send(sink, &[error], text.as_bytes()).await?,
            Ok(tcp) => connections.push((data, tcp)),
        }
    }
    let receive = async |(channel, tcp): &(u8, Async<TcpStream>)| -> io::Result<()> {
        let (mut piece, mut from) = (vec![0; PIECE], tcp);
        while let Ok(read) = from.read(&mut piece).await {
            let Some(piece) = piece.get(..read).filter(|piece| !piece.is_empty()) else { break };
            busy.touch();
            websocket::send(sink, &[*channel], piece).await?;
        }
        Ok(())
    };
    let received = async {
        futures_util::future::try_join_all(connections.iter().map(receive)).await?;
        websocket::close(sink).await
    };
    let sent = async {
        let mut reader = websocket::Reader::new(source, sink.clone());
        while let Some((channel, bytes)) = reader.on_channel().await? {
            busy.touch();
            if let Some((_, tcp)) = connections.iter().find(|(data, _)| Some(*data) == channel) {
                if send(tcp, bytes).await.is_err() {
                    shut(tcp);
                }
            }
        }
        Ok(())
    };
    // There is no way to say that one connection has ended: all end when the last has.
    future::or(received, sent).await
}
