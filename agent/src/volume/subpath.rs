//! What a container mounts: whole volumes, and folders and files in them by a subPath (`pkg/volume/util/subpath`).
//!
//! A subPath is found beneath its volume, whatever links the guests of other containers have put there, and stays what
//! it was found to be.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{fstat, FileType, Mode, OFlags};

use super::{Laid, PodVolumes};
use crate::runtime::beneath::Beneath;
use crate::runtime::{FileMount, Place, Preopen};

/// A volume in a container's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The volume's name.
    pub volume: String,
    /// Absolute path inside the guest.
    pub guest: String,
    /// Writes answer EROFS.
    pub read_only: bool,
    /// What of the volume, its variables expanded; empty: all.
    pub sub_path: String,
}

/// What the guest is given for its mounts.
#[derive(Clone, Debug, Default)]
pub struct Mounts {
    /// Folders.
    pub folders: Vec<Preopen>,
    /// Files.
    pub files: Vec<FileMount>,
}

impl PodVolumes {
    /// Finds what is mounted; a volume that is not there is left out: admission has let its pod pass without it. Blocks.
    ///
    /// # Errors
    /// Which mount cannot be had, and why.
    pub fn mounts(&self, mounts: &[Mount]) -> Result<Mounts, String> {
        let mut found = Mounts::default();
        for mount in mounts {
            let Some(laid) = self.get(&mount.volume) else { continue };
            let read_only = mount.read_only || laid.read_only;
            let (guest, account) = (mount.guest.clone(), laid.account.clone());
            if !mount.sub_path.is_empty() {
                let handle = find(&laid, mount).map_err(|text| {
                    format!("failed to prepare subPath for volumeMount \"{}\": {text}", mount.volume)
                })?;
                match handle {
                    Found::Folder(fd) => {
                        let place = Place::Open(Arc::new(fd));
                        found.folders.push(Preopen { guest, place, read_only, account });
                    }
                    Found::File(fd) => {
                        found.files.push(FileMount { guest, handle: Arc::new(fd), read_only, account });
                    }
                }
            } else if let Some(handle) = laid.file {
                found.files.push(FileMount { guest, handle, read_only, account });
            } else {
                found.folders.push(Preopen { guest, place: laid.place, read_only, account });
            }
        }
        Ok(found)
    }
}

impl PodVolumes {
    /// What stands in a regular file of a volume, `limit` bytes at most. Blocks.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn read(&self, volume: &str, path: &str, limit: usize) -> std::io::Result<String> {
        use std::io::{Error, ErrorKind, Read};
        let Some(Laid { place: Place::Folder(host), .. }) = self.get(volume) else {
            return Err(ErrorKind::NotFound.into());
        };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = std::fs::File::from(Beneath::of(&host)?.open(path, flags, Mode::empty(), false)?);
        if !file.metadata()?.is_file() {
            return Err(Error::new(ErrorKind::InvalidInput, "it is no file"));
        }
        let mut text = String::new();
        let size = file
            .take(u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1))
            .read_to_string(&mut text)?;
        if size > limit {
            return Err(Error::new(ErrorKind::InvalidData, format!("it is longer than {limit} bytes")));
        }
        Ok(text)
    }
}

enum Found {
    Folder(OwnedFd),
    File(OwnedFd),
}

fn find(laid: &Laid, mount: &Mount) -> Result<Found, String> {
    let path = mount.sub_path.as_str();
    if path.starts_with('/') || path.split('/').any(|name| name == "..") {
        return Err(format!("subPath {path:?} is absolute, or has .. in it"));
    }
    if laid.file.is_some() {
        return Err("the volume is a file and has no subPaths".to_owned());
    }
    let said = |error: rustix::io::Errno| match error {
        rustix::io::Errno::XDEV => format!("subPath {path:?} leads out of its volume"),
        error => format!("subPath {path:?}: {error}"),
    };
    let root = match &laid.place {
        Place::Folder(host) => Beneath::of(host),
        Place::Open(fd) => rustix::fs::openat(fd, ".", super::root::FOLDER, Mode::empty())
            .map_err(std::io::Error::from)
            .and_then(Beneath::new),
        Place::Later(_) => return Err("the volume is not there yet".to_owned()),
    };
    let root = root.map_err(|error| error.to_string())?;
    let handle = match root.handle(path) {
        Err(rustix::io::Errno::NOENT) if !laid.read_only => {
            // As its volume is (`subpath_linux.go`, SafeMakeDir).
            let mode = fstat(root.as_fd()).map_err(said)?.st_mode;
            root.make_folders(path, Mode::from_raw_mode(mode & 0o777)).map_err(said)?;
            root.handle(path)
        }
        found => found,
    };
    let handle = handle.map_err(said)?;
    let mode = fstat(&handle).map_err(said)?.st_mode;
    Ok(match FileType::from_raw_mode(mode) {
        FileType::Directory => Found::Folder(handle),
        _ => Found::File(handle),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::runtime::quota::{Amount, Quota};
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::Mutex;

    #[test]
    fn a_sub_path_is_found_in_its_volume_or_not_at_all() {
        let root = std::env::temp_dir().join(format!("copepod-subpath-{:x}", fastrand::u64(..)));
        let volume = root.join("volume");
        fs::create_dir_all(volume.join("folder/in")).unwrap();
        fs::write(volume.join("folder/file"), "x").unwrap();
        fs::write(root.join("secret"), "x").unwrap();
        symlink("folder/in", volume.join("inside")).unwrap();
        symlink("../secret", volume.join("outside")).unwrap();
        symlink("/etc", volume.join("absolute")).unwrap();
        let laid =
            |read_only| Laid { place: Place::Folder(volume.clone()), account: None, file: None, read_only };
        let by_name = vec![("v".to_owned(), laid(false)), ("ro".to_owned(), laid(true))];
        let total = Arc::new(Quota::new(Amount::default(), |_| ()));
        let volumes = PodVolumes { by_name: Mutex::new(by_name), total };
        let mount = |volume: &str, sub_path: &str| {
            let (volume, guest, sub_path) = (volume.to_owned(), "/m".to_owned(), sub_path.to_owned());
            volumes.mounts(&[Mount { volume, guest, read_only: false, sub_path }])
        };
        for (path, folders, files) in
            [("", 1, 0), ("folder", 1, 0), ("inside", 1, 0), ("folder/file", 0, 1), ("new/one", 1, 0)]
        {
            let found = mount("v", path).unwrap();
            assert_eq!((found.folders.len(), found.files.len()), (folders, files), "{path}");
        }
        assert!(volume.join("new/one").is_dir());
        for (path, text) in [
            ("outside", "leads out of its volume"),
            ("absolute", "leads out of its volume"),
            ("absolute/new", "leads out of its volume"),
            ("../volume", "has .. in it"),
            ("/etc", "is absolute"),
            ("folder/file/x", "Not a directory"),
        ] {
            let error = mount("v", path).unwrap_err();
            assert!(error.contains(text), "{path}: {error}");
        }
        assert!(mount("ro", "not/there").unwrap_err().contains("No such file"));
        assert!(mount("ro", "folder").unwrap().folders.iter().all(|folder| folder.read_only));
        super::super::tree::remove(&root).unwrap();
    }
}
