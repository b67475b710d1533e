//! What the machine is: read from the kernel, as far as a node's status tells it.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

use crate::config::read_bounded;

/// Bytes of a file under `/proc`, `/sys` or `/etc` that are read.
const MAX_FILE: u64 = 64 * 1024;

/// What does not change while the machine is up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The host's name.
    pub name: String,
    /// Cores that this process may use.
    pub cores: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of the file system that holds the data folder.
    pub storage: u64,
    /// `/etc/machine-id`
    pub machine_id: String,
    /// The firmware's UUID, or a board's serial number.
    pub system_uuid: String,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// `uname -r`
    pub kernel: String,
    /// `PRETTY_NAME` of `/etc/os-release`
    pub os_image: String,
}

/// What is left at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Bytes of memory that could be had (`MemAvailable`).
    pub memory: u64,
    /// Bytes free for this user in the data folder's file system.
    pub storage: u64,
    /// Tasks of the whole machine.
    pub tasks: u64,
    /// Tasks that the kernel allows.
    pub max_tasks: u64,
}

impl Host {
    /// Reads it. What cannot be read stays empty or zero.
    #[must_use]
    pub fn read(data_dir: &Path) -> Host {
        let uname = rustix::system::uname();
        let (storage, _) = storage(data_dir);
        Host {
            name: uname.nodename().to_string_lossy().into_owned(),
            cores: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)),
            memory: memory(),
            storage,
            machine_id: first_line(&["/etc/machine-id", "/var/lib/dbus/machine-id"]),
            system_uuid: first_line(&[
                "/sys/class/dmi/id/product_uuid",
                "/proc/device-tree/serial-number",
                "/etc/machine-id",
            ]),
            boot_id: first_line(&["/proc/sys/kernel/random/boot_id"]),
            kernel: uname.release().to_string_lossy().into_owned(),
            os_image: os_image(&text("/etc/os-release")),
        }
    }
}

impl Left {
    /// Reads it.
    #[must_use]
    pub fn read(data_dir: &Path) -> Left {
        let (_, storage) = storage(data_dir);
        // `0.20 0.18 0.12 1/80 11206`: the fourth field is running/all.
        let tasks = text("/proc/loadavg")
            .split(' ')
            .nth(3)
            .and_then(|field| field.split_once('/'))
            .and_then(|(_, all)| all.parse().ok());
        Left {
            memory: meminfo("MemAvailable:"),
            storage,
            tasks: tasks.unwrap_or(0),
            max_tasks: text("/proc/sys/kernel/pid_max").trim().parse().unwrap_or(u64::MAX),
        }
    }
}

/// Bytes of memory of this machine; 0 when the kernel does not say.
#[must_use]
pub fn memory() -> u64 {
    meminfo("MemTotal:")
}

/// The address of this machine from which `target` is reached. Sends nothing.
///
/// # Errors
/// When there is no route.
pub fn address_towards(target: SocketAddr) -> io::Result<IpAddr> {
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    Ok(socket.local_addr()?.ip())
}

/// Lets this process open as many files as its hard limit says: each running container holds its log, and
/// the soft limit (1024 under systemd) is for programs that still use select(2).
pub fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        log::warn!("raising the limit of open files from {:?}: {error}", limit.current);
    }
}

/// The host's architecture as Go and so Kubernetes call it.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// A file of the kernel's; empty where it cannot be read.
pub(super) fn text(path: &str) -> String {
    read_bounded(Path::new(path), MAX_FILE).unwrap_or_default()
}

fn first_line(paths: &[&str]) -> String {
    paths
        .iter()
        .map(|path| text(path).lines().next().unwrap_or_default().trim_matches(['\0', ' ']).to_owned())
        .find(|line| !line.is_empty())
        .unwrap_or_default()
}

/// A field of `/proc/meminfo`, in bytes.
pub(super) fn meminfo(field: &str) -> u64 {
    text("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .map_or(0, |kib| kib.saturating_mul(1024))
}

fn os_image(release: &str) -> String {
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches(['"', '\'']).to_owned())
}

/// Bytes in all, and bytes free, of the file system of a folder (or of the nearest one that exists).
fn storage(folder: &Path) -> (u64, u64) {
    let existing = folder.ancestors().find(|path| fs::metadata(path).is_ok()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(stat) => {
            (stat.f_blocks.saturating_mul(stat.f_frsize), stat.f_bavail.saturating_mul(stat.f_frsize))
        }
        Err(_) => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_machine() {
        let folder = std::env::temp_dir().join("not").join("there");
        let (host, left) = (Host::read(&folder), Left::read(&folder));
        assert!(host.cores > 0 && !host.kernel.is_empty() && !host.boot_id.is_empty(), "{host:?}");
        assert!(left.memory > 0 && left.memory < host.memory, "{left:?} {host:?}");
        assert!(left.storage <= host.storage && host.storage > 0);
        assert!(left.tasks > 0 && left.tasks < left.max_tasks, "{left:?}");
    }

    #[test]
    fn the_name_of_the_distribution_is_unquoted() {
        assert_eq!(os_image("ID=x\nPRETTY_NAME=\"A B 12\"\n"), "A B 12");
        assert_eq!(os_image(""), "Linux");
    }
}
