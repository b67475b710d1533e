//! Removes images that no pod of this node has (`pkg/kubelet/images/image_gc_manager.go`): when the disk is fuller
//! than a threshold, and when an image that is to be pulled finds no room.
//!
//! Those go first whose last use is the longest ago; of those that nobody has used in this life of the agent, the
//! first that was pulled. An image without a name (what a power cut left of a pull) goes before all others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, TryLockError};
use std::time::{Duration, SystemTime};

use super::digest::{Algorithm, Digest};
use super::reference::Reference;
use super::store::{at, load_record, Record, Store, FILES_OF, MAX_RECORDS};
use crate::durable::{self, clock::Now};

/// Names whose last use is remembered; beyond that only those in use are.
const MAX_REMEMBERED: usize = 1024;

/// How full the disk may be, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// From here on images are removed; at 100 none is.
    pub high: u8,
    /// Until it is no fuller than this.
    pub low: u8,
}

/// The file system that the store is on, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) capacity: u64,
    pub(super) available: u64,
}

impl Room {
    /// How full it is, in percent, rounded up as a kubelet does.
    fn used(self) -> u64 {
        let free = u128::from(self.available) * 100 / u128::from(self.capacity.max(1));
        100_u64.saturating_sub(u64::try_from(free).unwrap_or(100))
    }

    /// What has to go of it.
    fn surplus(self, thresholds: Thresholds) -> u64 {
        if thresholds.high >= 100 || self.used() < u64::from(thresholds.high) {
            return 0;
        }
        let free = 100_u64.saturating_sub(u64::from(thresholds.low));
        let free = u128::from(self.capacity) * u128::from(free) / 100;
        u64::try_from(free).unwrap_or(u64::MAX).saturating_sub(self.available)
    }
}

/// The images that pods have.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct InUse {
    names: BTreeSet<String>,
    /// Folders of files that are mounted: of an image that has lost its name to a newer one, perhaps.
    folders: BTreeSet<PathBuf>,
}

impl InUse {
    /// A pod names this image.
    pub fn name(&mut self, reference: &Reference) {
        self.names.insert(reference.key());
    }

    /// A pod mounts this folder.
    pub fn folder(&mut self, folder: PathBuf) {
        self.folders.insert(folder);
    }
}

/// Tells which images pods have; nothing while that is not known.
pub type Users = Box<dyn Fn() -> Option<InUse> + Send + Sync>;

/// What a look at the disk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collected {
    /// It is not known which images pods have, or a pull goes on, which makes its own room.
    NotNow,
    /// There is room.
    Enough,
    /// These bytes had to go, and those did.
    Removed {
        /// What was to go.
        wanted: u64,
        /// What went.
        freed: u64,
        /// How full the disk was, in percent.
        used: u64,
    },
}

/// What the store has under one digest.
struct Stored {
    /// The module's file, or the folder of an image's files; it may be missing.
    place: PathBuf,
    /// The records that lead there.
    records: Vec<PathBuf>,
    /// The names under which pods know it.
    names: BTreeSet<String>,
    /// Bytes of it.
    size: u64,
    /// When the youngest of its records was written.
    filed: SystemTime,
}

impl Store {
    /// From now on `users` says which images must stay. Before that none is removed.
    pub fn keep_for(&self, users: Users) {
        // Said once.
        let _ = self.inner.users.set(users);
    }

    /// Removes what no pod has, as far as the disk is fuller than it should be. Blocks.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub fn collect(&self, thresholds: Thresholds) -> io::Result<Collected> {
        let Some(in_use) = self.in_use(Now::read().mono) else { return Ok(Collected::NotNow) };
        let room = self.room()?;
        let wanted = room.surplus(thresholds);
        if wanted == 0 {
            return Ok(Collected::Enough);
        }
        let _alone = match self.inner.pulling.try_lock() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(Collected::NotNow),
        };
        let freed = self.free(&in_use, wanted)?;
        Ok(Collected::Removed { wanted, freed, used: room.used() })
    }

    /// Removes as many bytes, if there are so many that no pod has: for the pull that goes on.
    pub(super) fn make_room(&self, wanted: u64) -> io::Result<u64> {
        self.in_use(Now::read().mono).map_or(Ok(0), |in_use| self.free(&in_use, wanted))
    }

    /// The images that pods have, now the youngest in use.
    fn in_use(&self, now: Duration) -> Option<InUse> {
        let in_use = self.inner.users.get()?()?;
        let mut last = self.inner.last_used.lock().unwrap_or_else(PoisonError::into_inner);
        last.extend(in_use.names.iter().map(|name| (name.clone(), now)));
        if last.len() > MAX_REMEMBERED {
            last.retain(|name, _| in_use.names.contains(name));
        }
        Some(in_use)
    }

    /// Removes what nobody uses until `wanted` bytes are gone; how many are. No pull may run meanwhile but the caller.
    fn free(&self, in_use: &InUse, wanted: u64) -> io::Result<u64> {
        let stored = self.stored(in_use)?;
        let mut freed = self.remove_nameless(&stored, in_use)?;
        let last = self.inner.last_used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let used = |one: &Stored| one.names.iter().filter_map(|name| last.get(name)).max().copied();
        let is_free =
            |one: &&Stored| !in_use.folders.contains(&one.place) && one.names.is_disjoint(&in_use.names);
        let mut unused: Vec<&Stored> = stored.values().filter(is_free).collect();
        unused.sort_by_key(|one| (used(one), one.filed));
        for one in unused {
            if freed >= wanted {
                break;
            }
            let name = one.names.iter().find(|name| !name.contains('@')).or(one.names.first());
            log::info!(
                "image {} is removed: no pod here has it, and its {} bytes are needed",
                name.map_or("", String::as_str),
                one.size
            );
            // Before its records: a record without it counts as absent, while it would be nobody's without them.
            self.remove_place(&one.place)?;
            for record in &one.records {
                durable::remove_if_exists(record).map_err(|e| at(record, e))?;
            }
            self.inner.changes.fetch_add(1, Ordering::Relaxed);
            freed = freed.saturating_add(one.size);
        }
        Ok(freed)
    }

    /// All that records lead to, by its place. Where there are too many records to remember, those go that nobody uses.
    fn stored(&self, in_use: &InUse) -> io::Result<BTreeMap<PathBuf, Stored>> {
        let mut stored: BTreeMap<PathBuf, Stored> = BTreeMap::new();
        let refs = self.refs();
        let mut count = 0_usize;
        // None may be passed over: what it leads to would be nobody's.
        for entry in fs::read_dir(&refs).map_err(|e| at(&refs, e))? {
            let entry = entry.map_err(|e| at(&refs, e))?;
            let path = entry.path();
            let Some(record) = load_record(&path).map_err(|e| at(&path, e))? else { continue };
            let Some((place, name)) = self.leads_to(&record) else { continue };
            count = count.saturating_add(1);
            if count > MAX_RECORDS && !in_use.names.contains(&name) {
                durable::remove_if_exists(&path).map_err(|e| at(&path, e))?;
                continue;
            }
            let filed = entry.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            let one = stored.entry(place.clone()).or_insert_with(|| Stored {
                size: if place.exists() { record.size } else { 0 },
                place,
                records: Vec::new(),
                names: BTreeSet::new(),
                filed,
            });
            one.filed = one.filed.max(filed);
            one.records.push(path);
            one.names.insert(name);
        }
        Ok(stored)
    }

    /// Where a record leads, and the name that it has.
    fn leads_to(&self, record: &Record) -> Option<(PathBuf, String)> {
        let digest: Digest = record.module.parse().ok()?;
        Some(match record.reference.strip_prefix(FILES_OF) {
            Some(name) => (self.files(&digest), name.to_owned()),
            None => (self.blob(&digest), record.reference.clone()),
        })
    }

    /// Removes what no record leads to, and says how many bytes that were: a pull that was cut off left it.
    fn remove_nameless(&self, stored: &BTreeMap<PathBuf, Stored>, in_use: &InUse) -> io::Result<u64> {
        let mut freed = 0_u64;
        let folders = Algorithm::ALL.map(|algorithm| self.blobs(algorithm)).into_iter();
        for folder in folders.chain([self.all_files()]) {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(|e| at(&folder, e))?,
            };
            for entry in entries.flatten() {
                let path = entry.path();
                if !stored.contains_key(&path) && !in_use.folders.contains(&path) {
                    let size = entry.metadata().map_or(0, |meta| if meta.is_file() { meta.len() } else { 0 });
                    self.remove_place(&path)?;
                    freed = freed.saturating_add(size);
                }
            }
        }
        Ok(freed)
    }

    /// Removes a module's file or a folder of files, the latter whole or not at all.
    fn remove_place(&self, place: &Path) -> io::Result<()> {
        if !place.is_dir() {
            return durable::remove_if_exists(place).map_err(|e| at(place, e));
        }
        // No folder is made for it: the disk may be full.
        let doomed = self.scratch();
        fs::rename(place, &doomed).map_err(|e| at(place, e))?;
        fs::remove_dir_all(&doomed).map_err(|e| at(&doomed, e))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "collect_tests.rs"]
mod tests;
