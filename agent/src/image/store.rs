//! The content-addressed store of modules, and the record of which reference names which.
//!
//! ```text
//! blobs/sha256/<hex>   modules, whole or absent
//! refs/<hex>.json      one record a name, filed under the SHA-256 of the name
//! files/<hex>/         the files of an image, unpacked, under the digest of its manifest; whole or absent
//! ingest/              what is still being written; emptied when the store is opened
//! ```
//!
//! A record whose blob is missing or has another size counts as absent: the image is pulled again.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::collect::{Room, Users};
use super::credentials::Keyring;
use super::digest::{Algorithm, Digest};
use super::reference::Reference;
use super::{Image, Use};
use crate::durable;

/// Longest record read or written; entrypoint, cmd and env of an image config are most of it.
const MAX_RECORD: u64 = 256 << 10;
/// Names looked at by [`Store::list`]: far above the 110 pods of a node, and a bound all the same.
pub(super) const MAX_RECORDS: usize = 10_000;
/// Credentials remembered of one image: more than the namespaces of such a node; who is forgotten asks the
/// registry again.
const MAX_LOGINS: usize = 64;
/// Room left on the file system beside a module that is written, for logs and checkpoints.
const SPARE_ROOM: u64 = 4 << 20;

/// The content-addressed store. Cheap to clone. One process at a time may have it open.
#[derive(Clone)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    root: PathBuf,
    /// Held by the one pull that runs, and while images are removed.
    pub(super) pulling: Mutex<()>,
    /// Counts the records that were written, and the images that were removed.
    pub(super) changes: AtomicUsize,
    /// Who knows which images must stay.
    pub(super) users: OnceLock<Users>,
    /// When an image of this name was last seen in use, on the monotonic clock.
    pub(super) last_used: Mutex<BTreeMap<String, Duration>>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// `registry/repository:tag` or `registry/repository@digest`.
    pub(super) reference: String,
    /// Digest of the manifest (or index) that the name led to.
    pub(super) manifest: String,
    /// Digest of the module.
    pub(super) module: String,
    /// Bytes of the module.
    pub(super) size: u64,
    /// Of an image config.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) entrypoint: Vec<String>,
    /// Of an image config.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) cmd: Vec<String>,
    /// Of an image config.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) env: Vec<String>,
    /// Pulled with a credential: not for a pod that has none.
    #[serde(default)]
    pub(super) private: bool,
    /// Digests of the credentials that it was pulled with; whoever holds one of them may have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) logins: Vec<String>,
}

/// What is here for the holder of some credentials.
#[derive(Clone, Debug)]
pub enum Found {
    /// The image.
    Here(Image),
    /// An image that was pulled with other credentials: only the registry can say whether these do
    /// (`KubeletEnsureSecretPulledImages`).
    Locked,
    /// Nothing.
    Absent,
}

impl Store {
    /// Opens (or makes) the store in a folder, and removes what a crash left half written.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub fn open(folder: &Path) -> io::Result<Store> {
        let store = Store {
            inner: Arc::new(Inner {
                root: folder.to_path_buf(),
                pulling: Mutex::new(()),
                changes: AtomicUsize::new(0),
                users: OnceLock::new(),
                last_used: Mutex::default(),
            }),
        };
        for algorithm in Algorithm::ALL {
            make_folder(&store.blobs(algorithm))?;
        }
        for folder in [store.refs(), store.ingest_folder()] {
            make_folder(&folder)?;
        }
        sweep(&store.ingest_folder(), |_| true)?;
        sweep(&store.refs(), |name| name.ends_with(".tmp"))?;
        Ok(store)
    }

    /// The image that a reference names here, without asking a registry.
    #[must_use]
    pub fn find(&self, reference: &Reference, wanted: Use) -> Option<Image> {
        let record = self.record(reference, wanted)?;
        let digest: Digest = record.module.parse().ok()?;
        let module = match wanted {
            Use::Module => self.blob(&digest),
            Use::Files => self.files(&digest),
        };
        Some(Image {
            id: format!("{}@{}", reference.name(), record.manifest),
            module_digest: record.module,
            module,
            size: record.size,
            entrypoint: record.entrypoint,
            cmd: record.cmd,
            env: record.env,
        })
    }

    /// The image that a reference names here, if it is public or `keyring` has a credential that it was
    /// once pulled with.
    #[must_use]
    pub fn find_for(&self, reference: &Reference, wanted: Use, keyring: &Keyring) -> Found {
        let Some(record) = self.record(reference, wanted) else { return Found::Absent };
        if record.private && !keyring.holds(&reference.name(), &record.logins) {
            return Found::Locked;
        }
        self.find(reference, wanted).map_or(Found::Absent, Found::Here)
    }

    /// Whether these bytes are the image's module. If not, and the file is the store's, the file is
    /// removed, so that the image counts as absent.
    ///
    /// # Errors
    /// Why a damaged file cannot be removed.
    pub fn verify(&self, image: &Image, bytes: &[u8]) -> io::Result<bool> {
        let Ok(digest) = image.module_digest.parse::<Digest>() else { return Ok(false) };
        let right = digest.matches(bytes);
        if !right && image.module == self.blob(&digest) {
            durable::remove_if_exists(&image.module).map_err(|e| at(&image.module, e))?;
        }
        Ok(right)
    }

    /// With whose credentials an image of this reference may be had from here, now that it was pulled with
    /// `login`. None: without any. What anybody once got is public, whoever asks next.
    pub(super) fn logins(
        &self,
        reference: &Reference,
        wanted: Use,
        login: Option<String>,
    ) -> Option<Vec<String>> {
        let login = login?;
        let mut logins = match self.record(reference, wanted) {
            Some(record) if !record.private => return None,
            Some(record) => record.logins,
            None => Vec::new(),
        };
        if !logins.contains(&login) {
            logins.push(login);
        }
        let surplus = logins.len().saturating_sub(MAX_LOGINS);
        logins.drain(..surplus);
        Some(logins)
    }

    /// Every image: its names (`repo@digest` before `repo:tag`) and size in bytes, for
    /// node.status.images; the largest first, as a kubelet lists them.
    #[must_use]
    pub fn list(&self) -> Vec<(Vec<String>, u64)> {
        let mut images: BTreeMap<String, (Vec<String>, u64)> = BTreeMap::new();
        let Ok(entries) = fs::read_dir(self.refs()) else { return Vec::new() };
        for entry in entries.flatten().take(MAX_RECORDS) {
            let Some(mut record) = read_record(&entry.path()).filter(|r| self.is_whole(r)) else { continue };
            if let Some(name) = record.reference.strip_prefix(FILES_OF) {
                record.reference = name.to_owned();
            }
            let image = images.entry(record.manifest).or_insert_with(|| (Vec::new(), record.size));
            image.0.push(record.reference);
        }
        let mut list: Vec<_> = images.into_values().collect();
        for (names, _) in &mut list {
            names.sort_by_key(|name| (!name.contains('@'), name.clone()));
        }
        list.sort_by_key(|(names, size)| (std::cmp::Reverse(*size), names.first().cloned()));
        list
    }

    /// A number that is another after each change of what [`Store::list`] tells.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.inner.changes.load(Ordering::Relaxed)
    }

    /// Waits until no other pull runs, and keeps others out.
    pub(super) fn pulling(&self) -> MutexGuard<'_, ()> {
        self.inner.pulling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a blob of this size is here.
    pub(super) fn has(&self, digest: &Digest, size: u64) -> bool {
        fs::metadata(self.blob(digest)).is_ok_and(|meta| meta.is_file() && meta.len() == size)
    }

    /// Path of a blob, here or not.
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs(digest.algorithm()).join(digest.hex())
    }

    /// The room that there is, for all.
    pub(super) fn room(&self) -> io::Result<Room> {
        let room = rustix::fs::statvfs(&self.inner.root).map_err(|e| at(&self.inner.root, e.into()))?;
        Ok(Room {
            capacity: room.f_blocks.saturating_mul(room.f_frsize),
            available: room.f_bavail.saturating_mul(room.f_frsize),
        })
    }

    /// Begins to write a blob of `size` bytes, for the pull that runs. Images that no pod has make room for it.
    pub(super) fn ingest(&self, size: u64) -> io::Result<Ingest> {
        let wanted = size.saturating_add(SPARE_ROOM);
        let mut free = self.room()?.available;
        if free < wanted {
            self.make_room(wanted.saturating_sub(free))?;
            free = self.room()?.available;
        }
        if free < wanted {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!(
                    "{} has {free} bytes free, and the module needs {size} and {SPARE_ROOM} to spare",
                    self.inner.root.display()
                ),
            ));
        }
        let path = self.scratch();
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| at(&path, e))?;
        Ok(Ingest { file, path, written: 0, kept: false })
    }

    /// Puts a written blob in its place, synced. Its digest has been checked by the caller.
    pub(super) fn keep(&self, mut ingest: Ingest, digest: &Digest) -> io::Result<()> {
        let place = self.blob(digest);
        ingest.file.sync_all().map_err(|e| at(&ingest.path, e))?;
        fs::rename(&ingest.path, &place).map_err(|e| at(&place, e))?;
        ingest.kept = true;
        sync_folder(&self.blobs(digest.algorithm()))
    }

    /// Files a record under its name, replacing what the name stood for.
    pub(super) fn file(&self, record: &Record) -> io::Result<()> {
        let data = serde_json::to_vec(record)?;
        if data.len() as u64 > MAX_RECORD {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("entrypoint, cmd and env of its image config are longer than {MAX_RECORD} bytes"),
            ));
        }
        let path = self.record_path(&record.reference);
        // Written only when it says something new: a pull of what is here costs no flash.
        if read_record(&path).as_ref() == Some(record) {
            return Ok(());
        }
        let written = durable::write_atomic(&path, &data, 0o600).map_err(|e| at(&path, e));
        self.inner.changes.fetch_add(1, Ordering::Relaxed);
        written
    }

    fn record(&self, reference: &Reference, wanted: Use) -> Option<Record> {
        let key = key(reference, wanted);
        read_record(&self.record_path(&key)).filter(|r| r.reference == key && self.is_whole(r))
    }

    fn is_whole(&self, record: &Record) -> bool {
        record.module.parse().is_ok_and(|digest| match record.reference.starts_with(FILES_OF) {
            true => self.files(&digest).is_dir(),
            false => self.has(&digest, record.size),
        })
    }

    pub(super) fn record_path(&self, key: &str) -> PathBuf {
        self.refs().join(format!("{}.json", Digest::of(key.as_bytes()).hex()))
    }

    pub(super) fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.inner.root.join("blobs").join(algorithm.name())
    }

    /// Folder of the files of the image with this manifest, here or not.
    pub(super) fn files(&self, manifest: &Digest) -> PathBuf {
        self.all_files().join(manifest.hex())
    }

    pub(super) fn all_files(&self) -> PathBuf {
        self.inner.root.join("files")
    }

    /// A folder to unpack an image into, below the one of what is being written.
    pub(super) fn unpacking(&self) -> io::Result<PathBuf> {
        let path = self.scratch();
        fs::create_dir(&path).map_err(|e| at(&path, e))?;
        Ok(path)
    }

    /// Puts the unpacked files of an image in their place, synced.
    pub(super) fn keep_files(&self, unpacked: &Path, manifest: &Digest) -> io::Result<()> {
        let folder = self.all_files();
        make_folder(&folder)?;
        // Whole before it has its name: one sync of the file system in place of one for each file.
        rustix::fs::syncfs(File::open(unpacked).map_err(|e| at(unpacked, e))?)?;
        let place = self.files(manifest);
        if let Err(error) = fs::rename(unpacked, &place) {
            // It is there already.
            if !place.is_dir() {
                return Err(at(&place, error));
            }
        }
        sync_folder(&folder)
    }

    pub(super) fn refs(&self) -> PathBuf {
        self.inner.root.join("refs")
    }

    fn ingest_folder(&self) -> PathBuf {
        self.inner.root.join("ingest")
    }

    /// A new name for what is being written or removed: nothing of it is left when the store is opened again.
    pub(super) fn scratch(&self) -> PathBuf {
        self.ingest_folder().join(format!("{:016x}", fastrand::u64(..)))
    }
}

/// What the files of an image are recorded under.
pub(super) const FILES_OF: &str = "files of ";

/// What an image is recorded under.
pub(super) fn key(reference: &Reference, wanted: Use) -> String {
    match wanted {
        Use::Module => reference.key(),
        Use::Files => format!("{FILES_OF}{}", reference.key()),
    }
}

/// A blob while it is written. Dropping it removes the file.
pub(super) struct Ingest {
    file: File,
    path: PathBuf,
    written: u64,
    kept: bool,
}

impl Ingest {
    /// What was written, to be read from its beginning.
    pub(super) fn reader(&self) -> io::Result<File> {
        File::open(&self.path).map_err(|e| at(&self.path, e))
    }

    /// Bytes written so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Appends.
    pub(super) fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all(data).map_err(|e| at(&self.path, e))?;
        self.written = self.written.saturating_add(data.len() as u64);
        Ok(())
    }

    /// Begins again from nothing.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(|e| at(&self.path, e))?;
        self.written = 0;
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn read_record(path: &Path) -> Option<Record> {
    load_record(path).ok().flatten()
}

/// Reads a record; none, if it is gone or makes no sense.
pub(super) fn load_record(path: &Path) -> io::Result<Option<Record>> {
    let mut data = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?.take(MAX_RECORD).read_to_end(&mut data)?,
    };
    Ok(serde_json::from_slice(&data).ok())
}

fn make_folder(path: &Path) -> io::Result<()> {
    durable::ensure_private_dir(path).map_err(|e| at(path, e))?;
    path.parent().map_or(Ok(()), sync_folder)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|e| at(path, e))
}

/// Removes the files of a folder whose names `doomed` picks.
fn sweep(folder: &Path, doomed: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(folder).map_err(|e| at(folder, e))? {
        let entry = entry.map_err(|e| at(folder, e))?;
        if doomed(&entry.file_name().to_string_lossy()) {
            let path = entry.path();
            let removed = match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => fs::remove_dir_all(&path),
                false => durable::remove_if_exists(&path),
            };
            removed.map_err(|e| at(&path, e))?;
        }
    }
    Ok(())
}

pub(super) fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "store_tests.rs"]
mod tests;
