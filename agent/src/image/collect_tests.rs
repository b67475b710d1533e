//! Images that go, and those that stay.

use std::sync::{Arc, Mutex};

use super::super::Use;
use super::*;

const ALL: u64 = u64::MAX;

struct Bench {
    folder: PathBuf,
    store: Store,
    /// What pods have; nothing while that is not known.
    pods: Arc<Mutex<Option<Vec<&'static str>>>>,
    mounted: Arc<Mutex<Vec<PathBuf>>>,
}

impl Bench {
    fn new() -> Bench {
        let folder = std::env::temp_dir().join(format!("copepod-collect-{:x}", fastrand::u64(..)));
        let store = Store::open(&folder).unwrap();
        let pods = Arc::new(Mutex::new(Some(Vec::<&str>::new())));
        let mounted = Arc::new(Mutex::new(Vec::new()));
        let (known, folders) = (pods.clone(), mounted.clone());
        store.keep_for(Box::new(move || {
            let mut in_use = InUse::default();
            for name in known.lock().unwrap().as_ref()? {
                in_use.name(&name.parse().unwrap());
            }
            folders.lock().unwrap().iter().for_each(|folder: &PathBuf| in_use.folder(folder.clone()));
            Some(in_use)
        }));
        Bench { folder, store, pods, mounted }
    }

    fn have(&self, names: &[&'static str]) {
        *self.pods.lock().unwrap() = Some(names.to_vec());
    }

    fn write(&self, name: &str, size: usize) -> Digest {
        let module: Vec<u8> = name.bytes().cycle().take(size).collect();
        let digest = Digest::of(&module);
        let mut ingest = self.store.ingest(size as u64).unwrap();
        ingest.append(&module).unwrap();
        self.store.keep(ingest, &digest).unwrap();
        digest
    }

    /// As a pull leaves it: under its name and its digest.
    fn file(&self, name: &str, manifest: &str, (module, size): (&Digest, usize), wanted: Use) {
        let reference: Reference = name.parse().unwrap();
        let manifest = Digest::of(manifest.as_bytes());
        for reference in [&reference.at(&manifest), &reference] {
            let record = Record {
                reference: super::super::store::key(reference, wanted),
                manifest: manifest.to_string(),
                module: module.to_string(),
                size: size as u64,
                entrypoint: Vec::new(),
                cmd: Vec::new(),
                env: Vec::new(),
                private: false,
                logins: Vec::new(),
            };
            self.store.file(&record).unwrap();
        }
    }

    fn put(&self, name: &str, size: usize) -> Digest {
        let digest = self.write(name, size);
        self.file(name, name, (&digest, size), Use::Module);
        digest
    }

    /// An image's files, one of them.
    fn unpack(&self, name: &str, manifest: &str) -> PathBuf {
        let folder = self.store.unpacking().unwrap();
        fs::write(folder.join("file"), name).unwrap();
        let digest = Digest::of(manifest.as_bytes());
        self.store.keep_files(&folder, &digest).unwrap();
        self.file(name, manifest, (&digest, 10), Use::Files);
        self.store.files(&digest)
    }

    fn has(&self, name: &str, wanted: Use) -> bool {
        self.store.find(&name.parse().unwrap(), wanted).is_some()
    }

    /// Which of these modules are here.
    fn left<'n>(&self, names: &[&'n str]) -> Vec<&'n str> {
        names.iter().copied().filter(|name| self.has(name, Use::Module)).collect()
    }

    fn count(&self, folder: &str) -> usize {
        fs::read_dir(self.folder.join(folder)).map_or(0, Iterator::count)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn a_disk_has_a_surplus_from_its_high_threshold_on() {
    let thresholds = Thresholds { high: 85, low: 80 };
    let room = |available| Room { capacity: 1000, available };
    assert_eq!((room(151).used(), room(151).surplus(thresholds)), (85, 49), "a part of a percent counts");
    assert_eq!((room(160).used(), room(160).surplus(thresholds)), (84, 0));
    assert_eq!((room(0).used(), room(0).surplus(thresholds)), (100, 200));
    assert_eq!(room(0).surplus(Thresholds { high: 100, low: 80 }), 0, "turned off");
    assert_eq!(room(900).surplus(Thresholds { high: 1, low: 0 }), 100);
    let none = Room { capacity: 0, available: 0 };
    assert_eq!((none.used(), none.surplus(thresholds)), (100, 0));
    let most = Room { capacity: u64::MAX, available: 1 };
    assert_eq!(most.surplus(thresholds), u64::MAX / 5 - 1);
}

#[test]
fn what_was_not_used_for_the_longest_goes_first_and_no_more_than_must() {
    let bench = Bench::new();
    let names = ["r.io/a:1", "r.io/b:1", "r.io/c:1", "r.io/d:1"];
    for name in names {
        bench.put(name, 100);
    }
    let changes = bench.store.changes();
    bench.have(&["r.io/a:1", "r.io/b:1"]);
    assert_eq!(bench.store.make_room(0).unwrap(), 0);
    bench.have(&["r.io/a:1"]);
    assert_eq!(bench.store.make_room(0).unwrap(), 0);
    assert_eq!((bench.left(&names).len(), bench.store.changes()), (4, changes));
    bench.have(&["r.io/d:1"]);
    assert_eq!(bench.store.make_room(1).unwrap(), 100);
    assert_eq!(bench.left(&names), ["r.io/a:1", "r.io/b:1", "r.io/d:1"], "c was never used");
    assert_eq!(bench.store.make_room(100).unwrap(), 100);
    assert_eq!(bench.left(&names), ["r.io/a:1", "r.io/d:1"]);
    assert_eq!(bench.store.make_room(ALL).unwrap(), 100);
    assert_eq!(bench.left(&names), ["r.io/d:1"], "a pod has it");
    assert_eq!((bench.count("refs"), bench.count("blobs/sha256")), (2, 1), "nothing else is left");
    assert_eq!((bench.store.list().len(), bench.store.changes()), (1, changes + 3));
}

#[test]
fn one_name_in_use_keeps_an_image_with_all_its_names() {
    let bench = Bench::new();
    let shared = bench.put("r.io/a:1", 100);
    bench.file("s.io/other:2", "another manifest", (&shared, 100), Use::Module);
    let digest = format!("r.io/a@{}", Digest::of(b"r.io/a:1"));
    for name in ["r.io/a:1", "s.io/other:2", &digest] {
        bench.have(&[name.to_owned().leak()]);
        assert_eq!(bench.store.make_room(ALL).unwrap(), 0, "{name}");
    }
    assert_eq!(bench.left(&["r.io/a:1", "s.io/other:2", &digest]).len(), 3);
    bench.have(&[]);
    assert_eq!(bench.store.make_room(ALL).unwrap(), 100, "once, however many names it has");
    assert_eq!((bench.count("refs"), bench.count("blobs/sha256")), (0, 0));
}

#[test]
fn files_of_images_stay_while_they_are_mounted_under_whatever_name() {
    let bench = Bench::new();
    let old = bench.unpack("r.io/data:1", "the older");
    // The name means another image now.
    let new = bench.unpack("r.io/data:1", "the newer");
    *bench.mounted.lock().unwrap() = vec![old.clone()];
    bench.have(&["r.io/data:1"]);
    assert_eq!(bench.store.make_room(ALL).unwrap(), 0);
    assert!(old.join("file").exists() && new.join("file").exists());
    bench.mounted.lock().unwrap().clear();
    assert_eq!(bench.store.make_room(ALL).unwrap(), 10);
    assert!(!old.exists() && new.join("file").exists());
    bench.have(&[]);
    assert_eq!(bench.store.make_room(ALL).unwrap(), 10);
    assert!(!new.exists() && !bench.has("r.io/data:1", Use::Files));
    assert_eq!((bench.count("refs"), bench.count("files"), bench.count("ingest")), (0, 0, 0));
}

#[test]
fn what_a_power_cut_left_goes_first_and_records_of_nothing_too() {
    let bench = Bench::new();
    bench.put("r.io/a:1", 100);
    bench.write("nobody's", 70);
    let lost = bench.put("r.io/lost:1", 50);
    fs::remove_file(bench.store.blob(&lost)).unwrap();
    assert_eq!(bench.store.make_room(70).unwrap(), 70);
    assert_eq!(bench.left(&["r.io/a:1"]).len(), 1);
    bench.have(&["r.io/a:1"]);
    assert_eq!(bench.store.make_room(ALL).unwrap(), 0, "it has no bytes any more");
    assert_eq!((bench.count("refs"), bench.count("blobs/sha256")), (2, 1));
}

#[test]
fn nothing_goes_while_it_is_not_known_who_needs_it() {
    let bench = Bench::new();
    bench.put("r.io/a:1", 100);
    *bench.pods.lock().unwrap() = None;
    assert_eq!(bench.store.make_room(ALL).unwrap(), 0);
    let full = Thresholds { high: 0, low: 0 };
    assert_eq!(bench.store.collect(full).unwrap(), Collected::NotNow);
    assert_eq!(bench.left(&["r.io/a:1"]).len(), 1);
    bench.have(&[]);
    let pull = bench.store.pulling();
    assert_eq!(bench.store.collect(full).unwrap(), Collected::NotNow, "a pull goes on");
    drop(pull);
    let roomy = Thresholds { high: 100, low: 0 };
    assert_eq!(bench.store.collect(roomy).unwrap(), Collected::Enough);
    assert_eq!(bench.left(&["r.io/a:1"]).len(), 1);
    let removed = bench.store.collect(full).unwrap();
    assert!(matches!(removed, Collected::Removed { freed: 100, .. }), "{removed:?}");
    assert!(bench.left(&["r.io/a:1"]).is_empty());

    let unasked = Store::open(&bench.folder).unwrap();
    assert_eq!(unasked.collect(full).unwrap(), Collected::NotNow, "nobody was named to be asked");
}

#[test]
fn a_record_that_cannot_be_read_stops_it() {
    let bench = Bench::new();
    bench.put("r.io/a:1", 100);
    // Reading it fails as a disk may, also for root.
    fs::create_dir(bench.store.refs().join("0000.json")).unwrap();
    let error = bench.store.make_room(ALL).unwrap_err().to_string();
    assert!(error.contains("0000.json"), "{error}");
    assert_eq!(bench.left(&["r.io/a:1"]).len(), 1);
}

#[test]
fn only_so_many_last_uses_are_remembered() {
    let bench = Bench::new();
    let names: Vec<&str> = (0..=MAX_REMEMBERED).map(|n| &*format!("r.io/a:{n}").leak()).collect();
    bench.have(&names);
    bench.store.make_room(0).unwrap();
    bench.have(&["r.io/b:1"]);
    bench.store.make_room(0).unwrap();
    let known: Vec<String> = bench.store.inner.last_used.lock().unwrap().keys().cloned().collect();
    assert_eq!(known, ["r.io/b:1"]);
}

#[test]
fn of_too_many_names_those_in_use_stay() {
    let bench = Bench::new();
    bench.have(&["r.io/a:used"]);
    let digest = bench.put("r.io/a:used", 100);
    let used = load_record(&bench.store.record_path("r.io/a:used")).unwrap().unwrap();
    for number in 0..MAX_RECORDS + 10 {
        let record = Record { reference: format!("r.io/a:{number}"), ..used.clone() };
        fs::write(bench.store.record_path(&record.reference), serde_json::to_vec(&record).unwrap()).unwrap();
    }
    assert_eq!(bench.store.make_room(ALL).unwrap(), 0);
    let left = bench.count("refs");
    assert!((MAX_RECORDS..=MAX_RECORDS + 2).contains(&left), "{left}");
    assert!(bench.has("r.io/a:used", Use::Module) && bench.store.blob(&digest).exists());
}

#[test]
fn files_that_are_mounted_stay_without_any_name() {
    let bench = Bench::new();
    let folder = bench.unpack("r.io/data:1", "one");
    *bench.mounted.lock().unwrap() = vec![folder.clone()];
    for entry in fs::read_dir(bench.store.refs()).unwrap() {
        fs::write(entry.unwrap().path(), "damaged").unwrap();
    }
    assert_eq!(bench.store.make_room(ALL).unwrap(), 0);
    assert!(folder.join("file").exists());
}
