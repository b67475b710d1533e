//! Reads one run's log with the options of `kubectl logs`, and follows it while it is written.

use std::fs::{self, File};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_lite::{future, stream, Stream};
use jiff::Timestamp;

use super::line::{self, Entry, MAX_ENTRY};
use super::page_cache::read_at;
use super::segments::Run;
use super::tail;
use super::writer::{Following, Live, Progress};
use crate::control;

/// Bytes read at a time: what one reader costs, about twice. Larger than any entry.
pub(super) const CHUNK: usize = 32 * 1024;
const _: () = assert!(CHUNK > MAX_ENTRY, "an entry must fit into a chunk");

/// What to read: core/v1 PodLogOptions. `since` and `tail` choose the entries, then `limit` cuts what
/// is made of them.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// Wait for more until the container has ended.
    pub follow: bool,
    /// Only entries of this time or later.
    pub since: Option<Timestamp>,
    /// Only the last lines, that many, over all files of the run. A line in several parts is one.
    pub tail: Option<u64>,
    /// Each line begins with its time: nine digits, UTC, a blank.
    pub timestamps: bool,
    /// Bytes of output at most, times included.
    pub limit: Option<u64>,
}

/// A place in a run's log: file number, and bytes into that file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub number: u64,
    pub offset: u64,
}

/// A log being read. Holds no buffer while it waits.
pub struct Reader {
    pub(super) files: Files,
    position: Position,
    follow: bool,
    /// Keeps the writer from having entries wait.
    _following: Option<Following>,
    since: Option<String>,
    timestamps: bool,
    /// Bytes that may still be given out.
    remaining: u64,
    /// The next entry begins a line.
    new_line: bool,
    /// Within something that is longer than any entry, and so none.
    in_garbage: bool,
    done: bool,
}

/// Where the bytes come from.
pub(super) struct Files {
    run: Run,
    /// The writer's progress, when it is in this process.
    live: Option<Arc<Live>>,
    /// The oldest file that was there at the start.
    pub first: u64,
    /// Where the log ended at the start.
    pub end: Position,
    /// `<restart>.log` is this number, when nobody writes.
    current: u64,
    open: Option<(u64, Arc<File>)>,
}

impl Reader {
    pub(super) async fn open(run: Run, live: Option<Arc<Live>>, options: ReadOptions) -> io::Result<Reader> {
        let following = live.as_ref().filter(|_| options.follow).map(Live::follow);
        let mut files = Files::open(run, live).await?;
        let position = match options.tail {
            Some(lines) => tail::locate(&mut files, lines).await?,
            None => Position { number: files.first, offset: 0 },
        };
        Ok(Reader {
            files,
            position,
            follow: options.follow,
            _following: following,
            // Before 1970 nothing was logged.
            since: options.since.filter(|since| *since > Timestamp::UNIX_EPOCH).and_then(line::stamp),
            timestamps: options.timestamps,
            remaining: options.limit.unwrap_or(u64::MAX),
            new_line: true,
            in_garbage: false,
            done: options.limit == Some(0),
        })
    }

    /// The next piece of output, none of it empty, or nothing at the end. When following, that is
    /// when the writer has closed the log and everything has been given out.
    ///
    /// # Errors
    /// What the file system says; the reading is over then.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        while !self.done {
            // A long log in the page cache lets the rest of the control thread have its turn.
            future::yield_now().await;
            match self.step().await {
                Ok(output) if output.is_empty() => {}
                Ok(output) => return Some(Ok(output.into())),
                Err(error) => {
                    self.done = true;
                    let path = self.files.run.current();
                    return Some(Err(super::named(&path, "read", error)));
                }
            }
        }
        None
    }

    /// The rest of the log as a stream.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        stream::unfold(self, |mut reader| async move { reader.next().await.map(|piece| (piece, reader)) })
    }

    /// Reads one chunk, or goes on to the next file, or waits.
    async fn step(&mut self) -> io::Result<Vec<u8>> {
        let now = self.files.live.as_ref().filter(|_| self.follow).map(|live| live.progress());
        let end = now.as_ref().map_or(self.files.end, Progress::position);
        let limit = match self.files.get(self.position.number).await? {
            None => self.position.offset,
            Some(_) if self.position.number == end.number => end.offset,
            Some(file) => file.metadata()?.len(),
        };
        let length = usize::try_from(limit.saturating_sub(self.position.offset)).unwrap_or(CHUNK).min(CHUNK);
        if length > 0 {
            if let Some(file) = self.files.get(self.position.number).await? {
                let chunk = read_at(&file, self.position.offset, length).await?;
                let at_end = self.position.offset.saturating_add(length as u64) >= limit;
                return Ok(self.take(&chunk, at_end));
            }
        }
        match now {
            _ if self.position.number < end.number => {
                self.position = Position { number: self.position.number.saturating_add(1), offset: 0 };
                self.in_garbage = false;
            }
            Some(now) if !now.closed => self.files.wait_beyond(&now).await,
            _ => self.done = true,
        }
        Ok(Vec::new())
    }

    /// Makes output of the whole entries in `chunk` and steps over them. At the end of a file, what
    /// is not whole counts as it is.
    fn take(&mut self, chunk: &[u8], at_end: bool) -> Vec<u8> {
        let mut output = Vec::new();
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let Some((entry, after)) = rest.split_at_checked(end) else { break };
            self.put(entry, true, &mut output);
            rest = after.get(1..).unwrap_or_default();
        }
        if at_end || chunk.is_empty() {
            self.put(rest, false, &mut output);
            rest = &[];
        } else if rest.len() == chunk.len() {
            self.in_garbage = true;
            rest = &[];
        }
        // A file that is shorter than it was (somebody cut it) is at its end, not to be asked for ever.
        let read = if chunk.is_empty() { CHUNK } else { chunk.len().saturating_sub(rest.len()) };
        self.position.offset = self.position.offset.saturating_add(read as u64);
        output
    }

    fn put(&mut self, entry: &[u8], whole: bool, output: &mut Vec<u8>) {
        if std::mem::take(&mut self.in_garbage) || self.done {
            return;
        }
        let Some(Entry { stamp, partial, content }) = line::parse(entry) else { return };
        let begins = std::mem::replace(&mut self.new_line, !partial);
        if self.since.as_ref().is_some_and(|since| stamp < since.as_bytes()) {
            return;
        }
        let time: [&[u8]; 2] = if self.timestamps && begins { [stamp, b" "] } else { [b"", b""] };
        let feed: &[u8] = if partial || !whole { b"" } else { b"\n" };
        for part in [time.as_slice(), &[content, feed]].concat() {
            let fits = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(part.len());
            output.extend_from_slice(part.get(..fits).unwrap_or_default());
            self.remaining = self.remaining.saturating_sub(fits as u64);
        }
        self.done = self.remaining == 0;
    }
}

impl Files {
    async fn open(run: Run, live: Option<Arc<Live>>) -> io::Result<Files> {
        let (of, writer) = (run.clone(), live.clone());
        let (listing, size) = control::blocking(move || {
            // Everything printed so far is to be seen.
            if let Some(live) = &writer {
                live.flush();
            }
            let listing = of.list()?;
            // A writer knows it, and may be renaming the file.
            let size =
                if listing.current && writer.is_none() { fs::metadata(of.current())?.len() } else { 0 };
            Ok::<_, io::Error>((listing, size))
        })
        .await?;
        // A rotation on the way may have hidden the file that a writer has open.
        if live.is_none() && !listing.current && listing.rotated.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let current = listing.current_number();
        let end = live
            .as_ref()
            .map_or(Position { number: current, offset: size }, |live| live.progress().position());
        // Not `end`'s: the writer may have rotated since the listing, and what is gone is passed over.
        let first = listing.rotated.first().copied().unwrap_or(current).min(end.number);
        Ok(Files { run, live, first, end, current, open: None })
    }

    /// The file of that number; nothing when it has been removed.
    pub async fn get(&mut self, number: u64) -> io::Result<Option<Arc<File>>> {
        if let Some((_, file)) = self.open.as_ref().filter(|(open, _)| *open == number) {
            return Ok(Some(file.clone()));
        }
        self.open = None;
        let written = self.live.as_ref().map(|live| live.progress());
        let file = match written {
            Some(progress) if progress.number == number => progress.file,
            other => {
                let is_current = other.is_none() && number == self.current;
                let path = if is_current { self.run.current() } else { self.run.rotated(number) };
                match control::blocking(move || File::open(path)).await {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    file => Arc::new(file?),
                }
            }
        };
        self.open = Some((number, file.clone()));
        Ok(Some(file))
    }

    /// Waits until the writer is further than `seen`, or closed.
    async fn wait_beyond(&self, seen: &Progress) {
        if let Some(live) = &self.live {
            let changed = live.changed.listen();
            let now = live.progress();
            if now.position() == seen.position() && !now.closed {
                changed.await;
            }
        }
    }
}
