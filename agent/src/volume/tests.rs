//! Volumes on a real disk.

use std::sync::Mutex;

use super::*;
use crate::pod::storage::EmptyDir;

/// A root that goes with the test.
struct Root(PathBuf, Volumes);

impl Root {
    fn new() -> Root {
        let root = std::env::temp_dir().join(format!("copepod-volume-{:x}", fastrand::u64(..)));
        Root(root.clone(), Volumes::new(root))
    }
    fn lay(&self, limit: Option<u64>) -> io::Result<PodVolumes> {
        let empty_dirs = vec![EmptyDir { name: "cache".into(), limit }];
        let storage = Storage { bytes: 1 << 20, files: 100, empty_dirs };
        self.1.lay("uid", &storage, &(Arc::new(|_| {}) as Told))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = tree::remove(&self.0);
    }
}

/// A chain of folders deeper than any path or number of descriptors allows, and something at its end.
fn dig(root: &Path, depth: usize) {
    use rustix::fs::{mkdirat, openat, Mode, OFlags};
    let mut at = std::os::fd::OwnedFd::from(fs::File::open(root).unwrap());
    for _ in 0..depth {
        mkdirat(&at, "folder", Mode::from_raw_mode(0o777)).unwrap();
        at = openat(&at, "folder", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o666)).unwrap();
}

#[test]
fn a_volume_is_where_a_kubelet_has_it_and_open_to_all() {
    let root = Root::new();
    let volumes = root.lay(None).unwrap();
    let preopen = volumes.preopen("cache", "/cache".into(), true).unwrap();
    assert_eq!(preopen.host, root.0.join("uid/volumes/kubernetes.io~empty-dir/cache"));
    assert!(preopen.read_only && preopen.account.is_some());
    assert_eq!(fs::metadata(&preopen.host).unwrap().permissions().mode() & 0o777, 0o777);
    assert!(volumes.preopen("other", "/other".into(), false).is_none());
}

#[test]
fn what_an_earlier_life_left_counts() {
    let root = Root::new();
    let host = root.lay(None).unwrap().preopen("cache", "/".into(), false).unwrap().host;
    fs::write(host.join("a"), vec![1; 5000]).unwrap();
    fs::hard_link(host.join("a"), host.join("b")).unwrap();
    fs::create_dir(host.join("folder")).unwrap();
    fs::write(host.join("folder/c"), "c").unwrap();
    std::os::unix::fs::symlink("/", host.join("link")).unwrap();
    assert_eq!(tree::measure(&host).unwrap(), Amount { bytes: 8192 + 4096, files: 5 });
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell: Told = {
        let told = told.clone();
        Arc::new(move |exceeded| told.lock().unwrap().push(exceeded))
    };
    let empty_dirs = vec![EmptyDir { name: "cache".into(), limit: Some(12_288) }];
    let storage = Storage { bytes: 1 << 20, files: 6, empty_dirs };
    let account = root.1.lay("uid", &storage, &tell).unwrap().preopen("cache", "/".into(), false);
    let account = account.unwrap().account.unwrap();
    let refused = |bytes, files| account.take(Amount { bytes, files }).is_err();
    assert!(!refused(0, 1), "a sixth name");
    assert!(refused(4096, 0) && refused(4096, 0), "the volume is full");
    assert!(refused(0, 1), "a seventh");
    assert_eq!(*told.lock().unwrap(), [Exceeded::Volume("cache".into()), Exceeded::Files], "once each");
}

#[test]
fn it_is_removed_as_deep_as_it_is_and_nothing_beside_it() {
    let root = Root::new();
    let host = root.lay(None).unwrap().preopen("cache", "/".into(), false).unwrap().host;
    dig(&host, 3000);
    let outside = root.0.join("outside");
    fs::write(&outside, "outside").unwrap();
    std::os::unix::fs::symlink(&root.0, host.join("link")).unwrap();
    assert_eq!(tree::measure(&host).unwrap(), Amount { bytes: 0, files: 3002 });
    root.1.remove("uid").unwrap();
    assert!(!root.0.join("uid").exists());
    assert_eq!(fs::read_to_string(outside).unwrap(), "outside");
    root.1.remove("uid").unwrap();
}

#[test]
fn those_of_pods_that_are_gone_are_removed() {
    let root = Root::new();
    root.1.remove_others(|_| false).unwrap();
    root.lay(None).unwrap();
    fs::create_dir_all(root.0.join("gone/volumes")).unwrap();
    root.1.remove_others(|uid| uid == "uid").unwrap();
    assert!(root.0.join("uid").exists() && !root.0.join("gone").exists());
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let root = Root::new();
    for uid in ["", ".", "..", "a/b", "a\0b"] {
        assert_eq!(root.1.remove(uid).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{uid:?}");
    }
}
