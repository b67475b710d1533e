//! A registry's stand-in for tests: answers HTTP/1.1 on a loopback port as a function says, and
//! remembers what it was asked.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::digest::Digest;

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// What is answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// The connection breaks after so many bytes of the body.
    pub(super) cut: Option<usize>,
}

impl Answer {
    pub(super) fn status(status: u16) -> Answer {
        Answer { status, ..Answer::default() }
    }

    pub(super) fn ok(body: impl Into<Vec<u8>>) -> Answer {
        Answer { status: 200, body: body.into(), ..Answer::default() }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.headers.push((name, value.into()));
        self
    }
}

pub(super) struct StandIn {
    /// `127.0.0.1:port`.
    pub(super) authority: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl StandIn {
    pub(super) fn start(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> StandIn {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (Arc::clone(&seen), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                thread::spawn(move || serve(&stream, &kept, answer.as_ref()));
            }
        });
        StandIn { authority, seen }
    }

    /// Every request so far but the questions for `/v2/`.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.target != "/v2/").cloned().collect()
    }

    /// `METHOD path` of them.
    pub(super) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(|seen| format!("{} {}", seen.method, seen.path())).collect()
    }
}

fn serve(stream: &TcpStream, kept: &Mutex<Vec<Seen>>, answer: &dyn Fn(&Seen) -> Answer) {
    let mut reader = BufReader::new(stream);
    let Some(request) = read(&mut reader) else {
        // What Go's server says to a TLS handshake.
        let _ = (&*stream).write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
        return;
    };
    let answer = answer(&request);
    let head_only = request.method == "HEAD";
    kept.lock().unwrap().push(request);
    let mut head = format!("HTTP/1.1 {} Said\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("Connection: close\r\n\r\n");
    let _ = (&*stream).write_all(head.as_bytes());
    if !head_only {
        let body = answer.body.get(..answer.cut.unwrap_or(usize::MAX)).unwrap_or(&answer.body);
        let _ = (&*stream).write_all(body);
    }
}

fn read(reader: &mut impl BufRead) -> Option<Seen> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok()?;
    let line = String::from_utf8(line).ok()?;
    let mut words = line.split_whitespace();
    let mut seen = Seen { method: words.next()?.into(), target: words.next()?.into(), ..Seen::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        seen.headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length: u64 = seen.header("content-length").parse().unwrap_or(0);
    reader.take(length).read_to_end(&mut seen.body).ok()?;
    Some(seen)
}

/// What a registry holds of one repository, by the last part of the path.
#[derive(Clone, Default)]
pub(super) struct Repository {
    pub(super) manifests: BTreeMap<String, Answer>,
    pub(super) blobs: BTreeMap<String, Answer>,
}

impl Repository {
    /// Puts a manifest under a tag and its digest.
    pub(super) fn manifest(&mut self, tag: &str, media_type: &str, text: &str) -> Digest {
        let digest = Digest::of(text.as_bytes());
        let answer = Answer::ok(text)
            .with("Content-Type", media_type)
            .with("Docker-Content-Digest", digest.to_string());
        self.manifests.insert(tag.into(), answer.clone());
        self.manifests.insert(digest.to_string(), answer);
        digest
    }

    pub(super) fn blob(&mut self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.blobs.insert(digest.to_string(), Answer::ok(bytes));
        digest
    }

    pub(super) fn answer(&self, request: &Seen) -> Answer {
        let Some((rest, name)) = request.path().rsplit_once('/') else { return Answer::status(404) };
        let found = match rest {
            _ if request.path() == "/v2/" => Some(Answer::ok("{}")),
            rest if rest.ends_with("/manifests") => self.manifests.get(name).cloned(),
            rest if rest.ends_with("/blobs") => self.blobs.get(name).cloned(),
            _ => None,
        };
        let unknown = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        let mut missing = Answer::status(404);
        missing.body = unknown.into();
        found.unwrap_or(missing)
    }
}
