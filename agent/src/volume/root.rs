//! A container's own root: what its guest sees where nothing is mounted. It lasts as long as one run, and is made when
//! the guest first looks into it, as most never do.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{fstat, FileType, Mode, OFlags};

use super::tree;
use crate::runtime::beneath::Beneath;

/// How a folder is opened.
pub(super) const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Bytes of a termination message (`MaxContainerTerminationMessageLength`).
const MAX_MESSAGE: usize = 4096;

/// What is in a root to begin with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootFiles {
    /// `/etc/hosts`
    pub hosts: String,
    /// `/etc/hostname`
    pub hostname: String,
    /// Where the termination message is written: absolute.
    pub message: String,
    /// Where folders are mounted: absolute.
    pub folders: Vec<String>,
    /// Where files are mounted: absolute.
    pub files: Vec<String>,
}

/// Makes a root anew, whatever a run before this one has left of its own. Blocks.
///
/// # Errors
/// What the file system says.
pub fn lay(root: &Path, content: &RootFiles) -> io::Result<OwnedFd> {
    tree::remove(root)?;
    DirBuilder::new().recursive(true).mode(0o755).create(root)?;
    for (name, mode) in [("dev", 0o755), ("etc", 0o755), ("tmp", 0o1777)] {
        fs::create_dir(root.join(name))?;
        fs::set_permissions(root.join(name), Permissions::from_mode(mode))?;
    }
    fs::write(root.join("etc/hosts"), &content.hosts)?;
    fs::write(root.join("etc/hostname"), format!("{}\n", content.hostname))?;
    let beneath = Beneath::of(root)?;
    for folder in &content.folders {
        beneath.make_folders(folder, Mode::from_raw_mode(0o755))?;
    }
    let files = content.files.iter().chain([&content.message]);
    for file in files.map(|file| file.trim_matches('/')).filter(|file| !file.is_empty()) {
        let (parent, _) = file.rsplit_once('/').unwrap_or_default();
        beneath.make_folders(parent, Mode::from_raw_mode(0o755))?;
        beneath.open(file, OFlags::WRONLY | OFlags::CREATE, Mode::from_raw_mode(0o666), false)?;
    }
    Ok(beneath.fd)
}

/// The end of the termination message that is in a root; nothing: there is none, or the guest has put there what
/// is none. Blocks.
#[must_use]
pub fn message(root: &OwnedFd, path: &str) -> Vec<u8> {
    let read = || -> io::Result<Vec<u8>> {
        let beneath = Beneath::new(rustix::io::fcntl_dupfd_cloexec(root, 0)?)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = beneath.open(path.trim_matches('/'), flags, Mode::empty(), false)?;
        tail(&file)
    };
    read().unwrap_or_default()
}

/// The last [`MAX_MESSAGE`] bytes of a regular file.
fn tail(file: &OwnedFd) -> io::Result<Vec<u8>> {
    let stat = fstat(file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(Vec::new());
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let mut at = size.saturating_sub(MAX_MESSAGE as u64);
    let mut bytes = Vec::new();
    let mut buffer = [0; 1024];
    while bytes.len() < MAX_MESSAGE {
        let room = MAX_MESSAGE.saturating_sub(bytes.len()).min(buffer.len());
        let read = rustix::io::pread(file, buffer.get_mut(..room).unwrap_or(&mut []), at)?;
        if read == 0 {
            break;
        }
        bytes.extend_from_slice(buffer.get(..read).unwrap_or(&[]));
        at = at.saturating_add(read as u64);
    }
    Ok(bytes)
}

/// A file of a root that is mounted elsewhere: the termination message whose path is in a volume. Blocks.
///
/// # Errors
/// What the file system says.
pub fn handle(root: &OwnedFd, path: &str) -> io::Result<Arc<OwnedFd>> {
    let beneath = Beneath::new(rustix::io::fcntl_dupfd_cloexec(root, 0)?)?;
    Ok(Arc::new(beneath.handle(path.trim_matches('/'))?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_root_is_new_for_each_run_and_its_message_is_cut() {
        let root = std::env::temp_dir().join(format!("copepod-root-{:x}", fastrand::u64(..)));
        let content = RootFiles {
            hosts: "127.0.0.1\tlocalhost\n".into(),
            hostname: "p".into(),
            message: "/dev/termination-log".into(),
            folders: vec!["/data/in".into(), "/etc".into()],
            files: vec!["/etc/app/app.conf".into()],
        };
        let fd = lay(&root, &content).unwrap();
        for (path, text) in
            [("etc/hosts", "127.0.0.1\tlocalhost\n"), ("etc/hostname", "p\n"), ("dev/termination-log", "")]
        {
            assert_eq!(fs::read_to_string(root.join(path)).unwrap(), text);
        }
        assert!(root.join("data/in").is_dir() && root.join("etc/app/app.conf").is_file());
        assert_eq!(fs::metadata(root.join("tmp")).unwrap().permissions().mode() & 0o7777, 0o1777);
        fs::write(root.join("tmp/left"), "x").unwrap();
        assert_eq!(message(&fd, &content.message), b"");
        fs::write(root.join("dev/termination-log"), "x".repeat(5000) + "end").unwrap();
        let said = message(&fd, &content.message);
        assert_eq!((said.len(), said.ends_with(b"end")), (MAX_MESSAGE, true));
        // What a guest may put there instead.
        fs::remove_file(root.join("dev/termination-log")).unwrap();
        symlink("../etc/hosts", root.join("dev/termination-log")).unwrap();
        assert_eq!(message(&fd, &content.message), b"");
        fs::remove_file(root.join("dev/termination-log")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("dev/termination-log"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert_eq!(message(&fd, &content.message), b"");
        lay(&root, &content).unwrap();
        assert!(!root.join("tmp/left").exists());
        tree::remove(&root).unwrap();
    }
}
