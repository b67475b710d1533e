//! Who ran when the agent died.
//!
//! Guests of many strangers run in one process, and one of them may find a way to end it. A container that ran, or
//! was being compiled, at two deaths of the agent in a row is a suspect: it starts after the others, in a back-off
//! that grows with each death, and says why. A suspect that has run for [`STEADY`] is none any more.
//!
//! What is known is a file for each container in a folder in memory (`RUNTIME_DIRECTORY`, which systemd keeps when it
//! restarts the agent): nothing is written to flash, and a power cut, which is nobody's fault, forgets it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lock;
use crate::config::read_bounded;
use crate::durable::{ensure_private_dir, is_plain_name};

/// A suspect that has run this long is none any more.
pub const STEADY: Duration = Duration::from_secs(20);
/// Deaths in a row that make a suspect.
const SUSPECT: u32 = 2;
/// A suspect's first back-off; it doubles with each death, up to [`MAX_BACKOFF`].
const BACKOFF: Duration = Duration::from_secs(30);
/// A suspect's longest back-off: a kubelet's (`MaxContainerBackOff`).
const MAX_BACKOFF: Duration = Duration::from_secs(300);
/// Marks that are read.
const MAX_MARKS: usize = 10_000;
/// Bytes of a mark.
const MAX_MARK: u64 = 32;

/// A mark of a container that runs begins so, then says at how many deaths in a row it ran.
const RUNS: &str = "runs ";
/// A mark of one that does not.
const WAITS: &str = "waits ";

/// See the module.
#[derive(Debug, Default)]
pub struct Deaths {
    /// None: nothing is known or kept.
    folder: Option<PathBuf>,
    counts: Mutex<BTreeMap<String, u32>>,
}

/// A container that runs or is being compiled, until this is dropped.
#[derive(Debug)]
pub struct Mark {
    deaths: Arc<Deaths>,
    name: String,
}

impl Deaths {
    /// Takes up what the agent's last life left in `folder`; none: nothing is kept. Blocks.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(folder: Option<&Path>) -> io::Result<Deaths> {
        let Some(folder) = folder else { return Ok(Deaths::default()) };
        ensure_private_dir(folder)?;
        let mut counts = BTreeMap::new();
        for entry in fs::read_dir(folder)?.take(MAX_MARKS) {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let text = read_bounded(&entry.path(), MAX_MARK).unwrap_or_default();
            let number = |text: &str| text.trim().parse::<u32>().unwrap_or(0);
            let count = match text.strip_prefix(WAITS) {
                Some(text) => number(text),
                // One that was being written when the agent died is of one that ran.
                None => {
                    let count = number(text.strip_prefix(RUNS).unwrap_or("")).saturating_add(1);
                    fs::write(entry.path(), format!("{WAITS}{count}"))?;
                    count
                }
            };
            counts.insert(name, count);
        }
        Ok(Deaths { folder: Some(folder.to_owned()), counts: Mutex::new(counts) })
    }

    /// At how many deaths in a row a suspect ran; none: it is no suspect.
    pub fn suspicion(&self, uid: &str, container: &str) -> Option<u32> {
        let count = lock(&self.counts).get(&name_of(uid, container)?).copied()?;
        (count >= SUSPECT).then_some(count)
    }

    /// The container runs from now on, or is being compiled.
    pub fn mark(self: &Arc<Deaths>, uid: &str, container: &str) -> Option<Mark> {
        self.folder.as_ref()?;
        let name = name_of(uid, container)?;
        let count = lock(&self.counts).get(&name).copied().unwrap_or(0);
        self.write(&name, count);
        Some(Mark { deaths: Arc::clone(self), name })
    }

    fn write(&self, name: &str, count: u32) {
        let Some(folder) = &self.folder else { return };
        if let Err(error) = fs::write(folder.join(name), format!("{RUNS}{count}")) {
            log::debug!("{}: {error}", folder.join(name).display());
        }
    }

    fn forget(&self, name: &str) {
        lock(&self.counts).remove(name);
        if let Some(folder) = &self.folder {
            let _ = fs::remove_file(folder.join(name));
        }
    }

    /// The pod is gone.
    pub fn forget_pod(&self, uid: &str) {
        let prefix = format!("{uid}_");
        let names: Vec<String> =
            lock(&self.counts).keys().filter(|name| name.starts_with(&prefix)).cloned().collect();
        for name in names {
            self.forget(&name);
        }
    }
}

impl Mark {
    /// It has run for long enough: whatever ended the agent, it did not.
    pub fn steady(&self) {
        lock(&self.deaths.counts).remove(&self.name);
        self.deaths.write(&self.name, 0);
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.deaths.forget(&self.name);
    }
}

/// The name of a container's mark; none where it would be no name of a file.
fn name_of(uid: &str, container: &str) -> Option<String> {
    let name = format!("{uid}_{container}");
    is_plain_name(&name).then_some(name)
}

/// How long a suspect waits, after `count` deaths: not all at the same time, so that who is tried alone is told from
/// the others.
pub fn back_off(count: u32) -> Duration {
    let doublings = count.saturating_sub(SUSPECT).min(8);
    let wait = BACKOFF.saturating_mul(1_u32 << doublings).min(MAX_BACKOFF);
    wait.saturating_add(BACKOFF.mul_f64(fastrand::f64()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            Folder(std::env::temp_dir().join(format!("copepod-deaths-{:x}", fastrand::u64(..))))
        }
        fn open(&self) -> Arc<Deaths> {
            Arc::new(Deaths::open(Some(&self.0)).unwrap())
        }
        fn marks(&self) -> usize {
            fs::read_dir(&self.0).unwrap().count()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// The agent dies: nothing is dropped.
    fn die(mark: Option<Mark>) {
        std::mem::forget(mark.unwrap());
    }

    #[test]
    fn who_ran_at_two_deaths_in_a_row_is_a_suspect() {
        let folder = Folder::new();
        die(folder.open().mark("u", "main"));
        let second = folder.open();
        assert_eq!(second.suspicion("u", "main"), None, "one death is nobody's");
        die(second.mark("u", "main"));
        assert_eq!(folder.open().suspicion("u", "main"), Some(2));
        assert_eq!(folder.open().suspicion("u", "main"), Some(2), "it waited at this one");
        let again = folder.open();
        assert_eq!(again.suspicion("u", "other"), None);
        die(again.mark("u", "main"));
        assert_eq!(folder.open().suspicion("u", "main"), Some(3));
    }

    #[test]
    fn who_ended_or_was_stopped_or_has_run_for_long_is_none() {
        let folder = Folder::new();
        die(folder.open().mark("u", "main"));
        let stopped = folder.open().mark("u", "main");
        drop(stopped);
        assert_eq!(folder.marks(), 0);
        for _ in 0..2 {
            die(folder.open().mark("u", "main"));
        }
        let suspect = folder.open();
        assert_eq!(suspect.suspicion("u", "main"), Some(2));
        let mark = suspect.mark("u", "main").unwrap();
        mark.steady();
        assert_eq!(suspect.suspicion("u", "main"), None);
        die(Some(mark));
        assert_eq!(folder.open().suspicion("u", "main"), None, "one death again");
        folder.open().forget_pod("u");
        assert_eq!(folder.marks(), 0);
    }

    #[test]
    fn a_mark_that_was_cut_off_is_of_one_that_ran_and_names_lead_nowhere_else() {
        let folder = Folder::new();
        let deaths = folder.open();
        fs::write(folder.0.join("u_main"), "ru").unwrap();
        assert_eq!(folder.open().counts.lock().unwrap().get("u_main"), Some(&1));
        assert!(deaths.mark("../u", "main").is_none() && deaths.mark("u", &"x".repeat(300)).is_none());
        let nowhere = Arc::new(Deaths::open(None).unwrap());
        assert!(nowhere.mark("u", "main").is_none());
        assert_eq!(nowhere.suspicion("u", "main"), None);
    }

    #[test]
    fn the_back_off_grows_to_five_minutes_and_is_never_the_same_for_all() {
        for (count, least) in [(2, 30), (3, 60), (4, 120), (5, 240), (6, 300), (u32::MAX, 300)] {
            let wait = back_off(count);
            let least = Duration::from_secs(least);
            assert!(wait >= least && wait <= least + BACKOFF, "{count}: {wait:?}");
        }
    }
}
