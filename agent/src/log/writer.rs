//! Writes one run's log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, Weak};

use event_listener::Event;

use super::line::{self, MAX_CONTENT};
use super::segments::Run;
use super::{lock, OpenRuns, Stream, MAX_FILES};
use crate::durable::clock::Now;

/// Entries are handed to the kernel in pieces of about this many bytes, however much a guest prints
/// in one call: memory stays bounded, and a host call works in chunks of at most 64 KiB.
const BATCH: usize = 64 * 1024;

/// One container's open log. Shared by its two streams; followers hold only its progress.
pub struct Writer {
    live: Arc<Live>,
    inner: Mutex<Inner>,
    open_runs: Weak<OpenRuns>,
}

/// What followers see of a log that is being written.
pub(super) struct Live {
    progress: Mutex<Progress>,
    /// Notified whenever `progress` has changed.
    pub changed: Event,
}

/// How far the log is written. Everything before `size` is whole entries.
#[derive(Clone)]
pub(super) struct Progress {
    /// The number of the file being written.
    pub number: u64,
    /// That file: followers read through it, so its renaming does not matter to them.
    pub file: Arc<File>,
    /// Bytes of it that are committed.
    pub size: u64,
    /// Nothing will be added any more.
    pub closed: bool,
}

struct Inner {
    run: Run,
    max_file: u64,
    number: u64,
    file: Arc<File>,
    size: u64,
    /// A failed write has left bytes after `size` that could not be cut off.
    torn: bool,
    closed: bool,
    /// Lines that have no end yet, one for each stream; at most [`MAX_CONTENT`] bytes each.
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Writer {
    pub(super) fn open(run: Run, max_file: u64, open_runs: Weak<OpenRuns>) -> io::Result<Writer> {
        crate::durable::ensure_private_dir(&run.folder)?;
        run.remove_before_previous()?;
        let listing = run.list()?;
        let number = listing.current_number();
        run.remove_excess(&listing, number)?;
        let file = Arc::new(open_file(&run, false)?);
        let size = file.metadata()?.len();
        let progress = Progress { number, file: file.clone(), size, closed: false };
        let live = Arc::new(Live { progress: Mutex::new(progress), changed: Event::new() });
        // What an earlier process left may end within an entry.
        let torn = size > 0;
        let (stdout, stderr) = (Vec::new(), Vec::new());
        let inner =
            Mutex::new(Inner { run, max_file, number, file, size, torn, closed: false, stdout, stderr });
        Ok(Writer { live, inner, open_runs })
    }

    /// Takes bytes of one stream. Whole lines go to the file as they come, with a time stamp; the rest
    /// waits for the end of its line, or is written as a part of one when it is 16 KiB long. Any thread
    /// may call it; it blocks as long as the kernel takes to copy the bytes.
    ///
    /// # Errors
    /// What the file system says (ENOSPC, EIO). Of a call with more than 64 KiB, a first part may
    /// have been written then. Nothing that an earlier call brought is lost.
    pub fn write(&self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let mut inner = lock(&self.inner);
        if inner.closed {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the container's log is closed"));
        }
        let written = inner.take(stream, &stamp(), bytes);
        self.publish(&inner);
        written
    }

    /// Writes out unfinished lines and ends every follower. Called when the container has ended;
    /// later calls do nothing.
    pub fn close(&self) {
        let mut inner = lock(&self.inner);
        if inner.closed {
            return;
        }
        inner.closed = true;
        if let Err(error) = inner.flush_unfinished(&stamp()) {
            let path = inner.run.current();
            ::log::warn!("the last, unfinished line could not be written to {}: {error}", path.display());
        }
        self.publish(&inner);
        if let Some(open_runs) = self.open_runs.upgrade() {
            lock(&open_runs).retain(|_, live| !std::ptr::eq(live.as_ptr(), Arc::as_ptr(&self.live)));
        }
    }

    pub(super) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    fn publish(&self, inner: &Inner) {
        let now = Progress {
            number: inner.number,
            file: inner.file.clone(),
            size: inner.size,
            closed: inner.closed,
        };
        {
            let mut progress = lock(&self.live.progress);
            let closed = progress.closed;
            *progress = now;
            progress.closed |= closed;
        }
        self.live.changed.notify(usize::MAX);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

impl Live {
    pub fn progress(&self) -> Progress {
        lock(&self.progress).clone()
    }

    /// Ends every follower, as when the pod is removed.
    pub fn end(&self) {
        lock(&self.progress).closed = true;
        self.changed.notify(usize::MAX);
    }
}

impl Inner {
    fn take(&mut self, stream: Stream, stamp: &str, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut unfinished = std::mem::take(self.unfinished(stream));
            let before = unfinished.len();
            let mut batch = Vec::new();
            while !rest.is_empty() && batch.len() < BATCH {
                rest = add(&mut batch, &mut unfinished, stream, stamp, rest);
            }
            let committed = if batch.is_empty() { Ok(()) } else { self.commit(&batch) };
            if committed.is_err() && !batch.is_empty() {
                // The first entry of the batch began with what was waiting before.
                let start = line::HEADER;
                unfinished = batch.get(start..start + before).unwrap_or_default().to_vec();
            }
            *self.unfinished(stream) = unfinished;
            committed?;
        }
        Ok(())
    }

    fn flush_unfinished(&mut self, stamp: &str) -> io::Result<()> {
        let mut batch = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let unfinished = std::mem::take(self.unfinished(stream));
            if !unfinished.is_empty() {
                line::push(&mut batch, stamp, stream, true, [&unfinished, b""]);
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.commit(&batch)
    }

    fn unfinished(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Appends whole entries, all of them or none.
    fn commit(&mut self, batch: &[u8]) -> io::Result<()> {
        self.mend()?;
        let length = batch.len() as u64;
        if self.size > 0 && self.size.saturating_add(length) > self.max_file {
            self.rotate()?;
        }
        if let Err(error) = (&*self.file).write_all(batch) {
            self.torn = self.file.set_len(self.size).is_err();
            return Err(error);
        }
        self.size = self.size.saturating_add(length);
        Ok(())
    }

    /// Ends what may be half an entry with a line feed, so that it spoils nothing but itself.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            let size = self.file.metadata()?.len();
            let mut last = [b'\n'];
            if let Some(at) = size.checked_sub(1) {
                std::os::unix::fs::FileExt::read_exact_at(&*self.file, &mut last, at)?;
            }
            if last != [b'\n'] {
                (&*self.file).write_all(b"\n")?;
            }
            self.size = self.file.metadata()?.len();
            self.torn = false;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let (current, full) = (self.run.current(), self.run.rotated(self.number));
        fs::rename(&current, &full)?;
        let file = open_file(&self.run, true).inspect_err(|_| {
            // The log goes on in the old file then; it is tried again with the next line.
            let _ = fs::rename(&full, &current);
        })?;
        self.file = Arc::new(file);
        self.size = 0;
        self.number = self.number.saturating_add(1);
        if let Some(oldest) = self.number.checked_sub(MAX_FILES) {
            crate::durable::remove_if_exists(&self.run.rotated(oldest))?;
        }
        Ok(())
    }
}

/// Moves one line, or as much of it as one entry holds, from `rest` to `batch`, or the start of one
/// to `unfinished`; returns what remains.
fn add<'a>(
    batch: &mut Vec<u8>,
    unfinished: &mut Vec<u8>,
    stream: Stream,
    stamp: &str,
    rest: &'a [u8],
) -> &'a [u8] {
    let room = MAX_CONTENT.saturating_sub(unfinished.len());
    let window = rest.get(..=room).unwrap_or(rest);
    let end = window.iter().position(|byte| *byte == b'\n');
    let Some((content, after)) =
        rest.split_at_checked(end.unwrap_or(room)).filter(|(_, after)| !after.is_empty())
    else {
        unfinished.extend_from_slice(rest);
        return &[];
    };
    line::push(batch, stamp, stream, end.is_none(), [unfinished, content]);
    // Given back to the allocator: a thousand silent pods should hold no buffers.
    *unfinished = Vec::new();
    after.get(usize::from(end.is_some())..).unwrap_or_default()
}

fn stamp() -> String {
    line::stamp(Now::read().wall).unwrap_or_else(|| "1970-01-01T00:00:00.000000000Z".to_owned())
}

/// Readable by the owner alone, as everything under the data folder.
fn open_file(run: &Run, new: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(0o600);
    if new {
        options.create_new(true)
    } else {
        options.create(true)
    };
    options.open(run.current())
}

#[cfg(test)]
impl Writer {
    pub(super) fn unfinished_stdout(&self) -> Vec<u8> {
        lock(&self.inner).stdout.clone()
    }
}
