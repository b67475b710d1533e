//! Writes one run's log.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use event_listener::Event;

use super::appender::Appender;
use super::reader::Position;
use super::segments::Run;
use super::split::{Moment, Splitter};
use super::waiting::{Waiting, LOG_BUFFER};
use super::{lock, OpenRuns, Settings, Stream};

/// One container's open log. Shared by its two streams; followers hold only what is [`Live`] of it.
pub struct Writer {
    live: Arc<Live>,
    open_runs: Weak<OpenRuns>,
}

/// A log that is being written, as its writer, its readers and the deadline of [`Waiting`] see it.
pub(super) struct Live {
    progress: Mutex<Progress>,
    /// Notified whenever `progress` has changed.
    pub changed: Event,
    /// Readers for which nothing may wait.
    followers: AtomicUsize,
    waiting: Arc<Waiting>,
    inner: Mutex<Inner>,
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
    appender: Appender,
    splitter: Splitter,
    /// Entries that wait, at most [`LOG_BUFFER`] bytes.
    held: Vec<u8>,
    /// [`Waiting`] knows of them.
    listed: bool,
    /// What waited could not be written: from now on every write tries, and says so, until one succeeds.
    failing: bool,
    /// The agent's log says so already.
    told: bool,
    closed: bool,
}

/// As long as it lives, entries do not wait.
pub(super) struct Following(Arc<Live>);

impl Writer {
    pub(super) fn open(
        run: Run,
        settings: &Settings,
        waiting: Arc<Waiting>,
        open_runs: Weak<OpenRuns>,
    ) -> io::Result<Writer> {
        let appender = Appender::open(run, settings)?;
        let progress = Mutex::new(Progress::of(&appender, false));
        let inner = Mutex::new(Inner {
            appender,
            splitter: Splitter::new(settings.rate),
            held: Vec::new(),
            listed: false,
            failing: false,
            told: false,
            closed: false,
        });
        let (changed, followers) = (Event::new(), AtomicUsize::new(0));
        Ok(Writer { live: Arc::new(Live { progress, changed, followers, waiting, inner }), open_runs })
    }

    /// Takes bytes of one stream. Whole lines go to the file as they come, with a time stamp, or wait in
    /// memory for the flush interval if one is set and nobody follows; the rest waits for the end of its
    /// line, or is written as a part of one when it is 16 KiB long. Lines beyond the rate are dropped, and
    /// the log says how many. Any thread may call it; it blocks as long as the kernel takes to copy the
    /// bytes.
    ///
    /// # Errors
    /// What the file system says (ENOSPC, EIO), of these bytes or of those that waited: none of these
    /// are taken then, but for the first part of a call with more than 64 KiB. Nothing that an earlier
    /// call brought is lost: what waited waits on, and is tried again by each call and at each flush.
    pub fn write(&self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        self.write_at(&Moment::now(), stream, bytes)
    }

    pub(super) fn write_at(&self, at: &Moment, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let mut inner = lock(&self.live.inner);
        if inner.closed {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the container's log is closed"));
        }
        let written = inner.take(&self.live, stream, at, bytes);
        self.live.publish(&inner);
        written
    }

    /// Writes out everything, unfinished lines too, and ends every follower. Called when the container
    /// has ended; later calls do nothing.
    pub fn close(&self) {
        let live = &self.live;
        let mut inner = lock(&live.inner);
        if inner.closed {
            return;
        }
        inner.closed = true;
        let last = inner.splitter.end(&Moment::now());
        let lost = inner.held.len().saturating_add(last.len());
        let flushed = inner.flush(live);
        if let Err(error) = flushed.and_then(|()| inner.append(&last)) {
            let path = inner.appender.path();
            ::log::warn!("the last {lost} bytes could not be written to {}: {error}", path.display());
        }
        inner.let_go(live);
        if std::mem::take(&mut inner.listed) {
            live.waiting.unlist(Arc::as_ptr(live));
        }
        live.publish(&inner);
        if let Some(open_runs) = self.open_runs.upgrade() {
            lock(&open_runs).retain(|_, live| !std::ptr::eq(live.as_ptr(), Arc::as_ptr(&self.live)));
        }
    }

    pub(super) fn live(&self) -> &Arc<Live> {
        &self.live
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

    /// Nothing waits any more while the returned value lives. What waits already is for [`Live::flush`].
    pub fn follow(self: &Arc<Self>) -> Following {
        // The flush that follows takes the lock that each write holds, which orders this before it.
        self.followers.fetch_add(1, Ordering::Relaxed);
        Following(self.clone())
    }

    /// Writes out what waits, for a reader. What cannot be written waits on, and is told once. Blocks.
    pub fn flush(&self) {
        self.flush_inner(&mut lock(&self.inner));
    }

    /// As [`Live::flush`], at the deadline; false if it has to be listed for the next one.
    pub fn write_out_listed(&self) -> bool {
        let mut inner = lock(&self.inner);
        self.flush_inner(&mut inner);
        inner.listed = !inner.held.is_empty();
        !inner.listed
    }

    fn flush_inner(&self, inner: &mut Inner) {
        if inner.closed {
            return;
        }
        let missing = inner.splitter.missing(&Moment::now());
        let mut flushed = inner.flush(self);
        if flushed.is_ok() {
            flushed = inner.append(&missing.entries);
        }
        if flushed.is_err() {
            inner.splitter.undo(missing);
        }
        match flushed {
            Ok(()) => inner.told = false,
            Err(error) if !std::mem::replace(&mut inner.told, true) => {
                let (path, bytes) = (inner.appender.path(), inner.held.len());
                ::log::warn!(
                    "cannot write to {}: {error}; its last {bytes} bytes wait in memory and are tried again",
                    path.display()
                );
            }
            Err(_) => {}
        }
        self.publish(inner);
    }

    fn publish(&self, inner: &Inner) {
        let now = Progress::of(&inner.appender, inner.closed);
        {
            let mut progress = lock(&self.progress);
            let closed = progress.closed;
            *progress = now;
            progress.closed |= closed;
        }
        self.changed.notify(usize::MAX);
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.followers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Progress {
    fn of(appender: &Appender, closed: bool) -> Progress {
        let Position { number, offset: size } = appender.position();
        Progress { number, file: appender.file().clone(), size, closed }
    }

    pub fn position(&self) -> Position {
        Position { number: self.number, offset: self.size }
    }
}

impl Inner {
    fn take(&mut self, live: &Arc<Live>, stream: Stream, at: &Moment, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (batch, after) = self.splitter.batch(stream, at, rest);
            if let Err(error) = self.commit(live, &batch.entries) {
                self.splitter.undo(batch);
                return Err(error);
            }
            rest = after;
        }
        Ok(())
    }

    /// Takes whole entries, all of them or none: to wait, or after what waits to the file.
    fn commit(&mut self, live: &Arc<Live>, entries: &[u8]) -> io::Result<()> {
        if entries.is_empty() || self.hold(live, entries) {
            return Ok(());
        }
        self.flush(live)?;
        if self.hold(live, entries) {
            return Ok(());
        }
        self.append(entries)
    }

    /// Has entries wait where they may. A file ends where it would without waiting.
    fn hold(&mut self, live: &Arc<Live>, entries: &[u8]) -> bool {
        let length = self.held.len().saturating_add(entries.len());
        let may_wait = length <= LOG_BUFFER
            && !self.failing
            && live.followers.load(Ordering::Relaxed) == 0
            && !self.appender.is_full_with(self.held.len(), entries.len())
            && live.waiting.reserve(entries.len());
        if may_wait {
            let capacity = length.max(self.held.capacity().saturating_mul(2)).min(LOG_BUFFER);
            self.held.reserve_exact(capacity.saturating_sub(self.held.len()));
            self.held.extend_from_slice(entries);
            if !std::mem::replace(&mut self.listed, true) {
                live.waiting.list(Arc::downgrade(live));
            }
        }
        may_wait
    }

    /// Writes out what waits. Its memory is given back.
    fn flush(&mut self, live: &Live) -> io::Result<()> {
        if !self.held.is_empty() {
            let flushed = self.appender.append(&self.held);
            self.failing = flushed.is_err();
            flushed?;
            self.let_go(live);
        }
        Ok(())
    }

    fn append(&mut self, entries: &[u8]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        self.appender.append(entries)
    }

    fn let_go(&mut self, live: &Live) {
        live.waiting.release(std::mem::take(&mut self.held).len());
    }
}

#[cfg(test)]
impl Writer {
    pub(super) fn unfinished_stdout(&self) -> Vec<u8> {
        lock(&self.live.inner).splitter.unfinished_stdout()
    }

    /// Bytes that wait, and the memory that they take.
    pub(super) fn held(&self) -> (usize, usize) {
        let inner = lock(&self.live.inner);
        (inner.held.len(), inner.held.capacity())
    }

    /// As if the medium under the log's path had been exchanged.
    pub(super) fn reopen(&self) {
        lock(&self.live.inner).appender.reopen();
    }
}
