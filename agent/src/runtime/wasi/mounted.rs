//! Files that a guest sees under paths of their own: a volume's by a subPath, a device, a termination log.
//!
//! WASI preview 1 gives a guest folders and no files, so each such file belongs to the folder that its path is looked
//! for in. It is found there by its path, whatever has that name in the folder itself, as a file that is mounted
//! over another; and it stays the file that it was when the guest began.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{open, Mode, OFlags};

use super::folder::How;
use super::Errno;
use crate::runtime::quota::Account;
use crate::runtime::{FileMount, Preopen};

/// Files in one folder.
#[derive(Clone, Debug)]
pub struct Mounted(Vec<(String, FileMount)>);

/// A path without `.`, `..` and doubled slashes, as its letters have it; none: it leads above where it begins.
pub fn plain(path: &str) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
        match name {
            ".." => drop(names.pop()?),
            name => names.push(name),
        }
    }
    Some(names.join("/"))
}

/// What is left of `path` below `folder`, both plain; none: it is not below it.
pub fn below<'p>(path: &'p str, folder: &str) -> Option<&'p str> {
    if folder.is_empty() {
        return Some(path);
    }
    path.strip_prefix(folder)?.strip_prefix('/')
}

impl Mounted {
    /// The files of each folder, by its index: each file belongs to the innermost that it is in.
    pub fn under(folders: &[Preopen], files: &[FileMount]) -> BTreeMap<usize, Arc<Mounted>> {
        let mut under: BTreeMap<usize, Mounted> = BTreeMap::new();
        for file in files {
            let Some(path) = plain(&file.guest) else { continue };
            let places = folders.iter().enumerate().filter_map(|(index, folder)| {
                let at = plain(&folder.guest)?;
                below(&path, &at).map(|rest| (at.len(), index, rest.to_owned()))
            });
            if let Some((_, index, rest)) = places.max_by_key(|(len, ..)| *len) {
                under.entry(index).or_insert_with(|| Mounted(Vec::new())).0.push((rest, file.clone()));
            }
        }
        under.into_iter().map(|(index, files)| (index, Arc::new(files))).collect()
    }

    /// The file that `path` names, from the folder on.
    pub fn find(&self, path: &str) -> Option<&FileMount> {
        let path = plain(path)?;
        self.0.iter().find(|(own, _)| *own == path).map(|(_, file)| file)
    }

    /// The files that are in the folder `path` of this one; none: there are none.
    pub fn within(&self, path: &str) -> Option<Arc<Mounted>> {
        let folder = plain(path)?;
        let inside =
            |(own, file): &(String, FileMount)| Some((below(own, &folder)?.to_owned(), file.clone()));
        let files: Vec<_> = self.0.iter().filter_map(inside).collect();
        (!files.is_empty()).then(|| Arc::new(Mounted(files)))
    }
}

impl FileMount {
    /// Opens the file anew, or another handle of it.
    pub fn open(&self, path: &str, how: How) -> Result<OwnedFd, Errno> {
        if path.ends_with('/') || how.flags.contains(OFlags::DIRECTORY) {
            return Err(Errno::Notdir);
        }
        if how.flags.contains(OFlags::PATH) {
            return self.another();
        }
        if how.flags.contains(OFlags::CREATE | OFlags::EXCL) {
            return Err(Errno::Exist);
        }
        if how.cached {
            return Err(Errno::Again);
        }
        // A handle is opened by its name among the agent's own descriptors: the kernel has no other way.
        let name = format!("/proc/self/fd/{}", self.handle.as_raw_fd());
        let flags =
            how.flags.difference(OFlags::CREATE | OFlags::NOFOLLOW) | OFlags::CLOEXEC | OFlags::NOCTTY;
        let open = || Ok(open(name.as_str(), flags, Mode::empty())?);
        match &self.account {
            Some(account) => Account::opening(account, flags, || self.another(), open),
            None => open(),
        }
    }

    fn another(&self) -> Result<OwnedFd, Errno> {
        Ok(rustix::io::fcntl_dupfd_cloexec(&self.handle, 0)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::runtime::Place;

    #[test]
    fn files_belong_to_the_innermost_folder() {
        let folder = |guest: &str| Preopen {
            guest: guest.into(),
            place: Place::Folder("/".into()),
            read_only: false,
            account: None,
        };
        let handle: Arc<OwnedFd> = Arc::new(std::fs::File::open("/").unwrap().into());
        let file = |guest: &str| FileMount {
            guest: guest.into(),
            handle: handle.clone(),
            read_only: false,
            account: None,
        };
        let folders = [folder("/data"), folder("/data/in"), folder("/")];
        let files =
            [file("/data/a"), file("/data/in/b/c"), file("/database"), file("/dev//./log"), file("/../x")];
        let under = Mounted::under(&folders, &files);
        let paths = |index: usize| -> Vec<&str> {
            under.get(&index).unwrap().0.iter().map(|(path, _)| path.as_str()).collect()
        };
        assert_eq!((paths(0), paths(1), paths(2)), (vec!["a"], vec!["b/c"], vec!["database", "dev/log"]));
        let root = under.get(&2).unwrap();
        assert!(root.find("./dev/../dev/log").is_some() && root.find("dev/lo").is_none());
        assert!(root.find("../dev/log").is_none(), "above the folder there is nothing");
        assert!(root.within("dev").unwrap().find("log").is_some());
        assert!(root.within("de").is_none() && root.within(".").unwrap().find("database").is_some());
    }
}
