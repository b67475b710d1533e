//! The walls of a bed: namespaces of its own for network, mounts, processes and host name.
//!
//! Process 1 inside is a shell that waits for the end of its standard input, which is a pipe from
//! the process that made the bed. When that process ends, in whatever way, the pipe closes, the shell
//! ends every process inside, and removes the bed's folder. Should the shell itself be killed, the
//! kernel ends the rest.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// What process 1 does. `$1` is the bed's folder, the other arguments the addresses to have.
/// `kill -9 -1` spares process 1 itself; `sleep` gives the kernel the time to take what was killed
/// off the files.
const HOLDER: &str = r#"
set -e
folder=$1
shift
ip link set lo up
for address in "$@"; do ip address add "$address/32" dev lo; done
hostname "$(cat "$folder/hostname")"
mount --bind "$folder/hosts" /etc/hosts
echo ready
set +e
trap '' HUP INT TERM
cat >/dev/null
kill -9 -1 2>/dev/null
sleep 0.1
[ -e "$folder/keep" ] || rm -rf "$folder"
"#;

/// How long the shell may take to end and clean up once its input has closed.
const LAST_RITES: Duration = Duration::from_secs(10);

/// A set of namespaces, for as long as the value (and its process) lives.
#[derive(Debug)]
pub struct Walls {
    /// `unshare`, the parent of process 1.
    unshare: Child,
    /// Process 1, as it is called from outside.
    holder: u32,
    /// Whether a user namespace was needed as well.
    user_namespace: bool,
    folder: PathBuf,
}

impl Walls {
    /// Makes the namespaces. `folder` (which is removed in the end, unless it holds a file `keep`)
    /// must hold `hosts`, which becomes /etc/hosts inside, and `hostname`; `addresses` are put on the
    /// loopback interface.
    pub fn build(folder: &Path, addresses: &[&str]) -> Walls {
        let user_namespace = !rustix::process::geteuid().is_root();
        let mut unshare = Command::new("unshare");
        unshare.args([
            "--net",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        if user_namespace {
            unshare.arg("--map-root-user");
        }
        unshare.args(["sh", "-c", HOLDER, "holder"]).arg(folder).args(addresses);
        unshare.stdin(Stdio::piped()).stdout(Stdio::piped());
        // A Ctrl-C at the terminal is for whoever started the bed, not for what is inside.
        unshare.process_group(0);
        let mut unshare =
            unshare.spawn().unwrap_or_else(|e| panic!("cannot run unshare, of util-linux: {e}"));
        let mut line = String::new();
        if let Some(stdout) = unshare.stdout.take() {
            let _ = BufReader::new(stdout).read_line(&mut line);
        }
        if line != "ready\n" {
            let _ = fs::remove_dir_all(folder);
        }
        assert!(
            line == "ready\n",
            "cannot make the bed's namespaces (unshare's own words are above): {}",
            if user_namespace {
                "this needs root, or user namespaces for everyone (sysctl user.max_user_namespaces)"
            } else {
                "root may lack CAP_SYS_ADMIN, as in a container that is not privileged"
            }
        );
        let holder = child_of(unshare.id()).expect("unshare has a child that said ready");
        Walls { unshare, holder, user_namespace, folder: folder.to_path_buf() }
    }

    /// `program` inside, started in `directory`. It is killed with the `nsenter` that the returned
    /// command is, which is not itself inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>, directory: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.holder.to_string());
        if self.user_namespace {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(["--net", "--mount", "--pid", "--uts", "--ipc"]);
        // Where the bed was started in a chroot, it is in that as well.
        command.args(["--root", "--"]);
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]);
        command.args(["env", "-C"]).arg(directory).arg(program);
        command
    }

    /// Process 1, as it is called from outside.
    pub fn holder(&self) -> u32 {
        self.holder
    }
}

impl Drop for Walls {
    fn drop(&mut self) {
        drop(self.unshare.stdin.take());
        let end = std::time::Instant::now() + LAST_RITES;
        while std::time::Instant::now() < end {
            if let Ok(Some(_)) = self.unshare.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!(
            "the bed in {} did not end by itself, so its first process is killed",
            self.folder.display()
        );
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

/// The only child of process `parent`.
pub fn child_of(parent: u32) -> Option<u32> {
    let parent = parent.to_string();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // /proc/PID/stat: pid (name) state ppid …, where the name may hold anything but is the last
        // thing in parentheses.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        if rest.split_whitespace().nth(1) == Some(&parent) {
            return Some(pid);
        }
    }
    None
}
