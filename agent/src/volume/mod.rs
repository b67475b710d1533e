//! Volumes of pods, as folders of this machine, in a kubelet's own layout:
//!
//! ```text
//! DATA-DIR/pods/UID/volumes/KIND/NAME   on the disk: emptyDir, configMap, downwardAPI
//! MEMORY/pods/UID/volumes/KIND/NAME     in memory: whatever holds a secret or a token, and emptyDir of medium Memory
//! DATA-DIR/pods/UID/secrets/NAME        what of that is kept for a start without the API server (--secrets-at-rest)
//! DATA-DIR/pods/UID/containers/NAME     a container's own root
//! ```
//!
//! [`host_path`] finds paths of the machine, [`writer`] writes the files of objects, [`root`] makes a container's root,
//! [`subpath`] finds what is mounted of a volume. What guests put on the disk is counted ([`crate::runtime::quota`])
//! against the volume's `sizeLimit` and what the pod may take in all.

mod host_path;
mod root;
mod subpath;
mod tree;
mod writer;

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::durable::remove_if_exists;
use crate::pod::payload::Payload;
use crate::pod::storage::{EmptyDir, Exceeded, Storage};
use crate::runtime::quota::{Account, Amount, Excess, Quota};
use crate::runtime::{Place, Preopen};

pub use root::{handle, message, RootFiles};
pub use subpath::{Mount, Mounts};

/// The folder of a container's notice in a pod's folder, by the container's name, and where its guest sees it.
const NOTICES: &str = "notices";
const NOTICE_FOLDER: &str = "/run/copepod";
/// The file in it that is there when the guest is to stop.
const NOTICE: &str = "stop";
/// The file's path for the guest.
pub const NOTICE_PATH: &str = "/run/copepod/stop";

/// Told, on any thread and once for each limit, that a guest was refused what would have passed it.
pub type Told = Arc<dyn Fn(Exceeded) + Send + Sync>;

/// Lays out volumes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Volumes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// On the disk.
    disk: PathBuf,
    /// In memory.
    memory: PathBuf,
    /// What of the machine pods may be given.
    host_paths: Vec<PathBuf>,
    /// Secrets and tokens are kept on the disk as well.
    secrets_at_rest: bool,
}

/// The volumes of one pod.
#[derive(Debug)]
pub struct PodVolumes {
    /// By name: of the few that a pod has, a tree would take room for eleven.
    by_name: Mutex<Vec<(String, Laid)>>,
    /// What all that it has on the disk is counted against.
    total: Arc<Quota>,
}

/// A volume that is there.
#[derive(Clone, Debug)]
pub(crate) struct Laid {
    place: Place,
    account: Option<Arc<Account>>,
    /// It is a file and no folder.
    file: Option<Arc<OwnedFd>>,
    /// Whatever its mounts say.
    read_only: bool,
}

/// A `hostPath` volume of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPath {
    /// The volume's name.
    pub name: String,
    /// The path of this machine.
    pub path: String,
    /// `type`
    pub kind: String,
}

/// A volume that is made of objects.
#[derive(Clone, Debug)]
pub struct ObjectVolume {
    /// The pod's UID.
    pub uid: String,
    /// The volume's name.
    pub name: String,
    /// The API's name of its kind.
    pub kind: String,
    /// It holds a secret or a token.
    pub secret: bool,
}

/// Why a volume is not there.
#[derive(Debug)]
pub struct MountError {
    /// Its name.
    pub volume: String,
    /// Why.
    pub text: String,
}

impl PodVolumes {
    /// Of a pod that has none.
    #[cfg(test)]
    pub fn none() -> PodVolumes {
        PodVolumes { by_name: Mutex::default(), total: Arc::new(Quota::new(Amount::default(), |_| ())) }
    }

    fn by_name(&self) -> MutexGuard<'_, Vec<(String, Laid)>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a volume that is made elsewhere: never written to by its guests.
    pub fn add(&self, name: &str, place: Place) {
        let laid = Laid { place, account: None, file: None, read_only: true };
        let mut by_name = self.by_name();
        by_name.retain(|(known, _)| known != name);
        by_name.reserve_exact(1);
        by_name.push((name.to_owned(), laid));
    }

    /// Is there a volume of this name?
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.by_name().iter().any(|(known, _)| known == name)
    }

    /// The folders that are made elsewhere.
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        let folder = |(_, laid): &(String, Laid)| match &laid.place {
            Place::Folder(path) => Some(path.clone()),
            _ => None,
        };
        self.by_name().iter().filter_map(folder).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<Laid> {
        self.by_name().iter().find(|(known, _)| known == name).map(|(_, laid)| laid.clone())
    }

    /// What its files take of the disk, and what they may.
    #[must_use]
    pub fn used(&self) -> (Amount, Amount) {
        (self.total.used(), self.total.limit())
    }

    /// What counts the files of a container's root.
    fn account(&self) -> Arc<Account> {
        Account::new(vec![self.total.clone()], Amount::default())
    }
}

impl Volumes {
    /// Volumes below `disk` and `memory`, folders of this alone. They are made when the first volume is.
    #[must_use]
    pub fn new(disk: PathBuf, memory: PathBuf, host_paths: Vec<PathBuf>, secrets_at_rest: bool) -> Volumes {
        Volumes { inner: Arc::new(Inner { disk, memory, host_paths, secrets_at_rest }) }
    }

    /// Makes the volumes of the pod `uid` that need nobody else, or takes up those that are there. Blocks.
    ///
    /// # Errors
    /// Which cannot be made, and why.
    pub fn lay(
        &self,
        uid: &str,
        storage: &Storage,
        host_paths: &[HostPath],
        told: &Told,
    ) -> Result<PodVolumes, MountError> {
        let total =
            quota(Amount { bytes: storage.bytes, files: storage.files }, told, |excess| match excess {
                Excess::Bytes => Exceeded::Pod,
                Excess::Files => Exceeded::Files,
            });
        let mut by_name = Vec::new();
        for volume in &storage.empty_dirs {
            let laid = self.lay_empty_dir(uid, volume, &total, told);
            let laid =
                laid.map_err(|error| MountError { volume: volume.name.clone(), text: error.to_string() })?;
            by_name.push((volume.name.clone(), laid));
        }
        for volume in host_paths {
            let found = host_path::find(&volume.path, &volume.kind, &self.inner.host_paths);
            let found = found.map_err(|text| MountError { volume: volume.name.clone(), text })?;
            let handle = Arc::new(found.handle);
            let file = (!found.is_folder).then(|| handle.clone());
            let laid = Laid { place: Place::Open(handle), account: None, file, read_only: false };
            by_name.push((volume.name.clone(), laid));
        }
        Ok(PodVolumes { by_name: Mutex::new(by_name), total })
    }

    fn lay_empty_dir(
        &self,
        uid: &str,
        volume: &EmptyDir,
        total: &Arc<Quota>,
        told: &Told,
    ) -> io::Result<Laid> {
        let root = if volume.in_memory { &self.inner.memory } else { &self.inner.disk };
        let host = folder_of(root, uid, "emptyDir", &volume.name)?;
        make(&host)?;
        // Whoever the guests of the other containers are for the kernel (`volume/emptydir`: perm 0777).
        fs::set_permissions(&host, Permissions::from_mode(0o777))
            .map_err(|error| named(&host, "open to all", error))?;
        let used = tree::measure(&host).map_err(|error| named(&host, "measure", error))?;
        let nobody: Told = Arc::new(|_| ());
        let told = if volume.evicts { told } else { &nobody };
        let limit = |bytes| {
            let files = if volume.in_memory { volume.files } else { u64::MAX };
            let name = volume.name.clone();
            quota(Amount { bytes, files }, told, move |_| Exceeded::Volume(name.clone()))
        };
        let own = volume.limit.map(limit);
        // What is in memory takes nothing of the disk.
        let of_disk = (!volume.in_memory).then(|| total.clone());
        let account = Account::new(own.into_iter().chain(of_disk).collect(), used);
        Ok(Laid { place: Place::Folder(host), account: Some(account), file: None, read_only: false })
    }

    /// Writes the files of a volume that is made of objects, and says where they are. Blocks.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub fn write(&self, volume: &ObjectVolume, payload: &Payload, anew: bool) -> io::Result<PathBuf> {
        let host = self.object_folder(volume)?;
        let write = |host: &Path, durable| {
            make(host)?;
            match writer::read(host) {
                Ok(Some(known)) if known == *payload => Ok(()),
                _ => writer::write(host, payload, durable).map_err(|error| named(host, "write", error)),
            }
        };
        write(&host, !volume.secret)?;
        if volume.secret && self.inner.secrets_at_rest && anew {
            write(&self.at_rest(volume)?, true)?;
        }
        Ok(host)
    }

    /// Takes up the files of such a volume as they were last; none: they are not there. Blocks.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub fn take_up(&self, volume: &ObjectVolume) -> io::Result<Option<PathBuf>> {
        let host = self.object_folder(volume)?;
        let read = |host: &Path| writer::read(host).map_err(|error| named(host, "read", error));
        if read(&host)?.is_some() {
            return Ok(Some(host));
        }
        if !volume.secret {
            return Ok(None);
        }
        let Some(kept) = read(&self.at_rest(volume)?)? else { return Ok(None) };
        make(&host)?;
        writer::write(&host, &kept, false).map_err(|error| named(&host, "write", error))?;
        Ok(Some(host))
    }

    fn object_folder(&self, volume: &ObjectVolume) -> io::Result<PathBuf> {
        let root = if volume.secret { &self.inner.memory } else { &self.inner.disk };
        folder_of(root, &volume.uid, &volume.kind, &volume.name)
    }

    fn at_rest(&self, volume: &ObjectVolume) -> io::Result<PathBuf> {
        Ok(self.pod_folder(&volume.uid)?.join("secrets").join(path_part(&volume.name)?))
    }

    /// Makes the root of a container. Blocks.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub fn lay_root(
        &self,
        uid: &str,
        container: &str,
        content: &RootFiles,
        volumes: &PodVolumes,
    ) -> io::Result<(OwnedFd, Arc<Account>)> {
        let host = self.pod_folder(uid)?.join("containers").join(path_part(container)?);
        let fd = root::lay(&host, content).map_err(|error| named(&host, "make", error))?;
        Ok((fd, volumes.account()))
    }

    /// Makes the folder in which a container's guest is told that it is to stop. Blocks.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub fn lay_notice(&self, uid: &str, container: &str) -> io::Result<Preopen> {
        let host = self.notice_folder(uid, container)?;
        fs::create_dir_all(&host).map_err(|error| named(&host, "make", error))?;
        // Of a run before this one.
        remove_if_exists(&host.join(NOTICE)).map_err(|error| named(&host, "clear", error))?;
        let guest = NOTICE_FOLDER.to_owned();
        Ok(Preopen { guest, place: Place::Folder(host), read_only: true, account: None })
    }

    /// Tells a container's guest that it is to stop, if it has such a folder. Blocks.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub fn give_notice(&self, uid: &str, container: &str) -> io::Result<()> {
        let host = self.notice_folder(uid, container)?;
        match fs::write(host.join(NOTICE), "") {
            // It began before its pod asked for that.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            given => given.map_err(|error| named(&host, "put the notice into", error)),
        }
    }

    fn notice_folder(&self, uid: &str, container: &str) -> io::Result<PathBuf> {
        Ok(self.pod_folder(uid)?.join(NOTICES).join(path_part(container)?))
    }

    /// Removes the volumes of the pod `uid` with all that is in them. No guest may use them any more. Blocks.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub fn remove(&self, uid: &str) -> io::Result<()> {
        let mut outcome = Ok(());
        for root in [&self.inner.disk, &self.inner.memory] {
            let folder = root.join(path_part(uid)?);
            outcome = tree::remove(&folder).map_err(|error| named(&folder, "remove", error)).and(outcome);
        }
        outcome
    }

    /// Removes the volumes of all pods whose UID `keep` does not know. Blocks.
    ///
    /// # Errors
    /// What the file system says, with the path, after everything else that could be removed was.
    pub fn remove_others(&self, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        let mut outcome = Ok(());
        for root in [&self.inner.disk, &self.inner.memory] {
            let entries = match fs::read_dir(root) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|error| named(root, "list", error))?,
            };
            for entry in entries {
                let name = entry.map_err(|error| named(root, "list", error))?.file_name();
                if let Some(uid) = name.to_str().filter(|uid| !keep(uid)) {
                    outcome = self.remove(uid).and(outcome);
                }
            }
        }
        outcome
    }

    /// The folder of a pod on the disk, in one that nobody else looks into.
    fn pod_folder(&self, uid: &str) -> io::Result<PathBuf> {
        private(&self.inner.disk)?;
        Ok(self.inner.disk.join(path_part(uid)?))
    }
}

/// The folder of a volume below `root`: `kubernetes.io/empty-dir`, its slash escaped, and the like.
fn folder_of(root: &Path, uid: &str, kind: &str, name: &str) -> io::Result<PathBuf> {
    private(root)?;
    let plugin = match kind {
        "emptyDir" => "kubernetes.io~empty-dir",
        "configMap" => "kubernetes.io~configmap",
        "secret" => "kubernetes.io~secret",
        "downwardAPI" => "kubernetes.io~downward-api",
        _ => "kubernetes.io~projected",
    };
    Ok(root.join(path_part(uid)?).join("volumes").join(plugin).join(path_part(name)?))
}

/// Makes a folder that nobody else on this machine looks into.
fn private(folder: &Path) -> io::Result<()> {
    crate::durable::ensure_private_dir(folder).map_err(|error| named(folder, "make", error))
}

fn make(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder).map_err(|error| named(folder, "make", error))
}

fn quota(
    limit: Amount,
    told: &Told,
    what: impl Fn(Excess) -> Exceeded + Send + Sync + 'static,
) -> Arc<Quota> {
    let told = told.clone();
    Arc::new(Quota::new(limit, move |excess| told(what(excess))))
}

/// A name of the API's as a part of a path: nothing that would lead elsewhere.
fn path_part(name: &str) -> io::Result<&str> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        let text = format!("{name:?} cannot be part of the path of a volume");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(name)
}

fn named(path: &Path, what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what} the folder {}: {error}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
