//! Files and folders: what a guest can do in its volumes, and that it cannot leave them.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::OFlags;

use super::super::wasi::folder::{Folder, How};
use super::super::wasi::Errno;
use super::*;

const CREATE: u32 = 1;
const DIRECTORY: u32 = 2;
const TRUNCATE: u32 = 8;

const BADF: u32 = 8;
const EXIST: u32 = 20;
const INVAL: u32 = 28;
const ISDIR: u32 = 31;
const LOOP: u32 = 32;
const NOENT: u32 = 44;
const NOTDIR: u32 = 54;
const PERM: u32 = 63;
const ROFS: u32 = 69;
const XDEV: u32 = 75;
const NOTCAPABLE: u32 = 76;

/// A folder of the host that goes with the test: `volume`, `other`, and `secret` beside them.
pub struct Disk(pub PathBuf);

impl Disk {
    pub fn new() -> Disk {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name =
            format!("copepod-volumes-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().join(name);
        for folder in ["volume/folder", "other"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("secret"), "secret").unwrap();
        fs::write(root.join("volume/file"), "content").unwrap();
        for (link, target) in [
            ("up", ".."),
            ("out", "../secret"),
            ("absolute", "/etc/passwd"),
            ("within", "file"),
            ("round", "round"),
        ] {
            std::os::unix::fs::symlink(target, root.join("volume").join(link)).unwrap();
        }
        Disk(root)
    }

    pub fn preopen(&self, guest: &str, host: &str, read_only: bool) -> Preopen {
        Preopen { guest: guest.into(), place: Place::Folder(self.0.join(host)), read_only, account: None }
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap()
    }

    fn run(&self, wasm: &[u8], read_only: bool) -> Exit {
        let runtime = runtime(1);
        let module = runtime.compile("", wasm).unwrap();
        let mut spec = spec(&Collected::new());
        spec.preopens =
            Arc::new([self.preopen("/data", "volume", read_only), self.preopen("/other", "other", false)]);
        block_on(runtime.spawn(&module, spec).unwrap().wait())
    }

    /// Runs calls on a writable volume; what the last answered.
    fn errno(&self, paths: &[&str], body: &str) -> u32 {
        match self.run(&guests::files(paths, body), false) {
            Exit::Code(errno) => errno,
            other => panic!("{body}: {other:?}"),
        }
    }

    fn open(&self, path: &str, flags: u32, write: bool) -> u32 {
        let body = format!("(call $open $0 (i32.const {flags}) (i32.const {}))", u32::from(write));
        self.errno(&[path], &body)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn opens_answer_what_the_path_says() {
    let disk = Disk::new();
    for (path, flags, write, errno) in [
        ("file", 0, true, 0),
        ("./folder/../file", 0, false, 0),
        ("within", 0, false, 0),
        ("folder", DIRECTORY, false, 0),
        (".", DIRECTORY, false, 0),
        ("folder", 0, true, ISDIR),
        ("file", DIRECTORY, false, NOTDIR),
        ("file/x", 0, false, NOTDIR),
        ("none", 0, false, NOENT),
        ("", 0, false, NOENT),
        ("none/x", CREATE, true, NOENT),
        ("round", 0, false, LOOP),
        ("folder", CREATE | DIRECTORY, false, INVAL),
        // Nothing outside.
        ("..", DIRECTORY, false, PERM),
        ("../secret", 0, false, PERM),
        ("folder/../../secret", 0, false, PERM),
        ("../volume/file", 0, false, PERM),
        ("/etc/passwd", 0, false, PERM),
        ("/", DIRECTORY, false, PERM),
        ("up/secret", 0, false, PERM),
        ("out", 0, true, PERM),
        ("absolute", 0, false, PERM),
        ("out", TRUNCATE, true, PERM),
        ("../new", CREATE, true, PERM),
    ] {
        assert_eq!(disk.open(path, flags, write), errno, "{path:?}, flags {flags}, write {write}");
    }
    assert_eq!(disk.read("secret"), "secret");
    assert!(!disk.0.join("new").exists());
}

#[test]
fn no_call_on_a_path_leaves_the_volume() {
    let disk = Disk::new();
    for body in [
        "(call $path_create_directory (i32.const 3) $0)",
        "(call $path_remove_directory (i32.const 3) $0)",
        "(call $path_unlink_file (i32.const 3) $0)",
        "(call $path_filestat_get (i32.const 3) (i32.const 0) $0 (i32.const 8192))",
        "(call $path_filestat_get (i32.const 3) (i32.const 1) $0 (i32.const 8192))",
        "(call $path_filestat_set_times (i32.const 3) (i32.const 0) $0 (i64.const 0) (i64.const 0) (i32.const 5))",
        "(call $path_filestat_set_times (i32.const 3) (i32.const 1) $0 (i64.const 0) (i64.const 0) (i32.const 5))",
        "(call $path_readlink (i32.const 3) $0 (i32.const 8192) (i32.const 64) (i32.const 512))",
        "(call $path_rename (i32.const 3) $0 (i32.const 3) $1)",
        "(call $path_rename (i32.const 3) $1 (i32.const 3) $0)",
        "(call $path_link (i32.const 3) (i32.const 0) $0 (i32.const 3) $2)",
        "(call $path_link (i32.const 3) (i32.const 0) $1 (i32.const 3) $0)",
        "(call $path_symlink $1 (i32.const 3) $0)",
    ] {
        for path in ["../secret", "/etc/passwd", "up/secret", "folder/../../secret", "up/../secret", ".."] {
            assert_eq!(disk.errno(&[path, "file", "new"], body), PERM, "{path:?}: {body}");
        }
    }
    assert_eq!(disk.read("secret"), "secret");
    assert_eq!(disk.read("volume/file"), "content");
}

#[test]
fn a_slash_after_a_link_does_not_lead_out() {
    let disk = Disk::new();
    let get = "(call $path_filestat_get (i32.const 3) (i32.const 0) $0 (i32.const 8192))";
    assert_eq!(disk.errno(&["up/"], get), PERM);
    let set = "(call $path_filestat_set_times (i32.const 3) (i32.const 0) $0 (i64.const 0) (i64.const 0) (i32.const 5))";
    assert_eq!(disk.errno(&["up/"], set), PERM);
    let read = "(call $path_readlink (i32.const 3) $0 (i32.const 8192) (i32.const 64) (i32.const 512))";
    assert_eq!(disk.errno(&["up/"], read), PERM);
    let make = "(call $path_create_directory (i32.const 3) $0)";
    assert_eq!(disk.errno(&["up/"], make), EXIST);
    let link = "(call $path_link (i32.const 3) (i32.const 0) $0 (i32.const 3) $1)";
    assert_eq!(disk.errno(&["up/", "new"], link), NOTDIR);
}

#[test]
fn links_that_a_guest_makes_lead_nowhere_else() {
    let disk = Disk::new();
    let symlink = |target| {
        disk.errno(
            &[target, "made", "made/secret"],
            "(block (result i32) (call $must (call $path_symlink $0 (i32.const 3) $1))
               (call $open $2 (i32.const 0) (i32.const 0)))",
        )
    };
    assert_eq!(symlink("/"), PERM, "no absolute link is made");
    assert_eq!(symlink(".."), PERM, "made, but not followed out");
    assert_eq!(fs::read_link(disk.0.join("volume/made")).unwrap(), PathBuf::from(".."));
}

#[test]
fn files_are_written_read_and_cut() {
    let disk = Disk::new();
    let body = "(block (result i32)
        (call $must (call $open $0 (i32.const 1) (i32.const 1)))
        (call $buffer (i32.const 4160) (i32.const 10))
        (call $must (call $fd_write (call $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
        (if (i32.ne (i32.load (i32.const 8)) (i32.const 10)) (then unreachable))
        (call $buffer (i32.const 4160) (i32.const 2))
        (call $must (call $fd_pwrite (call $fd) (i32.const 0) (i32.const 1) (i64.const 8) (i32.const 8)))
        (call $must (call $fd_tell (call $fd) (i32.const 16)))
        (if (i64.ne (i64.load (i32.const 16)) (i64.const 10)) (then unreachable))
        (call $buffer (i32.const 8192) (i32.const 64))
        (call $must (call $fd_pread (call $fd) (i32.const 0) (i32.const 1) (i64.const 7) (i32.const 8)))
        (if (i32.ne (i32.load (i32.const 8)) (i32.const 3)) (then unreachable))
        (if (i32.ne (i32.load (i32.const 8192)) (i32.const 0x00313037)) (then unreachable))
        (call $must (call $fd_filestat_set_size (call $fd) (i64.const 9)))
        (call $must (call $fd_sync (call $fd)))
        (call $fd_close (call $fd)))";
    assert_eq!(disk.errno(&["folder/new", "0123456789"], body), 0);
    assert_eq!(disk.read("volume/folder/new"), "012345670");
}

#[test]
fn appending_goes_to_the_end_and_pwrite_to_its_offset() {
    let disk = Disk::new();
    let body = "(block (result i32)
        (call $must (call $path_open (i32.const 3) (i32.const 1) $0 (i32.const 0) (i64.const -1) (i64.const -1)
          (i32.const 1) (i32.const 512)))
        (call $buffer (i32.const 4160) (i32.const 3))
        (call $must (call $fd_write (call $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
        (call $fd_pwrite (call $fd) (i32.const 0) (i32.const 1) (i64.const 1) (i32.const 8)))";
    assert_eq!(disk.errno(&["file", "abc"], body), 0);
    assert_eq!(disk.read("volume/file"), "cabcentabc");
}

#[test]
fn a_read_only_volume_answers_erofs_and_is_read() {
    let disk = Disk::new();
    let open = |flags: u32, write: u32| format!("(call $open $0 (i32.const {flags}) (i32.const {write}))");
    let cases = [
        ("file", open(0, 1), ROFS),
        ("file", open(TRUNCATE, 0), ROFS),
        ("new", open(CREATE, 0), ROFS),
        ("file", open(CREATE, 0), 0),
        ("file", open(0, 0), 0),
        ("new", "(call $path_create_directory (i32.const 3) $0)".into(), ROFS),
        ("folder", "(call $path_remove_directory (i32.const 3) $0)".into(), ROFS),
        ("file", "(call $path_unlink_file (i32.const 3) $0)".into(), ROFS),
        ("file", "(call $path_rename (i32.const 3) $0 (i32.const 3) $0)".into(), ROFS),
        ("file", "(call $path_link (i32.const 3) (i32.const 0) $0 (i32.const 3) $0)".into(), ROFS),
        ("file", "(call $path_symlink $0 (i32.const 3) $0)".into(), ROFS),
        (
            "file",
            "(call $path_filestat_set_times (i32.const 3) (i32.const 0) $0 (i64.const 0) (i64.const 0) (i32.const 5))".into(),
            ROFS,
        ),
    ];
    for (path, body, errno) in cases {
        assert_eq!(disk.run(&guests::files(&[path], &body), true), Exit::Code(errno), "{path}: {body}");
    }
    assert_eq!(disk.read("volume/file"), "content");
}

#[test]
fn nothing_moves_between_volumes() {
    let disk = Disk::new();
    assert_eq!(disk.errno(&["file"], "(call $path_rename (i32.const 3) $0 (i32.const 4) $0)"), XDEV);
    assert_eq!(
        disk.errno(&["file"], "(call $path_link (i32.const 3) (i32.const 0) $0 (i32.const 4) $0)"),
        XDEV
    );
    assert_eq!(disk.errno(&["file", "folder/f"], "(call $path_rename (i32.const 3) $0 (i32.const 3) $1)"), 0);
    assert_eq!(disk.read("volume/folder/f"), "content");
}

#[test]
fn rights_that_are_dropped_are_gone() {
    let disk = Disk::new();
    // Without fd_write (bit 6) inherited, nothing opens for writing; without path_open (13), nothing opens.
    let inherited = "(block (result i32)
        (call $must (call $fd_fdstat_set_rights (i32.const 3) (i64.const 0x2000) (i64.const 0x02)))
        (call $must (call $open $0 (i32.const 0) (i32.const 1)))
        (call $buffer (i32.const 4096) (i32.const 1))
        (call $fd_write (call $fd) (i32.const 0) (i32.const 1) (i32.const 8)))";
    assert_eq!(disk.errno(&["file"], inherited), NOTCAPABLE);
    let none = "(block (result i32)
        (call $must (call $fd_fdstat_set_rights (i32.const 3) (i64.const 0) (i64.const 0)))
        (call $open $0 (i32.const 0) (i32.const 0)))";
    assert_eq!(disk.errno(&["file"], none), NOTCAPABLE);
    let back = "(block (result i32)
        (call $must (call $fd_fdstat_set_rights (i32.const 3) (i64.const 0) (i64.const 0)))
        (call $fd_fdstat_set_rights (i32.const 3) (i64.const 1) (i64.const 0)))";
    assert_eq!(disk.errno(&[], back), NOTCAPABLE);
}

#[test]
fn a_folder_lists_its_entries_from_any_cookie() {
    let disk = Disk::new();
    for name in 0..200 {
        fs::write(disk.0.join(format!("other/entry-{name:03}")), "").unwrap();
    }
    // Counts the entries, one call for each: the buffer holds one of the longest.
    let body = "(block (result i32)
        (loop $next
          (call $must (call $fd_readdir (i32.const 4) (i32.const 8192) (i32.const 34) (i64.load (i32.const 600)) (i32.const 8)))
          (if (i32.ge_u (i32.load (i32.const 8)) (i32.const 25)) (then
            (i64.store (i32.const 600) (i64.load (i32.const 8192)))
            (i32.store (i32.const 608) (i32.add (i32.load (i32.const 608)) (i32.const 1)))
            (br $next))))
        (i32.load (i32.const 608)))";
    assert_eq!(disk.errno(&[], body), 202, "with . and ..");
}

#[test]
fn a_fifo_is_waited_for_and_a_guest_at_it_is_killed() {
    let disk = Disk::new();
    let fifo = disk.0.join("volume/fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let body = "(block (result i32)
        (call $must (call $open $0 (i32.const 0) (i32.const 0)))
        (call $buffer (i32.const 8192) (i32.const 8))
        (call $must (call $fd_read (call $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
        (i32.load8_u (i32.const 8192)))";
    let runtime = runtime(1);
    let module = runtime.compile("", &guests::files(&["fifo"], body)).unwrap();
    let start = || {
        let mut spec = spec(&Collected::new());
        spec.preopens = Arc::new([disk.preopen("/data", "volume", false)]);
        runtime.spawn(&module, spec).unwrap()
    };
    // Opened for both ends first, so that the guest's read finds a writer and waits.
    let mut writer = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let guest = start();
    let killed = start();
    killed.kill();
    assert_eq!(block_on(killed.wait()), Exit::Killed);
    io::Write::write_all(&mut writer, b"A").unwrap();
    assert_eq!(block_on(guest.wait()), Exit::Code(65));
}

#[test]
fn descriptors_have_a_limit_and_are_reused() {
    let disk = Disk::new();
    let forever = "(block (result i32)
        (loop $next (call $must (call $open $0 (i32.const 0) (i32.const 0))) (br $next)) (i32.const 0))";
    assert_eq!(disk.errno(&["file"], forever), 33, "EMFILE");
    let reused = "(block (result i32)
        (call $must (call $open $0 (i32.const 0) (i32.const 0)))
        (call $must (call $fd_close (call $fd)))
        (call $must (call $open $0 (i32.const 0) (i32.const 0)))
        (if (i32.ne (call $fd) (i32.const 5)) (then unreachable))
        (call $must (call $fd_renumber (call $fd) (i32.const 4)))
        (call $fd_close (call $fd)))";
    assert_eq!(disk.errno(&["file"], reused), BADF);
}

/// What both ways of resolving a path answer, for opens of every kind.
fn resolved(disk: &Disk, path: &str, flags: OFlags) -> (Result<u64, Errno>, Result<u64, Errno>) {
    let by = |walks| {
        let mut folder = Folder::preopen(&disk.preopen("/", "volume", false), 0, None).unwrap();
        assert!(!folder.at.walks, "this kernel has no openat2: the two cannot be compared");
        folder.at.walks = walks;
        let fd = folder.open(path, How { flags, cached: false })?;
        Ok(rustix::fs::fstat(fd)?.st_ino)
    };
    (by(false), by(true))
}

#[test]
fn both_ways_of_resolving_a_path_agree() {
    let disk = Disk::new();
    for (link, target) in [("folder/back", "../folder/./x"), ("slashed", "folder/"), ("dangling", "none")] {
        std::os::unix::fs::symlink(target, disk.0.join("volume").join(link)).unwrap();
    }
    fs::write(disk.0.join("volume/folder/x"), "").unwrap();
    let kinds = [
        OFlags::RDONLY,
        OFlags::RDONLY | OFlags::DIRECTORY,
        OFlags::RDONLY | OFlags::NOFOLLOW,
        OFlags::PATH,
        OFlags::PATH | OFlags::NOFOLLOW,
        OFlags::PATH | OFlags::DIRECTORY,
        OFlags::RDWR | OFlags::CREATE,
        OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
    ];
    let names = "file folder within up out absolute round slashed dangling none . .. \
                 folder/x folder/back folder/../file folder/../.. ../volume/file file/x within/x none/x up/secret \
                 slashed/x slashed/back slashed/.. folder/ folder/. folder/.. within/ up/ file/ //file /file";
    let mut differ = Vec::new();
    for path in names.split_whitespace() {
        for flags in kinds {
            let (kernel, walk) = resolved(&disk, path, flags);
            match (&kernel, &walk) {
                // A file made by the one is there for the other: only the error tells.
                (Ok(_), Err(Errno::Exist)) if flags.contains(OFlags::EXCL) => {}
                _ if kernel == walk => {}
                _ => differ.push(format!("{path}, {flags:?}: {kernel:?}, {walk:?}")),
            }
        }
        for made in ["none", "dangling"] {
            let _ = fs::remove_file(disk.0.join("volume").join(made));
        }
        std::os::unix::fs::symlink("none", disk.0.join("volume/dangling")).unwrap();
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    assert!(!disk.0.join("none").exists());
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let disk = Disk::new();
    let runtime = runtime(1);
    let module = runtime.compile("", &guests::exit(0)).unwrap();
    let mut spec = spec(&Collected::new());
    spec.preopens = Arc::new([disk.preopen("/data", "missing", false)]);
    let error = runtime.spawn(&module, spec).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("/data") && error.contains("missing"), "{error}");
}
