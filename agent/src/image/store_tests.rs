//! The store: whole or absent, whatever happens.

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        Folder(std::env::temp_dir().join(format!("copepod-store-{:x}", fastrand::u64(..))))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn put(store: &Store, reference: &str, module: &[u8], private: bool) -> Reference {
    let digest = Digest::of(module);
    let mut ingest = store.ingest(module.len() as u64).unwrap();
    ingest.append(module).unwrap();
    store.keep(ingest, &digest).unwrap();
    let reference: Reference = reference.parse().unwrap();
    let manifest = Digest::of(b"manifest of").to_string();
    for key in [reference.key(), format!("{}@{manifest}", reference.name())] {
        store
            .file(&Record {
                reference: key,
                manifest: manifest.clone(),
                module: digest.to_string(),
                size: module.len() as u64,
                entrypoint: vec!["/a".into()],
                cmd: Vec::new(),
                env: Vec::new(),
                private,
                logins: Vec::new(),
            })
            .unwrap();
    }
    reference
}

#[test]
fn finds_by_tag_and_by_digest_after_being_opened_again() {
    let folder = Folder::new();
    let store = Store::open(&folder.0).unwrap();
    let tag = put(&store, "r.io/a:1", b"module", true);
    let digest = tag.at(&Digest::of(b"manifest of"));
    drop(store);
    let store = Store::open(&folder.0).unwrap();
    for reference in [&tag, &digest] {
        let image = store.find(reference, Use::Module).unwrap();
        assert_eq!(fs::read(&image.module).unwrap(), b"module");
        assert_eq!(image.id, format!("r.io/a@{}", Digest::of(b"manifest of")));
        assert_eq!((image.size, image.entrypoint.as_slice()), (6, ["/a".to_owned()].as_slice()));
        assert!(matches!(store.find_for(reference, Use::Module, &Keyring::default()), Found::Locked));
    }
    assert!(store.find(&"r.io/a:2".parse().unwrap(), Use::Module).is_none());
    assert!(store.find(&"s.io/a:1".parse().unwrap(), Use::Module).is_none());
}

#[test]
fn lists_one_image_with_all_its_names_the_largest_first() {
    let folder = Folder::new();
    let store = Store::open(&folder.0).unwrap();
    put(&store, "r.io/a:1", b"module", false);
    put(&store, "r.io/a:2", b"module", false);
    let by_digest = format!("r.io/a@{}", Digest::of(b"manifest of"));
    assert_eq!(store.list(), [(vec![by_digest, "r.io/a:1".into(), "r.io/a:2".into()], 6)]);
}

#[test]
fn what_a_crash_left_is_removed_when_opened() {
    let folder = Folder::new();
    drop(Store::open(&folder.0).unwrap());
    fs::write(folder.0.join("ingest/0123"), b"half").unwrap();
    fs::write(folder.0.join("refs/.x.json.1.tmp"), b"half").unwrap();
    drop(Store::open(&folder.0).unwrap());
    assert_eq!(fs::read_dir(folder.0.join("ingest")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(folder.0.join("refs")).unwrap().count(), 0);
}

#[test]
fn an_unfinished_blob_leaves_nothing() {
    let folder = Folder::new();
    let store = Store::open(&folder.0).unwrap();
    let mut ingest = store.ingest(6).unwrap();
    ingest.append(b"mod").unwrap();
    assert_eq!(ingest.written(), 3);
    drop(ingest);
    assert_eq!(fs::read_dir(folder.0.join("ingest")).unwrap().count(), 0);
    assert!(!store.has(&Digest::of(b"mod"), 3));
}

#[test]
fn a_damaged_blob_or_record_counts_as_absent() {
    let folder = Folder::new();
    let store = Store::open(&folder.0).unwrap();
    let reference = put(&store, "r.io/a:1", b"module", false);
    let blob = store.find(&reference, Use::Module).unwrap().module;
    fs::write(&blob, b"modul").unwrap();
    assert!(store.find(&reference, Use::Module).is_none());
    assert!(store.list().is_empty());
    fs::remove_file(&blob).unwrap();
    fs::create_dir(&blob).unwrap();
    assert!(store.find(&reference, Use::Module).is_none());
    fs::remove_dir(&blob).unwrap();

    put(&store, "r.io/a:1", b"module", false);
    let record = store.record_path(&reference.key());
    for damage in ["", "{", "[]", r#"{"reference":"r.io/a:1","manifest":"x","module":"../x","size":1}"#] {
        fs::write(&record, damage).unwrap();
        assert!(store.find(&reference, Use::Module).is_none(), "{damage}");
    }
    // A record that stands under another's name is not believed.
    fs::copy(store.record_path("r.io/a:1"), &record).unwrap();
    put(&store, "r.io/b:1", b"module", false);
    fs::copy(store.record_path("r.io/b:1"), &record).unwrap();
    assert!(store.find(&reference, Use::Module).is_none());
}

#[test]
fn a_module_that_changed_on_disk_is_found_out_and_removed() {
    let folder = Folder::new();
    let store = Store::open(&folder.0).unwrap();
    let reference = put(&store, "r.io/a:1", b"module", false);
    let image = store.find(&reference, Use::Module).unwrap();
    assert!(store.verify(&image, b"module").unwrap());
    assert!(store.find(&reference, Use::Module).is_some());
    let elsewhere = Image { module: folder.0.join("blobs"), ..image.clone() };
    assert!(!store.verify(&elsewhere, b"nodule").unwrap());
    assert!(store.find(&reference, Use::Module).is_some(), "only the store's own file goes");
    assert!(!store.verify(&image, b"nodule").unwrap());
    assert!(store.find(&reference, Use::Module).is_none());
}

#[test]
fn the_logins_of_an_image_are_bounded_and_a_public_one_has_none() {
    let folder = Folder::new();
    let store = Store::open(&folder.0).unwrap();
    let reference = put(&store, "r.io/a:1", b"module", true);
    for n in 0..=MAX_LOGINS {
        let mut record = store.record(&reference, Use::Module).unwrap();
        record.logins = store.logins(&reference, Use::Module, Some(n.to_string())).unwrap();
        store.file(&record).unwrap();
    }
    let logins = store.record(&reference, Use::Module).unwrap().logins;
    assert_eq!((logins.len(), logins.first().unwrap().as_str()), (MAX_LOGINS, "1"));
    assert_eq!(store.logins(&reference, Use::Module, None), None);
    put(&store, "r.io/a:1", b"module", false);
    assert_eq!(store.logins(&reference, Use::Module, Some("x".to_owned())), None);
}

#[test]
fn a_module_that_the_disk_cannot_hold_is_refused_before_it_is_written() {
    let folder = Folder::new();
    let store = Store::open(&folder.0).unwrap();
    let error = store.ingest(u64::MAX / 2).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn filing_what_is_already_filed_writes_nothing() {
    use std::os::unix::fs::MetadataExt;
    let folder = Folder::new();
    let store = Store::open(&folder.0).unwrap();
    let reference = put(&store, "r.io/a:1", b"module", false);
    let inode = || fs::metadata(store.record_path(&reference.key())).unwrap().ino();
    let before = inode();
    put(&store, "r.io/a:1", b"module", false);
    assert_eq!(inode(), before);
    put(&store, "r.io/a:1", b"other module", false);
    assert_eq!(store.find(&reference, Use::Module).unwrap().size, 12);
}
