//! One file for each pod, by its UID: what a life of the agent leaves to the next. What is in it is `pod::checkpoint`'s
//! to say.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::file::{ensure_private_dir, is_plain_name, remove_if_exists, write_atomic, TEMPORARY};

/// Files that are read.
const MAX_FILES: usize = 10_000;
/// Largest file that is read: a pod's object has 1.5 MiB at most (etcd's limit), and so has each that it draws on.
const MAX_FILE: u64 = 32 * 1024 * 1024;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Checkpoints {
    /// None: nothing is kept.
    folder: Option<PathBuf>,
}

impl Checkpoints {
    /// Keeps them in `folder`, which is made; what a power cut left half written is removed. Blocks.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(folder: &Path) -> io::Result<Checkpoints> {
        ensure_private_dir(folder)?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(TEMPORARY) {
                remove_if_exists(&entry.path())?;
            }
        }
        Ok(Checkpoints { folder: Some(folder.to_owned()) })
    }

    /// Is anything kept at all?
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.folder.is_some()
    }

    /// Reads all, one after the other, for `each` to look at: the UID, and what is in the file. Blocks.
    ///
    /// # Errors
    /// That the folder cannot be listed.
    pub fn read(&self, mut each: impl FnMut(&str, io::Result<Vec<u8>>)) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        for entry in fs::read_dir(folder)?.take(MAX_FILES) {
            let entry = entry?;
            if let Some(uid) = entry.file_name().to_str().filter(|name| is_plain_name(name)) {
                each(uid, read(&entry.path()));
            }
        }
        Ok(())
    }

    /// Writes the file of the pod `uid` anew. On the disk when this returns. Blocks.
    ///
    /// # Errors
    /// What the file system says, with the path; a UID that is no name of a file.
    pub fn write(&self, uid: &str, data: &[u8]) -> io::Result<()> {
        let Some(path) = self.path(uid)? else { return Ok(()) };
        write_atomic(&path, data, 0o600)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    /// Removes the file of the pod `uid`, if there is one. Blocks.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self, uid: &str) -> io::Result<()> {
        self.path(uid)?.map_or(Ok(()), |path| remove_if_exists(&path))
    }

    /// Removes the files of all pods whose UID `keep` does not know. Blocks.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove_others(&self, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let other = entry.file_name().to_str().is_some_and(|name| is_plain_name(name) && !keep(name));
            if other {
                remove_if_exists(&entry.path())?;
            }
        }
        Ok(())
    }

    fn path(&self, uid: &str) -> io::Result<Option<PathBuf>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        if !is_plain_name(uid) {
            let text = format!("the UID {uid:?} cannot be the name of a file");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(Some(folder.join(uid)))
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(MAX_FILE.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > MAX_FILE {
        let text = format!("it is larger than {MAX_FILE} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn each_pod_has_a_file_of_its_own_which_nobody_else_reads() {
        let folder = std::env::temp_dir().join(format!("copepod-checkpoints-{:x}", fastrand::u64(..)));
        let checkpoints = Checkpoints::open(&folder).unwrap();
        let all = |checkpoints: &Checkpoints| {
            let mut all = Vec::new();
            checkpoints.read(|uid, data| all.push((uid.to_owned(), data.unwrap()))).unwrap();
            all.sort();
            all
        };
        checkpoints.write("a-1", b"one").unwrap();
        checkpoints.write("a-1", b"two").unwrap();
        checkpoints.write("b-2", b"three").unwrap();
        assert_eq!(fs::metadata(folder.join("a-1")).unwrap().permissions().mode() & 0o777, 0o600);
        let file = |name: &str, data: &str| (name.to_owned(), data.as_bytes().to_vec());
        assert_eq!(all(&checkpoints), [file("a-1", "two"), file("b-2", "three")]);
        // A power cut, and the next life.
        fs::write(folder.join(".a-1.00c0ffee.tmp"), b"tw").unwrap();
        let checkpoints = Checkpoints::open(&folder).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        checkpoints.remove_others(|uid| uid == "b-2").unwrap();
        assert_eq!(all(&checkpoints), [file("b-2", "three")]);
        for uid in ["", "../a", "a/b", ".a", &"x".repeat(300)] {
            assert!(checkpoints.write(uid, b"x").is_err(), "{uid:?}");
        }
        checkpoints.remove("b-2").unwrap();
        checkpoints.remove("b-2").unwrap();
        assert!(all(&checkpoints).is_empty());
        fs::remove_dir_all(&folder).unwrap();
        assert!(checkpoints.write("c", b"x").is_err(), "the folder is gone");
        let nowhere = Checkpoints::default();
        nowhere.write("../a", b"x").unwrap();
        nowhere.remove("c").unwrap();
        nowhere.remove_others(|_| false).unwrap();
        assert!(!nowhere.is_kept() && all(&nowhere).is_empty());
    }
}
