//! exec, attach and port-forward over real TLS, with clients that send their bytes by hand.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::thread;

use futures_lite::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::runtime::stdio::connected;
use crate::runtime::{Exit, Outlet, Stdio};

/// An instance of no module: what a command of this test's does.
pub fn instance(command: &[String], wanted: Wanted) -> Result<Session, String> {
    if command == ["none"] {
        return Err("exec: \"none\": executable file not found".to_owned());
    }
    let (stdio, ends) = connected(wanted).map_err(|error| error.to_string())?;
    let (ended, exit) = async_channel::bounded(1);
    let killed = ended.clone();
    let command = command.to_vec();
    thread::spawn(move || {
        let end = perform(&command, stdio);
        let _ = ended.try_send(end);
    });
    Ok(Session {
        ends,
        exit: Box::pin(async move { exit.recv().await.unwrap_or(Exit::Killed) }),
        kill: Box::new(move || drop(killed.try_send(Exit::Killed))),
        lasting: false,
    })
}

fn file(fd: OwnedFd) -> std::fs::File {
    let flags = rustix::fs::fcntl_getfl(&fd).unwrap() - rustix::fs::OFlags::NONBLOCK;
    rustix::fs::fcntl_setfl(&fd, flags).unwrap();
    fd.into()
}

fn perform(command: &[String], stdio: Stdio) -> Exit {
    let open = |outlet| match outlet {
        Outlet::Open(fd) => Some(file(fd)),
        Outlet::Taken(_) => None,
    };
    let (mut stdout, stderr) = (open(stdio.stdout), open(stdio.stderr));
    match command[0].as_str() {
        "echo" => {
            let mut stdin = file(stdio.stdin.unwrap());
            let _ = std::io::copy(&mut stdin, &mut stdout.unwrap());
            Exit::Code(0)
        }
        "exit" => {
            stdout.unwrap().write_all(b"out").unwrap();
            stderr.unwrap().write_all(b"err").unwrap();
            Exit::Code(command[1].parse().unwrap())
        }
        "trap" => Exit::Trap("wasm trap: unreachable".to_owned()),
        "size" => {
            // One line of input: the terminal has its size by then.
            let mut stdin = file(stdio.stdin.unwrap());
            let _ = stdin.read(&mut [0; 64]).unwrap();
            let size = rustix::termios::tcgetwinsize(&stdin).unwrap();
            write!(stdout.as_mut().unwrap(), "{}x{}", size.ws_col, size.ws_row).unwrap();
            Exit::Code(0)
        }
        other => panic!("{other}"),
    }
}

/// A connection on which a request to upgrade was sent; the head of the answer.
async fn upgraded(bed: &super::Bed, path: &str, headers: &str) -> (super::Tunnel, String) {
    let mut tunnel = bed.tunnel(Some(&bed.admin())).await.unwrap();
    let method = if headers.contains("SPDY/3.1\r") { "POST" } else { "GET" };
    let request = format!("{method} {path} HTTP/1.1\r\nHost: pi\r\nConnection: Upgrade\r\n{headers}\r\n");
    tunnel.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tunnel.read_exact(&mut byte).await.unwrap();
        head.extend(byte);
    }
    (tunnel, String::from_utf8(head).unwrap().to_lowercase())
}

const SOCKET: &str =
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const V5: &str = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\
                  Sec-WebSocket-Protocol: v6.channel.k8s.io, v5.channel.k8s.io\r\n";
const SPDY: &str =
    "Upgrade: SPDY/3.1\r\nContent-Length: 0\r\nX-Stream-Protocol-Version: v5.channel.k8s.io\r\n\
                    X-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
const FORWARD: &str = "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\n";

/// A message, masked with zeros.
fn message(bytes: &[u8]) -> Vec<u8> {
    [&[0x82, 0x80 | u8::try_from(bytes.len()).unwrap(), 0, 0, 0, 0][..], bytes].concat()
}

/// What came by channel, to the end, and the code of the close.
async fn messages(tunnel: &mut super::Tunnel) -> (HashMap<u8, Vec<u8>>, u16) {
    let mut channels: HashMap<u8, Vec<u8>> = HashMap::new();
    loop {
        let mut head = [0; 2];
        tunnel.read_exact(&mut head).await.unwrap();
        let len = match head[1] {
            126 => {
                let mut len = [0; 2];
                tunnel.read_exact(&mut len).await.unwrap();
                u16::from_be_bytes(len).into()
            }
            short => usize::from(short),
        };
        let mut bytes = vec![0; len];
        tunnel.read_exact(&mut bytes).await.unwrap();
        match head[0] {
            0x82 => channels.entry(bytes[0]).or_default().extend(&bytes[1..]),
            0x88 => return (channels, u16::from_be_bytes([bytes[0], bytes[1]])),
            other => panic!("a frame of {other:x}"),
        }
    }
}

fn status(json: &[u8]) -> serde_json::Value {
    serde_json::from_slice(json).unwrap()
}

#[test]
fn requests_that_cannot_become_streams_are_refused_as_a_kubelet_does() {
    control::run(async {
        let bed = super::Bed::start();
        let streams = "input=1&output=1&error=1";
        for (path, headers, line, text) in [
            ("/exec/default/hello/main?command=echo&output=1", "", "400", "upgrade request required"),
            ("/exec/default/hello/main?command=echo", V5, "400", ""),
            ("/exec/default/hello/main?output=1", V5, "400", ""),
            ("/exec/default/gone/main?command=echo&output=1", V5, "404", ""),
            ("/exec/default/hello/u2/main?command=echo&output=1", V5, "404", ""),
            ("/exec/default/hello/other?command=echo&output=1", V5, "500", ""),
            ("/exec/default/hello/main?command=%ff&output=1", V5, "400", ""),
            ("/portForward/default/gone", FORWARD, "404", ""),
            ("/portForward/default/hello?port=x", FORWARD, "400", ""),
            (
                "/portForward/default/hello",
                SPDY,
                "403",
                "x-accepted-stream-protocol-versions: portforward.k8s.io",
            ),
            // No port, no channel.
            ("/portForward/default/hello", SOCKET, "403", ""),
        ] {
            let (_, head) = upgraded(&bed, path, headers).await;
            assert!(head.starts_with(&format!("http/1.1 {line} ")), "{path}: {head}");
            assert!(head.contains(text) || text.starts_with("upgrade"), "{path}: {head}");
        }
        let path = format!("/exec/default/hello/main?command=echo&{streams}");
        let unknown = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\
                       Sec-WebSocket-Protocol: v9.channel.k8s.io\r\n";
        let old = "Upgrade: websocket\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: x\r\n";
        let none = "Upgrade: SPDY/3.1\r\n";
        for (headers, line) in [(unknown, "403"), (old, "400"), (none, "400")] {
            let (_, head) = upgraded(&bed, &path, headers).await;
            assert!(head.starts_with(&format!("http/1.1 {line} ")), "{headers}: {head}");
        }
    });
}

#[test]
fn exec_by_websocket_moves_streams_and_says_how_it_ended() {
    control::run(async {
        let bed = super::Bed::start();
        let path = "/exec/default/hello/u1/main?command=echo&input=1&output=1";
        let (mut tunnel, head) = upgraded(&bed, path, V5).await;
        assert!(head.starts_with("http/1.1 101 ") && head.contains("\r\nupgrade: websocket\r\n"), "{head}");
        assert!(head.contains("\r\nsec-websocket-protocol: v5.channel.k8s.io\r\n"), "{head}");
        tunnel.write_all(&message(b"\x00hello ")).await.unwrap();
        tunnel.write_all(&[message(b"\x00world"), message(b"\xff\x00")].concat()).await.unwrap();
        let (channels, code) = messages(&mut tunnel).await;
        assert_eq!((channels[&1].as_slice(), code), (&b"hello world"[..], 1000));
        assert_eq!(status(&channels[&3]), json!({"metadata": {}, "status": "Success"}));
        assert!(!channels.contains_key(&2));

        let path = "/exec/default/hello/main?command=exit&command=3&output=1&error=1";
        let (mut tunnel, _) = upgraded(&bed, path, V5).await;
        let (channels, _) = messages(&mut tunnel).await;
        assert_eq!((channels[&1].as_slice(), channels[&2].as_slice()), (&b"out"[..], &b"err"[..]));
        let said = status(&channels[&3]);
        assert_eq!(
            (&said["reason"], &said["details"]["causes"][0]["message"]),
            (&json!("NonZeroExitCode"), &json!("3"))
        );

        // Of old: no Status, and nothing at all where all went well.
        let (mut tunnel, head) = upgraded(&bed, path, SOCKET).await;
        assert!(
            head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=")
                && !head.contains("-protocol"),
            "{head}"
        );
        let (channels, _) = messages(&mut tunnel).await;
        assert_eq!(channels[&3], b"command terminated with non-zero exit code: exit status 3");
        let (mut tunnel, _) = upgraded(&bed, &path.replace('3', "0"), SOCKET).await;
        assert!(!messages(&mut tunnel).await.0.contains_key(&3));

        for (command, code, text) in [("trap", Some("134"), "wasm trap: unreachable\n"), ("none", None, "")] {
            let path = format!("/exec/default/hello/main?command={command}&output=1&error=1");
            let (mut tunnel, _) = upgraded(&bed, &path, V5).await;
            let (channels, _) = messages(&mut tunnel).await;
            let said = status(&channels[&3]);
            assert_eq!(
                said["details"]["causes"][0]["message"].as_str().filter(|_| code.is_some()),
                code,
                "{said}"
            );
            assert_eq!(channels.get(&2).map_or("", |text| std::str::from_utf8(text).unwrap()), text);
            let internal =
                said["reason"] == "InternalError" && said["message"].as_str().unwrap().contains("not found");
            assert_eq!(internal, code.is_none(), "{said}");
        }
    });
}

#[test]
fn a_terminal_is_resized_echoes_and_is_interrupted() {
    control::run(async {
        let bed = super::Bed::start();
        let path = "/exec/default/hello/main?command=size&input=1&output=1&error=1&tty=1";
        let (mut tunnel, _) = upgraded(&bed, path, V5).await;
        let sizes = [message(b"\x04{\"Width\":100,\"Hei"), message(b"\x04ght\":30}\n"), message(b"\x00\n")];
        tunnel.write_all(&sizes.concat()).await.unwrap();
        let (channels, _) = messages(&mut tunnel).await;
        assert_eq!(String::from_utf8_lossy(&channels[&1]), "\r\n100x30");

        let path = path.replace("size", "echo");
        let (mut tunnel, _) = upgraded(&bed, &path, V5).await;
        tunnel.write_all(&[message(b"\x00line\n\x04"), message(b"\xff\x00")].concat()).await.unwrap();
        let (channels, _) = messages(&mut tunnel).await;
        assert_eq!(String::from_utf8_lossy(&channels[&1]), "line\r\nline\r\n");
        assert_eq!(status(&channels[&3])["status"], "Success");

        let (mut tunnel, _) = upgraded(&bed, &path, V5).await;
        tunnel.write_all(&message(b"\x00\x03")).await.unwrap();
        let (channels, _) = messages(&mut tunnel).await;
        assert_eq!(status(&channels[&3])["details"]["causes"][0]["message"], "130");
    });
}

fn control_frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[0x80, 3, 0, kind, 0, 0, 0, u8::try_from(payload.len()).unwrap()][..], payload].concat()
}

/// Opens a stream with these headers, in a zlib stream of stored blocks.
fn syn(id: u8, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0, 0, 0, u8::try_from(headers.len()).unwrap()];
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        block.extend([0, 0, 0, u8::try_from(text.len()).unwrap()]);
        block.extend(text.as_bytes());
    }
    let head: &[u8] = if id == 1 { &[0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2] } else { &[] };
    let len = u8::try_from(block.len()).unwrap();
    let stored = [head, &[0, len, 0, !len, 0xff], &block, &[0, 0, 0, 0xff, 0xff]].concat();
    control_frame(1, &[&[0, 0, 0, id, 0, 0, 0, 0, 0, 0][..], &stored].concat())
}

fn data(id: u8, flags: u8, bytes: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, id, flags, 0, 0, u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
}

/// Data by stream, and control frames by their kind, until the server closes or `enough`.
async fn frames(
    tunnel: &mut super::Tunnel,
    enough: impl Fn(&HashMap<u8, Vec<u8>>, &[u8]) -> bool,
) -> (HashMap<u8, Vec<u8>>, Vec<u8>) {
    let (mut streams, mut kinds) = (HashMap::<u8, Vec<u8>>::new(), Vec::new());
    while !enough(&streams, &kinds) {
        let mut head = [0; 8];
        if tunnel.read_exact(&mut head).await.is_err() {
            break;
        }
        let mut bytes = vec![0; usize::from(u16::from_be_bytes([head[6], head[7]]))];
        tunnel.read_exact(&mut bytes).await.unwrap();
        if head[0] == 0x80 {
            kinds.push(head[3]);
        } else {
            streams.entry(head[3]).or_default().extend(bytes);
        }
    }
    (streams, kinds)
}

#[test]
fn exec_by_spdy_answers_each_stream_and_ends_them_all() {
    control::run(async {
        let bed = super::Bed::start();
        let path = "/exec/default/hello/main?command=echo&input=1&output=1&error=1";
        let (mut tunnel, head) = upgraded(&bed, path, SPDY).await;
        assert!(head.starts_with("http/1.1 101 ") && head.contains("\r\nupgrade: spdy/3.1\r\n"), "{head}");
        assert!(head.contains("\r\nx-stream-protocol-version: v4.channel.k8s.io\r\n"), "{head}");
        for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
            tunnel.write_all(&syn(id, &[("streamtype", kind)])).await.unwrap();
            let mut reply = [0; 8];
            tunnel.read_exact(&mut reply).await.unwrap();
            assert_eq!(reply[..4], [0x80, 3, 0, 2]);
            let mut rest = vec![0; usize::from(reply[7])];
            tunnel.read_exact(&mut rest).await.unwrap();
            assert_eq!(rest[3], id);
        }
        // A stream that nobody waits for here is taken all the same.
        let late = syn(9, &[("streamtype", "resize")]);
        let ping = control_frame(6, &[0, 0, 0, 1]);
        tunnel.write_all(&[data(3, 0, b"hello"), ping, late, data(3, 1, b"")].concat()).await.unwrap();
        let (streams, kinds) = frames(&mut tunnel, |_, _| false).await;
        assert_eq!(streams[&5], b"hello");
        assert_eq!(status(&streams[&1])["status"], "Success");
        // The ping; the late stream; each that was used reset; the end.
        assert_eq!(kinds, [6, 2, 3, 3, 3, 3, 7]);
    });
}

#[test]
fn a_client_that_vanishes_ends_its_instance() {
    control::run(async {
        let bed = super::Bed::start();
        let path = "/exec/default/hello/main?command=echo&input=1&output=1";
        let (mut tunnel, _) = upgraded(&bed, path, V5).await;
        tunnel.write_all(&message(b"\x00x")).await.unwrap();
        let mut some = [0; 7];
        tunnel.read_exact(&mut some).await.unwrap();
        drop(tunnel);
        // All 32 places are free again: as many clients at once find one each, and one more does not.
        let mut clients = Vec::new();
        for _ in 0..crate::server::streams::MAX_SESSIONS {
            let (tunnel, head) = upgraded(&bed, path, V5).await;
            assert!(head.starts_with("http/1.1 101 "), "{head}");
            clients.push(tunnel);
        }
        let (_, head) = upgraded(&bed, path, V5).await;
        assert!(head.starts_with("http/1.1 429 "), "{head}");
    });
}

/// Answers each connection with its bytes, in capitals, until it ends.
fn capitals() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut bytes = [0; 64];
                while let Ok(read @ 1..) = stream.read(&mut bytes) {
                    bytes[..read].make_ascii_uppercase();
                    stream.write_all(&bytes[..read]).unwrap();
                }
            });
        }
    });
    port
}

#[test]
fn ports_are_forwarded_by_spdy() {
    control::run(async {
        let bed = super::Bed::start();
        let (port, path) = (capitals().to_string(), "/portForward/default/hello");
        let (mut tunnel, head) = upgraded(&bed, path, FORWARD).await;
        assert!(head.contains("\r\nx-stream-protocol-version: portforward.k8s.io\r\n"), "{head}");
        let open = |id: u8, port: &str, request: &str| {
            let kind = |kind| [("streamtype", kind), ("port", port), ("requestid", request)];
            [syn(id, &kind("error")), data(id, 1, b""), syn(id + 2, &kind("data"))].concat()
        };
        // Two at once, one of them to a port that nobody listens on, and streams that make no sense.
        let wrong = [
            syn(9, &[("streamtype", "data"), ("port", "80"), ("requestid", "7")]),
            syn(11, &[("streamtype", "error"), ("port", "0"), ("requestid", "8")]),
            syn(13, &[("streamtype", "what"), ("port", "80"), ("requestid", "9")]),
        ];
        let client = [open(1, &port, "0"), open(5, "81", "1"), wrong.concat(), data(3, 0, b"hello")];
        tunnel.write_all(&client.concat()).await.unwrap();
        let (streams, kinds) = frames(&mut tunnel, |streams, kinds| {
            streams.get(&3).is_some_and(|data| data == b"HELLO") && kinds.len() >= 7
        })
        .await;
        assert_eq!(String::from_utf8_lossy(&streams[&5]), "no container listens on port 81");
        assert_eq!(kinds, [2, 2, 2, 2, 3, 3, 3]);
        // The client ends its side: the program sees it, ends its own, and both streams end.
        tunnel.write_all(&data(3, 1, b" again")).await.unwrap();
        let (streams, _) = frames(&mut tunnel, |streams, _| streams.contains_key(&1)).await;
        assert_eq!((streams[&3].as_slice(), streams[&1].as_slice()), (&b" AGAIN"[..], &b""[..]));
    });
}

#[test]
fn ports_are_forwarded_by_the_channels_of_old() {
    control::run(async {
        let bed = super::Bed::start();
        let port = capitals();
        let path = format!("/portForward/default/hello?port={port},81");
        let headers = format!("{SOCKET}Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n");
        let (mut tunnel, _) = upgraded(&bed, &path, &headers).await;
        tunnel.write_all(&message(b"\x00hello")).await.unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"HELLO") {
            let mut byte = [0];
            tunnel.read_exact(&mut byte).await.unwrap();
            said.extend(byte);
        }
        let [low, high] = port.to_le_bytes();
        let first = [0x82, 3, 0, low, high, 0x82, 3, 1, low, high, 0x82, 3, 2, 81, 0, 0x82, 3, 3, 81, 0];
        assert_eq!(said[..first.len()], first);
        assert!(String::from_utf8_lossy(&said).contains("no container listens on port 81"));
    });
}
