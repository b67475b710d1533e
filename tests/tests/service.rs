//! The agent as a service: what it tells a service manager (sd_notify(3)), and the watchdogs that it feeds.
//!
//! No cluster: all of this holds before one is reached.

use std::{
    fs::{File, OpenOptions},
    io::Read,
    os::unix::{fs::OpenOptionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tests::{agent, bed::process::Process, Bed};

/// `O_NONBLOCK`: a FIFO is opened for reading before anybody writes to it.
const O_NONBLOCK: i32 = 0o4000;
/// How long the agent may take to say something on a busy machine.
const SAID: Duration = Duration::from_secs(30);
/// What the manager gives as `WatchdogSec`, in microseconds.
const WATCHDOG_USEC: u64 = 400_000;

/// A certificate authority that begins in 2099, as a kubeconfig has it.
const LATER_AUTHORITY: &str =
    "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUJDekNCc2dJQkFUQUtCZ2dxaGtqT1BRUURBakFRTVE0d0RBWURWUVFEREFW\
    c1lYUmxjakFpR0E4eU1EazUKTURFd01UQXdNREF3TUZvWUR6SXdPVGt4TWpNeE1EQXdNREF3V2pBUU1RNHdEQVlEVlFRRERBVnNZ\
    WFJsY2pCWgpNQk1HQnlxR1NNNDlBZ0VHQ0NxR1NNNDlBd0VIQTBJQUJNaWFNUXNvRisrZnJ1L3FIVWh2UkNuOVFQNkRZdXkrCmt4\
    Q1hFamQrbWtVcFJPUzVXUXc4V2xsbnZkUXB2blI1bWxrVFk0VnJSUDFvYU0yc2o0RWM2dTR3Q2dZSUtvWkkKemowRUF3SURTQUF3\
    UlFJZ01vcmQ2SEhRNWxremlVUmtrN3J6YU16bitiK0pTRXIvTnlBc0owNXNiQU1DSVFDMwpsZlMxb3RyQVZOWW92ZzJEZExYeElh\
    OHB5OXlsdGdHTkRYUEpsTm52MlE9PQotLS0tLUVORCBDRVJUSUZJQ0FURS0tLS0tCg==";

/// A service manager's end of the conversation.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    heard: Vec<(Instant, String)>,
}

impl Manager {
    fn listen(folder: &Path) -> Manager {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket in the bed's folder");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        Manager { socket, path, heard: Vec::new() }
    }

    /// Listens until what was heard so far satisfies `enough`.
    #[track_caller]
    fn hear(&mut self, what: &str, enough: impl Fn(&[(Instant, String)]) -> bool) {
        let deadline = Instant::now() + SAID;
        let mut buffer = [0; 4096];
        while !enough(&self.heard) {
            assert!(Instant::now() < deadline, "{what} was not heard; only: {:?}", self.heard);
            if let Ok(length) = self.socket.recv(&mut buffer) {
                let text = String::from_utf8(buffer[..length].to_vec()).expect("UTF-8");
                self.heard.push((Instant::now(), text));
            }
        }
    }

    #[track_caller]
    fn hear_line(&mut self, line: &str) {
        self.hear(line, |heard| heard.iter().any(|(_, text)| text.contains(line)));
    }

    fn feedings(heard: &[(Instant, String)]) -> Vec<Instant> {
        heard.iter().filter(|(_, text)| text == "WATCHDOG=1").map(|(at, _)| *at).collect()
    }
}

/// A FIFO that stands for a watchdog device, open for reading.
fn fifo(path: &Path) -> File {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
    OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).expect("the FIFO's reading end")
}

/// The agent in a bed without a cluster, waiting for a bootstrap file that is not there.
fn agent(bed: &Bed, manager: &Manager, arguments: &[&str], variables: &[(&str, String)]) -> Process {
    let mut command: Command = bed.command(agent::provide(bed));
    let data = bed.folder().join("data");
    command.arg("--data-dir").arg(&data).arg("--bootstrap-file").arg(bed.folder().join("bootstrap.conf"));
    command.args(["--node-ip", "192.0.2.7"]).args(arguments);
    command.env("NOTIFY_SOCKET", &manager.path).envs(variables.iter().map(|(name, value)| (name, value)));
    bed.spawn("agent-service", command)
}

#[test]
fn it_is_ready_before_the_cluster_and_feeds_both_watchdogs_until_it_stops() {
    let bed = Bed::empty();
    let mut manager = Manager::listen(bed.folder());
    let device = bed.folder().join("watchdog");
    let mut fed = fifo(&device);

    let watchdog = ("WATCHDOG_USEC", WATCHDOG_USEC.to_string());
    let device_name = device.to_string_lossy();
    let mut process = agent(&bed, &manager, &["--watchdog-device", &device_name], &[watchdog]);
    manager.hear_line("READY=1");
    manager.hear_line("STATUS=");
    manager.hear("ten feedings", |heard| Manager::feedings(heard).len() >= 10);
    let times = Manager::feedings(&manager.heard);
    // Half of WATCHDOG_USEC is asked for; a busy machine may be late, but never by another half on average.
    let mean = (times[9] - times[0]) / 9;
    let (least, most) = (Duration::from_micros(WATCHDOG_USEC / 4), Duration::from_micros(WATCHDOG_USEC));
    assert!(mean >= least && mean < most, "fed every {mean:?}");
    let mut food = [0; 4096];
    let length = fed.read(&mut food).expect("the device was fed");
    assert!(length >= 9 && food[..length].iter().all(|byte| *byte == 0), "{:?}", &food[..length]);

    process.signal(Signal::TERM);
    manager.hear_line("STOPPING=1");
    let status = process.wait(SAID);
    assert!(status.success(), "{status}");
    let mut last = Vec::new();
    fed.read_to_end(&mut last).expect("the rest");
    assert_eq!(last.last(), Some(&b'V'), "the device is stopped by the magic close: {last:?}");
    assert_eq!(last.iter().filter(|byte| **byte != 0).count(), 1, "{last:?}");
}

#[test]
fn a_killed_agent_leaves_the_board_to_its_watchdog() {
    let bed = Bed::empty();
    let mut manager = Manager::listen(bed.folder());
    let device = bed.folder().join("watchdog");
    let mut fed = fifo(&device);
    let mut process = agent(&bed, &manager, &["--watchdog-device", &device.to_string_lossy()], &[]);
    let mut all = vec![bed.wait_for("the device to be fed", SAID, || {
        let mut first = [0];
        matches!(fed.read(&mut first), Ok(1)).then_some(first[0])
    })];
    process.signal(Signal::KILL);
    process.wait(SAID);
    fed.read_to_end(&mut all).expect("what it was fed");
    manager.hear_line("READY=1");
    assert!(!all.contains(&b'V'), "{all:?}");
    assert!(Manager::feedings(&manager.heard).is_empty(), "no WATCHDOG_USEC, so nothing is fed");
}

#[test]
fn another_process_watchdog_and_a_missing_device_are_not_fed() {
    let bed = Bed::empty();
    let mut manager = Manager::listen(bed.folder());
    let missing = bed.folder().join("no-watchdog");
    let variables = [("WATCHDOG_USEC", "100000".to_owned()), ("WATCHDOG_PID", "1".to_owned())];
    let mut process = agent(&bed, &manager, &["--watchdog-device", &missing.to_string_lossy()], &variables);
    manager.hear_line("STATUS=");
    std::thread::sleep(Duration::from_secs(1));
    process.signal(Signal::TERM);
    manager.hear_line("STOPPING=1");
    assert!(process.wait(SAID).success());
    assert!(Manager::feedings(&manager.heard).is_empty(), "{:?}", manager.heard);
    let log = process.output();
    assert!(log.contains("no-watchdog: No such file"), "{log}");
    assert!(!missing.exists());
}

#[test]
fn a_bootstrap_file_is_waited_for_and_taken_up_when_it_is_dropped() {
    let bed = Bed::empty();
    let mut manager = Manager::listen(bed.folder());
    let mut process = agent(&bed, &manager, &[], &[]);
    manager.hear_line("READY=1");
    manager.hear_line("STATUS=waiting for the bootstrap file");
    // Longer than the agent's own pause between two looks: what it waits for, it says once.
    std::thread::sleep(Duration::from_secs(11));
    let waiting = |process: &Process| process.output().matches("waiting for the bootstrap file").count();
    assert_eq!(waiting(&process), 1, "{}", process.output());
    assert!(process.output().contains("bootstrap.conf: not there"), "{}", process.output());

    bed.write("bootstrap.conf", "half a f");
    bed.wait_for("the broken file to be named", SAID, || (waiting(&process) == 2).then_some(()));
    // Nobody listens there: that it is tried says that the file was taken up.
    bed.write("bootstrap.conf", &kubeconfig(", insecure-skip-tls-verify: true"));
    manager.hear_line("STATUS=cannot join the cluster yet: ");
    assert!(process.output().contains("cannot reach the API server 127.0.0.1:1"), "{}", process.output());

    process.signal(Signal::TERM);
    assert!(process.wait(SAID).success());
}

#[test]
fn a_clock_that_is_not_set_is_waited_for_and_the_network_left_alone() {
    let bed = Bed::empty();
    let mut manager = Manager::listen(bed.folder());
    let authority = format!(", certificate-authority-data: {LATER_AUTHORITY}");
    bed.write("bootstrap.conf", &kubeconfig(&authority));
    let mut process = agent(&bed, &manager, &[], &[]);
    manager.hear_line("READY=1");
    manager.hear_line("STATUS=the clock says 20");
    let log = process.output();
    assert!(log.contains(", before 2099-01-01T00:00:00Z, "), "{log}");
    assert!(log.contains("waiting for it to be set (NTP)"), "{log}");
    std::thread::sleep(Duration::from_secs(11));
    assert_eq!(process.output(), log, "it is said once, and nothing is tried");

    // The cluster of another file may have begun already.
    bed.write("bootstrap.conf", &kubeconfig(", insecure-skip-tls-verify: true"));
    manager.hear_line("STATUS=cannot join the cluster yet: ");
    process.signal(Signal::TERM);
    assert!(process.wait(SAID).success());
}

/// A bootstrap file for an API server that is not there, with more fields of its cluster.
fn kubeconfig(cluster: &str) -> String {
    format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:1'{cluster}}}}}]\n\
         users: [{{name: u, user: {{token: abcdef.0123456789abcdef}}}}]\n"
    )
}
