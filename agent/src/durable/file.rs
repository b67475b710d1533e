//! Files that are whole or absent.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{flock, FlockOperation};

/// Longest name of a file (`NAME_MAX`).
const MAX_NAME: usize = 255;
/// How the name of a file ends that is being written.
pub(super) const TEMPORARY: &str = ".tmp";

/// Writes `data` to `path` so that a power cut leaves the old file or the new one, never a part.
///
/// `mode` is the file's permission, 0o600 for anything secret. Blocks until the data and the folder
/// entry are on the disk.
///
/// # Errors
/// Whatever the file system says; the old file is untouched then.
pub fn write_atomic(path: &Path, data: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a file name is missing"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{:08x}{TEMPORARY}", fastrand::u32(..)));
    let temporary = folder.join(temporary);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(data)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Creates `path` and its parents, readable by the owner alone. An existing folder is left as it is.
///
/// # Errors
/// Whatever the file system says.
pub fn ensure_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Is it a name that is nothing but a file's in a folder? UIDs and names of the API's are, unless somebody means harm.
#[must_use]
pub fn is_plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain)
}

/// Keeps other processes out of a folder for as long as the returned file is open.
///
/// # Errors
/// `WouldBlock` when another process has it; whatever else the file system says.
pub fn lock_dir(path: &Path) -> io::Result<File> {
    let name = path.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(name)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// Removes a file, content when there is none.
///
/// # Errors
/// Whatever the file system says, but for "not found".
pub fn remove_if_exists(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_has_one_owner() {
        let folder = std::env::temp_dir().join(format!("copepod-lock-{:x}", fastrand::u64(..)));
        ensure_private_dir(&folder).unwrap();
        let first = lock_dir(&folder).unwrap();
        assert_eq!(lock_dir(&folder).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        lock_dir(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn replaces_whole_files_with_the_mode_asked_for_and_leaves_nothing_behind() {
        let folder = std::env::temp_dir().join(format!("copepod-file-{:x}", fastrand::u64(..)));
        ensure_private_dir(&folder).unwrap();
        let path = folder.join("key");
        write_atomic(&path, b"one", 0o600).unwrap();
        write_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        assert!(write_atomic(&folder.join("no/such/folder"), b"x", 0o600).is_err());
        remove_if_exists(&path).unwrap();
        remove_if_exists(&path).unwrap();
        fs::remove_dir(&folder).unwrap();
    }
}
