//! The service manager (systemd), told how the node is doing: sd_notify(3).
//!
//! The protocol is a datagram of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names. It is small
//! enough to be spoken here: of a crate for it, this agent would use one function.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Characters of a status line: what a terminal shows of it, and far below what a datagram holds.
const MAX_STATUS: usize = 512;
/// The shortest watchdog period that is kept; a shorter one is a mistake that would keep the board busy.
const MIN_WATCHDOG: Duration = Duration::from_millis(100);

/// The service manager, or nobody: then everything is said to no one.
#[derive(Clone, Debug, Default)]
pub struct ServiceManager(Option<Arc<Manager>>);

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    status: String,
    /// `READY=1` did not get there yet: the manager's queue was full. It would end what is never ready.
    owes_ready: bool,
    /// A failure is told once until something gets through.
    failed: bool,
}

impl ServiceManager {
    /// Whoever the variables `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` name.
    #[must_use]
    pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> ServiceManager {
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return ServiceManager::default();
        };
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
            [b'/', ..] => SocketAddr::from_pathname(&name),
            _ => Err(std::io::Error::other("neither a path nor an abstract name")),
        };
        let opened = address.and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            // On the control thread: what has no room in the manager's queue is not waited for.
            socket.set_nonblocking(true)?;
            Ok((address, socket))
        });
        match opened {
            Ok((address, socket)) => {
                let watchdog = watchdog(&variable, std::process::id());
                ServiceManager(Some(Arc::new(Manager { socket, address, watchdog, said: Mutex::default() })))
            }
            Err(error) => {
                log::error!("NOTIFY_SOCKET {}: {error}; the service manager is told nothing", name.display());
                ServiceManager::default()
            }
        }
    }

    /// After how much silence the service manager ends this process, if it does.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.0.as_ref()?.watchdog
    }

    /// The node runs, whether or not it has reached the cluster. What does not get there is said again with the
    /// next word of any kind.
    pub fn ready(&self) {
        let sent = self.send("READY=1");
        if let Some(manager) = &self.0 {
            manager.said().owes_ready = !sent;
        }
    }

    /// The node is about to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The control loop turns.
    pub fn alive(&self) {
        let owes_ready = self.0.as_ref().is_some_and(|manager| manager.said().owes_ready);
        if owes_ready {
            self.ready();
        }
        self.send("WATCHDOG=1");
    }

    /// What `systemctl status` shows. Said again only when it is something else.
    pub fn status(&self, text: &str) {
        let Some(manager) = &self.0 else { return };
        let line: String =
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_STATUS).collect();
        if manager.said().status == line {
            return;
        }
        // What did not get there is said again when it is said next.
        if self.send(&format!("STATUS={line}")) {
            manager.said().status = line;
        }
    }

    /// Whether it got there, or nobody is to be told.
    fn send(&self, text: &str) -> bool {
        let Some(manager) = &self.0 else { return true };
        let sent = manager.socket.send_to_addr(text.as_bytes(), &manager.address);
        let mut said = manager.said();
        match sent {
            Ok(_) => {
                said.failed = false;
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut said.failed, true) {
                    log::error!("telling the service manager {text}: {error}");
                }
                false
            }
        }
    }
}

impl Manager {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `WATCHDOG_USEC`, when it is meant for this process.
fn watchdog(variable: impl Fn(&str) -> Option<OsString>, own_pid: u32) -> Option<Duration> {
    let number = |name: &str| Some(variable(name)?.to_str()?.parse::<u64>());
    match number("WATCHDOG_PID") {
        None => {}
        Some(Ok(pid)) if pid == u64::from(own_pid) => {}
        Some(_) => return None,
    }
    match number("WATCHDOG_USEC")? {
        Ok(0) => None,
        Ok(microseconds) => Some(Duration::from_micros(microseconds).max(MIN_WATCHDOG)),
        Err(error) => {
            log::error!("WATCHDOG_USEC: {error}; the service manager's watchdog is not fed");
            None
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn variables(of: &[(&'static str, String)]) -> impl Fn(&str) -> Option<OsString> {
        let of = of.to_vec();
        move |name| of.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer.get(..length).unwrap().to_vec()).unwrap()
    }

    fn says_what_it_is_told(socket: &UnixDatagram, name: String) {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let manager = ServiceManager::from_environment(variables(&[("NOTIFY_SOCKET", name)]));
        manager.ready();
        manager.status("waiting for\na file");
        manager.status("waiting for\na file");
        manager.alive();
        manager.stopping();
        for line in ["READY=1", "STATUS=waiting for a file", "WATCHDOG=1", "STOPPING=1"] {
            assert_eq!(received(socket), line);
        }
    }

    #[test]
    fn a_path_and_an_abstract_name_are_both_addresses() {
        let path = std::env::temp_dir().join(format!("copepod-notify-{:x}", fastrand::u64(..)));
        says_what_it_is_told(&UnixDatagram::bind(&path).unwrap(), path.display().to_string());
        std::fs::remove_file(&path).unwrap();

        let name = format!("copepod-notify-{:x}", fastrand::u64(..));
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        says_what_it_is_told(&UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"));
    }

    #[test]
    fn a_manager_that_does_not_read_is_told_again_that_the_node_is_ready() {
        let path = std::env::temp_dir().join(format!("copepod-notify-{:x}", fastrand::u64(..)));
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let manager =
            ServiceManager::from_environment(variables(&[("NOTIFY_SOCKET", path.display().to_string())]));
        // Its queue is full: nothing of this waits, and the last gets nowhere.
        let mut queued = 0;
        while manager.send("X=1") {
            queued += 1;
            assert!(queued < 100_000, "a queue without an end");
        }
        manager.ready();
        manager.status("registering");
        for _ in 0..queued {
            assert_eq!(received(&socket), "X=1");
        }
        manager.alive();
        manager.status("registering");
        for line in ["READY=1", "WATCHDOG=1", "STATUS=registering"] {
            assert_eq!(received(&socket), line);
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn without_a_service_manager_nothing_is_said() {
        for name in ["", "vsock:2:1234", &format!("/{}", "x".repeat(200))] {
            let manager = ServiceManager::from_environment(variables(&[
                ("NOTIFY_SOCKET", name.to_owned()),
                ("WATCHDOG_USEC", "1000000".to_owned()),
            ]));
            assert!(manager.0.is_none(), "{name}");
            assert_eq!(manager.watchdog(), None, "{name}");
            manager.ready();
        }
    }

    #[test]
    fn the_watchdog_is_fed_only_when_it_is_ours() {
        let (pid, second) = (4711, Some(Duration::from_secs(1)));
        for (microseconds, of, wanted) in [
            (Some("1000000"), None, second),
            (Some("1000000"), Some("4711"), second),
            (Some("1000000"), Some("4712"), None),
            (Some("1000000"), Some("x"), None),
            (Some("1"), None, Some(MIN_WATCHDOG)),
            (Some("0"), None, None),
            (Some("soon"), None, None),
            (None, Some("4711"), None),
        ] {
            let all: Vec<(&'static str, String)> = [("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", of)]
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?.to_owned())))
                .collect();
            assert_eq!(watchdog(variables(&all), pid), wanted, "{microseconds:?} {of:?}");
        }
    }
}
