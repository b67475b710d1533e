//! The static pods of a folder: one manifest a file, followed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{read, static_pod};
use crate::api::Pod;
use crate::control;
use crate::durable::clock::Now;
use crate::durable::{FileState, FolderWatch};

/// Files that are looked at.
const MAX_MANIFESTS: usize = 1000;

/// What is known of the folder.
#[derive(Default)]
struct Known {
    files: BTreeMap<OsString, File>,
    /// What was said of the folder last.
    problem: String,
}

struct File {
    state: FileState,
    /// Of the last version that made sense.
    pod: Option<Pod>,
}

/// Tells of all static pods in `folder` as often as they change, for ever. A manifest that no longer makes sense
/// leaves its pod as it was; one that is gone takes its pod away.
pub async fn follow(folder: PathBuf, node: String, tell: impl Fn(Vec<Pod>)) {
    let mut known = Known::default();
    let mut told = false;
    loop {
        // Watched before it is looked at, so that nothing happens in between.
        let watch = FolderWatch::begin(&folder);
        let (path, node) = (folder.clone(), node.clone());
        let changed;
        (known, changed) = control::blocking(move || {
            let changed = known.look(&path, &node);
            (known, changed)
        })
        .await;
        if changed || !told {
            told = true;
            tell(known.pods(&folder));
        }
        watch.changed().await;
    }
}

impl Known {
    /// Looks at the folder; true when it is not as it was.
    fn look(&mut self, folder: &Path, node: &str) -> bool {
        let names = match names(folder) {
            Ok(names) => names,
            Err(error) => {
                // Nothing is ended because a folder cannot be read: it may be on a disk that is not there yet.
                let problem = format!("{}: {error}", folder.display());
                if problem != self.problem {
                    log::error!("the folder of static pods cannot be read: {problem}; it is looked at again");
                    self.problem = problem;
                }
                return false;
            }
        };
        self.problem.clear();
        let before = self.files.len();
        self.files.retain(|name, _| names.contains(name));
        let mut changed = self.files.len() != before;
        for name in names {
            let path = folder.join(&name);
            let state = FileState::of(&path);
            if self.files.get(&name).is_some_and(|file| file.state == state) {
                continue;
            }
            let pod = read(&path).and_then(|pod| static_pod(pod, node, &path, Now::read()));
            let pod = match pod {
                Ok(pod) => Some(pod),
                Err(error) => {
                    log::error!("static pod {}: {error}", path.display());
                    self.files.remove(&name).and_then(|file| file.pod)
                }
            };
            changed = true;
            self.files.insert(name, File { state, pod });
        }
        changed
    }

    /// All pods; of two of the same name the first file's.
    fn pods(&self, folder: &Path) -> Vec<Pod> {
        let mut pods: Vec<Pod> = Vec::new();
        for (name, file) in &self.files {
            let Some(pod) = &file.pod else { continue };
            let key = |pod: &Pod| (pod.metadata.namespace.clone(), pod.metadata.name.clone());
            if pods.iter().any(|other| key(other) == key(pod)) {
                let path = folder.join(name);
                log::error!("static pod {}: another file has a pod {:?} already", path.display(), key(pod));
                continue;
            }
            pods.push(pod.clone());
        }
        pods
    }
}

/// The names of the manifests, hidden files left out.
fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let hidden = name.to_string_lossy().starts_with('.');
        if !hidden && fs::metadata(entry.path()).is_ok_and(|found| found.is_file()) {
            if names.len() == MAX_MANIFESTS {
                log::error!(
                    "{}: more than {MAX_MANIFESTS} static pods; the rest is left out",
                    folder.display()
                );
                break;
            }
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, pod: &str, image: &str) {
        let text = format!(
            "kind: Pod\nmetadata: {{name: {pod}}}\nspec: {{containers: [{{name: c, image: {image}}}]}}\n"
        );
        fs::write(folder.join(name), text).unwrap();
    }

    fn images(known: &Known, folder: &Path) -> Vec<String> {
        let of = |pod: Pod| format!("{} {}", pod.metadata.name, pod.spec.containers.first().unwrap().image);
        known.pods(folder).into_iter().map(of).collect()
    }

    #[test]
    fn pods_come_change_and_go_with_their_files() {
        let folder = std::env::temp_dir().join(format!("copepod-manifests-{:x}", fastrand::u64(..)));
        let mut known = Known::default();
        assert!(!known.look(&folder, "n"), "there is no folder yet");
        fs::create_dir(&folder).unwrap();
        write(&folder, "a.yaml", "a", "i:1");
        write(&folder, ".a.yaml.swp", "b", "i:1");
        fs::write(folder.join("notes.txt"), "kind: Note").unwrap();
        fs::create_dir(folder.join("old")).unwrap();
        assert!(known.look(&folder, "n"));
        assert_eq!(images(&known, &folder), ["a-n i:1"]);
        assert!(!known.look(&folder, "n"), "nothing changed");
        write(&folder, "a.yaml", "a", "image:2");
        assert!(known.look(&folder, "n"));
        assert_eq!(images(&known, &folder), ["a-n image:2"]);
        // Half written, or wrong: what ran goes on.
        fs::write(folder.join("a.yaml"), "kind: Pod\nmetadata: {na").unwrap();
        known.look(&folder, "n");
        assert_eq!(images(&known, &folder), ["a-n image:2"]);
        write(&folder, "z.yaml", "a", "i:3");
        known.look(&folder, "n");
        assert_eq!(images(&known, &folder), ["a-n image:2"], "the name is taken");
        fs::remove_file(folder.join("a.yaml")).unwrap();
        assert!(known.look(&folder, "n"));
        assert_eq!(images(&known, &folder), ["a-n i:3"]);
        // The folder goes, with the disk that it was on.
        fs::remove_dir_all(&folder).unwrap();
        assert!(!known.look(&folder, "n"));
        assert_eq!(images(&known, &folder), ["a-n i:3"]);
    }
}
