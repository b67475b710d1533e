//! `hostPath` volumes: a path of this machine, if `--host-paths` lets pods have it, and if it is what the volume says
//! (`pkg/volume/hostpath/host_path.go`).

use std::fs::{read_link, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{fstat, open, FileType, Mode, OFlags};

use crate::runtime::beneath::Beneath;

/// A path of this machine that was found to be as it should.
#[derive(Debug)]
pub struct Found {
    /// A handle of it (`O_PATH`).
    pub handle: OwnedFd,
    /// It is a folder.
    pub is_folder: bool,
}

/// Finds `path`, which must lie in one of `allowed` whatever links lead there, and be of the kind `kind` (the API's
/// word). What the kind lets be made is made. Blocks.
///
/// # Errors
/// What is wrong, in a kubelet's words where it has some.
pub fn find(path: &str, kind: &str, allowed: &[PathBuf]) -> Result<Found, String> {
    let wanted = Path::new(path);
    if !path.starts_with('/') || path.split('/').any(|name| name == "..") {
        return Err(format!("hostPath {path:?} is no absolute path, or has .. in it"));
    }
    let refused = || {
        format!(
            "hostPath {path} is not among the paths that this node lets pods have: the machine's own settings name \
             them (--host-paths)"
        )
    };
    let Some(root) = allowed.iter().find(|root| wanted.starts_with(root)) else { return Err(refused()) };
    let handle = match handle(wanted) {
        Ok(handle) => handle,
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(wanted, kind, root)?,
        Err(error) => return Err(format!("hostPath {path}: {error}")),
    };
    // Where it really is: a link may have led anywhere.
    let real = read_link(format!("/proc/self/fd/{}", handle.as_raw_fd()));
    let real = real.map_err(|error| format!("hostPath {path}: {error}"))?;
    let inside = |root: &PathBuf| root.canonicalize().is_ok_and(|root| real.starts_with(root));
    if !allowed.iter().any(inside) {
        return Err(refused());
    }
    let mode = fstat(&handle).map_err(|error| format!("hostPath {path}: {error}"))?.st_mode;
    let is = FileType::from_raw_mode(mode);
    let (right, what) = match kind {
        "" => (true, ""),
        "Directory" | "DirectoryOrCreate" => (is == FileType::Directory, "a directory"),
        "File" | "FileOrCreate" => (is == FileType::RegularFile, "a file"),
        "Socket" => (is == FileType::Socket, "a socket file"),
        "CharDevice" => (is == FileType::CharacterDevice, "a character device"),
        "BlockDevice" => (is == FileType::BlockDevice, "a block device"),
        other => return Err(format!("{other} is an invalid volume type")),
    };
    if !right {
        return Err(format!("hostPath type check failed: {path} is not {what}"));
    }
    Ok(Found { handle, is_folder: is == FileType::Directory })
}

fn handle(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Makes what is not there, beneath the path that is allowed: no link leads out of that.
fn make(path: &Path, kind: &str, root: &Path) -> Result<OwnedFd, String> {
    let missing = |what: &str| Err(format!("hostPath type check failed: {} is not {what}", path.display()));
    match kind {
        // A container runtime makes a folder of what is not there and has no type.
        "" | "DirectoryOrCreate" | "FileOrCreate" => {}
        "Directory" => return missing("a directory"),
        "File" => return missing("a file"),
        "Socket" => return missing("a socket file"),
        "CharDevice" => return missing("a character device"),
        "BlockDevice" => return missing("a block device"),
        other => return Err(format!("{other} is an invalid volume type")),
    }
    let made = || -> io::Result<OwnedFd> {
        std::fs::create_dir_all(if kind == "FileOrCreate" { root.parent().unwrap_or(root) } else { root })?;
        let within = path.strip_prefix(root).unwrap_or(Path::new("")).to_str().unwrap_or_default();
        if kind == "FileOrCreate" {
            if within.is_empty() {
                OpenOptions::new().append(true).create(true).mode(0o644).open(path)?;
                return handle(path);
            }
            let root = Beneath::of(root)?;
            let flags = OFlags::WRONLY | OFlags::CREATE;
            root.open(within, flags, Mode::from_raw_mode(0o644), false)?;
            return Ok(root.handle(within)?);
        }
        let root = Beneath::of(root)?;
        root.make_folders(within, Mode::from_raw_mode(0o755))?;
        Ok(root.handle(if within.is_empty() { "." } else { within })?)
    };
    made().map_err(|error| format!("hostPath {}: cannot be made: {error}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn paths_are_what_they_should_be_and_where_they_may() {
        let root = std::env::temp_dir().join(format!("copepod-host-{:x}", fastrand::u64(..)));
        let (free, other) = (root.join("free"), root.join("other"));
        fs::create_dir_all(&free).unwrap();
        fs::create_dir_all(&other).unwrap();
        fs::write(free.join("file"), "x").unwrap();
        fs::write(other.join("file"), "x").unwrap();
        symlink(&other, free.join("out")).unwrap();
        symlink("file", free.join("in")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(free.join("socket")).unwrap();
        let allowed = [free.clone(), "/dev/null".into()];
        let find = |path: &str, kind: &str| {
            let path =
                if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", free.display()) };
            super::find(&path, kind, &allowed).map(|found| found.is_folder)
        };
        for (path, kind, is_folder) in [
            ("", "", true),
            ("", "Directory", true),
            ("file", "", false),
            ("file", "File", false),
            ("in", "File", false),
            ("socket", "Socket", false),
            ("/dev/null", "CharDevice", false),
            ("made/deep", "DirectoryOrCreate", true),
            ("made/deep", "Directory", true),
            ("made/file", "FileOrCreate", false),
            ("made/file", "FileOrCreate", false),
            ("unset", "", true),
        ] {
            assert_eq!(find(path, kind), Ok(is_folder), "{path} {kind}");
        }
        for (path, kind, text) in [
            ("file", "Directory", "is not a directory"),
            ("", "File", "is not a file"),
            ("none", "Directory", "is not a directory"),
            ("none", "File", "is not a file"),
            ("none", "Socket", "is not a socket file"),
            ("file", "CharDevice", "is not a character device"),
            ("file", "BlockDevice", "is not a block device"),
            ("none", "BlockDevice", "is not a block device"),
            ("file", "Nonsense", "invalid volume type"),
            ("none", "Nonsense", "invalid volume type"),
            ("../other/file", "", "has .. in it"),
            ("/dev/zero", "CharDevice", "--host-paths"),
            ("out/file", "", "--host-paths"),
            ("out", "", "--host-paths"),
            ("out/new", "DirectoryOrCreate", "cannot be made"),
            ("out/new", "FileOrCreate", "cannot be made"),
        ] {
            let error = find(path, kind).unwrap_err();
            assert!(error.contains(text), "{path} {kind}: {error}");
        }
        assert!(!other.join("new").exists());
        super::super::tree::remove(&root).unwrap();
    }
}
