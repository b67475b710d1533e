//! Waiting for a file that a person puts there, or puts right, and for a folder of them.

use std::fs::Metadata;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use async_io::{Async, Timer};
use futures_lite::FutureExt;
use rustix::fs::inotify::{add_watch, init, CreateFlags, WatchFlags};

/// Between two looks where the kernel does not tell: the folder is not there, or the file is a link to elsewhere.
const LOOK: Duration = Duration::from_secs(5);
/// Between two looks at a folder where the kernel does not tell (a kubelet's `fileCheckFrequency`).
const SCAN: Duration = Duration::from_secs(20);
/// Files that are looked at for being links.
const MAX_LINKS: usize = 1000;
/// Bytes of events that are read at once; how many there are does not matter.
const EVENTS: usize = 4096;

/// What a file was, to see whether it is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileState(Option<State>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    inode: u64,
    length: u64,
    /// Its change, not its modification: another owner or mode counts, too.
    changed: (i64, i64),
}

impl FileState {
    /// As it is now; also that there is none.
    #[must_use]
    pub fn of(path: &Path) -> FileState {
        let state = |found: Metadata| State {
            inode: found.ino(),
            length: found.len(),
            changed: (found.ctime(), found.ctime_nsec()),
        };
        FileState(std::fs::metadata(path).ok().map(state))
    }

    /// Waits until the file is another.
    pub async fn replaced(&self, path: &Path) {
        loop {
            // Watched before it is looked at, so that nothing happens in between.
            let watch = watch(path);
            if FileState::of(path) != *self {
                return;
            }
            let told = match &watch {
                Some(watch) => watch.read_with(read).await.is_ok(),
                None => false,
            };
            if !told {
                Timer::after(LOOK).await;
            }
        }
    }
}

/// A watch on a folder and the files in it.
pub struct FolderWatch {
    inotify: Option<Async<OwnedFd>>,
    /// What happens to some file elsewhere is not seen here.
    blind: bool,
}

impl FolderWatch {
    /// Watches from now on. Look at the folder after this, and what happens in between is not missed.
    #[must_use]
    pub fn begin(folder: &Path) -> FolderWatch {
        let links = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let blind = links.take(MAX_LINKS).any(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
        FolderWatch { inotify: watch_folder(folder), blind }
    }

    /// Waits until something may have changed; where the kernel does not tell, for [`SCAN`].
    pub async fn changed(&self) {
        let told = async {
            match &self.inotify {
                Some(inotify) if inotify.read_with(read).await.is_ok() => {}
                _ => std::future::pending().await,
            }
        };
        if self.inotify.is_some() && !self.blind {
            return told.await;
        }
        let late = async {
            Timer::after(SCAN).await;
        };
        told.or(late).await;
    }
}

/// A watch on the file's folder, as a file that is not there, or is renamed to, cannot be watched itself.
fn watch(path: &Path) -> Option<Async<OwnedFd>> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        return None;
    }
    watch_folder(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

fn watch_folder(folder: &Path) -> Option<Async<OwnedFd>> {
    let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
    let changes = WatchFlags::CREATE
        | WatchFlags::MOVED_TO
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::ATTRIB
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF;
    add_watch(&inotify, folder, changes | WatchFlags::ONLYDIR).ok()?;
    Async::new_nonblocking(inotify).ok()
}

/// Takes what the kernel tells, whatever it is.
fn read(inotify: &OwnedFd) -> std::io::Result<()> {
    let mut events = [MaybeUninit::uninit(); EVENTS];
    rustix::io::read(inotify, &mut events[..])?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use async_io::block_on;
    use futures_lite::future::zip;
    use std::fs;

    #[test]
    fn another_file_is_noticed_however_it_comes() {
        let folder = std::env::temp_dir().join(format!("copepod-replaced-{:x}", fastrand::u64(..)));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("file");
        let next = folder.join("next");
        let changes: [(&str, &dyn Fn()); 6] = [
            ("it is made", &|| fs::write(&path, "1").unwrap()),
            ("it is written to", &|| fs::write(&path, "12").unwrap()),
            ("another takes its name", &|| {
                fs::write(&next, "3").unwrap();
                fs::rename(&next, &path).unwrap();
            }),
            ("its mode changes", &|| {
                let mut mode = fs::metadata(&path).unwrap().permissions();
                mode.set_readonly(true);
                fs::set_permissions(&path, mode).unwrap();
            }),
            ("it goes", &|| fs::remove_file(&path).unwrap()),
            ("its folder goes and comes back with it", &|| {
                fs::remove_dir(&folder).unwrap();
                fs::create_dir(&folder).unwrap();
                fs::write(&path, "4").unwrap();
            }),
        ];
        for (what, change) in changes {
            let before = FileState::of(&path);
            assert_eq!(before, FileState::of(&path), "{what}: not yet");
            // The wait has begun before anything changes.
            block_on(zip(before.replaced(&path), async { change() }));
            assert_ne!(before, FileState::of(&path), "{what}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_happens_in_a_folder_is_noticed_and_what_the_kernel_does_not_tell_is_looked_for() {
        let folder = std::env::temp_dir().join(format!("copepod-watched-{:x}", fastrand::u64(..)));
        assert!(
            FolderWatch::begin(&folder).inotify.is_none(),
            "it is not there: there is a look now and then"
        );
        fs::create_dir(&folder).unwrap();
        let watch = FolderWatch::begin(&folder);
        block_on(zip(watch.changed(), async { fs::write(folder.join("a"), "1").unwrap() }));
        let watch = FolderWatch::begin(&folder);
        assert!(!watch.blind);
        block_on(zip(watch.changed(), async { fs::remove_file(folder.join("a")).unwrap() }));
        std::os::unix::fs::symlink("/elsewhere", folder.join("link")).unwrap();
        assert!(FolderWatch::begin(&folder).blind);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_file_of_another_name_is_not_it() {
        let folder = std::env::temp_dir().join(format!("copepod-neighbour-{:x}", fastrand::u64(..)));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("file");
        let noticed = async {
            FileState::of(&path).replaced(&path).await;
            true
        };
        let neighbours = async {
            for number in 0..20 {
                fs::write(folder.join(number.to_string()), "x").unwrap();
                Timer::after(Duration::from_millis(5)).await;
            }
            false
        };
        assert!(!block_on(futures_lite::future::or(noticed, neighbours)));
        fs::remove_dir_all(&folder).unwrap();
    }
}
