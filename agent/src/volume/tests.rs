//! Volumes on a real disk.

use std::sync::Mutex;

use super::*;
use crate::pod::storage::EmptyDir;

/// A root that goes with the test.
struct Root(PathBuf, Volumes);

impl Root {
    fn new() -> Root {
        let root = std::env::temp_dir().join(format!("copepod-volume-{:x}", fastrand::u64(..)));
        Root(root.clone(), Volumes::new(root.join("disk"), root.join("memory"), Vec::new(), true))
    }
    fn disk(&self) -> PathBuf {
        self.0.join("disk")
    }
    fn lay(&self, limit: Option<u64>) -> PodVolumes {
        let empty_dirs = vec![cache(limit)];
        let storage = Storage { bytes: 1 << 20, files: 100, empty_dirs };
        self.1.lay("uid", &storage, &[], &(Arc::new(|_| {}) as Told)).unwrap()
    }
}

fn cache(limit: Option<u64>) -> EmptyDir {
    EmptyDir { name: "cache".into(), limit, evicts: true, in_memory: false, files: 100 }
}

/// The volume `name` as it is mounted.
fn preopen(volumes: &PodVolumes, name: &str, read_only: bool) -> Option<Preopen> {
    let mount = Mount { volume: name.into(), guest: "/".into(), read_only, sub_path: String::new() };
    volumes.mounts(&[mount]).unwrap().folders.pop()
}

fn host(preopen: &Preopen) -> PathBuf {
    let Place::Folder(host) = &preopen.place else { panic!("{preopen:?}") };
    host.clone()
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
    let volumes = root.lay(None);
    let mounted = preopen(&volumes, "cache", true).unwrap();
    assert_eq!(host(&mounted), root.disk().join("uid/volumes/kubernetes.io~empty-dir/cache"));
    assert!(mounted.read_only && mounted.account.is_some());
    assert_eq!(fs::metadata(host(&mounted)).unwrap().permissions().mode() & 0o777, 0o777);
    assert_eq!(fs::metadata(root.disk()).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(preopen(&volumes, "other", false).is_none());
}

#[test]
fn what_an_earlier_life_left_counts() {
    let root = Root::new();
    let host = host(&preopen(&root.lay(None), "cache", false).unwrap());
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
    let empty_dirs = vec![cache(Some(12_288))];
    let storage = Storage { bytes: 1 << 20, files: 6, empty_dirs };
    let volumes = root.1.lay("uid", &storage, &[], &tell).unwrap();
    let account = preopen(&volumes, "cache", false).unwrap().account.unwrap();
    let refused = |bytes, files| account.take(Amount { bytes, files }).is_err();
    assert!(!refused(0, 1), "a sixth name");
    assert!(refused(4096, 0) && refused(4096, 0), "the volume is full");
    assert!(refused(0, 1), "a seventh");
    assert_eq!(*told.lock().unwrap(), [Exceeded::Volume("cache".into()), Exceeded::Files], "once each");
}

#[test]
fn it_is_removed_as_deep_as_it_is_and_nothing_beside_it() {
    let root = Root::new();
    let host = host(&preopen(&root.lay(None), "cache", false).unwrap());
    dig(&host, 3000);
    let outside = root.disk().join("outside");
    fs::write(&outside, "outside").unwrap();
    std::os::unix::fs::symlink(root.disk(), host.join("link")).unwrap();
    assert_eq!(tree::measure(&host).unwrap(), Amount { bytes: 0, files: 3002 });
    root.1.remove("uid").unwrap();
    assert!(!root.disk().join("uid").exists());
    assert_eq!(fs::read_to_string(outside).unwrap(), "outside");
    root.1.remove("uid").unwrap();
}

#[test]
fn those_of_pods_that_are_gone_are_removed() {
    let root = Root::new();
    root.1.remove_others(|_| false).unwrap();
    root.lay(None);
    fs::create_dir_all(root.disk().join("gone/volumes")).unwrap();
    root.1.remove_others(|uid| uid == "uid").unwrap();
    assert!(root.disk().join("uid").exists() && !root.disk().join("gone").exists());
}

#[test]
fn what_is_in_memory_is_limited_there_and_no_excess_of_the_pods() {
    let root = Root::new();
    let fast = EmptyDir { name: "fast".into(), limit: Some(8192), evicts: false, in_memory: true, files: 2 };
    let storage = Storage { bytes: 4096, files: 100, empty_dirs: vec![fast] };
    let told: Told = Arc::new(|exceeded| panic!("{exceeded:?}"));
    let volumes = root.1.lay("uid", &storage, &[], &told).unwrap();
    let mounted = preopen(&volumes, "fast", false).unwrap();
    assert_eq!(host(&mounted), root.0.join("memory/uid/volumes/kubernetes.io~empty-dir/fast"));
    let account = mounted.account.unwrap();
    assert!(account.take(Amount { bytes: 8192, files: 2 }).is_ok());
    assert!(account.take(Amount { bytes: 1, files: 0 }).is_err());
    assert!(account.take(Amount { bytes: 0, files: 1 }).is_err());
    root.1.remove("uid").unwrap();
    assert!(!root.0.join("memory/uid").exists());
}

#[test]
fn secrets_are_in_memory_and_come_back_from_the_disk_if_they_may() {
    use crate::pod::payload::PayloadFile;
    let file = |text: &str| PayloadFile { data: text.as_bytes().to_vec(), mode: 0o400 };
    let payload = |text: &str| Payload::from([("key".to_owned(), file(text))]);
    let volume = |name: &str, secret| ObjectVolume {
        uid: "uid".into(),
        name: name.into(),
        kind: if secret { "secret" } else { "configMap" }.into(),
        secret,
    };
    for at_rest in [true, false] {
        let root = Root::new();
        let volumes = Volumes::new(root.disk(), root.0.join("memory"), Vec::new(), at_rest);
        assert_eq!(volumes.take_up(&volume("s", true)).unwrap(), None);
        let secret = volumes.write(&volume("s", true), &payload("hidden"), true).unwrap();
        let settings = volumes.write(&volume("c", false), &payload("plain"), true).unwrap();
        assert!(secret.starts_with(root.0.join("memory")) && settings.starts_with(root.disk()));
        // A token that was renewed is not written to the disk again.
        volumes.write(&volume("s", true), &payload("renewed"), false).unwrap();
        assert_eq!(fs::read_to_string(secret.join("key")).unwrap(), "renewed");
        let on_disk = walk(&root.disk());
        assert_eq!(on_disk.contains("hidden"), at_rest, "{on_disk}");
        assert!(!on_disk.contains("renewed"));
        // A power cut.
        tree::remove(&root.0.join("memory")).unwrap();
        let again = volumes.take_up(&volume("s", true)).unwrap();
        assert_eq!(again, at_rest.then(|| secret.clone()));
        if at_rest {
            assert_eq!(fs::read_to_string(secret.join("key")).unwrap(), "hidden");
        }
        assert_eq!(volumes.take_up(&volume("c", false)).unwrap(), Some(settings));
    }
}

/// All that stands in the files of a folder.
fn walk(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&walk(&path));
        } else {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    text
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let root = Root::new();
    for uid in ["", ".", "..", "a/b", "a\0b"] {
        assert_eq!(root.1.remove(uid).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{uid:?}");
    }
}
