//! Appends entries to one run's files, and begins a new file when one is full.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::reader::Position;
use super::segments::Run;
use super::Settings;

/// The file being written, and what comes before and after it.
pub(super) struct Appender {
    run: Run,
    max_size: u64,
    max_files: u64,
    number: u64,
    file: Arc<File>,
    size: u64,
    /// A failed write has left bytes after `size` that could not be cut off.
    torn: bool,
}

impl Appender {
    /// Goes on where an earlier process left the run's log.
    pub fn open(run: Run, settings: &Settings) -> io::Result<Appender> {
        crate::durable::ensure_private_dir(&run.folder)?;
        run.remove_before_previous()?;
        let listing = run.list()?;
        let number = listing.current_number();
        let max_files = u64::from(settings.max_files);
        run.remove_excess(&listing, number, max_files)?;
        let file = Arc::new(open_file(&run, false)?);
        let size = file.metadata()?.len();
        // What an earlier process left may end within an entry.
        let torn = size > 0;
        Ok(Appender { run, max_size: settings.max_size, max_files, number, file, size, torn })
    }

    /// How far the log is written. Everything before it is whole entries.
    pub fn position(&self) -> Position {
        Position { number: self.number, offset: self.size }
    }

    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub fn path(&self) -> PathBuf {
        self.run.current()
    }

    /// Whether so many bytes more than are written belong into a new file.
    pub fn is_full_with(&self, waiting: usize, more: usize) -> bool {
        let size = self.size.saturating_add(waiting as u64);
        size > 0 && size.saturating_add(more as u64) > self.max_size
    }

    /// Appends whole entries, all of them or none.
    pub fn append(&mut self, entries: &[u8]) -> io::Result<()> {
        self.mend()?;
        if self.is_full_with(0, entries.len()) {
            self.rotate()?;
        }
        if let Err(error) = (&*self.file).write_all(entries) {
            self.torn = self.file.set_len(self.size).is_err();
            return Err(error);
        }
        self.size = self.size.saturating_add(entries.len() as u64);
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
        if let Some(oldest) = self.number.checked_sub(self.max_files) {
            crate::durable::remove_if_exists(&self.run.rotated(oldest))?;
        }
        Ok(())
    }
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
#[allow(clippy::unwrap_used)]
impl Appender {
    pub fn reopen(&mut self) {
        self.file = Arc::new(open_file(&self.run, false).unwrap());
    }
}
