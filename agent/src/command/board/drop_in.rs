//! What a board needs of `copepod.service`, as a drop-in for it. The unit as shipped gives the agent its own
//! folders and no device.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use super::one_line;
use crate::config::{read_bounded, AgentConfig};

/// Threads beside the interpreters': control, reactor, two that block.
const OWN_THREADS: usize = 4;
/// Tasks to spare: threads that end while their successors begin, and what systemd starts around the agent.
const SPARE_TASKS: usize = 12;
/// What the shipped unit lets the agent write to.
const OWN_FOLDERS: [&str; 2] = ["/var/lib/copepod", RUNTIME_FOLDER];
/// Its `RuntimeDirectory=`, which systemd removes when the service stops, however it ends.
const RUNTIME_FOLDER: &str = "/run/copepod";
/// What the shipped unit hides with `ProtectHome=yes`.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
/// What it has of its own with `PrivateTmp=yes`.
const PRIVATE: [&str; 2] = ["/tmp", "/var/tmp"];
/// The groups of the machine, and bytes of that file.
const GROUPS: (&str, u64) = ("/etc/group", 1024 * 1024);
const MIB: u64 = 1024 * 1024;

/// `WatchdogSec=` in seconds, at least: a busy board may be late by some; and at most: what the unit has.
const LEAST_WATCHDOG: u64 = 5;
const MOST_WATCHDOG: u64 = 60;

/// What is found at a path of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or nothing that may be looked at.
    Missing,
    /// A folder, or a file of no device.
    Plain,
    /// A device.
    Device(Access),
}

/// Who may read and write a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Everybody,
    /// This group, by its name, or its number where it has none.
    Group(String),
    /// Root.
    Root,
}

/// What the drop-in is made from.
pub struct DropIn<'a> {
    /// The board file, and why that one.
    pub why: &'a str,
    /// The board that the service has to be told of, as it would not take it by itself.
    pub board: Option<String>,
    /// The agent's settings.
    pub config: &'a AgentConfig,
    /// Bytes of memory of this machine; 0 where that is not known.
    pub memory: u64,
    /// Looks at a path of this machine.
    pub look: &'a dyn Fn(&Path) -> Found,
    /// After how long without a word a watchdog device of this machine restarts it.
    pub watchdog_timeout: &'a dyn Fn(&Path) -> Duration,
}

impl DropIn<'_> {
    /// The text.
    ///
    /// # Errors
    /// A path that systemd cannot be told.
    pub fn text(&self) -> Result<String, String> {
        let mut unit = String::new();
        let mut service = String::new();
        if let Some(board) = &self.board {
            let assigned = format!("COPEPOD_BOARD={board}");
            let _ = write!(
                service,
                "# The board file; where it is a file, the agent must be able to read it.\nEnvironment={}\n",
                quoted(&assigned)?
            );
        }
        self.tasks(&mut service);
        self.memory(&mut service);
        self.own_folders(&mut unit, &mut service)?;
        let devices = self.host_paths(&mut service)?;
        self.devices(&devices, &mut service)?;
        self.watchdog(&mut service);
        let mut text = format!(
            "# What copepod board --systemd writes for this machine: {}.\n\
             # It belongs into /etc/systemd/system/copepod.service.d/board.conf; after that:\n\
             # systemctl daemon-reload && systemctl restart copepod\n",
            sentence(self.why)
        );
        if !unit.is_empty() {
            let _ = write!(text, "\n[Unit]\n{unit}");
        }
        let _ = write!(text, "\n[Service]\n{service}");
        Ok(text)
    }

    fn tasks(&self, service: &mut String) {
        let (threads, of) = match self.config.interpreter_threads {
            0 => (std::thread::available_parallelism().map_or(1, std::num::NonZero::get), "one a core, "),
            threads => (threads, ""),
        };
        let most = threads.saturating_add(OWN_THREADS).saturating_add(SPARE_TASKS);
        let _ = write!(
            service,
            "# interpreter-threads: {of}{threads}; {OWN_THREADS} threads of the agent's own (control, reactor, \
             two that block); {SPARE_TASKS} to spare.\nTasksMax={most}\n"
        );
    }

    /// The agent may have the guests' memory and half of what is reserved: so much is left for the system in
    /// any case. Before that, in the last eighth of what is reserved, the kernel takes back page cache.
    fn memory(&self, service: &mut String) {
        let (guests, reserved) = (self.config.guest_memory, self.config.memory_reserved);
        if reserved == 0 || (self.memory == 0 && guests == u64::MAX) {
            service.push_str("# memory-reserved is 0, or this machine's memory is not known: no limit.\n");
            return;
        }
        let most = guests.saturating_add(reserved / 2);
        let high = most.saturating_sub(reserved / 8);
        let _ = write!(
            service,
            "# guest-memory, {} MiB, and half of memory-reserved, {} MiB: the other half is the system's. Above \
             MemoryHigh\n# the kernel takes back what it keeps of the agent's files, and slows the agent down.\n\
             MemoryHigh={}M\nMemoryMax={}M\n",
            guests / MIB,
            reserved / MIB,
            high / MIB,
            most / MIB
        );
    }

    /// Opens the agent's own folders, where the unit as shipped does not.
    fn own_folders(&self, unit: &mut String, service: &mut String) -> Result<(), String> {
        let data = &self.config.data_dir;
        let logs = Some(&self.config.log_dir).filter(|logs| !logs.starts_with(data));
        for (name, path) in [("data-dir", Some(data)), ("log-dir", logs)] {
            if path.is_some_and(|path| path.starts_with(RUNTIME_FOLDER)) {
                let _ = write!(
                    service,
                    "# {name}: what is in there stays when the service stops or ends, until the next boot. It is \
                     memory, and counts\n# towards MemoryMax: container-log-max-size times container-log-max-files \
                     for each of a container's last two runs.\nRuntimeDirectoryPreserve=yes\n"
                );
            }
            let Some(path) = path.filter(|path| !OWN_FOLDERS.iter().any(|own| path.starts_with(own))) else {
                continue;
            };
            let text = quoted(&path.to_string_lossy())?;
            let _ = write!(
                unit,
                "# {name}: on a disk of its own, it is mounted before the agent starts.\n\
                 RequiresMountsFor={text}\n"
            );
            let _ = writeln!(
                service,
                "# {name}: first make it: install -d -o copepod -g copepod -m 0700 '{}'",
                sentence(&path.to_string_lossy())
            );
            opened(path, "", service)?;
        }
        Ok(())
    }

    /// Opens the folders among the host paths; the others are devices.
    fn host_paths(&self, service: &mut String) -> Result<Vec<(&'static str, &Path, Found)>, String> {
        let mut devices: Vec<(&'static str, &Path, Found)> = Vec::new();
        for path in &self.config.host_paths {
            let shown = sentence(&path.to_string_lossy());
            match (self.look)(path) {
                Found::Plain if path.starts_with("/dev") => {
                    let _ = writeln!(service, "# host-paths: {shown} is no device: name the devices in it.");
                }
                Found::Missing if path.starts_with("/dev") => {
                    devices.push(("host-paths", path, Found::Missing));
                }
                found @ Found::Device(_) => devices.push(("host-paths", path, found)),
                Found::Plain | Found::Missing => {
                    let _ = writeln!(
                        service,
                        "# host-paths: {shown}, where it is there when the agent starts; its owner and mode hold."
                    );
                    opened(path, "-", service)?;
                }
            }
        }
        if let Some(path) = &self.config.watchdog_device {
            // Root's alone on every system, so nothing need be looked at where it is not there.
            let found = match (self.look)(path) {
                Found::Missing => Found::Device(Access::Root),
                found => found,
            };
            devices.push(("watchdog-device", path, found));
        }
        Ok(devices)
    }

    /// The board's own watchdog must not act before systemd has ended an agent that hangs, and started one that has
    /// ended. The device keeps the time that its driver has, on a Raspberry Pi 15 s.
    fn watchdog(&self, service: &mut String) {
        let Some(path) = &self.config.watchdog_device else { return };
        let device = (self.watchdog_timeout)(path);
        let seconds = (device.as_secs() / 2).clamp(LEAST_WATCHDOG, MOST_WATCHDOG);
        let _ = write!(
            service,
            "# watchdog-device: {} s after the agent is gone it restarts the board; before that an agent that hangs \
             is ended,\n# and one that has ended is started again, without growing pauses.\n\
             WatchdogSec={seconds}\nRestartSec=2\nRestartSteps=0\n",
            device.as_secs()
        );
    }

    fn devices(&self, devices: &[(&str, &Path, Found)], service: &mut String) -> Result<(), String> {
        if devices.is_empty() {
            return Ok(());
        }
        service.push_str(
            "# Devices are seen, and of them none can be opened (DevicePolicy=closed) but these.\n\
             PrivateDevices=no\n",
        );
        for (field, path, found) in devices {
            let text = quoted(&path.to_string_lossy())?;
            let _ = write!(service, "# {field}\nDeviceAllow={text} rw\n");
            match found {
                Found::Device(Access::Everybody) => {}
                Found::Device(Access::Group(group)) => {
                    let _ = writeln!(service, "SupplementaryGroups={}", quoted(group)?);
                }
                Found::Device(Access::Root) => {
                    let _ = write!(
                        service,
                        "# It is root's alone: as root, before the agent starts, it is made its group's too.\n\
                         ExecStartPre=-+chgrp -- copepod {text}\nExecStartPre=-+chmod -- g+rw {text}\n"
                    );
                }
                Found::Missing | Found::Plain => service.push_str(
                    "# It is not there now: when it is, and belongs to a group, write this file again.\n",
                ),
            }
        }
        Ok(())
    }
}

/// Lets the agent write below a folder; `optional` is the prefix for one that need not be there.
fn opened(path: &Path, optional: &str, service: &mut String) -> Result<(), String> {
    let below = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
    let text = quoted(&format!("{optional}{}", path.display()))?;
    let home = below(&HOMES);
    if home {
        service.push_str("# Of the homes only this is seen.\nProtectHome=tmpfs\n");
    }
    let key = if home || below(&PRIVATE) { "BindPaths" } else { "ReadWritePaths" };
    let _ = writeln!(service, "{key}={text}");
    Ok(())
}

/// A word of a setting that systemd reads as it stands: specifiers and white space escaped.
fn quoted(text: &str) -> Result<String, String> {
    // What a shell or systemd would take for something else; nobody has it in a path.
    if let Some(odd) = text.chars().find(|c| c.is_control() || matches!(c, '"' | '\'' | '\\' | '$')) {
        return Err(format!("{text:?}: {odd:?} in a path is nothing that systemd can be told here"));
    }
    let text = text.replace('%', "%%");
    // A colon would part the two paths of BindPaths=.
    let apart = text.contains(|c: char| c.is_whitespace() || c == ':');
    Ok(if apart { format!("\"{text}\"") } else { text })
}

/// Some text in a comment: on one line, and with no backslash that would make the next line its own.
fn sentence(text: &str) -> String {
    one_line(text).replace('\\', "/")
}

/// Looks at a path of this machine.
pub fn look(path: &Path) -> Found {
    let Ok(about) = fs::metadata(path) else { return Found::Missing };
    if !about.file_type().is_char_device() && !about.file_type().is_block_device() {
        return Found::Plain;
    }
    let groups = read_bounded(Path::new(GROUPS.0), GROUPS.1).unwrap_or_default();
    Found::Device(access(about.mode(), about.gid(), &groups))
}

/// Who may read and write a device, by its mode, its group, and the text of `/etc/group`.
pub fn access(mode: u32, gid: u32, groups: &str) -> Access {
    const GROUP: u32 = 0o060;
    const OTHERS: u32 = 0o006;
    if mode & OTHERS == OTHERS {
        return Access::Everybody;
    }
    if gid == 0 || mode & GROUP != GROUP {
        return Access::Root;
    }
    let gid = gid.to_string();
    // `gpio:x:986:pi`
    let name = groups.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        (parts.nth(1)? == gid && !name.is_empty()).then(|| name.to_owned())
    });
    Access::Group(name.unwrap_or(gid))
}
