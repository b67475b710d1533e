//! The files of one run's log.
//!
//! Each file of a run has a number, counting from 1, that stays its own: the one being written is
//! `<restart>.log`, and once it is full `<restart>.log.<number>`. So a follower that has read number 3
//! knows that number 4 comes next, whatever has been renamed or removed since.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where one run's files are.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// The container's folder.
    pub folder: PathBuf,
    /// Which run of the container: how often it had been restarted.
    pub restart: u32,
}

/// A run's files as a folder listing shows them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// The numbers of the full files, ascending.
    pub rotated: Vec<u64>,
    /// Whether the file being written is there.
    pub current: bool,
}

impl Run {
    pub fn current(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.restart))
    }

    pub fn rotated(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{}.log.{number}", self.restart))
    }

    pub fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for (restart, number, _) in files(&self.folder)? {
            match number {
                _ if restart != self.restart => {}
                None => listing.current = true,
                Some(number) => listing.rotated.push(number),
            }
        }
        listing.rotated.sort_unstable();
        Ok(listing)
    }

    /// Removes the files of runs before the previous one: `kubectl logs --previous` reaches no further.
    pub fn remove_before_previous(&self) -> io::Result<()> {
        let files = files(&self.folder)?;
        let previous = files.iter().map(|(restart, ..)| *restart).filter(|r| *r < self.restart).max();
        for (restart, _, path) in files {
            if previous.is_some_and(|previous| restart < previous) {
                crate::durable::remove_if_exists(&path)?;
            }
        }
        Ok(())
    }

    /// Removes full files so that, with number `current` as the one being written, `keep` stay.
    pub fn remove_excess(&self, listing: &Listing, current: u64, keep: u64) -> io::Result<()> {
        for number in listing.rotated.iter().filter(|n| n.saturating_add(keep) <= current) {
            crate::durable::remove_if_exists(&self.rotated(*number))?;
        }
        Ok(())
    }
}

impl Listing {
    /// The number of the file being written, or that would be.
    pub fn current_number(&self) -> u64 {
        self.rotated.last().copied().unwrap_or(0).saturating_add(1)
    }
}

/// Every log file of a container: its run, its number if it is full, its path.
fn files(folder: &Path) -> io::Result<Vec<(u32, Option<u64>, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let (name, number) = match name.rsplit_once(".log.") {
            Some((name, number)) => (name, number.parse().ok().map(Some)),
            None => (name.strip_suffix(".log").unwrap_or_default(), Some(None)),
        };
        if let (Ok(restart), Some(number)) = (name.parse(), number) {
            files.push((restart, number, path));
        }
    }
    Ok(files)
}
