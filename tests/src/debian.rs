//! A Debian 12 system in a folder, not booted, to install packages in.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::tools::{target, tool};

/// A folder that is removed with the value.
#[derive(Debug)]
pub struct Folder(pub PathBuf);

impl Folder {
    /// An empty one, whose name begins so.
    #[track_caller]
    pub fn new(name: &str) -> Folder {
        let path = target().join("tmp").join(format!("{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a temporary folder");
        // Whatever the mask: dpkg and systemd look into it.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a shell prints on both streams; it must succeed. `$1`, `$2`, … are the arguments.
#[track_caller]
pub fn sh(script: &str, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> String {
    let (success, text) = try_sh(script, arguments);
    assert!(success, "{script}\n{text}");
    text
}

/// The same, and whether it succeeded.
pub fn try_sh(script: &str, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> (bool, String) {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("set -euo pipefail; exec 2>&1\n{script}"), "sh"]);
    for argument in arguments {
        command.arg(argument.as_ref());
    }
    let output = command.stdin(Stdio::null()).output().expect("bash");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A Debian 12 system that is not booted; its service manager's commands only write down what they are told.
#[derive(Debug)]
pub struct Chroot(Folder);

impl Chroot {
    /// A new one.
    #[track_caller]
    pub fn new(name: &str) -> Chroot {
        let folder = Folder::new(name);
        let chroot = Chroot(folder);
        chroot.outside("tar -xf \"$1\" -C \"$2\" --exclude=./dev/*", &tool("debian-root.tar"));
        chroot
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.0 .0
    }

    /// Runs a script outside, as who may own any file, with `$1` and the root.
    #[track_caller]
    fn outside(&self, script: &str, argument: &Path) {
        let mut all = String::new();
        if !rustix::process::geteuid().is_root() {
            all.push_str("unshare --map-root-user --map-auto ");
        }
        all.push_str("bash -euc '");
        all.push_str(script);
        all.push_str("' sh \"$1\" \"$2\"");
        sh(&all, &[&argument, &self.root()]);
    }

    /// Makes `systemctl` and `deb-systemd-invoke` write down what they are told, and systemd seem to run. What
    /// systemctl does to files, it does.
    pub fn pretend_systemd(&self) {
        let fake = "#!/bin/sh\ncase $1 in --root=*) exec /usr/bin/systemctl \"$@\" ;; esac\n\
                    echo \"${0##*/} $*\" >>/told\n";
        for name in ["systemctl", "deb-systemd-invoke"] {
            let path = self.root().join("usr/local/bin").join(name);
            fs::write(&path, fake).expect("a stand-in");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        }
        self.inside("mkdir -p /run/systemd/system; : >/told");
    }

    /// What the service manager was told since it was asked last.
    pub fn told(&self) -> Vec<String> {
        let told = self.inside("cat /told; : >/told");
        told.lines().filter(|line| !line.contains("daemon-reload")).map(str::to_owned).collect()
    }

    /// Runs a script in the system.
    #[track_caller]
    pub fn inside(&self, script: &str) -> String {
        let map = if rustix::process::geteuid().is_root() { "" } else { "--map-root-user --map-auto" };
        sh(
            &format!(
                "exec unshare {map} --mount --pid --fork --kill-child bash -euc '
                    mount -t proc proc \"$1\"/proc
                    [ -e \"$1\"/dev/null ] || touch \"$1\"/dev/null
                    mount --bind /dev/null \"$1\"/dev/null
                    exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
                        DEBIAN_FRONTEND=noninteractive chroot \"$1\" bash -euc \"$2\"' sh \"$1\" \"$2\""
            ),
            &[&self.root(), &script],
        )
    }

    /// Whether there is a file, a folder or a link of this path.
    pub fn has(&self, path: &str) -> bool {
        // Asked inside: some folders are another user's than ours.
        self.inside(&format!("if [ -e {path} ] || [ -L {path} ]; then echo yes; fi")) == "yes\n"
    }
}

impl Drop for Chroot {
    fn drop(&mut self) {
        // Files of other users' than ours, where this does not run as root.
        if !rustix::process::geteuid().is_root() {
            let _ = try_sh("unshare --map-root-user --map-auto rm -rf \"$1\"", &[&self.root()]);
        }
    }
}
