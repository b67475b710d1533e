//! Watchdogs: the service manager's, which restarts this process, and the board's, which restarts the board.
//!
//! One task on the control executor feeds both, so that they are fed only while the control loop turns.
//! Without either there is no task, and nothing wakes up.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_io::Timer;

use super::service_manager::ServiceManager;
use crate::config::read_bounded;
use crate::control;

/// The shortest timeout of a watchdog device that tells none. The kernel's drivers have 10 s and more by
/// default (a Raspberry Pi's 15, most others 30 or 60).
const UNTOLD_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest timeout that is believed; a driver that says more is fed as often as this asks for.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);
/// A device is fed this many times in its timeout: a feeding may come late when the board is busy.
const FEEDINGS: u32 = 3;
/// Bytes of `timeout` under `/sys`, a number and a newline.
const MAX_SYS_FILE: u64 = 64;
/// Any byte but [`MAGIC`] feeds.
const FOOD: &[u8] = b"\0";
/// Written last, it makes the device stop at close (`watchdog-api.rst`, "Magic Close").
const MAGIC: &[u8] = b"V";

/// The watchdog device of the board, running since it was opened.
#[derive(Debug)]
struct Device {
    path: PathBuf,
    file: File,
    timeout: Duration,
}

impl Device {
    fn open(path: &Path) -> io::Result<Device> {
        // Non-blocking, so that no device can hold up the control thread.
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
        let kind = file.metadata()?.file_type();
        if !kind.is_char_device() && !kind.is_fifo() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a device"));
        }
        Ok(Device { path: path.to_owned(), file, timeout: timeout(path) })
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.file).write_all(bytes)
    }
}

/// After how long without a word a device of this machine restarts it.
#[must_use]
pub fn timeout(device: &Path) -> Duration {
    told_timeout(device, Path::new("/sys/class/watchdog")).unwrap_or(UNTOLD_TIMEOUT)
}

/// The timeout that the kernel tells of a device; `/dev/watchdog` is the first one under its old name.
fn told_timeout(device: &Path, class: &Path) -> Option<Duration> {
    let name = std::fs::canonicalize(device).ok()?.file_name()?.to_str()?.to_owned();
    let name = if name == "watchdog" { "watchdog0" } else { &name };
    let text = read_bounded(&class.join(name).join("timeout"), MAX_SYS_FILE).ok()?;
    let seconds: u64 = text.trim().parse().ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds).min(MAX_TIMEOUT))
}

/// Both watchdogs, as far as there are any, and the task that feeds them.
#[derive(Debug, Default)]
pub struct Watchdogs {
    device: Option<Arc<Device>>,
    _feeding: Option<control::Task<()>>,
}

impl Watchdogs {
    /// Opens the device, if one is asked for, and begins to feed. A device that cannot be opened is an
    /// error in the log, and no reason to be no node.
    #[must_use]
    pub fn start(device: Option<&Path>, manager: &ServiceManager) -> Watchdogs {
        let device = device.and_then(|path| match Device::open(path) {
            Ok(device) => {
                log::info!(
                    "watchdog {}: the board restarts after {} s without this agent",
                    path.display(),
                    device.timeout.as_secs()
                );
                Some(Arc::new(device))
            }
            // The service manager's own, as on Raspberry Pi OS (RuntimeWatchdogSec= of systemd-system.conf(5)),
            // which then watches the board; the agent is watched by its unit's WatchdogSec=.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                log::info!(
                    "watchdog {}: somebody else feeds it (systemd, where RuntimeWatchdogSec= is set)",
                    path.display()
                );
                None
            }
            Err(error) => {
                log::error!(
                    "--watchdog-device {}: {error}; the board is not watched (as a service, this needs the drop-in \
                     that `copepod board --systemd` writes; else user {} must be allowed to write to it)",
                    path.display(),
                    rustix::process::getuid().as_raw()
                );
                None
            }
        });
        let period = period(manager.watchdog(), device.as_ref().map(|device| device.timeout));
        let feeding = period.map(|period| control::spawn(feed(period, device.clone(), manager.clone())));
        Watchdogs { device, _feeding: feeding }
    }

    /// Stops the device: what ends now ends on purpose. (A kernel built or started with `nowayout` goes on
    /// counting; then somebody else must feed it, or the board restarts.)
    pub fn stop(self) {
        let Some(device) = &self.device else { return };
        if let Err(error) = device.write(MAGIC) {
            log::error!("stopping watchdog {}: {error}; the board may restart", device.path.display());
        }
    }
}

/// How often to feed: one timer for both. The service manager's is fed at half of it, as sd_watchdog_enabled(3)
/// asks.
fn period(manager: Option<Duration>, device: Option<Duration>) -> Option<Duration> {
    let (manager, device) = (manager.map(|limit| limit / 2), device.map(|timeout| timeout / FEEDINGS));
    match (manager, device) {
        (Some(manager), Some(device)) => Some(manager.min(device)),
        (one, other) => one.or(other),
    }
}

async fn feed(period: Duration, device: Option<Arc<Device>>, manager: ServiceManager) {
    let mut failed = false;
    loop {
        if manager.watchdog().is_some() {
            manager.alive();
        }
        if let Some(device) = &device {
            match device.write(FOOD) {
                Ok(()) => failed = false,
                Err(error) => {
                    if !std::mem::replace(&mut failed, true) {
                        log::error!("feeding watchdog {}: {error}", device.path.display());
                    }
                }
            }
        }
        Timer::after(period).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn one_timer_feeds_both_in_time() {
        let seconds = |n: u64| Some(Duration::from_secs(n));
        for (manager, device, wanted) in [
            (None, None, None),
            (seconds(60), None, seconds(30)),
            (None, seconds(15), seconds(5)),
            (seconds(60), seconds(15), seconds(5)),
            (seconds(4), seconds(15), seconds(2)),
        ] {
            assert_eq!(period(manager, device), wanted, "{manager:?} {device:?}");
        }
    }

    #[test]
    fn the_timeout_is_what_the_kernel_tells() {
        let folder = std::env::temp_dir().join(format!("copepod-watchdog-{:x}", fastrand::u64(..)));
        let (devices, class) = (folder.join("dev"), folder.join("class"));
        fs::create_dir_all(&devices).unwrap();
        for (name, text) in [("watchdog0", "15\n"), ("watchdog1", "9999999\n"), ("watchdog2", "none\n")] {
            fs::create_dir_all(class.join(name)).unwrap();
            fs::write(class.join(name).join("timeout"), text).unwrap();
        }
        for name in ["watchdog", "watchdog0", "watchdog1", "watchdog2", "watchdog3"] {
            fs::write(devices.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink("watchdog1", devices.join("link")).unwrap();
        for (name, wanted) in [
            ("watchdog", Some(Duration::from_secs(15))),
            ("watchdog0", Some(Duration::from_secs(15))),
            ("link", Some(MAX_TIMEOUT)),
            ("watchdog2", None),
            ("watchdog3", None),
            ("missing", None),
        ] {
            assert_eq!(told_timeout(&devices.join(name), &class), wanted, "{name}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_is_no_device_is_not_written_to() {
        let file = std::env::temp_dir().join(format!("copepod-no-watchdog-{:x}", fastrand::u64(..)));
        fs::write(&file, "").unwrap();
        assert!(Device::open(&file).unwrap_err().to_string().contains("not a device"));
        assert_eq!(fs::read(&file).unwrap(), b"");
        fs::remove_file(&file).unwrap();
        assert!(Device::open(&file).is_err());
    }
}
