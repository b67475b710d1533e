//! Container logs on disk, in the CRI line format: written, rotated, read and followed.
//!
//! `<root>/<namespace>_<pod>_<uid>/<container>/<restart>.log` is what a run writes to, as a kubelet
//! lays it out. When it is full it becomes `<restart>.log.<n>`, n counting upwards, and a new one is
//! begun ([`segments`]). [`line`] is the format of an entry; [`split`] makes them, dropping what is
//! beyond the [`rate`]; [`writer`] hands them to [`appender`], at once or after they were [`waiting`].
//! [`reader`] answers `kubectl logs`, and [`tail`] finds where `--tail` begins.

mod appender;
mod line;
mod page_cache;
mod rate;
mod reader;
mod segments;
mod split;
mod tail;
mod waiting;
mod writer;

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

pub use reader::{ReadOptions, Reader};
pub use writer::Writer;

use segments::Run;
use waiting::Waiting;
use writer::Live;

/// A file name's longest, in bytes, on every Linux file system (`NAME_MAX`).
const NAME_MAX: usize = 255;

/// Which of a container's two outputs a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// `stdout`
    Stdout,
    /// `stderr`
    Stderr,
}

/// How logs are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes after which a log is rotated.
    pub max_size: u64,
    /// Files kept of one run, the one being written included.
    pub max_files: u32,
    /// Bytes that a container may print each second, entry headers included, averaged over ten seconds;
    /// 0 for no limit.
    pub rate: u64,
    /// How long entries may wait in memory, so that they reach the medium together; 0: they do not.
    /// [`Logs::flush`] is for the process's end then.
    pub flush_interval: Duration,
}

impl Default for Settings {
    /// The kubelet's sizes (`containerLogMaxSize`, `containerLogMaxFiles`), no limit, and no waiting.
    fn default() -> Settings {
        Settings { max_size: 10 * 1024 * 1024, max_files: 5, rate: 0, flush_interval: Duration::ZERO }
    }
}

/// The folder of all logs. Clones are one and the same: they know of each other's open writers.
#[derive(Clone)]
pub struct Logs {
    root: PathBuf,
    settings: Settings,
    open: Arc<OpenRuns>,
    waiting: Arc<Waiting>,
}

/// The runs that are being written now, by the path of their log, so that followers find them.
type OpenRuns = Mutex<HashMap<PathBuf, Weak<Live>>>;

/// Whose log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodKey {
    /// metadata.namespace
    pub namespace: String,
    /// metadata.name
    pub name: String,
    /// metadata.uid
    pub uid: String,
}

impl Logs {
    /// Logs under `root`, which need not exist yet.
    #[must_use]
    pub fn new(root: PathBuf, settings: Settings) -> Logs {
        let waiting = Arc::new(Waiting::new(settings.flush_interval));
        Logs { root, settings, open: Arc::default(), waiting }
    }

    /// Hands everything that waits in memory to the kernel, as before the process ends. Blocks.
    pub fn flush(&self) {
        self.waiting.write_out();
    }

    /// Opens the log of one run of a container, going on where an earlier process left it. Files of
    /// runs before the previous one are removed. Blocks.
    ///
    /// # Errors
    /// What the file system says, with the path; `AlreadyExists` when this run's log is open.
    pub fn open(&self, pod: &PodKey, container: &str, restart: u32) -> io::Result<Arc<Writer>> {
        let run = self.run(pod, container, restart)?;
        let path = run.current();
        if self.writer_of(&path).is_some() {
            return Err(named(&path, "open", io::ErrorKind::AlreadyExists.into()));
        }
        let writer = Writer::open(run, &self.settings, self.waiting.clone(), Arc::downgrade(&self.open))
            .map_err(|error| named(&path, "open", error))?;
        let mut open = lock(&self.open);
        open.retain(|_, run| run.strong_count() > 0);
        open.insert(path, Arc::downgrade(writer.live()));
        Ok(Arc::new(writer))
    }

    /// Opens one run's log for reading: every file of it that is still there, oldest first.
    ///
    /// # Errors
    /// `NotFound` when nothing of that run is there; otherwise what the file system says, with the path.
    pub async fn read(
        &self,
        pod: &PodKey,
        container: &str,
        restart: u32,
        options: ReadOptions,
    ) -> io::Result<Reader> {
        let run = self.run(pod, container, restart)?;
        let path = run.current();
        let live = self.writer_of(&path);
        Reader::open(run, live, options).await.map_err(|error| named(&path, "read", error))
    }

    /// Removes every log of a pod, and ends those who follow them. Blocks.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub fn remove(&self, pod: &PodKey) -> io::Result<()> {
        let folder = self.pod_folder(pod)?;
        let open: Vec<Arc<Live>> = lock(&self.open)
            .iter()
            .filter(|(p, _)| p.starts_with(&folder))
            .filter_map(|(_, l)| l.upgrade())
            .collect();
        open.iter().for_each(|live| live.end());
        remove_folder(&folder)
    }

    /// Removes the logs of pods whose uid `keep` does not know: those that went away while no agent ran. Blocks.
    ///
    /// # Errors
    /// What the file system says, with the path, after everything else that could be removed was.
    pub fn remove_others(&self, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|error| named(&self.root, "list", error))?,
        };
        let mut outcome = Ok(());
        for entry in entries {
            let path = entry.map_err(|error| named(&self.root, "list", error))?.path();
            let uid = path.file_name().and_then(|name| name.to_str()).and_then(uid_of);
            if uid.is_some_and(|uid| !keep(uid)) {
                outcome = remove_folder(&path).and(outcome);
            }
        }
        outcome
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn writer_of(&self, path: &Path) -> Option<Arc<Live>> {
        lock(&self.open).get(path).and_then(Weak::upgrade).filter(|live| !live.progress().closed)
    }

    fn run(&self, pod: &PodKey, container: &str, restart: u32) -> io::Result<Run> {
        Ok(Run { folder: self.pod_folder(pod)?.join(path_part(container)?), restart })
    }

    /// `<namespace>_<pod>_<uid>`. A pod's name (253 bytes at most) is cut where the three together
    /// would not be a file name; the uid keeps the folder the pod's own.
    fn pod_folder(&self, pod: &PodKey) -> io::Result<PathBuf> {
        let (namespace, name, uid) =
            (path_part(&pod.namespace)?, path_part(&pod.name)?, path_part(&pod.uid)?);
        let others = namespace.len().saturating_add(uid.len()).saturating_add(2);
        let room = NAME_MAX.saturating_sub(others).min(name.len());
        let name = (0..=room).rev().find_map(|length| name.get(..length)).unwrap_or_default();
        Ok(self.root.join(format!("{namespace}_{name}_{uid}")))
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs").field("root", &self.root).finish_non_exhaustive()
    }
}

/// A name of the API's as a part of a path: nothing that would lead elsewhere.
fn path_part(name: &str) -> io::Result<&str> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        let text = format!("{name:?} cannot be part of the path of a log");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(name)
}

/// The uid in the name of a pod's folder. None of the three parts has an underscore of its own, so that
/// what else a folder of an operator's choice may hold is seldom taken for one.
fn uid_of(folder: &str) -> Option<&str> {
    let mut parts = folder.split('_');
    let [_, _, uid] = [parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(uid)
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|error| named(folder, "remove", error)),
    }
}

fn named(path: &Path, what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what} the log {}: {error}", path.display()))
}

/// Nothing here panics while it holds a lock, and what a lock guards is whole at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
