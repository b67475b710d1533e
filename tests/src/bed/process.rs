//! A program that runs in a bed in the background.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{kill_process, waitid, Pid, Signal, WaitId, WaitIdOptions};

use super::walls::child_of;

/// How long `nsenter` may take to have started its program.
const START: Duration = Duration::from_secs(5);

/// A program that runs in the background; it is killed with this value.
#[derive(Debug)]
pub struct Process {
    name: String,
    /// `nsenter`, whose end is the program's, and the other way round.
    nsenter: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, which [`Walls::command`](super::walls::Walls::command) made, with both its
    /// outputs going to the end of the file `log`.
    pub(super) fn spawn(name: &str, mut command: Command, log: &Path) -> Process {
        let file = fs::OpenOptions::new().create(true).append(true).open(log);
        let file = file.unwrap_or_else(|e| panic!("cannot open {}: {e}", log.display()));
        let both = file.try_clone().expect("a file can be opened twice");
        command.stdin(Stdio::null()).stdout(file).stderr(both).process_group(0);
        let nsenter = command.spawn().unwrap_or_else(|e| panic!("cannot start {name} by nsenter: {e}"));
        Process { name: name.to_owned(), nsenter, log: log.to_path_buf() }
    }

    /// What it was started as.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program's process id, as it is called outside the bed.
    pub fn pid(&self) -> u32 {
        let end = Instant::now() + START;
        while Instant::now() < end {
            if let Some(pid) = child_of(self.nsenter.id()) {
                return pid;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{} has no process: it may have ended, see its log", self.name)
    }

    /// Everything that it has printed so far.
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.nsenter.try_wait().ok().flatten()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = raw(self.pid()).expect("a process id is positive");
        kill_process(pid, signal).unwrap_or_else(|e| panic!("cannot send {} a signal: {e}", self.name));
    }

    /// Waits for its end, of which nothing is heard within `limit` only if it hangs.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < end, "{} has not ended within {} s", self.name, limit.as_secs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The program asks the kernel to be killed with its parent, but one that was started just now
        // has not asked yet: it is killed by name. A parent that stands still makes no other child
        // meanwhile, nor gives this one's number back.
        if let (Ok(None), Some(nsenter)) = (self.nsenter.try_wait(), raw(self.nsenter.id())) {
            let _ = kill_process(nsenter, Signal::STOP);
            let _ = waitid(
                WaitId::Pid(nsenter),
                WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
            );
            if let Some(program) = child_of(self.nsenter.id()).and_then(raw) {
                let _ = kill_process(program, Signal::KILL);
            }
        }
        let _ = self.nsenter.kill();
        let _ = self.nsenter.wait();
    }
}

/// A process id as the kernel's calls take it.
fn raw(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}
