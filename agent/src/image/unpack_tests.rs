//! Archives of the system's own tar and gzip, and hostile ones made by hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let folder = std::env::temp_dir().join(format!("copepod-unpack-{:x}", fastrand::u64(..)));
        fs::create_dir_all(folder.join("root")).unwrap();
        Folder(folder)
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    fn unpack(&self, archive: &Path, room: &mut Room) -> io::Result<()> {
        layer(&Beneath::of(&self.root()).unwrap(), File::open(archive).unwrap(), room)
    }

    /// Unpacks an archive of these headers and contents.
    fn made(&self, entries: &[(&str, u8, &str, &[u8])]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (path, kind, link, content) in entries {
            bytes.extend(header(path, *kind, link, content.len()));
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        }
        bytes.extend([0; 2 * BLOCK]);
        let archive = self.0.join("made.tar");
        fs::write(&archive, bytes).unwrap();
        self.unpack(&archive, &mut Room::default())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn header(path: &str, kind: u8, link: &str, size: usize) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, path);
    put(100, "0000644\0");
    put(124, &format!("{size:011o}\0"));
    put(148, "        ");
    put(157, link);
    put(257, "ustar\0");
    block[156] = kind;
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

fn run(folder: &Path, command: &str) {
    let done = Command::new("sh").arg("-c").arg(command).current_dir(folder).status().unwrap();
    assert!(done.success(), "{command}");
}

#[test]
fn archives_of_tar_are_unpacked_as_tar_does() {
    for (format, compress) in [("gnu", true), ("posix", true), ("ustar", false)] {
        let folder = Folder::new();
        let long = if format == "ustar" { "n".repeat(90) } else { "n".repeat(200) };
        let make = format!(
            "mkdir -p in/deep/er && printf one > in/a && head -c 200000 /dev/urandom > in/deep/big && \
             printf x > in/deep/er/{long} && ln in/a in/b && ln -s deep/er in/link && mkfifo in/fifo && chmod 755 in/a && \
             tar --format={format} -cf layer.tar -C in ."
        );
        run(&folder.0, &make);
        if compress {
            // Two members, one after the other.
            run(&folder.0, "head -c 70000 layer.tar | gzip -c > l.gz; tail -c +70001 layer.tar | gzip -9 -c >> l.gz; mv l.gz layer.tar");
        }
        folder.unpack(&folder.0.join("layer.tar"), &mut Room::default()).unwrap();
        run(
            &folder.0,
            "rm in/fifo && diff -r --no-dereference in root && test -x root/a && test root/a -ef root/b",
        );
    }
}

#[test]
fn layers_lie_over_each_other_and_take_away() {
    let folder = Folder::new();
    let root = folder.root();
    folder.made(&[("etc/a", b'0', "", b"1"), ("etc/b", b'0', "", b"2"), ("var/x", b'0', "", b"3")]).unwrap();
    folder
        .made(&[
            ("etc/.wh.a", b'0', "", b""),
            ("etc/b", b'0', "", b"new"),
            ("var/.wh..wh..opq", b'0', "", b""),
        ])
        .unwrap();
    assert!(!root.join("etc/a").exists() && !root.join("var/x").exists() && root.join("var").is_dir());
    assert_eq!(fs::read_to_string(root.join("etc/b")).unwrap(), "new");
    // A file in the place of a folder, and the other way round.
    folder.made(&[("etc", b'0', "", b"file"), ("var", b'2', "etc", b"")]).unwrap();
    assert_eq!(fs::read_to_string(root.join("var")).unwrap(), "file");
    folder.made(&[("etc/", b'5', "", b""), ("etc/c", b'0', "", b"4")]).unwrap();
    assert_eq!(fs::read_to_string(root.join("etc/c")).unwrap(), "4");
}

#[test]
fn no_archive_writes_elsewhere() {
    let folder = Folder::new();
    fs::write(folder.0.join("outside"), "safe").unwrap();
    for entries in [
        &[("../outside", b'0', "", b"bad" as &[u8])] as &[(&str, u8, &str, &[u8])],
        &[("out", b'2', "..", b""), ("out/outside", b'0', "", b"bad")],
        &[("abs", b'2', "/tmp", b""), ("abs/copepod-bad", b'0', "", b"bad")],
        &[("hard", b'1', "../outside", b"")],
        &[("way", b'2', "..", b""), ("hard", b'1', "way/outside", b"")],
        &[("way", b'2', "..", b""), ("way/.wh.outside", b'0', "", b"")],
        &[("f", b'0', "", b""), ("f/g", b'0', "", b"")],
        &[("strange", b'Z', "", b"")],
        &[(".wh.", b'0', "", b"")],
    ] {
        assert!(folder.made(entries).is_err(), "{entries:?}");
        assert_eq!(fs::read_to_string(folder.0.join("outside")).unwrap(), "safe");
    }
    // A link that leads out is made as it is, and written over, not through.
    folder.made(&[("out", b'2', "../outside", b"")]).unwrap();
    folder.made(&[("out", b'0', "", b"own")]).unwrap();
    assert_eq!(fs::read_to_string(folder.0.join("outside")).unwrap(), "safe");
    assert_eq!(fs::read_to_string(folder.root().join("out")).unwrap(), "own");
    // An absolute name is one in the folder.
    folder.made(&[("/etc/x", b'0', "", b"in")]).unwrap();
    assert_eq!(fs::read_to_string(folder.root().join("etc/x")).unwrap(), "in");
}

#[test]
fn damaged_and_endless_archives_are_refused() {
    let folder = Folder::new();
    let archive = folder.0.join("bad");
    let unpack = |bytes: &[u8]| {
        fs::write(&archive, bytes).unwrap();
        folder.unpack(&archive, &mut Room::default()).unwrap_err().to_string()
    };
    assert!(unpack(&[b'x'; 600]).contains("no tar archive"));
    assert!(unpack(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0]).contains("zstd"));
    unpack(&[0x1f, 0x8b, 8, 0]);
    unpack(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    let mut cut = header("a", b'0', "", 1000);
    cut.extend([1; 100]);
    unpack(&cut);
    let mut room = Room { bytes: 10, names: 2 };
    let whole = |names: &[&str], size: usize| {
        let mut bytes = Vec::new();
        for name in names {
            bytes.extend(header(name, b'0', "", size));
            bytes.resize(bytes.len() + size.next_multiple_of(BLOCK), 1);
        }
        bytes
    };
    fs::write(&archive, whole(&["a", "b"], 8)).unwrap();
    assert!(folder.unpack(&archive, &mut room).unwrap_err().to_string().contains("bytes"));
    let mut room = Room { bytes: 100, names: 2 };
    fs::write(&archive, whole(&["a", "b", "c"], 8)).unwrap();
    assert!(folder.unpack(&archive, &mut room).unwrap_err().to_string().contains("names"));
}
