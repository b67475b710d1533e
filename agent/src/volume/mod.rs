//! Volumes of pods, as folders of this machine: `DATA-DIR/pods/UID/volumes/KIND/NAME`, a kubelet's own layout.
//!
//! So far there are `emptyDir` volumes on the disk. What guests put there is counted ([`crate::runtime::quota`])
//! against the volume's `sizeLimit` and what the pod may take in all.

mod tree;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::durable::remove_if_exists;
use crate::pod::storage::{Exceeded, Storage};
use crate::runtime::quota::{Account, Amount, Excess, Quota};
use crate::runtime::Preopen;

/// The folder of `emptyDir` volumes in a pod's folder (`kubernetes.io/empty-dir`, its slash escaped).
const EMPTY_DIR: &str = "volumes/kubernetes.io~empty-dir";

/// The folder of a container's notice in a pod's folder, by the container's name, and where its guest sees it.
const NOTICES: &str = "notices";
const NOTICE_FOLDER: &str = "/run/copepod";
/// The file in it that is there when the guest is to stop.
const NOTICE: &str = "stop";
/// The file's path for the guest.
pub const NOTICE_PATH: &str = "/run/copepod/stop";

/// Told, on any thread and once for each limit, that a guest was refused what would have passed it.
pub type Told = Arc<dyn Fn(Exceeded) + Send + Sync>;

/// Lays out volumes.
#[derive(Clone, Debug)]
pub struct Volumes {
    root: PathBuf,
}

/// The volumes of one pod.
#[derive(Debug, Default)]
pub struct PodVolumes {
    by_name: BTreeMap<String, Laid>,
}

#[derive(Debug)]
struct Laid {
    host: PathBuf,
    account: Arc<Account>,
}

impl PodVolumes {
    /// The volume `name` as its guest is to see it under the path `guest`; none: there is none of that name.
    #[must_use]
    pub fn preopen(&self, name: &str, guest: String, read_only: bool) -> Option<Preopen> {
        let Laid { host, account } = self.by_name.get(name)?;
        Some(Preopen { guest, host: host.clone(), read_only, account: Some(account.clone()) })
    }
}

impl Volumes {
    /// Volumes below `root`, a folder of this alone. It is made when the first is.
    #[must_use]
    pub fn new(root: PathBuf) -> Volumes {
        Volumes { root }
    }

    /// Makes the volumes of the pod `uid`, or takes up those that are there. Blocks.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub fn lay(&self, uid: &str, storage: &Storage, told: &Told) -> io::Result<PodVolumes> {
        let pod = self.pod_folder(uid)?.join(EMPTY_DIR);
        let total = quota(storage.bytes, storage.files, told, |excess| match excess {
            Excess::Bytes => Exceeded::Pod,
            Excess::Files => Exceeded::Files,
        });
        let mut by_name = BTreeMap::new();
        for volume in &storage.empty_dirs {
            let host = pod.join(path_part(&volume.name)?);
            fs::create_dir_all(&host).map_err(|error| named(&host, "make", error))?;
            // Whoever the guests of the other containers are for the kernel (`volume/emptydir`: perm 0777).
            fs::set_permissions(&host, Permissions::from_mode(0o777))
                .map_err(|error| named(&host, "open to all", error))?;
            let used = tree::measure(&host).map_err(|error| named(&host, "measure", error))?;
            let name = volume.name.clone();
            let own = volume
                .limit
                .map(|limit| quota(limit, u64::MAX, told, move |_| Exceeded::Volume(name.clone())));
            let account = Account::new(own.into_iter().chain([total.clone()]).collect(), used);
            by_name.insert(volume.name.clone(), Laid { host, account });
        }
        Ok(PodVolumes { by_name })
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
        Ok(Preopen { guest: NOTICE_FOLDER.to_owned(), host, read_only: true, account: None })
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
        let folder = self.pod_folder(uid)?;
        tree::remove(&folder).map_err(|error| named(&folder, "remove", error))
    }

    /// Removes the volumes of all pods whose UID `keep` does not know. Blocks.
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
            let name = entry.map_err(|error| named(&self.root, "list", error))?.file_name();
            if let Some(uid) = name.to_str().filter(|uid| !keep(uid)) {
                outcome = self.remove(uid).and(outcome);
            }
        }
        outcome
    }

    fn pod_folder(&self, uid: &str) -> io::Result<PathBuf> {
        Ok(self.root.join(path_part(uid)?))
    }
}

fn quota(
    bytes: u64,
    files: u64,
    told: &Told,
    what: impl Fn(Excess) -> Exceeded + Send + Sync + 'static,
) -> Arc<Quota> {
    let told = told.clone();
    Arc::new(Quota::new(Amount { bytes, files }, move |excess| told(what(excess))))
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
#[allow(clippy::unwrap_used)]
mod tests;
