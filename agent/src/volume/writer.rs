//! Writes the files of a volume so that a reader finds all of the old ones or all of the new ones
//! (`pkg/volume/util/atomic_writer.go`, and its layout).
//!
//! ```text
//! VOLUME/..2026_11_28_09_00_00.1234abcd/a/file     the files
//! VOLUME/..data -> ..2026_11_28_09_00_00.1234abcd  swapped by a rename
//! VOLUME/a -> ..data/a                             what is seen
//! ```

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{symlink, DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::tree;
use crate::durable::remove_if_exists;
use crate::pod::payload::{Payload, PayloadFile};

/// The link that is swapped, and its name while it is being made.
const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";
/// Files of a volume that are read back.
const MAX_FILES: usize = 10_000;
/// Bytes of them.
const MAX_BYTES: u64 = 8 << 20;

/// Makes `volume` hold these files and no others; `durable`: they are on the disk when this returns. Blocks.
///
/// # Errors
/// What the file system says; what was there before is there still.
pub fn write(volume: &Path, payload: &Payload, durable: bool) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(volume)?;
    let second = jiff::Timestamp::now().as_second();
    let at = jiff::Timestamp::from_second(second).unwrap_or_default().to_string();
    let name =
        format!("..{}.{:08x}", at.replace(['-', ':', 'T'], "_").trim_end_matches('Z'), fastrand::u32(..));
    let folder = volume.join(&name);
    let done = fill(&folder, payload, durable).and_then(|()| {
        remove_if_exists(&volume.join(NEW_DATA))?;
        symlink(&name, volume.join(NEW_DATA))?;
        fs::rename(volume.join(NEW_DATA), volume.join(DATA))
    });
    if let Err(error) = done {
        let _ = tree::remove(&folder);
        return Err(error);
    }
    let shown = link(volume, payload)?;
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let found = entry.file_name();
        let keep = |own: &str| found.to_str() == Some(own);
        if keep(&name) || keep(DATA) || found.to_str().is_some_and(|found| shown.contains(found)) {
            continue;
        }
        // Old files, what was being written when the power went, and names that are no more.
        if entry.file_type()?.is_dir() {
            tree::remove(&entry.path())?;
        } else {
            remove_if_exists(&entry.path())?;
        }
    }
    match durable {
        true => File::open(volume)?.sync_all(),
        false => Ok(()),
    }
}

fn fill(folder: &Path, payload: &Payload, durable: bool) -> io::Result<()> {
    DirBuilder::new().mode(0o755).create(folder)?;
    let mut folders = BTreeSet::from([folder.to_owned()]);
    for (path, file) in payload {
        let path = folder.join(path);
        if let Some(parent) = path.parent().filter(|parent| *parent != folder) {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
            folders.insert(parent.to_owned());
        }
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        out.write_all(&file.data)?;
        // The mask of the process has no say in it.
        out.set_permissions(Permissions::from_mode(file.mode))?;
        if durable {
            out.sync_all()?;
        }
    }
    if durable {
        for folder in folders {
            File::open(folder)?.sync_all()?;
        }
    }
    Ok(())
}

/// Makes the links that are seen; their names.
fn link<'p>(volume: &Path, payload: &'p Payload) -> io::Result<BTreeSet<&'p str>> {
    let names: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &names {
        let (link, target) = (volume.join(name), Path::new(DATA).join(name));
        match fs::read_link(&link) {
            Ok(known) if known == target => {}
            _ => {
                remove_if_exists(&link)?;
                symlink(target, link)?;
            }
        }
    }
    Ok(names)
}

/// The files that `volume` holds; none: nothing was ever written whole there. Blocks.
///
/// # Errors
/// What the file system says.
pub fn read(volume: &Path) -> io::Result<Option<Payload>> {
    let folder = match fs::read_link(volume.join(DATA)) {
        Ok(target) => volume.join(target),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut payload = Payload::new();
    let mut left = MAX_BYTES;
    let mut folders: Vec<(PathBuf, String)> = vec![(folder, String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = format!("{prefix}{name}");
            if entry.file_type()?.is_dir() {
                folders.push((entry.path(), format!("{path}/")));
                continue;
            }
            let file = File::open(entry.path())?;
            let mode = file.metadata()?.permissions().mode() & 0o777;
            let mut data = Vec::new();
            file.take(left.saturating_add(1)).read_to_end(&mut data)?;
            left = left.saturating_sub(u64::try_from(data.len()).unwrap_or(u64::MAX));
            payload.insert(path, PayloadFile { data, mode });
            if left == 0 || payload.len() > MAX_FILES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it has more files than any volume"));
            }
        }
    }
    Ok(Some(payload))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        let file = |data: &str, mode| PayloadFile { data: data.as_bytes().to_vec(), mode };
        files.iter().map(|(path, data, mode)| ((*path).to_owned(), file(data, *mode))).collect()
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_swapped_whole_and_old_ones_go() {
        let root = std::env::temp_dir().join(format!("copepod-writer-{:x}", fastrand::u64(..)));
        let volume = root.join("v");
        assert_eq!(read(&volume).unwrap(), None);
        let first = payload(&[("a", "1", 0o644), ("deep/er/b", "2", 0o400)]);
        write(&volume, &first, true).unwrap();
        assert_eq!(read(&volume).unwrap(), Some(first));
        assert_eq!(fs::read_to_string(volume.join("deep/er/b")).unwrap(), "2");
        let mode = fs::metadata(volume.join("deep/er/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o400);
        // What a power cut leaves.
        fs::create_dir(volume.join("..half")).unwrap();
        symlink("..half", volume.join(NEW_DATA)).unwrap();
        let held = File::open(volume.join("a")).unwrap();
        let second = payload(&[("a", "new", 0o644), ("c", "", 0o644)]);
        write(&volume, &second, false).unwrap();
        assert_eq!(read(&volume).unwrap(), Some(second));
        assert_eq!(io::read_to_string(held).unwrap(), "1", "who has it open goes on reading the old one");
        let is = names(&volume);
        let hidden = is.iter().filter(|name| name.starts_with("..")).count();
        assert_eq!((hidden, is.len()), (2, 4), "{is:?}");
        write(&volume, &Payload::new(), false).unwrap();
        assert_eq!(read(&volume).unwrap(), Some(Payload::new()));
        assert_eq!(names(&volume).len(), 2);
        tree::remove(&root).unwrap();
    }
}
