//! Makes entries of what a container prints.

use std::time::Duration;

use super::line::{self, HEADER, MAX_CONTENT};
use super::rate::{Rate, Verdict};
use super::Stream;
use crate::durable::clock::Now;

/// Entries are handed on in pieces of about this many bytes, however much a guest prints in one call:
/// memory stays bounded, and a host call works in chunks of at most 64 KiB.
const BATCH: usize = 64 * 1024;

/// When something was printed.
pub(super) struct Moment {
    stamp: String,
    mono: Duration,
}

/// What one container has printed and its log does not have yet: the starts of lines, one for each
/// stream, of at most [`MAX_CONTENT`] bytes.
pub(super) struct Splitter {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    rate: Option<Rate>,
}

/// Whole entries, none of them written yet.
pub(super) struct Batch {
    pub entries: Vec<u8>,
    /// How the splitter was before.
    rate: Option<Rate>,
    unfinished: Option<(Stream, Vec<u8>)>,
}

impl Splitter {
    /// `rate` in bytes a second; 0 for no limit.
    pub fn new(rate: u64) -> Splitter {
        Splitter { stdout: Vec::new(), stderr: Vec::new(), rate: Rate::new(rate) }
    }

    /// Makes entries of the first of `bytes`; returns what remains of them.
    pub fn batch<'a>(&mut self, stream: Stream, at: &Moment, bytes: &'a [u8]) -> (Batch, &'a [u8]) {
        let mut batch = Batch { entries: Vec::new(), rate: self.rate.clone(), unfinished: None };
        let mut rest = bytes;
        while !rest.is_empty() && batch.entries.len() < BATCH {
            rest = self.add(&mut batch, stream, at, rest);
        }
        (batch, rest)
    }

    /// Goes back to where it was before a batch that could not be written.
    pub fn undo(&mut self, batch: Batch) {
        self.rate = batch.rate;
        if let Some((stream, before)) = batch.unfinished {
            *self.unfinished(stream) = before;
        }
    }

    /// An entry that tells what was dropped, when something was and it may be written now.
    pub fn missing(&mut self, at: &Moment) -> Batch {
        let mut batch = Batch { entries: Vec::new(), rate: self.rate.clone(), unfinished: None };
        if let Some(rate) = &mut self.rate {
            if rate.is_between_lines() && rate.allows(at.mono) {
                tell(&mut batch.entries, rate, at, Stream::Stderr);
            }
        }
        batch
    }

    /// The last entries: what was dropped, and the lines that have no end.
    pub fn end(&mut self, at: &Moment) -> Vec<u8> {
        let mut lines = Vec::new();
        // On a stream that is not in the middle of a line, of which a first part is written already.
        let free = |rate: &Rate| [Stream::Stderr, Stream::Stdout].into_iter().find(|s| rate.is_at_start(*s));
        let between = self.rate.as_ref().and_then(free).unwrap_or(Stream::Stderr);
        for stream in [Stream::Stdout, Stream::Stderr] {
            let unfinished = std::mem::take(self.unfinished(stream));
            // The last words of a container are taken, whatever the rate, unless their line was not.
            let dropped = self.rate.as_mut().is_some_and(|rate| rate.drops_rest(stream, unfinished.len()));
            if !unfinished.is_empty() && !dropped {
                line::push(&mut lines, &at.stamp, stream, true, [&unfinished, b""]);
            }
        }
        let mut entries = Vec::new();
        if let Some(rate) = &mut self.rate {
            tell(&mut entries, rate, at, between);
        }
        entries.append(&mut lines);
        entries
    }

    /// Moves one line, or as much of it as one entry holds, to `batch`, or the start of one to what is
    /// unfinished; returns what remains.
    fn add<'a>(&mut self, batch: &mut Batch, stream: Stream, at: &Moment, rest: &'a [u8]) -> &'a [u8] {
        let unfinished = self.unfinished(stream);
        let room = MAX_CONTENT.saturating_sub(unfinished.len());
        let window = rest.get(..=room).unwrap_or(rest);
        let end = window.iter().position(|byte| *byte == b'\n');
        let Some((content, after)) =
            rest.split_at_checked(end.unwrap_or(room)).filter(|(_, after)| !after.is_empty())
        else {
            unfinished.extend_from_slice(rest);
            return &[];
        };
        // Given back to the allocator: a thousand silent pods should hold no buffers.
        let head = std::mem::take(unfinished);
        self.put(&mut batch.entries, stream, at, end.is_none(), [&head, content]);
        batch.unfinished.get_or_insert((stream, head));
        after.get(usize::from(end.is_some())..).unwrap_or_default()
    }

    fn put(&mut self, to: &mut Vec<u8>, stream: Stream, at: &Moment, partial: bool, content: [&[u8]; 2]) {
        if let Some(rate) = &mut self.rate {
            let [head, tail] = content;
            let length = head.len().saturating_add(tail.len());
            let size = length.saturating_add(HEADER).saturating_add(1);
            match rate.judge(at.mono, stream, partial, length, size) {
                // On the stream of the line that begins: the other may be in the middle of one.
                Verdict::Take { begins: true } => tell(to, rate, at, stream),
                Verdict::Take { begins: false } => {}
                Verdict::Drop => return,
                Verdict::EndLine => return line::push(to, &at.stamp, stream, false, [b"", b""]),
            }
        }
        line::push(to, &at.stamp, stream, partial, content);
    }

    fn unfinished(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// Appends an entry of the log's own about what is missing from it.
fn tell(to: &mut Vec<u8>, rate: &mut Rate, at: &Moment, stream: Stream) {
    let Some(dropped) = rate.take_dropped() else { return };
    let text = format!(
        "copepod: {} line(s), {} byte(s) are missing here: more than {} bytes a second (--log-rate)",
        dropped.lines,
        dropped.bytes,
        rate.per_second()
    );
    line::push(to, &at.stamp, stream, false, [text.as_bytes(), b""]);
    rate.charge(at.mono, text.len().saturating_add(HEADER).saturating_add(1));
}

impl Moment {
    pub fn now() -> Moment {
        Moment::from(&Now::read())
    }
}

impl From<&Now> for Moment {
    fn from(now: &Now) -> Moment {
        let stamp = line::stamp(now.wall).unwrap_or_else(|| "1970-01-01T00:00:00.000000000Z".to_owned());
        Moment { stamp, mono: now.mono }
    }
}

#[cfg(test)]
impl Splitter {
    pub fn unfinished_stdout(&self) -> Vec<u8> {
        self.stdout.clone()
    }
}
